//! A line of JSON-RPC each way, over whatever carries bytes: how a bus is spoken
//! to that isn't in this process.

use std::io;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Refusal;
use crate::error::{Error, ErrorCode};
use crate::native::{FrameKind, Incoming, RawFrame, own_id};
use crate::rpc::{Glance, Kind, Lines, Relations, release};
use crate::stats::Stats;

/// The longest line that is read. Both ends take what they have agreed on; this
/// only keeps a stranger from filling the memory.
const MAX_LINE: usize = 256 << 20;

/// What may wait to be written before more is refused. Requests have a smaller
/// budget of their own.
const MAX_OUTBOX: usize = 256 << 20;

/// Read in one go, and how many of these make a turn.
const CHUNK: usize = 64 << 10;
const CHUNKS_PER_TURN: usize = 16;

/// How often a wire that can't be written to is still looked at when it says
/// nothing, and how long it is read when it does.
const LOOKS: u8 = 3;
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Why nothing more comes, where nothing went wrong.
pub(super) const CLOSED: &str = "it was closed";

pub(crate) type Reader = Box<dyn AsyncRead + Unpin + Send>;
pub(crate) type Writer = Box<dyn AsyncWrite + Unpin + Send>;

pub(super) struct Wire {
    reader: Reader,
    /// `None` once nothing more is to be said.
    writer: Option<Writer>,
    /// The writer goes when all is written.
    closing: bool,
    chunk: Vec<u8>,
    lines: Lines,
    outbox: BytesMut,
    relations: Relations,
    incoming: Vec<Incoming>,
    /// Why nothing more comes.
    ended: Option<String>,
    broken: Option<Broken>,
    stats: Stats,
}

/// A wire that can't be written to.
struct Broken {
    reason: String,
    looks: u8,
    until: Instant,
}

impl Wire {
    pub(super) fn new(reader: Reader, writer: Writer) -> Self {
        Self {
            reader,
            writer: Some(writer),
            closing: false,
            chunk: vec![0; CHUNK],
            lines: Lines::new(MAX_LINE),
            outbox: BytesMut::new(),
            relations: Relations::default(),
            incoming: Vec::new(),
            ended: None,
            broken: None,
            stats: Stats::default(),
        }
    }

    /// Queues a frame. Of a request it is noted what belongs to it.
    pub(super) fn submit(&mut self, frame: &[u8]) -> Result<(), Refusal> {
        if self.is_mute() {
            return Err(Refusal::Stopped(Error::shutting_down()));
        }
        if !self.outbox.is_empty() && self.outbox.len() + frame.len() > MAX_OUTBOX {
            return Err(Refusal::Other(Error::new(
                ErrorCode::ResourceExhausted,
                format!("more than {MAX_OUTBOX} bytes wait for the bus"),
            )));
        }
        self.note(frame);
        self.put(frame);
        self.stats.messages_in += 1;
        self.stats.bytes_in += frame.len() as u64;
        Ok(())
    }

    /// Whether nothing more can be said.
    fn is_mute(&self) -> bool {
        self.writer.is_none() || self.closing
    }

    fn note(&mut self, frame: &[u8]) {
        if let Some(glance) = Glance::read(frame)
            && let Kind::Request { id } = &glance.kind
            && let Some(id) = own_id(id.as_bytes())
        {
            self.relations.insert(id, glance);
        }
    }

    fn put(&mut self, frame: &[u8]) {
        self.outbox.extend_from_slice(frame);
        self.outbox.extend_from_slice(b"\n");
    }

    /// Tells the bus that a request is given up.
    pub(super) fn cancel(&mut self, id: u64) {
        if !self.relations.waits_for(id) {
            return;
        }
        let stays = self.relations.give_up(id);
        self.say_cancelled(id, None);
        if stays {
            // A second time, for the answer: what comes before it may have been
            // sent before the bus knew.
            self.say_cancelled(id, Some(&fence(id)));
        }
    }

