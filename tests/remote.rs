//! A bus that runs already, reached over a socket: tokens, addresses, losses.

mod common;

use std::io::Write;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use common::client::{assert_kind, eventually, soon};
use common::{Program, TempDir, alone_async, signal, zoo_config, zoo_pool};
use serde_json::{Value, json};
use stdiobus::{
    BackendMode, BusState, ErrorCode, Listen, RemoteOptions, StdioBus, StdioBusBuilder,
};

fn to(options: RemoteOptions) -> StdioBusBuilder {
    StdioBus::builder().backend(BackendMode::Remote(options))
}

async fn host(listen: Listen) -> StdioBus {
    let bus = StdioBus::builder()
        .pool(zoo_pool(&["echo"]))
        .listen(listen)
        .build()
        .expect("valid");
    bus.start().await.expect("starts");
    bus
}

/// Why a client of this bus can't be started.
async fn refused(options: RemoteOptions, kind: ErrorCode) -> String {
    let bus = to(options).build().expect("valid");
    let error = assert_kind(soon("the start", bus.start()).await, kind);
    assert_eq!(bus.state(), BusState::Stopped);
    error.to_string()
}

#[test]
fn what_a_running_bus_has_itself_is_refused() {
    let unix = || RemoteOptions::unix("/s");
    let refused = |builder: StdioBusBuilder, what: &str| {
        let error = builder.build().expect_err("refused");
        assert_eq!(error.kind(), Some(ErrorCode::InvalidArgument), "{error:?}");
        assert!(error.to_string().contains(what), "{error}");
    };
    refused(to(unix()).pool(zoo_pool(&["echo"])), "pool");
    refused(to(unix()).config_json("{}"), "config_json");
    refused(to(unix()).config_path("/c"), "config_path");
    refused(to(unix()).listen(Listen::unix("/t")), "listen");
    refused(to(RemoteOptions::unix("")), "path");
    refused(to(RemoteOptions::tcp("h", 0)), "port");
    refused(to(unix().token("")), "token");
}

#[test]
fn a_bus_that_is_not_there_is_unavailable() {
    alone_async(|| async {
        let dir = TempDir::new();
        let path = dir.path("none.sock");
        let text = refused(RemoteOptions::unix(&path), ErrorCode::Unavailable).await;
        assert!(
            text.contains("none.sock") && text.contains("No such file"),
            "{text}"
        );
        let port = {
            let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
            listener.local_addr().expect("an address").port()
        };
        let text = refused(
            RemoteOptions::tcp("127.0.0.1", port),
            ErrorCode::Unavailable,
        )
        .await;
        assert!(
            text.contains(&port.to_string()) && text.contains("refused"),
            "{text}"
        );
    });
}

#[test]
fn a_token_is_shown_and_a_wrong_one_is_refused() {
    alone_async(|| async {
        let dir = TempDir::new();
        let token = "secret-\u{e9}\"\\";
        let listeners = [
            Listen::unix(dir.path("bus.sock")).token(token),
            Listen::tcp("127.0.0.1", 0).token(token),
        ];
        for listen in listeners {
            let host = host(listen).await;
            let address = || RemoteOptions::from(host.listen_addrs().remove(0));
            let bus = to(address().token(token)).build().expect("valid");
            bus.start().await.expect("let in");
            assert_eq!(bus.request("echo", 1).await.expect("answered"), 1);
            bus.stop().await.expect("stops");

            let text = refused(address().token("guess"), ErrorCode::PolicyDenied).await;
            assert!(!text.contains("guess"), "{text}");
            // Without one it is told with the first message.
            let bus = to(address()).build().expect("valid");
            bus.start().await.expect("connected");
            assert_kind(bus.request("echo", 1).await, ErrorCode::PolicyDenied);
            bus.stop().await.expect("stops");
            let stats = host.stats().await.expect("counted");
            assert_eq!(stats.unauthorized_clients, 2);
            host.stop().await.expect("stops");
        }
    });
}

#[test]
fn who_takes_the_connection_and_says_nothing_is_given_up_in_time() {
    alone_async(|| async {
        let dir = TempDir::new();
        let path = dir.path("silent.sock");
        let _silent = UnixListener::bind(&path).expect("bound");
        let options = RemoteOptions::unix(&path)
            .token("t")
            .connect_timeout(Duration::from_millis(200));
        let began = Instant::now();
        let text = refused(options, ErrorCode::Unavailable).await;
        assert!(text.contains("200ms"), "{text}");
        assert!(began.elapsed() >= Duration::from_millis(200));
    });
}

#[test]
fn an_answer_to_the_token_that_is_none_is_an_error() {
    alone_async(|| async {
        let dir = TempDir::new();
        let path = dir.path("odd.sock");
        let listener = UnixListener::bind(&path).expect("bound");
        let odd = std::thread::spawn(move || {
            for answer in ["hello\n".to_owned(), "x".repeat(5000), String::new()] {
                let (mut client, _) = listener.accept().expect("a client");
                // It may have left.
                let _ = client.write_all(answer.as_bytes());
            }
        });
        for _ in 0..3 {
            refused(
                RemoteOptions::unix(&path).token("t"),
                ErrorCode::Unavailable,
            )
            .await;
        }
        odd.join().expect("no panic");
    });
}

