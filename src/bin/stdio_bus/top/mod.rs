//! `stdio_bus top`: a live view of a running bus, through its admin socket.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

#[derive(Debug, Args)]
pub(crate) struct TopArgs {
    /// The socket that the bus was given with --admin
    #[arg(long, value_name = "PATH")]
    admin: PathBuf,
}

pub(crate) fn run(args: &TopArgs) -> ExitCode {
    crate::fail(format_args!("{args:?}"))
}
