//! What a bus tells the crate `metrics`: counters and gauges when it is asked
//! to, and the time of each request as it ends.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use metrics::{
    Label, SharedString, Unit, counter, describe_counter, describe_gauge, describe_histogram,
    gauge, histogram,
};
use tokio::sync::Mutex;

use super::StdioBus;
use crate::error::Result;
use crate::stats::{BackendType, PoolInfo, Stats, WorkerInfo, WorkerState};

const DURATION: &str = "stdiobus_request_duration_seconds";
const CLIENTS: &str = "stdiobus_clients";
const POOL_WORKERS: &str = "stdiobus_pool_workers";
const POOL_LATENCY: &str = "stdiobus_pool_latency_seconds";

/// A metric: its name, its unit, what it says, and where it comes from.
type Metric<T> = (&'static str, Unit, &'static str, fn(&T) -> u64);

#[rustfmt::skip]
const COUNTERS: &[Metric<Stats>] = &[
    ("stdiobus_messages_in_total", Unit::Count, "Frames accepted from this process and from clients", |s| s.messages_in),
    ("stdiobus_messages_out_total", Unit::Count, "Frames queued for this process and for clients", |s| s.messages_out),
    ("stdiobus_bytes_in_total", Unit::Bytes, "Bytes of the frames accepted", |s| s.bytes_in),
    ("stdiobus_bytes_out_total", Unit::Bytes, "Bytes of the frames queued", |s| s.bytes_out),
    ("stdiobus_worker_restarts_total", Unit::Count, "Times a worker was started again after an exit", |s| s.worker_restarts),
    ("stdiobus_routing_errors_total", Unit::Count, "Messages for which no worker could be chosen", |s| s.routing_errors),
    ("stdiobus_client_connects_total", Unit::Count, "Socket clients accepted", |s| s.client_connects),
    ("stdiobus_client_disconnects_total", Unit::Count, "Socket clients gone", |s| s.client_disconnects),
    ("stdiobus_unauthorized_clients_total", Unit::Count, "Clients that did not show their token", |s| s.unauthorized_clients),
    ("stdiobus_parse_errors_total", Unit::Count, "Frames of clients that are not one JSON-RPC object", |s| s.parse_errors),
    ("stdiobus_worker_garbage_total", Unit::Count, "Lines on a worker's stdout that are no frame", |s| s.worker_garbage),
    ("stdiobus_oversize_frames_total", Unit::Count, "Frames above the size limit", |s| s.oversize_frames),
    ("stdiobus_dropped_frames_total", Unit::Count, "Frames that could not be delivered", |s| s.dropped_frames),
    ("stdiobus_unattributed_frames_total", Unit::Count, "Workers' frames that belonged to nobody", |s| s.unattributed_frames),
    ("stdiobus_late_answers_total", Unit::Count, "Answers to requests that had been given up", |s| s.late_answers),
    ("stdiobus_stale_cancels_total", Unit::Count, "Cancellations of requests that were not pending", |s| s.stale_cancels),
    ("stdiobus_overload_refusals_total", Unit::Count, "Requests refused because a queue was full", |s| s.overload_refusals),
    ("stdiobus_refused_worker_requests_total", Unit::Count, "Workers' requests refused because too many were open in this process", |s| s.refused_worker_requests),
    ("stdiobus_unhandled_notifications_total", Unit::Count, "Workers' notifications to this process that nobody took", |s| s.unhandled_notifications),
    ("stdiobus_lagged_messages_total", Unit::Count, "Workers' messages that subscribers had no room for", |s| s.lagged_messages),
];

#[rustfmt::skip]
const GAUGES: &[Metric<Stats>] = &[
    ("stdiobus_pending_requests", Unit::Count, "Requests that wait for an answer", |s| s.pending),
    ("stdiobus_queued_requests", Unit::Count, "Requests that wait for a worker to become ready", |s| s.queued_requests),
    ("stdiobus_queued_bytes", Unit::Bytes, "Bytes of the messages that wait for a worker to become ready", |s| s.queued_bytes),
    ("stdiobus_outbox_bytes", Unit::Bytes, "Bytes queued for workers and clients", |s| s.outbox_bytes),
    ("stdiobus_sessions", Unit::Count, "Sessions that are bound to a worker", |s| s.sessions),
    ("stdiobus_tombstones", Unit::Count, "Given-up requests whose answer may still come", |s| s.tombstones),
    ("stdiobus_in_flight_bytes", Unit::Bytes, "Bytes of this process's requests in flight", |s| s.in_flight_bytes),
    ("stdiobus_waiting_for_room_requests", Unit::Count, "Requests of this process that wait for room in its budget", |s| s.waiting_for_room),
];

