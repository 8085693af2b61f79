//! What the integration tests share: processes of their own, a leak sentinel, the program under
//! test, a plain NDJSON client, Python environments.
//!
//! Every wait here has a bound, and says what it waited for when it runs out.

#![allow(dead_code)] // each test program uses its own part of this

pub mod backends;
pub mod cli;
pub mod client;
pub mod peer;
pub mod stdio_agent;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt::Debug;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// How long a wait may take before the test fails: far more than anything here needs.
pub const BOUND: Duration = Duration::from_secs(30);

/// Waits until `condition` holds; for what gives no event to wait for, as `/proc` does.
#[track_caller]
pub fn wait_until(what: &str, bound: Duration, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + bound;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {bound:?}: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

// ---- programs ----------------------------------------------------------------------------------

/// The program `stdio_bus` of this build.
pub fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_stdio_bus"))
}

/// The hostile worker, tests/workers/zoo.rs.
pub fn zoo() -> PathBuf {
    example("zoo")
}

/// An example of this build.
pub fn example(name: &str) -> PathBuf {
    let path = profile_dir().join("examples").join(name);
    assert!(
        path.exists(),
        "{path:?} is missing: `cargo test` builds it, so does `cargo build --example {name}`"
    );
    path
}

/// `target/<profile>`: a test program lies in its folder `deps`.
fn profile_dir() -> PathBuf {
    let me = std::env::current_exe().expect("own path");
    me.ancestors()
        .nth(2)
        .expect("a test program lies in target/<profile>/deps")
        .to_owned()
}

/// Configuration with one pool `zoo` of `instances` workers, each started as `zoo MODES...`.
pub fn zoo_config(instances: usize, modes: &[&str]) -> String {
    let pool =
        serde_json::json!({"id": "zoo", "command": zoo(), "args": modes, "instances": instances});
    serde_json::json!({"pools": [pool]}).to_string()
}

/// A pool `zoo` with one worker, started as `zoo MODES...`.
pub fn zoo_pool(modes: &[&str]) -> stdiobus::PoolConfig {
    stdiobus::PoolConfig::new("zoo", zoo()).args(modes)
}

/// A folder of the test's own, with a path short enough for a Unix socket; removed on drop.
pub struct TempDir(PathBuf);

