//! The task that owns an agent's process: it writes, reads, and ends it.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};

use super::options::OnNotification;
use super::transport::{Outgoing, Shared};
use crate::native::{kill_group, terminate_group};
use crate::rpc::{self, Glance, Kind, Lines, Parts};

/// How long the end of its input, and SIGTERM, may be ignored.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
const GRACE: Duration = Duration::from_secs(2);

/// How long it is waited for what belongs to an end: the exit of an agent that has
/// closed its stdout, and what its pipes still hold when it has exited.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// How many milliseconds a process that was killed with SIGKILL may take to end,
/// before it is left to others to wait for it.
const REAP_TRIES: usize = 1000;

const CHUNK: usize = 64 << 10;

/// Longer lines of stderr come in pieces.
const MAX_ERROR_LINE: usize = 4 << 10;

/// The ends of its pipes.
pub(super) struct Pipes {
    stdin: ChildStdin,
    stdout: ChildStdout,
    stderr: ChildStderr,
}

impl Pipes {
    pub(super) fn take(child: &mut Child) -> Option<Self> {
        Some(Self {
            stdin: child.stdin.take()?,
            stdout: child.stdout.take()?,
            stderr: child.stderr.take()?,
        })
    }
}

/// Leaves no process and no request behind, however the task ends.
pub(super) struct Guard {
    child: Child,
    pid: u32,
    runs: bool,
    shared: Arc<Shared>,
    done: watch::Sender<bool>,
}

impl Guard {
    pub(super) fn new(
        child: Child,
        pid: u32,
        shared: Arc<Shared>,
        done: watch::Sender<bool>,
    ) -> Self {
        Self {
            child,
            pid,
            runs: true,
            shared,
            done,
        }
    }

    fn kill(&self) {
        kill_group(self.pid);
    }

    /// Waits for a process that was killed. This only happens where the task is
    /// dropped with its runtime (or panics), so nobody else is left to do so but
    /// another runtime, if there is one.
    fn reap(&mut self) {
        for _ in 0..REAP_TRIES {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if self.runs {
            self.kill();
            self.reap();
        }
        self.shared.end("was ended with its runtime", None, None);
        self.done.send_replace(true);
    }
}

pub(super) struct Agent {
    pub(super) guard: Guard,
    pub(super) pipes: Pipes,
    /// How long the end of its input may be ignored, once it is to end; it is, too,
    /// without a sender.
    pub(super) closing: watch::Receiver<Option<Duration>>,
    pub(super) outgoing: mpsc::UnboundedReceiver<Outgoing>,
    pub(super) queue: mpsc::WeakUnboundedSender<Outgoing>,
    pub(super) max_line: usize,
    pub(super) on_notification: Option<OnNotification>,
}

/// What happens next to an agent that is to end.
#[derive(Clone, Copy)]
enum Rung {
    Terminate(Instant),
    Kill(Instant),
    Wait,
}

impl Agent {
    pub(super) async fn run(self) {
        let Self {
            mut guard,
            pipes,
            mut closing,
            outgoing,
            queue,
            max_line,
            on_notification,
        } = self;
        let shared = Arc::clone(&guard.shared);
        let incoming = Incoming {
            shared: Arc::clone(&shared),
            queue,
            lines: Lines::new(max_line),
            max_line,
            on_notification,
        };
        // `None` when it has ended.
        let written = write(pipes.stdin, outgoing, closing.clone(), Arc::clone(&shared));
        let mut writing = Some(Box::pin(written));
        let mut reading = Some(Box::pin(incoming.read(pipes.stdout)));
        let mut errors = Some(Box::pin(read_errors(pipes.stderr, Arc::clone(&shared))));
        let mut rung = None;
        let mut patience = None;
        // Why, and when, requests end even if the agent doesn't.
        let mut broken: Option<(String, Instant)> = None;

        let exit = loop {
            tokio::select! {
                exit = guard.child.wait() => break exit,
                result = when(&mut writing) => {
                    writing = None;
                    if let Err(error) = result {
                        let why = format!("can't be written to: {error}");
                        broken.get_or_insert((why, Instant::now() + LAST_WORDS));
                    }
                }
                (why, wait) = when(&mut reading) => {
                    reading = None;
                    broken.get_or_insert((why, Instant::now() + wait));
                }
                () = when(&mut errors) => errors = None,
                asked = asked_to_close(&mut closing, patience) => {
                    patience = Some(asked);
                    rung = Some(Rung::sooner(rung, Instant::now() + asked));
                }
                () = until(broken.as_ref().map(|(_, at)| *at)) => {
                    if let Some((why, _)) = broken.take() {
                        shared.end(&why, None, None);
                    }
                    // What it might still say or be told is of no use.
                    (writing, reading) = (None, None);
                    rung.get_or_insert(Rung::Terminate(Instant::now() + PATIENCE));
                }
                () = until(rung.and_then(Rung::at)) => rung = rung.map(|rung| rung.take(guard.pid)),
            }
        };

        // Its children may hold the pipes, and nobody else ends them.
        guard.kill();
        guard.runs = false;
        let rest = async {
            if let Some(reading) = &mut reading {
                reading.await;
            }
            if let Some(errors) = &mut errors {
                errors.await;
            }
        };
        // One that has left the group may keep them open.
        let _ = timeout(LAST_WORDS, rest).await;
        let exit = exit.ok();
        let (code, signal) = (exit.and_then(|e| e.code()), exit.and_then(|e| e.signal()));
        shared.end(&describe(exit), code, signal);
        shared.set_exit(code, signal);
    }
}

impl Rung {
    /// SIGTERM at this time, unless it comes sooner or has come.
    fn sooner(rung: Option<Self>, at: Instant) -> Self {
        match rung {
            None => Self::Terminate(at),
            Some(Self::Terminate(before)) => Self::Terminate(before.min(at)),
            Some(later) => later,
        }
    }

