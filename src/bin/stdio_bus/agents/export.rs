//! `stdio_bus export`: the registry as text.

use std::path::PathBuf;

use clap::Args;

use super::{Failure, RegistryArgs, print};

#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    #[command(flatten)]
    registry: RegistryArgs,

    /// Write it to a file
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(super) fn run(args: &ExportArgs) -> Result<(), Failure> {
    let registry = args.registry.load()?;
    match &args.output {
        Some(path) => Ok(registry.export(path)?),
        None => print(&registry.to_json()),
    }
}
