//! What wants the end of a bus, and what is asked of it, all at the same moment.

mod common;

use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::Duration;

use common::backends::{Over, Setup};
use common::client::{assert_shutting_down, block_on, soon};
use common::{BOUND, alone, alone_async, children, open_tokios_sockets, wait_until, zoo_pool};
use serde_json::json;
use stdiobus::{BusConfig, BusState, ErrorCode, Result, StdioBus, StopReport};
use tokio::io::AsyncWriteExt;

/// Each body of a test, where the bus may be.
const EVERYWHERE: [Over; 4] = [Over::Native, Over::Subprocess, Over::Unix, Over::Tcp];

/// The bus under test, with so many workers.
fn bus(over: Over, workers: u32) -> Setup {
    let pool = zoo_pool(&["echo"]).instances(workers);
    block_on(over.build_with(&[pool], |builder| builder))
}

/// How often a race is run: one with processes of its own costs more.
fn rounds(over: Over, native: usize) -> std::ops::Range<usize> {
    0..if over.is_native() { native } else { native / 4 }
}

async fn end(bus: &StdioBus, drain: bool) -> Result<StopReport> {
    if drain {
        bus.drain(BOUND).await
    } else {
        bus.stop().await
    }
}

/// Lets all of these begin at the same moment, each on a thread of its own.
fn race(racers: Vec<Box<dyn FnOnce() + Send>>) {
    let barrier = Arc::new(Barrier::new(racers.len()));
    let begin = |racer: Box<dyn FnOnce() + Send>| {
        let barrier = Arc::clone(&barrier);
        thread::spawn(move || {
            barrier.wait();
            racer();
        })
    };
    for thread in racers.into_iter().map(begin).collect::<Vec<_>>() {
        thread.join().expect("no panic");
    }
}

#[test]
fn stops_drains_and_drops_at_once_all_end_and_tell_the_same() {
    open_tokios_sockets();
    alone(|| {
        for over in EVERYWHERE {
            for _ in rounds(over, 50) {
                let Setup {
                    bus,
                    host: _host,
                    dir: _dir,
                } = bus(over, 2);
                block_on(bus.start()).expect("starts");
                let held = bus.try_request("hold", ()).expect("room");
                let reports = Arc::new(Mutex::new(Vec::new()));
                let mut racers: Vec<Box<dyn FnOnce() + Send>> = Vec::new();
                for number in 0..6 {
                    let (ended, reports) = (bus.clone(), Arc::clone(&reports));
                    racers.push(Box::new(move || {
                        let report = block_on(async {
                            match number {
                                0 | 1 => ended.stop().await,
                                2 => ended.stop_with_timeout(Duration::from_secs(3)).await,
                                _ => ended.drain(BOUND).await,
                            }
                        });
                        reports
                            .lock()
                            .expect("no panic")
                            .push(report.expect("ends"));
                    }));
                    let bus = bus.clone();
                    racers.push(Box::new(move || drop(bus)));
                }
                let mut states = bus.state_changes();
                drop(bus);
                race(racers);
                assert_shutting_down(&block_on(held).expect_err("an end"));
                let reports = reports.lock().expect("no panic");
                assert_eq!(reports.len(), 6);
                let exits = if over.is_native() { 2 } else { 0 };
                assert_eq!(reports[0].exits.len(), exits);
                assert!(reports.iter().all(|report| *report == reports[0]));
                assert_eq!(block_on(states.next()), Some(BusState::Stopped));
                assert_eq!(block_on(states.next()), None);
            }
            wait_until("nothing is left", BOUND, || {
                children(std::process::id()).is_empty()
            });
        }
    });
}

#[test]
fn a_start_and_an_end_at_once_leave_a_bus_that_has_stopped() {
    open_tokios_sockets();
    alone(|| {
        for over in EVERYWHERE {
            for round in rounds(over, 100) {
                let Setup {
                    bus,
                    host: _host,
                    dir: _dir,
                } = bus(over, 2);
                let mut states = bus.state_changes();
                let mut racers: Vec<Box<dyn FnOnce() + Send>> = Vec::new();
                let starts = bus.clone();
                racers.push(Box::new(move || {
                    if let Err(error) = block_on(starts.start()) {
                        let kind = error.kind();
                        let stopped = matches!(
                            kind,
                            Some(ErrorCode::InvalidState | ErrorCode::TransportError)
                        );
                        assert!(stopped, "{error:?}");
                    }
                }));
                match round % 3 {
                    0 => racers.push(Box::new(move || drop(bus))),
                    n => racers.push(Box::new(move || {
                        block_on(end(&bus, n == 1)).expect("ends");
                    })),
                }
                race(racers);
                assert_eq!(
                    block_on(states.reached(BusState::Stopped)),
                    BusState::Stopped
                );
            }
            wait_until("nothing is left", BOUND, || {
                children(std::process::id()).is_empty()
            });
        }
    });
}

