//! What is shown, and what keys do to it.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::format::clean;
use super::snapshot::Snapshot;
use super::source::Update;
use super::view::View;

/// Whether there is an answer from the bus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Link {
    Connecting,
    Connected,
    /// Why not; it is tried again.
    Lost(String),
}

#[derive(Debug)]
pub(super) struct App {
    pub(super) link: Link,
    /// The last one; of a bus that is gone, too.
    pub(super) view: Option<View>,
    pub(super) paused: bool,
    pub(super) help: bool,
    /// The number of a worker.
    pub(super) selected: Option<u64>,
    /// The end of its stderr.
    pub(super) stderr: Vec<String>,
    before: Option<Snapshot>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flow {
    GoOn,
    Quit,
}

impl App {
    pub(super) fn new() -> Self {
        Self {
            link: Link::Connecting,
            view: None,
            paused: false,
            help: false,
            selected: None,
            stderr: Vec::new(),
            before: None,
        }
    }

    pub(super) fn take(&mut self, update: Update) {
        match update {
            Update::Lost(reason) => self.link = Link::Lost(clean(&reason)),
            Update::Snapshot(_) | Update::Stderr(..) if self.paused => self.link = Link::Connected,
            Update::Snapshot(now) => {
                self.link = Link::Connected;
                self.show(*now);
            }
            Update::Stderr(worker, lines) => {
                if self.selected == Some(worker) {
                    self.set_stderr(&lines);
                }
            }
        }
    }

    fn show(&mut self, now: Snapshot) {
        let view = View::new(&now, self.before.as_ref());
        self.selected = nearest(&view.worker_ids, self.selected);
        let of_selected = now
            .workers
            .iter()
            .find(|worker| Some(worker.id) == self.selected);
        // It may have been asked for another one.
        match of_selected.map(|worker| &worker.stderr) {
            Some(lines) if !lines.is_empty() => self.set_stderr(lines),
            Some(_) => {}
            None => self.stderr.clear(),
        }
        self.view = Some(view);
        self.before = Some(now);
    }

    fn set_stderr(&mut self, lines: &[String]) {
        self.stderr = lines.iter().map(|line| clean(line)).collect();
    }

    pub(super) fn key(&mut self, key: KeyEvent) -> Flow {
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('c') if control => return Flow::Quit,
            KeyCode::Char('q') => return Flow::Quit,
            KeyCode::Esc if self.help => self.help = false,
            KeyCode::Esc => return Flow::Quit,
            KeyCode::Char('?') => self.help = !self.help,
            KeyCode::Char('p') => self.paused = !self.paused,
            KeyCode::Down | KeyCode::Char('j') => self.select(|at, _| at + 1),
            KeyCode::Up | KeyCode::Char('k') => self.select(|at, _| at.saturating_sub(1)),
            KeyCode::PageDown => self.select(|at, _| at + 10),
            KeyCode::PageUp => self.select(|at, _| at.saturating_sub(10)),
            KeyCode::Home => self.select(|_, _| 0),
            KeyCode::End => self.select(|_, last| last),
            _ => {}
        }
        Flow::GoOn
    }

    /// Where the selected worker is in the table.
    pub(super) fn row(&self) -> Option<usize> {
        let ids = &self.view.as_ref()?.worker_ids;
        ids.iter().position(|id| Some(*id) == self.selected)
    }

    fn select(&mut self, to: impl Fn(usize, usize) -> usize) {
        let (Some(row), Some(view)) = (self.row(), &self.view) else {
            return;
        };
        let last = view.worker_ids.len() - 1;
        let selected = Some(view.worker_ids[to(row, last).min(last)]);
        if selected != self.selected {
            self.selected = selected;
            // What was there is another one's.
            self.stderr.clear();
        }
    }
}

/// The same as before, or where that is gone the next one.
fn nearest(ids: &[u64], selected: Option<u64>) -> Option<u64> {
    let wanted = selected.unwrap_or(0);
    let next = ids.iter().find(|id| **id >= wanted);
    next.or(ids.last()).copied()
}

#[cfg(test)]
mod tests {
    use super::super::view::tests::{earlier, example};
    use super::*;

    fn press(app: &mut App, code: KeyCode) -> Flow {
        app.key(KeyEvent::new(code, KeyModifiers::NONE))
    }

