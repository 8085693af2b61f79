//! What a service manager gives, and is told: sockets that are bound already, and
//! when the bus serves, reloads and stops (sd_listen_fds(3), sd_notify(3)).

use std::env;
use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener};

use sd_notify::NotifyState;
use stdiobus::Listen;

use crate::log::Log;

const NOTIFY_SOCKET: &str = "NOTIFY_SOCKET";

/// Its variables: they are for this process, not for its workers.
const VARIABLES: [&str; 4] = [NOTIFY_SOCKET, "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"];

/// The listeners that this process was given. The error is for the user.
///
/// Call it before this process opens anything: its descriptors have numbers, too.
pub(crate) fn inherited() -> Result<Vec<Inherited>, String> {
    let numbers = sd_notify::listen_fds().map_err(|e| format!("LISTEN_FDS: {e}"))?;
    let take = |number| {
        let socket = stdiobus::program::take_fd(number);
        let socket = socket.ok_or_else(|| format!("LISTEN_FDS: {number} is not open"))?;
        Ok(Inherited {
            unix: is_unix(&socket),
            listen: Listen::inherited(socket),
        })
    };
    numbers.map(take).collect()
}

/// A listener that this process was given.
pub(crate) struct Inherited {
    pub(crate) listen: Listen,
    /// Whether it is a Unix socket, whose clients have users.
    pub(crate) unix: bool,
}

fn is_unix(socket: &OwnedFd) -> bool {
    let socket = socket.try_clone().map(UnixListener::from);
    // This type checks nothing until it is asked, and then the family.
    socket.is_ok_and(|socket| socket.local_addr().is_ok())
}

/// Who wants to be told, where anybody does.
#[derive(Debug)]
pub(crate) struct Manager {
    socket: Option<OsString>,
}

impl Manager {
    /// Takes what is said of it out of the environment. Call it before there are
    /// threads.
    pub(crate) fn take() -> Self {
        let socket = env::var_os(NOTIFY_SOCKET).filter(|socket| !socket.is_empty());
        for variable in VARIABLES {
            stdiobus::program::forget_variable(variable);
        }
        Self { socket }
    }

    /// The bus serves.
    pub(crate) fn ready(&self, log: &Log) {
        self.tell(log, &[NotifyState::Ready]);
    }

    /// The bus takes another configuration; [`ready`](Self::ready) says that it has.
    pub(crate) fn reloading(&self, log: &Log) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => self.tell(log, &[NotifyState::Reloading, now]),
            Err(error) => log.warn(format_args!("the service manager isn't told: {error}")),
        }
    }

    /// The bus drains and stops.
    pub(crate) fn stopping(&self, log: &Log) {
        self.tell(log, &[NotifyState::Stopping]);
    }

    fn tell(&self, log: &Log, state: &[NotifyState<'_>]) {
        let Some(socket) = &self.socket else {
            return;
        };
        let text: String = state.iter().map(|line| format!("{line}\n")).collect();
        let address = match socket.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
            _ => SocketAddr::from_pathname(socket),
        };
        if let Err(error) = address.and_then(|address| send(&text, &address)) {
            let shown = socket.display();
            log.warn(format_args!(
                "the service manager isn't told, {NOTIFY_SOCKET} {shown}: {error}"
            ));
        }
    }
}

fn send(text: &str, address: &SocketAddr) -> io::Result<()> {
    UnixDatagram::unbound()?.send_to_addr(text.as_bytes(), address)?;
    Ok(())
}
