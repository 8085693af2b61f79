//! `stdio_bus top`: on a terminal, in tmux, and as text.

mod common;

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::{
    BOUND, Client, Program, TempDir, alone, exists, has_program, program, signal, wait_until, zoo,
};
use serde_json::json;

/// Pools `tools` with two workers and `agents` with one.
fn config() -> String {
    let pool = |id: &str, instances| json!({"id": id, "command": zoo(), "args": ["echo"], "instances": instances});
    json!({"pools": [pool("tools", 2), pool("agents", 1)], "default_pool": "tools"}).to_string()
}

const ARGS: &[&str] = &["--unix", "{dir}/bus.sock", "--admin", "{dir}/admin.sock"];

fn top(admin: &Path, more: &[&str]) -> Output {
    Command::new(program())
        .args(["top", "--admin"])
        .arg(admin)
        .args(more)
        .stdin(Stdio::null())
        .output()
        .expect("it starts")
}

fn once(bus: &Program) -> String {
    let output = top(&bus.path("admin.sock"), &["--once", "--interval", "0.2"]);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{errors}");
    assert_eq!(errors, "");
    String::from_utf8(output.stdout).expect("text")
}

/// The cells of the line that begins with these.
fn row<'a>(page: &'a str, beginning: &[&str]) -> Vec<&'a str> {
    let rows = page.lines().map(|line| line.split_whitespace().collect());
    let mut rows = rows.filter(|cells: &Vec<&str>| cells.starts_with(beginning));
    rows.next()
        .unwrap_or_else(|| panic!("no {beginning:?} in\n{page}"))
}

/// Requests on end while `during` runs.
fn under_load<T>(bus: &Program, during: impl FnOnce() -> T) -> T {
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let mut client = bus.unix_client();
        let ended = &ended;
        scope.spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                client.ask(r#"{"jsonrpc":"2.0","id":1,"method":"echo","pool":"tools"}"#);
            }
        });
        let result = during();
        ended.store(true, Ordering::Relaxed);
        result
    })
}

#[test]
fn once_prints_rates_pools_and_workers_of_a_bus_under_load() {
    alone(|| {
        let mut bus = Program::start(&config(), ARGS);
        let page = under_load(&bus, || once(&bus));
        let first = page.lines().next().expect("lines");
        let pid = bus.pid();
        let version = env!("CARGO_PKG_VERSION");
        assert!(
            first.starts_with(&format!("stdio_bus {version}  pid {pid}  RUNNING  up ")),
            "{page}"
        );
        let listener = bus.path("bus.sock");
        let listening = format!("clients 1  listening on unix {}", listener.display());
        assert!(page.contains(&listening), "{page}");
        assert!(!page.contains("lost:"), "{page}");
        // POOL READY PENDING QUEUED SESSIONS REQ/S P50 P99 RESTARTS
        let tools = row(&page, &["tools"]);
        assert_eq!((tools.len(), tools[1]), (9, "2/2"), "{page}");
        assert_ne!(tools[5], "0", "{page}");
        assert!(
            tools[6].ends_with("us") || tools[6].ends_with("ms"),
            "{page}"
        );
        let agents = row(&page, &["agents"]);
        assert_eq!(agents, ["agents", "1/1", "0", "0", "0", "0", "-", "-", "0"]);
        for (worker, pool) in [("0", "tools"), ("1", "tools"), ("2", "agents")] {
            let cells = row(&page, &[worker, pool]);
            let pid: u32 = cells[2].parse().expect("a pid");
            assert!(exists(pid) && cells[3] == "ready", "{page}");
        }
        signal(bus.pid(), "TERM");
        assert_eq!(bus.wait().code(), Some(0));
    });
}

#[test]
fn once_tells_of_a_worker_that_was_started_again_and_of_what_was_refused() {
    alone(|| {
        let mut bus = Program::start(&config(), ARGS);
        let mut client = bus.unix_client();
        let pid = row(&once(&bus), &["2", "agents"])[2]
            .parse()
            .expect("a pid");
        signal(pid, "KILL");
        bus.wait_for_log("worker 2 (agents) started, pid");
        wait_until("the worker is back", BOUND, || {
            row(&once(&bus), &["agents"])[1] == "1/1"
                && row(&once(&bus), &["2", "agents"])[5] == "1"
        });
        client.send("no JSON");
        client.receive();
        let page = once(&bus);
        assert_eq!(row(&page, &["agents"])[8], "1", "{page}");
        assert!(page.contains("\nlost: parse errors 1\n"), "{page}");
    });
}

