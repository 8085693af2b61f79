//! This process's requests in flight: who waits, until when, and what belongs
//! to them.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::budget::Place;
use super::command::{Answer, Ended, NewRequest, Outcome};
use super::latency::Histogram;
use super::mailbox::Post;
use super::message::SharedMessage;
use crate::error::Error;
use crate::rpc::{self, Pending};
use crate::stats::Latency;

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
    sent: Instant,
    /// Given back when the request ends.
    place: Place,
    /// Until there is room for it.
    held: Option<Held>,
}

/// A request that has not been given to the bus yet.
#[derive(Debug)]
struct Held {
    /// Its place in the line.
    number: u64,
    frame: Vec<u8>,
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
    /// The ids of those that wait for room, in their order.
    line: BTreeMap<u64, u64>,
    next_number: u64,
    latency: Histogram,
}

impl InFlight {
    pub(super) fn new() -> Self {
        Self {
            requests: Pending::new(),
            streaming: HashSet::new(),
            line: BTreeMap::new(),
            next_number: 0,
            latency: Histogram::new(),
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

    /// Adds a request that the bus has got.
    pub(super) fn insert(&mut self, request: NewRequest) {
        self.add(request, None);
    }

    /// Adds a request that waits for room.
    pub(super) fn hold(&mut self, mut request: NewRequest) {
        let number = self.next_number;
        self.next_number += 1;
        self.line.insert(number, request.id);
        let frame = std::mem::take(&mut request.frame);
        self.add(request, Some(Held { number, frame }));
    }

    /// The frame of the one that is to go next, if there is room for it.
    pub(super) fn next_held(&mut self) -> Option<(u64, Vec<u8>)> {
        let entry = self.line.first_entry()?;
        let id = *entry.get();
        let waiter = self.requests.get_mut(id)?;
        if !waiter.place.grant() {
            return None;
        }
        entry.remove();
        waiter.held.take().map(|held| (id, held.frame))
    }

    /// Ends those that wait for room: the bus shuts down.
    pub(super) fn end_held(&mut self) {
        for id in std::mem::take(&mut self.line).into_values() {
            self.end(id, Err(Ended::ShuttingDown));
        }
    }

    fn add(&mut self, request: NewRequest, held: Option<Held>) {
        if let Wants::Everything(Some(key)) = &request.wants {
            self.streaming.insert(key.clone());
        }
        let waiter = Waiter {
            post: request.post,
            wants: request.wants,
            patience: request.patience,
            sent: request.sent,
            place: request.place,
            held,
        };
        self.requests.insert(request.id, request.deadline, waiter);
    }

    /// Ends a request with an answer, unless it had been given up in the
    /// meantime.
    pub(super) fn answer(&mut self, id: u64, answer: Answer, now: Instant) {
        if let Some(waiter) = self.requests.remove(id) {
            self.latency.add(now.saturating_duration_since(waiter.sent));
            self.finish(waiter, Ok(answer));
        }
    }

    /// How long answers took.
    pub(super) fn latency(&self) -> Latency {
        self.latency.summary()
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
        if let Some(held) = &waiter.held {
            self.line.remove(&held.number);
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
        let ended = match waiter.held {
            Some(_) => Ended::NoRoom,
            None => Ended::TimedOut,
        };
        self.finish(waiter, Err(ended));
        Some(id)
    }

    /// Ends them all: the bus shuts down.
    pub(super) fn end_all(&mut self) {
        // A post that is dropped says so.
        self.take_all().for_each(drop);
    }

    /// Ends them all: the bus is gone.
    pub(super) fn lose(&mut self, reason: &str) {
        let reason: Arc<str> = reason.into();
        for waiter in self.take_all() {
            waiter.post.end(Err(Ended::Lost(Arc::clone(&reason))));
        }
    }

    fn take_all(&mut self) -> impl Iterator<Item = Waiter> + use<> {
        self.streaming = HashSet::new();
        self.line = BTreeMap::new();
        self.requests.take_all()
    }
}
