//! What the bus thread tells about the bus.

use std::mem;
use std::time::Duration;

use super::super::shared::Gauges;
use super::Driver;
use crate::stats::{PoolInfo, Stats, WorkerInfo, WorkerState};
use crate::sys;

impl Driver {
    pub(super) fn publish(&self) {
        let (bus, gauges) = (self.bus(), &self.shared.gauges);
        Gauges::set(&gauges.workers, bus.worker_count());
        Gauges::set(&gauges.clients, bus.client_count());
        Gauges::set(&gauges.sessions, bus.session_count());
        Gauges::set(&gauges.pending, bus.pending_count());
    }

    pub(super) fn stats(&self) -> Stats {
        let (base, ext) = (self.bus().stats(), self.bus().ext_stats());
        let pools = self.bus().pools();
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
            overload_refusals: ext.overload_refusals,
            unhandled_notifications: self.unhandled_notifications,
            lagged_messages: self.hub.lagged,
            refused_worker_requests: self.hub.overloads,
            unauthorized_clients: ext.unauthorized,
            stale_cancels: ext.stale_cancels,
            queued_requests: queued.sum(),
            queued_bytes: queued_bytes.sum(),
            outbox_bytes: ext.outbox_bytes,
            tombstones: ext.tombstones,
            pending: self.bus().pending_count() as u64,
            sessions: self.bus().session_count() as u64,
            in_flight_bytes: self.shared.budget.used() as u64,
            waiting_for_room: self.shared.budget.waiting() as u64,
            latency: self.requests.latency(),
        }
    }

    pub(super) fn workers(&self) -> Vec<WorkerInfo> {
        self.bus()
            .workers()
            .into_iter()
            .map(|(raw, pool)| worker_info(&raw, pool))
            .collect()
    }

    pub(super) fn pools(&self) -> Vec<PoolInfo> {
        let workers = self.workers();
        self.bus()
            .pools()
            .into_iter()
            .map(|(raw, id)| pool_info(&raw, id, &workers))
            .collect()
    }

    /// What can still be asked for when the bus is gone.
    pub(super) fn leave_word(&mut self) {
        let (stats, workers, pools) = (self.stats(), self.workers(), self.pools());
        let stderr = workers.iter().map(|w| self.bus().worker_stderr(w.id));
        let stderr = stderr.map(Option::unwrap_or_default).collect();
        let report = mem::take(&mut self.report);
        let mut last = self.shared.last();
        last.stats = stats;
        last.workers = workers;
        last.pools = pools;
        last.stderr = stderr;
        last.report = report;
    }
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
        id,
    }
}
