//! The bus thread: it creates the C handle, drains commands, steps, hands out
//! what came, and destroys the handle, all on one dedicated thread.
//!
//! [`spawn`] starts it and returns the [`Handle`] that commands go through.

mod budget;
mod command;
mod event;
mod hub;
mod latency;
mod mailbox;
mod message;
mod observe;
mod pending;
mod run;
mod shared;
mod sync;
mod tail;
mod wake;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

pub(crate) use budget::{Budget, Place};
pub(crate) use command::{Answer, Command, Ended, NewRequest};
pub(crate) use event::EventSink;
pub use event::{Event, LogLevel, Overflow, WorkerRef};
pub use hub::OverflowPolicy;
pub(crate) use hub::{Asked, MessageSink, RequestQueue};
pub(crate) use mailbox::{Item, Mailbox, mailbox};
pub(crate) use message::SharedMessage;
pub(crate) use pending::{Patience, StreamKey, Wants};
pub(crate) use shared::{Gauges, Shared};
pub(crate) use tail::Tail;

use crate::backend::{Backend, Linked, Native, Plan};
use crate::error::{Error, ErrorCode, Result};
use run::Driver;

/// How many lines of stderr are kept, unless somebody says otherwise.
pub(crate) const STDERR_LINES: usize = 200;

/// Where log lines go. Called on the bus thread.
pub(crate) type LogSink = Arc<dyn Fn(LogLevel, &str) + Send + Sync>;

/// Where the stderr of workers goes whose pool doesn't say what becomes of it.
/// Called on the bus thread.
pub(crate) type StderrSink = Arc<dyn Fn(&str) + Send + Sync>;

/// What a bus thread is started with.
pub(crate) struct Spec {
    pub(crate) plan: Plan,
    pub(crate) name: Arc<str>,
    pub(crate) log: Option<LogSink>,
    pub(crate) stderr: Option<StderrSink>,
    pub(crate) max_in_flight_bytes: usize,
    /// How many lines of stderr are kept.
    pub(crate) stderr_lines: usize,
    pub(crate) thread_name: String,
}

/// The way to a bus thread. The thread doesn't care how many of these there
/// are: it goes on until it is told to stop.
#[derive(Debug, Clone)]
pub(crate) struct Handle(Arc<Link>);

#[derive(Debug)]
struct Link {
    commands: Sender<Command>,
    /// Subscriptions have a queue of their own, which is looked at before anything
    /// is told: whatever happens after one was made is seen by it.
    subscriptions: Sender<Command>,
    shared: Arc<Shared>,
}

impl Handle {
    /// Queues a command and wakes the thread. `false` if the thread has ended.
    pub(crate) fn send(&self, command: Command) -> bool {
        let queue = match command {
            Command::Subscribe { .. } | Command::Listen { .. } => &self.0.subscriptions,
            _ => &self.0.commands,
        };
        let sent = queue.send(command).is_ok();
        self.0.shared.waker.wake();
        sent
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.0.shared
    }
}

/// Starts a bus thread, and returns once it has read the configuration.
pub(crate) fn spawn(mut spec: Spec) -> Result<(Handle, JoinHandle<()>)> {
    let name = Arc::clone(&spec.name);
    spec.log = spec.log.or_else(|| observe::log_sink(&name));
    let (commands, queue) = unbounded();
    let (subscriptions, subscribed) = unbounded();
    let shared = Arc::new(Shared::new(name, spec.max_in_flight_bytes));
    let handle = Handle(Arc::new(Link {
        commands,
        subscriptions,
        shared: Arc::clone(&shared),
    }));
    let (tell, created) = bounded(1);
    let life = Life {
        commands: queue,
        subscriptions: subscribed,
        shared,
        log: spec.log,
        stderr: spec.stderr,
        tail: Tail::new(spec.stderr_lines),
    };

    let thread = thread::Builder::new()
        .name(spec.thread_name)
        .spawn(move || match spec.plan {
            Plan::Native { options, listen } => life.live(Native::create(&options, listen), &tell),
            Plan::Linked(way) => life.live(Linked::create(way), &tell),
        })
        .map_err(|e| {
            Error::new(
                ErrorCode::ResourceExhausted,
                format!("the bus thread can't be started: {e}"),
            )
            .with_source(e)
        })?;

    match created.recv() {
        Ok(Ok(())) => Ok((handle, thread)),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(Error::new(ErrorCode::Internal, "the bus thread panicked")),
    }
}

/// What a bus thread lives with.
struct Life {
    commands: Receiver<Command>,
    subscriptions: Receiver<Command>,
    shared: Arc<Shared>,
    log: Option<LogSink>,
    stderr: Option<StderrSink>,
    tail: Tail,
}

impl Life {
    /// `created` waits for the backend to be there.
    fn live<B: Backend>(self, backend: Result<B>, created: &Sender<Result<()>>) {
        match backend {
            Ok(backend) => {
                self.shared.waker.arm(backend.bell());
                let driver = Driver::new(backend, self);
                if created.send(Ok(())).is_ok() {
                    driver.run();
                }
            }
            Err(error) => {
                // Nobody left to tell if this fails.
                let _ = created.send(Err(error));
            }
        }
    }
}

/// Hands a line to the user's sink; what that panics with ends here.
fn log(sink: Option<&LogSink>, level: LogLevel, line: &str) {
    if let Some(sink) = sink {
        let _ = catch_unwind(AssertUnwindSafe(|| sink(level, line)));
    }
}
