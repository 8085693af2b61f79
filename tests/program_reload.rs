//! SIGHUP: the program takes its configuration anew while it serves.

mod common;

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::cli::config_file;
use common::{Client, Program, TempDir, alone, assert_gone, children, program, runs, signal, zoo};
use serde_json::{Value, json};

const UNIX: &[&str] = &["--unix={dir}/s"];
const IN_FORCE: &str = "the configuration is in force";

/// A pool `stable`, a pool `moving` whose workers have a `mark`, and more of them where wanted.
fn config(mark: &str, more: &[&str]) -> String {
    let pool = |id: &str, mark: &str| json!({"id": id, "command": zoo(), "args": ["echo"], "instances": 2, "env": {"MARK": mark}});
    let mut pools = vec![pool("stable", ""), pool("moving", mark)];
    pools.extend(more.iter().map(|id| pool(id, "")));
    json!({"pools": pools, "limits": {"drain_timeout_sec": 20}}).to_string()
}

fn with_drain(config: &str, seconds: u32) -> String {
    let mut config: Value = serde_json::from_str(config).expect("JSON");
    config["limits"]["drain_timeout_sec"] = json!(seconds);
    config.to_string()
}

/// Puts another configuration in its place, as an editor does.
fn write(bus: &Program, config: &str) {
    fs::write(bus.path("new.json"), config).expect("written");
    fs::rename(bus.path("new.json"), bus.path("config.json")).expect("renamed");
}

/// How often the log has such a line so far.
fn count(bus: &Program, text: &str) -> usize {
    bus.log().iter().filter(|line| line.contains(text)).count()
}

/// Reloads, and waits until the program says how that went.
fn reload(bus: &mut Program, config: &str, outcome: &str) {
    let before = count(bus, outcome);
    write(bus, config);
    signal(bus.pid(), "HUP");
    common::wait_until(outcome, common::BOUND, || count(bus, outcome) > before);
}

