//! Conformance: one MCP handshake for many clients, and what belongs to whom. The numbers are those of
//! CONFORMANCE.md.

mod common;

use std::path::Path;
use std::time::{Duration, Instant};

use common::peer::*;
use common::{BOUND, Client, Program, alone, assert_gone, python};
use serde_json::{Value, json};

const SUBSCRIPTION: &str = "io.modelcontextprotocol/subscriptionId";

/// A program with one pool of puppets.
fn puppets(protocol: &str, instances: usize, args: &[&str]) -> (Program, Log) {
    let log = Log::new();
    let pool = puppet_pool("puppets", protocol, instances, &log, args);
    (Program::start(&config(&[pool]), UNIX_AND_TCP), log)
}

/// A client that has shaken hands.
fn mcp(client: Client) -> Peer {
    let mut peer = Peer::new(client);
    peer.initialize_mcp();
    peer
}

/// Number 7.
#[test]
fn a_hundred_requests_pending_on_a_killed_worker_end_within_100_ms() {
    alone(a_hundred_pending_on_a_killed_worker);
}

fn a_hundred_pending_on_a_killed_worker() {
    let (bus, log) = puppets("mcp", 2, &[]);
    log.prepare(bus.tcp_client(), 2);
    let mut victim = mcp(bus.unix_client());
    let pid = victim.call("pid", json!({})).as_u64().expect("a number") as u32;
    let ids = [(); 100].map(|()| victim.request("tools/call", play(json!([]))));
    log.wait_for(100, "the calls", |seen| {
        seen.pid == pid && seen.is("tools/call")
    });

    let mut other = mcp(bus.tcp_client());
    let go = json!([on("notifications/go", json!([answers("$PID")]))]);
    let call = other.request("tools/call", play(go));
    let held = log.wait("the other client's call", |seen| {
        seen.line.contains("notifications/go")
    });
    assert_ne!(
        held.pid, pid,
        "a worker with 100 pending was chosen over an idle one"
    );

    kill_now(pid);
    let killed = Instant::now();
    let errors = ids.map(|id| victim.answer(id));
    let took = killed.elapsed();
    assert!(took < Duration::from_millis(100), "{took:?}");
    for error in errors {
        assert_eq!(error["error"]["code"], -32011, "{error}");
        assert_eq!(error["error"]["data"]["sent"], true, "{error}");
    }
    other.notify("notifications/go", json!({}));
    assert_eq!(other.result(call), held.pid, "the other worker was touched");

    victim.call("echo", json!({"without": "initializing again"}));
    log.wait("a third worker's handshake", |seen| {
        seen.is("notifications/initialized")
            && log.pids().iter().position(|pid| *pid == seen.pid) == Some(2)
    });
    assert_one_handshake_each(&log);
}

/// Number 10, progress.
#[test]
fn progress_reaches_its_call_though_both_clients_count_their_tokens_from_0() {
    alone(|| {
        let (bus, log) = puppets("mcp", 1, &[]);
        let mut peers = [bus.unix_client(), bus.tcp_client()].map(mcp);
        let progress = |n: u32| {
            format!(
                r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":$TOKEN,"progress":{n}}}}}"#
            )
        };
        let tokens = [json!(0), json!("0"), json!("a\u{e9}\"")];
        for (n, peer) in peers.iter_mut().enumerate() {
            for token in &tokens {
                let mut params = play(json!([
                    progress(1),
                    on(
                        "notifications/go",
                        json!([progress(2), answers("[$TOKEN]")])
                    ),
                ]));
                params["_meta"] = json!({"progressToken": token, "own": n});
                peer.request("tools/call", params);
            }
        }
        let calls = log.wait_for(6, "the calls", |seen| seen.is("tools/call"));
        let at_server: Vec<_> = calls
            .iter()
            .map(|seen| seen.json()["params"]["_meta"]["progressToken"].to_string())
            .collect();
        let distinct: std::collections::HashSet<_> = at_server.iter().collect();
        assert_eq!(
            distinct.len(),
            6,
            "tokens the server can't tell apart: {at_server:?}"
        );

        peers[0].notify("notifications/go", json!({}));
        for (n, peer) in peers.iter_mut().enumerate() {
            let answers = [1, 2, 3].map(|_| peer.answer_to_any()["result"].clone());
            assert!(answers.iter().all(Value::is_array), "{answers:?}");
            let notes = peer.kept();
            let mut got: Vec<_> = notes
                .iter()
                .map(|note| {
                    (
                        note["params"]["progressToken"].to_string(),
                        note["params"]["progress"].clone(),
                    )
                })
                .collect();
            got.sort_by_key(|(token, progress)| (token.clone(), progress.to_string()));
            let mut wanted: Vec<_> = tokens
                .iter()
                .flat_map(|token| [1, 2].map(|n| (token.to_string(), json!(n))))
                .collect();
            wanted.sort_by_key(|(token, progress)| (token.clone(), progress.to_string()));
            assert_eq!(got, wanted, "client {n}");
        }
    });
}

