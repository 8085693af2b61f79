//! The bus thread's life: wait for start, turn until stopped, clean up.

use std::collections::HashMap;
use std::mem;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use tokio::sync::oneshot;

use super::command::{Adopted, Answer, Command, Ended, Outcome, Reply, error_of};
use super::event::{Event, EventSink, LogLevel, event_of};
use super::shared::{Gauges, Shared};
use super::{LogSink, Spec, log};
use crate::error::{Error, Result};
use crate::native::{FrameKind, Incoming, Listen, RawBus, RawEvent, RawFrame, Status};
use crate::rpc::{Pending, refusal};
use crate::stats::{BusState, Stats, StopReport, WorkerInfo, WorkerState};
use crate::sys;

/// Commands taken before the bus gets a turn, so that a flood of requests
/// can't keep the answers waiting.
const COMMANDS_PER_TURN: usize = 1024;

/// What is kept of the buffer for incoming items after a burst.
const INCOMING_KEPT: usize = 4096;

pub(super) struct Driver {
    /// `None` only while the driver is being dropped.
    bus: Option<RawBus>,
    commands: Receiver<Command>,
    shared: Arc<Shared>,
    listen: Vec<Listen>,
    log: Option<LogSink>,
    /// Requests in flight: who waits, and until when.
    pending: Pending<oneshot::Sender<Outcome>>,
    /// Reused between turns.
    incoming: Vec<Incoming>,
    subscribers: Vec<EventSink>,
    /// Who wants to know when an adopted client is gone.
    adopted: HashMap<u32, oneshot::Sender<String>>,
    /// Who is told, once everything is cleaned up, that the start failed.
    failed_start: Option<(Reply<()>, Error)>,
    /// Who waits for the end.
    stops: Vec<oneshot::Sender<()>>,
    report: StopReport,
    unhandled_notifications: u64,
}

impl Driver {
    pub(super) fn new(
        bus: RawBus,
        commands: Receiver<Command>,
        shared: Arc<Shared>,
        spec: Spec,
    ) -> Self {
        Self {
            bus: Some(bus),
            commands,
            shared,
            listen: spec.listen,
            log: spec.log,
            pending: Pending::new(),
            incoming: Vec::new(),
            subscribers: Vec::new(),
            adopted: HashMap::new(),
            failed_start: None,
            stops: Vec::new(),
            report: StopReport::default(),
            unhandled_notifications: 0,
        }
    }

    pub(super) fn run(mut self) {
        if self.wait_for_start() {
            while self.turn() {}
        }
    }

    fn bus(&self) -> &RawBus {
        self.bus
            .as_ref()
            .expect("the bus lives until the driver is dropped")
    }

    /// Before the start there is nothing to step: this just waits for commands.
    /// `false` if the bus is to end without ever having run.
    fn wait_for_start(&mut self) -> bool {
        self.deliver();
        while let Ok(command) = self.commands.recv() {
            match command {
                Command::Start { reply } => return self.start(reply),
                Command::Stop { reply, .. } | Command::Drain { reply, .. } => {
                    self.stops.push(reply);
                    return false;
                }
                Command::Abandon { .. } => return false,
                other => self.execute(other),
            }
        }
        false
    }

    fn start(&mut self, reply: Reply<()>) -> bool {
        self.shared.set_state(BusState::Starting);
        let result = self.open_and_start();
        self.deliver();
        match result {
            Ok(()) => {
                self.shared.set_state(BusState::Running);
                let _ = reply.send(Ok(()));
                true
            }
            Err(error) => {
                self.shared.set_state(BusState::Stopping);
                self.failed_start = Some((reply, error));
                false
            }
        }
    }

    /// Listeners first: a bind failure shows before any worker has run.
    fn open_and_start(&mut self) -> Result<()> {
        let mut addresses = Vec::with_capacity(self.listen.len());
        for listen in &self.listen {
            addresses.push(
                self.bus()
                    .listen(listen)
                    .map_err(|failure| error_of(&failure))?,
            );
        }
        self.bus().start().map_err(|failure| error_of(&failure))?;
        // The only place that sets it, and it runs once.
        let _ = self.shared.addresses.set(addresses);
        Ok(())
    }

    /// Commands in, one step, frames and events out. `false` when the bus has
    /// stopped.
    fn turn(&mut self) -> bool {
        self.take_commands();
        let result = self.step();
        self.deliver();
        self.expire(Instant::now);
        if let Err(failure) = result {
            let line = format!("the bus can't go on: {}", failure.message());
            log(self.log.as_ref(), LogLevel::Error, &line);
            return false;
        }
        self.bus().state() != BusState::Stopped as u8
    }

    fn take_commands(&mut self) {
        for _ in 0..COMMANDS_PER_TURN {
            match self.commands.try_recv() {
                Ok(command) => self.execute(command),
                Err(_) => break,
            }
        }
    }

