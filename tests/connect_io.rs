//! Virtual clients: the bus as a stream of lines inside this process.

mod common;

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use agent_client_protocol::schema::ProtocolVersion;
use agent_client_protocol::v1::ConnectionTo;
use agent_client_protocol::v1::schema::{
    ContentBlock, ContentChunk, InitializeRequest, NewSessionRequest, PromptRequest,
    RequestPermissionOutcome, RequestPermissionRequest, RequestPermissionResponse,
    SelectedPermissionOutcome, SessionNotification, SessionUpdate, StopReason, TextContent,
};
use agent_client_protocol::{Agent, ByteStreams, Client};
use common::client::{assert_kind, block_on, eventually};
use common::{alone_async, open_tokios_sockets, python, zoo, zoo_pool};
use rmcp::ServiceExt;
use rmcp::model::CallToolRequestParams;
use serde_json::{Value, json};
use stdiobus::{BusStream, ErrorCode, Event, PoolConfig, Protocol, StdioBus, StdioBusBuilder};
use tokio::io::{
    AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, ReadHalf, WriteHalf, split,
};
use tokio_util::compat::{TokioAsyncReadCompatExt, TokioAsyncWriteCompatExt};

async fn start(builder: StdioBusBuilder) -> StdioBus {
    let bus = builder.build().expect("valid");
    bus.start().await.expect("starts");
    bus
}

async fn one_worker() -> StdioBus {
    start(StdioBus::builder().pool(zoo_pool(&["echo"]))).await
}

fn pool(name: &str) -> PoolConfig {
    PoolConfig::new(name, zoo()).args(["echo", "crlf"])
}

struct Lines {
    read: BufReader<ReadHalf<BusStream>>,
    write: WriteHalf<BusStream>,
}

impl Lines {
    async fn connect(bus: &StdioBus, pool: Option<&str>) -> Lines {
        let (read, write) = split(bus.connect_io(pool).await.expect("connects"));
        Lines {
            read: BufReader::new(read),
            write,
        }
    }

    async fn send(&mut self, message: &Value) {
        let line = format!("{message}\n");
        self.write
            .write_all(line.as_bytes())
            .await
            .expect("it is taken");
    }

    async fn receive(&mut self) -> Value {
        let mut line = String::new();
        self.read.read_line(&mut line).await.expect("a line");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
    }

    async fn ask(&mut self, id: Value, method: &str, params: Value) -> Value {
        self.send(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}))
            .await;
        self.receive().await
    }
}

#[test]
fn a_line_that_asks_is_answered_with_a_line() {
    alone_async(|| async {
        let bus = one_worker().await;
        let mut client = Lines::connect(&bus, Some("zoo")).await;
        for id in [json!(0), json!("x"), json!(0)] {
            let answer = client.ask(id.clone(), "echo", json!({"a": "ü"})).await;
            assert_eq!(answer["id"], id);
            assert_eq!(answer["result"], json!({"a": "ü"}));
        }
        drop(client);
        bus.stop().await.expect("stops");
    });
}

#[test]
fn every_stream_is_a_client_of_its_own() {
    alone_async(|| async {
        let bus = one_worker().await;
        let mut clients = Vec::new();
        let mut ids = HashSet::new();
        for _ in 0..10 {
            let stream = bus.connect_io(None).await.expect("connects");
            assert!(ids.insert(stream.client_id()));
            clients.push(BufReader::new(stream));
        }
        assert_eq!(bus.client_count(), Some(10));
        // All with the same id, all at once, the slowest first.
        for (i, client) in clients.iter_mut().enumerate() {
            let params = json!({"ms": 50 - 5 * i, "i": i});
            let request = json!({"jsonrpc": "2.0", "id": 1, "method": "sleep", "params": params});
            let line = format!("{request}\n");
            client.write_all(line.as_bytes()).await.expect("taken");
        }
        for (i, client) in clients.iter_mut().enumerate() {
            let mut line = String::new();
            client.read_line(&mut line).await.expect("a line");
            let answer: Value = serde_json::from_str(&line).expect("JSON");
            assert_eq!(answer["result"]["i"], i);
        }
        bus.stop().await.expect("stops");
    });
}

