//! Clients in the clear: what any process does that connects to a bus, and what it should not do.

mod begin;
mod hear;
mod leave;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use crate::check::{Ledger, Sent, one};
use crate::plan::{self, Act, Place, Pool, Work};
use crate::socket::{Socket, Ways};
use crate::tasks::LOST;

/// Who it is, and where it connects.
#[derive(Clone)]
pub struct Outside {
    pub place: Place,
    pub ways: Ways,
    pub actor: u64,
    pub seed: u64,
    pub ledger: Arc<Ledger>,
}

struct Session {
    key: u64,
    name: String,
    seq: u64,
    /// The last of its messages whose prompt answer, or whose end with its worker, was seen.
    seen: u64,
    /// Whether a turn of it was given up.
    gave_up: bool,
}

/// Something that is asked of the bus itself.
enum Own {
    Hello,
    /// Give up the request of this id.
    Cancel(u64),
    /// The same of one that was given up in its protocol's words: nothing comes after this.
    Fence(u64),
}

struct Waiting {
    sent: Sent,
    /// The next piece that it hears.
    next: u64,
    /// Given up in the protocol's words: its answer may be on its way, or never come.
    cancelled: bool,
    /// A turn that is to end: the agent answers it all the same, or the bus, where it had not begun.
    to_end: bool,
}

/// One connection.
struct Client {
    me: Outside,
    step: u64,
    socket: Socket,
    /// The connection, as workers see it.
    client: u64,
    next_id: u64,
    waiting: HashMap<u64, Waiting>,
    own: HashMap<u64, Own>,
    /// The requests of this connection, by nonce, of which something may be said.
    mine: HashSet<u64>,
    sessions: Vec<Session>,
    /// The session that an agent has made just now.
    named: Option<String>,
    /// The last requests that ended: session, place in it, error.
    ended: VecDeque<(u64, u64, Option<i64>)>,
    /// Errors without an id that are due.
    nameless: u64,
}

/// Why a connection can't go on.
struct Broken(String);

type Result<T> = std::result::Result<T, Broken>;

impl From<std::io::Error> for Broken {
    fn from(error: std::io::Error) -> Self {
        Broken(error.to_string())
    }
}

impl Outside {
    /// Takes its steps until the time is over; returns the number of the next.
    pub async fn run(self, mut step: u64, until: Instant) -> u64 {
        while Instant::now() < until {
            let ledger = Arc::clone(&self.ledger);
            match timeout(LOST, Client::connect(self.clone(), step)).await {
                Ok(Ok(mut client)) => {
                    if let Err(Broken(reason)) = client.play(until).await {
                        client.break_off(&reason);
                    }
                    step = client.step;
                }
                Ok(Err(Broken(reason))) => {
                    let text = format!("actor {} can't connect: {reason}", self.actor);
                    ledger.violates(&ledger.lost, text);
                }
                Err(_) => ledger.violates(&ledger.lost, "a client can't connect".into()),
            }
            step += 1;
        }
        step
    }
}

impl Client {
    async fn play(&mut self, until: Instant) -> Result<()> {
        while Instant::now() < until {
            self.begin_sessions().await?;
            let (act, pause) = plan::act(
                self.me.seed,
                self.me.actor,
                self.step,
                self.me.place.pool,
                true,
            );
            match act {
                Act::HalfClose { count } => return self.half_close(count).await,
                Act::Reset { count } => return self.reset(count).await,
                _ => self.act(act).await?,
            }
            // Some of it may still be on its way when the next step comes.
            let open = if self.me.place.pool.is_plain() {
                pause as usize % 4
            } else {
                0
            };
            self.pump(open).await?;
            sleep(Duration::from_millis(pause)).await;
            self.step += 1;
        }
        self.pump(0).await
    }

    async fn act(&mut self, act: Act) -> Result<()> {
        match act {
            Act::Burst { count, session } => self.burst(count, session, Work::Echo).await,
            Act::One { work, session } | Act::TimeOut { work, session, .. } => {
                self.ask(work, Some(session)).await.map(drop)
            }
            Act::Try { bytes, session } => {
                self.ask(Work::Big { bytes }, Some(session)).await.map(drop)
            }
            Act::GiveUp {
                work,
                session,
                micros,
            } => self.give_up(work, session, micros).await,
            Act::Tell { count, session } => self.tell(count, session).await,
            Act::Nonsense { kind } => self.nonsense(kind).await,
            Act::ReadLate { count, bytes, ms } => {
                self.me.ledger.fault("client: reads late");
                self.burst(count, Some(0), Work::Big { bytes }).await?;
                sleep(Duration::from_millis(ms)).await;
                Ok(())
            }
            Act::HalfClose { .. } | Act::Reset { .. } => Ok(()),
        }
    }

    async fn burst(&mut self, count: u64, session: Option<usize>, work: Work) -> Result<()> {
        for _ in 0..count {
            self.ask(work, session).await?;
        }
        Ok(())
    }

