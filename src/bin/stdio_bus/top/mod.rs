//! `stdio_bus top`: a live view of a running bus, through its admin socket.
//!
//! What the bus tells (`snapshot`, asked for by `source`) becomes what is to be seen
//! (`view`), which `plain` prints and `screen` draws. `app` is what keys change, and
//! `live` the loop around all of it.

mod app;
mod format;
mod live;
mod plain;
mod screen;
mod snapshot;
mod source;
mod view;

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use source::Source;
use view::View;

#[derive(Debug, Args)]
#[command(after_help = screen::HELP)]
pub(crate) struct TopArgs {
    /// The socket that the bus was given with --admin
    #[arg(long, value_name = "PATH")]
    admin: PathBuf,

    /// How often the bus is asked, and what rates are over
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = parse_interval)]
    interval: Duration,

    /// Print one view as text and exit, for pipes and files
    #[arg(long)]
    once: bool,
}

fn parse_interval(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(seconds) if (0.1..=3600.0).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("a number of seconds from 0.1 to 3600 is needed".into()),
    }
}

pub(crate) fn run(args: &TopArgs) -> ExitCode {
    if !args.once && !io::stdout().is_terminal() {
        return crate::fail("stdout is no terminal; --once prints one view as text");
    }
    let result = crate::runtime().and_then(|runtime| {
        let result = match args.once {
            true => runtime.block_on(once(args)).map(|()| 0),
            false => runtime.block_on(live::run(args)),
        };
        // The thread that reads keys ends with the process only.
        runtime.shutdown_background();
        result
    });
    match result {
        Ok(code) => ExitCode::from(code),
        Err(message) => crate::fail(message),
    }
}

/// Asks twice, so that there are rates.
async fn once(args: &TopArgs) -> Result<(), String> {
    let mut source = Source::new(&args.admin);
    let first = source.snapshot(None).await?;
    tokio::time::sleep(args.interval).await;
    let second = source.snapshot(None).await?;
    let text = plain::text(&View::new(&second, Some(&first)));
    let mut stdout = io::stdout().lock();
    let written = stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush());
    written.map_err(|e| format!("stdout: {e}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_is_a_number_of_seconds_within_reason() {
        assert_eq!(parse_interval("0.5"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_interval("3600"), Ok(Duration::from_secs(3600)));
        for bad in ["", "0", "-1", "1s", "nan", "inf", "3601", "0.09"] {
            assert!(parse_interval(bad).is_err(), "{bad}");
        }
    }
}
