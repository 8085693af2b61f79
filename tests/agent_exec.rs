//! Exec agents: how the program is called, what its output means, and that it never outlives the agent.

mod common;

use std::fs;
use std::path::Path;
use std::time::Duration;

use common::stdio_agent::{Agent, exec, reason_of, request, sh, text_of};
use common::{BOUND, TempDir, assert_gone, runs, signal, wait_until};
use serde_json::{Value, json};

/// An agent whose answers are the arguments after its script.
fn arguments(more: Value) -> Value {
    let script = r#"printf '%s\0' "$@""#;
    exec("sh", &["-c", script, "sh", "first"], more)
}

#[track_caller]
fn arguments_of(task: &Value) -> Vec<String> {
    let text = text_of(task).strip_suffix('\0').expect("at least one");
    text.split('\0').map(str::to_owned).collect()
}

// ---- the command line --------------------------------------------------------------------------

#[test]
fn the_text_follows_the_arguments_and_the_session_comes_last() {
    let mut config = arguments(
        json!({"session_flag": "--session-id", "resume_flag": "--resume", "system_prompt_flag": "--sp"}),
    );
    config["system_prompt"] = "be brief".into();
    let mut agent = Agent::start(&config, &[]);
    let first = arguments_of(&agent.ask("t", "hello"));
    let session = agent.thread("t")["session_id"]
        .as_str()
        .expect("one")
        .to_owned();
    assert_eq!(
        first,
        [
            "first",
            "--sp",
            "be brief",
            "hello",
            "--session-id",
            &session
        ]
    );
    let second = arguments_of(&agent.ask("t", "again"));
    assert_eq!(
        second,
        ["first", "--sp", "be brief", "again", "--resume", &session]
    );
    let other = arguments_of(&agent.ask("u", "hello"));
    assert_eq!(other[4], "--session-id");
    assert_ne!(other[5], session);
}

#[test]
fn without_flags_there_is_the_text_only() {
    let mut config = arguments(json!({}));
    config["system_prompt"] = "has no option".into();
    let mut agent = Agent::start(&config, &[]);
    for text in ["a  b\n\"c\" $HOME *", "", "é\u{1f600}"] {
        assert_eq!(arguments_of(&agent.ask("t", text)), ["first", text]);
    }
}

#[test]
fn one_flag_may_do_for_new_sessions_and_old_ones() {
    let mut agent = Agent::start(&arguments(json!({"session_flag": "--name"})), &[]);
    let first = arguments_of(&agent.ask("t", "a"));
    let second = arguments_of(&agent.ask("t", "b"));
    assert_eq!((first[2].as_str(), &first[3]), ("--name", &second[3]));
    assert_eq!(second[..3], ["first", "b", "--name"]);
    // None for new ones: they are told nothing.
    let mut agent = Agent::start(&arguments(json!({"resume_flag": "--resume"})), &[]);
    assert_eq!(arguments_of(&agent.ask("t", "a")), ["first", "a"]);
    assert_eq!(arguments_of(&agent.ask("t", "b"))[2], "--resume");
}

#[test]
fn a_session_is_resumed_only_after_an_answer() {
    // Fails as long as the message says so.
    let script = r#"case $1 in fail*) echo "no: $*" >&2; exit 1;; esac; echo "$*""#;
    let more = json!({"session_flag": "--new", "resume_flag": "--old"});
    let mut agent = Agent::start(&exec("sh", &["-c", script, "sh"], more), &[]);
    assert!(reason_of(&agent.ask("t", "fail")).starts_with("no: fail --new "));
    assert!(reason_of(&agent.ask("t", "fail")).starts_with("no: fail --new "));
    assert!(text_of(&agent.ask("t", "ok")).starts_with("ok --new "));
    assert!(reason_of(&agent.ask("t", "fail")).starts_with("no: fail --old "));
    assert!(text_of(&agent.ask("t", "ok")).starts_with("ok --old "));
}

#[test]
fn a_message_is_never_an_option() {
    let mut agent = Agent::start(&arguments(json!({"session_flag": "--s"})), &[]);
    for text in ["-x", "--session-id=1", "--", "-"] {
        let arguments = arguments_of(&agent.ask("t", text));
        assert_eq!(
            arguments[..3],
            ["first".into(), format!(" {text}"), "--s".into()]
        );
    }
    let messages = agent.thread("t")["messages"].clone();
    assert_eq!(messages[0]["text"], "-x");

    let config = arguments(json!({"session_flag": "--s", "end_of_options": true}));
    let mut agent = Agent::start(&config, &[]);
    for text in ["-x", "--", "plain"] {
        let arguments = arguments_of(&agent.ask("t", text));
        assert_eq!(arguments[..2], ["first", "--s"]);
        assert_eq!(arguments[3..], ["--", text]);
    }
}

