//! Describing a bus.

use std::fmt;
use std::future::Future;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;

use super::handlers::{RequestHandler, Runtime};
use super::{ListenMode, Owner, StdioBus, WorkerRequest, new_session_id};
use crate::config::{BusConfig, LimitsConfig, PoolConfig};
use crate::driver::{self, LogLevel, LogSink, Spec};
use crate::error::{Error, Result, RpcError};
use crate::native::{BusOptions, ConfigSource, c_string};

/// How long a request may take, unless it or the builder says otherwise.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// Bytes of this process's requests in flight, unless the builder says otherwise.
const MAX_IN_FLIGHT: usize = 64 << 20;

/// Describes a bus, then [builds](Self::build) it.
#[derive(Clone)]
#[must_use = "a builder does nothing until it builds"]
pub struct StdioBusBuilder {
    name: Arc<str>,
    config: Option<BusConfig>,
    config_path: Option<PathBuf>,
    config_json: Option<String>,
    pools: Vec<PoolConfig>,
    limits: Option<LimitsConfig>,
    listen: Vec<ListenMode>,
    timeout: Option<Duration>,
    max_in_flight_bytes: usize,
    log: Option<LogSink>,
    log_level: Option<LogLevel>,
    on_request: Option<RequestHandler>,
    daemon: bool,
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

    /// The configuration, as a JSON file that the bus reads. Excludes the
    /// others, `pool` and `limits` included.
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

    /// Adds a pool. Repeatable.
    pub fn pool(mut self, pool: PoolConfig) -> Self {
        self.pools.push(pool);
        self
    }

    /// Sets the limits.
    pub fn limits(mut self, limits: LimitsConfig) -> Self {
        self.limits = Some(limits);
        self
    }

    /// Opens a listener for other processes at the start. Repeatable, TCP and
    /// Unix in any mix.
    pub fn listen(mut self, mode: ListenMode) -> Self {
        self.listen.push(mode);
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

    /// Checks the configuration and makes the bus. Nothing is started yet.
    ///
    /// Reads the configuration file, where there is one, and starts the bus's
    /// thread; both block for a moment.
    ///
    /// # Errors
    /// - `InvalidArgument`: no configuration, more than one, or one that isn't
    ///   valid; the text names the options, or the pool and the field. An empty
    ///   name.
    /// - `ResourceExhausted`: no thread could be started.
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

    fn build_on(self, runtime: Runtime) -> Result<StdioBus> {
        let max_in_flight_bytes = self.max_in_flight_bytes;
        if max_in_flight_bytes == 0 {
            return Err(Error::invalid_argument(
                "max_in_flight_bytes: must be at least 1",
            ));
        }
        if self.name.is_empty() {
            return Err(Error::invalid_argument("name must not be empty"));
        }
        let listen = self
            .listen
            .iter()
            .map(ListenMode::to_native)
            .collect::<Result<Vec<_>>>()?;
        let log_level = self.effective_log_level();
        let (timeout, modes, log) = (self.timeout, self.listen.clone(), self.log.clone());
        let (daemon, on_request) = (self.daemon, self.on_request.clone());
        let name = Arc::clone(&self.name);
        let options = BusOptions {
            daemon,
            config: self.config_source()?,
            log_level: log_level.to_c(),
        };
        let (handle, thread) = driver::spawn(Spec {
            options,
            listen,
            name,
            log,
            max_in_flight_bytes,
        })?;
        Ok(StdioBus {
            owner: Arc::new(Owner {
                handle,
                thread: Mutex::new(Some(thread)),
                timeout,
                session_id: new_session_id(),
                agent_session_id: Mutex::new(None),
                listen: modes,
                runtime,
                on_request: Mutex::new(on_request),
                #[cfg(feature = "metrics")]
                published: Default::default(),
            }),
        })
    }

    /// Lines that nobody will see needn't be made.
    fn effective_log_level(&self) -> LogLevel {
        let heard = self.log.is_some() || cfg!(feature = "tracing");
        if heard {
            self.log_level.unwrap_or(LogLevel::Info)
        } else {
            LogLevel::Error
        }
    }

    fn config_source(self) -> Result<ConfigSource> {
        let parts = !self.pools.is_empty() || self.limits.is_some();
        let given: Vec<&str> = [
            ("config", self.config.is_some()),
            ("config_path", self.config_path.is_some()),
            ("config_json", self.config_json.is_some()),
            // Parts add to `config`, so they clash with the other two only.
            ("pool or limits", parts && self.config.is_none()),
        ]
        .into_iter()
        .filter_map(|(name, given)| given.then_some(name))
        .collect();
        match given[..] {
            [_] => {}
            [] => {
                return Err(Error::invalid_argument(
                    "no configuration: use config, config_path, config_json or pool",
                ));
            }
            _ => {
                return Err(Error::invalid_argument(format!(
                    "these exclude each other: {}",
                    given.join(", ")
                )));
            }
        }
        if let Some(path) = self.config_path {
            let path = c_string("config_path", path.into_os_string().into_vec())?;
            return Ok(ConfigSource::Path(path));
        }
        if let Some(json) = self.config_json {
            return Ok(ConfigSource::Json(c_string("config_json", json)?));
        }
        let mut config = self.config.unwrap_or_default();
        config.pools.extend(self.pools);
        if let Some(limits) = self.limits {
            config.limits = limits;
        }
        config.validate()?;
        Ok(ConfigSource::Json(c_string("config", config.to_json())?))
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
    use crate::error::ErrorCode;

    fn refused(builder: StdioBusBuilder) -> String {
        let error = builder.config_source().expect_err("refused");
        assert_eq!(error.kind(), Some(ErrorCode::InvalidArgument));
        error.to_string()
    }

    #[test]
    fn there_is_exactly_one_configuration() {
        let pool = PoolConfig::new("a", "cat");
        assert!(refused(StdioBusBuilder::new()).contains("config_path"));
        let both = refused(
            StdioBusBuilder::new()
                .config(BusConfig::new())
                .config_json("{}"),
        );
        assert!(both.contains("config, config_json"), "{both}");
        let both = refused(StdioBusBuilder::new().config_path("x").pool(pool.clone()));
        assert!(both.contains("config_path, pool"), "{both}");
        let config = BusConfig::new().pool(pool);
        let more = PoolConfig::new("b", "cat");
        assert!(
            StdioBusBuilder::new()
                .config(config)
                .pool(more)
                .config_source()
                .is_ok()
        );
    }

    #[test]
    fn a_path_with_nul_is_refused() {
        assert!(refused(StdioBusBuilder::new().config_path("a\0b")).contains("NUL"));
    }
}
