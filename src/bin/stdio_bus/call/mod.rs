//! `stdio_bus call`: one request to a running bus, or lines of JSON from stdin.

mod failed;
mod ledger;
mod lines;
mod message;
mod output;
mod request;
mod target;

use std::io::{self, Read};
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use clap::builder::NonEmptyStringValueParser;
use clap::{ArgGroup, Args};
use serde_json::value::RawValue;

use crate::args::TcpAddress;
use crate::signals::Signals;
use failed::{Failed, REJECTED};
use target::Target;

const AFTER_HELP: &str = "\
With METHOD, the result is printed as a line of JSON; the text that an ACP agent
streams is joined into its member \"text\". An error goes to stderr as a line:
\"error CODE: message\", and its data. What the worker asks meanwhile is refused.

Without METHOD, each line of stdin is a JSON-RPC message, and each line that comes
back is printed, until stdin has ended and each request has its answer. At most
8 MiB of requests are unanswered at a time; what is beyond them waits.

Exit status:
    0  answered; with --notify, the bus has it
    1  the command line, PARAMS or a line of stdin can't be used
    2  answered with an error, of the worker or of the bus; without METHOD, one
       answer at least
    3  no bus there, the token refused, or the connection lost
    4  no answer in time
  130  interrupted, and the request cancelled; 129 and 143 for SIGHUP and SIGTERM
  141  stdout was closed

Examples:
  stdio_bus call --unix /tmp/bus.sock echo '{\"a\":1}'
  stdio_bus call --tcp localhost:8765 --token-file token --session s echo - <params
  stdio_bus call --unix /tmp/bus.sock <requests.ndjson >answers.ndjson";

#[derive(Debug, Args)]
#[command(
    group = ArgGroup::new("bus").required(true).args(["unix", "tcp"]),
    after_help = AFTER_HELP
)]
pub(crate) struct CallArgs {
    /// The method to call; without one, lines of JSON are read from stdin
    method: Option<String>,

    /// Its params, as JSON; "-" reads them from stdin [default: none]
    #[arg(allow_negative_numbers = true)]
    params: Option<String>,

    /// The bus's Unix socket
    #[arg(long, value_name = "PATH")]
    unix: Option<PathBuf>,

    /// The bus's address, by name or number
    #[arg(long, value_name = "HOST:PORT")]
    tcp: Option<TcpAddress>,

    /// Show the token in this file, as the bus's own --token-file has it
    #[arg(long, value_name = "PATH")]
    token_file: Option<PathBuf>,

    /// The session: all of its messages reach the same worker. Without METHOD,
    /// of the messages that name none
    #[arg(long, value_name = "ID", value_parser = NonEmptyStringValueParser::new())]
    session: Option<String>,

    /// The pool. Without METHOD, of the messages that name none
    #[arg(long, value_name = "ID", value_parser = NonEmptyStringValueParser::new())]
    pool: Option<String>,

    /// How long to wait for the answer, or, once stdin has ended, for the next
    /// line; fractions may be given, 0 is for ever [default: 30; begun anew by MCP's
    /// progress; for ever for session/prompt]
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<Limit>,

    /// Send a notification, which has no answer
    #[arg(long, requires = "method")]
    notify: bool,

    /// Print the notifications that come before the result, each as a line
    #[arg(long, requires = "method", conflicts_with = "notify")]
    stream: bool,
}

pub(crate) fn run(args: &CallArgs) -> ExitCode {
    match prepare_and_call(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failed) => failed.tell(),
    }
}

fn prepare_and_call(args: &CallArgs) -> Result<(), Failed> {
    let target = Target::new(args)?;
    // Before there are handlers of signals, which would not end this.
    let params = args.params.as_deref().map(read_params).transpose()?;
    let runtime = crate::runtime().map_err(|text| Failed::new(REJECTED, text))?;
    let result = runtime.block_on(call(args, &target, params.as_deref()));
    // A read of stdin can't be taken back, and must not hold up the end.
    runtime.shutdown_background();
    result
}

async fn call(args: &CallArgs, target: &Target, params: Option<&RawValue>) -> Result<(), Failed> {
    let mut signals = Signals::new().map_err(|e| Failed::new(REJECTED, format!("signals: {e}")))?;
    match &args.method {
        Some(method) => request::run(args, method, params, target, &mut signals).await,
        None => lines::run(args, target, &mut signals).await,
    }
}

fn read_params(given: &str) -> Result<Box<RawValue>, Failed> {
    let unusable = |reason: String| Failed::new(REJECTED, reason);
    let mut text = given.to_owned();
    if given == "-" {
        text.clear();
        io::stdin()
            .read_to_string(&mut text)
            .map_err(|e| unusable(format!("PARAMS from stdin: {e}")))?;
    }
    RawValue::from_string(text.trim().to_owned()).map_err(|e| {
        unusable(format!(
            "PARAMS: not JSON: {e}; in a shell, quote them: '{{\"a\":1}}'"
        ))
    })
}

/// Waits for a signal that ends the program.
async fn interrupted(signals: &mut Signals) -> Failed {
    Failed::quiet(signals.any().await.exit_code())
}

/// A time limit; `None` is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Limit(Option<Duration>);

impl FromStr for Limit {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let seconds = text
            .parse()
            .ok()
            .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
            .ok_or("a number of seconds is needed")?;
        Ok(Self(Some(seconds).filter(|limit| !limit.is_zero())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_limit_is_a_number_of_seconds_or_none() {
        let limit = |text: &str| text.parse::<Limit>().map(|limit| limit.0);
        assert_eq!(limit("1.5"), Ok(Some(Duration::from_millis(1500))));
        assert_eq!(limit("0"), Ok(None));
        for bad in ["", "-1", "NaN", "inf", "1s", "1e300"] {
            assert!(limit(bad).is_err(), "{bad}");
        }
    }
}
