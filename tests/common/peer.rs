//! Clients that speak MCP and ACP over a plain connection, and what the workers behind the bus saw.

use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Client, TempDir, example};

/// The official Python SDKs, exactly as tested with.
pub const ACP_SDK: &str = "agent-client-protocol==0.12.1";
pub const MCP_SDK: &str = "mcp==2.3.0";

pub const UNIX_AND_TCP: &[&str] = &["--unix", "{dir}/bus.sock", "--tcp", "127.0.0.1:0"];

/// A script of tests/workers.
pub fn worker_script(name: &str) -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/workers");
    tests.join(name)
}

/// The worker that does what it is told, tests/workers/puppet.rs.
pub fn puppet() -> PathBuf {
    example("puppet")
}

/// A pool of puppets that log to one file.
pub fn puppet_pool(id: &str, protocol: &str, instances: usize, log: &Log, args: &[&str]) -> Value {
    let path = log.path();
    let mut all = vec!["log", path.to_str().expect("a path in text")];
    all.extend(args);
    json!({"id": id, "command": puppet(), "args": all, "instances": instances, "protocol": protocol})
}

/// Configuration with these pools.
pub fn config(pools: &[Value]) -> String {
    json!({ "pools": pools }).to_string()
}

/// A pool of official Python workers: `SCRIPT LOG`.
pub fn python_pool(python: &Path, id: &str, script: &str, instances: usize, log: &Log) -> Value {
    json!({
        "id": id, "command": python, "args": [worker_script(script), log.path()], "instances": instances,
    })
}

// ---- what workers saw --------------------------------------------------------------------------

/// The file that all workers of a test log to: `PID LINE` for each line a worker read.
pub struct Log(TempDir);

/// One line that a worker read (or `start`, `eof`).
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    pub pid: u32,
    pub line: String,
}

impl Seen {
    /// The message, or null where the line is none.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.line).unwrap_or(Value::Null)
    }

    pub fn is(&self, method: &str) -> bool {
        self.json()["method"] == method
    }
}

impl Log {
    /// A log in a folder of its own.
    pub fn new() -> Log {
        Log(TempDir::new())
    }

    pub fn path(&self) -> PathBuf {
        self.0.path("log")
    }

    /// A file beside the log, for what a test and a worker agree on.
    pub fn beside(&self, name: &str) -> PathBuf {
        self.0.path(name)
    }

    pub fn all(&self) -> Vec<Seen> {
        let text = fs::read(self.path()).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let seen = |line: &str| {
            let (pid, line) = line.split_once(' ')?;
            Some(Seen {
                pid: pid.parse().ok()?,
                line: line.to_owned(),
            })
        };
        whole.lines().filter_map(seen).collect()
    }

    /// The messages with this method, of all workers.
    pub fn with_method(&self, method: &str) -> Vec<Seen> {
        let all = self.all().into_iter();
        all.filter(|seen| seen.is(method)).collect()
    }

    /// The lines that one worker has read, its `start` left out.
    pub fn of(&self, pid: u32) -> Vec<Seen> {
        let all = self.all().into_iter();
        all.filter(|seen| seen.pid == pid && seen.line != "start")
            .collect()
    }

    /// The workers that have started, in their order.
    pub fn pids(&self) -> Vec<u32> {
        let all = self.all().into_iter();
        all.filter(|seen| seen.line == "start")
            .map(|seen| seen.pid)
            .collect()
    }

    /// Waits until this many servers have shaken hands.
    #[track_caller]
    pub fn wait_until_ready(&self, servers: usize) {
        self.wait_for(servers, "the end of its handshake", |seen| {
            seen.is("notifications/initialized")
        });
    }

    /// Lets a client of its own make a pool of MCP servers ready, so that those which come after it
    /// have the choice of them all.
    #[track_caller]
    pub fn prepare(&self, client: Client, servers: usize) {
        Peer::new(client).initialize_mcp();
        self.wait_until_ready(servers);
    }

    /// Waits until a worker has read a line that fits, and returns the first such.
    #[track_caller]
    pub fn wait(&self, what: &str, fits: impl Fn(&Seen) -> bool) -> Seen {
        let found = self.wait_for(1, what, fits);
        found.into_iter().next().expect("one was asked for")
    }

