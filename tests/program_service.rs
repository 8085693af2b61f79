//! The program under a service manager: what it tells one, and the sockets it is given.

mod common;

use std::fs;
use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener};
use std::process::{Command, Stdio};

use common::cli::{NOBODY, asked_by_nobody, config_file, is_root, text};
use common::{BOUND, Client, Program, TempDir, alone, program, run_within, signal, zoo_config};
use serde_json::json;

const UNIX: &[&str] = &["--unix={dir}/s"];

/// The next message to the service manager.
#[track_caller]
fn told(manager: &UnixDatagram) -> String {
    let mut buffer = [0; 512];
    manager.set_read_timeout(Some(BOUND)).expect("set");
    let length = manager.recv(&mut buffer).expect("it is told something");
    text(&buffer[..length]).trim_end().to_owned()
}

#[track_caller]
fn told_nothing_more(manager: &UnixDatagram) {
    manager.set_nonblocking(true).expect("set");
    let mut buffer = [0; 512];
    let more = manager.recv(&mut buffer);
    assert!(more.is_err(), "{}", text(&buffer));
}

fn start(notify: &str) -> Program {
    Program::start_with(&zoo_config(1, &["echo"]), UNIX, |command| {
        command.env("NOTIFY_SOCKET", notify);
    })
}

// ---- what it tells -----------------------------------------------------------------------------

