//! A view as text.

use super::format::width;
use super::view::{Table, View};

pub(super) fn text(view: &View) -> String {
    let mut out = String::new();
    for line in &view.header {
        out += line;
        out.push('\n');
    }
    if !view.losses.is_empty() {
        out += &format!("lost: {}\n", view.losses.join(", "));
    }
    for table in [&view.pools, &view.workers] {
        out.push('\n');
        out += &table_text(table);
    }
    out
}

/// Columns as wide as the widest of their cells, two blanks between them.
fn table_text(table: &Table) -> String {
    let heading: Vec<_> = table.heading.iter().map(ToString::to_string).collect();
    let widths = table.widths();
    let mut out = String::new();
    for cells in std::iter::once(&heading).chain(table.rows.iter().map(|row| &row.cells)) {
        let padded = cells.iter().zip(&widths).enumerate();
        let padded = padded.map(|(column, (cell, wanted))| {
            let blanks = " ".repeat(wanted.saturating_sub(width(cell)));
            match table.left.contains(&column) {
                true => format!("{cell}{blanks}"),
                false => format!("{blanks}{cell}"),
            }
        });
        let line = padded.collect::<Vec<_>>().join("  ");
        out += line.trim_end();
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::view::tests::{earlier, example};
    use super::*;

    #[test]
    fn a_view_is_a_page_of_aligned_text() {
        let page = text(&View::new(&example(), Some(&earlier())));
        let expected = "\
stdio_bus 0.1.0  pid 42  RUNNING  up 1m05s
clients 3  listening on /run/bus.sock, 127.0.0.1:4711
in 100/s 20.0kB/s  out 100/s 0B/s  pending 7  queued 2  sessions 5  outbox 0B
lost: dropped 4, late answers 1

POOL    READY  PENDING  QUEUED  SESSIONS  REQ/S    P50     P99  RESTARTS  OTHERS
tools     2/2        5       0         5    100  350us  12.5ms         0
agents    1/2        2       2         0      0      -       -         9  1 backoff

WORKER  POOL    PID  STATE    UPTIME  RESTARTS  PENDING
     0  tools   100  ready     1m04s         0        5
     1  tools   101  ready     1m04s         0        0
     2  agents  102  ready        3s         2        2
     3  agents    -  backoff      0s         7        0
";
        assert_eq!(page, expected);
    }

    #[test]
    fn columns_are_aligned_where_characters_are_wide() {
        let mut wide = example();
        wide.pools[0].id = "日本".into();
        let page = text(&View::new(&wide, None));
        assert!(page.contains("\n日本      2/2  "), "{page}");
        assert!(page.contains("\nagents    1/2  "), "{page}");
    }
}
