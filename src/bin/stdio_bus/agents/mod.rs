//! The commands around agents and their registry.

mod call;
mod export;
mod import;
mod list;
mod onboard;
mod ping;
mod prompt;
mod refused;
mod remove;
mod send;

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use stdiobus::agent::Registry;

use crate::signals::Signal;

#[derive(Debug, Subcommand)]
pub(crate) enum AgentCommand {
    /// Add an agent to the registry, by questions
    Onboard(onboard::OnboardArgs),
    /// List the agents of the registry
    List(list::ListArgs),
    /// Remove an agent from the registry
    Remove(remove::RemoveArgs),
    /// See whether an agent answers
    Ping(ping::PingArgs),
    /// Send a message to an agent, and print what it says
    Send(send::SendArgs),
    /// Print the registry
    Export(export::ExportArgs),
    /// Add the agents of another registry
    Import(import::ImportArgs),
    #[command(hide = true)]
    Discover(refused::Refused),
    #[command(hide = true)]
    Daemon(refused::Refused),
    #[command(hide = true)]
    Mcp(refused::Refused),
    #[command(hide = true)]
    Skill(refused::Refused),
    #[command(hide = true)]
    Update(refused::Refused),
}

/// Where the registry is.
#[derive(Debug, Args)]
pub(crate) struct RegistryArgs {
    /// The registry [default: $SOCIETY_REGISTRY, else ./registry.json if there is
    /// one, else ~/.society/registry.json]
    #[arg(long, value_name = "PATH")]
    registry: Option<PathBuf>,
}

impl RegistryArgs {
    fn path(&self) -> PathBuf {
        Registry::locate(self.registry.as_deref())
    }

    fn load(&self) -> Result<Registry, Failure> {
        Ok(Registry::load(self.path())?)
    }
}

/// Why a command ends with another status than 0.
#[derive(Debug)]
enum Failure {
    /// For the user.
    Error(String),
    /// What is to be said has been said.
    Told,
    Signal(Signal),
}

impl From<String> for Failure {
    fn from(text: String) -> Self {
        Self::Error(text)
    }
}

impl From<stdiobus::Error> for Failure {
    fn from(error: stdiobus::Error) -> Self {
        Self::Error(error.to_string())
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Error(error.to_string())
    }
}

pub(crate) fn run(command: AgentCommand) -> ExitCode {
    let result = match command {
        AgentCommand::Onboard(args) => onboard::run(&args),
        AgentCommand::List(args) => list::run(&args),
        AgentCommand::Remove(args) => remove::run(&args),
        AgentCommand::Ping(args) => ping::run(&args),
        AgentCommand::Send(args) => send::run(&args),
        AgentCommand::Export(args) => export::run(&args),
        AgentCommand::Import(args) => import::run(&args),
        AgentCommand::Discover(_) => refused::run("discover"),
        AgentCommand::Daemon(_) => refused::run("daemon"),
        AgentCommand::Mcp(_) => refused::run("mcp"),
        AgentCommand::Skill(_) => refused::run("skill"),
        AgentCommand::Update(_) => refused::run("update"),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Told) => ExitCode::FAILURE,
        Err(Failure::Signal(signal)) => ExitCode::from(signal.exit_code()),
        Err(Failure::Error(message)) => {
            eprintln!("error: {}", printable(&message));
            ExitCode::FAILURE
        }
    }
}

/// `--registry` may stand before the command as well: moves it behind.
pub(crate) fn registry_behind(args: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut args: Vec<OsString> = args.collect();
    let words = match args.get(1).and_then(|first| first.to_str()) {
        Some("--registry") => 2,
        Some(first) if first.starts_with("--registry=") => 1,
        _ => return args,
    };
    if args.len() > 1 + words {
        args[1..=1 + words].rotate_left(words);
    }
    args
}

/// Prints what was asked for.
fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    Ok(stdout.flush()?)
}

/// Text of others on a terminal: what could steer that is shown instead.
fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' | '\t' => shown.push(c),
            c if c.is_control() => shown.extend(c.escape_default()),
            c => shown.push(c),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_registry_may_be_named_before_the_command() {
        let behind = |args: &str| {
            let args = args.split(' ').map(OsString::from);
            let words = registry_behind(args).into_iter();
            words
                .map(|word| word.into_string().expect("text"))
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert_eq!(
            behind("p --registry r send --fail a b"),
            "p send --registry r --fail a b"
        );
        assert_eq!(behind("p --registry=r list"), "p list --registry=r");
        assert_eq!(behind("p send a --registry r"), "p send a --registry r");
        assert_eq!(behind("p --registry"), "p --registry");
        assert_eq!(behind("p --registry r"), "p --registry r");
        assert_eq!(behind("p"), "p");
    }

    #[test]
    fn what_could_steer_a_terminal_is_shown() {
        assert_eq!(printable("a\u{1b}[2J\u{9b}é\n"), "a\\u{1b}[2J\\u{9b}é\n");
    }
}
