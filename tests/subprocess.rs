//! The program as a child of the client: how it is found, started, watched and ended.

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::client::{assert_kind, eventually, soon};
use common::{
    BOUND, TempDir, alone_async, children, exists, program, runs, wait_until, zoo_config, zoo_pool,
};
use serde_json::Value;
use stdiobus::{
    BackendMode, BusConfig, BusState, ErrorCode, Framing, LimitsConfig, ListenMode, LogLevel,
    NativeOptions, PoolConfig, StdioBus, StdioBusBuilder, SubprocessOptions,
};

fn over(options: SubprocessOptions) -> StdioBusBuilder {
    StdioBus::builder()
        .backend(BackendMode::Subprocess)
        .subprocess(options)
}

fn with_program() -> StdioBusBuilder {
    over(SubprocessOptions::new().binary_path(program())).pool(zoo_pool(&["echo"]))
}

async fn started(builder: StdioBusBuilder) -> StdioBus {
    let bus = builder.build().expect("valid");
    bus.start().await.expect("starts");
    bus
}

/// An executable script in a folder.
fn script(dir: &TempDir, text: &str) -> PathBuf {
    let path = dir.path("program");
    fs::write(&path, format!("#!/bin/sh\n{text}\n")).expect("written");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("executable");
    path
}

const READY: &str = "echo '[t] [INFO] stdio Bus kernel ready, entering main loop' >&2";

/// The child of this process that is the program.
fn child() -> u32 {
    let children = children(std::process::id());
    assert_eq!(children.len(), 1, "{children:?}");
    children[0]
}

#[test]
fn options_for_another_backend_are_refused_and_not_ignored() {
    let refused = |builder: StdioBusBuilder, what: &str| {
        let error = builder.build().expect_err("refused");
        assert_eq!(error.kind(), Some(ErrorCode::InvalidArgument), "{error:?}");
        assert!(error.to_string().contains(what), "{error}");
    };
    let native = || StdioBus::builder().pool(zoo_pool(&["echo"]));
    refused(native().subprocess(SubprocessOptions::new()), "subprocess");
    refused(with_program().native(NativeOptions::new()), "native");
    refused(
        with_program().listen(ListenMode::tcp("localhost", 0)),
        "listen",
    );
    refused(over(SubprocessOptions::new()).config_json("{}"), "pools");
    refused(over(SubprocessOptions::new()), "no configuration");
    let length = BusConfig::new()
        .pool(zoo_pool(&["echo"]))
        .framing(Framing::Length);
    refused(over(SubprocessOptions::new()).config(length), "framing");
    let named = NativeOptions::new().thread_name("my bus");
    let bus = native().native(named).build();
    bus.expect("what fits is taken");
}

#[test]
fn the_configuration_may_be_a_file_or_longer_than_a_pipe() {
    alone_async(|| async {
        let dir = TempDir::new();
        let path = dir.path("config.json");
        fs::write(&path, zoo_config(1, &["echo"])).expect("written");
        let options = || SubprocessOptions::new().binary_path(program());
        let bus = started(over(options()).config_path(&path)).await;
        assert_eq!(bus.request("echo", 1).await.expect("answered"), 1);
        bus.stop().await.expect("stops");

        let long = "x".repeat(100_000);
        let pool = zoo_pool(&["echo"]).env("A", &long).env("B", &long);
        let bus = started(over(options()).pool(pool)).await;
        let value = bus.request("env", serde_json::json!({"name": "B"})).await;
        assert_eq!(value.expect("answered"), *long);
        bus.stop().await.expect("stops");
    });
}

#[test]
fn a_drain_without_a_limit_has_that_of_the_configuration() {
    alone_async(|| async {
        let limits = LimitsConfig::new().drain_timeout_sec(1);
        let bus = started(with_program().limits(limits)).await;
        let held = bus.request("hold", Value::Null);
        let began = Instant::now();
        let (held, drained) = tokio::join!(held, bus.drain(None));
        assert_kind(held, ErrorCode::TransportError);
        drained.expect("drained");
        assert!(
            began.elapsed() < Duration::from_secs(10),
            "{:?}",
            began.elapsed()
        );
    });
}

