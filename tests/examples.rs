//! The examples, each run to its end from a folder that isn't the repository's.
//!
//! Not in here: `embed`, `mcp_tools`, `acp_chat` and the hosts in C have stages of their own in
//! `.ci/run`, since they need more than `python3` or print what differs from run to run.

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use common::{BOUND, TempDir, example, has_python, run_within};

/// What has a stage of its own.
const ELSEWHERE: [&str; 3] = ["embed", "mcp_tools", "acp_chat"];

/// Runs an example, which prints exactly this.
#[track_caller]
fn prints(name: &str, expected: &str) {
    if !has_python() {
        return;
    }
    let dir = TempDir::new();
    let mut command = Command::new(example(name));
    command.current_dir(dir.path(""));
    let (status, [stdout, stderr]) = run_within(&mut command, BOUND);
    assert!(
        status.is_some_and(|status| status.success()),
        "{name}: {status:?} (None: not within {BOUND:?})\n{stdout}\n{stderr}"
    );
    assert_eq!(stdout, expected, "{name}, and on stderr: {stderr}");
}

/// The examples in Cargo.toml that are for people, not for tests. A folder is a test, too: the soak.
fn declared() -> BTreeSet<String> {
    let manifest = include_str!("../Cargo.toml");
    let of_people = |path: &&str| path.starts_with("examples/") && !path.ends_with("/main");
    manifest
        .lines()
        .filter_map(|line| line.strip_prefix("path = \"")?.strip_suffix(".rs\""))
        .filter(of_people)
        .map(|path| path["examples/".len()..].to_owned())
        .collect()
}

#[test]
fn every_example_is_declared_run_and_listed_in_the_readme() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let files = fs::read_dir(folder).expect("the folder of examples");
    let files = files.filter_map(|file| {
        let name = file.expect("a file").file_name().into_string();
        Some(
            name.expect("a name in text")
                .strip_suffix(".rs")?
                .to_owned(),
        )
    });
    let declared = declared();
    assert_eq!(files.collect::<BTreeSet<_>>(), declared);

    let (tests, readme) = (include_str!("examples.rs"), include_str!("../README.md"));
    for name in declared {
        let run = tests.contains(&format!("{name:?},\n"));
        assert!(run || ELSEWHERE.contains(&&*name), "{name} is not run");
        let row = format!("| [{name}](examples/{name}.rs) |");
        assert!(readme.contains(&row), "the README has no row of {name}");
    }
}

#[test]
fn echo_prints_what_came_back() {
    prints(
        "echo",
        r#"{"message":"hello"}
["at once"] ["on two workers"]
"#,
    );
}

#[test]
fn blocking_prints_results_an_error_and_what_its_threads_got() {
    prints(
        "blocking",
        r#"HELLO
error -32601: Method not found: translate
"desserts"
"reward"
"#,
    );
}

#[test]
fn hello_prints_what_was_agreed_and_what_was_missing() {
    prints(
        "hello",
        r#"audit: version 1.0
identity: version 1.0
tracing: not used
the agent's session: agent-1
the required extension "tracing" is not active
"#,
    );
}

#[test]
fn identity_prints_what_reached_the_agent_that_was_named() {
    prints(
        "identity",
        r#"desk: "billing"
agentId: "billing"
identity: {"assertedBy":"self","role":"clerk","subjectId":"alice"}
audit: {"action":"refund","actor":{"type":"user"},"eventId":"evt-1","resource":"order/7","timestamp":"2026-01-01T12:00:00Z"}
idempotencyKey: "refund-7"
{"agentId":"support","desk":"support"}
"#,
    );
}

#[test]
fn streaming_prints_a_thought_the_pieces_and_the_whole() {
    prints(
        "streaming",
        r#"["agent_thought_chunk"] "Which one do I know?"
Once upon a time there was a bus. Everybody got off where they wanted.
["end_turn"]
the whole: "Once upon a time there was a bus. Everybody got off where they wanted."
"#,
    );
}

#[test]
fn notifications_prints_what_each_subscriber_got_and_lost() {
    prints(
        "notifications",
        r#"counted to 5
  all: [1,2,3,4,5], 0 lost
  drops: [1,2,3], 2 lost
  closes: [1,2,3], 1 lost
counted to 2
  all: [1,2], 0 lost
  drops: [1,2], 2 lost
  closes: [], 1 lost
"#,
    );
}

#[test]
fn builder_prints_a_greeting_by_name_and_a_timeout() {
    prints(
        "builder",
        r#""Good morning, Ada! (workers)"
no answer within 50ms
"#,
    );
}

#[test]
fn pools_prints_its_workers_an_answer_of_each_pool_and_two_refusals() {
    prints(
        "pools",
        r#"worker 0: echo
worker 1: echo
worker 2: words
{"text":"hello"}
"HELLO"
Unknown pool: "numbers"
too large: Some(InvalidArgument)
"#,
    );
}

#[test]
fn config_path_prints_the_workers_of_its_file() {
    prints(
        "config_path",
        r#"worker 0: echo
worker 1: echo
{"from":"a file"}
config: cannot read "no-such-file.json": No such file or directory
"#,
    );
}

#[test]
fn tcp_listener_prints_answers_with_the_ids_of_its_client() {
    prints(
        "tcp_listener",
        r#"{"jsonrpc": "2.0", "id": 1, "result": "HELLO"}
{"jsonrpc": "2.0", "id": "two", "error": {"code": -32601, "message": "Method not found: sing"}}
"#,
    );
}
