//! `stdio_bus call`: one request to a running bus, or lines of JSON from stdin.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

#[derive(Debug, Args)]
pub(crate) struct CallArgs {
    /// The bus's Unix socket
    #[arg(long, value_name = "PATH")]
    unix: Option<PathBuf>,
}

pub(crate) fn run(args: CallArgs) -> ExitCode {
    crate::fail(format_args!("{args:?}"))
}