impl TempDir {
    pub fn new() -> TempDir {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "stdio_bus-test-{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let path = std::env::temp_dir().join(name);
        // Left by one that was killed and had the same number.
        fs::remove_dir_all(&path).ok();
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .expect("temporary folder");
        TempDir(path)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

// ---- processes ---------------------------------------------------------------------------------

/// Sends a signal, given as `kill` spells it: `TERM`, `KILL`, `STOP`.
#[track_caller]
pub fn signal(pid: u32, name: &str) {
    let status = Command::new("sh")
        .arg("-c")
        .arg(format!("kill -{name} {pid}"))
        .status();
    assert!(
        status.is_ok_and(|status| status.success()),
        "kill -{name} {pid}"
    );
}

/// Whether a process exists; one that has ended but is not reaped (a zombie) does.
pub fn exists(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

/// Whether a process exists and has not ended.
pub fn runs(pid: u32) -> bool {
    stat(pid).is_some_and(|stat| !matches!(stat.state, 'Z' | 'X'))
}

/// Waits until the processes are gone, reaped included.
#[track_caller]
pub fn assert_gone(pids: &[u32], bound: Duration) {
    wait_until(&format!("processes {pids:?} are gone"), bound, || {
        !pids.iter().any(|pid| exists(*pid))
    });
}

/// The memory that a process occupies, in bytes.
#[track_caller]
pub fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    number.expect("a number of KiB") * 1024
}

struct Stat {
    name: String,
    state: char,
    parent: u32,
}

fn stat(pid: u32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (name, rest) = text.split_once('(')?.1.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some(Stat {
        name: name.to_owned(),
        state,
        parent: fields.next()?.parse().ok()?,
    })
}

fn numbers_in(folder: &str) -> Vec<u32> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

/// The children of a process, zombies included.
pub fn children(parent: u32) -> Vec<u32> {
    let all = numbers_in("/proc").into_iter();
    all.filter(|pid| stat(*pid).is_some_and(|stat| stat.parent == parent))
        .collect()
}

/// The ids of this process's threads that have this name (the kernel keeps its first 15 bytes).
pub fn threads_named(name: &str) -> Vec<u32> {
    let name = &name[..name.len().min(15)];
    let is = |tid: &u32| {
        fs::read_to_string(format!("/proc/self/task/{tid}/comm"))
            .is_ok_and(|comm| comm.trim_end() == name)
    };
    numbers_in("/proc/self/task")
        .into_iter()
        .filter(is)
        .collect()
}

/// Waits until a child has ended; `None` when the bound is over.
fn wait_for_child(child: &mut Child, bound: Duration) -> Option<ExitStatus> {
    let deadline = Instant::now() + bound;
    loop {
        if let Some(status) = child.try_wait().expect("child can be waited for") {
            return Some(status);
        }
        if Instant::now() >= deadline {
            return None;
        }
        thread::sleep(Duration::from_millis(2));
    }
}

// ---- leaks -------------------------------------------------------------------------------------

/// Counts what this process has open and running: descriptors, threads, children (zombies too).
/// It counts the whole process, so use it where nothing else runs: inside [`alone`], which has one
/// built in.
pub struct Leaks(Inventory);

type Inventory = BTreeMap<&'static str, Vec<String>>;

impl Leaks {
    pub fn watch() -> Leaks {
        Leaks(Leaks::inventory())
    }

    /// Waits until there is no more than at the start, and fails if that doesn't come.
    #[track_caller]
    pub fn check(&self) {
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            let now = Leaks::inventory();
            let leaked = now
                .iter()
                .any(|(kind, things)| things.len() > self.0[kind].len());
            if !leaked {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "leaked; before: {:#?}\nafter: {now:#?}",
                self.0
            );
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn inventory() -> Inventory {
        let me = std::process::id();
        let describe_fd = |fd: &u32| {
            Some(format!(
                "{fd} -> {:?}",
                fs::read_link(format!("/proc/self/fd/{fd}")).ok()?
            ))
        };
        let describe_thread = |tid: &u32| {
            Some(
                fs::read_to_string(format!("/proc/self/task/{tid}/comm"))
                    .ok()?
                    .trim_end()
                    .to_owned(),
            )
        };
        let describe_child =
            |pid: &u32| stat(*pid).map(|stat| format!("{pid} {} {}", stat.name, stat.state));
        BTreeMap::from([
            (
                "descriptors",
                numbers_in("/proc/self/fd")
                    .iter()
                    .filter_map(describe_fd)
                    .collect(),
            ),
            (
                "threads",
                numbers_in("/proc/self/task")
                    .iter()
                    .filter_map(describe_thread)
                    .collect(),
            ),
            (
                "children",
                children(me).iter().filter_map(describe_child).collect(),
            ),
        ])
    }
}

const ALONE: &str = "STDIO_BUS_TEST_ALONE";

/// Runs the body of a test in a process of its own, with a time limit of two minutes and a leak sentinel.
///
/// The test program starts itself again for this one test, so descriptors, threads and children can
/// be counted without those of the other tests, and a hang or a crash concerns one test only. Call
/// it first in the test.
#[track_caller]
pub fn alone(test: impl FnOnce()) {
    alone_within(Duration::from_secs(120), test);
}

/// [`alone`] with another time limit.
#[track_caller]
pub fn alone_within(limit: Duration, test: impl FnOnce()) {
    let current = thread::current();
    let name = current.name().filter(|name| *name != "main");
    let (Some(name), None) = (name, std::env::var_os(ALONE)) else {
        let leaks = Leaks::watch();
        test();
        return leaks.check();
    };
    let mut again = Command::new(std::env::current_exe().expect("own path"));
    again
        .args([
            name,
            "--exact",
            "--nocapture",
            "--include-ignored",
            "--test-threads=1",
        ])
        .env(ALONE, "1");
    let (status, output) = run_within(&mut again, limit);
    let ran = status.is_some_and(|status| status.success()) && output[0].contains("1 passed");
    assert!(
        ran,
        "{name}: {status:?} (None: still running after {limit:?})\n{}\n{}",
        output[0], output[1]
    );
}

/// [`alone`] for an async body, on a tokio runtime that is gone when leaks are counted.
#[track_caller]
pub fn alone_async<F: Future<Output = ()>>(test: impl FnOnce() -> F) {
    alone_async_within(Duration::from_secs(120), test);
}

/// [`alone_async`] with another time limit.
#[track_caller]
pub fn alone_async_within<F: Future<Output = ()>>(limit: Duration, test: impl FnOnce() -> F) {
    open_tokios_sockets();
    alone_within(limit, || runtime().block_on(test()));
}

/// The first runtime opens a pair of sockets (for signals) that tokio keeps as long as the process
/// lives: not a leak, so it comes before anything is counted.
pub fn open_tokios_sockets() {
    drop(runtime());
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("runtime")
}

/// Runs a program to its end: its exit status, its stdout and stderr. One that still runs at the end
/// of the bound is killed, and has no status.
pub fn run_within(command: &mut Command, bound: Duration) -> (Option<ExitStatus>, [String; 2]) {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let output = [
        collect(child.stdout.take().unwrap()),
        collect(child.stderr.take().unwrap()),
    ];
    let status = wait_for_child(&mut child, bound);
    if status.is_none() {
        child
            .kill()
            .and_then(|()| child.wait())
            .expect("a program that hangs can be killed");
    }
    let output = output.map(|thread| thread.join().expect("output was read"));
    (status, output)
}

fn collect(mut source: impl Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        source.read_to_end(&mut bytes).ok();
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

// ---- the program -------------------------------------------------------------------------------

/// A running `stdio_bus`; killed on drop.
pub struct Program {
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
    new_lines: Receiver<()>,
    dir: TempDir,
}

const READY: &str = "stdio Bus kernel ready, entering main loop";

impl Program {
    /// Starts it with this configuration and these arguments, and waits until it is ready. `{dir}`
    /// in an argument stands for a folder of the program's own: `["--unix", "{dir}/bus.sock"]`.
    #[track_caller]
    pub fn start(config: &str, args: &[&str]) -> Program {
        let mut program = Program::spawn(config, args, Stdio::null(), Stdio::null());
        program.wait_for_log(READY);
        program
    }

    /// Starts it with `--stdio`, with a client on its stdin and stdout.
    #[track_caller]
    pub fn stdio(config: &str) -> (Program, Client) {
        let mut program = Program::spawn(config, &["--stdio"], Stdio::piped(), Stdio::piped());
        let (stdout, stdin) = (
            program.child.stdout.take().unwrap(),
            program.child.stdin.take().unwrap(),
        );
        (program, Client::over(stdout, stdin, |_| {}))
    }

    /// [`start`](Self::start), where the command needs more than arguments.
    #[track_caller]
    pub fn start_with(config: &str, args: &[&str], prepare: impl FnOnce(&mut Command)) -> Program {
        let (mut command, dir) = Program::command(config, args);
        prepare(&mut command);
        let mut program = Program::launch(&mut command, dir);
        program.wait_for_log(READY);
        program
    }

    /// The command that [`start`](Self::start) runs, and the folder for `{dir}`.
    pub fn command(config: &str, args: &[&str]) -> (Command, TempDir) {
        let dir = TempDir::new();
        fs::write(dir.path("config.json"), config).expect("configuration is written");
        let mut command = Command::new(program());
        let folder = dir.0.to_str().expect("a path in text");
        command
            .arg("--config")
            .arg(dir.path("config.json"))
            .args(args.iter().map(|arg| arg.replace("{dir}", folder)))
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        (command, dir)
    }

    fn spawn(config: &str, args: &[&str], stdin: Stdio, stdout: Stdio) -> Program {
        let (mut command, dir) = Program::command(config, args);
        Program::launch(command.stdin(stdin).stdout(stdout), dir)
    }

    /// Starts a command that is, or becomes, the program.
    #[track_caller]
    pub fn launch(command: &mut Command, dir: TempDir) -> Program {
        let mut child = command
            .stderr(Stdio::piped())
            .spawn()
            .expect("stdio_bus starts");
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let log = Arc::new(Mutex::new(Vec::new()));
        let (line_came, new_lines) = mpsc::channel();
        let writer = log.clone();
        thread::spawn(move || {
            for line in stderr.split(b'\n').map_while(Result::ok) {
                writer
                    .lock()
                    .unwrap()
                    .push(String::from_utf8_lossy(&line).into_owned());
                line_came.send(()).ok();
            }
        });
        Program {
            child,
            log,
            new_lines,
            dir,
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Closes its stdin, where that is a pipe.
    pub fn close_stdin(&mut self) {
        self.child.stdin = None;
    }

    /// A path in the folder that `{dir}` stands for.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path(name)
    }

    /// What it has written to stderr so far.
    pub fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    /// Waits for a line on stderr that contains `text`, and returns it.
    #[track_caller]
    pub fn wait_for_log(&mut self, text: &str) -> String {
        let deadline = Instant::now() + BOUND;
        loop {
            if let Some(line) = self.log().into_iter().find(|line| line.contains(text)) {
                return line;
            }
            match self
                .new_lines
                .recv_timeout(deadline.saturating_duration_since(Instant::now()))
            {
                Ok(()) => {}
                Err(reason) => panic!(
                    "{reason:?} while waiting for {text:?} in the log:\n{}",
                    self.log().join("\n")
                ),
            }
        }
    }

    /// The addresses of the TCP listeners, in order.
    pub fn tcp_addresses(&self) -> Vec<String> {
        self.listeners("listening on tcp ")
    }

    /// The paths of the Unix listeners, in order.
    pub fn unix_paths(&self) -> Vec<String> {
        self.listeners("listening on unix ")
    }

    fn listeners(&self, prefix: &str) -> Vec<String> {
        let log = self.log();
        log.iter()
            .filter_map(|line| Some(line.split_once(prefix)?.1.trim_end().to_owned()))
            .collect()
    }

    /// A new client of the first TCP listener.
    #[track_caller]
    pub fn tcp_client(&self) -> Client {
        Client::tcp(&self.tcp_addresses()[0])
    }

    /// A new client of the first Unix listener.
    #[track_caller]
    pub fn unix_client(&self) -> Client {
        Client::unix(&self.unix_paths()[0])
    }

    /// Waits until it has ended by itself.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        wait_for_child(&mut self.child, BOUND).unwrap_or_else(|| {
            panic!(
                "stdio_bus still runs after {BOUND:?}; its log:\n{}",
                self.log().join("\n")
            )
        })
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
        if thread::panicking() {
            eprintln!("log of stdio_bus:\n{}", self.log().join("\n"));
        }
    }
}

// ---- a client ----------------------------------------------------------------------------------

/// One NDJSON connection, over a socket or a pair of pipes. Reads are bounded by [`BOUND`].
pub struct Client {
    lines: Receiver<String>,
    writer: Option<Box<dyn Write + Send>>,
    shutdown: Box<dyn Fn(Shutdown) + Send>,
}

impl Client {
    #[track_caller]
    pub fn unix(path: impl AsRef<Path>) -> Client {
        let socket = UnixStream::connect(path.as_ref())
            .unwrap_or_else(|error| panic!("{:?}: {error}", path.as_ref()));
        socket.set_write_timeout(Some(BOUND)).unwrap();
        let [reader, writer] = [(); 2].map(|()| socket.try_clone().unwrap());
        Client::over(reader, writer, move |how| drop(socket.shutdown(how)))
    }

    #[track_caller]
    pub fn tcp(address: &str) -> Client {
        let socket =
            TcpStream::connect(address).unwrap_or_else(|error| panic!("{address}: {error}"));
        socket.set_nodelay(true).unwrap();
        socket.set_write_timeout(Some(BOUND)).unwrap();
        let [reader, writer] = [(); 2].map(|()| socket.try_clone().unwrap());
        Client::over(reader, writer, move |how| drop(socket.shutdown(how)))
    }

    fn over(
        reader: impl Read + Send + 'static,
        writer: impl Write + Send + 'static,
        shutdown: impl Fn(Shutdown) + Send + 'static,
    ) -> Client {
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::with_capacity(1 << 16, reader)
                .split(b'\n')
                .map_while(Result::ok)
            {
                sender
                    .send(String::from_utf8_lossy(&line).into_owned())
                    .ok();
            }
        });
        Client {
            lines,
            writer: Some(Box::new(writer)),
            shutdown: Box::new(shutdown),
        }
    }

