//! What workers say without being asked, and who hears it.

mod common;

use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};

use common::client::{assert_kind, block_on, eventually, overflows, started};
use common::{BOUND, alone, alone_async, open_tokios_sockets, zoo_pool};
use serde_json::{Value, json};
use stdiobus::{
    ErrorCode, Message, NotificationOptions, NotificationStream, Overflow, OverflowPolicy,
    RequestOptions, StdioBus,
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
fn a_subscription_tells_a_pause_from_its_end() {
    alone_async(|| async {
        let bus = started(&["echo"]).await;
        let (mut notes, mut events) = (bus.subscribe_notifications(), bus.events());
        let close = options(1, OverflowPolicy::Close);
        let mut small = bus.subscribe_notifications_with(close);
        assert!(notes.try_next().is_none() && !notes.is_closed());
        assert!(events.try_next().is_none() && !events.is_closed());
        provoke(&bus, 2).await;
        // It has lost its subscription, but not what waits.
        assert!(!small.is_closed());
        assert!(small.try_next().is_some() && small.is_closed());

        bus.stop().await.expect("stops");
        assert!(!notes.is_closed() && !events.is_closed());
        assert!(notes.try_next().is_some() && !notes.is_closed());
        assert!(notes.try_next().is_some() && notes.is_closed());
        while events.try_next().is_some() {}
        assert!(events.is_closed() && events.next().await.is_none());
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
        let events = bus.events();
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
        assert_eq!(overflows(events).await, [Overflow::Subscriber]);
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

// ---- handlers ----------------------------------------------------------------------------------

fn next<T>(calls: &Receiver<T>) -> T {
    calls.recv_timeout(BOUND).expect("the handler is called")
}

#[test]
fn a_handler_is_called_with_each_notification_in_order() {
    alone_async(|| async {
        let bus = started(&["echo"]).await;
        let (called, calls) = channel();
        let guard = bus
            .on_notification(move |note| {
                let number = note.params()["i"].as_u64();
                called.send(number).expect("the test listens");
            })
            .expect("registered");
        provoke(&bus, 50).await;
        for i in 0..50 {
            assert_eq!(next(&calls), Some(i));
        }
        assert_eq!(guard.lagged(), 0);
        bus.stop().await.expect("stops");
    });
}

#[test]
fn a_message_handler_sees_requests_as_well_and_no_answers() {
    alone_async(|| async {
        let bus = started(&["echo"]).await;
        let (called, calls) = channel();
        let _guard = bus
            .on_message(move |message| {
                let what = match message {
                    Message::Request(request) => format!("{} {}", request.method(), request.id()),
                    Message::Notification(note) => note.method().to_owned(),
                    other => panic!("{other:?}"),
                };
                called.send(what).expect("the test listens");
            })
            .expect("registered");
        provoke(&bus, 1).await;
        let refused = bus.request("ask", json!({"id": 5})).await;
        assert_eq!(refused.expect("answered")["error"]["code"], -32601);
        assert_eq!([next(&calls), next(&calls)], ["note", "ask 5"]);
        bus.stop().await.expect("stops");
        assert!(calls.recv_timeout(BOUND).is_err(), "it ends with the bus");
    });
}

#[test]
fn a_handler_is_gone_with_its_guard_unless_it_is_kept() {
    alone_async(|| async {
        let bus = started(&["echo"]).await;
        let (called, calls) = channel();
        let kept = called.clone();
        let guard = bus.on_notification(move |_| called.send("guarded").expect("heard"));
        bus.on_notification(move |_| kept.send("kept").expect("heard"))
            .expect("registered")
            .keep();
        provoke(&bus, 1).await;
        let mut both = [next(&calls), next(&calls)];
        both.sort_unstable();
        assert_eq!(both, ["guarded", "kept"]);
        drop(guard);
        provoke(&bus, 3).await;
        bus.stop().await.expect("stops");
        assert_eq!(calls.iter().collect::<Vec<_>>(), ["kept"; 3]);
    });
}

#[test]
fn a_panicking_handler_is_logged_and_called_again() {
    alone_async(|| async {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&lines);
        let bus = StdioBus::builder()
            .pool(zoo_pool(&["echo"]))
            .on_log(move |_, line| log.lock().expect("no panic").push(line.to_owned()))
            .build()
            .expect("valid");
        bus.start().await.expect("starts");
        let (called, calls) = channel();
        let _guard = bus.on_notification(move |note| {
            called.send(()).expect("the test listens");
            assert!(note.params()["i"] != 0, "the first one");
        });
        provoke(&bus, 2).await;
        next(&calls);
        next(&calls);
        eventually("the log says so", || {
            let lines = lines.lock().expect("no panic");
            lines.iter().any(|line| line.contains("the first one"))
        })
        .await;
        bus.stop().await.expect("stops");
    });
}

#[test]
fn a_handler_that_takes_its_time_holds_up_nobody_and_loses_what_has_no_room() {
    alone_async(|| async {
        let bus = started(&["echo"]).await;
        let (release, gate) = channel::<()>();
        let gate = Mutex::new(gate);
        let guard = bus
            .on_notification(move |_| {
                // Until the sender is gone.
                let _ = gate.lock().expect("no panic").recv();
            })
            .expect("registered");
        provoke(&bus, 2000).await;
        let lost = guard.lagged();
        assert!((970..=976).contains(&lost), "{lost}");
        assert_eq!(bus.stats().await.expect("ok").lagged_messages, lost);
        drop(release);
        bus.stop().await.expect("stops");
    });
}

#[test]
fn without_any_runtime_handlers_are_called_all_the_same() {
    open_tokios_sockets(); // the bus makes a runtime of its own
    alone(|| {
        let bus = StdioBus::builder()
            .pool(zoo_pool(&["echo"]))
            .build()
            .expect("valid");
        block_on(bus.start()).expect("starts");
        let (called, calls) = channel();
        let guard = bus.on_notification(move |_| called.send(()).expect("heard"));
        block_on(provoke(&bus, 1));
        next(&calls);
        drop(guard);
        block_on(bus.stop()).expect("stops");
    });
}