#[test]
fn several_text_parts_are_lines_and_others_are_left_out() {
    let mut agent = Agent::start(&arguments(json!({})), &[]);
    let parts = json!([{"type": "text", "text": "a"}, {"type": "data", "data": 1}, {"type": "text", "text": "b"}]);
    let message = json!({"role": "user", "parts": parts});
    let request = json!({"jsonrpc": "2.0", "id": 1, "method": "tasks/send", "params": {"id": "t", "message": message}});
    agent.send(&request.to_string());
    assert_eq!(arguments_of(&agent.answer()["result"]), ["first", "a\nb"]);
}

#[test]
fn known_programs_get_the_system_prompt_by_their_own_option() {
    let dir = TempDir::new();
    for (name, flag) in [
        ("claude", "--system-prompt"),
        ("happy", "--system-prompt"),
        ("goose", "--system"),
    ] {
        // A shell by that name.
        let path = dir.path(name);
        std::os::unix::fs::symlink("/bin/sh", &path).expect("linked");
        let script = "printf '%s|' \"$@\"";
        let mut config = exec(
            path.to_str().expect("text"),
            &["-c", script, "sh", "-p"],
            json!({}),
        );
        config["system_prompt"] = "be brief".into();
        let mut agent = Agent::start(&config, &[]);
        let expected = format!("-p|{flag}|be brief|hi|");
        assert_eq!(text_of(&agent.ask("t", "hi")), expected);
    }
}

#[test]
fn the_environment_is_inherited_and_added_to_and_the_folder_can_be_chosen() {
    let script = r#"echo "$A,$B,${HOME:+home},$(pwd)""#;
    let more = json!({"env": ["A=1", "B=x=y"], "cwd": "/usr"});
    let mut agent = Agent::start(&exec("sh", &["-c", script, "sh"], more), &[]);
    assert_eq!(text_of(&agent.ask("t", "x")), "1,x=y,home,/usr");
}

#[test]
fn it_has_no_input() {
    let mut agent = Agent::start(&exec("sh", &["-c", "cat; echo end", "sh"], json!({})), &[]);
    assert_eq!(text_of(&agent.ask("t", "x")), "end");
}

// ---- the output --------------------------------------------------------------------------------

#[test]
fn a_json_result_is_the_answer_and_events_are_its_trace() {
    let script = r#"printf '%s\n' "$1""#;
    let mut agent = Agent::start(&exec("sh", &["-c", script, "sh"], json!({})), &[]);
    let object = json!({"type": "result", "result": "the answer", "cost": 1}).to_string();
    let task = agent.ask("t", &object);
    assert_eq!(text_of(&task), "the answer");
    assert_eq!(task["artifacts"].as_array().map(Vec::len), Some(1));
    let events = json!([{"type": "system"}, {"type": "assistant", "text": "x"}, {"type": "result", "result": "42"}]);
    let task = agent.ask("t", &events.to_string());
    let trace =
        json!({"name": "trace", "parts": [{"type": "data", "data": [events[1], events[2]]}]});
    assert_eq!((text_of(&task), &task["artifacts"][1]), ("42", &trace));
    for raw in ["{\"result\": 7}", "  plain\n\n", "[1, 2]"] {
        assert_eq!(text_of(&agent.ask("t", raw)), raw.trim());
    }
    assert_eq!(agent.thread("t")["messages"][1]["text"], "the answer");
}

#[test]
fn bytes_that_are_no_text_are_replaced() {
    let mut agent = Agent::start(&sh(r"printf 'a\377b\n'"), &[]);
    assert_eq!(text_of(&agent.ask("t", "x")), "a\u{fffd}b");
}

#[test]
fn much_output_on_both_streams_does_not_block() {
    let script =
        "head -c 1000000 /dev/zero | tr '\\0' e >&2; head -c 1000000 /dev/zero | tr '\\0' o";
    let mut agent = Agent::start(&sh(script), &[]);
    assert_eq!(text_of(&agent.ask("t", "x")), "o".repeat(1_000_000));
    let mut agent = Agent::start(&sh(&format!("{script}; echo 'the end' >&2; exit 1")), &[]);
    let task = agent.ask("t", "x");
    let reason = reason_of(&task);
    assert!(
        reason.ends_with("the end") && reason.len() < 100_000,
        "{}",
        reason.len()
    );
}

#[test]
fn endless_output_is_a_failure() {
    let mut agent = Agent::start(&sh("echo $$ > $HOME/pid; exec yes"), &[]);
    assert_eq!(reason_of(&agent.ask("t", "x")), "the output is too long");
    assert_gone(&[pid_in(&agent.path("pid"))], BOUND);
}

// ---- failures ----------------------------------------------------------------------------------

