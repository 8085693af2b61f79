//! What workers ask, and the handler that answers it.

mod common;

use std::future::pending;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::client::{block_on, eventually, overflows};
use common::{alone, alone_async, open_tokios_sockets, zoo_pool};
use serde_json::{Value, json};
use stdiobus::{
    LogLevel, Overflow, RequestOptions, RpcError, StdioBus, StdioBusBuilder, WorkerRef,
    WorkerRequest,
};
use tokio::sync::{Notify, watch};

fn builder() -> StdioBusBuilder {
    StdioBus::builder().pool(zoo_pool(&["echo"]))
}

async fn start(builder: StdioBusBuilder) -> StdioBus {
    let bus = builder.build().expect("valid");
    bus.start().await.expect("starts");
    bus
}

/// Answers with what it was asked.
async fn echo(request: WorkerRequest) -> Result<Value, RpcError> {
    Ok(json!({"method": request.method(), "params": request.params()}))
}

// ---- answers -----------------------------------------------------------------------------------

#[test]
fn a_worker_gets_what_the_handler_answers() {
    alone_async(|| async {
        let bus = start(builder().on_request(echo)).await;
        let ask = json!({"method": "fs/read_text_file", "params": {"path": "/a", "line": 1}});
        let answer = bus.request("ask", &ask).await.expect("answered");
        assert_eq!(answer, ask);
        let ask = json!({"method": "roots/list"});
        let answer = bus.request("ask", &ask).await.expect("answered");
        assert_eq!(answer, json!({"method": "roots/list", "params": null}));
        bus.stop().await.expect("stops");
    });
}

#[test]
fn the_error_of_a_handler_reaches_the_worker_whole() {
    alone_async(|| async {
        let bus = start(builder().on_request(|_| async {
            Err(RpcError::new(-32050, "not today").with_data(json!({"k": [1]})))
        }))
        .await;
        let answer = bus.request("ask", json!({})).await.expect("answered");
        let error = json!({"code": -32050, "message": "not today", "data": {"k": [1]}});
        assert_eq!(answer, json!({"error": error}));
        bus.stop().await.expect("stops");
    });
}

