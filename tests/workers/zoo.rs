//! The zoo: a worker program that misbehaves on request.
//!
//! `zoo MODE [VALUE] [MODE [VALUE]]...` — each mode adds one quirk to an echo
//! worker, so modes combine:
//!
//! - `echo`: no quirk; answers each request with its own `params`, byte for byte
//! - `slow MS`: waits before each answer, one after the other
//! - `chatty`: writes 200 KB to stderr before the first answer
//! - `noeof`: its last answer has no newline, then it exits (the first answer, unless `exit-after`
//!   says otherwise)
//! - `garbage`: prints a line that is not JSON before each answer
//! - `bom`: starts its output with a UTF-8 byte order mark
//! - `crlf`: ends its lines with CR LF
//! - `huge N`: answers with a line of N bytes
//! - `deaf`: never reads stdin
//! - `mute`: closes stdout but lives
//! - `ignore-eof`: stays when stdin ends
//! - `ignore-term`: stays when stdin ends and when SIGTERM comes
//! - `exit CODE`: exits at once
//! - `exit-after N`: exits with 0 after N answers
//! - `exit-mid`: writes half of its first answer and exits
//! - `fork`: starts a grandchild that holds no pipes; echoes are `{"grandchild":PID,"params":…}`
//! - `flood N`: sends N notifications at once, beside its work
//! - `twice`: sends each answer twice
//! - `unknown-ids`: sends answers to ids that nobody asked before each answer
//! - `ask`: sends a request of its own with id 0 at start
//! - `report FILE`: appends `eof` and `term` to FILE as it sees them; exits when it has seen both,
//!   or 500 ms after the first
//!
//! Methods it understands (everything else is an echo):
//!
//! - `hold`: never answered
//! - `pid`, `cwd`, `args`, `fds` (open descriptors), `seen` (number of notifications read)
//! - `env` with `name`: the variable's value or null
//! - `error`: the JSON-RPC error -32050 with data `{"k":1}`
//! - `sleep` with `ms`: answered later, other requests are not held up
//! - `exit` with `code`: exits at once without an answer
//! - `notify` with `n`: n notifications `note` with `{"i":…,"sessionId":…}`, then the answer
//! - `ask`, perhaps with `sessionId`, or with `method`, `params` and `id`: sends a request `ask` with
//!   id 0, or that one, and answers with what it got
//! - `asks` with `n`: sends n requests at once, answers with the array of what they got
//! - `session/prompt` and `turn`, perhaps with `sessionId`: a turn of an ACP agent: sends `session/update`
//!   for each of `updates`, a text chunk for each of `texts`, and `n` chunks of `size` bytes, with
//!   pauses of `ms`; then `result`, or `{"stopReason":"end_turn"}`; not that with `hold`
//! - `progress` with `n`, `ms`, perhaps `sessionId`: n times MCP's progress, with pauses, then the answer;
//!   not that with `hold`
//! - `big` with `n`: a string of n bytes
//!
//! It needs nothing but the standard library. Modes that outlive their bus end by themselves after
//! two minutes, so that a failed test leaves nothing behind for long.

#[path = "zoo/json.rs"]
mod json;
#[path = "zoo/signals.rs"]
mod signals;

use std::fs::OpenOptions;
use std::io::{BufRead, Write};
use std::process::{Command, Stdio, exit};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

/// What the command line asked for.
#[derive(Default)]
struct Quirks {
    slow: Option<Duration>,
    chatty: bool,
    noeof: bool,
    garbage: bool,
    bom: bool,
    crlf: bool,
    huge: Option<usize>,
    deaf: bool,
    mute: bool,
    ignore_eof: bool,
    ignore_term: bool,
    exit_after: Option<usize>,
    exit_mid: bool,
    grandchild: Option<u32>,
    flood: usize,
    twice: bool,
    unknown_ids: bool,
    ask: bool,
    report: Option<String>,
}

