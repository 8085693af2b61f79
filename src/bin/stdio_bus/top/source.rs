//! Where snapshots come from.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;
use stdiobus::{BackendMode, RemoteOptions, StdioBus};
use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;

use super::snapshot::Snapshot;
use crate::admin::SNAPSHOT;

/// How long the bus may take to connect and to answer.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Lines of stderr that are asked for: more than a screen has.
const STDERR_LINES: u32 = 100;

/// A connection, made when it is needed.
pub(super) struct Source {
    path: PathBuf,
    bus: Option<StdioBus>,
}

impl Source {
    pub(super) fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            bus: None,
        }
    }

    /// Asks the bus, with the end of the stderr of this worker. The error is for the
    /// user, and the next call connects anew.
    pub(super) async fn snapshot(&mut self, worker: Option<u64>) -> Result<Snapshot, String> {
        let asked = self.ask(worker).await;
        if asked.is_err() {
            self.bus = None;
        }
        asked.map_err(|e| format!("--admin {}: {e}", self.path.display()))
    }

    async fn ask(&mut self, worker: Option<u64>) -> Result<Snapshot, String> {
        let bus = match self.bus.take() {
            Some(bus) => bus,
            None => connect(&self.path).await.map_err(|e| e.to_string())?,
        };
        let params = match worker {
            Some(worker) => json!({"stderr": STDERR_LINES, "worker": worker}),
            None => json!({}),
        };
        let answer = bus.request(SNAPSHOT, params).await;
        let snapshot = serde_json::from_value(answer.map_err(|e| e.to_string())?);
        self.bus = Some(bus);
        match snapshot {
            Ok(Snapshot { pid: 0, .. }) => Err("the answer is no snapshot of a bus".into()),
            Ok(snapshot) => Ok(snapshot),
            Err(error) => Err(format!("the answer is no snapshot of a bus: {error}")),
        }
    }
}

async fn connect(path: &Path) -> stdiobus::Result<StdioBus> {
    let options = RemoteOptions::unix(path).connect_timeout(TIMEOUT);
    let bus = StdioBus::builder()
        .backend(BackendMode::Remote(options))
        .timeout(TIMEOUT)
        .build()?;
    bus.start().await?;
    Ok(bus)
}

/// What there is to be seen.
#[derive(Debug)]
pub(super) enum Update {
    Snapshot(Box<Snapshot>),
    /// The end of a worker's stderr, which somebody can't wait for.
    Stderr(u64, Vec<String>),
    Lost(String),
}

/// Asks at each interval, and for another worker's stderr as soon as that is
/// `wanted`, as long as somebody takes it.
pub(super) async fn follow(
    mut source: Source,
    interval: Duration,
    mut wanted: watch::Receiver<Option<u64>>,
    updates: mpsc::Sender<Update>,
) {
    let mut ticks = tokio::time::interval(interval);
    // After a bus that didn't answer, none is made up for.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let due = tokio::select! {
            _ = ticks.tick() => true,
            changed = wanted.changed() => match changed {
                Ok(()) => false,
                Err(_) => return,
            },
        };
        let worker = *wanted.borrow_and_update();
        let update = match (source.snapshot(worker).await, worker) {
            (Err(reason), _) => Update::Lost(reason),
            (Ok(snapshot), Some(worker)) if !due => stderr_of(snapshot, worker),
            (Ok(snapshot), _) => Update::Snapshot(Box::new(snapshot)),
        };
        if updates.send(update).await.is_err() {
            return;
        }
    }
}

/// Rates need the whole interval, so the rest of the snapshot isn't shown.
fn stderr_of(snapshot: Snapshot, worker: u64) -> Update {
    let mut workers = snapshot.workers.into_iter();
    let found = workers.find(|other| other.id == worker);
    Update::Stderr(worker, found.unwrap_or_default().stderr)
}
