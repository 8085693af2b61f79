//! Where a bus listens.

use std::ffi::CString;
use std::fmt;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use crate::error::{Error, Result};
use crate::native::{Listen, c_string};

/// A listener for other processes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ListenMode {
    /// TCP.
    #[non_exhaustive]
    Tcp {
        /// A name or an address.
        host: String,
        /// 0 lets the system choose; [`listen_addrs`](crate::StdioBus::listen_addrs)
        /// tells what it chose.
        port: u16,
    },
    /// A Unix socket, for this user only (mode 0600).
    #[non_exhaustive]
    Unix {
        /// Where the socket file goes. One that nobody listens on any more is
        /// replaced; anything else that is there is an error.
        path: PathBuf,
    },
}

impl ListenMode {
    /// TCP on a host, by name or address, and a port; 0 lets the system choose.
    pub fn tcp(host: impl Into<String>, port: u16) -> Self {
        Self::Tcp {
            host: host.into(),
            port,
        }
    }

    /// A Unix socket at a path.
    pub fn unix(path: impl Into<PathBuf>) -> Self {
        Self::Unix { path: path.into() }
    }

    pub(super) fn to_native(&self) -> Result<Listen> {
        match self {
            Self::Tcp { host, .. } if host.is_empty() => Err(Error::invalid_argument(
                "listen: the host must not be empty",
            )),
            Self::Tcp { host, port } => {
                let host: CString = c_string("listen: the host", host.as_str())?;
                Ok(Listen::Tcp { host, port: *port })
            }
            Self::Unix { path } if path.as_os_str().is_empty() => Err(Error::invalid_argument(
                "listen: the path must not be empty",
            )),
            Self::Unix { path } => {
                let path = c_string("listen: the path", path.as_os_str().as_bytes())?;
                Ok(Listen::Unix { path })
            }
        }
    }

    /// The address it is bound to, from the text the bus gives.
    pub(super) fn bound(&self, text: &str) -> Option<ListenAddr> {
        match self {
            Self::Tcp { .. } => text.parse().ok().map(ListenAddr::Tcp),
            Self::Unix { path } => Some(ListenAddr::Unix(path.clone())),
        }
    }
}

/// Where a listener is bound.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ListenAddr {
    /// A TCP address, with the real port.
    Tcp(SocketAddr),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

impl fmt::Display for ListenAddr {
    /// `tcp 127.0.0.1:4711` or `unix /run/bus.sock`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "tcp {address}"),
            Self::Unix(path) => write!(f, "unix {}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_address_has_the_real_port() {
        let mode = ListenMode::tcp("localhost", 0);
        let address = mode.bound("127.0.0.1:4711").expect("an address");
        assert_eq!(address.to_string(), "tcp 127.0.0.1:4711");
        assert_eq!(
            mode.bound("[::1]:4711").expect("an address").to_string(),
            "tcp [::1]:4711"
        );
        let path = ListenMode::unix("/tmp/s").bound("/tmp/s").expect("a path");
        assert_eq!(path.to_string(), "unix /tmp/s");
    }

    #[test]
    fn what_can_not_be_an_address_is_refused() {
        for mode in [
            ListenMode::tcp("", 1),
            ListenMode::tcp("a\0b", 1),
            ListenMode::unix(""),
            ListenMode::unix("a\0b"),
        ] {
            assert!(mode.to_native().is_err(), "{mode:?}");
        }
    }
}