#[test]
fn what_a_client_says_goes_to_its_pool() {
    alone_async(|| async {
        let bus = start(
            StdioBus::builder()
                .pool(zoo_pool(&["echo"]))
                .pool(pool("other")),
        )
        .await;
        for (pool, args) in [("zoo", json!(["echo"])), ("other", json!(["echo", "crlf"]))] {
            let mut client = Lines::connect(&bus, Some(pool)).await;
            let answer = client.ask(json!(1), "args", json!({})).await;
            assert_eq!(answer["result"], args, "{pool}");
        }
        let mut nowhere = Lines::connect(&bus, None).await;
        let answer = nowhere.ask(json!(1), "args", json!({})).await;
        assert_eq!(answer["error"]["code"], -32010, "{answer}");
        for missing in ["nobody", "", "a\0b"] {
            let refused = bus.connect_io(Some(missing)).await;
            assert_kind(refused, ErrorCode::InvalidArgument);
        }
        bus.stop().await.expect("stops");
    });
}

#[test]
fn a_client_is_asked_itself_and_not_the_process() {
    alone_async(|| async {
        let builder = StdioBus::builder()
            .pool(zoo_pool(&["echo"]))
            .on_request(|_| async { Ok(json!("the process")) });
        let bus = start(builder).await;
        let mut notes = bus.subscribe_notifications();
        let mut client = Lines::connect(&bus, None).await;
        let question = client.ask(json!("q"), "ask", json!({"id": 5})).await;
        assert_eq!(question["method"], "ask");
        client
            .send(&json!({"jsonrpc": "2.0", "id": question["id"], "result": "the client"}))
            .await;
        let answer = client.receive().await;
        assert_eq!(answer["result"], "the client");

        let note = client.ask(json!("n"), "notify", json!({"n": 1})).await;
        assert_eq!(note["method"], "note");
        assert_eq!(client.receive().await["id"], "n");
        bus.stop().await.expect("stops");
        assert!(notes.next().await.is_none());
    });
}

#[test]
fn dropping_a_stream_disconnects_its_client_and_gives_up_what_it_asked() {
    alone_async(|| async {
        let bus = one_worker().await;
        let mut events = bus.events();
        let mut stream = bus.connect_io(None).await.expect("connects");
        let id = stream.client_id();
        let request = b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"hold\"}\n";
        stream.write_all(request).await.expect("taken");
        eventually("it is pending", || bus.pending_count() == Some(1)).await;
        drop(stream);
        loop {
            let event = events.next().await.expect("the bus runs");
            if let Event::ClientDisconnected { client, .. } = event {
                assert_eq!(client, id);
                break;
            }
        }
        eventually("nothing is pending", || bus.pending_count() == Some(0)).await;
        bus.stop().await.expect("stops");
    });
}

#[test]
fn after_its_last_word_a_client_still_gets_its_answers() {
    alone_async(|| async {
        let bus = one_worker().await;
        let mut stream = bus.connect_io(None).await.expect("connects");
        let request = json!({"jsonrpc": "2.0", "id": 1, "method": "sleep", "params": {"ms": 50}});
        let line = format!("{request}\n");
        stream.write_all(line.as_bytes()).await.expect("taken");
        stream.shutdown().await.expect("shuts down");
        let mut rest = String::new();
        stream.read_to_string(&mut rest).await.expect("to the end");
        let answer: Value = serde_json::from_str(&rest).expect("one answer");
        assert_eq!(answer["id"], 1);
        bus.stop().await.expect("stops");
    });
}

#[test]
fn a_large_message_passes_both_ways() {
    alone_async(|| async {
        let bus = one_worker().await;
        let mut client = Lines::connect(&bus, None).await;
        let text = "x".repeat(3 << 20);
        // The worker answers while it still reads, so both sides have to go on.
        let answer = client.ask(json!(1), "echo", json!([text])).await;
        assert!(answer["result"][0] == text);
        bus.stop().await.expect("stops");
    });
}

#[test]
fn when_the_bus_ends_a_stream_is_at_its_end() {
    alone_async(|| async {
        let bus = one_worker().await;
        let mut stream = bus.connect_io(None).await.expect("connects");
        bus.stop().await.expect("stops");
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.expect("to the end");
        assert_eq!(rest, b"");
        assert_kind(bus.connect_io(None).await, ErrorCode::InvalidState);
    });
}

