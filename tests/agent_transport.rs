//! An agent that is called over its stdin and stdout: many requests at once, long lines, and every way
//! in which an agent ends.

mod common;

use std::fs;
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use common::client::{assert_kind, begin, eventually, soon};
use common::peer::worker_script;
use common::{
    TempDir, alone, alone_async, assert_gone, children, open_tokios_sockets, runs, signal, zoo,
};
use serde_json::{Value, json};
use stdiobus::agent::{StdioOptions, StdioTransport, TaskRequest, TaskState};
use stdiobus::{Error, ErrorCode};
use tokio::task::JoinSet;

fn zoo_options(modes: &[&str]) -> StdioOptions {
    StdioOptions::new(zoo().to_str().expect("text"))
        .name("zoo")
        .args(modes.to_vec())
}

async fn zoo_agent(modes: &[&str]) -> StdioTransport {
    StdioTransport::open(zoo_options(modes))
        .await
        .expect("starts")
}

fn python_options(args: &[&str]) -> StdioOptions {
    let script = worker_script("agent.py");
    let args = [script.to_str().expect("text")]
        .into_iter()
        .chain(args.iter().copied());
    StdioOptions::new("python3").name("py").args(args)
}

async fn python_agent(args: &[&str]) -> StdioTransport {
    StdioTransport::open(python_options(args))
        .await
        .expect("starts")
}

async fn sh_agent(script: &str) -> StdioTransport {
    let options = StdioOptions::new("sh").args(["-c", script]);
    StdioTransport::open(options).await.expect("starts")
}

/// A request that has reached the agent, which will not answer it.
async fn held(agent: &StdioTransport) -> tokio::task::JoinHandle<Result<Value, Error>> {
    let asking = agent.clone();
    let asked = tokio::spawn(async move { asking.request("hold", ()).await });
    eventually("it is asked", || agent.pending_count() == 1).await;
    // What comes behind it has been read after it.
    agent.request("echo", json!(1)).await.expect("answered");
    asked
}

// ---- what is asked and answered ----------------------------------------------------------------

#[test]
fn a_task_is_sent_and_comes_back_done() {
    alone_async(|| async {
        let agent = python_agent(&[]).await;
        let task = agent
            .send(&TaskRequest::text("t", "hello"))
            .await
            .expect("done");
        assert_eq!(
            (task.id.as_str(), task.status.state),
            ("t", TaskState::Completed)
        );
        assert_eq!(task.texts().collect::<Vec<_>>(), ["hello"]);
        let task = agent
            .send(&TaskRequest::text("t", "fail"))
            .await
            .expect("a task");
        assert_eq!(task.status.state, TaskState::Failed);
        let error = agent.request("other", ()).await.expect_err("an error");
        assert_eq!(error.rpc_code(), Some(-32601));
        agent.close().await;
    });
}

#[test]
fn a_thousand_requests_at_once_are_answered_in_any_order_each_to_its_caller() {
    alone_async(|| async {
        let agent = python_agent(&["reverse", "1000"]).await;
        let mut asked = JoinSet::new();
        for i in 0..1000 {
            let agent = agent.clone();
            asked.spawn(async move {
                let request = TaskRequest::text("one thread", i.to_string());
                let task = agent.send(&request).await.expect("done");
                assert_eq!(task.texts().collect::<Vec<_>>(), [i.to_string()]);
            });
        }
        let done = soon("all are answered", asked.join_all()).await;
        assert_eq!(done.len(), 1000);
        assert_eq!((agent.pending_count(), agent.unclaimed_count()), (0, 0));
        agent.close().await;
    });
}

#[test]
fn an_id_of_ones_own_comes_back_as_it_was_and_is_refused_while_it_is_taken() {
    alone_async(|| async {
        let agent = python_agent(&["reverse", "2"]).await;
        let frame = |id: &str, text: &str| {
            let params = json!({"id": "t", "message": {"role": "user", "parts": [{"type": "text", "text": text}]}});
            format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"tasks/send","params":{params}}}"#)
        };
        let (first, asking) = (frame("1", "first"), agent.clone());
        let first = tokio::spawn(async move { asking.request_raw(&first).await });
        eventually("it is asked", || agent.pending_count() == 1).await;
        let second = agent.request_raw(&frame("1", "second")).await;
        assert_kind(second, ErrorCode::InvalidState);
        // A text is no number; and the first one still gets its own answer.
        let other = agent
            .request_raw(&frame("\"1\"", "other"))
            .await
            .expect("answered");
        assert!(
            other.contains("\"other\"") && other.contains("\"id\": \"1\""),
            "{other}"
        );
        let first = first.await.expect("no panic").expect("answered");
        assert!(
            first.contains("\"first\"") && first.contains("\"id\": 1"),
            "{first}"
        );
        agent.close().await;
    });
}

