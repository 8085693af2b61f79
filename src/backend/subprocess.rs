//! The program `stdio_bus` as a child: found, started, watched, ended.

use std::env;
use std::ffi::{CString, OsStr, OsString};
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};
use tokio::net::unix::pipe;
use tokio::process::{Child, ChildStderr, Command};
use tokio::time::{Instant, timeout_at};

use super::linked::{AGES, LAST_WORDS};
use super::mode::SubprocessOptions;
use super::wire::{CLOSED, Wire};
use crate::driver::LogLevel;
use crate::error::{Error, ErrorCode, Result};
use crate::native::{ConfigSource, Incoming, terminate, tie};
use crate::rpc::Lines;

const PROGRAM: &str = "stdio_bus";

/// What the program says on stderr once it serves.
const READY: &str = "stdio Bus kernel ready, entering main loop";

/// The longest line of its stderr; longer ones come in pieces.
const MAX_LINE: usize = 16 << 10;

/// How much of what it says before it serves is kept.
const EARLY: usize = 1000;

/// What a program that doesn't start has to say for itself.
const LAST_LINES: usize = 5;

/// What is needed to start it.
#[derive(Debug)]
pub(crate) struct Launch {
    pub(crate) options: SubprocessOptions,
    pub(crate) config: ConfigSource,
    pub(crate) log_level: LogLevel,
    /// How long a drain may take, where the configuration says.
    pub(crate) drain_limit: Option<Duration>,
}

/// The configuration, and the pipe it goes into once the program reads it.
type Unsent = (pipe::Sender, CString);

/// The program while it runs.
pub(super) struct Program {
    pub(super) child: Child,
    pub(super) errors: Errors,
    /// How it ended, in words.
    pub(super) exit: Option<String>,
    killed: bool,
}

/// Its stderr, line by line.
pub(super) struct Errors {
    stream: Option<ChildStderr>,
    chunk: Vec<u8>,
    lines: Lines,
    log_level: LogLevel,
    pub(super) incoming: Vec<Incoming>,
    last: Vec<String>,
    ready: bool,
}

impl Launch {
    /// Starts the program and waits until it serves.
    pub(super) async fn start(&self, into: &mut Vec<Incoming>) -> Result<(Program, Wire)> {
        let limit = self.options.start_timeout;
        let deadline = Instant::now() + limit.min(AGES);
        let (mut program, wire, config) = self.spawn()?;
        let started = timeout_at(deadline, async {
            send_config(config).await?;
            program.ready().await
        })
        .await
        .unwrap_or_else(|_| {
            let text = format!("{PROGRAM} is not ready within {limit:?}");
            Err(io::Error::other(text))
        });
        into.append(&mut program.errors.incoming);
        match started {
            Ok(()) => Ok((program, wire)),
            Err(error) => {
                let _ = program.child.kill().await;
                let text = program.errors.explain(&error.to_string());
                Err(Error::new(ErrorCode::Unavailable, text).with_source(error))
            }
        }
    }

    fn spawn(&self) -> Result<(Program, Wire, Option<Unsent>)> {
        let path = find_program(self.options.binary_path.as_deref())?;
        let unavailable = |error: io::Error| {
            let text = format!("{}: {error}", path.display());
            Error::new(ErrorCode::Unavailable, text).with_source(error)
        };
        let mut command = Command::new(&path);
        command
            .args(["--stdio", "--log-level", self.level()])
            .envs(&self.options.env)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // The terminal's signals are for us, and we end it.
            .process_group(0)
            .kill_on_drop(true);
        let mut kept = None;
        let config = match &self.config {
            ConfigSource::Path(path) => {
                command
                    .arg("--config")
                    .arg(OsStr::from_bytes(path.to_bytes()));
                None
            }
            ConfigSource::Json(json) => {
                let (reader, writer) = io::pipe().map_err(unavailable)?;
                command.args(["--config-fd", &reader.as_raw_fd().to_string()]);
                kept = Some(reader);
                let writer = pipe::Sender::from_owned_fd(OwnedFd::from(writer));
                Some((writer.map_err(unavailable)?, json.clone()))
            }
        };
        tie(command.as_std_mut(), kept.as_ref().map(AsRawFd::as_raw_fd));
        let mut child = command.spawn().map_err(unavailable)?;
        drop(kept);
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(Error::new(ErrorCode::Internal, "the program has no pipes"));
        };
        let program = Program {
            errors: Errors::new(child.stderr.take(), self.log_level),
            child,
            exit: None,
            killed: false,
        };
        let wire = Wire::new(Box::new(stdout), Box::new(stdin));
        Ok((program, wire, config))
    }

    /// At least what says that it is ready.
    fn level(&self) -> &'static str {
        match self.log_level {
            LogLevel::Debug => "debug",
            _ => "info",
        }
    }
}

