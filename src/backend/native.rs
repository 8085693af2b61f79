//! The bus in this process: the C library, with results in our own terms.

use std::ffi::CStr;
use std::mem;
use std::time::Duration;

use super::{Backend, Bell, Counts, Refusal};
use crate::error::{Error, ErrorCode, Result};
use crate::native::{Adopt, BusOptions, Embed, Failure, Incoming, Listen, RawBus, Status};
use crate::stats::{BusState, Latency, PoolInfo, Stats, WorkerInfo, WorkerState};
use crate::sys;

pub(crate) struct Native {
    bus: RawBus,
    listen: Vec<Listen>,
}

/// A worker that lives in this process. Its number may be used again once it is
/// gone, by another one with a later generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Registered {
    pub(crate) worker: usize,
    pub(crate) generation: u32,
}

impl Native {
    pub(crate) fn create(options: &BusOptions, listen: Vec<Listen>) -> Result<Self> {
        let bus = RawBus::create(options).map_err(Error::invalid_argument)?;
        let pools = bus.pools();
        let is_unknown = |name: &&CStr| {
            pools
                .iter()
                .all(|(_, pool)| pool.as_bytes() != name.to_bytes())
        };
        let mut named = listen.iter().filter_map(|listen| listen.pool.as_deref());
        match named.find(is_unknown) {
            Some(pool) => Err(Error::invalid_argument(format!(
                "listen: there is no pool {pool:?}"
            ))),
            None => Ok(Self { bus, listen }),
        }
    }

    /// Reads the configuration, and says what is wrong with it.
    pub(crate) fn check(options: &BusOptions) -> Result<()> {
        let bus = RawBus::create(options).map_err(Error::invalid_argument)?;
        drop(bus);
        Ok(())
    }

    /// Looks for its programs, too. Returns what the bus warns of.
    #[cfg(feature = "cli")]
    pub(crate) fn check_programs(options: &BusOptions) -> Result<Vec<String>> {
        let bus = RawBus::create(options).map_err(Error::invalid_argument)?;
        bus.check().map_err(error_of)?;
        let mut said = Vec::new();
        bus.take_incoming(&mut said);
        let line = |item| match item {
            Incoming::Log(_, line) => Some(line),
            _ => None,
        };
        Ok(said.into_iter().filter_map(line).collect())
    }

    pub(crate) fn workers(&self) -> Vec<WorkerInfo> {
        let workers = self.bus.workers().into_iter();
        workers.map(|(raw, pool)| worker_info(&raw, pool)).collect()
    }

    pub(crate) fn pools(&self) -> Vec<PoolInfo> {
        let (pools, workers) = (self.bus.pools().into_iter(), self.workers());
        pools
            .map(|(raw, id)| pool_info(&raw, id, &workers))
            .collect()
    }

    pub(crate) fn worker(&self, worker: i32) -> Option<WorkerInfo> {
        let (raw, pool) = self.bus.worker(worker)?;
        Some(worker_info(&raw, pool))
    }

    /// The end of what a worker wrote to stderr.
    pub(crate) fn worker_stderr(&self, worker: usize) -> Result<Vec<u8>> {
        self.bus
            .worker_stderr(worker)
            .ok_or_else(|| no_worker(worker))
    }

    /// `false`: there was none.
    pub(crate) fn end_session(&self, session: &str) -> Result<bool> {
        self.bus.end_session(session).map_err(error_of)
    }

    pub(crate) fn reload(&self, json: &CStr) -> Result<()> {
        self.bus.reload(json).map_err(error_of)
    }

    /// Serves a client over descriptors. Returns its number.
    pub(crate) fn adopt_client(&self, client: Adopt) -> Result<u32> {
        let client = self.bus.adopt_client(client).map_err(error_of)?;
        Ok(u32::try_from(client).unwrap_or(0))
    }