#[test]
fn without_a_bus_or_a_terminal_it_says_so_and_exits_with_1() {
    alone(|| {
        let dir = TempDir::new();
        let nowhere = dir.path("nowhere.sock");
        let output = top(&nowhere, &["--once"]);
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1));
        assert!(errors.contains("nowhere.sock"), "{errors}");

        let output = top(&nowhere, &[]);
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1));
        assert!(errors.contains("--once"), "{errors}");
        assert!(output.stdout.is_empty());

        for bad in ["0", "x", "-1"] {
            let output = top(&nowhere, &["--once", "--interval", bad]);
            assert_eq!(output.status.code(), Some(1), "{bad}");
        }
    });
}

#[test]
fn a_socket_of_something_else_is_said_to_be_no_admin_socket() {
    alone(|| {
        let bus = Program::start(&config(), ARGS);
        // It echoes the params.
        let output = top(&bus.path("bus.sock"), &["--once", "--interval", "0.1"]);
        let page = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{page}{errors}");
        assert!(errors.contains("no snapshot of a bus"), "{errors}");
    });
}

// ---- the stderr of workers ---------------------------------------------------------------------

/// Workers that write a line to stderr for each that they read.
fn talking(pools: &[(&str, Option<&str>)]) -> String {
    let script = r#"while read -r line; do echo "$0 heard" >&2; echo '{"id":1,"result":0}'; done"#;
    let pools = pools.iter().map(|(id, stderr)| {
        let mut pool = json!({"id": id, "command": "sh", "args": ["-c", script, id]});
        if let Some(stderr) = stderr {
            pool["stderr"] = (*stderr).into();
        }
        pool
    });
    json!({"pools": pools.collect::<Vec<_>>()}).to_string()
}

fn ask_of(client: &mut Client, pool: &str) {
    let request = json!({"id": 1, "method": "m", "pool": pool});
    client.ask(&request.to_string());
}

