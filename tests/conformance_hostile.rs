//! Conformance: clients and workers that are clumsy, or mean harm, and what they can't do.

mod common;

use std::io::Write;
use std::os::unix::net::UnixStream;

use common::peer::*;
use common::{BOUND, Client, Program, alone, signal, wait_until};
use serde_json::{Value, json};

/// A program with one pool of puppets.
fn puppets(protocol: &str, instances: usize) -> (Program, Log) {
    let log = Log::new();
    let pool = puppet_pool("puppets", protocol, instances, &log, &[]);
    (Program::start(&config(&[pool]), UNIX_AND_TCP), log)
}

fn acp(client: Client) -> Peer {
    let mut peer = Peer::new(client);
    peer.initialize_acp();
    peer
}

/// The line with which a puppet asks for permission in its request's session.
fn permission(id: u32) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":{id},"method":"session/request_permission","params":{{"sessionId":$SESSION,"options":[]}}}}"#
    )
}

fn outcome(option: &str) -> Value {
    json!({"outcome": {"outcome": "selected", "optionId": option}})
}

#[test]
fn a_client_can_not_answer_a_permission_that_another_one_was_asked_for() {
    alone(|| {
        let (bus, log) = puppets("acp", 1);
        let (mut asked, mut thief) = (acp(bus.unix_client()), acp(bus.tcp_client()));
        let session = asked.new_session();
        thief.new_session();
        let steps = json!([permission(0), on("answer 0", json!([answers("$GOT")]))]);
        let prompt = asked.request(
            "session/prompt",
            json!({"sessionId": session, "play": steps}),
        );
        let request = asked.message("session/request_permission");
        for id in 0..20 {
            thief.reply(&json!({ "id": id }), outcome("stolen"));
            thief.reply(&json!({"id": id.to_string()}), outcome("stolen"));
        }
        thief.got_nothing_else();
        asked.reply(&request, outcome("own"));
        assert_eq!(asked.result(prompt), outcome("own"));
        let stolen = log.all().iter().any(|seen| seen.line.contains("stolen"));
        assert!(!stolen, "the agent got the stranger's answer");
        // a second answer, and one to what nobody has asked, change nothing either
        asked.reply(&request, outcome("again"));
        asked.got_nothing_else();
        assert!(!log.all().iter().any(|seen| seen.line.contains("again")));
    });
}

#[test]
fn a_client_can_not_cancel_or_report_on_what_another_one_has_asked() {
    alone(|| {
        for protocol in ["acp", "mcp"] {
            let (bus, log) = puppets(protocol, 1);
            let mut peers = [bus.unix_client(), bus.tcp_client()].map(Peer::new);
            for peer in &mut peers {
                match protocol {
                    "acp" => peer.initialize_acp(),
                    _ => peer.initialize_mcp(),
                };
            }
            let [mut victim, mut other] = peers;
            let held =
                json!({"play": [on("go", json!([answers("1")]))], "_meta": {"progressToken": 5}});
            let id = victim.request("some/thing", held);
            log.wait("the request", |seen| seen.is("some/thing"));
            for name in (0..10)
                .map(|n| json!(n))
                .chain([json!("0"), json!(null), json!({})])
            {
                for method in ["$/cancel_request", "notifications/cancelled"] {
                    other.notify(method, json!({"requestId": name}));
                }
            }
            other.got_nothing_else();
            other.notify("go", json!({}));
            assert_eq!(victim.result(id), 1, "{protocol}");
            let told = log
                .all()
                .into_iter()
                .find(|seen| seen.line.contains("cancel"));
            assert_eq!(
                told, None,
                "{protocol}: a cancel of what its client had not asked"
            );
        }
    });
}