#[test]
fn a_service_manager_hears_of_ready_reloading_and_stopping() {
    alone(|| {
        let dir = TempDir::new();
        let path = dir.path("notify");
        let manager = UnixDatagram::bind(&path).expect("bound");
        let mut bus = start(path.to_str().expect("text"));
        assert_eq!(told(&manager), "READY=1");
        // A client that comes now is served.
        bus.unix_client().ask(r#"{"id":1,"method":"echo"}"#);
        for config in [zoo_config(2, &["echo"]), "broken".to_owned()] {
            fs::write(bus.path("config.json"), config).expect("written");
            signal(bus.pid(), "HUP");
            let reloading = told(&manager);
            let (state, time) = reloading
                .split_once("\nMONOTONIC_USEC=")
                .expect("two lines");
            assert_eq!(state, "RELOADING=1");
            assert!(time.parse::<u64>().expect("a number") > 0);
            assert_eq!(
                told(&manager),
                "READY=1",
                "a reload that failed is over, too"
            );
        }
        signal(bus.pid(), "TERM");
        assert_eq!(told(&manager), "STOPPING=1");
        assert_eq!(bus.wait().code(), Some(0));
        told_nothing_more(&manager);
    });
}

#[test]
fn a_service_manager_may_listen_on_a_name_without_a_file() {
    alone(|| {
        let name = format!("stdio_bus-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("a name");
        let manager = UnixDatagram::bind_addr(&address).expect("bound");
        let mut bus = start(&format!("@{name}"));
        assert_eq!(told(&manager), "READY=1");
        signal(bus.pid(), "INT");
        assert_eq!(told(&manager), "STOPPING=1");
        bus.wait();
    });
}

#[test]
fn a_start_that_fails_is_never_ready() {
    alone(|| {
        let dir = TempDir::new();
        let manager = UnixDatagram::bind(dir.path("notify")).expect("bound");
        let (_config, path) = config_file(r#"{"pools":[{"id":"a","command":"/no/such/program"}]}"#);
        let mut command = Command::new(program());
        command
            .args(["--config", &path])
            .env("NOTIFY_SOCKET", dir.path("notify"));
        let (status, _) = run_within(&mut command, BOUND);
        assert_eq!(status.and_then(|status| status.code()), Some(1));
        told_nothing_more(&manager);
    });
}

#[test]
fn a_service_manager_that_is_gone_is_warned_of_and_nothing_else() {
    alone(|| {
        let mut bus = start("/no/such/socket");
        let line = bus.wait_for_log("service manager");
        assert!(line.contains("[WARN]"), "{line}");
        bus.unix_client().ask(r#"{"id":1,"method":"echo"}"#);
        signal(bus.pid(), "TERM");
        assert_eq!(bus.wait().code(), Some(0));
    });
}

#[test]
fn workers_are_not_told_how_to_reach_the_service_manager() {
    alone(|| {
        let dir = TempDir::new();
        let _manager = UnixDatagram::bind(dir.path("notify")).expect("bound");
        let mut bus = activated(&[], |command| {
            command.env("NOTIFY_SOCKET", dir.path("notify"));
        });
        bus.wait_for_log("entering main loop");
        let mut client = bus.tcp_client();
        for name in ["NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID"] {
            let request = json!({"id": 1, "method": "env", "params": {"name": name}});
            assert_eq!(
                client.ask(&request.to_string())["result"],
                json!(null),
                "{name}"
            );
        }
    });
}

// ---- what it is given --------------------------------------------------------------------------

/// Passes stdin and stdout on as the descriptors 3 and 4, as a service manager gives sockets.
const ACTIVATE: &str = r#"exec 3<&0 4<&1 </dev/null >/dev/null
    export LISTEN_FDS LISTEN_PID=$$
    exec "$0" "$@""#;

/// The program with two sockets from a service manager, a TCP and a Unix one.
fn activated(args: &[&str], prepare: impl FnOnce(&mut Command)) -> Program {
    let dir = TempDir::new();
    let tcp = TcpListener::bind("127.0.0.1:0").expect("bound");
    let unix = UnixListener::bind(dir.path("given")).expect("bound");
    with_sockets(args, tcp.into(), unix.into(), dir, prepare)
}

fn with_sockets(
    args: &[&str],
    tcp: OwnedFd,
    unix: OwnedFd,
    dir: TempDir,
    prepare: impl FnOnce(&mut Command),
) -> Program {
    fs::write(dir.path("config.json"), zoo_config(1, &["echo"])).expect("written");
    let mut command = Command::new("bash");
    command
        .args(["-c", ACTIVATE])
        .arg(program())
        .arg("--config")
        .arg(dir.path("config.json"))
        .args(args)
        .env("LISTEN_FDS", "2")
        .stdin(tcp)
        .stdout(unix);
    prepare(&mut command);
    Program::launch(&mut command, dir)
}

#[test]
fn clients_that_came_before_the_start_are_served_on_inherited_sockets() {
    alone(|| {
        let dir = TempDir::new();
        let path = dir.path("given");
        let tcp = TcpListener::bind("127.0.0.1:0").expect("bound");
        let unix = UnixListener::bind(&path).expect("bound");
        let address = tcp.local_addr().expect("bound").to_string();
        let mut early = [Client::tcp(&address), Client::unix(&path)];
        for client in &mut early {
            client.send(r#"{"id":1,"method":"echo","params":"early"}"#);
        }
        let mut bus = with_sockets(&[], tcp.into(), unix.into(), dir, |_| {});
        for client in &mut early {
            assert_eq!(client.receive_json()["result"], "early");
        }
        bus.wait_for_log("entering main loop");
        // Nobody is served on stdin then.
        for mut client in [Client::tcp(&address), Client::unix(&path)] {
            assert_eq!(
                client.ask(r#"{"id":2,"method":"echo","params":"late"}"#)["result"],
                "late"
            );
        }
        signal(bus.pid(), "TERM");
        assert_eq!(bus.wait().code(), Some(0));
        assert!(path.exists(), "it belongs to the service manager");
    });
}

#[test]
fn inherited_sockets_go_with_those_of_the_command_line_and_share_the_token() {
    alone(|| {
        let dir = TempDir::new();
        fs::write(dir.path("token"), "t").expect("written");
        let own = dir.path("own").display().to_string();
        let token = dir.path("token").display().to_string();
        let args = ["--unix", &own, "--token-file", &token];
        let mut bus = activated(&args, |_| {});
        bus.wait_for_log("entering main loop");
        let (unix, tcp) = (bus.unix_paths(), bus.tcp_addresses());
        assert_eq!((unix.len(), tcp.len()), (2, 1), "{:#?}", bus.log());
        let auth = r#"{"id":1,"method":"stdio_bus/auth","params":{"token":"t"}}"#;
        let echo = r#"{"id":2,"method":"echo","params":7}"#;
        let connect: [Box<dyn Fn() -> Client>; 3] = [
            Box::new(|| Client::tcp(&tcp[0])),
            Box::new(|| Client::unix(&unix[0])),
            Box::new(|| Client::unix(&unix[1])),
        ];
        for connect in connect {
            assert_eq!(connect().ask(echo)["error"]["code"], -32014);
            let mut client = connect();
            assert_eq!(client.ask(auth)["result"]["ok"], true);
            assert_eq!(client.ask(echo)["result"], 7);
        }
    });
}

#[test]
fn other_users_connect_to_an_inherited_socket_where_they_are_allowed_to() {
    if !is_root() || !common::has_python() {
        eprintln!("skipped: only root can be somebody else");
        return;
    }
    alone(|| {
        let allowed = format!("--allow-uid={NOBODY}");
        for (args, let_in) in [(vec![], false), (vec![allowed.as_str()], true)] {
            let mut bus = activated(&args, |_| {});
            bus.wait_for_log("entering main loop");
            let path = bus.path("given");
            fs::set_permissions(bus.path("."), fs::Permissions::from_mode(0o711)).expect("set");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).expect("set");
            let answer = asked_by_nobody(&path, r#"{"id":2,"method":"echo","params":7}"#);
            assert_eq!(answer.contains("\"result\":7"), let_in, "{answer}");
        }
    });
}

#[test]
fn sockets_for_another_process_are_left_alone() {
    alone(|| {
        let mut bus = Program::start_with(&zoo_config(1, &["echo"]), UNIX, |command| {
            command.env("LISTEN_FDS", "2").env("LISTEN_PID", "1");
        });
        assert_eq!(
            bus.unix_client().ask(r#"{"id":1,"method":"echo"}"#)["id"],
            1
        );
        signal(bus.pid(), "TERM");
        assert_eq!(bus.wait().code(), Some(0));
    });
}

#[test]
fn a_configuration_that_was_not_given_is_not_looked_for_in_what_the_program_has_open_itself() {
    // Its own descriptors have the first free numbers: no others are to be open, as those of make.
    let closed: String = (3..12).map(|number| format!("{number}<&- ")).collect();
    for number in 3..12 {
        let mut command = Command::new("bash");
        command
            .args(["-c", &format!("exec \"$0\" --config-fd {number} {closed}")])
            .arg(program());
        let (status, [_, log]) = run_within(&mut command, BOUND);
        assert_eq!(status.and_then(|status| status.code()), Some(1), "{log}");
        assert!(
            log.contains(&format!("--config-fd {number}: not an open")),
            "{log}"
        );
    }
}

#[test]
fn descriptors_that_are_no_sockets_exit_with_1_and_are_named() {
    let (_dir, config) = config_file(&zoo_config(1, &["echo"]));
    let file = fs::File::open(&config).expect("there");
    let file = || file.as_fd().try_clone_to_owned().expect("duplicated");
    for (fds, reason) in [
        ("2", "descriptor"),
        ("3", "LISTEN_FDS"),
        ("x", "LISTEN_FDS"),
    ] {
        let mut command = Command::new("bash");
        command
            .args(["-c", ACTIVATE])
            .arg(program())
            .args(["--config", &config])
            .env("LISTEN_FDS", fds)
            .stdin(file())
            .stdout(Stdio::from(file()));
        let output = command
            .stderr(Stdio::piped())
            .spawn()
            .and_then(|c| c.wait_with_output());
        let output = output.expect("it runs");
        let log = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{log}");
        assert!(log.contains(reason), "{log}");
        assert!(!log.contains("started"), "{log}");
    }
}