/// The end of each worker's stderr, as the admin socket tells it.
fn tails(bus: &Program) -> Vec<serde_json::Value> {
    let mut admin = Client::unix(bus.path("admin.sock"));
    admin.send(r#"{"jsonrpc":"2.0","id":1,"method":"snapshot","params":{"stderr":10}}"#);
    let answer = admin.receive_json();
    let workers = answer["result"]["workers"].as_array().expect("workers");
    workers.iter().map(|w| w["stderr"].clone()).collect()
}

#[test]
fn with_admin_what_workers_write_to_stderr_is_still_there_and_can_be_looked_at() {
    alone(|| {
        let pools = [("unsaid", None), ("kept", Some("log"))];
        let mut bus = Program::start(&talking(&pools), ARGS);
        let mut client = bus.unix_client();
        for pool in ["kept", "unsaid"] {
            ask_of(&mut client, pool);
        }
        // As it came: nothing before it.
        bus.wait_for_log("unsaid heard");
        let log = bus.log();
        assert!(log.iter().any(|line| line == "unsaid heard"), "{log:?}");
        // That pool's is the log's affair, at debug.
        assert!(
            !log.iter().any(|line| line.contains("kept heard")),
            "{log:?}"
        );
        wait_until("both can be seen", BOUND, || {
            tails(&bus) == [json!(["unsaid heard"]), json!(["kept heard"])]
        });
    });
}

#[test]
fn only_the_stderr_that_is_asked_for_is_told() {
    alone(|| {
        let bus = Program::start(&talking(&[("a", None), ("b", None)]), ARGS);
        let mut client = bus.unix_client();
        for pool in ["a", "b"] {
            ask_of(&mut client, pool);
        }
        wait_until("both have said something", BOUND, || {
            tails(&bus) == [json!(["a heard"]), json!(["b heard"])]
        });
        let mut admin = Client::unix(bus.path("admin.sock"));
        let mut ask = |params: serde_json::Value| {
            let request =
                json!({"jsonrpc": "2.0", "id": 1, "method": "snapshot", "params": params});
            admin.send(&request.to_string());
            let workers = admin.receive_json()["result"]["workers"].clone();
            (workers[0]["stderr"].clone(), workers[1]["stderr"].clone())
        };
        let one = ask(json!({"stderr": 5, "worker": 1}));
        assert_eq!(one, (json!([]), json!(["b heard"])));
        assert_eq!(ask(json!({"worker": 1})), (json!([]), json!([])));
    });
}

#[test]
fn workers_whose_stderr_nobody_reads_stop_neither_the_bus_nor_the_admin_socket() {
    alone(|| {
        let dir = TempDir::new();
        let path = |name: &str| dir.path(name).to_str().expect("text").to_owned();
        // 1 MB for each message: more than a pipe and what may wait for it.
        let script = r#"while read -r line; do yes "noise noise noise" | head -c 1000000 >&2; echo '{"id":1,"result":0}'; done"#;
        let pool = json!({"id": "p", "command": "sh", "args": ["-c", script]});
        fs::write(path("config.json"), json!({"pools": [pool]}).to_string()).expect("written");
        let mut bus = Command::new(program())
            .args([
                "--config",
                &path("config.json"),
                "--unix",
                &path("bus.sock"),
            ])
            .args(["--admin", &path("admin.sock")])
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("started");
        let is_there =
            || Path::new(&path("admin.sock")).exists() && Path::new(&path("bus.sock")).exists();
        wait_until("it serves", BOUND, is_there);
        let mut client = Client::unix(path("bus.sock"));
        for _ in 0..3 {
            ask_of(&mut client, "p");
        }
        let output = top(&dir.path("admin.sock"), &["--once", "--interval", "0.1"]);
        assert_eq!(output.status.code(), Some(0));
        signal(bus.id(), "TERM");
        let start = Instant::now();
        while bus.try_wait().expect("a child").is_none() {
            assert!(start.elapsed() < BOUND, "SIGTERM has no effect");
            std::thread::sleep(Duration::from_millis(5));
        }
    });
}

// ---- on a terminal -----------------------------------------------------------------------------

/// A terminal with a shell in it, of a tmux server of its own.
struct Terminal {
    socket: String,
}

/// What the shell is ready with.
const PROMPT: &str = "prompt>";

impl Terminal {
    fn open(dir: &TempDir, width: u32, height: u32) -> Self {
        let socket = dir.path("tmux").to_str().expect("text").to_owned();
        let terminal = Self { socket };
        let size = (width.to_string(), height.to_string());
        let shell = format!("env PS1='{PROMPT} ' TERM=screen-256color sh");
        terminal.tmux(&[
            "new-session",
            "-d",
            "-s",
            "top",
            "-x",
            &size.0,
            "-y",
            &size.1,
            &shell,
        ]);
        terminal.wait_for("the shell", |page| page.contains(PROMPT));
        terminal
    }

    fn tmux(&self, args: &[&str]) -> String {
        let output = Command::new("tmux")
            .args(["-f", "/dev/null", "-S", &self.socket])
            .args(args)
            .output()
            .expect("tmux runs");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {errors}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn types(&self, text: &str) {
        self.tmux(&["send-keys", "-t", "top", "-l", text]);
    }

    fn presses(&self, key: &str) {
        self.tmux(&["send-keys", "-t", "top", key]);
    }

    fn page(&self) -> String {
        self.tmux(&["capture-pane", "-p", "-t", "top"])
    }

    /// The first page that is as it should be.
    #[track_caller]
    fn wait_for(&self, what: &str, is_it: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + BOUND;
        loop {
            let page = self.page();
            if is_it(&page) {
                return page;
            }
            assert!(Instant::now() < deadline, "not in time: {what}:\n{page}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Runs `stdio_bus top`; the shell says how that ended.
    fn starts_top(&self, admin: &Path) {
        let (program, admin) = (program().display(), admin.display());
        self.types(&format!(
            "clear; {program} top --admin {admin} --interval 0.2; echo ended: $?\n"
        ));
    }

    /// That it echoes, breaks lines and shows its cursor on the screen it had before.
    #[track_caller]
    fn is_as_it_was(&self) {
        self.wait_for("the shell is back", |page| {
            page.trim_end().ends_with(PROMPT)
        });
        self.types("stty -a; echo s''ane\n");
        let page = self.wait_for("an echo", |page| page.contains("\nsane\n"));
        for on in [" echo ", " icanon ", " isig ", " opost "] {
            let settings = page.replace([';', '\n'], " ");
            assert!(settings.contains(on), "{on}:\n{page}");
        }
        let state = "#{alternate_on} #{cursor_flag}";
        let state = self.tmux(&["display-message", "-p", "-t", "top", state]);
        assert_eq!(state.trim(), "0 1");
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.tmux(&["kill-server"]);
    }
}

/// Whether the tests below can run. Before [`alone`].
fn has_tmux() -> bool {
    has_program("tmux", "-V")
}

#[test]
fn a_terminal_shows_pools_and_workers_and_is_as_it_was_after_q() {
    if !has_tmux() {
        return;
    }
    alone(|| {
        let mut bus = Program::start(&config(), ARGS);
        let dir = TempDir::new();
        let terminal = Terminal::open(&dir, 100, 30);
        terminal.starts_top(&bus.path("admin.sock"));
        let page = under_load(&bus, || {
            terminal.wait_for("rates", |page| {
                let tools = page.lines().find(|line| line.starts_with("tools"));
                let cells: Vec<_> = tools.unwrap_or("").split_whitespace().collect();
                cells.len() == 9 && !["-", "0"].contains(&cells[5])
            })
        });
        assert!(page.starts_with("stdio_bus "), "{page}");
        assert_eq!(row(&page, &["agents"])[1], "1/1");
        assert!(page.contains(" stderr of worker 0 "), "{page}");
        for worker in ["0", "1", "2"] {
            assert_eq!(row(&page, &[worker])[3], "ready", "{page}");
        }

        // Killed, and started again.
        let pid = row(&page, &["2", "agents"])[2].parse().expect("a pid");
        signal(pid, "KILL");
        let page = terminal.wait_for("the restart", |page| {
            let worker = page.lines().find(|line| line.contains(" agents "));
            let cells: Vec<_> = worker.unwrap_or("").split_whitespace().collect();
            cells.len() == 7 && cells[3] == "ready" && cells[5] == "1"
        });
        assert_ne!(row(&page, &["2", "agents"])[2], pid.to_string());
        assert_eq!(row(&page, &["agents"])[8], "1", "{page}");

        terminal.presses("Down");
        terminal.wait_for("the next worker's", |page| {
            page.contains(" stderr of worker 1 ")
        });
        terminal.types("?");
        terminal.wait_for("help", |page| page.contains("go on"));
        terminal.presses("Escape");
        terminal.wait_for("no help", |page| !page.contains("go on"));
        terminal.types("p");
        terminal.wait_for("a pause", |page| page.starts_with("paused"));

        terminal.types("q");
        terminal.wait_for("its end", |page| page.contains("ended: 0"));
        terminal.is_as_it_was();
        signal(bus.pid(), "TERM");
        assert_eq!(bus.wait().code(), Some(0));
    });
}

#[test]
fn a_bus_that_goes_away_is_waited_for_and_seen_when_it_comes_back() {
    if !has_tmux() {
        return;
    }
    alone(|| {
        let dir = TempDir::new();
        let admin = dir.path("admin.sock");
        let args = [
            "--unix",
            "{dir}/bus.sock",
            "--admin",
            admin.to_str().expect("text"),
        ];
        let terminal = Terminal::open(&dir, 100, 30);
        // Not there yet.
        terminal.starts_top(&admin);
        terminal.wait_for("no bus", |page| page.starts_with("no answer, trying again"));
        let mut bus = Program::start(&config(), &args);
        terminal.wait_for("the bus", |page| page.starts_with("stdio_bus "));
        signal(bus.pid(), "KILL");
        bus.wait();
        let page = terminal.wait_for("its end", |page| {
            page.starts_with("no answer, trying again")
        });
        // What it told last is still there.
        row(&page, &["tools"]);
        let bus = Program::start(&config(), &args);
        let pid = format!("pid {} ", bus.pid());
        terminal.wait_for("another one", |page| {
            page.starts_with("stdio_bus ") && page.contains(&pid)
        });
        terminal.presses("C-c");
        terminal.wait_for("its end", |page| page.contains("ended: 0"));
        terminal.is_as_it_was();
    });
}

#[test]
fn a_terminal_may_change_its_size_and_a_signal_leaves_it_as_it_was() {
    if !has_tmux() {
        return;
    }
    alone(|| {
        let bus = Program::start(&config(), ARGS);
        let dir = TempDir::new();
        let terminal = Terminal::open(&dir, 90, 25);
        terminal.starts_top(&bus.path("admin.sock"));
        terminal.wait_for("the bus", |page| page.contains("WORKER"));
        for (width, height) in [("20", "3"), ("4", "2"), ("120", "40")] {
            terminal.tmux(&["resize-window", "-t", "top", "-x", width, "-y", height]);
            let beginning = &"stdio_bus"[..width.parse::<usize>().unwrap_or(0).min(9)];
            terminal.wait_for("another size", |page| {
                page.starts_with(beginning) && page.lines().count() <= height.parse().unwrap_or(0)
            });
        }
        terminal.wait_for("all of it", |page| page.contains(" stderr of worker "));
        let shell = terminal.tmux(&["display-message", "-p", "-t", "top", "#{pane_pid}"]);
        let children = format!("/proc/{0}/task/{0}/children", shell.trim());
        let children = fs::read_to_string(children).expect("the shell runs");
        let top = children.split_whitespace().next().expect("a child");
        signal(top.parse().expect("a pid"), "TERM");
        terminal.wait_for("its end", |page| page.contains("ended: 143"));
        terminal.is_as_it_was();
    });
}
