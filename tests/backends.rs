//! What a client can rely on wherever its bus runs.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use common::backends::Over;
use common::client::{
    assert_kind, assert_shutting_down, begin, eventually, forever, poll_once, short, soon,
};
use common::peer::puppet;
use common::{BOUND, exists, zoo_pool};
use serde_json::{Value, json};
use stdiobus::{
    AuditEvent, BackendType, BusState, Error, ErrorCode, HelloParams, Identity,
    NotificationOptions, OverflowPolicy, PoolConfig, Protocol, RequestOptions, RpcError, StdioBus,
    StreamEvent,
};

over_every_backend! {
    requests_are_answered_each_with_its_own
    large_messages_pass_whole_both_ways
    the_error_of_a_worker_stays_as_it_was_sent
    errors_of_the_bus_have_their_kinds
    a_worker_that_dies_ends_its_requests_with_its_exit
    a_request_that_times_out_or_is_dropped_leaves_nothing_behind
    what_is_given_up_is_cancelled_at_the_worker
    a_turn_streams_its_chunks_and_its_result
    streams_of_many_sessions_never_mix
    messages_name_the_request_they_belong_to
    progress_gives_a_request_more_time
    notifications_reach_subscribers_and_handlers
    a_full_subscription_loses_the_newest_or_ends
    workers_ask_and_are_answered
    workers_without_a_handler_are_refused
    everything_beside_params_reaches_the_worker
    a_hello_agrees_on_extensions
    a_budget_is_kept
    a_stop_ends_what_is_in_flight_at_once
    a_drain_lets_what_is_in_flight_end
    a_drain_of_what_is_idle_ends_at_once
    a_stop_cuts_a_drain_short
    states_go_one_way
    a_drop_ends_the_workers
    the_client_without_async_does_the_same
    what_the_backend_cannot_do_is_said
}

const HOLD: &str = "hold";

fn puppets(protocol: Protocol) -> [PoolConfig; 1] {
    [PoolConfig::new("puppets", puppet()).protocol(protocol)]
}

