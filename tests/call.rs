//! `stdio_bus call`: one request, or lines of JSON, from a shell to a running bus.

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use common::{
    BOUND, Program, TempDir, alone, example, program, signal, wait_until, zoo, zoo_config,
};
use serde_json::{Value, json};

const UNIX: &[&str] = &["--unix", "{dir}/bus.sock"];

/// What a call came to.
#[derive(Debug)]
struct Outcome {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Outcome {
    /// The only line on stdout, of a call that ended with 0.
    #[track_caller]
    fn result(&self) -> Value {
        assert_eq!(self.code, Some(0), "{self:?}");
        assert_eq!(self.stdout.lines().count(), 1, "{self:?}");
        serde_json::from_str(&self.stdout).expect("JSON")
    }

    /// The lines on stdout.
    #[track_caller]
    fn lines(&self) -> Vec<Value> {
        let lines = self.stdout.lines();
        lines
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect()
    }

    /// The only line on stderr, of a call that ended with this status.
    #[track_caller]
    fn failed(&self, code: i32) -> &str {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert_eq!(self.stderr.lines().count(), 1, "{self:?}");
        self.stderr.trim_end()
    }
}

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(program());
    command
        .arg("call")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Runs a call to its end, which `alone` gives a bound.
fn call(args: &[&str], stdin: &[u8]) -> Outcome {
    let mut child = command(args).spawn().expect("it starts");
    let mut input = child.stdin.take().expect("piped");
    let output = thread::scope(|scope| {
        // It may end before it has read everything.
        scope.spawn(move || input.write_all(stdin));
        child.wait_with_output().expect("it ends")
    });
    let text = |bytes| String::from_utf8(bytes).expect("text");
    Outcome {
        code: output.status.code(),
        stdout: text(output.stdout),
        stderr: text(output.stderr),
    }
}

/// A bus, and where it listens.
struct Bus {
    program: Program,
    path: String,
}

impl Bus {
    #[track_caller]
    fn start(config: &str, args: &[&str]) -> Self {
        let program = Program::start(config, &[UNIX, args].concat());
        let path = program.unix_paths().remove(0);
        Self { program, path }
    }

    #[track_caller]
    fn zoo(instances: usize) -> Self {
        Self::start(&zoo_config(instances, &["echo"]), &[])
    }

    fn call(&self, args: &[&str]) -> Outcome {
        self.send(args, b"")
    }

    fn send(&self, args: &[&str], stdin: &[u8]) -> Outcome {
        call(&[&["--unix", &self.path], args].concat(), stdin)
    }

