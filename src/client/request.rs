//! A request in flight.

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::oneshot;

use super::check_running;
use crate::driver::{Command, Ended, Handle, Outcome};
use crate::error::{Error, ErrorCode, Result};
use crate::rpc::{self, Route};

/// How a request travels, and how long it may take.
///
/// Each option either reaches the wire or is refused.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct RequestOptions {
    timeout: Timeout,
    session_id: Option<String>,
    unpinned: bool,
    pool: Option<String>,
    agent_id: Option<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Timeout {
    #[default]
    Default,
    Never,
    After(Duration),
}

impl RequestOptions {
    /// The bus's timeout, its own session, and whatever pool that leads to.
    pub fn new() -> Self {
        Self::default()
    }

    /// How long to wait for the answer, from the first poll on; `None` waits
    /// for ever.
    #[must_use]
    pub fn timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.timeout = timeout.into().map_or(Timeout::Never, Timeout::After);
        self
    }

    /// The session it belongs to: all messages of a session reach the same
    /// worker of a pool, in their order.
    #[must_use]
    pub fn session_id(mut self, session: impl Into<String>) -> Self {
        self.session_id = Some(session.into());
        self
    }

    /// No session: each request may go to another worker of the pool.
    #[must_use]
    pub fn unpinned(mut self) -> Self {
        self.unpinned = true;
        self
    }

    /// The pool it is for.
    #[must_use]
    pub fn pool(mut self, pool: impl Into<String>) -> Self {
        self.pool = Some(pool.into());
        self
    }

    /// The agent it is for: travels as `agentId`, and chooses the pool of that
    /// name where there is one.
    #[must_use]
    pub fn agent_id(mut self, agent: impl Into<String>) -> Self {
        self.agent_id = Some(agent.into());
        self
    }

    pub(super) fn has_timeout(&self) -> bool {
        self.timeout != Timeout::Default
    }

    pub(super) fn limit(&self, method: &str, default: Option<Duration>) -> Option<Duration> {
        match self.timeout {
            Timeout::After(limit) => Some(limit),
            Timeout::Never => None,
            Timeout::Default if method == "session/prompt" => None,
            Timeout::Default => default,
        }
    }

    pub(super) fn route<'a>(&'a self, own_session: &'a str) -> Result<Route<'a>> {
        let given = [
            ("session_id", &self.session_id),
            ("pool", &self.pool),
            ("agent_id", &self.agent_id),
        ];
        // The bus takes an empty one for none.
        if let Some((name, _)) = given.iter().find(|(_, v)| v.as_deref() == Some("")) {
            return Err(Error::invalid_argument(format!("{name} must not be empty")));
        }
        let session_id = match (&self.session_id, self.unpinned) {
            (Some(_), true) => {
                return Err(Error::invalid_argument(
                    "session_id and unpinned exclude each other",
                ));
            }
            (Some(session), false) => Some(session.as_str()),
            (None, true) => None,
            (None, false) => Some(own_session),
        };
        Ok(Route {
            session_id,
            pool: self.pool.as_deref(),
            agent_id: self.agent_id.as_deref(),
        })
    }
}

/// A request: a future of its result.
///
/// It is sent when it is first polled. Dropping it gives it up, unless it was
/// [detached](Self::detach). It holds no [`StdioBus`](crate::StdioBus), so it
/// doesn't keep one alive: when the last of those is dropped it ends with
/// `TransportError`.
///
/// # Panics
/// When it is polled after it has ended.
#[must_use = "a request is sent when it is first polled"]
pub struct Request<T = Value> {
    state: State,
    /// For the text of the timeout.
    limit: Option<Duration>,
    result: PhantomData<fn() -> T>,
}

enum State {
    /// It can't be sent.
    Failed(Error),
    Unsent {
        handle: Handle,
        id: u64,
        frame: Vec<u8>,
    },
    Sent(InFlight),
    Done,
}

/// Gives the request up when it is dropped before its end.
struct InFlight {
    handle: Handle,
    id: u64,
    outcome: oneshot::Receiver<Outcome>,
    ended: bool,
}

impl<T> Request<T> {
    pub(super) fn new(
        handle: &Handle,
        id: u64,
        frame: Result<Vec<u8>>,
        limit: Option<Duration>,
    ) -> Self {
        let state = match frame {
            Ok(frame) => State::Unsent {
                handle: handle.clone(),
                id,
                frame,
            },
            Err(error) => State::Failed(error),
        };
        Self {
            state,
            limit,
            result: PhantomData,
        }
    }

