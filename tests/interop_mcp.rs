//! A real MCP server as the worker: the official time server, unmodified.

mod common;

use std::path::Path;

use common::peer::*;
use common::{Client, Program, TempDir, alone, alone_async, python};
use serde_json::{Value, json};
use stdiobus::{ListenMode, PoolConfig, StdioBus};

const SERVER: &str = "mcp-server-time==2026.10.19";

fn time_server(python: &Path) -> PoolConfig {
    PoolConfig::new("time", python).args(["-m", "mcp_server_time", "--local-timezone", "UTC"])
}

fn initialize_params() -> Value {
    json!({
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "stdiobus-tests", "version": "1"},
    })
}

fn current_time_params() -> Value {
    json!({"name": "get_current_time", "arguments": {"timezone": "Europe/Paris"}})
}

fn check_initialized(result: &Value) {
    assert!(result["protocolVersion"].is_string(), "{result}");
    assert_eq!(result["serverInfo"]["name"], "mcp-time", "{result}");
}

fn check_tools(result: &Value) {
    let tools: Vec<_> = result["tools"].as_array().into_iter().flatten().collect();
    assert!(
        tools.iter().any(|tool| tool["name"] == "get_current_time"),
        "{result}"
    );
}

fn check_current_time(result: &Value) {
    assert_ne!(result["isError"], true, "{result}");
    let text = result["content"][0]["text"].as_str().unwrap_or_default();
    let time: Value = serde_json::from_str(text).unwrap_or_else(|_| panic!("{result}"));
    assert_eq!(time["timezone"], "Europe/Paris");
}

#[test]
fn an_mcp_server_answers_the_rust_client() {
    let Some(python) = python(&[SERVER]) else {
        return;
    };
    alone_async(|| async {
        let bus = StdioBus::builder()
            .pool(time_server(&python))
            .build()
            .unwrap();
        bus.start().await.unwrap();
        check_initialized(
            &bus.request("initialize", initialize_params())
                .await
                .unwrap(),
        );
        bus.notify("notifications/initialized", json!({}))
            .await
            .unwrap();
        check_tools(&bus.request("tools/list", json!({})).await.unwrap());
        check_current_time(
            &bus.request("tools/call", current_time_params())
                .await
                .unwrap(),
        );
        bus.stop().await.unwrap();
    });
}

#[test]
fn an_mcp_server_answers_a_client_on_a_unix_socket() {
    let Some(python) = python(&[SERVER]) else {
        return;
    };
    alone_async(|| async {
        let dir = TempDir::new();
        let socket = dir.path("bus.sock");
        let bus = StdioBus::builder()
            .pool(time_server(&python))
            .listen(ListenMode::unix(&socket))
            .build()
            .unwrap();
        bus.start().await.unwrap();

        let client = tokio::task::spawn_blocking(move || talk_mcp(&mut Client::unix(socket)));
        client.await.unwrap();
        bus.stop().await.unwrap();
    });
}

fn talk_mcp(client: &mut Client) {
    let mut id = 0;
    let mut ask = |client: &mut Client, method: &str, params: Value| {
        id += 1;
        let request = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        let answer = client.ask(&request.to_string());
        assert_eq!(answer["id"], id, "{answer}");
        answer["result"].clone()
    };
    check_initialized(&ask(client, "initialize", initialize_params()));
    client.send(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#);
    check_tools(&ask(client, "tools/list", json!({})));
    check_current_time(&ask(client, "tools/call", current_time_params()));
}

/// The same unmodified server, asked in the current revision, which knows no handshake.
#[test]
fn an_mcp_server_answers_stateless_clients_on_sockets() {
    let Some(python) = python(&[SERVER]) else {
        return;
    };
    alone(|| {
        let pool = json!({
            "id": "time", "command": python, "instances": 2,
            "args": ["-m", "mcp_server_time", "--local-timezone", "UTC"],
        });
        let bus = Program::start(&config(&[pool]), UNIX_AND_TCP);
        for client in [bus.unix_client(), bus.tcp_client()] {
            let mut peer = Peer::new(client);
            let meta = || modern(json!({}));
            let discovered = peer.call("server/discover", json!({"_meta": meta()}));
            assert_eq!(
                discovered["supportedVersions"],
                json!(["2026-07-28"]),
                "{discovered}"
            );
            check_tools(&peer.call("tools/list", json!({"_meta": meta()})));
            for _ in 0..4 {
                let mut params = current_time_params();
                params["_meta"] = meta();
                check_current_time(&peer.call("tools/call", params));
            }
            peer.kept_nothing("more came");
        }
    });
}

/// The same unmodified servers, two of them, shared by three clients that each shake hands.
#[test]
fn two_mcp_servers_answer_three_clients_that_each_shake_hands() {
    let Some(python) = python(&[SERVER]) else {
        return;
    };
    alone(|| {
        let log = Log::new();
        let pool = json!({
            "id": "time", "command": python, "instances": 2,
            "args": [worker_script("tee.py"), log.path(), "mcp_server_time", "--local-timezone", "UTC"],
        });
        let bus = Program::start(&config(&[pool]), UNIX_AND_TCP);
        let clients = [bus.unix_client(), bus.tcp_client(), bus.unix_client()];
        let mut peers = clients.map(Peer::new);
        for peer in &mut peers {
            check_initialized(&peer.initialize_mcp());
        }
        log.wait_until_ready(2);
        let calls = peers
            .each_mut()
            .map(|peer| peer.request("tools/call", current_time_params()));
        for (peer, call) in peers.iter_mut().zip(calls) {
            check_current_time(&peer.result(call));
            check_tools(&peer.call("tools/list", json!({})));
        }
        assert_one_handshake_each(&log);
    });
}
