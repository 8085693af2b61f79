//! `stdio_bus run --stdio`: the lines of an agent, its errors, its start and its end.

mod common;

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread;

use common::stdio_agent::{Agent, request, text_of};
use common::{TempDir, program, signal};
use serde_json::{Value, json};

fn echo() -> Value {
    json!({"name": "echo", "handler": "echo"})
}

fn example(name: &str) -> String {
    format!("{}/examples/agents/{name}.yaml", env!("CARGO_MANIFEST_DIR"))
}

/// What it writes for this input, and how it ends.
fn piped(config: &Path, args: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new(program())
        .args(["run", "--config"])
        .arg(config)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut stdin = child.stdin.take().expect("piped");
    let input = input.to_owned();
    let feed = thread::spawn(move || {
        // It may have ended.
        std::io::Write::write_all(&mut stdin, &input).ok();
    });
    let output = child.wait_with_output().expect("it ends");
    feed.join().expect("fed");
    output
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("UTF-8")
}

// ---- the handlers ------------------------------------------------------------------------------

#[test]
fn the_echo_example_answers_to_the_byte_and_exits_with_0() {
    let request = r#"{"jsonrpc":"2.0","id":"1","method":"tasks/send","params":{"id":"1","message":{"role":"user","parts":[{"type":"text","text":"hello"}]}}}"#;
    let answer = r#"{"jsonrpc":"2.0","id":"1","result":{"id":"1","status":{"state":"completed"},"artifacts":[{"parts":[{"type":"text","text":"hello"}]}]}}"#;
    let config = example("echo");
    let output = piped(
        Path::new(&config),
        &["--stdio"],
        format!("{request}\n").as_bytes(),
    );
    assert_eq!(text(&output.stdout), format!("{answer}\n"));
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
}

#[test]
fn the_greeter_example_greets_in_text_and_leaves_the_rest() {
    let parts = json!([{"type": "text", "text": "hi"}, {"type": "data", "data": {"b": 1, "a": [2]}}, {"type": "text"}]);
    let message = json!({"role": "user", "parts": parts});
    let request = json!({"jsonrpc": "2.0", "id": 1, "method": "tasks/send", "params": {"id": "t", "message": message}});
    let config = example("greeter");
    let output = piped(
        Path::new(&config),
        &["--stdio"],
        request.to_string().as_bytes(),
    );
    let answer: Value = serde_json::from_slice(&output.stdout).expect("one line");
    assert_eq!(
        answer["result"]["artifacts"][0]["parts"],
        json!([{"type": "text", "text": "Hello! You said: hi"}, parts[1], {"type": "text", "text": "Hello! You said: "}])
    );
}

#[test]
fn the_claude_example_is_an_agent() {
    let agent = stdiobus::agent::AgentSpec::load(example("claude")).expect("valid");
    assert_eq!((agent.name.as_str(), agent.port), ("claude", Some(8003)));
}

