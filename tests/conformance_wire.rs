//! Conformance: lines, ids and ends. The numbers are those of CONFORMANCE.md,
//! one test per number; its other parts are in `conformance_mcp.rs` and `conformance_acp.rs`.

mod common;

use std::time::{Duration, Instant};

use common::peer::*;
use common::{BOUND, Client, Program, TempDir, alone, alone_async};
use serde_json::{Value, json};
use stdiobus::{ListenMode, StdioBus};

/// A program with one pool of puppets that speak this protocol.
fn puppets(protocol: &str, instances: usize, args: &[&str]) -> (Program, Log) {
    let log = Log::new();
    let pool = puppet_pool("puppets", protocol, instances, &log, args);
    let bus = Program::start(&config(&[pool]), UNIX_AND_TCP);
    (bus, log)
}

/// Number 1.
#[test]
fn lines_of_every_shape_pass_both_ways_under_a_handshake() {
    alone(|| {
        // a byte order mark and a blank line are the first that it writes
        let (bus, log) = puppets("mcp", 1, &["hello", "\u{feff}"]);
        let mut peer = Peer::new(bus.tcp_client());
        peer.initialize_mcp();

        let stream = concat!(
            "{\"jsonrpc\":\"2.0\",\"id\":\"a\",\"method\":\"echo\",\"params\":[\"\u{e9}\"]}\r\n",
            "\n  \r\n",
            "{\"jsonrpc\":\"2.0\",\"id\":\"b\",\"method\":\"echo\",\"params\":[2]}\n",
            "{\"jsonrpc\":\"2.0\",\"id\":\"c\",\"method\":\"echo\",\"params\":[3]}\n",
        );
        for size in [1, 2, 7, stream.len()] {
            for part in stream.as_bytes().chunks(size) {
                peer.client.send_bytes(part);
            }
            for (id, result) in [
                ("a", json!(["\u{e9}"])),
                ("b", json!([2])),
                ("c", json!([3])),
            ] {
                let answer = peer.next("answer", |message| message["id"] == id);
                assert_eq!(answer["result"], result, "in parts of {size} bytes");
            }
        }

        for (line, code) in [("no JSON", -32700), ("{\"id\":1,", -32700), ("17", -32700)] {
            peer.client.send(line);
            let answer = peer.next("error", |message| message.get("error").is_some());
            assert_eq!(answer["error"]["code"], code, "{line}: {answer}");
        }
        peer.client
            .send_bytes(b"{\"jsonrpc\":\"2.0\",\"method\":\"odd\",\"params\":[\"x\xffy\"]}\n");
        log.wait("a byte that is no UTF-8", |seen| {
            seen.line.contains("x\u{fffd}y")
        });

        let huge = "h".repeat(2 << 20);
        assert_eq!(peer.call("echo", json!([huge]))[0], huge, "2 MiB both ways");

        let note = |n: &str| {
            format!("{{\"jsonrpc\":\"2.0\",\"method\":\"note\",\"params\":{{\"n\":{n}}}}}")
        };
        let steps = json!([
            format!("{}\r", note("1")),
            "",
            "  \r",
            "a print that went astray",
            "[1,2]",
            "{\"half\":",
            {"slowly": note("2")},
            {"at_once": [note("3"), note("4")]},
            note("\"x$FFy\""),
            answers("\"done\""),
        ]);
        assert_eq!(peer.call("tools/call", play(steps)), "done");
        let notes: Vec<_> = peer
            .kept()
            .iter()
            .map(|note| note["params"]["n"].clone())
            .collect();
        let wanted = json!([1, 2, 3, 4, "x\u{fffd}y"]);
        assert_eq!(json!(notes), wanted, "notifications in their order");
    });
}

/// Number 2.
#[test]
fn two_workers_and_two_clients_that_all_count_from_0_keep_their_answers_apart() {
    alone(|| {
        let (bus, log) = puppets("mcp", 2, &[]);
        log.prepare(bus.unix_client(), 2);
        let mut clients = [Peer::new(bus.unix_client()), Peer::new(bus.tcp_client())];
        for peer in &mut clients {
            assert_eq!(peer.initialize_mcp()["serverInfo"]["name"], "puppet");
        }
        let steps = json!([
            r#"{"jsonrpc":"2.0","id":0,"method":"roots/list"}"#,
            on("answer 0", json!([answers("{\"pid\":$PID,\"got\":$GOT}")])),
        ]);
        // ids of the clients' own choice, the same in both
        let call =
            json!({"jsonrpc": "2.0", "id": 0, "method": "tools/call", "params": play(steps)});
        for peer in &mut clients {
            peer.client.send(&call.to_string());
        }
        let asked = [0, 1].map(|n| clients[n].message("roots/list"));
        for n in [1, 0] {
            clients[n].reply(&asked[n], json!({"roots": [n]}));
        }
        let results = [0, 1].map(|n| clients[n].result(0));
        for (n, result) in results.iter().enumerate() {
            assert_eq!(result["got"], json!({"roots": [n]}), "client {n}");
        }
        assert_ne!(
            results[0]["pid"], results[1]["pid"],
            "one worker took both clients while the other had none"
        );
        clients.iter_mut().for_each(Peer::got_nothing_else);
    });
}

