//! Workers that live in this process.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::client::{assert_kind, eventually, soon};
use common::{Client, TempDir, alone, alone_async, open_tokios_sockets, zoo_pool};
use serde_json::{Value, json};
use stdiobus::{
    Error, ErrorCode, ListenMode, PoolConfig, Protocol, RequestOptions, Result, RpcError,
    ServiceCall, StdioBus, StdioBusBuilder, StreamEvent, WorkerGuard,
};
use tokio::sync::{Notify, Semaphore};

/// A running bus whose pool has no worker.
async fn empty_pool(builder: StdioBusBuilder) -> StdioBus {
    let bus = builder.build().expect("valid");
    bus.start().await.expect("starts");
    assert_eq!(bus.worker_count(), Some(0));
    bus
}

fn builder() -> StdioBusBuilder {
    StdioBus::builder().pool(PoolConfig::in_process("here"))
}

async fn echo(call: ServiceCall) -> std::result::Result<Value, RpcError> {
    match call.method() {
        "fail" => Err(RpcError::new(-32050, "no").with_data(1)),
        "panic" => panic!("as asked"),
        "hold" => std::future::pending().await,
        _ => Ok(call.params().clone()),
    }
}

async fn with_echo() -> (StdioBus, WorkerGuard) {
    let bus = empty_pool(builder()).await;
    let worker = bus.register_worker("here", echo).await.expect("registered");
    (bus, worker)
}

#[test]
fn a_function_answers_like_a_worker() {
    alone_async(|| async {
        let (bus, worker) = with_echo().await;
        let params = json!({"a": [1, "ü\n"]});
        let answer = bus.request("echo", &params).await;
        assert_eq!(answer.expect("answered"), params);
        match bus.request("fail", ()).await.expect_err("an error") {
            Error::Rpc { code, data, .. } => assert_eq!((code, data), (-32050, Some(json!(1)))),
            other => panic!("{other:?}"),
        }
        let info = &bus.workers().await.expect("known")[worker.id()];
        assert_eq!((info.pool.as_str(), info.pid), ("here", None));
        assert_eq!(bus.worker_count(), Some(1));
        bus.stop().await.expect("stops");
    });
}

#[test]
fn large_messages_and_many_at_once_come_back_whole() {
    alone_async(|| async {
        let (bus, _worker) = with_echo().await;
        let large = json!("x".repeat(5 << 20));
        let answer = bus.request("echo", json!([large])).await;
        assert!(answer.expect("answered") == json!([large]));
        let sent: Vec<_> = (0..3000)
            .map(|i| tokio::spawn(bus.request("echo", json!([i, "y".repeat(500)]))))
            .collect();
        for (i, request) in sent.into_iter().enumerate() {
            let answer = soon("an answer", request).await.expect("no panic");
            assert_eq!(answer.expect("answered")[0], i);
        }
        bus.stop().await.expect("stops");
    });
}

