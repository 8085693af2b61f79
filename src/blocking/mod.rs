//! The client without async: [`StdioBus`] has the methods of
//! [`stdiobus::StdioBus`](crate::StdioBus), and waits where that one is awaited.
//!
//! ```no_run
//! use serde_json::json;
//! use stdiobus::{PoolConfig, StreamEvent, blocking::StdioBus};
//!
//! # fn example() -> stdiobus::Result<()> {
//! let bus = StdioBus::builder()
//!     .pool(PoolConfig::new("echo", "python3").args(["examples/workers/echo.py"]))
//!     .build_blocking()?;
//! bus.start()?;
//! println!("{}", bus.request("echo", json!({"message": "hello"}))?);
//! for event in bus.stream_request("session/prompt", json!({"prompt": []})) {
//!     match event? {
//!         StreamEvent::Chunk(text) => print!("{text}"),
//!         StreamEvent::Result(result) => println!("{result}"),
//!         _ => {}
//!     }
//! }
//! bus.stop()?;
//! # Ok(())
//! # }
//! ```
//!
//! It is the same client on the same bus thread; a call parks its thread until
//! the answer is there. Any number of threads may call at once.
//!
//! # Runtimes
//! None is needed. Handlers ([`on_request`](crate::StdioBusBuilder::on_request)
//! and the others) always run on a thread of the bus's own, which is started for
//! the first of them, and never on a tokio runtime of the caller's. So calls from
//! within a runtime do work; they hold up a thread of that runtime as any other
//! blocking call does, and belong into `spawn_blocking`.
//!
//! A handler must not wait like that, since it would hold up the handler's only
//! thread: inside of one, [`WorkerRequest::bus`](crate::WorkerRequest::bus) gives
//! the async client.

mod io;
mod park;
mod streams;

use std::future::Future;
use std::os::fd::OwnedFd;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

pub use io::{AdoptedClient, BusStream};
pub use streams::{EventStream, NotificationStream, ResponseStream, StateChanges};

use crate::error::Result;
use crate::{
    BackendType, BusConfig, BusState, HandlerGuard, HelloParams, HelloResult, ListenAddr,
    ListenMode, Message, Notification, NotificationOptions, PoolInfo, RequestOptions, RpcError,
    ServiceCall, Stats, StdioBusBuilder, StopReport, WeakBus, WorkerGuard, WorkerInfo,
};
use park::wait;

/// A handle to a bus, whose methods wait: see the [module](self).
///
/// Cheap to clone; all clones are the same bus. When the last one is dropped the
/// bus stops in the background, and the drop doesn't wait for it.
#[derive(Debug, Clone)]
pub struct StdioBus {
    bus: crate::StdioBus,
}

impl StdioBus {
    /// Starts to describe a bus, which
    /// [`build_blocking`](StdioBusBuilder::build_blocking) makes.
    pub fn builder() -> StdioBusBuilder {
        StdioBusBuilder::new()
    }

    pub(crate) fn new(bus: crate::StdioBus) -> Self {
        Self { bus }
    }

    /// The same bus, for async code.
    pub fn into_async(self) -> crate::StdioBus {
        self.bus
    }

    /// A way to this bus that doesn't keep it alive, for handlers.
    pub fn downgrade(&self) -> WeakBus {
        self.bus.downgrade()
    }
}

/// # Lifecycle
impl StdioBus {
    /// Starts the bus, and returns once every worker's program has been executed.
    ///
    /// # Errors
    /// Those of [`StdioBus::start`](crate::StdioBus::start).
    pub fn start(&self) -> Result<()> {
        wait(self.bus.start())
    }

    /// Starts the bus, then says [`hello`](Self::hello).
    ///
    /// # Errors
    /// Those of [`StdioBus::connect`](crate::StdioBus::connect).
    pub fn connect(&self, params: HelloParams) -> Result<HelloResult> {
        wait(self.bus.connect(params))
    }

    /// Agrees on extensions with a worker.
    ///
    /// # Errors
    /// Those of [`StdioBus::hello`](crate::StdioBus::hello).
    pub fn hello(&self, params: HelloParams) -> Result<HelloResult> {
        wait(self.bus.hello(params))
    }

