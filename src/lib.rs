//! Runs programs that speak newline-delimited JSON-RPC on stdin and stdout, and
//! brings each request to the right one and each answer back.
//!
//! MCP servers, ACP agents and home-made workers are such programs. A bus
//! starts them, keeps them alive, and serves this process as well as others that
//! connect through TCP or a Unix socket.
//!
//! ```no_run
//! use serde_json::json;
//! use stdiobus::{PoolConfig, StdioBus};
//!
//! # async fn example() -> stdiobus::Result<()> {
//! let bus = StdioBus::builder()
//!     .pool(PoolConfig::new("echo", "python3").args(["examples/workers/echo.py"]).instances(2))
//!     .build()?;
//! bus.start().await?;
//! let reply = bus.request("echo", json!({"message": "hello"})).await?;
//! println!("{reply}");
//! bus.stop().await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Lifecycle
//! A bus is built, started once, and stopped once; a stopped one can't be
//! started again. [`StdioBus::stop`] waits for the end. Dropping the last
//! [`StdioBus`] stops the bus in the background and doesn't wait.
//!
//! # Threads
//! Each bus has one thread of its own, which sleeps while nothing happens.
//! [`StdioBus`] can be used from any thread and with any async runtime. Answers
//! are turned into values in the task that asked for them. Handlers run on the
//! tokio runtime that was there when the bus was built or started, else on one
//! thread more. [`blocking`] is the client without async.
//!
//! # Backends
//! A bus lives in this process unless the builder says otherwise
//! ([`StdioBusBuilder::backend`]): it may be a child of its own, or one that runs
//! already and is reached over a socket. What a client can rely on is the same
//! everywhere.
//!
//! # Routing
//! Requests of one session go to the same worker of a pool, in their order.
//! Everything a [`StdioBus`] sends belongs to its own session, unless
//! [`RequestOptions`] names another or none. With several pools, a request names
//! the one it is for.
//!
//! # Backpressure
//! This process's requests in flight have a budget in bytes
//! ([`StdioBusBuilder::max_in_flight_bytes`]): one more waits for room, within its
//! own timeout, or is refused at once ([`StdioBus::try_request`]).
//! What waits for one worker is bounded, too ([`LimitsConfig`]); a request
//! beyond that ends at once with [`ErrorCode::ResourceExhausted`].
//!
//! What workers say on their own never waits for a taker: a subscriber with a
//! full queue loses messages or is closed ([`OverflowPolicy`]), a stream that
//! isn't read ends, and of workers' requests 1024 may be open. What is lost is
//! counted ([`Stats`]); [`concepts::backpressure`] has every bound.
//!
//! # Streams and handlers
//! [`StdioBus::stream_request`] gives what belongs to a request as it comes, as
//! an ACP agent's text. [`StdioBusBuilder::on_request`] answers what workers ask;
//! [`StdioBus::subscribe_notifications`] and [`StdioBus::on_notification`] hear
//! what they tell. [`StdioBus::connect_io`] puts another library on a worker, and
//! [`StdioBus::register_worker`] makes a worker of an async function.
//!
//! # Shutdown
//! At stop, requests in flight end at once with [`ErrorCode::TransportError`].
//! Workers see the end of their input, then SIGTERM, then SIGKILL, within the
//! time given. Dropping the last handle does that in the background, for which this
//! process has to live on: stop before `main` returns. When this process ends or dies
//! they get the end of their input and, on Linux, SIGTERM.
//!
//! # Errors
//! Every request ends exactly once: with its answer, with the worker's own error
//! ([`Error::Rpc`]), or with an [`ErrorCode`] that says what went wrong.
//!
//! # More
//! [`concepts`] has chapters on ordering, cancellation, backpressure, supervision,
//! observability, embedding in C, and security. The package's folder `examples` has a short
//! program for each of: a first request, the client without async, streams,
//! notifications, the handshake, identities, several pools, the builder, a
//! configuration file, a listener.
//!
//! # Features
//! - `cli` (default): the program `stdio_bus` and what only it needs.
//! - `agent` (with `cli`): the module `agent`: see [`concepts::agents`].
//! - `tracing`: a span for each request, events for what happens on the bus, and
//!   log lines go to `tracing`, target `stdiobus`: see [`concepts::observability`].
//! - `metrics`: counters, gauges and a histogram for the crate `metrics`: see there.
//! - `buildtime-bindgen`: generate the bindings from the headers (needs libclang).

