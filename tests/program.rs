//! The program `stdio_bus`: its command line, its ways in, and how it ends.

mod common;

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::cli::{config_file, refused, run, text};
use common::{BOUND, Program, TempDir, alone, assert_gone, program, signal, zoo_config};
use serde_json::json;

// ---- the command line --------------------------------------------------------------------------

#[test]
fn help_and_version_go_to_stdout() {
    let help = run(&["--help"]);
    assert!(help.status.success());
    for option in [
        "--config",
        "--config-fd",
        "--stdio",
        "--unix",
        "--tcp",
        "--log-level",
    ] {
        assert!(text(&help.stdout).contains(option), "{option}");
    }
    assert_eq!(text(&help.stderr), "");
    let version = run(&["--version"]);
    assert!(version.status.success());
    assert_eq!(
        text(&version.stdout),
        format!("stdio_bus {}\n", env!("CARGO_PKG_VERSION"))
    );
}

#[test]
fn mistakes_on_the_command_line_exit_with_1() {
    let (_dir, config) = config_file(&zoo_config(1, &["echo"]));
    refused(&[]);
    refused(&["--stdio"]);
    refused(&["--config", &config, "--no-such-option"]);
    refused(&["--config", &config, "--config-fd", "3"]);
    refused(&["--config", &config, "--tcp", "nothing"]);
    refused(&["--config", &config, "--tcp", "127.0.0.1:70000"]);
    refused(&["--config", &config, "--log-level", "loud"]);
    refused(&["--config-fd", "-1"]);
    assert!(refused(&["--config-fd", "99"]).contains("99"));
}

#[test]
fn a_configuration_that_can_not_be_used_exits_with_1() {
    let missing = refused(&["--config", "/no/such/config.json"]);
    assert!(missing.contains("/no/such/config.json"), "{missing}");
    let (_dir, path) = config_file("{\"pools\": [{\"id\": 1}]}");
    let wrong = refused(&["--config", &path]);
    for part in ["config: ", "line 1", "id"] {
        assert!(wrong.contains(part), "{part}: {wrong}");
    }
}

#[test]
fn a_program_that_is_missing_exits_with_1_and_is_named() {
    let (_dir, path) = config_file(r#"{"pools": [{"id": "a", "command": "/no/such/program"}]}"#);
    let log = refused(&["--config", &path]);
    assert!(
        log.contains("/no/such/program") && log.contains("No such file"),
        "{log}"
    );
}

#[test]
fn the_configuration_can_come_through_a_descriptor() {
    alone(|| {
        for redirection in ["3<\"$1\"", "3< <(cat \"$1\")"] {
            let (_dir, path) = config_file(&zoo_config(1, &["echo"]));
            let script = format!("exec \"$0\" --config-fd=3 --stdio {redirection}");
            let mut child = Command::new("bash")
                .args(["-c", &script])
                .arg(program())
                .arg(&path)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .expect("bash starts");
            let mut stdin = child.stdin.take().expect("piped");
            stdin
                .write_all(b"{\"id\":1,\"method\":\"echo\",\"params\":[1]}\n")
                .expect("taken");
            drop(stdin);
            let output = child.wait_with_output().expect("it ends");
            assert!(output.status.success(), "{}", text(&output.stderr));
            assert_eq!(
                text(&output.stdout),
                "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":[1]}\n"
            );
        }
    });
}

// ---- stdio -------------------------------------------------------------------------------------

#[test]
fn a_plain_pipe_is_answered_and_the_program_ends_by_itself() {
    alone(|| {
        let (mut bus, mut client) = Program::stdio(&zoo_config(1, &["echo"]));
        for id in 1..=3 {
            client.send(&format!(
                r#"{{"jsonrpc":"2.0","id":{id},"method":"echo","params":{{"a":1}}}}"#
            ));
        }
        client.end();
        let wanted: Vec<_> = (1..=3)
            .map(|id| format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{"a":1}}}}"#))
            .collect();
        assert_eq!(client.rest(), wanted);
        assert_eq!(bus.wait().code(), Some(0));
    });
}

