//! The bus thread's life: wait for start, turn until stopped, clean up.

mod report;

use std::collections::HashMap;
use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use tokio::sync::oneshot;

use super::command::{Adopted, Answer, Command, Ended, NewRequest, Reply};
use super::event::{Event, LogLevel, Overflow, WorkerRef, event_of};
use super::hub::{Handed, Hub};
use super::message::{SharedMessage, WorkerMessage};
use super::pending::{InFlight, Posted};
use super::shared::Shared;
use super::tail::Tail;
use super::{Life, LogSink, StderrSink, log};
use crate::backend::{Backend, Native, Refusal, not_here};
use crate::error::{Error, Result, RpcError};
use crate::native::{Adopt, FrameKind, Incoming, RawEvent, RawFrame};
use crate::rpc::{overload, refusal, reply};
use crate::stats::{BusState, StopReport};

/// Commands taken before the bus gets a turn, so that a flood of requests
/// can't keep the answers waiting.
const COMMANDS_PER_TURN: usize = 1024;

/// What is kept of the buffer for incoming items after a burst.
const INCOMING_KEPT: usize = 4096;

pub(super) struct Driver<B: Backend> {
    /// `None` only while the driver is being dropped.
    backend: Option<B>,
    commands: Receiver<Command>,
    subscriptions: Receiver<Command>,
    shared: Arc<Shared>,
    log: Option<LogSink>,
    stderr: Option<StderrSink>,
    /// What workers, or the program, wrote to stderr.
    tail: Tail,
    requests: InFlight,
    /// Reused between turns.
    incoming: Vec<Incoming>,
    hub: Hub,
    /// Who wants to know when an adopted client is gone.
    adopted: HashMap<u32, oneshot::Sender<String>>,
    /// Who is told, once everything is cleaned up, that the start failed.
    failed_start: Option<(Reply<()>, Error)>,
    /// Who wants to know of the end.
    stops: Vec<oneshot::Sender<()>>,
    report: StopReport,
    unhandled_notifications: u64,
}

