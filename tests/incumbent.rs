//! What the incumbent gets wrong: the measured faults ("Incumbent:" in the design), each with a test
//! that shows this program doesn't have it. Users who switch come from there.

mod common;

use std::fs;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use common::{
    BOUND, Client, Program, TempDir, alone, assert_gone, children, program, runs, signal,
    wait_until, zoo, zoo_config,
};
use serde_json::{Value, json};

const UNIX: &[&str] = &["--unix", "{dir}/bus.sock", "--log-level", "debug"];

/// A bus with one pool of zoo workers and one Unix listener.
fn start(modes: &[&str]) -> Program {
    Program::start(&zoo_config(1, modes), UNIX)
}

fn start_with_limits(modes: &[&str], limits: Value) -> Program {
    let mut config: Value = serde_json::from_str(&zoo_config(1, modes)).unwrap();
    config["limits"] = limits;
    Program::start(&config.to_string(), UNIX)
}

fn worker_pid(client: &mut Client) -> u32 {
    let answer = client.ask(r#"{"id":"pid","method":"pid"}"#);
    answer["result"].as_u64().expect("a number") as u32
}

/// What the program says about a configuration that it refuses.
#[track_caller]
fn refusal(config: &str) -> String {
    let dir = TempDir::new();
    let path = dir.path("config.json");
    fs::write(&path, config).unwrap();
    let output = Command::new(program())
        .arg("--config")
        .arg(&path)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{log}");
    log
}

// ---- 1. configuration --------------------------------------------------------------------------

#[test]
fn escapes_in_the_configuration_are_decoded_and_there_is_an_environment_and_a_folder() {
    alone(|| {
        let zoo = zoo();
        let config = format!(
            r#"{{"pools":[{{"id":"z\u00f6\u006f","command":{zoo:?},"args":["\u0065cho"],
                "env":{{"K":"\u00e9\t\"\ud83d\ude00"}},"cwd":"\/",}}]}}"#
        );
        let bus = Program::start(&config, UNIX);
        let mut client = bus.unix_client();
        let answer = client.ask(r#"{"id":1,"pool":"zöo","method":"env","params":{"name":"K"}}"#);
        assert_eq!(answer["result"], "é\t\"😀", "{answer}");
        assert_eq!(client.ask(r#"{"id":2,"method":"cwd"}"#)["result"], "/");
    });
}

