//! More of what a client can rely on wherever its bus runs: where requests go, how they end, what
//! of them the worker sees.

mod common;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use common::backends::{Over, Setup};
use common::client::{
    assert_kind, assert_shutting_down, eventually, forever, poll_once, short, soon,
};
use common::peer::{Log, puppet};
use common::zoo_pool;
use serde_json::{Value, json};
use stdiobus::{
    AuditEvent, BusState, Error, ErrorCode, Event, HelloParams, Identity, Message, Overflow,
    PoolConfig, Protocol, RequestOptions, StreamEvent,
};
use tokio::sync::Notify;

over_every_backend! {
    a_request_goes_to_the_pool_or_the_agent_it_names
    requests_without_a_session_are_spread_over_the_workers
    a_request_is_of_the_clients_own_session_and_has_a_number_of_its_own
    a_notification_carries_all_that_a_request_does
    the_timeout_of_the_builder_holds_but_not_for_a_prompt
    the_timeout_of_a_stream_is_one_for_the_whole
    an_end_that_is_there_beats_the_deadline
    what_is_dropped_is_cancelled_at_the_agent_and_what_is_detached_is_not
    the_error_of_a_worker_is_whole_whatever_its_number
    a_worker_that_reads_nothing_is_too_full_for_more
    a_subscriber_has_room_for_256_notifications
    a_handler_sees_all_until_its_guard_is_dropped_and_may_panic
    what_workers_ask_is_handled_at_the_same_time
    a_hello_says_what_is_offered_and_what_is_required
    a_stream_that_is_not_read_ends_alone_at_its_cap
    who_does_not_keep_up_is_told_of_and_workers_only_here
    the_last_lines_of_stderr_can_be_asked_for
    workers_of_this_process_are_for_a_bus_in_it
    a_drain_lets_what_is_open_be_answered_and_takes_nothing_new
}

/// A pool of puppets whose every line is in the log.
fn logged(protocol: Protocol, log: &Log) -> PoolConfig {
    let (command, path) = (puppet(), log.path());
    let text = |path: &std::path::Path| path.to_str().expect("a path in text").to_owned();
    PoolConfig::new("puppets", text(&command))
        .args(["log".to_owned(), text(&path)])
        .protocol(protocol)
}

fn named(id: &str) -> PoolConfig {
    let mut pool = zoo_pool(&["echo"]).env("ZOO_POOL", id);
    pool.id = id.into();
    pool
}

async fn the_pool_of(setup: &Setup, options: RequestOptions) -> Result<Value, Error> {
    let params = json!({"name": "ZOO_POOL"});
    setup.bus.request_with("env", params, options).await
}

async fn a_request_goes_to_the_pool_or_the_agent_it_names(over: Over) {
    let setup = over.start(&[named("one"), named("two")]).await;
    let options = RequestOptions::new;
    for pool in ["one", "two", "one"] {
        let by_pool = the_pool_of(&setup, options().pool(pool).session_id("s")).await;
        assert_eq!(by_pool.expect("answered"), pool);
        let by_agent = the_pool_of(&setup, options().agent_id(pool).unpinned()).await;
        assert_eq!(by_agent.expect("answered"), pool);
    }
    let no_session = options().unpinned();
    let neither = the_pool_of(&setup, no_session).await;
    let error = assert_kind(neither, ErrorCode::InvalidArgument);
    assert_eq!(error.rpc_code(), Some(-32010), "{error:?}");
    let text = format!("{error} {:?}", error.rpc_data());
    assert!(text.contains("one") && text.contains("two"), "{text}");
    assert!(!error.is_retryable());
    let both = options().unpinned().session_id("s");
    assert_kind(the_pool_of(&setup, both).await, ErrorCode::InvalidArgument);
    setup.finish().await;
}

async fn requests_without_a_session_are_spread_over_the_workers(over: Over) {
    let setup = over.start(&[zoo_pool(&["echo"]).instances(2)]).await;
    let pid = async |options: RequestOptions| {
        let pid = setup.bus.request_with("pid", Value::Null, options).await;
        pid.expect("answered").as_u64().expect("a pid")
    };
    let (mut own, mut spread) = (BTreeSet::new(), BTreeSet::new());
    for _ in 0..10 {
        own.insert(pid(RequestOptions::new()).await);
    }
    for _ in 0..10 {
        spread.insert(pid(RequestOptions::new().unpinned()).await);
    }
    assert_eq!((own.len(), spread.len()), (1, 2));
    setup.finish().await;
}

