//! An agent that is called: many requests at once over the pipes of one process.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::Value;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};

use super::options::StdioOptions;
use super::process::{self, Pipes};
use super::task::{METHOD, Task, TaskRequest};
use crate::driver::Tail;
use crate::error::{Error, ErrorCode, Result, WorkerExit};
use crate::rpc::{self, Glance, Kind, Route};

/// So many bytes may wait for the agent to read them; a longer request waits
/// until it is the only one.
const MAX_QUEUED: usize = 64 << 20;

/// What is kept of the agent's stderr, and what of that is in the text of an error.
const TAIL: usize = 20;
const LAST_WORDS: usize = 3;

/// An agent as a process of one's own, spoken to over its stdin and stdout.
///
/// Clones are the same agent. Any number of requests may be on their way at once;
/// their answers may come in any order. When the last clone is dropped, the agent is
/// ended in the background, as by [`close`](Self::close); when the runtime ends
/// first, it and its process group are killed.
///
/// ```no_run
/// use stdiobus::agent::{StdioOptions, StdioTransport, TaskRequest};
///
/// # async fn example() -> stdiobus::Result<()> {
/// let args = ["run", "--config", "examples/agents/echo.yaml", "--stdio"];
/// let options = StdioOptions::new("stdio_bus").args(args);
/// let agent = StdioTransport::open(options).await?;
/// let task = agent.send(&TaskRequest::text("thread-1", "hello")).await?;
/// println!("{:?}: {:?}", task.status.state, task.texts().collect::<Vec<_>>());
/// agent.close().await;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct StdioTransport {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    queue: mpsc::UnboundedSender<Outgoing>,
    closing: watch::Sender<Option<Duration>>,
    done: watch::Receiver<bool>,
    pid: u32,
    timeout: Option<Duration>,
    max_line: usize,
}

/// A line on its way to the agent.
pub(super) struct Outgoing {
    pub(super) line: Vec<u8>,
    /// The request it is, by key and serial number.
    pub(super) request: Option<(String, u64)>,
    pub(super) _room: OwnedSemaphorePermit,
}

/// What those who ask and the task that reads and writes have in common.
pub(super) struct Shared {
    pub(super) name: String,
    room: Arc<Semaphore>,
    table: Mutex<Table>,
    tail: Mutex<Tail>,
    /// Messages that nobody has waited for.
    pub(super) unclaimed: AtomicU64,
    started: Instant,
}

#[derive(Default)]
struct Table {
    requests: HashMap<String, Waiting>,
    serial: u64,
    closing: bool,
    /// Why there are no more answers.
    ended: Option<(String, WorkerExit)>,
}

struct Waiting {
    serial: u64,
    /// Whether any of it may have reached the agent.
    written: bool,
    /// Dropped with what it was put in for, when the agent ends.
    answer: Option<oneshot::Sender<Result<Vec<u8>>>>,
}