#[test]
fn without_tokio_there_is_an_error_and_no_panic() {
    open_tokios_sockets();
    common::alone(|| {
        let bus = StdioBus::builder()
            .pool(zoo_pool(&["echo"]))
            .build()
            .expect("valid");
        block_on(bus.start()).expect("starts");
        assert_kind(block_on(bus.connect_io(None)), ErrorCode::InvalidState);
        block_on(bus.stop()).expect("stops");
    });
}

// ---- other libraries ---------------------------------------------------------------------------

#[test]
fn the_rust_sdk_of_acp_works_over_it() {
    let Some(python) = python(&["agent-client-protocol==0.12.1"]) else {
        return;
    };
    alone_async(|| async {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/workers/acp_agent.py");
        let bus = StdioBus::builder()
            .pool(
                PoolConfig::new("agent", python)
                    .arg(script)
                    .protocol(Protocol::Acp),
            )
            .build()
            .expect("valid");
        bus.start().await.expect("starts");
        let io = bus.connect_io(Some("agent")).await.expect("connects");
        let (read, write) = tokio::io::split(io);
        let said = Arc::new(Mutex::new(String::new()));
        let hears = Arc::clone(&said);

        let client = Client
            .v1()
            .on_receive_notification(
                async move |notification: SessionNotification, _| {
                    if let SessionUpdate::AgentMessageChunk(ContentChunk {
                        content: ContentBlock::Text(text),
                        ..
                    }) = notification.update
                    {
                        hears.lock().expect("no panic").push_str(&text.text);
                    }
                    Ok(())
                },
                agent_client_protocol::on_receive_notification!(),
            )
            .on_receive_request(
                async move |request: RequestPermissionRequest, responder, _| {
                    let option = request.options[0].option_id.clone();
                    let outcome = SelectedPermissionOutcome::new(option);
                    responder.respond(RequestPermissionResponse::new(
                        RequestPermissionOutcome::Selected(outcome),
                    ))
                },
                agent_client_protocol::on_receive_request!(),
            );
        let streams = ByteStreams::new(write.compat_write(), read.compat());
        client
            .connect_with(streams, |agent: ConnectionTo<Agent>| async move {
                let hello = InitializeRequest::new(ProtocolVersion::V1);
                agent.send_request(hello).block_task().await?;
                let session = agent
                    .send_request(NewSessionRequest::new("/"))
                    .block_task()
                    .await?;
                let text = ContentBlock::Text(TextContent::new("perm"));
                let prompt = PromptRequest::new(session.session_id, vec![text]);
                let end = agent.send_request(prompt).block_task().await?;
                assert_eq!(end.stop_reason, StopReason::EndTurn);
                Ok(())
            })
            .await
            .expect("a whole turn");
        assert_eq!(*said.lock().expect("no panic"), "outcome=selected:ok");
        bus.stop().await.expect("stops");
    });
}

#[test]
fn two_clients_of_the_rust_sdk_of_mcp_share_one_server() {
    let Some(python) = python(&["mcp-server-time==2026.10.19"]) else {
        return;
    };
    alone_async(|| async {
        let server = PoolConfig::new("time", python)
            .args(["-m", "mcp_server_time"])
            .protocol(Protocol::Mcp);
        let bus = start(StdioBus::builder().pool(server)).await;
        let mut clients = Vec::new();
        for _ in 0..2 {
            let io = bus.connect_io(Some("time")).await.expect("connects");
            clients.push(().serve(split(io)).await.expect("initialized"));
        }
        for client in &clients {
            let mut call = CallToolRequestParams::new("get_current_time");
            call.arguments = json!({"timezone": "Europe/Paris"}).as_object().cloned();
            let answer = client.call_tool(call).await.expect("called");
            let answer = serde_json::to_string(&answer).expect("JSON");
            assert!(answer.contains("Europe/Paris"), "{answer}");
        }
        for client in clients {
            client.cancel().await.expect("ends");
        }
        bus.stop().await.expect("stops");
    });
}