    /// Sends it, if that hasn't happened yet, and lets it go: the worker
    /// finishes it, and nobody gets the answer.
    ///
    /// # Errors
    /// `InvalidState` and `InvalidArgument` as for
    /// [`StdioBus::request`](crate::StdioBus::request).
    pub fn detach(mut self) -> Result<()> {
        self.send();
        match mem::replace(&mut self.state, State::Done) {
            State::Failed(error) => Err(error),
            State::Sent(mut in_flight) => {
                in_flight.ended = true;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn send(&mut self) {
        self.state = match mem::replace(&mut self.state, State::Done) {
            State::Unsent { handle, id, frame } => match check_running(handle.shared().state()) {
                Ok(()) => State::Sent(InFlight::send(handle, id, frame, self.limit)),
                Err(error) => State::Failed(error),
            },
            state => state,
        };
    }
}

impl InFlight {
    fn send(handle: Handle, id: u64, frame: Vec<u8>, limit: Option<Duration>) -> Self {
        // A deadline beyond what the clock can say is none.
        let deadline = limit.and_then(|limit| Instant::now().checked_add(limit));
        let (reply, outcome) = oneshot::channel();
        // If the thread has ended, the reply is dropped and the outcome says so.
        handle.send(Command::Request {
            id,
            frame,
            deadline,
            reply,
        });
        Self {
            handle,
            id,
            outcome,
            ended: false,
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if !self.ended {
            self.handle.send(Command::Cancel { id: self.id });
        }
    }
}

impl<T: DeserializeOwned> Future for Request<T> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<T>> {
        let this = &mut *self;
        this.send();
        let outcome = match &mut this.state {
            State::Sent(in_flight) => {
                let outcome = ready!(Pin::new(&mut in_flight.outcome).poll(cx));
                in_flight.ended = true;
                outcome
            }
            _ => match mem::replace(&mut this.state, State::Done) {
                State::Failed(error) => return Poll::Ready(Err(error)),
                _ => panic!("a request was polled after it had ended"),
            },
        };
        this.state = State::Done;
        Poll::Ready(match outcome {
            Ok(Ok(answer)) => rpc::parse_answer(&answer.frame, answer.from_bus),
            Ok(Err(Ended::TimedOut)) => Err(timed_out(this.limit)),
            Ok(Err(Ended::Refused(error))) => Err(error),
            Ok(Err(Ended::ShuttingDown)) | Err(_) => Err(Error::shutting_down()),
        })
    }
}

// All fields are: nothing in here points into itself.
impl<T> Unpin for Request<T> {}

impl<T> fmt::Debug for Request<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (state, id) = match &self.state {
            State::Failed(_) => ("failed", None),
            State::Unsent { id, .. } => ("unsent", Some(id)),
            State::Sent(in_flight) => ("sent", Some(&in_flight.id)),
            State::Done => ("done", None),
        };
        f.debug_struct("Request")
            .field("state", &state)
            .field("id", &id)
            .finish()
    }
}

fn timed_out(limit: Option<Duration>) -> Error {
    let limit = limit.unwrap_or_default();
    Error::new(ErrorCode::Timeout, format!("no answer within {limit:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_the_own_session_another_or_none() {
        let session = |options: RequestOptions| {
            options
                .route("own")
                .map(|route| route.session_id.map(str::to_owned))
        };
        assert_eq!(
            session(RequestOptions::new()).expect("valid").as_deref(),
            Some("own")
        );
        assert_eq!(
            session(RequestOptions::new().session_id("s"))
                .expect("valid")
                .as_deref(),
            Some("s")
        );
        assert_eq!(
            session(RequestOptions::new().unpinned()).expect("valid"),
            None
        );
        assert!(session(RequestOptions::new().unpinned().session_id("s")).is_err());
    }

    #[test]
    fn empty_names_are_refused_not_ignored() {
        for options in [
            RequestOptions::new().session_id(""),
            RequestOptions::new().pool(""),
            RequestOptions::new().agent_id(""),
        ] {
            let error = options.route("own").expect_err("empty");
            assert_eq!(error.kind(), Some(ErrorCode::InvalidArgument));
        }
    }

    #[test]
    fn a_prompt_has_no_default_timeout() {
        let default = Some(Duration::from_secs(30));
        let short = Duration::from_secs(1);
        assert_eq!(RequestOptions::new().limit("echo", default), default);
        assert_eq!(RequestOptions::new().limit("session/prompt", default), None);
        assert_eq!(
            RequestOptions::new()
                .timeout(short)
                .limit("session/prompt", default),
            Some(short)
        );
        assert_eq!(
            RequestOptions::new().timeout(None).limit("echo", default),
            None
        );
    }
}
