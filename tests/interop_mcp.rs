//! A real MCP server as the worker: the official time server, unmodified.

mod common;

use std::path::Path;

use common::{Client, TempDir, alone_async, python};
use rmcp::ServiceExt;
use rmcp::model::CallToolRequestParams;
use serde_json::{Value, json};
use stdiobus::{ListenMode, PoolConfig, Protocol, StdioBus};

const SERVER: &str = "mcp-server-time==2026.10.19";

fn time_server(python: &Path) -> PoolConfig {
    let python = python.to_str().expect("a path in text");
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

#[test]
fn two_clients_of_the_rust_sdk_share_a_server_over_connect_io() {
    let Some(python) = python(&[SERVER]) else {
        return;
    };
    alone_async(|| async {
        let bus = StdioBus::builder()
            .pool(time_server(&python).protocol(Protocol::Mcp))
            .build()
            .unwrap();
        bus.start().await.unwrap();
        let mut clients = Vec::new();
        for _ in 0..2 {
            let io = bus.connect_io(Some("time")).await.unwrap();
            clients.push(().serve(tokio::io::split(io)).await.unwrap());
        }
        for client in &clients {
            let tools = client.list_all_tools().await.unwrap();
            assert!(tools.iter().any(|tool| tool.name == "get_current_time"));
            let mut call = CallToolRequestParams::new("get_current_time");
            call.arguments = json!({"timezone": "Europe/Paris"}).as_object().cloned();
            let answer = client.call_tool(call).await.unwrap();
            check_current_time(&serde_json::to_value(answer).unwrap());
        }
        for client in clients {
            client.cancel().await.unwrap();
        }
        bus.stop().await.unwrap();
    });
}
