//! Requests whose pieces are seen as they come, and the text that belongs to a request.

mod common;

use std::time::{Duration, Instant};

use common::client::{assert_kind, eventually, overflows, started};
use common::{alone_async, zoo_pool};
use serde_json::{Value, json};
use stdiobus::{
    Error, ErrorCode, Overflow, Protocol, RequestOptions, ResponseStream, Result, StdioBus,
    StreamEvent,
};

fn session(name: &str) -> RequestOptions {
    RequestOptions::new().session_id(name)
}

async fn one_worker() -> StdioBus {
    let bus = StdioBus::builder()
        .pool(zoo_pool(&["echo"]))
        .build()
        .expect("valid");
    bus.start().await.expect("starts");
    bus
}

/// Everything a stream gives.
async fn all(mut stream: ResponseStream) -> Vec<Result<StreamEvent>> {
    let mut events = Vec::new();
    while let Some(event) = stream.next().await {
        events.push(event);
    }
    assert!(stream.next().await.is_none(), "it stays at its end");
    events
}

/// The chunks of a stream that ends well, and its result.
async fn text_and_result(stream: ResponseStream) -> (Vec<String>, Value) {
    let mut events = all(stream).await;
    let last = events.pop();
    let Some(Ok(StreamEvent::Result(result))) = last else {
        panic!("{last:?} after {events:?}");
    };
    let chunk = |event| match event {
        Ok(StreamEvent::Chunk(text)) => text,
        other => panic!("{other:?}"),
    };
    (events.into_iter().map(chunk).collect(), result)
}

/// The first chunk of a stream that goes on.
async fn first_chunk(stream: &mut ResponseStream) -> String {
    match stream.next().await {
        Some(Ok(StreamEvent::Chunk(text))) => text,
        other => panic!("{other:?}"),
    }
}

// ---- what comes --------------------------------------------------------------------------------

#[test]
fn a_stream_is_its_chunks_in_order_and_then_one_result_with_all_of_them() {
    alone_async(|| async {
        let bus = started(&["echo"]).await;
        let texts: Vec<_> = (0..200).map(|i| format!("{i} ü\n\"")).collect();
        let stream = bus.stream_request("session/prompt", json!({"texts": texts}));
        let (chunks, result) = text_and_result(stream).await;
        assert_eq!(chunks, texts);
        let expected = json!({"stopReason": "end_turn", "text": texts.concat()});
        assert_eq!(result, expected);
        bus.stop().await.expect("stops");
    });
}

