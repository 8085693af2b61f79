//! How a bus ends what is open, at every stage.

mod common;

use std::pin::Pin;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use common::backends::{Over, Setup};
use common::client::{
    alone_without_panics, assert_kind, assert_shutting_down, begin, block_on, forever, poll_once,
    soon,
};
use common::{BOUND, alone, alone_async, open_tokios_sockets, runs, zoo_pool};
use futures_core::Stream;
use serde_json::json;
use stdiobus::{
    BusState, ErrorCode, Event, PoolConfig, Protocol, Request, ResponseStream, RestartPolicy,
    Result, StdioBus, StdioBusBuilder, StopReport, StreamEvent,
};

/// The bus under test.
fn bus(builder: StdioBusBuilder) -> StdioBus {
    builder.build().expect("valid")
}

const EVERYWHERE: [Over; 4] = [Over::Native, Over::Subprocess, Over::Unix, Over::Tcp];

/// The same elsewhere.
async fn bus_over(over: Over, pool: PoolConfig) -> Setup {
    over.build_with(&[pool], |builder| builder).await
}

const SHORT: Duration = Duration::from_millis(300);

fn waits<S: Stream + Unpin>(stream: &mut S) -> bool {
    let mut cx = Context::from_waker(Waker::noop());
    Pin::new(stream).poll_next(&mut cx).is_pending()
}

/// A bus whose worker stays until it is killed.
async fn with_stayer() -> (StdioBus, u32) {
    let bus = bus(StdioBus::builder().pool(zoo_pool(&["ignore-term"])));
    bus.start().await.expect("starts");
    let workers = bus.workers().await.expect("listed");
    (bus, workers[0].pid.expect("a process"))
}

/// What is in flight.
struct Open {
    asked: Vec<Request>,
    streams: Vec<ResponseStream>,
}

async fn open(bus: &StdioBus) -> Open {
    let ask = |_| {
        let request = bus.try_request_with("hold", (), forever());
        request.expect("room")
    };
    let asked = (0..50).map(ask).collect();
    let mut streams = Vec::new();
    for i in 0..10 {
        let options = forever().session_id(format!("{i}"));
        let params = json!({"texts": ["a"], "hold": true});
        let mut stream = bus.stream_request_with("session/prompt", params, options);
        let first = stream.next().await;
        assert!(
            matches!(first, Some(Ok(StreamEvent::Chunk(_)))),
            "{first:?}"
        );
        streams.push(stream);
    }
    Open { asked, streams }
}

impl Open {
    fn all_wait(&mut self) -> bool {
        self.asked
            .iter_mut()
            .all(|asked| poll_once(asked).is_pending())
            && self.streams.iter_mut().all(waits)
    }

    async fn assert_shut_down(self) {
        for asked in self.asked {
            assert_shutting_down(&asked.await.expect_err("an end"));
        }
        for mut stream in self.streams {
            assert_shutting_down(&stream.next().await.expect("an end").expect_err("no answer"));
            assert!(stream.next().await.is_none());
        }
    }
}

// ---- what is open ------------------------------------------------------------------------------

#[test]
fn a_stop_ends_requests_and_streams_before_the_workers_and_subscriptions_after_them() {
    alone_async(|| async {
        for draining in [false, true] {
            let (bus, worker) = with_stayer().await;
            let mut open = open(&bus).await;
            let (mut notes, mut events) = (bus.subscribe_notifications(), bus.events());
            let mut states = bus.state_changes();
            if draining {
                begin(bus.drain(BOUND));
                assert_eq!(states.reached(BusState::Stopping).await, BusState::Stopping);
                assert!(open.all_wait(), "a drain lets them end by themselves");
            }
            begin(bus.stop_with_timeout(Duration::from_secs(2)));
            open.assert_shut_down().await;
            assert_eq!(bus.state(), BusState::Stopping);
            assert!(runs(worker), "it is still there");
            // Its end is asked for, and told of, at once; both go on until it comes.
            let asked = soon("an event", events.next()).await;
            assert!(matches!(asked, Some(Event::WorkerStopping(_))), "{asked:?}");
            assert!(waits(&mut notes) && waits(&mut events));
            let late = bus.request("echo", ()).await;
            assert_shutting_down(&late.expect_err("too late"));

            let report = bus.stop().await.expect("stops");
            assert_eq!(report.killed(), 1);
            assert!(notes.next().await.is_none());
            assert!(
                events.next().await.is_some(),
                "the worker's end comes before"
            );
            while events.next().await.is_some() {}
        }
    });
}