#[test]
fn a_failure_is_told_in_the_programs_words_or_by_how_it_ended() {
    for (script, reason) in [
        ("echo out; echo; echo ' why not ' >&2; exit 3", "why not"),
        ("echo out; exit 3", "exit status 3"),
        ("kill -KILL $$", "signal: killed"),
        ("kill -TERM $$", "signal: terminated"),
    ] {
        let mut agent = Agent::start(&sh(script), &[]);
        let task = agent.ask("t", "x");
        assert_eq!(
            task,
            json!({"id": "t", "status": {"state": "failed", "message": reason}})
        );
        let messages = agent.thread("t")["messages"].clone();
        assert_eq!(messages, json!([{"role": "user", "text": "x"}]));
    }
}

#[test]
fn a_program_that_can_not_be_started_is_a_failure_and_named() {
    let reason = |config: &Value, text: &str| {
        let mut agent = Agent::start(config, &[]);
        let reason = reason_of(&agent.ask("t", text)).to_owned();
        assert!(agent.finish().is_empty());
        reason
    };
    let missing = reason(&exec("no-such-program", &[], json!({})), "x");
    assert_eq!(
        missing,
        r#"exec: "no-such-program": executable file not found in $PATH"#
    );
    let missing = reason(&exec("/no/such", &[], json!({})), "x");
    assert!(missing.starts_with("/no/such: No such file"), "{missing}");
    let folder = reason(&exec("true", &[], json!({"cwd": "/no/such"})), "x");
    assert!(
        folder.starts_with("chdir /no/such: No such file"),
        "{folder}"
    );
    let denied = reason(&exec("/etc/passwd", &[], json!({})), "x");
    assert!(denied.contains("Permission denied"), "{denied}");
    let nul = reason(&exec("true", &[], json!({})), "a\0b");
    assert!(nul.contains("nul byte"), "{nul}");
    let long = reason(&exec("true", &[], json!({})), &"x".repeat(200_000));
    assert!(long.contains("Argument list too long"), "{long}");
}

#[test]
fn a_program_has_the_time_it_is_given() {
    let in_time = exec("sh", &["-c", "echo in time"], json!({"timeout_ms": 20_000}));
    assert_eq!(
        text_of(&Agent::start(&in_time, &[]).ask("t", "x")),
        "in time"
    );
    for script in [
        "echo $$ > $HOME/pid; exec sleep 1000",
        // It ignores SIGTERM, and so does its child.
        "trap '' TERM; echo $$ > $HOME/pid; sleep 1000; sleep 1000",
    ] {
        let config = exec("sh", &["-c", script, "sh"], json!({"timeout_ms": 300}));
        let mut agent = Agent::start(&config, &[]);
        assert_eq!(reason_of(&agent.ask("t", "x")), "timed out after 300ms");
        assert_gone(&[pid_in(&agent.path("pid"))], BOUND);
        // The thread goes on.
        assert_eq!(reason_of(&agent.ask("t", "x")), "timed out after 300ms");
    }
}

// ---- nothing is left behind --------------------------------------------------------------------

fn pid_in(path: &Path) -> u32 {
    let read = || fs::read_to_string(path).ok()?.trim().parse().ok();
    wait_until(&format!("a number in {path:?}"), BOUND, || read().is_some());
    read().expect("a number")
}

/// Agents whose program runs until it is ended, has a child, and tells its pids in files.
fn long_running() -> [Value; 2] {
    let script = |trap: &str| {
        sh(&format!(
            "{trap} sleep 1000 & echo $! > $HOME/child; echo $$ > $HOME/pid; wait; sleep 1000"
        ))
    };
    [script(""), script("trap '' TERM INT HUP;")]
}

fn working(config: &Value) -> (Agent, [u32; 2]) {
    let mut agent = Agent::start(config, &[]);
    agent.send(&request("1", "t", "x"));
    let pids = ["pid", "child"].map(|name| pid_in(&agent.path(name)));
    assert!(pids.iter().all(|pid| runs(*pid)));
    (agent, pids)
}

#[test]
fn a_signal_ends_the_agent_and_its_programs_with_their_children() {
    for config in long_running() {
        for name in ["TERM", "INT", "HUP"] {
            let (mut agent, pids) = working(&config);
            signal(agent.pid(), name);
            let (status, lines, log) = agent.wait();
            assert_eq!((status.code(), lines.len()), (Some(0), 0), "{name}: {log}");
            wait_until("the programs have ended", BOUND, || {
                !pids.iter().any(|pid| runs(*pid))
            });
        }
    }
}

