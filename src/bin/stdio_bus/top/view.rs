//! From what a bus tells to what is seen of it: text in rows, with rates, and
//! whether it is as it should be.

use super::format::{bytes, clean, duration, micros, rate, width};
use super::snapshot::{Pool, Snapshot, Stats, Worker};

/// How something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    Good,
    /// On its way, or short of something.
    Poor,
    Bad,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) cells: Vec<String>,
    pub(super) tone: Tone,
}

/// Rows below a heading; the columns `left` are text, the others figures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Table {
    pub(super) heading: &'static [&'static str],
    pub(super) left: &'static [usize],
    pub(super) rows: Vec<Row>,
}

impl Table {
    /// How wide each column has to be.
    pub(super) fn widths(&self) -> Vec<usize> {
        let widest = |(column, heading): (usize, &&str)| {
            let cells = self.rows.iter().filter_map(|row| row.cells.get(column));
            let widths = cells.map(|cell| width(cell));
            widths.max().unwrap_or(0).max(heading.len())
        };
        self.heading.iter().enumerate().map(widest).collect()
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct View {
    /// Lines about the bus as a whole.
    pub(super) header: Vec<String>,
    pub(super) tone: Tone,
    /// What was lost or refused so far, where it was anything.
    pub(super) losses: Vec<String>,
    pub(super) pools: Table,
    pub(super) workers: Table,
    /// Their numbers, row by row.
    pub(super) worker_ids: Vec<u64>,
}

const POOLS: &[&str] = &[
    "POOL", "READY", "PENDING", "QUEUED", "SESSIONS", "REQ/S", "P50", "P99", "RESTARTS", "OTHERS",
];

const WORKERS: &[&str] = &[
    "WORKER", "POOL", "PID", "STATE", "UPTIME", "RESTARTS", "PENDING",
];

impl View {
    /// With rates over the time since `before`.
    pub(super) fn new(now: &Snapshot, before: Option<&Snapshot>) -> Self {
        let past = Past::of(now, before);
        let pools = now.pools.iter().map(|pool| pool_row(pool, &past));
        Self {
            header: header(now, &past),
            tone: match now.state.as_str() {
                "RUNNING" => Tone::Good,
                "STOPPED" => Tone::Bad,
                _ => Tone::Poor,
            },
            losses: losses(&now.stats),
            pools: Table {
                heading: POOLS,
                left: &[0, 9],
                rows: pools.collect(),
            },
            workers: Table {
                heading: WORKERS,
                left: &[1, 3],
                rows: now.workers.iter().map(worker_row).collect(),
            },
            worker_ids: now.workers.iter().map(|worker| worker.id).collect(),
        }
    }
}

/// The snapshot that rates are counted from, and how long ago it was.
struct Past<'a>(Option<(&'a Snapshot, f64)>);

impl<'a> Past<'a> {
    /// None of a bus that has been started anew since.
    fn of(now: &Snapshot, before: Option<&'a Snapshot>) -> Self {
        let before = before.filter(|before| before.pid == now.pid);
        let timed = before.and_then(|before| {
            let ms = now.uptime_ms.checked_sub(before.uptime_ms)?;
            (ms > 0).then_some((before, ms as f64 / 1_000.0))
        });
        Self(timed)
    }

    /// By how much a counter has grown in a second. Unknown of one that was not
    /// there, or has been started anew.
    fn rate(&self, now: u64, before: impl Fn(&Snapshot) -> Option<u64>) -> Option<f64> {
        let (snapshot, seconds) = self.0?;
        let more = now.checked_sub(before(snapshot)?)?;
        Some(more as f64 / seconds)
    }

    fn of_stats(&self, now: &Stats, get: impl Fn(&Stats) -> u64) -> Option<f64> {
        self.rate(get(now), |before| Some(get(&before.stats)))
    }
}

fn header(now: &Snapshot, past: &Past<'_>) -> Vec<String> {
    let stats = &now.stats;
    let per_second = |get: fn(&Stats) -> u64| rate(past.of_stats(stats, get));
    let bytes_per_second = |get: fn(&Stats) -> u64| {
        let value = past.of_stats(stats, get);
        value.map_or_else(|| "-".into(), bytes)
    };
    let listeners = match &now.listeners[..] {
        [] => "no listeners".into(),
        listeners => format!("listening on {}", clean(&listeners.join(", "))),
    };
    let clients = now.clients.map_or_else(|| "-".into(), |n| n.to_string());
    vec![
        format!(
            "stdio_bus {}  pid {}  {}  up {}",
            clean(&now.version),
            now.pid,
            clean(&now.state),
            duration(now.uptime_ms)
        ),
        format!("clients {clients}  {listeners}"),
        format!(
            "in {}/s {}/s  out {}/s {}/s  pending {}  queued {}  sessions {}  outbox {}",
            per_second(|s| s.messages_in),
            bytes_per_second(|s| s.bytes_in),
            per_second(|s| s.messages_out),
            bytes_per_second(|s| s.bytes_out),
            stats.pending,
            stats.queued,
            stats.sessions,
            bytes(stats.outbox_bytes as f64),
        ),
    ]
}

