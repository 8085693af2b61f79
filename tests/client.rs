//! The Rust client: what a user of the library can rely on.

mod common;

use std::time::{Duration, Instant};

use common::client::{assert_kind, eventually, short, started};
use common::{alone_async, zoo, zoo_pool};
use serde_json::json;
use stdiobus::{
    Error, ErrorCode, LimitsConfig, PoolConfig, RequestOptions, RestartPolicy, StdioBus,
};

// ---- requests ----------------------------------------------------------------------------------

#[test]
fn a_request_brings_its_result() {
    alone_async(|| async {
        let bus = started(&["echo"]).await;
        let params = json!({"message": "hello", "n": [1, 2.5, null, "ü\n\"\\"]});
        assert_eq!(
            bus.request("echo", &params).await.expect("answered"),
            params
        );
        let typed: Vec<u32> = bus.request_as("echo", [1, 2, 3]).await.expect("answered");
        assert_eq!(typed, [1, 2, 3]);
        bus.stop().await.expect("stops");
    });
}

#[test]
fn the_error_of_a_worker_comes_as_it_was_sent() {
    alone_async(|| async {
        let bus = started(&["echo"]).await;
        match bus.request("error", json!({})).await.expect_err("an error") {
            Error::Rpc {
                code,
                message,
                data,
                ..
            } => {
                assert_eq!((code, message.as_str()), (-32050, "zoo error"));
                assert_eq!(data, Some(json!({"k": 1})));
            }
            other => panic!("{other:?}"),
        }
        bus.stop().await.expect("stops");
    });
}

#[test]
fn a_request_that_takes_too_long_ends_and_is_given_up() {
    alone_async(|| async {
        let bus = started(&["echo"]).await;
        let start = Instant::now();
        let error = assert_kind(
            bus.request_with("hold", json!({}), short()).await,
            ErrorCode::Timeout,
        );
        assert!(error.is_retryable());
        assert!(
            start.elapsed() >= Duration::from_millis(50),
            "{:?}",
            start.elapsed()
        );
        eventually("nothing is pending", || bus.pending_count() == Some(0)).await;
        assert_eq!(
            bus.request("echo", json!([1])).await.expect("answered"),
            json!([1])
        );
        bus.stop().await.expect("stops");
    });
}

#[test]
fn the_timeout_of_the_builder_holds_unless_a_request_has_its_own() {
    alone_async(|| async {
        let bus = StdioBus::builder()
            .pool(zoo_pool(&["echo"]))
            .timeout(Duration::from_millis(50))
            .build()
            .expect("valid");
        bus.start().await.expect("starts");
        assert_kind(bus.request("hold", json!({})).await, ErrorCode::Timeout);
        let params = json!({"ms": 200});
        let patient = RequestOptions::new().timeout(None);
        let answer = bus.request_with("sleep", &params, patient).await;
        assert_eq!(answer.expect("answered"), params);
        bus.stop().await.expect("stops");
    });
}

#[test]
fn a_late_answer_reaches_nobody_else() {
    alone_async(|| async {
        let bus = started(&["echo"]).await;
        let params = json!({"ms": 100});
        assert_kind(
            bus.request_with("sleep", &params, short()).await,
            ErrorCode::Timeout,
        );
        for i in 0..200 {
            assert_eq!(
                bus.request("sleep", json!({"ms": 1, "i": i}))
                    .await
                    .expect("ok")["i"],
                i
            );
        }
        let stats = bus.stats().await.expect("counted");
        assert_eq!((stats.late_answers, stats.tombstones), (1, 0), "{stats:?}");
        bus.stop().await.expect("stops");
    });
}

#[test]
fn dropping_a_request_gives_it_up() {
    alone_async(|| async {
        let bus = started(&["echo"]).await;
        let held: Vec<_> = (0..10)
            .map(|_| tokio::spawn(bus.request("hold", json!({}))))
            .collect();
        eventually("ten are pending", || bus.pending_count() == Some(10)).await;
        for task in &held {
            task.abort();
        }
        eventually("nothing is pending", || bus.pending_count() == Some(0)).await;
        bus.stop().await.expect("stops");
    });
}

#[test]
fn a_detached_request_is_finished_without_anyone_waiting() {
    alone_async(|| async {
        let bus = started(&["echo"]).await;
        bus.request("hold", json!({})).detach().expect("sent");
        eventually("one is pending", || bus.pending_count() == Some(1)).await;
        bus.request("sleep", json!({"ms": 20}))
            .detach()
            .expect("sent");
        eventually("two are pending", || bus.pending_count() == Some(2)).await;
        eventually("one is answered", || bus.pending_count() == Some(1)).await;
        bus.stop().await.expect("stops");
    });
}

