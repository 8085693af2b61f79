//! The programs that an agent runs: each to its end, none beyond the agent's.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::{Pin, pin};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver as Pipe;
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;

use crate::native::Group;

/// Between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_millis(500);

/// How long the output of a program that has ended may be held open by somebody
/// who has left its group.
const LINGER: Duration = Duration::from_secs(1);

/// The longest output.
const MAX_OUTPUT: usize = 16 << 20;

/// What is kept of stderr: its end.
const MAX_ERRORS: usize = 64 << 10;

/// Those that run.
#[derive(Debug)]
pub(super) struct Children {
    live: Mutex<Live>,
    count: watch::Sender<usize>,
}

#[derive(Debug, Default)]
struct Live {
    closed: bool,
    next: u64,
    groups: HashMap<u64, Arc<Group>>,
}

/// What one has left behind.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) status: ExitStatus,
    pub(super) captured: Captured,
    /// It was ended because its time was over.
    pub(super) late: bool,
}

/// What one has said.
#[derive(Debug, Default)]
pub(super) struct Captured {
    pub(super) stdout: Vec<u8>,
    /// Its end.
    pub(super) stderr: Vec<u8>,
    /// It was ended because it wrote too much.
    pub(super) too_long: bool,
}

type Ended = oneshot::Receiver<io::Result<ExitStatus>>;

impl Children {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            live: Mutex::default(),
            count: watch::Sender::new(0),
        })
    }

    /// Runs one, within a limit if there is one. If this is dropped, it is killed.
    pub(super) async fn run(
        self: &Arc<Self>,
        mut command: Command,
        limit: Option<Duration>,
    ) -> io::Result<Output> {
        let (stdout, for_stdout) = io::pipe()?;
        let (stderr, for_stderr) = io::pipe()?;
        command
            .stdin(Stdio::null())
            .stdout(for_stdout)
            .stderr(for_stderr);
        let receiver = |end: io::PipeReader| Pipe::from_owned_fd(OwnedFd::from(end));
        let (mut stdout, mut stderr) = (receiver(stdout)?, receiver(stderr)?);
        let group = KillOnDrop(self.admit()?);
        let mut ended = self.start(&group.0, command)?;

        let mut captured = Captured::default();
        let (status, late) = {
            let reading = pin!(captured.read(&mut stdout, &mut stderr, &group.0));
            let mut reading = Reading(reading, false);
            let ended = end_within(limit, &group.0, &mut ended, &mut reading).await;
            reading.rest().await;
            ended
        };
        Ok(Output {
            status: status.unwrap_or_else(|_| Err(io::Error::other("its thread has ended")))?,
            captured,
            late,
        })
    }

    /// The thread that starts it stays until its end: the system would take its
    /// end for that of the whole process, and kill the child.
    fn start(self: &Arc<Self>, group: &Arc<Group>, mut command: Command) -> io::Result<Ended> {
        let (tell, ended) = oneshot::channel();
        let registered = Registered::new(self, group);
        thread::Builder::new()
            .name("agent-exec".into())
            .spawn(move || {
                let started = registered.group.start(&mut command);
                // Its ends of the pipes are the child's alone now.
                drop(command);
                let result = started.and_then(|mut child| registered.group.wait(&mut child));
                drop(registered);
                // Nobody may wait for it any more.
                let _ = tell.send(result);
            })?;
        Ok(ended)
    }

    fn admit(&self) -> io::Result<Arc<Group>> {
        match self.lock().closed {
            true => Err(io::ErrorKind::Interrupted.into()),
            false => Ok(Arc::new(Group::new())),
        }
    }

    /// Lets no more begin and ends those that run: SIGTERM, SIGKILL after a grace.
    pub(super) async fn end(&self) {
        self.close(Group::terminate);
        if timeout(GRACE, self.gone()).await.is_err() {
            self.close(Group::kill);
            // Only what hangs in the kernel takes longer.
            let _ = timeout(LINGER, self.gone()).await;
        }
    }

    /// Lets no more begin, and kills those that run.
    pub(super) fn kill(&self) {
        self.close(Group::kill);
    }

    fn close(&self, how: fn(&Group)) {
        let mut live = self.lock();
        live.closed = true;
        live.groups.values().for_each(|group| how(group));
    }

    async fn gone(&self) {
        // The sender is ours: it doesn't go away meanwhile.
        let _ = self.count.subscribe().wait_for(|count| *count == 0).await;
    }

    fn lock(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A group among those that run, as long as its thread.
struct Registered {
    children: Arc<Children>,
    number: u64,
    group: Arc<Group>,
}

impl Registered {
    fn new(children: &Arc<Children>, group: &Arc<Group>) -> Self {
        let mut live = children.lock();
        if live.closed {
            group.kill();
        }
        let number = live.next;
        live.next += 1;
        live.groups.insert(number, Arc::clone(group));
        children.count.send_replace(live.groups.len());
        Self {
            children: Arc::clone(children),
            number,
            group: Arc::clone(group),
        }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let mut live = self.children.lock();
        live.groups.remove(&self.number);
        self.children.count.send_replace(live.groups.len());
    }
}

struct KillOnDrop(Arc<Group>);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        self.0.kill();
    }
}

/// The output, and whether all of it was read.
struct Reading<'a, F>(Pin<&'a mut F>, bool);

impl<F: Future<Output = ()>> Reading<'_, F> {
    /// Reads on until then.
    async fn until<T>(&mut self, then: impl Future<Output = T>) -> T {
        let mut then = pin!(then);
        loop {
            tokio::select! {
                value = &mut then => return value,
                () = self.0.as_mut(), if !self.1 => self.1 = true,
            }
        }
    }

    /// What is left in the pipes.
    async fn rest(mut self) {
        if !self.1 {
            // What was read by then is all there is.
            let _ = timeout(LINGER, self.0.as_mut()).await;
        }
    }
}

/// How it ended, and whether that was because its time was over.
async fn end_within<F: Future<Output = ()>>(
    limit: Option<Duration>,
    group: &Group,
    ended: &mut Ended,
    reading: &mut Reading<'_, F>,
) -> (<Ended as Future>::Output, bool) {
    tokio::select! {
        status = reading.until(&mut *ended) => return (status, false),
        () = over(limit) => group.terminate(),
    }
    if let Ok(status) = timeout(GRACE, reading.until(&mut *ended)).await {
        return (status, true);
    }
    group.kill();
    (reading.until(ended).await, true)
}

async fn over(limit: Option<Duration>) {
    match limit {
        Some(limit) => tokio::time::sleep(limit).await,
        None => std::future::pending().await,
    }
}

impl Captured {
    async fn read(&mut self, stdout: &mut Pipe, stderr: &mut Pipe, group: &Group) {
        let out = async {
            // An error is an end, too.
            while let Ok(1..) = stdout.read_buf(&mut self.stdout).await {
                if self.stdout.len() > MAX_OUTPUT {
                    self.too_long = true;
                    group.kill();
                    return;
                }
            }
        };
        let errors = async {
            while let Ok(1..) = stderr.read_buf(&mut self.stderr).await {
                if self.stderr.len() > 2 * MAX_ERRORS {
                    keep_end(&mut self.stderr);
                }
            }
        };
        tokio::join!(out, errors);
        keep_end(&mut self.stderr);
    }
}

fn keep_end(text: &mut Vec<u8>) {
    text.drain(..text.len().saturating_sub(MAX_ERRORS));
}
