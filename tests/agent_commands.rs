//! The commands of the program around agents: what they print, ask and exit with.

mod common;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::peer::worker_script;
use common::{TempDir, children, program, run_within, runs, signal, wait_until};
use serde_json::{Value, json};

/// What a command has done.
#[derive(Debug)]
struct Done {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Done {
    #[track_caller]
    fn printed(self, stdout: &str) {
        assert_eq!(
            (self.code, self.stdout.as_str()),
            (Some(0), stdout),
            "{}",
            self.stderr
        );
    }

    /// It has failed, said this on stderr, and nothing on stdout.
    #[track_caller]
    fn refused(self, parts: &[&str]) {
        assert_eq!(
            (self.code, self.stdout.as_str()),
            (Some(1), ""),
            "{}",
            self.stderr
        );
        for part in parts {
            assert!(self.stderr.contains(part), "{part:?} in {}", self.stderr);
        }
    }
}

/// A user's folder, with nothing in it.
struct Home(TempDir);

impl Home {
    fn new() -> Home {
        Home(TempDir::new())
    }

    /// One with an agent `py` that repeats what it is told, and one that can't be reached here.
    fn with_agents() -> Home {
        let home = Home::new();
        home.answer("py\n\nstdio\npython3\n", &["onboard"])
            .printed("✓ Added \"py\" to registry\n");
        let script = worker_script("agent.py");
        home.edit(|agents| {
            agents[0]["transport"]["config"]["args"] = json!(script);
            agents[0]["skills"] = json!([{"id": "echo", "name": "Echo"}, {"id": "more", "name": "M"}]);
            agents.as_array_mut().expect("agents").push(
                json!({"name": "far", "url": "http://127.0.0.1:1/", "transport": {"type": "ssh", "config": {"port": "22"}}}),
            );
        });
        home
    }

    fn registry(&self) -> std::path::PathBuf {
        self.0.path(".society/registry.json")
    }

    fn edit(&self, change: impl FnOnce(&mut Value)) {
        let mut value = self.read();
        change(&mut value["agents"]);
        fs::write(self.registry(), value.to_string()).expect("written");
    }

    fn read(&self) -> Value {
        let text = fs::read_to_string(self.registry()).expect("a registry");
        serde_json::from_str(&text).expect("JSON")
    }

    fn write(&self, name: &str, agents: Value) -> String {
        let path = self.0.path(name);
        fs::write(&path, json!({"agents": agents}).to_string()).expect("written");
        path.to_str().expect("text").to_owned()
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(program());
        command
            .args(args)
            .current_dir(self.0.path("."))
            .env("HOME", self.0.path("."))
            .env_remove("SOCIETY_REGISTRY");
        command
    }

    fn run(&self, args: &[&str]) -> Done {
        let (status, [stdout, stderr]) = run_within(&mut self.command(args), common::BOUND);
        let code = status.expect("it ends").code();
        Done {
            code,
            stdout,
            stderr,
        }
    }