#[test]
fn a_session_is_the_same_however_its_name_is_spelled() {
    alone(|| {
        let (bus, _log) = puppets("acp", 3);
        let mut peer = acp(bus.unix_client());
        let session = peer.new_session();
        let pid = session.split('-').nth(1).expect("sess-PID-N").to_owned();
        let spelled: String = session
            .bytes()
            .map(|c| format!("\\u{:04X}", u32::from(c)))
            .collect();
        for name in [format!("\"{session}\""), format!("\"{spelled}\"")] {
            for params in [
                format!(r#"{{"sessionId":{name},"play":["{{\"id\":$ID,\"result\":$PID}}"]}}"#),
                format!(
                    r#"{{"x":[{{"sessionId":"no"}}],"play":["{{\"id\":$ID,\"result\":$PID}}"], "sessionId" : {name} }}"#
                ),
                format!(
                    r#"{{"sessionId":"no","play":["{{\"id\":$ID,\"result\":$PID}}"],"\u0073essionId":{name}}}"#
                ),
            ] {
                peer.client.send(&format!(
                    r#"{{"jsonrpc":"2.0","id":"x","method":"session/prompt","params":{params}}}"#
                ));
                let answer = peer.next("answer", |message| message["id"] == "x");
                assert_eq!(answer["result"].to_string(), pid, "{params}: {answer}");
            }
        }
    });
}

#[test]
fn tokens_of_every_kind_come_back_and_what_is_no_token_does_no_harm() {
    alone(|| {
        let (bus, _log) = puppets("mcp", 1);
        let mut peer = Peer::new(bus.unix_client());
        peer.initialize_mcp();
        let progress = r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progress":1,"progressToken":$TOKEN}}"#;
        for token in [
            "0",
            "-1",
            "\"\"",
            "\"a\\u0041\\n\"",
            "12345678901234567890123",
            "1.0",
        ] {
            let params = format!(
                r#"{{"name":"x","arguments":{{}},"_meta":{{"a":{{"progressToken":"deeper"}},"progressToken":{token}}},"play":[{},{}]}}"#,
                json!(progress),
                json!(answers("1"))
            );
            peer.client.send(&format!(
                r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{params}}}"#
            ));
            let note = peer.client.line(BOUND).expect("its progress");
            assert!(
                note.contains(&format!(r#""progressToken":{token}"#)),
                "{token}: {note}"
            );
            let answer = peer.client.line(BOUND).expect("its answer");
            assert!(answer.contains("\"result\":1"), "{token}: {answer}");
        }
        for no_token in ["null", "{}", "[0]", "true"] {
            let params = format!(r#"{{"_meta":{{"progressToken":{no_token}}},"n":1}}"#);
            peer.client.send(&format!(
                r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{params}}}"#
            ));
            let answer = peer.client.line(BOUND).expect("its answer");
            assert!(answer.contains("\"n\":1"), "{no_token}: {answer}");
        }
        for odd in [
            "[]",
            "null",
            "7",
            r#""_meta""#,
            r#"{"_meta":7}"#,
            r#"{"_meta":[]}"#,
            r#"{"sessionId":7}"#,
        ] {
            peer.client.send(&format!(
                r#"{{"jsonrpc":"2.0","id":1,"method":"odd","params":{odd}}}"#
            ));
            let answer = peer.client.line(BOUND).expect("its answer");
            assert!(
                answer.contains(&format!("\"result\":{odd}")),
                "{odd}: {answer}"
            );
        }
    });
}

/// The members that the bus looks for in answers may be anything.
#[test]
fn an_odd_answer_to_a_new_session_is_passed_on_and_binds_nothing() {
    alone(|| {
        let (bus, _log) = puppets("acp", 1);
        let mut peer = acp(bus.unix_client());
        for result in [
            "{}",
            "null",
            "7",
            r#"{"sessionId":7}"#,
            r#"{"sessionId":""}"#,
            r#"{"sessionId":null}"#,
        ] {
            let params = json!({"cwd": "/", "mcpServers": [], "play": [answers(result)]});
            let id = peer.request("session/new", params);
            let wanted: Value = serde_json::from_str(result).expect("JSON");
            assert_eq!(peer.result(id), wanted);
        }
        let session = peer.new_session();
        peer.call("session/prompt", json!({"sessionId": session}));
        peer.got_nothing_else();
    });
}

/// A client that does not read what its agent streams loses its connection, and its turn is cancelled.
#[test]
fn a_client_that_does_not_read_its_stream_is_closed_and_its_turn_cancelled() {
    alone(|| {
        let log = Log::new();
        let pool = puppet_pool("puppets", "acp", 1, &log, &[]);
        let limits = json!({"max_output_queue": 1 << 20});
        let mut bus = Program::start(
            &json!({"pools": [pool], "limits": limits}).to_string(),
            UNIX_AND_TCP,
        );
        let mut other = acp(bus.tcp_client());
        let theirs = other.new_session();

        // a plain socket, since `Client` reads all the time
        let mut stuck = UnixStream::connect(&bus.unix_paths()[0]).expect("a client");
        let chunk = json!({"jsonrpc": "2.0", "method": "session/update", "params": {
            "sessionId": "stuck", "update": {"sessionUpdate": "agent_message_chunk",
                "content": {"type": "text", "text": "x".repeat(50_000)}},
        }})
        .to_string();
        let steps: Vec<_> = (0..100).map(|_| json!(chunk)).collect();
        for message in [
            json!({"jsonrpc": "2.0", "id": 0, "method": "initialize",
                "params": {"protocolVersion": 1, "clientCapabilities": {}}}),
            json!({"jsonrpc": "2.0", "id": 1, "method": "session/load", "params": {"sessionId": "stuck"}}),
            json!({"jsonrpc": "2.0", "id": 2, "method": "session/prompt",
                "params": {"sessionId": "stuck", "play": steps}}),
        ] {
            stuck
                .write_all(format!("{message}\n").as_bytes())
                .expect("the bus reads");
        }
        bus.wait_for_log("disconnected: overflow");
        let cancel = log.wait("session/cancel for it", |seen| seen.is("session/cancel"));
        assert_eq!(cancel.json()["params"]["sessionId"], "stuck");
        other.call("session/prompt", json!({"sessionId": theirs}));
        other.got_nothing_else();
    });
}