async fn a_request_is_of_the_clients_own_session_and_has_a_number_of_its_own(over: Over) {
    let log = Log::new();
    let setup = over.start(&[logged(Protocol::Ndjson, &log)]).await;
    let bus = &setup.bus;
    let message = bus.request("message", ()).await.expect("answered");
    assert_eq!(message["sessionId"], bus.client_session_id());
    let unpinned = RequestOptions::new().unpinned();
    let message = bus.request_with("message", (), unpinned).await;
    assert_eq!(message.expect("answered").get("sessionId"), None);
    let askers = (0..8).map(|_| {
        let bus = bus.clone();
        tokio::spawn(async move {
            let mut ids = Vec::new();
            for _ in 0..50 {
                let request = bus.request("echo", ());
                ids.push(request.id());
                request.await.expect("answered");
            }
            ids
        })
    });
    let mut ids = BTreeSet::new();
    for asker in askers.collect::<Vec<_>>() {
        ids.extend(asker.await.expect("no panic"));
    }
    assert_eq!(ids.len(), 400);
    setup.finish().await;
}

async fn a_notification_carries_all_that_a_request_does(over: Over) {
    let log = Log::new();
    let setup = over.start(&[logged(Protocol::Ndjson, &log)]).await;
    let bus = &setup.bus;
    let options = RequestOptions::new()
        .session_id("s")
        .pool("puppets")
        .agent_id("me")
        .identity(Identity::new("u1", "admin"))
        .audit(AuditEvent::new("e1", "read"))
        .idempotency_key("once")
        .extensions([("trace", json!({"id": 7}))]);
    let sent = bus.notify_with("told", json!({"n": 1}), options).await;
    sent.expect("accepted");
    let own = bus.client_session_id();
    let raw = json!({"jsonrpc": "2.0", "method": "raw", "sessionId": own, "x": [1]});
    bus.send(&raw.to_string()).await.expect("accepted");
    bus.request("echo", ()).await.expect("answered");
    let told = log.wait("it", |seen| seen.is("told")).json();
    assert_eq!(told["sessionId"], "s", "{told}");
    assert_eq!(told["agentId"], "me", "{told}");
    assert_eq!(told["params"], json!({"n": 1}));
    assert_eq!(told.get("id"), None);
    let ext = json!({
        "identity": {"subjectId": "u1", "role": "admin", "assertedBy": "self"},
        "audit": {"eventId": "e1", "action": "read"},
        "idempotencyKey": "once",
        "trace": {"id": 7},
    });
    assert_eq!(told["_ext"], ext);
    let seen = log.wait("the raw one", |seen| seen.is("raw")).json();
    assert_eq!(seen["x"], json!([1]));
    setup.finish().await;
}

async fn the_timeout_of_the_builder_holds_but_not_for_a_prompt(over: Over) {
    let setup = over
        .start_with(&[zoo_pool(&["echo"])], |builder| {
            builder.timeout(Duration::from_millis(100))
        })
        .await;
    let bus = &setup.bus;
    let error = assert_kind(bus.request("hold", ()).await, ErrorCode::Timeout);
    assert!(error.is_retryable());
    let held = bus.stream_request("hold", ()).next().await;
    assert_kind(held.expect("an end"), ErrorCode::Timeout);
    let patient = bus.request_with("sleep", json!({"ms": 300}), forever());
    patient.await.expect("answered");
    let turn = json!({"texts": ["a", "b"], "ms": 200});
    let prompt = bus.request("session/prompt", &turn).await;
    assert_eq!(prompt.expect("it has no limit")["text"], "ab");
    let prompt = bus.request_with("session/prompt", &turn, short()).await;
    assert_kind(prompt, ErrorCode::Timeout);
    eventually("it is given up", || bus.pending_count() == Some(0)).await;
    setup.finish().await;
}