    /// [`hello`](Self::hello) with options.
    ///
    /// # Errors
    /// As there.
    pub fn hello_with(&self, params: HelloParams, options: RequestOptions) -> Result<HelloResult> {
        wait(self.bus.hello_with(params, options))
    }

    /// Stops the bus within 30 seconds, and returns when it has stopped.
    ///
    /// # Errors
    /// None today.
    pub fn stop(&self) -> Result<StopReport> {
        wait(self.bus.stop())
    }

    /// Ends everything in flight and stops the workers, all within `limit`: see
    /// [`StdioBus::stop_with_timeout`](crate::StdioBus::stop_with_timeout).
    ///
    /// # Errors
    /// None today.
    pub fn stop_with_timeout(&self, limit: Duration) -> Result<StopReport> {
        wait(self.bus.stop_with_timeout(limit))
    }

    /// Accepts no more, lets what is in flight end, then stops the workers: see
    /// [`StdioBus::drain`](crate::StdioBus::drain).
    ///
    /// # Errors
    /// None today.
    pub fn drain(&self, limit: impl Into<Option<Duration>>) -> Result<StopReport> {
        wait(self.bus.drain(limit))
    }

    /// Where the bus is in its life.
    pub fn state(&self) -> BusState {
        self.bus.state()
    }

    /// Whether requests are served.
    pub fn is_running(&self) -> bool {
        self.bus.is_running()
    }

    /// Iterates over the changes of the bus's state from now on.
    pub fn state_changes(&self) -> StateChanges {
        StateChanges(self.bus.state_changes())
    }

    /// Takes another configuration while running.
    ///
    /// # Errors
    /// Those of [`StdioBus::reload`](crate::StdioBus::reload); nothing has changed
    /// then.
    pub fn reload(&self, config: BusConfig) -> Result<()> {
        wait(self.bus.reload(config))
    }

    /// [`reload`](Self::reload) with a configuration that is JSON text.
    ///
    /// # Errors
    /// Those of [`StdioBus::reload_json`](crate::StdioBus::reload_json); nothing has
    /// changed then.
    pub fn reload_json(&self, json: impl Into<String>) -> Result<()> {
        wait(self.bus.reload_json(json))
    }

    /// Forgets to which workers a session is bound. `false` if nothing was bound.
    ///
    /// # Errors
    /// Those of [`StdioBus::end_session`](crate::StdioBus::end_session).
    pub fn end_session(&self, session: &str) -> Result<bool> {
        wait(self.bus.end_session(session))
    }
}

/// # Messages
impl StdioBus {
    /// Sends a request to a worker and waits for its answer, within the builder's
    /// timeout.
    ///
    /// # Errors
    /// Those of [`StdioBus::request`](crate::StdioBus::request).
    pub fn request<P: Serialize>(&self, method: &str, params: P) -> Result<Value> {
        wait(self.bus.request(method, params))
    }

    /// [`request`](Self::request) with options.
    ///
    /// # Errors
    /// As there; options that exclude each other are `InvalidArgument`.
    pub fn request_with<P: Serialize>(
        &self,
        method: &str,
        params: P,
        options: RequestOptions,
    ) -> Result<Value> {
        wait(self.bus.request_with(method, params, options))
    }

    /// [`request`](Self::request), with the result as a type of yours.
    ///
    /// # Errors
    /// As there; a result that isn't of this type is `InvalidArgument`.
    pub fn request_as<T, P>(&self, method: &str, params: P) -> Result<T>
    where
        T: DeserializeOwned,
        P: Serialize,
    {
        wait(self.bus.request_as(method, params))
    }

    /// [`request_as`](Self::request_as) with options.
    ///
    /// # Errors
    /// As there; options that exclude each other are `InvalidArgument`.
    pub fn request_as_with<T, P>(
        &self,
        method: &str,
        params: P,
        options: RequestOptions,
    ) -> Result<T>
    where
        T: DeserializeOwned,
        P: Serialize,
    {
        wait(self.bus.request_as_with(method, params, options))
    }

    /// [`request`](Self::request) that doesn't wait for room among the bytes in
    /// flight, only for its answer.
    ///
    /// # Errors
    /// As there, and `ResourceExhausted` at once where there is no room.
    pub fn try_request<P: Serialize>(&self, method: &str, params: P) -> Result<Value> {
        wait(self.bus.try_request(method, params)?)
    }