impl Quirks {
    fn parse(mut args: impl Iterator<Item = String>) -> Quirks {
        let mut quirks = Quirks::default();
        while let Some(mode) = args.next() {
            let mut value = || {
                args.next()
                    .unwrap_or_else(|| usage(&format!("{mode} needs a value")))
            };
            match mode.as_str() {
                "echo" => {}
                "slow" => quirks.slow = Some(Duration::from_millis(number(&value()) as u64)),
                "chatty" => quirks.chatty = true,
                "noeof" => quirks.noeof = true,
                "garbage" => quirks.garbage = true,
                "bom" => quirks.bom = true,
                "crlf" => quirks.crlf = true,
                "huge" => quirks.huge = Some(number(&value())),
                "deaf" => quirks.deaf = true,
                "mute" => quirks.mute = true,
                "ignore-eof" => quirks.ignore_eof = true,
                "ignore-term" => quirks.ignore_term = true,
                "exit" => exit(number(&value()) as i32),
                "exit-after" => quirks.exit_after = Some(number(&value())),
                "exit-mid" => quirks.exit_mid = true,
                "fork" => quirks.grandchild = Some(start_grandchild()),
                "flood" => quirks.flood = number(&value()),
                "twice" => quirks.twice = true,
                "unknown-ids" => quirks.unknown_ids = true,
                "ask" => quirks.ask = true,
                "report" => quirks.report = Some(value()),
                "linger" => linger(), // the grandchild of `fork`
                _ => usage(&format!("unknown mode {mode}")),
            }
        }
        if quirks.noeof && quirks.exit_after.is_none() {
            quirks.exit_after = Some(1);
        }
        quirks
    }
}

fn usage(problem: &str) -> ! {
    eprintln!("zoo: {problem}; the modes are listed at the top of tests/workers/zoo.rs");
    exit(2);
}

fn number(text: &str) -> usize {
    text.parse()
        .unwrap_or_else(|_| usage(&format!("{text} is not a number")))
}

fn linger() -> ! {
    thread::sleep(Duration::from_secs(120));
    exit(3);
}

fn start_grandchild() -> u32 {
    let program = std::env::current_exe().expect("own path");
    Command::new(program)
        .arg("linger")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("grandchild starts")
        .id()
}

fn main() {
    let quirks = Quirks::parse(std::env::args().skip(1));
    if quirks.ignore_term {
        signals::ignore_term();
    }
    let report = quirks.report.clone().map(report_to);
    if quirks.mute {
        signals::close_stdout();
    }
    if quirks.deaf {
        linger();
    }
    let stays = quirks.ignore_eof || quirks.ignore_term;

    let worker = Arc::new(Worker {
        quirks,
        answered: Mutex::new(0),
        asked: Mutex::default(),
        asks: Mutex::default(),
        seen: AtomicUsize::new(0),
    });
    if worker.quirks.ask {
        worker.write(br#"{"jsonrpc":"2.0","id":0,"method":"ask"}"#);
    }
    if worker.quirks.flood > 0 {
        let flooder = worker.clone();
        thread::spawn(move || flooder.notify(flooder.quirks.flood, b"null"));
    }

    let mut input = std::io::stdin().lock();
    let mut line = Vec::new();
    while input.read_until(b'\n', &mut line).unwrap_or(0) > 0 {
        worker.handle(&line);
        line.clear();
    }

    if let Some(report) = report {
        report.send("eof").ok();
        linger(); // the reporting thread ends the process
    }
    if stays {
        linger();
    }
}

/// Starts the thread that writes what was seen to `path`; returns the way to tell it.
fn report_to(path: String) -> mpsc::Sender<&'static str> {
    signals::block_term(); // before any thread exists, so that all of them inherit it
    let (sender, events) = mpsc::channel();
    let on_term = sender.clone();
    thread::spawn(move || {
        signals::wait_for_term();
        on_term.send("term").ok();
    });
    thread::spawn(move || {
        let append = |event| {
            let mut file = OpenOptions::new()
                .create(true)
                .append(true)
                .open(&path)
                .expect("report file opens");
            writeln!(file, "{event}").expect("report is written");
        };
        append(events.recv().expect("a sender lives"));
        if let Ok(second) = events.recv_timeout(Duration::from_millis(500)) {
            append(second);
        }
        exit(0);
    });
    sender
}

/// Whom an answer goes to, as JSON tokens.
#[derive(Clone)]
struct Caller {
    id: Vec<u8>,
    session: Option<Vec<u8>>,
}

