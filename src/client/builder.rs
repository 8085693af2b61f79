//! Describing a bus.

use std::fmt;
use std::future::Future;
use std::mem;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;

use super::handlers::{RequestHandler, Runtime};
use super::{Listen, Owner, StdioBus, WorkerRequest, new_session_id};
use crate::backend::{BackendMode, NativeOptions, SubprocessOptions};
use crate::config::{BusConfig, LimitsConfig, PoolConfig};
use crate::driver::{self, LogLevel, LogSink, Spec, StderrSink};
use crate::error::{Error, Result, RpcError};

/// How long a request may take, unless it or the builder says otherwise.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// Bytes of this process's requests in flight, unless the builder says otherwise.
const MAX_IN_FLIGHT: usize = 64 << 20;

/// Describes a bus, then [builds](Self::build) it.
#[derive(Clone)]
#[must_use = "a builder does nothing until it builds"]
pub struct StdioBusBuilder {
    name: Arc<str>,
    pub(super) config: Option<BusConfig>,
    pub(super) config_path: Option<PathBuf>,
    pub(super) config_json: Option<String>,
    pub(super) pools: Vec<PoolConfig>,
    pub(super) limits: Option<LimitsConfig>,
    pub(super) listen: Vec<Listen>,
    pub(super) timeout: Option<Duration>,
    pub(super) max_in_flight_bytes: usize,
    pub(super) log: Option<LogSink>,
    pub(super) log_level: Option<LogLevel>,
    pub(super) on_request: Option<RequestHandler>,
    pub(super) daemon: bool,
    /// Takes the lines of workers whose pool doesn't say what becomes of them.
    pub(super) stderr: Option<StderrSink>,
    pub(super) backend: BackendMode,
    pub(super) native: Option<NativeOptions>,
    pub(super) subprocess: Option<SubprocessOptions>,
}

impl StdioBusBuilder {
    pub(crate) fn new() -> Self {
        Self {
            name: Arc::from("stdiobus"),
            config: None,
            config_path: None,
            config_json: None,
            pools: Vec::new(),
            limits: None,
            listen: Vec::new(),
            timeout: Some(REQUEST_TIMEOUT),
            max_in_flight_bytes: MAX_IN_FLIGHT,
            log: None,
            log_level: None,
            on_request: None,
            daemon: false,
            stderr: None,
            backend: BackendMode::Auto,
            native: None,
            subprocess: None,
        }
    }