    /// Waits until workers have read as many lines that fit, and returns them.
    #[track_caller]
    pub fn wait_for(&self, count: usize, what: &str, fits: impl Fn(&Seen) -> bool) -> Vec<Seen> {
        let deadline = Instant::now() + SOON;
        loop {
            let all = self.all();
            let found: Vec<_> = all.iter().filter(|seen| fits(seen)).cloned().collect();
            if found.len() >= count {
                return found;
            }
            assert!(
                Instant::now() < deadline,
                "workers never read {what} ({} of {count} came); they read: {all:#?}",
                found.len()
            );
            thread::sleep(Duration::from_millis(2));
        }
    }
}

/// How long a message may be on its way: far longer than any is.
const SOON: Duration = Duration::from_secs(15);

// ---- a client ----------------------------------------------------------------------------------

/// A client that numbers its requests from 0, as SDKs do, and keeps what comes until it is asked for.
pub struct Peer {
    pub client: Client,
    next_id: u64,
    inbox: VecDeque<Value>,
    /// Root members that go with every message.
    root: Value,
}

impl Peer {
    pub fn new(client: Client) -> Peer {
        Peer::with(client, json!({}))
    }

    pub fn with(client: Client, root: Value) -> Peer {
        Peer {
            client,
            next_id: 0,
            inbox: VecDeque::new(),
            root,
        }
    }

    #[track_caller]
    fn send(&mut self, mut message: Value) {
        for (name, value) in self.root.as_object().into_iter().flatten() {
            message[name] = value.clone();
        }
        self.client.send(&message.to_string());
    }

    /// Sends a request and returns its id.
    #[track_caller]
    pub fn request(&mut self, method: &str, params: Value) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        self.send(json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}));
        id
    }

    #[track_caller]
    pub fn notify(&mut self, method: &str, params: Value) {
        self.send(json!({"jsonrpc": "2.0", "method": method, "params": params}));
    }

    /// Answers a request of a worker.
    #[track_caller]
    pub fn reply(&mut self, request: &Value, result: Value) {
        self.send(json!({"jsonrpc": "2.0", "id": request["id"], "result": result}));
    }

    /// The first message that fits, of those that came and those that come; others are kept.
    #[track_caller]
    pub fn next(&mut self, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        if let Some(at) = self.inbox.iter().position(&fits) {
            return self.inbox.remove(at).expect("it is there");
        }
        loop {
            let message = match self.client.line(SOON) {
                Ok(line) => {
                    serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
                }
                Err(reason) => panic!("no {what}: {reason}; came instead: {:?}", self.inbox),
            };
            if fits(&message) {
                return message;
            }
            self.inbox.push_back(message);
        }
    }

    /// The answer to a request, as it came.
    #[track_caller]
    pub fn answer(&mut self, id: u64) -> Value {
        self.next(&format!("answer to {id}"), |message| {
            message.get("method").is_none() && message["id"] == id
        })
    }

    /// The next answer to any request.
    #[track_caller]
    pub fn answer_to_any(&mut self) -> Value {
        self.next("answer", |message| message.get("method").is_none())
    }

    /// The result of a request.
    #[track_caller]
    pub fn result(&mut self, id: u64) -> Value {
        let answer = self.answer(id);
        match answer.get("result") {
            Some(result) => result.clone(),
            None => panic!("request {id} got {answer}"),
        }
    }

    /// The next request or notification with this method.
    #[track_caller]
    pub fn message(&mut self, method: &str) -> Value {
        self.next(method, |message| message["method"] == method)
    }

    /// Sends a request and returns its result.
    #[track_caller]
    pub fn call(&mut self, method: &str, params: Value) -> Value {
        let id = self.request(method, params);
        self.result(id)
    }

    /// What has come and was not asked for.
    pub fn kept(&self) -> Vec<Value> {
        self.inbox.iter().cloned().collect()
    }

    /// Nothing has come so far but what was asked for.
    #[track_caller]
    pub fn kept_nothing(&self, what: &str) {
        assert!(self.inbox.is_empty(), "{what}: {:?}", self.inbox);
    }

    /// Makes sure, with one more round trip, that nothing has come but what was asked for.
    #[track_caller]
    pub fn got_nothing_else(&mut self) {
        self.call("fence", json!({}));
        self.kept_nothing("came too");
    }

    // ---- MCP

    /// Does what an MCP client of the handshake era does first; returns the server's answer.
    #[track_caller]
    pub fn initialize_mcp(&mut self) -> Value {
        self.initialize_mcp_as("tests", json!({"roots": {}, "sampling": {}}))
    }

    #[track_caller]
    pub fn initialize_mcp_as(&mut self, name: &str, capabilities: Value) -> Value {
        let result = self.call("initialize", mcp_initialize(name, capabilities));
        assert!(
            result["protocolVersion"].is_string(),
            "no MCP answer: {result}"
        );
        self.notify("notifications/initialized", json!({}));
        result
    }

    /// Calls a tool.
    #[track_caller]
    pub fn tool(&mut self, name: &str, arguments: Value) -> u64 {
        self.request("tools/call", json!({"name": name, "arguments": arguments}))
    }

    // ---- ACP

    #[track_caller]
    pub fn initialize_acp(&mut self) -> Value {
        let fs = json!({"readTextFile": true, "writeTextFile": true});
        let capabilities = json!({"fs": fs, "terminal": false});
        let result = self.call(
            "initialize",
            json!({"protocolVersion": 1, "clientCapabilities": capabilities}),
        );
        assert_eq!(result["protocolVersion"], 1, "no ACP answer: {result}");
        result
    }

    /// A new session of the agent's.
    #[track_caller]
    pub fn new_session(&mut self) -> String {
        let result = self.call("session/new", json!({"cwd": "/tmp", "mcpServers": []}));
        let session = result["sessionId"].as_str();
        session
            .unwrap_or_else(|| panic!("no session in {result}"))
            .to_owned()
    }

    /// Prompts with a text, and returns the request's id.
    #[track_caller]
    pub fn prompt(&mut self, session: &str, text: &str) -> u64 {
        let prompt = json!([{"type": "text", "text": text}]);
        self.request(
            "session/prompt",
            json!({"sessionId": session, "prompt": prompt}),
        )
    }

    /// The texts of this session's chunks that have come and were not asked for before.
    pub fn chunks(&mut self, session: &str) -> Vec<String> {
        let text = |message: &Value| {
            let update = &message["params"]["update"];
            let own = message["params"]["sessionId"] == session;
            let chunk = own && update["sessionUpdate"] == "agent_message_chunk";
            chunk.then(|| update["content"]["text"].as_str().map(str::to_owned))?
        };
        let texts = self.inbox.iter().filter_map(text).collect();
        self.inbox.retain(|message| text(message).is_none());
        texts
    }
}

