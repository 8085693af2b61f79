//! Tasks that use the async client, of the bus in this process or of the program.

mod answers;

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use stdiobus::{Error, RequestOptions, RpcError, StdioBus, WorkerRequest};
use tokio::time::{sleep, timeout};

use answers::{read, together};

use crate::check::{End, Failure, Ledger, Sent, one};
use crate::plan::{self, Act, Place, Pool, SESSIONS, Work};

/// A request that has not ended by then is lost. The client's own limit is half of it.
pub const LOST: Duration = Duration::from_secs(60);
/// The limit of requests that say nothing else.
pub const LIMIT: Duration = Duration::from_secs(30);

/// What the tasks of one handle of a bus have in common.
#[derive(Clone)]
pub struct Handle {
    pub bus: StdioBus,
    /// The handle, as workers see it.
    pub client: u64,
    /// Whether sessions can be ended through it.
    pub is_native: bool,
    pub ledger: Arc<Ledger>,
    pub seed: u64,
}

/// The answer to what workers ask: only what they ask of this handle is its affair.
pub fn answer(request: &WorkerRequest, client: u64, ledger: &Ledger) -> Result<Value, RpcError> {
    let params = request.params();
    if params["c"].as_u64() != Some(client) {
        let text = format!("handle {client} is asked {params}");
        ledger.violates(&ledger.misdelivered, text);
    }
    Ok(json!({"n": params["n"]}))
}

struct Session {
    key: u64,
    name: String,
    seq: u64,
    /// Whether a turn of it was given up.
    gave_up: bool,
}

/// One task, for one round.
pub struct Task {
    on: Handle,
    place: Place,
    actor: u64,
    step: u64,
    sessions: Vec<Session>,
}

impl Task {
    /// Takes its steps until the time is over; returns the number of the next.
    pub async fn run(on: Handle, place: Place, actor: u64, step: u64, until: Instant) -> u64 {
        let sessions = Vec::new();
        let mut task = Task {
            on,
            place,
            actor,
            step,
            sessions,
        };
        while Instant::now() < until {
            if task.has_sessions().await {
                let (act, pause) = plan::act(task.on.seed, actor, task.step, place.pool, false);
                task.bounded(act).await;
                sleep(Duration::from_millis(pause)).await;
            }
            task.step += 1;
        }
        task.end_sessions().await;
        task.step
    }

    async fn bounded(&mut self, act: Act) {
        let before = self.step;
        if timeout(LOST, self.act(act)).await.is_err() {
            let ledger = &self.on.ledger;
            let text = format!("actor {} step {before}: {act:?} has no end", self.actor);
            ledger.violates(&ledger.lost, text);
        }
    }

    /// An agent makes its sessions; others take any name.
    async fn has_sessions(&mut self) -> bool {
        while self.sessions.len() < SESSIONS {
            let key = self.on.ledger.number();
            let name = match self.place.pool {
                Pool::Acp => match self.new_session().await {
                    Some(name) => name,
                    None => return false,
                },
                _ => format!("s{key}"),
            };
            self.sessions.push(Session {
                key,
                name,
                seq: 0,
                gave_up: false,
            });
        }
        true
    }

    async fn new_session(&mut self) -> Option<String> {
        let sent = self.sent(Work::Echo, None, false);
        let mut params = sent.params(None);
        params["cwd"] = json!("/");
        params["mcpServers"] = json!([]);
        let options = RequestOptions::new().pool(self.place.pool.name());
        let outcome = self
            .on
            .bus
            .request_with("session/new", params, options)
            .await;
        let name = outcome
            .as_ref()
            .ok()
            .and_then(|result| result["sessionId"].as_str());
        let name = name.map(str::to_owned);
        self.settle(&sent, outcome);
        name
    }

    async fn end_sessions(&mut self) {
        if !self.on.is_native {
            return;
        }
        for session in &self.sessions {
            // One that nothing was sent for is bound to nothing.
            let _ = self.on.bus.end_session(&session.name).await;
        }
    }

    async fn act(&mut self, act: Act) {
        match act {
            Act::Burst { count, session } => self.burst(count, session).await,
            Act::One {
                work: Work::Stream { chunks, ms },
                session,
            } => {
                self.stream(Work::Stream { chunks, ms }, session, None)
                    .await;
            }
            Act::One { work, session } => self.one(work, session).await,
            Act::GiveUp {
                work,
                session,
                micros,
            } => self.give_up(work, session, micros).await,
            Act::TimeOut {
                limit_ms,
                work,
                session,
            } => {
                let (sent, params, options) = self.prepare(work, Some(session), true);
                let options = options.timeout(Duration::from_millis(limit_ms));
                let request = self.on.bus.request_with(self.method(work), params, options);
                let outcome = request.await;
                self.settle(&sent, outcome);
            }
            Act::Try { bytes, session } => {
                let work = Work::Big { bytes };
                let (sent, params, options) = self.prepare(work, Some(session), false);
                let outcome = match self
                    .on
                    .bus
                    .try_request_with(self.method(work), params, options)
                {
                    Ok(request) => request.await,
                    Err(error) => Err(error),
                };
                self.settle(&sent, outcome);
            }
            Act::Tell { count, session } => self.tell(count, session).await,
            // Of clients on sockets.
            _ => {}
        }
    }

    async fn one(&mut self, work: Work, session: usize) {
        let (sent, params, options) = self.prepare(work, Some(session), false);
        let outcome = self
            .on
            .bus
            .request_with(self.method(work), params, options)
            .await;
        self.settle(&sent, outcome);
    }

