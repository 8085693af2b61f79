//! The bus as a daemon: from its start to its end.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::time::Duration;

use stdiobus::{AdoptedClient, EventStream, Listen, StdioBus};
use tokio::task::JoinHandle;

use crate::admin::Admin;
use crate::args::ServeArgs;
use crate::log::Log;
use crate::metrics::Metrics;
use crate::service;
use crate::signals::{Signal, Signals};

pub(crate) fn run(args: &ServeArgs) -> ExitCode {
    let log = Log::new(args.log_level(), args.log_format);
    let result = crate::runtime().and_then(|runtime| runtime.block_on(serve(args, &log)));
    let code = match result {
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
async fn serve(args: &ServeArgs, log: &Log) -> Result<u8, String> {
    // Before anything is started, so that no signal finds us unprepared.
    let mut signals = Signals::new().map_err(|e| format!("no signals: {e}"))?;
    let inherited = service::inherited()?;
    let listens = !inherited.is_empty() || args.unix_or_tcp();
    let stdio = args.stdio || !listens;
    if stdio && matches!(args.config_fd, Some(0 | 1)) {
        return Err("--config-fd 0 and 1 are what --stdio serves a client on".into());
    }
    let bus = build(args, inherited, log)?;
    let metrics = Metrics::open(args.metrics.as_ref(), &bus).await?;
    let admin = Admin::open(args.admin.as_deref(), &bus).await?;
    let mut stopped = tokio::spawn(end_of(bus.events_with(1)));

    tokio::select! {
        started = bus.start() => started.map_err(|e| e.to_string())?,
        signal = signals.next() => {
            log.info(format_args!("{signal} during the start, stopping"));
            stop_now(&bus).await;
            return Ok(0);
        }
    }
    let client = if stdio {
        Some(serve_stdio(&bus).await?)
    } else {
        None
    };
    metrics.announce(log);
    admin.announce(log);
    log.info("stdio Bus kernel ready, entering main loop");
    service::ready(log);

    let mut client = std::pin::pin!(client_gone(client));
    let first = loop {
        match wait(&mut signals, client.as_mut(), &mut stopped).await {
            End::Reload => reload(args, &bus, log).await,
            End::Signal(signal) => {
                log.info(format_args!("{signal}, draining"));
                break Some(signal);
            }
            End::ClientDone => {
                log.info("end of input, draining");
                break None;
            }
            End::ClientLost(reason) => {
                log.warn(format_args!("stdin or stdout is gone ({reason}), stopping"));
                service::stopping(log);
                stop_now(&bus).await;
                // Whoever closed stdout has had enough; a write that failed is a failure.
                return Ok(u8::from(reason == "error"));
            }
            End::BusStopped => return Err("the bus has stopped by itself".into()),
        }
    };
    service::stopping(log);
    let code = tokio::select! {
        _ = bus.drain(None) => 0,
        signal = signals.next_after(first) => {
            log.warn(format_args!("{signal} again, stopping at once"));
            stop_now(&bus).await;
            signal.exit_code()
        }
    };
    admin.close().await;
    log.info("stopped");
    Ok(code)
}

fn build(args: &ServeArgs, inherited: Vec<Listen>, log: &Log) -> Result<StdioBus, String> {
    let lines = log.clone();
    let builder = StdioBus::builder();
    let mut builder = match args.admin {
        // So that there is something to show.
        Some(_) => {
            let stderr = log.clone();
            stdiobus::program::daemon_with_stderr(builder, move |line| stderr.as_it_came(line))
        }
        None => stdiobus::program::daemon(builder),
    };
    builder = builder
        .on_log(move |level, line| lines.line(level, line))
        .log_level(log.level);
    builder = match (&args.config, args.config_fd) {
        (Some(path), _) => builder.config_path(path),
        (None, Some(number)) => builder.config_json(read_config(number)?),
        // The command line doesn't let this happen.
        (None, None) => return Err("--config or --config-fd is needed".into()),
    };
    for listen in args.listeners(inherited)? {
        builder = builder.listen(listen);
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

/// Takes the configuration file as it is now. Where it can't be used, nothing
/// changes.
async fn reload(args: &ServeArgs, bus: &StdioBus, log: &Log) {
    let Some(path) = &args.config else {
        log.warn("SIGHUP: the configuration came through --config-fd and can't be read again");
        return;
    };
    let shown = path.display();
    log.info(format_args!("SIGHUP, reading {shown} again"));
    service::reloading(log);
    let result = match fs::read_to_string(path) {
        Ok(json) => bus.reload_json(json).await.map_err(|e| e.to_string()),
        Err(error) => Err(error.to_string()),
    };
    match result {
        Ok(()) => log.info("the configuration is in force"),
        Err(reason) => log.error(format_args!(
            "{shown}: {reason}; the configuration before it stays"
        )),
    }
    service::ready(log);
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

/// Waits until the client on stdin is gone, for ever where there is none.
async fn client_gone(client: Option<AdoptedClient>) -> String {
    match client {
        Some(client) => client.closed().await,
        None => std::future::pending().await,
    }
}

/// What a bus that serves waits for.
enum End {
    Signal(Signal),
    Reload,
    /// The client on stdin has sent its last message and got its last answer.
    ClientDone,
    ClientLost(String),
    BusStopped,
}

async fn wait(
    signals: &mut Signals,
    client_gone: impl Future<Output = String>,
    stopped: &mut JoinHandle<()>,
) -> End {
    tokio::select! {
        signal = signals.next_or_hangup() => signal.map_or(End::Reload, End::Signal),
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
