//! What a bus tells through its admin socket. What an older one doesn't tell is as
//! if it were nothing.

use serde::Deserialize;

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Snapshot {
    pub(super) version: String,
    pub(super) pid: u32,
    pub(super) state: String,
    pub(super) uptime_ms: u64,
    pub(super) listeners: Vec<String>,
    pub(super) clients: Option<u64>,
    pub(super) stats: Stats,
    pub(super) pools: Vec<Pool>,
    pub(super) workers: Vec<Worker>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Stats {
    pub(super) messages_in: u64,
    pub(super) messages_out: u64,
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
    pub(super) routing_errors: u64,
    pub(super) parse_errors: u64,
    pub(super) worker_garbage: u64,
    pub(super) oversize_frames: u64,
    pub(super) dropped_frames: u64,
    pub(super) unattributed_frames: u64,
    pub(super) late_answers: u64,
    pub(super) overload_refusals: u64,
    pub(super) unauthorized_clients: u64,
    pub(super) pending: u64,
    pub(super) queued: u64,
    pub(super) sessions: u64,
    pub(super) outbox_bytes: u64,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Pool {
    pub(super) id: String,
    pub(super) workers: u64,
    pub(super) ready: u64,
    pub(super) starting: u64,
    pub(super) stopping: u64,
    pub(super) backoff: u64,
    pub(super) failed: u64,
    pub(super) pending: u64,
    pub(super) queued: u64,
    pub(super) sessions: u64,
    pub(super) requests: u64,
    pub(super) restarts: u64,
    pub(super) latency: Latency,
}

/// In microseconds.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Latency {
    pub(super) count: u64,
    pub(super) p50: u64,
    pub(super) p99: u64,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Worker {
    pub(super) id: u64,
    pub(super) pool: String,
    pub(super) pid: Option<u32>,
    pub(super) state: String,
    pub(super) restarts: u64,
    pub(super) pending: u64,
    pub(super) uptime_ms: u64,
    /// Of the worker that was asked for.
    pub(super) stderr: Vec<String>,
}