struct Worker {
    quirks: Quirks,
    /// Number of answers so far; held while an answer is written.
    answered: Mutex<usize>,
    /// Our own requests that wait, with who waits for them, oldest first.
    asked: Mutex<Vec<(Vec<u8>, Caller)>>,
    /// What `asks` has got so far, and how much it waits for.
    asks: Mutex<(Vec<Vec<u8>>, usize)>,
    /// Number of notifications read.
    seen: AtomicUsize,
}

impl Worker {
    fn handle(self: &Arc<Self>, line: &[u8]) {
        let Some(frame) = json::members(line) else {
            return;
        };
        let (Some(id), method) = (json::get(&frame, "id"), json::get(&frame, "method")) else {
            self.seen.fetch_add(1, Ordering::Relaxed);
            return;
        };
        let caller = Caller {
            id: id.to_vec(),
            session: json::get(&frame, "sessionId").map(<[u8]>::to_vec),
        };
        let Some(method) = method else {
            return self.asked_and_got(&frame);
        };
        let params = json::get(&frame, "params").unwrap_or(b"null");
        let param = |name| {
            json::members(params).and_then(|members| json::get(&members, name).map(<[u8]>::to_vec))
        };
        let param_number =
            |name| param(name).map_or(0, |token| number(&String::from_utf8_lossy(&token)));

        match method {
            b"\"hold\"" => {}
            b"\"pid\"" => self.answer(&caller, std::process::id().to_string().as_bytes()),
            b"\"cwd\"" => self.answer(
                &caller,
                &json::string(&std::env::current_dir().unwrap().to_string_lossy()),
            ),
            b"\"args\"" => {
                let args: Vec<_> = std::env::args()
                    .skip(1)
                    .map(|arg| json::string(&arg))
                    .collect();
                self.answer(
                    &caller,
                    &[b"[", args.join(&b","[..]).as_slice(), b"]"].concat(),
                );
            }
            b"\"fds\"" => {
                // less the one that lists them
                let open = std::fs::read_dir("/proc/self/fd").unwrap().count() - 1;
                self.answer(&caller, open.to_string().as_bytes());
            }
            b"\"seen\"" => self.answer(
                &caller,
                self.seen.load(Ordering::Relaxed).to_string().as_bytes(),
            ),
            b"\"env\"" => {
                let name = param("name").unwrap_or_default();
                let name = String::from_utf8_lossy(&name).trim_matches('"').to_owned();
                let value =
                    std::env::var(name).map_or(b"null".to_vec(), |value| json::string(&value));
                self.answer(&caller, &value);
            }
            b"\"error\"" => self.reply(
                &caller,
                "error",
                br#"{"code":-32050,"message":"zoo error","data":{"k":1}}"#,
            ),
            b"\"sleep\"" => {
                let (worker, pause) = (
                    self.clone(),
                    Duration::from_millis(param_number("ms") as u64),
                );
                let params = params.to_vec();
                thread::spawn(move || {
                    thread::sleep(pause);
                    worker.answer(&caller, &params);
                });
            }
            b"\"exit\"" => exit(param_number("code") as i32),
            b"\"notify\"" => {
                let session = param("sessionId")
                    .or(caller.session.clone())
                    .unwrap_or(b"null".to_vec());
                self.notify(param_number("n"), &session);
                self.answer(&caller, params);
            }
            b"\"ask\"" => self.ask(caller, params),
            b"\"asks\"" => {
                let n = param_number("n");
                *self.asks.lock().unwrap() = (Vec::new(), n);
                for i in 0..n {
                    let id = format!("\"asks {i}\"").into_bytes();
                    self.request(caller.clone(), id, b"\"ask\"", None);
                }
            }
            b"\"session/prompt\"" | b"\"turn\"" => {
                let (worker, params) = (self.clone(), params.to_vec());
                thread::spawn(move || worker.turn(&caller, &params));
            }
            b"\"progress\"" => {
                let (worker, params) = (self.clone(), params.to_vec());
                thread::spawn(move || worker.progress(&caller, &params));
            }
            b"\"big\"" => self.answer(&caller, &json::string(&"x".repeat(param_number("n")))),
            _ => match self.quirks.grandchild {
                Some(pid) => {
                    let start = format!("{{\"grandchild\":{pid},\"params\":");
                    self.answer(&caller, &[start.as_bytes(), params, b"}"].concat());
                }
                None => self.answer(&caller, params),
            },
        }
    }

