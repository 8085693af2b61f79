//! How the program ends while there is work: what is pending, what is refused, and what is left.

mod common;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{BOUND, Client, Program, alone, assert_gone, children, runs, signal, wait_until, zoo};
use serde_json::{Value, json};

const BOTH: &[&str] = &["--unix={dir}/s", "--tcp=127.0.0.1:0"];

fn config(modes: &[&str], instances: u32) -> String {
    let pool = json!({"id": "zoo", "command": zoo(), "args": modes, "instances": instances});
    json!({"pools": [pool], "limits": {"drain_timeout_sec": 20}}).to_string()
}

/// Asks until the answer is a refusal: the log line that tells of a drain comes just before it begins.
#[track_caller]
fn refusal(client: &mut Client) -> Value {
    loop {
        let answer = client.ask(r#"{"id":"new","method":"echo"}"#);
        if answer["error"].is_object() {
            return answer["error"].clone();
        }
    }
}

#[test]
fn at_sigterm_all_that_is_pending_is_answered_and_what_is_new_is_refused() {
    alone(|| {
        const CLIENTS: usize = 8;
        const PENDING: usize = 50;
        let mut bus = Program::start(&config(&["echo"], 3), BOTH);
        let workers = children(bus.pid());
        let connect = |i: usize| match i % 2 {
            0 => bus.unix_client(),
            _ => bus.tcp_client(),
        };
        let mut clients: Vec<_> = (0..CLIENTS).map(connect).collect();
        let mut late = bus.unix_client();
        late.ask(r#"{"id":0,"method":"echo"}"#);
        for client in &mut clients {
            for id in 0..PENDING {
                let ms = 300 + id * 10;
                client.send(&format!(
                    r#"{{"id":{id},"method":"sleep","params":{{"ms":{ms}}}}}"#
                ));
            }
            // Answered behind them, so they have all arrived.
            assert_eq!(client.ask(r#"{"id":"last","method":"echo"}"#)["id"], "last");
        }
        signal(bus.pid(), "TERM");
        bus.wait_for_log("draining");
        let error = refusal(&mut late);
        assert_eq!(
            (&error["code"], &error["data"]["reason"]),
            (&json!(-32013), &json!("shutting_down"))
        );
        for mut client in clients {
            let mut ids: Vec<_> = client
                .rest()
                .iter()
                .map(|line| serde_json::from_str::<Value>(line).expect("JSON"))
                .map(|answer| {
                    assert!(answer["result"].is_object(), "{answer}");
                    answer["id"].as_u64().expect("a number")
                })
                .collect();
            ids.sort_unstable();
            assert_eq!(ids, (0..PENDING as u64).collect::<Vec<_>>());
        }
        assert_eq!(bus.wait().code(), Some(0), "{:#?}", bus.log());
        assert!(!bus.path("s").exists() && !bus.path("s.lock").exists());
        assert_gone(&workers, Duration::from_secs(1));
    });
}

#[test]
fn what_a_worker_asks_is_still_answered_while_the_bus_drains() {
    alone(|| {
        let mut bus = Program::start(&config(&["echo"], 1), BOTH);
        let mut client = bus.unix_client();
        client.send(r#"{"id":1,"sessionId":"s","method":"ask"}"#);
        let question = client.receive_json();
        let mut other = bus.unix_client();
        other.ask(r#"{"id":0,"method":"echo"}"#);
        signal(bus.pid(), "TERM");
        bus.wait_for_log("draining");
        refusal(&mut other);
        client.send(&json!({"id": question["id"], "result": "yes"}).to_string());
        assert_eq!(client.receive_json()["result"], "yes");
        assert_eq!(bus.wait().code(), Some(0));
    });
}

#[test]
fn a_second_signal_of_another_kind_ends_it_at_once_with_its_own_code() {
    alone(|| {
        for (first, second, code) in [("TERM", "INT", 130), ("INT", "TERM", 143)] {
            let mut bus = Program::start(
                &config(&["ignore-term"], 2),
                &["--unix={dir}/s", "--admin={dir}/admin"],
            );
            let workers = children(bus.pid());
            let mut client = bus.unix_client();
            client.send(r#"{"id":1,"method":"hold"}"#);
            client.ask(r#"{"id":0,"method":"echo"}"#);
            signal(bus.pid(), first);
            bus.wait_for_log("draining");
            let start = Instant::now();
            signal(bus.pid(), second);
            assert_eq!(bus.wait().code(), Some(code), "{:#?}", bus.log());
            assert!(
                start.elapsed() < Duration::from_secs(2),
                "{:?}",
                start.elapsed()
            );
            assert!(!bus.path("s").exists() && !bus.path("admin").exists());
            assert_gone(&workers, Duration::from_secs(1));
            let answer: Value = serde_json::from_str(&client.rest()[0]).expect("JSON");
            assert!(answer["error"].is_object(), "{answer}");
        }
    });
}

#[test]
fn sigkill_of_the_program_ends_its_workers_by_their_end_of_input_and_sigterm() {
    alone(|| {
        let dir = common::TempDir::new();
        let file = |i: u32| dir.path(&format!("report{i}"));
        let pools: Vec<_> = (0..3)
            .map(|i| json!({"id": format!("p{i}"), "command": zoo(), "args": ["report", file(i)]}))
            .collect();
        let mut bus = Program::start(&json!({"pools": pools}).to_string(), BOTH);
        let workers = children(bus.pid());
        assert_eq!(workers.len(), 3);
        let mut client = bus.unix_client();
        for i in 0..3 {
            client.ask(&format!(r#"{{"id":1,"pool":"p{i}","method":"echo"}}"#));
        }
        signal(bus.pid(), "KILL");
        bus.wait();
        for i in 0..3 {
            wait_until("the worker reports", BOUND, || seen(&file(i)).len() == 2);
            assert_eq!(seen(&file(i)), ["eof", "term"]);
        }
        wait_until("the workers have ended", BOUND, || {
            !workers.iter().any(|pid| runs(*pid))
        });
        assert!(client.rest().is_empty());
    });
}

/// What a worker has reported, in order of the alphabet.
fn seen(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let mut seen: Vec<_> = text.lines().map(str::to_owned).collect();
    seen.sort();
    seen
}

#[test]
fn a_worker_that_would_not_start_leaves_no_socket_behind() {
    alone(|| {
        let missing = r#"{"pools":[{"id":"a","command":"/no/such/program"}]}"#;
        let args = ["--unix={dir}/s", "--admin={dir}/admin"];
        let (mut command, dir) = Program::command(missing, &args);
        let left = |name: &str| dir.path(name).exists();
        let (status, [_, log]) = common::run_within(&mut command, BOUND);
        assert_eq!(status.and_then(|status| status.code()), Some(1), "{log}");
        assert!(!left("s") && !left("admin"), "{log}");
    });
}

#[test]
fn the_sockets_go_when_a_client_on_stdin_ends_the_program() {
    alone(|| {
        // Once at the end of its input, once because its output is gone.
        for modes in [&["echo"][..], &["flood", "1000"]] {
            let args = ["--stdio", "--unix={dir}/s", "--admin={dir}/admin"];
            let (mut command, dir) = Program::command(&config(modes, 1), &args);
            let piped = Stdio::piped;
            let mut child = command
                .stdin(piped())
                .stdout(piped())
                .stderr(Stdio::null())
                .spawn()
                .expect("started");
            wait_until("it listens", BOUND, || {
                dir.path("admin").exists() && dir.path("s").exists()
            });
            // The one or the other.
            let stdin = child.stdin.take().filter(|_| modes[0] != "echo");
            let stdout = child.stdout.take().filter(|_| modes[0] == "echo");
            let status = child.wait().expect("it ends");
            assert!(status.code().is_some(), "{status}");
            assert!(
                !dir.path("s").exists() && !dir.path("admin").exists(),
                "{modes:?}"
            );
            drop((stdin, stdout));
        }
    });
}

#[test]
fn the_end_of_stdin_ends_listeners_too_and_pending_requests_are_answered() {
    alone(|| {
        let args = ["--stdio", "--unix={dir}/s"];
        let (mut command, dir) = Program::command(&config(&["echo"], 1), &args);
        let mut bus = Program::launch(command.stdin(Stdio::piped()), dir);
        bus.wait_for_log("entering main loop");
        let mut client = bus.unix_client();
        client.ask(r#"{"id":0,"method":"echo"}"#);
        client.send(r#"{"id":1,"method":"sleep","params":{"ms":300}}"#);
        client.ask(r#"{"id":2,"method":"echo"}"#);
        bus.close_stdin();
        assert_eq!(client.receive_json()["result"], json!({"ms": 300}));
        assert_eq!(bus.wait().code(), Some(0), "{:#?}", bus.log());
    });
}

#[test]
fn sigterm_during_the_start_ends_it_with_0_and_leaves_nothing() {
    alone(|| {
        let args = ["--unix={dir}/s", "--admin={dir}/admin"];
        let (mut command, dir) = Program::command("", &args);
        let path = dir.path("config.json");
        fs::remove_file(&path).expect("removed");
        let made = Command::new("mkfifo").arg(&path).status().expect("it runs");
        assert!(made.success());
        let mut bus = Program::launch(&mut command, dir);
        // Opened once it is opened for reading.
        let mut pipe = fs::OpenOptions::new()
            .write(true)
            .open(&path)
            .expect("read");
        signal(bus.pid(), "TERM");
        pipe.write_all(config(&["echo"], 2).as_bytes())
            .expect("taken");
        drop(pipe);
        assert_eq!(bus.wait().code(), Some(0), "{:#?}", bus.log());
        assert!(!bus.path("s").exists() && !bus.path("admin").exists());
        bus.wait_for_log("SIGTERM");
    });
}
