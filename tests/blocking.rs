//! The client without async: with no runtime, and inside of one.

mod common;

use std::io::{BufRead, BufReader, Write};
use std::thread;
use std::time::{Duration, Instant};

use common::client::{assert_kind, short};
use common::{alone, open_tokios_sockets, zoo_pool};
use serde_json::json;
use stdiobus::blocking::StdioBus;
use stdiobus::{
    BusState, ErrorCode, Event, RequestOptions, RpcError, StdioBusBuilder, StreamEvent,
};

const SOON: Duration = Duration::from_secs(20);

fn builder() -> StdioBusBuilder {
    StdioBus::builder().pool(zoo_pool(&["echo"]))
}

fn started() -> StdioBus {
    let bus = builder().build_blocking().expect("valid");
    bus.start().expect("starts");
    bus
}

#[test]
fn requests_wait_for_their_answers_without_a_runtime() {
    alone(|| {
        let bus = started();
        let params = json!({"message": "hello"});
        assert_eq!(bus.request("echo", &params).expect("answered"), params);
        let typed: Vec<u32> = bus.request_as("echo", [1, 2]).expect("answered");
        assert_eq!(typed, [1, 2]);
        let options = RequestOptions::new().session_id("s");
        let typed: Vec<u32> = bus.request_as_with("echo", [3], options).expect("answered");
        assert_eq!(typed, [3]);
        let tried = bus.try_request("echo", [3]).expect("answered");
        assert_eq!(tried, json!([3]));
        bus.notify("note", json!({})).expect("accepted");
        bus.send(r#"{"jsonrpc":"2.0","method":"note"}"#)
            .expect("accepted");
        assert_kind(
            bus.request_with("hold", json!({}), short()),
            ErrorCode::Timeout,
        );
        assert_eq!(bus.workers().expect("listed").len(), 1);
        bus.stop().expect("stops");
        assert_eq!(bus.state(), BusState::Stopped);
        assert_kind(bus.request("echo", ()), ErrorCode::InvalidState);
    });
}

#[test]
fn many_threads_wait_at_once_and_each_gets_its_own() {
    alone(|| {
        let bus = started();
        thread::scope(|scope| {
            for i in 0..16 {
                let bus = bus.clone();
                scope.spawn(move || {
                    for j in 0..50 {
                        let params = json!([i, j]);
                        assert_eq!(bus.request("echo", &params).expect("answered"), params);
                    }
                });
            }
        });
        bus.stop().expect("stops");
    });
}

#[test]
fn a_stop_in_another_thread_ends_those_who_wait() {
    alone(|| {
        let bus = started();
        let mut events = bus.events();
        thread::scope(|scope| {
            let waits = scope.spawn(|| {
                let forever = RequestOptions::new().timeout(None);
                bus.request_with("hold", json!({}), forever)
            });
            while bus.stats().expect("counted").pending == 0 {
                thread::yield_now();
            }
            bus.stop().expect("stops");
            let ended = waits.join().expect("no panic");
            assert_kind(ended, ErrorCode::TransportError);
        });
        assert!(events.any(|event| matches!(event, Event::WorkerStopped { .. })));
        assert!(events.next().is_none(), "it stays at its end");
    });
}

#[test]
fn a_stream_is_an_iterator_that_ends_with_the_result() {
    alone(|| {
        let bus = started();
        let params = json!({"texts": ["a", "b"]});
        let mut text = String::new();
        let mut stream = bus.stream_request("session/prompt", &params);
        for event in stream.by_ref() {
            match event.expect("a piece") {
                StreamEvent::Chunk(chunk) => text.push_str(&chunk),
                StreamEvent::Result(result) => assert_eq!(result["text"], text),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(text, "ab");
        assert!(stream.next().is_none());

        let mut held = bus.stream_request("session/prompt", json!({"hold": true}));
        assert_kind(
            held.next_within(Duration::from_millis(20)),
            ErrorCode::Timeout,
        );
        drop(held);
        assert_eq!(bus.stats().expect("counted").pending, 0);

        let params = json!({"texts": ["c"], "hold": true});
        let mut looked = bus.stream_request("session/prompt", params);
        let chunk = match looked.try_next() {
            Some(chunk) => Some(chunk),
            // It has only just been sent.
            None => looked.next_within(SOON).expect("in time"),
        };
        assert!(matches!(chunk, Some(Ok(StreamEvent::Chunk(text))) if text == "c"));
        assert!(looked.try_next().is_none(), "it goes on");
        assert!(!looked.is_closed());
        bus.stop().expect("stops");
        assert_kind(
            looked.try_next().expect("the end"),
            ErrorCode::TransportError,
        );
        assert!(looked.is_closed());
    });
}

#[test]
fn a_subscription_is_an_iterator_that_ends_with_the_bus() {
    alone(|| {
        let bus = started();
        let (mut notes, mut events) = (bus.subscribe_notifications(), bus.events());
        bus.request("notify", json!({"n": 3})).expect("answered");
        assert!(events.try_next().is_none() && !events.is_closed());
        assert_eq!(
            notes.try_next().expect("came before the answer").params()["i"],
            0
        );
        for i in 1..2 {
            let note = notes.next_within(SOON).expect("in time").expect("a note");
            assert_eq!(note.params()["i"], i);
        }
        bus.stop().expect("stops");
        assert!(!notes.is_closed());
        assert_eq!(notes.by_ref().count(), 1, "what waits comes before the end");
        assert!(notes.is_closed());
        assert!(events.by_ref().count() > 0 && events.is_closed());
        assert!(notes.next_within(SOON).expect("in time").is_none());
        assert!(notes.try_next().is_none());
        assert_eq!(notes.lagged(), 0);
    });
}

#[test]
fn a_virtual_client_reads_and_writes_lines() {
    alone(|| {
        let bus = started();
        let mut stream = bus.connect_io(Some("zoo")).expect("connected");
        stream.set_read_timeout(Some(SOON)).expect("set");
        let mut lines = BufReader::new(stream.try_clone().expect("cloned")).lines();
        stream
            .write_all(b"{\"jsonrpc\":\"2.0\",\"id\":\"x\",\"method\":\"echo\",\"params\":[1]}\n")
            .expect("written");
        let answer = lines.next().expect("a line").expect("read");
        assert_eq!(answer, r#"{"jsonrpc":"2.0","id":"x","result":[1]}"#);
        stream.shutdown_write().expect("shut");
        assert!(lines.next().is_none(), "the bus hangs up");
        bus.stop().expect("stops");
    });
}

/// Asks something whose answer needs the handler, which no thread of the caller's runs.
fn asks_the_handler() {
    let bus = builder()
        .on_request(|request| async move {
            match request.method() {
                "ask" => Ok(json!("yes")),
                other => Err(RpcError::method_not_found(other)),
            }
        })
        .build_blocking()
        .expect("valid");
    bus.start().expect("starts");
    let start = Instant::now();
    let answer = bus.request("ask", json!({})).expect("answered");
    assert_eq!(answer, "yes");
    assert!(start.elapsed() < SOON);
    bus.stop().expect("stops");
}

#[test]
fn handlers_run_without_a_runtime() {
    open_tokios_sockets();
    alone(asks_the_handler);
}

#[test]
fn inside_a_runtime_with_one_thread_nothing_waits_for_itself() {
    open_tokios_sockets();
    alone(|| {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("runtime")
            .block_on(async { asks_the_handler() });
    });
}

#[test]
fn the_same_bus_serves_async_code_as_well() {
    open_tokios_sockets();
    alone(|| {
        let bus = started();
        let shared = bus.clone().into_async();
        let answer = common::client::block_on(shared.request("echo", [1]));
        assert_eq!(answer.expect("answered"), json!([1]));
        drop(bus);
        assert!(shared.is_running());
        drop(shared);
    });
}