#[test]
fn ids_travel_byte_for_byte() {
    alone_async(|| async {
        let agent = zoo_agent(&["echo"]).await;
        for id in [
            "123456789012345678901234567890",
            "-1.50e3",
            "\"\\u0061\\/\"",
            "[1]",
            "true",
        ] {
            let frame =
                format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"echo","params":{{"a":1}}}}"#);
            let answer = agent.request_raw(&frame).await.expect("answered");
            assert!(answer.contains(&format!("\"id\":{id}")), "{answer}");
        }
        for wrong in [
            "",
            "{}",
            "[]",
            r#"{"id":null,"method":"m"}"#,
            r#"{"method":"m"}"#,
            "{\"id\":1,\n\"method\":\"m\"}",
        ] {
            assert_kind(agent.request_raw(wrong).await, ErrorCode::InvalidArgument);
        }
        let no_text = std::collections::HashMap::from([((1, 2), 3)]);
        assert_kind(
            agent.request_with_id(1, "m", &no_text).await,
            ErrorCode::InvalidArgument,
        );
        assert_kind(
            agent.request_with_id(Value::Null, "m", ()).await,
            ErrorCode::InvalidArgument,
        );
        let echoed = agent.request_with_id("\"\n", "echo", json!([1])).await;
        assert_eq!(echoed.expect("answered"), json!([1]));
        agent.close().await;
    });
}

#[test]
fn the_late_answer_to_what_was_given_up_is_not_taken_for_another() {
    alone_async(|| async {
        let agent = python_agent(&[]).await;
        let asking = agent.clone();
        let given_up = tokio::spawn(async move { asking.request_with_id("x", "late", ()).await });
        eventually("it is asked", || agent.pending_count() == 1).await;
        agent
            .send(&TaskRequest::text("t", "it has been read"))
            .await
            .expect("done");
        given_up.abort();
        let _ = given_up.await;
        assert_eq!(agent.pending_count(), 0);
        // It may still be answered, so its id is taken.
        let again = agent.request_with_id("x", "release", ()).await;
        assert_kind(again, ErrorCode::InvalidState);
        agent.request("release", ()).await.expect("answered");
        assert_eq!(agent.unclaimed_count(), 1);
        let again = agent.request_with_id("x", "release", ()).await;
        assert_eq!(again.expect("its own"), "released");
        agent.close().await;
    });
}

#[test]
fn a_request_that_takes_too_long_says_so_and_others_go_on() {
    alone_async(|| async {
        let options = zoo_options(&["echo"]).timeout(Duration::from_millis(50));
        let agent = StdioTransport::open(options).await.expect("starts");
        let error = assert_kind(agent.request("hold", ()).await, ErrorCode::Timeout);
        assert!(error.to_string().contains("zoo"), "{error}");
        assert_eq!(agent.pending_count(), 0);
        begin(agent.request("hold", ()));
        assert_eq!(agent.pending_count(), 0);
        let agent = zoo_agent(&["slow", "1"]).await;
        assert_eq!(
            agent.request("echo", json!([1])).await.expect("answered"),
            json!([1])
        );
    });
}

#[test]
fn lines_of_many_sizes_pass_both_ways() {
    alone_async(|| async {
        let agent = zoo_agent(&["echo"]).await;
        for size in [65 << 10, 1 << 20, 15 << 20] {
            let text = "x".repeat(size);
            let answer = soon("the answer", agent.request("echo", json!([text]))).await;
            assert_eq!(answer.expect("answered"), json!([text]), "{size}");
        }
        let big = "x".repeat(16 << 20);
        assert_kind(agent.request("echo", big).await, ErrorCode::InvalidArgument);
        agent.request("echo", ()).await.expect("answered");
        agent.close().await;
    });
}

#[test]
fn a_line_beyond_the_limit_ends_the_agent_and_says_so() {
    alone_async(|| async {
        let options = zoo_options(&["echo"]).max_line(1000);
        let agent = StdioTransport::open(options).await.expect("starts");
        agent
            .request("big", json!({"n": 900}))
            .await
            .expect("answered");
        let big = soon("the end", agent.request("big", json!({"n": 1000}))).await;
        let error = assert_kind(big, ErrorCode::TransportError);
        assert!(
            error.to_string().contains("more than 1000 bytes"),
            "{error}"
        );
        assert_kind(agent.request("echo", ()).await, ErrorCode::TransportError);
        agent.close().await;
    });
}

