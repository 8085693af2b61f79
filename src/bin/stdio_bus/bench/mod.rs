//! `stdio_bus bench`: how fast a bus answers, and what that costs.
//!
//! `load` is what is asked for, and what came of it; `tasks`, `threads` and
//! `connection` are the clients that ask. `measure` takes the time, `scenarios` what
//! isn't about latency, and `report` prints.

mod args;
mod bus;
mod connection;
mod histogram;
mod load;
mod measure;
mod report;
mod scenarios;
mod tasks;
mod threads;
mod usage;
mod work;
pub(crate) mod worker;

use std::io::{self, Write};
use std::process::ExitCode;

pub(crate) use args::BenchArgs;
use args::{Client, Scenario};
use report::Row;

use crate::signals::{Signal, Signals};

/// The argument that makes this program the echo worker.
pub(crate) const WORKER: &str = "bench-worker";

pub(crate) fn run(args: &BenchArgs) -> ExitCode {
    if let Err(message) = args.check() {
        return crate::fail(message);
    }
    let result = crate::runtime().and_then(|runtime| {
        let result = runtime.block_on(all(args));
        // Threads that wait for what isn't answered end with the process.
        runtime.shutdown_background();
        result
    });
    match result {
        Ok(code) => code,
        Err(message) => crate::fail(message),
    }
}

/// All rows. The error is for the user.
async fn all(args: &BenchArgs) -> Result<ExitCode, String> {
    let mut signals = Signals::new().map_err(|e| format!("no signals: {e}"))?;
    let mut output = Output::new(args);
    let mut code = ExitCode::SUCCESS;
    for client in args.clients() {
        for inflight in args.inflight() {
            let (row, interrupted) = one(args, client, inflight, &mut signals).await;
            if let Some(signal) = interrupted {
                if let Some(Ok(row)) = row {
                    output.row(&row, true)?;
                }
                crate::tell("interrupted");
                return Ok(signal.exit_code().into());
            }
            match row {
                Some(Ok(row)) => {
                    output.row(&row, false)?;
                    if let Some(problem) = row.problem() {
                        crate::tell(format_args!(
                            "{}, {inflight} in flight: {problem}",
                            client.name()
                        ));
                    }
                    if !row.is_ok() {
                        code = ExitCode::FAILURE;
                    }
                }
                Some(Err(message)) => {
                    output.failure(&message)?;
                    return Err(message);
                }
                None => {}
            }
        }
    }
    Ok(code)
}

/// A row, unless a second signal leaves no time for it.
async fn one(
    args: &BenchArgs,
    client: Client,
    inflight: u32,
    signals: &mut Signals,
) -> (Option<Result<Row, String>>, Option<Signal>) {
    let (interrupt, interrupted) = tokio::sync::oneshot::channel::<()>();
    let mut interrupt = Some(interrupt);
    let mut row = std::pin::pin!(measured(args, client, inflight, async {
        let _ = interrupted.await;
    }));
    let mut first = None;
    loop {
        let signal = tokio::select! {
            row = row.as_mut() => return (Some(row), first),
            signal = next(signals, first) => signal,
        };
        match interrupt.take() {
            Some(interrupt) => {
                first = Some(signal);
                let _ = interrupt.send(());
            }
            None => return (None, Some(signal)),
        }
    }
}

async fn next(signals: &mut Signals, first: Option<Signal>) -> Signal {
    match first {
        None => signals.any().await,
        first => signals.next_after(first).await,
    }
}

async fn measured(
    args: &BenchArgs,
    client: Client,
    inflight: u32,
    interrupted: impl Future<Output = ()>,
) -> Result<Row, String> {
    match args.scenario {
        Scenario::Lat => {
            let figures = measure::latency(args, client, inflight, interrupted).await;
            figures.map(Row::Latency)
        }
        Scenario::Idle => {
            let idle = scenarios::idle(args, client, interrupted).await;
            idle.map(Row::Idle)
        }
        Scenario::Lifecycle => {
            let life = scenarios::lifecycle(args, client).await;
            life.map(Row::Lifecycle)
        }
    }
}

/// stdout.
struct Output<'a> {
    args: &'a BenchArgs,
    begun: bool,
}

impl<'a> Output<'a> {
    fn new(args: &'a BenchArgs) -> Self {
        Self { args, begun: false }
    }

    fn row(&mut self, row: &Row, interrupted: bool) -> Result<(), String> {
        if self.args.json {
            return line(&row.json(interrupted).to_string());
        }
        if !self.begun {
            self.begun = true;
            line(&self.args.title())?;
            line(&row.heading())?;
        }
        line(&row.line())
    }

    /// There is no row, and stderr will say why.
    fn failure(&self, why: &str) -> Result<(), String> {
        match self.args.json {
            true => line(&report::failure(why).to_string()),
            false => Ok(()),
        }
    }
}

fn line(text: &str) -> Result<(), String> {
    let mut stdout = io::stdout().lock();
    let written = writeln!(stdout, "{text}").and_then(|()| stdout.flush());
    written.map_err(|e| format!("stdout: {e}"))
}