fn losses(stats: &Stats) -> Vec<String> {
    let counts = [
        ("dropped", stats.dropped_frames),
        ("overload refusals", stats.overload_refusals),
        ("unroutable", stats.routing_errors),
        ("unattributed", stats.unattributed_frames),
        ("late answers", stats.late_answers),
        ("oversize", stats.oversize_frames),
        ("parse errors", stats.parse_errors),
        ("worker garbage", stats.worker_garbage),
        ("unauthorized", stats.unauthorized_clients),
    ];
    let lost = counts.iter().filter(|(_, count)| *count > 0);
    lost.map(|(what, count)| format!("{what} {count}"))
        .collect()
}

fn pool_row(pool: &Pool, past: &Past<'_>) -> Row {
    let requests = past.rate(pool.requests, |before| {
        let same = before.pools.iter().find(|other| other.id == pool.id);
        same.map(|other| other.requests)
    });
    let time = |us| match pool.latency.count {
        0 => "-".into(),
        _ => micros(us),
    };
    let tone = match pool {
        pool if pool.failed > 0 || (pool.workers > 0 && pool.ready == 0) => Tone::Bad,
        pool if pool.ready < pool.workers || pool.queued > 0 => Tone::Poor,
        _ => Tone::Good,
    };
    let cells = vec![
        clean(&pool.id),
        format!("{}/{}", pool.ready, pool.workers),
        pool.pending.to_string(),
        pool.queued.to_string(),
        pool.sessions.to_string(),
        rate(requests),
        time(pool.latency.p50),
        time(pool.latency.p99),
        pool.restarts.to_string(),
        not_ready(pool),
    ];
    Row { cells, tone }
}

/// Workers that are neither ready nor at rest, by what they are.
fn not_ready(pool: &Pool) -> String {
    let states = [
        ("starting", pool.starting),
        ("stopping", pool.stopping),
        ("backoff", pool.backoff),
        ("failed", pool.failed),
    ];
    let some = states.iter().filter(|(_, count)| *count > 0);
    let some: Vec<_> = some
        .map(|(state, count)| format!("{count} {state}"))
        .collect();
    some.join(" ")
}

