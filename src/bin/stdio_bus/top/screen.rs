//! A view on a terminal of any size.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style, Stylize};
use ratatui::text::{Line, Text};
use ratatui::widgets::{Block, Borders, Clear, Paragraph, TableState, Wrap};

use super::app::{App, Link};
use super::view::{Table, Tone, View};

const KEYS: &str = "q quit  up/down select  p pause  ? help";

/// The widest column of text, so that figures have room.
const MAX_TEXT: usize = 24;

/// Blanks between columns.
const SPACING: u16 = 2;

/// Keys first: they are left where there is little room.
pub(super) const HELP: &str = "\
q, Esc, Ctrl-C   quit
up, down, k, j   select a worker
PgUp, PgDn       ten workers at once
Home, End        the first, the last
p                pause, go on
?                this help

READY     workers that take requests, of all
PENDING   requests without an answer yet
QUEUED    those that wait for a ready worker
SESSIONS  sessions that belong to a worker
REQ/S     requests since the last look
P50, P99  half of the answers were as fast,
          and 99 of 100, since the pool began
RESTARTS  of workers that had ended
OTHERS    workers that are not ready

Red is out of order, yellow on its way or
short of workers. The end of stderr is that
of the selected worker.";

pub(super) fn draw(frame: &mut Frame<'_>, app: &App) {
    let area = frame.area();
    match &app.view {
        Some(view) => draw_view(frame, app, view),
        None => {
            let [top, _, bottom] = rows(area, [1, u16::MAX, 1]);
            frame.render_widget(status(app).unwrap_or_default(), top);
            frame.render_widget(Line::from(KEYS).dim(), bottom);
        }
    }
    if app.help {
        draw_help(frame, area);
    }
}

/// Rows of these heights from top to bottom, what doesn't fit cut off; MAX is the rest.
fn rows<const N: usize>(area: Rect, heights: [u16; N]) -> [Rect; N] {
    Layout::vertical(heights.map(|height| match height {
        u16::MAX => Constraint::Fill(1),
        height => Constraint::Length(height),
    }))
    .areas(area)
}

fn draw_view(frame: &mut Frame<'_>, app: &App, view: &View) {
    let area = frame.area();
    let head = head(app, view);
    let head_height = (head.lines.len() as u16).min(area.height);
    let [top, below] = rows(area, [head_height, u16::MAX]);
    frame.render_widget(Paragraph::new(head), top);

    let [body, bottom] = rows(below, [u16::MAX, 1]);
    frame.render_widget(Line::from(KEYS).dim(), bottom);
    // A heading and a blank line belong to each table; half is for pools at most.
    let height = |table: &Table| (table.rows.len() as u16).saturating_add(2);
    let pools_height = height(&view.pools).min(body.height / 2);
    let rest = body.height - pools_height;
    // Stderr has what workers leave, and at least a third if that is enough for it.
    let stderr_height = match rest {
        0..9 => 0,
        rest => rest.saturating_sub(height(&view.workers)).max(rest / 3),
    };
    let [pools, workers, stderr] = rows(body, [pools_height, rest - stderr_height, stderr_height]);
    draw_table(frame, pools, &view.pools, None);
    draw_table(frame, workers, &view.workers, app.row());
    draw_stderr(frame, stderr, app);
}

/// What is to be said about the connection, if anything.
fn status(app: &App) -> Option<Line<'static>> {
    match &app.link {
        Link::Connecting => Some("connecting".into()),
        Link::Lost(reason) => {
            let text = format!("no answer, trying again: {reason}");
            Some(Line::from(text).fg(Color::Red))
        }
        Link::Connected if app.paused => Some(Line::from("paused").fg(Color::Yellow)),
        Link::Connected => None,
    }
}

/// The lines about the bus as a whole.
fn head(app: &App, view: &View) -> Text<'static> {
    let mut lines: Vec<Line<'static>> = status(app).into_iter().collect();
    let mut header = view.header.iter().cloned();
    let first = header.next().map(Line::from);
    lines.extend(first.map(|line| line.style(style_of(view.tone)).bold()));
    lines.extend(header.map(Line::from));
    if !view.losses.is_empty() {
        let losses = format!("lost: {}", view.losses.join(", "));
        lines.push(Line::from(losses).fg(Color::Yellow));
    }
    Text::from(lines)
}

fn style_of(tone: Tone) -> Style {
    match tone {
        Tone::Good => Style::new(),
        Tone::Poor => Style::new().fg(Color::Yellow),
        Tone::Bad => Style::new().fg(Color::Red),
    }
}

/// How wide the columns are that have room, the first in any case: a figure that is
/// cut is another figure. What is text may be cut, and the last takes the rest.
fn fitting(table: &Table, room: u16) -> Vec<Constraint> {
    let last = table.heading.len() - 1;
    let widths = table.widths().into_iter().enumerate();
    let widths = widths.map(|(column, width)| match table.left.contains(&column) {
        true if column == last => (table.heading[column].len(), true),
        true => (width.min(MAX_TEXT), false),
        false => (width, false),
    });
    let mut end = 0;
    let fits = widths.enumerate().take_while(|(column, (width, _))| {
        end += width;
        let fits = *column == 0 || end <= usize::from(room);
        end += usize::from(SPACING);
        fits
    });
    let constraint = |(_, (width, rest))| match rest {
        true => Constraint::Fill(1),
        false => Constraint::Length(width as u16),
    };
    fits.map(constraint).collect()
}

