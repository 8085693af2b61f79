//! The command line of `stdio_bus bench`.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, ValueEnum};
use serde_json::value::RawValue;

use super::work::Work;
use crate::args::TcpAddress;

const AFTER_HELP: &str = r#"Without options, a bus in this process with one echo worker is asked by the async
client: 1, 64 and 1024 requests of 200 bytes in flight, for a second each. Each row
has a bus of its own. Every request waits for its answer before the next one is
sent in its place (a closed loop), and answers are read as JSON.

  async      StdioBus, with a task for each request in flight, all on one thread
  blocking   blocking::StdioBus, with a thread for each request in flight
  unix, tcp  one connection to a bus in this process that listens for it

--unix and --tcp name a bus that runs already; async and blocking are clients of that
one then, too.

Times are from the call to its answer, in microseconds (µs): half of all answers were
faster than p50, 99 % than p99. "MB/s" are millions of bytes of requests. "CPU s/1M"
are seconds of CPU time for a million answers, "peak MB" is the most memory, in MiB:
both of this process, bus and client together, but not of the workers. Memory that rows
above have used may count again. For a bus that runs already they aren't known.

A worker or a configuration of yours must answer the method: say which by --method
and --params. The params that --size makes up are {"d":"xxx..."}.

Exit status:
    0  everything was answered
    1  the command line, the configuration or the worker can't be used, or requests
       failed or were lost: the last column and stderr say so
  130  interrupted (Ctrl-C): what there is has been printed; again: at once. 129 and 143
       for SIGHUP and SIGTERM

Examples:
  stdio_bus bench
  stdio_bus bench --client async,blocking,unix,tcp --inflight 64
  stdio_bus bench --size 65536 --inflight 1 --secs 3
  stdio_bus bench --worker ./my-worker --workers 4 --sessions 64 --method ping
  stdio_bus bench --config bus.json --pool tools --method tools/list --params '{}'
  stdio_bus bench --unix /tmp/bus.sock --inflight 1,256 --sessions 8
  stdio_bus bench --scenario lifecycle --workers 64
  stdio_bus bench --json --client blocking --inflight 64"#;

#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct BenchArgs {
    /// How the bus is asked; several, with commas, give rows for each [default:
    /// async; unix or tcp where that option is given]
    #[arg(long, value_name = "CLIENT", value_enum, value_delimiter = ',')]
    pub(super) client: Vec<Client>,

    /// Requests in flight at a time; several, with commas, give a row each [default:
    /// 1,64,1024; 1 with --json]
    #[arg(long, value_name = "N", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=65536))]
    inflight: Vec<u32>,

    /// Bytes of a request, its newline included [default: 200]
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(1..=64 << 20), conflicts_with = "params")]
    pub(super) size: Option<u32>,

    /// How long a row is measured, in seconds; fractions may be given
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = duration)]
    pub(super) secs: Duration,

    /// How long it runs before that, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "0.2", value_parser = duration_or_none)]
    pub(super) warm: Duration,

    /// How long a request may take, in seconds; one without an answer by then is lost
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = duration)]
    pub(super) timeout: Duration,

    /// Sessions that requests go round in: all of one session reach the same worker
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    pub(super) sessions: u64,

    /// Measure only when each session has been used once, or 3 seconds were not enough
    #[arg(long)]
    pub(super) prime: bool,

    /// The program to run as worker: it answers the method [default: an echo worker
    /// inside this program]
    #[arg(long, value_name = "PATH")]
    pub(super) worker: Option<PathBuf>,

    /// How many workers
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=65536))]
    pub(super) workers: u32,

    /// Run the workers of this configuration
    #[arg(long, value_name = "PATH", conflicts_with_all = ["worker", "workers", "big_limits"])]
    pub(super) config: Option<PathBuf>,

    /// The bus that runs already and listens on this Unix socket
    #[arg(long, value_name = "PATH", conflicts_with_all = ["tcp", "config", "worker", "workers", "big_limits"])]
    pub(super) unix: Option<PathBuf>,

    /// The bus that runs already and listens at this address
    #[arg(long, value_name = "HOST:PORT", conflicts_with_all = ["config", "worker", "workers", "big_limits"])]
    pub(super) tcp: Option<TcpAddress>,

    /// Show the token in this file to the bus that runs already
    #[arg(long, value_name = "PATH")]
    pub(super) token_file: Option<PathBuf>,

    /// The pool to ask
    #[arg(long, value_name = "ID", value_parser = NonEmptyStringValueParser::new())]
    pub(super) pool: Option<String>,

    /// The method to call
    #[arg(long, value_name = "METHOD", default_value = "echo", value_parser = NonEmptyStringValueParser::new())]
    pub(super) method: String,

    /// Its params, as JSON [default: an object that makes up the size]
    #[arg(long, value_name = "JSON", value_parser = json)]
    pub(super) params: Option<Box<RawValue>>,

    /// Requests that are never answered, and stay pending beside the others: calls of
    /// the method "hold", which the echo worker inside this program ignores
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=100_000))]
    pub(super) hold: u32,

    /// Raise the limits for messages of up to 16 MiB
    #[arg(long)]
    pub(super) big_limits: bool,

    /// What to measure
    #[arg(long, value_name = "WHAT", value_enum, default_value = "lat")]
    pub(super) scenario: Scenario,

    /// Print an object a row, as a line of JSON, instead of the table
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Client {
    #[value(help = "The async client, StdioBus")]
    Async,
    /// The client without async, blocking::StdioBus
    Blocking,
    /// A connection over a Unix socket
    Unix,
    /// A connection over TCP
    Tcp,
}

