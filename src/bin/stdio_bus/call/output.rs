//! Lines on stdout, written by a thread of its own: a reader that is slow stops
//! neither what is sent nor a signal.
//!
//! The bus closes a connection on which answers are left unread, so they are
//! taken as they come and wait here, up to a bound.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::failed::{Failed, REJECTED};

/// Bytes that may wait for whoever reads stdout. A longer line waits alone.
const ROOM: u32 = 256 << 20;

/// Written in one go, where that much waits.
const CHUNK: usize = 64 << 10;

#[derive(Debug)]
pub(super) struct Output {
    lines: mpsc::UnboundedSender<Line>,
    room: Arc<Semaphore>,
    /// `None` once the end has been told.
    written: Option<oneshot::Receiver<io::Result<()>>>,
}

#[derive(Debug)]
struct Line {
    text: Vec<u8>,
    _room: OwnedSemaphorePermit,
}

impl Output {
    pub(super) fn open() -> Result<Self, Failed> {
        let stdout = io::stdout().as_fd().try_clone_to_owned();
        let stdout = stdout.map_err(|e| Failed::stdout(&e))?;
        let (lines, queue) = mpsc::unbounded_channel();
        let (done, written) = oneshot::channel();
        thread::Builder::new()
            .name("stdout".into())
            .spawn(move || {
                let result = write(BufWriter::with_capacity(CHUNK, stdout.into()), queue);
                // Nobody waits where the program ends by a signal.
                let _ = done.send(result);
            })
            .map_err(|e| Failed::new(REJECTED, format!("no thread for stdout: {e}")))?;
        Ok(Self {
            lines,
            room: Arc::new(Semaphore::new(ROOM as usize)),
            written: Some(written),
        })
    }

    /// Adds a line, given without its end. Waits for room.
    pub(super) async fn line(&mut self, text: Vec<u8>) -> Result<(), Failed> {
        let bytes = u32::try_from(text.len()).unwrap_or(ROOM).clamp(1, ROOM);
        let room = Arc::clone(&self.room).acquire_many_owned(bytes).await;
        let line = room.map(|room| Line { text, _room: room });
        match line.ok().map(|line| self.lines.send(line)) {
            Some(Ok(())) => Ok(()),
            _ => self.end().await,
        }
    }

    /// Waits until all has been written. A failure is told once, here or before.
    pub(super) async fn finish(mut self) -> Result<(), Failed> {
        let (none, _) = mpsc::unbounded_channel();
        self.lines = none;
        self.end().await
    }

    async fn end(&mut self) -> Result<(), Failed> {
        let panicked = || Err(io::Error::other("it is gone"));
        let Some(written) = self.written.take() else {
            return Ok(());
        };
        let result = written.await.unwrap_or_else(|_| panicked());
        result.map_err(|e| Failed::stdout(&e))
    }
}

/// Writes to the end of the queue, and keeps nothing back while nothing waits.
fn write(mut stdout: BufWriter<File>, mut queue: mpsc::UnboundedReceiver<Line>) -> io::Result<()> {
    while let Some(mut line) = queue.blocking_recv() {
        loop {
            line.text.push(b'\n');
            stdout.write_all(&line.text)?;
            match queue.try_recv() {
                Ok(next) => line = next,
                Err(_) => break,
            }
        }
        stdout.flush()?;
    }
    Ok(())
}
