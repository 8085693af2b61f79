//! The client's life: states, start and stop, what it tells, and who it lets in.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::client::{assert_kind, block_on, eventually, short, started};
use common::{BOUND, TempDir, alone, alone_async, assert_gone, zoo_pool};
use serde_json::{Value, json};
use stdiobus::{
    BusConfig, BusState, ClientMode, ErrorCode, Event, LimitsConfig, ListenAddr, ListenMode,
    LogLevel, PoolConfig, Protocol, RestartPolicy, StderrMode, StdioBus, WorkerState,
};

// ---- lifecycle ---------------------------------------------------------------------------------

#[test]
fn a_bus_goes_through_its_states_once() {
    alone_async(|| async {
        let bus = StdioBus::builder()
            .pool(zoo_pool(&["echo"]))
            .build()
            .expect("valid");
        assert_eq!(bus.state(), BusState::Created);
        assert_kind(
            bus.request("echo", json!({})).await,
            ErrorCode::InvalidState,
        );
        assert_kind(bus.notify("echo", json!({})).await, ErrorCode::InvalidState);
        bus.start().await.expect("starts");
        assert!(bus.is_running());
        assert_kind(bus.start().await, ErrorCode::InvalidState);
        bus.stop().await.expect("stops");
        assert_eq!(bus.state(), BusState::Stopped);
        assert_kind(bus.start().await, ErrorCode::InvalidState);
        let error = assert_kind(
            bus.request("echo", json!({})).await,
            ErrorCode::InvalidState,
        );
        assert!(
            error.to_string().contains("can't be started again"),
            "{error}"
        );
        bus.stop().await.expect("stopping twice is allowed");
    });
}

#[test]
fn a_bus_that_was_never_started_leaves_nothing() {
    alone_async(|| async {
        let bus = StdioBus::builder()
            .pool(zoo_pool(&["echo"]))
            .build()
            .expect("valid");
        bus.stop().await.expect("stops");
        assert_eq!(bus.state(), BusState::Stopped);
        drop(
            StdioBus::builder()
                .pool(zoo_pool(&["echo"]))
                .build()
                .expect("valid"),
        );
    });
}

#[test]
fn a_program_that_is_missing_fails_the_start_with_its_name_and_the_reason() {
    alone_async(|| async {
        let bus = StdioBus::builder()
            .pool(zoo_pool(&["echo"]))
            .pool(PoolConfig::new("missing", "/no/such/program"))
            .build()
            .expect("valid");
        let error = assert_kind(bus.start().await, ErrorCode::Unavailable);
        let text = error.to_string();
        assert!(text.contains("/no/such/program"), "{text}");
        assert!(text.contains("No such file or directory"), "{text}");
        assert_eq!(bus.state(), BusState::Stopped);
        assert_kind(bus.start().await, ErrorCode::InvalidState);
    });
}

