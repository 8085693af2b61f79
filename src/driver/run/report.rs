//! What the bus thread tells about the bus.

use std::mem;

use super::super::shared::Gauges;
use super::Driver;
use crate::backend::Backend;
use crate::stats::Stats;

impl<B: Backend> Driver<B> {
    pub(super) fn publish(&self) {
        let (counts, gauges) = (self.backend().counts(), &self.shared.gauges);
        Gauges::set(&gauges.workers, counts.workers);
        Gauges::set(&gauges.clients, counts.clients);
        Gauges::set(&gauges.sessions, counts.sessions);
        Gauges::set(&gauges.pending, counts.pending);
    }

    pub(super) fn stats(&self) -> Stats {
        Stats {
            unhandled_notifications: self.unhandled_notifications,
            lagged_messages: self.hub.lagged,
            refused_worker_requests: self.hub.overloads,
            in_flight_bytes: self.shared.budget.used() as u64,
            waiting_for_room: self.shared.budget.waiting() as u64,
            latency: self.requests.latency(),
            ..self.backend().stats()
        }
    }

    /// What can still be asked for when the bus is gone.
    pub(super) fn leave_word(&mut self) {
        let (stats, report) = (self.stats(), mem::take(&mut self.report));
        let tail = self.tail.last(usize::MAX);
        let mut last = self.shared.last();
        last.stats = stats;
        last.report = report;
        last.tail = tail;
        if let Some(native) = self.backend().native() {
            last.workers = native.workers();
            last.pools = native.pools();
            let stderr = |id| native.worker_stderr(id).unwrap_or_default();
            last.stderr = last.workers.iter().map(|w| stderr(w.id)).collect();
        }
    }
}
