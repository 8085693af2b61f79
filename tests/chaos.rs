//! Clients that come and go, cancel and answer at random, and workers that are killed meanwhile: each
//! request ends exactly once, with its own answer or an error of the bus, and nobody gets what is
//! another's.

mod common;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use common::peer::*;
use common::{Client, Program, alone, runs};
use serde_json::{Value, json};

const ROUNDS: u64 = 150;
const CLIENTS: u64 = 6;
const KILLS_PER_WORKER: usize = 2; // after more the bus lets minutes pass between restarts
const SOON: Duration = Duration::from_secs(20);

/// Repeatable chance.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

/// What a client waits for: the name that its answer has to have, and whether none may come.
struct Waiting {
    name: String,
    cancelled: bool,
}

/// Where clients connect.
struct Ways {
    unix: String,
    tcp: String,
}

/// One client with its present connection.
struct Actor<'a> {
    ways: &'a Ways,
    protocol: &'static str,
    number: u64,
    dice: Dice,
    client: Client,
    connection: u64,
    next_id: u64,
    waiting: HashMap<u64, Waiting>,
    sessions: Vec<String>,
    answered: usize,
    failed: usize,
}

impl<'a> Actor<'a> {
    fn new(ways: &'a Ways, protocol: &'static str, number: u64, seed: u64) -> Actor<'a> {
        let mut actor = Actor {
            ways,
            protocol,
            number,
            dice: Dice(seed.wrapping_mul(977).wrapping_add(number)),
            client: Client::unix(&ways.unix),
            connection: 0,
            next_id: 0,
            waiting: HashMap::new(),
            sessions: Vec::new(),
            answered: 0,
            failed: 0,
        };
        actor.begin();
        actor
    }

    /// What this connection's messages are marked with.
    fn mark(&self) -> String {
        format!("{}/{}", self.number, self.connection)
    }

    fn send(&mut self, message: Value) {
        self.client.send(&message.to_string());
    }

    fn request(&mut self, method: &str, params: impl FnOnce(&str) -> Value) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        let name = format!("{}/{id}", self.mark());
        let params = params(&name);
        self.send(json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}));
        let cancelled = false;
        self.waiting.insert(id, Waiting { name, cancelled });
        id
    }

    fn begin(&mut self) {
        let hello = match self.protocol {
            "mcp" => mcp_initialize("chaos", json!({"sampling": {}})),
            _ => json!({"protocolVersion": 1, "clientCapabilities": {}}),
        };
        self.request("initialize", |_| hello);
        if self.protocol == "mcp" {
            self.send(json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
        } else {
            self.request("session/new", |_| json!({"cwd": "/", "mcpServers": []}));
        }
    }

    /// Leaves, with whatever is pending, and comes back as another client.
    fn reconnect(&mut self) {
        self.connection += 1;
        self.client = match self.dice.roll(2) {
            0 => Client::unix(&self.ways.unix),
            _ => Client::tcp(&self.ways.tcp),
        };
        (self.next_id, self.waiting, self.sessions) = (0, HashMap::new(), Vec::new());
        self.begin();
    }

    fn act(&mut self) {
        match self.dice.roll(40) {
            0 => self.reconnect(),
            1..=3 if self.protocol == "acp" => {
                self.request("session/new", |_| json!({"cwd": "/", "mcpServers": []}));
            }
            4..=8 => self.cancel(),
            _ => self.work(),
        }
    }

    /// A request during which its worker says and asks something.
    fn work(&mut self) {
        let asks = self.dice.roll(3) == 0;
        if self.protocol == "mcp" {
            self.request("tools/call", |name| {
                let note = json!({"jsonrpc": "2.0", "method": "notifications/progress",
                    "params": {"progressToken": "TOKEN", "for": name}});
                let ask = json!({"jsonrpc": "2.0", "id": name, "method": "sampling/createMessage",
                    "params": {"for": name}});
                let mut params = play(steps(name, &note, asks.then_some(&ask)));
                params["_meta"] = json!({"progressToken": 0});
                params
            });
            return;
        }
        let Some(session) = self.some_session() else {
            return;
        };
        self.request("session/prompt", |name| {
            let note = json!({"jsonrpc": "2.0", "method": "session/update",
                "params": {"sessionId": session, "for": name}});
            let ask = json!({"jsonrpc": "2.0", "id": name, "method": "session/request_permission",
                "params": {"sessionId": session, "for": name}});
            json!({"sessionId": session, "play": steps(name, &note, asks.then_some(&ask))})
        });
    }

    fn some_session(&mut self) -> Option<String> {
        let count = self.sessions.len() as u64;
        (count > 0).then(|| self.sessions[self.dice.roll(count) as usize].clone())
    }

    /// Cancels something that is pending, or not any more.
    fn cancel(&mut self) {
        if self.protocol == "acp" {
            if let Some(session) = self.some_session() {
                let params = json!({"sessionId": session});
                self.send(json!({"jsonrpc": "2.0", "method": "session/cancel", "params": params}));
            }
            return;
        }
        let id = self.dice.roll(self.next_id);
        if let Some(waiting) = self.waiting.get_mut(&id) {
            if waiting.name.ends_with("/0") {
                return; // never the handshake
            }
            waiting.cancelled = true;
        }
        let params = json!({"requestId": id});
        self.send(json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params}));
    }

    fn take(&mut self, line: &str) {
        let message: Value = serde_json::from_str(line).expect("JSON");
        let own = |name: &Value| {
            name.as_str()
                .is_some_and(|name| name.starts_with(&format!("{}/", self.mark())))
        };
        let whose = &message["params"]["for"];
        if message["method"].is_string() {
            let known = matches!(
                message["method"].as_str(),
                Some("$/cancel_request" | "notifications/cancelled")
            );
            assert!(
                known || own(whose),
                "client {} got another's: {line}",
                self.mark()
            );
            if message.get("id").is_some() && self.dice.roll(4) > 0 {
                let result = json!({"said": whose});
                self.send(json!({"jsonrpc": "2.0", "id": message["id"], "result": result}));
            } else if message.get("id").is_some() {
                let error = json!({"code": -32000, "message": "no"});
                self.send(json!({"jsonrpc": "2.0", "id": message["id"], "error": error}));
            }
            return;
        }
        let id = message["id"]
            .as_u64()
            .unwrap_or_else(|| panic!("an id that is not ours: {line}"));
        let waiting = self.waiting.remove(&id);
        let waiting = waiting.unwrap_or_else(|| panic!("{}: nobody waits for {line}", self.mark()));
        if let Some(result) = message.get("result") {
            self.answered += 1;
            if let Some(session) = result["sessionId"].as_str() {
                self.sessions.push(session.to_owned());
            }
            let name = &result["name"];
            assert!(
                name.is_null() || *name == waiting.name,
                "{} got {line}",
                waiting.name
            );
            let said = &result["said"]["said"];
            assert!(
                said.is_null() || *said == waiting.name,
                "{} got {line}",
                waiting.name
            );
            return;
        }
        self.failed += 1;
        let code = message["error"]["code"].as_i64();
        assert!(
            matches!(code, Some(-32011 | -32012)),
            "an error of nobody's: {line}"
        );
    }

    fn is_waiting(&self) -> bool {
        self.waiting.values().any(|waiting| !waiting.cancelled)
    }

    fn play(mut self) -> (usize, usize) {
        for _ in 0..ROUNDS {
            self.act();
            let pause = if self.waiting.len() > 20 {
                50
            } else {
                self.dice.roll(8)
            };
            while let Ok(line) = self.client.line(Duration::from_millis(pause)) {
                self.take(&line);
                if self.waiting.len() < 10 {
                    break;
                }
            }
        }
        while self.is_waiting() {
            match self.client.line(SOON) {
                Ok(line) => self.take(&line),
                Err(reason) => {
                    let open: Vec<_> = self
                        .waiting
                        .values()
                        .filter(|w| !w.cancelled)
                        .map(|w| &w.name)
                        .collect();
                    panic!("{}: never ended: {open:?}: {reason}", self.mark());
                }
            }
        }
        (self.answered, self.failed)
    }
}