#![deny(unsafe_code)]
#![warn(missing_docs, missing_debug_implementations, unreachable_pub)]
// What is public can grow: fields and variants are no promise that there are no more.
#![warn(
    clippy::exhaustive_enums,
    clippy::exhaustive_structs,
    clippy::return_self_not_must_use
)]
#![warn(
    clippy::undocumented_unsafe_blocks,
    clippy::multiple_unsafe_ops_per_block
)]

#[cfg(not(unix))]
compile_error!("stdiobus needs a Unix target: it is made of pipes, signals and process groups");

#[cfg(feature = "agent")]
pub mod agent;
pub mod blocking;
pub mod concepts;

mod backend;
mod client;
mod config;
mod driver;
mod error;
mod native;
mod rpc;
mod stats;
mod sys;

pub use backend::{BackendMode, NativeOptions, RemoteOptions, SubprocessOptions};
pub use client::{
    AdoptedClient, AuditEvent, BusStream, EventStream, HandlerGuard, HelloParams, HelloResult,
    Identity, Listen, ListenAddr, ListenMode, Message, NegotiatedExtension, Notification,
    NotificationOptions, NotificationStream, OfferedExtension, Request, RequestOptions,
    ResponseStream, ServiceCall, StateChanges, StdioBus, StdioBusBuilder, StreamEvent, WeakBus,
    WorkerGuard, WorkerRequest,
};
pub use config::{
    BusConfig, ClientMode, Framing, LimitsConfig, PoolConfig, Protocol, RestartPolicy, StderrMode,
    TransportConfig,
};
pub use driver::{Event, LogLevel, Overflow, OverflowPolicy, WorkerRef};
pub use error::{BusError, Error, ErrorCode, Result, RpcError, WorkerExit};
pub use stats::{
    BackendType, BusState, Latency, PoolInfo, Stats, StopReport, WorkerInfo, WorkerState,
};

/// The version of the bus inside, "MAJOR.MINOR.PATCH".
pub fn version() -> &'static str {
    native::version()
}

/// What the program needs and nobody else: not part of the API.
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod program {
    /// Seconds since 1970, shown as `YYYY-MM-DDTHH:MM:SS` in UTC.
    pub fn utc(seconds: u64) -> impl std::fmt::Display {
        crate::agent::time::Utc(seconds)
    }

    use serde_json::value::RawValue;

    use crate::backend::{Reader, Writer};

    /// A bus that only serves others, with workers on this process's stderr.
    pub fn daemon(builder: crate::StdioBusBuilder) -> crate::StdioBusBuilder {
        builder.daemon()
    }

    /// The same, but what those workers write to stderr is read, and handed on line
    /// by line.
    pub fn daemon_with_stderr(
        builder: crate::StdioBusBuilder,
        sink: impl Fn(&str) + Send + Sync + 'static,
    ) -> crate::StdioBusBuilder {
        builder.daemon().on_stderr(sink)
    }

    /// An agent that gets SIGTERM when the thread ends that starts it.
    pub fn tied(mut options: crate::agent::StdioOptions) -> crate::agent::StdioOptions {
        options.tied = true;
        options
    }

    /// Whether a bus could be built and its programs be started, as far as that
    /// shows beforehand. Returns warnings.
    pub fn check(builder: crate::StdioBusBuilder) -> crate::Result<Vec<String>> {
        builder.check()
    }

    /// A request whose result is the text that the worker wrote, where no text
    /// of chunks is joined into it.
    pub fn request_raw(
        bus: &crate::StdioBus,
        method: &str,
        params: Option<&RawValue>,
        options: &crate::RequestOptions,
    ) -> crate::Request<Box<RawValue>> {
        bus.make_request(method, &params, options)
    }

    /// A connection to a running bus, for lines of JSON. Needs tokio.
    pub async fn connect(options: &crate::RemoteOptions) -> crate::Result<(Reader, Writer)> {
        options.check().map_err(crate::Error::invalid_argument)?;
        crate::backend::dial(options).await
    }

    /// A descriptor that the program was given by number.
    pub fn take_fd(number: std::os::fd::RawFd) -> Option<std::os::fd::OwnedFd> {
        crate::native::take_fd(number)
    }

    /// Takes a variable out of the environment, so that workers don't get it. It
    /// stays where this process has more than one thread.
    pub fn forget_variable(name: &str) {
        crate::native::forget_variable(name);
    }
}

/// Compiles the examples of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
