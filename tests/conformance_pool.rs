//! Conformance: pools of servers that shake hands once for all of their clients.

mod common;

use std::fs;

use common::peer::*;
use common::{BOUND, Program, alone, alone_async, assert_gone, python, wait_until};
use serde_json::json;
use stdiobus::{RequestOptions, StdioBus};

/// One of two servers of the official SDK is killed.
#[test]
fn a_killed_server_is_replaced_and_none_of_three_clients_initializes_again() {
    let Some(python) = python(&[MCP_SDK]) else {
        return;
    };
    alone(|| {
        let log = Log::new();
        let pool = python_pool(&python, "server", "mcp_server.py", 2, &log);
        let bus = Program::start(&config(&[pool]), UNIX_AND_TCP);
        log.prepare(bus.unix_client(), 2);
        let clients = [bus.unix_client(), bus.tcp_client(), bus.unix_client()];
        let mut peers = clients.map(Peer::new);
        let pid = |peer: &mut Peer| {
            let call = peer.tool("pid", json!({}));
            let result = peer.result(call);
            tool_text(&result).parse::<u32>().expect("a number")
        };
        for peer in &mut peers {
            peer.initialize_mcp();
        }
        let before = peers.each_mut().map(pid);
        assert_ne!(before[0], before[1], "two servers for two clients");

        kill_now(before[0]);
        assert_gone(&before[..1], BOUND); // the bus knows
        let after = peers.each_mut().map(pid);
        for n in [0, 1, 2] {
            assert_ne!(after[n], before[0], "client {n} was answered by the dead");
            if before[n] != before[0] {
                assert_eq!(after[n], before[n], "client {n} lost its server");
            }
        }
        log.wait_until_ready(3);
        assert_one_handshake_each(&log);
        for peer in &mut peers {
            let call = peer.tool("echo", json!({"text": "still here"}));
            assert_eq!(tool_text(&peer.result(call)), "still here");
            peer.kept_nothing("more came");
        }
    });
}

/// Clients do not have to wait for all servers to have a fair share of them.
#[test]
fn clients_that_come_before_the_second_server_is_ready_are_spread_all_the_same() {
    alone(|| {
        let log = Log::new();
        let (lock, go) = (log.beside("lock"), log.beside("go"));
        let mut pool = puppet_pool("p", "mcp", 2, &log, &[]);
        // whoever comes second starts when the file is there
        let script = format!(
            "mkdir {lock:?} 2>/dev/null || while ! [ -e {go:?} ]; do sleep 0.01; done; exec \"$0\" \"$@\""
        );
        let mut args = vec![json!("-c"), json!(script), pool["command"].take()];
        args.extend(pool["args"].as_array().cloned().expect("a list"));
        (pool["command"], pool["args"]) = (json!("sh"), json!(args));
        let bus = Program::start(&config(&[pool]), UNIX_AND_TCP);
        let mut peers = [bus.unix_client(), bus.tcp_client()].map(Peer::new);
        for peer in &mut peers {
            peer.initialize_mcp();
        }
        fs::write(go, "").expect("the second can start");
        log.wait_until_ready(2);
        let pids = peers.each_mut().map(|peer| peer.call("pid", json!({})));
        assert_ne!(
            pids[0], pids[1],
            "one server has both clients, the other has none"
        );
    });
}

/// A request that waits for a fresh server, since the pool's only one was killed.
#[test]
fn a_call_waits_for_the_successor_of_a_pools_only_server() {
    alone(|| {
        let log = Log::new();
        let pool = puppet_pool("p", "auto", 1, &log, &[]);
        let bus = Program::start(&config(&[pool]), UNIX_AND_TCP);
        let mut peers = [bus.unix_client(), bus.tcp_client()].map(Peer::new);
        for peer in &mut peers {
            peer.initialize_mcp();
        }
        peers[0].call("echo", json!({})); // the server has read all that came before
        for kills in 1..=2 {
            let pid = *log.pids().last().expect("a server");
            kill_now(pid);
            assert_gone(&[pid], BOUND);
            for peer in &mut peers {
                let successor = peer.call("pid", json!({}));
                assert_ne!(successor, pid);
            }
            assert_eq!(log.pids().len(), 1 + kills);
        }
        assert_one_handshake_each(&log);
    });
}