    /// Sends one frame.
    #[track_caller]
    pub fn send(&mut self, frame: &str) {
        self.send_bytes(&[frame.as_bytes(), b"\n"].concat());
    }

    /// Sends bytes as they are.
    #[track_caller]
    pub fn send_bytes(&mut self, bytes: &[u8]) {
        let writer = self.writer.as_mut().expect("the sending side is open");
        writer
            .write_all(bytes)
            .and_then(|()| writer.flush())
            .expect("the bus takes what is sent");
    }

    /// The next line, without its newline.
    #[track_caller]
    pub fn receive(&mut self) -> String {
        self.line(BOUND).unwrap_or_else(|reason| panic!("{reason}"))
    }

    /// The next line, without its newline, or why there is none.
    pub fn line(&mut self, bound: Duration) -> Result<String, String> {
        match self.lines.recv_timeout(bound) {
            Ok(line) => Ok(line),
            Err(RecvTimeoutError::Timeout) => Err(format!("nothing came within {bound:?}")),
            Err(RecvTimeoutError::Disconnected) => Err("the connection was closed".to_owned()),
        }
    }

    /// The next line, as JSON.
    #[track_caller]
    pub fn receive_json(&mut self) -> serde_json::Value {
        let line = self.receive();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
    }

    /// Sends a request and returns the next line, as JSON.
    #[track_caller]
    pub fn ask(&mut self, frame: &str) -> serde_json::Value {
        self.send(frame);
        self.receive_json()
    }

