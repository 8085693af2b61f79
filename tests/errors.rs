//! Errors as a user sees them: numbers, what may be tried again, and where each kind comes from.

mod common;

use std::collections::BTreeSet;
use std::error::Error as _;
use std::time::Duration;

use common::client::{assert_kind, assert_shutting_down, begin, eventually, short, started};
use common::peer::puppet;
use common::{TempDir, alone, alone_async, zoo_pool};
use serde_json::json;
use stdiobus::{
    BackendMode, Error, ErrorCode, HelloParams, LimitsConfig, Listen, PoolConfig, RemoteOptions,
    RequestOptions, RpcError, StdioBus,
};

const CODES: [(ErrorCode, i32, &str); 11] = [
    (ErrorCode::InvalidArgument, 1, "InvalidArgument"),
    (ErrorCode::InvalidState, 2, "InvalidState"),
    (ErrorCode::Timeout, 3, "Timeout"),
    (ErrorCode::Cancelled, 4, "Cancelled"),
    (ErrorCode::TransportError, 5, "TransportError"),
    (ErrorCode::NegotiationFailed, 6, "NegotiationFailed"),
    (ErrorCode::PolicyDenied, 7, "PolicyDenied"),
    (ErrorCode::Unavailable, 8, "Unavailable"),
    (ErrorCode::ResourceExhausted, 9, "ResourceExhausted"),
    (ErrorCode::NotSupported, 10, "NotSupported"),
    (ErrorCode::Internal, 99, "Internal"),
];

#[test]
fn four_of_the_kinds_may_go_away_by_themselves() {
    for (code, number, name) in CODES {
        assert_eq!((code.as_i32(), code.to_string().as_str()), (number, name));
    }
    let retryable = CODES.iter().filter(|(code, ..)| code.is_retryable());
    let retryable: BTreeSet<_> = retryable.map(|(_, number, _)| *number).collect();
    assert_eq!(retryable, BTreeSet::from([3, 5, 8, 9]));
}