    pub(crate) fn register(&self, worker: Embed) -> Result<Registered> {
        let pool = worker.pool.to_string_lossy().into_owned();
        let refused = |failure: Failure| match failure.status {
            Status::NOT_FOUND => Error::invalid_argument(format!("there is no pool {pool:?}")),
            // What the system refuses has another status.
            Status::REFUSED_BY_SYSTEM => Error::invalid_argument(format!(
                "the workers of pool {pool:?} belong to one client each"
            )),
            _ => error_of(failure),
        };
        let number = self.bus.register_worker(worker).map_err(refused)?;
        let info = self.worker(number);
        Ok(Registered {
            worker: usize::try_from(number).unwrap_or(0),
            generation: info.map_or(0, |info| info.generation),
        })
    }

    pub(crate) fn unregister(&self, worker: Registered) {
        let Ok(number) = i32::try_from(worker.worker) else {
            return;
        };
        // Else it is gone, and its number may be somebody else's.
        let lives = |info: WorkerInfo| info.generation == worker.generation;
        if self.worker(number).is_some_and(lives) {
            self.bus.unregister_worker(number);
        }
    }
}

impl Backend for Native {
    fn bell(&self) -> Bell<'_> {
        Bell::Bus(&self.bus)
    }

    /// Listeners first: a bind failure shows before any worker has run.
    fn start(&mut self) -> Result<Vec<String>> {
        let open = |listen| self.bus.listen(listen).map_err(error_of);
        let listen = mem::take(&mut self.listen).into_iter();
        let addresses = listen.map(open).collect::<Result<_>>()?;
        self.bus.start().map_err(error_of)?;
        Ok(addresses)
    }

    fn step(&mut self, wait: Option<Duration>) -> std::result::Result<(), String> {
        // What a call has told of since the last step must not wait for the next.
        let wait = match self.bus.has_incoming() {
            true => Some(Duration::ZERO),
            false => wait,
        };
        self.bus.step(wait).map_err(|failure| failure.message())
    }

    fn take_incoming(&mut self, into: &mut Vec<Incoming>) {
        self.bus.take_incoming(into);
    }

    fn submit(&mut self, frame: &[u8], answer_errors: bool) -> std::result::Result<(), Refusal> {
        self.bus.submit(frame, answer_errors).map_err(|failure| {
            let refusal = match failure.status {
                Status::STATE => Refusal::Stopped,
                // Without a newline in it, a frame is refused for nothing else.
                Status::BUFFER => return Refusal::TooLarge(too_large(frame.len())),
                _ => Refusal::Other,
            };
            refusal(error_of(failure))
        })
    }

    fn cancel(&mut self, id: u64) {
        self.bus.cancel(id.to_string().as_bytes());
    }

    fn stop_within(&mut self, limit: Duration) -> Result<()> {
        self.bus.stop_within(limit).map_err(error_of)
    }

    fn drain(&mut self, limit: Option<Duration>, grace: Duration) -> Result<()> {
        self.bus.drain(limit, grace).map_err(error_of)
    }

    fn is_stopped(&self) -> bool {
        self.bus.state() == BusState::Stopped as u8
    }

    fn counts(&self) -> Counts {
        Counts {
            workers: Some(self.bus.worker_count()),
            clients: Some(self.bus.client_count()),
            sessions: Some(self.bus.session_count()),
            pending: Some(self.bus.pending_count()),
        }
    }

    fn stats(&self) -> Stats {
        let (base, ext) = (self.bus.stats(), self.bus.ext_stats());
        let pools = self.bus.pools();
        let queued = pools.iter().map(|(pool, _)| u64::from(pool.queued));
        let queued_bytes = pools.iter().map(|(pool, _)| pool.queued_bytes);
        Stats {
            messages_in: base.messages_in,
            messages_out: base.messages_out,
            bytes_in: base.bytes_in,
            bytes_out: base.bytes_out,
            worker_restarts: base.worker_restarts,
            routing_errors: base.routing_errors,
            client_connects: base.client_connects,
            client_disconnects: base.client_disconnects,
            parse_errors: ext.parse_errors,
            worker_garbage: ext.worker_garbage,
            oversize_frames: ext.oversize_frames,
            dropped_frames: ext.dropped_frames,
            unattributed_frames: ext.unattributed_frames,
            late_answers: ext.late_answers,
            unauthorized_clients: ext.unauthorized,
            stale_cancels: ext.stale_cancels,
            queued_requests: queued.sum(),
            queued_bytes: queued_bytes.sum(),
            overload_refusals: ext.overload_refusals,
            outbox_bytes: ext.outbox_bytes,
            tombstones: ext.tombstones,
            pending: self.bus.pending_count() as u64,
            sessions: self.bus.session_count() as u64,
            ..Stats::default()
        }
    }

    fn native(&self) -> Option<&Native> {
        Some(self)
    }
}