/// Number 8.
#[test]
fn a_stop_with_everything_pending_stays_within_its_bound() {
    const LIMIT: Duration = Duration::from_secs(3);
    alone_async(|| async {
        let (dir, log) = (TempDir::new(), Log::new());
        let stubborn = |id: &str, protocol: &str| {
            let mut pool = puppet_pool(id, protocol, 2, &log, &[]);
            let script = "trap '' TERM; \"$0\" \"$@\"; exec sleep 60";
            let mut args = vec![json!("-c"), json!(script), pool["command"].take()];
            args.extend(pool["args"].as_array().cloned().unwrap());
            (pool["command"], pool["args"]) = (json!("sh"), json!(args));
            pool
        };
        let pools = [
            stubborn("acp", "acp"),
            stubborn("mcp", "mcp"),
            stubborn("raw", "ndjson"),
        ];
        let bus = StdioBus::builder()
            .config_json(config(&pools))
            .listen(ListenMode::unix(dir.path("bus.sock")))
            .timeout(None)
            .build()
            .expect("valid");
        bus.start().await.expect("starts");

        let path = dir.path("bus.sock");
        let clients = tokio::task::spawn_blocking(move || leave_everything_pending(&path))
            .await
            .expect("clients talk");
        let begun = Instant::now();
        bus.stop_with_timeout(LIMIT).await.expect("stops");
        let took = begun.elapsed();
        assert!(took < LIMIT + Duration::from_millis(500), "took {took:?}");
        let ends = tokio::task::spawn_blocking(move || clients.map(|mut peer| peer.client.rest()));
        for lines in ends.await.expect("connections end") {
            let told = lines.iter().any(|line| line.contains("shutting_down"));
            assert!(told, "a client was not told why: {lines:?}");
        }
    });
}

/// Three clients with requests pending in both directions.
fn leave_everything_pending(path: &std::path::Path) -> [Peer; 3] {
    let [mut acp, mut mcp, mut raw] =
        ["acp", "mcp", "raw"].map(|pool| Peer::with(Client::unix(path), json!({ "pool": pool })));
    let asks = |method: &str| {
        format!(
            r#"{{"jsonrpc":"2.0","id":0,"method":"{method}","params":{{"sessionId":$SESSION}}}}"#
        )
    };
    acp.initialize_acp();
    let session = acp.new_session();
    acp.request(
        "session/prompt",
        json!({"sessionId": session, "play": [asks("session/request_permission")]}),
    );
    acp.message("session/request_permission");
    mcp.initialize_mcp();
    mcp.request("tools/call", play(json!([asks("roots/list")])));
    mcp.message("roots/list");
    raw.request("hold", json!({"sessionId": "r", "play": [asks("ask")]}));
    raw.message("ask");
    [acp, mcp, raw]
}

/// Number 9.
#[test]
fn a_server_that_writes_200_kb_to_stderr_first_is_initialized_all_the_same() {
    alone(|| {
        let (bus, _log) = puppets("mcp", 1, &["chatty"]);
        let mut peer = Peer::new(bus.unix_client());
        assert_eq!(peer.initialize_mcp()["serverInfo"]["name"], "puppet");
        assert_eq!(peer.call("echo", json!({"a": 1}))["a"], 1);
    });
}

/// Number 12.
#[test]
fn a_batch_gets_one_clear_error_and_reaches_no_worker() {
    alone(|| {
        let (bus, log) = puppets("mcp", 1, &[]);
        for client in [bus.unix_client(), bus.tcp_client()] {
            let mut peer = Peer::new(client);
            peer.initialize_mcp();
            peer.client.send(concat!(
                r#"[{"jsonrpc":"2.0","id":7,"method":"batched"},"#,
                r#"{"jsonrpc":"2.0","id":8,"method":"batched"}]"#
            ));
            let answer = peer.next("error", |message| message.get("error").is_some());
            assert_eq!(answer["id"], Value::Null, "{answer}");
            assert_eq!(answer["error"]["code"], -32600, "{answer}");
            let text = answer["error"]["message"].as_str().unwrap_or_default();
            assert!(text.to_lowercase().contains("batch"), "unclear: {text}");
            peer.got_nothing_else();
        }
        assert!(!log.all().iter().any(|seen| seen.line.contains("batched")));
    });
}

