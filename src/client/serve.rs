//! How a worker of this process gets its lines and gives its own.

use std::future::{Future, poll_fn};
use std::io::{self, ErrorKind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;

use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::WeakBus;
use super::handlers::{Answer, caught, report};
use super::service::ServiceCall;
use crate::driver::Handle;
use crate::error::RpcError;
use crate::rpc;

/// What a worker does with a call.
pub(super) type Service =
    Arc<dyn Fn(ServiceCall) -> Pin<Box<dyn Future<Output = Answer> + Send>> + Send + Sync>;

/// Calls that may run at once.
const MAX_OPEN: usize = 1024;

/// Lines that wait to be written. One more waits in its task.
const QUEUE: usize = 64;

/// Bytes taken in one read, and kept of the buffer after a large line.
const READ: usize = 64 << 10;

/// Serves until the bus has closed its ends; what still runs then is dropped.
pub(super) async fn serve(
    calls: UnixStream,
    answers: UnixStream,
    service: Service,
    bus: WeakBus,
    log: Handle,
) {
    let answers = Arc::new(answers);
    // The bus never writes there, so what can be read is the end: seen at once, also
    // while no call is taken.
    let mut closed = pin!(answers.readable());
    let mut serving = pin!(take(calls, Arc::clone(&answers), service, bus, log));
    poll_fn(|cx| match closed.as_mut().poll(cx) {
        Poll::Ready(_) => Poll::Ready(()),
        Poll::Pending => serving.as_mut().poll(cx),
    })
    .await;
}

/// Takes calls until no more can come.
async fn take(
    calls: UnixStream,
    answers: Arc<UnixStream>,
    service: Service,
    bus: WeakBus,
    log: Handle,
) {
    let (out, frames) = mpsc::channel(QUEUE);
    let mut tasks = JoinSet::new();
    tasks.spawn(write(answers, frames));
    let mut lines = Lines::default();
    let mut chunk = vec![0; READ];
    while let Ok(read) = next_chunk(&calls, &mut chunk).await {
        if read == 0 {
            return;
        }
        lines.push(&chunk[..read]);
        while let Some(line) = lines.next() {
            let call = ServiceCall::new(line, out.clone(), bus.clone());
            let (service, out, log) = (Arc::clone(&service), out.clone(), log.clone());
            room(&mut tasks).await;
            tasks.spawn(async move { answer(call, &service, &out, &log).await });
        }
    }
}

/// Waits until one more call may run.
async fn room(tasks: &mut JoinSet<()>) {
    poll_fn(|cx| {
        // What has ended makes room, and wakes this.
        while let Poll::Ready(Some(_)) = tasks.poll_join_next(cx) {}
        // One of them is the writer.
        match tasks.len() > MAX_OPEN {
            true => Poll::Pending,
            false => Poll::Ready(()),
        }
    })
    .await;
}

async fn next_chunk(from: &UnixStream, into: &mut [u8]) -> io::Result<usize> {
    loop {
        from.readable().await?;
        match from.try_read(into) {
            Err(reason) if reason.kind() == ErrorKind::WouldBlock => {}
            result => return result,
        }
    }
}

/// Writes lines until nobody has any more, or the bus doesn't want them.
async fn write(to: Arc<UnixStream>, mut frames: mpsc::Receiver<Vec<u8>>) {
    while let Some(mut frame) = frames.recv().await {
        frame.push(b'\n');
        let mut rest = frame.as_slice();
        while !rest.is_empty() {
            if to.writable().await.is_err() {
                return;
            }
            match to.try_write(rest) {
                Ok(written) => rest = &rest[written..],
                Err(reason) if reason.kind() == ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
    }
}

async fn answer(call: ServiceCall, service: &Service, out: &mpsc::Sender<Vec<u8>>, log: &Handle) {
    if call.is_answer() {
        // It asks nothing, so this is nobody's.
        return;
    }
    let id = call.id().map(|id| id.as_bytes().to_vec());
    let outcome = if call.is_readable() {
        let method = call.method().to_owned();
        match caught(|| service(call)).await {
            Ok(outcome) => outcome,
            Err(panic) => {
                report(log, &format!("the service of {method:?}"), &*panic);
                Err(RpcError::internal("The service panicked"))
            }
        }
    } else {
        Err(RpcError::new(-32700, "Parse error"))
    };
    if let Some(id) = id {
        // Where nobody writes any more the bus is gone.
        let _ = out.send(rpc::reply(&id, &outcome)).await;
    }
}

/// Cuts bytes into lines.
#[derive(Debug, Default)]
struct Lines {
    bytes: Vec<u8>,
    /// Where the next line begins, and how far there is none.
    start: usize,
    searched: usize,
}

impl Lines {
    fn push(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.start);
        self.searched -= self.start;
        self.start = 0;
        if self.bytes.is_empty() {
            self.bytes.shrink_to(READ);
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole line, without its newline.
    fn next(&mut self) -> Option<Vec<u8>> {
        let Some(len) = memchr::memchr(b'\n', &self.bytes[self.searched..]) else {
            self.searched = self.bytes.len();
            return None;
        };
        let end = self.searched + len;
        let line = self.bytes[self.start..end].to_vec();
        self.start = end + 1;
        self.searched = self.start;
        Some(line)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn lines_are_the_same_however_they_were_split(
            lines in prop::collection::vec("[a-z]{0,20}", 0..20),
            cuts in prop::collection::vec(1_usize..30, 1..20),
        ) {
            let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
            let (mut rest, mut cuts) = (text.as_bytes(), cuts.iter().cycle());
            let (mut splitter, mut got) = (Lines::default(), Vec::new());
            while !rest.is_empty() {
                let (now, later) = rest.split_at(rest.len().min(*cuts.next().expect("endless")));
                splitter.push(now);
                while let Some(line) = splitter.next() {
                    got.push(String::from_utf8(line).expect("text"));
                }
                rest = later;
            }
            prop_assert_eq!(got, lines);
        }
    }
}
