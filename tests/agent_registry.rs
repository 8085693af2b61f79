//! The registry of agents: what is in the file stays, several may change it at once, and it is whole
//! at every moment.

mod common;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use common::peer::worker_script;
use common::{Client, TempDir, alone_async, program, wait_until};
use serde_json::{Value, json};
use stdiobus::agent::{AgentCard, Registry};
use stdiobus::{BusConfig, Error, ErrorCode, ListenMode, PoolConfig, Protocol, StdioBus};

/// Everything that the reference writes, and what it doesn't know.
const FULL: &str = r#"{
  "$schema": "x",
  "agents": [
    {
      "zeta": {
        "b": 1.50,
        "a": 12345678901234567890123
      },
      "name": "echo",
      "url": "stdio://python3",
      "skills": [
        {
          "id": "echo",
          "name": "Echo",
          "cost": 1e3
        }
      ],
      "transport": {
        "type": "stdio",
        "config": {
          "args": "echo.py -u",
          "command": "python3",
          "x-note": "kept"
        },
        "since": null
      }
    },
    {
      "name": "web",
      "url": "http://127.0.0.1:1/",
      "capabilities": {
        "streaming": true
      }
    }
  ],
  "after": []
}
"#;

fn write(dir: &TempDir, text: &str) -> std::path::PathBuf {
    let path = dir.path("registry.json");
    fs::write(&path, text).expect("written");
    path
}

#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T, Error>, kind: ErrorCode, parts: &[&str]) {
    let error = result.expect_err("refused");
    assert_eq!(error.kind(), Some(kind), "{error}");
    for part in parts {
        assert!(error.to_string().contains(part), "{part:?} in {error}");
    }
}

#[test]
fn what_is_read_is_written_as_it_was() {
    let dir = TempDir::new();
    let path = write(&dir, FULL);
    let registry = Registry::load(&path).expect("valid");
    assert_eq!(registry.to_json(), FULL);
    registry.validate().expect("valid");
    registry.export(dir.path("copy")).expect("written");
    assert_eq!(fs::read_to_string(dir.path("copy")).expect("there"), FULL);
    let echo = registry.agent("echo").expect("there");
    assert_eq!((echo.transport(), echo.command()), ("stdio", "python3"));
    assert_eq!(echo.args(), ["echo.py", "-u"]);
    assert_eq!(echo.skills()[0].name, "Echo");
}

#[test]
fn a_change_leaves_everything_else_as_it_was() {
    let dir = TempDir::new();
    let path = write(&dir, FULL);
    let add = |registry: &mut Registry| registry.add(AgentCard::stdio("new", "new"));
    Registry::update(&path, add).expect("added");
    let text = fs::read_to_string(&path).expect("there");
    assert!(
        text.ends_with("\n") && text.contains("\"b\": 1.50,\n"),
        "{text}"
    );
    Registry::update(&path, |registry| registry.remove("new")).expect("removed");
    assert_eq!(fs::read_to_string(&path).expect("there"), FULL);
}

#[test]
fn a_registry_that_is_missing_is_empty_and_is_made_with_its_folder() {
    let dir = TempDir::new();
    let path = dir.path("a/b/registry.json");
    assert!(Registry::load(&path).expect("empty").agents().is_empty());
    assert!(!path.exists());
    Registry::update(&path, |registry| {
        registry.add(AgentCard::stdio("a", "b").with_args(["c"]))
    })
    .expect("added");
    let text = r#"{
  "agents": [
    {
      "name": "a",
      "url": "stdio://b",
      "transport": {
        "type": "stdio",
        "config": {
          "args": "c",
          "command": "b"
        }
      }
    }
  ]
}
"#;
    assert_eq!(fs::read_to_string(&path).expect("there"), text);
    let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o644);
    // One that was made private stays so.
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("set");
    Registry::update(&path, |registry| registry.remove("a")).expect("removed");
    assert_eq!(mode(&path), 0o600);
    assert!(!dir.path("a/b/registry.json.new").exists());
}