#[test]
fn programs_may_clean_up_when_the_agent_or_their_time_ends() {
    let script = "trap 'touch $HOME/cleaned; exit 0' TERM; echo $$ > $HOME/pid; sleep 1000 & wait";
    let mut agent = Agent::start(&sh(script), &[]);
    agent.send(&request("1", "t", "x"));
    pid_in(&agent.path("pid"));
    signal(agent.pid(), "TERM");
    assert_eq!(agent.wait().0.code(), Some(0));
    assert!(agent.path("cleaned").exists());

    let config = exec("sh", &["-c", script, "sh"], json!({"timeout_ms": 1000}));
    let mut agent = Agent::start(&config, &[]);
    assert_eq!(reason_of(&agent.ask("t", "x")), "timed out after 1s");
    assert!(agent.path("cleaned").exists());
}

#[test]
fn a_signal_ends_them_also_when_the_input_has_ended() {
    let [config, _] = long_running();
    let (mut agent, pids) = working(&config);
    agent.close_stdin();
    signal(agent.pid(), "TERM");
    let (status, _, log) = agent.wait();
    assert_eq!(status.code(), Some(0), "{log}");
    wait_until("the programs have ended", BOUND, || {
        !pids.iter().any(|pid| runs(*pid))
    });
}

#[test]
fn the_program_ends_with_an_agent_that_is_killed() {
    for config in long_running() {
        let (mut agent, [pid, child]) = working(&config);
        signal(agent.pid(), "KILL");
        agent.wait();
        wait_until("the program has ended", BOUND, || !runs(pid));
        // Its own children are out of reach then.
        signal(child, "KILL");
    }
}

#[test]
fn at_the_end_of_the_input_what_was_asked_is_answered_first() {
    let script = "read line < $HOME/$1; echo \"$line $1\"";
    let mut agent = Agent::start(&sh(script), &[]);
    for name in ["a", "b"] {
        make_fifo(&agent.path(name));
        agent.send_bytes(request("1", name, name).as_bytes());
        if name == "a" {
            agent.send_bytes(b"\n");
        }
    }
    agent.close_stdin();
    for name in ["b", "a"] {
        // Waits for its reader.
        fs::write(agent.path(name), "hello\n").expect("written");
        let answer = agent.answer();
        assert_eq!(text_of(&answer["result"]), format!("hello {name}"));
    }
    let (status, lines, log) = agent.wait();
    assert_eq!((status.code(), lines.len()), (Some(0), 0), "{log}");
}

fn make_fifo(path: &Path) {
    let made = std::process::Command::new("mkfifo").arg(path).status();
    assert!(made.expect("mkfifo runs").success());
}

#[test]
fn what_a_program_leaves_behind_ends_with_it() {
    let mut agent = Agent::start(&sh("sleep 1000 & echo $! > $HOME/pid; echo done"), &[]);
    // It holds the pipes open, and yet there is an answer.
    assert_eq!(text_of(&agent.ask("t", "x")), "done");
    let pid = pid_in(&agent.path("pid"));
    wait_until("it has ended", BOUND, || !runs(pid));
}

#[test]
fn who_leaves_the_group_and_holds_the_output_open_does_not_hold_up_the_answer() {
    let mut agent = Agent::start(
        &sh("setsid sh -c 'echo $$ > $HOME/pid; exec sleep 1000' & read x < $HOME/go; echo done"),
        &[],
    );
    make_fifo(&agent.path("go"));
    agent.send(&request("1", "t", "x"));
    let pid = pid_in(&agent.path("pid"));
    fs::write(agent.path("go"), "\n").expect("written");
    assert_eq!(text_of(&agent.answer()["result"]), "done");
    signal(pid, "KILL");
}

#[tokio::test]
async fn an_embedded_agent_that_is_dropped_or_stopped_leaves_nothing() {
    use stdiobus::agent::{AgentSpec, StdioAgent};
    use tokio::io::AsyncWriteExt;

    let dir = TempDir::new();
    for stop in [false, true] {
        let pid_file = dir.path(if stop { "stopped" } else { "dropped" });
        let script = format!("echo $$ > {}; exec sleep 1000", pid_file.display());
        let spec = AgentSpec::from_yaml(&sh(&script).to_string()).expect("valid");
        let agent = StdioAgent::new(spec).threads_folder(dir.path("threads"));
        let (mut client, server) = tokio::io::duplex(4096);
        let (from, to) = tokio::io::split(server);
        let line = request("1", "t", "x") + "\n";
        client.write_all(line.as_bytes()).await.expect("taken");
        let started = async {
            while fs::read_to_string(&pid_file).map_or(true, |text| text.is_empty()) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        match stop {
            true => agent.serve_until(from, to, started).await.expect("stopped"),
            false => tokio::select! {
                _ = agent.serve(from, to) => panic!("it goes on"),
                () = started => {}
            },
        }
        let pid = pid_in(&pid_file);
        wait_until("it has ended", BOUND, || !runs(pid));
    }
}