async fn the_timeout_of_a_stream_is_one_for_the_whole(over: Over) {
    let setup = over.start(&[zoo_pool(&["echo"])]).await;
    let options = RequestOptions::new().timeout(Duration::from_millis(300));
    let params = json!({"n": 1000, "size": 1, "ms": 20});
    let start = Instant::now();
    let mut stream = setup
        .bus
        .stream_request_with("session/prompt", params, options);
    let mut chunks = 0;
    let end = loop {
        match soon("an event", stream.next()).await.expect("an end") {
            Ok(StreamEvent::Chunk(_)) => chunks += 1,
            end => break end,
        }
    };
    assert_kind(end, ErrorCode::Timeout);
    assert!(start.elapsed() >= Duration::from_millis(300));
    // A limit for each would never have been reached.
    assert!((1..100).contains(&chunks), "{chunks}");
    assert!(stream.next().await.is_none());
    eventually("it is given up", || setup.bus.pending_count() == Some(0)).await;
    setup.finish().await;
}

async fn an_end_that_is_there_beats_the_deadline(over: Over) {
    let log = Log::new();
    let setup = over.start(&[logged(Protocol::Ndjson, &log)]).await;
    let bus = &setup.bus;
    let limit = Duration::from_millis(500);
    let options = |session: &str| {
        let options = RequestOptions::new().session_id(session);
        options.timeout(limit)
    };
    let error = r#"{"jsonrpc":"2.0","id":$ID,"error":{"code":-7,"message":"no"}}"#;
    let fails = json!({"play": [error]});
    let mut stream = bus.stream_request_with("m", &fails, options("1"));
    // The first look sends it; the answer may be as fast as that.
    let early = poll_once(stream.next());
    let failed = bus.try_request_with("m", &fails, options("2"));
    let answered = bus.try_request_with("m", json!([1]), options("3"));
    let start = Instant::now();
    eventually("all have ended", || bus.pending_count() == Some(0)).await;
    assert!(start.elapsed() < limit, "too slow to tell");
    // Nobody looks until the deadline is over.
    tokio::time::sleep(limit).await;
    let end = match early {
        Poll::Ready(end) => end,
        Poll::Pending => stream.next().await,
    };
    let end = end.expect("an end").map(drop);
    let failed = failed.expect("room").await.map(drop);
    for end in [end, failed] {
        let error = end.expect_err("what the worker said");
        assert!(matches!(error, Error::Rpc { code: -7, .. }), "{error:?}");
    }
    assert_eq!(answered.expect("room").await.expect("answered"), json!([1]));
    setup.finish().await;
}

async fn what_is_dropped_is_cancelled_at_the_agent_and_what_is_detached_is_not(over: Over) {
    let log = Log::new();
    let setup = over.start(&[logged(Protocol::Acp, &log)]).await;
    let bus = &setup.bus;
    let hello = json!({"protocolVersion": 1, "clientCapabilities": {}});
    bus.request("initialize", hello).await.expect("a handshake");
    let mut sessions = Vec::new();
    for _ in 0..3 {
        let new = json!({"cwd": "/", "mcpServers": []});
        let new = bus.request("session/new", new).await.expect("a session");
        sessions.push(new["sessionId"].clone());
    }
    let held = |i: usize| json!({"sessionId": sessions[i], "play": []});
    let prompts = || log.with_method("session/prompt").len();
    bus.request("session/prompt", held(0))
        .detach()
        .expect("sent");
    eventually("the first is there", || prompts() == 1).await;
    let request = bus.try_request("session/prompt", held(1)).expect("room");
    eventually("the second is there", || prompts() == 2).await;
    drop(request);
    let mut stream = bus.stream_request("session/prompt", held(2));
    assert!(poll_once(stream.next()).is_pending());
    eventually("the third is there", || prompts() == 3).await;
    drop(stream);
    log.wait_for(2, "both cancels", |seen| seen.is("session/cancel"));
    let other = bus.try_request("session/list", json!({"play": []}));
    log.wait("another", |seen| seen.is("session/list"));
    drop(other.expect("room"));
    log.wait("its cancel", |seen| seen.is("$/cancel_request"));
    let cancelled: Vec<_> = log
        .with_method("session/cancel")
        .iter()
        .map(|seen| seen.json()["params"]["sessionId"].clone())
        .collect();
    assert_eq!(cancelled, sessions[1..]);
    assert_eq!(bus.pending_count(), Some(1), "the detached one goes on");
    bus.stop_with_timeout(Duration::ZERO).await.expect("stops");
    if let Some(host) = &setup.host {
        eventually("the host lets go", || host.pending_count() == Some(0)).await;
        host.stop_with_timeout(Duration::ZERO).await.expect("stops");
    }
}

