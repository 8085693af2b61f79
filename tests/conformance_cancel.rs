//! Conformance: requests that are given up. Number 6 of CONFORMANCE.md, and
//! prompts whose future is dropped, that time out, or whose client leaves.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::client::{assert_kind, eventually, short};
use common::peer::*;
use common::{Client, Program, TempDir, alone, alone_async, python};
use serde_json::{Value, json};
use stdiobus::{ErrorCode, ListenMode, RequestOptions, StdioBus};

/// A running bus with this pool, and with a Unix listener where there is a path.
async fn bus_with(pool: Value, listen: Option<PathBuf>) -> StdioBus {
    let mut builder = StdioBus::builder().config_json(config(&[pool]));
    if let Some(path) = listen {
        builder = builder.listen(ListenMode::unix(path));
    }
    let bus = builder.build().expect("valid");
    bus.start().await.expect("starts");
    bus
}

fn mcp_params() -> Value {
    mcp_initialize("tests", json!({}))
}

fn acp_params() -> Value {
    json!({"protocolVersion": 1, "clientCapabilities": {}})
}

/// Steps that answer, too late, when the cancel has come.
fn late_answer(cancel: &str) -> Value {
    json!([on(cancel, json!([answers("\"late\"")]))])
}

/// Number 6, MCP.
#[test]
fn a_timeout_tells_an_mcp_server_to_cancel_by_the_id_that_it_knows() {
    alone_async(|| async {
        let log = Log::new();
        let bus = bus_with(puppet_pool("p", "mcp", 1, &log, &[]), None).await;
        bus.request("initialize", mcp_params())
            .await
            .expect("a handshake");
        let held = play(late_answer("notifications/cancelled"));
        assert_kind(
            bus.request_with("tools/call", held, short()).await,
            ErrorCode::Timeout,
        );

        let cancel = log.wait("a cancel", |seen| seen.is("notifications/cancelled"));
        let request = log.wait("the call", |seen| seen.is("tools/call")).json();
        let named = &cancel.json()["params"]["requestId"];
        assert_eq!(*named, request["id"], "the id that the server knows");
        let next = bus
            .request("echo", json!({"n": 2}))
            .await
            .expect("an answer");
        assert_eq!(next["n"], 2, "not the late one: {next}");
        bus.stop().await.expect("stops");
    });
}

/// Number 6, ACP: a prompt, and anything else.
#[test]
fn a_timeout_tells_an_acp_agent_what_it_cancels() {
    alone_async(|| async {
        let log = Log::new();
        let bus = bus_with(puppet_pool("p", "acp", 1, &log, &[]), None).await;
        bus.request("initialize", acp_params())
            .await
            .expect("a handshake");
        let session = bus
            .request("session/new", json!({"cwd": "/", "mcpServers": []}))
            .await
            .expect("a session")["sessionId"]
            .clone();

        let held = json!({"play": late_answer("$/cancel_request")});
        assert_kind(
            bus.request_with("session/list", held, short()).await,
            ErrorCode::Timeout,
        );
        let cancel = log
            .wait("$/cancel_request", |seen| seen.is("$/cancel_request"))
            .json();
        let request = log
            .wait("the request", |seen| seen.is("session/list"))
            .json();
        assert_eq!(
            cancel["params"]["requestId"], request["id"],
            "by the agent's id"
        );

        let held = json!({"sessionId": session, "play": late_answer("session/cancel")});
        assert_kind(
            bus.request_with("session/prompt", held, short()).await,
            ErrorCode::Timeout,
        );
        let cancel = log
            .wait("session/cancel", |seen| seen.is("session/cancel"))
            .json();
        assert_eq!(cancel["params"]["sessionId"], session);
        let next = json!({"sessionId": session, "n": 2});
        let answer = bus
            .request("session/prompt", next)
            .await
            .expect("an answer");
        assert_eq!(answer["n"], 2, "not the late one: {answer}");
        bus.stop().await.expect("stops");
    });
}

/// Number 6, plain workers.
#[test]
fn a_timeout_tells_a_plain_worker_nothing() {
    alone_async(|| async {
        let log = Log::new();
        let bus = bus_with(puppet_pool("p", "ndjson", 1, &log, &[]), None).await;
        let held = json!({"play": []});
        assert_kind(
            bus.request_with("held", held, short()).await,
            ErrorCode::Timeout,
        );
        bus.request("echo", json!({})).await.expect("an answer");
        let read: Vec<_> = log
            .of(log.pids()[0])
            .iter()
            .map(|seen| seen.json()["method"].clone())
            .collect();
        assert_eq!(read, ["held", "echo"]);
        bus.stop().await.expect("stops");
    });
}

