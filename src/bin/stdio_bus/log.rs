//! Lines on stderr: `[YYYY-MM-DDTHH:MM:SS] [LEVEL] message`, in UTC, the level in
//! colour on a terminal; or objects with the same three. Between them, as they came,
//! lines of workers.
//!
//! A thread of its own writes them, so that a stderr that nobody reads stops
//! neither the bus nor a signal; lines beyond the queue are counted instead.

use std::fmt;
use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use stdiobus::LogLevel;

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

    pub(crate) fn line(&self, level: LogLevel, message: impl fmt::Display) {
        if level < self.level {
            return;
        }
        self.queue(self.style.line(level, message));
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
        let time = Timestamp(now.unwrap_or_default().as_secs());
        let (name, colour) = match level {
            LogLevel::Debug => ("DEBUG", 2),
            LogLevel::Info => ("INFO", 32),
            LogLevel::Warn => ("WARN", 33),
            _ => ("ERROR", 31),
        };
        match self {
            Self::Plain => format!("[{time}] [{name}] {message}\n"),
            Self::Colour => format!("[{time}] [\x1b[{colour}m{name}\x1b[0m] {message}\n"),
            Self::Json => {
                let (time, message) = (format!("{time}Z"), message.to_string());
                let object = serde_json::json!({"time": time, "level": name, "message": message});
                format!("{object}\n")
            }
        }
    }
}

/// Seconds since 1970, shown as date and time in UTC.
struct Timestamp(u64);

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, second) = (self.0 / 86_400, self.0 % 86_400);
        let (year, month, day) = date(days);
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}"
        )
    }
}

/// The date so many days after 1970-01-01. Counts in years that begin with
/// March, where the leap day comes last, and in eras of 400 years.
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468; // from 0000-03-01
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
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
        let object: serde_json::Value = serde_json::from_str(&line).expect("JSON");
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
            assert_eq!(Timestamp(seconds).to_string(), text);
        }
    }
}
