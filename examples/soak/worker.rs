//! The soak as a worker: `soak worker WITNESS BUS POOL`, which does what the params of a request say.
//!
//! Of each message it reads it tells the witness before it does anything, so that the checker knows
//! what reached whom, and in which order.

use std::collections::{HashMap, HashSet};
use std::io::{self, BufRead, Write};
use std::os::unix::net::UnixStream;
use std::process;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::plan::{EXIT_STATUS, FRAME_MAX, Pool};

/// What a worker answers that fails on purpose.
pub const FAILURE: i64 = -32050;
/// What an agent answers for a session that it didn't make.
pub const NO_SESSION: i64 = -32051;

struct Worker {
    pool: Pool,
    /// Those that this agent has made.
    sessions: Mutex<HashSet<String>>,
    /// Whether the turn of a session is to end.
    turns: Mutex<HashMap<String, Arc<AtomicBool>>>,
    /// Own requests that wait: what they were asked for.
    asked: Mutex<HashMap<String, Value>>,
}

pub fn run(witness: &str, bus: &str, pool: Pool) -> io::Result<()> {
    let mut witness = UnixStream::connect(witness)?;
    // Each line in one write, since this process may be killed at any time.
    let mut tell = |line: String| witness.write_all(line.as_bytes());
    tell(format!("hello {bus} {} {}\n", pool.name(), process::id()))?;
    let worker = Arc::new(Worker {
        pool,
        sessions: Mutex::default(),
        turns: Mutex::default(),
        asked: Mutex::default(),
    });
    for line in io::stdin().lock().lines() {
        let Ok(message) = serde_json::from_str::<Value>(&line?) else {
            continue;
        };
        let params = &message["params"];
        if let Some(nonce) = params["n"]
            .as_u64()
            .filter(|_| message["method"].is_string())
        {
            let number = |name| params[name].as_u64().unwrap_or(0);
            tell(format!("{nonce} {} {}\n", number("s"), number("q")))?;
        }
        worker.take(&message);
    }
    Ok(())
}

impl Worker {
    fn take(self: &Arc<Self>, message: &Value) {
        let (id, params) = (&message["id"], &message["params"]);
        match (message["method"].as_str(), id.is_null()) {
            (None, _) => self.asked_and_got(message),
            (Some("session/cancel"), true) => self.cancel(params),
            (Some(_), true) => {}
            (Some("initialize"), _) => answer(id, &hello(self.pool)),
            (Some("session/new"), _) => {
                let mut result = echo(params);
                let name = format!("{}-{}", process::id(), params["n"]);
                result["sessionId"] = json!(name);
                lock(&self.sessions).insert(name);
                answer(id, &result);
            }
            (Some(_), _) => self.work(id, params),
        }
    }