/// Number 6, over sockets: the client's own cancel names the request by the client's id.
#[test]
fn a_cancel_of_a_client_reaches_the_server_with_the_id_that_it_knows_and_none_other_does() {
    alone(|| {
        let log = Log::new();
        let bus = Program::start(
            &config(&[puppet_pool("p", "mcp", 1, &log, &[])]),
            UNIX_AND_TCP,
        );
        let mut peers = [bus.unix_client(), bus.tcp_client()].map(Peer::new);
        for peer in &mut peers {
            peer.initialize_mcp();
        }
        let held = |n: usize| {
            let mut params = play(late_answer("notifications/cancelled"));
            params["n"] = json!(n);
            params
        };
        // a request that has ended, one that nobody has sent, and one of the other client's
        let ended = peers[0].request("echo", json!({}));
        peers[0].result(ended);
        let call = peers[1].request("tools/call", held(1));
        assert_eq!(peers[0].request("tools/call", held(0)), call + 1);
        for id in [json!(ended), json!(999), json!("x"), json!(call)] {
            peers[0].notify("notifications/cancelled", json!({"requestId": id}));
        }
        peers[0].notify("notifications/cancelled", json!({"requestId": call + 1}));
        log.wait("a cancel", |seen| seen.is("notifications/cancelled"));
        peers[0].got_nothing_else();

        let calls = log.with_method("tools/call");
        let own = calls.iter().find(|seen| seen.json()["params"]["n"] == 0);
        let cancels = log.with_method("notifications/cancelled");
        assert_eq!(
            cancels.len(),
            1,
            "one of five named something pending: {cancels:?}"
        );
        let named = cancels[0].json()["params"]["requestId"].clone();
        assert_eq!(named, own.expect("its call").json()["id"]);
    });
}

/// What a call that was given up still says and asks is nobody else's, though one other client has
/// something pending and would be the only guess.
#[test]
fn what_a_cancelled_call_still_asks_is_declined_and_shown_to_no_other_client() {
    alone(|| {
        let log = Log::new();
        let bus = Program::start(
            &config(&[puppet_pool("p", "mcp", 1, &log, &[])]),
            UNIX_AND_TCP,
        );
        let mut other = Peer::new(bus.unix_client());
        other.initialize_mcp();
        let held = json!([on("notifications/go", json!([answers("1")]))]);
        let call = other.request("tools/call", play(held));
        let late = |id: u32| {
            let says = r#"{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":"a secret"}}"#;
            let asks = format!(
                r#"{{"jsonrpc":"2.0","id":{id},"method":"sampling/createMessage","params":{{"messages":["a secret"]}}}}"#
            );
            json!([on("notifications/cancelled", json!([says, asks]))])
        };
        let declined = |id: u32| {
            let what = format!("the answer to its request {id}");
            let answer = log.wait(&what, |seen| {
                seen.json().get("id") == Some(&json!(id)) && !seen.is("tools/call")
            });
            assert_eq!(answer.json()["error"]["code"], -32601, "{}", answer.line);
        };
        // by its client's own word, then by its departure
        let mut gives_up = Peer::new(bus.tcp_client());
        gives_up.initialize_mcp();
        let id = gives_up.request("tools/call", play(late(9001)));
        gives_up.notify("notifications/cancelled", json!({"requestId": id}));
        log.wait("a cancel", |seen| seen.is("notifications/cancelled"));
        let fence = other.request("fence", json!({}));
        other.result(fence);
        other.kept_nothing("another client's");
        declined(9001);

        gives_up.request("tools/call", play(late(9002)));
        log.wait_for(3, "the call", |seen| seen.is("tools/call"));
        drop(gives_up);
        log.wait_for(2, "another cancel", |seen| {
            seen.is("notifications/cancelled")
        });
        let fence = other.request("fence", json!({}));
        other.result(fence);
        other.kept_nothing("another client's");
        declined(9002);
        other.notify("notifications/go", json!({}));
        other.result(call);
    });
}

/// The same turn, given up in different ways.
enum How {
    Drop,
    Timeout,
    Unix,
    Tcp,
}