    fn ask(&self, caller: Caller, params: &[u8]) {
        let given = json::members(params).unwrap_or_default();
        let id = json::get(&given, "id").unwrap_or(b"0").to_vec();
        let method = json::get(&given, "method").unwrap_or(b"\"ask\"");
        let session = json::get(&given, "sessionId")
            .map(|session| [b"{\"sessionId\":", session, b"}"].concat());
        let params = json::get(&given, "params").map(<[u8]>::to_vec).or(session);
        self.request(caller, id, method, params.as_deref());
    }

    fn request(&self, caller: Caller, id: Vec<u8>, method: &[u8], params: Option<&[u8]>) {
        let start = [
            b"{\"jsonrpc\":\"2.0\",\"id\":",
            id.as_slice(),
            b",\"method\":",
            method,
        ];
        let mut request = start.concat();
        if let Some(params) = params {
            request.extend_from_slice(&[b",\"params\":", params].concat());
        }
        request.push(b'}');
        self.asked.lock().unwrap().push((id, caller));
        self.write(&request);
    }

    /// An answer to a request of ours has come: passes on its result, or an object with its error.
    fn asked_and_got(&self, answer: &json::Members) {
        let id = json::get(answer, "id").unwrap_or_default();
        let mut asked = self.asked.lock().unwrap();
        // One whose id was spelled in another way finds nobody.
        let Some(at) = asked.iter().position(|(own, _)| own == id) else {
            return;
        };
        let (_, caller) = asked.remove(at);
        drop(asked);
        let got = match (json::get(answer, "result"), json::get(answer, "error")) {
            (Some(result), _) => result.to_vec(),
            (_, Some(error)) => [b"{\"error\":", error, b"}"].concat(),
            _ => return,
        };
        if !id.starts_with(b"\"asks ") {
            return self.answer(&caller, &got);
        }
        let mut asks = self.asks.lock().unwrap();
        asks.0.push(got);
        if asks.0.len() == asks.1 {
            let all = asks.0.join(&b","[..]);
            self.answer(&caller, &[b"[", all.as_slice(), b"]"].concat());
        }
    }

    /// A turn of an ACP agent.
    fn turn(&self, caller: &Caller, params: &[u8]) {
        let given = json::members(params).unwrap_or_default();
        let array = |name| json::get(&given, name).map_or(Vec::new(), json::elements);
        let amount = |name| {
            json::get(&given, name).map_or(0, |token| number(&String::from_utf8_lossy(token)))
        };
        let chunk = |text: &[u8]| {
            let kind: &[u8] = b"{\"sessionUpdate\":\"agent_message_chunk\",\"content\":";
            [kind, b"{\"type\":\"text\",\"text\":", text, b"}}"].concat()
        };
        let filler = json::string(&"x".repeat(amount("size")));
        let updates = array("updates").into_iter().map(<[u8]>::to_vec);
        let texts = array("texts").into_iter().map(chunk);
        let fillers = (0..amount("n")).map(|_| chunk(&filler));

        let session = json::get(&given, "sessionId").or(caller.session.as_deref());
        let pause = Duration::from_millis(amount("ms") as u64);
        for update in updates.chain(texts).chain(fillers) {
            let start =
                b"{\"jsonrpc\":\"2.0\",\"method\":\"session/update\",\"params\":{\"sessionId\":";
            let session = session.unwrap_or(b"null");
            self.write(&[start, session, b",\"update\":", &update, b"}}"].concat());
            thread::sleep(pause);
        }
        if json::get(&given, "hold").is_none() {
            let usual: &[u8] = b"{\"stopReason\":\"end_turn\"}";
            self.answer(caller, json::get(&given, "result").unwrap_or(usual));
        }
    }