#[test]
fn stderr_without_a_newline_holds_nothing_up_and_its_end_is_kept() {
    alone_async(|| async {
        let agent = python_agent(&["stderr", "1048576", "die", "the last words"]).await;
        let error = soon("the end", agent.send(&TaskRequest::text("t", "x"))).await;
        let error = assert_kind(error, ErrorCode::TransportError);
        let exit = error.exit().expect("it has ended");
        assert!(exit.stderr_tail.ends_with("the last words"));
        let kept = exit.stderr_tail.len();
        assert!((1000..256 << 10).contains(&kept), "{kept}");
        assert!(
            error.to_string().contains("exited with status 3"),
            "{error}"
        );
        assert!(error.to_string().ends_with("the last words"));
    });
}

#[test]
fn what_an_agent_asks_is_refused_and_what_it_tells_is_handed_on_or_counted() {
    alone_async(|| async {
        let told = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&told);
        let options = zoo_options(&["echo"]).on_notification(move |method, params| {
            assert_eq!((method, &params["i"].is_number()), ("note", &true));
            count.fetch_add(1, Ordering::Relaxed);
        });
        let agent = StdioTransport::open(options).await.expect("starts");
        let answer = agent
            .request("ask", json!({"id": "q\u{e9}"}))
            .await
            .expect("answered");
        assert_eq!(answer["error"]["code"], -32601, "{answer}");
        agent
            .request("notify", json!({"n": 7}))
            .await
            .expect("answered");
        assert_eq!(
            (told.load(Ordering::Relaxed), agent.unclaimed_count()),
            (7, 0)
        );
        agent.close().await;
        let agent = zoo_agent(&["garbage", "twice", "unknown-ids"]).await;
        agent
            .request("notify", json!({"n": 7}))
            .await
            .expect("answered");
        agent.request("echo", json!(1)).await.expect("answered");
        assert!(agent.unclaimed_count() >= 11, "{}", agent.unclaimed_count());
        agent.close().await;
    });
}

#[test]
fn the_last_line_counts_without_its_newline() {
    alone_async(|| async {
        let agent = zoo_agent(&["noeof"]).await;
        assert_eq!(
            agent.request("echo", json!([1])).await.expect("answered"),
            json!([1])
        );
        eventually("it has ended", || agent.exit().is_some()).await;
    });
}

// ---- how it is started -------------------------------------------------------------------------

#[test]
fn a_command_that_is_not_there_is_named_before_anything_is_started() {
    alone_async(|| async {
        let dir = TempDir::new();
        let plain = dir.path("plain");
        fs::write(&plain, "").expect("written");
        for command in [
            "no-such-command",
            "/no/such/command",
            plain.to_str().expect("text"),
        ] {
            let opened = StdioTransport::open(StdioOptions::new(command)).await;
            let error = assert_kind(opened, ErrorCode::Unavailable);
            let text = format!("command not found: {command}");
            assert!(error.to_string().contains(&text), "{error}");
        }
        let opened = StdioTransport::open(StdioOptions::new("").name("a")).await;
        let error = assert_kind(opened, ErrorCode::InvalidArgument);
        assert_eq!(error.to_string(), "agent \"a\": stdio: command is required");
        let opened = StdioTransport::open(StdioOptions::new("sh").cwd("/no/such")).await;
        assert!(
            assert_kind(opened, ErrorCode::Unavailable)
                .to_string()
                .contains("/no/such")
        );
    });
}

#[test]
fn an_agent_has_its_arguments_folder_and_environment() {
    alone_async(|| async {
        let options = zoo_options(&["echo", "echo"])
            .env("STDIO_BUS_A", "b")
            .cwd("/");
        let agent = StdioTransport::open(options).await.expect("starts");
        assert_eq!(
            agent.request("args", ()).await.expect("answered"),
            json!(["echo", "echo"])
        );
        assert_eq!(
            agent.request("cwd", ()).await.expect("answered"),
            json!("/")
        );
        let name = json!({"name": "STDIO_BUS_A"});
        assert_eq!(
            agent.request("env", name).await.expect("answered"),
            json!("b")
        );
        assert_eq!(
            agent.request("pid", ()).await.expect("answered"),
            json!(agent.pid())
        );
        agent.close().await;
    });
}

#[test]
fn without_a_runtime_it_is_refused() {
    let opened = common::client::block_on(StdioTransport::open(StdioOptions::new("sh")));
    assert_kind(opened, ErrorCode::InvalidState);
}