/// There is no worker with this number.
pub(crate) fn no_worker(worker: usize) -> Error {
    Error::invalid_argument(format!("there is no worker {worker}"))
}

fn too_large(bytes: usize) -> Error {
    Error::invalid_argument(format!(
        "the message of {bytes} bytes is larger than max_input_buffer"
    ))
}

/// A status of the C library as an error of ours.
fn error_of(failure: Failure) -> Error {
    let code = match failure.status {
        Status::CONFIG | Status::ROUTING | Status::BUFFER | Status::INVALID | Status::NOT_FOUND => {
            ErrorCode::InvalidArgument
        }
        Status::FULL => ErrorCode::ResourceExhausted,
        Status::REFUSED_BY_SYSTEM | Status::WORKER => ErrorCode::Unavailable,
        Status::STATE => ErrorCode::InvalidState,
        _ => ErrorCode::Internal,
    };
    Error::new(code, failure.message())
}

fn worker_info(raw: &sys::stdio_bus_worker_info, pool: String) -> WorkerInfo {
    WorkerInfo {
        id: usize::try_from(raw.worker).unwrap_or(0),
        pool,
        pid: u32::try_from(raw.pid).ok().filter(|pid| *pid != 0),
        state: match raw.state {
            sys::STDIO_BUS_WORKER_STARTING => WorkerState::Starting,
            sys::STDIO_BUS_WORKER_READY => WorkerState::Ready,
            sys::STDIO_BUS_WORKER_STOPPING => WorkerState::Stopping,
            sys::STDIO_BUS_WORKER_BACKOFF => WorkerState::Backoff,
            sys::STDIO_BUS_WORKER_FAILED => WorkerState::Failed,
            _ => WorkerState::Stopped,
        },
        generation: raw.generation,
        restarts: raw.restarts,
        pending: raw.pending,
        uptime: Duration::from_millis(raw.uptime_ms),
    }
}

fn pool_info(raw: &sys::stdio_bus_pool_info, id: String, workers: &[WorkerInfo]) -> PoolInfo {
    let of_pool = || workers.iter().filter(|worker| worker.pool == id);
    let in_state = |state| of_pool().filter(|worker| worker.state == state).count();
    PoolInfo {
        workers: raw.workers as usize,
        ready: raw.ready as usize,
        starting: in_state(WorkerState::Starting),
        stopping: in_state(WorkerState::Stopping),
        backoff: in_state(WorkerState::Backoff),
        failed: in_state(WorkerState::Failed),
        pending: raw.pending as usize,
        queued: raw.queued as usize,
        queued_bytes: raw.queued_bytes,
        outbox_bytes: raw.outbox_bytes,
        sessions: raw.sessions as usize,
        requests: raw.requests,
        restarts: raw.restarts,
        latency: Latency {
            count: raw.answered,
            p50: Duration::from_micros(raw.p50_us),
            p90: Duration::from_micros(raw.p90_us),
            p99: Duration::from_micros(raw.p99_us),
            max: Duration::from_micros(raw.max_us),
        },
        id,
    }
}
