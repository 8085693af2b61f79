//! Events: what the bus tells beside answers.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;

use crate::error::{Error, Result, WorkerExit};
use crate::native::RawEvent;
use crate::sys;

/// Something that happened on the bus.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The worker's program was executed.
    WorkerStarted(WorkerRef),
    /// The worker takes requests.
    WorkerReady(WorkerRef),
    /// The worker has left its stdin unread for 5 seconds, and gets no new sessions
    /// while the pool has others. [`WorkerReady`](Self::WorkerReady) tells when it
    /// reads again.
    WorkerStalled(WorkerRef),
    /// The worker was asked to end.
    WorkerStopping(WorkerRef),
    /// The worker is gone.
    #[non_exhaustive]
    WorkerStopped {
        /// Which one.
        worker: WorkerRef,
        /// How it ended.
        exit: WorkerExit,
    },
    /// The worker will be started again.
    #[non_exhaustive]
    WorkerRestarting {
        /// Which one.
        worker: WorkerRef,
        /// After this time.
        delay: Duration,
    },
    /// The worker has been given up for now.
    #[non_exhaustive]
    WorkerFailed {
        /// Which one.
        worker: WorkerRef,
        /// Why.
        reason: String,
    },
    /// The worker wrote a line to stderr.
    #[non_exhaustive]
    WorkerStderr {
        /// Which one.
        worker: WorkerRef,
        /// The line, without its newline.
        line: String,
    },
    /// The worker wrote a line to stdout that is no frame.
    #[non_exhaustive]
    WorkerGarbage {
        /// Which one.
        worker: WorkerRef,
        /// The beginning of the line.
        line: String,
    },
    /// A client connected.
    #[non_exhaustive]
    ClientConnected {
        /// Its number, never used again.
        client: u32,
        /// `unix`, or the peer's `ip:port`.
        peer: String,
    },
    /// A client is gone.
    #[non_exhaustive]
    ClientDisconnected {
        /// Its number.
        client: u32,
        /// `closed`, `error`, `timeout`, `overflow`, `refused` or `shutdown`.
        reason: String,
    },
    /// A frame could not be delivered.
    #[non_exhaustive]
    Dropped {
        /// Why.
        reason: String,
    },
    /// A worker sent a frame that belongs to nobody.
    Unattributed(WorkerRef),
    /// Somebody in this process doesn't keep up with what workers send.
    Overflow(Overflow),
}

/// Who in this process doesn't keep up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Overflow {
    /// The task of this request: too much of what belongs to it waited, and it
    /// has ended with `ResourceExhausted`.
    Request(u64),
    /// A subscriber to messages or notifications, which has lost the first of
    /// them. Told once of each subscriber; the rest is counted
    /// ([`Stats::lagged_messages`](crate::Stats::lagged_messages)).
    Subscriber,
    /// The handler of workers' requests: one was refused. Told again only after
    /// one was taken; each is counted
    /// ([`Stats::refused_worker_requests`](crate::Stats::refused_worker_requests)).
    Handler,
}

/// A worker, at one of its starts.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct WorkerRef {
    /// Its number, counted over all pools.
    pub id: usize,
    /// Its pool.
    pub pool: String,
    /// How often it had been started, from 1.
    pub generation: u32,
    /// Its process id, where it had one.
    pub pid: Option<u32>,
}

/// How much a log line matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum LogLevel {
    /// For finding faults.
    Debug,
    /// Life of the bus: what started and stopped.
    Info,
    /// Something to look at.
    Warn,
    /// Something failed.
    Error,
}

impl LogLevel {
    pub(crate) fn from_c(level: i32) -> Self {
        match level {
            ..=0 => Self::Debug,
            1 => Self::Info,
            2 => Self::Warn,
            _ => Self::Error,
        }
    }

    pub(crate) fn to_c(self) -> i32 {
        self as i32
    }

    const ALL: [(Self, &'static str); 4] = [
        (Self::Debug, "debug"),
        (Self::Info, "info"),
        (Self::Warn, "warn"),
        (Self::Error, "error"),
    ];
}

/// `debug`, `info`, `warn` or `error`.
impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = Self::ALL.iter().find(|(level, _)| level == self);
        f.pad(named.map_or("", |(_, name)| name))
    }
}

/// From what `Display` gives; anything else is `InvalidArgument`.
impl FromStr for LogLevel {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let named = Self::ALL.iter().find(|(_, name)| *name == text);
        named.map(|(level, _)| *level).ok_or_else(|| {
            Error::invalid_argument(format!(
                "{text:?} is not a log level: debug, info, warn or error"
            ))
        })
    }
}