#[test]
fn numbers_in_the_configuration_do_not_wrap() {
    for number in ["4294967297", "18446744073709551617", "-1", "1e30", "1.5"] {
        let config = format!(r#"{{"pools":[{{"id":"a","command":"cat","instances":{number}}}]}}"#);
        let log = refusal(&config);
        assert!(log.contains("instances"), "{number}: {log}");
    }
}

#[test]
fn text_after_the_configuration_is_refused() {
    let config = r#"{"pools":[{"id":"a","command":"cat"}]} garbage"#;
    let log = refusal(config);
    assert!(log.contains("config: line 1, column 40"), "{log}");
}

#[test]
fn a_transport_mode_in_the_configuration_is_an_error_that_says_what_to_do() {
    for mode in ["unix", "tcp"] {
        let pools = r#""pools":[{"id":"a","command":"cat"}]"#;
        let config = format!(r#"{{{pools},"transport":{{"mode":"{mode}","path":"/tmp/x"}}}}"#);
        let log = refusal(&config);
        assert!(log.contains("mode") && log.contains(mode), "{log}");
        assert!(log.contains("--"), "it names the option: {log}");
    }
}

// ---- 2. frames ---------------------------------------------------------------------------------

#[test]
fn a_bad_client_line_does_not_kill_the_daemon() {
    alone(|| {
        let bus = start(&["echo"]);
        let mut bystander = bus.unix_client();
        let pid = worker_pid(&mut bystander);
        let deep = "[".repeat(100_000);
        for line in [
            "x", "{", "}", "\"", "{\"id\":", "null", "7", "[]", "\0\u{1}", &deep,
        ] {
            let mut client = bus.unix_client();
            let answer = client.ask(line);
            assert!(answer["error"]["code"].is_number(), "{answer}");
            assert_eq!(
                client.ask(r#"{"id":1,"method":"echo","params":1}"#)["result"],
                1
            );
        }
        assert_eq!(worker_pid(&mut bystander), pid);
    });
}

#[test]
fn a_stray_print_does_not_terminate_the_worker() {
    alone(|| {
        let bus = start(&["garbage"]);
        let mut client = bus.unix_client();
        let pid = worker_pid(&mut client);
        for _ in 0..100 {
            assert_eq!(worker_pid(&mut client), pid);
        }
    });
}

#[test]
fn many_small_lines_in_one_write_do_not_trip_the_size_limit() {
    alone(|| {
        let bus = start_with_limits(&["echo"], json!({"max_input_buffer": 1024}));
        let mut client = bus.unix_client();
        let lines: String = (0..5000)
            .map(|id| format!("{{\"id\":{id},\"method\":\"echo\",\"params\":[{id}]}}\n"))
            .collect();
        client.send_bytes(lines.as_bytes());
        for id in 0..5000 {
            assert_eq!(client.receive_json()["result"], json!([id]));
        }
    });
}

// ---- 3. routing --------------------------------------------------------------------------------

#[test]
fn two_clients_using_id_1_get_their_own_answers() {
    alone(|| {
        let bus = start(&["echo"]);
        let (mut a, mut b) = (bus.unix_client(), bus.unix_client());
        a.send(r#"{"id":1,"method":"sleep","params":{"ms":200,"for":"a"}}"#);
        b.send(r#"{"id":1,"method":"sleep","params":{"ms":100,"for":"b"}}"#);
        let (a, b) = (a.receive_json(), b.receive_json());
        assert_eq!((&a["id"], &a["result"]["for"]), (&json!(1), &json!("a")));
        assert_eq!((&b["id"], &b["result"]["for"]), (&json!(1), &json!("b")));
    });
}

#[test]
fn a_late_answer_for_a_client_that_left_reaches_no_stranger() {
    alone(|| {
        let mut bus = start(&["echo"]);
        let mut gone = bus.unix_client();
        gone.send(r#"{"id":1,"method":"sleep","params":{"ms":300,"for":"gone"}}"#);
        worker_pid(&mut gone); // so the worker has got it
        drop(gone);
        bus.wait_for_log("disconnected");
        let mut stranger = bus.unix_client();
        let answer =
            stranger.ask(r#"{"id":1,"method":"sleep","params":{"ms":600,"for":"stranger"}}"#);
        assert_eq!(answer["result"]["for"], "stranger", "{answer}");
    });
}

#[test]
fn with_two_pools_a_message_without_one_is_not_lost() {
    alone(|| {
        let pool = |id| json!({"id": id, "command": zoo(), "args": ["echo"]});
        let mut config = json!({"pools": [pool("a"), pool("b")]});
        let bus = Program::start(&config.to_string(), UNIX);
        let mut client = bus.unix_client();
        let answer = client.ask(r#"{"id":1,"method":"echo"}"#);
        assert_eq!(answer["error"]["code"], -32010, "{answer}");
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(message.contains('a') && message.contains('b'), "{message}");

        // A session that is bound needs no name any more, and a default makes all of them optional.
        client.ask(r#"{"id":2,"method":"echo","sessionId":"s","pool":"b"}"#);
        let answer = client.ask(r#"{"id":3,"method":"echo","sessionId":"s","params":3}"#);
        assert_eq!(answer["result"], 3);
        config["default_pool"] = json!("a");
        let bus = Program::start(&config.to_string(), UNIX);
        let answer = bus
            .unix_client()
            .ask(r#"{"id":4,"method":"echo","params":4}"#);
        assert_eq!(answer["result"], 4);
    });
}

#[test]
fn more_than_1024_sessions_stay_with_their_workers() {
    alone(|| {
        let bus = Program::start(&zoo_config(3, &["echo"]), UNIX);
        let mut client = bus.unix_client();
        let mut round = || {
            let requests: String = (0..3000)
                .map(|n| format!("{{\"id\":{n},\"sessionId\":\"s{n}\",\"method\":\"pid\"}}\n"))
                .collect();
            client.send_bytes(requests.as_bytes());
            let mut pids = vec![0; 3000];
            for _ in 0..3000 {
                let answer = client.receive_json();
                pids[answer["id"].as_u64().unwrap() as usize] = answer["result"].as_u64().unwrap();
            }
            pids
        };
        let first = round();
        assert_eq!(round(), first);
        assert!(first.iter().any(|pid| *pid != first[0]));
    });
}

#[test]
fn more_than_4096_requests_can_be_pending() {
    alone(|| {
        let bus = start(&["echo"]);
        let mut client = bus.unix_client();
        let held: String = (0..6000)
            .map(|id| format!("{{\"id\":{id},\"method\":\"hold\"}}\n"))
            .collect();
        client.send_bytes(held.as_bytes());
        let pid = worker_pid(&mut client); // the answer comes first, so none was refused
        signal(pid, "KILL");
        let mut ended = vec![false; 6000];
        for _ in 0..6000 {
            let answer = client.receive_json();
            assert_eq!(answer["error"]["code"], -32011, "{answer}");
            let id = answer["id"].as_u64().unwrap() as usize;
            assert!(!std::mem::replace(&mut ended[id], true), "{id} ended twice");
        }
    });
}

#[test]
fn ids_and_sessions_of_any_length_are_kept_whole() {
    alone(|| {
        let bus = Program::start(&zoo_config(2, &["echo"]), UNIX);
        let mut client = bus.unix_client();
        let long = "x".repeat(5000);
        let mut pids = Vec::new();
        for end in ["a", "b"] {
            let name = format!("{long}{end}");
            let request = json!({"id": name, "sessionId": name, "method": "pid"});
            let answer = client.ask(&request.to_string());
            assert!(answer["id"] == json!(name) && answer["sessionId"] == json!(name));
            pids.push(answer["result"].as_u64());
        }
        assert_ne!(pids[0], pids[1], "two sessions that differ at their end");
    });
}

// ---- 4. errors ---------------------------------------------------------------------------------

#[track_caller]
fn is_error(answer: &Value, id: &Value, code: i32, reason: &str) {
    let error = &answer["error"];
    assert_eq!(answer["jsonrpc"], "2.0", "{answer}");
    assert_eq!(&answer["id"], id, "{answer}");
    assert_eq!(error["code"], code, "{answer}");
    assert!(error["message"].is_string(), "{answer}");
    assert_eq!(error["data"]["source"], "stdio_bus", "{answer}");
    assert_eq!(error["data"]["reason"], reason, "{answer}");
}

#[test]
fn what_can_not_be_done_is_answered_with_a_reason_and_not_with_silence() {
    alone(|| {
        let bus = start_with_limits(
            &["echo"],
            json!({"max_input_buffer": 4096, "max_pending": 1}),
        );
        let mut client = bus.unix_client();
        let null = Value::Null;
        is_error(&client.ask("nonsense"), &null, -32700, "parse_error");
        is_error(&client.ask("[]"), &null, -32600, "batch");
        let answer = client.ask(r#"{"id":"x"}"#);
        is_error(&answer, &json!("x"), -32600, "invalid_request");
        let large = format!(r#"{{"id":2,"method":"m","params":"{}"}}"#, "x".repeat(5000));
        is_error(&client.ask(&large), &json!(2), -32600, "too_large");
        let answer = client.ask(r#"{"id":3,"method":"m","pool":"none"}"#);
        is_error(&answer, &json!(3), -32010, "unroutable");
        let answer = client.ask(r#"{"id":4,"method":"exit","params":{"code":7}}"#);
        is_error(&answer, &json!(4), -32011, "worker_exited");
        assert_eq!(answer["error"]["data"]["exit"]["code"], 7, "{answer}");

        client.send(r#"{"id":5,"method":"sleep","params":{"ms":1500}}"#);
        let answer = client.ask(r#"{"id":6,"method":"echo"}"#);
        is_error(&answer, &json!(6), -32012, "overloaded");
        signal(bus.pid(), "TERM");
        let mut id = 7;
        loop {
            // Until the signal has been seen, it is refused for the other reason.
            let answer = client.ask(&format!(r#"{{"id":{id},"method":"echo"}}"#));
            if answer["error"]["code"] == -32013 {
                break is_error(&answer, &json!(id), -32013, "shutting_down");
            }
            assert_eq!(answer["error"]["code"], -32012, "{answer}");
            id += 1;
        }
        assert_eq!(client.receive_json()["result"]["ms"], 1500); // what was in flight is answered
    });
}

// ---- 5. supervision ----------------------------------------------------------------------------

#[test]
fn a_worker_that_exits_with_0_is_restarted() {
    alone(|| {
        let bus = start(&["echo"]);
        let mut client = bus.unix_client();
        let first = worker_pid(&mut client);
        let answer = client.ask(r#"{"id":1,"method":"exit","params":{"code":0}}"#);
        assert_eq!(answer["error"]["data"]["exit"]["code"], 0, "{answer}");
        assert_ne!(worker_pid(&mut client), first);
    });
}

#[test]
fn the_backoff_that_is_logged_is_the_one_that_is_applied() {
    alone(|| {
        let bus = start(&["echo"]);
        let mut client = bus.unix_client();
        let mut last = 0;
        for restart in 0..3 {
            client.ask(r#"{"id":1,"method":"exit","params":{"code":0}}"#);
            let exited = Instant::now();
            client.ask(r#"{"id":2,"method":"echo"}"#); // waits for the next one
            let took = exited.elapsed().as_millis();
            let log = bus.log();
            let mut said = log.iter().filter_map(|line| {
                let (_, delay) = line.split_once("is restarted in ")?;
                delay.strip_suffix(" ms")?.parse::<u128>().ok()
            });
            let delay = said.nth(restart).expect("logged before the answer");
            assert!(delay > last, "{delay} ms after {last} ms");
            assert!(took + 30 >= delay && took < delay + 2000, "{took}, {delay}");
            last = delay;
        }
    });
}

#[test]
fn a_restarted_worker_inherits_no_client_socket() {
    alone(|| {
        let bus = start(&["echo"]);
        let mut clients: Vec<_> = (0..20).map(|_| bus.unix_client()).collect();
        for client in &mut clients {
            client.ask(r#"{"id":1,"method":"echo"}"#);
        }
        signal(worker_pid(&mut clients[0]), "KILL");
        let answer = clients[0].ask(r#"{"id":2,"method":"echo"}"#);
        assert!(answer["result"].is_null(), "{answer}");
        assert_eq!(clients[0].ask(r#"{"id":3,"method":"fds"}"#)["result"], 3);
    });
}

#[test]
fn grandchildren_do_not_survive() {
    alone(|| {
        for name in ["TERM", "KILL"] {
            // Of a worker that dies, and of a bus that is stopped.
            let mut bus = start(&["fork"]);
            let mut client = bus.unix_client();
            let answer = client.ask(r#"{"id":1,"method":"echo"}"#);
            let grandchild = answer["result"]["grandchild"].as_u64().unwrap() as u32;
            assert!(runs(grandchild));
            if name == "KILL" {
                signal(worker_pid(&mut client), name);
            } else {
                signal(bus.pid(), name);
                bus.wait();
            }
            wait_until("the grandchild has ended", BOUND, || !runs(grandchild));
        }
    });
}

#[test]
fn a_worker_that_ignores_sigterm_is_killed() {
    alone(|| {
        let mut bus = start(&["ignore-term"]);
        let pid = worker_pid(&mut bus.unix_client());
        signal(bus.pid(), "TERM");
        assert_eq!(bus.wait().code(), Some(0));
        assert_gone(&[pid], Duration::from_secs(1));
    });
}

// ---- 6. backpressure ---------------------------------------------------------------------------

#[test]
fn a_request_of_64_kib_and_more_is_whole_and_so_is_the_next() {
    alone(|| {
        let bus = start(&["echo"]);
        let mut client = bus.unix_client();
        for size in [65_000, 65_535, 65_536, 65_537, 131_072, 1_000_000] {
            let blob: String = (0..size)
                .map(|i| char::from(b'a' + (i % 23) as u8))
                .collect();
            client.send(&format!(r#"{{"id":1,"method":"echo","params":"{blob}"}}"#));
            client.send(r#"{"id":2,"method":"echo","params":"next"}"#);
            assert!(client.receive_json()["result"] == json!(blob), "{size}");
            assert_eq!(client.receive_json()["result"], "next", "after {size}");
        }
    });
}

#[test]
fn stdio_output_does_not_wedge_after_64_kib() {
    alone(|| {
        let (mut bus, mut client) = Program::stdio(&zoo_config(1, &["echo"]));
        for id in 0..200 {
            client.send(&format!(
                r#"{{"id":{id},"method":"big","params":{{"n":20000}}}}"#
            ));
        }
        for id in 0..200 {
            let answer = client.receive_json();
            assert_eq!(answer["id"], id);
            assert_eq!(answer["result"].as_str().map(str::len), Some(20_000));
        }
        client.end();
        assert_eq!(bus.wait().code(), Some(0));
    });
}

#[test]
fn thousands_of_messages_to_a_slow_worker_do_not_vanish() {
    alone(|| {
        let bus = start(&["echo"]);
        let mut client = bus.unix_client();
        let pid = worker_pid(&mut client);
        signal(pid, "STOP"); // as slow as can be
        let params = "x".repeat(100);
        let messages: String = (0..5000)
            .map(|id| {
                let note = format!("{{\"method\":\"note\",\"params\":\"{params}\"}}\n");
                let request = format!("{{\"id\":{id},\"method\":\"echo\",\"params\":{id}}}\n");
                note + &request
            })
            .collect();
        client.send_bytes(messages.as_bytes());
        signal(pid, "CONT");
        for id in 0..5000 {
            assert_eq!(client.receive_json()["result"], id);
        }
        assert_eq!(client.ask(r#"{"id":1,"method":"seen"}"#)["result"], 5000);
    });
}

// ---- 9. the program ----------------------------------------------------------------------------

/// What it has used of the processors, in ticks of 10 ms.
fn ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, fields) = stat.rsplit_once(')').unwrap();
    let fields: Vec<_> = fields.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[test]
fn the_end_of_input_spins_nothing_and_ends_the_program() {
    alone(|| {
        let (mut bus, mut client) = Program::stdio(&zoo_config(1, &["echo"]));
        client.ask(r#"{"id":1,"method":"echo"}"#);
        client.send(r#"{"id":2,"method":"sleep","params":{"ms":1500}}"#);
        client.end();
        let before = ticks(bus.pid());
        thread::sleep(Duration::from_secs(1)); // what is measured: it waits for the answer
        let used = ticks(bus.pid()) - before;
        assert!(used < 20, "{used} ticks in a second");
        assert_eq!(client.rest().len(), 1);
        assert_eq!(bus.wait().code(), Some(0));
    });
}

#[test]
fn sigterm_does_not_end_in_a_crash() {
    alone(|| {
        for _ in 0..5 {
            let mut bus = start(&["echo"]);
            let mut client = bus.unix_client();
            client.ask(r#"{"id":1,"method":"echo"}"#);
            let workers = children(bus.pid());
            signal(bus.pid(), "TERM");
            assert_eq!(bus.wait().code(), Some(0));
            assert_gone(&workers, Duration::from_secs(1));
        }
    });
}

#[test]
fn names_and_ipv6_addresses_can_be_listened_on() {
    alone(|| {
        let args = ["--tcp=localhost:0", "--tcp=[::1]:0", "--tcp=127.0.0.1:0"];
        let bus = Program::start(&zoo_config(1, &["echo"]), &args);
        let addresses = bus.tcp_addresses();
        assert_eq!(addresses.len(), 3);
        assert!(addresses[1].starts_with("[::1]:"), "{addresses:?}");
        for address in &addresses {
            let answer = Client::tcp(address).ask(r#"{"id":1,"method":"echo","params":1}"#);
            assert_eq!(answer["result"], 1);
        }
    });
}

#[test]
fn help_exits_with_0() {
    for option in ["--help", "-h", "--version"] {
        let output = Command::new(program()).arg(option).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{option}");
        assert!(
            !output.stdout.is_empty() && output.stderr.is_empty(),
            "{option}"
        );
    }
}
