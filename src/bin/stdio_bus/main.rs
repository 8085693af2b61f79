//! The program `stdio_bus`: a bus as a daemon.
//!
//! stdout carries protocol only; logs go to stderr. Everything else is the
//! library.

mod args;
mod log;
mod signals;

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use stdiobus::{AdoptedClient, EventStream, StdioBus};
use tokio::task::JoinHandle;

use args::Args;
use log::Log;
use signals::{Signal, Signals};

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            let _ = error.print();
            // Help and version come as errors too, but for stdout.
            return if error.use_stderr() {
                ExitCode::FAILURE
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    let log = Log::new(args.log_level());
    let code = match run(&args, &log) {
        Ok(code) => ExitCode::from(code),
        Err(message) => {
            log.error(message);
            ExitCode::FAILURE
        }
    };
    log.flush();
    code
}

/// Runs to the end. The error is what to tell the user.
fn run(args: &Args, log: &Log) -> Result<u8, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| format!("the runtime can't be started: {e}"))?;
    runtime.block_on(serve(args, log))
}

async fn serve(args: &Args, log: &Log) -> Result<u8, String> {
    if args.stdio() && matches!(args.config_fd, Some(0 | 1)) {
        return Err("--config-fd 0 and 1 are what --stdio serves a client on".into());
    }
    // Before anything is started, so that no signal finds us unprepared.
    let mut signals = Signals::new().map_err(|e| format!("no signals: {e}"))?;
    let bus = build(args, log)?;
    let mut stopped = tokio::spawn(end_of(bus.events_with(1)));

    tokio::select! {
        started = bus.start() => started.map_err(|e| e.to_string())?,
        signal = signals.next() => {
            log.info(format_args!("{signal} during the start, stopping"));
            stop_now(&bus).await;
            return Ok(0);
        }
    }
    let client = if args.stdio() {
        Some(serve_stdio(&bus).await?)
    } else {
        None
    };
    log.info("stdio Bus kernel ready, entering main loop");

    let first = match wait(&mut signals, client, &mut stopped).await {
        End::Signal(signal) => {
            log.info(format_args!("{signal}, draining"));
            Some(signal)
        }
        End::ClientDone => {
            log.info("end of input, draining");
            None
        }
        End::ClientLost(reason) => {
            log.warn(format_args!("stdin or stdout is gone ({reason}), stopping"));
            stop_now(&bus).await;
            // Whoever closed stdout has had enough; a write that failed is a failure.
            return Ok(u8::from(reason == "error"));
        }
        End::BusStopped => return Err("the bus has stopped by itself".into()),
    };
    let code = tokio::select! {
        _ = bus.drain(None) => 0,
        signal = signals.next_after(first) => {
            log.warn(format_args!("{signal} again, stopping at once"));
            stop_now(&bus).await;
            signal.exit_code()
        }
    };
    log.info("stopped");
    Ok(code)
}

fn build(args: &Args, log: &Log) -> Result<StdioBus, String> {
    let lines = log.clone();
    let mut builder = stdiobus::program::daemon(StdioBus::builder())
        .on_log(move |level, line| lines.line(level, line))
        .log_level(log.level);
    builder = match (&args.config, args.config_fd) {
        (Some(path), _) => builder.config_path(path),
        (None, Some(number)) => builder.config_json(read_config(number)?),
        // The command line doesn't let this happen.
        (None, None) => return Err("--config or --config-fd is needed".into()),
    };
    for mode in args.listeners() {
        builder = builder.listen(mode);
    }
    builder.build().map_err(|e| e.to_string())
}

/// Reads the configuration from a descriptor that we were started with.
fn read_config(number: i32) -> Result<String, String> {
    let fd = stdiobus::program::take_fd(number)
        .ok_or_else(|| format!("--config-fd {number}: not an open descriptor"))?;
    let mut text = String::new();
    File::from(fd)
        .read_to_string(&mut text)
        .map_err(|e| format!("--config-fd {number}: {e}"))?;
    Ok(text)
}

/// Duplicates, so that 0 and 1 stay taken: a descriptor that is opened later
/// must not get one of these numbers.
async fn serve_stdio(bus: &StdioBus) -> Result<AdoptedClient, String> {
    let duplicate = |fd: &dyn AsFd| {
        fd.as_fd()
            .try_clone_to_owned()
            .map_err(|e| format!("stdin or stdout: {e}"))
    };
    let (from, to) = (duplicate(&io::stdin())?, duplicate(&io::stdout())?);
    bus.adopt_client(from, to).await.map_err(|e| e.to_string())
}

/// Why the program ends.
enum End {
    Signal(Signal),
    /// The client on stdin has sent its last message and got its last answer.
    ClientDone,
    ClientLost(String),
    BusStopped,
}

async fn wait(
    signals: &mut Signals,
    client: Option<AdoptedClient>,
    stopped: &mut JoinHandle<()>,
) -> End {
    let client_gone = async {
        match client {
            Some(client) => client.closed().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        signal = signals.next() => End::Signal(signal),
        reason = client_gone => match reason.as_str() {
            "closed" => End::ClientDone,
            "shutdown" => End::BusStopped,
            _ => End::ClientLost(reason),
        },
        _ = stopped => End::BusStopped,
    }
}

async fn stop_now(bus: &StdioBus) {
    // A stop has no errors to tell of.
    let _ = bus.stop_with_timeout(Duration::ZERO).await;
}

/// Waits until the bus has stopped: its events end then.
async fn end_of(mut events: EventStream) {
    while events.next().await.is_some() {}
}
