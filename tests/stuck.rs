//! Subscribers that take nothing: they hold up nobody, and know exactly what they have missed.

mod common;

use std::pin::Pin;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};

use common::backends::{Over, Setup};
use common::client::{eventually, soon};
use common::{alone_async, zoo_pool};
use serde_json::{Value, json};
use stdiobus::{
    EventStream, NotificationOptions, NotificationStream, OverflowPolicy, ResponseStream, StdioBus,
    StdioBusBuilder, StreamEvent,
};

over_every_backend! {
    stuck_subscribers_and_handlers_hold_up_no_request_and_no_other_subscriber
    a_subscriber_has_missed_exactly_what_its_queue_had_no_room_for
    with_close_one_message_is_missed_and_counted_whatever_comes_after
    nothing_is_counted_for_a_subscriber_that_is_gone
    a_message_handler_counts_the_requests_it_had_no_room_for
    requests_that_nobody_polls_hold_up_nobody
}

/// The bus under test.
fn bus(builder: StdioBusBuilder) -> StdioBus {
    builder.build().expect("valid")
}

async fn started(over: Over) -> Setup {
    over.start(&[zoo_pool(&["echo"])]).await
}

fn subscribe(bus: &StdioBus, queue: usize, overflow: OverflowPolicy) -> NotificationStream {
    let options = NotificationOptions::new().max_queue(queue);
    bus.subscribe_notifications_with(options.overflow(overflow))
}

/// Makes the worker send so many notifications.
async fn provoke(bus: &StdioBus, n: u64) {
    let answer = soon("an answer", bus.request("notify", json!({"n": n}))).await;
    answer.expect("answered");
}

/// Makes the bus tell of so many events.
async fn happen(bus: &StdioBus, n: u64) {
    for _ in 0..n.div_ceil(2) {
        let client = bus.connect_io(None).await.expect("connected");
        let before = bus.client_count();
        drop(client);
        eventually("it is gone", || bus.client_count() < before).await;
    }
}

async fn lagged(bus: &StdioBus) -> u64 {
    bus.stats().await.expect("counted").lagged_messages
}

/// How many notifications there are until the subscription is over.
async fn rest(notes: &mut NotificationStream) -> u64 {
    let mut count = 0;
    while soon("the next", notes.next()).await.is_some() {
        count += 1;
    }
    count
}

/// How many events there are until the subscription is over.
async fn rest_of_events(events: &mut EventStream) -> u64 {
    let mut count = 0;
    while soon("the next", events.next()).await.is_some() {
        count += 1;
    }
    count
}

async fn stuck_subscribers_and_handlers_hold_up_no_request_and_no_other_subscriber(over: Over) {
    const ROUNDS: u64 = 50;
    const NOTES: u64 = 200;
    let setup = started(over).await;
    let bus = &setup.bus;
    let mut stream = stuck_stream(bus).await;
    let mut drops = subscribe(bus, 8, OverflowPolicy::Drop);
    let mut closes = subscribe(bus, 8, OverflowPolicy::Close);
    let mut events = bus.events_with(1);
    let (release, gate) = channel::<()>();
    let gate = Mutex::new(gate);
    let handler = bus
        .on_notification(move |_| {
            let _ = gate.lock().expect("no panic").recv();
        })
        .expect("registered");
    let mut listens = subscribe(bus, NOTES as usize, OverflowPolicy::Close);
    let mut heard = 0;
    for round in 0..ROUNDS {
        let asked = bus.request("notify", json!({"n": NOTES}));
        let listening = async {
            for i in 0..NOTES {
                let note = listens.next().await.expect("it keeps up");
                assert_eq!(note.params()["i"], i);
                heard += 1;
            }
        };
        // Those who are stuck stay so: whatever waited for one of them would not end.
        let (answer, ()) = soon("a round", async { tokio::join!(asked, listening) }).await;
        assert_eq!(answer.expect("answered"), json!({"n": NOTES}));
        let echo = soon("an answer", bus.request("echo", json!([round]))).await;
        assert_eq!(echo.expect("answered"), json!([round]));
    }
    assert_eq!(heard, ROUNDS * NOTES);
    assert_eq!((drops.lagged(), closes.lagged()), (heard - 8, 1));
    let missed = heard - 8 + 1 + handler.lagged();
    assert_eq!(lagged(bus).await, missed);
    for _ in 0..100 {
        let piece = soon("a piece", stream.next()).await;
        assert!(
            matches!(piece, Some(Ok(StreamEvent::Chunk(_)))),
            "{piece:?}"
        );
    }
    let end = stream.next().await;
    assert!(matches!(end, Some(Ok(StreamEvent::Result(_)))), "{end:?}");
    drop(release);
    soon("the end", bus.stop()).await.expect("stops");
    assert_eq!((rest(&mut drops).await, rest(&mut closes).await), (8, 8));
    assert_eq!(rest_of_events(&mut events).await, 1);
}

/// A stream of which nothing is taken, and for which 100 chunks have come.
async fn stuck_stream(bus: &StdioBus) -> ResponseStream {
    let mut told = bus.subscribe_notifications();
    let mut stream = bus.stream_request("session/prompt", json!({"n": 100, "size": 900}));
    let mut cx = Context::from_waker(Waker::noop());
    let first = Pin::new(&mut stream);
    assert!(futures_core::Stream::poll_next(first, &mut cx).is_pending());
    for _ in 0..100 {
        soon("a chunk", told.next()).await.expect("one more");
    }
    stream
}