async fn send_config(config: Option<Unsent>) -> io::Result<()> {
    let Some((mut pipe, json)) = config else {
        return Ok(());
    };
    match pipe.write_all(json.to_bytes()).await {
        // It has gone, and its stderr says why.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

/// The path given, else beside the current executable, else in `PATH`.
fn find_program(given: Option<&Path>) -> Result<PathBuf> {
    if let Some(path) = given {
        return Ok(path.to_owned());
    }
    let beside = env::current_exe()
        .ok()
        .and_then(|exe| Some(exe.parent()?.join(PROGRAM)));
    let path = env::var_os("PATH").unwrap_or_else(|| OsString::from("/usr/bin:/bin"));
    let in_path = env::split_paths(&path).map(|folder| folder.join(PROGRAM));
    let mut places = beside.into_iter().chain(in_path);
    places.find(|place| is_program(place)).ok_or_else(|| {
        let text = format!(
            "{PROGRAM} is neither beside the current executable nor in PATH: \
             set SubprocessOptions::binary_path"
        );
        Error::new(ErrorCode::Unavailable, text)
    })
}

fn is_program(path: &Path) -> bool {
    let executable = |meta: fs::Metadata| meta.is_file() && meta.permissions().mode() & 0o111 != 0;
    fs::metadata(path).is_ok_and(executable)
}

impl Program {
    /// Waits until it says that it serves.
    async fn ready(&mut self) -> io::Result<()> {
        let errors = &mut self.errors;
        let ready = std::future::poll_fn(|cx| {
            while errors.poll(cx).is_ready() {}
            match (errors.ready, &errors.stream) {
                (false, Some(_)) => Poll::Pending,
                (ready, _) => Poll::Ready(ready),
            }
        });
        if ready.await {
            return Ok(());
        }
        // Who closes its stderr before that is about to end.
        let exit = in_words(self.child.wait().await);
        Err(io::Error::other(format!("{PROGRAM} ended with {exit}")))
    }

    pub(super) fn ended(&mut self, result: io::Result<ExitStatus>) {
        self.exit = Some(in_words(result));
    }

    /// It has ended, as far as can be known.
    pub(super) fn is_gone(&self) -> bool {
        self.exit.is_some() || self.killed
    }

    /// It has ended, and all that it has said was read.
    pub(super) fn is_over(&self) -> bool {
        self.exit.is_some() && self.errors.stream.is_none()
    }

    pub(super) fn terminate(&self) {
        if let (None, Some(pid)) = (&self.exit, self.child.id()) {
            terminate(pid);
        }
    }

    pub(super) fn kill(&mut self) {
        // It may have ended by now.
        let _ = self.child.start_kill();
        self.killed = true;
    }

    /// Why it can't be spoken to any more. `reason` is that of its pipes.
    pub(super) fn explain(&self, reason: Option<&str>) -> String {
        let what = match (&self.exit, reason) {
            (Some(exit), _) => format!("{PROGRAM} ended with {exit}"),
            (None, Some(CLOSED) | None) => format!("{PROGRAM} has closed its stdout"),
            (None, Some(reason)) => format!("{PROGRAM} can't be spoken to: {reason}"),
        };
        self.errors.explain(&what)
    }
}

/// A host may ignore how its children end, or look itself.
fn in_words(result: io::Result<ExitStatus>) -> String {
    match result {
        Ok(status) => status.to_string(),
        Err(_) => "an unknown status".into(),
    }
}

impl Errors {
    fn new(stream: Option<ChildStderr>, log_level: LogLevel) -> Self {
        Self {
            stream,
            chunk: vec![0; MAX_LINE],
            lines: Lines::new(MAX_LINE),
            log_level,
            incoming: Vec::new(),
            last: Vec::new(),
            ready: false,
        }
    }

    /// Ready if anything was read.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(stream) = &mut self.stream else {
            return Poll::Pending;
        };
        let mut buf = ReadBuf::new(&mut self.chunk);
        match std::pin::Pin::new(stream).poll_read(cx, &mut buf) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Ok(())) if !buf.filled().is_empty() => {
                self.lines.push(buf.filled());
                while let Some(line) = self.lines.piece() {
                    self.line(&line);
                }
                if !self.ready {
                    // Nobody takes them before the program serves.
                    let many = self.incoming.len().saturating_sub(EARLY);
                    self.incoming.drain(..many);
                }
            }
            Poll::Ready(_) => {
                self.stream = None;
                if let Some(line) = self.lines.rest() {
                    self.line(&line);
                }
            }
        }
        Poll::Ready(())
    }

    fn line(&mut self, line: &[u8]) {
        let line = String::from_utf8_lossy(line).into_owned();
        self.ready |= line.contains(READY);
        if self.last.len() == LAST_LINES {
            self.last.remove(0);
        }
        self.last.push(line.clone());
        let (level, message) = level_of(&line);
        if level >= self.log_level {
            self.incoming
                .push(Incoming::Log(level.to_c(), message.to_owned()));
        }
        self.incoming.push(Incoming::Stderr(line));
    }

    /// What happened, with its last words.
    fn explain(&self, what: &str) -> String {
        if self.last.is_empty() {
            return what.to_owned();
        }
        format!("{what}; its last lines: {}", self.last.join("\n"))
    }
}

