//! The client: what an application holds.

mod builder;
mod call;
mod events;
mod extensions;
mod handlers;
mod hello;
mod inspect;
mod io;
mod listen;
mod messages;
#[cfg(feature = "metrics")]
mod metrics;
mod notifications;
mod options;
mod plan;
mod push;
mod request;
mod serve;
mod service;
mod state;
mod stream;
mod trace;
mod worker_request;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::sync::oneshot;

pub use builder::StdioBusBuilder;
pub use events::EventStream;
pub use extensions::{AuditEvent, Identity};
pub use hello::{HelloParams, HelloResult, NegotiatedExtension, OfferedExtension};
pub use io::{AdoptedClient, BusStream};
pub use listen::{Listen, ListenAddr, ListenMode};
pub use notifications::{Notification, NotificationOptions, NotificationStream};
pub use options::RequestOptions;
pub use push::{HandlerGuard, Message};
pub use request::Request;
pub use service::{ServiceCall, WorkerGuard};
pub use state::StateChanges;
pub use stream::{ResponseStream, StreamEvent};
pub use worker_request::WorkerRequest;

use crate::driver::{Command, Handle, RequestQueue};
use crate::error::{Error, ErrorCode, Result};
use crate::stats::{BackendType, BusState, StopReport};
use handlers::{RequestHandler, Runtime};

/// How long `stop()`, and the stop that a drop starts, may take.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// How long workers get to end after a drain, when nothing is in flight.
const DRAIN_GRACE: Duration = Duration::from_secs(5);

/// A handle to a bus: its workers, and the way to them.
///
/// Cheap to clone; all clones are the same bus. It lives on a thread of its own,
/// which [`StdioBusBuilder::build`] starts. When the last clone is dropped, the
/// bus stops in the background, as [`stop`](Self::stop) would, and the drop
/// doesn't wait for it. A process that ends meanwhile cuts that short: a worker
/// that ignores both the end of its input and SIGTERM is then left behind.
///
/// The futures can be polled by whatever executor there is; only
/// [`connect_io`](Self::connect_io) needs tokio. Handlers run on the tokio runtime
/// that was there when the bus was built or started, and where there was none on
/// a thread of the bus's own.
#[derive(Debug, Clone)]
pub struct StdioBus {
    owner: Arc<Owner>,
}

/// A bus that this doesn't keep alive: see [`StdioBus::downgrade`].
#[derive(Debug, Clone)]
pub struct WeakBus {
    owner: Weak<Owner>,
}

impl WeakBus {
    /// The bus; `None` once its last [`StdioBus`] has been dropped.
    pub fn upgrade(&self) -> Option<StdioBus> {
        let owner = self.owner.upgrade()?;
        Some(StdioBus { owner })
    }
}

/// What the clones share. Requests in flight and handlers don't hold it, so
/// that dropping the last clone ends them.
struct Owner {
    handle: Handle,
    thread: Mutex<Option<JoinHandle<()>>>,
    timeout: Option<Duration>,
    session_id: String,
    /// Set by a hello.
    agent_session_id: Mutex<Option<String>>,
    listen: Vec<ListenMode>,
    backend: BackendType,
    runtime: Runtime,
    /// Until the start, which sets it to work.
    on_request: Mutex<Option<RequestHandler>>,
    #[cfg(feature = "metrics")]
    published: metrics::Published,
}

impl fmt::Debug for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Owner")
            .field("session_id", &self.session_id)
            .field("state", &self.handle.shared().state())
            .finish_non_exhaustive()
    }
}

impl StdioBus {
    /// Starts to describe a bus.
    pub fn builder() -> StdioBusBuilder {
        StdioBusBuilder::new()
    }

    /// Opens the listeners and starts the workers. Returns once every worker's
    /// program has been executed; where the bus is a subprocess, once that says that
    /// it serves, and where it runs elsewhere, once it is reached.
    ///
    /// A bus can be started once. If starting fails it is stopped for good;
    /// what had been started is stopped again before this returns.
    ///
    /// # Errors
    /// - `Unavailable`: a program can't be executed or an address can't be
    ///   bound, the bus's own program doesn't serve in time, or a running bus
    ///   can't be reached; the text names it and the system's reason.
    /// - `PolicyDenied`: a running bus doesn't accept the token.
    /// - `InvalidState`: started before, or stopped. `TransportError`: another
    ///   thread stops it at this moment.
    /// - `ResourceExhausted`: no thread can be started for the handler of
    ///   workers' requests.
    ///
    /// # Cancel safety
    /// Dropping the future doesn't stop the start.
    pub async fn start(&self) -> Result<()> {
        match self.state() {
            BusState::Created => {}
            BusState::Stopping | BusState::Stopped => {
                return Err(Error::invalid_state("a stopped bus can't be started again"));
            }
            _ => return Err(Error::invalid_state("the bus has been started already")),
        }
        self.serve_requests()?;
        let result = self.ask(|reply| Command::Start { reply }).await;
        if result.is_err() && self.state() == BusState::Stopped {
            self.join();
        }
        result
    }

    /// Sets the handler of workers' requests to work, where there is one.
    fn serve_requests(&self) -> Result<()> {
        let handler = self.owner.on_request.lock();
        let handler = handler.unwrap_or_else(PoisonError::into_inner).take();
        let Some(handler) = handler else {
            return Ok(());
        };
        let bus = &self.owner.handle;
        let runtime = self.owner.runtime.handle(bus)?;
        let (queue, requests) = RequestQueue::new(bus);
        runtime.spawn(handlers::serve(
            requests,
            handler,
            self.downgrade(),
            bus.clone(),
        ));
        bus.send(Command::Handle { queue });
        Ok(())
    }