    fn command(&self, args: &[&str]) -> Command {
        command(&[&["--unix", &self.path], args].concat())
    }
}

/// A call that goes on, whose stdin and stdout the test holds.
struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Running {
    fn start(mut command: Command) -> Self {
        let mut child = command.spawn().expect("it starts");
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        Self {
            child,
            stdin,
            stdout,
        }
    }

    #[track_caller]
    fn write(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().expect("open");
        writeln!(stdin, "{line}").expect("taken");
    }

    #[track_caller]
    fn read(&mut self) -> Value {
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("text");
        serde_json::from_str(&line).expect("JSON")
    }

    /// Ends its stdin and waits for its end: its status, and its stderr.
    fn end(mut self) -> (Option<i32>, String) {
        self.stdin = None;
        let mut stderr = String::new();
        let mut errors = self.child.stderr.take().expect("piped");
        errors.read_to_string(&mut stderr).expect("text");
        (self.child.wait().expect("it ends").code(), stderr)
    }
}

/// What the bus counts, by its admin socket.
fn stats(admin: &str) -> Value {
    call(&["--unix", admin, "snapshot"], b"").result()["stats"].clone()
}

/// Waits until so many requests wait for their answer.
#[track_caller]
fn wait_for_pending(admin: &str, count: u64) {
    wait_until("requests are pending", BOUND, || {
        stats(admin)["pending"] == count
    });
}

// ---- the command line --------------------------------------------------------------------------

#[test]
fn help_tells_of_every_option_and_exit_status() {
    let help = call(&["--help"], b"");
    assert_eq!((help.code, help.stderr.as_str()), (Some(0), ""));
    for option in [
        "--unix",
        "--tcp",
        "--token-file",
        "--session",
        "--pool",
        "--timeout",
        "--notify",
        "--stream",
    ] {
        assert!(help.stdout.contains(option), "{option}");
    }
    let (_, statuses) = help.stdout.split_once("Exit status:").expect("there");
    for code in ["0", "1", "2", "3", "4", "130", "141"] {
        let described = |line: &str| line.trim_start().starts_with(&format!("{code}  "));
        assert!(statuses.lines().any(described), "{code}");
    }
}

#[test]
fn what_can_not_be_used_exits_with_1_before_anything_is_sent() {
    let unix = |args: &[&'static str]| [&["--unix", "/no/such.sock"], args].concat();
    let refused = |args: &[&str], what: &str| {
        let outcome = call(args, b"not JSON");
        assert_eq!(outcome.code, Some(1), "{args:?}: {outcome:?}");
        assert_eq!(outcome.stdout, "", "{args:?}");
        assert!(outcome.stderr.contains(what), "{args:?}: {outcome:?}");
    };
    refused(&["echo"], "--unix");
    refused(&["--unix", "/a", "--tcp", "b:1", "echo"], "--tcp");
    refused(&["--tcp", "::1:80", "echo"], "brackets");
    refused(&["--tcp", "localhost:0", "echo"], "port");
    refused(&["--tcp", "localhost:0"], "port");
    refused(&unix(&["echo", "{a:1}"]), "PARAMS: not JSON");
    refused(&unix(&["echo", "-"]), "PARAMS: not JSON");
    refused(&unix(&["--timeout", "soon", "echo"]), "seconds");
    refused(&unix(&["--timeout=-1", "echo"]), "--timeout");
    refused(&unix(&["--session", "", "echo"]), "--session");
    refused(&unix(&["--pool", "", "echo"]), "--pool");
    refused(&unix(&["--notify"]), "METHOD");
    refused(&unix(&["--stream"]), "METHOD");
    refused(&unix(&["--stream", "--notify", "echo"]), "--notify");
    refused(
        &unix(&["--token-file", "/no/such/file", "echo"]),
        "/no/such/file",
    );
}

// ---- one request -------------------------------------------------------------------------------

#[test]
fn the_result_is_a_line_as_the_worker_wrote_it() {
    alone(|| {
        let listeners = ["--tcp", "127.0.0.1:0", "--tcp", "[::1]:0"];
        let bus = Bus::start(&zoo_config(1, &["echo"]), &listeners);
        let tcp = bus.program.tcp_addresses();
        let v6 = tcp[1].strip_prefix("[::1]:").expect("the second one");
        let places = [
            ["--unix".to_owned(), bus.path.clone()],
            ["--tcp".to_owned(), tcp[0].clone()],
            ["--tcp".to_owned(), format!("[::1]:{v6}")],
        ];
        // Numbers that no binary form holds, and members in no order.
        let params = r#"{"b":1.50,"a":[1e400,123456789012345678901234567890],"u":"\u00e9"}"#;
        for [option, place] in &places {
            let outcome = call(&[option, place, "echo", params], b"");
            assert_eq!(outcome.code, Some(0), "{place}: {outcome:?}");
            assert_eq!(outcome.stdout, format!("{params}\n"), "{place}");
            assert_eq!(outcome.stderr, "", "{place}");
        }
    });
}

#[test]
fn params_may_be_left_out_or_come_from_stdin() {
    alone(|| {
        let bus = Bus::zoo(1);
        assert_eq!(bus.call(&["echo"]).result(), Value::Null);
        // On several lines, as a file has them.
        let outcome = bus.send(&["echo", "-"], b"\n{\n  \"a\": 1\n}\n");
        assert_eq!(outcome.result(), json!({"a": 1}));
        let huge = format!("[\"{}\"]", "x".repeat(5 << 20));
        let outcome = bus.send(&["echo", "-"], huge.as_bytes());
        assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
        assert!(outcome.stdout == format!("{huge}\n"), "it comes back whole");
    });
}

#[test]
fn an_answer_that_is_an_error_exits_with_2_and_is_one_line_on_stderr() {
    alone(|| {
        let bus = Bus::zoo(1);
        let outcome = bus.call(&["error"]);
        assert_eq!(outcome.failed(2), r#"error -32050: zoo error {"k":1}"#);
        assert_eq!(outcome.stdout, "");
        let outcome = bus.call(&["echo", "--pool", "none"]);
        assert!(
            outcome.failed(2).starts_with("error -32010: "),
            "{outcome:?}"
        );
        let outcome = bus.call(&["exit", r#"{"code":3}"#]);
        let line = outcome.failed(2);
        assert!(
            line.starts_with("error -32011: ") && line.contains("exited with status 3"),
            "{line}"
        );
        let large = format!("\"{}\"", "x".repeat(11 << 20));
        let outcome = bus.send(&["echo", "-"], large.as_bytes());
        assert!(outcome.failed(2).contains("too large"), "{outcome:?}");
    });
}

#[test]
fn what_a_worker_asks_meanwhile_is_refused() {
    alone(|| {
        let bus = Bus::zoo(1);
        let outcome = bus.call(&["ask", "--session", "s"]);
        assert_eq!(outcome.result()["error"]["code"], -32601, "{outcome:?}");
    });
}

#[test]
fn a_session_and_a_pool_reach_the_bus() {
    alone(|| {
        let pool = |id| json!({"id": id, "command": zoo(), "args": ["slow", id], "instances": 2});
        let config = json!({"pools": [pool("1"), pool("2")]});
        let bus = Bus::start(&config.to_string(), &[]);
        for id in ["1", "2"] {
            let outcome = bus.call(&["args", "--pool", id]);
            assert_eq!(outcome.result(), json!(["slow", id]));
        }
        // The worker of the session is busy, so another would be chosen without one.
        let of_session = &["--pool", "1", "--session", "s"];
        let worker = bus.call(&[of_session, &["pid"][..]].concat()).result();
        let mut busy = Running::start(bus.command(of_session));
        busy.write(r#"{"id":0,"method":"hold"}"#);
        busy.write(r#"{"id":1,"method":"pid"}"#);
        assert_eq!(busy.read()["result"], worker);
        let other = bus.call(&["pid", "--pool", "1"]).result();
        assert_ne!(other, worker);
        let again = bus.call(&[of_session, &["pid"][..]].concat()).result();
        assert_eq!(again, worker);
        signal(busy.child.id(), "TERM");
        assert_eq!(busy.end().0, Some(143));
    });
}

#[test]
fn no_answer_in_time_exits_with_4_and_the_request_is_cancelled() {
    alone(|| {
        let admin = &["--admin", "{dir}/admin.sock"];
        let bus = Bus::start(&zoo_config(1, &["echo"]), admin);
        let admin = bus.program.path("admin.sock");
        let admin = admin.to_str().expect("text");
        let start = Instant::now();
        let outcome = bus.call(&["hold", "--timeout", "0.3"]);
        let line = outcome.failed(4);
        assert!(
            line.contains("300ms") && line.contains("--timeout"),
            "{line}"
        );
        assert!(start.elapsed() >= Duration::from_millis(300));
        wait_for_pending(admin, 0);
        assert_eq!(stats(admin)["tombstones"], 1, "the worker still has it");
        // None at all, and enough of it.
        for limit in ["0", "20"] {
            let outcome = bus.call(&["sleep", r#"{"ms":400}"#, "--timeout", limit]);
            assert_eq!(outcome.result(), json!({"ms": 400}));
        }
    });
}

#[test]
fn a_signal_cancels_what_waits_and_exits_with_its_number() {
    alone(|| {
        let admin = &["--admin", "{dir}/admin.sock"];
        let bus = Bus::start(&zoo_config(1, &["echo"]), admin);
        let admin = bus.program.path("admin.sock");
        let admin = admin.to_str().expect("text");
        for (name, code) in [("INT", 130), ("TERM", 143), ("HUP", 129)] {
            let one = Running::start(bus.command(&["hold"]));
            let mut lines = Running::start(bus.command(&[]));
            lines.write(r#"{"id":1,"method":"hold"}"#);
            wait_for_pending(admin, 2);
            for running in [one, lines] {
                signal(running.child.id(), name);
                assert_eq!(running.end(), (Some(code), String::new()), "{name}");
            }
            wait_for_pending(admin, 0);
        }
    });
}

// ---- notifications, and what comes before a result ---------------------------------------------

#[test]
fn a_notification_has_reached_the_bus_when_the_call_ends() {
    alone(|| {
        let bus = Bus::zoo(2);
        let of_session = ["--session", "s"];
        let large = format!("[\"{}\"]", "x".repeat(3 << 20));
        for params in ["[1]", &large] {
            let args = [&of_session[..], &["--notify", "note", "-"]].concat();
            let outcome = bus.send(&args, params.as_bytes());
            assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
            assert_eq!(outcome.stdout + &outcome.stderr, "");
        }
        let seen = bus.call(&[&of_session[..], &["seen"]].concat());
        assert_eq!(seen.result(), 2);
    });
}

#[test]
fn what_comes_before_the_result_is_printed_as_it_came_where_it_is_wanted() {
    alone(|| {
        let bus = Bus::zoo(1);
        let note =
            |i| json!({"jsonrpc": "2.0", "method": "note", "params": {"i": i, "sessionId": null}});
        let outcome = bus.call(&["--stream", "notify", r#"{"n":3}"#]);
        assert_eq!(
            outcome.lines(),
            [note(0), note(1), note(2), json!({"n": 3})]
        );
        let outcome = bus.call(&["notify", r#"{"n":3}"#]);
        assert_eq!(outcome.result(), json!({"n": 3}));
        // Far more than a pipe holds.
        let outcome = bus.call(&["--stream", "notify", r#"{"n":20000}"#]);
        let lines = outcome.lines();
        assert_eq!(lines.len(), 20001);
        assert!((0..20000).all(|i| lines[i] == note(i)));
    });
}

#[test]
fn the_text_of_an_agent_is_streamed_and_joined() {
    alone(|| {
        let bus = Bus::zoo(1);
        let params = r#"{"sessionId":"q","texts":["a","b"]}"#;
        let result = json!({"stopReason": "end_turn", "text": "ab"});
        assert_eq!(bus.call(&["session/prompt", params]).result(), result);
        let lines = bus.call(&["session/prompt", params, "--stream"]).lines();
        let text = |line: &Value| line["params"]["update"]["content"]["text"].clone();
        assert_eq!(
            lines.iter().map(text).collect::<Vec<_>>(),
            ["a".into(), "b".into(), Value::Null]
        );
        assert_eq!(lines[2], result);
    });
}

#[test]
fn what_came_before_an_error_is_printed() {
    alone(|| {
        let pool = json!({"id": "puppet", "command": example("puppet")});
        let bus = Bus::start(&json!({"pools": [pool]}).to_string(), &[]);
        let note = r#"{"jsonrpc":"2.0","method":"note"}"#;
        let params = json!({"play": [note, {"exit": 3}]}).to_string();
        let outcome = bus.call(&["m", &params, "--stream"]);
        assert!(outcome.failed(2).contains("status 3"), "{outcome:?}");
        assert_eq!(outcome.stdout, format!("{note}\n"));
    });
}

// ---- no bus, no token --------------------------------------------------------------------------

/// Each way to call.
const WAYS: [&[&str]; 3] = [&["echo"], &["echo", "--notify"], &[]];

#[test]
fn where_no_bus_is_the_exit_status_is_3_and_it_is_said_how_to_start_one() {
    alone(|| {
        let dir = TempDir::new();
        let path = |name| dir.path(name).to_str().expect("text").to_owned();
        let (missing, left) = (path("missing"), path("left"));
        drop(UnixListener::bind(&left).expect("bound"));
        let port = {
            let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
            listener.local_addr().expect("bound").to_string()
        };
        for [option, place] in [["--unix", &missing], ["--unix", &left], ["--tcp", &port]] {
            for way in WAYS {
                let outcome = call(&[&[option, place], way].concat(), b"{\"method\":\"m\"}\n");
                let line = outcome.failed(3);
                let wanted = format!("no bus listens at {place}: start one with");
                assert!(line.contains(&wanted), "{line}");
                assert!(line.ends_with(&format!("{option} {place}")), "{line}");
            }
        }
    });
}

#[test]
fn who_takes_the_connection_and_says_nothing_is_given_up() {
    alone(|| {
        let dir = TempDir::new();
        let (socket, token) = (dir.path("silent.sock"), dir.path("token"));
        let _silent = UnixListener::bind(&socket).expect("bound");
        fs::write(&token, "t\n").expect("written");
        let place = ["--unix", socket.to_str().expect("text")];
        let shown = ["--token-file", token.to_str().expect("text")];
        for way in WAYS {
            let args = [&place[..], &shown, &["--timeout", "0.2"], way].concat();
            let outcome = call(&args, b"");
            assert!(outcome.failed(3).contains("200ms"), "{outcome:?}");
        }
        // Without a token it is the answer that doesn't come.
        let args = [&place[..], &["--timeout", "0.2", "echo"]].concat();
        call(&args, b"").failed(4);
    });
}

#[test]
fn a_token_opens_the_door_and_without_the_right_one_the_exit_status_is_3() {
    alone(|| {
        let dir = TempDir::new();
        let file = |name, text| {
            let path = dir.path(name);
            fs::write(&path, text).expect("written");
            path.to_str().expect("text").to_owned()
        };
        let (right, wrong) = (file("right", "secret-t\n"), file("wrong", "guess-t\n"));
        let options = ["--tcp", "127.0.0.1:0", "--token-file", &right];
        let bus = Bus::start(&zoo_config(1, &["echo"]), &options);
        let tcp = bus.program.tcp_addresses().remove(0);
        let input = b"{\"id\":1,\"method\":\"echo\"}\n{\"method\":\"note\"}\n";
        for place in [["--unix", &bus.path], ["--tcp", &tcp]] {
            for way in WAYS {
                let with = |token: &[&str]| call(&[&place[..], token, way].concat(), input);
                let outcome = with(&["--token-file", &right]);
                assert_eq!(outcome.code, Some(0), "{outcome:?}");
                let outcome = with(&["--token-file", &wrong]);
                let line = outcome.failed(3);
                assert!(
                    line.contains("refuses the token") && line.contains(&wrong),
                    "{line}"
                );
                assert!(
                    !line.contains("guess-t") && !line.contains("secret-t"),
                    "{line}"
                );
                let outcome = with(&[]);
                assert!(outcome.failed(3).contains("--token-file"), "{outcome:?}");
            }
        }
    });
}

#[test]
fn a_bus_that_is_lost_exits_with_3_in_the_middle_of_a_request() {
    alone(|| {
        let admin = &["--admin", "{dir}/admin.sock"];
        let mut bus = Bus::start(&zoo_config(1, &["echo"]), admin);
        let one = Running::start(bus.command(&["hold"]));
        let mut lines = Running::start(bus.command(&[]));
        lines.write(r#"{"id":1,"method":"hold"}"#);
        let admin = bus.program.path("admin.sock");
        wait_for_pending(admin.to_str().expect("text"), 2);
        signal(bus.program.pid(), "KILL");
        bus.program.wait();
        let (code, stderr) = one.end();
        assert_eq!(code, Some(3), "{stderr}");
        assert!(
            stderr.contains("lost") && stderr.contains("log of the bus"),
            "{stderr}"
        );
        // It ends although its stdin goes on.
        let status = lines.child.wait().expect("it ends");
        let (_, stderr) = lines.end();
        assert_eq!(status.code(), Some(3), "{stderr}");
        assert!(stderr.contains("with 1 request unanswered"), "{stderr}");
    });
}

// ---- lines of JSON -----------------------------------------------------------------------------

#[test]
fn ten_thousand_lines_are_all_answered_in_the_order_of_their_sessions() {
    const COUNT: usize = 10_000;
    const SESSIONS: usize = 8;
    alone(|| {
        let bus = Bus::zoo(4);
        let line = |i: usize| {
            let session = i % SESSIONS;
            json!({"jsonrpc": "2.0", "id": i, "method": "echo", "params": [i], "sessionId": session.to_string()})
        };
        let lines: Vec<_> = (0..COUNT).map(|i| line(i).to_string()).collect();
        // The last one has no newline.
        let outcome = bus.send(&[], lines.join("\n").as_bytes());
        assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""));
        let mut next: Vec<_> = (0..SESSIONS).collect();
        let answers = outcome.lines();
        for answer in &answers {
            let id = answer["id"].as_u64().expect("a number") as usize;
            assert_eq!(answer["result"], json!([id]));
            assert_eq!(id, next[id % SESSIONS], "the order of the session");
            next[id % SESSIONS] += SESSIONS;
        }
        assert_eq!(answers.len(), COUNT);
    });
}

#[test]
fn large_lines_pass_although_nothing_is_read_before_all_is_written() {
    alone(|| {
        // More than the bus takes for a worker that is slow, and than all buffers hold.
        let bus = Bus::start(&zoo_config(1, &["slow", "200"]), &[]);
        let params = format!("\"{}\"", "x".repeat(3 << 20));
        let mut lines = Running::start(bus.command(&["--session", "s"]));
        for id in 0..11 {
            lines.write(&format!(
                r#"{{"id":{id},"method":"echo","params":{params}}}"#
            ));
        }
        lines.stdin = None;
        for id in 0..11 {
            let answer = lines.read();
            assert_eq!(answer["id"], id);
            assert!(
                answer["result"]
                    .as_str()
                    .is_some_and(|text| text.len() == 3 << 20)
            );
        }
        assert_eq!(lines.end(), (Some(0), String::new()));
    });
}

#[test]
fn a_line_that_is_no_object_is_told_by_its_number_and_the_others_go_on() {
    alone(|| {
        let bus = Bus::zoo(1);
        let input = "\u{feff}{\"id\":1,\"method\":\"echo\"}\r\n\n  \nnot JSON\n[{\"id\":2,\"method\":\"echo\"}]\n{\"id\":3,\"method\":\"echo\"} {}\n{\"id\":4,\"method\":\"echo\"}";
        let outcome = bus.send(&[], input.as_bytes());
        assert_eq!(outcome.code, Some(1), "{outcome:?}");
        let ids: Vec<_> = outcome
            .lines()
            .iter()
            .map(|line| line["id"].clone())
            .collect();
        assert_eq!(ids, [1, 4]);
        let told: Vec<_> = outcome.stderr.lines().collect();
        assert_eq!(told.len(), 3, "{told:?}");
        for (line, number) in told.iter().zip([4, 5, 6]) {
            let wanted = format!("line {number} is not a JSON object and is not sent");
            assert!(line.contains(&wanted), "{line}");
        }
    });
}

#[test]
fn answers_that_are_errors_are_printed_and_exit_with_2() {
    alone(|| {
        let bus = Bus::zoo(1);
        // The last two are no JSON-RPC; the bus answers them without an id.
        let input = b"{\"id\":1,\"method\":\"error\"}\n{\"id\":2,\"method\":\"echo\"}\n{}\n{\"id\":{},\"method\":\"m\"}\n";
        let outcome = bus.send(&["--timeout", "20"], input);
        assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(2), ""));
        let lines = outcome.lines();
        let errors = |code| {
            lines
                .iter()
                .filter(move |line| line["error"]["code"] == code)
        };
        assert_eq!((errors(-32050).count(), errors(-32600).count()), (1, 2));
        assert_eq!(lines.len(), 4);
    });
}

#[test]
fn a_message_that_is_too_large_is_answered_and_not_waited_for() {
    alone(|| {
        let bus = Bus::zoo(1);
        // Its id comes behind what the bus keeps of it.
        let large = "x".repeat(11 << 20);
        let input = format!(
            "{{\"method\":\"echo\",\"params\":\"{large}\",\"id\":1}}\n{{\"id\":2,\"method\":\"echo\"}}\n"
        );
        let outcome = bus.send(&["--timeout", "20"], input.as_bytes());
        assert_eq!(outcome.code, Some(2), "{}", outcome.stderr);
        let lines = outcome.lines();
        assert_eq!(lines[0]["error"]["data"]["reason"], "too_large");
        assert_eq!(lines[1]["id"], 2);
    });
}

#[test]
fn a_session_and_a_pool_are_added_to_messages_that_name_none() {
    alone(|| {
        let pool = |id| json!({"id": id, "command": zoo(), "args": ["slow", id]});
        let config = json!({"pools": [pool("1"), pool("2")]});
        let bus = Bus::start(&config.to_string(), &[]);
        let input = b"{\"id\":1,\"method\":\"args\"}\n{\"id\":2,\"method\":\"args\",\"pool\":\"1\",\"sessionId\":\"own\"}\n";
        let outcome = bus.send(&["--pool", "2", "--session", "s"], input);
        let mut lines = outcome.lines();
        lines.sort_by_key(|line| line["id"].as_u64());
        // The zoo's answers name the session that it was given.
        let answer = |line: &Value| (line["sessionId"].clone(), line["result"][1].clone());
        assert_eq!(answer(&lines[0]), ("s".into(), "2".into()));
        assert_eq!(answer(&lines[1]), ("own".into(), "1".into()));
    });
}

#[test]
fn lines_without_an_answer_in_time_exit_with_4_after_what_came() {
    alone(|| {
        let bus = Bus::zoo(1);
        bus.call(&["echo"]).result(); // the worker is up
        let input = b"{\"id\":1,\"method\":\"hold\"}\n{\"id\":2,\"method\":\"echo\"}\n";
        let outcome = bus.send(&["--timeout", "1"], input);
        let line = outcome.failed(4);
        assert!(
            line.contains("1 request unanswered") && line.contains("--timeout"),
            "{line}"
        );
        assert_eq!(outcome.lines().len(), 1);
    });
}

#[test]
fn a_pause_on_stdin_is_not_the_fault_of_the_bus() {
    alone(|| {
        let bus = Bus::zoo(1);
        bus.call(&["echo"]).result(); // the worker is up
        let mut lines = Running::start(bus.command(&["--timeout", "1"]));
        lines.write(r#"{"id":1,"method":"echo"}"#);
        assert_eq!(lines.read()["id"], 1);
        // What is tested is the time.
        thread::sleep(Duration::from_millis(1500));
        lines.write(r#"{"id":2,"method":"echo"}"#);
        assert_eq!(lines.read()["id"], 2);
        assert_eq!(lines.end(), (Some(0), String::new()));
    });
}

#[test]
fn what_a_worker_asks_is_a_line_that_a_line_answers() {
    alone(|| {
        let bus = Bus::zoo(1);
        let mut lines = Running::start(bus.command(&["--session", "s"]));
        lines.write(r#"{"id":1,"method":"ask"}"#);
        let asked = lines.read();
        assert_eq!(asked["method"], "ask");
        lines.write(&json!({"jsonrpc": "2.0", "id": asked["id"], "result": "yes"}).to_string());
        let answer = lines.read();
        assert_eq!(
            (&answer["id"], &answer["result"]),
            (&json!(1), &json!("yes"))
        );
        assert_eq!(lines.end(), (Some(0), String::new()));
    });
}

#[test]
fn notifications_at_the_end_of_stdin_are_not_lost() {
    alone(|| {
        let bus = Bus::start(&zoo_config(1, &["echo"]), &["--tcp", "127.0.0.1:0"]);
        let tcp = bus.program.tcp_addresses().remove(0);
        let input = "{\"method\":\"note\"}\n".repeat(5000);
        for place in [["--unix", &bus.path], ["--tcp", &tcp]] {
            let outcome = call(&place, input.as_bytes());
            assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""));
        }
        assert_eq!(bus.call(&["seen"]).result(), 10_000);
        assert_eq!(bus.send(&[], b"").code, Some(0), "nothing at all is fine");
    });
}

#[test]
fn an_agent_still_answers_after_the_end_of_stdin() {
    alone(|| {
        let mut config: Value = serde_json::from_str(&zoo_config(1, &["echo"])).expect("JSON");
        config["pools"][0]["protocol"] = json!("acp");
        let bus = Bus::start(&config.to_string(), &[]);
        // For the bus, a client of an agent that says no more has left.
        let input = b"{\"id\":1,\"method\":\"initialize\",\"params\":{\"protocolVersion\":1}}\n{\"id\":2,\"method\":\"sleep\",\"params\":{\"ms\":300}}";
        let outcome = bus.send(&[], input);
        assert_eq!(outcome.code, Some(0), "{outcome:?}");
        assert_eq!(outcome.lines()[1]["result"], json!({"ms": 300}));
    });
}

// ---- stdout ------------------------------------------------------------------------------------

#[test]
fn a_stdout_that_is_closed_ends_the_call_quietly() {
    alone(|| {
        let admin = &["--admin", "{dir}/admin.sock"];
        let bus = Bus::start(&zoo_config(1, &["echo"]), admin);
        let admin = bus.program.path("admin.sock");
        let mut one = Running::start(bus.command(&["--stream", "notify", r#"{"n":20000}"#]));
        one.read();
        let mut lines = Running::start(bus.command(&[]));
        lines.write(r#"{"id":1,"method":"notify","params":{"n":20000}}"#);
        lines.read();
        // All has come, and more of it waits for stdout than a pipe holds.
        wait_for_pending(admin.to_str().expect("text"), 0);
        for running in [one, lines] {
            let Running {
                mut child,
                stdin,
                stdout,
            } = running;
            drop(stdout);
            let mut stderr = String::new();
            let mut errors = child.stderr.take().expect("piped");
            errors.read_to_string(&mut stderr).expect("text");
            assert_eq!(child.wait().expect("it ends").code(), Some(141), "{stderr}");
            assert_eq!(stderr, "");
            // It ends although its stdin goes on.
            drop(stdin);
        }
    });
}

#[test]
fn a_stdout_that_can_not_be_written_is_told() {
    alone(|| {
        let bus = Bus::zoo(1);
        for way in [&["echo"][..], &[]] {
            let full = fs::File::options().write(true).open("/dev/full");
            let mut command = bus.command(way);
            command.stdout(full.expect("there"));
            let mut child = command.spawn().expect("it starts");
            let mut stdin = child.stdin.take().expect("piped");
            stdin
                .write_all(b"{\"id\":1,\"method\":\"echo\"}\n")
                .expect("taken");
            drop(stdin);
            let output = child.wait_with_output().expect("it ends");
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{stderr}");
            assert!(stderr.contains("stdout: No space left"), "{stderr}");
        }
    });
}
