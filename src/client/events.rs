//! A subscription to what happens on the bus.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use futures_core::Stream;
use tokio::sync::mpsc;

use super::StdioBus;
use super::notifications::queue_len;
use crate::driver::{Command, Event, EventSink};

/// Events that wait for one subscriber, unless it says otherwise.
const QUEUE: usize = 1024;

impl StdioBus {
    /// What happens on the bus from now on: workers and clients that come and
    /// go. Up to 1024 events wait for this subscriber; more are counted and lost
    /// ([`EventStream::lagged`]).
    pub fn events(&self) -> EventStream {
        self.events_with(QUEUE)
    }

    /// [`events`](Self::events) with room for `queue` events, at least one.
    pub fn events_with(&self, queue: usize) -> EventStream {
        let (stream, sink): (EventStream, EventSink) = EventStream::new(queue);
        // A bus that is gone drops the sink, and the stream ends.
        self.owner.handle.send(Command::Subscribe { sink });
        stream
    }
}

/// The events of a bus, in their order. Ends when the bus has stopped.
///
/// Slow subscribers hold up nobody: what doesn't fit into the queue is lost,
/// and counted.
#[derive(Debug)]
#[must_use = "what comes is lost when this is dropped"]
pub struct EventStream {
    queue: mpsc::Receiver<Event>,
    lagged: Arc<AtomicU64>,
}

impl EventStream {
    pub(super) fn new(queue: usize) -> (Self, EventSink) {
        let (sender, receiver) = mpsc::channel(queue_len(queue));
        let lagged = Arc::new(AtomicU64::new(0));
        let sink = EventSink {
            queue: sender,
            lagged: Arc::clone(&lagged),
        };
        (
            Self {
                queue: receiver,
                lagged,
            },
            sink,
        )
    }

    /// The next event; `None` when the bus has stopped.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Event> {
        poll_fn(|cx| self.queue.poll_recv(cx)).await
    }

    /// The next event if there is one now; `None` where there is none, be it
    /// that the subscription is over ([`is_closed`](Self::is_closed)).
    pub fn try_next(&mut self) -> Option<Event> {
        self.queue.try_recv().ok()
    }

    /// Whether the subscription is over: nothing waits, and nothing will come any
    /// more.
    pub fn is_closed(&self) -> bool {
        // In this order: once it is closed, nothing is added.
        self.queue.is_closed() && self.queue.is_empty()
    }

    /// How many events were lost because they didn't fit.
    pub fn lagged(&self) -> u64 {
        self.lagged.load(Ordering::Relaxed)
    }
}

impl Stream for EventStream {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        self.queue.poll_recv(cx)
    }
}