async fn a_subscriber_has_missed_exactly_what_its_queue_had_no_room_for(over: Over) {
    const SENT: u64 = 1000;
    let setup = started(over).await;
    let bus = &setup.bus;
    let (mut all_lagged, mut streams) = (0, Vec::new());
    for queue in [1, 2, 7, 256, 999, 1000, 1001, usize::MAX] {
        streams.push((queue as u64, subscribe(bus, queue, OverflowPolicy::Drop)));
    }
    provoke(bus, SENT).await;
    for (queue, stream) in &streams {
        assert_eq!(stream.lagged(), SENT.saturating_sub(*queue), "{queue}");
        all_lagged += stream.lagged();
    }
    assert_eq!(lagged(bus).await, all_lagged);

    // Whoever takes some has room for as many.
    for (queue, stream) in &mut streams {
        for i in 0..(*queue).min(5) {
            assert_eq!(stream.try_next().expect("one waits").params()["i"], i);
        }
    }
    provoke(bus, 100).await;
    bus.stop().await.expect("stops");
    let mut sum = 0;
    for (queue, stream) in &mut streams {
        let room = queue.saturating_add((*queue).min(5));
        let kept = room.min(SENT + 100);
        // What was lost first stays lost, however much room there is later.
        let first = SENT.min(*queue);
        let second = 100.min(queue.saturating_sub(first) + (*queue).min(5));
        assert!(first + second <= kept, "{queue}");
        assert_eq!(stream.lagged(), SENT + 100 - first - second, "{queue}");
        assert_eq!(rest(stream).await, first + second - (*queue).min(5));
        sum += stream.lagged();
    }
    assert_eq!(lagged(bus).await, sum);
}

async fn with_close_one_message_is_missed_and_counted_whatever_comes_after(over: Over) {
    let setup = started(over).await;
    let bus = &setup.bus;
    let (mut exact, mut less) = (
        subscribe(bus, 100, OverflowPolicy::Close),
        subscribe(bus, 99, OverflowPolicy::Close),
    );
    provoke(bus, 100).await;
    assert_eq!((exact.lagged(), less.lagged()), (0, 1));
    assert_eq!(lagged(bus).await, 1);
    assert_eq!(rest(&mut less).await, 99);
    provoke(bus, 100).await;
    assert_eq!((exact.lagged(), less.lagged()), (1, 1));
    assert_eq!(lagged(bus).await, 2);
    assert_eq!(rest(&mut exact).await, 100);
    bus.stop().await.expect("stops");
}

async fn nothing_is_counted_for_a_subscriber_that_is_gone(over: Over) {
    let setup = started(over).await;
    let bus = &setup.bus;
    let stuck = subscribe(bus, 1, OverflowPolicy::Drop);
    provoke(bus, 10).await;
    assert_eq!(lagged(bus).await, 9);
    drop(stuck);
    provoke(bus, 10).await;
    assert_eq!(lagged(bus).await, 9);
    bus.stop().await.expect("stops");
}

#[test]
fn events_that_had_no_room_are_counted_exactly() {
    alone_async(|| async {
        let bus = bus(StdioBus::builder().pool(zoo_pool(&["echo"])));
        let mut all = bus.events();
        let queues = [1, 2, 10, 64, usize::MAX];
        let mut stuck = queues.map(|queue| (queue as u64, bus.events_with(queue)));
        bus.start().await.expect("starts");
        happen(&bus, 40).await;
        // The last ones are told while it stops.
        soon("the end", bus.stop()).await.expect("stops");
        assert_eq!(all.lagged(), 0);
        let told = rest_of_events(&mut all).await;
        assert!(told > 40, "{told}");
        for (queue, events) in &mut stuck {
            assert_eq!(events.lagged(), told.saturating_sub(*queue), "{queue}");
            assert_eq!(rest_of_events(events).await, told.min(*queue));
        }
        assert_eq!(lagged(&bus).await, 0, "those are no messages");
    });
}

async fn a_message_handler_counts_the_requests_it_had_no_room_for(over: Over) {
    const ASKED: u64 = 3000;
    let setup = started(over).await;
    let bus = &setup.bus;
    let (release, gate) = channel::<()>();
    let gate = Mutex::new(gate);
    let handled = Arc::new(Mutex::new(0));
    let count = Arc::clone(&handled);
    let guard = bus
        .on_message(move |_| {
            let _ = gate.lock().expect("no panic").recv();
            *count.lock().expect("no panic") += 1;
        })
        .expect("registered");
    let answer = soon("an answer", bus.request("asks", json!({"n": ASKED}))).await;
    let answers = answer.expect("answered");
    let answers = answers.as_array().map(Vec::len);
    assert_eq!(answers, Some(ASKED as usize), "each of them has its answer");
    let missed = guard.lagged();
    assert!(missed > 0);
    assert_eq!(lagged(bus).await, missed);
    drop(release);
    let all = || *handled.lock().expect("no panic") + missed == ASKED;
    eventually("what had room is handled", all).await;
    bus.stop().await.expect("stops");
    assert_eq!(guard.lagged(), missed);
}

async fn requests_that_nobody_polls_hold_up_nobody(over: Over) {
    let setup = started(over).await;
    let bus = &setup.bus;
    // Sent at once, and never looked at.
    let sleeping: Vec<_> = (0..100)
        .map(|i| bus.try_request("echo", json!([i])).expect("room"))
        .collect();
    for i in 0..1000 {
        let answer = soon("an answer", bus.request("echo", json!([i]))).await;
        assert_eq!(answer.expect("answered"), json!([i]));
    }
    bus.stop().await.expect("stops");
    for (i, request) in sleeping.into_iter().enumerate() {
        let answer: Value = request.await.expect("it was answered before the end");
        assert_eq!(answer, json!([i]));
    }
}