    /// Sends a request; its id.
    async fn ask(&mut self, work: Work, session: Option<usize>) -> Result<u64> {
        let sent = self.describe(work, session);
        let name = session.map(|session| self.sessions[session].name.clone());
        let params = sent.params(name.filter(|_| self.me.place.pool != Pool::Mcp).as_deref());
        let method = match (self.me.place.pool, work) {
            (Pool::Mcp, _) => "tools/call",
            (Pool::Acp, Work::Stream { .. }) => "session/prompt",
            (Pool::Acp, _) => "_work",
            _ => "work",
        };
        self.request(sent, session, method, params).await
    }

    async fn request(
        &mut self,
        sent: Sent,
        session: Option<usize>,
        method: &str,
        params: Value,
    ) -> Result<u64> {
        let id = self.id();
        let mut message = json!({"id": id, "method": method, "params": params});
        self.name_session(&mut message, session);
        self.me.ledger.sends(&sent);
        self.mine.insert(sent.nonce);
        let waiting = Waiting {
            sent,
            next: 0,
            cancelled: false,
            to_end: false,
        };
        self.waiting.insert(id, waiting);
        self.send(message).await?;
        Ok(id)
    }

    fn name_session(&self, message: &mut Value, session: Option<usize>) {
        if let Some(session) = session.filter(|_| self.me.place.pool != Pool::Acp) {
            message["sessionId"] = json!(self.sessions[session].name);
        }
    }

    async fn give_up(&mut self, work: Work, session: usize, micros: u64) -> Result<()> {
        let id = self.ask(work, Some(session)).await?;
        sleep(Duration::from_micros(micros)).await;
        let is_turn = matches!(work, Work::Stream { .. });
        if let Some(session) = self.sessions.get_mut(session) {
            session.gave_up |= is_turn;
        }
        match self.me.place.pool {
            Pool::Acp if is_turn && id % 2 == 0 => {
                if let Some(waiting) = self.waiting.get_mut(&id) {
                    waiting.to_end = true;
                }
                let params = json!({"sessionId": self.sessions[session].name});
                self.send(json!({"method": "session/cancel", "params": params}))
                    .await
            }
            Pool::Mcp if id % 2 == 0 => {
                if let Some(waiting) = self.waiting.get_mut(&id) {
                    waiting.cancelled = true;
                }
                let params = json!({"requestId": id});
                self.send(json!({"method": "notifications/cancelled", "params": params}))
                    .await?;
                self.ask_bus(Own::Fence(id), id).await
            }
            _ => self.ask_bus(Own::Cancel(id), id).await,
        }
    }

    async fn ask_bus(&mut self, own: Own, id: u64) -> Result<()> {
        let ask = self.id();
        self.own.insert(ask, own);
        let params = json!({"requestId": id});
        self.send(json!({"id": ask, "method": "stdio_bus/cancel", "params": params}))
            .await
    }

    async fn tell(&mut self, count: u64, session: usize) -> Result<()> {
        for _ in 0..count {
            let sent = self.describe(Work::Echo, Some(session));
            let name = &self.sessions[session].name;
            let method = if self.me.place.pool == Pool::Acp {
                "_note"
            } else {
                "note"
            };
            let params = sent.params((self.me.place.pool != Pool::Mcp).then_some(name));
            let mut message = json!({"method": method, "params": params});
            self.name_session(&mut message, Some(session));
            one(&self.me.ledger.told);
            self.send(message).await?;
        }
        Ok(())
    }

    async fn nonsense(&mut self, kind: u64) -> Result<()> {
        self.me.ledger.fault("client: garbage");
        self.nameless += 1;
        let lines: [&[u8]; 3] = [
            b"no \xff JSON\n",
            b"{\"half\":\n",
            b"[{\"jsonrpc\":\"2.0\",\"id\":1}]\n",
        ];
        self.socket.write(lines[kind as usize]).await?;
        Ok(())
    }

    /// Takes what comes until no more than so many wait.
    async fn pump(&mut self, open: usize) -> Result<()> {
        while self
            .waiting
            .values()
            .filter(|waiting| !waiting.cancelled)
            .count()
            > open
            || !self.own.is_empty()
            || self.nameless > 0
        {
            let line = timeout(LOST, self.socket.line()).await;
            let line = line.map_err(|_| Broken(format!("nothing comes within {LOST:?}")))??;
            let line = line.ok_or_else(|| Broken("the bus has closed the connection".into()))?;
            self.take(&line).await?;
        }
        Ok(())
    }

    fn id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id - 1
    }

    fn describe(&mut self, work: Work, session: Option<usize>) -> Sent {
        let (session, seq, gave_up) = session.map_or((0, 0, false), |index| {
            let session = &mut self.sessions[index];
            session.seq += 1;
            (session.key, session.seq, session.gave_up)
        });
        Sent {
            nonce: self.me.ledger.number(),
            client: self.client,
            session,
            seq,
            work,
            place: self.me.place,
            may_time_out: false,
            may_be_declined: gave_up && self.me.place.pool == Pool::Acp,
            by: (self.me.actor, self.step),
        }
    }

    async fn send(&mut self, mut message: Value) -> Result<()> {
        message["jsonrpc"] = json!("2.0");
        if message["id"].is_null() || message["method"].is_string() {
            message["pool"] = json!(self.me.place.pool.name());
        }
        let line = format!("{message}\n");
        let writing = timeout(LOST, self.socket.write(line.as_bytes())).await;
        Ok(writing.map_err(|_| Broken("the bus doesn't read".into()))??)
    }
}
