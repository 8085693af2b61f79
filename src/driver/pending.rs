//! This process's requests in flight: who waits, until when, and what belongs
//! to them.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use super::command::{Ended, NewRequest, Outcome};
use super::mailbox::Post;
use super::message::SharedMessage;
use crate::error::Error;
use crate::rpc::{self, Pending};

/// The pool (empty where none was named) and the session of a stream.
pub(crate) type StreamKey = (String, String);

/// Which of the messages that belong to a request its task wants to see.
#[derive(Debug)]
pub(crate) enum Wants {
    /// Those that may be chunks of text.
    Chunks,
    /// All of them. Of one session there is one such request at a time.
    Everything(Option<StreamKey>),
}

/// A timeout that progress begins anew.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    pub(crate) step: Duration,
    /// When it is over in any case.
    pub(crate) end: Instant,
}

#[derive(Debug)]
struct Waiter {
    post: Post,
    wants: Wants,
    patience: Option<Patience>,
}

/// What became of a message that belongs to a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Posted {
    Taken,
    /// The request has ended, because its task doesn't keep up.
    Overflow,
}

#[derive(Debug)]
pub(super) struct InFlight {
    requests: Pending<Waiter>,
    /// The sessions that have a stream.
    streaming: HashSet<StreamKey>,
}

impl InFlight {
    pub(super) fn new() -> Self {
        Self {
            requests: Pending::new(),
            streaming: HashSet::new(),
        }
    }

    /// Why a request can't be sent now.
    pub(super) fn refuse(&self, wants: &Wants) -> Option<Error> {
        match wants {
            Wants::Everything(Some(key)) if self.streaming.contains(key) => {
                let text = format!("session {:?} has a stream already", key.1);
                Some(Error::invalid_state(text))
            }
            _ => None,
        }
    }

    pub(super) fn insert(&mut self, request: NewRequest) {
        if let Wants::Everything(Some(key)) = &request.wants {
            self.streaming.insert(key.clone());
        }
        let waiter = Waiter {
            post: request.post,
            wants: request.wants,
            patience: request.patience,
        };
        self.requests.insert(request.id, request.deadline, waiter);
    }

    /// Ends a request. `false` if it had been given up in the meantime.
    pub(super) fn end(&mut self, id: u64, outcome: Outcome) -> bool {
        let Some(waiter) = self.requests.remove(id) else {
            return false;
        };
        self.finish(waiter, outcome);
        true
    }

    fn finish(&mut self, waiter: Waiter, outcome: Outcome) {
        if let Wants::Everything(Some(key)) = &waiter.wants {
            self.streaming.remove(key);
        }
        waiter.post.end(outcome);
    }

    /// Whether the request is there and wants to see this message.
    pub(super) fn wants(&self, id: u64, frame: &[u8]) -> bool {
        match self.requests.get(id).map(|waiter| &waiter.wants) {
            Some(Wants::Everything(_)) => true,
            Some(Wants::Chunks) => rpc::may_be_chunk(frame),
            None => false,
        }
    }

    pub(super) fn post(&mut self, id: u64, message: &SharedMessage) -> Posted {
        match self.requests.get(id) {
            Some(waiter) if !waiter.post.message(message) => {
                self.end(id, Err(Ended::Overflow));
                Posted::Overflow
            }
            _ => Posted::Taken,
        }
    }

    /// A message that belongs to a request may be progress, which gives it more
    /// time. Whether it did.
    pub(super) fn progress(
        &mut self,
        id: u64,
        frame: &[u8],
        now: impl FnOnce() -> Instant,
    ) -> bool {
        let Some(patience) = self.requests.get(id).and_then(|waiter| waiter.patience) else {
            return false;
        };
        if !rpc::is_progress(frame) {
            return false;
        }
        let until = now().checked_add(patience.step).unwrap_or(patience.end);
        self.requests.put_off(id, until.min(patience.end));
        true
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.requests.next_deadline()
    }

    /// Ends one request whose time is up.
    pub(super) fn expire(&mut self, now: Instant) -> Option<u64> {
        let (id, waiter) = self.requests.pop_expired(now)?;
        self.finish(waiter, Err(Ended::TimedOut));
        Some(id)
    }

    /// Ends them all: the bus shuts down.
    pub(super) fn end_all(&mut self) {
        self.streaming = HashSet::new();
        // A post that is dropped says so.
        self.requests.take_all().for_each(drop);
    }
}