/// A server that gives no reply to a message with a root member that it does not know.
#[test]
fn a_strict_server_answers_clients_that_name_pool_and_session_at_the_root() {
    alone(|| {
        let log = Log::new();
        let pools = ["mcp", "acp"].map(|id| puppet_pool(id, "auto", 1, &log, &["strict"]));
        let bus = Program::start(&config(&pools), UNIX_AND_TCP);
        for (n, client) in [bus.unix_client(), bus.tcp_client()]
            .into_iter()
            .enumerate()
        {
            let session = format!("client-{n}");
            let root = json!({"sessionId": session, "pool": "mcp"});
            let mut peer = Peer::with(client, root);
            peer.initialize_mcp();
            peer.call("ping", json!({}));
            assert!(peer.call("tools/list", json!({"cursor": 1}))["cursor"] == 1);
            let ask = r#"{"jsonrpc":"2.0","id":0,"method":"roots/list"}"#;
            let steps = json!([ask, on("answer 0", json!([answers("$GOT")]))]);
            let call = peer.request("tools/call", play(steps));
            let asked = peer.message("roots/list");
            peer.reply(&asked, json!("with root members, too"));
            assert_eq!(peer.result(call), "with root members, too");
        }
        for (n, client) in [bus.unix_client(), bus.tcp_client()]
            .into_iter()
            .enumerate()
        {
            let root = json!({"sessionId": format!("own-{n}"), "pool": "acp"});
            let mut peer = Peer::with(client, root);
            peer.initialize_acp();
            let session = peer.new_session();
            let chunk = concat!(
                r#"{"jsonrpc":"2.0","method":"session/update","params":{"sessionId":$SESSION,"#,
                r#""update":{"sessionUpdate":"agent_message_chunk","content":{"type":"text","text":"x"}}}}"#
            );
            let steps = json!([chunk, answers("{\"stopReason\":\"end_turn\"}")]);
            let id = peer.request(
                "session/prompt",
                json!({"sessionId": session, "play": steps}),
            );
            assert_eq!(peer.result(id)["stopReason"], "end_turn");
            assert_eq!(peer.chunks(&session), ["x"]);
        }
        let own = ["jsonrpc", "id", "method", "params", "result", "error"];
        for seen in log.all() {
            let message = seen.json();
            let odd = message
                .as_object()
                .into_iter()
                .flatten()
                .find(|(name, _)| !own.contains(&name.as_str()));
            assert_eq!(odd, None, "read by a strict server: {}", seen.line);
        }
    });
}

/// The same for the Rust client, which puts its session and the pool on all of its messages.
#[test]
fn a_strict_server_answers_the_rust_client() {
    alone_async(|| async {
        let log = Log::new();
        let pools = ["mcp", "acp"].map(|id| puppet_pool(id, "auto", 1, &log, &["strict"]));
        let bus = StdioBus::builder()
            .config_json(config(&pools))
            .build()
            .expect("valid");
        bus.start().await.expect("starts");
        let to = |pool: &str| RequestOptions::new().pool(pool);
        let hello = mcp_initialize("tests", json!({}));
        let answer = bus
            .request_with("initialize", hello, to("mcp"))
            .await
            .expect("a handshake");
        assert_eq!(answer["serverInfo"]["name"], "puppet");
        let tools = bus
            .request_with("tools/list", json!({"a": 1}), to("mcp"))
            .await;
        assert_eq!(tools.expect("an answer")["a"], 1);

        let hello = json!({"protocolVersion": 1, "clientCapabilities": {}});
        let answer = bus
            .request_with("initialize", hello, to("acp"))
            .await
            .expect("a handshake");
        assert_eq!(answer["protocolVersion"], 1);
        let new = json!({"cwd": "/", "mcpServers": []});
        let session = bus
            .request_with("session/new", new, to("acp"))
            .await
            .expect("a session")["sessionId"]
            .clone();
        let prompt = json!({"sessionId": session, "n": 1});
        let answer = bus
            .request_with("session/prompt", prompt, to("acp"))
            .await
            .expect("an answer");
        assert_eq!(answer["n"], 1);
        bus.stop().await.expect("stops");
    });
}

/// What decides an `auto` pool decides it for good.
#[test]
fn an_auto_pool_forwards_plainly_until_a_handshake_decides() {
    alone(|| {
        let log = Log::new();
        let bus = Program::start(
            &config(&[puppet_pool("p", "auto", 1, &log, &[])]),
            UNIX_AND_TCP,
        );
        let mut plain = Peer::with(bus.unix_client(), json!({"sessionId": "s"}));
        plain.call("before", json!({}));
        let before = log.with_method("before").remove(0).json();
        assert_eq!(
            before["sessionId"], "s",
            "what plain workers route by was taken off: {before}"
        );
        // no string with capabilities, no integer: no handshake of a protocol that we know
        plain.call("initialize", json!({"version": "1"}));
        assert_eq!(
            log.with_method("initialize").remove(0).json()["sessionId"],
            "s"
        );

        let mut peer = Peer::with(bus.tcp_client(), json!({"sessionId": "t", "agentId": "me"}));
        peer.initialize_mcp();
        for peer in [&mut plain, &mut peer] {
            peer.call("after", json!({}));
        }
        for seen in log.with_method("after") {
            assert!(
                seen.json().get("sessionId").is_none(),
                "left on: {}",
                seen.line
            );
        }
        assert!(
            log.with_method("after")[1].json()["agentId"] == "me",
            "taken off under auto"
        );
    });
}