// ---- how it ends -------------------------------------------------------------------------------

#[test]
fn an_agent_that_is_killed_ends_all_its_requests_and_later_ones_at_once() {
    alone_async(|| async {
        let agent = zoo_agent(&["echo"]).await;
        let mut asked = JoinSet::new();
        for _ in 0..100 {
            let agent = agent.clone();
            asked.spawn(async move { agent.request("hold", ()).await });
        }
        eventually("they are asked", || agent.pending_count() == 100).await;
        agent.request("echo", ()).await.expect("answered");
        signal(agent.pid(), "KILL");
        for ended in soon("they end", asked.join_all()).await {
            let error = assert_kind(ended, ErrorCode::TransportError);
            let exit = error.exit().expect("it has ended");
            assert_eq!(
                (exit.signal, exit.request_sent),
                (Some(9), Some(true)),
                "{error}"
            );
        }
        let start = Instant::now();
        let error = assert_kind(agent.request("echo", ()).await, ErrorCode::TransportError);
        assert!(start.elapsed() < Duration::from_secs(1));
        assert_eq!(error.exit().expect("told").request_sent, Some(false));
        assert_gone(&[agent.pid()], common::BOUND);
    });
}

#[test]
fn an_exit_status_and_the_last_words_are_told() {
    alone_async(|| async {
        let agent = sh_agent("read line; echo one >&2; echo two >&2; exit 7").await;
        let error = assert_kind(agent.request("m", ()).await, ErrorCode::TransportError);
        let exit = error.exit().expect("it has ended");
        assert_eq!(
            (exit.code, exit.stderr_tail.as_str()),
            (Some(7), "one\ntwo")
        );
        assert_eq!(agent.exit().expect("told").code, Some(7));
    });
}

#[test]
fn what_was_answered_before_the_exit_is_not_lost() {
    alone_async(|| async {
        // The answer is longer than what a pipe holds, so the exit comes right behind its end.
        let script = r#"read line; printf '{"id":1,"result":"'; head -c 300000 /dev/zero | tr '\0' x; printf '"}\n'; exit 0"#;
        for _ in 0..20 {
            let agent = sh_agent(script).await;
            let answer = soon("the answer", agent.request_with_id(1, "m", ())).await;
            assert_eq!(
                answer.expect("answered").as_str().map(str::len),
                Some(300_000)
            );
        }
    });
}

#[test]
fn an_agent_that_closes_its_stdout_but_lives_is_ended() {
    alone_async(|| async {
        let agent = zoo_agent(&["mute"]).await;
        let error = soon("the end", agent.request("echo", ())).await;
        let error = assert_kind(error, ErrorCode::TransportError);
        assert!(error.to_string().contains("closed its stdout"), "{error}");
        eventually("it is ended", || !runs(agent.pid())).await;
    });
}

#[test]
fn an_agent_that_reads_nothing_is_closed_with_what_waits_for_it() {
    alone_async(|| async {
        let agent = zoo_agent(&["deaf"]).await;
        let mut asked = JoinSet::new();
        for _ in 0..3 {
            let agent = agent.clone();
            asked.spawn(async move { agent.request("echo", "x".repeat(1 << 20)).await });
        }
        eventually("they are asked", || agent.pending_count() == 3).await;
        soon("it is closed", agent.close()).await;
        for ended in asked.join_all().await {
            assert_kind(ended, ErrorCode::TransportError);
        }
    });
}

#[test]
fn closing_lets_an_agent_answer_what_it_has_and_can_be_repeated() {
    alone_async(|| async {
        let agent = zoo_agent(&["slow", "200"]).await;
        let asking = agent.clone();
        let asked = tokio::spawn(async move { asking.request("echo", json!(1)).await });
        eventually("it is asked", || agent.pending_count() == 1).await;
        let start = Instant::now();
        soon("it is closed", agent.close()).await;
        assert!(
            start.elapsed() < Duration::from_secs(4),
            "no SIGTERM was needed"
        );
        assert_eq!(asked.await.expect("no panic").expect("answered"), json!(1));
        assert_eq!(agent.exit().expect("told").code, Some(0));
        agent.close().await;
        assert_kind(agent.request("echo", ()).await, ErrorCode::TransportError);
    });
}

