//! Lines on stderr: `[YYYY-MM-DDTHH:MM:SS] [LEVEL] message`, in UTC, the level in
//! colour on a terminal; or objects with the same three. Between them, as they came,
//! lines of workers.
//!
//! A thread of its own writes them, so that a stderr that nobody reads stops
//! neither the bus nor a signal; lines beyond the queue are counted instead.

use std::fmt;
use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use stdiobus::LogLevel;
use stdiobus::program::utc;

use crate::args::LogFormat;

/// Bytes of lines that may wait for a slow stderr.
const QUEUE: usize = 256 << 10;

/// How long the end of the program waits for what is queued.
const FLUSH: Duration = Duration::from_secs(1);

/// Queues lines at or above its level.
#[derive(Debug, Clone)]
pub(crate) struct Log {
    pub(crate) level: LogLevel,
    style: Style,
    lines: Sender<Item>,
    /// Bytes in the queue.
    queued: Arc<AtomicUsize>,
    dropped: Arc<AtomicU64>,
    /// The last error, see [`Log::failure`].
    error: Arc<Mutex<String>>,
}

enum Item {
    Line(String),
    /// Everything before it has been written once this is dropped.
    Flush(SyncSender<()>),
}

impl Log {
    pub(crate) fn new(level: LogLevel, format: LogFormat) -> Self {
        let style = Style::new(format);
        let (lines, queue) = channel();
        let (queued, dropped) = (Arc::<AtomicUsize>::default(), Arc::<AtomicU64>::default());
        let counters = (Arc::clone(&queued), Arc::clone(&dropped));
        // Without the thread the queue has no end to read from, and lines are
        // dropped: no reason not to run.
        let _ = thread::Builder::new()
            .name("log".into())
            .spawn(move || write_lines(style, &queue, &counters.0, &counters.1));
        Self {
            level,
            style,
            lines,
            queued,
            dropped,
            error: Arc::default(),
        }
    }

    pub(crate) fn info(&self, message: impl fmt::Display) {
        self.line(LogLevel::Info, message);
    }

    pub(crate) fn warn(&self, message: impl fmt::Display) {
        self.line(LogLevel::Warn, message);
    }

    pub(crate) fn error(&self, message: impl fmt::Display) {
        self.line(LogLevel::Error, message);
    }

    /// An error that the bus may have logged itself, word for word: once is enough.
    pub(crate) fn failure(&self, message: &str) {
        if *self.last_error() != *message {
            self.error(message);
        }
    }

    fn last_error(&self) -> MutexGuard<'_, String> {
        self.error.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn line(&self, level: LogLevel, message: impl fmt::Display) {
        if level < self.level {
            return;
        }
        let message = message.to_string();
        let line = self.style.line(level, &message);
        if level == LogLevel::Error {
            *self.last_error() = message;
        }
        self.queue(line);
    }

    /// What a worker wrote to stderr, which is ours as well.
    pub(crate) fn as_it_came(&self, line: &str) {
        self.queue(format!("{line}\n"));
    }

    fn queue(&self, line: String) {
        let bytes = line.len();
        let room = |queued: usize| (queued + bytes <= QUEUE).then_some(queued + bytes);
        let taken = self
            .queued
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, room);
        if taken.is_err() || self.lines.send(Item::Line(line)).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until what is queued has been written, for a bounded time.
    pub(crate) fn flush(&self) {
        let (done, written) = sync_channel(0);
        if self.lines.send(Item::Flush(done)).is_ok() {
            // Nothing is ever sent: the other end is dropped.
            let _: Result<(), RecvTimeoutError> = written.recv_timeout(FLUSH);
        }
    }
}

fn write_lines(style: Style, queue: &Receiver<Item>, queued: &AtomicUsize, dropped: &AtomicU64) {
    // With stderr gone there is nobody to tell.
    for item in queue {
        match item {
            Item::Line(line) => {
                let _ = std::io::stderr().write_all(line.as_bytes());
                queued.fetch_sub(line.len(), Ordering::Relaxed);
            }
            Item::Flush(done) => drop(done),
        }
        let lost = dropped.swap(0, Ordering::Relaxed);
        if lost > 0 {
            let line = style.line(
                LogLevel::Warn,
                format_args!("{lost} lines were dropped: stderr was not read"),
            );
            let _ = std::io::stderr().write_all(line.as_bytes());
        }
    }
}

/// How a line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Style {
    Plain,
    Colour,
    Json,
}

impl Style {
    fn new(format: LogFormat) -> Self {
        let colour = || {
            // https://no-color.org
            let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
            std::io::stderr().is_terminal() && !unwanted
        };
        match format {
            LogFormat::Json => Self::Json,
            LogFormat::Text if colour() => Self::Colour,
            LogFormat::Text => Self::Plain,
        }
    }

    /// One line is one write, so that lines of several writers don't mix.
    fn line(self, level: LogLevel, message: impl fmt::Display) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let time = utc(now.unwrap_or_default().as_secs());
        let (name, colour) = match level {
            LogLevel::Debug => ("DEBUG", 2),
            LogLevel::Info => ("INFO", 32),
            LogLevel::Warn => ("WARN", 33),
            _ => ("ERROR", 31),
        };
        match self {
            Self::Plain => format!("[{time}] [{name}] {message}\n"),
            Self::Colour => format!("[{time}] [\x1b[{colour}m{name}\x1b[0m] {message}\n"),
            // By hand, so that the members have this order whatever serde_json's features.
            Self::Json => {
                let message = Value::from(message.to_string());
                format!("{{\"time\":\"{time}Z\",\"level\":\"{name}\",\"message\":{message}}}\n")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_text_or_an_object() {
        let text = Style::Plain.line(LogLevel::Warn, "a \"b\"");
        assert!(
            text.starts_with('[') && text.ends_with("] [WARN] a \"b\"\n"),
            "{text}"
        );
        let line = Style::Json.line(LogLevel::Error, "a \"b\"\n");
        let object: Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(
            (&object["level"], &object["message"]),
            (&"ERROR".into(), &"a \"b\"\n".into())
        );
        assert_eq!(line.matches('\n').count(), 1);
        assert!(
            Style::Colour
                .line(LogLevel::Info, "x")
                .contains("\x1b[32mINFO\x1b[0m")
        );
    }

    #[test]
    fn times_are_shown_in_utc() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00"),
            (951_782_399, "2000-02-28T23:59:59"),
            (951_782_400, "2000-02-29T00:00:00"),
            (1_709_251_200, "2024-03-01T00:00:00"),
            (4_102_444_799, "2099-12-31T23:59:59"),
        ] {
            assert_eq!(utc(seconds).to_string(), text);
        }
    }
}
