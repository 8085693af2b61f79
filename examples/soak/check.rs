//! The checker: what was sent, how it ended, and whether that may be.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};
use stdiobus::{Error, ErrorCode};

use crate::plan::{EXIT_STATUS, Place, Work};
use crate::worker::{FAILURE, NO_SESSION};

/// Violations of each kind that are shown; all are counted.
const SHOWN: u64 = 6;

/// A request that was sent, as its sender knows it.
#[derive(Debug, Clone)]
pub struct Sent {
    pub nonce: u64,
    /// The connection, or the handle of the bus and the task.
    pub client: u64,
    /// 0: none whose order counts.
    pub session: u64,
    /// Its place in the session.
    pub seq: u64,
    pub work: Work,
    pub place: Place,
    pub may_time_out: bool,
    /// A turn of its session was given up: until the agent has ended it, what the agent asks in that
    /// session is nobody's.
    pub may_be_declined: bool,
    /// The actor and its step, for violations.
    pub by: (u64, u64),
}

impl Sent {
    /// The params that tell a worker what to do, and the answer whose it is.
    pub fn params(&self, session: Option<&str>) -> Value {
        let mut params = json!({
            "n": self.nonce, "c": self.client, "s": self.session, "q": self.seq, "do": self.work.name(),
        });
        if let Some(session) = session {
            params["sessionId"] = json!(session);
        }
        match self.work {
            Work::Big { bytes } => params["fill"] = json!("x".repeat(bytes as usize)),
            Work::TooLarge => params["fill"] = json!("x".repeat(crate::plan::FRAME_MAX)),
            Work::Late { ms } => params["ms"] = json!(ms),
            Work::Notify { count } => params["count"] = json!(count),
            Work::Stream { chunks, ms } => {
                params["chunks"] = json!(chunks);
                params["ms"] = json!(ms);
                params["_meta"] = json!({"progressToken": self.nonce});
            }
            _ => {}
        }
        params
    }

    /// For violations.
    pub fn who(&self) -> String {
        let (actor, step) = self.by;
        format!("actor {actor} step {step}")
    }

    fn fits(&self, answer: &Value) -> bool {
        let number = |name: &str| answer[name].as_u64();
        number("n") == Some(self.nonce)
            && number("c") == Some(self.client)
            && number("s") == Some(self.session)
            && number("q") == Some(self.seq)
    }
}

/// A request's error, the same whether it came over a socket or through the client.
#[derive(Debug)]
pub struct Failure {
    kind: Option<ErrorCode>,
    code: Option<i64>,
    data: Value,
    text: String,
}

impl Failure {
    /// The `error` member of an answer.
    pub fn of_wire(error: &Value) -> Failure {
        Failure {
            kind: None,
            code: error["code"].as_i64(),
            data: error["data"].clone(),
            text: error.to_string(),
        }
    }

    pub fn of_client(error: &Error) -> Failure {
        Failure {
            kind: error.kind(),
            code: error.rpc_code(),
            data: error.rpc_data().cloned().unwrap_or_default(),
            text: format!("{error:?}"),
        }
    }

    /// Whether the agent doesn't know the session: it is a newer one than that which had made it.
    pub fn is_forgotten(&self) -> bool {
        self.code == Some(NO_SESSION)
    }

    /// Whether it says that a worker had taken the request with it.
    pub fn is_exit(&self) -> bool {
        self.data["reason"] == "worker_exited"
    }
}

/// How a request ended.
#[derive(Debug)]
pub enum End {
    Answer(Value),
    Failed(Failure),
    /// By its sender.
    GivenUp,
}

/// What was done to the workers of a place, since the beginning.
#[derive(Debug, Default)]
pub struct Causes {
    pub killed: AtomicU64,
    pub terminated: AtomicU64,
    pub exited: AtomicU64,
    pub reloaded: AtomicU64,
}

/// All that is counted.
#[derive(Debug, Default)]
pub struct Ledger {
    pub sent: AtomicU64,
    pub answered: AtomicU64,
    pub cancelled: AtomicU64,
    pub failed: AtomicU64,
    pub lost: AtomicU64,
    pub duplicated: AtomicU64,
    pub misdelivered: AtomicU64,
    pub disordered: AtomicU64,
    pub unexplained: AtomicU64,
    pub left_behind: AtomicU64,
    pub told: AtomicU64,
    pub heard: AtomicU64,
    numbers: AtomicU64,
    /// The requests of this round that were answered.
    answers: Mutex<Vec<u64>>,
    errors: Mutex<BTreeMap<&'static str, u64>>,
    faults: Mutex<BTreeMap<&'static str, u64>>,
    causes: [[Causes; 4]; 2],
    violations: Mutex<Vec<String>>,
}

