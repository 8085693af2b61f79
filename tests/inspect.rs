//! What a bus tells about itself, and what changes it while it runs.

mod common;

use std::time::Duration;

use common::client::{assert_kind, eventually, soon, started};
use common::{alone, alone_async, signal, zoo_pool};
use serde_json::json;
use stdiobus::{
    BackendType, BusConfig, BusState, ErrorCode, Event, Latency, ListenMode, PoolConfig, Protocol,
    RequestOptions, RestartPolicy, StdioBus,
};

#[test]
fn states_are_told_as_they_change_and_end_with_the_last() {
    alone_async(|| async {
        let bus = StdioBus::builder().pool(zoo_pool(&["echo"])).build();
        let bus = bus.expect("valid");
        let mut changes = bus.state_changes();
        assert_eq!(changes.state(), BusState::Created);
        bus.start().await.expect("starts");
        let running = soon("running", changes.reached(BusState::Running)).await;
        assert_eq!(running, BusState::Running);

        let mut seen = bus.state_changes();
        let watching = tokio::spawn(async move {
            let mut states = vec![seen.state()];
            while let Some(state) = seen.next().await {
                states.push(state);
            }
            states
        });
        drop(bus); // neither the watch nor its task keeps it alive
        let states = soon("the end", watching).await.expect("no panic");
        assert!(states.is_sorted(), "{states:?}");
        assert_eq!(states.last(), Some(&BusState::Stopped));
        assert_eq!(changes.reached(BusState::Stopped).await, BusState::Stopped);
        assert_eq!(changes.next().await, None);
    });
}

#[test]
fn a_watch_that_comes_late_is_over_at_once() {
    alone(|| {
        let bus = StdioBus::builder().pool(zoo_pool(&["echo"]));
        let bus = bus.build_blocking().expect("valid");
        let mut changes = bus.state_changes();
        bus.start().expect("starts");
        let limit = Duration::from_secs(20);
        let reached = changes.reached_within(BusState::Running, limit);
        assert_eq!(reached.expect("in time"), BusState::Running);
        assert_kind(
            changes.next_within(Duration::from_millis(20)),
            ErrorCode::Timeout,
        );
        bus.stop().expect("stops");
        assert_eq!(changes.last(), Some(BusState::Stopped));
        assert_eq!(bus.state_changes().next(), None);
    });
}

#[test]
fn a_state_is_told_once_however_often_its_reason_is_given() {
    alone_async(|| async {
        let bus = started(&["ignore-term"]).await;
        let mut states = bus.state_changes();
        let stops = || {
            let bus = bus.clone();
            tokio::spawn(async move { bus.stop_with_timeout(Duration::from_secs(2)).await })
        };
        let first = stops();
        assert_eq!(states.next().await, Some(BusState::Stopping));
        let again = stops();
        // The next change after that is the end of workers which took their time.
        let change = soon("a change", states.next()).await;
        assert_eq!(change, Some(BusState::Stopped));
        for stop in [first, again] {
            stop.await.expect("no panic").expect("stops");
        }
    });
}

#[test]
fn the_last_state_is_told_even_if_the_bus_is_gone_before_anybody_looks() {
    alone_async(|| async {
        let bus = started(&["echo"]).await;
        let mut states = bus.state_changes();
        bus.stop().await.expect("stops");
        drop(bus);
        assert_eq!(states.next().await, Some(BusState::Stopped));
        assert_eq!(states.next().await, None);
    });
}

