//! What happens on a bus, as its subscribers are told: each kind of event, and of which life of a
//! worker it is.

mod common;

use std::collections::BTreeSet;
use std::time::Duration;

use common::client::{assert_kind, soon, started};
use common::{Client, TempDir, alone_async, runs, zoo_pool};
use serde_json::json;
use stdiobus::{
    ErrorCode, Event, EventStream, LimitsConfig, ListenAddr, ListenMode, RequestOptions, StdioBus,
    WorkerRef,
};

async fn next(events: &mut EventStream) -> Event {
    soon("an event", events.next()).await.expect("the bus runs")
}

/// The first event of which there is something to say.
async fn find<T>(events: &mut EventStream, mut pick: impl FnMut(Event) -> Option<T>) -> T {
    loop {
        if let Some(found) = pick(next(events).await) {
            return found;
        }
    }
}

/// The kind of an event of a worker, and the worker.
fn of_worker(event: Event) -> Option<(&'static str, WorkerRef)> {
    Some(match event {
        Event::WorkerStarted(worker) => ("started", worker),
        Event::WorkerReady(worker) => ("ready", worker),
        Event::WorkerStopping(worker) => ("stopping", worker),
        Event::WorkerStopped { worker, exit, .. } => {
            assert_eq!(exit.pool, worker.pool);
            ("stopped", worker)
        }
        Event::WorkerRestarting { worker, .. } => ("restarting", worker),
        Event::WorkerFailed { worker, .. } => ("failed", worker),
        Event::WorkerStderr { worker, line, .. } => {
            assert!(!line.ends_with('\n'), "{line:?}");
            ("stderr", worker)
        }
        Event::WorkerGarbage { worker, line, .. } => {
            assert!(!line.is_empty());
            ("garbage", worker)
        }
        Event::Unattributed(worker) => ("unattributed", worker),
        _ => return None,
    })
}

#[test]
fn each_event_of_a_worker_says_of_which_life_it_is() {
    alone_async(|| async {
        let pool = zoo_pool(&["chatty", "garbage", "unknown-ids"]);
        let bus = StdioBus::builder().pool(pool).build().expect("valid");
        // Its stderr has 2000 lines in each life.
        let mut events = bus.events_with(10_000);
        bus.start().await.expect("starts");
        let first = bus.workers().await.expect("known")[0].clone();
        bus.request("echo", ()).await.expect("answered");
        let gone = bus.request("exit", json!({"code": 3})).await;
        assert_kind(gone, ErrorCode::TransportError);
        bus.request("echo", ()).await.expect("answered");
        let second = bus.workers().await.expect("known")[0].clone();
        assert_eq!((first.generation, second.generation), (1, 2));
        assert_eq!((second.restarts, second.pending), (1, 0));
        assert!(first.pid != second.pid && second.pid.is_some());
        bus.stop().await.expect("stops");

        let mut told = [BTreeSet::new(), BTreeSet::new()];
        while let Some(event) = events.next().await {
            let Some((kind, worker)) = of_worker(event) else {
                continue;
            };
            assert_eq!((worker.id, worker.pool.as_str()), (0, "zoo"));
            let life = worker.generation as usize;
            if worker.pid.is_some() {
                let pid = [first.pid, second.pid][life - 1];
                assert_eq!(worker.pid, pid, "{kind} of life {life}");
            }
            told[life - 1].insert(kind);
        }
        assert_eq!(events.lagged(), 0);
        let both = [
            "started",
            "ready",
            "stderr",
            "garbage",
            "unattributed",
            "stopped",
        ];
        for (life, own) in told.into_iter().zip(["restarting", "stopping"]) {
            let all = BTreeSet::from_iter(both.into_iter().chain([own]));
            assert_eq!(life, all);
        }
    });
}

#[test]
fn an_exit_is_told_with_its_status_or_its_signal_and_what_comes_after() {
    alone_async(|| async {
        let mut limits = LimitsConfig::new();
        limits.max_restarts = Some(1);
        let builder = StdioBus::builder().pool(zoo_pool(&["echo"])).limits(limits);
        let bus = builder.build().expect("valid");
        let mut events = bus.events();
        bus.start().await.expect("starts");
        let pid = bus.workers().await.expect("known")[0].pid.expect("runs");
        common::signal(pid, "KILL");
        let exit = find(&mut events, |event| match event {
            Event::WorkerStopped { exit, .. } => Some(exit),
            _ => None,
        });
        let exit = exit.await;
        assert_eq!((exit.code, exit.signal), (None, Some(9)));
        assert!(!runs(pid));
        let delay = find(&mut events, |event| match event {
            Event::WorkerRestarting { delay, worker, .. } => {
                assert_eq!(worker.generation, 1);
                Some(delay)
            }
            _ => None,
        });
        assert!(delay.await <= Duration::from_millis(100));
        let gone = bus.request("exit", json!({"code": 3})).await;
        assert_kind(gone, ErrorCode::TransportError);
        let (worker, reason) = find(&mut events, |event| match event {
            Event::WorkerFailed { worker, reason, .. } => Some((worker, reason)),
            Event::WorkerStopped { exit, .. } => {
                assert_eq!((exit.code, exit.signal), (Some(3), None));
                None
            }
            _ => None,
        })
        .await;
        assert_eq!(
            (worker.generation, reason.as_str()),
            (2, "too many restarts")
        );
        bus.stop().await.expect("stops");
    });
}