pub fn one(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

pub fn get(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Ledger {
    /// A number that nothing else has: a nonce, a client, a session.
    pub fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub fn causes(&self, place: Place) -> &Causes {
        &self.causes[place.bus as usize][place.pool as usize]
    }

    pub fn fault(&self, kind: &'static str) {
        *lock(&self.faults).entry(kind).or_default() += 1;
    }

    /// A request is about to be sent.
    pub fn sends(&self, sent: &Sent) {
        one(&self.sent);
        if let Some(fault) = sent.work.fault() {
            self.fault(fault);
        }
        if matches!(sent.work, Work::Exit | Work::Half) {
            one(&self.causes(sent.place).exited);
        }
    }

    /// A request has ended, which it does once.
    pub fn ends(&self, sent: &Sent, end: End) {
        match end {
            End::GivenUp => one(&self.cancelled),
            End::Answer(answer) => {
                one(&self.answered);
                lock(&self.answers).push(sent.nonce);
                self.check_answer(sent, &answer);
            }
            End::Failed(failure) => {
                one(&self.failed);
                match self.explain(sent, &failure) {
                    Some(kind) => *lock(&self.errors).entry(kind).or_default() += 1,
                    None => self.violates(
                        &self.unexplained,
                        format!(
                            "{}: no fault explains {} of {sent:?}",
                            sent.who(),
                            failure.text
                        ),
                    ),
                }
            }
        }
    }

    fn check_answer(&self, sent: &Sent, answer: &Value) {
        let expected = !matches!(
            sent.work,
            Work::Hold | Work::Exit | Work::Half | Work::Fail | Work::Oversize | Work::TooLarge
        );
        let got = &answer["got"];
        let declined = sent.may_be_declined && got["data"]["reason"] == "no_client";
        let asked = sent.work != Work::Ask || got.as_u64() == Some(sent.nonce) || declined;
        let filled = match sent.work {
            Work::Big { bytes } => answer["fill"].as_str().map(str::len) == Some(bytes as usize),
            _ => true,
        };
        if !sent.fits(answer) || !expected || !asked || !filled {
            let mut text = answer.to_string();
            text.truncate(400);
            self.violates(
                &self.misdelivered,
                format!("{}: {sent:?} was answered {text}", sent.who()),
            );
        }
    }

    /// What an error counts as; `None` where nothing that was done explains it.
    fn explain(&self, sent: &Sent, failure: &Failure) -> Option<&'static str> {
        let causes = self.causes(sent.place);
        let happened = |cause: &AtomicU64, kind| (get(cause) > 0).then_some(kind);
        let reason = failure.data["reason"].as_str();
        match (failure.code, reason) {
            (Some(FAILURE), _) if sent.work == Work::Fail && sent.fits(&failure.data) => {
                Some("the worker's own error")
            }
            (Some(NO_SESSION), _) if sent.fits(&failure.data) => {
                let ended = [&causes.killed, &causes.terminated, &causes.exited];
                ended
                    .into_iter()
                    .find_map(|cause| happened(cause, "session gone with its agent"))
            }
            (Some(-32603), Some("too_large")) if sent.work == Work::Oversize => {
                Some("answer too large")
            }
            (Some(-32600), Some("too_large")) if sent.work == Work::TooLarge => {
                Some("request too large")
            }
            (Some(-32011), Some("worker_exited")) => {
                let exit = &failure.data["exit"];
                match (exit["signal"].as_i64(), exit["code"].as_i64()) {
                    (Some(9), _) => happened(&causes.killed, "worker killed"),
                    (Some(15), _) => happened(&causes.terminated, "worker terminated")
                        .or_else(|| happened(&causes.reloaded, "worker replaced")),
                    (_, Some(0)) => happened(&causes.reloaded, "worker replaced"),
                    (_, Some(code)) if code == i64::from(EXIT_STATUS) => {
                        happened(&causes.exited, "worker exited")
                    }
                    _ => None,
                }
            }
            (None, _) => self.explain_own(sent, failure),
            _ => None,
        }
    }

    /// An error of the client itself.
    fn explain_own(&self, sent: &Sent, failure: &Failure) -> Option<&'static str> {
        match failure.kind? {
            ErrorCode::Timeout if sent.may_time_out => Some("timeout"),
            ErrorCode::ResourceExhausted if failure.text.contains("would be in flight") => {
                Some("budget")
            }
            ErrorCode::InvalidArgument if sent.work == Work::TooLarge => Some("request too large"),
            _ => None,
        }
    }

    pub fn violates(&self, counter: &AtomicU64, text: String) {
        if counter.fetch_add(1, Ordering::Relaxed) < SHOWN {
            eprintln!("VIOLATION: {text}");
            lock(&self.violations).push(text);
        }
    }

    /// The requests that were answered since this was last called.
    pub fn take_answered(&self) -> Vec<u64> {
        std::mem::take(&mut *lock(&self.answers))
    }

    pub fn is_clean(&self) -> bool {
        lock(&self.violations).is_empty()
    }

    pub fn violations(&self) -> Vec<String> {
        lock(&self.violations).clone()
    }

    pub fn errors(&self) -> BTreeMap<&'static str, u64> {
        lock(&self.errors).clone()
    }

    pub fn faults(&self) -> BTreeMap<&'static str, u64> {
        lock(&self.faults).clone()
    }

    /// Each request has ended, and once; to be asked while nothing is in flight.
    pub fn balance(&self) {
        let ended =
            get(&self.answered) + get(&self.cancelled) + get(&self.failed) + get(&self.lost);
        let sent = get(&self.sent);
        if sent != ended {
            self.violates(
                &self.lost,
                format!("{sent} were sent, and {ended} have ended"),
            );
        }
    }
}
