//! What the bus thread and the handles share without talking: the state, a few
//! gauges, the bell, and what is left when the thread has ended.

use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::sync::watch;

use super::budget::Budget;
use super::wake::Waker;
use crate::stats::{BusState, PoolInfo, Stats, StopReport, WorkerInfo};

#[derive(Debug)]
pub(crate) struct Shared {
    /// By which operators tell it from other buses of this process.
    pub(crate) name: Arc<str>,
    pub(super) waker: Waker,
    state: AtomicU8,
    changes: watch::Sender<BusState>,
    next_id: AtomicU64,
    pub(crate) budget: Arc<Budget>,
    pub(crate) gauges: Gauges,
    /// Set once, by a successful start: the listeners' addresses.
    pub(crate) addresses: OnceLock<Vec<String>>,
    last: Mutex<Last>,
}

/// Counts as of the bus thread's last turn.
#[derive(Debug, Default)]
pub(crate) struct Gauges {
    pub(crate) workers: AtomicUsize,
    pub(crate) clients: AtomicUsize,
    pub(crate) sessions: AtomicUsize,
    pub(crate) pending: AtomicUsize,
}

/// Stands in a gauge for what can't be known.
const UNKNOWN: usize = usize::MAX;

/// What can still be asked for when the bus is gone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Last {
    pub(crate) stats: Stats,
    pub(crate) workers: Vec<WorkerInfo>,
    pub(crate) pools: Vec<PoolInfo>,
    /// The end of what each of `workers` wrote to stderr.
    pub(crate) stderr: Vec<Vec<u8>>,
    /// The last lines of all that went to stderr.
    pub(crate) tail: Vec<String>,
    pub(crate) report: StopReport,
}

impl Shared {
    pub(super) fn new(name: Arc<str>, max_in_flight_bytes: usize) -> Self {
        Self {
            name,
            waker: Waker::new(),
            state: AtomicU8::new(BusState::Created as u8),
            changes: watch::Sender::new(BusState::Created),
            next_id: AtomicU64::new(1),
            budget: Budget::new(max_in_flight_bytes),
            gauges: Gauges::default(),
            addresses: OnceLock::new(),
            last: Mutex::default(),
        }
    }

    pub(crate) fn state(&self) -> BusState {
        BusState::from_u8(self.state.load(Ordering::Acquire))
    }

    /// Only the bus thread calls this.
    pub(super) fn set_state(&self, state: BusState) {
        // Whoever hears of the change can ask for it.
        self.state.store(state as u8, Ordering::Release);
        self.changes
            .send_if_modified(|told| std::mem::replace(told, state) != state);
    }

    /// Tells of the present state, and of each change.
    pub(crate) fn changes(&self) -> watch::Receiver<BusState> {
        self.changes.subscribe()
    }

    /// An id no other request of this bus has had.
    pub(crate) fn next_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn last(&self) -> MutexGuard<'_, Last> {
        // Plain data: whatever panicked while holding it left it usable.
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Gauges {
    /// Of a bus that is gone nothing is left to count.
    pub(super) fn clear(&self) {
        for gauge in [&self.workers, &self.clients, &self.sessions, &self.pending] {
            Self::set(gauge, Self::get(gauge).map(|_| 0));
        }
    }

    pub(super) fn set(gauge: &AtomicUsize, value: Option<usize>) {
        gauge.store(value.unwrap_or(UNKNOWN), Ordering::Relaxed);
    }

    /// `None` for what can't be known.
    pub(crate) fn get(gauge: &AtomicUsize) -> Option<usize> {
        Some(gauge.load(Ordering::Relaxed)).filter(|value| *value != UNKNOWN)
    }
}
