//! How figures are printed: columns for people, an object a line for programs.

use std::time::Duration;

use serde_json::{Value, json};

use super::measure::Figures;
use super::scenarios::{Idle, Lifecycle};

/// What a row is for.
#[derive(Debug)]
pub(super) enum Row {
    Latency(Figures),
    Idle(Idle),
    Lifecycle(Lifecycle),
}

impl Row {
    /// Whether it is what was asked for, and nothing is missing.
    pub(super) fn is_ok(&self) -> bool {
        match self {
            Self::Latency(figures) => figures.is_complete(),
            Self::Idle(_) => true,
            Self::Lifecycle(life) => life.failed == 0 && life.lost == 0,
        }
    }

    /// What went wrong, for the user.
    pub(super) fn problem(&self) -> Option<String> {
        let (failed, lost, first) = match self {
            Self::Latency(row) => {
                let first = row.problem.as_ref().map(|problem| problem.text());
                (row.failed, row.lost, first)
            }
            Self::Idle(_) => return None,
            Self::Lifecycle(row) => (row.failed, row.lost, row.problem.as_deref()),
        };
        if failed == 0 && lost == 0 {
            let none = !self.is_ok();
            return none
                .then(|| "no answer came in the time that was measured: raise --secs".into());
        }
        let first = first.unwrap_or("no reason is known");
        Some(format!("{failed} failed, {lost} lost; the first: {first}"))
    }

    pub(super) fn json(&self, interrupted: bool) -> Value {
        let note = match interrupted {
            true => "interrupted".to_owned(),
            false => self.problem().unwrap_or_default(),
        };
        let mut row = match self {
            Self::Latency(row) => latency_json(row),
            Self::Idle(row) => idle_json(row),
            Self::Lifecycle(row) => lifecycle_json(row),
        };
        row["ok"] = json!(self.is_ok());
        row["note"] = json!(note);
        row
    }

    /// The names of the columns.
    pub(super) fn heading(&self) -> String {
        let names = self.columns().iter().map(|(name, _)| (*name).to_owned());
        self.aligned(&names.collect::<Vec<_>>())
    }

    pub(super) fn line(&self) -> String {
        self.aligned(&match self {
            Self::Latency(row) => latency_cells(row),
            Self::Idle(row) => idle_cells(row),
            Self::Lifecycle(row) => lifecycle_cells(row),
        })
    }

    fn columns(&self) -> &'static [(&'static str, usize)] {
        match self {
            Self::Latency(_) => LATENCY,
            Self::Idle(_) => IDLE,
            Self::Lifecycle(_) => LIFECYCLE,
        }
    }

    /// The first to the left, the others to the right, but for what has no width.
    fn aligned(&self, cells: &[String]) -> String {
        let mut line = String::new();
        for (cell, (name, width)) in cells.iter().zip(self.columns()) {
            line += &match (*name, *width) {
                ("client", width) => format!("{cell:<width$}"),
                (_, 0) => format!("  {cell}"),
                (_, width) => format!(" {cell:>width$}"),
            };
        }
        line
    }
}

/// The columns and their widths.
const LATENCY: &[(&str, usize)] = &[
    ("client", 8),
    ("in flight", 9),
    ("answers/s", 10),
    ("MB/s", 7),
    ("p50 µs", 9),
    ("p99 µs", 9),
    ("p99.9 µs", 9),
    ("CPU s/1M", 9),
    ("peak MB", 7),
    ("problems", 0),
];
const IDLE: &[(&str, usize)] = &[
    ("client", 8),
    ("CPU %", 7),
    ("wakeups/s", 9),
    ("peak MB", 7),
];
const LIFECYCLE: &[(&str, usize)] = &[
    ("client", 8),
    ("workers", 7),
    ("started ms", 10),
    ("all answered ms", 15),
    ("stopped ms", 10),
    ("peak MB", 7),
    ("problems", 0),
];

/// A row that there isn't.
pub(super) fn failure(why: &str) -> Value {
    json!({"ok": false, "n": 0, "err": 1, "lost": 0, "note": why})
}