#[test]
fn the_programs_own_environment_can_be_added_to() {
    alone_async(|| async {
        let options = SubprocessOptions::new()
            .binary_path(program())
            .env("ZOO_X", "from here");
        let bus = started(over(options).pool(zoo_pool(&["echo"]))).await;
        let value = bus
            .request("env", serde_json::json!({"name": "ZOO_X"}))
            .await;
        assert_eq!(value.expect("answered"), "from here");
        bus.stop().await.expect("stops");
    });
}

#[test]
fn a_program_that_cannot_be_run_fails_the_start_with_its_name() {
    alone_async(|| async {
        let dir = TempDir::new();
        let missing = dir.path("missing");
        let options = SubprocessOptions::new().binary_path(&missing);
        let bus = over(options)
            .pool(zoo_pool(&["echo"]))
            .build()
            .expect("valid");
        let error = assert_kind(bus.start().await, ErrorCode::Unavailable);
        assert!(error.to_string().contains("missing"), "{error}");
        assert_eq!(bus.state(), BusState::Stopped);
    });
}

#[test]
fn a_program_that_ends_fails_the_start_with_its_last_words() {
    alone_async(|| async {
        let options = SubprocessOptions::new().binary_path(program());
        let pool = PoolConfig::new("p", "/no/such/worker");
        let bus = over(options).pool(pool).build().expect("valid");
        let error = assert_kind(bus.start().await, ErrorCode::Unavailable);
        assert!(error.to_string().contains("/no/such/worker"), "{error}");
        assert!(error.to_string().contains("exit status: 1"), "{error}");
        let tail = bus.stderr_tail(10).await.expect("kept");
        assert!(
            tail.iter().any(|line| line.contains("/no/such/worker")),
            "{tail:?}"
        );
    });
}

#[test]
fn a_program_that_is_never_ready_is_given_up_in_time() {
    alone_async(|| async {
        let dir = TempDir::new();
        let silent = script(&dir, "trap '' TERM\necho 'not yet' >&2\nread x\nread y");
        let options = SubprocessOptions::new()
            .binary_path(silent)
            .start_timeout(Duration::from_millis(300));
        let bus = over(options)
            .pool(zoo_pool(&["echo"]))
            .build()
            .expect("valid");
        let began = Instant::now();
        let error = assert_kind(bus.start().await, ErrorCode::Unavailable);
        assert!(
            error.to_string().contains("not ready within 300ms"),
            "{error}"
        );
        assert!(error.to_string().contains("not yet"), "{error}");
        assert!(began.elapsed() >= Duration::from_millis(300));
        assert!(children(std::process::id()).is_empty());
    });
}

#[test]
fn what_the_program_logs_is_logged_at_its_level_and_kept() {
    alone_async(|| async {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&lines);
        let options = SubprocessOptions::new()
            .binary_path(program())
            .stderr_buffer_lines(3);
        let builder = over(options)
            .pool(zoo_pool(&["echo"]))
            .log_level(LogLevel::Info)
            .on_log(move |level, line: &str| sink.lock().unwrap().push((level, line.to_owned())));
        let bus = started(builder).await;
        let ready = |(level, line): &(LogLevel, String)| {
            *level == LogLevel::Info && line == "stdio Bus kernel ready, entering main loop"
        };
        eventually("its lines are logged", || {
            lines.lock().unwrap().iter().any(ready)
        })
        .await;
        let tail = bus.stderr_tail(100).await.expect("kept");
        assert!(tail.len() <= 3, "{tail:?}");
        assert!(
            tail.iter().any(|line| line.contains("kernel ready")),
            "{tail:?}"
        );
        bus.stop().await.expect("stops");
        let tail = bus.stderr_tail(1).await.expect("kept beyond the stop");
        assert!(tail[0].contains("stopped"), "{tail:?}");
        let lines = lines.lock().unwrap();
        assert!(
            lines.iter().all(|(level, _)| *level >= LogLevel::Info),
            "{lines:?}"
        );
    });
}

#[test]
fn what_workers_write_to_stderr_is_in_the_tail() {
    alone_async(|| async {
        let bus = started(
            over(SubprocessOptions::new().binary_path(program())).pool(zoo_pool(&["chatty"])),
        )
        .await;
        bus.request("echo", 1).await.expect("answered");
        let mut tail = bus.stderr_tail(1000).await.expect("kept");
        let deadline = Instant::now() + BOUND;
        while tail.len() < 200 {
            assert!(Instant::now() < deadline, "{} lines", tail.len());
            tail = bus.stderr_tail(1000).await.expect("kept");
        }
        assert_eq!(tail.len(), 200);
        bus.stop().await.expect("stops");
    });
}

