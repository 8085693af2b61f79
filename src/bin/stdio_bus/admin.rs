//! `--admin`: what the bus is doing, for whoever asks, on a Unix socket of its own, for this
//! user and root only.
//!
//! The socket is that of a second, small bus, whose one worker is a function of
//! this process: so it is opened, guarded and cleaned up like any other.

use std::path::Path;
use std::time::Instant;

use serde_json::{Value, json};
use stdiobus::{
    Latency, Listen, PoolConfig, PoolInfo, RpcError, ServiceCall, Stats, StdioBus, WeakBus,
    WorkerGuard, WorkerInfo,
};

use crate::log::Log;

/// The one method there is. Its params may have `stderr`, the number of lines of
/// each worker's stderr that are wanted, and `worker`, the only one whose are.
pub(crate) const SNAPSHOT: &str = "snapshot";

const POOL: &str = "admin";

/// More lines of a worker's stderr than this are not given.
const MAX_STDERR: u64 = 200;

/// The socket, where it is wanted.
pub(crate) struct Admin {
    open: Option<(StdioBus, WorkerGuard)>,
}

impl Admin {
    /// Serves from now on. The error is for the user.
    pub(crate) async fn open(at: Option<&Path>, bus: &StdioBus) -> Result<Self, String> {
        let Some(path) = at else {
            return Ok(Self { open: None });
        };
        let failed = |error: stdiobus::Error| format!("--admin: {error}");
        let (started, watched) = (Instant::now(), bus.downgrade());
        let admin = StdioBus::builder()
            .name(POOL)
            .pool(PoolConfig::in_process(POOL))
            .listen(Listen::unix(path))
            .build()
            .map_err(failed)?;
        admin.start().await.map_err(failed)?;
        let serve = move |call| snapshot(call, watched.clone(), started);
        let worker = admin.register_worker(POOL, serve).await.map_err(failed)?;
        Ok(Self {
            open: Some((admin, worker)),
        })
    }

    pub(crate) fn announce(&self, log: &Log) {
        for address in self.open.iter().flat_map(|(bus, _)| bus.listen_addrs()) {
            log.info(format_args!("admin on {address}"));
        }
    }

    /// Takes the socket away.
    pub(crate) async fn close(self) {
        if let Some((bus, worker)) = self.open {
            drop(worker);
            // A stop has no errors to tell of.
            let _ = bus.stop().await;
        }
    }
}

async fn snapshot(call: ServiceCall, bus: WeakBus, started: Instant) -> Result<Value, RpcError> {
    if call.method() != SNAPSHOT {
        return Err(RpcError::method_not_found(call.method()));
    }
    let bus = bus
        .upgrade()
        .ok_or_else(|| RpcError::internal("the bus is gone"))?;
    let lines = call.params()["stderr"]
        .as_u64()
        .unwrap_or(0)
        .min(MAX_STDERR);
    let only = call.params()["worker"].as_u64();
    let (stats, pools, workers) = (bus.stats().await?, bus.pools().await?, bus.workers().await?);
    let listeners: Vec<_> = bus.listen_addrs().iter().map(ToString::to_string).collect();
    let mut described = Vec::with_capacity(workers.len());
    for worker in &workers {
        let wanted = only.is_none_or(|only| only == worker.id as u64);
        let stderr = match lines {
            0 => Vec::new(),
            _ if !wanted => Vec::new(),
            // It may be gone by now.
            lines => bus
                .worker_stderr_tail(worker.id, lines as usize)
                .await
                .unwrap_or_default(),
        };
        described.push(describe_worker(worker, &stderr));
    }
    Ok(json!({
        "version": stdiobus::version(),
        "pid": std::process::id(),
        "state": bus.state().to_string(),
        "uptimeMs": millis(started.elapsed()),
        "listeners": listeners,
        "clients": bus.client_count(),
        "stats": describe_stats(&stats),
        "pools": pools.iter().map(describe_pool).collect::<Vec<_>>(),
        "workers": described,
    }))
}

fn describe_stats(stats: &Stats) -> Value {
    json!({
        "messagesIn": stats.messages_in,
        "messagesOut": stats.messages_out,
        "bytesIn": stats.bytes_in,
        "bytesOut": stats.bytes_out,
        "workerRestarts": stats.worker_restarts,
        "routingErrors": stats.routing_errors,
        "clientConnects": stats.client_connects,
        "clientDisconnects": stats.client_disconnects,
        "parseErrors": stats.parse_errors,
        "workerGarbage": stats.worker_garbage,
        "oversizeFrames": stats.oversize_frames,
        "droppedFrames": stats.dropped_frames,
        "unattributedFrames": stats.unattributed_frames,
        "lateAnswers": stats.late_answers,
        "overloadRefusals": stats.overload_refusals,
        "unauthorizedClients": stats.unauthorized_clients,
        "pending": stats.pending,
        "queued": stats.queued_requests,
        "sessions": stats.sessions,
        "outboxBytes": stats.outbox_bytes,
        "tombstones": stats.tombstones,
    })
}

fn describe_pool(pool: &PoolInfo) -> Value {
    json!({
        "id": pool.id,
        "workers": pool.workers,
        "ready": pool.ready,
        "starting": pool.starting,
        "stopping": pool.stopping,
        "backoff": pool.backoff,
        "failed": pool.failed,
        "pending": pool.pending,
        "queued": pool.queued,
        "sessions": pool.sessions,
        "requests": pool.requests,
        "restarts": pool.restarts,
        "outboxBytes": pool.outbox_bytes,
        "latency": describe_latency(&pool.latency),
    })
}

/// Times in microseconds.
fn describe_latency(latency: &Latency) -> Value {
    let micros = |time: std::time::Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    json!({
        "count": latency.count,
        "p50": micros(latency.p50),
        "p90": micros(latency.p90),
        "p99": micros(latency.p99),
        "max": micros(latency.max),
    })
}

fn describe_worker(worker: &WorkerInfo, stderr: &[String]) -> Value {
    json!({
        "id": worker.id,
        "pool": worker.pool,
        "pid": worker.pid,
        "state": format!("{:?}", worker.state).to_lowercase(),
        "generation": worker.generation,
        "restarts": worker.restarts,
        "pending": worker.pending,
        "uptimeMs": millis(worker.uptime),
        "stderr": stderr,
    })
}

fn millis(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