/// Number 6 on the official agent: it sees `session/cancel`, its late answer and chunks reach nobody,
/// and the session's next prompt has nothing of the old turn.
fn a_given_up_prompt(python: &Path, how: How) {
    let (log, dir) = (Log::new(), TempDir::new());
    let pool = python_pool(python, "agent", "acp_agent.py", 1, &log);
    let bus = Program::start(&config(&[pool]), UNIX_AND_TCP);
    let socket = |how: &How| match how {
        How::Tcp => bus.tcp_client(),
        _ => bus.unix_client(),
    };
    let release = dir.path("release");
    let mut leaver = Peer::new(socket(&how));
    leaver.initialize_acp();
    let mut witness = Peer::new(bus.unix_client());
    witness.initialize_acp();
    let (session, other) = (leaver.new_session(), witness.new_session());
    leaver.prompt(&session, &format!("late {}", release.display()));
    log.wait("the prompt", |seen| seen.is("session/prompt"));
    drop(leaver);

    let cancel = log.wait("session/cancel", |seen| seen.is("session/cancel"));
    assert_eq!(cancel.json()["params"]["sessionId"], session);

    // Another client goes on with the session, before its old turn has ended.
    let mut next = Peer::new(socket(&how));
    next.initialize_acp();
    let prompt = next.prompt(&session, "a clean start");
    let fence = witness.prompt(&other, "fence");
    witness.result(fence);
    assert_eq!(witness.chunks(&other), ["fence"]);
    witness.kept_nothing("a stranger got more");
    let prompts = log.with_method("session/prompt");
    let early = prompts
        .iter()
        .any(|seen| seen.line.contains("a clean start"));
    assert!(!early, "the agent has two turns of one session");

    fs::write(release, "").expect("the old turn can end");
    assert_eq!(next.result(prompt)["stopReason"], "end_turn");
    assert_eq!(next.chunks(&session), ["a clean start"]);
    next.kept_nothing("something of the old turn");
    assert_eq!(log.with_method("session/cancel").len(), 1);
}

#[test]
fn a_prompt_whose_client_leaves_a_unix_socket_is_cancelled_and_leaves_nothing() {
    let Some(python) = python(&[ACP_SDK]) else {
        return;
    };
    alone(|| a_given_up_prompt(&python, How::Unix));
}

#[test]
fn a_prompt_whose_client_leaves_tcp_is_cancelled_and_leaves_nothing() {
    let Some(python) = python(&[ACP_SDK]) else {
        return;
    };
    alone(|| a_given_up_prompt(&python, How::Tcp));
}

/// The Rust client gives its prompt up; the session's next one is its own too.
async fn a_prompt_given_up_in_process(python: &Path, how: How) {
    let log = Log::new();
    let pool = python_pool(python, "agent", "acp_agent.py", 1, &log);
    let bus = bus_with(pool, None).await;
    bus.request("initialize", acp_params())
        .await
        .expect("a handshake");
    let new = json!({"cwd": "/tmp", "mcpServers": []});
    let session = bus.request("session/new", new).await.expect("a session")["sessionId"].clone();
    let prompt =
        |text: &str| json!({"sessionId": session, "prompt": [{"type": "text", "text": text}]});
    let release = log.beside("release");
    let held = prompt(&format!("late {}", release.display()));
    let is_prompt = |seen: &Seen| seen.is("session/prompt");
    match how {
        How::Timeout => {
            let options = RequestOptions::new().timeout(Duration::from_millis(300));
            let result = bus.request_with("session/prompt", held, options).await;
            assert_kind(result, ErrorCode::Timeout);
        }
        _ => {
            let request = bus.request("session/prompt", held);
            tokio::select! {
                answer = request => panic!("answered: {answer:?}"),
                () = eventually("the prompt is there", || log.all().iter().any(is_prompt)) => {}
            }
        }
    }
    let cancel = log.wait("session/cancel", |seen| seen.is("session/cancel"));
    assert_eq!(cancel.json()["params"]["sessionId"], session);

    let next = bus.request("session/prompt", prompt("a clean start"));
    fs::write(release, "").expect("the old turn can end");
    let result = next.await.expect("an answer");
    assert_eq!(result["stopReason"], "end_turn", "{result}");
    assert_eq!(result["text"], "a clean start", "something of the old turn");
    assert_eq!(log.with_method("session/cancel").len(), 1);
    bus.stop().await.expect("stops");
}

#[test]
fn a_prompt_whose_future_is_dropped_is_cancelled_and_leaves_nothing() {
    let Some(python) = python(&[ACP_SDK]) else {
        return;
    };
    alone_async(|| async move { a_prompt_given_up_in_process(&python, How::Drop).await });
}

#[test]
fn a_prompt_that_times_out_is_cancelled_and_leaves_nothing() {
    let Some(python) = python(&[ACP_SDK]) else {
        return;
    };
    alone_async(|| async move { a_prompt_given_up_in_process(&python, How::Timeout).await });
}