#[test]
fn a_program_that_is_killed_ends_everything_at_once_and_says_how() {
    alone_async(|| async {
        let bus = started(with_program()).await;
        let pid = bus.request("pid", Value::Null).await.expect("answered");
        let worker = u32::try_from(pid.as_u64().expect("a pid")).expect("a pid");
        let held: Vec<_> = (0..10)
            .map(|_| {
                let bus = bus.clone();
                tokio::spawn(async move { bus.request("hold", Value::Null).await })
            })
            .collect();
        let mut stream = bus.stream_request("hold", Value::Null);
        assert!(
            tokio::time::timeout(Duration::from_millis(20), stream.next())
                .await
                .is_err()
        );
        eventually("all are in flight", || bus.pending_count() == Some(11)).await;
        let began = Instant::now();
        common::signal(child(), "KILL");
        for request in held {
            let result = soon("the end of a request", request)
                .await
                .expect("no panic");
            let error = assert_kind(result, ErrorCode::TransportError);
            assert!(error.to_string().contains("signal: 9"), "{error}");
        }
        let end = soon("the end of the stream", stream.next())
            .await
            .expect("an end");
        assert_kind(end.map(drop), ErrorCode::TransportError);
        assert!(
            began.elapsed() < Duration::from_secs(5),
            "{:?}",
            began.elapsed()
        );
        bus.state_changes().reached(BusState::Stopped).await;
        assert_kind(bus.request("echo", 1).await, ErrorCode::InvalidState);
        bus.stop().await.expect("has stopped");
        eventually("its workers are gone, too", || !runs(worker)).await;
    });
}

#[test]
fn a_program_that_ignores_everything_is_killed_within_the_limit() {
    alone_async(|| async {
        let dir = TempDir::new();
        let stubborn = script(
            &dir,
            &format!("trap '' TERM\n{READY}\nwhile :; do sleep 1; done"),
        );
        let options = SubprocessOptions::new().binary_path(stubborn);
        let bus = started(over(options).pool(zoo_pool(&["echo"]))).await;
        let pid = child();
        let began = Instant::now();
        bus.stop_with_timeout(Duration::from_secs(2))
            .await
            .expect("stops");
        let took = began.elapsed();
        assert!(
            took >= Duration::from_millis(1900) && took < Duration::from_secs(5),
            "{took:?}"
        );
        assert!(!exists(pid));
        // Its own child ends with its second.
        wait_until("nothing is left", BOUND, || {
            children(std::process::id()).is_empty()
        });
    });
}

#[test]
fn a_program_that_ignores_its_input_gets_sigterm_after_the_drain_timeout() {
    alone_async(|| async {
        let dir = TempDir::new();
        let deaf = script(&dir, &format!("{READY}\nexec sleep 100"));
        let options = SubprocessOptions::new()
            .binary_path(deaf)
            .drain_timeout(Duration::from_millis(200));
        let bus = started(over(options).pool(zoo_pool(&["echo"]))).await;
        let began = Instant::now();
        bus.stop().await.expect("stops");
        let took = began.elapsed();
        assert!(
            took >= Duration::from_millis(200) && took < Duration::from_secs(4),
            "{took:?}"
        );
    });
}

#[test]
fn a_stop_without_time_kills_at_once() {
    alone_async(|| async {
        let dir = TempDir::new();
        let stubborn = script(
            &dir,
            &format!("trap '' TERM\n{READY}\nread x\nexec sleep 100"),
        );
        let options = SubprocessOptions::new().binary_path(stubborn);
        let bus = started(over(options).pool(zoo_pool(&["echo"]))).await;
        let began = Instant::now();
        bus.stop_with_timeout(Duration::ZERO).await.expect("stops");
        assert!(
            began.elapsed() < Duration::from_secs(3),
            "{:?}",
            began.elapsed()
        );
    });
}

