//! What a service manager gives, and is told: sockets that are bound already, and
//! when the bus serves, reloads and stops (sd_listen_fds(3), sd_notify(3)).

use sd_notify::NotifyState;
use stdiobus::Listen;

use crate::log::Log;

/// The listeners that this process was given. The error is for the user.
pub(crate) fn inherited() -> Result<Vec<Listen>, String> {
    let numbers = sd_notify::listen_fds().map_err(|e| format!("LISTEN_FDS: {e}"))?;
    let take = |number| {
        let socket = stdiobus::program::take_fd(number);
        let socket = socket.ok_or_else(|| format!("LISTEN_FDS: {number} is not open"))?;
        Ok(Listen::inherited(socket))
    };
    numbers.map(take).collect()
}

/// The bus serves.
pub(crate) fn ready(log: &Log) {
    tell(log, &[NotifyState::Ready]);
}

/// The bus takes another configuration; [`ready`] says that it has.
pub(crate) fn reloading(log: &Log) {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(log, &[NotifyState::Reloading, now]),
        Err(error) => log.warn(format_args!("the service manager isn't told: {error}")),
    }
}

/// The bus drains and stops.
pub(crate) fn stopping(log: &Log) {
    tell(log, &[NotifyState::Stopping]);
}

/// Does nothing where nobody asked for it.
fn tell(log: &Log, state: &[NotifyState]) {
    if let Err(error) = sd_notify::notify(state) {
        log.warn(format_args!("the service manager isn't told: {error}"));
    }
}
