//! The client: what an application holds.

mod builder;
mod events;
mod listen;
mod request;

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;

pub use builder::StdioBusBuilder;
pub use events::EventStream;
pub use listen::{ListenAddr, ListenMode};
pub use request::{Request, RequestOptions};

use crate::driver::{Command, EventSink, Gauges, Handle};
use crate::error::{Error, ErrorCode, Result};
use crate::rpc;
use crate::stats::{BusState, Stats, StopReport, WorkerInfo};

/// How long `stop()`, and the stop that a drop starts, may take.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// How long workers get to end after a drain, when nothing is in flight.
const DRAIN_GRACE: Duration = Duration::from_secs(5);

/// Events that wait for one subscriber, unless it says otherwise.
const EVENT_QUEUE: usize = 1024;

/// A handle to a bus: its workers, and the way to them.
///
/// Cheap to clone; all clones are the same bus. It lives on a thread of its own,
/// which [`StdioBusBuilder::build`] starts. When the last clone is dropped, the
/// bus stops in the background, as [`stop`](Self::stop) would, and the drop
/// doesn't wait for it.
///
/// No method needs a particular async runtime, or any: the futures can be
/// polled by whatever executor there is.
#[derive(Debug, Clone)]
pub struct StdioBus {
    owner: Arc<Owner>,
}

/// What the clones share. Requests in flight don't hold it, so that dropping
/// the last clone ends them.
#[derive(Debug)]
struct Owner {
    handle: Handle,
    thread: Mutex<Option<JoinHandle<()>>>,
    timeout: Option<Duration>,
    session_id: String,
    listen: Vec<ListenMode>,
}

impl StdioBus {
    /// Starts to describe a bus.
    pub fn builder() -> StdioBusBuilder {
        StdioBusBuilder::new()
    }

    /// Opens the listeners and starts the workers. Returns once every worker's
    /// program has been executed.
    ///
    /// A bus can be started once. If starting fails it is stopped for good;
    /// what had been started is stopped again before this returns.
    ///
    /// # Errors
    /// - `Unavailable`: a program can't be executed or an address can't be
    ///   bound; the text names it and the system's reason.
    /// - `InvalidState`: started before, or stopped.
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
        let result = self.ask(|reply| Command::Start { reply }).await;
        if result.is_err() && self.state() == BusState::Stopped {
            self.join();
        }
        result
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
    /// stops or has stopped waits for the end and tells the same.
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

    /// Sends a request to a worker and waits for its answer.
    ///
    /// The request belongs to this bus's own session
    /// ([`client_session_id`](Self::client_session_id)), so one worker of the
    /// pool gets them all; [`RequestOptions`] has other ways. It ends after the
    /// builder's timeout, 30 seconds unless set; `session/prompt` has none, since
    /// a person may have to be asked.
    ///
    /// # Errors
    /// - [`Error::Rpc`]: the worker answered with an error.
    /// - `Timeout`: no answer in time.
    /// - `TransportError`: the worker exited (see [`Error::exit`]), or the bus is
    ///   shutting down.
    /// - `ResourceExhausted`: too much is queued for the worker.
    /// - `InvalidArgument`: the params can't be written as JSON, the message is
    ///   too large, or no pool can be chosen for it.
    /// - `InvalidState`: the bus isn't running.
    ///
    /// # Cancel safety
    /// Dropping the future gives the request up: a late answer is swallowed.
    pub fn request<P>(&self, method: &str, params: P) -> Request
    where
        P: Serialize,
    {
        self.request_with(method, params, RequestOptions::new())
    }

    /// [`request`](Self::request) with options.
    ///
    /// # Errors
    /// As there; options that exclude each other are `InvalidArgument`.
    pub fn request_with<P>(&self, method: &str, params: P, options: RequestOptions) -> Request
    where
        P: Serialize,
    {
        self.make_request(method, &params, &options)
    }

    /// [`request`](Self::request), with the result as a type of yours.
    ///
    /// # Errors
    /// As there; a result that isn't of this type is `InvalidArgument`.
    pub fn request_as<T, P>(&self, method: &str, params: P) -> Request<T>
    where
        T: DeserializeOwned,
        P: Serialize,
    {
        self.make_request(method, &params, &RequestOptions::new())
    }

    fn make_request<T: DeserializeOwned>(
        &self,
        method: &str,
        params: &impl Serialize,
        options: &RequestOptions,
    ) -> Request<T> {
        let id = self.owner.handle.shared().next_id();
        let frame = options
            .route(&self.owner.session_id)
            .and_then(|route| rpc::request(id, method, route, params));
        let limit = options.limit(method, self.owner.timeout);
        Request::new(&self.owner.handle, id, frame, limit)
    }

    /// Sends a notification: no answer comes. Resolves once the bus has
    /// accepted it.
    ///
    /// # Errors
    /// `InvalidArgument`, `InvalidState`, `ResourceExhausted` and
    /// `TransportError` as for [`request`](Self::request).
    ///
    /// # Cancel safety
    /// Once polled, it is sent.
    pub async fn notify<P>(&self, method: &str, params: P) -> Result<()>
    where
        P: Serialize + Send,
    {
        self.notify_with(method, params, RequestOptions::new())
            .await
    }

