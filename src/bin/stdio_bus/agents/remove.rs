//! `stdio_bus remove`: an agent is taken out of the registry.

use clap::Args;
use stdiobus::agent::Registry;

use super::prompt::Prompt;
use super::{Failure, RegistryArgs, print, printable};

#[derive(Debug, Args)]
pub(crate) struct RemoveArgs {
    #[command(flatten)]
    registry: RegistryArgs,

    /// Don't ask
    #[arg(long)]
    yes: bool,

    /// The agent
    name: String,
}

pub(super) fn run(args: &RemoveArgs) -> Result<(), Failure> {
    let shown = printable(&args.name);
    args.registry.load()?.agent(&args.name)?;
    if !args.yes && !Prompt::new().confirm(&format!("Remove agent \"{shown}\"?"))? {
        return print("Cancelled\n");
    }
    Registry::update(args.registry.path(), |registry| registry.remove(&args.name))?;
    print(&format!("✓ Removed \"{shown}\"\n"))
}