#[test]
fn whoever_waits_for_room_ends_with_the_others() {
    alone_async(|| async {
        let builder = StdioBus::builder().pool(zoo_pool(&["ignore-term"]));
        let bus = bus(builder.max_in_flight_bytes(1000));
        bus.start().await.expect("starts");
        let large = json!({"blob": "x".repeat(900)});
        let held = bus.try_request_with("hold", &large, forever());
        let held = held.expect("room");
        let mut waiting: Vec<_> = (0..20)
            .map(|_| bus.request_with("echo", &large, forever()))
            .collect();
        assert!(
            waiting
                .iter_mut()
                .all(|request| poll_once(request).is_pending())
        );
        begin(bus.stop_with_timeout(Duration::from_secs(2)));
        assert_shutting_down(&held.await.expect_err("an end"));
        for request in waiting {
            assert_shutting_down(&request.await.expect_err("an end"));
        }
        assert_eq!(bus.state(), BusState::Stopping);
        bus.stop_with_timeout(Duration::ZERO).await.expect("stops");
        let stats = bus.stats().await.expect("the last ones");
        assert_eq!((stats.waiting_for_room, stats.pending), (0, 0));
    });
}

#[test]
fn subscribers_hear_what_is_said_while_a_bus_drains() {
    alone_async(|| async {
        for over in EVERYWHERE {
            let Setup {
                bus,
                host: _host,
                dir: _dir,
            } = bus_over(over, zoo_pool(&["echo"])).await;
            bus.start().await.expect("starts");
            let mut notes = bus.subscribe_notifications();
            let said = bus.try_request("progress", json!({"n": 30, "ms": 5}));
            let drained = bus.drain(BOUND);
            let (said, drained) = tokio::join!(said.expect("room"), drained);
            said.expect("it ends by itself");
            drained.expect("drains");
            let mut heard = 0;
            while notes.next().await.is_some() {
                heard += 1;
            }
            assert_eq!(heard, 30);
        }
    });
}

#[test]
fn what_a_drain_can_not_wait_for_ends_as_it_does_at_a_stop() {
    alone_async(|| async {
        for over in EVERYWHERE {
            let Setup {
                bus,
                host: _host,
                dir: _dir,
            } = bus_over(over, zoo_pool(&["echo"])).await;
            bus.start().await.expect("starts");
            let open = open(&bus).await;
            bus.drain(Duration::from_millis(50)).await.expect("drains");
            for asked in open.asked {
                assert_kind(asked.await, ErrorCode::TransportError);
            }
            for mut stream in open.streams {
                let end = stream.next().await.expect("an end");
                assert_kind(end, ErrorCode::TransportError);
                assert!(stream.next().await.is_none());
            }
        }
    });
}

#[test]
fn a_bus_that_never_ran_ends_its_subscriptions_as_well() {
    open_tokios_sockets();
    alone(|| {
        for over in EVERYWHERE {
            for drain in [false, true] {
                let Setup {
                    bus,
                    host: _host,
                    dir: _dir,
                } = block_on(bus_over(over, zoo_pool(&["echo"])));
                let (mut notes, mut events) = (bus.subscribe_notifications(), bus.events());
                let mut stream = bus.stream_request("session/prompt", ());
                let early = block_on(stream.next()).expect("an end");
                assert_kind(early, ErrorCode::InvalidState);
                assert!(block_on(stream.next()).is_none());
                assert!(waits(&mut notes) && waits(&mut events));
                block_on(end(&bus, drain)).expect("ends");
                assert!(block_on(notes.next()).is_none());
                assert!(block_on(events.next()).is_none());
                let late = assert_kind(block_on(bus.start()), ErrorCode::InvalidState);
                assert!(late.to_string().contains("again"), "{late}");
            }
        }
    });
}