/// The level and the message of a line like `[time] [LEVEL] message`. Others are
/// those of workers.
fn level_of(line: &str) -> (LogLevel, &str) {
    let parts = || {
        let (_, rest) = line.strip_prefix('[')?.split_once("] [")?;
        let (level, message) = rest.split_once("] ")?;
        let level = match level {
            "DEBUG" => LogLevel::Debug,
            "INFO" => LogLevel::Info,
            "WARN" => LogLevel::Warn,
            "ERROR" => LogLevel::Error,
            _ => return None,
        };
        Some((level, message))
    };
    parts().unwrap_or((LogLevel::Debug, line))
}

/// When a stop lets it be: SIGTERM, and SIGKILL.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ladder {
    pub(super) terminate: Option<Instant>,
    pub(super) kill: Instant,
}

impl Ladder {
    /// For what may still come when it has ended or been killed.
    pub(super) fn last() -> Self {
        Self {
            terminate: None,
            kill: Instant::now() + LAST_WORDS,
        }
    }

    /// Within the limit: its input ends, it drains, gets SIGTERM, and SIGKILL.
    ///
    /// However short the limit is, it has the time to kill its workers: those that
    /// ignore everything else would outlive it.
    pub(super) fn within(limit: Duration, drain: Duration) -> Self {
        const GRACE: Duration = Duration::from_secs(5);
        let (now, limit) = (Instant::now(), limit.min(AGES));
        let patience = limit.saturating_sub(GRACE).max(limit / 2).min(drain);
        Self {
            terminate: Some(now + patience),
            kill: now + limit.min(patience + GRACE).max(LAST_WORDS),
        }
    }

    /// After a SIGTERM. The first may only have made it drain, so that another
    /// one follows, and so on until SIGKILL.
    pub(super) fn terminated(self, now: Instant) -> Self {
        const PAUSE: Duration = Duration::from_millis(100);
        Self {
            terminate: Some(now + PAUSE).filter(|at| *at < self.kill),
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_program_has_its_level_and_others_are_of_workers() {
        let line = "[2026-01-01T00:00:00] [WARN] a [b] c";
        assert_eq!(level_of(line), (LogLevel::Warn, "a [b] c"));
        for line in ["", "[x", "[a] [b] c", "oops [1] [INFO] x"] {
            assert_eq!(level_of(line), (LogLevel::Debug, line));
        }
    }

    #[test]
    fn a_program_that_is_named_is_not_looked_for() {
        let path = find_program(Some(Path::new("/no/such"))).expect("as given");
        assert_eq!(path, Path::new("/no/such"));
    }
}
