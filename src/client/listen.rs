//! Where a bus listens, and whom it lets in.

use std::fmt;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;

use crate::config::Framing;
use crate::error::{Error, ErrorCode, Result};
use crate::native::{self, ListenAt, Secret, c_string};

/// Where a listener is.
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
    /// A Unix socket.
    #[non_exhaustive]
    Unix {
        /// Where the socket file goes. One that nobody listens on any more is
        /// replaced; anything else that is there is an error.
        path: PathBuf,
    },
    /// A socket that this process was given: see [`Listen::inherited`].
    #[non_exhaustive]
    Inherited {
        /// What it is bound to.
        address: ListenAddr,
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

    /// The address it is bound to, from the text the bus gives.
    pub(super) fn bound(&self, text: &str) -> Option<ListenAddr> {
        match self {
            Self::Tcp { .. } => text.parse().ok().map(ListenAddr::Tcp),
            Self::Unix { path } => Some(ListenAddr::Unix(path.clone())),
            Self::Inherited { address } => Some(address.clone()),
        }
    }
}

/// A listener for other processes: where it is, and whom it lets in.
///
/// ```
/// use stdiobus::{Listen, StdioBus};
///
/// let builder = StdioBus::builder()
///     .listen(Listen::tcp("127.0.0.1", 0).token("a long random text"))
///     .listen(Listen::unix("/run/bus.sock").mode(0o660).allow_uid(1000).pool("echo"));
/// ```
///
/// Where there is nothing to add, a [`ListenMode`] will do. What doesn't fit
/// together is refused by [`build`](crate::StdioBusBuilder::build).
#[derive(Debug, Clone)]
#[must_use = "a listener does nothing until a builder has it"]
pub struct Listen {
    place: Place,
    options: Options,
}

#[derive(Debug, Clone, Default)]
struct Options {
    pool: Option<String>,
    token: Option<Secret>,
    mode: Option<u32>,
    group: Option<u32>,
    uids: Vec<u32>,
    framing: Option<Framing>,
}

#[derive(Debug, Clone)]
enum Place {
    At(ListenMode),
    /// Shared, since builders can be cloned.
    Socket(Arc<OwnedFd>),
}

impl From<ListenMode> for Listen {
    fn from(mode: ListenMode) -> Self {
        Self::at(Place::At(mode))
    }
}

impl Listen {
    /// A listener on TCP: see [`ListenMode::tcp`].
    pub fn tcp(host: impl Into<String>, port: u16) -> Self {
        ListenMode::tcp(host, port).into()
    }

    /// A listener on a Unix socket: see [`ListenMode::unix`].
    pub fn unix(path: impl Into<PathBuf>) -> Self {
        ListenMode::unix(path).into()
    }

    /// A listener on a stream socket, TCP or Unix, that is bound already, as a
    /// service manager hands it over; whether it listens yet doesn't matter.
    ///
    /// The bus sets it to not blocking and closes it when it stops, but leaves a
    /// socket file where it is. Of a builder that was cloned, each bus gets a
    /// duplicate.
    pub fn inherited(socket: impl Into<OwnedFd>) -> Self {
        Self::at(Place::Socket(Arc::new(socket.into())))
    }

    fn at(place: Place) -> Self {
        Self {
            place,
            options: Options::default(),
        }
    }

    /// Where its clients' messages go if they name no pool.
    pub fn pool(mut self, id: impl Into<String>) -> Self {
        self.options.pool = Some(id.into());
        self
    }

