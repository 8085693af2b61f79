//! Workers that die, hang or misbehave, and buses that die with them: every request ends exactly
//! once, and nothing is left behind.

mod common;

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::{
    BOUND, Client, Program, TempDir, alone, alone_async, assert_gone, children, runs, signal,
    threads_named, wait_until, zoo_config, zoo_pool,
};
use serde_json::{Value, json};
use stdiobus::{ErrorCode, ListenMode, PoolConfig, StdioBus};

const UNIX: &[&str] = &["--unix", "{dir}/bus.sock"];

async fn started(modes: &[&str], instances: u32) -> StdioBus {
    let bus = StdioBus::builder()
        .pool(zoo_pool(modes).instances(instances))
        .build()
        .unwrap();
    bus.start().await.unwrap();
    bus
}

/// The process id of a worker; of the only one, where there is one.
async fn pid(bus: &StdioBus) -> u32 {
    let pid = bus.request("pid", Value::Null).await.unwrap();
    pid.as_u64().unwrap() as u32
}

async fn pids(bus: &StdioBus) -> Vec<u32> {
    bus.workers()
        .await
        .unwrap()
        .iter()
        .filter_map(|worker| worker.pid)
        .collect()
}

// ---- a worker that dies --------------------------------------------------------------------------

#[test]
fn a_killed_worker_ends_its_hundred_requests_at_once_and_is_back() {
    alone_async(|| async {
        let bus = started(&["echo"], 1).await;
        let requests: Vec<_> = (0..100)
            .map(|_| {
                let bus = bus.clone();
                tokio::spawn(async move { bus.request("hold", json!({})).await })
            })
            .collect();
        wait_until_async("100 requests are pending", || {
            bus.pending_count() == Some(100)
        })
        .await;
        let victim = pid(&bus).await; // the worker has read the hundred before this

        signal(victim, "KILL");
        let killed = Instant::now();
        for request in requests {
            let error = request
                .await
                .unwrap()
                .expect_err("held requests are never answered");
            assert_eq!(error.kind(), Some(ErrorCode::TransportError), "{error}");
            assert_eq!(error.rpc_code(), Some(-32011));
            assert_eq!(error.exit().and_then(|exit| exit.signal), Some(9));
        }
        let took = killed.elapsed();
        assert!(took < Duration::from_millis(100), "{took:?}");

        assert_ne!(pid(&bus).await, victim);
        assert_eq!(bus.pending_count(), Some(0));
        bus.stop().await.unwrap();
    });
}

