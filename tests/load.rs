//! Many tasks that ask, give up, time out and are aborted at random while workers are killed: each
//! call ends exactly once, with its own answer or an error of its own, and nothing is left behind.
//!
//! The seed is printed, and `STDIO_BUS_TEST_SEED` sets it.

mod common;

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use common::backends::{Over, Setup};
use common::client::eventually;
use common::peer::kill_now;
use common::{alone_async, alone_async_within, zoo_pool};
use serde_json::{Value, json};
use stdiobus::{
    BusConfig, BusState, Error, ErrorCode, LimitsConfig, Protocol, RequestOptions, ResponseStream,
    StdioBus, StreamEvent,
};
use tokio::runtime::Handle;

const TASKS: u64 = 64;
const WORKERS: u32 = 4;
const KILLS: u64 = 2;
/// Rounds after which memory is expected to have found its level.
const WARM_UP: usize = 3;
const ROUNDS: usize = 10;

/// The bus under test.
async fn bus(over: Over, protocol: Protocol) -> Setup {
    let limits = LimitsConfig::new().max_restarts(1000);
    let pool = zoo_pool(&["echo"]).instances(WORKERS).protocol(protocol);
    let config = BusConfig::new().pool(pool).limits(limits);
    let setup = over.build(config, |builder| {
        builder
            // So little that calls often wait for room.
            .max_in_flight_bytes(3000)
            .on_request(|request| async move { Ok(request.params().clone()) })
    });
    setup.await
}

/// Repeatable chance.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

fn seed() -> u64 {
    let given = std::env::var("STDIO_BUS_TEST_SEED").ok();
    let seed = given.map(|seed| seed.parse().expect("a number"));
    let now = || SystemTime::now().duration_since(UNIX_EPOCH);
    let seed = seed.unwrap_or_else(|| now().expect("after 1970").as_secs());
    eprintln!("STDIO_BUS_TEST_SEED={seed}");
    seed
}

/// How calls ended.
#[derive(Default)]
struct Ends {
    answered: AtomicU64,
    timed_out: AtomicU64,
    /// With `TransportError`, since their worker was killed.
    broken: AtomicU64,
    /// Given up by their task, or aborted with it.
    given_up: AtomicU64,
    /// Of those: never answered by a worker that lives.
    held: AtomicU64,
}

impl Ends {
    fn count(&self) -> [u64; 4] {
        [
            &self.answered,
            &self.timed_out,
            &self.broken,
            &self.given_up,
        ]
        .map(|end| end.load(Ordering::Relaxed))
    }

    fn one(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// What a call may end with: its own answer, or a typed error.
    fn settle(&self, sent: &Value, outcome: Result<Value, Error>, may_time_out: bool) {
        match outcome {
            Ok(answer) => {
                assert_eq!(answer, *sent, "another's answer");
                Self::one(&self.answered);
            }
            Err(error) if error.is(ErrorCode::Timeout) && may_time_out => {
                Self::one(&self.timed_out);
            }
            Err(error) => {
                let killed = error.exit().is_some_and(|exit| exit.signal == Some(9));
                assert!(killed, "no call may end with {error:?}");
                assert_eq!(error.kind(), Some(ErrorCode::TransportError));
                Self::one(&self.broken);
            }
        }
    }
}

/// One of the tasks, with what it needs for its calls.
struct Caller {
    bus: StdioBus,
    /// The bus that has the workers, where that can be asked.
    native: Option<StdioBus>,
    protocol: Protocol,
    number: u64,
    dice: Dice,
    /// Some of its calls are never answered, and workers are killed, with their sessions.
    first: bool,
    /// Of an agent.
    session: Option<String>,
    ends: Arc<Ends>,
}

impl Caller {
    async fn run(mut self, calls: u64) {
        if self.protocol == Protocol::Acp && !self.first {
            self.session = Some(self.new_session().await);
        }
        for call in 0..calls {
            let params = json!({"task": self.number, "call": call});
            match self.dice.roll(100) {
                0..=4 => self.time_out(params).await,
                5 if self.first => self.hold(params).await,
                6..=13 => self.drop_midway(params).await,
                14..=17 => self.abort(params).await,
                18..=23 if self.protocol == Protocol::Ndjson => self.stream(call).await,
                18..=23 if self.session.is_some() => self.turn(call).await,
                24..=25 => self.be_asked(params).await,
                _ => self.ask(params).await,
            }
        }
    }

    fn options(&mut self) -> RequestOptions {
        let options = RequestOptions::new();
        match self.dice.roll(3) {
            0 => options.unpinned(),
            1 => options.session_id(format!("session {}", self.number)),
            _ => options,
        }
    }