#[test]
fn clients_on_sockets_are_served_as_well() {
    alone_async(|| async {
        let dir = TempDir::new();
        let path = dir.path("bus.sock");
        let bus = empty_pool(builder().listen(ListenMode::unix(&path))).await;
        let _worker = bus.register_worker("here", echo).await.expect("registered");
        let asks = tokio::task::spawn_blocking(move || {
            Client::unix(&path).ask(r#"{"jsonrpc":"2.0","id":"mine","method":"m","params":[7]}"#)
        });
        let answer = soon("the answer", asks).await.expect("no panic");
        assert_eq!(
            answer,
            json!({"jsonrpc": "2.0", "id": "mine", "result": [7]})
        );
        bus.stop().await.expect("stops");
    });
}

#[test]
fn a_panic_is_an_error_for_its_caller_and_nobody_else() {
    alone_async(|| async {
        let (bus, _worker) = with_echo().await;
        let error = bus.request("panic", ()).await.expect_err("an error");
        assert_eq!(error.rpc_code(), Some(-32603));
        let answer = bus.request("echo", [1]).await;
        assert_eq!(answer.expect("answered"), json!([1]));
        bus.stop().await.expect("stops");
    });
}

#[test]
fn what_a_worker_had_not_answered_ends_when_it_is_taken_out() {
    alone_async(|| async {
        let (bus, worker) = with_echo().await;
        let held = bus.try_request("hold", ()).expect("sent");
        drop(worker);
        assert_kind(soon("an end", held).await, ErrorCode::TransportError);
        eventually("it is gone", || bus.worker_count() == Some(0)).await;

        let again = bus.register_worker("here", echo).await.expect("registered");
        let answer = bus.request("echo", [1]).await;
        assert_eq!(answer.expect("answered"), json!([1]));
        again.keep();
        let answer = bus.request("echo", [2]).await;
        assert_eq!(answer.expect("answered"), json!([2]));
        bus.stop().await.expect("stops");
    });
}

#[test]
fn the_guard_of_a_worker_that_is_gone_takes_out_nobody_else() {
    alone_async(|| async {
        let bus = empty_pool(builder()).await;
        let stays = PoolConfig::in_process("here");
        let first = bus.register_worker("here", echo).await.expect("registered");
        // Another configuration of the pool retires the first.
        let config = stdiobus::BusConfig::new().pool(stays.env("A", "1"));
        bus.reload(config).await.expect("taken");
        eventually("the first is gone", || bus.worker_count() == Some(0)).await;
        assert_kind(bus.request("echo", ()).await, ErrorCode::TransportError);
        let mut others = Vec::new();
        for _ in 0..3 {
            others.push(bus.register_worker("here", echo).await.expect("registered"));
        }
        let same = others.iter().any(|other| other.id() == first.id());
        assert!(same, "its number is used again");
        drop(first);
        assert_eq!(bus.stats().await.expect("counted").pending, 0);
        assert_eq!(bus.worker_count(), Some(3));
        bus.stop().await.expect("stops");
    });
}

#[test]
fn calls_run_at_the_same_time() {
    alone_async(|| async {
        let bus = empty_pool(builder()).await;
        let (go, waiting) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
        let (gone, counted) = (Arc::clone(&go), Arc::clone(&waiting));
        let service = move |call: ServiceCall| {
            let (go, waiting) = (Arc::clone(&gone), Arc::clone(&counted));
            async move {
                if call.method() == "wait" {
                    waiting.fetch_add(1, Ordering::SeqCst);
                    go.acquire().await.expect("open").forget();
                }
                Ok(json!(call.method()))
            }
        };
        let _worker = bus
            .register_worker("here", service)
            .await
            .expect("registered");
        let waits: Vec<_> = (0..50)
            .map(|_| bus.try_request("wait", ()).expect("sent"))
            .collect();
        eventually("all run", || waiting.load(Ordering::SeqCst) == 50).await;
        assert_eq!(bus.request("other", ()).await.expect("answered"), "other");
        go.add_permits(waits.len());
        for request in waits {
            soon("an answer", request).await.expect("answered");
        }
        bus.stop().await.expect("stops");
    });
}

#[test]
fn no_more_than_so_many_calls_run_at_once() {
    const MOST: usize = 1024;
    alone_async(|| async {
        let bus = empty_pool(builder()).await;
        let go = Arc::new(Semaphore::new(0));
        let (running, peak) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let counters = (Arc::clone(&go), Arc::clone(&running), Arc::clone(&peak));
        let service = move |_| {
            let (go, running, peak) = counters.clone();
            async move {
                let now = running.fetch_add(1, Ordering::SeqCst) + 1;
                peak.fetch_max(now, Ordering::SeqCst);
                go.acquire().await.expect("open").forget();
                running.fetch_sub(1, Ordering::SeqCst);
                Ok(Value::Null)
            }
        };
        let _worker = bus
            .register_worker("here", service)
            .await
            .expect("registered");
        let requests: Vec<_> = (0..2 * MOST)
            .map(|_| bus.try_request("wait", ()).expect("sent"))
            .collect();
        eventually("as many as may", || running.load(Ordering::SeqCst) == MOST).await;
        go.add_permits(requests.len());
        for request in requests {
            soon("an answer", request).await.expect("answered");
        }
        assert_eq!(peak.load(Ordering::SeqCst), MOST);
        bus.stop().await.expect("stops");
    });
}

#[test]
fn what_runs_is_dropped_when_the_bus_ends_however_much_it_is() {
    alone_async(|| async {
        for calls in [1, 3000] {
            let bus = empty_pool(builder()).await;
            let held = Arc::new(AtomicUsize::new(0));
            let hold = Arc::clone(&held);
            let service = move |_| {
                let hold = Arc::clone(&hold);
                async move {
                    hold.fetch_add(1, Ordering::SeqCst);
                    std::future::pending().await
                }
            };
            let worker = bus
                .register_worker("here", service)
                .await
                .expect("registered");
            let requests: Vec<_> = (0..calls)
                .map(|_| bus.try_request("wait", ()).expect("sent"))
                .collect();
            let most = calls.min(1024);
            eventually("they run", || held.load(Ordering::SeqCst) == most).await;
            bus.stop().await.expect("stops");
            eventually("they are dropped", || Arc::strong_count(&held) == 1).await;
            for request in requests {
                assert_kind(request.await, ErrorCode::TransportError);
            }
            drop(worker);
        }
    });
}

#[test]
fn a_service_streams_and_hears_notifications() {
    alone_async(|| async {
        let bus = empty_pool(builder()).await;
        let heard = Arc::new(Notify::new());
        let tell = Arc::clone(&heard);
        let service = move |call: ServiceCall| {
            let tell = Arc::clone(&tell);
            async move {
                if call.id().is_none() {
                    assert_eq!(call.method(), "note");
                    tell.notify_one();
                    return Ok(Value::Null);
                }
                for text in ["a", "b"] {
                    let content = json!({"type": "text", "text": text});
                    let update =
                        json!({"sessionUpdate": "agent_message_chunk", "content": content});
                    let params = json!({"sessionId": call.session_id(), "update": update});
                    call.notify("session/update", params).await?;
                }
                Ok(json!({"stopReason": "end_turn"}))
            }
        };
        let _worker = bus
            .register_worker("here", service)
            .await
            .expect("registered");
        let mut stream = bus.stream_request("session/prompt", json!({}));
        let mut chunks = Vec::new();
        let result = loop {
            match stream.next().await.expect("a piece").expect("all is well") {
                StreamEvent::Chunk(text) => chunks.push(text),
                StreamEvent::Result(result) => break result,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(chunks, ["a", "b"]);
        assert_eq!(result["text"], "ab");
        bus.notify("note", ()).await.expect("accepted");
        soon("the note", heard.notified()).await;
        bus.stop().await.expect("stops");
    });
}

#[test]
fn a_service_of_a_protocol_is_shaken_hands_with_once() {
    alone_async(|| async {
        let pool = PoolConfig::in_process("here").protocol(Protocol::Mcp);
        let bus = empty_pool(StdioBus::builder().pool(pool)).await;
        let greeted = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&greeted);
        let service = move |call: ServiceCall| {
            let count = Arc::clone(&count);
            async move {
                Ok(match call.method() {
                    "initialize" => {
                        count.fetch_add(1, Ordering::SeqCst);
                        json!({
                            "protocolVersion": "2025-11-25",
                            "capabilities": {},
                            "serverInfo": {"name": "here", "version": "1"},
                        })
                    }
                    _ => call.params().clone(),
                })
            }
        };
        let _worker = bus
            .register_worker("here", service)
            .await
            .expect("registered");
        let hello = json!({"protocolVersion": "2025-11-25", "capabilities": {},
            "clientInfo": {"name": "test", "version": "1"}});
        for _ in 0..2 {
            let answer = soon("a handshake", bus.request("initialize", &hello)).await;
            assert_eq!(answer.expect("answered")["serverInfo"]["name"], "here");
        }
        let answer = bus.request("tools/call", json!({"name": "x"})).await;
        assert_eq!(answer.expect("answered")["name"], "x");
        assert_eq!(greeted.load(Ordering::SeqCst), 1);
        bus.stop().await.expect("stops");
    });
}

#[test]
fn a_service_stands_beside_processes_and_takes_its_share() {
    alone_async(|| async {
        let bus = StdioBus::builder().pool(zoo_pool(&["echo"])).build();
        let bus = bus.expect("valid");
        bus.start().await.expect("starts");
        let here = |_| async { Ok(json!("here")) };
        let _worker = bus.register_worker("zoo", here).await.expect("registered");
        let mut answers = Vec::new();
        for _ in 0..20 {
            let unpinned = RequestOptions::new().unpinned();
            let request = bus.request_with("pid", json!({}), unpinned);
            answers.push(request.await.expect("answered"));
        }
        assert!(answers.iter().any(|answer| answer == "here"), "{answers:?}");
        assert!(answers.iter().any(Value::is_number), "{answers:?}");
        bus.stop().await.expect("stops");
    });
}

#[test]
fn it_goes_where_there_is_a_pool_in_a_bus_that_runs() {
    alone_async(|| async {
        let bus = builder().build().expect("valid");
        let early = bus.register_worker("here", echo).await;
        assert_kind(early, ErrorCode::InvalidState);
        bus.start().await.expect("starts");
        let nowhere = bus.register_worker("there", echo).await;
        let error = assert_kind(nowhere, ErrorCode::InvalidArgument);
        assert!(error.to_string().contains("there"), "{error}");
        let worker: Result<_> = bus.register_worker("here", echo).await;
        let worker = worker.expect("registered");
        bus.stop_with_timeout(Duration::from_secs(20))
            .await
            .expect("stops");
        drop(worker);
        let late = bus.register_worker("here", echo).await;
        assert_kind(late, ErrorCode::InvalidState);
    });
}

#[test]
fn it_needs_no_runtime_of_the_callers() {
    open_tokios_sockets();
    alone(|| {
        let bus = builder().build_blocking().expect("valid");
        bus.start().expect("starts");
        let worker = bus.register_worker("here", echo).expect("registered");
        assert_eq!(bus.request("echo", [1]).expect("answered"), json!([1]));
        drop(worker);
        bus.stop().expect("stops");
    });
}