    fn at(self) -> Option<Instant> {
        match self {
            Self::Terminate(at) | Self::Kill(at) => Some(at),
            Self::Wait => None,
        }
    }

    /// Does it, and says what comes then.
    fn take(self, pid: u32) -> Self {
        match self {
            Self::Terminate(_) => {
                terminate_group(pid);
                Self::Kill(Instant::now() + GRACE)
            }
            _ => {
                kill_group(pid);
                Self::Wait
            }
        }
    }
}

fn describe(exit: Option<ExitStatus>) -> String {
    match exit.map(|exit| (exit.code(), exit.signal())) {
        Some((Some(code), _)) => format!("exited with status {code} before responding"),
        Some((None, Some(signal))) => format!("was ended by signal {signal} before responding"),
        _ => "ended before responding".into(),
    }
}

/// Waits for a future that may have ended already: then for ever.
async fn when<F: Future + Unpin>(future: &mut Option<F>) -> F::Output {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Something else than what is known.
async fn asked_to_close(
    closing: &mut watch::Receiver<Option<Duration>>,
    known: Option<Duration>,
) -> Duration {
    let asked = closing.wait_for(|asked| asked.is_some() && *asked != known);
    match asked.await.map(|asked| *asked) {
        Ok(asked) => asked.unwrap_or(PATIENCE),
        // Without a sender nobody is left who could ask for anything.
        Err(_) if known.is_none() => PATIENCE,
        Err(_) => std::future::pending().await,
    }
}

/// Writes what is queued; its stdin ends when that is done and it is to end.
async fn write(
    mut stdin: ChildStdin,
    mut outgoing: mpsc::UnboundedReceiver<Outgoing>,
    mut closing: watch::Receiver<Option<Duration>>,
    shared: Arc<Shared>,
) -> io::Result<()> {
    loop {
        let next = tokio::select! {
            biased;
            next = outgoing.recv() => next,
            _ = asked_to_close(&mut closing, None) => None,
        };
        let Some(next) = next else {
            return Ok(());
        };
        let waited_for = match &next.request {
            Some((key, serial)) => shared.begin(key, *serial),
            None => true,
        };
        if waited_for {
            stdin.write_all(&next.line).await?;
        }
    }
}

/// What the agent says.
struct Incoming {
    shared: Arc<Shared>,
    queue: mpsc::WeakUnboundedSender<Outgoing>,
    lines: Lines,
    max_line: usize,
    on_notification: Option<OnNotification>,
}

impl Incoming {
    /// Reads until nothing more comes: why, and how long to wait for the exit that
    /// may explain it.
    async fn read(mut self, mut stdout: ChildStdout) -> (String, Duration) {
        let mut chunk = vec![0; CHUNK];
        loop {
            match stdout.read(&mut chunk).await {
                Ok(0) => {
                    if let Some(line) = self.lines.rest() {
                        self.take(line);
                    }
                    return ("has closed its stdout".into(), LAST_WORDS);
                }
                Err(error) => return (format!("can't be read from: {error}"), LAST_WORDS),
                Ok(len) => self.lines.push(&chunk[..len]),
            }
            loop {
                match self.lines.next() {
                    Ok(Some(line)) => self.take(line),
                    Ok(None) => break,
                    Err(_) => {
                        let why = format!("wrote a line of more than {} bytes", self.max_line);
                        return (why, Duration::ZERO);
                    }
                }
            }
        }
    }

    fn take(&self, line: Vec<u8>) {
        match Glance::read(&line).map(|glance| glance.kind) {
            Some(Kind::Response { id: Some(id), .. }) => self.shared.answer(&id, line),
            Some(Kind::Request { id }) => self.refuse(&id, &line),
            Some(Kind::Notification) => match &self.on_notification {
                Some(handler) => {
                    let parts = Parts::read(&line);
                    handler(&parts.method, parts.params());
                }
                None => self.shared.unclaimed(),
            },
            Some(Kind::Response { id: None, .. }) | None => self.shared.unclaimed(),
        }
    }

    /// Nothing here takes what an agent asks. It isn't told so where it doesn't read.
    fn refuse(&self, id: &str, frame: &[u8]) {
        let mut line = rpc::refusal(id.as_bytes(), frame);
        line.push(b'\n');
        let (Some(room), Some(queue)) = (self.shared.try_room(line.len()), self.queue.upgrade())
        else {
            return self.shared.unclaimed();
        };
        // The other end goes with the agent.
        let _ = queue.send(Outgoing {
            line,
            request: None,
            _room: room,
        });
    }
}

async fn read_errors(mut stderr: impl AsyncRead + Unpin, shared: Arc<Shared>) {
    let mut chunk = vec![0; CHUNK];
    let mut lines = Lines::new(MAX_ERROR_LINE);
    while let Ok(len @ 1..) = stderr.read(&mut chunk).await {
        for piece in chunk[..len].chunks(MAX_ERROR_LINE) {
            lines.push(piece);
            while let Some(line) = lines.next().unwrap_or_else(|_| lines.rest()) {
                shared.stderr(&line);
            }
        }
    }
    if let Some(line) = lines.rest() {
        shared.stderr(&line);
    }
}
