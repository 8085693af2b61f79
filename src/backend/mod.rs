//! What carries a bus's messages: the bus in this process, or a wire to one
//! elsewhere. A backend lives on the bus thread and knows nothing of who asks.

mod linked;
mod mode;
mod native;
mod remote;
mod subprocess;
mod wire;

use std::time::Duration;

pub(crate) use linked::{Linked, Way};
pub use mode::{BackendMode, NativeOptions, RemoteOptions, SubprocessOptions};
pub(crate) use native::{Native, Registered, no_worker};
#[cfg(feature = "cli")]
pub(crate) use remote::dial;
pub(crate) use subprocess::Launch;
#[cfg(feature = "cli")]
pub(crate) use wire::{Reader, Writer};

use crate::error::{Error, ErrorCode};
use crate::native::{BusOptions, Incoming, Listen, RawBus};
use crate::stats::Stats;

/// What a bus thread makes its backend from.
#[derive(Debug)]
pub(crate) enum Plan {
    Native {
        options: BusOptions,
        listen: Vec<Listen>,
    },
    Linked(Way),
}

/// A bus, as its thread sees it. Only this crate has any.
pub(crate) trait Backend {
    /// What to ring so that a [`step`](Self::step) that waits returns.
    fn bell(&self) -> Bell<'_>;

    /// Opens the listeners and starts the workers, or reaches the bus. Returns
    /// the listeners' addresses.
    fn start(&mut self) -> Result<Vec<String>, Error>;

    /// One turn: reads and writes what can be, waits at most so long if there is
    /// nothing. The error says why it can't go on.
    fn step(&mut self, wait: Option<Duration>) -> Result<(), String>;

    /// Moves out what has come, in its order.
    fn take_incoming(&mut self, into: &mut Vec<Incoming>);

    /// Hands a frame over. With `answer_errors`, a request that is refused may
    /// be answered with a frame instead.
    fn submit(&mut self, frame: &[u8], answer_errors: bool) -> Result<(), Refusal>;

    /// Gives up a pending request.
    fn cancel(&mut self, id: u64);

    /// Begins to stop, within the given time; zero is at once.
    fn stop_within(&mut self, limit: Duration) -> Result<(), Error>;

    /// Begins to let what is in flight end, then stops within `grace`. `None`:
    /// the configured limit.
    fn drain(&mut self, limit: Option<Duration>, grace: Duration) -> Result<(), Error>;

    fn is_stopped(&self) -> bool;

    fn counts(&self) -> Counts;

    /// What the backend itself counts; the rest is zero.
    fn stats(&self) -> Stats;

    /// The bus in this process, for what only that can do.
    fn native(&self) -> Option<&Native>;
}

/// Only the bus in this process can do that.
pub(crate) fn not_here() -> Error {
    Error::new(ErrorCode::NotSupported, "the bus isn't in this process")
}

/// How to end a step that waits, from any thread.
pub(crate) enum Bell<'a> {
    Bus(&'a RawBus),
    Call(Box<dyn Fn() + Send + Sync>),
}

/// How many there are now. `None` where a backend can't know.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counts {
    pub(crate) workers: Option<usize>,
    pub(crate) clients: Option<usize>,
    pub(crate) sessions: Option<usize>,
    pub(crate) pending: Option<usize>,
}

/// Why a frame was not taken.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// The bus doesn't run any more.
    Stopped(Error),
    TooLarge(Error),
    Other(Error),
}

impl Refusal {
    pub(crate) fn into_error(self) -> Error {
        match self {
            Self::Stopped(error) | Self::TooLarge(error) | Self::Other(error) => error,
        }
    }
}
