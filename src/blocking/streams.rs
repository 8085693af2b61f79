//! Streams and subscriptions, as iterators.

use std::time::{Duration, Instant};

use super::park::{wait, wait_until};
use crate::error::{Error, ErrorCode, Result};
use crate::{BusState, Event, Notification, StreamEvent};

/// The iterator over an async stream, and the wait with a limit.
macro_rules! iterates {
    ($stream:ident, $item:ty) => {
        impl $stream {
            /// The next one, as the iterator gives it, within a limit.
            ///
            /// # Errors
            /// `Timeout`: nothing came in time. Nothing is lost by that.
            pub fn next_within(&mut self, limit: Duration) -> Result<Option<$item>> {
                // A deadline beyond what the clock can say is none.
                let deadline = Instant::now().checked_add(limit);
                wait_until(self.0.next(), deadline).ok_or_else(|| nothing_within(limit))
            }
        }

        impl Iterator for $stream {
            type Item = $item;

            fn next(&mut self) -> Option<$item> {
                wait(self.0.next())
            }
        }
    };
}

fn nothing_within(limit: Duration) -> Error {
    Error::new(ErrorCode::Timeout, format!("nothing came within {limit:?}"))
}

/// A request, as an iterator over what belongs to it: see
/// [`ResponseStream`](crate::ResponseStream).
///
/// The request is sent when the first piece is asked for. Dropping this gives it
/// up.
#[derive(Debug)]
#[must_use = "a request is sent when its stream is first asked"]
pub struct ResponseStream(pub(super) crate::ResponseStream);

impl ResponseStream {
    /// The number of the request: see [`ResponseStream::id`](crate::ResponseStream::id).
    pub fn id(&self) -> u64 {
        self.0.id()
    }

    /// The next piece if there is one now: see
    /// [`ResponseStream::try_next`](crate::ResponseStream::try_next).
    ///
    /// # Errors
    /// Those of the iterator.
    pub fn try_next(&mut self) -> Option<Result<StreamEvent>> {
        self.0.try_next()
    }

    /// Whether the stream is over: see
    /// [`ResponseStream::is_closed`](crate::ResponseStream::is_closed).
    pub fn is_closed(&self) -> bool {
        self.0.is_closed()
    }
}

iterates!(ResponseStream, Result<StreamEvent>);

/// The notifications that workers send to this process, as an iterator: see
/// [`NotificationStream`](crate::NotificationStream). It waits for the next one,
/// and ends when the bus has stopped.
#[derive(Debug)]
#[must_use = "what comes is lost when this is dropped"]
pub struct NotificationStream(pub(super) crate::NotificationStream);

impl NotificationStream {
    /// The next one if there is one now; `None` where there is none, be it that
    /// the subscription is over ([`is_closed`](Self::is_closed)).
    pub fn try_next(&mut self) -> Option<Notification> {
        self.0.try_next()
    }

    /// Whether the subscription is over: nothing waits, and nothing will come any
    /// more.
    pub fn is_closed(&self) -> bool {
        self.0.is_closed()
    }

    /// How many were lost: see [`NotificationStream::lagged`](crate::NotificationStream::lagged).
    pub fn lagged(&self) -> u64 {
        self.0.lagged()
    }
}

iterates!(NotificationStream, Notification);

/// The events of a bus, as an iterator: see [`EventStream`](crate::EventStream).
/// It waits for the next one, and ends when the bus has stopped.
#[derive(Debug)]
#[must_use = "what comes is lost when this is dropped"]
pub struct EventStream(pub(super) crate::EventStream);

impl EventStream {
    /// The next one if there is one now; `None` where there is none, be it that
    /// the subscription is over ([`is_closed`](Self::is_closed)).
    pub fn try_next(&mut self) -> Option<Event> {
        self.0.try_next()
    }

    /// Whether the subscription is over: nothing waits, and nothing will come any
    /// more.
    pub fn is_closed(&self) -> bool {
        self.0.is_closed()
    }

    /// How many were lost: see [`EventStream::lagged`](crate::EventStream::lagged).
    pub fn lagged(&self) -> u64 {
        self.0.lagged()
    }
}

iterates!(EventStream, Event);

/// The states of a bus, as an iterator over the changes: see
/// [`StateChanges`](crate::StateChanges). It ends after
/// [`Stopped`](BusState::Stopped).
#[derive(Debug)]
#[must_use = "what comes is lost when this is dropped"]
pub struct StateChanges(pub(super) crate::StateChanges);

impl StateChanges {
    /// The present state: see [`StateChanges::state`](crate::StateChanges::state).
    pub fn state(&self) -> BusState {
        self.0.state()
    }

    /// Waits until the bus is in this state or beyond it, and tells where it is.
    ///
    /// # Errors
    /// `Timeout`: it wasn't within the limit.
    pub fn reached_within(&mut self, state: BusState, limit: Duration) -> Result<BusState> {
        let deadline = Instant::now().checked_add(limit);
        wait_until(self.0.reached(state), deadline).ok_or_else(|| nothing_within(limit))
    }
}

iterates!(StateChanges, BusState);