/// The public form of an event; `None` for a kind this version doesn't know.
pub(super) fn event_of(raw: RawEvent) -> Option<Event> {
    let client = u32::try_from(raw.client).unwrap_or(0);
    Some(match raw.kind {
        sys::STDIO_BUS_EVENT_WORKER_STARTED => Event::WorkerStarted(worker_of(raw).0),
        sys::STDIO_BUS_EVENT_WORKER_READY => Event::WorkerReady(worker_of(raw).0),
        sys::STDIO_BUS_EVENT_WORKER_STALLED => Event::WorkerStalled(worker_of(raw).0),
        sys::STDIO_BUS_EVENT_WORKER_STOPPING => Event::WorkerStopping(worker_of(raw).0),
        sys::STDIO_BUS_EVENT_WORKER_STOPPED => {
            let exit = exit_of(&raw);
            Event::WorkerStopped {
                worker: worker_of(raw).0,
                exit,
            }
        }
        sys::STDIO_BUS_EVENT_WORKER_RESTARTING => {
            let delay = Duration::from_millis(u64::from(raw.delay_ms));
            Event::WorkerRestarting {
                worker: worker_of(raw).0,
                delay,
            }
        }
        sys::STDIO_BUS_EVENT_WORKER_FAILED => {
            let (worker, reason) = worker_of(raw);
            Event::WorkerFailed { worker, reason }
        }
        sys::STDIO_BUS_EVENT_WORKER_STDERR => {
            let (worker, line) = worker_of(raw);
            Event::WorkerStderr { worker, line }
        }
        sys::STDIO_BUS_EVENT_WORKER_GARBAGE => {
            let (worker, line) = worker_of(raw);
            Event::WorkerGarbage { worker, line }
        }
        sys::STDIO_BUS_EVENT_CLIENT_CONNECTED => Event::ClientConnected {
            client,
            peer: raw.text,
        },
        sys::STDIO_BUS_EVENT_CLIENT_DISCONNECTED => Event::ClientDisconnected {
            client,
            reason: raw.text,
        },
        sys::STDIO_BUS_EVENT_DROPPED => Event::Dropped { reason: raw.text },
        sys::STDIO_BUS_EVENT_UNATTRIBUTED => Event::Unattributed(worker_of(raw).0),
        _ => return None,
    })
}

fn worker_of(raw: RawEvent) -> (WorkerRef, String) {
    let worker = WorkerRef {
        id: usize::try_from(raw.worker).unwrap_or(0),
        pool: raw.pool,
        generation: raw.generation,
        pid: u32::try_from(raw.pid).ok().filter(|pid| *pid != 0),
    };
    (worker, raw.text)
}

fn exit_of(raw: &RawEvent) -> WorkerExit {
    WorkerExit {
        pool: raw.pool.clone(),
        worker: usize::try_from(raw.worker).unwrap_or(0),
        code: (raw.exit_signal == 0 && raw.exit_code >= 0).then_some(raw.exit_code),
        signal: (raw.exit_signal != 0).then_some(raw.exit_signal),
        uptime: Duration::from_millis(raw.uptime_ms),
        stderr_tail: raw.text.clone(),
        request_sent: None,
    }
}

/// A subscriber's end on the bus thread.
#[derive(Debug)]
pub(crate) struct EventSink {
    pub(crate) queue: mpsc::Sender<Event>,
    /// Events that didn't fit.
    pub(crate) lagged: Arc<AtomicU64>,
}

impl EventSink {
    /// Never waits: what doesn't fit is counted. `false` if the subscriber is
    /// gone.
    pub(super) fn offer(&self, event: &Event) -> bool {
        match self.queue.try_reserve() {
            Ok(slot) => {
                slot.send(event.clone());
                true
            }
            Err(mpsc::error::TrySendError::Full(())) => {
                self.lagged.fetch_add(1, Ordering::Relaxed);
                true
            }
            Err(mpsc::error::TrySendError::Closed(())) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(kind: u32) -> RawEvent {
        RawEvent {
            kind,
            worker: 3,
            generation: 2,
            client: -1,
            pid: 77,
            exit_code: -1,
            pool: "p".into(),
            text: "t".into(),
            ..Default::default()
        }
    }

    #[test]
    fn an_exit_has_a_code_or_a_signal_but_not_both() {
        let mut event = raw(sys::STDIO_BUS_EVENT_WORKER_STOPPED);
        event.exit_signal = 9;
        let exit = exit_of(&event);
        assert_eq!((exit.code, exit.signal), (None, Some(9)));
        event.exit_signal = 0;
        event.exit_code = 0;
        let exit = exit_of(&event);
        assert_eq!((exit.code, exit.signal), (Some(0), None));
    }

    #[test]
    fn a_log_level_is_read_from_the_text_it_is_shown_as() {
        for (level, text) in LogLevel::ALL {
            assert_eq!(level.to_string(), text);
            assert_eq!(text.parse::<LogLevel>().expect("a level"), level);
        }
        assert_eq!(format!("{:>6}", LogLevel::Info), "  info");
        let error = "loud".parse::<LogLevel>().expect_err("none");
        assert!(error.to_string().contains("\"loud\""), "{error}");
    }

    #[test]
    fn unknown_kinds_are_left_out() {
        assert_eq!(event_of(raw(4711)), None);
        assert!(matches!(
            event_of(raw(sys::STDIO_BUS_EVENT_WORKER_STDERR)),
            Some(Event::WorkerStderr { line, .. }) if line == "t"
        ));
    }

    #[test]
    fn a_full_subscriber_loses_events_and_knows_how_many() {
        let (queue, mut events) = mpsc::channel(1);
        let sink = EventSink {
            queue,
            lagged: Arc::default(),
        };
        let event = Event::Dropped {
            reason: String::new(),
        };
        assert!(sink.offer(&event));
        assert!(sink.offer(&event));
        assert_eq!(sink.lagged.load(Ordering::Relaxed), 1);
        assert!(events.try_recv().is_ok());
        drop(events);
        assert!(!sink.offer(&event));
    }
}