async fn requests_are_answered_each_with_its_own(over: Over) {
    let setup = over.start(&[zoo_pool(&["echo"]).instances(4)]).await;
    let tasks = (0..500).map(|i| {
        let bus = setup.bus.clone();
        tokio::spawn(async move {
            let options = match i % 3 {
                0 => RequestOptions::new(),
                1 => RequestOptions::new().unpinned(),
                _ => RequestOptions::new().session_id(format!("s{}", i % 7)),
            };
            let answer = bus.request_with("echo", json!({"i": i}), options).await;
            assert_eq!(answer.expect("answered"), json!({"i": i}));
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.expect("no panic");
    }
    #[derive(Debug, serde::Deserialize, PartialEq)]
    struct Echo {
        i: u8,
    }
    let typed: Echo = setup
        .bus
        .request_as("echo", json!({"i": 7}))
        .await
        .expect("of that type");
    assert_eq!(typed, Echo { i: 7 });
    let stats = setup.bus.stats().await.expect("counted");
    assert_eq!((stats.messages_in, stats.messages_out), (501, 501));
    assert_eq!(stats.latency.count, 501);
    setup.finish().await;
}

async fn large_messages_pass_whole_both_ways(over: Over) {
    let setup = over.start(&[zoo_pool(&["echo"])]).await;
    for size in [70_000, 1 << 20, 9 << 20] {
        let text: String = (0..size)
            .map(|i| char::from(b'a' + (i % 23) as u8))
            .collect();
        let answer = setup.bus.request("echo", json!([text])).await;
        assert!(
            answer.expect("answered")[0] == text.as_str(),
            "{size} bytes"
        );
    }
    // Larger than the bus takes.
    let text = "x".repeat(11 << 20);
    let result = setup.bus.request("echo", json!([text])).await;
    assert_kind(result, ErrorCode::InvalidArgument);
    assert_eq!(setup.bus.request("echo", 1).await.expect("answered"), 1);
    setup.finish().await;
}

async fn the_error_of_a_worker_stays_as_it_was_sent(over: Over) {
    let setup = over.start(&puppets(Protocol::Ndjson)).await;
    let error = r#"{"jsonrpc":"2.0","id":$ID,"error":{"code":-32011,"message":"mine","data":[1]}}"#;
    let result = setup.bus.request("m", json!({"play": [error]})).await;
    match result.expect_err("an error") {
        Error::Rpc {
            code,
            message,
            data,
            ..
        } => {
            assert_eq!(
                (code, message.as_str(), data),
                (-32011, "mine", Some(json!([1])))
            );
        }
        other => panic!("{other:?}"),
    }
    setup.finish().await;
}

async fn errors_of_the_bus_have_their_kinds(over: Over) {
    let setup = over.start(&[zoo_pool(&["echo"])]).await;
    let elsewhere = RequestOptions::new().pool("elsewhere");
    let result = setup.bus.request_with("echo", 1, elsewhere).await;
    let error = assert_kind(result, ErrorCode::InvalidArgument);
    assert_eq!(error.rpc_code(), Some(-32010), "{error:?}");
    assert!(error.to_string().contains("elsewhere"), "{error}");
    let here = RequestOptions::new().pool("zoo");
    let answer = setup.bus.request_with("echo", 1, here).await;
    assert_eq!(answer.expect("answered"), 1);
    assert_kind(setup.bus.send("{\n}").await, ErrorCode::InvalidArgument);
    setup.finish().await;
}

async fn a_worker_that_dies_ends_its_requests_with_its_exit(over: Over) {
    let setup = over.start(&[zoo_pool(&["echo"])]).await;
    let held = setup.bus.request(HOLD, Value::Null);
    let exit = setup.bus.request("exit", json!({"code": 7}));
    let (held, exit) = tokio::join!(held, exit);
    for result in [held, exit] {
        let error = assert_kind(result, ErrorCode::TransportError);
        let exit = error.exit().expect("an exit");
        assert_eq!((exit.code, exit.pool.as_str()), (Some(7), "zoo"));
        assert!(error.is_retryable());
    }
    // The next worker serves.
    assert_eq!(setup.bus.request("echo", 1).await.expect("answered"), 1);
    setup.finish().await;
}

async fn a_request_that_times_out_or_is_dropped_leaves_nothing_behind(over: Over) {
    let setup = over.start(&[zoo_pool(&["echo"])]).await;
    let bus = &setup.bus;
    let result = bus.request_with(HOLD, Value::Null, short()).await;
    assert_kind(result, ErrorCode::Timeout);
    let late = bus.request_with("sleep", json!({"ms": 200}), short());
    assert_kind(late.await, ErrorCode::Timeout);
    {
        let mut dropped = Box::pin(bus.request(HOLD, Value::Null));
        let first = tokio::time::timeout(Duration::from_millis(50), &mut dropped).await;
        assert!(first.is_err() && bus.pending_count() >= Some(1));
    }
    bus.request("echo", Value::Null).detach().expect("sent");
    assert_eq!(bus.request("echo", 2).await.expect("answered"), 2);
    eventually("nothing is pending", || bus.pending_count() == Some(0)).await;
    if let Some(host) = &setup.host {
        eventually("nothing there either", || host.pending_count() == Some(0)).await;
        let stats = host.stats().await.expect("counted");
        assert_eq!((stats.stale_cancels, stats.unattributed_frames), (0, 0));
    }
    setup.finish().await;
}

async fn what_is_given_up_is_cancelled_at_the_worker(over: Over) {
    let setup = over.start(&puppets(Protocol::Mcp)).await;
    let bus = &setup.bus;
    let mut heard = bus.subscribe_notifications();
    let hello = json!({"protocolVersion": "2025-11-25", "capabilities": {}});
    bus.request("initialize", hello)
        .await
        .expect("shakes hands");
    let tell = r#"{"jsonrpc":"2.0","method":"told","params":{"got":$GOT,"sessionId":"x"}}"#;
    let own = bus.request_with("tools/call", json!({"play": []}), short());
    let watch = json!({"play": [{"on": "notifications/cancelled", "play": [tell,
        r#"{"jsonrpc":"2.0","id":$ID,"result":{}}"#]}]});
    // Its answer comes once the worker has been told of the other.
    let (own, watched) = tokio::join!(own, bus.request("watch", watch));
    assert_kind(own, ErrorCode::Timeout);
    watched.expect("the worker has been told");
    drop(heard.try_next());
    setup.finish().await;
}

async fn a_turn_streams_its_chunks_and_its_result(over: Over) {
    let setup = over.start(&[zoo_pool(&["echo"])]).await;
    let texts: Vec<String> = (0..50).map(|i| format!("<{i}>")).collect();
    let params = json!({"texts": texts, "updates": [{"sessionUpdate": "plan"}]});
    let mut stream = setup.bus.stream_request("session/prompt", &params);
    let (mut chunks, mut updates, mut result) = (Vec::new(), 0, None);
    while let Some(event) = soon("the stream", stream.next()).await {
        match event.expect("no error") {
            StreamEvent::Chunk(text) => chunks.push(text),
            StreamEvent::Update(_) => updates += 1,
            StreamEvent::Result(value) => result = Some(value),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((chunks, updates), (texts.clone(), 1));
    let wanted = json!({"stopReason": "end_turn", "text": texts.concat()});
    assert_eq!(result, Some(wanted.clone()));
    let plain = setup.bus.request("session/prompt", params).await;
    assert_eq!(plain.expect("answered"), wanted);
    setup.finish().await;
}

async fn streams_of_many_sessions_never_mix(over: Over) {
    let setup = over.start(&[zoo_pool(&["echo"])]).await;
    let streams = (0..8).map(|i| {
        let session = format!("s{i}");
        let texts: Vec<String> = (0..20).map(|j| format!("{i}.{j} ")).collect();
        let params = json!({"texts": texts, "ms": 1, "sessionId": session});
        let options = RequestOptions::new().session_id(session);
        let mut stream = setup
            .bus
            .stream_request_with("session/prompt", params, options);
        tokio::spawn(async move {
            let mut text = String::new();
            while let Some(event) = stream.next().await {
                match event.expect("no error") {
                    StreamEvent::Chunk(chunk) => text.push_str(&chunk),
                    StreamEvent::Result(result) => assert_eq!(result["text"], text),
                    other => panic!("{other:?}"),
                }
            }
            assert_eq!(text, texts.concat());
        })
    });
    for stream in streams.collect::<Vec<_>>() {
        soon("a stream", stream).await.expect("no panic");
    }
    let twice = || {
        let options = RequestOptions::new().session_id("one");
        setup.bus.stream_request_with(HOLD, Value::Null, options)
    };
    let (mut first, mut second) = (twice(), twice());
    let refused = tokio::select! {
        biased;
        event = first.next() => panic!("{event:?}"),
        event = second.next() => event.expect("an end"),
    };
    assert_kind(refused, ErrorCode::InvalidState);
    drop((first, second));
    eventually("nothing is pending", || {
        setup.bus.pending_count() == Some(0)
    })
    .await;
    if let Some(host) = &setup.host {
        eventually("nothing there either", || host.pending_count() == Some(0)).await;
    }
    setup.finish().await;
}

async fn messages_name_the_request_they_belong_to(over: Over) {
    let setup = over.start(&[zoo_pool(&["echo"])]).await;
    let bus = &setup.bus;
    let mut notes = bus.subscribe_notifications();
    let mut whose = async |params: Value, options: RequestOptions| {
        let request = bus.request_with("notify", params, options);
        let id = request.id();
        request.await.expect("answered");
        let note = notes.next().await.expect("the bus runs");
        assert_eq!(note.method(), "note");
        note.request_id().map(|of| of == id)
    };
    let options = RequestOptions::new;
    let own = whose(json!({"n": 1, "sessionId": "s"}), options().session_id("s")).await;
    assert_eq!(own, Some(true));
    // Without a session on either side nothing says whose it is.
    let unpinned = whose(json!({"n": 1}), options().unpinned()).await;
    assert_eq!(unpinned, None);
    // The worker names the client's own.
    let pinned = whose(json!({"n": 1}), options()).await;
    assert_eq!(pinned, Some(true));
    let elsewhere = whose(json!({"n": 1, "sessionId": "t"}), options().unpinned()).await;
    assert_eq!(elsewhere, Some(true));
    setup.finish().await;
}

async fn progress_gives_a_request_more_time(over: Over) {
    let setup = over
        .start_with(&[zoo_pool(&["echo"])], |builder| {
            builder.timeout(Duration::from_millis(400))
        })
        .await;
    let params = |token: Value| json!({"n": 8, "ms": 100, "_meta": {"progressToken": token}});
    for token in [json!("a\"b"), json!(7)] {
        let answer = setup.bus.request("progress", params(token)).await;
        answer.expect("in time, since there was progress");
    }
    setup.finish().await;
}

async fn notifications_reach_subscribers_and_handlers(over: Over) {
    let setup = over.start(&[zoo_pool(&["echo"])]).await;
    let bus = &setup.bus;
    let mut subscription = bus.subscribe_notifications();
    let seen = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&seen);
    let guard = bus
        .on_notification(move |notification| {
            assert_eq!(notification.method(), "note");
            counter.fetch_add(1, Ordering::SeqCst);
        })
        .expect("a handler");
    let session = bus.client_session_id().to_owned();
    let request = bus.request("notify", json!({"n": 3, "sessionId": session}));
    let id = request.id();
    request.await.expect("answered");
    for i in 0..3 {
        let note = soon("a notification", subscription.next()).await;
        let note = note.expect("the bus runs");
        assert_eq!(note.params()["i"], i);
        assert_eq!(note.session_id(), Some(&*session));
        assert_eq!(note.request_id(), Some(id));
        assert_eq!(note.worker().pool.is_empty(), !over.is_native());
    }
    eventually("all are handled", || seen.load(Ordering::SeqCst) == 3).await;
    drop(guard);
    bus.notify("hello", json!({})).await.expect("sent");
    assert_eq!(bus.request("seen", Value::Null).await.expect("answered"), 1);
    bus.stop().await.expect("stops");
    assert!(soon("the end", subscription.next()).await.is_none());
    setup.finish().await;
}

async fn a_full_subscription_loses_the_newest_or_ends(over: Over) {
    let setup = over.start(&[zoo_pool(&["echo"])]).await;
    let subscribe = |policy| {
        let options = NotificationOptions::new().max_queue(4).overflow(policy);
        setup.bus.subscribe_notifications_with(options)
    };
    let (mut drops, mut closes) = (
        subscribe(OverflowPolicy::Drop),
        subscribe(OverflowPolicy::Close),
    );
    let session = setup.bus.client_session_id().to_owned();
    let params = json!({"n": 10, "sessionId": session});
    setup.bus.request("notify", params).await.expect("answered");
    eventually("six are lost", || drops.lagged() == 6).await;
    assert_eq!(closes.lagged(), 1);
    for i in 0..4 {
        let heard = [drops.next().await, closes.next().await];
        assert!(
            heard
                .into_iter()
                .all(|n| n.expect("there").params()["i"] == i)
        );
    }
    assert!(closes.next().await.is_none() && drops.try_next().is_none());
    let stats = setup.bus.stats().await.expect("counted");
    assert_eq!(stats.lagged_messages, 7);
    setup.finish().await;
}

async fn workers_ask_and_are_answered(over: Over) {
    let setup = over
        .start_with(&[zoo_pool(&["echo"])], |builder| {
            builder.on_request(|request| async move {
                match request.method() {
                    "ask" => Ok(json!({"session": request.session_id()})),
                    "panic" => panic!("as asked"),
                    other => Err(RpcError::method_not_found(other)),
                }
            })
        })
        .await;
    let session = setup.bus.client_session_id().to_owned();
    let got = setup
        .bus
        .request("ask", json!({"sessionId": session}))
        .await;
    let got = got.expect("answered");
    assert!(got.to_string().contains(&session), "{got}");
    let other = json!({"sessionId": session, "method": "other", "params": {}, "id": "x"});
    let got = setup.bus.request("ask", other).await.expect("answered");
    assert!(got.to_string().contains("-32601"), "{got}");
    let panics = json!({"sessionId": session, "method": "panic", "params": {}, "id": 9});
    let got = setup.bus.request("ask", panics).await.expect("answered");
    assert!(got.to_string().contains("-32603"), "{got}");
    setup.finish().await;
}

async fn workers_without_a_handler_are_refused(over: Over) {
    let setup = over.start(&[zoo_pool(&["echo"])]).await;
    let session = setup.bus.client_session_id().to_owned();
    let got = setup
        .bus
        .request("ask", json!({"sessionId": session}))
        .await;
    let got = got.expect("answered");
    assert!(got.to_string().contains("-32601"), "{got}");
    let method = "session/request_permission";
    let ask = json!({"sessionId": session, "method": method, "params": {}, "id": 1});
    let got = setup.bus.request("ask", ask).await.expect("answered");
    assert!(got.to_string().contains("cancelled"), "{got}");
    setup.finish().await;
}

async fn everything_beside_params_reaches_the_worker(over: Over) {
    let setup = over.start(&puppets(Protocol::Ndjson)).await;
    let options = RequestOptions::new()
        .session_id("s")
        .agent_id("puppets")
        .identity(Identity::new("u1", "admin"))
        .audit(AuditEvent::new("e1", "read"))
        .idempotency_key("once")
        .extensions([("trace", json!({"id": 7}))]);
    let message = setup
        .bus
        .request_with("message", json!({"a": 1}), options)
        .await;
    let message = message.expect("answered");
    assert_eq!(message["sessionId"], "s", "{message}");
    assert_eq!(message["agentId"], "puppets", "{message}");
    let ext = json!({
        "identity": {"subjectId": "u1", "role": "admin", "assertedBy": "self"},
        "audit": {"eventId": "e1", "action": "read"},
        "idempotencyKey": "once",
        "trace": {"id": 7},
    });
    assert_eq!(message["_ext"], ext);
    setup.finish().await;
}

async fn a_hello_agrees_on_extensions(over: Over) {
    let setup = over
        .build_with(&puppets(Protocol::Ndjson), |builder| builder)
        .await;
    let hello = setup
        .bus
        .connect(HelloParams::new().require("audit", "1.0"))
        .await;
    assert!(hello.expect("agreed").is_active("audit"));
    assert!(setup.bus.agent_session_id().is_some());
    let hello = setup
        .bus
        .hello(HelloParams::new().require("audit", "off"))
        .await;
    let error = assert_kind(hello, ErrorCode::NegotiationFailed);
    assert!(error.to_string().contains("audit"), "{error}");
    setup.finish().await;
}

async fn a_budget_is_kept(over: Over) {
    let setup = over
        .start_with(&[zoo_pool(&["echo"])], |builder| {
            builder.max_in_flight_bytes(200)
        })
        .await;
    let bus = setup.bus.clone();
    let large = "x".repeat(150);
    let held = tokio::spawn({
        let (bus, large) = (bus.clone(), large.clone());
        async move {
            bus.request_with(
                "sleep",
                json!({"ms": 300, "x": large}),
                RequestOptions::new(),
            )
            .await
        }
    });
    eventually("it is in flight", || bus.pending_count() == Some(1)).await;
    let refused = bus.try_request("echo", json!([large]));
    assert_kind(refused.map(drop), ErrorCode::ResourceExhausted);
    let waits = bus.request_with("echo", json!([large]), short()).await;
    assert_kind(waits, ErrorCode::Timeout);
    let waited = bus.request("echo", json!([large])).await;
    assert_eq!(waited.expect("once there was room")[0], large.as_str());
    held.await.expect("no panic").expect("answered");
    setup.finish().await;
}

async fn a_stop_ends_what_is_in_flight_at_once(over: Over) {
    let setup = over.start(&[zoo_pool(&["echo"])]).await;
    let bus = setup.bus.clone();
    let mut stream = bus.stream_request(HOLD, Value::Null);
    let waiting = tokio::spawn({
        let bus = bus.clone();
        async move { bus.request(HOLD, Value::Null).await }
    });
    let first = tokio::time::timeout(Duration::from_millis(20), stream.next()).await;
    assert!(first.is_err());
    eventually("both are in flight", || bus.pending_count() == Some(2)).await;
    let (first, second) = tokio::join!(bus.stop(), bus.stop());
    assert_eq!(first.expect("stops"), second.expect("stops"));
    let ends = [
        waiting.await.expect("no panic").map(drop),
        stream.next().await.expect("an end").map(drop),
    ];
    for end in ends {
        let error = assert_kind(end, ErrorCode::TransportError);
        assert_eq!(error.to_string(), "bus is shutting down");
    }
    assert!(stream.next().await.is_none());
    assert_eq!(bus.state(), BusState::Stopped);
    if let Some(host) = &setup.host {
        eventually("the host lets go", || host.pending_count() == Some(0)).await;
    }
    setup.finish().await;
}

async fn a_drain_lets_what_is_in_flight_end(over: Over) {
    let setup = over.start(&[zoo_pool(&["echo"])]).await;
    let bus = setup.bus.clone();
    let waiting = tokio::spawn({
        let bus = bus.clone();
        async move { bus.request("sleep", json!({"ms": 300})).await }
    });
    eventually("it is in flight", || bus.pending_count() == Some(1)).await;
    let drain = tokio::spawn({
        let bus = bus.clone();
        async move { bus.drain(Duration::from_secs(20)).await }
    });
    let mut states = bus.state_changes();
    states.reached(BusState::Stopping).await;
    assert_kind(bus.request("echo", 1).await, ErrorCode::TransportError);
    waiting.await.expect("no panic").expect("answered");
    soon("the drain", drain)
        .await
        .expect("no panic")
        .expect("drained");
    assert_eq!(bus.state(), BusState::Stopped);
    setup.finish().await;

    let setup = over.start(&[zoo_pool(&["echo"])]).await;
    let held = setup.bus.request(HOLD, Value::Null);
    let (held, drained) = tokio::join!(held, setup.bus.drain(Duration::from_millis(100)));
    assert_kind(held, ErrorCode::TransportError);
    drained.expect("drained");
    setup.finish().await;
}

async fn a_drain_of_what_is_idle_ends_at_once(over: Over) {
    let setup = over.start(&[zoo_pool(&["echo"])]).await;
    let began = Instant::now();
    setup.bus.drain(BOUND).await.expect("drained");
    assert!(began.elapsed() < BOUND / 2, "{:?}", began.elapsed());
    setup.finish().await;
}

async fn a_stop_cuts_a_drain_short(over: Over) {
    let setup = over.start(&[zoo_pool(&["echo"])]).await;
    let bus = &setup.bus;
    let held = bus.try_request_with(HOLD, Value::Null, forever());
    let mut held = held.expect("there is room");
    let began = Instant::now();
    begin(bus.drain(BOUND));
    bus.state_changes().reached(BusState::Stopping).await;
    assert!(poll_once(&mut held).is_pending());
    bus.stop_with_timeout(Duration::ZERO).await.expect("stops");
    assert_shutting_down(&held.await.expect_err("an end"));
    assert!(began.elapsed() < BOUND / 2, "{:?}", began.elapsed());
    setup.finish().await;
}

async fn states_go_one_way(over: Over) {
    let setup = over
        .build_with(&[zoo_pool(&["echo"])], |builder| builder)
        .await;
    let bus = &setup.bus;
    let mut states = bus.state_changes();
    assert_eq!(bus.state(), BusState::Created);
    assert_kind(bus.request("echo", 1).await, ErrorCode::InvalidState);
    bus.start().await.expect("starts");
    assert!(bus.is_running());
    assert_kind(bus.start().await, ErrorCode::InvalidState);
    bus.stop().await.expect("stops");
    assert_kind(bus.start().await, ErrorCode::InvalidState);
    assert_kind(bus.request("echo", 1).await, ErrorCode::InvalidState);
    bus.stop().await.expect("stops again");
    assert_eq!(states.reached(BusState::Stopped).await, BusState::Stopped);
    setup.finish().await;
}

async fn a_drop_ends_the_workers(over: Over) {
    let setup = over.start(&[zoo_pool(&["echo"])]).await;
    let pid = setup
        .bus
        .request("pid", Value::Null)
        .await
        .expect("answered");
    let pid = u32::try_from(pid.as_u64().expect("a pid")).expect("a pid");
    drop(setup);
    eventually("the worker is gone", || !exists(pid)).await;
}

async fn the_client_without_async_does_the_same(over: Over) {
    // Its own threads do the waiting: the host of a remote one runs elsewhere.
    let setup = over.start(&[zoo_pool(&["echo"])]).await;
    let address = setup
        .host
        .as_ref()
        .map(|host| host.listen_addrs().remove(0));
    let done = tokio::task::spawn_blocking(move || {
        use stdiobus::{BackendMode, RemoteOptions, SubprocessOptions};
        let builder = match address {
            Some(address) => {
                StdioBus::builder().backend(BackendMode::Remote(RemoteOptions::from(address)))
            }
            None if over == Over::Subprocess => StdioBus::builder()
                .pool(zoo_pool(&["echo"]))
                .backend(BackendMode::Subprocess)
                .subprocess(SubprocessOptions::new().binary_path(common::program())),
            None => StdioBus::builder().pool(zoo_pool(&["echo"])),
        };
        let bus = builder.build_blocking().expect("valid");
        bus.start().expect("starts");
        assert_eq!(bus.request("echo", 1).expect("answered"), 1);
        let params = json!({"texts": ["a", "b"]});
        let events = bus.stream_request("session/prompt", params);
        let events: Vec<_> = events.map(|event| event.expect("no error")).collect();
        assert_eq!(events.len(), 3);
        bus.stop().expect("stops");
    });
    soon("the blocking client", done).await.expect("no panic");
    setup.finish().await;
}

async fn what_the_backend_cannot_do_is_said(over: Over) {
    let setup = over.start(&[zoo_pool(&["echo"])]).await;
    let bus = &setup.bus;
    let backend = match over {
        Over::Native => BackendType::Native,
        Over::Subprocess => BackendType::Subprocess,
        Over::Unix | Over::Tcp => BackendType::Remote,
    };
    assert_eq!(bus.backend_type(), backend);
    assert_eq!(bus.pending_count(), Some(0));
    let counts = [bus.worker_count(), bus.client_count(), bus.session_count()];
    assert!(
        counts
            .iter()
            .all(|count| count.is_some() == over.is_native())
    );
    if !over.is_native() {
        let unsupported = ErrorCode::NotSupported;
        assert_kind(bus.workers().await, unsupported);
        assert_kind(bus.worker_stderr_tail(0, 1).await, unsupported);
        assert_kind(bus.end_session("s").await, unsupported);
        let config = stdiobus::BusConfig::new().pool(zoo_pool(&["echo"]));
        assert_kind(bus.reload(config).await, unsupported);
        assert_kind(bus.connect_io(None).await, unsupported);
    }
    assert!(bus.listen_addrs().is_empty() && bus.listen_mode().is_empty());
    setup.finish().await;
}