impl<B: Backend> Driver<B> {
    pub(super) fn new(backend: B, life: Life) -> Self {
        let name = Arc::clone(&life.shared.name);
        Self {
            backend: Some(backend),
            commands: life.commands,
            subscriptions: life.subscriptions,
            shared: life.shared,
            log: life.log,
            stderr: life.stderr,
            tail: life.tail,
            requests: InFlight::new(),
            incoming: Vec::new(),
            hub: Hub::new(name),
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

    fn backend(&self) -> &B {
        self.backend
            .as_ref()
            .expect("the backend lives until the driver is dropped")
    }

    fn backend_mut(&mut self) -> &mut B {
        self.backend
            .as_mut()
            .expect("the backend lives until the driver is dropped")
    }

    /// Does what only the bus in this process can do.
    fn on_native<T>(&self, what: impl FnOnce(&Native) -> Result<T>) -> Result<T> {
        match self.backend().native() {
            Some(native) => what(native),
            None => Err(not_here()),
        }
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
        let result = self.backend_mut().start();
        self.deliver();
        match result {
            Ok(addresses) => {
                // The only place that sets it, and it runs once.
                let _ = self.shared.addresses.set(addresses);
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

    /// Commands in, one step, frames and events out. `false` when the bus has
    /// stopped.
    fn turn(&mut self) -> bool {
        self.take_commands();
        self.admit();
        let result = self.step();
        self.deliver();
        self.expire(Instant::now);
        if let Err(reason) = result {
            let line = format!("the bus can't go on: {reason}");
            log(self.log.as_ref(), LogLevel::Error, &line);
            self.requests.lose(&reason);
            return false;
        }
        !self.backend().is_stopped()
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
    fn step(&mut self) -> std::result::Result<(), String> {
        let wait = self
            .requests
            .next_deadline()
            .map(|d| d.saturating_duration_since(Instant::now()));
        if wait == Some(Duration::ZERO) {
            return self.backend_mut().step(wait);
        }
        self.publish();
        if !self
            .shared
            .waker
            .prepare_sleep(|| self.commands.is_empty() && self.subscriptions.is_empty())
        {
            return self.backend_mut().step(Some(Duration::ZERO));
        }
        let result = self.backend_mut().step(wait);
        self.shared.waker.awake();
        result
    }

    fn execute(&mut self, command: Command) {
        match command {
            Command::Request(request) => self.request(request),
            Command::Cancel { id } => {
                // Nobody will see how it ended.
                if self.requests.end(id, Err(Ended::ShuttingDown)) {
                    self.backend_mut().cancel(id);
                }
            }
            Command::Answer { id, frame } => self.answer(&id, &frame),
            Command::Send { frame, reply } => {
                let result = self.backend_mut().submit(&frame, false);
                let _ = reply.send(result.map_err(Refusal::into_error));
            }
            Command::Adopt { client, reply } => {
                let _ = reply.send(self.adopt(client));
            }
            Command::Register { worker, reply } => {
                // Whoever hears of the worker sees it counted.
                let registered = self.on_native(|bus| bus.register(worker));
                self.publish();
                let _ = reply.send(registered);
            }
            Command::Unregister { worker } => {
                let _ = self.on_native(|bus| {
                    bus.unregister(worker);
                    Ok(())
                });
                self.publish();
            }
            Command::Subscribe { sink } => self.hub.events.push(sink),
            Command::Listen { sink } => self.hub.messages.push(sink),
            Command::Handle { queue } => self.hub.handler = Some(queue),
            Command::Log { level, line } => log(self.log.as_ref(), level, &line),
            Command::TellEnd { tell } => self.stops.push(tell),
            Command::EndSession { session, reply } => {
                let _ = reply.send(self.on_native(|bus| bus.end_session(&session)));
            }
            Command::Reload { json, reply } => {
                let _ = reply.send(self.on_native(|bus| bus.reload(&json)));
            }
            Command::Stderr { worker, reply } => {
                let _ = reply.send(self.on_native(|bus| bus.worker_stderr(worker)));
            }
            Command::Tail { lines, reply } => {
                let _ = reply.send(Ok(self.tail.last(lines)));
            }
            Command::Stats { reply } => {
                let _ = reply.send(Ok(self.stats()));
            }
            Command::Workers { reply } => {
                let _ = reply.send(self.on_native(|bus| Ok(bus.workers())));
            }
            Command::Pools { reply } => {
                let _ = reply.send(self.on_native(|bus| Ok(bus.pools())));
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

    fn request(&mut self, request: NewRequest) {
        if self.shared.state() != BusState::Running {
            // A post that is dropped says so.
            return;
        }
        if let Some(error) = self.requests.refuse(&request.wants) {
            return request.post.end(Err(Ended::Refused(error)));
        }
        if !request.place.is_granted() {
            return self.requests.hold(request);
        }
        match self.submit(&request.frame) {
            Ok(()) => self.requests.insert(request),
            Err(ended) => request.post.end(Err(ended)),
        }
    }

    /// Sends the requests that have waited for room, as far as there is some.
    fn admit(&mut self) {
        while let Some((id, frame)) = self.requests.next_held() {
            if let Err(ended) = self.submit(&frame) {
                self.requests.end(id, Err(ended));
            }
        }
    }

    /// Hands the bus a request.
    fn submit(&mut self, frame: &[u8]) -> std::result::Result<(), Ended> {
        let submitted = self.backend_mut().submit(frame, true);
        submitted.map_err(|refusal| match refusal {
            Refusal::Stopped(_) => Ended::ShuttingDown,
            refusal => Ended::Refused(refusal.into_error()),
        })
    }

    fn adopt(&mut self, client: Adopt) -> Result<Adopted> {
        let client = self.on_native(|bus| bus.adopt_client(client))?;
        let (tell, gone) = oneshot::channel();
        self.adopted.insert(client, tell);
        // Whoever hears of the client sees it counted.
        self.publish();
        Ok(Adopted { client, gone })
    }

    /// Answers a worker's request. One that is too large must not leave the
    /// worker waiting.
    fn answer(&mut self, id: &[u8], frame: &[u8]) {
        let mut result = self.backend_mut().submit(frame, false);
        if matches!(result, Err(Refusal::TooLarge(_))) {
            let error = RpcError::internal("The answer is larger than max_input_buffer");
            result = self.backend_mut().submit(&reply(id, &Err(error)), false);
        }
        if let Err(refusal) = result {
            let error = refusal.into_error();
            let line = format!("a worker's request can't be answered: {error}");
            log(self.log.as_ref(), LogLevel::Warn, &line);
        }
    }

    /// Ends every request that waits, then lets the workers go.
    fn stop(&mut self, limit: Duration) {
        self.shared.set_state(BusState::Stopping);
        self.requests.end_all();
        if let Err(error) = self.backend_mut().stop_within(limit) {
            let line = format!("stop: {error}");
            log(self.log.as_ref(), LogLevel::Warn, &line);
        }
    }

    fn drain(&mut self, limit: Option<Duration>, grace: Duration) {
        if self.shared.state() != BusState::Running {
            return;
        }
        self.shared.set_state(BusState::Stopping);
        self.requests.end_held();
        if self.backend_mut().drain(limit, grace).is_err() {
            self.stop(grace);
        }
    }

    /// Ends the requests whose time is up. Runs after what came was handed
    /// out: an answer that is there beats its deadline.
    fn expire(&mut self, now: impl FnOnce() -> Instant) {
        if self.requests.next_deadline().is_none() {
            return;
        }
        let now = now();
        while let Some(id) = self.requests.expire(now) {
            self.backend_mut().cancel(id);
        }
    }

    /// Hands out what the callbacks have collected, in its order. The gauges go
    /// first: whoever gets an answer sees the counts that go with it.
    fn deliver(&mut self) {
        while let Ok(command) = self.subscriptions.try_recv() {
            self.execute(command);
        }
        let mut incoming = mem::take(&mut self.incoming);
        self.backend_mut().take_incoming(&mut incoming);
        self.publish();
        let now = Instant::now();
        for item in incoming.drain(..) {
            match item {
                Incoming::Frame(frame) => self.deliver_frame(frame, now),
                Incoming::Event(event) => self.deliver_event(*event),
                Incoming::Stderr(line) => self.tail.push(line),
                Incoming::Log(level, line) => {
                    log(self.log.as_ref(), LogLevel::from_c(level), &line);
                }
            }
        }
        incoming.shrink_to(INCOMING_KEPT);
        self.incoming = incoming;
    }

    fn deliver_frame(&mut self, frame: RawFrame, now: Instant) {
        match frame.kind {
            FrameKind::Response { id } => {
                let answer = Answer {
                    frame: frame.data,
                    from_bus: frame.from_bus,
                };
                if let Some(id) = id {
                    self.requests.answer(id, answer, now);
                }
            }
            FrameKind::Request { .. } => self.deliver_request(frame),
            FrameKind::Notification => self.deliver_notification(frame),
        }
    }

    /// To those who listen, and to the handler; without one the worker has its
    /// answer at once, since silence would leave it waiting.
    fn deliver_request(&mut self, frame: RawFrame) {
        let message = self.message(frame);
        self.hub.tell(&message);
        let id = message.id.as_deref().unwrap_or_default();
        match self.hub.ask(&message) {
            Handed::Taken => {}
            Handed::Full => self.answer(id, &overload(id)),
            Handed::Unhandled => self.answer(id, &refusal(id, &message.frame)),
        }
    }

    /// To the request it belongs to and to those who listen. What nobody takes
    /// is counted.
    fn deliver_notification(&mut self, frame: RawFrame) {
        let wanting = frame
            .request
            .filter(|id| self.requests.wants(*id, &frame.data));
        let progress = frame
            .request
            .is_some_and(|id| self.requests.progress(id, &frame.data, Instant::now));
        let mut taken = progress || wanting.is_some();
        if wanting.is_some() || self.hub.listens() {
            let message = self.message(frame);
            taken |= self.hub.tell(&message);
            if let Some(id) = wanting {
                self.post(id, &message);
            }
        }
        self.unhandled_notifications += u64::from(!taken);
    }

    fn post(&mut self, id: u64, message: &SharedMessage) {
        if self.requests.post(id, message) == Posted::Overflow {
            self.hub.event(&Event::Overflow(Overflow::Request(id)));
            self.backend_mut().cancel(id);
        }
    }

    fn message(&self, frame: RawFrame) -> SharedMessage {
        let worker = self.worker_ref(frame.worker, frame.generation);
        let id = match frame.kind {
            FrameKind::Request { id } => Some(id),
            _ => None,
        };
        Arc::new(WorkerMessage::new(frame.data, id, frame.request, worker))
    }

    /// Of a worker of another process's bus nothing is known.
    fn worker_ref(&self, worker: i32, generation: u32) -> WorkerRef {
        let native = self.backend().native();
        let info = native.and_then(|native| native.worker(worker));
        let (pool, pid) = match info {
            // It may have been started again since it said that.
            Some(info) if info.generation == generation => (info.pool, info.pid),
            Some(info) => (info.pool, None),
            None => (String::new(), None),
        };
        WorkerRef {
            id: usize::try_from(worker).unwrap_or(0),
            pool,
            generation,
            pid,
        }
    }

    fn deliver_event(&mut self, event: RawEvent) {
        let unsaid = event.stderr_unsaid;
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
            Event::WorkerStderr { line, .. } => {
                if let (true, Some(sink)) = (unsaid, &self.stderr) {
                    sink(line);
                }
                self.tail.push(line.clone());
            }
            _ => {}
        }
        self.hub.event(&event);
    }
}

impl<B: Backend> Drop for Driver<B> {
    /// The end, also that of a panic: from here on nobody can reach the bus,
    /// and everyone who waits is told. Commands still queued are dropped with
    /// the queue, which tells those who sent them.
    fn drop(&mut self) {
        self.shared.waker.close();
        if self.backend.is_some() {
            self.deliver();
            self.leave_word();
        }
        self.requests.end_all();
        self.backend = None;
        self.shared.gauges.clear();
        self.hub.close();
        self.shared.set_state(BusState::Stopped);
        if let Some((reply, error)) = self.failed_start.take() {
            let _ = reply.send(Err(error));
        }
        for stop in self.stops.drain(..) {
            let _ = stop.send(());
        }
    }
}
