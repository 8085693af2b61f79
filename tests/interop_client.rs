//! The Rust client with an agent and servers of the official Python SDKs.

mod common;

use std::fs;
use std::path::Path;
use std::time::Duration;

use common::client::{assert_kind, soon};
use common::peer::*;
use common::{BOUND, alone_async, python};
use serde_json::{Value, json};
use stdiobus::{
    Error, ErrorCode, RequestOptions, ResponseStream, RpcError, StdioBus, StdioBusBuilder,
    StreamEvent, WorkerRequest,
};
use tokio::sync::{mpsc, oneshot};

/// A request of a worker, and where its answer goes.
type Asked = (WorkerRequest, oneshot::Sender<Value>);

/// A builder whose handler leaves the answers to the test.
fn with_handler(builder: StdioBusBuilder) -> (StdioBusBuilder, mpsc::UnboundedReceiver<Asked>) {
    let (sender, asked) = mpsc::unbounded_channel();
    let builder = builder.on_request(move |request: WorkerRequest| {
        let sender = sender.clone();
        async move {
            let (answer, answered) = oneshot::channel();
            sender.send((request, answer)).ok();
            answered
                .await
                .map_err(|_| RpcError::internal("the test answers nothing"))
        }
    });
    (builder, asked)
}

fn agent(python: &Path, log: &Log) -> StdioBusBuilder {
    let pool = python_pool(python, "agent", "acp_agent.py", 1, log);
    StdioBus::builder().config_json(config(&[pool]))
}

/// The running bus, once its agent has shaken hands.
async fn started(builder: StdioBusBuilder) -> StdioBus {
    let bus = builder.build().expect("valid");
    bus.start().await.expect("starts");
    let files = json!({"readTextFile": true});
    let hello = json!({"protocolVersion": 1, "clientCapabilities": {"fs": files}});
    let answer = bus.request("initialize", hello).await.expect("a handshake");
    assert_eq!(answer["protocolVersion"], 1, "{answer}");
    bus
}

async fn new_session(bus: &StdioBus) -> String {
    let new = json!({"cwd": "/tmp", "mcpServers": []});
    let answer = bus.request("session/new", new).await.expect("a session");
    answer["sessionId"].as_str().expect("its name").to_owned()
}

fn prompt(session: &str, text: &str) -> Value {
    json!({"sessionId": session, "prompt": [{"type": "text", "text": text}]})
}

/// All of a stream: its chunks and its end.
async fn all(mut stream: ResponseStream) -> (Vec<String>, Result<Value, Error>) {
    let mut chunks = Vec::new();
    loop {
        match soon("the next piece of a stream", stream.next()).await {
            Some(Ok(StreamEvent::Chunk(text))) => chunks.push(text),
            Some(Ok(StreamEvent::Result(result))) => return (chunks, Ok(result)),
            Some(Ok(_)) => {}
            Some(Err(error)) => return (chunks, Err(error)),
            None => panic!("a stream without an end; it had {} chunks", chunks.len()),
        }
    }
}

fn outcome(option: &str) -> Value {
    json!({"outcome": {"outcome": "selected", "optionId": option}})
}

#[test]
fn three_sessions_stream_a_thousand_chunks_each_at_once() {
    let Some(python) = python(&[ACP_SDK]) else {
        return;
    };
    alone_async(|| async move {
        let log = Log::new();
        let bus = started(agent(&python, &log)).await;
        let mut sessions = Vec::new();
        for _ in 0..3 {
            sessions.push(new_session(&bus).await);
        }
        let stream = |n: usize| {
            all(bus.stream_request("session/prompt", prompt(&sessions[n], "stream 1000")))
        };
        let (a, b, c) = tokio::join!(stream(0), stream(1), stream(2));
        for (session, (chunks, end)) in sessions.iter().zip([a, b, c]) {
            let wanted: Vec<_> = (0..1000).map(|i| format!("[{session}:{i}]")).collect();
            let wrong = (0..1000).find(|i| chunks.get(*i) != wanted.get(*i));
            assert_eq!(
                wrong, None,
                "the first chunk of {session} that is not as it should be"
            );
            assert_eq!(chunks.len(), 1000);
            let end = end.expect("an end");
            assert_eq!(end["stopReason"], "end_turn");
            assert_eq!(end["text"], wanted.concat());
        }
        bus.stop().await.expect("stops");
    });
}

