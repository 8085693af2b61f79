//! Building the C structures that create a bus and its listeners.

use std::ffi::{CString, c_int, c_void};
use std::fmt;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr;
use std::rc::Rc;

use super::callbacks::{self, Context};
use crate::error::{Error, Result};
use crate::sys;

/// Text for C. A NUL inside it is an error that says where.
pub(crate) fn c_string(what: &str, text: impl Into<Vec<u8>>) -> Result<CString> {
    CString::new(text)
        .map_err(|e| Error::invalid_argument(format!("{what} contains a NUL byte")).with_source(e))
}

/// Where the configuration comes from.
#[derive(Debug)]
pub(crate) enum ConfigSource {
    Path(CString),
    Json(CString),
}

/// What a bus is created with.
#[derive(Debug)]
pub(crate) struct BusOptions {
    pub(crate) config: ConfigSource,
    /// Lowest level the library reports: 0 debug to 3 error.
    pub(crate) log_level: c_int,
    /// Nothing in this process sends requests.
    pub(crate) daemon: bool,
    /// Workers whose pool doesn't say otherwise share this process's stderr.
    pub(crate) stderr_inherit: bool,
    /// Workers get SIGTERM when the thread of the bus ends without having
    /// stopped them.
    pub(crate) parent_death_signal: bool,
}

impl BusOptions {
    /// The C structures. They point into `self` and into the context, so they
    /// may be used only while both live.
    pub(super) fn to_c(
        &self,
        context: &Rc<Context>,
    ) -> (sys::stdio_bus_options, sys::stdio_bus_ext_options) {
        let (config_path, config_json) = match &self.config {
            ConfigSource::Path(path) => (path.as_ptr(), ptr::null()),
            ConfigSource::Json(json) => (ptr::null(), json.as_ptr()),
        };
        let base = sys::stdio_bus_options {
            config_path,
            config_json,
            on_error: Some(callbacks::on_error),
            on_log: Some(callbacks::on_log),
            user_data: Rc::as_ptr(context).cast_mut().cast::<c_void>(),
            log_level: self.log_level,
            ..Default::default()
        };
        let mut flags = 0;
        if self.parent_death_signal {
            flags |= sys::STDIO_BUS_CREATE_PARENT_DEATH_SIGNAL;
        }
        if self.daemon {
            flags |= sys::STDIO_BUS_CREATE_NO_HOST;
        }
        if self.stderr_inherit {
            flags |= sys::STDIO_BUS_CREATE_STDERR_INHERIT;
        }
        let ext = sys::stdio_bus_ext_options {
            size: size_of::<sys::stdio_bus_ext_options>() as u32,
            flags,
            on_frame: Some(callbacks::on_frame),
            on_event: Some(callbacks::on_event),
        };
        (base, ext)
    }
}

/// How messages follow each other on a connection.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) enum Framing {
    /// As the configuration says.
    #[default]
    Configured,
    Lines,
    /// Each behind its length.
    Length,
}

impl Framing {
    fn to_c(self) -> u32 {
        match self {
            Self::Configured => sys::STDIO_BUS_FRAMING_CONFIGURED,
            Self::Lines => sys::STDIO_BUS_FRAMING_NDJSON,
            Self::Length => sys::STDIO_BUS_FRAMING_LENGTH,
        }
    }
}

/// Text that is shown to nobody.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(pub(crate) String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<secret>")
    }
}

/// A listener to open.
#[derive(Debug)]
pub(crate) struct Listen {
    pub(crate) at: ListenAt,
    /// Where its clients' messages go if they name no pool.
    pub(crate) pool: Option<CString>,
    /// What its clients have to show first.
    pub(crate) token: Option<Secret>,
    /// Users that may connect to a Unix socket, besides our own and root.
    pub(crate) uids: Vec<u32>,
    pub(crate) framing: Framing,
}

#[derive(Debug)]
pub(crate) enum ListenAt {
    Tcp {
        host: CString,
        port: u16,
    },
    Unix {
        path: CString,
        /// Permissions of the file; 0 means 0600.
        mode: u32,
        group: Option<u32>,
    },
    /// A socket that is bound already.
    Socket(OwnedFd),
}

impl Listen {
    /// The C structure. It points into `self`.
    pub(super) fn to_c(&self) -> sys::stdio_bus_listen_options {
        let mut options = sys::stdio_bus_listen_options {
            size: size_of::<sys::stdio_bus_listen_options>() as u32,
            framing: self.framing.to_c(),
            pool: self.pool.as_ref().map_or(ptr::null(), |pool| pool.as_ptr()),
            uids: self.uids.as_ptr(),
            uid_count: self.uids.len(),
            ..Default::default()
        };
        if let Some(Secret(token)) = &self.token {
            options.token = token.as_ptr().cast();
            options.token_len = token.len();
        }
        match &self.at {
            ListenAt::Tcp { host, port } => {
                options.mode = sys::STDIO_BUS_LISTEN_TCP;
                options.tcp_host = host.as_ptr();
                options.tcp_port = u32::from(*port);
            }
            ListenAt::Unix { path, mode, group } => {
                options.mode = sys::STDIO_BUS_LISTEN_UNIX;
                options.unix_path = path.as_ptr();
                options.unix_mode = *mode;
                if let Some(group) = group {
                    options.flags = sys::STDIO_BUS_LISTEN_SET_GROUP;
                    options.unix_group = *group;
                }
            }
            ListenAt::Socket(fd) => {
                options.mode = sys::STDIO_BUS_LISTEN_FD;
                options.fd = fd.as_raw_fd();
            }
        }
        options
    }
}

/// A worker of this process.
#[derive(Debug)]
pub(crate) struct Embed {
    /// Where the bus writes, and where it reads.
    pub(crate) to_worker: OwnedFd,
    pub(crate) from_worker: OwnedFd,
    pub(crate) pool: CString,
}

/// A client to serve over descriptors.
#[derive(Debug)]
pub(crate) struct Adopt {
    pub(crate) from: OwnedFd,
    /// `None`: the same one, which is a socket.
    pub(crate) to: Option<OwnedFd>,
    /// Where its messages go if they name no pool.
    pub(crate) pool: Option<CString>,
    pub(crate) framing: Framing,
}

impl Adopt {
    /// The C structure. It points into `self`.
    pub(super) fn to_c(&self) -> sys::stdio_bus_client_options {
        sys::stdio_bus_client_options {
            size: size_of::<sys::stdio_bus_client_options>() as u32,
            framing: self.framing.to_c(),
            pool: self.pool.as_ref().map_or(ptr::null(), |pool| pool.as_ptr()),
        }
    }
}