async fn end(bus: &StdioBus, drain: bool) -> Result<StopReport> {
    if drain {
        bus.drain(BOUND).await
    } else {
        bus.stop().await
    }
}

#[test]
fn whatever_is_asked_of_a_bus_that_stops_is_refused_with_the_same_words() {
    alone_async(|| async {
        let (bus, _) = with_stayer().await;
        begin(bus.stop_with_timeout(Duration::from_secs(2)));
        bus.state_changes().reached(BusState::Stopping).await;
        let config = stdiobus::BusConfig::new().pool(zoo_pool(&["echo"]));
        let service = |_| async { Ok(json!(1)) };
        let refused = [
            bus.request("echo", ()).await.map(drop),
            bus.try_request("echo", ()).map(drop),
            bus.notify("note", ()).await,
            bus.send(r#"{"jsonrpc":"2.0","method":"note"}"#).await,
            bus.end_session("s").await.map(drop),
            bus.reload(config).await,
            bus.connect_io(None).await.map(drop),
            bus.register_worker("zoo", service).await.map(drop),
            bus.hello(stdiobus::HelloParams::new()).await.map(drop),
        ];
        for refused in refused {
            assert_shutting_down(&refused.expect_err("refused"));
        }
        bus.stop_with_timeout(Duration::ZERO).await.expect("stops");
    });
}

/// How a bus is ended.
#[derive(Debug, Clone, Copy)]
enum How {
    Stop,
    Drain,
    /// While it stops: alone, a drop lets workers take half a minute.
    Drop,
}

#[test]
fn requests_that_no_worker_has_taken_end_with_the_bus_however_it_ends() {
    alone_async(|| async {
        for over in EVERYWHERE {
            // Its handshake is never answered; it never lives; it reads nothing, so that much waits.
            let shakes = zoo_pool(&["deaf"]).protocol(Protocol::Mcp);
            let fails = zoo_pool(&["exit", "1"]).restart(RestartPolicy::Always);
            for pool in [shakes, fails, zoo_pool(&["deaf"])] {
                for how in [How::Stop, How::Drain, How::Drop] {
                    let Setup {
                        bus,
                        host: _host,
                        dir: _dir,
                    } = bus_over(over, pool.clone()).await;
                    bus.start().await.expect("starts");
                    let mut states = bus.state_changes();
                    let large = json!({"blob": "x".repeat(10_000)});
                    let ask = |_| bus.try_request_with("echo", &large, forever());
                    let asked: Vec<_> =
                        (0..50).map(ask).map(|asked| asked.expect("room")).collect();
                    let params = json!({"texts": ["a"]});
                    let mut stream = bus.stream_request_with("session/prompt", params, forever());
                    assert!(waits(&mut stream));
                    match how {
                        How::Stop => drop(bus.stop_with_timeout(SHORT).await.expect("stops")),
                        How::Drain => {
                            let drains = bus.drain(SHORT);
                            drop(soon("the end", drains).await.expect("drains"));
                        }
                        How::Drop => begin(bus.stop_with_timeout(SHORT)),
                    }
                    drop(bus);
                    for asked in asked {
                        let end = soon("an end", asked).await;
                        // One that fails may have been seen to do so before.
                        assert_kind(end, ErrorCode::TransportError);
                    }
                    let end = soon("an end", stream.next()).await.expect("an end");
                    assert_kind(end, ErrorCode::TransportError);
                    assert_eq!(states.reached(BusState::Stopped).await, BusState::Stopped);
                }
            }
        }
    });
}

#[test]
fn limits_of_any_length_are_taken() {
    alone_without_panics(|| {
        for over in EVERYWHERE {
            for how in [How::Stop, How::Drain, How::Drop] {
                let pools = [zoo_pool(&["echo"])];
                let setup = over.build_with(&pools, |builder| builder.timeout(Duration::MAX));
                let Setup {
                    bus,
                    host: _host,
                    dir: _dir,
                } = block_on(setup);
                block_on(bus.start()).expect("starts");
                block_on(bus.request("echo", ())).expect("answered");
                match how {
                    How::Stop => drop(block_on(bus.stop_with_timeout(Duration::MAX))),
                    How::Drain => drop(block_on(bus.drain(Duration::MAX))),
                    How::Drop => {}
                }
            }
        }
    });
}

// ---- one after the other -------------------------------------------------------------------------

#[test]
fn a_stop_at_once_cuts_one_short_that_takes_its_time() {
    alone_async(|| async {
        let (bus, worker) = with_stayer().await;
        let mut slow = Box::pin(bus.stop());
        assert!(poll_once(&mut slow).is_pending());
        let start = Instant::now();
        let report = bus.stop_with_timeout(Duration::ZERO).await.expect("stops");
        assert!(start.elapsed() < Duration::from_secs(5));
        assert!(!runs(worker));
        assert_eq!(slow.await.expect("stops"), report);
    });
}

#[test]
fn the_limit_of_the_first_stop_holds_for_those_after_it() {
    alone_async(|| async {
        let (bus, _) = with_stayer().await;
        let start = Instant::now();
        begin(bus.stop_with_timeout(Duration::from_secs(1)));
        let report = bus.stop().await.expect("stops");
        assert!(
            start.elapsed() < Duration::from_secs(5),
            "{:?}",
            start.elapsed()
        );
        assert_eq!(report.killed(), 1);
    });
}

#[test]
fn a_drop_does_not_put_off_a_stop_that_has_begun() {
    alone_async(|| async {
        let (bus, _) = with_stayer().await;
        let mut states = bus.state_changes();
        let start = Instant::now();
        begin(bus.stop_with_timeout(Duration::from_secs(1)));
        drop(bus);
        assert_eq!(states.reached(BusState::Stopped).await, BusState::Stopped);
        assert!(
            start.elapsed() < Duration::from_secs(5),
            "{:?}",
            start.elapsed()
        );
    });
}

// ---- while it starts ---------------------------------------------------------------------------

/// A bus that has begun to start, and is held up in the middle of it.
struct HeldUp {
    bus: StdioBus,
    release: Sender<()>,
}

fn held_up() -> HeldUp {
    let (entering, entered): (_, Receiver<()>) = channel();
    let (release, gate) = channel::<()>();
    let (gate, armed) = (Mutex::new(gate), AtomicBool::new(true));
    let builder = StdioBus::builder().pool(zoo_pool(&["echo"]).instances(2));
    let bus = bus(builder.on_log(move |_, _| {
        if armed.swap(false, Ordering::SeqCst) {
            entering.send(()).expect("the test listens");
            let _ = gate.lock().expect("no panic").recv();
        }
    }));
    begin(bus.start());
    entered.recv_timeout(BOUND).expect("it is held up");
    assert_eq!(bus.state(), BusState::Starting);
    HeldUp { bus, release }
}

#[test]
fn a_bus_can_be_ended_while_it_starts() {
    alone(|| {
        for drain in [false, true] {
            let HeldUp { bus, release } = held_up();
            let mut states = bus.state_changes();
            assert_kind(block_on(bus.start()), ErrorCode::InvalidState);
            assert_kind(block_on(bus.request("echo", ())), ErrorCode::InvalidState);
            let mut ends = Box::pin(end(&bus, drain));
            let mut again = Box::pin(end(&bus, !drain));
            assert!(poll_once(&mut ends).is_pending() && poll_once(&mut again).is_pending());
            release.send(()).expect("it is held up");
            let report = block_on(ends).expect("ends");
            assert_eq!(report.exits.len(), 2);
            assert_eq!(block_on(again).expect("ends"), report);
            assert_eq!(block_on(states.next()), Some(BusState::Stopped));
        }
    });
}