#[test]
fn the_error_of_a_worker_is_no_kind_of_ours_even_with_our_words() {
    alone_async(|| async {
        let command = puppet();
        let pool = PoolConfig::new("p", command.to_str().expect("a path in text"));
        let bus = StdioBus::builder().pool(pool).build().expect("valid");
        bus.start().await.expect("starts");
        let exit = json!({"code": 1, "uptime_ms": 1, "stderr_tail": ""});
        let data = json!({"source": "stdio_bus", "reason": "worker_exited", "exit": exit});
        for code in [-32010, -32011, -32012, -32013, -32014, -32600, -32700, 5] {
            let error = json!({"code": code, "message": "m", "data": data});
            let line = format!(r#"{{"jsonrpc":"2.0","id":$ID,"error":{error}}}"#);
            let error = bus.request("m", json!({"play": [line]})).await;
            let error = error.expect_err("an error");
            assert!(matches!(error, Error::Rpc { .. }), "{error:?}");
            assert!(error.kind().is_none() && error.exit().is_none());
            assert!(!error.is_retryable());
            assert_eq!(
                (error.rpc_code(), error.rpc_data()),
                (Some(code), Some(&data))
            );
        }
        bus.stop().await.expect("stops");
    });
}

#[test]
fn each_error_of_the_bus_is_of_its_kind() {
    alone_async(|| async {
        let mut limits = LimitsConfig::new();
        limits.max_pending = Some(1);
        limits.max_input_buffer = Some(10_000);
        let builder = StdioBus::builder().pool(zoo_pool(&["echo"])).limits(limits);
        let bus = builder.build().expect("valid");
        bus.start().await.expect("starts");
        let held = bus.try_request("hold", ()).expect("room");
        eventually("it is pending", || bus.pending_count() == Some(1)).await;
        let check = |result: Result<_, Error>, kind, code| {
            let error = assert_kind::<serde_json::Value>(result, kind);
            assert_eq!(error.rpc_code(), code, "{error:?}");
            error
        };
        let full = bus.request("echo", ()).await;
        let error = check(full, ErrorCode::ResourceExhausted, Some(-32012));
        let data = error.rpc_data().expect("data");
        assert_eq!(
            (&data["source"], &data["reason"]),
            (&json!("stdio_bus"), &json!("overloaded"))
        );
        drop(held);
        bus.request("echo", ()).await.expect("room again");

        let elsewhere = RequestOptions::new().pool("elsewhere");
        let lost = bus.request_with("echo", (), elsewhere).await;
        check(lost, ErrorCode::InvalidArgument, Some(-32010));
        let large = bus.request("echo", "x".repeat(10_001)).await;
        assert_kind(large, ErrorCode::InvalidArgument);
        let late = bus.request_with("hold", (), short()).await;
        check(late, ErrorCode::Timeout, None);
        let typed = bus.request_as::<Vec<u8>, _>("echo", json!({})).await;
        let error = assert_kind(typed, ErrorCode::InvalidArgument);
        let source = error.source().and_then(|bus| bus.source());
        assert!(source.is_some(), "what didn't fit: {error:?}");

        let gone = bus.request("exit", json!({"code": 7})).await;
        let error = check(gone, ErrorCode::TransportError, Some(-32011));
        let exit = error.exit().expect("how it ended");
        assert_eq!((exit.pool.as_str(), exit.worker), ("zoo", 0));
        assert_eq!((exit.code, exit.signal), (Some(7), None));
        assert_eq!(exit.request_sent, Some(true));
        assert!(exit.uptime > Duration::ZERO && exit.uptime < Duration::from_secs(60));
        bus.stop().await.expect("stops");
        let ended = bus.request("echo", ()).await;
        check(ended, ErrorCode::InvalidState, None);
    });
}

#[test]
fn a_bus_that_shuts_down_is_a_broken_way_and_one_that_keeps_us_out_a_policy() {
    alone_async(|| async {
        let bus = started(&["ignore-term"]).await;
        let held = bus.try_request("hold", ()).expect("room");
        begin(bus.stop_with_timeout(Duration::from_secs(1)));
        for end in [held.await, bus.request("echo", ()).await] {
            let error = end.expect_err("an end");
            assert_shutting_down(&error);
            assert!(error.is_retryable());
        }
        bus.stop_with_timeout(Duration::ZERO).await.expect("stops");

        let dir = TempDir::new();
        let path = dir.path("bus.sock");
        let host = StdioBus::builder()
            .pool(zoo_pool(&["echo"]))
            .listen(Listen::unix(&path).token("t"))
            .build()
            .expect("valid");
        host.start().await.expect("starts");
        let to = RemoteOptions::unix(&path);
        let bus = StdioBus::builder().backend(BackendMode::Remote(to));
        let bus = bus.build().expect("valid");
        bus.start().await.expect("connected");
        let error = assert_kind(bus.request("echo", ()).await, ErrorCode::PolicyDenied);
        assert_eq!(error.rpc_code(), Some(-32014), "{error:?}");
        assert!(!error.is_retryable());
        bus.stop().await.expect("stops");
        host.stop().await.expect("stops");
    });
}

#[test]
fn what_comes_before_its_time_is_invalid_state() {
    alone_async(|| async {
        let bus = StdioBus::builder().pool(zoo_pool(&["echo"]));
        let bus = bus.build().expect("valid");
        let config = stdiobus::BusConfig::new().pool(zoo_pool(&["echo"]));
        let service = |_| async { Ok(json!(1)) };
        let (mine, theirs) = std::os::unix::net::UnixStream::pair().expect("a pair");
        let early = [
            bus.request("echo", ()).await.map(drop),
            bus.try_request("echo", ()).map(drop),
            bus.request("echo", ()).detach(),
            bus.stream_request("echo", ())
                .next()
                .await
                .expect("an end")
                .map(drop),
            bus.notify("note", ()).await,
            bus.send(r#"{"jsonrpc":"2.0","method":"note"}"#).await,
            bus.hello(HelloParams::new()).await.map(drop),
            bus.end_session("s").await.map(drop),
            bus.reload(config).await,
            bus.connect_io(None).await.map(drop),
            bus.adopt_client(mine, theirs).await.map(drop),
            bus.register_worker("zoo", service).await.map(drop),
        ];
        for early in early {
            let error = assert_kind(early, ErrorCode::InvalidState);
            assert_eq!(error.to_string(), "the bus has not been started");
            assert!(!error.is_retryable());
        }
        bus.start().await.expect("starts all the same");
        bus.stop().await.expect("stops");
        let again = assert_kind(bus.start().await, ErrorCode::InvalidState);
        assert_eq!(again.to_string(), "a stopped bus can't be started again");
    });
}

#[test]
fn what_the_system_says_is_in_the_text() {
    alone(|| {
        let dir = TempDir::new();
        let file = dir.path("no program");
        std::fs::write(&file, "#!/bin/sh\n").expect("written");
        let missing = dir.path("missing").to_str().expect("text").to_owned();
        for (command, reason) in [
            (file.to_str().expect("text"), "Permission denied"),
            (missing.as_str(), "No such file or directory"),
            ("no-such-program-in-the-path", "No such file or directory"),
        ] {
            let pool = PoolConfig::new("p", command);
            let bus = StdioBus::builder().pool(pool).build_blocking();
            // It is looked up by the start.
            let error = assert_kind(bus.expect("valid").start(), ErrorCode::Unavailable);
            let text = error.to_string();
            assert!(text.contains(command) && text.contains(reason), "{text}");
            assert!(error.is_retryable());
        }
    });
}

#[test]
fn a_handler_passes_a_workers_error_on_as_it_is() {
    let theirs = RpcError::new(-7, "no").with_data(json!([1]));
    assert_eq!(RpcError::from(Error::from(theirs.clone())), theirs);
}