/// Number 10, subscriptions, which only the stateless era has.
#[test]
fn what_a_subscription_brings_reaches_its_client_though_both_count_from_0() {
    alone(|| {
        let (bus, log) = puppets("auto", 1, &[]);
        let mut peers = [bus.unix_client(), bus.tcp_client()].map(Peer::new);
        let note = |text: &str| {
            format!(
                r#"{{"jsonrpc":"2.0","method":"notifications/{text}","params":{{"_meta":{{"{SUBSCRIPTION}":$ID}}}}}}"#
            )
        };
        for peer in &mut peers {
            let steps = json!([
                note("subscriptions/acknowledged"),
                on("notifications/go", json!([note("tools/list_changed")])),
            ]);
            let params = json!({"_meta": modern(json!({})), "play": steps});
            assert_eq!(peer.request("subscriptions/listen", params), 0);
        }
        log.wait_for(2, "both subscriptions", |seen| {
            seen.is("subscriptions/listen")
        });
        peers[0].notify("notifications/go", json!({"_meta": modern(json!({}))}));
        for (n, peer) in peers.iter_mut().enumerate() {
            for method in [
                "notifications/subscriptions/acknowledged",
                "notifications/tools/list_changed",
            ] {
                let came = peer.message(method);
                assert_eq!(
                    came["params"]["_meta"][SUBSCRIPTION], 0,
                    "client {n}: {came}"
                );
            }
            let fence = peer.call("fence", json!({"_meta": modern(json!({}))}));
            assert!(fence.is_object());
            peer.kept_nothing("of the other subscription");
        }
    });
}

/// A program with servers of the official Python SDK.
fn servers(python: &Path, instances: usize) -> (Program, Log) {
    let log = Log::new();
    let pool = python_pool(python, "server", "mcp_server.py", instances, &log);
    (Program::start(&config(&[pool]), UNIX_AND_TCP), log)
}

/// Number 10, on the official SDK's server, in both eras.
#[test]
fn the_official_server_tells_two_clients_apart_that_both_count_from_0() {
    let Some(python) = python(&[MCP_SDK]) else {
        return;
    };
    alone(|| {
        for era in ["handshake", "stateless"] {
            let (bus, _log) = servers(&python, 1);
            let mut peers = [bus.unix_client(), bus.tcp_client()].map(Peer::new);
            let meta = |more: Value| {
                if era == "stateless" {
                    modern(more)
                } else {
                    more
                }
            };
            if era == "handshake" {
                for peer in &mut peers {
                    peer.initialize_mcp();
                }
            }
            let calls = [0, 1].map(|n| {
                let call = json!({
                    "name": "steps", "arguments": {"n": 5 + n},
                    "_meta": meta(json!({"progressToken": 0})),
                });
                peers[n].request("tools/call", call)
            });
            for n in [0, 1] {
                let result = peers[n].result(calls[n]);
                assert_eq!(tool_text(&result), format!("{} steps", 5 + n), "{era}");
                let got: Vec<_> = peers[n]
                    .kept()
                    .iter()
                    .map(|note| note["params"].clone())
                    .collect();
                assert_eq!(got.len(), 5 + n, "{era}: client {n} got {got:?}");
                for (step, params) in got.iter().enumerate() {
                    let wanted = (&json!(0), (5 + n) as f64, (step + 1) as f64);
                    let came = (
                        &params["progressToken"],
                        params["total"].as_f64(),
                        params["progress"].as_f64(),
                    );
                    assert_eq!(
                        came,
                        (wanted.0, Some(wanted.1), Some(wanted.2)),
                        "{era}: client {n}"
                    );
                }
            }
        }
    });
}