    /// Work that takes its time and says so.
    fn progress(&self, caller: &Caller, params: &[u8]) {
        let given = json::members(params).unwrap_or_default();
        let amount = |name| {
            json::get(&given, name).map_or(0, |token| number(&String::from_utf8_lossy(token)))
        };
        let session = json::get(&given, "sessionId").or(caller.session.as_deref());
        let session = String::from_utf8_lossy(session.unwrap_or(b"null")).into_owned();
        let token = json::get(&given, "_meta")
            .and_then(json::members)
            .and_then(|meta| json::get(&meta, "progressToken").map(<[u8]>::to_vec));
        let token = String::from_utf8_lossy(token.as_deref().unwrap_or(b"0")).into_owned();
        for i in 0..amount("n") {
            thread::sleep(Duration::from_millis(amount("ms") as u64));
            let params =
                format!("{{\"progressToken\":{token},\"progress\":{i},\"sessionId\":{session}}}");
            let method = "\"method\":\"notifications/progress\"";
            self.write(format!("{{\"jsonrpc\":\"2.0\",{method},\"params\":{params}}}").as_bytes());
        }
        if json::get(&given, "hold").is_none() {
            self.answer(caller, params);
        }
    }

    fn notify(&self, n: usize, session: &[u8]) {
        let session = String::from_utf8_lossy(session);
        for i in 0..n {
            let params = format!("{{\"i\":{i},\"sessionId\":{session}}}");
            self.write(
                format!("{{\"jsonrpc\":\"2.0\",\"method\":\"note\",\"params\":{params}}}")
                    .as_bytes(),
            );
        }
    }

    fn answer(&self, caller: &Caller, result: &[u8]) {
        self.reply(caller, "result", result);
    }

    /// Sends one answer, with every quirk that concerns answers.
    fn reply(&self, caller: &Caller, member: &str, value: &[u8]) {
        let quirks = &self.quirks;
        let mut answered = self.answered.lock().unwrap();
        if let Some(pause) = quirks.slow {
            thread::sleep(pause);
        }
        if quirks.chatty && *answered == 0 {
            for i in 0..2000 {
                eprintln!(
                    "{i:05} {}",
                    "a chatty worker writes to stderr "
                        .repeat(3)
                        .get(..93)
                        .unwrap()
                );
            }
        }
        if quirks.garbage {
            self.write(b"this line is not JSON");
        }
        if quirks.unknown_ids {
            self.write(br#"{"jsonrpc":"2.0","id":424242,"result":"nobody asked"}"#);
            self.write(
                br#"{"jsonrpc":"2.0","id":"nobody","error":{"code":1,"message":"nobody asked"}}"#,
            );
        }

        let mut line = [b"{\"jsonrpc\":\"2.0\",\"id\":", caller.id.as_slice()].concat();
        if let Some(session) = &caller.session {
            line.extend_from_slice(&[b",\"sessionId\":", session.as_slice()].concat());
        }
        line.extend_from_slice(format!(",\"{member}\":").as_bytes());
        match quirks.huge {
            Some(size) => {
                let filler = size.saturating_sub(line.len() + 3); // two quotes and a bracket
                line.extend_from_slice(&json::string(&"x".repeat(filler)));
            }
            None => line.extend_from_slice(value),
        }
        line.push(b'}');

        if quirks.exit_mid {
            write_bytes(&line[..line.len() / 2]);
            exit(0);
        }
        *answered += 1;
        let last = quirks.exit_after == Some(*answered);
        if last && quirks.noeof {
            write_bytes(&line);
            exit(0);
        }
        for _ in 0..if quirks.twice { 2 } else { 1 } {
            self.write(&line);
        }
        if last {
            exit(0);
        }
    }

    /// Writes one line of any kind.
    fn write(&self, line: &[u8]) {
        static WRITTEN: AtomicUsize = AtomicUsize::new(0);
        let first = WRITTEN.fetch_add(1, Ordering::Relaxed) == 0;
        let start: &[u8] = if first && self.quirks.bom {
            b"\xEF\xBB\xBF"
        } else {
            b""
        };
        let end: &[u8] = if self.quirks.crlf { b"\r\n" } else { b"\n" };
        write_bytes(&[start, line, end].concat());
    }
}

/// A write that fails has nobody to tell: the bus is gone, or stdout was closed on purpose.
fn write_bytes(bytes: &[u8]) {
    let mut out = std::io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).ok();
}
