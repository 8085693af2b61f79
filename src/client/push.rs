//! Handlers that are called with what workers say.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::handlers::report;
use super::notifications::Notification;
use super::worker_request::WorkerRequest;
use super::{StdioBus, WeakBus};
use crate::driver::{Command, Handle, MessageSink, OverflowPolicy, SharedMessage};
use crate::error::Result;

/// Messages that wait for one handler.
const QUEUE: usize = 1024;

/// What a worker says on its own.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Message {
    /// It asks something; see [`StdioBusBuilder::on_request`](crate::StdioBusBuilder::on_request)
    /// for who answers.
    Request(WorkerRequest),
    /// It tells something.
    Notification(Notification),
}

impl Message {
    fn new(message: SharedMessage, bus: WeakBus) -> Self {
        if message.id.is_some() {
            Self::Request(WorkerRequest::new(message, bus))
        } else {
            Self::Notification(Notification::new(message))
        }
    }
}

impl StdioBus {
    /// Calls a handler with each notification that workers send to this process
    /// from now on, one after the other, in their order, until the guard is
    /// dropped or the bus has ended.
    ///
    /// It runs in a task of its own, where handlers of
    /// [`on_request`](crate::StdioBusBuilder::on_request) run, so it must not
    /// block for long; nothing else waits for it. 1024 notifications may wait for
    /// it; more are lost and counted ([`HandlerGuard::lagged`]). What it panics
    /// with is caught and logged, and the next notification is handled.
    ///
    /// A [`StdioBus`] that it captures keeps the bus alive until the guard is
    /// dropped: use a [`WeakBus`].
    ///
    /// # Errors
    /// `ResourceExhausted`: there is no tokio runtime, and no thread can be
    /// started for one.
    pub fn on_notification<H>(&self, handler: H) -> Result<HandlerGuard>
    where
        H: Fn(Notification) + Send + Sync + 'static,
    {
        let call = move |message| handler(Notification::new(message));
        self.push("a notification handler", false, call)
    }

    /// Calls a handler with everything that workers say to this process on their
    /// own, requests as well as notifications: all but answers. It only looks;
    /// requests are answered as without it. For the rest it is like
    /// [`on_notification`](Self::on_notification).
    ///
    /// # Errors
    /// As there.
    pub fn on_message<H>(&self, handler: H) -> Result<HandlerGuard>
    where
        H: Fn(Message) + Send + Sync + 'static,
    {
        let bus = self.downgrade();
        let call = move |message| handler(Message::new(message, bus.clone()));
        self.push("a message handler", true, call)
    }

    fn push(
        &self,
        what: &'static str,
        requests: bool,
        call: impl Fn(SharedMessage) + Send + Sync + 'static,
    ) -> Result<HandlerGuard> {
        let bus = &self.owner.handle;
        let runtime = self.owner.runtime.handle(bus)?;
        let (queue, messages) = mpsc::channel(QUEUE);
        let (over, lagged) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let sink = MessageSink {
            queue,
            policy: OverflowPolicy::Drop,
            lagged: Arc::clone(&lagged),
            requests,
        };
        let task = runtime.spawn(handle(messages, Arc::clone(&over), call, what, bus.clone()));
        // A bus that is gone drops the sink, and the task ends.
        bus.send(Command::Listen { sink });
        Ok(HandlerGuard {
            over,
            lagged,
            task: task.abort_handle(),
            kept: false,
        })
    }
}

async fn handle(
    mut messages: mpsc::Receiver<SharedMessage>,
    over: Arc<AtomicBool>,
    call: impl Fn(SharedMessage),
    what: &str,
    log: Handle,
) {
    while let Some(message) = messages.recv().await {
        if over.load(Ordering::Acquire) {
            return;
        }
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| call(message))) {
            report(&log, what, &*panic);
        }
    }
}

/// Keeps a handler registered. Dropping it unregisters the handler, and doesn't
/// wait: a call that has begun goes on, and none begins any more.
#[derive(Debug)]
#[must_use = "the handler is unregistered when this is dropped"]
pub struct HandlerGuard {
    over: Arc<AtomicBool>,
    lagged: Arc<AtomicU64>,
    task: AbortHandle,
    kept: bool,
}

impl HandlerGuard {
    /// How many messages were lost because too many waited.
    pub fn lagged(&self) -> u64 {
        self.lagged.load(Ordering::Relaxed)
    }

    /// Leaves the handler registered until the bus has ended.
    pub fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for HandlerGuard {
    fn drop(&mut self) {
        if !self.kept {
            self.over.store(true, Ordering::Release);
            self.task.abort();
        }
    }
}
