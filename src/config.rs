//! The configuration: pools of workers and limits.
//!
//! The types here and the JSON that the program reads are the same thing:
//! they convert both ways with serde. What isn't set isn't written, so the bus
//! fills in its own defaults.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{Error, Result};

/// What a bus runs: its pools, and its limits.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct BusConfig {
    /// The pools. At least one is needed.
    pub pools: Vec<PoolConfig>,
    /// The pool for messages that name none and whose session is in none.
    /// Needed only where there are several pools.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_pool: Option<String>,
    /// The limits; what isn't set has the bus's default.
    #[serde(default, skip_serializing_if = "LimitsConfig::is_empty")]
    pub limits: LimitsConfig,
    /// How clients on sockets speak.
    #[serde(default, skip_serializing_if = "is_default")]
    pub transport: TransportConfig,
}

impl BusConfig {
    /// A configuration without pools.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a pool.
    #[must_use]
    pub fn pool(mut self, pool: PoolConfig) -> Self {
        self.pools.push(pool);
        self
    }

    /// Names the pool for messages that name none.
    #[must_use]
    pub fn default_pool(mut self, id: impl Into<String>) -> Self {
        self.default_pool = Some(id.into());
        self
    }

    /// Sets the limits.
    #[must_use]
    pub fn limits(mut self, limits: LimitsConfig) -> Self {
        self.limits = limits;
        self
    }

    /// Sets the framing of listeners that have none of their own.
    #[must_use]
    pub fn framing(mut self, framing: Framing) -> Self {
        self.transport.framing = framing;
        self
    }

    /// Reads a configuration from JSON.
    ///
    /// # Errors
    /// `InvalidArgument` if it isn't JSON, has a value of the wrong type, or is
    /// not valid (see [`validate`](Self::validate)).
    pub fn from_json(text: &str) -> Result<Self> {
        let config: Self = serde_json::from_str(text)
            .map_err(|e| Error::invalid_argument(format!("config: {e}")).with_source(e))?;
        config.validate()?;
        Ok(config)
    }

    /// The configuration as JSON.
    pub fn to_json(&self) -> String {
        // Nothing here can fail to serialize: keys are strings, paths are the
        // one exception and `validate` refuses those that aren't text.
        serde_json::to_string_pretty(self).unwrap_or_default()
    }

    /// Checks what can be checked without starting anything.
    ///
    /// # Errors
    /// `InvalidArgument` that names the pool and the field.
    pub fn validate(&self) -> Result<()> {
        if self.pools.is_empty() {
            return Err(invalid("pools: at least one pool is needed"));
        }
        let mut ids = HashSet::new();
        for (index, pool) in self.pools.iter().enumerate() {
            pool.validate(index)?;
            if !ids.insert(pool.id.as_str()) {
                return Err(invalid(format!(
                    "pool {:?}: id: used by two pools",
                    pool.id
                )));
            }
        }
        match &self.default_pool {
            Some(id) if !ids.contains(id.as_str()) => {
                Err(invalid(format!("default_pool: there is no pool {id:?}")))
            }
            _ => self.limits.validate(),
        }
    }
}

/// How clients on sockets speak.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct TransportConfig {
    /// The framing of listeners that have none of their own
    /// ([`Listen::framing`](crate::Listen::framing)). [`Framing::Ndjson`] unless set.
    pub framing: Framing,
}

/// How messages follow each other on a connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Framing {
    /// One a line.
    #[default]
    Ndjson,
    /// Each behind its length in bytes: four bytes, the highest first.
    Length,
}

