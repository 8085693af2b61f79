//! The moments at which nothing is asked: nothing may be left in a bus then, and what it occupies has
//! to be what it was.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use stdiobus::{StdioBus, WorkerState};
use tokio::time::sleep;

use crate::check::Ledger;
use crate::figures::{Figures, rise};
use crate::plan::Pool;
use crate::program::Program;
use crate::witness::Witness;

/// How long a bus may take to come to rest: a worker that has died again and again is started 30 seconds
/// later at most, and a pool that was replaced has drained after 10. Twice that, for slow machines.
const BOUND: Duration = Duration::from_secs(60);

/// The figures of one process at each quiet moment.
pub struct Levels {
    name: &'static str,
    pid: u32,
    first: Option<Figures>,
    memory: Vec<u64>,
}

impl Levels {
    pub fn of(name: &'static str, pid: u32) -> Self {
        let (first, memory) = (None, Vec::new());
        Self {
            name,
            pid,
            first,
            memory,
        }
    }

    /// Takes the figures; the counts are those of the first time.
    pub async fn take(&mut self, ledger: &Ledger) -> Figures {
        let Some(first) = self.first else {
            let figures = Figures::of(self.pid);
            self.first = Some(figures);
            self.memory.push(figures.rss_kib);
            return figures;
        };
        // Descriptors of connections that have just ended are closed in their time.
        let fits = |figures: &Figures| figures.counts() == first.counts();
        let figures = until(|| async { Some(Figures::of(self.pid)).filter(fits) }).await;
        let figures = figures.unwrap_or_else(|| Figures::of(self.pid));
        if !fits(&figures) {
            let text = format!("{}: {first:?} has become {figures:?}", self.name);
            ledger.violates(&ledger.left_behind, text);
        }
        self.memory.push(figures.rss_kib);
        figures
    }

    /// Whether memory has stayed at its level.
    pub fn check_memory(&self, ledger: &Ledger) {
        if let Some(text) = rise(&self.memory) {
            ledger.violates(&ledger.left_behind, format!("{}: {text}", self.name));
        }
    }
}

/// What comes of trying until it is there, or the bound is over.
async fn until<T, F: Future<Output = Option<T>>>(mut look: impl FnMut() -> F) -> Option<T> {
    let end = Instant::now() + BOUND;
    loop {
        let seen = look().await;
        if seen.is_some() || Instant::now() >= end {
            return seen;
        }
        sleep(Duration::from_millis(20)).await;
    }
}

fn workers() -> usize {
    Pool::ALL
        .into_iter()
        .map(|pool| pool.instances() as usize)
        .sum()
}

/// Waits until nothing is left of what was asked in either bus.
pub async fn settle(native: &StdioBus, remote: &StdioBus, program: &Program, ledger: &Ledger) {
    let mut last = Value::Null;
    let rest = json!({
        "pending": 0, "queued": 0, "outbox": 0, "clients": 0, "ready": workers(), "workers": workers(),
        "inFlight": 0, "waiting": 0,
    });
    for bus in [native, remote] {
        let is_native = std::ptr::eq(bus, native);
        let state = async || {
            let mut now = if is_native {
                of_native(bus).await
            } else {
                of_program(program).await
            };
            let stats = bus.stats().await.unwrap_or_default();
            now["inFlight"] = json!(stats.in_flight_bytes);
            now["waiting"] = json!(stats.waiting_for_room);
            now["pending"] = json!(
                now["pending"].as_u64().unwrap_or(1) + bus.pending_count().unwrap_or(0) as u64
            );
            now
        };
        let end = Instant::now() + BOUND;
        while Instant::now() < end {
            last = state().await;
            if last == rest {
                break;
            }
            sleep(Duration::from_millis(20)).await;
        }
        if last != rest {
            let name = if is_native { "native" } else { "program" };
            ledger.violates(
                &ledger.left_behind,
                format!("{name} is not at rest: {last}"),
            );
        }
    }
}

async fn of_native(bus: &StdioBus) -> Value {
    let stats = bus.stats().await.unwrap_or_default();
    let workers = bus.workers().await.unwrap_or_default();
    let ready = workers
        .iter()
        .filter(|worker| worker.state == WorkerState::Ready)
        .count();
    let running = workers.iter().filter(|worker| worker.pid.is_some()).count();
    json!({
        "pending": stats.pending, "queued": stats.queued_requests, "outbox": stats.outbox_bytes,
        "clients": bus.client_count(), "ready": ready, "workers": running,
    })
}

async fn of_program(program: &Program) -> Value {
    let Ok(now) = program.snapshot().await else {
        return json!({});
    };
    let workers = now["workers"].as_array().map_or(&[][..], Vec::as_slice);
    let ready = workers
        .iter()
        .filter(|worker| worker["state"] == "ready")
        .count();
    let running = workers
        .iter()
        .filter(|worker| worker["pid"].is_number())
        .count();
    // One client is the handle of this process.
    let clients = now["clients"].as_i64().unwrap_or(-1) - 1;
    json!({
        "pending": now["stats"]["pending"], "queued": now["stats"]["queued"],
        "outbox": now["stats"]["outboxBytes"], "clients": clients, "ready": ready, "workers": running,
    })
}

/// Each answer is that of a worker which has read the request.
pub async fn match_answers(witness: &Witness, ledger: &Ledger) {
    let answered = ledger.take_answered();
    let missing = || async {
        let unread = answered.iter().find(|nonce| !witness.has_seen(**nonce));
        unread.is_none().then_some(())
    };
    if until(missing).await.is_none() {
        let text = "an answer came for a request that no worker has read";
        ledger.violates(&ledger.misdelivered, text.into());
    }
    witness.forget_sessions();
}
