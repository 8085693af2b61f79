//! A bus that runs already, reached over a socket: tokens, addresses, losses.

mod common;

use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use common::client::{assert_kind, begin, eventually, soon};
use common::{BOUND, Program, TempDir, alone_async, signal, zoo_config, zoo_pool};
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};
use stdiobus::{
    BackendMode, BusState, ErrorCode, Listen, ListenAddr, RemoteOptions, StdioBus, StdioBusBuilder,
    StreamEvent,
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

/// A client of a bus that the test plays.
async fn with_fake(dir: &TempDir) -> (StdioBus, Fake) {
    let path = dir.path("fake.sock");
    let listener = UnixListener::bind(&path).expect("bound");
    let bus = to(RemoteOptions::unix(&path)).build().expect("valid");
    bus.start().await.expect("connected");
    let fake = Fake::accept(&listener);
    (bus, fake)
}

struct Fake {
    socket: UnixStream,
    lines: BufReader<UnixStream>,
}

impl Fake {
    fn accept(listener: &UnixListener) -> Self {
        let (socket, _) = listener.accept().expect("a client");
        socket.set_read_timeout(Some(BOUND)).expect("set");
        let lines = BufReader::new(socket.try_clone().expect("cloned"));
        Self { socket, lines }
    }

    fn read(&mut self) -> Value {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("a line");
        serde_json::from_str(&line).expect("JSON")
    }

    fn write(&mut self, message: Value) {
        writeln!(self.socket, "{message}").expect("written");
    }

    fn chunk(&mut self, text: &str) {
        let update = json!({"sessionUpdate": "agent_message_chunk",
            "content": {"type": "text", "text": text}});
        let params = json!({"sessionId": "s", "update": update});
        self.write(json!({"jsonrpc": "2.0", "method": "session/update", "params": params}));
    }
}

#[test]
fn chunks_of_a_turn_that_was_given_up_and_are_on_their_way_do_not_reach_the_next() {
    alone_async(|| async {
        let dir = TempDir::new();
        let (bus, mut fake) = with_fake(&dir).await;
        let turn = || bus.stream_request("session/prompt", json!({"sessionId": "s"}));
        let mut first = turn();
        begin(first.next());
        assert_eq!(fake.read()["method"], "session/prompt");
        drop(first);
        let mut second = turn();
        begin(second.next());
        // Sent before the bus has read anything of that.
        fake.chunk("of the first");
        let asked = loop {
            let message = fake.read();
            match message["method"].as_str() {
                Some("session/prompt") => break message["id"].clone(),
                Some("stdio_bus/cancel") if !message["id"].is_null() => {
                    let result = json!({"ok": false});
                    fake.write(json!({"jsonrpc": "2.0", "id": message["id"], "result": result}));
                }
                _ => {}
            }
        };
        fake.chunk("of the second");
        fake.write(json!({"jsonrpc": "2.0", "id": asked, "result": {}}));
        let mut texts = Vec::new();
        while let Some(event) = soon("the stream", second.next()).await {
            if let StreamEvent::Chunk(text) = event.expect("no error") {
                texts.push(text);
            }
        }
        assert_eq!(texts, ["of the second"]);
        assert_eq!(bus.pending_count(), Some(0));
        bus.stop().await.expect("stops");
    });
}

#[test]
fn a_connection_that_never_comes_about_is_given_up_in_time_and_holds_up_no_drop() {
    alone_async(|| async {
        // Once its queue is full a listener that accepts nobody is silent.
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        socket.bind(&any.into()).expect("bound");
        socket.listen(0).expect("listens");
        let address = socket.local_addr().expect("an address");
        let address = address.as_socket().expect("of IPv4");
        let limit = Duration::from_millis(100);
        let fill = || TcpStream::connect_timeout(&address, limit);
        let full: Vec<_> = std::iter::from_fn(|| fill().ok()).collect();
        assert!(!full.is_empty());

        let options = RemoteOptions::from(ListenAddr::Tcp(address));
        let soon_over = options.clone().connect_timeout(Duration::from_millis(300));
        let text = refused(soon_over, ErrorCode::Unavailable).await;
        assert!(text.contains("300ms"), "{text}");

        let bus = to(options.connect_timeout(Duration::from_secs(1))).build();
        let bus = bus.expect("valid");
        begin(bus.start());
        let mut states = bus.state_changes();
        states.reached(BusState::Starting).await;
        let began = Instant::now();
        drop(bus);
        assert!(began.elapsed() < Duration::from_millis(500));
        soon("the end", states.reached(BusState::Stopped)).await;
    });
}

#[test]
fn addresses_of_version_six_and_names_are_found() {
    alone_async(|| async {
        for name in ["::1", "localhost"] {
            let host = host(Listen::tcp(name, 0)).await;
            let ListenAddr::Tcp(address) = host.listen_addrs().remove(0) else {
                panic!("no TCP listener");
            };
            let bus = to(RemoteOptions::tcp(name, address.port())).build();
            let bus = bus.expect("valid");
            bus.start().await.expect("found");
            assert_eq!(bus.request("echo", 1).await.expect("answered"), 1);
            bus.stop().await.expect("stops");
            host.stop().await.expect("stops");
        }
    });
}

#[test]
fn a_bus_that_closes_one_way_only_is_lost_with_what_it_said_before() {
    alone_async(|| async {
        for how in [Shutdown::Write, Shutdown::Read] {
            let dir = TempDir::new();
            let (bus, mut fake) = with_fake(&dir).await;
            let answered = bus.try_request("a", ()).expect("room");
            let held = bus.try_request("b", ()).expect("room");
            let id = fake.read()["id"].clone();
            fake.read();
            fake.write(json!({"jsonrpc": "2.0", "id": id, "result": 7}));
            fake.socket.shutdown(how).expect("shut");
            // Whoever can't be written to is found out by that.
            let more = bus.try_request("c", ());
            assert_eq!(soon("an answer", answered).await.expect("answered"), 7);
            assert_kind(soon("an end", held).await, ErrorCode::TransportError);
            if let Ok(more) = more {
                assert!(soon("an end", more).await.is_err());
            }
            bus.state_changes().reached(BusState::Stopped).await;
        }
    });
}

#[test]
fn large_messages_both_ways_at_once_do_not_wait_for_each_other() {
    alone_async(|| async {
        let dir = TempDir::new();
        let (bus, mut fake) = with_fake(&dir).await;
        let large = "x".repeat(8 << 20);
        let asked = bus.try_request("a", &large).expect("room");
        let id = asked.id();
        // It writes all of its answer before it reads anything.
        fake.socket.set_write_timeout(Some(BOUND)).expect("set");
        let answering = tokio::task::spawn_blocking(move || {
            fake.write(json!({"jsonrpc": "2.0", "id": id, "result": large}));
            fake.read()
        });
        let answer = soon("an answer", asked).await.expect("answered");
        assert_eq!(answer.as_str().map(str::len), Some(8 << 20));
        let read = soon("the request", answering).await.expect("no panic");
        assert_eq!(read["params"].as_str().map(str::len), Some(8 << 20));
        bus.stop().await.expect("stops");
    });
}

#[test]
fn requests_of_workers_with_ids_like_our_own_are_not_taken_for_answers() {
    alone_async(|| async {
        let dir = TempDir::new();
        let path = dir.path("fake.sock");
        let listener = UnixListener::bind(&path).expect("bound");
        let builder = to(RemoteOptions::unix(&path));
        let bus = builder
            .on_request(|_| async { Ok(json!("mine")) })
            .build()
            .expect("valid");
        bus.start().await.expect("connected");
        let mut fake = Fake::accept(&listener);
        let asked = bus.try_request("a", ()).expect("room");
        let id = fake.read()["id"].clone();
        fake.write(json!({"jsonrpc": "2.0", "id": id, "method": "ask"}));
        assert_eq!(
            fake.read(),
            json!({"jsonrpc": "2.0", "id": id, "result": "mine"})
        );
        assert_eq!(bus.pending_count(), Some(1));
        // Ids that nothing was asked under, and one that isn't JSON all through.
        for other in [json!(99), json!("1"), json!(1.5), json!(null), json!([id])] {
            fake.write(json!({"jsonrpc": "2.0", "id": other, "result": "theirs"}));
        }
        let mut odd = format!(r#"{{"jsonrpc":"2.0","id":{id},"result":"a"#).into_bytes();
        odd.extend(b"\xff\"}\r\n");
        for byte in odd {
            fake.socket.write_all(&[byte]).expect("written");
        }
        let answer = soon("an answer", asked).await;
        assert!(answer.is_err(), "what is no text is no answer: {answer:?}");
        let stats = bus.stats().await.expect("counted");
        assert_eq!(stats.late_answers, 5);
        bus.stop().await.expect("stops");
    });
}

#[test]
fn a_bus_that_floods_its_client_fills_no_memory() {
    alone_async(|| async {
        let dir = TempDir::new();
        let (bus, mut fake) = with_fake(&dir).await;
        let notes = bus.subscribe_notifications();
        let before = common::resident(std::process::id());
        let flood = tokio::task::spawn_blocking(move || {
            let blob = "x".repeat(10_000);
            let note = json!({"jsonrpc": "2.0", "method": "note", "params": [blob]});
            let line = format!("{note}\n");
            for _ in 0..20_000 {
                fake.socket.write_all(line.as_bytes()).expect("taken");
            }
            fake
        });
        let fake = soon("the flood", flood).await.expect("no panic");
        eventually("all of it was seen", || notes.lagged() > 19_000 - 256).await;
        let grown = common::resident(std::process::id()).saturating_sub(before);
        assert!(grown < 32 << 20, "{grown} bytes");
        bus.stop().await.expect("stops");
        drop(fake);
    });
}
