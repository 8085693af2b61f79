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
//! - `ask`, perhaps with `sessionId`: sends a request `ask` with id 0, answers with what that got
//! - `big` with `n`: a string of n bytes
//!
//! It needs nothing but the standard library. Modes that outlive their bus end by themselves after
//! two minutes, so that a failed test leaves nothing behind for long.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, Write};
use std::os::fd::AsRawFd;
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
    /// Who waits for the answer to a request with id 0, oldest first.
    asked: Mutex<VecDeque<Caller>>,
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
            b"\"ask\"" => {
                let mut request = br#"{"jsonrpc":"2.0","id":0,"method":"ask""#.to_vec();
                if let Some(session) = param("sessionId") {
                    request.extend_from_slice(
                        &[b",\"params\":{\"sessionId\":", session.as_slice(), b"}"].concat(),
                    );
                }
                request.push(b'}');
                self.asked.lock().unwrap().push_back(caller);
                self.write(&request);
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

    /// An answer to a request of ours has come: passes on its result, or an object with its error.
    fn asked_and_got(&self, answer: &json::Members) {
        let Some(caller) = self.asked.lock().unwrap().pop_front() else {
            return;
        };
        match (json::get(answer, "result"), json::get(answer, "error")) {
            (Some(result), _) => self.answer(&caller, result),
            (_, Some(error)) => self.answer(&caller, &[b"{\"error\":", error, b"}"].concat()),
            _ => {}
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

/// As much JSON as an echo needs: the members of one object as raw tokens.
mod json {
    pub type Members<'a> = Vec<(&'a [u8], &'a [u8])>;

    /// The members of the object in `text`: names without their quotes, values as they are written.
    pub fn members(text: &[u8]) -> Option<Members<'_>> {
        let mut members = Vec::new();
        let mut at = blanks(text, 0);
        if text.get(at) != Some(&b'{') {
            return None;
        }
        at = blanks(text, at + 1);
        while *text.get(at)? == b'"' {
            let name_end = string_end(text, at)?;
            let name = &text[at + 1..name_end - 1];
            at = blanks(text, name_end);
            if *text.get(at)? != b':' {
                return None;
            }
            at = blanks(text, at + 1);
            let value_end = value_end(text, at)?;
            members.push((name, &text[at..value_end]));
            at = blanks(text, value_end);
            if *text.get(at)? == b',' {
                at = blanks(text, at + 1);
            }
        }
        (text[at] == b'}').then_some(members)
    }

    pub fn get<'a>(members: &Members<'a>, name: &str) -> Option<&'a [u8]> {
        members
            .iter()
            .find(|(key, _)| *key == name.as_bytes())
            .map(|(_, value)| *value)
    }

    /// `text` as a JSON string token.
    pub fn string(text: &str) -> Vec<u8> {
        let mut token = String::with_capacity(text.len() + 2);
        token.push('"');
        for c in text.chars() {
            match c {
                '"' | '\\' => token.extend(['\\', c]),
                c if c < ' ' => token.push_str(&format!("\\u{:04x}", c as u32)),
                c => token.push(c),
            }
        }
        token.push('"');
        token.into_bytes()
    }

    fn blanks(text: &[u8], mut at: usize) -> usize {
        while text.get(at).is_some_and(u8::is_ascii_whitespace) {
            at += 1;
        }
        at
    }

    /// The position after the string that starts at `at`.
    fn string_end(text: &[u8], mut at: usize) -> Option<usize> {
        at += 1;
        loop {
            at += text
                .get(at..)?
                .iter()
                .position(|c| matches!(c, b'"' | b'\\'))?;
            if text[at] == b'"' {
                return Some(at + 1);
            }
            at += 2;
        }
    }

    /// The position after the value that starts at `at`.
    fn value_end(text: &[u8], mut at: usize) -> Option<usize> {
        let mut depth = 0;
        loop {
            match *text.get(at)? {
                b'"' => at = string_end(text, at)?,
                b'{' | b'[' => (depth, at) = (depth + 1, at + 1),
                b'}' | b']' => (depth, at) = (depth - 1, at + 1),
                _ if depth > 0 => at += 1,
                _ => {
                    let ends = |c: &u8| c.is_ascii_whitespace() || b",}]".contains(c);
                    return Some(at + text[at..].iter().position(ends)?);
                }
            }
            if depth == 0 {
                return Some(at);
            }
        }
    }
}

/// The three things about signals and descriptors that the standard library doesn't offer.
mod signals {
    use super::{AsRawFd, File};

    const SIGTERM: i32 = 15;
    const SIG_BLOCK: i32 = 0;
    const SIG_IGN: usize = 1;

    #[repr(C)]
    struct SignalSet([u64; 16]);

    unsafe extern "C" {
        fn signal(signum: i32, handler: usize) -> usize;
        fn sigemptyset(set: *mut SignalSet) -> i32;
        fn sigaddset(set: *mut SignalSet, signum: i32) -> i32;
        fn pthread_sigmask(how: i32, set: *const SignalSet, old: *mut SignalSet) -> i32;
        fn sigwait(set: *const SignalSet, signum: *mut i32) -> i32;
        fn dup2(old: i32, new: i32) -> i32;
    }

    pub fn ignore_term() {
        // SAFETY: SIG_IGN runs no code of ours.
        unsafe { signal(SIGTERM, SIG_IGN) };
    }

    fn term() -> SignalSet {
        let mut set = SignalSet([0; 16]);
        // SAFETY: `set` is as large as the platform's sigset_t and lives through the call.
        unsafe { sigemptyset(&mut set) };
        // SAFETY: as above.
        unsafe { sigaddset(&mut set, SIGTERM) };
        set
    }

    pub fn block_term() {
        // SAFETY: the set is initialised; the old mask is not asked for.
        unsafe { pthread_sigmask(SIG_BLOCK, &term(), std::ptr::null_mut()) };
    }

    pub fn wait_for_term() {
        let mut signum = 0;
        // SAFETY: both pointers are to live values.
        unsafe { sigwait(&term(), &mut signum) };
    }

    /// Closes the pipe behind stdout; descriptor 1 stays taken, so that no file gets it.
    pub fn close_stdout() {
        let null = File::options()
            .write(true)
            .open("/dev/null")
            .expect("/dev/null opens");
        // SAFETY: both descriptors are open; nothing owns descriptor 1 but the standard library's
        // handle, which keeps writing to it.
        unsafe { dup2(null.as_raw_fd(), 1) };
    }
}