/// Below a blank line. With a selected row, so that it can be seen.
fn draw_table(frame: &mut Frame<'_>, area: Rect, table: &Table, selected: Option<usize>) {
    let [_, area] = rows(area, [1, u16::MAX]);
    let cell = |column: usize, text: &str| {
        let text = Text::from(text.to_owned());
        match table.left.contains(&column) {
            true => text.left_aligned(),
            false => text.right_aligned(),
        }
    };
    let widths = fitting(table, area.width);
    let row = |cells: &mut dyn Iterator<Item = &str>| {
        let cells = cells
            .take(widths.len())
            .enumerate()
            .map(|(column, text)| cell(column, text));
        ratatui::widgets::Row::new(cells.collect::<Vec<_>>())
    };
    let heading = row(&mut table.heading.iter().copied());
    let body = table.rows.iter().map(|line| {
        let row = row(&mut line.cells.iter().map(String::as_str));
        row.style(style_of(line.tone))
    });
    let shown = ratatui::widgets::Table::new(body, &widths)
        .header(heading.style(Modifier::BOLD))
        .column_spacing(SPACING)
        .row_highlight_style(Modifier::REVERSED);
    let mut state = TableState::new().with_selected(selected);
    frame.render_stateful_widget(shown, area, &mut state);
}

fn draw_stderr(frame: &mut Frame<'_>, area: Rect, app: &App) {
    let Some(worker) = app.selected else { return };
    let block = Block::new()
        .borders(Borders::TOP)
        .title(format!(" stderr of worker {worker} "));
    let room = usize::from(area.height.saturating_sub(1));
    let first = app.stderr.len().saturating_sub(room);
    let lines = app.stderr[first..].iter().map(|line| Line::from(&**line));
    let text = match app.stderr.is_empty() {
        true => Text::from("nothing").dim(),
        false => Text::from_iter(lines),
    };
    frame.render_widget(Paragraph::new(text).block(block), area);
}

