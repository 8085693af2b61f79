//! The budget of bytes that this process has in flight.

mod common;

use std::task::{Context, Waker};
use std::time::Duration;

use common::client::{assert_kind, short, soon};
use common::peer::{Log, puppet};
use common::{alone_async, zoo_pool};
use serde_json::{Value, json};
use stdiobus::{ErrorCode, PoolConfig, Request, RequestOptions, StdioBus};

const BUDGET: usize = 10_000;

async fn started() -> StdioBus {
    let bus = StdioBus::builder()
        .pool(zoo_pool(&["echo"]))
        .max_in_flight_bytes(BUDGET)
        .build()
        .expect("valid");
    bus.start().await.expect("starts");
    bus
}

/// Params of so many bytes, and a few.
fn blob(bytes: usize) -> Value {
    json!({"blob": "x".repeat(bytes)})
}

/// Sends a request without waiting for its answer.
fn send(mut request: Request) -> Request {
    let mut cx = Context::from_waker(Waker::noop());
    assert!(Future::poll(std::pin::Pin::new(&mut request), &mut cx).is_pending());
    request
}

/// A request that is never answered.
fn hold(bus: &StdioBus, bytes: usize) -> Request {
    let forever = RequestOptions::new().timeout(None);
    send(bus.request_with("hold", blob(bytes), forever))
}

#[test]
fn a_request_without_room_waits_until_another_has_ended() {
    alone_async(|| async {
        let bus = started().await;
        let held = hold(&bus, 9000);
        let waiting = send(bus.request("echo", blob(2000)));
        let stats = bus.stats().await.expect("counted");
        assert_eq!(stats.waiting_for_room, 1);
        assert_eq!(stats.pending, 1, "the worker has not got it");
        assert!(stats.in_flight_bytes > 9000 && stats.in_flight_bytes <= BUDGET as u64);

        drop(held);
        let answer = soon("the answer", waiting).await.expect("answered");
        assert_eq!(answer, blob(2000));
        let stats = bus.stats().await.expect("counted");
        assert_eq!((stats.waiting_for_room, stats.in_flight_bytes), (0, 0));
        bus.stop().await.expect("stops");
    });
}

#[test]
fn waiting_for_room_ends_with_the_requests_own_timeout() {
    alone_async(|| async {
        let bus = started().await;
        let held = hold(&bus, 9000);
        let error = assert_kind(
            bus.request_with("echo", blob(2000), short()).await,
            ErrorCode::Timeout,
        );
        assert!(error.to_string().contains("room"), "{error}");
        assert_eq!(bus.stats().await.expect("counted").waiting_for_room, 0);
        drop(held);
        soon("room again", bus.request("echo", blob(9000)))
            .await
            .expect("answered");
        bus.stop().await.expect("stops");
    });
}

#[test]
fn trying_neither_waits_nor_overtakes() {
    alone_async(|| async {
        let bus = started().await;
        let answer = bus.try_request("echo", blob(10)).expect("room");
        assert_eq!(answer.await.expect("answered"), blob(10));

        let held = hold(&bus, 9000);
        assert_kind(
            bus.try_request("echo", blob(2000)),
            ErrorCode::ResourceExhausted,
        );
        bus.try_request("echo", blob(100))
            .expect("room for a small one")
            .await
            .expect("answered");
        let waiting = send(bus.request("echo", blob(2000)));
        assert_kind(
            bus.try_request("echo", blob(100)),
            ErrorCode::ResourceExhausted,
        );
        drop(waiting);
        // It has left the line once the bus's thread has seen that it was given up.
        assert_eq!(bus.stats().await.expect("counted").waiting_for_room, 0);
        let small = bus.try_request("echo", blob(100)).expect("no line");
        small.await.expect("answered");
        drop(held);
        bus.stop().await.expect("stops");
    });
}

#[test]
fn a_tried_request_is_sent_before_it_is_polled_and_given_up_when_dropped() {
    alone_async(|| async {
        let bus = started().await;
        let tried = bus.try_request("hold", blob(10)).expect("room");
        assert_eq!(bus.stats().await.expect("counted").pending, 1);
        drop(tried);
        assert_eq!(bus.stats().await.expect("counted").pending, 0);
        bus.stop().await.expect("stops");
        assert_kind(bus.try_request("echo", ()), ErrorCode::InvalidState);
    });
}

#[test]
fn requests_that_waited_go_in_their_order() {
    alone_async(|| async {
        let log = Log::new();
        let pool = PoolConfig::new("puppets", puppet())
            .arg("log")
            .arg(log.path());
        let bus = StdioBus::builder()
            .pool(pool)
            .max_in_flight_bytes(BUDGET)
            .build()
            .expect("valid");
        bus.start().await.expect("starts");
        // Its steps are none, so it is not answered.
        let unanswered = json!({"play": [], "blob": "x".repeat(9000)});
        let held = send(bus.request("hold", unanswered));
        let size = |i: usize| if i.is_multiple_of(3) { 5000 } else { 1200 };
        let waiting: Vec<_> = (0..20)
            .map(|i| json!({"i": i, "blob": "x".repeat(size(i))}))
            .map(|params| send(bus.request("waited", params)))
            .collect();
        let stats = bus.stats().await.expect("counted");
        assert_eq!(stats.waiting_for_room, 20);

        drop(held);
        for request in waiting {
            soon("an answer", request).await.expect("answered");
        }
        let seen = log.with_method("waited").into_iter();
        let order: Vec<_> = seen
            .map(|seen| seen.json()["params"]["i"].clone())
            .collect();
        assert_eq!(order, (0..20).map(Value::from).collect::<Vec<_>>());
        bus.stop().await.expect("stops");
    });
}

#[test]
fn one_request_larger_than_the_budget_goes_when_it_is_alone() {
    alone_async(|| async {
        let bus = started().await;
        let large = soon("alone", bus.request("echo", blob(10 * BUDGET))).await;
        assert_eq!(large.expect("answered"), blob(10 * BUDGET));
        bus.stop().await.expect("stops");
    });
}

#[test]
fn those_who_wait_for_room_end_with_the_bus() {
    alone_async(|| async {
        for drain in [false, true] {
            let bus = started().await;
            let held = hold(&bus, 9000);
            let waiting = send(bus.request("echo", blob(2000)));
            if drain {
                bus.drain(Duration::ZERO).await.expect("drains");
            } else {
                bus.stop().await.expect("stops");
            }
            assert_kind(soon("an end", waiting).await, ErrorCode::TransportError);
            assert_kind(soon("an end", held).await, ErrorCode::TransportError);
        }
        let none = StdioBus::builder()
            .pool(zoo_pool(&["echo"]))
            .max_in_flight_bytes(0)
            .build();
        assert_kind(none, ErrorCode::InvalidArgument);
    });
}