fn latency_json(row: &Figures) -> Value {
    let latencies = &row.latencies;
    json!({
        "client": row.client.name(),
        "inflight": row.inflight,
        "n": latencies.n,
        "secs": rounded(row.time.as_secs_f64(), 4),
        "rate": rounded(row.rate(), 1),
        "mbs": rounded(row.megabytes(), 2),
        "p50": micros(latencies.p50),
        "p99": micros(latencies.p99),
        "p999": micros(latencies.p999),
        "max": micros(latencies.max),
        "cpu_bus": row.cpu_per_million().map(|cpu| rounded(cpu, 4)),
        "hwm_kb": row.memory.peak,
        "rss_kb": row.memory.now,
        "prime_n": row.primed,
        "start_ms": millis(row.start),
        "err": row.failed,
        "lost": row.lost,
    })
}

fn idle_json(row: &Idle) -> Value {
    json!({
        "client": row.client.name(),
        "idle_pct": idle_percent(row).map(|percent| rounded(percent, 3)),
        "wakeups": row.wakeups,
        "secs": rounded(row.time.as_secs_f64(), 4),
        "hwm_kb": row.memory.peak,
        "rss_kb": row.memory.now,
        "start_ms": millis(row.start),
    })
}

fn lifecycle_json(row: &Lifecycle) -> Value {
    json!({
        "client": row.client.name(),
        "workers": row.workers,
        "start_ms": millis(row.start),
        "ready_ms": millis(row.ready),
        "stop_ms": millis(row.stop),
        "hwm_kb": row.memory.peak,
        "rss_kb": row.memory.now,
        "err": row.failed,
        "lost": row.lost,
    })
}

fn latency_cells(row: &Figures) -> Vec<String> {
    let latencies = &row.latencies;
    let latency = |latency: Duration| match latencies.n {
        0 => "-".into(),
        _ => number(latency.as_secs_f64() * 1e6, 1),
    };
    vec![
        row.client.name().into(),
        row.inflight.to_string(),
        number(row.rate(), 0),
        number(row.megabytes(), 1),
        latency(latencies.p50),
        latency(latencies.p99),
        latency(latencies.p999),
        row.cpu_per_million()
            .map_or("-".into(), |cpu| number(cpu, 2)),
        peak(row.memory.peak),
        problems(row.failed, row.lost),
    ]
}

fn idle_cells(row: &Idle) -> Vec<String> {
    let a_second = |wakeups: u64| number(wakeups as f64 / row.time.as_secs_f64(), 1);
    vec![
        row.client.name().into(),
        idle_percent(row).map_or("-".into(), |percent| number(percent, 3)),
        row.wakeups.map_or("-".into(), a_second),
        peak(row.memory.peak),
    ]
}

fn lifecycle_cells(row: &Lifecycle) -> Vec<String> {
    let millis = |time: Duration| number(time.as_secs_f64() * 1e3, 1);
    vec![
        row.client.name().into(),
        row.workers.to_string(),
        millis(row.start),
        millis(row.ready),
        millis(row.stop),
        peak(row.memory.peak),
        problems(row.failed, row.lost),
    ]
}

fn idle_percent(row: &Idle) -> Option<f64> {
    Some(row.cpu?.as_secs_f64() / row.time.as_secs_f64() * 100.0)
}

fn problems(failed: u64, lost: u64) -> String {
    match (failed, lost) {
        (0, 0) => "-".into(),
        (failed, 0) => format!("{failed} failed"),
        (0, lost) => format!("{lost} lost"),
        (failed, lost) => format!("{failed} failed, {lost} lost"),
    }
}

fn peak(kib: Option<u64>) -> String {
    kib.map_or("-".into(), |kib| number(kib as f64 / 1024.0, 1))
}

/// With commas between thousands; digits after the point for what is small.
fn number(value: f64, digits: usize) -> String {
    let text = match value {
        1000.0.. => format!("{value:.0}"),
        _ => return format!("{value:.digits$}"),
    };
    let mut out = String::new();
    for (n, digit) in text.chars().enumerate() {
        if n > 0 && (text.len() - n).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

fn rounded(value: f64, digits: i32) -> f64 {
    let scale = 10f64.powi(digits);
    (value * scale).round() / scale
}

fn micros(time: Duration) -> f64 {
    rounded(time.as_secs_f64() * 1e6, 2)
}

fn millis(time: Duration) -> f64 {
    rounded(time.as_secs_f64() * 1e3, 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_as_people_read_them() {
        assert_eq!(number(0.456, 2), "0.46");
        assert_eq!(number(999.04, 1), "999.0");
        assert_eq!(number(1234.6, 1), "1,235");
        assert_eq!(number(1_234_567.0, 0), "1,234,567");
    }
}