#[test]
fn a_change_that_fails_or_changes_nothing_writes_nothing() {
    let dir = TempDir::new();
    let path = write(&dir, "{ }");
    let twice = |registry: &mut Registry| {
        registry.add(AgentCard::stdio("a", "b"))?;
        registry.add(AgentCard::stdio("a", "c"))
    };
    let exists = ["agent \"a\" already exists in registry", "registry.json"];
    refused(
        Registry::update(&path, twice),
        ErrorCode::InvalidArgument,
        &exists,
    );
    Registry::update(&path, |_| Ok(())).expect("nothing");
    assert_eq!(fs::read_to_string(&path).expect("there"), "{ }");
}

#[test]
fn a_link_stays_a_link_and_a_lock_that_is_one_is_refused() {
    let dir = TempDir::new();
    let path = write(&dir, FULL);
    symlink(&path, dir.path("link")).expect("linked");
    Registry::update(dir.path("link"), |registry| registry.remove("web")).expect("removed");
    assert!(dir.path("link").is_symlink());
    assert!(Registry::load(&path).expect("valid").agent("web").is_err());
    fs::remove_file(dir.path("registry.json.lock")).expect("there");
    symlink(dir.path("elsewhere"), dir.path("registry.json.lock")).expect("linked");
    let change = Registry::update(&path, |registry| registry.remove("echo"));
    refused(change, ErrorCode::Unavailable, &["registry.json"]);
    assert!(!dir.path("elsewhere").exists());
}

#[test]
fn what_is_wrong_is_named_by_file_agent_and_field() {
    let dir = TempDir::new();
    let agent = |agent: Value| json!({"agents": [{"name": "a", "url": "u"}, agent]}).to_string();
    let transport = |config: Value| agent(json!({"name": "x", "transport": {"config": config}}));
    let wrong = [
        ("{".into(), "parsing registry: EOF"),
        ("[]".into(), "parsing registry: must be an object"),
        (
            json!({"agents": {}}).to_string(),
            "parsing registry: agents: must be an array",
        ),
        (
            agent(json!(1)),
            "parsing registry: agent[1]: must be an object",
        ),
        (
            transport(json!({"port": 22})),
            "parsing registry: agent[1]: agent \"x\": transport.config.port: must be a string",
        ),
    ];
    for (text, message) in wrong {
        let path = write(&dir, &text);
        let file = path.to_str().expect("text");
        refused(
            Registry::load(&path),
            ErrorCode::InvalidArgument,
            &[file, message],
        );
    }
    let ssh = json!({"name": "far", "url": "u", "transport": {"type": "ssh"}});
    let path = write(&dir, &agent(ssh));
    let registry = Registry::load(&path).expect("valid");
    let parts = ["registry.json", "agent \"far\"", "out of scope"];
    refused(
        registry.stdio_options("far"),
        ErrorCode::NotSupported,
        &parts,
    );
    let parts = ["agent \"no\" not found", "registry.json"];
    refused(
        registry.stdio_options("no"),
        ErrorCode::InvalidArgument,
        &parts,
    );
}

#[test]
fn all_agents_are_checked_and_all_that_is_wrong_is_said() {
    let dir = TempDir::new();
    let agents = json!({"agents": [
        {"url": "u"},
        {"name": "a", "url": "u", "transport": {"type": "stdio", "config": {}}},
        {"name": "a", "url": "u", "transport": {"type": "carrier"}},
    ]});
    let registry = Registry::load(write(&dir, &agents.to_string())).expect("readable");
    let error = registry.validate().expect_err("wrong");
    let expected = "agent[0]: name is required; agent[1]: stdio transport requires command; \
                    agent[2]: invalid transport type \"carrier\"; agent[2]: duplicate name \"a\"";
    assert_eq!(error.to_string(), expected);
}