    async fn burst(&mut self, count: u64, session: Option<usize>) {
        let mut all = Vec::new();
        for _ in 0..count {
            let (sent, params, options) = self.prepare(Work::Echo, session, false);
            let request = self
                .on
                .bus
                .request_with(self.method(Work::Echo), params, options);
            all.push((sent, request));
        }
        let (sent, requests): (Vec<_>, Vec<_>) = all.into_iter().unzip();
        for (sent, outcome) in sent.iter().zip(together(requests).await) {
            self.settle(sent, outcome);
        }
    }

    async fn give_up(&mut self, work: Work, session: usize, micros: u64) {
        let patience = Duration::from_micros(micros);
        if let Work::Stream { .. } = work {
            self.sessions[session].gave_up = true;
            return self.stream(work, session, Some(patience)).await;
        }
        let (sent, params, options) = self.prepare(work, Some(session), false);
        let request = self.on.bus.request_with(self.method(work), params, options);
        // The first ones are not even sent.
        if micros < 100 {
            drop(request);
            return self.on.ledger.ends(&sent, End::GivenUp);
        }
        match timeout(patience, request).await {
            Ok(outcome) => self.settle(&sent, outcome),
            Err(_) => self.on.ledger.ends(&sent, End::GivenUp),
        }
    }

    /// Without a protocol a worker doesn't hear that a stream was given up, and what it goes on to say
    /// can't be told from what the next one of that session hears: so there each has its own.
    async fn stream(&mut self, work: Work, session: usize, patience: Option<Duration>) {
        let own = format!("s{}", self.on.ledger.number());
        let (sent, mut params, mut options) = self.prepare(work, Some(session), false);
        let is_plain = self.place.pool.is_plain();
        let mut sent = sent;
        if is_plain {
            (sent.session, sent.seq) = (0, 0);
            params = sent.params(Some(&own));
            options = options.session_id(&own);
        }
        let stream = self
            .on
            .bus
            .stream_request_with(self.method(work), params, options);
        let reading = read(stream, &sent, &self.on.ledger);
        let outcome = match patience {
            None => Some(reading.await),
            Some(patience) => timeout(patience, reading).await.ok(),
        };
        match outcome {
            Some(outcome) => self.settle(&sent, outcome),
            None => self.on.ledger.ends(&sent, End::GivenUp),
        }
        if is_plain && self.on.is_native {
            let _ = self.on.bus.end_session(&own).await;
        }
    }

    /// They overtake requests that wait for room, so their order isn't looked at.
    async fn tell(&mut self, count: u64, session: usize) {
        for _ in 0..count {
            let (sent, _, options) = self.prepare_unsent(Work::Echo, Some(session), false);
            let sent = Sent { session: 0, ..sent };
            let params = sent.params(Some(&self.sessions[session].name));
            let method = if self.place.pool == Pool::Acp {
                "_note"
            } else {
                "note"
            };
            if self
                .on
                .bus
                .notify_with(method, params, options)
                .await
                .is_ok()
            {
                one(&self.on.ledger.told);
            }
        }
    }

    fn method(&self, work: Work) -> &'static str {
        match (self.place.pool, work) {
            (Pool::Mcp, _) => "tools/call",
            (Pool::Acp, Work::Stream { .. }) => "session/prompt",
            (Pool::Acp, _) => "_work",
            _ => "work",
        }
    }

    fn prepare(
        &mut self,
        work: Work,
        session: Option<usize>,
        may_time_out: bool,
    ) -> (Sent, Value, RequestOptions) {
        let prepared = self.prepare_unsent(work, session, may_time_out);
        self.on.ledger.sends(&prepared.0);
        prepared
    }

    fn prepare_unsent(
        &mut self,
        work: Work,
        session: Option<usize>,
        may_time_out: bool,
    ) -> (Sent, Value, RequestOptions) {
        let sent = self.describe(work, session, may_time_out);
        let options = RequestOptions::new().pool(self.place.pool.name());
        let Some(session) = session else {
            return (sent.clone(), sent.params(None), options.unpinned());
        };
        let name = &self.sessions[session].name;
        let params = sent.params((self.place.pool != Pool::Mcp).then_some(name));
        let options = match self.place.pool {
            Pool::Acp => options,
            _ => options.session_id(name),
        };
        (sent, params, options)
    }

    fn sent(&mut self, work: Work, session: Option<usize>, may_time_out: bool) -> Sent {
        let sent = self.describe(work, session, may_time_out);
        self.on.ledger.sends(&sent);
        sent
    }

    fn describe(&mut self, work: Work, session: Option<usize>, may_time_out: bool) -> Sent {
        let (session, seq, gave_up) = session.map_or((0, 0, false), |index| {
            let session = &mut self.sessions[index];
            session.seq += 1;
            (session.key, session.seq, session.gave_up)
        });
        Sent {
            nonce: self.on.ledger.number(),
            client: self.on.client,
            session,
            seq,
            work,
            place: self.place,
            may_time_out,
            may_be_declined: gave_up && self.place.pool == Pool::Acp,
            by: (self.actor, self.step),
        }
    }

    fn settle(&mut self, sent: &Sent, outcome: Result<Value, Error>) {
        let end = match outcome {
            Ok(answer) => End::Answer(answer),
            Err(error) => {
                let failure = Failure::of_client(&error);
                if failure.is_forgotten() {
                    self.sessions.retain(|session| session.key != sent.session);
                }
                End::Failed(failure)
            }
        };
        self.on.ledger.ends(sent, end);
    }
}