    async fn ask(&mut self, params: Value) {
        let options = self.options();
        let outcome = self.bus.request_with("echo", &params, options).await;
        self.ends.settle(&params, outcome, false);
    }

    /// Its worker asks back before it answers.
    async fn be_asked(&mut self, params: Value) {
        let id = format!("{}/{}", self.number, params["call"]);
        let asked = json!({"id": id, "method": "question", "params": params});
        let options = self.options();
        let outcome = self.bus.request_with("ask", &asked, options).await;
        self.ends.settle(&params, outcome, false);
    }

    /// Answered after its time, or just about then.
    async fn time_out(&mut self, mut params: Value) {
        let (limit, pause) = (self.dice.roll(4), self.dice.roll(8));
        params["ms"] = json!(pause);
        let method = if pause < 4 { "echo" } else { "sleep" };
        let options = self.options().timeout(Duration::from_millis(limit));
        let outcome = self.bus.request_with(method, &params, options).await;
        self.ends.settle(&params, outcome, true);
    }

    /// Never answered.
    async fn hold(&mut self, params: Value) {
        let options = self.options().timeout(Duration::from_millis(1));
        let outcome = self.bus.request_with("hold", &params, options).await;
        assert!(outcome.is_err(), "nobody answers that: {outcome:?}");
        Ends::one(&self.ends.held);
        self.ends.settle(&params, outcome, true);
    }

    /// Its future is dropped: before it is sent, or before or about when the answer comes.
    async fn drop_midway(&mut self, params: Value) {
        let options = self.options();
        let request = self.bus.request_with("echo", &params, options);
        let patience = Duration::from_micros(self.dice.roll(400));
        tokio::select! {
            biased;
            () = std::future::ready(()), if patience.is_zero() => Ends::one(&self.ends.given_up),
            outcome = request => self.ends.settle(&params, outcome, false),
            () = yields(patience) => Ends::one(&self.ends.given_up),
        }
    }

    /// In a task that is aborted.
    async fn abort(&mut self, params: Value) {
        let options = self.options();
        let task = tokio::spawn(self.bus.request_with("echo", &params, options));
        yields(Duration::from_micros(self.dice.roll(400))).await;
        task.abort();
        match task.await {
            Ok(outcome) => self.ends.settle(&params, outcome, false),
            Err(aborted) => {
                assert!(aborted.is_cancelled(), "{aborted:?}");
                Ends::one(&self.ends.given_up);
            }
        }
    }

    /// A stream of a session of its own: a worker without a protocol doesn't hear that a stream was
    /// given up, and what it goes on to say can't be told from what another one's session hears.
    async fn stream(&mut self, call: u64) {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let session = format!("stream {}", COUNT.fetch_add(1, Ordering::Relaxed));
        let text = |i| format!("{} {call} {i}", self.number);
        let texts: Vec<_> = (0..4).map(text).collect();
        let options = RequestOptions::new().session_id(&session);
        let params = json!({"texts": texts});
        let stream = self
            .bus
            .stream_request_with("session/prompt", params, options);
        let enough = self.dice.roll(8) as usize;
        self.read(stream, &texts, enough).await;
        if let Some(native) = &self.native {
            native.end_session(&session).await.expect("forgotten");
        }
    }

    async fn new_session(&self) -> String {
        let name = format!("agent's {}", self.number);
        let params = json!({"sessionId": name, "cwd": "/", "mcpServers": []});
        let new = self.bus.request("session/new", params);
        new.await.expect("a session");
        name
    }

    /// A turn of one session, that before it perhaps given up.
    async fn turn(&mut self, call: u64) {
        let text = |i| format!("{} {call} {i}", self.number);
        let texts: Vec<_> = (0..4).map(text).collect();
        let params = json!({"sessionId": self.session, "texts": texts});
        let stream = self.bus.stream_request("session/prompt", params);
        let enough = self.dice.roll(8) as usize;
        self.read(stream, &texts, enough).await;
    }

