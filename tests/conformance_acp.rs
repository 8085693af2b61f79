//! Conformance: ACP sessions, streams and permissions. The numbers are those of CONFORMANCE.md.

mod common;

use std::fs;
use std::path::Path;

use common::peer::*;
use common::{BOUND, Program, alone, python, wait_until};
use serde_json::{Value, json};

/// A program with one agent of the official Python SDK.
fn agent(python: &Path) -> (Program, Log) {
    let log = Log::new();
    let pool = python_pool(python, "agent", "acp_agent.py", 1, &log);
    (Program::start(&config(&[pool]), UNIX_AND_TCP), log)
}

/// A program with one pool of puppets.
fn puppets(protocol: &str, instances: usize, args: &[&str]) -> (Program, Log) {
    let log = Log::new();
    let pool = puppet_pool("puppets", protocol, instances, &log, args);
    (Program::start(&config(&[pool]), UNIX_AND_TCP), log)
}

/// A client that has shaken hands.
fn acp(client: common::Client) -> Peer {
    let mut peer = Peer::new(client);
    peer.initialize_acp();
    peer
}

/// The chunks that the agent streams into a session.
fn wanted(session: &str, count: usize) -> Vec<String> {
    (0..count).map(|i| format!("[{session}:{i}]")).collect()
}

/// Fails with the first chunk that is not as it should be.
#[track_caller]
fn assert_chunks(got: &[String], session: &str, count: usize) {
    let wanted = wanted(session, count);
    let wrong = (0..count.max(got.len())).find(|i| got.get(*i) != wanted.get(*i));
    if let Some(i) = wrong {
        let (got, wanted) = (got.get(i), wanted.get(i));
        panic!("session {session}: chunk {i} is {got:?} instead of {wanted:?}");
    }
}

#[track_caller]
fn assert_ended(peer: &mut Peer, prompt: u64, reason: &str) {
    let result = peer.result(prompt);
    assert_eq!(result["stopReason"], reason, "{result}");
}

/// Number 3: each session with a client of its own.
#[test]
fn streams_of_three_sessions_of_three_clients_never_mix() {
    let Some(python) = python(&[ACP_SDK]) else {
        return;
    };
    alone(|| {
        let (bus, log) = agent(&python);
        let clients = [bus.unix_client(), bus.tcp_client(), bus.unix_client()];
        let mut peers = clients.map(acp);
        let sessions = peers.each_mut().map(Peer::new_session);
        let prompts = [0, 1, 2].map(|n| peers[n].prompt(&sessions[n], "stream 1000"));
        for n in [0, 1, 2] {
            assert_ended(&mut peers[n], prompts[n], "end_turn");
            assert_chunks(&peers[n].chunks(&sessions[n]), &sessions[n], 1000);
            peers[n].kept_nothing(&format!("client {n} got more"));
        }
        assert_eq!(log.pids().len(), 1, "one agent had all three");
    });
}

/// Three sessions of one client stream 1,000 chunks each at once.
#[test]
fn streams_of_three_sessions_of_one_client_lose_nothing_and_keep_their_order() {
    let Some(python) = python(&[ACP_SDK]) else {
        return;
    };
    alone(|| {
        let (bus, _log) = agent(&python);
        let mut peer = acp(bus.tcp_client());
        let sessions = [0, 1, 2].map(|_| peer.new_session());
        let prompts = [0, 1, 2].map(|n| peer.prompt(&sessions[n], "stream 1000"));
        for n in [0, 1, 2] {
            assert_ended(&mut peer, prompts[n], "end_turn");
        }
        for session in &sessions {
            assert_chunks(&peer.chunks(session), session, 1000);
        }
        peer.kept_nothing("more came");
    });
}

/// Number 4.
#[test]
fn a_permission_and_a_file_are_asked_and_answered_while_another_session_streams() {
    let Some(python) = python(&[ACP_SDK]) else {
        return;
    };
    alone(|| {
        let (bus, log) = agent(&python);
        let enough = log.beside("enough");
        let mut streaming = acp(bus.unix_client());
        let mut asked = acp(bus.tcp_client());
        let (flow, quiet) = (streaming.new_session(), asked.new_session());
        let stream = streaming.prompt(&flow, &format!("until {}", enough.display()));
        streaming.message("session/update");

        let prompt = asked.prompt(&quiet, "perm");
        let request = asked.message("session/request_permission");
        assert_eq!(request["params"]["sessionId"], quiet, "{request}");
        let outcome = json!({"outcome": {"outcome": "selected", "optionId": "ok"}});
        asked.reply(&request, outcome);
        assert_ended(&mut asked, prompt, "end_turn");
        assert_eq!(asked.chunks(&quiet), ["outcome=selected:ok"]);

        let prompt = asked.prompt(&quiet, "read /etc/motto");
        let request = asked.message("fs/read_text_file");
        assert_eq!(request["params"]["path"], "/etc/motto", "{request}");
        asked.reply(&request, json!({"content": "never mix"}));
        assert_ended(&mut asked, prompt, "end_turn");
        assert_eq!(asked.chunks(&quiet), ["never mix"]);
        asked.kept_nothing("of the other session");

        fs::write(enough, "").expect("the stream can be ended");
        assert_ended(&mut streaming, stream, "end_turn");
        let chunks = streaming.chunks(&flow);
        let after_the_first: Vec<_> = wanted(&flow, chunks.len() + 1).split_off(1);
        assert!(chunks == after_the_first, "the stream has a gap");
    });
}

