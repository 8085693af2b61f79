//! What isn't about latency: a bus that has nothing to do, and one that starts
//! and stops.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::args::{BenchArgs, Client};
use super::bus::Bus;
use super::load::Load;
use super::measure::ended;
use super::usage::{self, Memory};
use super::work::Work;

#[derive(Debug)]
pub(super) struct Idle {
    pub(super) client: Client,
    pub(super) start: Duration,
    pub(super) time: Duration,
    pub(super) cpu: Option<Duration>,
    pub(super) wakeups: Option<u64>,
    pub(super) memory: Memory,
}

/// What a bus costs that nobody asks anything. The error is for the user.
pub(super) async fn idle(
    args: &BenchArgs,
    client: Client,
    interrupted: impl Future<Output = ()>,
) -> Result<Idle, String> {
    usage::forget_peak();
    let begun = Instant::now();
    let bus = Bus::start(args, client).await?;
    let start = begun.elapsed();
    let mut interrupted = std::pin::pin!(interrupted);
    tokio::select! {
        () = sleep(args.warm) => {}
        () = interrupted.as_mut() => {}
    }
    let (cpu, sleeps, begun) = (usage::cpu(), usage::sleeps(), Instant::now());
    tokio::select! {
        () = sleep(args.secs) => {}
        () = interrupted => {}
    }
    let idle = Idle {
        client,
        start,
        time: begun.elapsed(),
        cpu: usage::since(cpu),
        // Threads may have ended meanwhile.
        wakeups: usage::sleeps()
            .zip(sleeps)
            .map(|(after, before)| after.saturating_sub(before)),
        memory: usage::memory(),
    };
    bus.stop().await;
    Ok(idle)
}

#[derive(Debug)]
pub(super) struct Lifecycle {
    pub(super) client: Client,
    pub(super) workers: u32,
    pub(super) start: Duration,
    /// From the start on.
    pub(super) ready: Duration,
    pub(super) stop: Duration,
    pub(super) memory: Memory,
    pub(super) failed: u64,
    pub(super) lost: u64,
    pub(super) problem: Option<String>,
}

/// Starts a bus, asks as many sessions as it has workers, and stops it. The error
/// is for the user.
pub(super) async fn lifecycle(args: &BenchArgs, client: Client) -> Result<Lifecycle, String> {
    usage::forget_peak();
    let begun = Instant::now();
    let bus = Bus::start(args, client).await?;
    let start = begun.elapsed();
    let workers = bus.workers().unwrap_or(args.workers).max(1);
    let work = Work::new(args).over(workers.into());
    let load = Arc::new(Load::once(work, workers));
    match bus.ask(args, &load).await {
        Ok(asking) => ended(asking).await,
        Err(error) => load.failed(error),
    }
    let ready = begun.elapsed();
    let memory = usage::memory();
    let stopping = Instant::now();
    bus.stop().await;
    let (failed, lost, problem) = load.problems();
    Ok(Lifecycle {
        client,
        workers,
        start,
        ready,
        stop: stopping.elapsed(),
        memory,
        failed,
        lost,
        problem: problem.map(|problem| problem.text().to_owned()),
    })
}