impl StdioTransport {
    /// Starts the agent: looks for its program first, and opens its pipes.
    ///
    /// # Errors
    /// - `InvalidArgument`: there is no command.
    /// - `Unavailable`: the command is not in `PATH`, or can't be started; it is
    ///   named.
    /// - `InvalidState`: this isn't called in a tokio runtime.
    ///
    /// # Cancel safety
    /// Dropping the future leaves no process behind.
    ///
    /// # Panics
    /// Requests with a time limit, and closing, need the runtime's timer.
    pub async fn open(options: StdioOptions) -> Result<Self> {
        let runtime = Handle::try_current().map_err(|error| {
            Error::invalid_state("an agent needs a tokio runtime").with_source(error)
        })?;
        let mut child = options.spawn()?;
        let pipes = Pipes::take(&mut child);
        let (Some(pid), Some(pipes)) = (child.id(), pipes) else {
            return Err(Error::new(ErrorCode::Internal, "the agent has no pipes"));
        };
        let shared = Arc::new(Shared {
            name: options.name,
            room: Arc::new(Semaphore::new(MAX_QUEUED)),
            table: Mutex::default(),
            tail: Mutex::new(Tail::new(TAIL)),
            unclaimed: AtomicU64::new(0),
            started: Instant::now(),
        });
        let (queue, outgoing) = mpsc::unbounded_channel();
        let (closing, closed) = watch::channel(None);
        let (finished, done) = watch::channel(false);
        let agent = process::Agent {
            guard: process::Guard::new(child, pid, Arc::clone(&shared), finished),
            pipes,
            closing: closed,
            outgoing,
            // A weak one: what refuses requests must not keep the queue open.
            queue: queue.downgrade(),
            max_line: options.max_line,
            on_notification: options.on_notification,
        };
        runtime.spawn(agent.run());
        let inner = Inner {
            shared,
            queue,
            closing,
            done,
            pid,
            timeout: options.timeout,
            max_line: options.max_line,
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// Has the agent do a task. One that fails is no error: its state says so.
    ///
    /// # Errors
    /// Those of [`request`](Self::request); an answer that is no task is
    /// `InvalidArgument`.
    ///
    /// # Cancel safety
    /// Dropping the future gives the request up: a late answer is swallowed. The
    /// agent isn't told.
    pub async fn send(&self, request: &TaskRequest) -> Result<Task> {
        let answer = self.call(METHOD, request).await?;
        rpc::parse_answer(&answer, false)
    }

    /// Sends a request, and waits for its result. Params that are `()` or `None` are
    /// left out.
    ///
    /// # Errors
    /// - [`Error::Rpc`]: the agent answered with an error.
    /// - `Timeout`: no answer within [`StdioOptions::timeout`].
    /// - `TransportError`: the agent has ended, or was closed; [`Error::exit`] says
    ///   how, with the end of its stderr.
    /// - `InvalidArgument`: the params can't be written as JSON, or are too long.
    ///
    /// # Cancel safety
    /// As for [`send`](Self::send).
    pub async fn request<P: Serialize>(&self, method: &str, params: P) -> Result<Value> {
        let answer = self.call(method, &params).await?;
        rpc::parse_answer(&answer, false)
    }

    /// [`request`](Self::request) with an id of the caller's choice.
    ///
    /// # Errors
    /// As there; `InvalidState` while another request with this id is on its way, or
    /// was given up and may still be answered.
    ///
    /// # Cancel safety
    /// As for [`send`](Self::send).
    pub async fn request_with_id<P: Serialize>(
        &self,
        id: impl Into<Value>,
        method: &str,
        params: P,
    ) -> Result<Value> {
        let id = id.into();
        if id.is_null() {
            return Err(Error::invalid_argument("the id of a request can't be null"));
        }
        let frame = rpc::request(&id, method, Route::default(), &params)?;
        let asked = self.register(&key_of(&id.to_string()), true)?;
        let answer = self.exchange(asked, frame).await?;
        rpc::parse_answer(&answer, false)
    }

    /// Sends a request as it stands, and returns the answer as the agent wrote it,
    /// be it a result or an error. The id may be anything but null.
    ///
    /// # Errors
    /// - `InvalidArgument`: it isn't one request on one line, or is too long.
    /// - `InvalidState`: as for [`request_with_id`](Self::request_with_id).
    /// - `Timeout` and `TransportError`: as for [`request`](Self::request).
    ///
    /// # Cancel safety
    /// As for [`send`](Self::send).
    pub async fn request_raw(&self, frame: &str) -> Result<String> {
        let no_request = || Error::invalid_argument("the message is no request on one line");
        let glance = Glance::read(frame.as_bytes()).filter(|_| !frame.contains(['\n', '\r']));
        let Some(Kind::Request { id }) = glance.map(|glance| glance.kind) else {
            return Err(no_request());
        };
        let key = key_of(&id);
        let asked = self.register(&key, true)?;
        let answer = self.exchange(asked, frame.as_bytes().to_vec()).await?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }

    /// Under an id of our own, which is never used again.
    async fn call<P: Serialize + ?Sized>(&self, method: &str, params: &P) -> Result<Vec<u8>> {
        let id = self.inner.shared.free_id();
        let frame = rpc::request(id, method, Route::default(), params)?;
        let asked = self.register(&id.to_string(), false)?;
        self.exchange(asked, frame).await
    }

    fn register(&self, key: &str, reusable: bool) -> Result<Asked<'_>> {
        let (sender, answer) = oneshot::channel();
        let shared = &*self.inner.shared;
        let serial = shared.register(key, sender)?;
        Ok(Asked {
            shared,
            key: key.to_owned(),
            serial,
            reusable,
            answer,
        })
    }

    async fn exchange(&self, mut asked: Asked<'_>, mut line: Vec<u8>) -> Result<Vec<u8>> {
        let inner = &*self.inner;
        let name = &inner.shared.name;
        if line.len() > inner.max_line {
            let (has, max) = (line.len(), inner.max_line);
            let text =
                format!("agent {name:?}: a request of {has} bytes: at most {max} are allowed");
            return Err(Error::invalid_argument(text));
        }
        line.push(b'\n');
        let exchange = async {
            if let Some(room) = inner.shared.room(line.len()).await {
                let request = Some((asked.key.clone(), asked.serial));
                // Nobody takes it any more once the agent has ended: the answer says so.
                let _ = inner.queue.send(Outgoing {
                    line,
                    request,
                    _room: room,
                });
            }
            match (&mut asked.answer).await {
                Ok(answer) => answer,
                Err(_) => Err(inner.shared.why_ended(None)),
            }
        };
        let Some(limit) = inner.timeout else {
            return exchange.await;
        };
        match tokio::time::timeout(limit, exchange).await {
            Ok(answer) => answer,
            Err(_) => {
                let text = format!("agent {name:?}: no answer within {limit:?}");
                Err(Error::new(ErrorCode::Timeout, text))
            }
        }
    }

    /// Ends the agent, and waits until it has: its stdin ends, so that it can answer
    /// what it has and exit; after 5 seconds its process group gets SIGTERM, and
    /// after 2 more SIGKILL. What is left of its group when it has ended is killed.
    /// Requests that it doesn't answer until then end with `TransportError`; new ones
    /// do so at once. May be called again. Where `main` returns without it, an agent in
    /// the middle of something gets SIGKILL, and can't end what it has started itself.
    ///
    /// # Cancel safety
    /// Dropping the future doesn't stop it from being ended.
    pub async fn close(&self) {
        self.close_within(process::PATIENCE).await;
    }

    /// The same, but SIGTERM comes after this time: with zero, at once. While a
    /// close is under way, a shorter one hastens it.
    ///
    /// # Cancel safety
    /// As that of [`close`](Self::close).
    pub async fn close_within(&self, patience: Duration) {
        self.inner.shared.table().closing = true;
        self.inner.closing.send_modify(|asked| {
            *asked = Some(asked.map_or(patience, |before| before.min(patience)));
        });
        let mut done = self.inner.done.clone();
        // Who reports that has gone only when it is done.
        let _ = done.wait_for(|done| *done).await;
    }

    /// How the agent ended, once it has.
    pub fn exit(&self) -> Option<WorkerExit> {
        let table = self.inner.shared.table();
        table.ended.as_ref().map(|(_, exit)| exit.clone())
    }

    /// The id of its process, which is that of its group.
    pub fn pid(&self) -> u32 {
        self.inner.pid
    }

    /// How many requests are on their way.
    pub fn pending_count(&self) -> usize {
        let table = self.inner.shared.table();
        let waiting = table.requests.values();
        waiting.filter(|request| request.answer.is_some()).count()
    }

    /// How many lines of the agent nobody has taken: notifications without a handler,
    /// answers that came late or to nothing, and what is no JSON.
    pub fn unclaimed_count(&self) -> u64 {
        self.inner.shared.unclaimed.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for StdioTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StdioTransport")
            .field("name", &self.inner.shared.name)
            .field("pid", &self.inner.pid)
            .finish_non_exhaustive()
    }
}

/// A request, as long as somebody waits for it.
struct Asked<'a> {
    shared: &'a Shared,
    key: String,
    serial: u64,
    /// Whether others may use the same id.
    reusable: bool,
    answer: oneshot::Receiver<Result<Vec<u8>>>,
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        let mut table = self.shared.table();
        let Some(waiting) = table.requests.get_mut(&self.key) else {
            return;
        };
        if waiting.serial != self.serial {
            return;
        }
        // A late answer to this one must not be taken for one to the next.
        if self.reusable && waiting.written {
            waiting.answer = None;
        } else {
            table.requests.remove(&self.key);
        }
    }
}