    /// Reads a stream to its end, or drops it after so much of it.
    async fn read(&self, mut stream: ResponseStream, texts: &[String], enough: usize) {
        for seen in 0..enough {
            match stream.next().await.expect("an end comes before nothing") {
                Ok(StreamEvent::Chunk(text)) => assert_eq!(text, texts[seen]),
                Ok(StreamEvent::Result(result)) => {
                    assert_eq!(result["text"], texts.concat());
                    assert!(stream.next().await.is_none(), "a stream ends once");
                    return Ends::one(&self.ends.answered);
                }
                Ok(other) => panic!("{other:?}"),
                Err(error) => return self.ends.settle(&Value::Null, Err(error), false),
            }
        }
        Ends::one(&self.ends.given_up);
    }
}

/// Lets others go on for so long.
async fn yields(time: Duration) {
    let end = Instant::now() + time;
    while Instant::now() < end {
        tokio::task::yield_now().await;
    }
}

/// Kills workers that are ready, one after the other, each when so many calls have ended.
async fn kill_workers(setup: &Setup, ends: &Ends, calls: u64, dice: &mut Dice) {
    for kill in 1..=KILLS {
        let due = calls * kill / (KILLS + 1);
        eventually("calls end", || ends.count().iter().sum::<u64>() >= due).await;
        let pids = setup.worker_pids().await;
        kill_now(pids[dice.roll(pids.len() as u64) as usize]);
    }
}

/// So many calls of each task. In the first round workers are killed meanwhile, and some calls are
/// held by them for ever: the bus remembers those as long as the worker lives.
async fn round(setup: &Setup, protocol: Protocol, calls: u64, first: bool, seed: u64) -> Arc<Ends> {
    let ends = Arc::new(Ends::default());
    let tasks: Vec<_> = (0..TASKS)
        .map(|number| Caller {
            bus: setup.bus.clone(),
            native: setup.native().cloned(),
            protocol,
            number,
            dice: Dice(seed.wrapping_mul(977).wrapping_add(number)),
            first,
            session: None,
            ends: Arc::clone(&ends),
        })
        .map(|caller| tokio::spawn(caller.run(calls)))
        .collect();
    if first {
        kill_workers(setup, &ends, TASKS * calls, &mut Dice(seed)).await;
    }
    for task in tasks {
        task.await.expect("no panic");
    }
    assert_eq!(ends.count().iter().sum::<u64>(), TASKS * calls);
    assert_eq!(Arc::strong_count(&ends), 1, "a task is left");
    ends
}

/// Nothing of a round is left in the bus but what workers will never answer.
async fn assert_idle(setup: &Setup, held: u64) {
    let bus = &setup.bus;
    eventually("nothing is pending", || bus.pending_count() == Some(0)).await;
    if let Some(native) = setup.native() {
        assert_forgotten(native, held).await;
    }
    let stats = bus.stats().await.expect("counted");
    let left = (stats.pending, stats.in_flight_bytes, stats.waiting_for_room);
    assert_eq!(left, (0, 0, 0), "{stats:?}");
    assert_eq!(stats.refused_worker_requests, 0, "{stats:?}");
}

/// The bus that has the workers remembers no more than what they will never answer.
async fn assert_forgotten(bus: &StdioBus, held: u64) {
    eventually("nothing is pending there", || {
        bus.pending_count() == Some(0)
    })
    .await;
    let mut stats = bus.stats().await.expect("counted");
    let end = Instant::now() + Duration::from_secs(10);
    while stats.tombstones > held && Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(5)).await;
        stats = bus.stats().await.expect("counted");
    }
    assert!(stats.tombstones <= held, "{held} were held: {stats:?}");
}

async fn every_call_ends_once(over: Over, protocol: Protocol, calls: u64, rounds: usize) {
    let seed = seed();
    let idle = Handle::current().metrics().num_alive_tasks();
    let setup = bus(over, protocol).await;
    setup.bus.start().await.expect("starts");
    let (mut held, mut memory, mut ended) = (0, Vec::new(), [0; 4]);
    for number in 0..rounds {
        let begin = Instant::now();
        let ends = round(
            &setup,
            protocol,
            calls,
            number == 0,
            seed.wrapping_add(number as u64),
        )
        .await;
        let [answered, timed_out, broken, given_up] = ends.count();
        held += ends.held.load(Ordering::Relaxed);
        assert_idle(&setup, held).await;
        memory.push(resident());
        eprintln!(
            "round {number}: {answered} answered, {timed_out} timed out, {broken} broken, \
             {given_up} given up; {} KiB after {:?}",
            memory[number] / 1024,
            begin.elapsed()
        );
        for (sum, count) in ended.iter_mut().zip(ends.count()) {
            *sum += count;
        }
    }
    assert_counted(&setup, ended).await;
    setup.finish().await;
    let alive = || Handle::current().metrics().num_alive_tasks();
    eventually("no task is left", || alive() == idle).await;
    assert_level(&memory);
}

/// Each answer was counted once: those that were taken, and some that came too late for their task.
async fn assert_counted(setup: &Setup, [answered, _, broken, given_up]: [u64; 4]) {
    let stats = setup.bus.stats().await.expect("counted");
    let counted = answered + broken..=answered + broken + given_up;
    assert!(counted.contains(&stats.latency.count), "{stats:?}");
    if let Some(native) = setup.native() {
        let stats = native.stats().await.expect("counted");
        assert_eq!(stats.worker_restarts, KILLS);
    }
}