#[test]
fn the_end_of_stderr_can_be_asked_for_also_when_all_is_over() {
    alone_async(|| async {
        let pool = PoolConfig::new("sh", "sh")
            .args(["-c", "seq 1 50 >&2; exec cat >/dev/null"])
            .restart(RestartPolicy::Never);
        let bus = StdioBus::builder().pool(pool).build().expect("valid");
        let mut events = bus.events();
        bus.start().await.expect("starts");
        loop {
            match soon("the last line", events.next()).await {
                Some(Event::WorkerStderr { line, .. }) if line == "50" => break,
                Some(_) => {}
                None => panic!("the bus has ended"),
            }
        }
        let tail = bus.worker_stderr_tail(0, 3).await.expect("worker 0");
        assert_eq!(tail, ["48", "49", "50"]);
        assert_eq!(
            bus.worker_stderr_tail(0, 1000)
                .await
                .expect("worker 0")
                .len(),
            50
        );
        assert_eq!(
            bus.worker_stderr_tail(0, 0).await.expect("worker 0").len(),
            0
        );
        assert_kind(
            bus.worker_stderr_tail(1, 3).await,
            ErrorCode::InvalidArgument,
        );

        bus.stop().await.expect("stops");
        let tail = bus.worker_stderr_tail(0, 2).await.expect("worker 0");
        assert_eq!(tail, ["49", "50"]);
        assert_kind(
            bus.worker_stderr_tail(1, 3).await,
            ErrorCode::InvalidArgument,
        );
    });
}

#[test]
fn a_worker_that_leaves_its_input_unread_is_told_of_and_so_is_its_return() {
    alone_async(|| async {
        let bus = StdioBus::builder().pool(zoo_pool(&["echo"]));
        let bus = bus.build().expect("valid");
        let mut events = bus.events();
        bus.start().await.expect("starts");
        let pid = bus.workers().await.expect("known")[0].pid.expect("runs");
        signal(pid, "STOP");
        // More than a pipe takes.
        let sent = bus.notify("note", "x".repeat(1 << 20)).await;
        sent.expect("accepted");
        let mut next = async |what| soon(what, events.next()).await.expect("the bus runs");
        assert!(matches!(next("its start").await, Event::WorkerStarted(_)));
        assert!(matches!(next("its readiness").await, Event::WorkerReady(_)));
        match next("its silence").await {
            Event::WorkerStalled(worker) => assert_eq!((worker.id, worker.pid), (0, Some(pid))),
            other => panic!("{other:?}"),
        }
        signal(pid, "CONT");
        assert!(matches!(next("its return").await, Event::WorkerReady(_)));
        bus.stop().await.expect("stops");
    });
}

#[test]
fn a_session_that_was_ended_is_bound_anew() {
    alone_async(|| async {
        let bus = started(&["echo"]).await;
        bus.request("echo", ()).await.expect("answered");
        assert_eq!(bus.session_count(), Some(1));
        let own = bus.client_session_id().to_owned();
        assert!(bus.end_session(&own).await.expect("ended"));
        assert!(!bus.end_session(&own).await.expect("there is none"));
        assert_eq!(bus.stats().await.expect("counted").sessions, 0);
        bus.request("echo", ()).await.expect("answered");
        assert_eq!(bus.session_count(), Some(1));
        assert_kind(bus.end_session("").await, ErrorCode::InvalidArgument);
        bus.stop().await.expect("stops");
        assert_kind(bus.end_session(&own).await, ErrorCode::InvalidState);
    });
}

#[test]
fn a_reload_changes_the_pools_and_leaves_the_others_alone() {
    alone_async(|| async {
        let bus = started(&["echo"]).await;
        let before = bus.workers().await.expect("known");
        let kept = zoo_pool(&["echo"]).instances(2);
        let mut added = zoo_pool(&["echo"]);
        added.id = "added".into();
        let config = BusConfig::new().pool(kept).pool(added).default_pool("zoo");
        bus.reload(config).await.expect("taken");
        assert_eq!(bus.workers().await.expect("known").len(), 3);
        let pids = |workers: &[stdiobus::WorkerInfo], pool: &str| {
            let of_pool = workers.iter().filter(|worker| worker.pool == pool);
            of_pool.map(|worker| worker.pid).collect::<Vec<_>>()
        };
        let after = bus.workers().await.expect("known");
        assert_eq!(pids(&before, "zoo"), pids(&after, "zoo"));
        let options = RequestOptions::new().pool("added");
        let answer = bus.request_with("echo", json!([1]), options).await;
        assert_eq!(answer.expect("answered"), json!([1]));

        bus.reload(BusConfig::new().pool(zoo_pool(&["echo"]).instances(2)))
            .await
            .expect("taken");
        eventually("the added pool is gone", || bus.worker_count() == Some(2)).await;
        bus.stop().await.expect("stops");
        let config = BusConfig::new().pool(zoo_pool(&["echo"]));
        assert_kind(bus.reload(config).await, ErrorCode::InvalidState);
    });
}