#[test]
fn clients_on_sockets_are_told_of_as_they_come_and_go() {
    alone_async(|| async {
        let dir = TempDir::new();
        let bus = StdioBus::builder()
            .pool(zoo_pool(&["echo"]))
            .listen(ListenMode::unix(dir.path("bus.sock")))
            .listen(ListenMode::tcp("127.0.0.1", 0))
            .build()
            .expect("valid");
        let mut events = bus.events();
        bus.start().await.expect("starts");
        let mut numbers = BTreeSet::new();
        for address in bus.listen_addrs() {
            let (client, peer) = match &address {
                ListenAddr::Unix(path) => (Client::unix(path), "unix"),
                ListenAddr::Tcp(address) => (Client::tcp(&address.to_string()), "127.0.0.1:"),
                other => panic!("{other:?}"),
            };
            let number = find(&mut events, |event| match event {
                Event::ClientConnected {
                    client, peer: from, ..
                } => {
                    assert!(from.starts_with(peer), "{from}");
                    Some(client)
                }
                _ => None,
            })
            .await;
            drop(client);
            find(&mut events, |event| match event {
                Event::ClientDisconnected { client, reason, .. } => {
                    assert_eq!((client, reason.as_str()), (number, "closed"));
                    Some(())
                }
                _ => None,
            })
            .await;
            numbers.insert(number);
        }
        assert_eq!(numbers.len(), 2, "a number is never used again");
        let mut stays = Client::unix(dir.path("bus.sock"));
        find(&mut events, |event| {
            matches!(event, Event::ClientConnected { .. }).then_some(())
        })
        .await;
        let answer = tokio::task::block_in_place(|| stays.ask("hello"));
        assert_eq!(answer["error"]["code"], -32700);
        let stats = bus.stats().await.expect("counted");
        let counts = (stats.client_connects, stats.client_disconnects);
        assert_eq!((counts, stats.parse_errors), ((3, 2), 1));
        bus.stop().await.expect("stops");
        let reason = find(&mut events, |event| match event {
            Event::ClientDisconnected { reason, .. } => Some(reason),
            _ => None,
        });
        assert_eq!(reason.await, "shutdown");
    });
}

#[test]
fn a_message_that_reaches_nobody_is_told_of_at_once_and_counted() {
    alone_async(|| async {
        let dir = TempDir::new();
        let path = dir.path("bus.sock");
        let listen = ListenMode::unix(&path);
        let builder = StdioBus::builder().pool(zoo_pool(&["echo"]));
        let bus = builder.listen(listen).build().expect("valid");
        let mut events = bus.events();
        bus.start().await.expect("starts");
        let mut dropped = async || {
            let reason = find(&mut events, |event| match event {
                Event::Dropped { reason, .. } => Some(reason),
                _ => None,
            });
            reason.await
        };
        // Nothing else happens, so it must not wait for anything else.
        let elsewhere = RequestOptions::new().pool("elsewhere");
        let told = bus.notify_with("note", (), elsewhere).await;
        assert_kind(told, ErrorCode::InvalidArgument);
        assert_eq!(dropped().await, "unroutable");
        let mut client = Client::unix(&path);
        client.send(r#"{"jsonrpc":"2.0","method":"note","pool":"elsewhere"}"#);
        assert_eq!(dropped().await, "unroutable");
        let stats = bus.stats().await.expect("counted");
        assert_eq!((stats.dropped_frames, stats.routing_errors), (2, 2));
        bus.stop().await.expect("stops");
    });
}

#[test]
fn a_worker_says_how_long_it_runs_and_what_it_has_to_answer() {
    alone_async(|| async {
        let bus = started(&["echo"]).await;
        let held = bus.try_request("hold", ()).expect("room");
        let workers = bus.workers().await.expect("known");
        assert_eq!(workers.iter().map(|worker| worker.pending).sum::<u32>(), 1);
        let before: Vec<_> = workers.iter().map(|worker| worker.uptime).collect();
        let nap = Duration::from_millis(50);
        bus.request("sleep", json!({"ms": 50}))
            .await
            .expect("answered");
        let after = bus.workers().await.expect("known");
        for (worker, before) in after.iter().zip(before) {
            assert!(
                worker.uptime >= before + nap / 2,
                "{worker:?} after {before:?}"
            );
        }
        drop(held);
        bus.stop().await.expect("stops");
    });
}
