//! Streams and subscriptions, as iterators.

use std::time::{Duration, Instant};

use super::park::{wait, wait_until};
use crate::error::{Error, ErrorCode, Result};
use crate::{Event, Notification, StreamEvent};

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
}

iterates!(ResponseStream, Result<StreamEvent>);

/// The notifications that workers send to this process, as an iterator: see
/// [`NotificationStream`](crate::NotificationStream). It waits for the next one,
/// and ends when the bus has stopped.
#[derive(Debug)]
pub struct NotificationStream(pub(super) crate::NotificationStream);

impl NotificationStream {
    /// How many were lost: see [`NotificationStream::lagged`](crate::NotificationStream::lagged).
    pub fn lagged(&self) -> u64 {
        self.0.lagged()
    }
}

iterates!(NotificationStream, Notification);

/// The events of a bus, as an iterator: see [`EventStream`](crate::EventStream).
/// It waits for the next one, and ends when the bus has stopped.
#[derive(Debug)]
pub struct EventStream(pub(super) crate::EventStream);

impl EventStream {
    /// How many were lost: see [`EventStream::lagged`](crate::EventStream::lagged).
    pub fn lagged(&self) -> u64 {
        self.0.lagged()
    }
}

iterates!(EventStream, Event);