#[test]
fn a_bad_reload_changes_nothing() {
    alone_async(|| async {
        let bus = started(&["echo"]).await;
        let empty = bus.reload(BusConfig::new()).await;
        assert_kind(empty, ErrorCode::InvalidArgument);
        let missing = PoolConfig::new("zoo", "/no/such/program");
        let error = assert_kind(
            bus.reload(BusConfig::new().pool(missing)).await,
            ErrorCode::Unavailable,
        );
        assert!(error.to_string().contains("/no/such/program"), "{error}");
        assert_eq!(bus.worker_count(), Some(2));
        bus.request("echo", ()).await.expect("answered");
        bus.stop().await.expect("stops");
    });
}

#[test]
fn the_time_of_answers_is_counted_and_that_of_given_up_requests_is_not() {
    alone_async(|| async {
        let bus = started(&["echo"]).await;
        for _ in 0..20 {
            bus.request("echo", ()).await.expect("answered");
        }
        let slow = Duration::from_millis(80);
        bus.request("sleep", json!({"ms": slow.as_millis() as u64}))
            .await
            .expect("answered");
        drop(bus.try_request("hold", ()).expect("room"));
        let latency = bus.stats().await.expect("counted").latency;
        assert_eq!(latency.count, 21);
        assert!(latency.max >= slow && latency.p99 >= slow, "{latency:?}");
        assert!(latency.p50 <= latency.p90 && latency.p90 <= latency.p99);
        assert!(latency.p50 > Duration::ZERO && latency.p99 <= latency.max);
        bus.stop().await.expect("stops");
        let last = bus.stats().await.expect("the last ones").latency;
        assert_eq!(last.count, 21);
    });
}

#[test]
fn the_time_of_a_pools_answers_is_that_of_its_workers_and_of_all_clients() {
    alone_async(|| async {
        let mut other = zoo_pool(&["echo"]);
        other.id = "other".into();
        let bus = StdioBus::builder()
            .pool(zoo_pool(&["echo"]))
            .pool(other)
            .build()
            .expect("valid");
        bus.start().await.expect("starts");
        let zoo = RequestOptions::new().pool("zoo");
        let slow = Duration::from_millis(80);
        for _ in 0..20 {
            let answer = bus.request_with("echo", (), zoo.clone()).await;
            answer.expect("answered");
        }
        let params = json!({"ms": slow.as_millis() as u64});
        let answer = bus.request_with("sleep", params, zoo.clone()).await;
        answer.expect("answered");
        let refused = bus.request_with("error", (), zoo.clone()).await;
        refused.expect_err("an error of the worker");
        let gone = bus.request_with("exit", json!({"code": 0}), zoo).await;
        gone.expect_err("an error of the bus");

        let pools = bus.pools().await.expect("known");
        let (zoo, other) = (pools[0].latency, pools[1].latency);
        assert_eq!((zoo.count, other), (22, Latency::default()));
        assert!(zoo.max >= slow && zoo.p50 < slow, "{zoo:?}");
        assert!(zoo.p50 <= zoo.p90 && zoo.p90 <= zoo.p99 && zoo.p99 <= zoo.max);
        bus.stop().await.expect("stops");
        let last = bus.pools().await.expect("the last ones");
        assert_eq!(last[0].latency, zoo);
    });
}