    /// [`try_request`](Self::try_request) with options.
    ///
    /// # Errors
    /// As there; options that exclude each other are `InvalidArgument`.
    pub fn try_request_with<P: Serialize>(
        &self,
        method: &str,
        params: P,
        options: RequestOptions,
    ) -> Result<Value> {
        wait(self.bus.try_request_with(method, params, options)?)
    }

    /// Sends a request and iterates over what belongs to it as it comes; the last
    /// item is the result or an error. Any number of streams may run at once.
    ///
    /// # Errors
    /// As the last item, those of
    /// [`StdioBus::stream_request`](crate::StdioBus::stream_request).
    pub fn stream_request<P: Serialize>(&self, method: &str, params: P) -> ResponseStream {
        ResponseStream(self.bus.stream_request(method, params))
    }

    /// [`stream_request`](Self::stream_request) with options.
    ///
    /// # Errors
    /// As there; options that exclude each other are `InvalidArgument`.
    pub fn stream_request_with<P: Serialize>(
        &self,
        method: &str,
        params: P,
        options: RequestOptions,
    ) -> ResponseStream {
        ResponseStream(self.bus.stream_request_with(method, params, options))
    }

    /// Sends a notification, and returns once the bus has accepted it.
    ///
    /// # Errors
    /// Those of [`StdioBus::notify`](crate::StdioBus::notify).
    pub fn notify<P: Serialize + Send>(&self, method: &str, params: P) -> Result<()> {
        wait(self.bus.notify(method, params))
    }

    /// [`notify`](Self::notify) with options.
    ///
    /// # Errors
    /// As there; options about the answer are `InvalidArgument`, since none comes.
    pub fn notify_with<P: Serialize + Send>(
        &self,
        method: &str,
        params: P,
        options: RequestOptions,
    ) -> Result<()> {
        wait(self.bus.notify_with(method, params, options))
    }

    /// Sends a message as it is: a notification, or the answer to a worker's
    /// request.
    ///
    /// # Errors
    /// Those of [`StdioBus::send`](crate::StdioBus::send).
    pub fn send(&self, message: &str) -> Result<()> {
        wait(self.bus.send(message))
    }

    /// Calls a handler with each notification of workers: see
    /// [`StdioBus::on_notification`](crate::StdioBus::on_notification).
    ///
    /// # Errors
    /// As there.
    pub fn on_notification<H>(&self, handler: H) -> Result<HandlerGuard>
    where
        H: Fn(Notification) + Send + Sync + 'static,
    {
        self.bus.on_notification(handler)
    }

    /// Calls a handler with everything that workers say on their own: see
    /// [`StdioBus::on_message`](crate::StdioBus::on_message).
    ///
    /// # Errors
    /// As there.
    pub fn on_message<H>(&self, handler: H) -> Result<HandlerGuard>
    where
        H: Fn(Message) + Send + Sync + 'static,
    {
        self.bus.on_message(handler)
    }

    /// Iterates over the notifications that workers send from now on: see
    /// [`StdioBus::subscribe_notifications`](crate::StdioBus::subscribe_notifications).
    pub fn subscribe_notifications(&self) -> NotificationStream {
        NotificationStream(self.bus.subscribe_notifications())
    }

    /// [`subscribe_notifications`](Self::subscribe_notifications) with options.
    pub fn subscribe_notifications_with(&self, options: NotificationOptions) -> NotificationStream {
        NotificationStream(self.bus.subscribe_notifications_with(options))
    }

    /// Iterates over what happens on the bus from now on: see
    /// [`StdioBus::events`](crate::StdioBus::events).
    pub fn events(&self) -> EventStream {
        EventStream(self.bus.events())
    }

    /// [`events`](Self::events) with room for `queue` events, at least one.
    pub fn events_with(&self, queue: usize) -> EventStream {
        EventStream(self.bus.events_with(queue))
    }
}

/// # Clients
impl StdioBus {
    /// Makes one more client of the bus, and gives its end of the connection: see
    /// [`StdioBus::connect_io`](crate::StdioBus::connect_io). No runtime is needed
    /// here.
    ///
    /// # Errors
    /// As there.
    pub fn connect_io(&self, pool: Option<&str>) -> Result<BusStream> {
        let (stream, id) = wait(self.bus.connect_socket(pool))?;
        Ok(BusStream { stream, id })
    }