    /// Lets only those in who show this, which is never logged or shown. A
    /// client's first message has to be a request
    /// `{"jsonrpc":"2.0","id":1,"method":"stdio_bus/auth","params":{"token":"..."}}`,
    /// of at most 4 KiB and within 5 seconds; its result is `{"ok":true}`. Anything
    /// else is answered with error -32014, and the connection is closed.
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.options.token = Some(Secret(token.into()));
        self
    }

    /// Sets the permissions of a Unix socket's file, as in `0o660`. `0o600` unless
    /// set. They alone let nobody in: see [`allow_uid`](Self::allow_uid).
    pub fn mode(mut self, mode: u32) -> Self {
        self.options.mode = Some(mode);
        self
    }

    /// Gives a Unix socket's file to a group, by its number.
    pub fn group(mut self, gid: u32) -> Self {
        self.options.group = Some(gid);
        self
    }

    /// Lets processes of one more user connect to a Unix socket, besides those of
    /// the bus's own user and of root. The file's permissions have to allow it,
    /// too. Repeatable.
    pub fn allow_uid(mut self, uid: u32) -> Self {
        self.options.uids.push(uid);
        self
    }

    /// Sets how messages follow each other. As the configuration says
    /// (`transport.framing`) unless set, which is lines unless it says otherwise.
    pub fn framing(mut self, framing: Framing) -> Self {
        self.options.framing = Some(framing);
        self
    }

    /// Checks it, and gives what the bus thread needs and what users are told.
    pub(super) fn into_native(self) -> Result<(native::Listen, ListenMode)> {
        let options = self.options;
        let (at, mode) = match self.place {
            Place::At(mode) => (at_address(&mode, &options)?, mode),
            Place::Socket(socket) => at_socket(socket)?,
        };
        options.check(&mode)?;
        let pool = options.pool.map(|pool| c_string("listen: the pool", pool));
        let listen = native::Listen {
            at,
            pool: pool.transpose()?,
            token: options.token,
            uids: options.uids,
            framing: match options.framing {
                None => native::Framing::Configured,
                Some(Framing::Ndjson) => native::Framing::Lines,
                Some(Framing::Length) => native::Framing::Length,
            },
        };
        Ok((listen, mode))
    }
}

impl Options {
    /// Refuses options that don't fit where it is, or would let others in than
    /// was meant.
    fn check(&self, at: &ListenMode) -> Result<()> {
        let has_file = matches!(at, ListenMode::Unix { .. });
        let is_tcp = match at {
            ListenMode::Tcp { .. } => true,
            ListenMode::Unix { .. } => false,
            ListenMode::Inherited { address } => matches!(address, ListenAddr::Tcp(_)),
        };
        let reason = if self.token.as_ref().is_some_and(|t| t.0.is_empty()) {
            "the token must not be empty"
        } else if self.mode.is_some_and(|mode| mode == 0 || mode > 0o777) {
            "the mode must be 0o001 to 0o777"
        } else if !has_file && (self.mode.is_some() || self.group.is_some()) {
            "mode and group are for the file of a Unix socket"
        } else if is_tcp && !self.uids.is_empty() {
            "users can be told apart on a Unix socket only"
        } else {
            return Ok(());
        };
        Err(refused(reason))
    }
}

fn refused(reason: &str) -> Error {
    Error::invalid_argument(format!("listen: {reason}"))
}

fn at_address(at: &ListenMode, options: &Options) -> Result<ListenAt> {
    match at {
        ListenMode::Tcp { host, .. } if host.is_empty() => {
            Err(refused("the host must not be empty"))
        }
        ListenMode::Tcp { host, port } => Ok(ListenAt::Tcp {
            host: c_string("listen: the host", host.as_str())?,
            port: *port,
        }),
        ListenMode::Unix { path } if path.as_os_str().is_empty() => {
            Err(refused("the path must not be empty"))
        }
        ListenMode::Unix { path } => Ok(ListenAt::Unix {
            path: c_string("listen: the path", path.as_os_str().as_bytes())?,
            mode: options.mode.unwrap_or(0),
            group: options.group,
        }),
        // That of a bus tells where, and has no descriptor.
        ListenMode::Inherited { .. } => Err(refused(
            "an inherited socket has to be given with Listen::inherited",
        )),
    }
}

fn at_socket(socket: Arc<OwnedFd>) -> Result<(ListenAt, ListenMode)> {
    let socket = Arc::try_unwrap(socket)
        .or_else(|shared| shared.try_clone())
        .map_err(|e| {
            let text = format!("listen: the descriptor can't be duplicated: {e}");
            Error::new(ErrorCode::ResourceExhausted, text).with_source(e)
        })?;
    match address_of(socket) {
        (socket, Some(address)) => {
            Ok((ListenAt::Socket(socket), ListenMode::Inherited { address }))
        }
        (_, None) => Err(refused(
            "the descriptor is no TCP or Unix socket that is bound to an address",
        )),
    }
}