#[test]
fn sixty_four_tasks_with_a_hundred_requests_each_get_their_own_answers() {
    alone_async(|| async {
        let bus = started(&["echo"]).await;
        let tasks: Vec<_> = (0..64)
            .map(|task| {
                let bus = bus.clone();
                tokio::spawn(async move {
                    for i in 0..100 {
                        let options = RequestOptions::new().session_id(format!("session {task}"));
                        let params = json!({"task": task, "i": i});
                        let answer = bus.request_with("echo", &params, options).await;
                        assert_eq!(answer.expect("answered"), params);
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.expect("every answer was the right one");
        }
        assert_eq!(bus.pending_count(), Some(0));
        assert_eq!(bus.session_count(), Some(64));
        bus.stop().await.expect("stops");
    });
}

#[test]
fn a_request_of_nine_mebibytes_comes_back_whole() {
    alone_async(|| async {
        let bus = started(&["echo"]).await;
        let text: String = (0..9 << 20)
            .map(|i| char::from(b'a' + (i % 23) as u8))
            .collect();
        let answer: String = bus.request_as("echo", &text).await.expect("answered");
        assert!(answer == text);
        bus.stop().await.expect("stops");
    });
}

#[test]
fn a_request_above_the_limit_is_refused_and_the_bus_goes_on() {
    alone_async(|| async {
        let limits = LimitsConfig::new().max_input_buffer(10_000);
        let bus = StdioBus::builder()
            .pool(zoo_pool(&["echo"]))
            .limits(limits)
            .build()
            .expect("valid");
        bus.start().await.expect("starts");
        let text = "x".repeat(10_001);
        let error = assert_kind(bus.request("echo", &text).await, ErrorCode::InvalidArgument);
        let text = error.to_string();
        let words: Vec<_> = text.split(' ').collect();
        let bytes: usize = words[3].parse().expect("the size");
        assert!((10_001..10_200).contains(&bytes), "{text}");
        assert_eq!(
            text,
            format!("the message of {bytes} bytes is larger than max_input_buffer")
        );
        assert_eq!(
            bus.request("echo", json!([1])).await.expect("answered"),
            json!([1])
        );
        bus.stop().await.expect("stops");
    });
}

#[test]
fn the_error_about_a_worker_that_died_at_once_ends_with_its_last_line() {
    alone_async(|| async {
        let script = "echo first >&2; echo \"can't open file 'no.py'\" >&2; exit 2";
        let pool = PoolConfig::new("a", "sh").args(["-c", script]);
        let bus = StdioBus::builder().pool(pool.restart(RestartPolicy::Never));
        let bus = bus.build().expect("valid");
        bus.start().await.expect("starts");
        let error = assert_kind(bus.request("m", ()).await, ErrorCode::TransportError);
        let text = error.to_string();
        let end = r#"worker 0 of pool "a" exited with status 2: can't open file 'no.py'"#;
        assert!(text.ends_with(end), "{text}");
        assert!(!text.contains("first"), "{text}");
        bus.stop().await.expect("stops");
    });
}

#[test]
fn a_typed_request_takes_options() {
    alone_async(|| async {
        let second = PoolConfig::new("second", zoo()).args(["echo"]);
        let bus = StdioBus::builder().pool(zoo_pool(&["echo"])).pool(second);
        let bus = bus.build().expect("valid");
        bus.start().await.expect("starts");
        let second = || RequestOptions::new().pool("second");
        let sum: Vec<u32> = bus
            .request_as_with("echo", [1, 2], second())
            .await
            .expect("answered");
        assert_eq!(sum, [1, 2]);
        let other = bus.request_as_with::<String, _>("echo", [1, 2], second());
        assert_kind(other.await, ErrorCode::InvalidArgument);
        let nowhere = RequestOptions::new().pool("third");
        let error = bus.request_as_with::<Vec<u32>, _>("echo", [1, 2], nowhere);
        assert_kind(error.await, ErrorCode::InvalidArgument);
        bus.stop().await.expect("stops");
    });
}

#[test]
fn an_agent_id_that_names_no_pool_of_several_is_told_by_name() {
    alone_async(|| async {
        let second = PoolConfig::new("second", zoo()).args(["echo"]);
        let bus = StdioBus::builder().pool(zoo_pool(&["echo"])).pool(second);
        let bus = bus.build().expect("valid");
        bus.start().await.expect("starts");
        let options = RequestOptions::new().agent_id("zz");
        let error = bus.request_with("echo", (), options).await;
        let error = assert_kind(error, ErrorCode::InvalidArgument);
        assert_eq!(
            error.to_string(),
            r#"agentId "zz" names no pool; there are: zoo second"#
        );
        bus.stop().await.expect("stops");
    });
}

#[test]
fn a_session_stays_with_its_worker_and_requests_without_one_are_spread() {
    alone_async(|| async {
        let bus = started(&["echo"]).await;
        let pid = bus.request("pid", json!({})).await.expect("answered");
        for _ in 0..10 {
            assert_eq!(bus.request("pid", json!({})).await.expect("answered"), pid);
        }
        let mut seen = std::collections::HashSet::new();
        for _ in 0..10 {
            let options = RequestOptions::new().unpinned();
            let pid = bus
                .request_with("pid", json!({}), options)
                .await
                .expect("answered");
            seen.insert(pid.to_string());
        }
        assert_eq!(seen.len(), 2);
        bus.stop().await.expect("stops");
    });
}

#[test]
fn with_two_pools_a_request_names_the_one_it_is_for() {
    alone_async(|| async {
        let second = {
            let mut pool = zoo_pool(&["echo", "crlf"]);
            pool.id = "other".into();
            pool
        };
        let bus = StdioBus::builder()
            .pool(zoo_pool(&["echo"]))
            .pool(second)
            .build()
            .expect("ok");
        bus.start().await.expect("starts");

        let error = assert_kind(
            bus.request("args", json!({})).await,
            ErrorCode::InvalidArgument,
        );
        assert_eq!(error.rpc_code(), Some(-32010), "{error:?}");
        assert!(!error.is_retryable());
        for (options, args) in [
            (RequestOptions::new().pool("zoo"), json!(["echo"])),
            (RequestOptions::new().pool("other"), json!(["echo", "crlf"])),
            (
                RequestOptions::new().agent_id("other"),
                json!(["echo", "crlf"]),
            ),
        ] {
            let options = options.session_id("s");
            assert_eq!(
                bus.request_with("args", json!({}), options)
                    .await
                    .expect("ok"),
                args
            );
        }
        let unknown = RequestOptions::new().pool("nobody");
        assert_kind(
            bus.request_with("args", json!({}), unknown).await,
            ErrorCode::InvalidArgument,
        );
        bus.stop().await.expect("stops");
    });
}

#[test]
fn a_worker_that_exits_ends_its_requests_with_what_is_known_about_it() {
    alone_async(|| async {
        let bus = started(&["echo"]).await;
        let held = tokio::spawn(bus.request("hold", json!({})));
        eventually("it is pending", || bus.pending_count() == Some(1)).await;
        let exited = bus.request("exit", json!({"code": 7})).await;
        for result in [exited, held.await.expect("no panic")] {
            let error = assert_kind(result, ErrorCode::TransportError);
            assert_eq!(error.rpc_code(), Some(-32011), "{error:?}");
            let exit = error.exit().expect("how it ended");
            assert_eq!(
                (exit.pool.as_str(), exit.code, exit.signal),
                ("zoo", Some(7), None)
            );
        }
        bus.stop().await.expect("stops");
    });
}

#[test]
fn what_a_worker_asks_is_refused_rather_than_left_open() {
    alone_async(|| async {
        let bus = started(&["echo"]).await;
        let answer = bus.request("ask", json!({})).await.expect("answered");
        assert_eq!(answer["error"]["code"], -32601, "{answer}");
        bus.stop().await.expect("stops");
    });
}

// ---- notifications and raw messages ------------------------------------------------------------

#[test]
fn notifications_reach_the_worker_of_the_session() {
    alone_async(|| async {
        let bus = started(&["echo"]).await;
        for i in 0..5 {
            bus.notify("note", json!({"i": i})).await.expect("accepted");
        }
        let session = bus.client_session_id();
        bus.send(&format!(
            r#"{{"jsonrpc":"2.0","method":"note","sessionId":"{session}"}}"#
        ))
        .await
        .expect("accepted");
        assert_eq!(bus.request("seen", json!({})).await.expect("answered"), 6);
        bus.stop().await.expect("stops");
    });
}

#[test]
fn messages_that_are_no_messages_are_refused() {
    alone_async(|| async {
        let bus = started(&["echo"]).await;
        for bad in [
            "",
            "hello",
            "[]",
            "{\"a\":\n1}",
            "{} {}",
            r#"{"id":1,"method":"echo"}"#,
        ] {
            assert_kind(bus.send(bad).await, ErrorCode::InvalidArgument);
        }
        assert_kind(
            bus.notify_with("note", json!({}), short()).await,
            ErrorCode::InvalidArgument,
        );
        bus.stop().await.expect("stops");
    });
}
