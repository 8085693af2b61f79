//! What is printed, and the last checks.

use std::fs;
use std::process::{ExitCode, ExitStatus};
use std::time::{Duration, Instant};

use stdiobus::StdioBus;
use tokio::time::sleep;

use crate::check::{Ledger, get};
use crate::figures::{Figures, with_argument};
use crate::program::Program;
use crate::setup::Setup;

/// How long the last process may take to be gone.
const BOUND: Duration = Duration::from_secs(10);

/// A line for each interval.
pub fn interval(elapsed: Duration, ledger: &Ledger, figures: &[Figures; 2]) {
    let faults: u64 = ledger.faults().values().sum();
    let process = |figures: &Figures| {
        let Figures {
            rss_kib,
            fds,
            threads,
            children,
            zombies,
        } = figures;
        format!("{rss_kib} KiB {fds} fds {threads} threads {children} children {zombies} zombies")
    };
    println!(
        "{:4} s: {} sent, {} answered, {} errors, {} cancelled, {} lost, {} duplicated, \
         {} misdelivered, {} faults; native {}; program {}",
        elapsed.as_secs(),
        get(&ledger.sent),
        get(&ledger.answered),
        get(&ledger.failed),
        get(&ledger.cancelled),
        get(&ledger.lost),
        get(&ledger.duplicated),
        get(&ledger.misdelivered),
        faults,
        process(&figures[0]),
        process(&figures[1]),
    );
}

/// How often workers were started again, by bus.
pub async fn restarts(native: &StdioBus, program: &Program) -> [u64; 2] {
    let native = native.stats().await.unwrap_or_default().worker_restarts;
    let program = program.snapshot().await.unwrap_or_default();
    [
        native,
        program["stats"]["workerRestarts"].as_u64().unwrap_or(0),
    ]
}

/// What may explain a violation.
pub fn context(program: &Program) {
    for line in program.last_lines() {
        eprintln!("program: {line}");
    }
}

/// Nothing is left of either bus.
pub async fn check_end(setup: &Setup, ledger: &Ledger, ended: ExitStatus, before: Figures) {
    let leaves = |text: String| ledger.violates(&ledger.left_behind, text);
    if !ended.success() {
        leaves(format!("the program has ended with {ended}"));
    }
    let me = std::process::id();
    // The witness no longer listens.
    let [fds, threads, children, zombies] = before.counts();
    let expected = [fds - 1, threads, children, zombies];
    let look = || (Figures::of(me), with_argument(&setup.witness()));
    let (mut after, mut orphans) = look();
    let end = Instant::now() + BOUND;
    while (after.counts() != expected || !orphans.is_empty()) && Instant::now() < end {
        sleep(Duration::from_millis(20)).await;
        (after, orphans) = look();
    }
    if after.counts() != expected {
        leaves(format!("this process was {before:?} and is {after:?}"));
    }
    if !orphans.is_empty() {
        leaves(format!("processes that still run: {orphans:?}"));
    }
    for name in ["native", "program", "admin"] {
        if fs::exists(setup.path(name)).unwrap_or(true) {
            leaves(format!("the socket {name} is still there"));
        }
    }
}

/// The table at the end.
pub fn table(ledger: &Ledger, restarts: &[u64; 2], started: u64) {
    let row = |name: &str, count: u64| println!("  {name:32} {count:>10}");
    println!("requests");
    row("sent", get(&ledger.sent));
    row("answered", get(&ledger.answered));
    row("errors", get(&ledger.failed));
    row("cancelled by their sender", get(&ledger.cancelled));
    row("lost", get(&ledger.lost));
    row("duplicated", get(&ledger.duplicated));
    row("misdelivered", get(&ledger.misdelivered));
    row("out of order", get(&ledger.disordered));
    row("without a reason", get(&ledger.unexplained));
    row("left behind", get(&ledger.left_behind));
    println!("errors");
    ledger
        .errors()
        .iter()
        .for_each(|(name, count)| row(name, *count));
    println!("faults");
    ledger
        .faults()
        .iter()
        .for_each(|(name, count)| row(name, *count));
    println!("other");
    row("notifications to workers", get(&ledger.told));
    row("pieces, words and questions", get(&ledger.heard));
    row("workers started", started);
    row("workers restarted, native", restarts[0]);
    row("workers restarted, program", restarts[1]);
}

/// How it ends: with the seed and the first violations, where there are any.
pub fn outcome(seed: u64, ledger: &Ledger) -> ExitCode {
    let violations = ledger.violations();
    if violations.is_empty() {
        println!("each request has ended once; seed {seed}");
        return ExitCode::SUCCESS;
    }
    println!("FAILED with seed {seed}:");
    violations.iter().for_each(|text| println!("- {text}"));
    ExitCode::FAILURE
}