    /// Waits only if there is nothing to do and nothing comes in meanwhile.
    fn step(&self) -> std::result::Result<(), crate::native::Failure> {
        let wait = self
            .pending
            .next_deadline()
            .map(|d| d.saturating_duration_since(Instant::now()));
        if wait == Some(Duration::ZERO) {
            return self.bus().step(wait);
        }
        self.publish();
        if !self.shared.waker.prepare_sleep(|| self.commands.is_empty()) {
            return self.bus().step(Some(Duration::ZERO));
        }
        let result = self.bus().step(wait);
        self.shared.waker.awake();
        result
    }

    fn execute(&mut self, command: Command) {
        match command {
            Command::Request {
                id,
                frame,
                deadline,
                reply,
            } => {
                self.request(id, &frame, deadline, reply);
            }
            Command::Cancel { id } => {
                if self.pending.remove(id).is_some() {
                    self.bus().cancel(id.to_string().as_bytes());
                }
            }
            Command::Send { frame, reply } => {
                let result = self.bus().submit(&frame, false).map_err(|f| error_of(&f));
                let _ = reply.send(result);
            }
            Command::Adopt { from, to, reply } => {
                let _ = reply.send(self.adopt(from, to));
            }
            Command::Subscribe { sink } => self.subscribers.push(sink),
            Command::Stats { reply } => {
                let _ = reply.send(Ok(self.stats()));
            }
            Command::Workers { reply } => {
                let _ = reply.send(Ok(self.workers()));
            }
            Command::Start { reply } => {
                let _ = reply.send(Err(Error::invalid_state(
                    "the bus has been started already",
                )));
            }
            Command::Drain {
                limit,
                grace,
                reply,
            } => {
                self.stops.push(reply);
                self.drain(limit, grace);
            }
            Command::Stop { limit, reply } => {
                self.stops.push(reply);
                self.stop(limit);
            }
            Command::Abandon { limit } => self.stop(limit),
        }
    }

    fn request(
        &mut self,
        id: u64,
        frame: &[u8],
        deadline: Option<Instant>,
        reply: oneshot::Sender<Outcome>,
    ) {
        if self.shared.state() != BusState::Running {
            let _ = reply.send(Err(Ended::ShuttingDown));
            return;
        }
        match self.bus().submit(frame, true) {
            Ok(()) => self.pending.insert(id, deadline, reply),
            Err(failure) if failure.status == Status::STATE => {
                let _ = reply.send(Err(Ended::ShuttingDown));
            }
            Err(failure) => {
                let _ = reply.send(Err(Ended::Refused(error_of(&failure))));
            }
        }
    }

    fn adopt(&mut self, from: OwnedFd, to: OwnedFd) -> Result<Adopted> {
        let client = self
            .bus()
            .adopt_client(from, to)
            .map_err(|failure| error_of(&failure))?;
        let client = u32::try_from(client).unwrap_or(0);
        let (tell, gone) = oneshot::channel();
        self.adopted.insert(client, tell);
        Ok(Adopted { client, gone })
    }

    /// Ends every request that waits, then lets the workers go.
    fn stop(&mut self, limit: Duration) {
        self.shared.set_state(BusState::Stopping);
        self.end_pending();
        if let Err(failure) = self.bus().stop_within(limit) {
            let line = format!("stop: {}", failure.message());
            log(self.log.as_ref(), LogLevel::Warn, &line);
        }
    }

    fn drain(&mut self, limit: Option<Duration>, grace: Duration) {
        if self.shared.state() != BusState::Running {
            return;
        }
        self.shared.set_state(BusState::Stopping);
        if self.bus().drain(limit, grace).is_err() {
            self.stop(grace);
        }
    }

    fn end_pending(&mut self) {
        for reply in self.pending.take_all() {
            let _ = reply.send(Err(Ended::ShuttingDown));
        }
    }

    /// Ends the requests whose time is up. Runs after what came was handed
    /// out: an answer that is there beats its deadline.
    fn expire(&mut self, now: impl FnOnce() -> Instant) {
        if self.pending.next_deadline().is_none() {
            return;
        }
        let now = now();
        while let Some((id, reply)) = self.pending.pop_expired(now) {
            self.bus().cancel(id.to_string().as_bytes());
            let _ = reply.send(Err(Ended::TimedOut));
        }
    }

    /// Hands out what the callbacks have collected, in its order. The gauges go
    /// first: whoever gets an answer sees the counts that go with it.
    fn deliver(&mut self) {
        let mut incoming = mem::take(&mut self.incoming);
        self.bus().take_incoming(&mut incoming);
        self.publish();
        for item in incoming.drain(..) {
            match item {
                Incoming::Frame(frame) => self.deliver_frame(frame),
                Incoming::Event(event) => self.deliver_event(*event),
                Incoming::Log(level, line) => {
                    log(self.log.as_ref(), LogLevel::from_c(level), &line);
                }
            }
        }
        incoming.shrink_to(INCOMING_KEPT);
        self.incoming = incoming;
    }