    /// A way to this bus that doesn't keep it alive: for what the bus itself
    /// calls, as a handler or a task that should end with it.
    pub fn downgrade(&self) -> WeakBus {
        WeakBus {
            owner: Arc::downgrade(&self.owner),
        }
    }

    /// Stops the bus within 30 seconds: see
    /// [`stop_with_timeout`](Self::stop_with_timeout).
    ///
    /// # Errors
    /// As there.
    pub async fn stop(&self) -> Result<StopReport> {
        self.stop_with_timeout(STOP_TIMEOUT).await
    }

    /// Ends everything in flight and stops the workers, all within `limit`.
    ///
    /// Requests that wait end at once with `TransportError` "bus is shutting
    /// down". Each worker then sees the end of its input; those that stay get
    /// SIGTERM, and at last SIGKILL. Zero kills at once. Stopping a bus that
    /// stops or has stopped waits for the end and tells the same; the limit of the
    /// first stop holds, unless the other's is zero.
    ///
    /// # Errors
    /// None today.
    ///
    /// # Cancel safety
    /// Dropping the future doesn't stop the stop.
    pub async fn stop_with_timeout(&self, limit: Duration) -> Result<StopReport> {
        self.end(|reply| Command::Stop { limit, reply }).await
    }

    /// Accepts no more, lets what is in flight end, then stops the workers.
    ///
    /// After `limit`, what is still in flight ends with `TransportError`; `None`
    /// means the limit `drain_timeout_sec` of the configuration. The workers
    /// then have 5 seconds.
    ///
    /// # Errors
    /// None today.
    ///
    /// # Cancel safety
    /// Dropping the future doesn't stop the drain.
    pub async fn drain(&self, limit: impl Into<Option<Duration>>) -> Result<StopReport> {
        let limit = limit.into();
        self.end(|reply| Command::Drain {
            limit,
            grace: DRAIN_GRACE,
            reply,
        })
        .await
    }

    /// Sends a command and waits for its result. That of a thread that has
    /// ended is "shutting down".
    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<T>>) -> Command,
    ) -> Result<T> {
        let (reply, result) = oneshot::channel();
        self.owner.handle.send(command(reply));
        result.await.unwrap_or_else(|_| Err(Error::shutting_down()))
    }

    /// Sends a command that ends the bus, and waits until it has.
    async fn end(
        &self,
        command: impl FnOnce(oneshot::Sender<()>) -> Command,
    ) -> Result<StopReport> {
        let (reply, done) = oneshot::channel();
        self.owner.handle.send(command(reply));
        // An error says that the thread was gone already: just as good.
        let _ = done.await;
        self.join();
        Ok(self.owner.handle.shared().last().report.clone())
    }

    /// Waits for the bus thread, which has nothing left to do but return.
    fn join(&self) {
        let thread = self
            .owner
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(thread) = thread.filter(|t| t.thread().id() != thread::current().id()) {
            // A panic on it has been reported by the panic hook.
            let _ = thread.join();
        }
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        // Only a message: a drop never waits.
        self.handle.send(Command::Abandon {
            limit: STOP_TIMEOUT,
        });
    }
}

fn check_running(state: BusState) -> Result<()> {
    match state {
        BusState::Running => Ok(()),
        BusState::Created | BusState::Starting => {
            Err(Error::invalid_state("the bus has not been started"))
        }
        BusState::Stopping => Err(Error::shutting_down()),
        BusState::Stopped => Err(Error::new(
            ErrorCode::InvalidState,
            "the bus has stopped, and can't be started again",
        )),
    }
}

/// `client-<unix ms>-<6 of [a-z0-9]>`.
fn new_session_id() -> String {
    use std::hash::{BuildHasher, RandomState};
    use std::time::{SystemTime, UNIX_EPOCH};

    const ALPHABET: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";

    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_millis();
    // Its keys come from the system's random source.
    let mut random = RandomState::new().hash_one(now);
    let mut id = format!("client-{now}-");
    for _ in 0..6 {
        id.push(char::from(ALPHABET[(random % 36) as usize]));
        random /= 36;
    }
    id
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_handle_can_be_shared_between_threads() {
        fn check<T: Clone + Send + Sync + 'static>() {}
        fn check_send<T: Send>() {}
        check::<StdioBus>();
        check_send::<Request>();
        check_send::<EventStream>();
    }

    #[test]
    fn session_ids_have_their_form_and_differ() {
        let a = new_session_id();
        let (ms, random) = a
            .strip_prefix("client-")
            .and_then(|rest| rest.split_once('-'))
            .expect("two parts");
        assert!(ms.parse::<u64>().is_ok(), "{a}");
        assert_eq!(random.len(), 6);
        assert!(
            random
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit()),
            "{a}"
        );
        // Of each place a hundred draws can't be all the same.
        let drawn: Vec<_> = (0..100).map(|_| new_session_id()).collect();
        for place in 1..=6 {
            let letter = |id: &String| id.as_bytes()[id.len() - place];
            assert!(drawn.iter().map(letter).any(|l| l != letter(&a)));
        }
    }
}