/// Two clients, two sessions, one agent.
#[test]
fn permissions_that_are_open_together_and_answered_in_reverse_reach_their_prompts() {
    let Some(python) = python(&[ACP_SDK]) else {
        return;
    };
    alone(|| {
        let (bus, _log) = agent(&python);
        let mut peers = [bus.unix_client(), bus.tcp_client()].map(acp);
        let sessions = peers.each_mut().map(Peer::new_session);
        let prompts = [0, 1].map(|n| peers[n].prompt(&sessions[n], "perm"));
        let requests = peers
            .each_mut()
            .map(|peer| peer.message("session/request_permission"));
        for n in [1, 0] {
            assert_eq!(
                requests[n]["params"]["sessionId"], sessions[n],
                "client {n}"
            );
            let option = ["ok", "no"][n];
            let outcome = json!({"outcome": {"outcome": "selected", "optionId": option}});
            peers[n].reply(&requests[n], outcome);
        }
        for n in [0, 1] {
            assert_ended(&mut peers[n], prompts[n], "end_turn");
            let said = peers[n].chunks(&sessions[n]);
            assert_eq!(said, [format!("outcome=selected:{}", ["ok", "no"][n])]);
            peers[n].kept_nothing(&format!("client {n} got more"));
        }
    });
}

/// Number 5: a worker that asks before anybody is there, under every protocol.
#[test]
fn a_request_of_a_worker_that_nobody_can_take_has_its_error_at_once() {
    alone(|| {
        let log = Log::new();
        let hello = [
            "hello",
            r#"{"jsonrpc":"2.0","id":0,"method":"roots/list"}"#,
            "hello",
            r#"{"jsonrpc":"2.0","id":1,"method":"session/request_permission","params":{"sessionId":"gone","options":[]}}"#,
            "hello",
            r#"{"jsonrpc":"2.0","id":"two","method":"fs/read_text_file","params":{"sessionId":"gone","path":"/etc/passwd"}}"#,
        ];
        let protocols = ["ndjson", "auto", "mcp", "acp"];
        let pools = protocols.map(|protocol| puppet_pool(protocol, protocol, 1, &log, &hello));
        let _bus = Program::start(&config(&pools), UNIX_AND_TCP);
        log.wait_for(4, "the start of each pool's worker", |seen| {
            seen.line == "start"
        });
        for pid in log.pids() {
            let answer = |id: Value| {
                let what = format!("its answer to {id}, at worker {pid}");
                let fits = |seen: &Seen| seen.pid == pid && seen.json().get("id") == Some(&id);
                log.wait(&what, fits).json()
            };
            assert_eq!(answer(json!(0))["error"]["code"], -32601);
            let outcome = answer(json!(1));
            assert_eq!(
                outcome["result"]["outcome"]["outcome"], "cancelled",
                "{outcome}"
            );
            assert_eq!(answer(json!("two"))["error"]["code"], -32601);
        }
    });
}

/// Number 5: a session whose client has left, while another client is there.
#[test]
fn a_request_for_a_session_whose_client_has_gone_is_declined_and_shown_to_nobody() {
    alone(|| {
        let (bus, log) = puppets("acp", 1, &[]);
        let (mut leaver, mut stayer) = (acp(bus.unix_client()), acp(bus.tcp_client()));
        let (left, stays) = (leaver.new_session(), stayer.new_session());
        let ask = |id: u32, method: &str| {
            format!(
                r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{{"sessionId":$SESSION}}}}"#
            )
        };
        let steps = json!([on(
            "session/cancel",
            json!([
                ask(70, "session/request_permission"),
                ask(71, "fs/read_text_file")
            ])
        )]);
        leaver.request("session/prompt", json!({"sessionId": left, "play": steps}));
        log.wait("the prompt", |seen| seen.is("session/prompt"));
        drop(leaver);

        let cancel = log.wait("session/cancel of the client that left", |seen| {
            seen.is("session/cancel")
        });
        assert_eq!(cancel.json()["params"]["sessionId"], left);
        let permission = log.wait("the answer to its permission request", |seen| {
            seen.json()["id"] == 70
        });
        let outcome = permission.json();
        assert_eq!(
            outcome["result"]["outcome"]["outcome"], "cancelled",
            "{outcome}"
        );
        let file = log.wait("the answer to its file request", |seen| {
            seen.json()["id"] == 71
        });
        assert_eq!(file.json()["error"]["code"], -32601);
        stayer.call("session/prompt", json!({"sessionId": stays}));
        stayer.got_nothing_else();
    });
}

