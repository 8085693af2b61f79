//! Lines on stderr: `[YYYY-MM-DDTHH:MM:SS] [LEVEL] message`, in UTC.

use std::fmt;
use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use stdiobus::LogLevel;

/// Writes lines at or above its level.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Log {
    pub(crate) level: LogLevel,
}

impl Log {
    pub(crate) fn info(self, message: impl fmt::Display) {
        self.line(LogLevel::Info, message);
    }

    pub(crate) fn warn(self, message: impl fmt::Display) {
        self.line(LogLevel::Warn, message);
    }

    pub(crate) fn error(self, message: impl fmt::Display) {
        self.line(LogLevel::Error, message);
    }

    pub(crate) fn line(self, level: LogLevel, message: impl fmt::Display) {
        if level < self.level {
            return;
        }
        let name = match level {
            LogLevel::Debug => "DEBUG",
            LogLevel::Info => "INFO",
            LogLevel::Warn => "WARN",
            _ => "ERROR",
        };
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs();
        // One write, so that lines of several threads don't mix. With stderr
        // gone there is nobody to tell.
        let line = format!("[{}] [{name}] {message}\n", Timestamp(now));
        let _ = std::io::stderr().write_all(line.as_bytes());
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