/// The memory that this process occupies.
fn resident() -> u64 {
    const PAGE: u64 = 4096;
    let statm = fs::read_to_string("/proc/self/statm").expect("read");
    let pages = statm.split(' ').nth(1).and_then(|n| n.parse::<u64>().ok());
    pages.expect("a number") * PAGE
}

/// Rounds after the first ones take no more memory, but for what a heap shifts about.
fn assert_level(memory: &[u64]) {
    if let [warm @ .., last] = memory
        && warm.len() >= WARM_UP
    {
        let grown = last.saturating_sub(warm[WARM_UP - 1]);
        eprintln!("{} KiB more since the warm-up", grown / 1024);
        assert!(grown < 1 << 20, "{memory:?}");
    }
}

const OTHERS: [Over; 3] = [Over::Subprocess, Over::Unix, Over::Tcp];

async fn buses_come_and_go(over: Over) {
    let idle = Handle::current().metrics().num_alive_tasks();
    let mut memory = Vec::new();
    for _ in 0..ROUNDS {
        for number in 0..10 {
            let setup = bus(over, Protocol::Ndjson).await;
            let bus = setup.bus.clone();
            let _notes = bus.subscribe_notifications();
            let handler = bus.on_notification(|_| {}).expect("registered");
            handler.keep();
            bus.start().await.expect("starts");
            let asked = json!({"params": number});
            let answer = bus.request("ask", asked).await;
            assert_eq!(answer.expect("answered"), number);
            if number % 2 == 0 {
                bus.stop().await.expect("stops");
            }
            let mut states = bus.state_changes();
            drop((bus, setup.bus));
            assert_eq!(states.reached(BusState::Stopped).await, BusState::Stopped);
            if let Some(host) = setup.host {
                host.stop().await.expect("stops");
            }
        }
        memory.push(resident());
    }
    let alive = || Handle::current().metrics().num_alive_tasks();
    eventually("no task is left", || alive() == idle).await;
    assert_level(&memory);
}

#[test]
fn buses_that_come_and_go_leave_no_memory_and_no_tasks() {
    alone_async(|| buses_come_and_go(Over::Native));
}

#[test]
fn buses_elsewhere_that_come_and_go_leave_nothing_here() {
    alone_async(|| async {
        for over in OTHERS {
            buses_come_and_go(over).await;
        }
    });
}

#[test]
fn every_call_of_sixty_four_busy_tasks_ends_once_whatever_dies() {
    alone_async_within(Duration::from_secs(300), || {
        every_call_ends_once(Over::Native, Protocol::Ndjson, 10_000, 1)
    });
}

#[test]
fn every_call_over_a_wire_ends_once_whatever_dies() {
    alone_async_within(Duration::from_secs(300), || async {
        for over in OTHERS {
            every_call_ends_once(over, Protocol::Ndjson, 500, 1).await;
        }
    });
}

#[test]
#[ignore = "takes minutes; the one above is a part of it"]
fn ten_thousand_calls_of_each_task_over_a_wire_end_once_whatever_dies() {
    alone_async_within(Duration::from_secs(1800), || async {
        for over in OTHERS {
            eprintln!("{over:?}");
            every_call_ends_once(over, Protocol::Ndjson, 10_000, 1).await;
        }
    });
}

#[test]
fn calls_of_a_protocol_that_can_cancel_end_once_and_leave_nothing() {
    alone_async(|| async {
        for protocol in [Protocol::Mcp, Protocol::Acp] {
            every_call_ends_once(Over::Native, protocol, 500, 2).await;
        }
    });
}

#[test]
fn calls_over_a_wire_that_can_be_cancelled_end_once_and_leave_nothing() {
    alone_async(|| async {
        for over in OTHERS {
            for protocol in [Protocol::Mcp, Protocol::Acp] {
                every_call_ends_once(over, protocol, 100, 2).await;
            }
        }
    });
}

#[test]
fn ten_rounds_of_calls_leave_no_memory_and_no_tasks() {
    alone_async(|| every_call_ends_once(Over::Native, Protocol::Ndjson, 500, ROUNDS));
}

#[test]
fn ten_rounds_of_calls_over_a_wire_leave_no_memory_and_no_tasks() {
    alone_async(|| async {
        for over in [Over::Subprocess, Over::Unix] {
            every_call_ends_once(over, Protocol::Ndjson, 100, ROUNDS).await;
        }
    });
}

#[test]
#[ignore = "takes minutes; the two above are its parts"]
fn ten_rounds_of_ten_thousand_calls_of_each_task_leave_nothing() {
    alone_async_within(Duration::from_secs(1800), || {
        every_call_ends_once(Over::Native, Protocol::Ndjson, 10_000, ROUNDS)
    });
}