#[test]
fn a_killed_worker_ends_the_requests_of_socket_clients_at_once() {
    alone(|| {
        let bus = Program::start(&zoo_config(1, &["echo"]), UNIX);
        let (mut a, mut b) = (bus.unix_client(), bus.unix_client());
        for id in 0..50 {
            for client in [&mut a, &mut b] {
                client.send(&format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"hold"}}"#));
            }
        }
        // Each client's answer comes after its own held requests have reached the worker.
        let victim = a.ask(r#"{"jsonrpc":"2.0","id":"pid","method":"pid"}"#)["result"].as_u64();
        b.ask(r#"{"jsonrpc":"2.0","id":"pid","method":"pid"}"#);

        signal(victim.unwrap() as u32, "KILL");
        let killed = Instant::now();
        for client in [&mut a, &mut b] {
            let mut ids: Vec<_> = (0..50)
                .map(|_| {
                    let answer = client.receive_json();
                    assert_eq!(answer["error"]["code"], -32011, "{answer}");
                    assert_eq!(answer["error"]["data"]["source"], "stdio_bus");
                    assert_eq!(answer["error"]["data"]["reason"], "worker_exited");
                    answer["id"].as_u64().unwrap()
                })
                .collect();
            ids.sort();
            assert!(ids.into_iter().eq(0..50), "each request ends once");
        }
        let took = killed.elapsed();
        assert!(took < Duration::from_millis(100), "{took:?}");
        assert_eq!(
            a.ask(r#"{"jsonrpc":"2.0","id":1,"method":"echo","params":1}"#)["result"],
            1
        );
    });
}

#[test]
fn a_worker_that_exits_by_itself_ends_its_requests_and_is_back() {
    alone_async(|| async {
        let bus = started(&["echo"], 1).await;
        for code in [0, 3] {
            let error = bus
                .request("exit", json!({"code": code}))
                .await
                .expect_err("no answer");
            assert_eq!(
                error.exit().and_then(|exit| exit.code),
                Some(code),
                "{error}"
            );
            assert_eq!(bus.request("echo", json!(1)).await.unwrap(), 1);
        }
        bus.stop().await.unwrap();
    });
}

/// Reads no more once it was asked for `last`, and answers that when the fifo is written to.
const LEAVING: &str = r#"
while read line; do
    id=$(echo "$line" | sed 's/.*"id":\([0-9]*\).*/\1/')
    case "$line" in *'"last"'*) exec <&-; read go <"$FIFO" ;; esac
    echo "{\"jsonrpc\":\"2.0\",\"id\":$id,\"result\":0}"
done
"#;

#[test]
fn what_a_leaving_worker_still_answers_comes_before_what_was_asked_later_in_its_session() {
    alone_async(|| async {
        let dir = TempDir::new();
        let fifo = dir.path("fifo");
        let made = Command::new("mkfifo").arg(&fifo).status().unwrap();
        assert!(made.success());
        let pool = PoolConfig::new("sh", "sh").args(["-c", LEAVING]);
        let bus = StdioBus::builder()
            .pool(pool.instances(2).env("FIFO", &fifo))
            .listen(ListenMode::unix(dir.path("bus.sock")))
            .build()
            .unwrap();
        bus.start().await.unwrap();
        let mut client = Client::unix(dir.path("bus.sock"));
        let ask = |client: &mut Client, id: u64, session: &str, method: &str| {
            let ask = json!({"id": id, "sessionId": session, "method": method});
            client.send(&ask.to_string());
        };
        ask(&mut client, 1, "a", "last");
        let deadline = Instant::now() + BOUND;
        while bus.pools().await.unwrap()[0].ready != 1 {
            assert!(Instant::now() < deadline, "both still take messages");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        ask(&mut client, 2, "a", "next");
        ask(&mut client, 3, "b", "next");
        assert_eq!(client.receive_json()["id"], 3, "another session goes on");
        fs::write(&fifo, "go\n").unwrap();
        assert_eq!(client.receive_json()["id"], 1);
        assert_eq!(client.receive_json()["id"], 2);
        bus.stop().await.unwrap();
    });
}

#[test]
fn half_an_answer_is_no_answer() {
    alone_async(|| async {
        let bus = started(&["exit-mid"], 1).await;
        let error = bus
            .request("echo", json!({}))
            .await
            .expect_err("half an answer");
        assert_eq!(error.rpc_code(), Some(-32011), "{error}");
        bus.stop().await.unwrap();
    });
}

#[test]
fn a_last_answer_without_a_newline_is_an_answer() {
    alone_async(|| async {
        let bus = started(&["noeof"], 1).await;
        assert_eq!(bus.request("echo", json!("last")).await.unwrap(), "last");
        bus.stop().await.unwrap();
    });
}

#[test]
fn a_worker_that_always_exits_at_once_ends_every_request_with_a_reason() {
    alone_async(|| async {
        let limits = stdiobus::LimitsConfig::new().max_restarts(2);
        let bus = StdioBus::builder()
            .pool(zoo_pool(&["exit", "4"]))
            .limits(limits)
            .build()
            .unwrap();
        bus.start().await.unwrap();
        let error = bus
            .request("echo", json!({}))
            .await
            .expect_err("nobody can answer");
        assert_eq!(error.rpc_code(), Some(-32011), "{error}");
        bus.stop().await.unwrap();
    });
}

#[test]
fn a_worker_that_closes_its_output_is_replaced() {
    alone(|| {
        // The first worker is mute, as long as this file is not there; the shell makes it.
        let dir = TempDir::new();
        let script =
            "if mkdir \"$1\" 2>/dev/null; then exec \"$0\" mute; else exec \"$0\" echo; fi";
        let args = json!(["-c", script, common::zoo(), dir.path("flag")]);
        let config = json!({"pools": [{"id": "zoo", "command": "sh", "args": args}]}).to_string();
        let bus = Program::start(&config, UNIX);
        let mut client = bus.unix_client();
        let first = client.ask(r#"{"jsonrpc":"2.0","id":1,"method":"echo","params":1}"#);
        if first["error"].is_object() {
            assert_eq!(first["error"]["code"], -32011, "{first}");
            let second = client.ask(r#"{"jsonrpc":"2.0","id":2,"method":"echo","params":2}"#);
            assert_eq!(second["result"], 2);
        } else {
            assert_eq!(first["result"], 1); // it had waited for the new worker
        }
    });
}

/// Sends requests, up to 50 at once, and checks that each ends exactly once: with its own answer or
/// because a worker died. Returns how many got their answer.
fn each_request_ends_once(client: &mut Client, requests: usize, ended: &AtomicUsize) -> usize {
    let (mut open, mut answered) = (HashSet::new(), 0);
    for id in 0..requests {
        client.send(&format!(
            r#"{{"jsonrpc":"2.0","id":{id},"method":"echo","params":[{id}]}}"#
        ));
        open.insert(id);
        while open.len() == 50 || (id + 1 == requests && !open.is_empty()) {
            let answer = client.receive_json();
            let id = answer["id"].as_u64().unwrap() as usize;
            assert!(open.remove(&id), "nobody waits for this: {answer}");
            if answer["error"].is_object() {
                assert_eq!(answer["error"]["code"], -32011, "{answer}");
            } else {
                assert_eq!(answer["result"], json!([id]), "{answer}");
                answered += 1;
            }
            ended.fetch_add(1, Ordering::Relaxed);
        }
    }
    answered
}

#[test]
fn under_kills_at_any_moment_each_request_ends_exactly_once() {
    const CLIENTS: usize = 4;
    const REQUESTS: usize = 2000;
    const KILLS: usize = 12;
    alone(|| {
        let mut config: Value = serde_json::from_str(&zoo_config(3, &["echo"])).unwrap();
        config["limits"] = json!({"max_restarts": 1000});
        let bus = Program::start(&config.to_string(), UNIX);
        let ended = AtomicUsize::new(0);
        let answered = thread::scope(|scope| {
            let client = || {
                let mut client = bus.unix_client();
                scope.spawn({
                    let ended = &ended;
                    move || each_request_ends_once(&mut client, REQUESTS, ended)
                })
            };
            let clients: Vec<_> = (0..CLIENTS).map(|_| client()).collect();
            // One that was killed may be seen to run for a moment.
            let mut killed = Vec::new();
            for kill in 1..=KILLS {
                let due = kill * CLIENTS * REQUESTS / (KILLS + 1);
                let mut alive = Vec::new();
                wait_until("requests end and a worker runs", BOUND, || {
                    alive = children(bus.pid())
                        .into_iter()
                        .filter(|pid| runs(*pid) && !killed.contains(pid))
                        .collect();
                    ended.load(Ordering::Relaxed) >= due && !alive.is_empty()
                });
                let victim = alive[kill % alive.len()];
                signal(victim, "KILL");
                killed.push(victim);
            }
            clients
                .into_iter()
                .map(|client| client.join().unwrap())
                .sum::<usize>()
        });
        let lost = CLIENTS * REQUESTS - answered;
        // A kill can end what one worker has in hand, and nothing else.
        assert!(
            lost <= KILLS * CLIENTS * 50,
            "{lost} requests ended without their answer"
        );
    });
}

// ---- a worker that misbehaves --------------------------------------------------------------------

fn is_served(modes: &'static [&'static str]) {
    alone_async(|| async {
        let bus = started(modes, 1).await;
        for n in 0..3 {
            let answer = bus.request("echo", json!({"n": n})).await.unwrap();
            assert_eq!(answer, json!({"n": n}), "{modes:?}");
        }
        bus.stop().await.unwrap();
    });
}

#[test]
fn a_worker_that_fills_stderr_before_it_answers_is_served() {
    is_served(&["chatty"]);
}

#[test]
fn a_worker_that_prints_garbage_is_served() {
    is_served(&["garbage"]);
}

#[test]
fn a_worker_that_starts_with_a_byte_order_mark_is_served() {
    is_served(&["bom"]);
}

#[test]
fn a_worker_that_ends_lines_with_crlf_is_served() {
    is_served(&["crlf"]);
}

#[test]
fn a_worker_that_answers_twice_is_served() {
    is_served(&["twice"]);
}

#[test]
fn a_worker_that_answers_ids_nobody_asked_is_served() {
    is_served(&["unknown-ids"]);
}

#[test]
fn a_worker_that_floods_notifications_is_served() {
    is_served(&["flood", "20000"]);
}

#[test]
fn a_worker_that_sends_requests_with_id_zero_is_served() {
    is_served(&["ask"]);
}

#[test]
fn an_answer_above_the_limit_ends_its_request_and_the_worker_lives() {
    alone_async(|| async {
        let bus = started(&["echo"], 1).await;
        let before = pid(&bus).await;
        let error = bus
            .request("big", json!({"n": 11 << 20}))
            .await
            .expect_err("too large");
        assert_eq!(
            error.rpc_data().map(|data| &data["reason"]),
            Some(&json!("too_large")),
            "{error}"
        );
        assert_eq!(pid(&bus).await, before);
        bus.stop().await.unwrap();
    });
}

#[test]
fn a_worker_inherits_its_pipes_and_nothing_else() {
    alone(|| {
        let bus = Program::start(&zoo_config(3, &["echo"]), UNIX);
        let mut client = bus.unix_client();
        for _ in 0..3 {
            assert_eq!(
                client.ask(r#"{"jsonrpc":"2.0","id":1,"method":"fds"}"#)["result"],
                3
            );
        }
    });
}

#[test]
fn a_worker_has_the_environment_and_the_folder_of_its_pool() {
    alone_async(|| async {
        let pool = zoo_pool(&["echo"])
            .env("ZOO_VAR", "a \"b\" \u{e9}")
            .cwd("/");
        let bus = StdioBus::builder().pool(pool).build().unwrap();
        bus.start().await.unwrap();
        let value = bus
            .request("env", json!({"name": "ZOO_VAR"}))
            .await
            .unwrap();
        assert_eq!(value, "a \"b\" \u{e9}");
        assert!(
            bus.request("env", json!({"name": "PATH"}))
                .await
                .unwrap()
                .is_string()
        );
        assert_eq!(bus.request("cwd", Value::Null).await.unwrap(), "/");
        bus.stop().await.unwrap();
    });
}

// ---- stopping ------------------------------------------------------------------------------------

#[test]
fn a_stop_ends_a_worker_that_ignores_everything_within_its_bound() {
    alone_async(|| async {
        let bus = started(&["ignore-term"], 1).await;
        pid(&bus).await; // it has got so far as to ignore the signal
        let pids = pids(&bus).await;
        let start = Instant::now();
        let report = bus.stop_with_timeout(Duration::from_secs(2)).await.unwrap();
        assert_eq!(report.killed(), 1);
        assert!(
            start.elapsed() < Duration::from_secs(3),
            "{:?}",
            start.elapsed()
        );
        assert_gone(&pids, BOUND);
    });
}

#[test]
fn a_stop_ends_a_worker_that_reads_nothing() {
    alone_async(|| async {
        let bus = started(&["deaf"], 1).await;
        let unanswered = tokio::spawn({
            let bus = bus.clone();
            async move { bus.request("echo", json!({})).await }
        });
        wait_until_async("the request is pending", || bus.pending_count() == Some(1)).await;
        bus.stop_with_timeout(Duration::from_secs(2)).await.unwrap();
        let error = unanswered.await.unwrap().expect_err("never read");
        assert_eq!(error.kind(), Some(ErrorCode::TransportError), "{error}");
    });
}

#[test]
fn a_worker_is_asked_by_end_of_input_before_it_is_told_by_sigterm() {
    alone_async(|| async {
        let dir = TempDir::new();
        let report = dir.path("report");
        let bus = started(&["report", report.to_str().unwrap()], 1).await;
        pid(&bus).await;
        bus.stop().await.unwrap();
        assert_eq!(fs::read_to_string(report).unwrap(), "eof\n");
    });
}

#[test]
fn grandchildren_are_gone_after_a_stop() {
    alone_async(|| async {
        let bus = started(&["fork"], 1).await;
        let answer = bus.request("echo", json!({})).await.unwrap();
        let grandchild = answer["grandchild"].as_u64().unwrap() as u32;
        assert!(runs(grandchild));
        bus.stop().await.unwrap();
        wait_until("the grandchild has ended", BOUND, || !runs(grandchild));
    });
}

#[test]
fn a_dropped_bus_leaves_nothing() {
    alone_async(|| async {
        let bus = started(&["echo"], 2).await;
        pid(&bus).await;
        drop(bus); // `alone` checks the rest
    });
}

// ---- a bus that is killed ------------------------------------------------------------------------

/// Three workers that report to `path`-0, -1 and -2, one pool each.
fn reporting_pools(path: &str) -> Value {
    let pool = |n| {
        let report = format!("{path}-{n}");
        json!({"id": format!("zoo-{n}"), "command": common::zoo(), "args": ["report", report]})
    };
    json!({"pools": [pool(0), pool(1), pool(2)]})
}

/// The pids of the three workers, asked through a socket.
fn reporting_pids(client: &mut Client) -> Vec<u32> {
    let mut pid = |n| {
        let answer = client.ask(&format!(r#"{{"id":{n},"pool":"zoo-{n}","method":"pid"}}"#));
        answer["result"].as_u64().unwrap() as u32
    };
    (0..3).map(&mut pid).collect()
}

fn all_get_eof_and_sigterm_and_end_within_a_second(pids: &[u32], path: &str) {
    // Not `assert_gone`: who reaps an orphan is not for the bus to say.
    wait_until("the workers have ended", Duration::from_secs(1), || {
        !pids.iter().any(|pid| runs(*pid))
    });
    for n in 0..3 {
        let report = fs::read_to_string(format!("{path}-{n}")).unwrap();
        let mut seen: Vec<_> = report.lines().collect();
        seen.sort();
        assert_eq!(seen, ["eof", "term"], "worker {n}");
    }
}

#[test]
fn workers_end_when_the_program_is_killed() {
    alone(|| {
        let dir = TempDir::new();
        let path = dir.path("report").to_str().unwrap().to_owned();
        let bus = Program::start(&reporting_pools(&path).to_string(), UNIX);
        let pids = reporting_pids(&mut bus.unix_client());
        signal(bus.pid(), "KILL");
        all_get_eof_and_sigterm_and_end_within_a_second(&pids, &path);
    });
}

const EMBED: &str = "STDIO_BUS_TEST_EMBED";

/// The other half of the next test: a process that embeds the bus and waits to be killed.
fn embed_until_killed(path: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let bus = StdioBus::builder()
            .config_json(reporting_pools(path).to_string())
            .listen(ListenMode::unix(format!("{path}.sock")))
            .build()
            .unwrap();
        bus.start().await.unwrap();
        std::future::pending::<()>().await;
    });
}

#[test]
fn workers_end_when_a_process_that_embeds_the_bus_is_killed() {
    if let Ok(path) = std::env::var(EMBED) {
        return embed_until_killed(&path);
    }
    alone(|| {
        let dir = TempDir::new();
        let path = dir.path("report").to_str().unwrap().to_owned();
        let name = "workers_end_when_a_process_that_embeds_the_bus_is_killed";
        let mut host = Command::new(std::env::current_exe().unwrap())
            .args([name, "--exact", "--nocapture", "--test-threads=1"])
            .env(EMBED, &path)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let socket = format!("{path}.sock");
        wait_until("the host listens", BOUND, || fs::exists(&socket).unwrap());
        let pids = reporting_pids(&mut Client::unix(&socket));
        host.kill().unwrap();
        host.wait().unwrap();
        all_get_eof_and_sigterm_and_end_within_a_second(&pids, &path);
    });
}

// ---- idle ----------------------------------------------------------------------------------------

/// What `/proc` says about a thread: whether it sleeps, and how often it has been switched away
/// from, which grows by one each time it wakes up.
fn sleeps_and_switches(task: &Path) -> (bool, u64) {
    let status = fs::read_to_string(task.join("status")).unwrap();
    let count = |line: &str| {
        line.split_once("ctxt_switches:")?
            .1
            .trim()
            .parse::<u64>()
            .ok()
    };
    (
        status.contains("State:\tS"),
        status.lines().filter_map(count).sum(),
    )
}

fn assert_no_wake_up_in_five_seconds(tasks: &[PathBuf]) {
    let look = || {
        tasks
            .iter()
            .map(|task| sleeps_and_switches(task))
            .collect::<Vec<_>>()
    };
    let mut before = look();
    wait_until("every thread has gone to sleep", BOUND, || {
        thread::sleep(Duration::from_millis(100));
        let last = std::mem::replace(&mut before, look());
        before == last && before.iter().all(|(sleeps, _)| *sleeps)
    });
    thread::sleep(Duration::from_secs(5)); // what is measured
    assert_eq!(look(), before, "wake-ups in 5 s");
}

#[test]
fn an_idle_bus_thread_does_not_wake_up() {
    alone_async(|| async {
        let dir = TempDir::new();
        let bus = StdioBus::builder()
            .pool(zoo_pool(&["echo"]).instances(2))
            .listen(ListenMode::unix(dir.path("bus.sock")))
            .build()
            .unwrap();
        bus.start().await.unwrap();
        let mut client = Client::unix(dir.path("bus.sock"));
        client.ask(r#"{"jsonrpc":"2.0","id":1,"method":"echo"}"#);
        bus.request("echo", json!({})).await.unwrap();

        let threads = threads_named(BUS_THREAD);
        assert_eq!(threads.len(), 1, "one thread is named {BUS_THREAD}");
        assert_no_wake_up_in_five_seconds(&[format!("/proc/self/task/{}", threads[0]).into()]);
        drop(client);
        bus.stop().await.unwrap();
    });
}

#[test]
fn an_idle_program_does_not_wake_up() {
    alone(|| {
        let bus = Program::start(&zoo_config(2, &["echo"]), UNIX);
        let mut client = bus.unix_client();
        client.ask(r#"{"jsonrpc":"2.0","id":1,"method":"echo"}"#);
        let tasks = fs::read_dir(format!("/proc/{}/task", bus.pid())).unwrap();
        let tasks: Vec<_> = tasks.map(|task| task.unwrap().path()).collect();
        assert_no_wake_up_in_five_seconds(&tasks);
    });
}

const BUS_THREAD: &str = "stdiobus";

async fn wait_until_async(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + BOUND;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {BOUND:?}: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