#[rustfmt::skip]
const POOL_COUNTERS: &[Metric<PoolInfo>] = &[
    ("stdiobus_pool_requests_total", Unit::Count, "Requests given to the pool's workers", |p| p.requests),
    ("stdiobus_pool_answers_total", Unit::Count, "Requests the pool's workers have answered", |p| p.latency.count),
    ("stdiobus_pool_restarts_total", Unit::Count, "Times one of the pool's workers was started again", |p| p.restarts),
];

#[rustfmt::skip]
const POOL_GAUGES: &[Metric<PoolInfo>] = &[
    ("stdiobus_pool_pending_requests", Unit::Count, "Requests the pool's workers have not answered", |p| p.pending as u64),
    ("stdiobus_pool_queued_requests", Unit::Count, "Requests that wait for one of the pool's workers to become ready", |p| p.queued as u64),
    ("stdiobus_pool_queued_bytes", Unit::Bytes, "Bytes of the messages that wait for that", |p| p.queued_bytes),
    ("stdiobus_pool_outbox_bytes", Unit::Bytes, "Bytes queued for the stdin of the pool's workers", |p| p.outbox_bytes),
    ("stdiobus_pool_sessions", Unit::Count, "Sessions that are bound to the pool's workers", |p| p.sessions as u64),
];