#[test]
fn a_registry_is_where_it_is_said_else_here_else_at_home() {
    const SHOW: &str = "STDIO_BUS_TEST_LOCATE";
    if let Ok(given) = std::env::var(SHOW) {
        let given = (!given.is_empty()).then_some(Path::new(&given));
        return println!("located={}", Registry::locate(given).display());
    }
    let located = |here: &Path, given: &str, variable: &str, home: &Path| {
        let name = "a_registry_is_where_it_is_said_else_here_else_at_home";
        let output = Command::new(std::env::current_exe().expect("own path"))
            .args([name, "--exact", "--nocapture"])
            .current_dir(here)
            .env(SHOW, given)
            .env("SOCIETY_REGISTRY", variable)
            .env("HOME", home)
            .output()
            .expect("runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let line = text.split_once("located=").expect("told").1;
        line.lines().next().expect("a path").to_owned()
    };
    let dir = TempDir::new();
    let here = dir.path("here");
    fs::create_dir(&here).expect("made");
    let home = dir.path("home");
    let at_home = home.join(".society/registry.json");
    assert_eq!(
        located(&here, "", "", &home),
        at_home.to_str().expect("text")
    );
    fs::write(here.join("registry.json"), "{}").expect("written");
    assert_eq!(located(&here, "", "", &home), "registry.json");
    assert_eq!(located(&here, "", "v.json", &home), "v.json");
    assert_eq!(located(&here, "g.json", "v.json", &home), "g.json");
}

/// This test program again, adding agents to a registry until it is killed or has added so many.
fn writer(test: &str, path: &Path, prefix: &str, count: usize) -> Child {
    Command::new(std::env::current_exe().expect("own path"))
        .args([test, "--exact"])
        .env("STDIO_BUS_TEST_WRITER", path)
        .env("STDIO_BUS_TEST_PREFIX", prefix)
        .env("STDIO_BUS_TEST_COUNT", count.to_string())
        .stdout(Stdio::null())
        .spawn()
        .expect("starts")
}

/// In a process that was started as a [`writer`] it adds, and says so.
fn is_writer() -> bool {
    let Some(path) = std::env::var_os("STDIO_BUS_TEST_WRITER") else {
        return false;
    };
    let prefix = std::env::var("STDIO_BUS_TEST_PREFIX").expect("set");
    let count = std::env::var("STDIO_BUS_TEST_COUNT").expect("set");
    for i in 0..count.parse().expect("a number") {
        let agent = AgentCard::stdio(format!("{prefix}{i}"), "x".repeat(2000));
        Registry::update(&path, |registry| registry.add(agent)).expect("added");
    }
    true
}

#[test]
fn processes_that_add_at_once_lose_nothing() {
    if is_writer() {
        return;
    }
    let dir = TempDir::new();
    let path = dir.path("registry.json");
    let name = "processes_that_add_at_once_lose_nothing";
    let mut writers = ["a", "b", "c"].map(|prefix| writer(name, &path, prefix, 60));
    for writer in &mut writers {
        assert!(writer.wait().expect("ends").success());
    }
    let registry = Registry::load(&path).expect("whole");
    assert_eq!(registry.agents().len(), 180);
    registry.validate().expect("no name twice");
}

#[test]
fn a_write_that_is_killed_leaves_a_whole_file() {
    if is_writer() {
        return;
    }
    let dir = TempDir::new();
    let path = dir.path("registry.json");
    let mut agents = 0;
    for round in 0..40 {
        let name = "a_write_that_is_killed_leaves_a_whole_file";
        let mut writer = writer(name, &path, &format!("{round}-"), 100_000);
        wait_until("it writes", common::BOUND, || {
            Registry::load(&path).expect("whole").agents().len() > agents
        });
        // Some time in one of its next writes.
        thread::sleep(Duration::from_micros(round * 137 % 4000));
        writer.kill().and_then(|()| writer.wait()).expect("killed");
        let text = fs::read_to_string(&path).expect("there");
        assert!(text.ends_with("]\n}\n"), "{} bytes", text.len());
        agents = Registry::load(&path).expect("whole").agents().len();
    }
    // What they left is in nobody's way.
    Registry::update(&path, |registry| {
        registry.add(AgentCard::stdio("last", "x"))
    })
    .expect("added");
    assert!(!dir.path("registry.json.new").exists());
}

/// A registry with three agents that repeat what they are told, and one that is none of ours.
fn with_agents(dir: &TempDir) -> std::path::PathBuf {
    let path = dir.path("registry.json");
    Registry::update(&path, |registry| {
        let script = worker_script("agent.py");
        for name in ["one", "two", "three"] {
            let args = [script.to_str().expect("text"), "name", name];
            registry.add(AgentCard::stdio(name, "python3").with_args(args))?;
        }
        let web = r#"{"name": "web", "url": "http://127.0.0.1:1/"}"#;
        registry.add(AgentCard::from_json(web)?)
    })
    .expect("added");
    path
}

#[test]
fn agents_of_a_registry_become_pools() {
    let dir = TempDir::new();
    let path = with_agents(&dir);
    let ids = |names: &[&str]| {
        let config = BusConfig::from_registry(&path, names).expect("valid");
        let pools = config.pools.into_iter();
        pools.map(|pool| pool.id).collect::<Vec<_>>()
    };
    assert_eq!(ids(&["three", "one"]), ["three", "one"]);
    assert_eq!(ids(&[]), ["one", "two", "three"]);
    let config = |name: &str| BusConfig::from_registry(&path, [name]);
    refused(
        config("no"),
        ErrorCode::InvalidArgument,
        &["agent \"no\" not found", "registry.json"],
    );
    refused(
        config("web"),
        ErrorCode::NotSupported,
        &["agent \"web\"", "\"http\"", "registry.json"],
    );
    let none = BusConfig::from_registry::<&str>(dir.path("none"), []);
    refused(none, ErrorCode::InvalidArgument, &["at least one pool"]);
}

#[test]
fn a_pool_has_what_the_registry_says_of_its_agent() {
    let dir = TempDir::new();
    let config =
        json!({"command": "c", "args": ["a b"], "env": "A=1 B=2=3", "cwd": "/", "timeout_ms": "7"});
    let transport = json!({"type": "stdio", "config": config});
    let agents = json!({"agents": [{"name": "x", "url": "u", "transport": transport}]});
    let path = write(&dir, &agents.to_string());
    let config = BusConfig::from_registry(path, ["x"]).expect("valid");
    let pool = PoolConfig::new("x", "c")
        .arg("a b")
        .env("A", "1")
        .env("B", "2=3")
        .cwd("/")
        .protocol(Protocol::Ndjson);
    assert_eq!(config, BusConfig::new().pool(pool));
}

#[test]
fn the_registry_of_the_documentation_can_be_used() {
    let chapter = include_str!("../src/concepts/agents.rs");
    let text = chapter.split_once("```json\n").expect("an example").1;
    let text = text.split_once("//! ```").expect("its end").0;
    let text = text.replace("//!", "");
    let dir = TempDir::new();
    let registry = Registry::load(write(&dir, &text)).expect("valid");
    registry.validate().expect("valid");
    registry.stdio_options("echo").expect("valid");
}

fn task() -> Value {
    json!({"id": "t", "message": {"role": "user", "parts": [{"type": "text", "text": "hello"}]}})
}

fn text_of(result: &Value) -> &Value {
    &result["artifacts"][0]["parts"][0]["text"]
}

#[test]
fn a_bus_runs_the_agents_of_a_registry_for_clients_and_for_the_shell() {
    alone_async(|| async {
        let dir = TempDir::new();
        let path = with_agents(&dir);
        let config = BusConfig::from_registry(&path, ["one", "two"]).expect("valid");
        let socket = dir.path("bus.sock");
        let bus = StdioBus::builder()
            .config(config)
            .listen(ListenMode::unix(&socket))
            .build()
            .expect("valid");
        bus.start().await.expect("starts");
        let asked = tokio::task::spawn_blocking(move || {
            let mut client = Client::unix(&socket);
            for pool in ["one", "two"] {
                let params = task();
                let request = json!({"jsonrpc": "2.0", "id": pool, "pool": pool, "method": "tasks/send", "params": params});
                let answer = client.ask(&request.to_string());
                assert_eq!(answer["id"], *pool, "{answer}");
                assert_eq!(text_of(&answer["result"]), &format!("{pool}: hello"));
                // From a shell.
                let output = Command::new(program())
                    .args(["call", "--pool", pool, "--unix"])
                    .args([&socket, Path::new("tasks/send")])
                    .arg(task().to_string())
                    .output()
                    .expect("it runs");
                assert!(output.status.success(), "{output:?}");
                let result = serde_json::from_slice(&output.stdout).expect("JSON");
                assert_eq!(text_of(&result), &format!("{pool}: hello"));
            }
        });
        asked.await.expect("answered");
        bus.stop().await.expect("stops");
    });
}