/// The same when the turn had ended before its client left; also in a session that no living agent has
/// made, but an earlier one.
#[test]
fn what_a_session_without_a_client_says_is_shown_to_nobody_else() {
    alone(|| {
        let (bus, _log) = puppets("acp", 1, &[]);
        let (mut leaver, mut stayer) = (acp(bus.unix_client()), acp(bus.tcp_client()));
        let sessions = [leaver.new_session(), "of an earlier agent".to_owned()];
        let stays = stayer.new_session();
        for session in &sessions {
            leaver.call("session/prompt", json!({"sessionId": session}));
        }
        leaver.client.end();
        leaver.client.rest(); // the bus has closed it, too
        for session in &sessions {
            let says = json!({"jsonrpc": "2.0", "method": "session/update", "params": {
                "sessionId": session, "update": {"sessionUpdate": "agent_message_chunk",
                    "content": {"type": "text", "text": "a secret"}},
            }});
            let asks = json!({"jsonrpc": "2.0", "id": session, "method": "session/request_permission",
                "params": {"sessionId": session, "options": []}});
            let answered = format!("answer {}", json!(session));
            let steps = json!([
                says.to_string(),
                asks.to_string(),
                on(&answered, json!([answers("$GOT")]))
            ]);
            let id = stayer.request("session/prompt", json!({"sessionId": stays, "play": steps}));
            let first = stayer.next("message", |_| true);
            assert_eq!(
                first["id"], id,
                "{session}, of a client that has left: {first}"
            );
            assert_eq!(
                first["result"]["outcome"]["outcome"], "cancelled",
                "{first}"
            );
            stayer.got_nothing_else();
        }
    });
}

/// Number 15.
#[test]
fn an_allow_for_an_agent_that_died_approves_nothing_in_its_successor() {
    alone(|| {
        let (bus, log) = puppets("acp", 1, &[]);
        let mut peer = acp(bus.unix_client());
        let steps = json!([
            r#"{"jsonrpc":"2.0","id":0,"method":"session/request_permission","params":{"sessionId":$SESSION,"options":[]}}"#,
            on("answer 0", json!([answers("$GOT")])),
        ]);
        let session = peer.new_session();
        let first = peer.request(
            "session/prompt",
            json!({"sessionId": session, "play": steps}),
        );
        let old = peer.message("session/request_permission");
        let died = log.pids()[0];
        kill_now(died);
        let end = peer.answer(first);
        assert_eq!(end["error"]["code"], -32011, "{end}");
        let cancel = peer.message("$/cancel_request");
        assert_eq!(
            cancel["params"]["requestId"], old["id"],
            "which request is void"
        );

        let session = peer.new_session();
        let second = peer.request(
            "session/prompt",
            json!({"sessionId": session, "play": steps}),
        );
        let new = peer.message("session/request_permission");
        assert_ne!(new["id"], old["id"], "an id used twice towards one client");
        let outcome =
            |option: &str| json!({"outcome": {"outcome": "selected", "optionId": option}});
        peer.reply(&old, outcome("allow")); // the person clicks late
        peer.reply(&new, outcome("reject"));
        assert_eq!(peer.result(second), outcome("reject"));

        let successor = *log.pids().last().expect("a second one has started");
        let answers: Vec<_> = log
            .of(successor)
            .into_iter()
            .filter(|seen| seen.json().get("method").is_none())
            .collect();
        assert_eq!(answers.len(), 1, "the successor got {answers:?}");
    });
}