/// Number 11.
#[test]
fn clients_of_a_killed_worker_go_on_and_a_third_disturbs_nobody() {
    alone(|| {
        let (bus, log) = puppets("mcp", 2, &[]);
        let mut first = Peer::new(bus.unix_client());
        let answered = first.initialize_mcp_as("first", json!({"roots": {"listChanged": true}}));
        let pid = |peer: &mut Peer| peer.call("pid", json!({})).as_u64().expect("a number") as u32;
        let mut second = Peer::new(bus.tcp_client());
        second.initialize_mcp_as("second", json!({}));
        log.wait_until_ready(2);
        let pids = [pid(&mut first), pid(&mut second)];
        kill_now(pids[0]);
        assert_gone(&pids[..1], BOUND); // the bus knows
        for peer in [&mut first, &mut second] {
            assert!(pid(peer) != pids[0], "a dead worker answered");
        }

        let mut third = Peer::new(bus.unix_client());
        let again = third.initialize_mcp_as("third", json!({"sampling": {}, "elicitation": {}}));
        assert_eq!(again, answered, "answered from the record");
        pid(&mut third);
        log.wait_until_ready(3);
        assert_one_handshake_each(&log);
        for seen in log.with_method("initialize") {
            let params = &seen.json()["params"];
            assert_eq!(params["clientInfo"]["name"], "first", "whose handshake");
            assert_eq!(
                params["capabilities"],
                json!({"roots": {"listChanged": true}})
            );
        }
    });
}

/// Number 11, the eras.
#[test]
fn a_stateless_client_and_a_handshake_client_are_served_by_pools_of_their_own() {
    let Some(python) = python(&[MCP_SDK]) else {
        return;
    };
    alone(|| {
        let log = Log::new();
        let pools = ["old", "new"].map(|id| python_pool(&python, id, "mcp_server.py", 1, &log));
        let bus = Program::start(&config(&pools), UNIX_AND_TCP);
        let mut old = Peer::with(bus.unix_client(), json!({"pool": "old"}));
        let mut new = Peer::with(bus.tcp_client(), json!({"pool": "new"}));
        let call = |meta: Option<Value>| {
            let mut params = json!({"name": "echo", "arguments": {"text": "hello"}});
            if let Some(meta) = meta {
                params["_meta"] = meta;
            }
            params
        };
        let discovered = new.call("server/discover", json!({"_meta": modern(json!({}))}));
        assert_eq!(
            discovered["supportedVersions"],
            json!(["2026-07-28"]),
            "{discovered}"
        );
        assert_eq!(old.initialize_mcp()["protocolVersion"], "2025-06-18");
        for _ in 0..3 {
            assert_eq!(tool_text(&old.call("tools/call", call(None))), "hello");
            let params = call(Some(modern(json!({}))));
            assert_eq!(tool_text(&new.call("tools/call", params)), "hello");
        }
        assert_eq!(
            log.with_method("initialize").len(),
            1,
            "in the old era only"
        );
    });
}