#[test]
fn a_program_that_talks_nonsense_harms_nobody() {
    alone_async(|| async {
        let dir = TempDir::new();
        let nonsense = script(
            &dir,
            &format!(
                "{READY}\nprintf 'hello\\n\\n[1]\\n{{\"id\":99,\"result\":1}}\\n{{\"method\":7}}\\n\
                 {{\"id\":\"x\",\"method\":\"ask\"}}\\n'\nread x\nread y\n\
                 printf '{{\"id\":1,\"result\":\"right\"}}\\n'\ncat >/dev/null"
            ),
        );
        let options = SubprocessOptions::new().binary_path(nonsense);
        let bus = started(over(options).pool(zoo_pool(&["echo"]))).await;
        // The second line that it reads is the answer to what it asked, or this request.
        let answer = soon("an answer", bus.request("echo", 1)).await;
        assert_eq!(answer.expect("answered"), "right");
        let stats = bus.stats().await.expect("counted");
        assert_eq!((stats.worker_garbage, stats.late_answers), (2, 2));
        bus.stop().await.expect("stops");
    });
}

const DIES: &str = "STDIO_BUS_TEST_DIES";

/// What the process does that is killed: it has a bus, with a request in flight that a drain would
/// wait for, and says in a file which processes there are.
fn live(file: &Path) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let bus = started(with_program()).await;
        let worker = bus.request("pid", Value::Null).await.expect("answered");
        let held = bus.request("hold", Value::Null).detach();
        held.expect("sent");
        fs::write(file, format!("{} {worker}\n", child())).expect("written");
        tokio::time::sleep(4 * BOUND).await;
    });
}

#[test]
fn nothing_outlives_the_process_that_started_it() {
    if let Some(file) = std::env::var_os(DIES) {
        return live(Path::new(&file));
    }
    let dir = TempDir::new();
    let file = dir.path("pids");
    let mut parent = Command::new(std::env::current_exe().expect("own path"))
        .args(["nothing_outlives_the_process_that_started_it", "--exact"])
        .env(DIES, &file)
        .stdout(Stdio::null())
        .spawn()
        .expect("started");
    let pids = || -> Vec<u32> {
        let text = fs::read_to_string(&file).unwrap_or_default();
        if !text.ends_with('\n') {
            return Vec::new();
        }
        text.split_whitespace()
            .map(|pid| pid.parse().expect("a pid"))
            .collect()
    };
    wait_until("the program and its worker run", BOUND, || {
        pids().len() == 2
    });
    let pids = pids();
    assert!(pids.iter().all(|pid| runs(*pid)));
    parent.kill().expect("killed");
    parent.wait().expect("ended");
    wait_until("both are gone", Duration::from_secs(10), || {
        pids.iter().all(|pid| !runs(*pid))
    });
}

#[test]
fn a_start_that_is_dropped_and_a_bus_that_is_dropped_leave_no_program() {
    alone_async(|| async {
        let bus = with_program().build().expect("valid");
        let mut start = Box::pin(bus.start());
        assert!(
            tokio::time::timeout(Duration::from_millis(1), &mut start)
                .await
                .is_err()
        );
        drop(start);
        drop(bus);
        eventually("nothing is left", || {
            children(std::process::id()).is_empty()
        })
        .await;
        let bus = started(with_program()).await;
        let pid = child();
        let began = Instant::now();
        drop(bus);
        assert!(began.elapsed() < Duration::from_millis(500));
        eventually("the program is gone", || !exists(pid)).await;
    });
}

/// What a signal does in this process.
fn on_signal(signal: i32, action: libc::sighandler_t) {
    // SAFETY: no handler runs, and the process is this test's own.
    let before = unsafe { libc::signal(signal, action) };
    assert_ne!(before, libc::SIG_ERR);
}

#[test]
fn a_host_that_does_not_look_how_its_children_end_can_stop_and_hears_of_losses() {
    alone_async(|| async {
        on_signal(libc::SIGCHLD, libc::SIG_IGN);
        let bus = started(with_program()).await;
        assert_eq!(bus.request("echo", 1).await.expect("answered"), 1);
        soon("the stop", bus.stop()).await.expect("stops");

        let bus = started(with_program()).await;
        let held = bus.try_request("hold", Value::Null).expect("there is room");
        common::signal(child(), "KILL");
        let error = assert_kind(soon("an end", held).await, ErrorCode::TransportError);
        assert!(error.to_string().contains("stdio_bus ended"), "{error}");
        soon("the stop", bus.stop()).await.expect("has stopped");
        on_signal(libc::SIGCHLD, libc::SIG_DFL);
    });
}

