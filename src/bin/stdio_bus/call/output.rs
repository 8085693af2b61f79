//! Lines on stdout, written by a thread of its own: a reader that is slow stops
//! neither what is sent nor a signal.
//!
//! The bus closes a connection on which answers are left unread, so they are
//! taken as they come and wait here, up to a bound.

use std::fs::File;
use std::future::pending;
use std::io::{self, BufWriter, Write};
use std::os::fd::AsFd;
use std::pin::pin;
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
}

#[derive(Debug)]
struct Line {
    text: Vec<u8>,
    _room: OwnedSemaphorePermit,
}

/// Does what prints, until stdout fails, and waits until all of it is written.
pub(super) async fn print(
    work: impl AsyncFnOnce(&Output) -> Result<(), Failed>,
) -> Result<(), Failed> {
    let (lines, queue) = mpsc::unbounded_channel();
    let room = Arc::new(Semaphore::new(ROOM as usize));
    let output = Output { lines, room };
    let mut written = pin!(write_on_thread(queue)?);
    let result = tokio::select! {
        result = work(&output) => result,
        // While there is more to come it ends by a failure only.
        failed = &mut written => return failed,
    };
    drop(output);
    // What came before a failure is printed, too.
    let written = written.await;
    result.and(written)
}

impl Output {
    /// Adds a line, given without its end. Waits for room, for ever where stdout
    /// has failed: that ends the work.
    pub(super) async fn line(&self, text: Vec<u8>) {
        let bytes = u32::try_from(text.len()).unwrap_or(ROOM).clamp(1, ROOM);
        let room = Arc::clone(&self.room).acquire_many_owned(bytes).await;
        let line = room.ok().map(|room| Line { text, _room: room });
        if line.is_none_or(|line| self.lines.send(line).is_err()) {
            pending().await
        }
    }
}

/// Starts the thread. The future is its end.
fn write_on_thread(
    queue: mpsc::UnboundedReceiver<Line>,
) -> Result<impl Future<Output = Result<(), Failed>>, Failed> {
    let stdout = io::stdout().as_fd().try_clone_to_owned();
    let stdout = stdout.map_err(|e| Failed::stdout(&e))?;
    let (done, written) = oneshot::channel();
    thread::Builder::new()
        .name("stdout".into())
        .spawn(move || {
            let result = write(BufWriter::with_capacity(CHUNK, stdout.into()), queue);
            // Nobody waits where the program ends by a signal.
            let _ = done.send(result);
        })
        .map_err(|e| Failed::new(REJECTED, format!("no thread for stdout: {e}")))?;
    Ok(async {
        let gone = |_| Err(io::Error::other("the thread is gone"));
        let result = written.await.unwrap_or_else(gone);
        result.map_err(|e| Failed::stdout(&e))
    })
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
