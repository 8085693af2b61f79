//! One row: how fast a bus answers, what that costs, and what went wrong.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::args::{BenchArgs, Client};
use super::bus::{Bus, Held};
use super::histogram::Percentiles;
use super::load::{Load, Problem};
use super::usage::{self, Memory};
use super::work::Work;

/// How long sessions may take to be used once.
const PRIME: Duration = Duration::from_secs(3);

#[derive(Debug)]
pub(super) struct Figures {
    pub(super) client: Client,
    pub(super) inflight: u32,
    /// Bytes of a request.
    pub(super) size: usize,
    /// How long was measured.
    pub(super) time: Duration,
    pub(super) latencies: Percentiles,
    /// In that time; `None` where the bus isn't in this process.
    pub(super) cpu: Option<Duration>,
    pub(super) memory: Memory,
    /// How long the bus took to start.
    pub(super) start: Duration,
    /// Sessions that had been used before.
    pub(super) primed: u64,
    pub(super) failed: u64,
    pub(super) lost: u64,
    pub(super) problem: Option<Problem>,
}

impl Figures {
    pub(super) fn rate(&self) -> f64 {
        self.latencies.n as f64 / self.time.as_secs_f64()
    }

    /// Millions of bytes of requests in a second.
    pub(super) fn megabytes(&self) -> f64 {
        self.rate() * self.size as f64 / 1e6
    }

    /// CPU seconds for a million answers.
    pub(super) fn cpu_per_million(&self) -> Option<f64> {
        let n = Some(self.latencies.n).filter(|n| *n > 0)?;
        Some(self.cpu?.as_secs_f64() / n as f64 * 1e6)
    }

    /// Whether there were answers, and nothing else.
    pub(super) fn is_complete(&self) -> bool {
        self.latencies.n > 0 && self.failed == 0 && self.lost == 0
    }
}

/// Measures for as long as was asked for, or until `interrupted` ends. The error is
/// for the user.
pub(super) async fn latency(
    args: &BenchArgs,
    client: Client,
    inflight: u32,
    interrupted: impl Future<Output = ()>,
) -> Result<Figures, String> {
    usage::forget_peak();
    let begun = Instant::now();
    let bus = Bus::start(args, client).await?;
    let row = Begun {
        client,
        inflight,
        start: begun.elapsed(),
    };
    let result = on(&bus, args, row, interrupted).await;
    bus.stop().await;
    result
}

/// What is known of a row at its beginning.
struct Begun {
    client: Client,
    inflight: u32,
    start: Duration,
}

/// On a bus that has been started.
async fn on(
    bus: &Bus,
    args: &BenchArgs,
    row: Begun,
    interrupted: impl Future<Output = ()>,
) -> Result<Figures, String> {
    let mut interrupted = std::pin::pin!(interrupted);
    let work = Work::new(args);
    let _held = tokio::select! {
        held = prepared(bus, args, &work) => held?,
        () = interrupted.as_mut() => return Err("interrupted before there was anything".into()),
    };
    let load = Arc::new(Load::new(work, row.inflight));
    let mut asking = bus.ask(args, &load).await?;

    // Where the load has ended by itself there is nothing to wait for.
    let mut going = tokio::select! {
        () = warm_up(args, &load) => true,
        () = interrupted.as_mut() => false,
        _ = &mut asking => false,
    };
    let primed = load.sent().min(load.work.sessions);
    let (cpu, begun) = (usage::cpu(), Instant::now());
    if going {
        load.measure();
        going = tokio::select! {
            () = sleep(args.secs) => true,
            () = interrupted.as_mut() => false,
            _ = &mut asking => false,
        };
    }
    load.end();
    let time = begun.elapsed();
    let (cpu, memory) = match args.is_elsewhere() {
        // Of this process, which has no bus.
        true => (None, Memory::default()),
        false => (usage::since(cpu), usage::memory()),
    };
    if going {
        tokio::select! {
            () = ended(asking) => {}
            () = interrupted => {}
        }
    }
    let (failed, lost, problem) = load.problems();
    Ok(Figures {
        client: row.client,
        inflight: row.inflight,
        size: load.work.size(),
        time,
        latencies: load.latencies.percentiles(),
        cpu,
        memory,
        start: row.start,
        primed,
        failed,
        lost,
        problem,
    })
}

async fn prepared(bus: &Bus, args: &BenchArgs, work: &Work) -> Result<Held, String> {
    try_once(bus, args, work).await?;
    bus.hold(args, work).await
}

/// So that a method nobody answers is told of at once, and in its own words.
async fn try_once(bus: &Bus, args: &BenchArgs, work: &Work) -> Result<(), String> {
    let load = Arc::new(Load::once(work.clone(), 1));
    ended(bus.ask(args, &load).await?).await;
    match load.problems().2 {
        None => Ok(()),
        Some(problem) => Err(format!(
            "the first call of {:?}: {}",
            work.method,
            problem.text()
        )),
    }
}

async fn warm_up(args: &BenchArgs, load: &Load) {
    const STEP: Duration = Duration::from_millis(5);
    let begun = Instant::now();
    sleep(args.warm).await;
    let wanted = match args.prime {
        true => load.work.sessions + u64::from(load.inflight),
        false => 0,
    };
    while load.sent() < wanted && begun.elapsed() < args.warm.max(PRIME) {
        sleep(STEP).await;
    }
}

/// Waits for the end of a load. A panic in it has been reported by the panic hook.
pub(super) async fn ended(asking: JoinHandle<()>) {
    if !asking.is_finished() {
        let _ = asking.await;
    }
}