#[test]
fn a_bus_that_stops_ends_everything_of_its_clients_at_once() {
    alone_async(|| async {
        let dir = TempDir::new();
        for listen in [Listen::unix(dir.path("s")), Listen::tcp("127.0.0.1", 0)] {
            let host = host(listen).await;
            let bus = to(host.listen_addrs().remove(0).into())
                .build()
                .expect("valid");
            bus.start().await.expect("starts");
            let mut heard = bus.subscribe_notifications();
            let held = {
                let bus = bus.clone();
                tokio::spawn(async move { bus.request("hold", Value::Null).await })
            };
            eventually("it is in flight", || bus.pending_count() == Some(1)).await;
            eventually("there, too", || host.pending_count() == Some(1)).await;
            host.stop().await.expect("stops");
            let result = soon("the end", held).await.expect("no panic");
            assert_kind(result, ErrorCode::TransportError);
            bus.state_changes().reached(BusState::Stopped).await;
            assert!(
                soon("the end of the subscription", heard.next())
                    .await
                    .is_none()
            );
            assert_kind(bus.request("echo", 1).await, ErrorCode::InvalidState);
            bus.stop().await.expect("has stopped");
        }
    });
}

#[test]
fn a_bus_that_is_killed_ends_everything_of_its_clients_at_once() {
    alone_async(|| async {
        let listeners = ["--unix", "{dir}/bus.sock", "--tcp", "127.0.0.1:0"];
        let program = Program::start(&zoo_config(1, &["echo"]), &listeners);
        let tcp = program.tcp_addresses().remove(0);
        let (host, port) = tcp.rsplit_once(':').expect("an address");
        let tcp = RemoteOptions::tcp(host, port.parse().expect("a port"));
        let clients = [RemoteOptions::unix(program.path("bus.sock")), tcp]
            .map(|options| to(options).build().expect("valid"));
        let mut open = Vec::new();
        for bus in &clients {
            bus.start().await.expect("starts");
            let asked = bus.try_request("hold", ()).expect("room");
            let mut stream =
                bus.stream_request("session/prompt", json!({"texts": ["a"], "hold": true}));
            let first = soon("a chunk", stream.next()).await.expect("a chunk");
            first.expect("no error");
            open.push((asked, stream));
        }
        let killed = Instant::now();
        signal(program.pid(), "KILL");
        for (asked, mut stream) in open {
            assert_kind(soon("an end", asked).await, ErrorCode::TransportError);
            let end = soon("an end", stream.next()).await.expect("an end");
            assert_kind(end, ErrorCode::TransportError);
        }
        assert!(killed.elapsed() < Duration::from_secs(5));
        for bus in clients {
            bus.state_changes().reached(BusState::Stopped).await;
            assert_kind(bus.start().await, ErrorCode::InvalidState);
        }
    });
}

#[test]
fn clients_of_one_bus_never_see_each_others_messages() {
    alone_async(|| async {
        let dir = TempDir::new();
        let host = host(Listen::unix(dir.path("s"))).await;
        let clients: Vec<_> = (0..5)
            .map(|_| {
                to(host.listen_addrs().remove(0).into())
                    .build()
                    .expect("valid")
            })
            .collect();
        for (i, client) in clients.iter().enumerate() {
            client.start().await.expect("starts");
            // The worker hears of each session from its own client.
            client.request("echo", i).await.expect("answered");
        }
        assert_eq!(host.client_count(), Some(5));
        let mut heard: Vec<_> = clients
            .iter()
            .map(StdioBus::subscribe_notifications)
            .collect();
        for client in &clients {
            let params = json!({"n": 3, "sessionId": client.client_session_id()});
            client.request("notify", params).await.expect("answered");
        }
        for (client, heard) in clients.iter().zip(&mut heard) {
            for _ in 0..3 {
                let note = soon("a notification", heard.next()).await.expect("there");
                assert_eq!(note.session_id(), Some(client.client_session_id()));
            }
            assert!(heard.try_next().is_none());
            client.stop().await.expect("stops");
        }
        eventually("they are gone", || host.client_count() == Some(0)).await;
        host.stop().await.expect("stops");
    });
}

#[test]
fn a_connection_to_nothing_that_reads_still_stops_in_time() {
    alone_async(|| async {
        let dir = TempDir::new();
        let path = dir.path("deaf.sock");
        let _deaf = UnixListener::bind(&path).expect("bound");
        let bus = to(RemoteOptions::unix(&path)).build().expect("valid");
        bus.start().await.expect("connected");
        let large = "x".repeat(4 << 20);
        let held = {
            let bus = bus.clone();
            tokio::spawn(async move { bus.request("echo", json!([large])).await })
        };
        eventually("it is in flight", || bus.pending_count() == Some(1)).await;
        assert!(bus.stats().await.expect("counted").outbox_bytes > 1 << 20);
        let began = Instant::now();
        bus.stop().await.expect("stops");
        assert!(
            began.elapsed() < Duration::from_secs(5),
            "{:?}",
            began.elapsed()
        );
        assert_kind(held.await.expect("no panic"), ErrorCode::TransportError);
    });
}
