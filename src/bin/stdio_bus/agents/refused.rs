//! Commands that Society has and this program doesn't.

use std::ffi::OsString;

use clap::Args;

use super::Failure;

#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Refused {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    args: Vec<OsString>,
}

pub(super) fn run(command: &str) -> Result<(), Failure> {
    let text = format!(
        "{command} is out of scope here: agents are programs on stdin and stdout, run one by one or as pools"
    );
    Err(text.into())
}