/// Worker to client, the last resort: who has something pending, or is the only one there.
#[test]
fn a_message_without_a_sign_goes_to_the_only_client_it_can_be_for_or_to_nobody() {
    alone(|| {
        let (bus, log) = puppets("mcp", 1, &[]);
        let (mut calls, mut idles) = (mcp(bus.unix_client()), mcp(bus.tcp_client()));
        idles.call("echo", json!({})); // bound to the worker, too
        let log_message = r#"{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":1}}"#;
        let steps = json!([
            log_message,
            r#"{"jsonrpc":"2.0","id":0,"method":"sampling/createMessage","params":{}}"#,
            on("answer 0", json!([answers("$GOT")])),
        ]);
        let call = calls.request("tools/call", play(steps.clone()));
        let asked = calls.message("sampling/createMessage");
        calls.reply(&asked, json!("sampled"));
        assert_eq!(calls.result(call), "sampled");
        calls.message("notifications/message");

        // Both have something pending: it is not guessed.
        let held = idles.request(
            "tools/call",
            play(json!([on("notifications/go", json!([answers("1")]))])),
        );
        log.wait("the other call", |seen| {
            seen.line.contains("notifications/go")
        });
        let call = calls.request("tools/call", play(steps));
        let got = calls.result(call);
        assert_eq!(got["code"], -32601, "declined at once: {got}");
        calls.kept_nothing("a guess");
        idles.notify("notifications/go", json!({}));
        idles.result(held);
        idles.kept_nothing("a guess");
    });
}

/// What concerns all of a server's clients reaches them all.
#[test]
fn a_change_of_the_tools_reaches_every_client_of_the_server() {
    alone(|| {
        let (bus, _log) = puppets("mcp", 1, &[]);
        let mut peers = [bus.unix_client(), bus.tcp_client(), bus.unix_client()].map(mcp);
        for peer in &mut peers {
            peer.call("echo", json!({}));
        }
        let changed = r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#;
        peers[1].call("tools/call", play(json!([changed, answers("1")])));
        for peer in &mut peers {
            peer.message("notifications/tools/list_changed");
            peer.got_nothing_else();
        }
    });
}

/// The names that a server gives its requests are mapped, too: its progress token, and in its cancel.
#[test]
fn what_a_server_calls_its_requests_is_mapped_both_ways() {
    alone(|| {
        let (bus, log) = puppets("mcp", 2, &[]);
        log.prepare(bus.unix_client(), 2);
        let mut peers = [bus.unix_client(), bus.tcp_client()].map(mcp);
        let ask = r#"{"jsonrpc":"2.0","id":0,"method":"sampling/createMessage","params":{"_meta":{"progressToken":0}}}"#;
        let cancel =
            r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":0}}"#;
        let told = |peer: &mut Peer, asked: &Value| {
            let token = &asked["params"]["_meta"]["progressToken"];
            let n = json!({"progressToken": token, "progress": 1});
            peer.notify("notifications/progress", n);
        };
        // each client's server asks with the same id and token
        let steps = json!([
            ask,
            on("notifications/progress", json!([cancel, answers("$GOT")]))
        ]);
        let calls = peers
            .each_mut()
            .map(|peer| peer.request("tools/call", play(steps.clone())));
        let asked = peers
            .each_mut()
            .map(|peer| peer.message("sampling/createMessage"));
        for n in [1, 0] {
            told(&mut peers[n], &asked[n]);
        }
        for n in [0, 1] {
            let got = peers[n].result(calls[n]);
            assert_eq!(got["progressToken"], 0, "the server's own token: {got}");
            let cancel = peers[n].message("notifications/cancelled");
            let named = &cancel["params"]["requestId"];
            assert_eq!(
                *named, asked[n]["id"],
                "the id that the client knows: {cancel}"
            );
            peers[n].reply(&asked[n], json!("too late"));
            peers[n].got_nothing_else();
        }
        let late = log.all().iter().any(|seen| seen.line.contains("too late"));
        assert!(
            !late,
            "an answer to what the server has cancelled reached it"
        );
    });
}