    /// Runs it with these answers on its stdin.
    fn answer(&self, answers: &str, args: &[&str]) -> Done {
        let mut child = self
            .command(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let mut stdin = child.stdin.take().expect("piped");
        // It may need none of them.
        let _ = stdin.write_all(answers.as_bytes());
        drop(stdin);
        let output = child.wait_with_output().expect("it ends");
        let text = |bytes| String::from_utf8(bytes).expect("text");
        Done {
            code: output.status.code(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }
}

// ---- onboard -----------------------------------------------------------------------------------

/// What all answers of the wizard make.
fn documented() -> Value {
    json!({"agents": [{
        "name": "my-agent",
        "description": "does things",
        "url": "stdio://python3",
        "skills": [{"id": "a", "name": "a"}, {"id": "b", "name": "b"}],
        "transport": {"type": "stdio", "config": {"args": "agent.py --fast", "command": "python3"}},
    }]})
}

const ANSWERS: [&str; 6] = [
    "my-agent",
    "does things",
    "STDIO",
    "python3",
    " agent.py  --fast",
    "a, b,",
];

#[test]
fn the_wizard_takes_piped_answers() {
    let home = Home::new();
    let answers = ANSWERS.join("\n") + "\n";
    home.answer(&answers, &["onboard"])
        .printed("✓ Added \"my-agent\" to registry\n");
    assert_eq!(home.read(), documented());
    let text = fs::read_to_string(home.registry()).expect("there");
    assert!(
        text.starts_with("{\n  \"agents\": [\n    {\n      \"name\": \"my-agent\",\n"),
        "{text}"
    );
    assert!(text.ends_with("  ]\n}\n"), "{text}");
    home.answer(&answers, &["onboard"])
        .refused(&["error: ", "agent \"my-agent\" already exists in registry"]);
    assert_eq!(home.read(), documented());
}

#[test]
fn answers_that_are_missing_are_empty() {
    let home = Home::new();
    home.answer("echo\n\nstdio\necho-agent\n\n", &["onboard"])
        .printed("✓ Added \"echo\" to registry\n");
    let written = json!({"agents": [{
        "name": "echo",
        "url": "stdio://echo-agent",
        "transport": {"type": "stdio", "config": {"args": "", "command": "echo-agent"}},
    }]});
    assert_eq!(home.read(), written);
    home.answer("", &["onboard"])
        .refused(&["error: agent name is required"]);
    home.answer("x\n\nstdio\n", &["onboard"])
        .refused(&["error: command is required"]);
    for transport in ["", "http", "SSH", "docker"] {
        let answers = format!("x\n\n{transport}\nurl\n");
        home.answer(&answers, &["onboard"])
            .refused(&["out of scope", "only stdio"]);
    }
    home.answer("x\n\npigeon\n", &["onboard"])
        .refused(&["validation failed", "\"pigeon\""]);
    assert_eq!(home.read(), written);
}

/// A terminal with a program in it; gone on drop.
struct Terminal(std::path::PathBuf);

impl Terminal {
    fn start(home: &Home, shell: &str) -> Terminal {
        let terminal = Terminal(home.0.path("tmux"));
        let folder = home.0.path(".");
        let folder = folder.to_str().expect("text");
        let new = ["new-session", "-d", "-x", "120", "-y", "40", "-c", folder];
        terminal.tmux(
            &[
                &new[..],
                &["env", "-u", "SOCIETY_REGISTRY", "sh", "-c", shell],
            ]
            .concat(),
        );
        terminal
    }

    fn tmux(&self, args: &[&str]) -> String {
        let mut tmux = Command::new("tmux");
        tmux.arg("-S")
            .arg(&self.0)
            .args(["-f", "/dev/null"])
            .args(args);
        let output = tmux.output().expect("tmux is needed: apt-get install tmux");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn wait_for(&self, text: &str) {
        let what = format!("the terminal shows {text:?}");
        wait_until(&what, common::BOUND, || {
            self.tmux(&["capture-pane", "-p"]).contains(text)
        });
    }

    fn enter(&self, text: &str) {
        self.tmux(&["send-keys", "-l", text]);
        self.tmux(&["send-keys", "Enter"]);
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.tmux(&["kill-server"]);
    }
}

fn wizard(home: &Home) -> Terminal {
    let (folder, program) = (home.0.path("."), program().display());
    let shell = format!(
        "HOME={} {program} onboard; echo status=$?; cat",
        folder.display()
    );
    Terminal::start(home, &shell)
}

#[test]
fn the_end_of_a_terminals_input_adds_nothing() {
    let home = Home::new();
    let terminal = wizard(&home);
    for (prompt, answer) in [
        ("Agent name", "x"),
        ("Description", ""),
        ("Transport", "stdio"),
        ("Command", "sh"),
    ] {
        terminal.wait_for(prompt);
        terminal.enter(answer);
    }
    terminal.wait_for("Args");
    terminal.tmux(&["send-keys", "C-d"]);
    terminal.wait_for("cancelled: nothing is changed");
    terminal.wait_for("status=1");
    assert!(!home.registry().exists());
}

#[test]
fn the_wizard_works_in_a_terminal() {
    let home = Home::new();
    let terminal = wizard(&home);
    let prompts = [
        "Agent name",
        "Description",
        "Transport",
        "Command",
        "Args",
        "Skills",
    ];
    for (prompt, answer) in prompts.into_iter().zip(ANSWERS) {
        terminal.wait_for(prompt);
        terminal.enter(answer);
    }
    terminal.wait_for("✓ Added");
    terminal.wait_for("status=0");
    assert_eq!(home.read(), documented());
}

#[test]
fn wizards_that_finish_at_once_lose_nothing() {
    let home = Home::new();
    std::thread::scope(|scope| {
        for who in 0..2 {
            let home = &home;
            scope.spawn(move || {
                for i in 0..25 {
                    let answers = format!("agent-{who}-{i}\n\nstdio\nx\n\n\n");
                    assert_eq!(home.answer(&answers, &["onboard"]).code, Some(0));
                }
            });
        }
    });
    assert_eq!(home.read()["agents"].as_array().map(Vec::len), Some(50));
}

// ---- list, remove, export ----------------------------------------------------------------------

#[test]
fn agents_are_listed_as_a_table() {
    let home = Home::new();
    home.run(&["list"]).printed("  No agents registered\n");
    assert!(!home.registry().exists());
    let agents = json!([
        {"name": "echo", "url": "stdio://python3", "skills": [{"id": "a", "name": "A"}, {"id": "b", "name": "B"}],
            "transport": {"type": "stdio", "config": {"command": "python3", "args": "/a/long/way/to/the/agent.py"}}},
        {"name": "web\u{1b}[2J", "url": "http://127.0.0.1:8001/"},
    ]);
    let path = home.write("other.json", agents);
    let table = "  NAME          TRANSPORT  ENDPOINT                        SKILLS
  echo          stdio      stdio://python3 /a/long/way...  a, b
  web\\u{1b}[2J  http       http://127.0.0.1:8001/

  2 agents registered
";
    let done = home.run(&["list", "--registry", &path]);
    assert_eq!(done.stdout, table);
    // Wherever it is said.
    home.run(&["--registry", &path, "list"])
        .printed(&done.stdout);
    home.run(&[&format!("--registry={path}"), "list"])
        .printed(&done.stdout);
    let by_variable = home
        .command(&["list"])
        .env("SOCIETY_REGISTRY", &path)
        .output()
        .expect("runs");
    assert_eq!(String::from_utf8_lossy(&by_variable.stdout), done.stdout);
    fs::write(home.0.path("registry.json"), "{").expect("written");
    home.run(&["list"])
        .refused(&["error: registry.json: parsing registry: "]);
}

#[test]
fn an_agent_is_removed_after_a_question() {
    let home = Home::with_agents();
    home.answer("", &["remove", "no"])
        .refused(&["error: agent \"no\" not found"]);
    for no in ["", "\n", "n\n", "what\n"] {
        home.answer(no, &["remove", "py"]).printed("Cancelled\n");
    }
    home.answer("y\n", &["remove", "py"])
        .printed("✓ Removed \"py\"\n");
    assert_eq!(home.read()["agents"].as_array().map(Vec::len), Some(1));
    home.run(&["remove", "--yes", "far"])
        .printed("✓ Removed \"far\"\n");
    assert_eq!(home.read(), json!({"agents": []}));
}

#[test]
fn the_registry_is_exported_and_imported_again() {
    let home = Home::with_agents();
    let printed = home.run(&["export"]).stdout;
    assert_eq!(
        serde_json::from_str::<Value>(&printed).expect("JSON"),
        home.read()
    );
    let file = home.0.path("copy.json");
    let file = file.to_str().expect("text");
    home.run(&["export", "--output", file]).printed("");
    assert_eq!(fs::read_to_string(file).expect("there"), printed);
    assert!(!Path::new(&format!("{file}.lock")).exists());
    let other = Home::new();
    other
        .run(&["import", file])
        .printed("imported 2, skipped 0, replaced 0, renamed 0\n");
    assert_eq!(other.read(), home.read());
    other
        .run(&["import", file])
        .printed("imported 0, skipped 2, replaced 0, renamed 0\n");
}

// ---- import ------------------------------------------------------------------------------------

#[test]
fn what_is_imported_is_checked_as_a_whole_first() {
    let home = Home::with_agents();
    let before = home.read();
    let wrong = json!([{"name": "fine", "url": "u"}, {"name": "a", "transport": {"type": "pigeon"}}, {"name": "fine", "url": "u"}]);
    let path = home.write("wrong.json", wrong);
    home.run(&["import", &path]).refused(&[
        "wrong.json",
        "agent[1]: url is required; agent[1]: invalid transport type \"pigeon\"; agent[2]: duplicate name \"fine\"",
    ]);
    home.run(&["import", "no/such"]).refused(&["no/such"]);
    home.run(&["import", "https://127.0.0.1/registry.json"])
        .refused(&["out of scope"]);
    assert_eq!(home.read(), before);
}

#[test]
fn conflicts_are_asked_about_one_by_one() {
    let home = Home::new();
    let agent = |name: &str, url: &str| json!({"name": name, "url": url, "kept": 1});
    let first = home.write(
        "first.json",
        json!([
            agent("a", "1"),
            agent("b", "1"),
            agent("c", "1"),
            agent("d", "1")
        ]),
    );
    home.run(&["import", &first])
        .printed("imported 4, skipped 0, replaced 0, renamed 0\n");
    // One that is only reached in another way is the same.
    let mut same = agent("d", "1");
    same["transport"] = json!({"type": "docker"});
    let second = json!([
        agent("a", "2"),
        agent("b", "2"),
        agent("c", "2"),
        same,
        agent("e", "2")
    ]);
    let second = home.write("second.json", second);
    let answers = "y\nn\nrename\nb\ne\nf\n"; // b and e are taken
    home.answer(answers, &["import", &second])
        .printed("imported 1, skipped 2, replaced 1, renamed 1\n");
    let expected = json!({"agents": [agent("a", "2"), agent("b", "1"), agent("c", "1"), agent("d", "1"), agent("e", "2"), agent("f", "2")]});
    assert_eq!(home.read(), expected);
    home.answer("", &["import", &second])
        .printed("imported 0, skipped 5, replaced 0, renamed 0\n");
    assert_eq!(home.read(), expected);
}

// ---- ping and send -----------------------------------------------------------------------------

#[test]
fn a_message_is_sent_and_the_answer_printed() {
    let home = Home::with_agents();
    let done = home.run(&["send", "py", "hello", "there", "--fail"]);
    let lines: Vec<_> = done.stdout.lines().collect();
    assert_eq!(done.code, Some(0), "{done:?}");
    assert_eq!(lines[1..], ["  Status: completed", "  hello there --fail"]);
    let id = lines[0].strip_prefix("  Thread ").expect("a thread");
    assert_eq!(id.len(), 36);
    home.run(&["send", "--thread", "t 1", "py", " two\nlines "])
        .printed("  Thread t 1\n  Status: completed\n  two\n  lines\n");
    home.run(&["send", "--thread=t", "py", "--", "x"])
        .printed("  Thread t\n  Status: completed\n  -- x\n");
}

#[test]
fn a_task_that_fails_is_no_failure_unless_that_is_asked_for() {
    let home = Home::with_agents();
    let text = "  Thread t\n  Status: failed\n  Error: as it was told\n";
    home.run(&["send", "--thread", "t", "py", "fail"])
        .printed(text);
    let done = home.run(&["send", "--thread", "t", "--fail", "py", "fail"]);
    assert_eq!(
        (done.code, done.stdout.as_str()),
        (Some(1), text),
        "{}",
        done.stderr
    );
}

#[test]
fn what_can_not_be_sent_says_why() {
    let home = Home::with_agents();
    for missing in [&["send"][..], &["send", "py"]] {
        let done = home.run(missing);
        assert_eq!(done.code, Some(1));
        assert!(done.stderr.contains("Usage: "), "{}", done.stderr);
    }
    home.run(&["send", "no", "x"])
        .refused(&["agent \"no\" not found"]);
    home.run(&["send", "far", "x"])
        .refused(&["agent \"far\"", "\"ssh\"", "out of scope"]);
    home.edit(|agents| agents[0]["transport"]["config"]["command"] = json!("no-such-command"));
    home.run(&["send", "py", "x"])
        .refused(&["agent \"py\": stdio: command not found: no-such-command"]);
    home.run(&["ping", "py"])
        .refused(&["command not found: no-such-command"]);
    home.edit(|agents| {
        agents[0]["transport"]["config"] =
            json!({"command": "sh", "args": ["-c", "read line; echo broken >&2; exit 4"]});
    });
    home.run(&["send", "py", "x"])
        .refused(&["agent \"py\"", "exited with status 4", "broken"]);
    home.edit(|agents| {
        let answer = r#"read line; echo '{"id":"t","error":{"code":-32603,"message":"no luck"}}'"#;
        agents[0]["transport"]["config"] = json!({"command": "sh", "args": ["-c", answer]});
    });
    home.run(&["send", "--thread", "t", "py", "x"])
        .refused(&["error: agent error [-32603]: no luck"]);
    home.edit(|agents| {
        agents[0]["transport"]["config"] =
            json!({"command": "sh", "args": ["-c", "read line; read end"], "timeout_ms": "50"});
    });
    home.run(&["send", "py", "x"])
        .refused(&["agent \"py\": no answer within 50ms"]);
}

#[test]
fn an_agent_that_answers_anything_is_alive() {
    let home = Home::with_agents();
    let alive = |done: Done| {
        assert_eq!(done.code, Some(0), "{done:?}");
        let lines: Vec<_> = done.stdout.lines().collect();
        assert_eq!(
            lines[..3],
            ["  Transport: stdio", "  Name: py", "  Skills: echo, more"]
        );
        let latency = lines[3]
            .strip_prefix("  Latency: ")
            .and_then(|text| text.strip_suffix(" ms"));
        latency
            .and_then(|ms| ms.parse::<u64>().ok())
            .expect("milliseconds");
    };
    alive(home.run(&["ping", "py"]));
    home.edit(|agents| {
        let answer = r#"read line; echo '{"id":"ping","error":{"code":1,"message":"no"}}'"#;
        agents[0]["transport"]["config"] = json!({"command": "sh", "args": ["-c", answer]});
    });
    alive(home.run(&["ping", "py"]));
}

#[test]
fn a_signal_ends_the_program_and_its_agent() {
    for (name, code) in [("INT", 130), ("TERM", 143)] {
        let home = Home::with_agents();
        home.edit(|agents| {
            let script = "trap '' TERM INT; while :; do sleep 1; done";
            agents[0]["transport"]["config"] = json!({"command": "sh", "args": ["-c", script]});
        });
        let mut sending = home
            .command(&["send", "py", "x"])
            .spawn()
            .expect("it starts");
        let agents = || children(sending.id());
        wait_until("the agent runs", common::BOUND, || {
            agents().iter().any(|agent| !children(*agent).is_empty())
        });
        let family: Vec<u32> = agents()
            .into_iter()
            .flat_map(|agent| [vec![agent], children(agent)].concat())
            .collect();
        let start = Instant::now();
        signal(sending.id(), name);
        assert_eq!(sending.wait().expect("it ends").code(), Some(code));
        assert!(start.elapsed() < Duration::from_secs(4));
        wait_until("nothing is left", common::BOUND, || {
            !family.iter().any(|pid| runs(*pid))
        });
    }
}

#[test]
fn a_signal_lets_the_agent_end_what_it_has_started() {
    for (name, code) in [("HUP", 129), ("INT", 130), ("TERM", 143)] {
        let home = Home::with_agents();
        let config = home.0.path("shell.yaml");
        let shell = "name: shell\nhandler: exec\nbackend: {command: sh, args: [-c]}\n";
        fs::write(&config, shell).expect("written");
        home.edit(|agents| {
            let args = json!(["run", "--config", config, "--stdio"]);
            agents[0]["transport"]["config"] = json!({"command": program(), "args": args});
        });
        let mut sending = home
            .command(&["send", "py", "sleep 600 & wait"])
            .spawn()
            .expect("it starts");
        // The agent, its shell, and what that has started.
        let family = || {
            let agents = children(sending.id());
            let shells: Vec<u32> = agents.iter().flat_map(|pid| children(*pid)).collect();
            let started: Vec<u32> = shells.iter().flat_map(|pid| children(*pid)).collect();
            [agents, shells, started].concat()
        };
        wait_until("all run", common::BOUND, || family().len() == 3);
        let family = family();
        let start = Instant::now();
        signal(sending.id(), name);
        assert_eq!(sending.wait().expect("it ends").code(), Some(code));
        assert!(start.elapsed() < Duration::from_secs(4));
        assert!(!family.iter().any(|pid| runs(*pid)), "after SIG{name}");
    }
}

// ---- what isn't there --------------------------------------------------------------------------

#[test]
fn commands_that_are_out_of_scope_say_so() {
    let home = Home::new();
    for command in ["discover", "daemon", "mcp", "skill", "update"] {
        home.run(&[command])
            .refused(&["error: ", command, "out of scope"]);
        home.run(&[command, "--agents", "x", "start"])
            .refused(&["out of scope"]);
    }
}