    fn work(self: &Arc<Self>, id: &Value, params: &Value) {
        let number = |name: &str| params[name].as_u64().unwrap_or(0);
        let session = params["sessionId"].as_str().unwrap_or_default();
        if self.pool == Pool::Acp && !lock(&self.sessions).contains(session) {
            return fail(id, NO_SESSION, params);
        }
        match params["do"].as_str().unwrap_or_default() {
            "late" | "stream" => {
                let (worker, id, params) = (Arc::clone(self), id.clone(), params.clone());
                thread::spawn(move || worker.take_time(&id, &params));
            }
            "notify" => {
                for i in 0..number("count") {
                    self.tell("note", params, i);
                }
                answer(id, &echo(params));
            }
            "ask" => self.ask(id, params),
            "fail" => fail(id, FAILURE, params),
            "garbage" => {
                write_line(b"no JSON\n\n{\"half\":\n\xff\xfe\n[1]\n{\"jsonrpc\":\"2.0\"}\n");
                answer(id, &echo(params));
            }
            "oversize" => {
                let mut result = echo(params);
                result["fill"] = json!("x".repeat(FRAME_MAX));
                answer(id, &result);
            }
            "exit" => process::exit(EXIT_STATUS),
            "half" => {
                write_line(format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"resu").as_bytes());
                process::exit(EXIT_STATUS);
            }
            "twice" => {
                answer(id, &echo(params));
                answer(id, &echo(params));
            }
            "stranger" => {
                write(&json!({"jsonrpc": "2.0", "id": "nobody's", "result": echo(params)}));
                answer(id, &echo(params));
            }
            "hold" => {}
            _ => answer(id, &echo(params)),
        }
    }

    /// What is answered later, perhaps after it has told of its progress.
    fn take_time(&self, id: &Value, params: &Value) {
        let pause = Duration::from_millis(params["ms"].as_u64().unwrap_or(0));
        let session = params["sessionId"].as_str().unwrap_or_default().to_owned();
        let cancelled = Arc::new(AtomicBool::new(false));
        if self.pool == Pool::Acp {
            lock(&self.turns).insert(session.clone(), Arc::clone(&cancelled));
        }
        let mut result = echo(params);
        if params["do"] == "late" {
            thread::sleep(pause);
        }
        for i in 0..params["chunks"].as_u64().unwrap_or(0) {
            if cancelled.load(Ordering::Relaxed) {
                break;
            }
            self.tell_progress(params, i);
            thread::sleep(pause);
        }
        if self.pool == Pool::Acp {
            let ended = cancelled.load(Ordering::Relaxed);
            result["stopReason"] = json!(if ended { "cancelled" } else { "end_turn" });
            lock(&self.turns).remove(&session);
        }
        answer(id, &result);
    }

    fn tell_progress(&self, params: &Value, i: u64) {
        let text = format!("{}:{i} ", params["n"]);
        if self.pool == Pool::Mcp {
            let token = &params["_meta"]["progressToken"];
            let params = json!({"progressToken": token, "progress": i, "message": text});
            let method = "notifications/progress";
            write(&json!({"jsonrpc": "2.0", "method": method, "params": params}));
            return;
        }
        let content = json!({"type": "text", "text": text});
        let update = json!({"sessionUpdate": "agent_message_chunk", "content": content});
        let params = json!({"sessionId": params["sessionId"], "update": update});
        write(&json!({"jsonrpc": "2.0", "method": "session/update", "params": params}));
    }

    /// A notification of the session.
    fn tell(&self, method: &str, params: &Value, i: u64) {
        let params =
            json!({"sessionId": params["sessionId"], "n": params["n"], "c": params["c"], "i": i});
        write(&json!({"jsonrpc": "2.0", "method": method, "params": params}));
    }

    /// Asks the client something before it answers.
    fn ask(&self, id: &Value, params: &Value) {
        let own = format!("ask {}", params["n"]);
        let waits = json!({"id": id, "params": params});
        lock(&self.asked).insert(own.clone(), waits);
        let asks = json!({"sessionId": params["sessionId"], "n": params["n"], "c": params["c"]});
        write(&json!({"jsonrpc": "2.0", "id": own, "method": "ask", "params": asks}));
    }

    fn asked_and_got(&self, message: &Value) {
        let own = message["id"].as_str().unwrap_or_default();
        if let Some(waits) = lock(&self.asked).remove(own) {
            let mut result = echo(&waits["params"]);
            let got = &message["result"]["n"];
            result["got"] = if got.is_null() {
                message["error"].clone()
            } else {
                got.clone()
            };
            answer(&waits["id"], &result);
        }
    }

    fn cancel(&self, params: &Value) {
        let session = params["sessionId"].as_str().unwrap_or_default();
        if let Some(turn) = lock(&self.turns).get(session) {
            turn.store(true, Ordering::Relaxed);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn hello(pool: Pool) -> Value {
    match pool {
        Pool::Acp => json!({"protocolVersion": 1, "agentCapabilities": {}}),
        _ => json!({
            "protocolVersion": "2025-06-18",
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "soak", "version": "1"},
        }),
    }
}

/// By what the one who asked knows its answer.
fn echo(params: &Value) -> Value {
    let mut result =
        json!({"n": params["n"], "c": params["c"], "s": params["s"], "q": params["q"]});
    if let Some(fill) = params.get("fill") {
        result["fill"] = fill.clone();
    }
    result
}

fn answer(id: &Value, result: &Value) {
    write(&json!({"jsonrpc": "2.0", "id": id, "result": result}));
}

fn fail(id: &Value, code: i64, params: &Value) {
    let error = json!({"code": code, "message": "as asked", "data": echo(params)});
    write(&json!({"jsonrpc": "2.0", "id": id, "error": error}));
}

fn write(message: &Value) {
    write_line(format!("{message}\n").as_bytes());
}

/// A write that fails has nobody to tell: the bus is gone, and the end of stdin comes next.
fn write_line(bytes: &[u8]) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(bytes).and_then(|()| out.flush());
}