impl Client {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Async => "async",
            Self::Blocking => "blocking",
            Self::Unix => "unix",
            Self::Tcp => "tcp",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Scenario {
    /// Latency and rate of requests
    Lat,
    /// What a bus costs that has nothing to do
    Idle,
    /// How long it takes to start, to have an answer of each worker, and to stop
    Lifecycle,
}

impl BenchArgs {
    pub(super) fn clients(&self) -> Vec<Client> {
        match (&self.client[..], &self.unix, &self.tcp) {
            ([], Some(_), _) => vec![Client::Unix],
            ([], None, Some(_)) => vec![Client::Tcp],
            ([], None, None) => vec![Client::Async],
            (clients, ..) => clients.to_vec(),
        }
    }

    /// How many requests are in flight, for each row of a client.
    pub(super) fn inflight(&self) -> Vec<u32> {
        match self.inflight[..] {
            [] if self.json || self.scenario != Scenario::Lat => vec![1],
            [] => vec![1, 64, 1024],
            _ => self.inflight.clone(),
        }
    }

    /// Whether the bus runs already.
    pub(super) fn is_elsewhere(&self) -> bool {
        self.unix.is_some() || self.tcp.is_some()
    }

    /// What is measured, above the table.
    pub(super) fn title(&self) -> String {
        let bus = match (&self.unix, &self.tcp, &self.config, &self.worker) {
            (Some(path), ..) => format!("the bus at {}", path.display()),
            (_, Some(address), ..) => format!("the bus at {address}"),
            (_, _, Some(path), _) => format!("the workers of {}", path.display()),
            (.., Some(path)) => format!("{} of {}", workers(self.workers), path.display()),
            _ => workers(self.workers).replace("worker", "echo worker"),
        };
        let version = env!("CARGO_PKG_VERSION");
        let (size, seconds) = (Work::new(self).size(), self.secs.as_secs_f64());
        let cpus = match std::thread::available_parallelism().map_or(1, usize::from) {
            1 => "1 CPU".into(),
            cpus => format!("{cpus} CPUs"),
        };
        match self.scenario {
            Scenario::Lat => format!(
                "stdio_bus {version}: {:?} to {bus}, {size} bytes a request, {seconds} s a row, {cpus}",
                self.method
            ),
            Scenario::Idle => format!("stdio_bus {version}: {bus}, {seconds} s without requests"),
            Scenario::Lifecycle => format!("stdio_bus {version}: {bus}"),
        }
    }

