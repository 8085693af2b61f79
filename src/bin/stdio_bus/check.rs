//! `stdio_bus check`: whether a configuration can be used, without starting
//! anything.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use stdiobus::{BusConfig, StdioBus};

#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// The configuration
    #[arg(value_name = "CONFIG")]
    config: PathBuf,
}

pub(crate) fn run(args: &CheckArgs) -> ExitCode {
    match check(&args.config) {
        Ok((report, warnings)) => {
            for warning in warnings {
                crate::tell(warning);
            }
            crate::print(report.as_bytes())
        }
        Err(message) => crate::fail(message),
    }
}

/// What it would start, and warnings. The error is for the user.
fn check(path: &Path) -> Result<(String, Vec<String>), String> {
    let shown = path.display();
    let builder = StdioBus::builder().config_path(path);
    let warnings = stdiobus::program::check(builder).map_err(|e| e.to_string())?;
    // The bus has read it; this only looks into it.
    let text = fs::read_to_string(path).map_err(|e| format!("{shown}: {e}"))?;
    let config: BusConfig = serde_json::from_str(&text).map_err(|e| format!("{shown}: {e}"))?;
    let mut report = format!("{shown} can be used\n");
    for pool in &config.pools {
        let (id, command) = (&pool.id, &pool.command);
        report += &match pool.instances {
            0 => format!("pool {id}: workers of the process only\n"),
            1 => format!("pool {id}: 1 worker, {command}\n"),
            n => format!("pool {id}: {n} workers, {command}\n"),
        };
    }
    Ok((report, warnings))
}