async fn the_error_of_a_worker_is_whole_whatever_its_number(over: Over) {
    let log = Log::new();
    let setup = over.start(&[logged(Protocol::Ndjson, &log)]).await;
    let bus = &setup.bus;
    let own = [
        -32700, -32600, -32601, -32602, -32603, -32010, -32011, -32012, -32013, -32014,
    ];
    // Those of the kinds of a client, none, and the longest.
    let others = (0..=10).chain([99, -1, i64::MIN, i64::MAX]);
    for number in own.into_iter().chain(others) {
        let data = json!({"reason": "overloaded", "n": [number]});
        let error = json!({"code": number, "message": "bus is shutting down", "data": data});
        let line = format!(r#"{{"jsonrpc":"2.0","id":$ID,"error":{error}}}"#);
        let result = bus.request("m", json!({"play": [line]})).await;
        let error = result.expect_err("an error");
        assert!(!error.is_retryable() && error.kind().is_none());
        assert!(error.exit().is_none());
        match error {
            Error::Rpc {
                code,
                message,
                data: got,
                ..
            } => {
                assert_eq!((code, message.as_str()), (number, "bus is shutting down"));
                assert_eq!(got, Some(data));
            }
            other => panic!("{other:?}"),
        }
    }
    setup.finish().await;
}

async fn a_worker_that_reads_nothing_is_too_full_for_more(over: Over) {
    let setup = over.start(&[zoo_pool(&["deaf"])]).await;
    let bus = &setup.bus;
    // Three of these are more than one client may have waiting there.
    let large = json!(["x".repeat(9 << 20)]);
    let two = [(); 2].map(|()| bus.try_request("echo", &large).expect("room"));
    let third = soon("the refusal", bus.request("echo", &large)).await;
    let error = assert_kind(third, ErrorCode::ResourceExhausted);
    assert_eq!(error.rpc_code(), Some(-32012), "{error:?}");
    assert!(error.is_retryable());
    drop(two);
    bus.stop_with_timeout(Duration::ZERO).await.expect("stops");
    if let Some(host) = &setup.host {
        host.stop_with_timeout(Duration::ZERO).await.expect("stops");
    }
}

async fn a_subscriber_has_room_for_256_notifications(over: Over) {
    let setup = over.start(&[zoo_pool(&["echo"])]).await;
    let bus = &setup.bus;
    let mut notes = bus.subscribe_notifications();
    bus.request("notify", json!({"n": 300}))
        .await
        .expect("answered");
    eventually("the newest are lost", || notes.lagged() == 44).await;
    for i in 0..256 {
        let note = soon("a notification", notes.next()).await.expect("there");
        assert_eq!(note.params()["i"], i);
    }
    assert!(notes.try_next().is_none());
    // It goes on where there is room again.
    bus.request("notify", json!({"n": 1}))
        .await
        .expect("answered");
    soon("a notification", notes.next()).await.expect("there");
    setup.finish().await;
}

async fn a_handler_sees_all_until_its_guard_is_dropped_and_may_panic(over: Over) {
    let setup = over.start(&[zoo_pool(&["echo"])]).await;
    let bus = &setup.bus;
    let (requests, notes) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (seen_requests, seen_notes) = (Arc::clone(&requests), Arc::clone(&notes));
    let guard = bus.on_message(move |message| match message {
        Message::Request(_) => drop(seen_requests.fetch_add(1, Ordering::SeqCst)),
        _ => {
            let before = seen_notes.fetch_add(1, Ordering::SeqCst);
            assert!(before > 0, "the first one");
        }
    });
    let session = bus.client_session_id().to_owned();
    let provoke = async || {
        let params = json!({"n": 3, "sessionId": session});
        bus.request("notify", params).await.expect("answered");
        let ask = json!({"sessionId": session});
        bus.request("ask", ask).await.expect("answered");
    };
    provoke().await;
    let counts = || {
        (
            notes.load(Ordering::SeqCst),
            requests.load(Ordering::SeqCst),
        )
    };
    eventually("all are seen", || counts() == (3, 1)).await;
    let mut after = bus.subscribe_notifications();
    drop(guard.expect("registered"));
    provoke().await;
    for _ in 0..3 {
        soon("one who still listens", after.next()).await;
    }
    assert!(bus.is_running());
    setup.finish().await;
    assert_eq!(
        (
            notes.load(Ordering::SeqCst),
            requests.load(Ordering::SeqCst)
        ),
        (3, 1)
    );
}

async fn what_workers_ask_is_handled_at_the_same_time(over: Over) {
    let second_came = Arc::new(Notify::new());
    let setup = over
        .start_with(&[zoo_pool(&["echo"])], |builder| {
            builder.on_request(move |request| {
                let bell = Arc::clone(&second_came);
                async move {
                    match request.method() {
                        "first" => bell.notified().await,
                        _ => bell.notify_one(),
                    }
                    Ok(json!(request.method()))
                }
            })
        })
        .await;
    let bus = &setup.bus;
    let session = bus.client_session_id();
    let ask = |method: &str, id: u8| json!({"method": method, "id": id, "sessionId": session});
    // The first is answered only when the second has been asked.
    let first = bus.try_request("ask", ask("first", 1)).expect("room");
    let second = soon("the second", bus.request("ask", ask("second", 2))).await;
    assert_eq!(second.expect("answered"), "second");
    assert_eq!(soon("the first", first).await.expect("answered"), "first");
    setup.finish().await;
}

async fn a_hello_says_what_is_offered_and_what_is_required(over: Over) {
    let log = Log::new();
    let setup = over
        .build_with(&[logged(Protocol::Ndjson, &log)], |builder| builder)
        .await;
    let bus = &setup.bus;
    assert_eq!(bus.agent_session_id(), None);
    let params = HelloParams::new()
        .require("audit", "1.0")
        .offer("trace", "2");
    let hello = bus.connect(params).await.expect("agreed");
    assert!(bus.is_running());
    let said = log
        .wait("the hello", |seen| seen.is("stdio_bus/hello"))
        .json();
    let wanted = json!({
        "protocolVersion": "0.1.0",
        "extensions": {
            "audit": {"version": "1.0", "required": true},
            "trace": {"version": "2", "required": false},
        },
    });
    assert_eq!(said["params"], wanted);
    assert_eq!(said["sessionId"], bus.client_session_id());
    assert_eq!(hello.negotiated_protocol_version.as_deref(), Some("0.1.0"));
    assert_eq!(hello.session_id.as_deref(), Some("agents"));
    assert_eq!(bus.agent_session_id().as_deref(), Some("agents"));
    for version in ["off", "absent"] {
        let refused = bus
            .hello(HelloParams::new().require("trace", version))
            .await;
        let error = assert_kind(refused, ErrorCode::NegotiationFailed);
        assert!(error.to_string().contains("\"trace\""), "{error}");
    }
    setup.finish().await;
}

async fn a_stream_that_is_not_read_ends_alone_at_its_cap(over: Over) {
    let setup = over.start(&[zoo_pool(&["echo"])]).await;
    let bus = &setup.bus;
    let turn = |session: &str| json!({"sessionId": session, "n": 300, "size": 1000});
    let options = RequestOptions::new().session_id("stuck");
    let options = options.max_waiting(50_000);
    let mut stuck = bus.stream_request_with("session/prompt", turn("stuck"), options);
    assert!(poll_once(stuck.next()).is_pending());
    let options = RequestOptions::new().session_id("read");
    let mut read = bus.stream_request_with("session/prompt", turn("read"), options);
    let mut chunks = 0;
    while let Some(event) = soon("an event", read.next()).await {
        chunks += usize::from(matches!(event.expect("no error"), StreamEvent::Chunk(_)));
    }
    assert_eq!(chunks, 300);
    eventually("the other is given up", || bus.pending_count() == Some(0)).await;
    let mut chunks = 0;
    let end = loop {
        match stuck.next().await.expect("an end") {
            Ok(StreamEvent::Chunk(_)) => chunks += 1,
            end => break end,
        }
    };
    let error = assert_kind(end, ErrorCode::ResourceExhausted);
    assert!(
        error.is_retryable() && (10..100).contains(&chunks),
        "{chunks}"
    );
    setup.finish().await;
}

async fn who_does_not_keep_up_is_told_of_and_workers_only_here(over: Over) {
    let setup = over
        .build_with(&[zoo_pool(&["echo"])], |builder| builder)
        .await;
    let bus = &setup.bus;
    let mut events = bus.events();
    let _stuck = bus.subscribe_notifications();
    bus.start().await.expect("starts");
    let provoked = bus.request("notify", json!({"n": 300})).await;
    provoked.expect("answered");
    bus.stop().await.expect("stops");
    let (mut overflows, mut others) = (0, 0);
    while let Some(event) = soon("an event", events.next()).await {
        match event {
            Event::Overflow(overflow) => {
                assert_eq!(overflow, Overflow::Subscriber);
                overflows += 1;
            }
            _ => others += 1,
        }
    }
    assert_eq!(overflows, 1);
    assert_eq!(others > 0, over.is_native());
    setup.finish().await;
}

async fn the_last_lines_of_stderr_can_be_asked_for(over: Over) {
    let setup = over.start(&[zoo_pool(&["chatty"])]).await;
    let bus = &setup.bus;
    bus.request("echo", ()).await.expect("answered");
    if over.is_native() || over == Over::Subprocess {
        let mut tail = bus.stderr_tail(1000).await.expect("kept");
        let start = Instant::now();
        while tail.len() < 200 {
            assert!(start.elapsed() < common::BOUND, "{} lines", tail.len());
            tail = bus.stderr_tail(1000).await.expect("kept");
        }
        assert_eq!(tail.len(), 200);
        assert_eq!(bus.stderr_tail(3).await.expect("kept").len(), 3);
        assert_eq!(bus.stderr_tail(0).await.expect("kept").len(), 0);
        bus.stop().await.expect("stops");
        assert_eq!(bus.stderr_tail(1000).await.expect("kept").len(), 200);
    } else {
        assert_kind(bus.stderr_tail(1).await, ErrorCode::NotSupported);
    }
    setup.finish().await;
}

async fn workers_of_this_process_are_for_a_bus_in_it(over: Over) {
    let setup = over.start(&[zoo_pool(&["echo"])]).await;
    let bus = &setup.bus;
    if over.is_native() {
        assert_eq!(bus.pools().await.expect("known").len(), 1);
        let service = |_| async { Ok(json!(1)) };
        let worker = bus.register_worker("zoo", service).await;
        drop(worker.expect("registered"));
    } else {
        assert_kind(bus.pools().await, ErrorCode::NotSupported);
        let service = |_| async { Ok(json!(1)) };
        let refused = bus.register_worker("zoo", service).await;
        assert_kind(refused, ErrorCode::NotSupported);
    }
    setup.finish().await;
}

async fn a_drain_lets_what_is_open_be_answered_and_takes_nothing_new(over: Over) {
    let gate = Arc::new(Notify::new());
    let opened = Arc::clone(&gate);
    let setup = over
        .start_with(&[zoo_pool(&["echo"])], |builder| {
            builder.on_request(move |_| {
                let opened = Arc::clone(&opened);
                async move {
                    opened.notified().await;
                    Ok(json!("allowed"))
                }
            })
        })
        .await;
    let bus = &setup.bus;
    let ask = json!({"sessionId": bus.client_session_id()});
    let mut asked = bus.try_request("ask", ask).expect("room");
    let turn = json!({"sessionId": "s", "texts": ["a", "b"], "ms": 200});
    let options = RequestOptions::new().session_id("s");
    let mut stream = bus.stream_request_with("session/prompt", turn, options);
    let first = soon("a chunk", stream.next()).await.expect("a chunk");
    assert!(matches!(first, Ok(StreamEvent::Chunk(text)) if text == "a"));
    assert!(poll_once(&mut asked).is_pending());
    let drain = bus.drain(Duration::from_secs(20));
    let others = async {
        bus.state_changes().reached(BusState::Stopping).await;
        let refused = [
            bus.request("echo", ()).await.map(drop),
            bus.try_request("echo", ()).map(drop),
            bus.notify("note", ()).await,
        ];
        for refused in refused {
            assert_shutting_down(&refused.expect_err("too late"));
        }
        gate.notify_one();
        assert_eq!(asked.await.expect("answered"), "allowed");
        let mut last = None;
        while let Some(event) = stream.next().await {
            last = Some(event.expect("no error"));
        }
        let Some(StreamEvent::Result(result)) = last else {
            panic!("{last:?}");
        };
        assert_eq!(result["text"], "ab");
    };
    let (drained, ()) = soon("all", async { tokio::join!(drain, others) }).await;
    drained.expect("drained");
    assert_eq!(bus.state(), BusState::Stopped);
    setup.finish().await;
}