#[test]
fn closing_ends_an_agent_that_ignores_everything_and_its_children() {
    alone_async(|| async {
        // One more that ignores what can be ignored, and holds the pipes.
        let script = r#"trap '' TERM; sh -c 'trap "" TERM; while :; do sleep 1; done' & echo '{"method":"up"}'; while :; do sleep 1; done"#;
        let agent = sh_agent(script).await;
        eventually("it is up", || agent.unclaimed_count() == 1).await;
        eventually("its child is up", || !children(agent.pid()).is_empty()).await;
        let family: Vec<u32> = [agent.pid()]
            .into_iter()
            .chain(children(agent.pid()))
            .collect();
        let asking = agent.clone();
        let asked = tokio::spawn(async move { asking.request("m", ()).await });
        eventually("it is asked", || agent.pending_count() == 1).await;
        let start = Instant::now();
        soon("it is closed", agent.close()).await;
        let took = start.elapsed();
        assert!(
            took >= Duration::from_secs(6) && took < Duration::from_secs(15),
            "{took:?}"
        );
        let ended = asked.await.expect("no panic");
        let error = assert_kind(ended, ErrorCode::TransportError);
        assert_eq!(error.exit().expect("told").signal, Some(9));
        eventually("all are gone", || !family.iter().any(|pid| runs(*pid))).await;
    });
}

#[test]
fn closing_sends_sigterm_before_it_kills() {
    alone_async(|| async {
        let dir = TempDir::new();
        let report = dir.path("report");
        let script = format!(
            "trap 'echo term > {}; exit 5' TERM; while :; do sleep 0.05; done",
            report.display()
        );
        let agent = sh_agent(&script).await;
        soon("it is closed", agent.close()).await;
        assert_eq!(fs::read_to_string(report).expect("told"), "term\n");
        assert_eq!(agent.exit().expect("told").code, Some(5));
    });
}

#[test]
fn what_an_agent_leaves_behind_in_its_group_is_killed() {
    alone_async(|| async {
        let agent = zoo_agent(&["fork"]).await;
        let answer = agent.request("echo", ()).await.expect("answered");
        let grandchild = answer["grandchild"].as_u64().expect("a pid") as u32;
        assert!(runs(grandchild));
        signal(agent.pid(), "KILL");
        eventually("it is gone", || !runs(grandchild)).await;
    });
}

#[test]
fn dropping_the_last_clone_ends_the_agent_in_the_background() {
    alone_async(|| async {
        let agent = zoo_agent(&["echo"]).await;
        let pid = agent.pid();
        let other = agent.clone();
        let asked = held(&agent).await;
        drop(agent);
        other.request("echo", ()).await.expect("answered");
        asked.abort();
        let _ = asked.await;
        let start = Instant::now();
        drop(other);
        assert!(start.elapsed() < Duration::from_millis(500));
        eventually("it is gone", || !common::exists(pid)).await;
    });
}

#[test]
fn a_runtime_that_ends_takes_agents_along_that_ignore_everything() {
    open_tokios_sockets();
    alone(|| {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let agent = runtime.block_on(async {
            let agent = zoo_agent(&["ignore-term", "fork"]).await;
            agent.request("echo", ()).await.expect("answered");
            agent
        });
        let family: Vec<u32> = [agent.pid()]
            .into_iter()
            .chain(children(agent.pid()))
            .collect();
        assert!(family.len() > 1);
        drop(runtime);
        assert!(!common::exists(agent.pid()));
        common::wait_until("they are gone", common::BOUND, || {
            !family.iter().any(|pid| runs(*pid))
        });
        // Whoever still asks hears of it, in whatever runtime.
        let other = tokio::runtime::Runtime::new().expect("a runtime");
        let asked = other.block_on(agent.request("echo", ()));
        assert_kind(asked, ErrorCode::TransportError);
    });
}

#[test]
fn a_handler_that_panics_ends_the_agent_and_its_requests() {
    alone_async(|| async {
        let options = zoo_options(&["echo"]).on_notification(|_, _| panic!("on purpose"));
        let agent = StdioTransport::open(options).await.expect("starts");
        let asked = soon("the end", agent.request("notify", json!({"n": 1}))).await;
        assert_kind(asked, ErrorCode::TransportError);
        soon("it is closed", agent.close()).await;
        eventually("it is gone", || !runs(agent.pid())).await;
    });
}

#[test]
fn futures_and_the_agent_can_go_to_other_threads() {
    fn sendable<T: Send>(value: T) -> T {
        value
    }
    fn shared<T: Clone + Send + Sync + 'static>() {}
    shared::<StdioTransport>();
    shared::<StdioOptions>();
    drop(sendable(async {
        let agent = StdioTransport::open(StdioOptions::new("sh"))
            .await
            .expect("starts");
        agent
            .send(&TaskRequest::text("a", "b"))
            .await
            .expect("done");
        agent.close().await;
        pending::<()>().await;
    }));
}
