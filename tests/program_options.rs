//! The program's options for listeners and their users, and its commands `check` and `completions`.

mod common;

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::{Command, Stdio};

use common::cli::{NOBODY, asked_by_nobody, config_file, is_root, refused, run, text};
use common::{Client, Program, TempDir, alone, children, program, zoo, zoo_config};
use serde_json::{Value, json};

const ECHO: &str = r#"{"id":2,"method":"echo","params":[7]}"#;

fn two_pools() -> String {
    let pool = |id: &str| json!({"id": id, "command": zoo(), "args": ["echo", "slow", "0"], "env": {"POOL": id}});
    json!({"pools": [pool("a"), pool("b")]}).to_string()
}

// ---- listeners ---------------------------------------------------------------------------------

#[test]
fn listeners_may_be_repeated_and_each_may_have_a_pool() {
    alone(|| {
        let args = [
            "--unix={dir}/a.sock,pool=a",
            "--unix",
            "{dir}/b.sock,pool=b",
            "--tcp=127.0.0.1:0,pool=a",
            "--tcp",
            "[::1]:0,pool=b",
            "--log-level=info",
            "--log-format=text",
            "--unix-mode=660",
        ];
        let bus = Program::start(&two_pools(), &args);
        let (unix, tcp) = (bus.unix_paths(), bus.tcp_addresses());
        assert_eq!((unix.len(), tcp.len()), (2, 2), "{:#?}", bus.log());
        let clients = [
            (Client::unix(&unix[0]), "a"),
            (Client::unix(&unix[1]), "b"),
            (Client::tcp(&tcp[0]), "a"),
            (Client::tcp(&tcp[1]), "b"),
        ];
        for (mut client, pool) in clients {
            let answer = client.ask(r#"{"id":1,"method":"env","params":{"name":"POOL"}}"#);
            assert_eq!(answer["result"], pool);
            // A message that names its pool knows better.
            let answer =
                client.ask(r#"{"id":2,"pool":"b","method":"env","params":{"name":"POOL"}}"#);
            assert_eq!(answer["result"], "b");
        }
    });
}

#[test]
fn a_listener_for_a_pool_that_there_is_not_is_named() {
    let (dir, config) = config_file(&zoo_config(1, &["echo"]));
    let place = format!("{},pool=nowhere", dir.path("s").display());
    let log = refused(&["--config", &config, "--unix", &place]);
    assert!(log.contains("\"nowhere\""), "{log}");
    assert!(!dir.path("s").exists());
}

#[test]
fn addresses_that_can_not_be_listened_on_exit_with_1_and_a_reason_that_is_said_once() {
    let (dir, config) = config_file(&zoo_config(1, &["echo"]));
    let long = dir.path(&"x".repeat(120));
    let nowhere = dir.path("no/such/folder/s");
    let cases = [
        ("--unix", long.to_str().expect("text"), "107 bytes"),
        (
            "--unix",
            nowhere.to_str().expect("text"),
            "its folder does not exist",
        ),
        ("--tcp", "name.invalid:0", "name.invalid"),
        // An address that is for documentation only, and so not ours.
        ("--tcp", "192.0.2.1:0", "192.0.2.1"),
    ];
    for (option, place, reason) in cases {
        let log = refused(&["--config", &config, option, place]);
        assert!(log.contains(place) && log.contains(reason), "{log}");
        assert_eq!(log.lines().count(), 1, "{log}");
    }
}

#[test]
fn the_same_place_twice_is_refused() {
    let (dir, config) = config_file(&zoo_config(1, &["echo"]));
    let socket = dir.path("s").display().to_string();
    for option in ["--unix", "--admin"] {
        let log = refused(&["--config", &config, "--unix", &socket, option, &socket]);
        assert!(log.contains(&socket) && log.contains("in use"), "{log}");
        assert!(!log.contains("started"), "{log}");
        assert!(!dir.path("s").exists(), "what was bound is taken away");
    }
}

#[test]
fn a_port_that_other_machines_reach_without_a_token_is_warned_of_once() {
    let (dir, config) = config_file(&zoo_config(1, &["echo"]));
    fs::write(dir.path("token"), "t").expect("written");
    let token = dir.path("token").display().to_string();
    for (args, warnings) in [
        (vec!["--tcp=0.0.0.0:0", "--tcp=127.0.0.1:0"], 1),
        (vec!["--tcp=0.0.0.0:0", "--token-file", &token], 0),
        (vec!["--tcp=[::1]:0"], 0),
    ] {
        // The end of stdin ends it.
        let args = [&["--config", &config, "--stdio"], &args[..]].concat();
        let output = run(&args);
        let log = text(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{log}");
        assert_eq!(log.matches("[WARN]").count(), warnings, "{log}");
        assert_eq!(
            log.matches("no token is required").count(),
            warnings,
            "{log}"
        );
    }
}

#[test]
fn options_of_unix_sockets_need_one_and_say_what_they_take() {
    let (_dir, config) = config_file(&zoo_config(1, &["echo"]));
    for (option, value, reason) in [
        ("--unix-mode", "999", "octal"),
        ("--unix-group", "no-such-group", "no such group"),
        ("--allow-uid", "no-such-user", "no such user"),
    ] {
        let log = refused(&["--config", &config, "--unix", "s", option, value]);
        assert!(log.contains(option) && log.contains(reason), "{log}");
    }
    for (option, value) in [
        ("--unix-mode", "660"),
        ("--unix-group", "0"),
        ("--allow-uid", "0"),
    ] {
        let log = refused(&["--config", &config, "--tcp", "127.0.0.1:0", option, value]);
        assert!(log.contains("--unix"), "{log}");
    }
}

#[test]
fn the_files_of_all_unix_sockets_have_the_mode_and_the_group() {
    alone(|| {
        let group = match is_root() {
            true => 12345,
            false => fs::metadata("/proc/self").expect("proc").gid(),
        };
        let option = format!("--unix-group={group}");
        let args = [
            "--unix={dir}/a",
            "--unix={dir}/b",
            "--unix-mode=640",
            &option,
        ];
        let bus = Program::start(&zoo_config(1, &["echo"]), &args);
        for name in ["a", "b"] {
            let file = fs::metadata(bus.path(name)).expect("there");
            assert_eq!((file.mode() & 0o7777, file.gid()), (0o640, group));
        }
        assert_eq!(bus.unix_client().ask(ECHO)["result"], json!([7]));
    });
}

#[test]
fn other_users_connect_where_they_are_allowed_to() {
    if !is_root() || !common::has_python() {
        eprintln!("skipped: only root can be somebody else");
        return;
    }
    alone(|| {
        let allowed = format!("--allow-uid={NOBODY}");
        for (args, let_in) in [
            (["--allow-uid=1", "--unix-mode=666"], false),
            ([&allowed, "--unix-mode=666"], true),
        ] {
            let args = [&["--unix={dir}/s", "--allow-uid=2"], &args[..]].concat();
            let bus = Program::start(&zoo_config(1, &["echo"]), &args);
            fs::set_permissions(bus.path("."), Permissions::from_mode(0o711)).expect("set");
            let answer = asked_by_nobody(&bus.path("s"), ECHO);
            assert_eq!(answer.contains("\"result\":[7]"), let_in, "{answer}");
        }
    });
}

// ---- tokens ------------------------------------------------------------------------------------

fn auth(token: &str) -> String {
    json!({"id": 1, "method": "stdio_bus/auth", "params": {"token": token}}).to_string()
}

#[test]
fn clients_show_the_token_of_the_file_first_and_it_is_never_logged() {
    alone(|| {
        // The end of a line is no part of it, whichever system it comes from.
        for end in ["", "\n", "\r\n"] {
            let secret = "s3cr3t with spaces";
            let dir = TempDir::new();
            fs::write(dir.path("token"), format!("{secret}{end}")).expect("written");
            let option = format!("--token-file={}", dir.path("token").display());
            let args = [
                "--unix={dir}/s",
                "--tcp=127.0.0.1:0",
                "--log-level=debug",
                &option,
            ];
            let mut bus = Program::start(&zoo_config(1, &["echo"]), &args);
            for connect in [Program::unix_client, Program::tcp_client] {
                let mut client = connect(&bus);
                assert_eq!(client.ask(&auth(secret))["result"], json!({"ok": true}));
                assert_eq!(client.ask(ECHO)["result"], json!([7]));
                for first in [ECHO, &auth("another"), &auth(&format!("{secret}\n"))] {
                    let mut client = connect(&bus);
                    let answer = client.ask(first);
                    assert_eq!(answer["error"]["code"], -32014, "{answer}");
                    assert_eq!(answer["error"]["data"]["reason"], "unauthorized");
                    assert!(client.rest().is_empty());
                }
            }
            common::signal(bus.pid(), "TERM");
            bus.wait();
            let log = bus.log().join("\n");
            assert!(!log.contains("s3cr3t"), "{log}");
        }
    });
}

#[test]
fn a_token_file_that_can_not_be_used_exits_with_1_and_says_why() {
    let (dir, config) = config_file(&zoo_config(1, &["echo"]));
    let write = |name: &str, bytes: &[u8]| {
        let path = dir.path(name);
        fs::write(&path, bytes).expect("written");
        path.to_str().expect("text").to_owned()
    };
    let cases = [
        (dir.path("none").display().to_string(), "No such file"),
        (write("empty", b""), "empty"),
        (write("newline", b"\n"), "empty"),
        (write("long", &[b'x'; 3073]), "at most 3072 bytes"),
        (write("binary", b"s3cr3t\xff"), "UTF-8"),
        (dir.path(".").display().to_string(), "directory"),
    ];
    for (file, reason) in cases {
        let args = ["--config", &config, "--tcp=127.0.0.1:0"];
        let log = refused(&[&args[..], &["--token-file", &file]].concat());
        assert!(log.contains(&file) && log.contains(reason), "{log}");
        assert!(!log.contains("s3cr3t") && !log.contains("xxxx"), "{log}");
        assert!(!log.contains("started"), "no worker is started: {log}");
    }
}

#[test]
fn a_token_that_nobody_is_asked_for_is_warned_of() {
    let (dir, config) = config_file(&zoo_config(1, &["echo"]));
    fs::write(dir.path("token"), "x").expect("written");
    let token = dir.path("token").display().to_string();
    let output = run(&["--config", &config, "--token-file", &token]);
    let log = text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{log}");
    assert!(log.contains("[WARN] --token-file"), "{log}");
}

// ---- check -------------------------------------------------------------------------------------

#[test]
fn check_says_what_a_configuration_starts_and_starts_nothing() {
    alone(|| {
        let report = TempDir::new();
        let file = report.path("ran").display().to_string();
        let config = json!({"pools": [
            {"id": "one", "command": zoo(), "args": ["report", file]},
            {"id": "three", "command": "sh", "instances": 3},
            {"id": "ours", "instances": 0},
        ]});
        let (_dir, config) = config_file(&config.to_string());
        let output = run(&["check", &config]);
        let zoo = zoo();
        let expected = format!(
            "{config} can be used\npool one: 1 worker, {}\npool three: 3 workers, sh\n\
             pool ours: workers of the process only\n",
            zoo.display()
        );
        assert_eq!(text(&output.stdout), expected);
        assert_eq!(text(&output.stderr), "");
        assert_eq!(output.status.code(), Some(0));
        assert!(!report.path("ran").exists());
    });
}

#[test]
fn check_says_what_is_wrong_and_exits_with_1() {
    let cases = [
        ("{\"pools\":[\n{\"id\":}]}", vec!["line 2", "column 7"]),
        (
            "{\"pools\":[{\"id\":\"a\",\"command\":7}]}",
            vec!["command", "line 1"],
        ),
        (
            r#"{"pools":[{"id":"a","command":"no-such-program"}]}"#,
            vec!["no-such-program", "pool a", "No such file"],
        ),
        (
            r#"{"pools":[{"id":"a","command":"/etc/passwd"}]}"#,
            vec!["/etc/passwd", "Permission denied"],
        ),
        (
            r#"{"pools":[{"id":"a","command":"sh"},{"id":"a","command":"sh"}]}"#,
            vec!["\"a\""],
        ),
        (
            r#"{"pools":[{"id":"a","command":"sh","cwd":"/no/such/folder"}]}"#,
            vec!["enter the directory", "/no/such/folder", "pool a"],
        ),
    ];
    for (config, parts) in cases {
        let (_dir, path) = config_file(config);
        let message = refused(&["check", &path]);
        for part in parts {
            assert!(message.contains(part), "{part}: {message}");
        }
        assert_eq!(message.lines().count(), 1, "{message}");
    }
    let missing = refused(&["check", "/no/such/config.json"]);
    assert!(missing.contains("/no/such/config.json"), "{missing}");
    assert!(refused(&["check"]).contains("<CONFIG>"));
}

#[test]
fn check_warns_of_keys_that_mean_nothing() {
    let config = r#"{"pools":[{"id":"a","command":"sh","instancse":3}]}"#;
    let (_dir, path) = config_file(config);
    let output = run(&["check", &path]);
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{message}");
    assert!(message.contains("instancse"), "{message}");
}

#[test]
fn a_start_says_the_same_of_a_folder_that_is_missing_as_check_does() {
    let config = r#"{"pools":[{"id":"a","command":"sh","cwd":"/no/such/folder"}]}"#;
    let (_dir, path) = config_file(config);
    let log = refused(&["--config", &path]);
    assert!(log.contains("/no/such/folder"), "{log}");
    assert_eq!(log.lines().count(), 1, "{log}");
}

#[test]
fn what_can_not_be_written_is_a_failure_and_no_panic() {
    let (_dir, valid) = config_file(&zoo_config(1, &["echo"]));
    let (_dir2, broken) = config_file("broken");
    let full = || fs::File::create("/dev/full").expect("there");
    for args in [&["check", &valid][..], &["completions", "bash"]] {
        let output = Command::new(program())
            .args(args)
            .stdout(full())
            .output()
            .expect("it starts");
        let message = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {message}");
        assert!(message.starts_with("stdio_bus: stdout: "), "{message}");
    }
    let mut command = Command::new(program());
    let status = command
        .args(["check", &broken])
        .stderr(full())
        .status()
        .expect("it starts");
    assert_eq!(status.code(), Some(1));
}

// ---- completions -------------------------------------------------------------------------------

/// Whether a shell takes the script; `None` where the shell is missing.
fn parses(shell: &str, script: &str) -> Option<bool> {
    let output = Command::new(shell)
        .args(["-n", script])
        .stdin(Stdio::null())
        .output()
        .ok()?;
    assert_eq!(text(&output.stderr), "", "{shell}");
    Some(output.status.success())
}

#[test]
fn completions_are_scripts_that_the_shells_take() {
    let dir = TempDir::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = run(&["completions", shell]);
        assert_eq!(output.status.code(), Some(0), "{shell}");
        assert_eq!(text(&output.stderr), "");
        let script = text(&output.stdout);
        for word in ["config-fd", "token-file", "check", "completions"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
        // What nobody types isn't offered.
        assert!(!text(&output.stdout).contains("bench-worker"), "{shell}");
        let path = dir.path(shell);
        fs::write(&path, script).expect("written");
        // The other two have no option for it.
        if matches!(shell, "bash" | "zsh" | "fish") {
            let parsed = parses(shell, path.to_str().expect("text"));
            assert_ne!(parsed, Some(false), "{shell}");
            assert!(
                shell != "bash" || parsed.is_some(),
                "there is always a bash"
            );
        }
    }
    assert!(refused(&["completions", "tcsh"]).contains("bash"));
}

#[test]
fn bash_completes_options_and_commands() {
    let script = r#"
        source <("$0" completions bash)
        complete -p stdio_bus >/dev/null
        try() {
            COMP_WORDS=(stdio_bus "$1") COMP_CWORD=1 COMPREPLY=()
            _stdio_bus stdio_bus "$1" stdio_bus
            echo "${COMPREPLY[@]}"
        }
        try --tok; try che; try --unix"#;
    let output = Command::new("bash")
        .args(["-ec", script])
        .arg(program())
        .output()
        .expect("bash runs");
    assert_eq!(text(&output.stderr), "");
    assert_eq!(
        text(&output.stdout),
        "--token-file\ncheck\n--unix --unix-mode --unix-group\n"
    );
}

#[test]
fn an_option_may_have_its_value_after_an_equals_sign() {
    alone(|| {
        let dir = TempDir::new();
        fs::write(dir.path("token"), "x").expect("written");
        fs::write(dir.path("c"), zoo_config(1, &["echo"])).expect("written");
        let (folder, uid) = (dir.path("").display().to_string(), "--allow-uid=0");
        let output = Command::new(program())
            .arg(format!("--config={folder}/c"))
            .arg("--stdio")
            .args(["--tcp=127.0.0.1:0", "--metrics=127.0.0.1:0", uid])
            .args(
                ["--unix-group=0", "--unix-mode=600"]
                    .map(|a| if is_root() { a } else { "--stdio" }),
            )
            .arg(format!("--unix={folder}/s"))
            .arg(format!("--admin={folder}/admin"))
            .arg(format!("--token-file={folder}/token"))
            .args(["--log-level=debug", "--log-format=json"])
            .stdin(Stdio::null())
            .output();
        let output = output.expect("it runs");
        let log = text(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{log}");
        for line in log.lines() {
            serde_json::from_str::<Value>(line).expect("JSON");
        }
        for part in [
            "listening on tcp",
            "listening on unix",
            "metrics on",
            "admin on",
        ] {
            assert!(log.contains(part), "{part}: {log}");
        }
        assert!(children(std::process::id()).is_empty());
    });
}
