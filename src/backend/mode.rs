//! Where a bus runs, as the builder is told.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::client::ListenAddr;
use crate::native::Secret;

/// Where a bus runs: see
/// [`StdioBusBuilder::backend`](crate::StdioBusBuilder::backend).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum BackendMode {
    /// The best there is on this system: [`Native`](Self::Native) today.
    #[default]
    Auto,
    /// In this process, on a thread of its own.
    Native,
    /// The program `stdio_bus`, as a child of this process that serves it alone:
    /// a crash of the one doesn't take the other with it.
    Subprocess,
    /// A bus that runs already, reached over a socket.
    Remote(RemoteOptions),
}

/// For [`BackendMode::Native`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NativeOptions {
    /// The name of the bus's thread; the system may show its beginning only.
    /// `stdiobus` unless set.
    pub thread_name: String,
    /// Whether workers get SIGTERM when this process dies without having
    /// stopped them. Set unless unset; Linux only. They see the end of their
    /// input in any case.
    pub parent_death_signal: bool,
}

impl NativeOptions {
    /// What holds unless set.
    pub fn new() -> Self {
        Self {
            thread_name: "stdiobus".into(),
            parent_death_signal: true,
        }
    }

    /// Sets [`thread_name`](Self::thread_name).
    #[must_use]
    pub fn thread_name(mut self, name: impl Into<String>) -> Self {
        self.thread_name = name.into();
        self
    }

    /// Sets [`parent_death_signal`](Self::parent_death_signal).
    #[must_use]
    pub fn parent_death_signal(mut self, set: bool) -> Self {
        self.parent_death_signal = set;
        self
    }
}

impl Default for NativeOptions {
    fn default() -> Self {
        Self::new()
    }
}

/// For [`BackendMode::Subprocess`].
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SubprocessOptions {
    /// The program. Unless set, `stdio_bus` beside the current executable, else
    /// in `PATH`.
    pub binary_path: Option<PathBuf>,
    /// How long the program may take to say that it is ready. 5 seconds unless
    /// set.
    pub start_timeout: Duration,
    /// How long a stop lets the program drain before it gets SIGTERM, within the
    /// time that the stop has. 30 seconds unless set.
    pub drain_timeout: Duration,
    /// Environment variables for the program, beside those of this process.
    pub env: BTreeMap<String, String>,
    /// How many lines of the program's stderr are kept for
    /// [`StdioBus::stderr_tail`](crate::StdioBus::stderr_tail), workers' lines
    /// included. 200 unless set.
    pub stderr_buffer_lines: usize,
}

impl SubprocessOptions {
    /// What holds unless set.
    pub fn new() -> Self {
        Self {
            binary_path: None,
            start_timeout: Duration::from_secs(5),
            drain_timeout: Duration::from_secs(30),
            env: BTreeMap::new(),
            stderr_buffer_lines: crate::driver::STDERR_LINES,
        }
    }

    /// Sets [`binary_path`](Self::binary_path).
    #[must_use]
    pub fn binary_path(mut self, path: impl Into<PathBuf>) -> Self {
        self.binary_path = Some(path.into());
        self
    }

    /// Sets [`start_timeout`](Self::start_timeout).
    #[must_use]
    pub fn start_timeout(mut self, limit: Duration) -> Self {
        self.start_timeout = limit;
        self
    }

    /// Sets [`drain_timeout`](Self::drain_timeout).
    #[must_use]
    pub fn drain_timeout(mut self, limit: Duration) -> Self {
        self.drain_timeout = limit;
        self
    }

    /// Adds one variable to [`env`](Self::env).
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.insert(name.into(), value.into());
        self
    }

    /// Sets [`stderr_buffer_lines`](Self::stderr_buffer_lines).
    #[must_use]
    pub fn stderr_buffer_lines(mut self, lines: usize) -> Self {
        self.stderr_buffer_lines = lines;
        self
    }
}

impl Default for SubprocessOptions {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for SubprocessOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Values of the environment may be secrets.
        f.debug_struct("SubprocessOptions")
            .field("binary_path", &self.binary_path)
            .field("start_timeout", &self.start_timeout)
            .field("drain_timeout", &self.drain_timeout)
            .field("env", &self.env.keys())
            .field("stderr_buffer_lines", &self.stderr_buffer_lines)
            .finish()
    }
}

/// For [`BackendMode::Remote`]: where the bus is, and what it wants to see.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RemoteOptions {
    pub(super) address: Address,
    pub(super) token: Option<Secret>,
    /// How long connecting, and showing the token, may take. 5 seconds unless
    /// set.
    pub connect_timeout: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Address {
    Tcp { host: String, port: u16 },
    Unix(PathBuf),
}

impl RemoteOptions {
    /// A bus that listens on TCP, by name or address.
    pub fn tcp(host: impl Into<String>, port: u16) -> Self {
        Self::to(Address::Tcp {
            host: host.into(),
            port,
        })
    }

    /// A bus that listens on a Unix socket.
    pub fn unix(path: impl Into<PathBuf>) -> Self {
        Self::to(Address::Unix(path.into()))
    }

    fn to(address: Address) -> Self {
        Self {
            address,
            token: None,
            connect_timeout: Duration::from_secs(5),
        }
    }

    /// Shows this token, as a bus whose listener asks for one wants it. It is
    /// never logged.
    #[must_use]
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(Secret(token.into()));
        self
    }

    /// Sets [`connect_timeout`](Self::connect_timeout).
    #[must_use]
    pub fn connect_timeout(mut self, limit: Duration) -> Self {
        self.connect_timeout = limit;
        self
    }

    /// Why it can't be used.
    pub(crate) fn check(&self) -> Result<(), &'static str> {
        match &self.address {
            Address::Tcp { host, .. } if host.is_empty() => Err("the host must not be empty"),
            Address::Tcp { port: 0, .. } => Err("the port must not be 0"),
            Address::Unix(path) if path.as_os_str().is_empty() => Err("the path must not be empty"),
            _ if self.token.as_ref().is_some_and(|token| token.0.is_empty()) => {
                Err("the token must not be empty")
            }
            _ => Ok(()),
        }
    }
}

/// The way to a bus from where it listens.
impl From<ListenAddr> for RemoteOptions {
    fn from(address: ListenAddr) -> Self {
        match address {
            ListenAddr::Tcp(address) => Self::tcp(address.ip().to_string(), address.port()),
            ListenAddr::Unix(path) => Self::unix(path),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "tcp [{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "tcp {host}:{port}"),
            Self::Unix(path) => write!(f, "unix {}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_never_shown() {
        let remote = RemoteOptions::unix("/s").token("sesame");
        let subprocess = SubprocessOptions::new().env("KEY", "sesame");
        let shown = format!("{remote:?} {subprocess:?}");
        assert!(
            shown.contains("KEY") && !shown.contains("sesame"),
            "{shown}"
        );
    }

    #[test]
    fn an_address_that_can_be_none_is_refused() {
        assert!(RemoteOptions::tcp("", 1).check().is_err());
        assert!(RemoteOptions::tcp("::1", 0).check().is_err());
        assert!(RemoteOptions::unix("").check().is_err());
        assert!(RemoteOptions::unix("/s").token("").check().is_err());
        assert!(RemoteOptions::unix("/s").token("t").check().is_ok());
    }
}
