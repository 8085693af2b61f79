//! What a bus tells about itself.

use std::fmt;
use std::time::Duration;

use crate::error::WorkerExit;

/// Where a bus is in its life. It only ever moves down this list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
#[repr(u8)]
pub enum BusState {
    /// Built, not started.
    Created = 0,
    /// Workers are being started.
    Starting = 1,
    /// Requests are served.
    Running = 2,
    /// Nothing new is accepted; workers are being stopped.
    Stopping = 3,
    /// Everything has ended. A stopped bus can't be started again.
    Stopped = 4,
}

impl BusState {
    pub(crate) fn from_u8(value: u8) -> Self {
        match value {
            0 => Self::Created,
            1 => Self::Starting,
            2 => Self::Running,
            3 => Self::Stopping,
            _ => Self::Stopped,
        }
    }
}

impl fmt::Display for BusState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Created => "CREATED",
            Self::Starting => "STARTING",
            Self::Running => "RUNNING",
            Self::Stopping => "STOPPING",
            Self::Stopped => "STOPPED",
        })
    }
}

/// Counters since the bus was built, and a few gauges.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Frames accepted from this process and from clients.
    pub messages_in: u64,
    /// Frames queued for this process and for clients.
    pub messages_out: u64,
    /// Bytes of the frames in `messages_in`.
    pub bytes_in: u64,
    /// Bytes of the frames in `messages_out`.
    pub bytes_out: u64,
    /// Times a worker was started again after an exit.
    pub worker_restarts: u64,
    /// Messages for which no worker could be chosen.
    pub routing_errors: u64,
    /// Socket clients accepted.
    pub client_connects: u64,
    /// Socket clients gone.
    pub client_disconnects: u64,
    /// Frames of clients that are not one JSON-RPC object.
    pub parse_errors: u64,
    /// Lines on a worker's stdout that are no frame.
    pub worker_garbage: u64,
    /// Frames above the size limit, in both directions.
    pub oversize_frames: u64,
    /// Frames that could not be delivered.
    pub dropped_frames: u64,
    /// Frames of workers that belonged to nobody.
    pub unattributed_frames: u64,
    /// Answers to requests that had been given up.
    pub late_answers: u64,
    /// Requests refused because a queue was full.
    pub overload_refusals: u64,
    /// Workers' notifications for this process that nothing here took: no
    /// stream, no request and no subscriber.
    pub unhandled_notifications: u64,
    /// Messages of workers that subscribers of this process had no room for.
    pub lagged_messages: u64,
    /// Requests of workers refused because too many were open in this process.
    pub refused_worker_requests: u64,
    /// Clients that did not show their token.
    pub unauthorized_clients: u64,
    /// Cancellations of requests that were not pending.
    pub stale_cancels: u64,
    /// Gauge: requests that wait for a worker to become ready.
    pub queued_requests: u64,
    /// Gauge: bytes of the messages that wait for a worker to become ready.
    pub queued_bytes: u64,
    /// Gauge: bytes queued for workers and clients.
    pub outbox_bytes: u64,
    /// Gauge: given-up requests whose answer may still come.
    pub tombstones: u64,
    /// Gauge: requests that wait for an answer, those of socket clients included.
    pub pending: u64,
    /// Gauge: sessions that are bound to a worker.
    pub sessions: u64,
    /// Gauge: bytes of this process's requests in flight, of the
    /// [budget](crate::StdioBusBuilder::max_in_flight_bytes).
    pub in_flight_bytes: u64,
    /// Gauge: requests of this process that wait for room in that budget.
    pub waiting_for_room: u64,
    /// How long answers to this process's requests took, from the first poll of the
    /// request on.
    pub latency: Latency,
}

/// How long answers took, those that were errors included. Requests that were given
/// up or timed out are not in it. Percentiles may be up to a sixteenth too long.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Latency {
    /// How many answers there were.
    pub count: u64,
    /// What half of them didn't exceed.
    pub p50: Duration,
    /// What 90 of 100 didn't exceed.
    pub p90: Duration,
    /// What 99 of 100 didn't exceed.
    pub p99: Duration,
    /// The longest.
    pub max: Duration,
}

/// What runs the bus of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BackendType {
    /// The library in this process, on a thread of its own.
    Native,
    /// The program `stdio_bus`, a child of this process.
    Subprocess,
    /// A bus that ran already, reached over a socket.
    Remote,
}

impl fmt::Display for BackendType {
    /// `native`, `subprocess` or `remote`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Native => "native",
            Self::Subprocess => "subprocess",
            Self::Remote => "remote",
        })
    }
}

/// What a worker is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WorkerState {
    /// Not running, and no restart is due.
    Stopped,
    /// Started, not yet ready.
    Starting,
    /// Takes requests.
    Ready,
    /// Asked to end.
    Stopping,
    /// Waits to be started again.
    Backoff,
    /// Given up for now: too many restarts.
    Failed,
}

/// One worker as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct WorkerInfo {
    /// Its number, counted over all pools.
    pub id: usize,
    /// Its pool.
    pub pool: String,
    /// Its process id while it runs.
    pub pid: Option<u32>,
    /// What it is doing.
    pub state: WorkerState,
    /// How often it has been started, from 1.
    pub generation: u32,
    /// How often it was started again after an exit.
    pub restarts: u32,
    /// Requests it has not answered.
    pub pending: u32,
    /// How long it has run.
    pub uptime: Duration,
}

/// One pool as it is now: the sum over its workers, those included that a
/// client has for itself.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PoolInfo {
    /// Its name.
    pub id: String,
    /// Its workers, running or not.
    pub workers: usize,
    /// Those that take requests.
    pub ready: usize,
    /// Those that have started and are not ready yet.
    pub starting: usize,
    /// Those that were asked to end.
    pub stopping: usize,
    /// Those that wait to be started again.
    pub backoff: usize,
    /// Those that were given up for now.
    pub failed: usize,
    /// Requests its workers have not answered.
    pub pending: usize,
    /// Requests that wait for one of its workers to become ready.
    pub queued: usize,
    /// Bytes of the messages that wait for that.
    pub queued_bytes: u64,
    /// Bytes queued for its workers' stdin.
    pub outbox_bytes: u64,
    /// Sessions that are bound to its workers.
    pub sessions: usize,
    /// Counter: requests given to its workers.
    pub requests: u64,
    /// Counter: times one of its workers was started again after an exit.
    pub restarts: u64,
    /// How long its workers' answers took, to clients on sockets as well: from when
    /// the bus had read the request to when it had read the answer, what the request
    /// waited for a worker included. Told in units of 16 µs.
    pub latency: Latency,
}

/// How a stop went.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StopReport {
    /// How each worker ended that the stop ended.
    pub exits: Vec<WorkerExit>,
}

impl StopReport {
    /// How many workers ended by SIGTERM, which they get when the end of their
    /// input didn't end them.
    pub fn terminated(&self) -> usize {
        self.ended_by(15)
    }

    /// How many workers had to be ended by SIGKILL.
    pub fn killed(&self) -> usize {
        self.ended_by(9)
    }

    fn ended_by(&self, signal: i32) -> usize {
        self.exits
            .iter()
            .filter(|exit| exit.signal == Some(signal))
            .count()
    }
}
