//! The span of a request.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::time::Duration;

use serde_json::{Value, json};
use stdiobus::{RequestOptions, StdioBus};
use tracing::Level;

use crate::common::client::soon;
use crate::common::{alone, alone_async, zoo_pool};
use crate::start;
use crate::subscriber::{Collector, Told};

fn builder() -> stdiobus::StdioBusBuilder {
    StdioBus::builder().pool(zoo_pool(&["echo"]))
}

/// The newest span.
fn newest(collector: &Collector) -> Told {
    let span = collector.spans().pop().expect("a span");
    assert_eq!((span.target, span.name), ("stdiobus", "stdiobus.request"));
    assert_eq!(span.level, Level::DEBUG);
    assert!(span.closed, "{span:?}");
    span
}

#[test]
fn a_span_names_its_request_and_says_how_it_ended() {
    alone_async(|| async {
        let collector = Collector::install(Level::DEBUG);
        let bus = start("named", builder()).await;

        let options = RequestOptions::new().pool("zoo").session_id("s");
        let request = bus.request_with("sleep", json!({"ms": 30}), options);
        let id = request.id().to_string();
        request.await.expect("answered");
        let span = newest(&collector);
        let fields = ["bus", "request", "method", "pool", "session", "outcome"];
        let values = fields.map(|name| span.field(name));
        assert_eq!(values, ["named", &id, "sleep", "zoo", "s", "ok"]);
        let elapsed: f64 = span.field("elapsed_ms").parse().expect("a number");
        assert!(elapsed >= 30.0, "{elapsed}");
        assert_eq!(span.fields.len(), 7, "{span:?}");

        bus.request("error", ()).await.expect_err("an error");
        let span = newest(&collector);
        assert_eq!(span.field("outcome"), "rpc_error");
        assert_eq!(span.field("rpc_code"), "-32050");
        assert_eq!(span.field("session"), bus.client_session_id());
        assert!(!span.fields.contains_key("pool"), "{span:?}");

        let unpinned = RequestOptions::new().unpinned();
        let short = unpinned.timeout(Duration::from_millis(20));
        let late = bus.request_with("hold", (), short).await;
        late.expect_err("no answer");
        let span = newest(&collector);
        assert_eq!(span.field("outcome"), "Timeout");
        assert!(!span.fields.contains_key("session"), "{span:?}");

        let gone = bus.request("exit", json!({"code": 1})).await;
        gone.expect_err("the worker is gone");
        assert_eq!(newest(&collector).field("outcome"), "TransportError");

        bus.stop().await.expect("stops");
        bus.request("echo", ()).await.expect_err("stopped");
        assert_eq!(newest(&collector).field("outcome"), "InvalidState");
        bus.try_request("echo", ()).expect_err("stopped");
        assert_eq!(newest(&collector).field("outcome"), "InvalidState");
    });
}

#[test]
fn a_span_tells_apart_who_was_given_up_let_go_or_never_sent() {
    alone_async(|| async {
        let collector = Collector::install(Level::DEBUG);
        let bus = start("ends", builder()).await;
        drop(bus.try_request("hold", ()).expect("room"));
        let span = newest(&collector);
        assert_eq!(span.field("outcome"), "Cancelled");
        assert!(span.fields.contains_key("elapsed_ms"));

        bus.request("echo", ()).detach().expect("sent");
        let span = newest(&collector);
        assert_eq!(span.field("outcome"), "detached");
        assert!(!span.fields.contains_key("elapsed_ms"));

        drop(bus.request("echo", ()));
        let span = newest(&collector);
        assert_eq!(span.field("outcome"), "unsent");
        assert!(!span.fields.contains_key("elapsed_ms"));

        let mut stream = bus.stream_request("session/prompt", json!({"texts": ["a"]}));
        while let Some(piece) = stream.next().await {
            piece.expect("a piece");
        }
        drop(stream);
        assert_eq!(newest(&collector).field("outcome"), "ok");
        bus.stop().await.expect("stops");
    });
}