/// A permission that is open in a cancelled turn is answered for the person who left.
#[test]
fn a_permission_that_is_open_when_its_client_leaves_is_answered_cancelled() {
    let Some(python) = python(&[ACP_SDK]) else {
        return;
    };
    alone(|| {
        let log = Log::new();
        let pool = python_pool(&python, "agent", "acp_agent.py", 1, &log);
        let bus = Program::start(&config(&[pool]), UNIX_AND_TCP);
        for client in [bus.unix_client(), bus.tcp_client()] {
            let before = log.all().len();
            let mut leaver = Peer::new(client);
            leaver.initialize_acp();
            let session = leaver.new_session();
            leaver.prompt(&session, "perm");
            leaver.message("session/request_permission");
            drop(leaver);
            let is_answer =
                |seen: &Seen| seen.json()["result"]["outcome"]["outcome"] == "cancelled";
            let count = 1 + log.all()[..before]
                .iter()
                .filter(|seen| is_answer(seen))
                .count();
            log.wait_for(count, "the outcome `cancelled`", is_answer);

            let mut next = Peer::new(bus.unix_client());
            next.initialize_acp();
            let prompt = next.prompt(&session, "a clean start");
            assert_eq!(next.result(prompt)["stopReason"], "end_turn");
            assert_eq!(next.chunks(&session), ["a clean start"]);
        }
    });
}

/// What a client cancels itself still ends, with the agent's own last word.
#[test]
fn a_turn_that_its_client_cancels_ends_with_the_agents_answer() {
    let Some(python) = python(&[ACP_SDK]) else {
        return;
    };
    alone(|| {
        let log = Log::new();
        let pool = python_pool(&python, "agent", "acp_agent.py", 1, &log);
        let bus = Program::start(&config(&[pool]), UNIX_AND_TCP);
        let mut peer = Peer::new(bus.unix_client());
        peer.initialize_acp();
        let session = peer.new_session();
        let prompt = peer.prompt(&session, "slow 60");
        peer.notify("session/cancel", json!({"sessionId": session}));
        assert_eq!(peer.result(prompt)["stopReason"], "cancelled");
        let next = peer.prompt(&session, "again");
        assert_eq!(peer.result(next)["stopReason"], "end_turn");
        assert_eq!(peer.chunks(&session), ["again"]);
        peer.kept_nothing("more came");
        assert_eq!(log.with_method("session/cancel").len(), 1);
    });
}

/// `$/cancel_request` is always answered, so the client waits for that answer.
#[test]
fn a_request_that_an_acp_client_cancels_ends_with_the_agents_answer() {
    alone(|| {
        let log = Log::new();
        let pool = puppet_pool("p", "acp", 1, &log, &[]);
        let bus = Program::start(&config(&[pool]), UNIX_AND_TCP);
        let mut peer = Peer::new(bus.unix_client());
        peer.initialize_acp();
        let error = r#"{"jsonrpc":"2.0","id":$ID,"error":{"code":-32800,"message":"cancelled"}}"#;
        let steps = json!([on("$/cancel_request", json!([error]))]);
        let id = peer.request("session/list", json!({ "play": steps }));
        peer.notify("$/cancel_request", json!({"requestId": id}));
        let answer = peer.answer(id);
        assert_eq!(answer["error"]["code"], -32800, "{answer}");
        let request = log.with_method("session/list").remove(0).json();
        let cancel = log.with_method("$/cancel_request").remove(0).json();
        assert_eq!(
            cancel["params"]["requestId"], request["id"],
            "by the agent's id"
        );
    });
}

/// A client that only stops sending has left, once it has talked to an agent.
#[test]
fn an_end_of_input_of_an_acp_client_is_its_departure() {
    alone(|| {
        let log = Log::new();
        let bus = Program::start(
            &config(&[puppet_pool("p", "acp", 1, &log, &[])]),
            UNIX_AND_TCP,
        );
        for client in [bus.unix_client(), bus.tcp_client()] {
            let mut peer = Peer::new(client);
            peer.initialize_acp();
            let session = peer.new_session();
            peer.request("session/prompt", json!({"sessionId": session, "play": []}));
            peer.client.end();
            log.wait("session/cancel for it", |seen| {
                seen.is("session/cancel") && seen.json()["params"]["sessionId"] == session
            });
        }
    });
}

/// While an old turn does not end, a new prompt waits, but not for ever.
#[test]
fn a_prompt_behind_a_turn_that_never_ends_is_refused_within_its_bound() {
    alone(|| {
        let log = Log::new();
        let mut pool = puppet_pool("p", "acp", 1, &log, &[]);
        pool["init_timeout_sec"] = json!(1);
        let bus = Program::start(&config(&[pool]), UNIX_AND_TCP);
        let mut leaver = Peer::new(bus.unix_client());
        leaver.initialize_acp();
        let session = leaver.new_session();
        leaver.request("session/prompt", json!({"sessionId": session, "play": []}));
        drop(leaver);
        log.wait("session/cancel", |seen| seen.is("session/cancel"));

        let mut next = Peer::new(Client::unix(&bus.unix_paths()[0]));
        next.initialize_acp();
        let id = next.request("session/prompt", json!({"sessionId": session}));
        let answer = next.answer(id);
        assert_eq!(answer["error"]["code"], -32012, "{answer}");
        assert_eq!(log.with_method("session/prompt").len(), 1);
        next.got_nothing_else(); // and the session's agent serves on
    });
}