    fn deliver_frame(&mut self, frame: RawFrame) {
        match frame.kind {
            // Without an entry it was given up in the meantime.
            FrameKind::Response { id } => {
                if let Some(reply) = id.and_then(|id| self.pending.remove(id)) {
                    let _ = reply.send(Ok(Answer {
                        frame: frame.data,
                        from_bus: frame.from_bus,
                    }));
                }
            }
            // Nothing here takes a worker's requests yet, and silence would
            // leave the worker waiting.
            FrameKind::Request { id } => {
                if let Err(failure) = self.bus().submit(&refusal(&id, &frame.data), false) {
                    let line = format!(
                        "a worker's request can't be answered: {}",
                        failure.message()
                    );
                    log(self.log.as_ref(), LogLevel::Debug, &line);
                }
            }
            FrameKind::Notification => self.unhandled_notifications += 1,
        }
    }

    fn deliver_event(&mut self, event: RawEvent) {
        let Some(event) = event_of(event) else { return };
        match &event {
            Event::ClientDisconnected { client, reason } => {
                if let Some(tell) = self.adopted.remove(client) {
                    let _ = tell.send(reason.clone());
                }
            }
            Event::WorkerStopped { exit, .. } if self.shared.state() == BusState::Stopping => {
                self.report.exits.push(exit.clone());
            }
            _ => {}
        }
        self.subscribers
            .retain(|subscriber| subscriber.offer(&event));
    }

    fn publish(&self) {
        let (bus, gauges) = (self.bus(), &self.shared.gauges);
        Gauges::set(&gauges.workers, bus.worker_count());
        Gauges::set(&gauges.clients, bus.client_count());
        Gauges::set(&gauges.sessions, bus.session_count());
        Gauges::set(&gauges.pending, bus.pending_count());
    }

    fn stats(&self) -> Stats {
        let (base, ext) = (self.bus().stats(), self.bus().ext_stats());
        Stats {
            messages_in: base.messages_in,
            messages_out: base.messages_out,
            bytes_in: base.bytes_in,
            bytes_out: base.bytes_out,
            worker_restarts: base.worker_restarts,
            routing_errors: base.routing_errors,
            client_connects: base.client_connects,
            client_disconnects: base.client_disconnects,
            parse_errors: ext.parse_errors,
            worker_garbage: ext.worker_garbage,
            oversize_frames: ext.oversize_frames,
            dropped_frames: ext.dropped_frames,
            unattributed_frames: ext.unattributed_frames,
            late_answers: ext.late_answers,
            overload_refusals: ext.overload_refusals,
            unhandled_notifications: self.unhandled_notifications,
            outbox_bytes: ext.outbox_bytes,
            tombstones: ext.tombstones,
            pending: self.bus().pending_count() as u64,
            sessions: self.bus().session_count() as u64,
        }
    }

    fn workers(&self) -> Vec<WorkerInfo> {
        self.bus()
            .workers()
            .into_iter()
            .map(|(raw, pool)| worker_info(&raw, pool))
            .collect()
    }
}

impl Drop for Driver {
    /// The end, also that of a panic: from here on nobody can reach the bus,
    /// and everyone who waits is told. Commands still queued are dropped with
    /// the queue, which tells those who sent them.
    fn drop(&mut self) {
        self.shared.waker.close();
        if self.bus.is_some() {
            self.deliver();
            let (stats, workers) = (self.stats(), self.workers());
            let mut last = self.shared.last();
            last.stats = stats;
            last.workers = workers;
            last.report = mem::take(&mut self.report);
        }
        self.end_pending();
        self.bus = None;
        self.shared.gauges.clear();
        self.subscribers.clear();
        self.shared.set_state(BusState::Stopped);
        if let Some((reply, error)) = self.failed_start.take() {
            let _ = reply.send(Err(error));
        }
        for stop in self.stops.drain(..) {
            let _ = stop.send(());
        }
    }
}

fn worker_info(raw: &sys::stdio_bus_worker_info, pool: String) -> WorkerInfo {
    WorkerInfo {
        id: usize::try_from(raw.worker).unwrap_or(0),
        pool,
        pid: u32::try_from(raw.pid).ok().filter(|pid| *pid != 0),
        state: match raw.state {
            sys::STDIO_BUS_WORKER_STARTING => WorkerState::Starting,
            sys::STDIO_BUS_WORKER_READY => WorkerState::Ready,
            sys::STDIO_BUS_WORKER_STOPPING => WorkerState::Stopping,
            sys::STDIO_BUS_WORKER_BACKOFF => WorkerState::Backoff,
            sys::STDIO_BUS_WORKER_FAILED => WorkerState::Failed,
            _ => WorkerState::Stopped,
        },
        generation: raw.generation,
        restarts: raw.restarts,
        pending: raw.pending,
        uptime: Duration::from_millis(raw.uptime_ms),
    }
}