    fn shown(snapshot: Snapshot) -> App {
        let mut app = App::new();
        app.take(Update::Snapshot(Box::new(snapshot)));
        app
    }

    #[test]
    fn q_escape_and_control_c_quit_and_nothing_else_does() {
        let mut app = shown(example());
        assert_eq!(press(&mut app, KeyCode::Char('q')), Flow::Quit);
        assert_eq!(press(&mut app, KeyCode::Esc), Flow::Quit);
        let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert_eq!(app.key(interrupt), Flow::Quit);
        for code in [KeyCode::Char('c'), KeyCode::Char('x'), KeyCode::Enter] {
            assert_eq!(press(&mut app, code), Flow::GoOn);
        }
        // Help is left first.
        press(&mut app, KeyCode::Char('?'));
        assert_eq!(
            (press(&mut app, KeyCode::Esc), app.help),
            (Flow::GoOn, false)
        );
    }

    #[test]
    fn the_selection_moves_and_stays_within_the_workers() {
        let mut app = App::new();
        press(&mut app, KeyCode::Down);
        assert_eq!(app.selected, None);
        app.take(Update::Snapshot(Box::new(example())));
        assert_eq!(app.selected, Some(0));
        for (code, selected) in [
            (KeyCode::Up, 0),
            (KeyCode::Down, 1),
            (KeyCode::Char('j'), 2),
            (KeyCode::Char('k'), 1),
            (KeyCode::End, 3),
            (KeyCode::PageDown, 3),
            (KeyCode::PageUp, 0),
        ] {
            press(&mut app, code);
            assert_eq!(app.selected, Some(selected), "{code:?}");
        }
    }

    #[test]
    fn the_selection_goes_to_the_next_worker_when_its_own_is_gone() {
        let mut app = shown(example());
        press(&mut app, KeyCode::Down);
        let mut fewer = example();
        fewer.workers.remove(1);
        app.take(Update::Snapshot(Box::new(fewer.clone())));
        assert_eq!((app.selected, app.row()), (Some(2), Some(1)));
        fewer.workers.truncate(1);
        app.take(Update::Snapshot(Box::new(fewer.clone())));
        assert_eq!(app.selected, Some(0));
        fewer.workers.clear();
        app.take(Update::Snapshot(Box::new(fewer)));
        assert_eq!((app.selected, app.row()), (None, None));
        press(&mut app, KeyCode::Down);
    }

    #[test]
    fn the_end_of_stderr_is_that_of_the_selected_worker() {
        let mut app = shown(example());
        app.take(Update::Stderr(0, vec!["\x1b[31mone".into()]));
        assert_eq!(app.stderr, ["one"]);
        press(&mut app, KeyCode::Down);
        assert!(app.stderr.is_empty());
        app.take(Update::Stderr(0, vec!["one".into()]));
        assert!(app.stderr.is_empty());
        let mut with_lines = example();
        with_lines.workers[1].stderr = vec!["two".into()];
        app.take(Update::Snapshot(Box::new(with_lines)));
        assert_eq!(app.stderr, ["two"]);
    }

    #[test]
    fn while_paused_nothing_changes_and_afterwards_rates_are_over_all_of_it() {
        let mut app = shown(earlier());
        let paused = app.view.clone();
        press(&mut app, KeyCode::Char('p'));
        let mut between = earlier();
        between.uptime_ms += 1_000;
        app.take(Update::Snapshot(Box::new(between)));
        assert_eq!(app.view, paused);
        press(&mut app, KeyCode::Char('p'));
        app.take(Update::Snapshot(Box::new(example())));
        let view = app.view.expect("shown");
        assert!(view.header[2].starts_with("in 100/s"), "{}", view.header[2]);
    }

    #[test]
    fn a_bus_that_goes_away_is_said_to_and_what_it_told_stays() {
        let mut app = shown(earlier());
        app.take(Update::Lost("refused".into()));
        assert_eq!(app.link, Link::Lost("refused".into()));
        assert!(app.view.is_some());
        // Another one at the same place has no rates yet.
        let mut other = example();
        other.pid = 7;
        app.take(Update::Snapshot(Box::new(other)));
        assert_eq!(app.link, Link::Connected);
        let view = app.view.expect("shown");
        assert!(view.header[2].starts_with("in -/s"), "{}", view.header[2]);
    }
}
