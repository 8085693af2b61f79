//! The Rust client with a real ACP agent as the worker: one on the official Python SDK, unmodified.

mod common;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use common::client::{assert_kind, eventually};
use common::{BOUND, alone_async, python};
use serde_json::{Value, json};
use stdiobus::{
    ErrorCode, PoolConfig, Protocol, RequestOptions, ResponseStream, RpcError, StdioBus,
    StreamEvent, WorkerInfo, WorkerRequest, WorkerState,
};

const SDK: &str = "agent-client-protocol==0.12.1";

fn agent(python: &Path) -> PoolConfig {
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/workers/acp_agent.py");
    PoolConfig::new("agent", python)
        .arg(script)
        .protocol(Protocol::Acp)
}

/// Allows what is asked, and reads files that don't exist.
async fn answer(request: WorkerRequest) -> Result<Value, RpcError> {
    match request.method() {
        "session/request_permission" => {
            let option = &request.params()["options"][0]["optionId"];
            Ok(json!({"outcome": {"outcome": "selected", "optionId": option}}))
        }
        "fs/read_text_file" => {
            let path = request.params()["path"].as_str().unwrap_or_default();
            Ok(json!({"content": format!("what is in {path}")}))
        }
        other => Err(RpcError::method_not_found(other)),
    }
}

async fn started(python: &Path) -> StdioBus {
    started_with(agent(python)).await
}

async fn started_with(agent: PoolConfig) -> StdioBus {
    let bus = StdioBus::builder()
        .pool(agent)
        .on_request(answer)
        .build()
        .expect("valid");
    bus.start().await.expect("starts");
    let hello = json!({
        "protocolVersion": 1,
        "clientCapabilities": {"fs": {"readTextFile": true, "writeTextFile": false}},
    });
    let answer = bus.request("initialize", hello).await.expect("initialized");
    assert_eq!(answer["protocolVersion"], 1, "{answer}");
    bus
}

async fn new_session(bus: &StdioBus) -> String {
    let params = json!({"cwd": "/", "mcpServers": []});
    let answer = bus.request("session/new", params).await.expect("a session");
    answer["sessionId"].as_str().expect("a name").to_owned()
}

fn prompt(session: &str, text: &str) -> Value {
    json!({"sessionId": session, "prompt": [{"type": "text", "text": text}]})
}

/// The chunks of a turn, and its result.
async fn turn(mut stream: ResponseStream) -> (Vec<String>, Value) {
    let mut chunks = Vec::new();
    loop {
        match stream.next().await.expect("a result").expect("no error") {
            StreamEvent::Chunk(text) => chunks.push(text),
            StreamEvent::Result(result) => return (chunks, result),
            _ => {}
        }
    }
}

#[test]
fn three_sessions_of_one_agent_stream_at_once_and_never_mix() {
    let Some(python) = python(&[SDK]) else { return };
    alone_async(|| async {
        let bus = started(&python).await;
        let mut turns = Vec::new();
        for _ in 0..3 {
            let session = new_session(&bus).await;
            let stream = bus.stream_request("session/prompt", prompt(&session, "stream 100"));
            turns.push((session, tokio::spawn(turn(stream))));
        }
        for (session, turn) in turns {
            let (chunks, result) = turn.await.expect("no panic");
            let expected: Vec<_> = (0..100).map(|i| format!("[{session}:{i}]")).collect();
            assert_eq!(chunks, expected);
            assert_eq!(result["text"], expected.concat());
            assert_eq!(result["stopReason"], "end_turn");
        }
        bus.stop().await.expect("stops");
    });
}

#[test]
fn what_an_agent_asks_is_answered_while_another_session_streams() {
    let Some(python) = python(&[SDK]) else { return };
    alone_async(|| async {
        let bus = started(&python).await;
        let (talks, asks) = (new_session(&bus).await, new_session(&bus).await);
        let stream = bus.stream_request("session/prompt", prompt(&talks, "stream 500"));
        let talking = tokio::spawn(turn(stream));
        for (text, said) in [
            ("perm", "outcome=selected:ok"),
            ("read /a/file", "what is in /a/file"),
            ("hello", "hello"),
        ] {
            let result = bus.request("session/prompt", prompt(&asks, text)).await;
            assert_eq!(result.expect("answered")["text"], said);
        }
        assert_eq!(talking.await.expect("no panic").0.len(), 500);
        bus.stop().await.expect("stops");
    });
}

#[test]
fn a_turn_that_is_given_up_is_cancelled_at_the_agent() {
    let Some(python) = python(&[SDK]) else { return };
    alone_async(|| async {
        let bus = started(&python).await;
        let session = new_session(&bus).await;
        let start = Instant::now();
        // By its timeout, and by being dropped. Were it not cancelled, the agent would go on with
        // the turn, and the session would take no other.
        let options = RequestOptions::new().timeout(Duration::from_millis(200));
        let slow = prompt(&session, "slow 60");
        let result = bus.request_with("session/prompt", &slow, options).await;
        assert_kind(result, ErrorCode::Timeout);
        let next = bus.request("session/prompt", prompt(&session, "next"));
        assert_eq!(next.await.expect("answered")["text"], "next");

        let mut stream = bus.stream_request("session/prompt", &slow);
        tokio::select! {
            biased;
            event = stream.next() => panic!("{event:?}"),
            () = eventually("it is pending", || bus.pending_count() == Some(1)) => {}
        }
        drop(stream);
        let last = bus.request("session/prompt", prompt(&session, "last"));
        assert_eq!(last.await.expect("answered")["text"], "last");
        assert!(start.elapsed() < BOUND, "{:?}", start.elapsed());
        bus.stop().await.expect("stops");
    });
}

#[test]
fn sessions_are_spread_over_the_agents_of_a_pool_and_stay_where_they_are() {
    let Some(python) = python(&[SDK]) else { return };
    alone_async(|| async {
        let bus = started_with(agent(&python).instances(2)).await;
        let deadline = Instant::now() + BOUND;
        let ready = |worker: &WorkerInfo| worker.state == WorkerState::Ready;
        while !bus.workers().await.expect("known").iter().all(ready) {
            assert!(Instant::now() < deadline, "both are initialized");
            tokio::task::yield_now().await;
        }
        let mut pids = std::collections::HashMap::new();
        let mut sessions = Vec::new();
        for _ in 0..4 {
            sessions.push(new_session(&bus).await);
        }
        for round in 0..2 {
            for session in &sessions {
                let result = bus.request("session/prompt", prompt(session, "pid")).await;
                let pid = result.expect("answered")["text"].to_string();
                match round {
                    0 => drop(pids.insert(session.clone(), pid)),
                    _ => assert_eq!(pids[session], pid),
                }
            }
        }
        let agents: std::collections::HashSet<_> = pids.values().collect();
        assert_eq!(agents.len(), 2, "{pids:?}");
        bus.stop().await.expect("stops");
    });
}