/// One pool: a command, and how many workers run it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PoolConfig {
    /// The name requests choose it by.
    pub id: String,
    /// The program; looked up in `PATH` unless it contains a slash. May be
    /// empty where there are no `instances`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub command: String,
    /// Its arguments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// How many workers run at once. 1 unless set, at most 65536; 0 for a pool
    /// whose workers are only those of this process
    /// ([`StdioBus::register_worker`](crate::StdioBus::register_worker)).
    #[serde(default = "one")]
    pub instances: u32,
    /// Environment variables for the workers.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Whether the workers also get this process's environment. `true` unless set.
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    pub inherit_env: bool,
    /// The workers' working directory; this process's unless set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<PathBuf>,
    /// What the workers speak.
    #[serde(default, skip_serializing_if = "is_default")]
    pub protocol: Protocol,
    /// When a worker that has ended is started again.
    #[serde(default, skip_serializing_if = "is_default")]
    pub restart: RestartPolicy,
    /// Where the workers' stderr goes. [`StderrMode::Log`] unless set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stderr: Option<StderrMode>,
    /// The `initialize` request's params that the pool's workers are greeted
    /// with; the first client's unless set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initialize: Option<Value>,
    /// How long a worker may take to answer `initialize`, and a request may wait
    /// for a worker to become ready, in seconds. 30 unless set, at least 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init_timeout_sec: Option<u32>,
    /// Whether clients share workers.
    #[serde(default, skip_serializing_if = "is_default")]
    pub clients: ClientMode,
}

impl PoolConfig {
    /// A pool with one worker that runs `command` without arguments.
    pub fn new(id: impl Into<String>, command: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            command: command.into(),
            args: Vec::new(),
            instances: 1,
            env: BTreeMap::new(),
            inherit_env: true,
            cwd: None,
            protocol: Protocol::default(),
            restart: RestartPolicy::default(),
            stderr: None,
            initialize: None,
            init_timeout_sec: None,
            clients: ClientMode::default(),
        }
    }

    /// A pool for workers that live in this process
    /// ([`StdioBus::register_worker`](crate::StdioBus::register_worker)) and
    /// nowhere else: it has no program, and no instances of one. Without a worker,
    /// requests to the pool end with `TransportError`.
    pub fn in_process(id: impl Into<String>) -> Self {
        Self::new(id, "").instances(0)
    }

    /// Sets the arguments.
    #[must_use]
    pub fn args<S: Into<String>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args = args.into_iter().map(Into::into).collect();
        self
    }

    /// Adds one argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<String>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Sets how many workers run at once.
    #[must_use]
    pub fn instances(mut self, instances: u32) -> Self {
        self.instances = instances;
        self
    }

    /// Sets an environment variable for the workers.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.insert(name.into(), value.into());
        self
    }

    /// Sets whether the workers also get this process's environment.
    #[must_use]
    pub fn inherit_env(mut self, inherit: bool) -> Self {
        self.inherit_env = inherit;
        self
    }

    /// Sets the workers' working directory.
    #[must_use]
    pub fn cwd(mut self, dir: impl Into<PathBuf>) -> Self {
        self.cwd = Some(dir.into());
        self
    }

    /// Sets what the workers speak.
    #[must_use]
    pub fn protocol(mut self, protocol: Protocol) -> Self {
        self.protocol = protocol;
        self
    }

    /// Sets the params of the `initialize` that every worker gets; the first
    /// client's unless set. What is in them, the protocol's version and the
    /// client's capabilities, holds for all clients of the pool. A client may then
    /// leave out its own `initialize`.
    #[must_use]
    pub fn initialize(mut self, params: impl Into<Value>) -> Self {
        self.initialize = Some(params.into());
        self
    }

    /// Sets how long, in seconds, a worker may take to answer `initialize`, and
    /// a request may wait for a worker to become ready. 30 unless set.
    #[must_use]
    pub fn init_timeout_sec(mut self, seconds: u32) -> Self {
        self.init_timeout_sec = Some(seconds);
        self
    }

    /// Sets whether clients share workers. This process is one client, so with
    /// [`ClientMode::Exclusive`] all its requests go to one worker.
    #[must_use]
    pub fn clients(mut self, mode: ClientMode) -> Self {
        self.clients = mode;
        self
    }

    /// Sets when a worker that has ended is started again.
    #[must_use]
    pub fn restart(mut self, policy: RestartPolicy) -> Self {
        self.restart = policy;
        self
    }

    /// Sets where the workers' stderr goes.
    #[must_use]
    pub fn stderr(mut self, mode: StderrMode) -> Self {
        self.stderr = Some(mode);
        self
    }

    fn validate(&self, index: usize) -> Result<()> {
        if self.id.is_empty() {
            return Err(invalid(format!("pools[{index}]: id: must not be empty")));
        }
        let fail = |what: String| Err(invalid(format!("pool {:?}: {what}", self.id)));
        if self.command.is_empty() && self.instances > 0 {
            return fail("command: must not be empty".into());
        }
        if self.instances == 0 && self.clients == ClientMode::Exclusive {
            return fail("instances: must be at least 1 where clients is exclusive".into());
        }
        if let Some(name) = self
            .env
            .keys()
            .find(|name| name.is_empty() || name.contains(['=', '\0']))
        {
            return fail(format!("env: {name:?} can't be the name of a variable"));
        }
        let texts = [&self.id, &self.command]
            .into_iter()
            .chain(&self.args)
            .chain(self.env.values());
        if texts.into_iter().any(|text| text.contains('\0')) {
            return fail("no text may contain a NUL character".into());
        }
        if self
            .cwd
            .as_ref()
            .is_some_and(|dir| dir.to_str().is_none_or(|d| d.contains('\0')))
        {
            return fail("cwd: must be text".into());
        }
        if self
            .initialize
            .as_ref()
            .is_some_and(|params| !params.is_object())
        {
            return fail("initialize: must be an object".into());
        }
        Ok(())
    }
}