    /// Serves one more client, over two descriptors: see
    /// [`StdioBus::adopt_client`](crate::StdioBus::adopt_client).
    ///
    /// # Errors
    /// As there.
    pub fn adopt_client(
        &self,
        from: impl Into<OwnedFd>,
        to: impl Into<OwnedFd>,
    ) -> Result<AdoptedClient> {
        wait(self.bus.adopt_client(from, to)).map(AdoptedClient)
    }
}

/// # Workers
impl StdioBus {
    /// Adds a worker that lives in this process: an async function, which runs on
    /// the handlers' thread. See
    /// [`StdioBus::register_worker`](crate::StdioBus::register_worker).
    ///
    /// # Errors
    /// As there.
    pub fn register_worker<S, F>(&self, pool: &str, service: S) -> Result<WorkerGuard>
    where
        S: Fn(ServiceCall) -> F + Send + Sync + 'static,
        F: Future<Output = std::result::Result<Value, RpcError>> + Send + 'static,
    {
        wait(self.bus.register_worker(pool, service))
    }
}

/// # Introspection
impl StdioBus {
    /// What operators call it: see [`StdioBusBuilder::name`].
    pub fn name(&self) -> &str {
        self.bus.name()
    }

    /// What runs the bus.
    pub fn backend_type(&self) -> BackendType {
        self.bus.backend_type()
    }

    /// Where the bus listens, as the builder was told; empty for nowhere.
    pub fn listen_mode(&self) -> &[ListenMode] {
        self.bus.listen_mode()
    }

    /// The last lines that a worker wrote to stderr, the newest last.
    ///
    /// # Errors
    /// Those of [`StdioBus::stderr_tail`](crate::StdioBus::stderr_tail).
    pub fn stderr_tail(&self, lines: usize) -> Result<Vec<String>> {
        wait(self.bus.stderr_tail(lines))
    }

    /// As [`StdioBus::worker_stderr_tail`](crate::StdioBus::worker_stderr_tail).
    ///
    /// # Errors
    /// As there.
    pub fn worker_stderr_tail(&self, worker: usize, lines: usize) -> Result<Vec<String>> {
        wait(self.bus.worker_stderr_tail(worker, lines))
    }

    /// The session that requests belong to unless they say otherwise.
    pub fn client_session_id(&self) -> &str {
        self.bus.client_session_id()
    }

    /// The session that a worker named in its answer to the last
    /// [`hello`](Self::hello).
    pub fn agent_session_id(&self) -> Option<String> {
        self.bus.agent_session_id()
    }

    /// The addresses the listeners are bound to.
    pub fn listen_addrs(&self) -> Vec<ListenAddr> {
        self.bus.listen_addrs()
    }

    /// Workers that run. `None` where this can't be known.
    pub fn worker_count(&self) -> Option<usize> {
        self.bus.worker_count()
    }

    /// Clients that are connected. `None` where this can't be known.
    pub fn client_count(&self) -> Option<usize> {
        self.bus.client_count()
    }

    /// Sessions that are bound to a worker. `None` where this can't be known.
    pub fn session_count(&self) -> Option<usize> {
        self.bus.session_count()
    }

    /// Requests that wait for an answer. `None` where this can't be known.
    pub fn pending_count(&self) -> Option<usize> {
        self.bus.pending_count()
    }

    /// Counters since the bus was built; of a stopped bus, the last ones.
    ///
    /// # Errors
    /// None today.
    pub fn stats(&self) -> Result<Stats> {
        wait(self.bus.stats())
    }

    /// The workers as they are now; of a stopped bus, as they were at its end.
    ///
    /// # Errors
    /// None today.
    pub fn workers(&self) -> Result<Vec<WorkerInfo>> {
        wait(self.bus.workers())
    }

    /// The pools as they are now; of a stopped bus, as they were at its end.
    ///
    /// # Errors
    /// None today.
    pub fn pools(&self) -> Result<Vec<PoolInfo>> {
        wait(self.bus.pools())
    }

    /// Brings the metrics of this bus up to date: see
    /// [`StdioBus::publish_metrics`](crate::StdioBus::publish_metrics).
    ///
    /// # Errors
    /// None today.
    #[cfg(feature = "metrics")]
    pub fn publish_metrics(&self) -> Result<()> {
        wait(self.bus.publish_metrics())
    }
}
