//! A load through a plain connection: it writes what there is to write at once,
//! and reads as much as is there.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use memchr::memchr;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::sleep;

use super::load::Load;
use super::work::{Lines, Work};

const CHUNK: usize = 256 << 10;

/// Ids have seven digits for long, and those below them are for what isn't measured.
const FIRST_ID: u64 = 1_000_000;

/// Over a Unix socket or TCP.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

pub(super) struct Connection {
    stream: Box<dyn Stream>,
    output: Vec<u8>,
    written: usize,
    input: Vec<u8>,
    filled: usize,
    searched: usize,
}

/// The requests in flight: each has a slot, which its id names.
struct Flight<'a> {
    load: &'a Load,
    lines: Lines,
    slots: Vec<Slot>,
    open: u64,
}

struct Slot {
    id: u64,
    sent: Option<Instant>,
}

#[derive(Deserialize)]
struct Answer<'a> {
    id: Option<u64>,
    #[serde(borrow)]
    method: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

impl Connection {
    pub(super) fn new(stream: impl Stream + 'static) -> Self {
        Self {
            stream: Box::new(stream),
            output: Vec::new(),
            written: 0,
            input: vec![0; CHUNK],
            filled: 0,
            searched: 0,
        }
    }

    /// Shows the token, as a listener that asks for one wants it first.
    pub(super) async fn show(&mut self, token: &str) -> io::Result<()> {
        let params = serde_json::json!({"token": token});
        let line = serde_json::json!({
            "jsonrpc": "2.0", "id": 0, "method": "stdio_bus/auth", "params": params,
        });
        let refused = || io::Error::other("the bus refuses the token");
        self.stream
            .write_all(format!("{line}\n").as_bytes())
            .await?;
        let mut answer = Vec::new();
        while answer.last() != Some(&b'\n') {
            if self.stream.read_buf(&mut answer).await? == 0 {
                return Err(refused());
            }
        }
        match serde_json::from_slice(&answer) {
            Ok(Answer { error: None, .. }) => Ok(()),
            _ => Err(refused()),
        }
    }

    /// Sends so many requests that nobody waits for.
    pub(super) async fn hold(&mut self, work: &Work, count: u32) -> io::Result<()> {
        let mut lines = Lines::new(work);
        for n in 0..u64::from(count) {
            let line = lines.with(n + 1, n % work.sessions);
            self.output.extend_from_slice(line);
        }
        self.stream.write_all(&self.output).await?;
        self.output.clear();
        Ok(())
    }

    pub(super) async fn run(&mut self, load: &Load) {
        let mut flight = Flight::new(load);
        for slot in 0..flight.slots.len() {
            flight.send(slot, Instant::now(), &mut self.output);
        }
        let given_up = async {
            load.ended().await;
            sleep(load.work.timeout).await;
        };
        tokio::select! {
            biased;
            result = poll_fn(|cx| self.turn(&mut flight, cx)) => if let Err(error) = result {
                load.failed(format!("the connection: {error}"));
            },
            () = given_up => {}
        }
        load.lost(flight.open);
    }

    /// Moves what can be moved; ready when nothing is in flight.
    fn turn(&mut self, flight: &mut Flight<'_>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            self.write(cx)?;
            if flight.open == 0 {
                return Poll::Ready(Ok(()));
            }
            match self.read(cx)? {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(()) => self.take(flight)?,
            }
        }
    }

    /// Writes until it is empty, or the other end has no room.
    fn write(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        while self.written < self.output.len() {
            let rest = &self.output[self.written..];
            match Pin::new(&mut self.stream).poll_write(cx, rest)? {
                Poll::Ready(0) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(n) => self.written += n,
                Poll::Pending => return Ok(()),
            }
        }
        self.output.clear();
        self.written = 0;
        Ok(())
    }

    fn read(&mut self, cx: &mut Context<'_>) -> io::Result<Poll<()>> {
        if self.filled == self.input.len() {
            self.input.resize(2 * self.filled, 0);
        }
        let mut room = ReadBuf::new(&mut self.input[self.filled..]);
        match Pin::new(&mut self.stream).poll_read(cx, &mut room)? {
            Poll::Pending => Ok(Poll::Pending),
            Poll::Ready(()) if room.filled().is_empty() => {
                Err(io::Error::other("the bus has closed it"))
            }
            Poll::Ready(()) => {
                self.filled += room.filled().len();
                Ok(Poll::Ready(()))
            }
        }
    }

    /// Takes the answers out of what has been read, and puts the next requests in
    /// their places.
    fn take(&mut self, flight: &mut Flight<'_>) -> io::Result<()> {
        let now = Instant::now();
        let mut taken = 0;
        while let Some(at) = memchr(b'\n', &self.input[self.searched..self.filled]) {
            let end = self.searched + at;
            flight.answered(&self.input[taken..end], now, &mut self.output)?;
            (taken, self.searched) = (end + 1, end + 1);
        }
        self.input.copy_within(taken..self.filled, 0);
        self.filled -= taken;
        self.searched = self.filled;
        Ok(())
    }
}

impl<'a> Flight<'a> {
    fn new(load: &'a Load) -> Self {
        let count = u64::from(load.inflight);
        // The first id that names the first slot.
        let first = FIRST_ID.next_multiple_of(count);
        let slots = (0..count).map(|slot| Slot {
            id: first + slot,
            sent: None,
        });
        Self {
            load,
            lines: Lines::new(&load.work),
            slots: slots.collect(),
            open: 0,
        }
    }

    fn send(&mut self, slot: usize, now: Instant, output: &mut Vec<u8>) {
        let count = self.slots.len() as u64;
        let slot = &mut self.slots[slot];
        slot.id += count;
        slot.sent = Some(now);
        self.open += 1;
        let line = self.lines.with(slot.id, self.load.next_session());
        output.extend_from_slice(line);
    }

    /// The error is one after which nothing can be made of what comes.
    fn answered(&mut self, line: &[u8], now: Instant, output: &mut Vec<u8>) -> io::Result<()> {
        let answer: Answer<'_> = serde_json::from_slice(line).map_err(io::Error::other)?;
        if answer.method.is_some() {
            // Workers may tell things.
            return Ok(());
        }
        let of = answer.id.filter(|id| *id >= FIRST_ID);
        let slot = of.map(|id| (id % self.slots.len() as u64) as usize);
        let sent = slot.and_then(|slot| {
            let slot = &mut self.slots[slot];
            slot.sent.take_if(|_| Some(slot.id) == of)
        });
        let (Some(slot), Some(sent)) = (slot, sent) else {
            let text = format!("an answer that nobody waits for: {}", beginning(line));
            self.load.failed(text);
            return Ok(());
        };
        self.open -= 1;
        match answer.error {
            None => self.load.answered(sent, now),
            Some(error) => self.load.failed(format!(
                "answered with {}",
                beginning(error.get().as_bytes())
            )),
        }
        if self.load.goes_on() {
            self.send(slot, now, output);
        }
        Ok(())
    }
}

/// As much of a line as is worth showing.
fn beginning(line: &[u8]) -> String {
    const SHOWN: usize = 200;
    String::from_utf8_lossy(&line[..line.len().min(SHOWN)]).into_owned()
}