fn draw_help(frame: &mut Frame<'_>, area: Rect) {
    let height = HELP.lines().count() as u16 + 2;
    let width = HELP.lines().map(str::len).max().unwrap_or(0) as u16 + 2;
    let area = area.centered(Constraint::Length(width), Constraint::Length(height));
    let block = Block::bordered().title(" help ");
    frame.render_widget(Clear, area);
    let text = Paragraph::new(HELP).wrap(Wrap { trim: false });
    frame.render_widget(text.block(block), area);
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use ratatui::buffer::Buffer;
    use ratatui::crossterm::event::{KeyCode, KeyModifiers};

    use super::super::source::Update;
    use super::super::view::tests::{earlier, example};
    use super::*;

    fn app() -> App {
        let mut app = App::new();
        for mut snapshot in [earlier(), example()] {
            snapshot.workers[0].stderr = (1..=100).map(|n| format!("line {n}")).collect();
            app.take(Update::Snapshot(Box::new(snapshot)));
        }
        app
    }

    fn drawn(app: &App, width: u16, height: u16) -> Buffer {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a screen");
        terminal.draw(|frame| draw(frame, app)).expect("drawn");
        terminal.backend().buffer().clone()
    }

    fn lines(buffer: &Buffer) -> Vec<String> {
        let cells = buffer.content();
        let rows = cells.chunks(usize::from(buffer.area.width).max(1));
        let rows = rows.map(|row| row.iter().map(|cell| cell.symbol()).collect::<String>());
        rows.map(|row| row.trim_end().to_owned()).collect()
    }

    fn colour_of(buffer: &Buffer, text: &str) -> Color {
        let row = lines(buffer).iter().position(|line| line.contains(text));
        let row = row.expect("it is there") as u16;
        let column = lines(buffer)[usize::from(row)].find(text).expect("there") as u16;
        buffer[(column, row)].fg
    }

    #[test]
    fn everything_is_on_a_screen_of_the_usual_size() {
        let expected = "\
stdio_bus 0.1.0  pid 42  RUNNING  up 1m05s
clients 3  listening on /run/bus.sock, 127.0.0.1:4711
in 100/s 20.0kB/s  out 100/s 0B/s  pending 7  queued 2  sessions 5  outbox 0B
lost: dropped 4, late answers 1

POOL    READY  PENDING  QUEUED  SESSIONS  REQ/S    P50     P99  RESTARTS  OTHERS
tools     2/2        5       0         5    100  350us  12.5ms         0
agents    1/2        2       2         0      0      -       -         9  1 back

WORKER  POOL    PID  STATE    UPTIME  RESTARTS  PENDING
     0  tools   100  ready     1m04s         0        5
     1  tools   101  ready     1m04s         0        0
     2  agents  102  ready        3s         2        2
     3  agents    -  backoff      0s         7        0
\u{20}stderr of worker 0 \u{2500}";
        let lines = lines(&drawn(&app(), 80, 24));
        for (line, expected) in lines.iter().zip(expected.lines()) {
            assert!(line.starts_with(expected), "{line:?} for {expected:?}");
        }
        assert_eq!(lines[15..23].first().map(String::as_str), Some("line 93"));
        assert_eq!(lines[22], "line 100");
        assert_eq!(lines[23], KEYS);
    }

    #[test]
    fn a_column_that_has_no_room_is_left_out_so_that_no_figure_is_cut() {
        let mut big = example();
        big.workers[0].pid = Some(4_194_304);
        let mut app = App::new();
        app.take(Update::Snapshot(Box::new(big)));
        let wide = lines(&drawn(&app, 120, 30));
        for width in 6..120 {
            let narrow = lines(&drawn(&app, width, 30));
            for (narrow, wide) in narrow[4..13].iter().zip(&wide[4..13]) {
                let cells = narrow.split_whitespace().zip(wide.split_whitespace());
                for (shown, whole) in cells.filter(|(_, whole)| whole.starts_with(char::is_numeric))
                {
                    assert_eq!(shown, whole, "{width} columns: {narrow}");
                }
            }
        }
        let narrow = lines(&drawn(&app, 40, 30));
        assert_eq!(narrow[5], "POOL    READY  PENDING  QUEUED  SESSIONS");
        assert_eq!(narrow[10], "     0  tools   4194304  ready     1m04s");
    }

    #[test]
    fn what_is_out_of_order_has_a_colour() {
        let buffer = drawn(&app(), 80, 24);
        assert_eq!(colour_of(&buffer, "tools "), Color::Reset);
        assert_eq!(colour_of(&buffer, "agents    1/2"), Color::Yellow);
        assert_eq!(colour_of(&buffer, "backoff      0s"), Color::Yellow);
        assert_eq!(colour_of(&buffer, "lost:"), Color::Yellow);
        let mut failed = example();
        (failed.pools[1].failed, failed.workers[3].state) = (1, "failed".into());
        let mut app = app();
        app.take(Update::Snapshot(Box::new(failed)));
        let buffer = drawn(&app, 80, 24);
        assert_eq!(colour_of(&buffer, "agents    1/2"), Color::Red);
    }

    #[test]
    fn a_bus_that_is_gone_is_said_to_be_above_what_it_told() {
        let mut app = App::new();
        assert_eq!(lines(&drawn(&app, 40, 5))[0], "connecting");
        app.take(Update::Lost("refused".into()));
        let first = "no answer, trying again: refused";
        assert_eq!(lines(&drawn(&app, 40, 5))[0], first);
        app.take(Update::Snapshot(Box::new(example())));
        assert!(lines(&drawn(&app, 80, 24))[0].starts_with("stdio_bus 0.1.0"));
        app.take(Update::Lost("refused".into()));
        let buffer = drawn(&app, 80, 24);
        assert_eq!(lines(&buffer)[0], first);
        assert_eq!(colour_of(&buffer, first), Color::Red);
        assert!(lines(&buffer)[1].starts_with("stdio_bus 0.1.0"));
    }

    #[test]
    fn a_selected_worker_is_in_sight_however_many_there_are() {
        let mut many = example();
        many.workers = (0..500)
            .map(|id| {
                let mut worker = many.workers[0].clone();
                worker.id = id;
                worker
            })
            .collect();
        let mut app = App::new();
        app.take(Update::Snapshot(Box::new(many)));
        app.key(KeyCode::End.into());
        let buffer = drawn(&app, 80, 24);
        let row = lines(&buffer)
            .iter()
            .position(|line| line.starts_with("   499"));
        let row = row.expect("in sight") as u16;
        assert!(buffer[(3, row)].modifier.contains(Modifier::REVERSED));
    }

    #[test]
    fn help_and_pause_show() {
        let mut app = app();
        app.key(KeyCode::Char('p').into());
        assert_eq!(lines(&drawn(&app, 80, 24))[0], "paused");
        app.key(ratatui::crossterm::event::KeyEvent::new(
            KeyCode::Char('?'),
            KeyModifiers::SHIFT,
        ));
        let page = lines(&drawn(&app, 80, 24)).join("\n");
        for line in HELP.lines() {
            assert!(page.contains(line), "{line}");
        }
    }

    #[test]
    fn a_screen_may_be_of_any_size() {
        let mut app = app();
        for help in [false, true] {
            app.help = help;
            for width in [0, 1, 2, 7, 30, 80] {
                for height in (0..16).chain([24]) {
                    drawn(&app, width, height);
                }
                drawn(&App::new(), width, width % 5);
            }
            drawn(&app, 1000, 300);
        }
        app.help = false;
        // What matters most is there to the last.
        assert!(lines(&drawn(&app, 20, 1))[0].starts_with("stdio_bus"));
    }
}
