//! Figures and text, short enough for a table.

use ratatui::text::Span;

/// A number with three digits or so: `0`, `0.25`, `9.5`, `120`, `1.2k`.
pub(super) fn number(value: f64) -> String {
    let (mut value, mut unit) = (value, 0);
    const UNITS: [&str; 5] = ["", "k", "M", "G", "T"];
    // What would be shown as four digits.
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let digits = match value {
        v if v == 0.0 || v >= 99.5 || (unit == 0 && v.fract() == 0.0) => format!("{v:.0}"),
        v if v >= 0.995 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    };
    digits + UNITS[unit]
}

/// The same for what isn't always known.
pub(super) fn rate(value: Option<f64>) -> String {
    value.map_or_else(|| "-".into(), number)
}

/// `512B`, `1.2kB`, `3MB`.
pub(super) fn bytes(value: f64) -> String {
    number(value) + "B"
}

/// Microseconds: `350us`, `1.2ms`, `15s`, `2m05s`.
pub(super) fn micros(us: u64) -> String {
    match us {
        0..1_000 => format!("{us}us"),
        1_000..100_000 => format!("{:.1}ms", us as f64 / 1e3),
        100_000..1_000_000 => format!("{}ms", us / 1_000),
        1_000_000..60_000_000 => format!("{:.1}s", us as f64 / 1e6),
        _ => duration(us / 1_000),
    }
}

/// Milliseconds, to the second: `3s`, `2m05s`, `1h02m`, `3d04h`.
pub(super) fn duration(ms: u64) -> String {
    let seconds = ms / 1_000;
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{minutes}m{:02}s", seconds % 60),
        3_600..86_400 => format!("{hours}h{:02}m", minutes % 60),
        _ => format!("{days}d{:02}h", hours % 24),
    }
}

/// How many columns of a terminal this takes: some characters take two, some none.
pub(super) fn width(text: &str) -> usize {
    Span::raw(text).width()
}

/// Text of others without what would move the cursor or change colours.
pub(super) fn clean(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\t' => out.push_str("    "),
            '\x1b' => skip_escape(&mut chars),
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
    out
}

/// The rest of a sequence: `ESC [ ... letter`, `ESC ] ... BEL`, or `ESC` and one more.
fn skip_escape(chars: &mut std::str::Chars<'_>) {
    match chars.next() {
        Some('[') => {
            chars.find(|c| ('\x40'..='\x7e').contains(c));
        }
        Some(']') => {
            // Ended by BEL, or by ESC \.
            let end = chars.find(|c| matches!(c, '\x07' | '\x1b'));
            if end == Some('\x1b') {
                chars.next();
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits_or_so() {
        for (value, text) in [
            (0.0, "0"),
            (0.004, "0.00"),
            (0.25, "0.25"),
            (1.0, "1"),
            (9.54, "9.5"),
            (99.4, "99.4"),
            (99.6, "100"),
            (999.4, "999"),
            (999.6, "1.0k"),
            (1_234.0, "1.2k"),
            (123_456.0, "123k"),
            (999_600.0, "1.0M"),
            (7.2e15, "7200T"),
        ] {
            assert_eq!(number(value), text, "{value}");
        }
        assert_eq!(
            (rate(None), rate(Some(2.0))),
            ("-".to_owned(), "2".to_owned())
        );
        assert_eq!(bytes(1_234.0), "1.2kB");
    }

    #[test]
    fn times_have_the_unit_that_suits_them() {
        for (us, text) in [
            (0, "0us"),
            (999, "999us"),
            (1_250, "1.2ms"),
            (123_456, "123ms"),
            (1_500_000, "1.5s"),
            (125_000_000, "2m05s"),
        ] {
            assert_eq!(micros(us), text);
        }
        for (seconds, text) in [
            (59, "59s"),
            (60, "1m00s"),
            (3_720, "1h02m"),
            (86_400 * 3 + 3_600 * 4, "3d04h"),
        ] {
            assert_eq!(duration(seconds * 1_000), text);
        }
    }

    #[test]
    fn a_width_is_what_a_terminal_needs() {
        for (text, columns) in [
            ("", 0),
            ("tools", 5),
            ("ä", 1),
            ("a\u{301}", 1),
            ("日本", 4),
        ] {
            assert_eq!(width(text), columns, "{text}");
        }
    }

    #[test]
    fn text_of_others_has_no_power_over_the_terminal() {
        for (text, shown) in [
            ("plain ä", "plain ä"),
            ("a\tb\r\u{7}", "a    b"),
            ("\x1b[1;31mred\x1b[0m!", "red!"),
            ("\x1b]0;title\x07x\x1b]0;t\x1b\\y", "xy"),
            ("\x1bcz", "z"),
            ("open \x1b[31", "open "),
            ("open \x1b", "open "),
            ("c1 \u{9b}31m", "c1 31m"),
        ] {
            assert_eq!(clean(text), shown, "{text:?}");
        }
    }
}
