//! What workers say without being asked.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use futures_core::Stream;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::mpsc;

use super::StdioBus;
use crate::driver::{Command, MessageSink, OverflowPolicy, SharedMessage, WorkerRef};
use crate::error::{Error, Result};

/// Notifications that wait for one subscriber, unless it says otherwise.
const QUEUE: usize = 256;

impl StdioBus {
    /// The notifications that workers send to this process from now on, up to
    /// 256 of them waiting: see
    /// [`subscribe_notifications_with`](Self::subscribe_notifications_with).
    pub fn subscribe_notifications(&self) -> NotificationStream {
        self.subscribe_notifications_with(NotificationOptions::new())
    }

    /// The notifications that workers send to this process from now on. Each
    /// subscriber has a queue of its own, and sees all of them, those included
    /// that belong to a request or a stream.
    pub fn subscribe_notifications_with(&self, options: NotificationOptions) -> NotificationStream {
        let (stream, sink) = NotificationStream::new(options);
        // A bus that is gone drops the sink, and the stream ends.
        self.owner.handle.send(Command::Listen { sink });
        stream
    }
}

/// A notification that a worker has sent. Cheap to clone.
#[derive(Clone)]
pub struct Notification(SharedMessage);

impl Notification {
    pub(super) fn new(message: SharedMessage) -> Self {
        Self(message)
    }

    /// Its method. Empty where the message isn't JSON through and through:
    /// [`raw`](Self::raw) has what was sent.
    pub fn method(&self) -> &str {
        &self.0.parts().method
    }

    /// Its params; null where it has none. The tree is built when this is first
    /// called.
    pub fn params(&self) -> &Value {
        self.0.parts().params()
    }

    /// Its params as JSON text, as the worker wrote them.
    pub fn raw_params(&self) -> Option<&str> {
        self.0.parts().raw_params()
    }

    /// Its params as a type of yours.
    ///
    /// # Errors
    /// `InvalidArgument` where they aren't of this type.
    pub fn params_as<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_str(self.raw_params().unwrap_or("null")).map_err(|e| {
            Error::invalid_argument(format!("the params aren't of the type asked for: {e}"))
                .with_source(e)
        })
    }

    /// The session it names, at its root or in its params.
    pub fn session_id(&self) -> Option<&str> {
        self.0.parts().session.as_deref()
    }

    /// The number of the request of this bus, unanswered when this came, that it
    /// belongs to: [`Request::id`](crate::Request::id). `None` where it belongs
    /// to none, or it can't be told.
    pub fn request_id(&self) -> Option<u64> {
        self.0.request
    }

    /// The worker that sent it.
    pub fn worker(&self) -> &WorkerRef {
        &self.0.worker
    }

    /// The whole message: one JSON object, without a newline.
    pub fn raw(&self) -> &[u8] {
        &self.0.frame
    }
}

impl fmt::Debug for Notification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Notification")
            .field("method", &self.method())
            .field("session_id", &self.session_id())
            .field("request_id", &self.request_id())
            .field("worker", self.worker())
            .finish_non_exhaustive()
    }
}

/// How a subscription to notifications is kept within bounds.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct NotificationOptions {
    /// How many notifications may wait for the subscriber, at least 1. 256
    /// unless set.
    pub max_queue: usize,
    /// What happens to one more. [`OverflowPolicy::Drop`] unless set.
    pub overflow: OverflowPolicy,
}

impl NotificationOptions {
    /// 256 notifications, and the newest is lost where there is no room.
    pub fn new() -> Self {
        Self {
            max_queue: QUEUE,
            overflow: OverflowPolicy::Drop,
        }
    }

    /// Sets [`max_queue`](Self::max_queue).
    #[must_use]
    pub fn max_queue(mut self, max_queue: usize) -> Self {
        self.max_queue = max_queue;
        self
    }

    /// Sets [`overflow`](Self::overflow).
    #[must_use]
    pub fn overflow(mut self, overflow: OverflowPolicy) -> Self {
        self.overflow = overflow;
        self
    }
}

impl Default for NotificationOptions {
    fn default() -> Self {
        Self::new()
    }
}

/// The notifications that workers send to this process, in their order.
///
/// Ends when the bus has stopped, after what waits; with
/// [`OverflowPolicy::Close`] also when one didn't fit. Slow subscribers hold up
/// nobody.
#[derive(Debug)]
#[must_use = "what comes is lost when this is dropped"]
pub struct NotificationStream {
    queue: mpsc::Receiver<SharedMessage>,
    lagged: Arc<AtomicU64>,
}

impl NotificationStream {
    pub(super) fn new(options: NotificationOptions) -> (Self, MessageSink) {
        let (sender, receiver) = mpsc::channel(queue_len(options.max_queue));
        let lagged = Arc::new(AtomicU64::new(0));
        let sink = MessageSink {
            queue: sender,
            policy: options.overflow,
            lagged: Arc::clone(&lagged),
            requests: false,
        };
        let stream = Self {
            queue: receiver,
            lagged,
        };
        (stream, sink)
    }

    /// The next notification; `None` when the subscription is over.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Notification> {
        poll_fn(|cx| self.poll(cx)).await
    }

    /// The next notification if there is one now; `None` where there is none, be it
    /// that the subscription is over ([`is_closed`](Self::is_closed)).
    pub fn try_next(&mut self) -> Option<Notification> {
        self.queue.try_recv().ok().map(Notification)
    }

    /// Whether the subscription is over: nothing waits, and nothing will come any
    /// more.
    pub fn is_closed(&self) -> bool {
        // In this order: once it is closed, nothing is added.
        self.queue.is_closed() && self.queue.is_empty()
    }

    /// How many notifications were lost because they didn't fit. With
    /// [`OverflowPolicy::Close`], 1 says that this has ended the subscription.
    pub fn lagged(&self) -> u64 {
        self.lagged.load(Ordering::Relaxed)
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Notification>> {
        self.queue.poll_recv(cx).map(|next| next.map(Notification))
    }
}

/// A length that a queue can have: the one asked for, where that is neither zero nor beyond what is
/// possible.
pub(super) fn queue_len(asked: usize) -> usize {
    asked.clamp(1, tokio::sync::Semaphore::MAX_PERMITS)
}

impl Stream for NotificationStream {
    type Item = Notification;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Notification>> {
        self.poll(cx)
    }
}