#[test]
fn permissions_of_two_sessions_are_open_at_once_and_answered_in_reverse() {
    let Some(python) = python(&[ACP_SDK]) else {
        return;
    };
    alone_async(|| async move {
        let log = Log::new();
        let (builder, mut asked) = with_handler(agent(&python, &log));
        let bus = started(builder).await;
        let sessions = [new_session(&bus).await, new_session(&bus).await];
        let turn = |n: usize| {
            let text = ["perm", "read /etc/motto"][n];
            tokio::spawn(all(
                bus.stream_request("session/prompt", prompt(&sessions[n], text))
            ))
        };
        let turns = [turn(0), turn(1)];
        let mut open = Vec::new();
        for _ in 0..2 {
            open.push(
                soon("a request of the agent", asked.recv())
                    .await
                    .expect("the bus lives"),
            );
        }
        open.sort_by_key(|(request, _)| request.session_id() != Some(&sessions[0]));
        assert_eq!(open[0].0.method(), "session/request_permission");
        assert_eq!(open[1].0.method(), "fs/read_text_file");
        for (n, (request, answer)) in open.into_iter().enumerate().rev() {
            assert_eq!(request.session_id(), Some(sessions[n].as_str()));
            let result = [outcome("ok"), json!({"content": "a file"})][n].clone();
            answer.send(result).expect("it is waited for");
        }
        for (n, turn) in turns.into_iter().enumerate() {
            let (chunks, end) = turn.await.expect("no panic");
            assert_eq!(chunks, [["outcome=selected:ok", "a file"][n]]);
            assert_eq!(end.expect("an end")["stopReason"], "end_turn");
        }
        bus.stop().await.expect("stops");
    });
}

#[test]
fn without_a_handler_a_permission_is_cancelled_and_a_file_unknown_at_once() {
    let Some(python) = python(&[ACP_SDK]) else {
        return;
    };
    alone_async(|| async move {
        let log = Log::new();
        let bus = started(agent(&python, &log)).await;
        let session = new_session(&bus).await;
        let answer = bus
            .request("session/prompt", prompt(&session, "perm"))
            .await;
        assert_eq!(answer.expect("an end")["text"], "outcome=cancelled:");
        let error = bus
            .request("session/prompt", prompt(&session, "read /etc/motto"))
            .await;
        assert!(matches!(error, Err(Error::Rpc { .. })), "{error:?}");
        let declined = |seen: &Seen| seen.json()["error"]["code"] == -32601;
        log.wait("the error for its file request", declined);
        bus.stop().await.expect("stops");
    });
}

#[test]
fn a_stream_that_is_dropped_cancels_its_turn_and_the_next_one_is_clean() {
    let Some(python) = python(&[ACP_SDK]) else {
        return;
    };
    alone_async(|| async move {
        let log = Log::new();
        let bus = started(agent(&python, &log)).await;
        let session = new_session(&bus).await;
        let other = new_session(&bus).await;
        let release = log.beside("release");
        let text = format!("until {}", release.display());
        let mut stream = bus.stream_request("session/prompt", prompt(&session, &text));
        let first = soon("the first chunk", stream.next()).await;
        assert!(
            matches!(first, Some(Ok(StreamEvent::Chunk(_)))),
            "{first:?}"
        );
        drop(stream);
        let cancel = log.wait("session/cancel", |seen| seen.is("session/cancel"));
        assert_eq!(cancel.json()["params"]["sessionId"], session);

        // the agent goes on streaming; the next turn waits, another session doesn't
        let next = tokio::spawn(all(
            bus.stream_request("session/prompt", prompt(&session, "clean"))
        ));
        let (chunks, end) =
            all(bus.stream_request("session/prompt", prompt(&other, "hello"))).await;
        assert_eq!(chunks, ["hello"]);
        end.expect("an end");
        let prompts = log.with_method("session/prompt");
        assert!(
            !prompts.iter().any(|seen| seen.line.contains("clean")),
            "two turns at once"
        );
        fs::write(release, "").expect("the old turn can end");
        let (chunks, end) = next.await.expect("no panic");
        assert_eq!(chunks, ["clean"]);
        assert_eq!(end.expect("an end")["text"], "clean");
        bus.stop().await.expect("stops");
    });
}

#[test]
fn a_killed_agent_ends_its_streams_and_a_late_allow_is_nobodys() {
    let Some(python) = python(&[ACP_SDK]) else {
        return;
    };
    alone_async(|| async move {
        let log = Log::new();
        let (builder, mut asked) = with_handler(agent(&python, &log));
        let bus = started(builder).await;
        let session = new_session(&bus).await;
        let turn = tokio::spawn(all(
            bus.stream_request("session/prompt", prompt(&session, "perm"))
        ));
        let (_, old) = soon("the permission request", asked.recv())
            .await
            .expect("the bus lives");
        kill_now(log.pids()[0]);
        let (_, end) = turn.await.expect("no panic");
        assert_kind(end, ErrorCode::TransportError);

        // the successor needs no other handshake; the late answer is nobody's
        let session = new_session(&bus).await;
        let turn = tokio::spawn(all(
            bus.stream_request("session/prompt", prompt(&session, "perm"))
        ));
        let (_, new) = soon("the other request", asked.recv())
            .await
            .expect("the bus lives");
        old.send(outcome("ok")).ok();
        new.send(outcome("no")).expect("it is waited for");
        let (chunks, end) = turn.await.expect("no panic");
        assert_eq!(chunks, ["outcome=selected:no"]);
        end.expect("an end");
        assert_eq!(log.with_method("initialize").len(), 2);
        bus.stop().await.expect("stops");
    });
}