/// Number 13.
#[test]
fn members_for_the_bus_are_taken_off_before_a_strict_server() {
    alone(|| {
        let log = Log::new();
        let pools = ["mcp", "auto", "acp"].map(|id| puppet_pool(id, id, 1, &log, &["strict"]));
        let bus = Program::start(&config(&pools), UNIX_AND_TCP);
        for (pool, extra) in [
            (
                "mcp",
                json!({"sessionId": "s", "agentId": "mcp", "_ext": {"audit": 1}}),
            ),
            ("auto", json!({"sessionId": "s"})),
            (
                "acp",
                json!({"sessionId": "s", "agentId": "acp", "_ext": {"audit": 1}}),
            ),
        ] {
            let mut root = extra.clone();
            root["pool"] = json!(pool);
            let mut peer = Peer::with(bus.unix_client(), root);
            match pool {
                "acp" => peer.initialize_acp(),
                _ => peer.initialize_mcp(),
            };
            let params = peer.call("echo", json!({"pool": "stays", "n": pool}));
            assert_eq!(
                params["pool"], "stays",
                "what lies deeper is the client's own"
            );
            if extra.get("_ext").is_some() {
                let moved = &params["_meta"]["stdio_bus/ext"];
                assert_eq!(
                    moved, &extra["_ext"],
                    "{pool}: _ext moves to _meta: {params}"
                );
            }
        }
    });
}

/// Number 14.
#[test]
fn every_id_comes_back_as_it_was_written_also_from_a_worker_that_spells_it_anew() {
    alone(|| {
        let log = Log::new();
        let pools = ["ndjson", "mcp", "auto"].map(|id| puppet_pool(id, id, 1, &log, &[]));
        let bus = Program::start(&config(&pools), UNIX_AND_TCP);
        let long = format!("\"{}\"", "x".repeat(300));
        let ids = [
            "0",
            "-0",
            "-7",
            "1.0",
            "1e3",
            "1E+2",
            "9007199254740993",
            "12345678901234567890123",
            "\"\"",
            "\"0\"",
            "\"a b\"",
            r#""\u0041""#,
            r#""\u00e9\/""#,
            r#""q\"\\""#,
            "\"\u{e9}\"",
            &long,
        ];
        for pool in ["ndjson", "mcp", "auto"] {
            let mut peer = Peer::with(bus.unix_client(), json!({ "pool": pool }));
            if pool != "ndjson" {
                peer.initialize_mcp();
            }
            // all at once, so that each is told from all the others
            for (n, id) in ids.iter().enumerate() {
                peer.client.send(&format!(
                    r#"{{"jsonrpc":"2.0","id":{id},"pool":"{pool}","method":"echo","params":{n}}}"#
                ));
            }
            for (n, id) in ids.iter().enumerate() {
                let line = peer.client.receive();
                let wanted = format!(r#""id":{id},"#);
                assert!(
                    line.contains(&wanted),
                    "{pool}: id {id} came back in {line}"
                );
                let answer: Value = serde_json::from_str(&line).expect("JSON");
                assert_eq!(answer["result"], n, "{pool}: id {id}");
            }
        }
    });
}

/// Number 16.
#[test]
fn a_browser_that_posts_to_a_tcp_listener_executes_nothing() {
    alone(|| {
        let (bus, log) = puppets("auto", 1, &[]);
        let address = bus.tcp_addresses().remove(0);
        let body = r#"{"jsonrpc":"2.0","id":1,"method":"danger","params":{}}"#;
        let post = format!(
            "POST / HTTP/1.1\r\nHost: {address}\r\nOrigin: https://evil.example\r\n\
             Content-Type: text/plain\r\nContent-Length: {}\r\n\r\n{body}\n",
            body.len() + 1
        );
        let mut browser = bus.tcp_client();
        browser.send_bytes(post.as_bytes());
        let answers = browser.rest();
        assert_eq!(answers.len(), 1, "one answer, then the end: {answers:?}");
        assert!(answers[0].contains("-32700"), "{answers:?}");

        let mut friend = bus.tcp_client();
        friend.send(r#"{"jsonrpc":"2.0","id":1,"method":"echo","params":1}"#);
        let line = friend.line(BOUND).expect("others are served");
        assert!(line.contains("\"result\":1"), "{line}");
        assert!(!log.all().iter().any(|seen| seen.line.contains("danger")));
    });
}
