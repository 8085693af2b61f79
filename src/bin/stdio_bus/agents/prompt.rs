//! Questions on stderr, answers from stdin: a line each, whoever writes them.

use std::io::{self, BufRead, IsTerminal, StdinLock, Write};

pub(super) struct Prompt {
    answers: StdinLock<'static>,
}

impl Prompt {
    pub(super) fn new() -> Self {
        Self {
            answers: io::stdin().lock(),
        }
    }

    /// The answer without the spaces around it; empty where a file or pipe has none
    /// left. Whoever ends the input of a terminal wants to go.
    pub(super) fn ask(&mut self, question: &str) -> io::Result<String> {
        let mut stderr = io::stderr().lock();
        write!(stderr, "{question}: ")?;
        stderr.flush()?;
        let mut answer = String::new();
        if self.answers.read_line(&mut answer)? == 0 {
            writeln!(stderr)?;
            if self.answers.is_terminal() {
                return Err(io::Error::other("cancelled: nothing is changed"));
            }
        }
        Ok(answer.trim().to_owned())
    }

    /// Whether the answer is yes.
    pub(super) fn confirm(&mut self, question: &str) -> io::Result<bool> {
        let answer = self.ask(&format!("{question} [y/N]"))?;
        Ok(is_yes(&answer))
    }
}

pub(super) fn is_yes(answer: &str) -> bool {
    matches!(answer.to_ascii_lowercase().as_str(), "y" | "yes")
}
