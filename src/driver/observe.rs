//! What the bus thread tells `tracing`: log lines, and what happens as events
//! with fields. Without that feature there is nothing in here.

use std::sync::Arc;

use super::LogSink;
use super::event::Event;
#[cfg(feature = "tracing")]
pub(super) use with_tracing::{Observer, log_sink};

#[cfg(not(feature = "tracing"))]
pub(super) fn log_sink(_: &Arc<str>) -> Option<LogSink> {
    None
}

#[cfg(not(feature = "tracing"))]
#[derive(Debug)]
pub(super) struct Observer {}

#[cfg(not(feature = "tracing"))]
impl Observer {
    #[inline(always)]
    pub(super) fn new(_: Arc<str>) -> Self {
        Self {}
    }

    #[inline(always)]
    pub(super) fn event(&mut self, _: &Event) {}
}

#[cfg(feature = "tracing")]
mod with_tracing {
    use std::collections::HashSet;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::super::event::{LogLevel, Overflow, WorkerRef};
    use super::*;
    use crate::error::WorkerExit;

    /// Log lines have a target below that of the events, which say the same
    /// with fields: whoever wants one of the two only can have it.
    pub(in super::super) fn log_sink(bus: &Arc<str>) -> Option<LogSink> {
        let bus = Arc::clone(bus);
        Some(Arc::new(move |level, line| {
            let bus = &*bus;
            match level {
                LogLevel::Debug => tracing::debug!(target: "stdiobus::log", bus, "{line}"),
                LogLevel::Info => tracing::info!(target: "stdiobus::log", bus, "{line}"),
                LogLevel::Warn => tracing::warn!(target: "stdiobus::log", bus, "{line}"),
                LogLevel::Error => tracing::error!(target: "stdiobus::log", bus, "{line}"),
            }
        }))
    }

    #[derive(Debug)]
    pub(in super::super) struct Observer {
        bus: Arc<str>,
        /// Workers that were asked to end: that they do is no news.
        stopping: HashSet<usize>,
    }

    /// An event about a worker.
    macro_rules! about {
        ($level:ident, $bus:expr, $worker:expr, $($rest:tt)*) => {
            tracing::$level!(
                target: "stdiobus",
                bus = $bus,
                pool = $worker.pool.as_str(),
                worker = $worker.id,
                generation = $worker.generation,
                pid = $worker.pid,
                $($rest)*
            )
        };
    }

    /// An event about anything else.
    macro_rules! tell {
        ($level:ident, $bus:expr, $($rest:tt)*) => {
            tracing::$level!(target: "stdiobus", bus = $bus, $($rest)*)
        };
    }

    impl Observer {
        pub(in super::super) fn new(bus: Arc<str>) -> Self {
            Self {
                bus,
                stopping: HashSet::new(),
            }
        }

        /// What a subscriber panics with ends here, as it does for log lines.
        pub(in super::super) fn event(&mut self, event: &Event) {
            let _ = catch_unwind(AssertUnwindSafe(|| self.tell(event)));
        }

        fn tell(&mut self, event: &Event) {
            let bus = &*self.bus;
            match event {
                Event::WorkerStarted(worker) => about!(info, bus, worker, "worker started"),
                Event::WorkerReady(worker) => about!(info, bus, worker, "worker ready"),
                Event::WorkerStalled(worker) => about!(warn, bus, worker, "worker stalled"),
                Event::WorkerStopping(worker) => {
                    self.stopping.insert(worker.id);
                    about!(info, bus, worker, "worker stopping");
                }
                Event::WorkerStopped { worker, exit } => {
                    let expected = self.stopping.remove(&worker.id);
                    self.stopped(worker, exit, expected);
                }
                Event::WorkerRestarting { worker, delay } => {
                    let delay_ms = millis(*delay);
                    about!(info, bus, worker, delay_ms, "worker restarting");
                }
                Event::WorkerFailed { worker, reason } => {
                    about!(error, bus, worker, reason, "worker failed");
                }
                // The text may be anybody's secret; log lines have it.
                Event::WorkerStderr { .. } => {}
                Event::WorkerGarbage { worker, line } => {
                    about!(debug, bus, worker, bytes = line.len(), "worker garbage");
                }
                Event::Unattributed(worker) => about!(debug, bus, worker, "unattributed"),
                other => self.tell_of_others(other),
            }
        }

        fn stopped(&self, worker: &WorkerRef, exit: &WorkerExit, expected: bool) {
            let bus = &*self.bus;
            let (code, signal, uptime_ms) = (exit.code, exit.signal, millis(exit.uptime));
            if expected {
                about!(info, bus, worker, code, signal, uptime_ms, "worker stopped");
            } else {
                about!(warn, bus, worker, code, signal, uptime_ms, "worker stopped");
            }
        }

        fn tell_of_others(&self, event: &Event) {
            let bus = &*self.bus;
            match event {
                Event::ClientConnected { client, peer } => {
                    tell!(debug, bus, client, peer, "client connected");
                }
                Event::ClientDisconnected { client, reason }
                    if matches!(reason.as_str(), "closed" | "shutdown") =>
                {
                    tell!(debug, bus, client, reason, "client disconnected");
                }
                Event::ClientDisconnected { client, reason } => {
                    tell!(warn, bus, client, reason, "client disconnected");
                }
                Event::Dropped { reason } => tell!(warn, bus, reason, "dropped"),
                Event::Overflow(overflow) => {
                    let (queue, request) = match overflow {
                        Overflow::Request(id) => ("request", Some(id)),
                        Overflow::Subscriber => ("subscriber", None),
                        Overflow::Handler => ("handler", None),
                    };
                    tell!(warn, bus, queue, request, "overflow");
                }
                _ => {}
            }
        }
    }

    fn millis(time: std::time::Duration) -> u64 {
        u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
    }
}