#[test]
fn what_is_no_text_of_the_agent_comes_as_an_update_in_its_place() {
    alone_async(|| async {
        let bus = started(&["echo"]).await;
        let text = |kind: &str, text: &str| json!({"sessionUpdate": kind, "content": {"type": "text", "text": text}});
        let image = json!({"type": "image", "data": "", "mimeType": "image/png"});
        let updates = json!([
            text("agent_thought_chunk", "hm"),
            text("agent_message_chunk", "a"),
            text("user_message_chunk", "what I said"),
            {"sessionUpdate": "tool_call", "toolCallId": "1", "title": "t"},
            {"sessionUpdate": "agent_message_chunk", "content": image},
            text("agent_message_chunk", "b"),
        ]);
        let params = json!({"sessionId": "s", "updates": updates});
        let stream = bus.stream_request_with("session/prompt", params, session("s"));
        let id = stream.id();
        let seen: Vec<_> = all(stream)
            .await
            .into_iter()
            .map(|event| match event.expect("all is well") {
                StreamEvent::Chunk(text) => text,
                StreamEvent::Update(update) => {
                    assert_eq!(update.method(), "session/update");
                    assert_eq!(
                        (update.session_id(), update.request_id()),
                        (Some("s"), Some(id))
                    );
                    let kind = &update.params()["update"]["sessionUpdate"];
                    format!("<{}>", kind.as_str().expect("a kind"))
                }
                StreamEvent::Result(result) => result["text"].to_string(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(
            seen,
            [
                "<agent_thought_chunk>",
                "a",
                "<user_message_chunk>",
                "<tool_call>",
                "<agent_message_chunk>",
                "b",
                "\"ab\""
            ]
        );
        bus.stop().await.expect("stops");
    });
}

#[test]
fn a_result_without_chunks_or_with_a_text_of_its_own_stays_as_it_is() {
    alone_async(|| async {
        let bus = started(&["echo"]).await;
        for (texts, result) in [
            (json!([]), json!({"a": 1})),
            (json!(["x"]), json!({"text": "the agent's own"})),
            (json!(["x"]), json!([1])),
            (json!(["x"]), json!("x")),
        ] {
            let params = json!({"texts": texts, "result": result});
            let stream = bus.stream_request("turn", &params);
            assert_eq!(text_and_result(stream).await.1, result);
            assert_eq!(bus.request("turn", &params).await.expect("ok"), result);
        }
        bus.stop().await.expect("stops");
    });
}

#[test]
fn a_plain_request_has_the_text_of_its_turn_in_its_result() {
    #[derive(serde::Deserialize)]
    struct Turn {
        text: String,
    }
    alone_async(|| async {
        let bus = started(&["echo"]).await;
        let params = json!({"texts": ["one, ", "two"]});
        let result = bus.request("session/prompt", &params).await.expect("ok");
        let expected = json!({"stopReason": "end_turn", "text": "one, two"});
        assert_eq!(result, expected);
        let typed: Turn = bus.request_as("turn", &params).await.expect("ok");
        assert_eq!(typed.text, "one, two");
        bus.stop().await.expect("stops");
    });
}

#[test]
fn a_look_at_a_stream_sends_it_and_takes_only_what_is_there() {
    alone_async(|| async {
        let bus = started(&["echo"]).await;
        let params = json!({"texts": ["a", "b"], "hold": true});
        let mut stream = bus.stream_request("session/prompt", params);
        let mut texts = Vec::new();
        // The first look sends it.
        eventually("both chunks", || {
            match stream.try_next() {
                Some(Ok(StreamEvent::Chunk(text))) => texts.push(text),
                None => {}
                other => panic!("{other:?}"),
            }
            texts.len() == 2
        })
        .await;
        assert_eq!(texts, ["a", "b"]);
        assert!(stream.try_next().is_none(), "it goes on");
        assert!(!stream.is_closed());

        bus.stop().await.expect("stops");
        assert!(!stream.is_closed());
        let end = stream.try_next().expect("the end is there");
        assert_kind(end, ErrorCode::TransportError);
        assert!(stream.is_closed());
        assert!(stream.try_next().is_none() && stream.next().await.is_none());
    });
}

#[test]
fn the_error_of_a_worker_ends_a_stream() {
    alone_async(|| async {
        let bus = started(&["echo"]).await;
        let events = all(bus.stream_request("error", json!({}))).await;
        assert!(
            matches!(&events[..], [Err(Error::Rpc { code: -32050, .. })]),
            "{events:?}"
        );
        bus.stop().await.expect("stops");
    });
}

// ---- several at once ---------------------------------------------------------------------------

#[test]
fn streams_of_three_sessions_on_one_worker_never_mix() {
    alone_async(|| async {
        let bus = one_worker().await;
        let streams: Vec<_> = ["a", "b", "c"]
            .into_iter()
            .map(|name| {
                let texts: Vec<_> = (0..50).map(|i| format!("{name}{i} ")).collect();
                let params = json!({"sessionId": name, "texts": texts, "ms": 1});
                let stream = bus.stream_request_with("session/prompt", params, session(name));
                (texts, tokio::spawn(text_and_result(stream)))
            })
            .collect();
        for (texts, stream) in streams {
            let (chunks, result) = stream.await.expect("no panic");
            assert_eq!(chunks, texts);
            assert_eq!(result["text"], texts.concat());
        }
        bus.stop().await.expect("stops");
    });
}

#[test]
fn a_session_has_one_stream_at_a_time() {
    alone_async(|| async {
        let bus = one_worker().await;
        let endless = json!({"texts": ["x"], "hold": true});
        let mut first = bus.stream_request("turn", &endless);
        assert_eq!(first_chunk(&mut first).await, "x");

        let mut second = bus.stream_request("turn", &endless);
        let refused = second.next().await.expect("an error");
        assert_kind(refused, ErrorCode::InvalidState);
        assert!(second.next().await.is_none());

        // Another session is free, and so is this one once its stream is gone.
        let mut other = bus.stream_request_with("turn", &endless, session("other"));
        assert_eq!(first_chunk(&mut other).await, "x");
        drop(first);
        let mut third = bus.stream_request("turn", &endless);
        assert_eq!(first_chunk(&mut third).await, "x");
        bus.stop().await.expect("stops");
    });
}

#[test]
fn the_session_in_the_params_is_the_one_that_counts() {
    alone_async(|| async {
        let bus = one_worker().await;
        let endless = |name: &str| json!({"sessionId": name, "hold": true});
        let mut first = bus.stream_request("turn", endless("a"));
        let mut same = bus.stream_request_with("turn", endless("a"), session("other"));
        let mut free = bus.stream_request("turn", endless("b"));
        tokio::select! {
            biased;
            event = first.next() => panic!("{event:?}"),
            event = same.next() => {
                assert_kind(event.expect("an error"), ErrorCode::InvalidState);
            }
        }
        tokio::select! {
            biased;
            event = free.next() => panic!("{event:?}"),
            () = eventually("two are pending", || bus.pending_count() == Some(2)) => {}
        }
        bus.stop().await.expect("stops");
    });
}

// ---- how they end ------------------------------------------------------------------------------

#[test]
fn the_timeout_of_a_stream_is_one_for_the_whole() {
    alone_async(|| async {
        let bus = started(&["echo"]).await;
        let options = RequestOptions::new().timeout(Duration::from_millis(200));
        let params = json!({"n": 1000, "size": 1, "ms": 20});
        let start = Instant::now();
        let mut events = all(bus.stream_request_with("turn", params, options)).await;
        assert!(start.elapsed() >= Duration::from_millis(200));
        let last = events.pop().expect("an end");
        assert_kind(last, ErrorCode::Timeout);
        assert!(!events.is_empty() && events.len() < 100, "{}", events.len());
        eventually("it is given up", || bus.pending_count() == Some(0)).await;
        bus.stop().await.expect("stops");
    });
}

#[test]
fn dropping_a_stream_gives_its_request_up() {
    alone_async(|| async {
        let bus = started(&["echo"]).await;
        let mut stream = bus.stream_request("turn", json!({"texts": ["x"], "hold": true}));
        assert_eq!(first_chunk(&mut stream).await, "x");
        assert_eq!(bus.pending_count(), Some(1));
        drop(stream);
        eventually("it is given up", || bus.pending_count() == Some(0)).await;
        bus.stop().await.expect("stops");
    });
}

#[test]
fn what_an_agent_still_says_about_a_turn_that_was_given_up_is_not_in_the_next_one() {
    alone_async(|| async {
        let pool = zoo_pool(&["echo"]).protocol(Protocol::Acp);
        let bus = StdioBus::builder().pool(pool).build().expect("valid");
        bus.start().await.expect("starts");
        let new = json!({"sessionId": "s", "cwd": "/", "mcpServers": []});
        bus.request("session/new", new).await.expect("a session");
        for turn in 0..100 {
            let texts: Vec<_> = (0..20).map(|i| format!("{turn} {i}")).collect();
            let params = json!({"sessionId": "s", "texts": texts});
            let mut given_up = bus.stream_request("session/prompt", &params);
            assert_eq!(first_chunk(&mut given_up).await, texts[0]);
            drop(given_up);
            let texts: Vec<_> = (0..5).map(|i| format!("{turn} again {i}")).collect();
            let params = json!({"sessionId": "s", "texts": texts});
            let next = bus.stream_request("session/prompt", &params);
            let (chunks, result) = text_and_result(next).await;
            assert_eq!(chunks, texts);
            assert_eq!(result["text"], texts.concat());
        }
        bus.stop().await.expect("stops");
    });
}

#[test]
fn a_stream_that_is_not_read_ends_alone_when_too_much_waits() {
    alone_async(|| async {
        let bus = one_worker().await;
        let told = bus.events();
        let params = json!({"sessionId": "stuck", "n": 1000, "size": 1000, "hold": true});
        let options = session("stuck").max_waiting(100_000);
        let mut stuck = bus.stream_request_with("turn", params, options);
        let id = stuck.id();
        first_chunk(&mut stuck).await;

        let params = json!({"sessionId": "read", "n": 1000, "size": 1000});
        let stream = bus.stream_request_with("turn", params, session("read"));
        assert_eq!(text_and_result(stream).await.0.len(), 1000);
        eventually("the other is given up", || bus.pending_count() == Some(0)).await;

        let mut events = all(stuck).await;
        let last = events.pop().expect("an end");
        assert_kind(last, ErrorCode::ResourceExhausted);
        assert!(
            (10..100).contains(&events.len()),
            "{} chunks had room",
            events.len()
        );
        bus.stop().await.expect("stops");
        assert_eq!(overflows(told).await, [Overflow::Request(id)]);
    });
}

#[test]
fn one_message_may_be_larger_than_what_may_wait() {
    alone_async(|| async {
        let bus = started(&["echo"]).await;
        let options = RequestOptions::new().max_waiting(1);
        let params = json!({"n": 3, "size": 100_000, "ms": 100});
        let (chunks, _) = text_and_result(bus.stream_request_with("turn", params, options)).await;
        assert_eq!(chunks.len(), 3);
        bus.stop().await.expect("stops");
    });
}

#[test]
fn a_worker_that_exits_ends_a_stream_after_what_it_had_said() {
    alone_async(|| async {
        let bus = one_worker().await;
        let params = json!({"sessionId": "s", "texts": ["a", "b"], "hold": true});
        let mut stream = bus.stream_request_with("turn", params, session("s"));
        assert_eq!(first_chunk(&mut stream).await, "a");
        bus.request("exit", json!({"code": 3}))
            .await
            .expect_err("it exits");
        let mut events = all(stream).await;
        let error = assert_kind(events.pop().expect("an end"), ErrorCode::TransportError);
        assert_eq!(error.exit().and_then(|exit| exit.code), Some(3));
        assert!(events.len() <= 1, "{events:?}");
        bus.stop().await.expect("stops");
    });
}

#[test]
fn stopping_ends_streams() {
    alone_async(|| async {
        let bus = started(&["echo"]).await;
        let mut stream = bus.stream_request("turn", json!({"texts": ["x"], "hold": true}));
        assert_eq!(first_chunk(&mut stream).await, "x");
        bus.stop().await.expect("stops");
        let events = all(stream).await;
        let [Err(error)] = &events[..] else {
            panic!("{events:?}");
        };
        assert_eq!(error.kind(), Some(ErrorCode::TransportError), "{error:?}");
        let late = all(bus.stream_request("turn", json!({}))).await;
        assert!(matches!(&late[..], [Err(_)]), "{late:?}");
    });
}

// ---- beside other things -----------------------------------------------------------------------

#[test]
fn a_permission_is_answered_while_another_session_streams() {
    alone_async(|| async {
        let bus = StdioBus::builder()
            .pool(zoo_pool(&["echo"]))
            .on_request(|request| async move {
                Ok(json!({"outcome": "selected", "session": request.session_id()}))
            })
            .build()
            .expect("valid");
        bus.start().await.expect("starts");
        let params = json!({"sessionId": "talks", "texts": ["x"], "hold": true});
        let mut stream = bus.stream_request_with("turn", params, session("talks"));
        assert_eq!(first_chunk(&mut stream).await, "x");
        let ask = json!({"method": "session/request_permission", "sessionId": "asks"});
        let answer = bus.request_with("ask", ask, session("asks")).await;
        let expected = json!({"outcome": "selected", "session": "asks"});
        assert_eq!(answer.expect("answered"), expected);
        bus.stop().await.expect("stops");
    });
}

async fn with_timeout(ms: u64) -> StdioBus {
    let bus = StdioBus::builder()
        .pool(zoo_pool(&["echo"]))
        .timeout(Duration::from_millis(ms))
        .build()
        .expect("valid");
    bus.start().await.expect("starts");
    bus
}

#[test]
fn progress_begins_the_buss_timeout_anew() {
    alone_async(|| async {
        let bus = with_timeout(1000).await;
        let params = json!({"n": 10, "ms": 150});
        assert_eq!(bus.request("progress", &params).await.expect("ok"), params);
        // Other messages don't.
        let params = json!({"n": 1000, "size": 1, "ms": 20});
        assert_kind(bus.request("turn", &params).await, ErrorCode::Timeout);
        bus.stop().await.expect("stops");
    });
}

#[test]
fn progress_of_a_token_begins_the_buss_timeout_anew() {
    alone_async(|| async {
        let bus = StdioBus::builder()
            .pool(zoo_pool(&["echo"]).protocol(Protocol::Mcp))
            .timeout(Duration::from_millis(1000))
            .build()
            .expect("valid");
        bus.start().await.expect("starts");
        let hello = json!({"protocolVersion": "2025-06-18", "capabilities": {}});
        bus.request("initialize", hello).await.expect("initialized");
        // It belongs to the request by its token alone.
        let params = json!({
            "_meta": {"progressToken": "mine"}, "n": 10, "ms": 150, "sessionId": "unknown",
        });
        let mut stream = bus.stream_request("progress", &params);
        for i in 0..10 {
            match stream.next().await {
                Some(Ok(StreamEvent::Update(update))) => {
                    assert_eq!(update.params()["progressToken"], "mine");
                    assert_eq!(update.params()["progress"], i);
                }
                other => panic!("{other:?}"),
            }
        }
        let (_, result) = text_and_result(stream).await;
        assert_eq!(result["n"], 10);
        bus.stop().await.expect("stops");
    });
}

#[test]
fn chunks_belong_to_the_prompt_and_not_to_what_else_its_session_asks() {
    alone_async(|| async {
        let bus = StdioBus::builder()
            .pool(zoo_pool(&["echo"]).protocol(Protocol::Acp))
            .build()
            .expect("valid");
        bus.start().await.expect("starts");
        let texts: Vec<_> = (0..20).map(|i| i.to_string()).collect();
        let params = json!({"sessionId": "s", "texts": texts, "ms": 20});
        let mut stream = bus.stream_request_with("session/prompt", params, session("s"));
        assert_eq!(first_chunk(&mut stream).await, "0");
        let held = tokio::spawn(bus.request_with("hold", json!({}), session("s")));
        let (chunks, _) = text_and_result(stream).await;
        assert_eq!(chunks.len(), 19);
        held.abort();
        bus.stop().await.expect("stops");
    });
}

#[test]
fn progress_does_not_put_off_a_timeout_of_its_own() {
    alone_async(|| async {
        let bus = with_timeout(10_000).await;
        let options = RequestOptions::new().timeout(Duration::from_millis(200));
        let params = json!({"n": 100, "ms": 20});
        let result = bus.request_with("progress", &params, options).await;
        assert_kind(result, ErrorCode::Timeout);
        bus.stop().await.expect("stops");
    });
}

#[test]
fn progress_puts_a_timeout_off_to_ten_times_its_length_at_most() {
    alone_async(|| async {
        let bus = with_timeout(400).await;
        let start = Instant::now();
        let params = json!({"n": 10_000, "ms": 10, "hold": true});
        let stream = bus.stream_request("progress", &params);
        let mut events = all(stream).await;
        assert_kind(events.pop().expect("an end"), ErrorCode::Timeout);
        assert!(events.len() > 10, "{}", events.len());
        let took = start.elapsed();
        assert!(took >= Duration::from_millis(4000), "{took:?}");
        assert!(took < Duration::from_millis(16_000), "{took:?}");
        bus.stop().await.expect("stops");
    });
}

#[test]
fn a_notification_takes_no_options_about_an_answer() {
    alone_async(|| async {
        let bus = started(&["echo"]).await;
        let options = RequestOptions::new().max_waiting(1);
        let result = bus.notify_with("note", json!({}), options).await;
        assert_kind(result, ErrorCode::InvalidArgument);
        bus.stop().await.expect("stops");
    });
}