#[test]
fn the_id_of_a_worker_comes_back_byte_for_byte() {
    alone_async(|| async {
        let bus = start(builder().on_request(echo)).await;
        for id in [
            "0",
            r#""""#,
            r#""a\u0062\/\"""#,
            "1.50",
            "-0",
            "123456789012345678901234567890",
        ] {
            // A worker that doesn't know the id again never answers.
            let params = format!(r#"{{"id":{id},"method":"x"}}"#);
            let params = serde_json::value::RawValue::from_string(params).expect("JSON");
            let answer = bus.request("ask", &params).await.expect("answered");
            assert_eq!(answer["method"], "x", "{id}");
        }
        bus.stop().await.expect("stops");
    });
}

#[test]
fn a_request_says_who_asks_and_what_for() {
    type Seen = (
        Option<String>,
        Option<u64>,
        WorkerRef,
        String,
        Option<String>,
    );
    alone_async(|| async {
        let seen = Arc::new(Mutex::new(None::<Seen>));
        let see = Arc::clone(&seen);
        let bus = start(builder().on_request(move |request| {
            *see.lock().expect("no panic") = Some((
                request.session_id().map(str::to_owned),
                request.request_id(),
                request.worker().clone(),
                request.id().to_owned(),
                request.raw_params().map(str::to_owned),
            ));
            async { Ok(Value::Null) }
        }))
        .await;
        let options = RequestOptions::new().session_id("s 1");
        let asking = bus.request_with("ask", json!({"sessionId": "s 1", "id": 7}), options);
        let id = asking.id();
        assert_eq!(asking.await.expect("answered"), Value::Null);

        let seen = seen.lock().expect("no panic").take().expect("asked");
        let worker = &bus.workers().await.expect("known")[0];
        assert_eq!((seen.0.as_deref(), seen.1), (Some("s 1"), Some(id)));
        assert_eq!(
            (seen.2.id, seen.2.pool.as_str(), seen.2.generation),
            (0, "zoo", 1)
        );
        assert_eq!(seen.2.pid, worker.pid);
        assert_eq!(seen.3, "7");
        assert_eq!(seen.4.as_deref(), Some(r#"{"sessionId":"s 1"}"#));
        bus.stop().await.expect("stops");
    });
}

#[test]
fn without_a_handler_a_permission_is_cancelled_and_anything_else_unknown() {
    alone_async(|| async {
        let bus = start(builder()).await;
        let permission = json!({"method": "session/request_permission"});
        let answer = bus.request("ask", permission).await.expect("answered");
        assert_eq!(answer, json!({"outcome": {"outcome": "cancelled"}}));
        let answer = bus.request("ask", json!({})).await.expect("answered");
        assert_eq!(answer["error"]["code"], -32601);
        bus.stop().await.expect("stops");
    });
}

#[test]
fn an_answer_that_is_too_large_is_an_error_for_the_worker() {
    alone_async(|| async {
        let limits = stdiobus::LimitsConfig::new().max_input_buffer(10_000);
        let bus = start(
            builder()
                .limits(limits)
                .on_request(|_| async { Ok(json!("x".repeat(20_000))) }),
        )
        .await;
        let answer = bus.request("ask", json!({})).await.expect("answered");
        assert_eq!(answer["error"]["code"], -32603, "{answer}");
        bus.stop().await.expect("stops");
    });
}

// ---- several at once ---------------------------------------------------------------------------

#[test]
fn requests_are_handled_at_the_same_time() {
    alone_async(|| async {
        let second_came = Arc::new(Notify::new());
        let bell = Arc::clone(&second_came);
        let bus = start(builder().on_request(move |request| {
            let bell = Arc::clone(&bell);
            async move {
                match request.method() {
                    "first" => bell.notified().await,
                    _ => bell.notify_one(),
                }
                Ok(json!(request.method()))
            }
        }))
        .await;
        // The first is answered only when the second has been asked.
        let first = tokio::spawn(bus.request("ask", json!({"method": "first", "id": 1})));
        let second = bus.request("ask", json!({"method": "second", "id": 2}));
        assert_eq!(second.await.expect("answered"), "second");
        assert_eq!(first.await.expect("no panic").expect("answered"), "first");
        bus.stop().await.expect("stops");
    });
}

#[test]
fn more_requests_than_can_be_open_are_refused_and_counted() {
    alone_async(|| async {
        let (release, gate) = watch::channel(false);
        let bus = start(builder().on_request(move |_| {
            let mut gate = gate.clone();
            async move {
                gate.wait_for(|open| *open).await.expect("opened");
                Ok(json!("done"))
            }
        }))
        .await;
        let events = bus.events();
        let asking = tokio::spawn(bus.request("asks", json!({"n": 1100})));
        let mut refused = 0;
        while refused < 76 {
            refused = bus.stats().await.expect("counted").refused_worker_requests;
            tokio::task::yield_now().await;
        }
        release.send(true).expect("handlers wait");
        let answers = asking.await.expect("no panic").expect("answered");
        let answers = answers.as_array().expect("an array");
        let (done, refusals): (Vec<_>, Vec<_>) = answers.iter().partition(|a| **a == "done");
        assert_eq!((done.len(), refusals.len(), refused), (1024, 76, 76));
        for refusal in refusals {
            assert_eq!(refusal["error"]["code"], -32012, "{refusal}");
            assert_eq!(refusal["error"]["data"]["reason"], "overloaded");
        }
        let again = bus.request("ask", json!({})).await.expect("answered");
        assert_eq!(again, "done");
        bus.stop().await.expect("stops");
        assert_eq!(overflows(events).await, [Overflow::Handler]);
    });
}

#[test]
fn a_handler_can_use_the_bus() {
    alone_async(|| async {
        let bus = start(builder().on_request(|request| async move {
            let bus = request.bus().ok_or_else(|| RpcError::internal("gone"))?;
            Ok(bus.request("echo", json!({"from": "handler"})).await?)
        }))
        .await;
        let answer = bus.request("ask", json!({})).await.expect("answered");
        assert_eq!(answer, json!({"from": "handler"}));
        bus.stop().await.expect("stops");
    });
}

// ---- what goes wrong ---------------------------------------------------------------------------

#[test]
fn a_panicking_handler_is_an_error_for_the_worker_and_a_line_in_the_log() {
    alone_async(|| async {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&lines);
        let bus = start(
            builder()
                .on_log(move |level, line| {
                    log.lock().expect("no panic").push((level, line.to_owned()));
                })
                .on_request(|request| {
                    // One way to panic before there is a future, one inside it.
                    assert!(request.method() != "early", "early {}", 1);
                    async move {
                        assert!(request.method() != "late", "late");
                        Ok(json!("fine"))
                    }
                }),
        )
        .await;
        for method in ["early", "late"] {
            let answer = bus.request("ask", json!({"method": method})).await;
            assert_eq!(answer.expect("answered")["error"]["code"], -32603);
            let said = |(level, line): &(LogLevel, String)| {
                *level == LogLevel::Error && line.contains("panicked") && line.contains(method)
            };
            eventually("the log says so", || {
                lines.lock().expect("no panic").iter().any(said)
            })
            .await;
        }
        let answer = bus.request("ask", json!({})).await.expect("answered");
        assert_eq!(answer, "fine");
        bus.stop().await.expect("stops");
    });
}

#[test]
fn the_answer_to_a_worker_that_is_gone_reaches_nobody() {
    alone_async(|| async {
        let asked = Arc::new(Notify::new());
        let (release, gate) = watch::channel(false);
        let bell = Arc::clone(&asked);
        let bus = start(builder().on_request(move |request| {
            let (bell, mut gate) = (Arc::clone(&bell), gate.clone());
            async move {
                if request.worker().generation == 1 {
                    bell.notify_one();
                    gate.wait_for(|open| *open).await.expect("opened");
                    return Ok(json!("for the first"));
                }
                Ok(json!("for the second"))
            }
        }))
        .await;
        // Both workers ask with the id 0.
        let first = tokio::spawn(bus.request("ask", json!({})));
        asked.notified().await;
        bus.request("exit", json!({"code": 1}))
            .await
            .expect_err("it exits");
        first.await.expect("no panic").expect_err("it exits");
        bus.request("echo", json!([1])).await.expect("restarted");
        release.send(true).expect("the handler waits");
        for _ in 0..3 {
            let answer = bus.request("ask", json!({})).await.expect("answered");
            assert_eq!(answer, "for the second");
        }
        bus.stop().await.expect("stops");
    });
}

#[test]
fn a_handler_whose_runtime_is_gone_is_an_error_for_the_worker() {
    alone(|| {
        let runtime = || {
            tokio::runtime::Builder::new_current_thread()
                .build()
                .expect("runtime")
        };
        let built_in = runtime();
        let bus = built_in.block_on(async { builder().on_request(echo).build().expect("valid") });
        drop(built_in);
        runtime().block_on(async {
            bus.start().await.expect("starts");
            let answer = bus.request("ask", json!({})).await.expect("answered");
            assert_eq!(answer["error"]["code"], -32603, "{answer}");
            bus.stop().await.expect("stops");
        });
    });
}

// ---- where handlers run, and how long ----------------------------------------------------------

#[test]
fn without_any_runtime_handlers_run_on_a_thread_of_the_bus() {
    open_tokios_sockets(); // the bus makes a runtime of its own
    alone(|| {
        let bus = builder()
            .on_request(|_| async {
                // Timers work there, too.
                tokio::time::sleep(Duration::from_millis(1)).await;
                Ok(json!(std::thread::current().name()))
            })
            .build()
            .expect("valid");
        block_on(bus.start()).expect("starts");
        let answer = block_on(bus.request("ask", json!({}))).expect("answered");
        assert_eq!(answer, "stdiobus-handler");
        block_on(bus.stop()).expect("stops");
    });
}

/// Counts as long as it lives.
struct Alive(Arc<AtomicUsize>);

impl Alive {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(count))
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A bus with a handler that never answers; the count is of the handler and of its calls.
async fn with_endless_handler() -> (StdioBus, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let (calls, handler) = (Arc::clone(&count), Alive::new(&count));
    let bus = start(builder().on_request(move |_| {
        let (_handler, call) = (&handler, Alive::new(&calls));
        async move {
            let _call = call;
            pending().await
        }
    }))
    .await;
    bus.request("ask", json!({})).detach().expect("sent");
    eventually("it is asked", || count.load(Ordering::SeqCst) == 2).await;
    (bus, count)
}

#[test]
fn handlers_end_when_the_bus_stops() {
    alone_async(|| async {
        let (bus, count) = with_endless_handler().await;
        bus.stop().await.expect("stops");
        eventually("all is dropped", || count.load(Ordering::SeqCst) == 0).await;
    });
}

#[test]
fn handlers_do_not_keep_a_bus_alive() {
    alone_async(|| async {
        let (bus, count) = with_endless_handler().await;
        let weak = bus.downgrade();
        assert!(weak.upgrade().is_some());
        drop(bus);
        assert!(weak.upgrade().is_none());
        eventually("all is dropped", || count.load(Ordering::SeqCst) == 0).await;
    });
}

#[test]
fn a_bus_that_never_starts_drops_its_handler() {
    alone_async(|| async {
        let count = Arc::new(AtomicUsize::new(0));
        let handler = Alive::new(&count);
        let bus = builder()
            .on_request(move |_| {
                let _handler = &handler;
                async { Ok(Value::Null) }
            })
            .build()
            .expect("valid");
        drop(bus);
        assert_eq!(count.load(Ordering::SeqCst), 0);
    });
}