/// What a pool's workers speak.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Protocol {
    /// Found out from the first `initialize`; NDJSON until then.
    #[default]
    Auto,
    /// JSON-RPC lines, forwarded byte for byte.
    Ndjson,
    /// The Model Context Protocol.
    Mcp,
    /// The Agent Client Protocol.
    Acp,
}

/// When a worker that has ended is started again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum RestartPolicy {
    /// After any exit.
    #[default]
    Always,
    /// After a signal or an exit status other than 0.
    OnFailure,
    /// Never.
    Never,
}

/// Where the workers' stderr goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum StderrMode {
    /// Line by line to events and the debug log.
    Log,
    /// To this process's stderr.
    Inherit,
    /// Nowhere.
    Null,
}

/// Whether clients share workers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum ClientMode {
    /// Any worker serves any client.
    #[default]
    Shared,
    /// Each client has a worker of its own.
    Exclusive,
}

/// The limits. `None` means the bus's default, which each field names.
///
/// ```
/// let mut limits = stdiobus::LimitsConfig::new();
/// limits.max_input_buffer = Some(1 << 20);
/// limits.max_restarts = Some(3);
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct LimitsConfig {
    /// Largest message, in bytes. 10 MiB; from 1 KiB to 1 GiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_input_buffer: Option<u64>,
    /// Bytes that may wait for one worker or one client. 40 MiB; at least 1 KiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_output_queue: Option<u64>,
    /// Restarts of a worker within the window; where one more were due, it is
    /// given up until the window is over. 5; 0 is never restart.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_restarts: Option<u32>,
    /// That window, in seconds. 60; at least 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restart_window_sec: Option<u32>,
    /// How long a drain waits for what is in flight, in seconds. 30.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drain_timeout_sec: Option<u32>,
    /// How long a client may not read before it is closed, in seconds. 60; at least 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backpressure_timeout_sec: Option<u32>,
    /// How long a worker may not read before it is stopped, in seconds. 0: never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stall_timeout_sec: Option<u32>,
    /// Sessions kept; beyond it the one unused for longest is forgotten. 1048576.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_sessions: Option<u32>,
    /// How long an unused session is kept, in seconds. 0: for ever.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_idle_sec: Option<u32>,
    /// Requests in flight. 1048576.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_pending: Option<u32>,
    /// Socket clients. 65536.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_clients: Option<u32>,
}