#[test]
fn a_prompt_has_no_default_timeout() {
    let Some(python) = python(&[ACP_SDK]) else {
        return;
    };
    alone_async(|| async move {
        let log = Log::new();
        let mut pool = python_pool(&python, "agent", "acp_agent.py", 1, &log);
        pool["initialize"] = json!({"protocolVersion": 1, "clientCapabilities": {}});
        let builder = StdioBus::builder()
            .config_json(config(&[pool]))
            .timeout(Duration::from_millis(700));
        let bus = builder.build().expect("valid");
        bus.start().await.expect("starts");
        // the agent takes its time to start, which this must not count
        let patient = RequestOptions::new().timeout(BOUND);
        let new = json!({"cwd": "/tmp", "mcpServers": []});
        let answer = bus.request_with("session/new", new, patient).await;
        let session = answer.expect("a session")["sessionId"].clone();
        let session = session.as_str().expect("its name");
        let answer = bus
            .request("session/prompt", prompt(session, "slow 1.5"))
            .await;
        assert_eq!(answer.expect("no timeout")["text"], "done");
        bus.stop().await.expect("stops");
    });
}

#[test]
fn an_mcp_server_samples_lists_roots_reports_progress_and_is_cancelled() {
    let Some(python) = python(&[MCP_SDK]) else {
        return;
    };
    alone_async(|| async move {
        let log = Log::new();
        let pool = python_pool(&python, "server", "mcp_server.py", 2, &log);
        let builder = StdioBus::builder().config_json(config(&[pool]));
        let builder = builder.on_request(|request: WorkerRequest| async move {
            match request.method() {
                "roots/list" => Ok(json!({"roots": [{"uri": "file:///ours"}]})),
                "sampling/createMessage" => {
                    let asked = &request.params()["messages"][0]["content"]["text"];
                    let content = json!({"type": "text", "text": format!("asked {asked}")});
                    Ok(json!({"role": "assistant", "model": "m", "content": content}))
                }
                other => Err(RpcError::method_not_found(other)),
            }
        });
        let bus = builder.build().expect("valid");
        bus.start().await.expect("starts");
        let hello = mcp_initialize("tests", json!({"roots": {}, "sampling": {}}));
        bus.request("initialize", hello).await.expect("a handshake");
        bus.notify("notifications/initialized", json!({}))
            .await
            .expect("sent");

        let call = |name: &str, arguments: Value| json!({"name": name, "arguments": arguments});
        let said = |result: Result<Value, Error>| tool_text(&result.expect("a result")).to_owned();
        let (sampled, roots) = tokio::join!(
            bus.request("tools/call", call("sample", json!({"question": "who?"}))),
            bus.request("tools/call", call("roots", json!({})))
        );
        assert_eq!(said(sampled), "asked \"who?\"");
        assert_eq!(said(roots), "file:///ours");

        let mut params = call("steps", json!({"n": 20}));
        params["_meta"] = json!({"progressToken": 0});
        let mut stream = bus.stream_request("tools/call", params);
        let mut progress = Vec::new();
        let end = loop {
            match soon("progress", stream.next()).await {
                Some(Ok(StreamEvent::Update(note))) => {
                    progress.push(note.params()["progress"].as_f64())
                }
                Some(Ok(StreamEvent::Result(result))) => break result,
                other => panic!("{other:?}"),
            }
        };
        let wanted: Vec<_> = (1..=20).map(|step| Some(f64::from(step))).collect();
        assert_eq!(progress, wanted);
        assert_eq!(tool_text(&end), "20 steps");

        let held = tokio::time::timeout(
            Duration::from_millis(300),
            bus.request("tools/call", call("hold", json!({}))),
        );
        held.await.expect_err("it is held");
        let cancel = log.wait("a cancel", |seen| seen.is("notifications/cancelled"));
        let read = log.of(cancel.pid);
        let id = &cancel.json()["params"]["requestId"];
        let named = read.iter().find(|seen| seen.json()["id"] == *id);
        assert!(named.expect("its call").line.contains("hold"), "{named:?}");
        let next = bus
            .request("tools/call", call("echo", json!({"text": "free"})))
            .await;
        assert_eq!(said(next), "free");
        assert_one_handshake_each(&log);
        bus.stop().await.expect("stops");
    });
}
