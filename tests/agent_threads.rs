//! Threads of exec agents: what is kept of them, and in which order what happens.

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use common::stdio_agent::{Agent, exec, request, sh, text_of};
use common::{BOUND, TempDir, wait_until};
use serde_json::{Value, json};

/// Its program waits for a line from the FIFO that the message names, if it names one, and says its
/// message.
fn waiting() -> Value {
    sh("touch $HOME/began-$1; case $1 in wait-*) read line < $HOME/$1;; esac; echo $1")
}

fn make_fifo(path: &Path) {
    let made = Command::new("mkfifo").arg(path).status();
    assert!(made.expect("mkfifo runs").success());
}

/// Lets the program of a message go on.
fn let_go(agent: &Agent, message: &str) {
    fs::write(agent.path(message), "\n").expect("written");
}

fn began(agent: &Agent, message: &str) -> bool {
    agent.path(&format!("began-{message}")).exists()
}

#[track_caller]
fn error_of(agent: &Agent) -> String {
    let answer = agent.answer();
    assert_eq!(answer["error"]["code"], -32603, "{answer}");
    answer["error"]["message"]
        .as_str()
        .expect("text")
        .to_owned()
}

// ---- files -------------------------------------------------------------------------------------

#[test]
fn a_thread_is_a_file_for_its_user_only() {
    let mut agent = Agent::start(&sh("echo \"re: $1\""), &[]);
    agent.ask("t 1", "hi");
    agent.ask("t 1", "more");
    let thread = agent.thread("t 1");
    let said = |role: &str, text: &str| json!({"role": role, "text": text});
    assert_eq!(
        (&thread["id"], &thread["agent"]),
        (&json!("t 1"), &json!("runner"))
    );
    assert_eq!(
        thread["messages"],
        json!([
            said("user", "hi"),
            said("assistant", "re: hi"),
            said("user", "more"),
            said("assistant", "re: more")
        ])
    );
    let session = thread["session_id"].as_str().expect("text");
    assert_eq!((session.len(), session.matches('-').count()), (36, 4));
    let [created, updated] =
        ["created_at", "updated_at"].map(|key| thread[key].as_str().expect("text"));
    for time in [created, updated] {
        let date = time.as_bytes();
        assert!(
            time.len() > 20 && time.starts_with("20") && time.ends_with('Z'),
            "{time}"
        );
        assert!(
            date[4] == b'-' && date[10] == b'T' && date[13] == b':',
            "{time}"
        );
    }
    assert!(created < updated, "{created} {updated}");

    let mode = |name: &str| {
        fs::metadata(agent.path(name))
            .expect("there")
            .permissions()
            .mode()
            & 0o777
    };
    assert_eq!(mode(".society/threads"), 0o700);
    assert_eq!(mode(".society/threads/t 1.json"), 0o600);
    // People look into it.
    let text = fs::read_to_string(agent.path(".society/threads/t 1.json")).expect("read");
    assert!(
        text.starts_with("{\n  \"id\": \"t 1\",\n  \"agent\": \"runner\""),
        "{text}"
    );
    let files = fs::read_dir(agent.path(".society/threads")).expect("folder");
    assert_eq!(files.count(), 1);
}

#[test]
fn a_thread_goes_on_when_the_agent_is_started_again() {
    let home = TempDir::new();
    let folder = home.path(".society/threads");
    fs::create_dir_all(&folder).expect("made");
    let old = json!({
        "id": "t", "agent": "runner", "session_id": "s-1",
        "messages": [{"role": "user", "text": "a"}, {"role": "assistant", "text": "b"}],
        "created_at": "2026-02-01T10:00:00+01:00", "updated_at": "2026-02-01T10:00:00+01:00",
        "later": {"x": 1}
    });
    fs::write(folder.join("t.json"), old.to_string()).expect("written");
    let more = json!({"session_flag": "--new", "resume_flag": "--old"});
    let config = exec("sh", &["-c", "echo \"$*\"", "sh"], more);
    let mut agent = Agent::start_in(home, &config, &[]);
    assert_eq!(text_of(&agent.ask("t", "c")), "c --old s-1");
    let thread = agent.thread("t");
    assert_eq!(thread["messages"].as_array().map(Vec::len), Some(4));
    assert_eq!(thread["created_at"], old["created_at"]);
    assert_ne!(thread["updated_at"], old["updated_at"]);
    assert_eq!(thread["later"], old["later"]);
}