#[test]
fn a_configuration_that_is_not_valid_fails_the_build() {
    alone(|| {
        let refused = |json: &str| {
            let error = assert_kind(
                StdioBus::builder().config_json(json).build(),
                ErrorCode::InvalidArgument,
            );
            error.to_string()
        };
        let text =
            refused("{\n \"pools\": [{\"id\": \"a\", \"command\": \"c\", \"instances\": -1}]\n}");
        for part in ["config: ", "line 2", "column", "instances"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        refused("");
        refused("{");
        refused(r#"{"pools": []}"#);

        let error = StdioBus::builder().config_path("/no/such/file").build();
        let text = assert_kind(error, ErrorCode::InvalidArgument).to_string();
        assert!(text.contains("/no/such/file"), "{text}");
        let twice = StdioBus::builder()
            .pool(zoo_pool(&[]))
            .pool(zoo_pool(&[]))
            .build();
        let text = assert_kind(twice, ErrorCode::InvalidArgument).to_string();
        assert!(text.contains("\"zoo\"") && text.contains("id"), "{text}");
    });
}

#[test]
fn every_field_of_a_configuration_is_understood_by_the_bus() {
    alone_async(|| async {
        let pool = zoo_pool(&["echo"])
            .instances(1)
            .env("ZOO_COLOUR", "ü\"\\\n")
            .inherit_env(false)
            .cwd("/")
            .protocol(Protocol::Acp)
            .restart(RestartPolicy::OnFailure)
            .stderr(StderrMode::Null)
            .initialize(json!({"protocolVersion": 1}))
            .init_timeout_sec(7)
            .clients(ClientMode::Shared);
        let limits = LimitsConfig::new()
            .max_input_buffer(1 << 20)
            .max_output_queue(4 << 20)
            .max_restarts(0)
            .restart_window_sec(1)
            .drain_timeout_sec(0)
            .backpressure_timeout_sec(1)
            .stall_timeout_sec(0)
            .max_sessions(10)
            .session_idle_sec(0)
            .max_pending(10)
            .max_clients(10);
        let config = BusConfig::new()
            .pool(pool)
            .default_pool("zoo")
            .limits(limits);
        let complaints = Arc::new(AtomicUsize::new(0));
        let bus = StdioBus::builder()
            .config(config)
            .log_level(LogLevel::Warn)
            .on_log({
                let complaints = Arc::clone(&complaints);
                move |_, line| {
                    eprintln!("{line}");
                    complaints.fetch_add(1, Ordering::Relaxed);
                }
            })
            .build()
            .expect("valid");
        bus.start().await.expect("starts");
        assert_eq!(
            complaints.load(Ordering::Relaxed),
            0,
            "unknown keys are warned of"
        );
        let colour = bus
            .request("env", json!({"name": "ZOO_COLOUR"}))
            .await
            .expect("answered");
        assert_eq!(colour, "ü\"\\\n");
        assert_eq!(bus.request("cwd", json!({})).await.expect("answered"), "/");
        bus.stop().await.expect("stops");
    });
}

#[test]
fn a_stop_ends_what_is_in_flight_at_once() {
    alone_async(|| async {
        let bus = started(&["echo"]).await;
        let held: Vec<_> = (0..100)
            .map(|_| tokio::spawn(bus.request("hold", json!({}))))
            .collect();
        eventually("all are pending", || bus.pending_count() == Some(100)).await;
        let start = Instant::now();
        let stop = tokio::spawn({
            let bus = bus.clone();
            async move { bus.stop().await }
        });
        for task in held {
            let error = assert_kind(task.await.expect("no panic"), ErrorCode::TransportError);
            assert_eq!(error.to_string(), "bus is shutting down");
        }
        assert!(
            start.elapsed() < Duration::from_secs(1),
            "{:?}",
            start.elapsed()
        );
        let report = stop.await.expect("no panic").expect("stops");
        assert_eq!(
            (report.exits.len(), report.terminated(), report.killed()),
            (2, 0, 0)
        );
        assert_eq!(bus.pending_count(), Some(0));
    });
}

#[test]
fn workers_that_ignore_everything_are_killed_in_time() {
    alone_async(|| async {
        let bus = started(&["ignore-term"]).await;
        let start = Instant::now();
        let report = bus
            .stop_with_timeout(Duration::from_secs(2))
            .await
            .expect("stops");
        assert!(
            start.elapsed() < Duration::from_secs(3),
            "{:?}",
            start.elapsed()
        );
        assert_eq!(report.killed(), 2, "{report:?}");
    });
}

#[test]
fn the_log_tells_each_step_of_a_stop_and_the_report_what_a_worker_last_wrote() {
    alone_async(|| async {
        let (log, lines) = std::sync::mpsc::channel();
        let script = "trap '' TERM; echo 'I stay' >&2; cat >/dev/null; while :; do sleep 1; done";
        let pool = PoolConfig::new("stays", "sh").args(["-c", script]);
        let builder = StdioBus::builder().pool(pool.stderr(StderrMode::Log));
        let bus = builder.on_log(move |_, line| drop(log.send(line.to_owned())));
        let bus = bus.build().expect("valid");
        let mut events = bus.events();
        bus.start().await.expect("starts");
        // Once it has set up all that.
        while !matches!(events.next().await, Some(Event::WorkerStderr { .. })) {}
        let report = bus.stop_with_timeout(Duration::from_secs(2)).await;
        let exit = &report.expect("stops").exits[0];
        assert_eq!((exit.signal, exit.stderr_tail.trim()), (Some(9), "I stay"));
        drop(bus);
        let lines: Vec<String> = lines.iter().collect();
        let steps = lines.iter().filter(|line| line.contains("has not ended"));
        assert_eq!(
            steps.collect::<Vec<_>>(),
            [
                "worker 0 (stays) was told that nothing more comes, and has not ended: SIGTERM",
                "worker 0 (stays) has not ended: SIGKILL",
            ]
        );
    });
}

#[test]
fn a_drain_lets_what_is_in_flight_end() {
    alone_async(|| async {
        let bus = started(&["echo"]).await;
        let slow = tokio::spawn(bus.request("sleep", json!({"ms": 200})));
        eventually("it is pending", || bus.pending_count() == Some(1)).await;
        let drain = tokio::spawn({
            let bus = bus.clone();
            async move { bus.drain(Duration::from_secs(20)).await }
        });
        eventually("it drains", || bus.state() == BusState::Stopping).await;
        assert_kind(
            bus.request("echo", json!({})).await,
            ErrorCode::TransportError,
        );
        assert_eq!(
            slow.await.expect("no panic").expect("answered"),
            json!({"ms": 200})
        );
        drain.await.expect("no panic").expect("drains");
        assert_eq!(bus.state(), BusState::Stopped);
    });
}

#[test]
fn a_drain_ends_what_takes_too_long() {
    alone_async(|| async {
        let bus = started(&["echo"]).await;
        let held = tokio::spawn(bus.request("hold", json!({})));
        eventually("it is pending", || bus.pending_count() == Some(1)).await;
        bus.drain(Duration::from_millis(100)).await.expect("drains");
        assert_kind(held.await.expect("no panic"), ErrorCode::TransportError);
    });
}

#[test]
fn a_drain_without_a_limit_has_that_of_the_configuration() {
    alone_async(|| async {
        let mut limits = LimitsConfig::new();
        limits.drain_timeout_sec = Some(1);
        let builder = StdioBus::builder().pool(zoo_pool(&["echo"])).limits(limits);
        let bus = builder.build().expect("valid");
        bus.start().await.expect("starts");
        let held = tokio::spawn(bus.request("hold", json!({})));
        eventually("it is pending", || bus.pending_count() == Some(1)).await;
        let start = Instant::now();
        bus.drain(None).await.expect("drains");
        let took = start.elapsed();
        assert!(
            took >= Duration::from_secs(1) && took < Duration::from_secs(10),
            "{took:?}"
        );
        assert_kind(held.await.expect("no panic"), ErrorCode::TransportError);
    });
}

#[test]
fn dropping_the_bus_ends_everything_without_waiting() {
    alone_async(|| async {
        let bus = started(&["ignore-eof"]).await;
        let workers = bus.workers().await.expect("listed");
        let pids: Vec<u32> = workers.iter().filter_map(|worker| worker.pid).collect();
        assert_eq!(pids.len(), 2);
        let held = tokio::spawn(bus.request("hold", json!({})));
        eventually("it is pending", || bus.pending_count() == Some(1)).await;

        let start = Instant::now();
        drop(bus);
        assert!(
            start.elapsed() < Duration::from_millis(100),
            "{:?}",
            start.elapsed()
        );
        let error = assert_kind(held.await.expect("no panic"), ErrorCode::TransportError);
        assert_eq!(error.to_string(), "bus is shutting down");
        assert_gone(&pids, BOUND);
    });
}

#[test]
fn no_particular_runtime_is_needed() {
    alone(|| {
        let bus = StdioBus::builder()
            .pool(zoo_pool(&["echo"]))
            .build()
            .expect("valid");
        block_on(bus.start()).expect("starts");
        assert_eq!(
            block_on(bus.request("echo", json!([1]))).expect("answered"),
            json!([1])
        );
        assert_kind(
            block_on(bus.request_with("hold", json!({}), short())),
            ErrorCode::Timeout,
        );
        block_on(bus.stop()).expect("stops");
    });
}

#[test]
fn the_bus_thread_hears_every_command_however_they_fall() {
    alone(|| {
        let bus = StdioBus::builder()
            .pool(zoo_pool(&["echo"]))
            .build()
            .expect("valid");
        block_on(bus.start()).expect("starts");
        // Each waits for its own answer, so the thread goes to sleep all the
        // time; it is woken by these threads and by the worker, and a command
        // that it doesn't hear would be the last.
        let asking: Vec<_> = (0..8)
            .map(|number| {
                let bus = bus.clone();
                thread::spawn(move || {
                    for _ in 0..3_000 {
                        if number % 2 == 0 {
                            block_on(bus.stats()).expect("counted");
                        } else {
                            block_on(bus.request("echo", json!([number]))).expect("answered");
                        }
                    }
                })
            })
            .collect();
        for thread in asking {
            thread.join().expect("no panic");
        }
        block_on(bus.stop()).expect("stops");
    });
}

// ---- what a bus tells --------------------------------------------------------------------------

#[test]
fn the_counts_are_right() {
    alone_async(|| async {
        let bus = started(&["echo"]).await;
        assert_eq!(bus.worker_count(), Some(2));
        assert_eq!(
            (bus.client_count(), bus.session_count()),
            (Some(0), Some(0))
        );
        for _ in 0..3 {
            bus.request("echo", json!({})).await.expect("answered");
        }
        assert_eq!(
            (bus.session_count(), bus.pending_count()),
            (Some(1), Some(0))
        );
        let stats = bus.stats().await.expect("counted");
        assert_eq!((stats.messages_in, stats.messages_out), (3, 3), "{stats:?}");
        assert!(stats.bytes_in > 0 && stats.bytes_out > 0, "{stats:?}");

        let workers = bus.workers().await.expect("listed");
        assert_eq!(workers.len(), 2);
        for (number, worker) in workers.iter().enumerate() {
            assert_eq!((worker.id, worker.pool.as_str()), (number, "zoo"));
            assert_eq!(worker.state, WorkerState::Ready);
            assert_eq!(
                (worker.generation, worker.restarts, worker.pending),
                (1, 0, 0)
            );
            assert!(worker.pid.is_some());
        }
        bus.stop().await.expect("stops");
        assert_eq!(bus.worker_count(), Some(0));
        assert_eq!(bus.stats().await.expect("the last ones").messages_in, 3);
    });
}

#[test]
fn events_tell_a_workers_life_in_order() {
    alone_async(|| async {
        let bus = StdioBus::builder()
            .pool(zoo_pool(&["echo"]))
            .build()
            .expect("valid");
        let mut events = bus.events();
        bus.start().await.expect("starts");
        bus.request("exit", json!({"code": 3}))
            .await
            .expect_err("it exits");
        let mut told = Vec::new();
        while told.iter().filter(|word| **word == "ready").count() < 2 {
            let event = tokio::time::timeout(BOUND, events.next())
                .await
                .expect("in time");
            match event.expect("the bus runs") {
                Event::WorkerStarted(worker) => {
                    assert!(worker.pid.is_some());
                    told.push("started");
                }
                Event::WorkerReady(_) => told.push("ready"),
                Event::WorkerStopped { exit, .. } => {
                    assert_eq!(exit.code, Some(3));
                    told.push("stopped");
                }
                Event::WorkerRestarting { .. } => told.push("restarting"),
                _ => {}
            }
        }
        assert_eq!(
            told,
            [
                "started",
                "ready",
                "stopped",
                "restarting",
                "started",
                "ready"
            ]
        );
        bus.stop().await.expect("stops");
        while events.next().await.is_some() {}
        assert_eq!(events.lagged(), 0);
    });
}

#[test]
fn log_lines_go_to_the_sink_even_if_it_panics() {
    alone_async(|| async {
        static LINES: AtomicUsize = AtomicUsize::new(0);
        std::panic::set_hook(Box::new(|_| {}));
        let bus = StdioBus::builder()
            .pool(zoo_pool(&["echo"]))
            .on_log(|_, _| {
                LINES.fetch_add(1, Ordering::Relaxed);
                panic!("a bad sink");
            })
            .build()
            .expect("valid");
        bus.start().await.expect("starts");
        bus.request("echo", json!({})).await.expect("answered");
        bus.stop().await.expect("stops");
        let _ = std::panic::take_hook();
        assert!(LINES.load(Ordering::Relaxed) > 0);
    });
}

// ---- listeners ---------------------------------------------------------------------------------

#[test]
fn other_processes_come_in_through_several_listeners() {
    alone_async(|| async {
        let dir = TempDir::new();
        let (first, second) = (dir.path("1.sock"), dir.path("2.sock"));
        let bus = StdioBus::builder()
            .pool(zoo_pool(&["echo"]))
            .listen(ListenMode::unix(&first))
            .listen(ListenMode::tcp("127.0.0.1", 0))
            .listen(ListenMode::unix(&second))
            .build()
            .expect("valid");
        assert_eq!(bus.listen_addrs(), []);
        bus.start().await.expect("starts");
        let addresses = bus.listen_addrs();
        let [
            ListenAddr::Unix(a),
            ListenAddr::Tcp(tcp),
            ListenAddr::Unix(b),
        ] = &addresses[..]
        else {
            panic!("{addresses:?}");
        };
        assert_eq!((a, b), (&first, &second));
        assert_ne!(tcp.port(), 0);
        tokio::task::block_in_place(|| {
            let mut clients = [
                common::Client::unix(a),
                common::Client::tcp(&tcp.to_string()),
                common::Client::unix(b),
            ];
            for (number, client) in clients.iter_mut().enumerate() {
                let answer = client.ask(&format!(
                    r#"{{"id":1,"method":"echo","params":[{number}]}}"#
                ));
                assert_eq!(answer["result"], json!([number]));
            }
            assert_eq!(bus.client_count(), Some(3));
        });
        eventually("the clients are gone", || bus.client_count() == Some(0)).await;
        bus.stop().await.expect("stops");
        assert!(!first.exists() && !second.exists());
    });
}

#[test]
fn an_address_that_can_not_be_bound_fails_the_start() {
    alone_async(|| async {
        let dir = TempDir::new();
        let path = dir.path("no such folder/bus.sock");
        let bus = StdioBus::builder()
            .pool(zoo_pool(&["echo"]))
            .listen(ListenMode::unix(&path))
            .build()
            .expect("valid");
        let mut events = bus.events();
        let error = assert_kind(bus.start().await, ErrorCode::Unavailable);
        assert!(error.to_string().contains("bus.sock"), "{error}");
        assert_eq!(events.next().await, None, "no worker was started");
    });
}

#[test]
fn a_client_can_be_served_over_descriptors() {
    alone_async(|| async {
        use std::io::{BufRead, BufReader, Write};
        use std::os::unix::net::UnixStream;

        let bus = started(&["echo"]).await;
        let (mine, theirs) = UnixStream::pair().expect("a pair");
        let client = bus
            .adopt_client(theirs.try_clone().expect("cloned"), theirs)
            .await
            .expect("adopted");
        assert!(client.id() > 0);
        let answer = tokio::task::block_in_place(|| {
            (&mine)
                .write_all(b"{\"id\":1,\"method\":\"echo\",\"params\":[1]}\n")
                .expect("sent");
            let mut line = String::new();
            BufReader::new(&mine)
                .read_line(&mut line)
                .expect("answered");
            serde_json::from_str::<Value>(&line).expect("JSON")
        });
        assert_eq!(answer["result"], json!([1]));
        drop(mine);
        assert_eq!(client.closed().await, "closed");
        bus.stop().await.expect("stops");
    });
}