    /// Says that nothing more will be sent; answers can still come.
    pub fn end(&mut self) {
        self.writer = None;
        (self.shutdown)(Shutdown::Write);
    }

    /// Waits until the other side has closed, and returns the lines that came before.
    #[track_caller]
    pub fn rest(&mut self) -> Vec<String> {
        let mut rest = Vec::new();
        loop {
            match self.lines.recv_timeout(BOUND) {
                Ok(line) => rest.push(line),
                Err(RecvTimeoutError::Disconnected) => return rest,
                Err(RecvTimeoutError::Timeout) => {
                    panic!("still open after {BOUND:?}; came: {rest:?}")
                }
            }
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        (self.shutdown)(Shutdown::Both); // ends the reading thread
    }
}

// ---- Python ------------------------------------------------------------------------------------

/// The interpreter of a virtual environment, in the target folder, that has these packages.
///
/// `None`, with the reason on stderr, where Python or its `venv` module is missing or the packages
/// can't be had; with `CI` set that is a failure. Call it before [`alone`].
#[track_caller]
pub fn python(requirements: &[&str]) -> Option<PathBuf> {
    or_skip(make_venv(requirements))
}

/// Whether there is a `python3`; without one as for [`python`].
#[track_caller]
pub fn has_python() -> bool {
    or_skip(run("python3", ["--version"])).is_some()
}

/// Whether there is a program `name`; without it as for [`python`].
#[track_caller]
pub fn has_program(name: &str, option: &str) -> bool {
    or_skip(run(name, [option])).is_some()
}

#[track_caller]
fn or_skip<T>(result: Result<T, String>) -> Option<T> {
    if let Err(reason) = &result {
        assert!(
            std::env::var_os("CI").is_none(),
            "CI is set, so this can't be skipped: {reason}"
        );
        // Not `eprintln!`: the test harness hides what that writes in a test that passes.
        writeln!(
            std::io::stderr(),
            "skipped {}: {reason}",
            thread::current().name().unwrap_or("")
        )
        .ok();
    }
    result.ok()
}

fn make_venv(requirements: &[&str]) -> Result<PathBuf, String> {
    let target = profile_dir().parent().expect("target/<profile>").to_owned();
    let venv = target.join("test-venv");
    let python = venv.join("bin/python");

    let lock = fs::File::create(target.join("test-venv.lock")).map_err(describe)?;
    lock_until_closed(&lock);
    if !venv.join("complete").exists() {
        fs::remove_dir_all(&venv).ok(); // what an interrupted run has left
        run(
            "python3",
            [OsStr::new("-m"), OsStr::new("venv"), venv.as_os_str()],
        )?;
        fs::write(venv.join("complete"), "").map_err(describe)?;
    }
    for requirement in requirements {
        let installed = venv.join(format!("installed-{requirement}"));
        if !installed.exists() {
            run(
                &python,
                [
                    "-m",
                    "pip",
                    "install",
                    "--quiet",
                    "--disable-pip-version-check",
                    requirement,
                ],
            )?;
            fs::write(installed, "").map_err(describe)?;
        }
    }
    Ok(python)
}

/// One test process at a time makes the environment. (`File::lock` needs Rust 1.89.)
fn lock_until_closed(file: &fs::File) {
    unsafe extern "C" {
        fn flock(fd: i32, operation: i32) -> i32;
    }
    const LOCK_EX: i32 = 2;
    // SAFETY: the descriptor is open for as long as `file` is borrowed.
    assert_eq!(
        unsafe { flock(file.as_raw_fd(), LOCK_EX) },
        0,
        "{}",
        std::io::Error::last_os_error()
    );
}

fn run<A: AsRef<OsStr> + Debug>(
    program: impl AsRef<OsStr> + Debug,
    args: impl IntoIterator<Item = A>,
) -> Result<(), String> {
    let output = Command::new(&program)
        .args(args)
        .stdin(Stdio::null())
        .output();
    let output = output.map_err(|error| format!("{program:?}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let text = [output.stdout, output.stderr].concat();
    Err(format!(
        "{program:?} failed: {}",
        String::from_utf8_lossy(&text).trim_end()
    ))
}

fn describe(error: std::io::Error) -> String {
    error.to_string()
}