/// What a socket is bound to. `None`: to nothing, or it is no such socket.
fn address_of(socket: OwnedFd) -> (OwnedFd, Option<ListenAddr>) {
    // These types check nothing until they are asked, and then the family.
    let tcp = TcpListener::from(socket);
    if let Ok(address) = tcp.local_addr() {
        let bound = (address.port() != 0).then_some(ListenAddr::Tcp(address));
        return (tcp.into(), bound);
    }
    let unix = UnixListener::from(OwnedFd::from(tcp));
    let address = unix.local_addr().ok();
    let path = address.and_then(|address| {
        let path = address.as_pathname().map(PathBuf::from);
        path.or_else(|| abstract_name(&address))
    });
    (unix.into(), path.map(ListenAddr::Unix))
}

#[cfg(target_os = "linux")]
fn abstract_name(address: &std::os::unix::net::SocketAddr) -> Option<PathBuf> {
    use std::ffi::OsString;
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::ffi::OsStringExt;

    let name = address.as_abstract_name()?;
    Some(OsString::from_vec([b"@", name].concat()).into())
}

#[cfg(not(target_os = "linux"))]
fn abstract_name(_address: &std::os::unix::net::SocketAddr) -> Option<PathBuf> {
    None
}

/// Where a listener is bound.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ListenAddr {
    /// A TCP address, with the real port.
    Tcp(SocketAddr),
    /// The path of a Unix socket. That of an inherited one may be a name without
    /// a file, an "abstract" one; it is given behind an `@`.
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
    use std::fs::File;
    use std::net::{Ipv4Addr, UdpSocket};
    use std::os::unix::net::UnixStream;

    use super::*;

    fn refusal(listen: impl Into<Listen>) -> String {
        let error = listen.into().into_native().expect_err("refused");
        assert_eq!(error.kind(), Some(ErrorCode::InvalidArgument));
        error.to_string()
    }

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
        assert!(refusal(ListenMode::tcp("", 1)).contains("host must not be empty"));
        assert!(refusal(ListenMode::tcp("a\0b", 1)).contains("host contains a NUL"));
        assert!(refusal(ListenMode::unix("")).contains("path must not be empty"));
        assert!(refusal(ListenMode::unix("a\0b")).contains("path contains a NUL"));
    }

    #[test]
    fn options_that_do_not_fit_are_refused() {
        let (tcp, unix) = (|| Listen::tcp("a", 1), || Listen::unix("/s"));
        assert!(refusal(unix().token("")).contains("token"));
        assert!(refusal(unix().pool("a\0b")).contains("pool contains a NUL"));
        assert!(refusal(unix().mode(0)).contains("mode"));
        assert!(refusal(unix().mode(0o1000)).contains("mode"));
        assert!(refusal(tcp().mode(0o600)).contains("file of a Unix socket"));
        assert!(refusal(tcp().group(0)).contains("file of a Unix socket"));
        assert!(refusal(tcp().allow_uid(0)).contains("Unix socket only"));
        let socket = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bound");
        let inherited = || Listen::inherited(socket());
        assert!(refusal(inherited().mode(0o600)).contains("file of a Unix socket"));
        assert!(refusal(inherited().allow_uid(0)).contains("Unix socket only"));
        let all = unix().token("t").mode(0o660).group(1).allow_uid(1);
        all.into_native().expect("these fit");
    }

    #[test]
    fn only_a_bound_socket_can_be_inherited() {
        let (unnamed, _other) = UnixStream::pair().expect("a pair");
        let file = File::open("/dev/null").expect("opened");
        for socket in [OwnedFd::from(unnamed), OwnedFd::from(file)] {
            assert!(refusal(Listen::inherited(socket)).contains("bound to an address"));
        }
        let address = ListenAddr::Unix("/s".into());
        assert!(refusal(ListenMode::Inherited { address }).contains("Listen::inherited"));
        // Its kind is looked at by the start.
        let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("bound");
        let bound = udp.local_addr().expect("an address");
        let (_, mode) = Listen::inherited(udp).into_native().expect("bound");
        let address = ListenAddr::Tcp(bound);
        assert_eq!(mode, ListenMode::Inherited { address });
    }

    #[test]
    fn a_token_is_not_shown() {
        let listen = Listen::unix("/s").token("open sesame");
        let text = format!("{listen:?}");
        let (native, _) = listen.into_native().expect("valid");
        let both = format!("{text} {native:?}");
        assert!(
            !both.contains("sesame") && both.contains("<secret>"),
            "{both}"
        );
    }
}
