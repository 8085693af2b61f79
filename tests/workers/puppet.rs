//! A worker whose every move is written in the test that uses it.
//!
//! `puppet [log FILE] [chatty] [strict] [mute-init] [numbered] [hello LINE]...`
//!
//! - `log FILE`: appends `PID start`, then `PID LINE` for each line read, then `PID eof`
//! - `chatty`: writes 200 KB to stderr before it reads anything
//! - `strict`: gives no reply to a message with a root member other than JSON-RPC's own
//! - `mute-init`: never answers `initialize`
//! - `numbered`: calls its sessions `1`, `2` and so on, as other processes of its kind do
//! - `hello LINE`: writes LINE at its start
//!
//! A message with `params.play`, a list of steps, plays them; a request without it is answered with
//! its own params. A step is
//!
//! - a string: a line to write, in which `$ID`, `$TOKEN`, `$SESSION`, `$GOT` stand for the request's
//!   id, its progress token, its `params.sessionId` and what a step waited for, all as JSON, `$PID`
//!   for the process's id, and `$FF` for a byte that no UTF-8 has
//! - `{"slowly": LINE}`: the same, each byte in a write of its own
//! - `{"at_once": [LINE…]}`: several lines in one write
//! - `{"on": EVENT, "play": [STEP…]}`: plays the steps when EVENT comes, once: the method of a
//!   message, or `answer ID` for the answer to a request of the puppet's own, id as JSON; `$GOT` is
//!   then that message's params, or its result or error
//! - `{"exit": CODE}`
//!
//! Without `play`, `initialize`, `session/new` and `stdio_bus/hello` are answered as their protocols
//! want it; of a hello's extensions, those of version `off` are inactive and those of version `absent`
//! unknown. `message` is answered with the whole message, as it came. Ids are written the way
//! serde_json spells them, not the way they came.

use std::fs::OpenOptions;
use std::io::{BufRead, Write};
use std::process::exit;

use serde_json::{Value, json};

#[derive(Default)]
struct Puppet {
    log: Option<String>,
    strict: bool,
    mute_init: bool,
    numbered: bool,
    sessions: u32,
    waiting: Vec<Waiting>,
}

/// Steps that wait for an event, with what they stand for.
struct Waiting {
    event: String,
    steps: Vec<Value>,
    words: Words,
}

#[derive(Clone, Default)]
struct Words {
    id: Value,
    token: Value,
    session: Value,
    got: Value,
}

fn main() {
    let mut puppet = Puppet::default();
    let mut hello = Vec::new();
    let mut args = std::env::args().skip(1);
    let mut chatty = false;
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "log" => puppet.log = args.next(),
            "chatty" => chatty = true,
            "strict" => puppet.strict = true,
            "numbered" => puppet.numbered = true,
            "mute-init" => puppet.mute_init = true,
            "hello" => hello.extend(args.next()),
            _ => {
                eprintln!("puppet: unknown argument {arg}");
                exit(2);
            }
        }
    }
    puppet.note(b"start");
    if chatty {
        for i in 0..2000 {
            eprintln!("{i:05} {}", "chatter ".repeat(12));
        }
    }
    for line in hello {
        write(&spell(&line, &Words::default()));
    }

    let mut input = std::io::stdin().lock();
    let mut line = Vec::new();
    while input.read_until(b'\n', &mut line).unwrap_or(0) > 0 {
        let text = line.strip_suffix(b"\n").unwrap_or(&line);
        puppet.note(text);
        if let Ok(message) = serde_json::from_slice(text) {
            puppet.handle(&message);
        }
        line.clear();
    }
    puppet.note(b"eof");
}

impl Puppet {
    fn note(&self, what: &[u8]) {
        let Some(path) = &self.log else { return };
        let entry = [format!("{} ", std::process::id()).as_bytes(), what, b"\n"].concat();
        let file = OpenOptions::new().create(true).append(true).open(path);
        if file.and_then(|mut file| file.write_all(&entry)).is_err() {
            exit(0); // its folder has gone, and with it the test
        }
    }