#[test]
fn each_pool_is_counted_for_itself_and_a_stopped_bus_tells_the_last() {
    alone_async(|| async {
        let mut other = zoo_pool(&["echo"]);
        other.id = "other".into();
        let bus = StdioBus::builder()
            .pool(zoo_pool(&["echo"]).instances(2))
            .pool(other)
            .build()
            .expect("valid");
        let mut events = bus.events();
        let before = bus.pools().await.expect("known");
        assert_eq!(before.iter().map(|p| p.ready).sum::<usize>(), 0);
        bus.start().await.expect("starts");

        let (zoo, other) = (
            RequestOptions::new().pool("zoo"),
            RequestOptions::new().pool("other"),
        );
        for _ in 0..3 {
            let answer = bus.request_with("echo", (), zoo.clone()).await;
            answer.expect("answered");
        }
        let held = bus.try_request_with("hold", (), other).expect("room");
        let [zoos, others] = &bus.pools().await.expect("known")[..] else {
            panic!("two pools");
        };
        assert_eq!((zoos.id.as_str(), others.id.as_str()), ("zoo", "other"));
        assert_eq!((zoos.workers, zoos.ready, zoos.pending), (2, 2, 0));
        assert_eq!((others.workers, others.ready, others.pending), (1, 1, 1));
        assert_eq!((zoos.requests, others.requests), (3, 1));
        assert_eq!((zoos.sessions, others.sessions), (1, 1));

        let gone = bus.request_with("exit", json!({"code": 0}), zoo).await;
        assert_kind(gone, ErrorCode::TransportError);
        loop {
            match soon("the worker is back", events.next()).await {
                Some(Event::WorkerReady(worker)) if worker.generation == 2 => break,
                Some(_) => {}
                None => panic!("the bus has ended"),
            }
        }
        let zoos = &bus.pools().await.expect("known")[0];
        assert_eq!((zoos.ready, zoos.restarts, zoos.requests), (2, 1, 4));

        drop(held);
        bus.stop().await.expect("stops");
        let last = bus.pools().await.expect("the last ones");
        let counts = last.iter().map(|p| (p.ready, p.requests, p.restarts));
        assert_eq!(counts.collect::<Vec<_>>(), [(0, 4, 1), (0, 1, 0)]);
    });
}

#[test]
fn what_waits_for_a_worker_to_become_ready_is_counted_in_its_pool_and_in_all() {
    alone(|| {
        let pool = zoo_pool(&["deaf"])
            .protocol(Protocol::Mcp)
            .initialize(json!({"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}));
        let bus = StdioBus::builder().pool(pool).build_blocking();
        let bus = bus.expect("valid");
        bus.start().expect("starts");
        let waiting = bus.clone().into_async();
        let waiting = waiting.try_request("tools/list", ()).expect("room");
        let pool = &bus.pools().expect("known")[0];
        assert_eq!((pool.starting, pool.ready, pool.queued), (1, 0, 1));
        assert_eq!(pool.pending, 0);
        let stats = bus.stats().expect("counted");
        assert_eq!(stats.queued_requests, 1);
        assert!(stats.queued_bytes > 0 && stats.queued_bytes == pool.queued_bytes);
        drop(waiting);
        bus.stop_with_timeout(Duration::ZERO).expect("stops");
    });
}

#[test]
fn a_bus_says_what_runs_it_and_where_it_listens() {
    alone_async(|| async {
        let mode = ListenMode::tcp("127.0.0.1", 0);
        let bus = StdioBus::builder()
            .pool(zoo_pool(&["echo"]))
            .listen(mode.clone())
            .build()
            .expect("valid");
        assert_eq!(bus.backend_type(), BackendType::Native);
        assert_eq!(bus.backend_type().to_string(), "native");
        assert_eq!(bus.listen_mode(), [mode]);
        bus.stop().await.expect("stops");
    });
}