/// Number 15, on the official SDK, whose agents all count their requests from 0.
#[test]
fn a_permission_of_a_killed_agent_is_void_for_the_official_sdks_successor() {
    let Some(python) = python(&[ACP_SDK]) else {
        return;
    };
    alone(|| {
        let (bus, log) = agent(&python);
        let mut peer = acp(bus.unix_client());
        let session = peer.new_session();
        let first = peer.prompt(&session, "perm");
        let old = peer.message("session/request_permission");
        kill_now(log.pids()[0]);
        assert_eq!(peer.answer(first)["error"]["code"], -32011);

        let session = peer.new_session();
        let second = peer.prompt(&session, "perm");
        let new = peer.message("session/request_permission");
        let outcome =
            |option: &str| json!({"outcome": {"outcome": "selected", "optionId": option}});
        peer.reply(&old, outcome("ok"));
        peer.reply(&new, outcome("no"));
        assert_ended(&mut peer, second, "end_turn");
        assert_eq!(peer.chunks(&session), ["outcome=selected:no"]);
    });
}

/// Where sessions go: to the worker with the fewest, and then always there.
#[test]
fn sessions_are_spread_over_agents_and_their_prompts_follow_them() {
    alone(|| {
        let (bus, log) = puppets("acp", 2, &[]);
        let mut peers = [bus.unix_client(), bus.tcp_client()].map(acp);
        let pid_of = |session: &str| {
            let pid = session.split('-').nth(1);
            pid.map(|pid| pid.parse::<u32>().expect("a pid"))
        };
        let mut sessions: Vec<String> = Vec::new();
        // the first ones may find one agent that is ready; those behind them make up for it
        wait_until(
            "both agents have three sessions or more, and as many",
            BOUND,
            || {
                sessions.push(peers[sessions.len() % 2].new_session());
                let own = log.pids().into_iter().map(|pid| {
                    sessions
                        .iter()
                        .filter(|session| pid_of(session) == Some(pid))
                        .count()
                });
                let own: Vec<_> = own.collect();
                assert!(
                    sessions.len() < 200,
                    "agents have {own:?} of the first {}",
                    sessions.len()
                );
                own[0] >= 3 && own.len() == 2 && own[0] == own[1]
            },
        );
        for (n, session) in sessions.iter().enumerate() {
            // also when the other client uses it
            for peer in [n % 2, (n + 1) % 2] {
                let steps = json!([answers("$PID")]);
                let id = peers[peer].request(
                    "session/prompt",
                    json!({"sessionId": session, "play": steps}),
                );
                assert_eq!(json!(pid_of(session)), peers[peer].result(id), "{session}");
            }
        }
    });
}

/// A session that is loaded: its history comes before the answer, and its messages go where it is.
#[test]
fn a_loaded_session_brings_its_history_first_and_stays_on_its_agent() {
    alone(|| {
        let (bus, _log) = puppets("acp", 2, &[]);
        for (n, client) in [bus.unix_client(), bus.tcp_client()]
            .into_iter()
            .enumerate()
        {
            let mut peer = acp(client);
            let session = format!("from yesterday {n}");
            let update = r#"{"jsonrpc":"2.0","method":"session/update","params":{"sessionId":$SESSION,"update":{"sessionUpdate":"user_message_chunk","content":{"type":"text","text":"old"}}}}"#;
            let params = json!({
                "sessionId": session, "cwd": "/", "mcpServers": [],
                "play": [update, update, answers("{\"pid\":$PID}")],
            });
            let load = peer.request("session/load", params);
            let loaded = peer.result(load);
            let history = peer.kept();
            assert_eq!(
                history.len(),
                2,
                "history came before the answer: {history:?}"
            );
            assert!(
                history
                    .iter()
                    .all(|note| note["params"]["sessionId"] == session)
            );
            for _ in 0..3 {
                let steps = json!([update, answers("$PID")]);
                let id = peer.request(
                    "session/prompt",
                    json!({"sessionId": session, "play": steps}),
                );
                assert_eq!(
                    peer.result(id),
                    loaded["pid"],
                    "another agent than the session's"
                );
            }
            assert_eq!(peer.kept().len(), 5, "an update of each turn");
        }
    });
}

/// The usual case: clients come one after the other, and each has one session.
#[test]
fn the_only_sessions_of_many_clients_are_spread_over_agents() {
    alone(|| {
        let (bus, log) = puppets("acp", 2, &[]);
        let _first = acp(bus.unix_client());
        log.wait_for(2, "its handshake", |seen| seen.is("initialize"));
        let connect = |_| {
            let mut peer = acp(bus.unix_client());
            let session = peer.new_session();
            (peer, session)
        };
        let peers: Vec<_> = (0..40).map(connect).collect();
        for pid in log.pids() {
            let prefix = format!("sess-{pid}-");
            let own = peers
                .iter()
                .filter(|(_, session)| session.starts_with(&prefix));
            let own = own.count();
            assert!(own >= 10, "agent {pid} has {own} of 40 sessions");
        }
    });
}