impl LimitsConfig {
    /// All limits at the bus's defaults.
    pub fn new() -> Self {
        Self::default()
    }

    fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn validate(&self) -> Result<()> {
        let sizes = [
            ("max_input_buffer", self.max_input_buffer),
            ("max_output_queue", self.max_output_queue),
            ("max_sessions", self.max_sessions.map(u64::from)),
            ("max_pending", self.max_pending.map(u64::from)),
            ("max_clients", self.max_clients.map(u64::from)),
        ];
        match sizes.iter().find(|(_, size)| *size == Some(0)) {
            Some((name, _)) => Err(invalid(format!("limits: {name}: must be at least 1"))),
            None => Ok(()),
        }
    }
}

fn invalid(what: impl std::fmt::Display) -> Error {
    Error::invalid_argument(format!("config: {what}"))
}

fn one() -> u32 {
    1
}

fn yes() -> bool {
    true
}

fn is_true(value: &bool) -> bool {
    *value
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorCode;

    fn message(config: &BusConfig) -> String {
        let error = config.validate().expect_err("not valid");
        assert_eq!(error.kind(), Some(ErrorCode::InvalidArgument));
        error.to_string()
    }

    #[test]
    fn errors_name_the_pool_and_the_field() {
        let pool = |id: &str| PoolConfig::new(id, "cat");
        assert!(message(&BusConfig::new()).contains("pools"));
        assert!(message(&BusConfig::new().pool(pool(""))).contains("pools[0]: id"));
        assert!(
            message(&BusConfig::new().pool(PoolConfig::new("a", ""))).contains("\"a\": command")
        );
        let mut exclusive = pool("a").instances(0);
        exclusive.clients = ClientMode::Exclusive;
        assert!(message(&BusConfig::new().pool(exclusive)).contains("\"a\": instances"));
        assert!(message(&BusConfig::new().pool(pool("a").env("x=", ""))).contains("\"a\": env"));
        assert!(message(&BusConfig::new().pool(pool("a")).pool(pool("a"))).contains("\"a\": id"));
        assert!(
            message(&BusConfig::new().pool(pool("a")).default_pool("b")).contains("default_pool")
        );
        let mut limits = LimitsConfig::new();
        limits.max_pending = Some(0);
        assert!(message(&BusConfig::new().pool(pool("a")).limits(limits)).contains("max_pending"));
    }

    #[test]
    fn a_configuration_survives_the_way_to_json_and_back() {
        let mut limits = LimitsConfig::new();
        limits.max_clients = Some(7);
        let config = BusConfig::new()
            .pool(
                PoolConfig::new("a", "cat")
                    .args(["-u", "-"])
                    .instances(3)
                    .env("K", "V")
                    .inherit_env(false)
                    .cwd("/")
                    .protocol(Protocol::Mcp)
                    .restart(RestartPolicy::OnFailure)
                    .stderr(StderrMode::Null),
            )
            .pool(PoolConfig::new("b", "true"))
            .default_pool("a")
            .limits(limits);
        assert_eq!(
            BusConfig::from_json(&config.to_json()).expect("valid"),
            config
        );
    }

    #[test]
    fn a_pool_without_instances_needs_no_command() {
        let json = r#"{"pools":[{"id":"a","instances":0}]}"#;
        let config = BusConfig::from_json(json).expect("valid");
        let written: Value = serde_json::from_str(&config.to_json()).expect("JSON");
        assert_eq!(written, serde_json::from_str::<Value>(json).expect("JSON"));
    }

    #[test]
    fn defaults_are_not_written() {
        let json = BusConfig::new().pool(PoolConfig::new("a", "cat")).to_json();
        let value: Value = serde_json::from_str(&json).expect("JSON");
        assert_eq!(
            value,
            serde_json::json!({"pools": [{"id": "a", "command": "cat", "instances": 1}]})
        );
    }
}