/// The params of a handshake.
pub fn mcp_initialize(name: &str, capabilities: Value) -> Value {
    json!({
        "protocolVersion": "2025-06-18",
        "capabilities": capabilities,
        "clientInfo": {"name": name, "version": "1"},
    })
}

/// The `_meta` that every request of the stateless era has.
pub fn modern(mut more: Value) -> Value {
    more["io.modelcontextprotocol/protocolVersion"] = json!("2026-07-28");
    more["io.modelcontextprotocol/clientCapabilities"] = json!({});
    more["io.modelcontextprotocol/clientInfo"] = json!({"name": "tests", "version": "1"});
    more
}

/// Each worker has read one handshake, as far as it has got with that, and nothing before it.
#[track_caller]
pub fn assert_one_handshake_each(log: &Log) {
    for pid in log.pids() {
        let read: Vec<_> = log.of(pid).iter().map(Seen::json).collect();
        let methods: Vec<_> = read.iter().map(|message| &message["method"]).collect();
        for (method, wanted) in methods
            .iter()
            .zip(["initialize", "notifications/initialized"])
        {
            assert_eq!(
                *method, wanted,
                "the start of what worker {pid} read: {read:?}"
            );
        }
        let again = methods
            .iter()
            .skip(2)
            .any(|method| **method == "initialize" || **method == "notifications/initialized");
        assert!(!again, "worker {pid} was initialized twice: {methods:?}");
    }
}

/// The first text in a tool's result.
#[track_caller]
pub fn tool_text(result: &Value) -> &str {
    let text = result["content"][0]["text"].as_str();
    text.unwrap_or_else(|| panic!("no text in {result}"))
}

/// The params of a tool call that plays these steps on a puppet.
pub fn play(steps: Value) -> Value {
    json!({"name": "play", "arguments": {}, "play": steps})
}

/// The line with which a puppet answers the request it plays.
pub fn answers(result: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":$ID,"result":{result}}}"#)
}

/// Steps that run when something happens.
pub fn on(event: &str, steps: Value) -> Value {
    json!({"on": event, "play": steps})
}

/// Sends SIGKILL at once, without the detour over a shell that `signal` takes.
pub fn kill_now(pid: u32) {
    unsafe extern "C" {
        fn kill(pid: i32, signal: i32) -> i32;
    }
    // SAFETY: a system call on numbers.
    assert_eq!(unsafe { kill(pid as i32, 9) }, 0, "kill -9 {pid}");
}