    /// What operators call the bus, to tell it from others of this process:
    /// `stdiobus` unless set. It is the field `bus` of what goes to `tracing`, and
    /// the label `bus` of metrics: see
    /// [`concepts::observability`](crate::concepts::observability).
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Arc::from(name.into());
        self
    }

    /// The configuration, as a value. Excludes `config_path` and `config_json`.
    pub fn config(mut self, config: BusConfig) -> Self {
        self.config = Some(config);
        self
    }

    /// The configuration, as a JSON file that the bus reads; its keys are those of
    /// [`BusConfig`]. Excludes the others, `pool` and `limits` included.
    ///
    /// Paths in it are relative to this process's working directory, not to the
    /// file.
    pub fn config_path(mut self, path: impl Into<PathBuf>) -> Self {
        self.config_path = Some(path.into());
        self
    }

    /// The configuration, as JSON text. Excludes the others, `pool` and
    /// `limits` included.
    pub fn config_json(mut self, json: impl Into<String>) -> Self {
        self.config_json = Some(json.into());
        self
    }

    /// Adds a pool, to those of [`config`](Self::config) where that is given.
    /// Repeatable.
    pub fn pool(mut self, pool: PoolConfig) -> Self {
        self.pools.push(pool);
        self
    }

    /// Sets the limits, all of them: those of [`config`](Self::config) don't count
    /// then.
    pub fn limits(mut self, limits: LimitsConfig) -> Self {
        self.limits = Some(limits);
        self
    }

    /// Where the bus runs. [`BackendMode::Auto`] unless set.
    ///
    /// What only a bus in this process can do is `NotSupported` elsewhere: listing
    /// and reloading, clients over descriptors, workers of this process. There
    /// [`events`](StdioBus::events) tells nothing, and of whoever sent a message
    /// the worker isn't known. A bus that runs already ([`BackendMode::Remote`]) has a
    /// configuration, and listeners, of its own.
    ///
    /// ```no_run
    /// # use stdiobus::{BackendMode, RemoteOptions, StdioBus};
    /// # async fn example() -> stdiobus::Result<()> {
    /// let bus = StdioBus::builder()
    ///     .backend(BackendMode::Remote(RemoteOptions::unix("/run/bus.sock")))
    ///     .build()?;
    /// bus.start().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn backend(mut self, mode: BackendMode) -> Self {
        self.backend = mode;
        self
    }

    /// Options for [`BackendMode::Native`]; with another mode an error.
    pub fn native(mut self, options: NativeOptions) -> Self {
        self.native = Some(options);
        self
    }

    /// Options for [`BackendMode::Subprocess`]; with another mode an error.
    pub fn subprocess(mut self, options: SubprocessOptions) -> Self {
        self.subprocess = Some(options);
        self
    }

    /// Opens a listener for other processes at the start. Repeatable, TCP and
    /// Unix in any mix. A [`ListenMode`](crate::ListenMode) says where; a
    /// [`Listen`] also says whom it lets in.
    pub fn listen(mut self, listen: impl Into<Listen>) -> Self {
        self.listen.push(listen.into());
        self
    }

    /// How long a request may take unless it says otherwise. 30 seconds unless
    /// set; `None` is no limit. Progress begins it anew: see
    /// [`StdioBus::request`].
    pub fn timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.timeout = timeout.into();
        self
    }

    /// How many bytes of this process's own requests may be in flight at once,
    /// from being sent to being answered; 64 MiB unless set, at least 1.
    ///
    /// A request beyond it waits for room, within its own timeout and behind
    /// those that wait already; [`StdioBus::try_request`] doesn't wait. One that is
    /// larger than all of it goes when no other is in flight. Notifications, and
    /// clients on sockets, are not counted.
    ///
    /// The bus's own limit for what a worker has not read yet
    /// ([`LimitsConfig::max_output_queue`]) holds beside it, and refuses at once.
    pub fn max_in_flight_bytes(mut self, bytes: usize) -> Self {
        self.max_in_flight_bytes = bytes;
        self
    }

    /// Takes the bus's log lines, instead of `tracing` (with that feature; target
    /// `stdiobus::log`) or nobody. Spans and events go to `tracing` all the same.
    ///
    /// It is called on the bus's own thread: while it runs, no message moves.
    /// What it panics with is caught.
    pub fn on_log(mut self, sink: impl Fn(LogLevel, &str) + Send + Sync + 'static) -> Self {
        self.log = Some(Arc::new(sink));
        self
    }

    /// The lowest level that is logged. [`LogLevel::Info`] unless set.
    pub fn log_level(mut self, level: LogLevel) -> Self {
        self.log_level = Some(level);
        self
    }

    /// Answers what workers ask: permissions, files, questions. Without a handler
    /// they are told that nobody does: `session/request_permission` gets the
    /// outcome `cancelled`, everything else error -32601. Setting another handler
    /// replaces it.
    ///
    /// ```
    /// # use stdiobus::{RpcError, StdioBus, WorkerRequest};
    /// # use serde_json::json;
    /// let builder = StdioBus::builder().on_request(|request: WorkerRequest| async move {
    ///     match request.method() {
    ///         "roots/list" => Ok(json!({"roots": []})),
    ///         other => Err(RpcError::method_not_found(other)),
    ///     }
    /// });
    /// ```
    ///
    /// It is called once for each request that belongs to this process, each in
    /// a task of its own, so requests are handled at the same time and answers
    /// may come in any order. The tasks run on the tokio runtime in which the bus
    /// was built or, if it was built in none, started; with no runtime there, on
    /// one of the bus's own with one thread.
    ///
    /// 1024 requests may be open at once; one more is answered with error -32012,
    /// `data.reason` "overloaded", and counted
    /// ([`Stats::refused_worker_requests`](crate::Stats)). A handler that panics
    /// is caught: the panic is logged, and the worker gets -32603. The answer to
    /// a worker that is gone, or that has taken its request back, reaches nobody.
    ///
    /// What runs when the bus ends is dropped. A [`StdioBus`] that the handler
    /// captures keeps the bus alive for ever, since the handler lives as long as
    /// the bus: use [`WorkerRequest::bus`] or a [`WeakBus`](crate::WeakBus).
    pub fn on_request<H, F>(mut self, handler: H) -> Self
    where
        H: Fn(WorkerRequest) -> F + Send + Sync + 'static,
        F: Future<Output = Result<Value, RpcError>> + Send + 'static,
    {
        self.on_request = Some(Arc::new(move |request| Box::pin(handler(request))));
        self
    }

    /// For the program: this process asks nothing itself, and workers whose
    /// pool doesn't say otherwise share its stderr.
    #[cfg(feature = "cli")]
    pub(crate) fn daemon(mut self) -> Self {
        self.daemon = true;
        self
    }

    /// For the program: the stderr of workers whose pool doesn't say otherwise is
    /// read by the bus, and each line of it goes here, on the bus's own thread.
    #[cfg(feature = "cli")]
    pub(crate) fn on_stderr(mut self, sink: impl Fn(&str) + Send + Sync + 'static) -> Self {
        self.stderr = Some(Arc::new(sink));
        self
    }

    /// Checks the configuration and makes the bus. Nothing is started yet.
    ///
    /// Reads the configuration file, where there is one, and starts the bus's
    /// thread; both block for a moment.
    ///
    /// # Errors
    /// - `InvalidArgument`: no configuration, more than one, or one that isn't
    ///   valid; the text names the options, or the pool and the field. A listener
    ///   that isn't valid, or whose pool doesn't exist. An empty name.
    /// - `ResourceExhausted`: no thread could be started, or no descriptor
    ///   duplicated.
    pub fn build(self) -> Result<StdioBus> {
        self.build_on(Runtime::current())
    }

    /// [`build`](Self::build), for code without async: see
    /// [`blocking`](crate::blocking). Handlers run on a thread of the bus's own.
    ///
    /// # Errors
    /// As there.
    pub fn build_blocking(self) -> Result<crate::blocking::StdioBus> {
        let bus = self.build_on(Runtime::own())?;
        Ok(crate::blocking::StdioBus::new(bus))
    }

    fn build_on(mut self, runtime: Runtime) -> Result<StdioBus> {
        let max_in_flight_bytes = self.max_in_flight_bytes;
        if max_in_flight_bytes == 0 {
            return Err(Error::invalid_argument(
                "max_in_flight_bytes: must be at least 1",
            ));
        }
        if self.name.is_empty() {
            return Err(Error::invalid_argument("name must not be empty"));
        }
        let listen = mem::take(&mut self.listen).into_iter();
        let listen = listen.map(Listen::into_native);
        let (listen, modes) = listen.collect::<Result<(Vec<_>, Vec<_>)>>()?;
        let (timeout, log, stderr) = (self.timeout, self.log.clone(), self.stderr.clone());
        let (name, on_request) = (Arc::clone(&self.name), self.on_request.clone());
        let native = self.native.clone().unwrap_or_default();
        let subprocess = self.subprocess.clone().unwrap_or_default();
        let (backend, plan) = self.plan(listen, &native, &subprocess)?;
        let (handle, thread) = driver::spawn(Spec {
            plan,
            name,
            log,
            stderr,
            max_in_flight_bytes,
            stderr_lines: subprocess.stderr_buffer_lines,
            thread_name: native.thread_name,
        })?;
        Ok(StdioBus {
            owner: Arc::new(Owner {
                handle,
                thread: Mutex::new(Some(thread)),
                timeout,
                session_id: new_session_id(),
                agent_session_id: Mutex::new(None),
                listen: modes,
                backend,
                runtime,
                on_request: Mutex::new(on_request),
                #[cfg(feature = "metrics")]
                published: Default::default(),
            }),
        })
    }
}

impl Default for StdioBusBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for StdioBusBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Environment variables of pools may be secrets, so no configuration.
        f.debug_struct("StdioBusBuilder")
            .field("name", &self.name)
            .field("listen", &self.listen)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_half_a_minute_unless_the_builder_says_otherwise() {
        let limit = |builder: StdioBusBuilder| {
            let bus = builder.pool(PoolConfig::new("a", "cat")).build();
            bus.expect("valid").owner.timeout
        };
        let default = StdioBusBuilder::new();
        assert_eq!(limit(default.clone()), Some(Duration::from_secs(30)));
        let short = Duration::from_secs(1);
        assert_eq!(limit(default.clone().timeout(short)), Some(short));
        assert_eq!(limit(default.timeout(None)), None);
    }
}