    fn say_cancelled(&mut self, id: u64, fence: Option<&str>) {
        if self.is_mute() {
            return;
        }
        let own = fence
            .map(|own| format!(r#""id":{own},"#))
            .unwrap_or_default();
        let frame = format!(
            r#"{{"jsonrpc":"2.0",{own}"method":"stdio_bus/cancel","params":{{"requestId":{id}}}}}"#
        );
        self.put(frame.as_bytes());
    }

    /// Gives up everything, and says nothing more once that is written.
    pub(super) fn close(&mut self) {
        let ids: Vec<u64> = self.relations.ids().collect();
        for id in ids {
            self.relations.give_up(id);
            self.say_cancelled(id, None);
        }
        self.closing = true;
        self.close_if_written();
    }

    fn close_if_written(&mut self) {
        if self.closing && self.outbox.is_empty() {
            self.writer = None;
        }
    }

    /// Whether all that was to be said has been written.
    pub(super) fn is_closed(&self) -> bool {
        self.writer.is_none()
    }

    pub(super) fn pending(&self) -> usize {
        self.relations.len()
    }

    pub(super) fn is_idle(&self) -> bool {
        self.relations.is_empty() && self.outbox.is_empty()
    }

    pub(super) fn ended(&self) -> Option<&str> {
        self.ended.as_deref()
    }

    pub(super) fn take_incoming(&mut self, into: &mut Vec<Incoming>) {
        into.append(&mut self.incoming);
    }

    pub(super) fn stats(&self) -> Stats {
        Stats {
            outbox_bytes: self.outbox.len() as u64,
            pending: self.relations.len() as u64,
            ..self.stats.clone()
        }
    }

    /// Writes and reads what can be. Ready if that was anything.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let wrote = self.poll_write(cx);
        let read = self.poll_read(cx);
        let moved = wrote || read;
        if self.is_given_up(moved, cx) || moved {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }

    /// Writes what can be, without waiting.
    pub(super) fn flush(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_write(cx);
        Poll::Ready(())
    }

    /// Ends a wire that can't be written to once there is nothing left to read,
    /// which is only known when the runtime has had its turn, or its time is over.
    fn is_given_up(&mut self, moved: bool, cx: &mut Context<'_>) -> bool {
        let Some(broken) = &mut self.broken else {
            return false;
        };
        let reads_on = Instant::now() < broken.until && (moved || broken.looks > 0);
        if reads_on {
            if !moved {
                broken.looks -= 1;
                cx.waker().wake_by_ref();
            }
            return false;
        }
        let reason = mem::take(&mut broken.reason);
        self.broken = None;
        self.end(reason);
        true
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> bool {
        let mut moved = false;
        while let Some(writer) = self.writer.as_mut().filter(|_| !self.outbox.is_empty()) {
            match Pin::new(writer).poll_write(cx, &self.outbox) {
                Poll::Pending => return moved,
                Poll::Ready(Ok(len)) if len > 0 => self.outbox.advance(len),
                Poll::Ready(result) => {
                    self.writer = None;
                    self.outbox.clear();
                    let reason = result.err().unwrap_or(io::ErrorKind::WriteZero.into());
                    // What it still has to say comes first.
                    self.broken = Some(Broken {
                        reason: reason.to_string(),
                        looks: LOOKS,
                        until: Instant::now() + LAST_WORDS,
                    });
                    return true;
                }
            }
            moved = true;
        }
        if moved {
            release(&mut self.outbox);
        }
        self.close_if_written();
        moved
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> bool {
        let mut moved = false;
        for _ in 0..CHUNKS_PER_TURN {
            if self.ended.is_some() {
                return moved;
            }
            let mut buf = ReadBuf::new(&mut self.chunk);
            let end = match Pin::new(&mut self.reader).poll_read(cx, &mut buf) {
                Poll::Pending => return moved,
                Poll::Ready(Ok(())) if buf.filled().is_empty() => CLOSED.to_owned(),
                Poll::Ready(Err(error)) => error.to_string(),
                Poll::Ready(Ok(())) => {
                    self.lines.push(buf.filled());
                    match self.take_lines() {
                        Ok(()) => String::new(),
                        Err(reason) => reason,
                    }
                }
            };
            moved = true;
            if !end.is_empty() {
                self.end(end);
            }
        }
        moved
    }

    fn end(&mut self, reason: String) {
        self.ended.get_or_insert(reason);
    }

    fn take_lines(&mut self) -> Result<(), String> {
        loop {
            match self.lines.next() {
                Ok(Some(line)) => self.take(line),
                Ok(None) => return Ok(()),
                Err(_) => return Err(format!("a message has more than {MAX_LINE} bytes")),
            }
        }
    }

    fn take(&mut self, line: Vec<u8>) {
        let glance = Glance::read(&line);
        if let Some(id) = glance.as_ref().and_then(fenced) {
            self.relations.remove(id);
            return;
        }
        self.stats.messages_out += 1;
        self.stats.bytes_out += line.len() as u64;
        let Some(glance) = glance else {
            self.stats.worker_garbage += 1;
            let warning = "the bus sent a line that is no JSON object";
            self.incoming.push(Incoming::Log(2, warning.into()));
            return;
        };
        let mut from_bus = false;
        let mut request = None;
        let kind = match &glance.kind {
            Kind::Response { id, from_bus: own } => {
                from_bus = *own;
                let id = id.as_ref().and_then(|id| own_id(id.as_bytes()));
                let waited = id.filter(|id| self.relations.remove(*id));
                self.stats.late_answers += u64::from(waited.is_none());
                FrameKind::Response { id: waited }
            }
            Kind::Request { id } => FrameKind::Request {
                id: id.clone().into_bytes(),
            },
            Kind::Notification => FrameKind::Notification,
        };
        if !matches!(kind, FrameKind::Response { .. }) {
            request = self.relations.find(&glance);
        }
        self.incoming.push(Incoming::Frame(RawFrame {
            kind,
            from_bus,
            worker: -1,
            generation: 0,
            request,
            data: line,
        }));
    }
}

/// The id under which the bus is asked whether it knows that a request is given
/// up.
fn fence(id: u64) -> String {
    format!(r#""{FENCE}{id}""#)
}

const FENCE: &str = "stdio_bus/cancel ";

/// The request whose end the bus knows of by this answer.
fn fenced(answer: &Glance) -> Option<u64> {
    let Kind::Response { id: Some(id), .. } = &answer.kind else {
        return None;
    };
    let id = id
        .strip_prefix('"')?
        .strip_prefix(FENCE)?
        .strip_suffix('"')?;
    own_id(id.as_bytes())
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    #[test]
    fn who_reads_nothing_more_and_never_stops_talking_is_given_up_in_time() {
        let (deaf, gone) = tokio::io::duplex(1);
        drop(gone);
        let mut wire = Wire::new(Box::new(tokio::io::repeat(b'\n')), Box::new(deaf));
        wire.submit(br#"{"id":1,"method":"m"}"#).expect("taken");
        let began = Instant::now();
        let mut cx = Context::from_waker(Waker::noop());
        while wire.ended().is_none() {
            assert!(wire.poll(&mut cx).is_ready());
            assert!(began.elapsed() < 10 * LAST_WORDS, "it is still read");
        }
        assert!(began.elapsed() >= LAST_WORDS);
    }
}
