//! The bus as a daemon: from its start to its end.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::time::Duration;

use stdiobus::{AdoptedClient, EventStream, StdioBus};
use tokio::task::JoinHandle;

use crate::admin::Admin;
use crate::args::ServeArgs;
use crate::log::Log;
use crate::metrics::Metrics;
use crate::service::{self, Inherited, Manager};
use crate::signals::{Signal, Signals};

pub(crate) fn run(args: &ServeArgs) -> ExitCode {
    // Before this process has threads and descriptors of its own: one of those
    // could have a number that was meant for something else.
    let given = Given::take(args);
    let manager = Manager::take();
    let log = Log::new(args.log_level(), args.log_format);
    let result =
        given.and_then(|given| crate::runtime()?.block_on(serve(args, given, &manager, &log)));
    let code = match result {
        Ok(code) => ExitCode::from(code),
        Err(message) => {
            log.failure(&message);
            ExitCode::FAILURE
        }
    };
    log.flush();
    code
}

/// What this process was started with, beside its arguments.
struct Given {
    listeners: Vec<Inherited>,
    /// What came through `--config-fd`.
    config: Option<String>,
    /// Whether a client is served on stdin and stdout.
    stdio: bool,
}

impl Given {
    /// The error is for the user.
    fn take(args: &ServeArgs) -> Result<Self, String> {
        let listeners = service::inherited()?;
        let stdio = args.stdio || (listeners.is_empty() && !args.unix_or_tcp());
        if stdio && matches!(args.config_fd, Some(0 | 1)) {
            return Err("--config-fd 0 and 1 are what --stdio serves a client on".into());
        }
        let config = args.config_fd.map(read_config).transpose()?;
        Ok(Self {
            listeners,
            config,
            stdio,
        })
    }
}

/// Runs to the end. The error is what to tell the user.
async fn serve(args: &ServeArgs, given: Given, manager: &Manager, log: &Log) -> Result<u8, String> {
    // Before anything is started, so that no signal finds us unprepared.
    let signals = Signals::new().map_err(|e| format!("no signals: {e}"))?;
    let stdio = given.stdio;
    if args.token_file.is_some() && given.listeners.is_empty() && !args.unix_or_tcp() {
        log.warn(
            "--token-file is for clients of listeners, and there is none: add --unix or --tcp",
        );
    }
    let bus = build(args, given, log)?;
    let metrics = Metrics::open(args.metrics.as_ref(), &bus).await?;
    let admin = Admin::open(args.admin.as_deref(), &bus).await?;
    let mut daemon = Daemon {
        args,
        manager,
        log,
        stopped: tokio::spawn(end_of(bus.events_with(1))),
        bus,
        signals,
    };
    let result = daemon
        .run(stdio, || {
            metrics.announce(log);
            admin.announce(log);
        })
        .await;
    // However it ended: the socket's file must not stay.
    admin.close().await;
    if result.is_ok() {
        log.info("stopped");
    }
    result
}

/// How a start has ended.
enum Start {
    Done {
        /// The configuration is to be read again.
        outdated: bool,
    },
    Stopped,
}

/// A bus, and what decides when it ends.
struct Daemon<'a> {
    args: &'a ServeArgs,
    manager: &'a Manager,
    log: &'a Log,
    bus: StdioBus,
    signals: Signals,
    /// Ends with the bus.
    stopped: JoinHandle<()>,
}