/// Polls a future, and sees after each time that the thread is in no span but
/// the test's own.
async fn watched<F: Future>(collector: &Collector, depth: usize, future: F) -> F::Output {
    let mut future = pin!(future);
    poll_fn(|cx| {
        let poll = future.as_mut().poll(cx);
        assert_eq!(collector.depth(), depth, "a span is left with each poll");
        poll
    })
    .await
}

#[test]
fn a_span_is_entered_at_each_poll_of_its_request_and_left_again() {
    alone_async(|| async {
        let collector = Collector::install(Level::DEBUG);
        let bus = start("polled", builder()).await;
        let (slow, fast) = {
            let _mine = tracing::info_span!(target: "test", "mine").entered();
            let slow = bus.request("sleep", json!({"ms": 60}));
            (slow, bus.request("sleep", json!({"ms": 20})))
        };
        assert!(collector.spans().iter().all(|span| span.entered <= 1));
        let both = async { tokio::join!(slow, fast) };
        let (slow, fast) = soon("both", watched(&collector, 0, both)).await;
        assert!(slow.is_ok() && fast.is_ok());
        // The second is polled as the first answer comes, too, but never after its own.
        let spans = collector.spans();
        let [mine, slow, fast] = &spans[..] else {
            panic!("{spans:?}");
        };
        assert_eq!(mine.name, "mine");
        assert_eq!((slow.parent, fast.parent), (Some(1), Some(1)));
        assert!(
            slow.entered >= fast.entered && fast.entered >= 2,
            "{spans:?}"
        );

        let mut stream = bus.stream_request("session/prompt", json!({"texts": ["a", "b"]}));
        while let Some(piece) = watched(&collector, 0, stream.next()).await {
            piece.expect("a piece");
        }
        assert!(collector.spans()[3].entered >= 3);
        bus.stop().await.expect("stops");
    });
}

#[test]
fn the_client_without_async_has_the_same_spans() {
    alone(|| {
        let collector = Collector::install(Level::DEBUG);
        let bus = builder().name("blocking").build_blocking().expect("valid");
        bus.start().expect("starts");
        bus.request("echo", ()).expect("answered");
        let span = newest(&collector);
        assert_eq!(
            (span.field("bus"), span.field("outcome")),
            ("blocking", "ok")
        );
        bus.stop().expect("stops");
    });
}

#[test]
fn no_params_answers_or_texts_of_errors_are_in_any_field() {
    const SECRET: &str = "s3cr3t";
    alone_async(|| async {
        let collector = Collector::install(Level::TRACE);
        let pool = zoo_pool(&["garbage"]).env("TOKEN", SECRET);
        let bus = start("quiet", StdioBus::builder().pool(pool)).await;
        let answer = bus.request("echo", json!({"a": SECRET})).await;
        assert_eq!(answer.expect("answered"), json!({"a": SECRET}));
        let env = bus.request("env", json!({"name": "TOKEN"})).await;
        assert_eq!(env.expect("answered"), json!(SECRET));
        bus.notify("note", json!([SECRET])).await.expect("sent");
        let typed = bus.request_as::<u64, _>("echo", SECRET).await;
        typed.expect_err("no number");
        let asked: Value = bus
            .request("ask", json!({"method": SECRET}))
            .await
            .expect("answered");
        assert!(asked["error"].is_object(), "{asked}");
        bus.stop().await.expect("stops");
        let told = [collector.spans(), collector.events()].concat();
        assert!(told.len() > 6, "{told:?}");
        assert!(!format!("{told:?}").contains(SECRET), "{told:?}");
    });
}

#[test]
fn nothing_is_told_of_each_message_at_info() {
    alone_async(|| async {
        let collector = Collector::install(Level::INFO);
        let bus = start("busy", builder()).await;
        bus.request("echo", ()).await.expect("answered");
        let told = || (collector.spans().len(), collector.events().len());
        let before = told();
        for _ in 0..20 {
            let answer = bus.request("notify", json!({"n": 5})).await;
            answer.expect("answered");
            bus.request("error", ()).await.expect_err("an error");
        }
        assert_eq!(told(), before);
        assert_eq!(before.0, 0);
        bus.stop().await.expect("stops");
    });
}