    /// Refuses what can't be said to clap.
    pub(super) fn check(&self) -> Result<(), String> {
        for client in self.clients() {
            let (name, option) = match client {
                Client::Unix if self.tcp.is_some() => ("unix", "--tcp"),
                Client::Tcp if self.unix.is_some() => ("tcp", "--unix"),
                _ => continue,
            };
            return Err(format!(
                "--client {name} can't reach the bus that {option} names"
            ));
        }
        if self.token_file.is_some() && !self.is_elsewhere() {
            return Err("--token-file is for a bus that runs already: add --unix or --tcp".into());
        }
        if self.scenario == Scenario::Lifecycle && self.is_elsewhere() {
            return Err("--scenario lifecycle is for a bus that this starts itself".into());
        }
        Ok(())
    }
}

fn workers(count: u32) -> String {
    match count {
        1 => "1 worker".into(),
        count => format!("{count} workers"),
    }
}

const LONGEST: Duration = Duration::from_secs(24 * 3600);

fn duration(text: &str) -> Result<Duration, String> {
    let allowed = Duration::from_millis(1)..=LONGEST;
    seconds(text, &allowed).ok_or_else(|| "a number of seconds, from 0.001 to 86400".into())
}

fn duration_or_none(text: &str) -> Result<Duration, String> {
    let allowed = Duration::ZERO..=LONGEST;
    seconds(text, &allowed).ok_or_else(|| "a number of seconds, from 0 to 86400".into())
}

fn seconds(text: &str, allowed: &RangeInclusive<Duration>) -> Option<Duration> {
    let seconds = Duration::try_from_secs_f64(text.parse().ok()?).ok()?;
    Some(seconds).filter(|seconds| allowed.contains(seconds))
}

fn json(text: &str) -> Result<Box<RawValue>, String> {
    RawValue::from_string(text.trim().replace('\n', " "))
        .map_err(|e| format!("not JSON: {e}; in a shell, quote it: '{{\"a\":1}}'"))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Cli, Command};

    fn parse(args: &[&str]) -> Result<BenchArgs, clap::Error> {
        let cli = Cli::try_parse_from(["stdio_bus", "bench"].iter().chain(args))?;
        match cli.command {
            Some(Command::Bench(args)) => Ok(*args),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_bus_that_is_named_says_which_client_is_meant() {
        let clients = |args: &[&str]| parse(args).expect("valid").clients();
        assert_eq!(clients(&[]), [Client::Async]);
        assert_eq!(clients(&["--unix=/s"]), [Client::Unix]);
        assert_eq!(clients(&["--tcp=h:1"]), [Client::Tcp]);
        let both = ["--unix=/s", "--client=async,unix"];
        assert_eq!(clients(&both), [Client::Async, Client::Unix]);
    }

    #[test]
    fn a_table_has_three_rows_and_json_one_unless_told_otherwise() {
        let inflight = |args: &[&str]| parse(args).expect("valid").inflight();
        assert_eq!(inflight(&[]), [1, 64, 1024]);
        assert_eq!(inflight(&["--json"]), [1]);
        assert_eq!(inflight(&["--json", "--inflight=2,3"]), [2, 3]);
    }

    #[test]
    fn what_can_not_be_is_refused() {
        for bad in [
            &["--secs=0"][..],
            &["--secs=x"],
            &["--inflight=0"],
            &["--client=carrier-pigeon"],
            &["--config=c", "--worker=w"],
            &["--unix=/s", "--workers=2"],
            &["--params={"],
        ] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
        for bad in [
            &["--unix=/s", "--client=tcp"][..],
            &["--token-file=t"],
            &["--scenario=lifecycle", "--tcp=h:1"],
        ] {
            assert!(parse(bad).expect("parsed").check().is_err(), "{bad:?}");
        }
    }
}