#[test]
fn ids_that_are_no_file_names_are_refused() {
    let mut agent = Agent::start(&sh("echo x"), &[]);
    for (id, shown) in [
        (".", r#"".""#),
        ("..", r#""..""#),
        ("../t", r#""../t""#),
        ("/etc/passwd", r#""/etc/passwd""#),
        ("a\\b", r#""a\\b""#),
        ("a\0", r#""a\x00""#),
    ] {
        agent.send(&request("\"i\"", id, "x"));
        let answer = agent.answer();
        let message = format!("handler error: loading thread: invalid thread ID: {shown}");
        assert_eq!(answer["error"], json!({"code": -32603, "message": message}));
        assert_eq!(answer["id"], "i");
    }
    assert_eq!(text_of(&agent.ask("...", "x")), "x");
    assert_eq!(text_of(&agent.ask(".hidden é", "x")), "x");
    assert!(agent.finish().is_empty());
}

#[test]
fn echo_and_greeter_keep_no_threads_and_take_any_id() {
    for handler in ["echo", "greeter"] {
        let mut agent = Agent::start(&json!({"name": "a", "handler": handler}), &[]);
        agent.ask("../t", "x");
        assert!(!agent.path(".society").exists());
    }
}

#[test]
fn a_thread_that_can_not_be_read_is_an_error_and_stays_as_it_is() {
    let mut agent = Agent::start(&sh("touch $HOME/ran; echo x"), &[]);
    let folder = agent.path(".society/threads");
    fs::create_dir_all(folder.join("folder.json")).expect("made");
    fs::write(folder.join("bad.json"), "{\"id\": ").expect("written");
    for (id, reason) in [("bad", "EOF while parsing"), ("folder", "Is a directory")] {
        agent.send(&request("1", id, "x"));
        let error = error_of(&agent);
        assert!(
            error.starts_with("handler error: loading thread: "),
            "{error}"
        );
        assert!(
            error.contains(&format!("{id}.json")) && error.contains(reason),
            "{error}"
        );
    }
    let bad = fs::read_to_string(folder.join("bad.json")).expect("read");
    assert_eq!(
        (bad.as_str(), agent.path("ran").exists()),
        ("{\"id\": ", false)
    );
    let long = "x".repeat(300);
    agent.send(&request("1", &long, "x"));
    assert!(error_of(&agent).contains("File name too long"));
}

#[test]
fn a_home_that_can_not_be_used_is_an_error() {
    let home = TempDir::new();
    fs::write(home.path(".society"), "a file").expect("written");
    let mut agent = Agent::start_in(home, &sh("echo x"), &[]);
    agent.send(&request("1", "t", "x"));
    let error = error_of(&agent);
    assert!(
        error.starts_with("handler error: loading thread: "),
        "{error}"
    );
}

// ---- order -------------------------------------------------------------------------------------

#[test]
fn threads_are_worked_on_side_by_side_and_each_in_its_order() {
    const THREADS: usize = 8;
    const MESSAGES: usize = 5;
    // The first of each thread waits until all threads have begun.
    let script = "case $1 in *-0) touch $HOME/began-$1; \
                  while [ $(ls $HOME | grep -c began-) -lt 8 ]; do sleep 0.01; done;; esac; echo $1";
    let mut agent = Agent::start(&sh(script), &[]);
    let mut input = String::new();
    for message in 0..MESSAGES {
        for thread in 0..THREADS {
            let text = format!("{thread}-{message}");
            input += &(request(&format!("\"{text}\""), &format!("t{thread}"), &text) + "\n");
        }
    }
    agent.send_bytes(input.as_bytes());
    let mut next = [0; THREADS];
    for _ in 0..THREADS * MESSAGES {
        let answer = agent.answer();
        let text = text_of(&answer["result"]);
        assert_eq!(answer["id"], text);
        let (thread, message) = text.split_once('-').expect("two numbers");
        let thread: usize = thread.parse().expect("a number");
        assert_eq!(message, next[thread].to_string());
        next[thread] += 1;
    }
    assert_eq!(next, [MESSAGES; THREADS]);
    let thread = agent.thread("t3");
    let messages = thread["messages"].as_array().expect("a list");
    let texts: Vec<_> = messages
        .iter()
        .map(|m| m["text"].as_str().expect("text"))
        .collect();
    let expected: Vec<_> = (0..2 * MESSAGES).map(|i| format!("3-{}", i / 2)).collect();
    assert_eq!(texts, expected);
    assert!(agent.finish().is_empty());
}

#[test]
fn a_slow_thread_holds_up_only_itself() {
    let mut agent = Agent::start(&waiting(), &[]);
    make_fifo(&agent.path("wait-1"));
    agent.send(&request("1", "slow", "wait-1"));
    agent.send(&request("2", "slow", "then"));
    // A mistake in the same thread has its place in the order, too.
    agent.send(r#"{"jsonrpc":"2.0","id":3,"method":"tasks/send","params":{"id":"slow"}}"#);
    for i in 0..20 {
        assert_eq!(text_of(&agent.ask(&format!("t{i}"), "quick")), "quick");
    }
    assert!(!began(&agent, "then"));
    let_go(&agent, "wait-1");
    let answers = [(); 3].map(|()| agent.answer());
    assert_eq!(
        answers.each_ref().map(|answer| answer["id"].as_u64()),
        [Some(1), Some(2), Some(3)]
    );
    assert_eq!(text_of(&answers[1]["result"]), "then");
    assert_eq!(answers[2]["error"]["code"], -32602);
    assert!(agent.finish().is_empty());
}

#[test]
fn so_many_programs_run_at_once_and_no_more() {
    let mut agent = Agent::start(&waiting(), &["--max-concurrent", "2"]);
    let messages: Vec<_> = (0..4).map(|i| format!("wait-{i}")).collect();
    for message in &messages {
        make_fifo(&agent.path(message));
        agent.send(&request("1", message, message));
    }
    // A program ends only when it is told to, and for each that ends one begins.
    let mut ended = 0;
    while ended < messages.len() {
        let running = || messages.iter().filter(|m| began(&agent, m)).count() - ended;
        let most = 2.min(messages.len() - ended);
        wait_until("they run", BOUND, || running() == most);
        let open = messages
            .iter()
            .find(|m| began(&agent, m) && agent.path(m).exists());
        let open = open.expect("one that runs").clone();
        let_go(&agent, &open);
        assert_eq!(text_of(&agent.answer()["result"]), open);
        fs::remove_file(agent.path(&open)).expect("removed");
        ended += 1;
    }
}

#[test]
fn two_agents_take_turns_in_a_thread() {
    let mut first = Agent::start(&waiting(), &[]);
    make_fifo(&first.path("wait-1"));
    first.send(&request("1", "t", "wait-1"));
    wait_until("the first has begun", BOUND, || began(&first, "wait-1"));

    let dir = TempDir::new();
    let script = format!(
        "HOME={0}; cat $HOME/.society/threads/t.json",
        first.path("").display()
    );
    let config = sh(&script);
    fs::write(dir.path("agent.yaml"), config.to_string()).expect("written");
    // The same home.
    let home = first.path("");
    std::os::unix::fs::symlink(home.join(".society"), dir.path(".society")).expect("linked");
    let mut second = Agent::start_in(dir, &config, &[]);
    second.send(&request("2", "t", "second"));
    second.close_stdin();
    // It waits: it has opened the lock.
    let lock = home.join(".society/threads/t.lock");
    wait_until("the second waits", BOUND, || has_open(second.pid(), &lock));
    let_go(&first, "wait-1");
    assert_eq!(text_of(&first.answer()["result"]), "wait-1");

    // It has seen what the first one has written.
    let answer = second.answer();
    let seen: Value = serde_json::from_str(text_of(&answer["result"])).expect("the file");
    assert_eq!(seen["messages"].as_array().map(Vec::len), Some(2));
    assert_eq!(second.wait().0.code(), Some(0));
    assert_eq!(
        first.thread("t")["messages"].as_array().map(Vec::len),
        Some(4)
    );
    assert!(!lock.exists());
}

fn has_open(pid: u32, path: &Path) -> bool {
    let path = fs::canonicalize(path).expect("it is there");
    let files = fs::read_dir(format!("/proc/{pid}/fd"))
        .into_iter()
        .flatten()
        .flatten();
    let mut links = files.filter_map(|file| fs::read_link(file.path()).ok());
    links.any(|link| link == path)
}

#[test]
fn a_lock_that_was_left_behind_is_none() {
    let mut agent = Agent::start(&sh("echo x"), &[]);
    let folder = agent.path(".society/threads");
    fs::create_dir_all(&folder).expect("made");
    fs::write(folder.join("t.lock"), "").expect("written");
    assert_eq!(text_of(&agent.ask("t", "x")), "x");
    assert!(!folder.join("t.lock").exists());
}

#[test]
fn many_threads_and_requests_are_all_answered() {
    let mut agent = Agent::start(&sh("echo $1"), &[]);
    let input: String = (0..300)
        .map(|i| request(&i.to_string(), &format!("t{}", i % 100), &i.to_string()) + "\n")
        .collect();
    agent.send_bytes(input.as_bytes());
    let lines = agent.finish();
    let mut last = vec![None; 100];
    for line in &lines {
        let answer: Value = serde_json::from_str(line).expect("JSON");
        let i = answer["id"].as_u64().expect("a number");
        assert_eq!(text_of(&answer["result"]), i.to_string());
        let before = last[i as usize % 100].replace(i);
        assert!(before < Some(i), "{before:?} {i}");
    }
    assert_eq!(lines.len(), 300);
}
