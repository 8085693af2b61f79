//! `stdio_bus run`: one agent, for the client on stdin and stdout.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use stdiobus::LogLevel;
use stdiobus::agent::{AgentSpec, Handler, StdioAgent};

use crate::args::LogFormat;
use crate::log::Log;
use crate::signals::Signals;

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// The agent's YAML file
    #[arg(long, value_name = "PATH")]
    config: PathBuf,

    /// Serve it on stdin and stdout: the only way there is
    #[arg(long)]
    stdio: bool,

    /// Answer notifications with error -32600, as the reference does
    #[arg(long)]
    strict_reference: bool,

    /// The longest line; longer ones are answered with an error
    #[arg(long, value_name = "BYTES", default_value_t = 16 << 20)]
    max_line: usize,

    /// How many programs of an exec agent may run at once
    #[arg(long, value_name = "N", default_value_t = 16)]
    max_concurrent: usize,

    /// How log lines look
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    log_format: LogFormat,
}

pub(crate) fn run(args: &RunArgs) -> ExitCode {
    let spec = match AgentSpec::load(&args.config) {
        Ok(spec) => spec,
        Err(error) => return fail(format_args!("loading config: {error}")),
    };
    if !args.stdio {
        return fail("serving an agent over HTTP is not supported: use --stdio");
    }
    let log = Log::new(LogLevel::Info, args.log_format);
    let result = crate::runtime().and_then(|runtime| {
        let result = runtime.block_on(serve(args, spec, &log));
        // One of its threads may be reading stdin.
        runtime.shutdown_background();
        result
    });
    log.flush();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => fail(message),
    }
}

/// Serves to the end of the input or to a signal. The error is for the user.
async fn serve(args: &RunArgs, spec: AgentSpec, log: &Log) -> Result<(), String> {
    let mut signals = Signals::new().map_err(|e| format!("no signals: {e}"))?;
    for warning in spec.warnings() {
        log.warn(warning);
    }
    log.info(format_args!(
        "agent {} ({}) on stdin and stdout",
        spec.name,
        kind(&spec.handler)
    ));
    let agent = StdioAgent::new(spec)
        .max_line(args.max_line)
        .max_concurrent(args.max_concurrent)
        .strict_reference(args.strict_reference);
    let signal = async {
        // A hangup ends it, too: whoever uses it is gone.
        let signal = signals.any().await;
        log.info(format_args!("{signal}, stopping"));
    };
    agent
        .serve_until(tokio::io::stdin(), tokio::io::stdout(), signal)
        .await
        .map_err(|e| format!("stdin or stdout: {e}"))
}

fn kind(handler: &Handler) -> &'static str {
    match handler {
        Handler::Echo => "echo",
        Handler::Greeter => "greeter",
        _ => "exec",
    }
}

/// In the words of the reference.
fn fail(message: impl std::fmt::Display) -> ExitCode {
    eprintln!("error: {message}");
    ExitCode::FAILURE
}