impl Shared {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tail(&self) -> MutexGuard<'_, Tail> {
        self.tail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn free_id(&self) -> u64 {
        let mut table = self.table();
        loop {
            table.serial += 1;
            let id = table.serial;
            if !table.requests.contains_key(&id.to_string()) {
                return id;
            }
        }
    }

    fn register(&self, key: &str, sender: oneshot::Sender<Result<Vec<u8>>>) -> Result<u64> {
        let mut table = self.table();
        if let Some((why, exit)) = &table.ended {
            return Err(ended(why, exit, Some(false)));
        }
        if table.closing {
            let text = format!("agent {:?}: stdio: transport closed", self.name);
            return Err(Error::new(ErrorCode::TransportError, text));
        }
        if table.requests.contains_key(key) {
            let name = &self.name;
            let text = format!("agent {name:?}: a request with the id {key} is on its way already");
            return Err(Error::invalid_state(text));
        }
        table.serial += 1;
        let serial = table.serial;
        let waiting = Waiting {
            serial,
            written: false,
            answer: Some(sender),
        };
        table.requests.insert(key.to_owned(), waiting);
        Ok(serial)
    }

    /// Waits for room in the queue; `None` once the agent has ended.
    async fn room(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let bytes = u32::try_from(bytes.min(MAX_QUEUED)).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.room);
        room.acquire_many_owned(bytes).await.ok()
    }

    /// Room in the queue, if there is any now.
    pub(super) fn try_room(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let bytes = u32::try_from(bytes).ok()?;
        Arc::clone(&self.room).try_acquire_many_owned(bytes).ok()
    }

    /// Whether a request is still waited for; if so it counts as written from now.
    pub(super) fn begin(&self, key: &str, serial: u64) -> bool {
        match self.table().requests.get_mut(key) {
            Some(waiting) if waiting.serial == serial && waiting.answer.is_some() => {
                waiting.written = true;
                true
            }
            _ => false,
        }
    }

    /// Hands an answer to who waits for it.
    pub(super) fn answer(&self, id: &str, line: Vec<u8>) {
        let waiting = self.table().requests.remove(&key_of(id));
        let answer = waiting.and_then(|waiting| waiting.answer);
        let taken = answer.is_some_and(|answer| answer.send(Ok(line)).is_ok());
        if !taken {
            self.unclaimed();
        }
    }

    pub(super) fn unclaimed(&self) {
        self.unclaimed.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes a line of the agent's stderr.
    pub(super) fn stderr(&self, line: &[u8]) {
        let line = String::from_utf8_lossy(line).into_owned();
        #[cfg(feature = "tracing")]
        tracing::debug!(target: "stdiobus::agent", agent = self.name.as_str(), "{line}");
        self.tail().push(line);
    }

    /// Nothing more comes: ends all requests, and those that come later. Does so
    /// once.
    pub(super) fn end(&self, why: &str, code: Option<i32>, signal: Option<i32>) {
        let (words, stderr_tail) = {
            let tail = self.tail();
            (tail.last(LAST_WORDS), tail.last(TAIL).join("\n"))
        };
        let name = &self.name;
        let why = match words.is_empty() {
            true => format!("agent {name:?} {why}"),
            false => format!("agent {name:?} {why}; its last words: {}", words.join("\n")),
        };
        let exit = WorkerExit {
            pool: name.clone(),
            worker: 0,
            code,
            signal,
            uptime: self.started.elapsed(),
            stderr_tail,
            request_sent: None,
        };
        let requests = {
            let mut table = self.table();
            if table.ended.is_some() {
                return;
            }
            table.ended = Some((why.clone(), exit.clone()));
            std::mem::take(&mut table.requests)
        };
        self.room.close();
        for waiting in requests.into_values() {
            if let Some(answer) = waiting.answer {
                // Who has gone needs no answer.
                let _ = answer.send(Err(ended(&why, &exit, Some(waiting.written))));
            }
        }
    }

    /// The agent has ended: how it did is known only now.
    pub(super) fn set_exit(&self, code: Option<i32>, signal: Option<i32>) {
        if let Some((_, exit)) = &mut self.table().ended {
            (exit.code, exit.signal) = (code, signal);
        }
    }

    fn why_ended(&self, sent: Option<bool>) -> Error {
        match &self.table().ended {
            Some((why, exit)) => ended(why, exit, sent),
            None => Error::new(ErrorCode::Internal, "the agent's answer was lost"),
        }
    }
}

fn ended(why: &str, exit: &WorkerExit, sent: Option<bool>) -> Error {
    let exit = WorkerExit {
        request_sent: sent,
        ..exit.clone()
    };
    Error::new(ErrorCode::TransportError, why).with_exit(exit)
}

/// Under what an id is found: a text may be escaped in several ways, anything else
/// counts byte by byte.
fn key_of(id: &str) -> String {
    match serde_json::from_str::<String>(id) {
        Ok(text) => Value::String(text).to_string(),
        Err(_) => id.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_found_however_its_text_is_escaped_and_numbers_are_no_texts() {
        assert_eq!(key_of(r#""\u0061\/""#), key_of(r#""a/""#));
        assert_ne!(key_of("1"), key_of("\"1\""));
        assert_ne!(key_of("1"), key_of("1.0"));
    }
}