/// How long answers of a pool took, by the label `quantile`.
type Quantile = (&'static str, fn(&PoolInfo) -> Duration);

const QUANTILES: &[Quantile] = &[
    ("0.5", |p| p.latency.p50),
    ("0.9", |p| p.latency.p90),
    ("0.99", |p| p.latency.p99),
    ("1", |p| p.latency.max),
];

/// Workers of a pool, by the label `state`.
type InState = (&'static str, fn(&PoolInfo) -> usize);

const STATES: &[InState] = &[
    ("starting", |p| p.starting),
    ("ready", |p| p.ready),
    ("stopping", |p| p.stopping),
    ("backoff", |p| p.backoff),
    ("failed", |p| p.failed),
];

#[rustfmt::skip]
const WORKER_GAUGES: &[Metric<WorkerInfo>] = &[
    ("stdiobus_worker_ready", Unit::Count, "Whether the worker takes requests", |w| u64::from(w.state == WorkerState::Ready)),
    ("stdiobus_worker_pending_requests", Unit::Count, "Requests the worker has not answered", |w| u64::from(w.pending)),
    ("stdiobus_worker_generation", Unit::Count, "How often the worker has been started", |w| u64::from(w.generation)),
    ("stdiobus_worker_uptime_seconds", Unit::Seconds, "How long the worker has run", |w| w.uptime.as_secs()),
];

impl StdioBus {
    /// Brings the counters and gauges of this bus up to date, in whatever recorder
    /// of the crate `metrics` is installed: call it before each scrape, or every
    /// few seconds. Of a stopped bus it publishes the last ones, of
    /// one that isn't in this process no pools, workers and clients.
    ///
    /// The histogram of requests needs no call, since it is recorded as each of
    /// them ends. All names are in
    /// [`concepts::observability`](crate::concepts::observability).
    ///
    /// # Errors
    /// None today.
    ///
    /// # Cancel safety
    /// Dropping the future publishes everything or nothing.
    pub async fn publish_metrics(&self) -> Result<()> {
        // Held from asking on: an older answer must not come after a newer one.
        let mut published = self.owner.published.lock().await;
        let stats = self.stats().await?;
        let (pools, workers) = match self.backend_type() {
            BackendType::Native => (self.pools().await?, self.workers().await?),
            _ => Default::default(),
        };
        let bus = Bus(&self.owner.handle.shared().name);
        published.describe();
        published.publish_bus(bus, &stats);
        if let Some(clients) = self.client_count() {
            gauge!(CLIENTS, bus.labels()).set(clients as f64);
        }
        published.publish_pools(bus, &pools);
        published.publish_workers(bus, &workers);
        Ok(())
    }
}

/// A request of this process has ended.
pub(super) fn took(bus: &Arc<str>, outcome: &'static str, time: Duration) {
    let labels = Bus(bus).and([("outcome", outcome.into())]);
    histogram!(DURATION, labels).record(time.as_secs_f64());
}

/// The bus that metrics are about, by its name.
#[derive(Clone, Copy)]
struct Bus<'a>(&'a Arc<str>);

impl Bus<'_> {
    fn labels(self) -> Vec<Label> {
        self.and([])
    }

    fn and<const N: usize>(self, more: [(&'static str, SharedString); N]) -> Vec<Label> {
        let name = SharedString::from_shared(Arc::clone(self.0));
        let more = more.map(|(name, value)| Label::new(name, value));
        [Label::new("bus", name)].into_iter().chain(more).collect()
    }

    fn of_pool(self, pool: &str) -> Vec<Label> {
        self.and([("pool", pool.to_owned().into())])
    }

    fn of_worker(self, pool: &str, worker: usize) -> Vec<Label> {
        let (pool, worker) = (pool.to_owned(), worker.to_string());
        self.and([("pool", pool.into()), ("worker", worker.into())])
    }
}

pub(super) type Published = Mutex<State>;

/// What has been published. Counters go up by what was added since then, so that
/// a bus that follows another one under its name goes on where that one was.
#[derive(Default)]
pub(super) struct State {
    described: bool,
    /// By name and pool.
    counters: BTreeMap<(&'static str, String), u64>,
    pools: BTreeSet<String>,
    workers: BTreeSet<(String, usize)>,
}

impl State {
    fn describe(&mut self) {
        if std::mem::replace(&mut self.described, true) {
            return;
        }
        let counters = COUNTERS
            .iter()
            .map(|(name, unit, text, _)| (name, unit, text));
        let of_pools = POOL_COUNTERS
            .iter()
            .map(|(name, unit, text, _)| (name, unit, text));
        for (name, unit, text) in counters.chain(of_pools) {
            describe_counter!(*name, *unit, *text);
        }
        let gauges = GAUGES
            .iter()
            .map(|(name, unit, text, _)| (name, unit, text));
        let of_pools = POOL_GAUGES
            .iter()
            .map(|(name, unit, text, _)| (name, unit, text));
        let of_workers = WORKER_GAUGES
            .iter()
            .map(|(name, unit, text, _)| (name, unit, text));
        for (name, unit, text) in gauges.chain(of_pools).chain(of_workers) {
            describe_gauge!(*name, *unit, *text);
        }
        describe_gauge!(CLIENTS, Unit::Count, "Clients that are connected");
        describe_gauge!(POOL_WORKERS, Unit::Count, "Workers of the pool, by state");
        let text = "From the reading of a request to the reading of its answer, by quantile";
        describe_gauge!(POOL_LATENCY, Unit::Seconds, text);
        let text = "From the sending of a request of this process to its end, by outcome";
        describe_histogram!(DURATION, Unit::Seconds, text);
    }

    fn publish_bus(&mut self, bus: Bus<'_>, stats: &Stats) {
        for (name, .., get) in COUNTERS {
            self.count(name, "", get(stats), bus.labels());
        }
        for (name, .., get) in GAUGES {
            gauge!(*name, bus.labels()).set(get(stats) as f64);
        }
    }

    fn publish_pools(&mut self, bus: Bus<'_>, pools: &[PoolInfo]) {
        for pool in pools {
            for (name, .., get) in POOL_COUNTERS {
                self.count(name, &pool.id, get(pool), bus.of_pool(&pool.id));
            }
            set_pool(bus, &pool.id, Some(pool));
        }
        let now: BTreeSet<_> = pools.iter().map(|pool| pool.id.clone()).collect();
        for gone in self.pools.difference(&now) {
            set_pool(bus, gone, None);
            self.counters.retain(|(_, pool), _| pool != gone);
        }
        self.pools = now;
    }

    fn publish_workers(&mut self, bus: Bus<'_>, workers: &[WorkerInfo]) {
        for worker in workers {
            set_worker(bus, &worker.pool, worker.id, |get| get(worker));
        }
        let now = workers
            .iter()
            .map(|worker| (worker.pool.clone(), worker.id));
        let now: BTreeSet<_> = now.collect();
        for (pool, worker) in self.workers.difference(&now) {
            set_worker(bus, pool, *worker, |_| 0);
        }
        self.workers = now;
    }

    /// Where a value is less than it was, something that counted is gone with what
    /// it had counted: nothing is added then.
    fn count(&mut self, name: &'static str, pool: &str, value: u64, labels: Vec<Label>) {
        let before = self.counters.insert((name, pool.to_owned()), value);
        let more = value.saturating_sub(before.unwrap_or(0));
        counter!(name, labels).increment(more);
    }
}

/// `None`: the pool is gone, and all of it is 0.
fn set_pool(bus: Bus<'_>, id: &str, pool: Option<&PoolInfo>) {
    let labelled = |name, value| {
        bus.and([
            ("pool", id.to_owned().into()),
            (name, SharedString::const_str(value)),
        ])
    };
    for (name, .., get) in POOL_GAUGES {
        gauge!(*name, bus.of_pool(id)).set(pool.map_or(0, get) as f64);
    }
    for (state, get) in STATES {
        gauge!(POOL_WORKERS, labelled("state", state)).set(pool.map_or(0, get) as f64);
    }
    for (quantile, get) in QUANTILES {
        let time = pool.map_or(Duration::ZERO, get).as_secs_f64();
        gauge!(POOL_LATENCY, labelled("quantile", quantile)).set(time);
    }
}

fn set_worker(
    bus: Bus<'_>,
    pool: &str,
    worker: usize,
    value: impl Fn(fn(&WorkerInfo) -> u64) -> u64,
) {
    for (name, .., get) in WORKER_GAUGES {
        gauge!(*name, bus.of_worker(pool, worker)).set(value(*get) as f64);
    }
}
