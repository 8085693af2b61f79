//! A bus that has nothing to do does nothing, wherever it is.

mod common;

use std::fs;
use std::os::unix::net::UnixListener;
use std::time::Duration;

use common::backends::Over;
use common::client::{begin, eventually, forever};
use common::{TempDir, alone_async, threads_named, zoo_pool};
use serde_json::json;
use stdiobus::{BackendMode, RemoteOptions, StdioBus};

over_every_backend! {
    a_bus_with_requests_that_wait_does_nothing
}

/// The thread of the client's bus, where its host is in this process, too.
const CLIENT: &str = "stdiobus";

/// How often the bus threads have gone to sleep, and how long they have run.
fn activity() -> (u64, Duration) {
    let of = |tid: &u32| {
        let file = |name| fs::read_to_string(format!("/proc/self/task/{tid}/{name}"));
        let status = file("status").expect("the thread lives");
        let switches = status
            .lines()
            .filter_map(|line| line.split_once("ctxt_switches:"))
            .map(|(_, number)| number.trim().parse::<u64>().expect("a number"))
            .sum::<u64>();
        let ran = file("schedstat").expect("the thread lives");
        let ran = ran.split(' ').next().and_then(|ns| ns.parse().ok());
        (switches, Duration::from_nanos(ran.expect("a number")))
    };
    let threads = threads_named(CLIENT);
    assert!(!threads.is_empty());
    let all = threads.iter().map(of);
    all.fold((0, Duration::ZERO), |sum, one| {
        (sum.0 + one.0, sum.1 + one.1)
    })
}

/// Watches the bus threads for a second.
async fn assert_asleep(what: &str) {
    let before = activity();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let after = activity();
    let (woken, ran) = (after.0 - before.0, after.1 - before.1);
    eprintln!("{what}: woken {woken} times, ran {ran:?}");
    assert!(woken < 20, "{what}: woken {woken} times");
    assert!(ran < Duration::from_millis(50), "{what}: ran {ran:?}");
}

async fn a_bus_with_requests_that_wait_does_nothing(over: Over) {
    let setup = over.start(&[zoo_pool(&["echo"])]).await;
    assert_asleep("without requests").await;
    let mut held = setup.bus.request_with("hold", (), forever());
    begin(&mut held);
    eventually("it is in flight", || setup.bus.pending_count() == Some(1)).await;
    assert_asleep("with a request").await;
    drop(held);
    eventually("it is given up", || setup.bus.pending_count() == Some(0)).await;
    setup.finish().await;
}

#[test]
fn a_bus_whose_other_end_reads_nothing_waits() {
    alone_async(|| async {
        let dir = TempDir::new();
        let path = dir.path("deaf.sock");
        let listener = UnixListener::bind(&path).expect("bound");
        let remote = BackendMode::Remote(RemoteOptions::unix(&path));
        let bus = StdioBus::builder().backend(remote).build().expect("valid");
        bus.start().await.expect("connected");
        let _deaf = listener.accept().expect("a client");
        let large = json!(["x".repeat(4 << 20)]);
        let mut held = bus.request_with("echo", large, forever());
        begin(&mut held);
        eventually("it is in flight", || bus.pending_count() == Some(1)).await;
        assert_asleep("a full socket").await;
        begin(bus.drain(Duration::from_secs(20)));
        assert_asleep("a full socket, while it drains").await;
        bus.stop().await.expect("stops");
    });
}