/// Says something, perhaps asks something, and answers.
fn steps(name: &str, note: &Value, ask: Option<&Value>) -> Value {
    let note = note.to_string().replace("\"TOKEN\"", "$TOKEN");
    let result = |said: &str| answers(&format!(r#"{{"name":"{name}","said":{said}}}"#));
    match ask {
        Some(ask) => {
            let event = format!("answer {}", json!(name));
            json!([
                note,
                ask.to_string(),
                on(&event, json!([note, result("$GOT")]))
            ])
        }
        None => json!([note, note, result("null")]),
    }
}

/// Kills workers one after the other while there are clients.
fn kill_workers(log: &Log, workers: usize, done: &AtomicBool, mut dice: Dice) {
    let mut kills = 0;
    while !done.load(Ordering::Relaxed) && kills < workers * KILLS_PER_WORKER {
        thread::sleep(Duration::from_millis(40 + dice.roll(80)));
        let alive: Vec<_> = log.pids().into_iter().filter(|pid| runs(*pid)).collect();
        if !alive.is_empty() {
            kill_now(alive[dice.roll(alive.len() as u64) as usize]);
            kills += 1;
        }
    }
}

fn chaos(protocol: &'static str) {
    const WORKERS: usize = 3;
    for seed in 1..=3 {
        let log = Log::new();
        let pool = puppet_pool("p", protocol, WORKERS, &log, &[]);
        let limits = json!({"max_restarts": 1000});
        let config = json!({"pools": [pool], "limits": limits}).to_string();
        let bus = Program::start(&config, UNIX_AND_TCP);
        let ways = Ways {
            unix: bus.unix_paths().remove(0),
            tcp: bus.tcp_addresses().remove(0),
        };
        let done = AtomicBool::new(false);
        let (answered, failed) = thread::scope(|scope| {
            let clients: Vec<_> = (0..CLIENTS)
                .map(|n| {
                    scope.spawn({
                        let ways = &ways;
                        move || Actor::new(ways, protocol, n, seed).play()
                    })
                })
                .collect();
            scope.spawn(|| kill_workers(&log, WORKERS, &done, Dice(seed)));
            let ends: Vec<_> = clients
                .into_iter()
                .map(thread::ScopedJoinHandle::join)
                .collect();
            done.store(true, Ordering::Relaxed);
            ends.into_iter()
                .map(|end| end.unwrap_or_else(|_| panic!("a client failed with seed {seed}")))
                .fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
        });
        eprintln!("{protocol}, seed {seed}: {answered} answers, {failed} errors");
        assert!(
            answered > 100,
            "seed {seed}: only {answered} answers and {failed} errors"
        );
    }
}

#[test]
fn every_request_of_mcp_clients_ends_once_and_with_its_own_whatever_dies() {
    alone(|| chaos("mcp"));
}

#[test]
fn every_request_of_acp_clients_ends_once_and_with_its_own_whatever_dies() {
    alone(|| chaos("acp"));
}