#[test]
fn echo_changes_nothing_in_a_part() {
    let deep = format!("{}{}", "[".repeat(500), "]".repeat(500));
    let parts = format!(
        r#"[{{"type":"data","data":{{"z":1e400,"a":123456789012345678901,"t":"\u003c\ud83d\ude00"}},"other":{deep}}},{{"type":"text","text":"<&>\u2028"}}]"#
    );
    let mut agent = Agent::start(&echo(), &[]);
    agent.send(&format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"tasks/send","params":{{"id":"t","message":{{"role":"user","parts":{parts}}}}}}}"#
    ));
    assert!(
        agent
            .line()
            .contains(&format!(r#""artifacts":[{{"parts":{parts}}}]"#))
    );
    assert!(agent.finish().is_empty());
}

// ---- errors ------------------------------------------------------------------------------------

/// Lines and what they are answered with: id, code, message.
fn error_table() -> Vec<(String, &'static str, i64, String)> {
    let mut table = Vec::new();
    let mut row = |line: &str, id, code, message: &str| {
        table.push((line.to_owned(), id, code, message.to_owned()));
    };
    for line in [
        "",
        " ",
        "x",
        "{",
        "[]",
        r#"[{"jsonrpc":"2.0","id":1,"method":"m"}]"#,
        "1",
        "\"a\"",
        "true",
        r#"{"jsonrpc":2.0,"id":1,"method":"m"}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":7}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"m"} x"#,
    ] {
        row(line, "null", -32700, "parse error");
    }
    let version = "invalid request: jsonrpc must be \"2.0\"";
    row("null", "null", -32600, version);
    row("{}", "null", -32600, version);
    row(
        r#"{"jsonrpc":"1.0","method":"tasks/send"}"#,
        "null",
        -32600,
        version,
    );
    row(r#"{"jsonrpc":null,"id":7}"#, "7", -32600, version);
    row(r#"{"jsonrpc":"1.0","id":null}"#, "null", -32600, version);
    let method = "invalid request: method is required";
    row(r#"{"jsonrpc":"2.0"}"#, "null", -32600, method);
    row(
        r#"{"jsonrpc":"2.0","id":"","method":""}"#,
        "\"\"",
        -32600,
        method,
    );
    row(
        r#"{"jsonrpc":"2.0","id":1,"method":null}"#,
        "1",
        -32600,
        method,
    );
    let id = "invalid request: id is required";
    row(
        r#"{"jsonrpc":"2.0","id":null,"method":"other"}"#,
        "null",
        -32600,
        id,
    );
    row(
        r#"{"jsonrpc":"2.0","id":1,"method":"tasks/get"}"#,
        "1",
        -32601,
        "method not found: tasks/get",
    );
    row(
        r#"{"jsonrpc":"2.0","id":1,"method":"\"\n"}"#,
        "1",
        -32601,
        "method not found: \"\n",
    );
    let mut params = |params: &str, message: &str| {
        let line = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tasks/send","params":{params}}}"#);
        row(&line, "1", -32602, message);
    };
    for wrong in [
        "7",
        "[]",
        "\"x\"",
        r#"{"id":7}"#,
        r#"{"id":"t","message":[]}"#,
        r#"{"message":{"role":1}}"#,
        r#"{"id":"t","message":{"role":"user","parts":{}}}"#,
        r#"{"id":"t","message":{"role":"agent","parts":[7]}}"#,
        r#"{"id":"","message":{"parts":[{"type":7}]}}"#,
        r#"{"id":"t","message":{"role":"user","parts":[{"type":"text","text":7}]}}"#,
    ] {
        params(wrong, "invalid params");
    }
    let task = "invalid params: task id is required";
    params("null", task);
    params("{}", task);
    params(r#"{"id":"","message":{"role":"agent"}}"#, task);
    let role = "invalid params: message role must be \"user\"";
    params(r#"{"id":"t"}"#, role);
    params(r#"{"id":"t","message":{"role":"agent","parts":[]}}"#, role);
    let parts = "invalid params: message must have at least one part";
    params(r#"{"id":"t","message":{"role":"user"}}"#, parts);
    params(r#"{"id":"t","message":{"role":"user","parts":[]}}"#, parts);
    let part = |i: usize| format!("invalid params: part[{i}] type is required");
    params(
        r#"{"id":"t","message":{"role":"user","parts":[{"text":"x"}]}}"#,
        &part(0),
    );
    params(
        r#"{"id":"t","message":{"role":"user","parts":[{"type":"text"},{"type":""},null]}}"#,
        &part(1),
    );
    let line = r#"{"jsonrpc":"2.0","id":1,"method":"tasks/send"}"#;
    row(line, "1", -32602, task);
    table
}

#[test]
fn each_line_that_is_wrong_is_answered_with_its_error() {
    for args in [&[][..], &["--strict-reference"]] {
        let mut agent = Agent::start(&echo(), args);
        for (line, id, code, message) in error_table() {
            agent.send(&line);
            let error = json!({"code": code, "message": message});
            let expected = format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{error}}}"#);
            assert_eq!(agent.line(), expected, "{line}");
        }
        assert!(agent.finish().is_empty());
    }
}

#[test]
fn an_exec_agent_has_the_same_errors() {
    let mut agent = Agent::start(&common::stdio_agent::sh("exit 1"), &[]);
    for (line, _, code, message) in error_table() {
        agent.send(&line);
        assert_eq!(
            agent.answer()["error"],
            json!({"code": code, "message": message}),
            "{line}"
        );
    }
    assert!(agent.finish().is_empty());
}

#[test]
fn a_notification_is_answered_only_as_in_the_reference_if_that_is_wanted() {
    let notification = request("0", "t", "x").replace("\"id\":0,", "");
    let other = r#"{"jsonrpc":"2.0","method":"notifications/cancelled"}"#;
    let mut agent = Agent::start(&echo(), &[]);
    agent.send(&notification);
    agent.send(other);
    assert_eq!(text_of(&agent.ask("t", "after them")), "after them");
    assert!(agent.finish().is_empty());

    let mut agent = Agent::start(&echo(), &["--strict-reference"]);
    for line in [notification.as_str(), other] {
        agent.send(line);
        assert_eq!(
            agent.line(),
            r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32600,"message":"invalid request: id is required"}}"#
        );
    }
}

#[test]
fn ids_come_back_byte_for_byte() {
    let mut agent = Agent::start(&echo(), &[]);
    for id in [
        "1152921504606846976",
        "1152921504606846977",
        "123456789012345678901234567890",
        "1e2",
        "1E+02",
        "1.0",
        "-0",
        "1e999",
        "\"\"",
        "\"a\"",
        r#""\u0061""#,
        r#""\/\"\\""#,
        r#""\ud83d""#,
        "\"é\u{1f600}\"",
        "true",
        "[1, 2]",
        r#"{"b":1, "a":{}}"#,
    ] {
        agent.send(&request(id, "t", "x"));
        let start = format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{"id":"t","#);
        let line = agent.line();
        assert!(line.starts_with(&start), "{id}: {line}");
        agent.send(&format!(r#"{{"method":"m","jsonrpc":"2.0","id":{id}}}"#));
        let start = format!(r#"{{"jsonrpc":"2.0","id":{id},"error":"#);
        assert!(agent.line().starts_with(&start), "{id}");
    }
}

// ---- lines -------------------------------------------------------------------------------------

#[test]
fn a_thousand_requests_at_once_are_answered_in_their_order() {
    let input: String = (0..1000)
        .map(|i| request(&i.to_string(), &format!("t{}", i % 7), &format!("text {i}")) + "\n")
        .collect();
    let dir = TempDir::new();
    let config = dir.path("echo.yaml");
    fs::write(&config, echo().to_string()).expect("written");
    let output = piped(&config, &["--stdio"], input.as_bytes());
    assert_eq!(output.status.code(), Some(0));
    let lines: Vec<Value> = text(&output.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(lines.len(), 1000);
    for (i, line) in lines.iter().enumerate() {
        assert_eq!(line["id"], i);
        assert_eq!(text_of(&line["result"]), format!("text {i}"));
    }
}

#[test]
fn line_ends_may_be_of_either_kind_and_the_last_may_be_missing() {
    let mut agent = Agent::start(&echo(), &[]);
    let input = format!(
        "{}\r\n\r\n{}",
        request("1", "t", "a"),
        request("2", "t", "b")
    );
    agent.send_bytes(input.as_bytes());
    let lines = agent.finish();
    let ids: Vec<Value> = lines
        .iter()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON")["id"].take())
        .collect();
    assert_eq!(ids, [json!(1), Value::Null, json!(2)]);
    assert!(lines[1].contains("parse error"));
}

#[test]
fn what_is_not_utf_8_is_a_parse_error_and_nothing_more() {
    let mut agent = Agent::start(&echo(), &[]);
    for line in [
        &b"\xff\n"[..],
        b"\xef\xbb\xbf{}\n",
        b"{\"jsonrpc\":\"2.0\",\"id\":\"\xc3\x28\"}\n",
        b"\0\n",
    ] {
        agent.send_bytes(line);
        assert_eq!(agent.answer()["error"]["code"], -32700, "{line:?}");
    }
    assert_eq!(text_of(&agent.ask("t", "still there")), "still there");
}

#[test]
fn a_line_may_be_16_mib_and_a_longer_one_is_skipped() {
    let mut agent = Agent::start(&echo(), &[]);
    let envelope = request("1", "t", "").len();
    let long = "x".repeat((16 << 20) - envelope);
    agent.send(&request("1", "t", &long));
    let answer = agent.answer();
    assert_eq!(text_of(&answer["result"]).len(), long.len());
    agent.send(&request("1", "t", &(long + "x")));
    let too_large =
        r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"request body too large"}}"#;
    assert_eq!(agent.line(), too_large);
    assert_eq!(text_of(&agent.ask("t", "still there")), "still there");
}

#[test]
fn the_longest_line_can_be_chosen() {
    let line = request("1", "t", "abc");
    let mut agent = Agent::start(&echo(), &["--max-line", &line.len().to_string()]);
    agent.send(&line);
    assert_eq!(agent.answer()["id"], 1);
    agent.send(&request("1", "t", "abcd"));
    assert_eq!(agent.answer()["error"]["code"], -32700);
}

// ---- start and end -----------------------------------------------------------------------------

#[test]
fn a_file_that_is_no_agent_is_told_in_full_and_ends_it_with_1() {
    let dir = TempDir::new();
    let config = dir.path("agent.yaml");
    for (yaml, error) in [
        ("", "name is required; unknown handler \"\""),
        (
            "port: 70000\nhandler: x",
            "name is required; port must be between 1 and 65535; unknown handler \"x\"",
        ),
        (
            "name: a\nhandler: exec",
            "exec handler requires backend config",
        ),
        (
            "name: a\nhandler: exec\nbackend: {args: [x]}",
            "exec handler requires backend command",
        ),
    ] {
        fs::write(&config, yaml).expect("written");
        let output = piped(&config, &["--stdio"], b"");
        assert_eq!(
            text(&output.stderr),
            format!("error: loading config: {error}\n")
        );
        assert_eq!((output.status.code(), text(&output.stdout)), (Some(1), ""));
    }
    fs::write(&config, "a: [").expect("written");
    let output = piped(&config, &["--stdio"], b"");
    assert!(text(&output.stderr).starts_with("error: loading config: parsing YAML: "));
    let output = piped(&dir.path("missing.yaml"), &["--stdio"], b"");
    assert!(text(&output.stderr).contains("missing.yaml: No such file"));
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn http_is_refused() {
    let config = example("echo");
    let output = piped(Path::new(&config), &[], b"");
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(1), ""));
    assert!(text(&output.stderr).contains("HTTP is not supported"));
}

#[test]
fn a_signal_ends_it_with_0_while_it_waits_for_input() {
    for name in ["TERM", "INT", "HUP"] {
        let mut agent = Agent::start(&echo(), &[]);
        agent.ask("t", "it is up");
        signal(agent.pid(), name);
        let (status, lines, log) = agent.wait();
        assert_eq!(status.code(), Some(0), "{name}: {log}");
        assert!(lines.is_empty());
        assert!(log.contains(&format!("SIG{name}, stopping")), "{log}");
    }
}

#[test]
fn its_log_goes_to_stderr_and_says_what_has_no_effect() {
    let mut config = echo();
    config["system_prompt"] = "be brief".into();
    let mut agent = Agent::start(&config, &["--log-format", "json"]);
    agent.close_stdin();
    let (_, lines, log) = agent.wait();
    assert!(lines.is_empty());
    let lines: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(lines[0]["level"], "WARN");
    assert!(
        lines[0]["message"]
            .as_str()
            .expect("text")
            .starts_with("system_prompt has no effect")
    );
    assert_eq!(lines[1]["message"], "agent echo (echo) on stdin and stdout");
}

#[test]
fn it_ends_with_1_when_nobody_reads_its_answers() {
    let mut child = Command::new(program())
        .args(["run", "--stdio", "--config", &example("echo")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    drop(child.stdout.take());
    let mut stdin = child.stdin.take().expect("piped");
    let line = request("1", "t", "x") + "\n";
    std::io::Write::write_all(&mut stdin, line.as_bytes()).expect("it reads");
    // Its input stays open.
    let output = child.wait_with_output().expect("it ends");
    drop(stdin);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("Broken pipe"));
}

// ---- in this process ---------------------------------------------------------------------------

#[tokio::test]
async fn an_agent_can_be_served_on_any_stream() {
    use stdiobus::agent::{AgentSpec, Handler, StdioAgent};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let agent = StdioAgent::new(AgentSpec::new("echo", Handler::Echo)).max_line(1000);
    let (mut client, server) = tokio::io::duplex(64);
    let (from, to) = tokio::io::split(server);
    let talk = async {
        let line = request("1", "t", "hello");
        client.write_all(line.as_bytes()).await.expect("taken");
        client.shutdown().await.expect("closed");
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.expect("read");
        answer
    };
    let (served, answer) = tokio::join!(agent.serve(from, to), talk);
    served.expect("served");
    let answer: Value = serde_json::from_str(&answer).expect("one line");
    assert_eq!(text_of(&answer["result"]), "hello");
}
