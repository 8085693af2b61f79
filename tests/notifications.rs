//! What workers say without being asked, and who hears it.

mod common;

use common::client::{assert_kind, started};
use common::{alone_async, zoo_pool};
use serde_json::{Value, json};
use stdiobus::{
    ErrorCode, NotificationOptions, NotificationStream, OverflowPolicy, RequestOptions, StdioBus,
};

fn options(max_queue: usize, overflow: OverflowPolicy) -> NotificationOptions {
    NotificationOptions::new()
        .max_queue(max_queue)
        .overflow(overflow)
}

/// Asks the worker for `n` notifications, and waits until it has sent them.
async fn provoke(bus: &StdioBus, n: usize) {
    bus.request("notify", json!({"n": n}))
        .await
        .expect("answered");
}

/// The numbers of the notifications up to the end of the subscription.
async fn rest(stream: &mut NotificationStream) -> Vec<u64> {
    let mut numbers = Vec::new();
    while let Some(notification) = stream.next().await {
        numbers.push(notification.params()["i"].as_u64().expect("a number"));
    }
    numbers
}

#[test]
fn a_subscriber_hears_everything_in_its_order() {
    alone_async(|| async {
        let bus = started(&["echo"]).await;
        let mut notes = bus.subscribe_notifications();
        let request = bus.request_with(
            "notify",
            json!({"n": 100}),
            RequestOptions::new().session_id("s"),
        );
        let id = request.id();
        request.await.expect("answered");
        let workers = bus.workers().await.expect("known");
        for i in 0..100 {
            let note = notes.next().await.expect("one more");
            assert_eq!(note.method(), "note");
            assert_eq!(note.params(), &json!({"i": i, "sessionId": "s"}));
            assert_eq!(
                (note.session_id(), note.request_id()),
                (Some("s"), Some(id))
            );
            let worker = &workers[note.worker().id];
            assert_eq!(
                (note.worker().pool.as_str(), note.worker().pid),
                ("zoo", worker.pid)
            );
            let raw: Value = serde_json::from_slice(note.raw()).expect("JSON");
            assert_eq!(raw["params"]["i"], i);
        }
        assert_eq!(notes.lagged(), 0);
        bus.stop().await.expect("stops");
        assert!(notes.next().await.is_none());
    });
}

#[test]
fn what_belongs_to_no_request_says_so() {
    alone_async(|| async {
        let bus = StdioBus::builder()
            .pool(zoo_pool(&["flood", "3"]))
            .build()
            .expect("valid");
        // From before the start, so nothing is missed.
        let mut notes = bus.subscribe_notifications();
        bus.start().await.expect("starts");
        for i in 0..3 {
            let note = notes.next().await.expect("one more");
            assert_eq!(note.params()["i"], i);
            assert_eq!((note.session_id(), note.request_id()), (None, None));
        }
        bus.stop().await.expect("stops");
    });
}

#[test]
fn params_can_be_had_as_a_type() {
    #[derive(serde::Deserialize)]
    struct Note {
        i: u32,
    }
    alone_async(|| async {
        let bus = started(&["echo"]).await;
        let mut notes = bus.subscribe_notifications();
        provoke(&bus, 1).await;
        let note = notes.next().await.expect("one");
        assert_eq!(note.params_as::<Note>().expect("a note").i, 0);
        assert_kind(note.params_as::<Vec<u32>>(), ErrorCode::InvalidArgument);
        bus.stop().await.expect("stops");
    });
}

#[test]
fn a_slow_subscriber_loses_the_newest_and_nobody_else_notices() {
    alone_async(|| async {
        let bus = started(&["echo"]).await;
        let mut slow = bus.subscribe_notifications_with(options(10, OverflowPolicy::Drop));
        let mut other = bus.subscribe_notifications_with(options(1000, OverflowPolicy::Drop));
        provoke(&bus, 100).await;
        assert_eq!(slow.lagged(), 90);
        assert_eq!(bus.stats().await.expect("counted").lagged_messages, 90);
        for i in 0..10 {
            assert_eq!(slow.next().await.expect("one").params()["i"], i);
        }
        // There is room again.
        provoke(&bus, 2).await;
        bus.stop().await.expect("stops");
        assert_eq!(rest(&mut slow).await, [0, 1]);
        let all: Vec<_> = (0..100).chain([0, 1]).collect();
        assert_eq!(rest(&mut other).await, all);
        assert_eq!(other.lagged(), 0);
    });
}

#[test]
fn with_close_a_subscription_ends_after_what_it_had_room_for() {
    alone_async(|| async {
        let bus = started(&["echo"]).await;
        let mut closes = bus.subscribe_notifications_with(options(5, OverflowPolicy::Close));
        let mut other = bus.subscribe_notifications();
        provoke(&bus, 20).await;
        assert_eq!(rest(&mut closes).await, [0, 1, 2, 3, 4]);
        assert_eq!(closes.lagged(), 1);
        provoke(&bus, 1).await;
        bus.stop().await.expect("stops");
        assert_eq!(rest(&mut other).await.len(), 21);
    });
}

#[test]
fn subscriptions_end_with_the_bus_after_what_waits() {
    alone_async(|| async {
        let bus = started(&["echo"]).await;
        let mut notes = bus.subscribe_notifications();
        provoke(&bus, 7).await;
        bus.stop().await.expect("stops");
        assert_eq!(rest(&mut notes).await.len(), 7);
        assert!(bus.subscribe_notifications().next().await.is_none());
    });
}

#[test]
fn what_nobody_hears_is_counted() {
    alone_async(|| async {
        let bus = started(&["echo"]).await;
        provoke(&bus, 3).await;
        let unhandled = |stats: stdiobus::Stats| stats.unhandled_notifications;
        assert_eq!(unhandled(bus.stats().await.expect("counted")), 3);
        let notes = bus.subscribe_notifications();
        provoke(&bus, 3).await;
        assert_eq!(unhandled(bus.stats().await.expect("counted")), 3);
        drop(notes);
        provoke(&bus, 3).await;
        assert_eq!(unhandled(bus.stats().await.expect("counted")), 6);
        bus.stop().await.expect("stops");
    });
}