#[test]
fn answers_still_come_after_the_end_of_stdin() {
    alone(|| {
        let (mut bus, mut client) = Program::stdio(&zoo_config(1, &["echo"]));
        client.send(r#"{"id":1,"method":"sleep","params":{"ms":300}}"#);
        client.end();
        assert_eq!(client.rest().len(), 1);
        assert_eq!(bus.wait().code(), Some(0));
    });
}

#[test]
fn stdout_carries_protocol_only() {
    alone(|| {
        let (mut bus, mut client) = Program::stdio(&zoo_config(2, &["chatty"]));
        client.send("this is no JSON");
        client.send(r#"{"id":1,"method":"echo","params":[1]}"#);
        client.end();
        let lines = client.rest();
        assert_eq!(lines.len(), 2, "{lines:?}");
        for line in lines {
            serde_json::from_str::<serde_json::Value>(&line).expect("JSON");
        }
        assert!(bus.wait().success());
    });
}

#[test]
fn when_stdout_is_gone_the_program_ends() {
    alone(|| {
        let (mut bus, client) = Program::stdio(&zoo_config(1, &["flood", "1000"]));
        drop(client);
        bus.wait();
    });
}

#[test]
fn logs_have_a_time_and_a_level() {
    alone(|| {
        let mut bus = Program::start(&zoo_config(1, &["echo"]), &["--tcp=127.0.0.1:0"]);
        let line = bus.wait_for_log("listening on tcp ");
        let bytes = line.as_bytes();
        assert_eq!(
            (bytes[0], bytes[11], bytes[20]),
            (b'[', b'T', b']'),
            "{line}"
        );
        assert!(
            line[21..].starts_with(" [INFO] listening on tcp 127.0.0.1:"),
            "{line}"
        );
    });
}

// ---- sockets -----------------------------------------------------------------------------------

const BOTH: &[&str] = &["--unix", "{dir}/bus.sock", "--tcp", "127.0.0.1:0"];

#[test]
fn clients_come_in_through_unix_and_tcp_at_once() {
    alone(|| {
        let bus = Program::start(&zoo_config(1, &["echo"]), BOTH);
        let socket = fs::metadata(bus.path("bus.sock")).expect("it is there");
        assert_eq!(socket.permissions().mode() & 0o777, 0o600);
        for mut client in [bus.unix_client(), bus.tcp_client()] {
            let answer =
                client.ask(r#"{"jsonrpc":"2.0","id":"x","method":"echo","params":{"a":1}}"#);
            assert_eq!(
                answer,
                json!({"jsonrpc": "2.0", "id": "x", "result": {"a": 1}})
            );
        }
    });
}

#[test]
fn a_line_that_is_no_json_is_answered_and_the_connection_lives() {
    alone(|| {
        let bus = Program::start(&zoo_config(1, &["echo"]), BOTH);
        for mut client in [bus.unix_client(), bus.tcp_client()] {
            // On TCP the first line decides whether this is a client at all.
            client.ask(r#"{"id":0,"method":"echo"}"#);
            let answer = client.ask("not JSON");
            assert_eq!(
                (&answer["error"]["code"], &answer["id"]),
                (&json!(-32700), &json!(null))
            );
            assert_eq!(
                client.ask(r#"{"id":2,"method":"echo","params":[2]}"#)["result"],
                json!([2])
            );
        }
    });
}

#[test]
fn what_is_not_a_socket_is_never_replaced() {
    let (dir, config) = config_file(&zoo_config(1, &["echo"]));
    let path = dir.path("precious");
    fs::write(&path, "data").expect("written");
    let log = refused(&["--config", &config, "--unix", path.to_str().expect("text")]);
    assert!(log.contains("precious"), "{log}");
    assert!(!log.contains("started"), "no worker is started: {log}");
    assert_eq!(fs::read_to_string(&path).expect("still there"), "data");
}

#[test]
fn an_address_in_use_exits_with_1_at_once() {
    alone(|| {
        let taken = TcpListener::bind("127.0.0.1:0").expect("bound");
        let address = taken.local_addr().expect("bound").to_string();
        let (_dir, config) = config_file(&zoo_config(1, &["echo"]));
        let start = Instant::now();
        let log = refused(&["--config", &config, "--tcp", &address]);
        assert!(log.contains(&address) && log.contains("in use"), "{log}");
        assert!(
            start.elapsed() < Duration::from_secs(5),
            "{:?}",
            start.elapsed()
        );

        let bus = Program::start(&zoo_config(1, &["echo"]), BOTH);
        let socket = bus.path("bus.sock");
        let log = refused(&[
            "--config",
            &config,
            "--unix",
            socket.to_str().expect("text"),
        ]);
        assert!(log.contains("in use"), "{log}");
    });
}

#[test]
fn a_socket_that_nobody_listens_on_any_more_is_replaced() {
    alone(|| {
        let mut first = Program::start(&zoo_config(1, &["echo"]), BOTH);
        let socket = first.path("bus.sock");
        signal(first.pid(), "KILL");
        first.wait();
        assert!(socket.exists());
        let path = socket.to_str().expect("text");
        let second = Program::start(&zoo_config(1, &["echo"]), &["--unix", path]);
        let answer = second
            .unix_client()
            .ask(r#"{"id":1,"method":"echo","params":[1]}"#);
        assert_eq!(answer["result"], json!([1]));
    });
}

// ---- signals -----------------------------------------------------------------------------------

#[test]
fn sigterm_and_sigint_end_it_with_0_and_leave_nothing() {
    alone(|| {
        for name in ["TERM", "INT"] {
            let mut bus = Program::start(&zoo_config(3, &["echo"]), BOTH);
            let workers = common::children(bus.pid());
            assert_eq!(workers.len(), 3);
            let mut client = bus.unix_client();
            client.ask(r#"{"id":1,"method":"echo"}"#);
            signal(bus.pid(), name);
            assert_eq!(bus.wait().code(), Some(0), "{name}: {:#?}", bus.log());
            assert!(!bus.path("bus.sock").exists());
            assert_eq!(client.rest(), [""; 0]);
            assert_gone(&workers, Duration::from_secs(1));
        }
    });
}

#[test]
fn what_is_in_flight_at_sigterm_is_still_answered() {
    alone(|| {
        let mut bus = Program::start(&zoo_config(1, &["echo"]), BOTH);
        let mut client = bus.unix_client();
        client.ask(r#"{"id":0,"method":"echo"}"#);
        client.send(r#"{"id":1,"method":"sleep","params":{"ms":500}}"#);
        std::thread::sleep(Duration::from_millis(50));
        signal(bus.pid(), "TERM");
        bus.wait_for_log("draining");
        // The line comes just before the drain does.
        let refused = loop {
            let answer = client.ask(r#"{"id":2,"method":"echo"}"#);
            if answer["error"].is_object() {
                break answer;
            }
        };
        assert_eq!(
            (&refused["id"], &refused["error"]["code"]),
            (&json!(2), &json!(-32013))
        );
        assert_eq!(client.receive_json()["result"], json!({"ms": 500}));
        assert_eq!(bus.wait().code(), Some(0));
    });
}

#[test]
fn a_second_signal_ends_it_at_once() {
    alone(|| {
        for (name, code) in [("TERM", 143), ("INT", 130)] {
            let mut bus = Program::start(&zoo_config(1, &["ignore-term"]), BOTH);
            let mut client = bus.unix_client();
            client.ask(r#"{"id":0,"method":"echo"}"#);
            client.send(r#"{"id":1,"method":"hold"}"#);
            std::thread::sleep(Duration::from_millis(50));
            signal(bus.pid(), "TERM");
            bus.wait_for_log("draining");
            // One of the same kind at once is an echo, as `timeout` makes them.
            signal(bus.pid(), "TERM");
            // It goes on draining; the log line above comes just before it begins.
            while !client.ask(r#"{"id":2,"method":"echo"}"#)["error"].is_object() {}
            // What counts here is the time between the two.
            std::thread::sleep(Duration::from_millis(150));
            let start = Instant::now();
            signal(bus.pid(), name);
            assert_eq!(bus.wait().code(), Some(code), "{:#?}", bus.log());
            assert!(
                start.elapsed() < Duration::from_secs(2),
                "{:?}",
                start.elapsed()
            );
        }
    });
}

#[test]
fn the_drain_ends_after_the_configured_time() {
    alone(|| {
        let config = zoo_config(1, &["echo"]);
        let mut config: serde_json::Value = serde_json::from_str(&config).expect("JSON");
        config["limits"] = json!({"drain_timeout_sec": 1});
        let mut bus = Program::start(&config.to_string(), BOTH);
        let mut client = bus.unix_client();
        client.ask(r#"{"id":0,"method":"echo"}"#);
        client.send(r#"{"id":1,"method":"hold"}"#);
        std::thread::sleep(Duration::from_millis(50));
        let start = Instant::now();
        signal(bus.pid(), "TERM");
        assert_eq!(client.receive_json()["error"]["code"], -32013);
        assert_eq!(bus.wait().code(), Some(0));
        let took = start.elapsed();
        assert!(
            took >= Duration::from_millis(900) && took < Duration::from_secs(5),
            "{took:?}"
        );
    });
}

#[test]
fn an_inherited_descriptor_does_not_reach_the_workers() {
    alone(|| {
        let (_dir, path) = config_file(&zoo_config(1, &["echo"]));
        let mut child = Command::new("bash")
            .args([
                "-c",
                "exec 7</dev/null; exec \"$0\" --config \"$1\" --stdio",
            ])
            .arg(program())
            .arg(&path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("bash starts");
        let mut stdin = child.stdin.take().expect("piped");
        stdin
            .write_all(b"{\"id\":1,\"method\":\"fds\"}\n")
            .expect("taken");
        drop(stdin);
        let output = child.wait_with_output().expect("it ends");
        assert_eq!(
            text(&output.stdout),
            "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":3}\n"
        );
    });
}

#[test]
fn a_stderr_that_nobody_reads_stops_neither_the_bus_nor_a_signal() {
    alone(|| {
        let dir = TempDir::new();
        let (config, socket) = (dir.path("config.json"), dir.path("bus.sock"));
        fs::write(&config, zoo_config(1, &["echo"])).expect("written");
        let mut bus = Command::new(program())
            .args(["--log-level", "debug", "--config"])
            .arg(&config)
            .arg("--unix")
            .arg(&socket)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("started");
        // Two lines each: more than a pipe and the queue before it hold.
        for _ in 0..3000 {
            let start = Instant::now();
            while UnixStream::connect(&socket).is_err() {
                assert!(start.elapsed() < BOUND, "nobody accepts");
            }
        }
        signal(bus.id(), "TERM");
        let start = Instant::now();
        let status = loop {
            if let Some(status) = bus.try_wait().expect("a child") {
                break status;
            }
            assert!(start.elapsed() < BOUND, "SIGTERM has no effect");
            std::thread::sleep(Duration::from_millis(5));
        };
        assert_eq!(status.code(), Some(0));
    });
}

#[test]
fn an_output_that_can_not_be_written_is_a_failure() {
    alone(|| {
        let dir = TempDir::new();
        let config = dir.path("config.json");
        fs::write(&config, zoo_config(1, &["echo"])).expect("written");
        let mut bus = Command::new(program())
            .arg("--config")
            .arg(&config)
            .stdin(Stdio::piped())
            .stdout(fs::File::create("/dev/full").expect("there"))
            .stderr(Stdio::null())
            .spawn()
            .expect("started");
        let mut stdin = bus.stdin.take().expect("piped");
        writeln!(stdin, r#"{{"id":1,"method":"echo"}}"#).expect("written");
        assert_eq!(bus.wait().expect("ended").code(), Some(1));
    });
}