#[test]
fn a_program_that_reads_no_more_is_an_error_and_no_signal_to_the_host() {
    alone_async(|| async {
        on_signal(libc::SIGPIPE, libc::SIG_DFL);
        let dir = TempDir::new();
        let deaf = script(&dir, &format!("exec 0<&-\n{READY}\nexec sleep 100"));
        let options = SubprocessOptions::new().binary_path(deaf);
        let bus = started(over(options).pool(zoo_pool(&["echo"]))).await;
        let result = soon("an end", bus.request("echo", 1)).await;
        let error = assert_kind(result, ErrorCode::TransportError);
        assert!(error.to_string().contains("Broken pipe"), "{error}");
        bus.state_changes().reached(BusState::Stopped).await;
        wait_until("nothing is left", BOUND, || {
            children(std::process::id()).is_empty()
        });
    });
}

#[test]
fn what_the_program_says_at_its_very_end_is_kept() {
    alone_async(|| async {
        let dir = TempDir::new();
        let talks = format!("{READY}\ncat >/dev/null\nexec seq 1 50000 >&2");
        let options = SubprocessOptions::new().binary_path(script(&dir, &talks));
        let bus = started(over(options).pool(zoo_pool(&["echo"]))).await;
        bus.stop().await.expect("stops");
        assert_eq!(bus.stderr_tail(1).await.expect("kept"), ["50000"]);

        let fails = format!("{READY}\nread x\nseq 1 50000 >&2\nexit 3");
        let options = SubprocessOptions::new().binary_path(script(&dir, &fails));
        let bus = started(over(options).pool(zoo_pool(&["echo"]))).await;
        let result = soon("an end", bus.request("echo", 1)).await;
        let error = assert_kind(result, ErrorCode::TransportError);
        let text = error.to_string();
        assert!(
            text.contains("exit status: 3") && text.ends_with("50000"),
            "{text}"
        );
    });
}

#[test]
fn a_program_that_floods_its_stderr_before_it_is_ready_fills_no_memory() {
    alone_async(|| async {
        let dir = TempDir::new();
        let floods = script(&dir, "exec yes >&2");
        let options = SubprocessOptions::new()
            .binary_path(floods)
            .start_timeout(Duration::from_secs(1));
        let bus = over(options)
            .pool(zoo_pool(&["echo"]))
            .build()
            .expect("valid");
        let before = common::resident(std::process::id());
        assert_kind(bus.start().await, ErrorCode::Unavailable);
        let status = fs::read_to_string("/proc/self/status").expect("read");
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let peak = peak.and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok());
        let grown = (peak.expect("a number of KiB") * 1024).saturating_sub(before);
        assert!(grown < 32 << 20, "{grown} bytes");
    });
}

#[test]
fn limits_of_any_length_are_taken() {
    alone_async(|| async {
        let options = SubprocessOptions::new()
            .binary_path(program())
            .start_timeout(Duration::MAX)
            .drain_timeout(Duration::MAX);
        let bus = started(over(options).pool(zoo_pool(&["echo"]))).await;
        assert_eq!(bus.request("echo", 1).await.expect("answered"), 1);
        bus.stop().await.expect("stops");
    });
}

#[test]
fn a_program_that_closes_its_output_is_lost_and_does_not_stay() {
    alone_async(|| async {
        let dir = TempDir::new();
        let mute = script(&dir, &format!("{READY}\nread x\nexec 1>&-\nexec sleep 100"));
        let options = SubprocessOptions::new().binary_path(mute);
        let bus = started(over(options).pool(zoo_pool(&["echo"]))).await;
        let result = soon("an end", bus.request("echo", 1)).await;
        let error = assert_kind(result, ErrorCode::TransportError);
        assert!(error.to_string().contains("closed its stdout"), "{error}");
        wait_until("nothing is left", BOUND, || {
            children(std::process::id()).is_empty()
        });
    });
}

#[test]
fn workers_that_ignore_everything_do_not_outlive_a_stop_however_short() {
    alone_async(|| async {
        for limit in [Duration::ZERO, Duration::from_secs(2)] {
            let pool = zoo_pool(&["ignore-eof", "ignore-term"]);
            let bus = started(over(SubprocessOptions::new().binary_path(program())).pool(pool));
            let bus = bus.await;
            let worker = children(child())[0];
            bus.stop_with_timeout(limit).await.expect("stops");
            wait_until("the worker is gone", Duration::from_secs(10), || {
                !runs(worker)
            });
        }
    });
}