fn worker_row(worker: &Worker) -> Row {
    let tone = match worker.state.as_str() {
        "ready" => Tone::Good,
        "failed" => Tone::Bad,
        _ => Tone::Poor,
    };
    let cells = vec![
        worker.id.to_string(),
        clean(&worker.pool),
        worker.pid.map_or_else(|| "-".into(), |pid| pid.to_string()),
        clean(&worker.state),
        duration(worker.uptime_ms),
        worker.restarts.to_string(),
        worker.pending.to_string(),
    ];
    Row { cells, tone }
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;

    /// A bus with two pools, one of them in trouble.
    pub(in super::super) fn example() -> Snapshot {
        serde_json::from_value(json!({
            "version": "0.1.0", "pid": 42, "state": "RUNNING", "uptimeMs": 65_000,
            "listeners": ["/run/bus.sock", "127.0.0.1:4711"], "clients": 3,
            "stats": {"messagesIn": 300, "messagesOut": 290, "bytesIn": 60_000, "bytesOut": 3_000,
                "pending": 7, "queued": 2, "sessions": 5, "droppedFrames": 4, "lateAnswers": 1},
            "pools": [
                {"id": "tools", "workers": 2, "ready": 2, "pending": 5, "sessions": 5, "requests": 250,
                    "latency": {"count": 245, "p50": 350, "p90": 400, "p99": 12_500, "max": 20_000}},
                {"id": "agents", "workers": 2, "ready": 1, "backoff": 1, "pending": 2, "queued": 2, "restarts": 9},
            ],
            "workers": [
                {"id": 0, "pool": "tools", "pid": 100, "state": "ready", "pending": 5, "uptimeMs": 64_000},
                {"id": 1, "pool": "tools", "pid": 101, "state": "ready", "uptimeMs": 64_000},
                {"id": 2, "pool": "agents", "pid": 102, "state": "ready", "pending": 2, "uptimeMs": 3_000, "restarts": 2},
                {"id": 3, "pool": "agents", "pid": null, "state": "backoff", "restarts": 7},
            ],
        }))
        .expect("a snapshot")
    }

    /// The same bus two seconds before.
    pub(in super::super) fn earlier() -> Snapshot {
        let mut before = example();
        before.uptime_ms -= 2_000;
        before.stats.messages_in = 100;
        before.stats.messages_out = 90;
        before.stats.bytes_in = 20_000;
        before.stats.bytes_out = 3_000;
        before.pools[0].requests = 50;
        before
    }

    #[test]
    fn rates_are_over_the_time_between_two_snapshots() {
        let view = View::new(&example(), Some(&earlier()));
        let totals = &view.header[2];
        assert!(
            totals.starts_with("in 100/s 20.0kB/s  out 100/s 0B/s"),
            "{totals}"
        );
        assert_eq!(view.pools.rows[0].cells[5], "100");
        assert_eq!(view.pools.rows[1].cells[5], "0");
    }

    #[test]
    fn what_can_not_be_compared_has_no_rate() {
        let (now, before) = (example(), earlier());
        let mut other = before.clone();
        other.pid = 41;
        let mut same_time = before.clone();
        same_time.uptime_ms = now.uptime_ms;
        let mut later = before.clone();
        later.uptime_ms = now.uptime_ms + 1;
        for before in [None, Some(&other), Some(&same_time), Some(&later)] {
            let view = View::new(&now, before);
            assert!(view.header[2].starts_with("in -/s -/s  out -/s -/s"));
            assert_eq!(view.pools.rows[0].cells[5], "-");
        }
        // A pool that is new, or has been replaced.
        let mut changed = before;
        changed.pools[0].requests = 251;
        changed.pools[1].id = "gone".into();
        let view = View::new(&now, Some(&changed));
        let rates = view.pools.rows.iter().map(|row| row.cells[5].as_str());
        assert_eq!(rates.collect::<Vec<_>>(), ["-", "-"]);
        assert!(view.header[2].starts_with("in 100/s"));
    }

    #[test]
    fn a_pool_and_a_worker_are_a_row_each() {
        let view = View::new(&example(), None);
        assert_eq!(
            view.pools.rows[0].cells,
            [
                "tools", "2/2", "5", "0", "5", "-", "350us", "12.5ms", "0", ""
            ]
        );
        assert_eq!(
            view.pools.rows[1].cells,
            [
                "agents",
                "1/2",
                "2",
                "2",
                "0",
                "-",
                "-",
                "-",
                "9",
                "1 backoff"
            ]
        );
        assert_eq!(
            view.workers.rows[2].cells,
            ["2", "agents", "102", "ready", "3s", "2", "2"]
        );
        assert_eq!(
            view.workers.rows[3].cells,
            ["3", "agents", "-", "backoff", "0s", "7", "0"]
        );
        assert_eq!(view.worker_ids, [0, 1, 2, 3]);
        for table in [&view.pools, &view.workers] {
            assert!(
                table
                    .rows
                    .iter()
                    .all(|row| row.cells.len() == table.heading.len())
            );
        }
    }

    #[test]
    fn what_is_not_as_it_should_be_shows() {
        let view = View::new(&example(), None);
        let tones =
            |table: &Table| -> Vec<Tone> { table.rows.iter().map(|row| row.tone).collect() };
        assert_eq!(tones(&view.pools), [Tone::Good, Tone::Poor]);
        assert_eq!(
            tones(&view.workers)[1..],
            [Tone::Good, Tone::Good, Tone::Poor]
        );
        assert_eq!(view.tone, Tone::Good);

        let mut worse = example();
        worse.state = "STOPPING".into();
        (worse.pools[0].ready, worse.pools[1].failed) = (0, 1);
        worse.workers[3].state = "failed".into();
        let view = View::new(&worse, None);
        assert_eq!(tones(&view.pools), [Tone::Bad, Tone::Bad]);
        assert_eq!(tones(&view.workers)[3], Tone::Bad);
        assert_eq!(view.tone, Tone::Poor);

        // Nothing is missing from a pool of nothing.
        let mut empty = example();
        (empty.pools[0].ready, empty.pools[0].workers) = (0, 0);
        assert_eq!(View::new(&empty, None).pools.rows[0].tone, Tone::Good);
    }

    #[test]
    fn losses_are_told_where_there_are_any() {
        assert_eq!(
            View::new(&example(), None).losses,
            ["dropped 4", "late answers 1"]
        );
        let mut none = example();
        none.stats = Stats::default();
        assert!(View::new(&none, None).losses.is_empty());
    }

    #[test]
    fn a_snapshot_that_lacks_most_is_shown_with_what_it_has() {
        let bare: Snapshot = serde_json::from_value(
            json!({"pid": 1, "clients": null, "pools": [{"id": "p\u{1b}[2J"}], "new": {}}),
        )
        .expect("a snapshot");
        let view = View::new(&bare, None);
        assert_eq!(view.pools.rows[0].cells[0], "p");
        assert!(view.header[1].starts_with("clients -  no listeners"));
    }
}