/// `"clients": "exclusive"`.
#[test]
fn exclusive_clients_have_a_server_each_until_there_are_none_left() {
    alone(|| {
        let log = Log::new();
        let mut pool = puppet_pool("p", "mcp", 2, &log, &[]);
        pool["clients"] = json!("exclusive");
        let bus = Program::start(&config(&[pool]), UNIX_AND_TCP);
        let mut peers = [bus.unix_client(), bus.tcp_client()].map(Peer::new);
        let pids = peers.each_mut().map(|peer| {
            peer.initialize_mcp();
            peer.call("pid", json!({}))
        });
        assert_ne!(pids[0], pids[1], "two clients share a server");
        let mut third = Peer::new(bus.unix_client());
        let id = third.request("initialize", mcp_initialize("third", json!({})));
        let answer = third.answer(id);
        assert_eq!(answer["error"]["code"], -32012, "{answer}");
        for (peer, pid) in peers.iter_mut().zip(&pids) {
            assert_eq!(peer.call("pid", json!({})), *pid);
        }

        let [leaver, _stays] = peers;
        drop(leaver);
        wait_until("the server of the client that left is free", BOUND, || {
            let id = third.request("initialize", mcp_initialize("third", json!({})));
            third.answer(id).get("result").is_some()
        });
        third.notify("notifications/initialized", json!({}));
        assert_ne!(third.call("pid", json!({})), pids[1]);
    });
}

/// A worker that never answers its handshake is restarted, and who waits for it is told.
#[test]
fn a_server_that_never_answers_its_handshake_is_restarted_and_its_client_told() {
    alone(|| {
        let log = Log::new();
        let mut pool = puppet_pool("p", "mcp", 1, &log, &["mute-init"]);
        pool["init_timeout_sec"] = json!(1);
        let bus = Program::start(&config(&[pool]), UNIX_AND_TCP);
        let mut peer = Peer::new(bus.unix_client());
        let id = peer.request("initialize", mcp_initialize("tests", json!({})));
        let answer = peer.answer(id);
        assert_eq!(answer["error"]["code"], -32011, "{answer}");
        log.wait_for(2, "another start", |seen| seen.line == "start");
    });
}

/// The pool's own `initialize` needs no client.
#[test]
fn a_pool_with_an_initialize_of_its_own_shakes_hands_before_any_client_comes() {
    alone(|| {
        let log = Log::new();
        let mut pool = puppet_pool("p", "mcp", 2, &log, &[]);
        pool["initialize"] = mcp_initialize("the pool", json!({"roots": {}}));
        let bus = Program::start(&config(&[pool]), UNIX_AND_TCP);
        log.wait_until_ready(2);
        let mut peer = Peer::new(bus.unix_client());
        let result = peer.initialize_mcp_as("late", json!({"sampling": {}}));
        assert_eq!(result["serverInfo"]["name"], "puppet");
        peer.call("echo", json!({}));
        assert_one_handshake_each(&log);
        for seen in log.with_method("initialize") {
            assert_eq!(seen.json()["params"]["clientInfo"]["name"], "the pool");
        }
    });
}

/// Later clients are told what was negotiated, whatever they ask for.
#[test]
fn a_later_client_is_answered_with_the_version_that_was_negotiated() {
    alone(|| {
        let log = Log::new();
        let pools = ["mcp", "acp"].map(|id| puppet_pool(id, "auto", 1, &log, &[]));
        let bus = Program::start(&config(&pools), UNIX_AND_TCP);
        let mut first = Peer::with(bus.unix_client(), json!({"pool": "mcp"}));
        first.initialize_mcp();
        for version in ["2024-11-05", "2025-11-25", "1999-01-01"] {
            let mut later = Peer::with(bus.tcp_client(), json!({"pool": "mcp"}));
            let mut hello = mcp_initialize("later", json!({}));
            hello["protocolVersion"] = json!(version);
            let answer = later.call("initialize", hello);
            assert_eq!(
                answer["protocolVersion"], "2025-06-18",
                "asked for {version}"
            );
            later.notify("notifications/initialized", json!({}));
            later.call("echo", json!({}));
        }
        let mut first = Peer::with(bus.unix_client(), json!({"pool": "acp"}));
        first.initialize_acp();
        let mut later = Peer::with(bus.tcp_client(), json!({"pool": "acp"}));
        let answer = later.call(
            "initialize",
            json!({"protocolVersion": 2, "clientCapabilities": {}}),
        );
        assert_eq!(answer["protocolVersion"], 1);
        later.new_session();
        assert_eq!(log.with_method("initialize").len(), 2, "one for each pool");
    });
}

