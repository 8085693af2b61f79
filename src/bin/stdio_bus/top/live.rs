//! The loop around the view: what comes from the bus, from the keyboard and as a
//! signal.

use std::io;
use std::thread;

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyEventKind};
use tokio::sync::{mpsc, watch};

use super::app::{App, Flow};
use super::source::{self, Source};
use super::{TopArgs, screen};
use crate::signals::Signals;

/// Until somebody quits. The error is for the user; the number is an exit code.
pub(super) async fn run(args: &TopArgs) -> Result<u8, String> {
    let mut signals = Signals::new().map_err(|e| format!("no signals: {e}"))?;
    let (updates, mut news) = mpsc::channel(1);
    let (wanted, selected) = watch::channel(None);
    let source = Source::new(&args.admin);
    tokio::spawn(source::follow(source, args.interval, selected, updates));
    let failed = |error: io::Error| format!("the terminal: {error}");
    let mut terminal = Guarded::open().map_err(failed)?;
    let mut keyboard = listen();
    let mut app = App::new();
    loop {
        let draw = terminal.0.draw(|frame| screen::draw(frame, &app));
        draw.map_err(failed)?;
        tokio::select! {
            update = news.recv() => match update {
                Some(update) => app.take(update),
                None => return Err("nobody asks the bus any more".into()),
            },
            event = keyboard.recv() => match event {
                Some(Ok(Event::Key(key))) if key.kind == KeyEventKind::Press => {
                    if app.key(key) == Flow::Quit {
                        return Ok(0);
                    }
                }
                // Another size is seen by drawing again.
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(failed(error)),
                None => return Err("the keyboard is gone".into()),
            },
            // SIGHUP: the terminal is gone, and whoever watched with it.
            signal = signals.any() => return Ok(signal.exit_code()),
        }
        wanted.send_if_modified(|wanted| {
            let changed = *wanted != app.selected;
            *wanted = app.selected;
            changed
        });
    }
}

/// What is typed. Reading blocks, so a thread does it; it ends with the process.
fn listen() -> mpsc::Receiver<io::Result<Event>> {
    let (events, queue) = mpsc::channel(16);
    thread::spawn(move || {
        loop {
            let event = event::read();
            let failed = event.is_err();
            if events.blocking_send(event).is_err() || failed {
                return;
            }
        }
    });
    queue
}

/// The terminal as a screen of our own. However this ends, by a panic as well, it
/// is as it was before.
struct Guarded(DefaultTerminal);

impl Guarded {
    fn open() -> io::Result<Self> {
        // Sets a hook as well, so that what a panic says is seen.
        let opened = ratatui::try_init();
        if opened.is_err() {
            // It may have got half of the way.
            let _ = ratatui::try_restore();
        }
        opened.map(Self)
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // Nobody can be told, if the terminal is gone.
        let _ = self.0.show_cursor();
        let _ = ratatui::try_restore();
    }
}
