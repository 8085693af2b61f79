//! What the program writes to stderr: formats, levels, colours, and how much.

mod common;

use std::process::Command;
use std::time::Duration;

use common::cli::{config_file, text};
use common::{Program, alone, program, run_within, signal, zoo_config};
use serde_json::Value;

const TCP: &str = "--tcp=127.0.0.1:0";

/// The log of a start and an end, with these arguments and this environment.
fn log_of(args: &[&str], env: &[(&str, &str)]) -> Vec<String> {
    let args = [&[TCP], args].concat();
    let mut bus = Program::start_with(&zoo_config(1, &["echo"]), &args, |command| {
        command.envs(env.iter().copied());
    });
    bus.tcp_client().ask(r#"{"id":1,"method":"echo"}"#);
    signal(bus.pid(), "TERM");
    assert_eq!(bus.wait().code(), Some(0));
    bus.wait_for_log("] stopped");
    bus.log()
}

fn has(log: &[String], level: &str) -> bool {
    log.iter().any(|line| line.contains(level))
}

#[test]
fn a_json_log_is_an_object_a_line_with_time_level_and_message() {
    alone(|| {
        let args = [TCP, "--log-format=json", "--log-level", "debug"];
        let mut bus = Program::start(&zoo_config(1, &["garbage"]), &args);
        let line = bus.wait_for_log("listening on tcp");
        let object: Value = serde_json::from_str(&line).expect("JSON");
        let message = object["message"].as_str().expect("text");
        let address = message.strip_prefix("listening on tcp ").expect("there");
        let mut client = common::Client::tcp(address);
        client.ask(r#"{"id":1,"method":"echo","params":"\"\n"}"#);
        signal(bus.pid(), "TERM");
        bus.wait();
        bus.wait_for_log("stopped");
        let log = bus.log();
        assert!(log.len() >= 5, "{log:#?}");
        for line in log {
            let object: Value = serde_json::from_str(&line).expect("JSON");
            let keys = object.as_object().expect("an object").len();
            assert_eq!(keys, 3, "{line}");
            // In this order, for those who read it.
            let places = ["{\"time\":", ",\"level\":", ",\"message\":"].map(|key| line.find(key));
            assert!(places.is_sorted() && places[0] == Some(0), "{line}");
            let time = object["time"].as_str().expect("text");
            assert_eq!((time.len(), &time[10..11], &time[19..]), (20, "T", "Z"));
            let level = object["level"].as_str().expect("text");
            assert!(
                ["DEBUG", "INFO", "WARN", "ERROR"].contains(&level),
                "{line}"
            );
        }
    });
}

#[test]
fn a_json_log_stays_json_where_the_start_fails() {
    let (_dir, config) = config_file(&zoo_config(1, &["echo"]));
    let output = Command::new(program())
        .args(["--config", &config, "--unix", &config, "--log-format=json"])
        .output()
        .expect("it starts");
    let log = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    let object: Value = serde_json::from_str(&log).expect("one object");
    assert_eq!(object["level"], "ERROR");
}

#[test]
fn a_level_shows_itself_and_what_is_more_important() {
    alone(|| {
        let info = log_of(&[], &[]);
        assert!(has(&info, "[INFO]") && !has(&info, "[DEBUG]"), "{info:#?}");
        let debug = log_of(&["--log-level", "debug"], &[]);
        assert!(
            has(&debug, "[DEBUG]") && has(&debug, "[INFO]"),
            "{debug:#?}"
        );
    });
}

#[test]
fn warnings_and_errors_only_are_shown_where_that_is_wanted() {
    let (_dir, config) = config_file(r#"{"pools":[{"id":"a","command":"sh"}],"nonsense":1}"#);
    for (level, warns) in [("warn", true), ("error", false)] {
        let mut command = Command::new(program());
        command.args(["--config", &config, "--log-level", level]);
        let (status, [_, log]) = run_within(&mut command, Duration::from_secs(20));
        assert_eq!(status.and_then(|s| s.code()), Some(0), "{log}");
        assert!(!log.contains("[INFO]"), "{log}");
        assert_eq!(log.contains("[WARN]"), warns, "{log}");
    }
}

#[test]
fn the_environment_asks_for_debug_and_the_command_line_knows_better() {
    alone(|| {
        let on = [("DEBUG_STDIO", "1")];
        assert!(has(&log_of(&[], &on), "[DEBUG]"));
        assert!(!has(&log_of(&["--log-level=info"], &on), "[DEBUG]"));
        for other in ["0", "", "yes"] {
            assert!(!has(&log_of(&[], &[("DEBUG_STDIO", other)]), "[DEBUG]"));
        }
    });
}

/// The log of a run on a terminal, with its end of input at once.
fn on_a_terminal(env: &[(&str, &str)], options: &str) -> String {
    let (_dir, config) = config_file(&zoo_config(1, &["echo"]));
    let line = format!(
        "'{}' --config '{config}' {options} </dev/null",
        program().display()
    );
    let mut command = Command::new("script");
    command
        .args(["-qefc", &line, "/dev/null"])
        .env_remove("NO_COLOR")
        .envs(env.iter().copied());
    let (status, [log, _]) = run_within(&mut command, Duration::from_secs(20));
    assert_eq!(status.and_then(|s| s.code()), Some(0), "{log}");
    assert!(log.contains("entering main loop"), "{log}");
    log
}

#[test]
fn colours_are_for_terminals_whose_user_has_nothing_against_them() {
    alone(|| {
        assert!(on_a_terminal(&[], "").contains("[\x1b[32mINFO\x1b[0m] "));
        assert!(on_a_terminal(&[("NO_COLOR", "")], "").contains('\x1b'));
        assert!(!on_a_terminal(&[("NO_COLOR", "1")], "").contains('\x1b'));
        assert!(!on_a_terminal(&[], "--log-format json").contains('\x1b'));
        let elsewhere = log_of(&[], &[]).join("\n");
        assert!(!elsewhere.contains('\x1b'), "{elsewhere}");
    });
}

#[test]
fn at_info_no_message_makes_a_line() {
    alone(|| {
        let bus = Program::start(&zoo_config(2, &["echo"]), &[TCP]);
        let mut client = bus.tcp_client();
        // What is said of the connection itself comes before the first answer.
        client.ask(r#"{"id":0,"method":"echo"}"#);
        let before = bus.log();
        const BATCH: usize = 500;
        for _ in 0..20 {
            let batch =
                r#"{"jsonrpc":"2.0","id":1,"method":"echo","params":[1]}"#.to_owned() + "\n";
            client.send_bytes(batch.repeat(BATCH).as_bytes());
            for _ in 0..BATCH {
                assert_eq!(client.receive_json()["result"][0], 1);
            }
        }
        assert_eq!(bus.log(), before);
    });
}