    /// [`notify`](Self::notify) with options.
    ///
    /// # Errors
    /// As there; a timeout is `InvalidArgument`, since nothing is waited for.
    pub async fn notify_with<P>(
        &self,
        method: &str,
        params: P,
        options: RequestOptions,
    ) -> Result<()>
    where
        P: Serialize + Send,
    {
        if options.has_timeout() {
            return Err(Error::invalid_argument(
                "a notification can't have a timeout",
            ));
        }
        let route = options.route(&self.owner.session_id)?;
        let frame = rpc::notification(method, route, &params)?;
        drop(params);
        self.submit(frame).await
    }

    /// Sends a message as it is: a notification, or the answer to a worker's
    /// request.
    ///
    /// # Errors
    /// As for [`notify`](Self::notify). `InvalidArgument` also for text with a
    /// newline, for text that isn't one JSON object, and for a request, whose
    /// answer would reach nobody.
    pub async fn send(&self, message: &str) -> Result<()> {
        rpc::check_raw(message)?;
        self.submit(message.as_bytes().to_vec()).await
    }

    async fn submit(&self, frame: Vec<u8>) -> Result<()> {
        check_running(self.state())?;
        self.ask(|reply| Command::Send { frame, reply }).await
    }

    /// Serves one more client, over two descriptors: what it sends comes from
    /// `from`, what it gets goes to `to`. The bus makes them non-blocking while
    /// it has them, and closes them when the client is gone.
    ///
    /// # Errors
    /// `InvalidState` unless the bus is running; `Unavailable` if the system
    /// refuses.
    pub async fn adopt_client(
        &self,
        from: impl Into<OwnedFd>,
        to: impl Into<OwnedFd>,
    ) -> Result<AdoptedClient> {
        check_running(self.state())?;
        let (from, to) = (from.into(), to.into());
        let adopted = self.ask(|reply| Command::Adopt { from, to, reply }).await?;
        Ok(AdoptedClient {
            id: adopted.client,
            gone: adopted.gone,
        })
    }

    /// What happens on the bus from now on: workers and clients that come and
    /// go. Up to 1024 events wait for this subscriber; more are counted and lost
    /// ([`EventStream::lagged`]).
    pub fn events(&self) -> EventStream {
        self.events_with(EVENT_QUEUE)
    }

    /// [`events`](Self::events) with room for `queue` events, at least one.
    pub fn events_with(&self, queue: usize) -> EventStream {
        let (stream, sink): (EventStream, EventSink) = EventStream::new(queue);
        // A bus that is gone drops the sink, and the stream ends.
        self.owner.handle.send(Command::Subscribe { sink });
        stream
    }

    /// Where the bus is in its life.
    pub fn state(&self) -> BusState {
        self.owner.handle.shared().state()
    }

    /// Whether requests are served.
    pub fn is_running(&self) -> bool {
        self.state() == BusState::Running
    }

    /// The session that requests belong to unless they say otherwise:
    /// `client-<unix ms>-<6 random characters>`.
    pub fn client_session_id(&self) -> &str {
        &self.owner.session_id
    }

    /// The addresses the listeners are bound to, in the order they were asked
    /// for: with the real port where 0 was. Empty before the start.
    pub fn listen_addrs(&self) -> Vec<ListenAddr> {
        let bound = self.owner.handle.shared().addresses.get();
        let bound = bound.map(Vec::as_slice).unwrap_or_default();
        self.owner
            .listen
            .iter()
            .zip(bound)
            .filter_map(|(mode, text)| mode.bound(text))
            .collect()
    }

    /// Workers that run. `None` where this can't be known.
    pub fn worker_count(&self) -> Option<usize> {
        Some(Gauges::get(&self.gauges().workers))
    }

    /// Clients that are connected. `None` where this can't be known.
    pub fn client_count(&self) -> Option<usize> {
        Some(Gauges::get(&self.gauges().clients))
    }

    /// Sessions that are bound to a worker. `None` where this can't be known.
    pub fn session_count(&self) -> Option<usize> {
        Some(Gauges::get(&self.gauges().sessions))
    }

    /// Requests that wait for an answer, those of socket clients included.
    /// `None` where this can't be known.
    pub fn pending_count(&self) -> Option<usize> {
        Some(Gauges::get(&self.gauges().pending))
    }

    fn gauges(&self) -> &Gauges {
        &self.owner.handle.shared().gauges
    }

    /// Counters since the bus was built; of a stopped bus, the last ones.
    ///
    /// # Errors
    /// None today.
    pub async fn stats(&self) -> Result<Stats> {
        match self.ask(|reply| Command::Stats { reply }).await {
            Err(_) => Ok(self.owner.handle.shared().last().stats.clone()),
            stats => stats,
        }
    }

    /// The workers as they are now; of a stopped bus, as they were at its end.
    ///
    /// # Errors
    /// None today.
    pub async fn workers(&self) -> Result<Vec<WorkerInfo>> {
        match self.ask(|reply| Command::Workers { reply }).await {
            Err(_) => Ok(self.owner.handle.shared().last().workers.clone()),
            workers => workers,
        }
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

/// A client that is served over descriptors; see [`StdioBus::adopt_client`].
/// Dropping this doesn't disconnect it.
#[derive(Debug)]
pub struct AdoptedClient {
    id: u32,
    gone: oneshot::Receiver<String>,
}

impl AdoptedClient {
    /// Its number, as in [`Event::ClientDisconnected`](crate::Event).
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Waits until the client is gone, and tells why: `closed`, `error`,
    /// `timeout`, `overflow` or `shutdown`.
    pub async fn closed(self) -> String {
        self.gone.await.unwrap_or_else(|_| "shutdown".into())
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
        let (a, b) = (new_session_id(), new_session_id());
        assert_ne!(a, b);
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
    }
}
