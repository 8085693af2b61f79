//! How a call ends that isn't answered with a result.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::process::ExitCode;

use stdiobus::Error;

/// What was given can't be used: as everywhere in the program.
pub(super) const REJECTED: u8 = 1;
/// The answer is an error.
pub(super) const ERROR: u8 = 2;
/// The bus isn't there, or doesn't let us in.
pub(super) const UNREACHABLE: u8 = 3;
/// There is no answer in time.
pub(super) const LATE: u8 = 4;
/// What a shell shows for SIGPIPE.
const CLOSED: u8 = 128 + 13;

/// An exit status, and what to say.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Failed {
    pub(super) code: u8,
    /// Nothing where the user knows, or has been told.
    text: Option<String>,
}

impl Failed {
    pub(super) fn new(code: u8, text: impl Into<String>) -> Self {
        Self {
            code,
            text: Some(format!("stdio_bus: {}", text.into())),
        }
    }

    pub(super) fn quiet(code: u8) -> Self {
        Self { code, text: None }
    }

    /// The answer is this error, whose number is `code`.
    pub(super) fn answer(code: i64, error: &Error) -> Self {
        let message = match error {
            Error::Rpc { message, .. } => message.clone(),
            other => other.to_string(),
        };
        let mut text = format!("error {code}: {}", one_line(&message));
        if let Some(data) = error.rpc_data() {
            // Writing to text can't fail.
            let _ = write!(text, " {data}");
        }
        Self {
            code: ERROR,
            text: Some(text),
        }
    }

    /// Who closes stdout has had enough, and needs no words.
    pub(super) fn stdout(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::quiet(CLOSED),
            _ => Self::new(REJECTED, format!("stdout: {error}")),
        }
    }

    pub(super) fn tell(self) -> ExitCode {
        if let Some(text) = self.text {
            say(&text);
        }
        ExitCode::from(self.code)
    }
}

/// A line on stderr. With stderr gone there is nobody to tell.
pub(super) fn say(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Text of others, without what would end the line or steer a terminal.
fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        match c.is_control() {
            true => line.extend(c.escape_default()),
            false => line.push(c),
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_one_line_whatever_a_worker_puts_in_it() {
        assert_eq!(one_line("a\nb\u{1b}[2J\u{e9}"), "a\\nb\\u{1b}[2J\u{e9}");
    }
}
