//! What the async side asks of the bus thread.

use std::ffi::CString;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::budget::Place;
use super::event::{EventSink, LogLevel};
use super::hub::{MessageSink, RequestQueue};
use super::mailbox::Post;
use super::pending::{Patience, Wants};
use crate::backend::Registered;
use crate::error::{Error, Result};
use crate::native::{Adopt, Embed};
use crate::stats::{PoolInfo, Stats, WorkerInfo};

/// Where the result of a command goes. The receiver may be gone.
pub(crate) type Reply<T> = oneshot::Sender<Result<T>>;

/// One message on the queue to the bus thread.
#[derive(Debug)]
pub(crate) enum Command {
    /// Open the listeners, then start the workers.
    Start { reply: Reply<()> },
    /// Send a request.
    Request(NewRequest),
    /// Send a frame that gets no answer.
    Send { frame: Vec<u8>, reply: Reply<()> },
    /// Give a request up; nobody waits for it any more.
    Cancel { id: u64 },
    /// Answer a worker's request. `id` is the token in the frame.
    Answer { id: Vec<u8>, frame: Vec<u8> },
    /// Serve a client over descriptors.
    Adopt {
        client: Adopt,
        reply: Reply<Adopted>,
    },
    /// Add a worker that lives in this process.
    Register {
        worker: Embed,
        reply: Reply<Registered>,
    },
    /// Take it out again.
    Unregister { worker: Registered },
    /// Tell about what happens from now on.
    Subscribe { sink: EventSink },
    /// Tell what workers say from now on.
    Listen { sink: MessageSink },
    /// Hand workers' requests to a handler.
    Handle { queue: RequestQueue },
    /// Log a line.
    Log { level: LogLevel, line: String },
    /// Say when the bus has ended.
    TellEnd { tell: oneshot::Sender<()> },
    /// Forget a session. `false`: there was none.
    EndSession { session: String, reply: Reply<bool> },
    /// Take another configuration.
    Reload { json: CString, reply: Reply<()> },
    /// Give the end of what a worker wrote to stderr.
    Stderr {
        worker: usize,
        reply: Reply<Vec<u8>>,
    },
    /// Give the last lines of stderr.
    Tail {
        lines: usize,
        reply: Reply<Vec<String>>,
    },
    /// Count.
    Stats { reply: Reply<Stats> },
    /// List the workers.
    Workers { reply: Reply<Vec<WorkerInfo>> },
    /// List the pools.
    Pools { reply: Reply<Vec<PoolInfo>> },
    /// Accept no more, let what is in flight end, then stop. `limit`: `None`
    /// means the configured one.
    Drain {
        limit: Option<Duration>,
        grace: Duration,
        reply: oneshot::Sender<()>,
    },
    /// End everything in flight and stop.
    Stop {
        limit: Duration,
        reply: oneshot::Sender<()>,
    },
    /// The last handle is gone: stop, and tell nobody.
    Abandon { limit: Duration },
}

/// A request to send.
#[derive(Debug)]
pub(crate) struct NewRequest {
    /// The one in the frame.
    pub(crate) id: u64,
    pub(crate) frame: Vec<u8>,
    /// When its task sent it.
    pub(crate) sent: Instant,
    pub(crate) deadline: Option<Instant>,
    pub(crate) patience: Option<Patience>,
    pub(crate) wants: Wants,
    pub(crate) post: Post,
    /// With room, or in the line for it.
    pub(crate) place: Place,
}

/// How a request ended.
pub(crate) type Outcome = std::result::Result<Answer, Ended>;

/// A frame that answers a request.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) frame: Vec<u8>,
    /// The bus itself answered, so an error in it is not the worker's.
    pub(crate) from_bus: bool,
}

/// Why a request ended without an answer.
#[derive(Debug)]
pub(crate) enum Ended {
    TimedOut,
    /// Its time was over before there was room in the budget.
    NoRoom,
    ShuttingDown,
    /// The way to its worker is gone; this is the reason.
    Lost(Arc<str>),
    /// Its task left too much of what belongs to it waiting.
    Overflow,
    Refused(Error),
}

/// A client that is served over descriptors.
#[derive(Debug)]
pub(crate) struct Adopted {
    pub(crate) client: u32,
    /// Brings the reason once the client is gone.
    pub(crate) gone: oneshot::Receiver<String>,
}