/// A handshake that the server refuses is its client's affair; the next client has its own try.
#[test]
fn a_handshake_that_the_server_refuses_is_told_and_can_be_tried_again() {
    alone(|| {
        let log = Log::new();
        let bus = Program::start(
            &config(&[puppet_pool("p", "mcp", 2, &log, &[])]),
            UNIX_AND_TCP,
        );
        let mut refused = Peer::new(bus.unix_client());
        let mut hello = mcp_initialize("refused", json!({}));
        let error = r#"{"jsonrpc":"2.0","id":$ID,"error":{"code":-32602,"message":"no","data":{"supported":["x"]}}}"#;
        hello["play"] = json!([error]);
        let id = refused.request("initialize", hello);
        let answer = refused.answer(id);
        assert_eq!(
            answer["error"]["code"], -32602,
            "not the server's own error: {answer}"
        );
        assert_eq!(answer["error"]["data"]["supported"][0], "x", "{answer}");

        let mut welcome = Peer::new(bus.tcp_client());
        assert_eq!(welcome.initialize_mcp()["serverInfo"]["name"], "puppet");
        welcome.call("echo", json!({}));
        let names: Vec<_> = log
            .with_method("notifications/initialized")
            .iter()
            .map(|seen| log.of(seen.pid))
            .map(|read| {
                read.iter()
                    .rfind(|seen| seen.is("initialize"))
                    .expect("before it")
                    .json()
            })
            .map(|hello| hello["params"]["clientInfo"]["name"].clone())
            .collect();
        assert!(
            names.iter().all(|name| name == "tests"),
            "greeted again with {names:?}"
        );
    });
}

/// A client need not wait for its handshake before it says more.
#[test]
fn what_comes_right_behind_a_handshake_is_answered_behind_it() {
    alone(|| {
        let log = Log::new();
        let bus = Program::start(
            &config(&[puppet_pool("p", "auto", 2, &log, &[])]),
            UNIX_AND_TCP,
        );
        for client in [bus.unix_client(), bus.tcp_client()] {
            let mut peer = Peer::new(client);
            let hello = peer.request("initialize", mcp_initialize("hasty", json!({})));
            peer.notify("notifications/initialized", json!({}));
            let calls = [1, 2, 3].map(|n| peer.request("echo", json!({ "n": n })));
            for (n, call) in [1, 2, 3].into_iter().zip(calls) {
                assert_eq!(peer.result(call)["n"], n);
            }
            assert_eq!(peer.result(hello)["serverInfo"]["name"], "puppet");
        }
        log.wait_until_ready(2);
        assert_one_handshake_each(&log);
    });
}

/// One pool serves one era; a client of the other one is told so and harms nobody.
#[test]
fn a_client_of_another_era_is_told_so_and_the_server_hears_nothing_of_it() {
    alone(|| {
        let log = Log::new();
        let pools = ["old", "new"].map(|id| puppet_pool(id, "auto", 1, &log, &[]));
        let bus = Program::start(&config(&pools), UNIX_AND_TCP);
        let [mut old, mut new] =
            ["old", "new"].map(|pool| Peer::with(bus.unix_client(), json!({ "pool": pool })));
        old.initialize_mcp();
        new.call("server/discover", json!({"_meta": modern(json!({}))}));

        let id = old.request("tools/list", json!({"_meta": modern(json!({}))}));
        let answer = old.answer(id);
        assert!(
            answer["error"]["code"].is_i64(),
            "served in the wrong era: {answer}"
        );
        let id = new.request("initialize", mcp_initialize("late", json!({})));
        let answer = new.answer(id);
        assert!(
            answer["error"]["code"].is_i64(),
            "served in the wrong era: {answer}"
        );

        assert!(
            log.with_method("tools/list").is_empty(),
            "a stateless request in a handshake"
        );
        assert_eq!(
            log.with_method("initialize").len(),
            1,
            "a handshake in the stateless era"
        );
        old.call("echo", json!({}));
        new.call("tools/call", json!({"_meta": modern(json!({}))}));
    });
}