#[test]
fn of_several_starts_at_once_one_succeeds() {
    open_tokios_sockets();
    alone(|| {
        for over in EVERYWHERE {
            for _ in rounds(over, 30) {
                let Setup {
                    bus,
                    host: _host,
                    dir: _dir,
                } = bus(over, 1);
                let started = Arc::new(Mutex::new(0));
                let racers = (0..4).map(|_| {
                    let (bus, started) = (bus.clone(), Arc::clone(&started));
                    Box::new(move || match block_on(bus.start()) {
                        Ok(()) => *started.lock().expect("no panic") += 1,
                        Err(error) => assert_eq!(error.kind(), Some(ErrorCode::InvalidState)),
                    }) as Box<dyn FnOnce() + Send>
                });
                race(racers.collect());
                assert_eq!(*started.lock().expect("no panic"), 1);
                block_on(bus.stop()).expect("stops");
            }
        }
    });
}

#[test]
fn requests_beside_a_stop_are_answered_or_told_of_it() {
    open_tokios_sockets();
    alone(|| {
        for over in EVERYWHERE {
            for round in rounds(over, 60) {
                let Setup {
                    bus,
                    host: _host,
                    dir: _dir,
                } = bus(over, 2);
                block_on(bus.start()).expect("starts");
                let mut racers: Vec<Box<dyn FnOnce() + Send>> = Vec::new();
                for thread in 0..3 {
                    let bus = bus.clone();
                    racers.push(Box::new(move || {
                        for call in 0.. {
                            let params = json!([thread, call]);
                            match block_on(bus.request("echo", &params)) {
                                Ok(answer) => assert_eq!(answer, params),
                                Err(error) if error.kind() == Some(ErrorCode::InvalidState) => {
                                    assert!(error.to_string().contains("stopped"), "{error}");
                                    return;
                                }
                                Err(error) => return assert_shutting_down(&error),
                            }
                        }
                    }));
                }
                racers.push(Box::new(move || {
                    block_on(end(&bus, round % 2 == 0)).expect("ends");
                }));
                race(racers);
            }
        }
    });
}

/// What a call may say that runs beside a stop.
fn is_told(what: &str, result: Result<()>) {
    let Err(error) = result else { return };
    let told = matches!(
        error.kind(),
        Some(ErrorCode::InvalidState | ErrorCode::TransportError)
    );
    assert!(told, "{what}: {error:?}");
}

#[test]
fn whatever_is_asked_beside_a_stop_comes_back() {
    alone_async(|| async {
        for round in 0..40 {
            let Setup {
                bus,
                host: _host,
                dir: _dir,
            } = bus(Over::Native, 2);
            bus.start().await.expect("starts");
            let stops = tokio::spawn({
                let bus = bus.clone();
                async move { end(&bus, round % 2 == 0).await }
            });
            let mut turns = 0;
            while bus.state() < BusState::Stopped || turns == 0 {
                turns += 1;
                let service = |_| async { Ok(json!(1)) };
                let config = BusConfig::new().pool(zoo_pool(&["echo"]).instances(2));
                bus.stats().await.expect("counted");
                bus.workers().await.expect("listed");
                is_told("tail", bus.worker_stderr_tail(0, 1).await.map(drop));
                is_told("notify", bus.notify("note", ()).await);
                is_told("end", bus.end_session("s").await.map(drop));
                is_told(
                    "register",
                    bus.register_worker("zoo", service).await.map(drop),
                );
                is_told("reload", bus.reload(config).await);
                let mut notes = bus.subscribe_notifications();
                let handler = bus.on_message(|_| {}).expect("registered");
                match bus.connect_io(None).await {
                    Ok(mut client) => drop(client.write_all(b"{}\n").await),
                    Err(error) => is_told("connect", Err(error)),
                }
                drop(handler);
                while notes.try_next().is_some() {}
            }
            soon("the end", stops)
                .await
                .expect("no panic")
                .expect("ends");
        }
    });
}