    fn handle(&mut self, message: &Value) {
        const OWN: [&str; 6] = ["jsonrpc", "id", "method", "params", "result", "error"];
        let known = |name: &String| OWN.contains(&name.as_str());
        if self.strict && !message.as_object().is_some_and(|m| m.keys().all(known)) {
            return;
        }
        let params = &message["params"];
        let words = Words {
            id: message["id"].clone(),
            token: params["_meta"]["progressToken"].clone(),
            session: params["sessionId"].clone(),
            got: Value::Null,
        };
        let Some(method) = message["method"].as_str() else {
            let got = message.get("result").unwrap_or(&message["error"]);
            return self.happen(&format!("answer {}", message["id"]), got);
        };
        self.happen(method, params);
        if let Some(steps) = params["play"].as_array() {
            return self.play(steps, &words);
        }
        if message.get("id").is_none() {
            return;
        }
        let result = match method {
            "initialize" if self.mute_init => return,
            "initialize" => initialized(&params["protocolVersion"]),
            "session/new" => {
                self.sessions += 1;
                let name = match self.numbered {
                    true => self.sessions.to_string(),
                    false => format!("sess-{}-{}", std::process::id(), self.sessions),
                };
                json!({ "sessionId": name })
            }
            "stdio_bus/hello" => greeted(&params["extensions"]),
            "message" => message.clone(),
            "pid" => json!(std::process::id()),
            _ => params.clone(),
        };
        write(
            json!({"jsonrpc": "2.0", "id": words.id, "result": result})
                .to_string()
                .as_bytes(),
        );
    }

    /// Plays what waits for this event, in the order in which it began to wait.
    fn happen(&mut self, event: &str, got: &Value) {
        let (due, waiting) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition(|waiting| waiting.event == event);
        self.waiting = waiting;
        for mut due in due {
            due.words.got = got.clone();
            self.play(&due.steps, &due.words);
        }
    }

    fn play(&mut self, steps: &[Value], words: &Words) {
        for step in steps {
            if let Some(line) = step.as_str() {
                write(&spell(line, words));
            } else if let Some(line) = step["slowly"].as_str() {
                let line = [spell(line, words), vec![b'\n']].concat();
                line.chunks(1).for_each(write_bytes);
            } else if let Some(lines) = step["at_once"].as_array() {
                let lines = lines.iter().filter_map(Value::as_str);
                let lines = lines.map(|line| [spell(line, words), vec![b'\n']].concat());
                write_bytes(&lines.collect::<Vec<_>>().concat());
            } else if let Some(event) = step["on"].as_str() {
                self.waiting.push(Waiting {
                    event: event.to_owned(),
                    steps: step["play"].as_array().cloned().unwrap_or_default(),
                    words: words.clone(),
                });
            } else if let Some(code) = step["exit"].as_i64() {
                exit(code as i32);
            } else {
                eprintln!("puppet: unknown step {step}");
                exit(2);
            }
        }
    }
}

fn initialized(version: &Value) -> Value {
    if version.is_number() {
        return json!({"protocolVersion": 1, "agentCapabilities": {}});
    }
    let served = ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"];
    let version = match version.as_str() {
        Some(version) if served.contains(&version) => version,
        _ => served[3],
    };
    json!({
        "protocolVersion": version,
        "capabilities": {"tools": {"listChanged": true}},
        "serverInfo": {"name": "puppet", "version": "1"},
    })
}

fn greeted(offered: &Value) -> Value {
    let offered = offered.as_object().into_iter().flatten();
    let known = offered.filter(|(_, extension)| extension["version"] != "absent");
    let answered = known.map(|(name, extension)| {
        let active = extension["version"] != "off";
        let answer = json!({"selected": extension["version"], "active": active});
        (name.clone(), answer)
    });
    let extensions: serde_json::Map<String, Value> = answered.collect();
    json!({"negotiatedProtocolVersion": "0.1.0", "sessionId": "agents", "extensions": extensions})
}

/// The line, with the words it names filled in.
fn spell(line: &str, words: &Words) -> Vec<u8> {
    let text = line
        .replace("$ID", &words.id.to_string())
        .replace("$TOKEN", &words.token.to_string())
        .replace("$SESSION", &words.session.to_string())
        .replace("$GOT", &words.got.to_string())
        .replace("$PID", &std::process::id().to_string());
    let parts: Vec<_> = text.split("$FF").map(str::as_bytes).collect();
    parts.join(&0xFF)
}

fn write(line: &[u8]) {
    write_bytes(&[line, b"\n"].concat());
}

/// A write that fails has nobody to tell: the bus is gone.
fn write_bytes(bytes: &[u8]) {
    let mut out = std::io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).ok();
}