/// A drain lets a turn end, with what the agent has to ask for it.
#[test]
fn a_drain_lets_a_permission_be_answered_and_its_turn_end() {
    alone(|| {
        let (mut bus, log) = puppets("acp", 1);
        let mut peer = acp(bus.unix_client());
        let session = peer.new_session();
        let steps = json!([
            on("go", json!([permission(0)])),
            on("answer 0", json!([answers("$GOT")]))
        ]);
        let prompt = peer.request(
            "session/prompt",
            json!({"sessionId": session, "play": steps}),
        );
        log.wait("the prompt", |seen| seen.is("session/prompt"));
        signal(bus.pid(), "TERM");
        // requests are refused once it drains
        wait_until("a request is refused", BOUND, || {
            let id = peer.request("late", json!({}));
            peer.answer(id)["error"]["code"] == -32013
        });
        peer.notify("go", json!({}));
        let request = peer.message("session/request_permission");
        peer.reply(&request, outcome("ok"));
        assert_eq!(peer.result(prompt), outcome("ok"));
        assert!(bus.wait().success());
    });
}

/// What a worker answers twice, or to what nobody asks, or under ids that only look like others.
#[test]
fn answers_that_nobody_waits_for_reach_nobody_under_a_handshake() {
    alone(|| {
        let (bus, log) = puppets("mcp", 1);
        let mut peers = [bus.unix_client(), bus.tcp_client()].map(Peer::new);
        for peer in &mut peers {
            peer.initialize_mcp();
        }
        let held = json!([on("go", json!([answers("\"own\"")]))]);
        let held = peers[0].request("tools/call", play(held));
        let id = log.wait("the call", |seen| seen.is("tools/call")).json()["id"].clone();
        let forged = [format!("\"{id}\""), format!("{id}.0"), format!("0{id}")]
            .into_iter()
            .chain(["null", "99", "-1", "\"\"", "{}", "[1]", "true"].map(str::to_owned))
            .map(|id| {
                json!(format!(
                    r#"{{"jsonrpc":"2.0","id":{id},"result":"forged"}}"#
                ))
            });
        let mut steps: Vec<Value> = forged.collect();
        steps.push(json!(answers("\"first\"")));
        steps.push(json!(answers("\"second\"")));
        let call = peers[1].request("tools/call", play(json!(steps)));
        assert_eq!(peers[1].result(call), "first");
        peers[1].got_nothing_else();
        peers[0].notify("go", json!({}));
        assert_eq!(peers[0].result(held), "own");
        peers[0].got_nothing_else();
    });
}

/// Agents that number their sessions both have a first one: it is not one session.
#[test]
fn sessions_that_two_agents_give_the_same_name_stay_apart_or_are_refused() {
    alone(|| {
        let log = Log::new();
        let pool = puppet_pool("p", "acp", 2, &log, &["numbered"]);
        let bus = Program::start(&config(&[pool]), UNIX_AND_TCP);
        let mut peers = Vec::new();
        wait_until("both agents were asked for a session", BOUND, || {
            let mut peer = acp(bus.unix_client());
            let id = peer.request("session/new", json!({"cwd": "/", "mcpServers": []}));
            let answer = peer.answer(id);
            peers.push((peer, answer["result"]["sessionId"].clone()));
            assert!(peers.len() < 50, "one agent got all of 50 sessions");
            log.pids()
                .iter()
                .all(|pid| log.of(*pid).iter().any(|seen| seen.is("session/new")))
        });
        // whoever has a session, of whatever name, is the only one to see what it says
        for n in 0..peers.len() {
            let (peer, session) = &mut peers[n];
            if session.is_null() {
                continue; // refused
            }
            let update = format!(
                r#"{{"jsonrpc":"2.0","method":"session/update","params":{{"sessionId":$SESSION,"of":{n}}}}}"#
            );
            let steps = json!([
                update,
                permission(n as u32),
                on(&format!("answer {n}"), json!([answers("$GOT")]))
            ]);
            let id = peer.request(
                "session/prompt",
                json!({"sessionId": session, "play": steps}),
            );
            let update = peer.message("session/update");
            assert_eq!(update["params"]["of"], n, "another client's update");
            let request = peer.message("session/request_permission");
            peer.reply(&request, outcome("own"));
            assert_eq!(peer.result(id), outcome("own"));
            for (n, (peer, session)) in peers.iter().enumerate() {
                peer.kept_nothing(&format!("client {n} of session {session} got another's"));
            }
        }
        let reached: Vec<_> = log
            .with_method("session/prompt")
            .iter()
            .map(|seen| seen.pid)
            .collect();
        let own = peers.iter().filter(|(_, session)| *session == "1").count();
        let agents: std::collections::HashSet<_> = reached.iter().collect();
        assert!(
            own < 2 || agents.len() == 2,
            "{own} clients have a session 1, and one agent got all prompts"
        );
    });
}