impl Daemon<'_> {
    /// From the start of the workers to their end. Returns the exit code.
    async fn run(&mut self, stdio: bool, announce: impl FnOnce()) -> Result<u8, String> {
        let outdated = match self.start().await? {
            Start::Done { outdated } => outdated,
            Start::Stopped => return Ok(0),
        };
        let client = match stdio {
            true => Some(serve_stdio(&self.bus).await?),
            false => None,
        };
        announce();
        self.log.info("stdio Bus kernel ready, entering main loop");
        self.manager.ready(self.log);
        if outdated {
            self.reload().await;
        }
        self.serve(client).await
    }

    async fn start(&mut self) -> Result<Start, String> {
        let mut outdated = false;
        let mut started = std::pin::pin!(self.bus.start());
        loop {
            tokio::select! {
                started = started.as_mut() => {
                    return started.map(|()| Start::Done { outdated }).map_err(|e| e.to_string());
                }
                signal = self.signals.any() => match signal {
                    Signal::Hangup => outdated = true,
                    signal => {
                        self.log.info(format_args!("{signal} during the start, stopping"));
                        self.stop_now().await;
                        return Ok(Start::Stopped);
                    }
                },
            }
        }
    }

    /// Serves until something ends it, and ends it in that thing's way.
    async fn serve(&mut self, client: Option<AdoptedClient>) -> Result<u8, String> {
        let log = self.log;
        let mut client = std::pin::pin!(client_gone(client));
        loop {
            match wait(&mut self.signals, client.as_mut(), &mut self.stopped).await {
                End::Reload => self.reload().await,
                End::Signal(signal) => {
                    log.info(format_args!("{signal}, draining"));
                    return Ok(self.drain(Some(signal)).await);
                }
                End::ClientDone => {
                    log.info("end of input, draining");
                    return Ok(self.drain(None).await);
                }
                End::ClientLost(reason) => {
                    log.warn(format_args!("stdin or stdout is gone ({reason}), stopping"));
                    self.manager.stopping(log);
                    self.stop_now().await;
                    // Whoever closed stdout has had enough; a write that failed is a failure.
                    return Ok(u8::from(reason == "error"));
                }
                End::BusStopped => return Err("the bus has stopped by itself".into()),
            }
        }
    }

    /// Lets what is pending end, unless another signal comes. Returns the exit code.
    async fn drain(&mut self, first: Option<Signal>) -> u8 {
        self.manager.stopping(self.log);
        tokio::select! {
            _ = self.bus.drain(None) => 0,
            signal = self.signals.next_after(first) => {
                self.log.warn(format_args!("{signal} again, stopping at once"));
                self.stop_now().await;
                signal.exit_code()
            }
        }
    }

    /// Takes the configuration file as it is now. Where it can't be used, nothing
    /// changes.
    async fn reload(&self) {
        let log = self.log;
        let Some(path) = &self.args.config else {
            log.warn("SIGHUP: the configuration came through --config-fd and can't be read again");
            return;
        };
        let shown = path.display();
        log.info(format_args!("SIGHUP, reading {shown} again"));
        self.manager.reloading(log);
        let result = match fs::read_to_string(path) {
            Ok(json) => self.bus.reload_json(json).await.map_err(|e| e.to_string()),
            Err(error) => Err(error.to_string()),
        };
        match result {
            Ok(()) => log.info("the configuration is in force"),
            Err(reason) => log.error(format_args!(
                "{shown}: {reason}; the configuration before it stays"
            )),
        }
        self.manager.ready(log);
    }

    async fn stop_now(&self) {
        // A stop has no errors to tell of.
        let _ = self.bus.stop_with_timeout(Duration::ZERO).await;
    }
}

fn build(args: &ServeArgs, given: Given, log: &Log) -> Result<StdioBus, String> {
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
    builder = match (&args.config, given.config) {
        (Some(path), _) => builder.config_path(path),
        (None, Some(text)) => builder.config_json(text),
        // The command line doesn't let this happen.
        (None, None) => return Err("--config or --config-fd is needed".into()),
    };
    for listen in args.listeners(given.listeners)? {
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
        signal = signals.any() => match signal {
            Signal::Hangup => End::Reload,
            signal => End::Signal(signal),
        },
        reason = client_gone => match reason.as_str() {
            "closed" => End::ClientDone,
            "shutdown" => End::BusStopped,
            _ => End::ClientLost(reason),
        },
        _ = stopped => End::BusStopped,
    }
}

/// Waits until the bus has stopped: its events end then.
async fn end_of(mut events: EventStream) {
    while events.next().await.is_some() {}
}
