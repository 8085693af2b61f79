//! The program `stdio_bus`: a bus as a daemon, and what is needed to look after
//! one.
//!
//! stdout carries protocol, and what was asked for; logs go to stderr. Everything
//! else is the library.

mod admin;
mod agents;
mod args;
mod bench;
mod call;
mod check;
mod log;
mod metrics;
mod run;
mod serve;
mod service;
mod signals;
#[cfg(feature = "top")]
mod top;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use args::{Cli, Command};

fn main() -> ExitCode {
    // Nobody types it, so it is no command: those are completed, hidden ones too.
    if std::env::args_os()
        .nth(1)
        .is_some_and(|first| first == bench::WORKER)
    {
        return bench::worker::run();
    }
    let cli = match Cli::try_parse_from(agents::registry_behind(std::env::args_os())) {
        Ok(cli) => cli,
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
    match cli.command {
        None => serve::run(&cli.serve),
        Some(Command::Agents(command)) => agents::run(command),
        Some(Command::Check(args)) => check::run(&args),
        Some(Command::Call(args)) => call::run(&args),
        Some(Command::Bench(args)) => bench::run(&args),
        Some(Command::Run(args)) => run::run(&args),
        #[cfg(feature = "top")]
        Some(Command::Top(args)) => top::run(&args),
        Some(Command::Completions { shell }) => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "stdio_bus", &mut script);
            print(&script)
        }
    }
}

/// A runtime with one thread, for what waits. The error is for the user.
fn runtime() -> Result<tokio::runtime::Runtime, String> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| format!("the runtime can't be started: {e}"))
}

/// Writes what was asked for.
fn print(text: &[u8]) -> ExitCode {
    match io::stdout().write_all(text) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(format_args!("stdout: {error}")),
    }
}

/// Tells the user why a command failed.
fn fail(message: impl std::fmt::Display) -> ExitCode {
    tell(message);
    ExitCode::FAILURE
}

/// A line for the user. Where stderr can't be written, nobody is there to hear it.
fn tell(message: impl std::fmt::Display) {
    let _ = writeln!(io::stderr(), "stdio_bus: {message}");
}