fn ask(client: &mut Client, pool: &str, rest: &str) -> Value {
    client.ask(&format!(r#"{{"id":1,"pool":"{pool}",{rest}}}"#))
}

fn mark(client: &mut Client, rest: &str) -> Value {
    let request = format!(r#"{rest}"method":"env","params":{{"name":"MARK"}}"#);
    ask(client, "moving", &request)["result"].clone()
}

#[test]
fn under_load_no_request_of_a_pool_that_stays_is_lost() {
    alone(|| {
        let mut bus = Program::start(&config("0", &[]), UNIX);
        let path = bus.path("s");
        let stop = AtomicBool::new(false);
        let load = |pool: &'static str| {
            let mut client = Client::unix(&path);
            let mut asked = 0_u64;
            while !stop.load(Ordering::Relaxed) {
                // Some are in flight at any time.
                let batch: Vec<_> = (0..32)
                    .map(|i| {
                        format!(r#"{{"id":{i},"pool":"{pool}","method":"echo","params":[{i}]}}"#)
                    })
                    .collect();
                client.send(&batch.join("\n"));
                let mut seen = [false; 32];
                for _ in 0..32 {
                    let answer = client.receive_json();
                    let id = answer["id"].as_u64().expect("a number") as usize;
                    assert_eq!(answer["result"], json!([id]), "{pool}: {answer}");
                    assert!(!std::mem::replace(&mut seen[id], true), "twice: {answer}");
                }
                asked += 32;
            }
            asked
        };
        thread::scope(|scope| {
            let pools = ["stable", "stable", "moving", "moving"];
            let loads = pools.map(|pool| scope.spawn(move || load(pool)));
            for round in 1..=5 {
                reload(&mut bus, &config(&round.to_string(), &[]), IN_FORCE);
            }
            stop.store(true, Ordering::Relaxed);
            for load in loads {
                assert!(load.join().expect("all were answered") > 0);
            }
        });
        assert_eq!(mark(&mut bus.unix_client(), ""), "5");
    });
}

#[test]
fn a_pool_that_stays_keeps_its_workers_and_a_changed_one_gets_new_ones() {
    alone(|| {
        let mut bus = Program::start(&config("old", &[]), UNIX);
        let mut client = bus.unix_client();
        let stays = ask(&mut client, "stable", r#""sessionId":"s","method":"pid""#);
        let before = children(bus.pid());
        reload(&mut bus, &config("new", &[]), IN_FORCE);
        let still = ask(&mut client, "stable", r#""sessionId":"s","method":"pid""#);
        assert_eq!(stays["result"], still["result"]);
        // Nothing was in flight, so the old ones end at once.
        common::wait_until("the old workers have ended", common::BOUND, || {
            let now = children(bus.pid());
            now.len() == 4 && now.iter().filter(|pid| before.contains(pid)).count() == 2
        });
        assert_eq!(mark(&mut client, ""), "new");
    });
}

#[test]
fn what_is_in_flight_ends_on_the_old_workers_and_sessions_move() {
    alone(|| {
        let mut bus = Program::start(&config("old", &[]), UNIX);
        let (mut busy, mut client) = (bus.unix_client(), bus.unix_client());
        // Two sessions, perhaps on two workers: one has something in flight, one has not.
        let pid = |client: &mut Client, session: &str| {
            let request = format!(r#""sessionId":"{session}","method":"pid""#);
            ask(client, "moving", &request)["result"]
                .as_u64()
                .expect("a pid") as u32
        };
        let (old_idle, old_busy) = (pid(&mut client, "idle"), pid(&mut busy, "busy"));
        let ask_back = r#"{"id":2,"pool":"moving","sessionId":"busy","method":"ask"}"#;
        busy.send(ask_back);
        // The worker asks back, so it has the request.
        let question = busy.receive_json();
        assert_eq!(question["method"], "ask");

        reload(&mut bus, &config("new", &[]), IN_FORCE);
        let new_idle = pid(&mut client, "idle");
        assert_ne!(new_idle, old_idle);
        assert_eq!(mark(&mut client, r#""sessionId":"idle","#), "new");
        assert_eq!(pid(&mut client, "idle"), new_idle, "and it stays there");
        for _ in 0..10 {
            assert_eq!(
                mark(&mut client, ""),
                "new",
                "the old ones take nothing new"
            );
        }
        assert!(runs(old_busy), "it has something to do");
        busy.send(&json!({"id": question["id"], "result": "from before"}).to_string());
        let answer = busy.receive_json();
        assert_eq!(
            (&answer["id"], &answer["result"]),
            (&json!(2), &json!("from before"))
        );
        assert_gone(&[old_idle, old_busy], common::BOUND);
        assert_ne!(pid(&mut busy, "busy"), old_busy);
    });
}

#[test]
fn old_workers_end_after_drain_timeout_sec_whatever_they_do() {
    alone(|| {
        let mut bus = Program::start(&with_drain(&config("old", &[]), 1), UNIX);
        let mut client = bus.unix_client();
        client.send(r#"{"id":2,"pool":"moving","sessionId":"s","method":"hold"}"#);
        ask(&mut client, "moving", r#""sessionId":"s","method":"pid""#);
        let start = Instant::now();
        reload(&mut bus, &with_drain(&config("new", &[]), 1), IN_FORCE);
        assert_eq!(
            mark(&mut bus.unix_client(), ""),
            "new",
            "the reload waits for nobody"
        );
        let answer = client.receive_json();
        assert_eq!(answer["id"], 2);
        assert_eq!(answer["error"]["code"], -32011, "{answer}");
        let took = start.elapsed();
        assert!(took >= Duration::from_millis(900), "{took:?}");
        assert!(took < Duration::from_secs(6), "{took:?}");
    });
}

#[test]
fn pools_come_and_go() {
    alone(|| {
        let mut bus = Program::start(&config("0", &["more"]), UNIX);
        let mut client = bus.unix_client();
        assert_eq!(
            ask(&mut client, "more", r#""method":"echo","params":7"#)["result"],
            7
        );
        reload(&mut bus, &config("0", &["other"]), IN_FORCE);
        assert_eq!(
            ask(&mut client, "other", r#""method":"echo","params":8"#)["result"],
            8
        );
        let gone = ask(&mut client, "more", r#""method":"echo""#);
        assert_eq!(gone["error"]["code"], -32010, "{gone}");
    });
}

#[test]
fn a_configuration_that_can_not_be_used_changes_nothing() {
    alone(|| {
        let mut bus = Program::start(&config("old", &[]), UNIX);
        let before = children(bus.pid());
        let missing = json!({"pools": [
            {"id": "stable", "command": "/no/such/program"},
            {"id": "moving", "command": zoo(), "args": ["echo"]},
        ]});
        let broken = [
            ("{\"pools\":[\n{\"id\":}]}".to_owned(), "line 2"),
            (missing.to_string(), "/no/such/program"),
            ("".to_owned(), "config: "),
        ];
        let stays = "the configuration before it stays";
        for (config, reason) in broken {
            reload(&mut bus, &config, stays);
            let log = bus.log();
            let line = log
                .iter()
                .rfind(|line| line.contains(stays))
                .expect("there");
            assert!(line.contains(reason) && line.contains("[ERROR]"), "{line}");
            assert!(line.contains("config.json"), "{line}");
        }
        let lines = count(&bus, stays);
        fs::remove_file(bus.path("config.json")).expect("removed");
        signal(bus.pid(), "HUP");
        common::wait_until("it is said", common::BOUND, || count(&bus, stays) > lines);
        assert_eq!(mark(&mut bus.unix_client(), ""), "old");
        assert_eq!(children(bus.pid()), before);
        // And it can still be mended.
        reload(&mut bus, &config("new", &[]), IN_FORCE);
        assert_eq!(mark(&mut bus.unix_client(), ""), "new");
    });
}

#[test]
fn a_configuration_from_a_descriptor_can_not_be_read_again_and_that_is_said() {
    alone(|| {
        let dir = TempDir::new();
        let (_config_dir, path) = config_file(&config("old", &[]));
        let mut command = Command::new("bash");
        command
            .args(["-c", "exec \"$0\" --config-fd 3 --unix \"$2\" 3<\"$1\""])
            .arg(program())
            .args([&path, dir.path("s").to_str().expect("text")])
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        let mut bus = Program::launch(&mut command, dir);
        bus.wait_for_log("entering main loop");
        let before = children(bus.pid());
        signal(bus.pid(), "HUP");
        let line = bus.wait_for_log("SIGHUP");
        assert!(
            line.contains("[WARN]") && line.contains("--config-fd"),
            "{line}"
        );
        assert_eq!(mark(&mut bus.unix_client(), ""), "old");
        assert_eq!(children(bus.pid()), before);
    });
}

#[test]
fn sigterm_while_old_workers_drain_ends_in_time() {
    alone(|| {
        let mut bus = Program::start(&with_drain(&config("old", &[]), 2), UNIX);
        let mut client = bus.unix_client();
        client.send(r#"{"id":2,"pool":"moving","sessionId":"s","method":"hold"}"#);
        ask(&mut client, "moving", r#""sessionId":"s","method":"pid""#);
        reload(&mut bus, &with_drain(&config("new", &[]), 2), IN_FORCE);
        let workers = children(bus.pid());
        let start = Instant::now();
        signal(bus.pid(), "TERM");
        assert_eq!(bus.wait().code(), Some(0), "{:#?}", bus.log());
        assert!(
            start.elapsed() < Duration::from_secs(8),
            "{:?}",
            start.elapsed()
        );
        assert_gone(&workers, Duration::from_secs(1));
        let answers = client.rest();
        assert_eq!(answers.len(), 1, "{answers:?}");
        assert!(answers[0].contains("\"error\""), "{answers:?}");
    });
}

#[test]
fn sigterm_right_behind_sighup_ends_it_and_sighup_behind_sigterm_means_nothing() {
    alone(|| {
        for (first, second) in [("HUP", "TERM"), ("TERM", "HUP")] {
            let mut bus = Program::start(&config("old", &[]), UNIX);
            let mut client = bus.unix_client();
            ask(&mut client, "moving", r#""method":"echo""#);
            write(&bus, &config("new", &[]));
            signal(bus.pid(), first);
            signal(bus.pid(), second);
            assert_eq!(bus.wait().code(), Some(0), "{:#?}", bus.log());
            assert!(!bus.path("s").exists());
        }
    });
}

#[test]
fn sighup_during_the_start_is_not_forgotten() {
    alone(|| {
        let (mut command, dir) = Program::command("", UNIX);
        let path = dir.path("config.json");
        fs::remove_file(&path).expect("removed");
        let made = Command::new("mkfifo").arg(&path).status().expect("it runs");
        assert!(made.success());
        let mut bus = Program::launch(&mut command, dir);
        // Opened once it is opened for reading.
        let mut first = fs::OpenOptions::new()
            .write(true)
            .open(&path)
            .expect("read");
        signal(bus.pid(), "HUP");
        first
            .write_all(config("old", &[]).as_bytes())
            .expect("taken");
        drop(first);
        bus.wait_for_log("entering main loop");
        bus.wait_for_log("SIGHUP");
        fs::write(&path, config("new", &[])).expect("read again");
        bus.wait_for_log(IN_FORCE);
        assert_eq!(mark(&mut bus.unix_client(), ""), "new");
    });
}
