//! Listeners with more than an address: tokens, pools of their own, files, users, framing, and
//! sockets that this process was given.

mod common;

use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;

use common::cli::{NOBODY, asked_by_nobody, is_root};
use common::client::{assert_kind, block_on};
use common::{BOUND, Client, TempDir, alone, zoo, zoo_config, zoo_pool};
use serde_json::{Value, json};
use stdiobus::blocking::StdioBus;
use stdiobus::{
    ErrorCode, Framing, Listen, ListenAddr, ListenMode, LogLevel, PoolConfig, StdioBusBuilder,
};

const ECHO: &str = r#"{"id":2,"method":"echo","params":[7]}"#;

fn builder() -> StdioBusBuilder {
    stdiobus::StdioBus::builder().pool(zoo_pool(&["echo"]))
}

fn started(builder: StdioBusBuilder) -> StdioBus {
    let bus = builder.build_blocking().expect("valid");
    bus.start().expect("starts");
    bus
}

/// A client of the bus's listener with this number.
fn connect(bus: &StdioBus, listener: usize) -> Client {
    match &bus.listen_addrs()[listener] {
        ListenAddr::Tcp(address) => Client::tcp(&address.to_string()),
        ListenAddr::Unix(path) => Client::unix(path),
        other => panic!("{other:?}"),
    }
}

fn loopback() -> TcpListener {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bound")
}

// ---- tokens ------------------------------------------------------------------------------------

fn auth(token: &str) -> String {
    let params = json!({"token": token});
    json!({"jsonrpc": "2.0", "id": 1, "method": "stdio_bus/auth", "params": params}).to_string()
}

#[test]
fn only_clients_that_show_the_token_are_let_in() {
    alone(|| {
        let dir = TempDir::new();
        let log = Arc::new(Mutex::new(String::new()));
        let lines = log.clone();
        let (tcp, unix) = (
            Listen::tcp("127.0.0.1", 0),
            Listen::unix(dir.path("bus.sock")),
        );
        let builder = builder()
            .listen(tcp.token("open sésame"))
            .listen(unix.token("another \"secret\""))
            .log_level(LogLevel::Debug)
            .on_log(move |_, line| lines.lock().unwrap().push_str(line));
        assert!(!format!("{builder:?}").contains("sésame"));
        let bus = started(builder);
        for (listener, (right, wrong)) in [
            ("open sésame", "open"),
            ("another \"secret\"", "open sésame"),
        ]
        .into_iter()
        .enumerate()
        {
            let mut friend = connect(&bus, listener);
            assert_eq!(friend.ask(&auth(right))["result"], json!({"ok": true}));
            assert_eq!(friend.ask(ECHO)["result"], json!([7]));
            for first in [auth(wrong), auth(""), ECHO.to_owned()] {
                let mut stranger = connect(&bus, listener);
                let answer = stranger.ask(&first);
                assert_eq!(answer["error"]["code"], -32014, "{answer}");
                assert_eq!(stranger.rest(), [""; 0]);
            }
        }
        bus.stop().expect("stops");
        let log = log.lock().unwrap();
        assert!(log.contains("listening on tcp"), "{log}");
        assert!(!log.contains("sésame") && !log.contains("another"), "{log}");
    });
}

// ---- pools -------------------------------------------------------------------------------------

#[test]
fn each_listener_can_have_a_pool_of_its_own() {
    alone(|| {
        let dir = TempDir::new();
        let pool = |id: &str| PoolConfig::new(id, zoo()).args(["echo"]).env("WHO", id);
        let bus = started(
            stdiobus::StdioBus::builder()
                .pool(pool("first"))
                .pool(pool("second"))
                .listen(Listen::unix(dir.path("2.sock")).pool("second"))
                .listen(Listen::unix(dir.path("1.sock")).pool("first"))
                .listen(ListenMode::unix(dir.path("0.sock"))),
        );
        let who = |listener| {
            let asked =
                connect(&bus, listener).ask(r#"{"id":1,"method":"env","params":{"name":"WHO"}}"#);
            asked.get("result").cloned().unwrap_or(Value::Null)
        };
        assert_eq!(
            [who(0), who(1), who(2)],
            [json!("second"), json!("first"), Value::Null]
        );
        bus.stop().expect("stops");
    });
}

#[test]
fn a_listener_for_a_pool_that_does_not_exist_is_refused() {
    alone(|| {
        let dir = TempDir::new();
        let path = dir.path("config.json");
        fs::write(&path, zoo_config(1, &["echo"])).expect("written");
        let new = stdiobus::StdioBus::builder;
        for builder in [
            builder(),
            new().config_json(zoo_config(1, &["echo"])),
            new().config_path(path),
        ] {
            let known = Listen::tcp("127.0.0.1", 0).pool("zoo");
            let builder = builder.listen(known);
            builder.clone().build_blocking().expect("valid");
            let unknown = Listen::tcp("127.0.0.1", 0).pool("zo");
            let result = builder.listen(unknown).build_blocking();
            let error = assert_kind(result, ErrorCode::InvalidArgument);
            assert!(error.to_string().contains("no pool \"zo\""), "{error}");
        }
    });
}

// ---- files and users ---------------------------------------------------------------------------

#[test]
fn a_socket_file_has_the_mode_and_the_group_it_was_given() {
    alone(|| {
        let dir = TempDir::new();
        let (open, plain) = (dir.path("open.sock"), dir.path("plain.sock"));
        // Only root can give a file to any group.
        let group = match is_root() {
            true => 12345,
            false => fs::metadata("/proc/self").expect("proc").gid(),
        };
        let bus = started(
            builder()
                .listen(Listen::unix(&open).mode(0o666).group(group))
                .listen(Listen::unix(&plain)),
        );
        let of = |path: &Path| fs::metadata(path).expect("there");
        assert_eq!(of(&open).mode() & 0o7777, 0o666);
        assert_eq!(of(&open).gid(), group);
        assert_eq!(of(&plain).mode() & 0o7777, 0o600);
        bus.stop().expect("stops");
        assert!(!open.exists() && !plain.exists());
    });
}

#[test]
fn other_users_connect_where_they_are_allowed_to() {
    if !is_root() || Command::new("python3").arg("--version").output().is_err() {
        eprintln!("skipped: only root can be somebody else, and python3 is needed");
        return;
    }
    alone(|| {
        let dir = TempDir::new();
        fs::set_permissions(dir.path("."), Permissions::from_mode(0o711)).expect("set");
        let (theirs, ours) = (dir.path("theirs.sock"), dir.path("ours.sock"));
        let bus = started(
            builder()
                .listen(
                    Listen::unix(&theirs)
                        .mode(0o666)
                        .allow_uid(1)
                        .allow_uid(NOBODY),
                )
                .listen(Listen::unix(&ours).mode(0o666).allow_uid(1)),
        );
        assert!(asked_by_nobody(&theirs, ECHO).contains(r#""result":[7]"#));
        assert_eq!(asked_by_nobody(&ours, ECHO).trim(), "");
        bus.stop().expect("stops");
    });
}

// ---- framing -----------------------------------------------------------------------------------

#[test]
fn a_listener_can_have_a_framing_of_its_own() {
    alone(|| {
        let bus = started(
            builder()
                .listen(Listen::tcp("127.0.0.1", 0).framing(Framing::Length))
                .listen(Listen::tcp("127.0.0.1", 0).framing(Framing::Ndjson)),
        );
        let address = bus.listen_addrs()[0].tcp().expect("TCP");
        let mut client = TcpStream::connect(address).expect("connected");
        client.set_read_timeout(Some(BOUND)).expect("set");
        let length = u32::try_from(ECHO.len()).expect("short");
        client.write_all(&length.to_be_bytes()).expect("sent");
        client.write_all(ECHO.as_bytes()).expect("sent");
        let mut length = [0; 4];
        client.read_exact(&mut length).expect("a length");
        let mut answer = vec![0; u32::from_be_bytes(length) as usize];
        client.read_exact(&mut answer).expect("an answer");
        let answer: Value = serde_json::from_slice(&answer).expect("JSON");
        assert_eq!(answer["result"], json!([7]));

        assert_eq!(connect(&bus, 1).ask(ECHO)["result"], json!([7]));
        bus.stop().expect("stops");
    });
}

// ---- inherited sockets -------------------------------------------------------------------------

#[test]
fn a_bus_serves_the_sockets_it_was_given() {
    alone(|| {
        let dir = TempDir::new();
        let (tcp, unix) = (
            loopback(),
            UnixListener::bind(dir.path("s")).expect("bound"),
        );
        let addresses = [
            ListenAddr::Tcp(tcp.local_addr().expect("bound")),
            ListenAddr::Unix(dir.path("s")),
        ];
        // Who came before the bus is served, too: that is what such sockets are for.
        let mut early = Client::tcp(&tcp.local_addr().expect("bound").to_string());
        early.send(ECHO);

        let bus = started(
            builder()
                .listen(Listen::inherited(tcp))
                .listen(Listen::inherited(unix).token("secret")),
        );
        assert_eq!(bus.listen_addrs(), addresses);
        for (mode, bound) in bus.listen_mode().iter().zip(&addresses) {
            assert!(matches!(mode, ListenMode::Inherited { address, .. } if address == bound));
        }
        assert_eq!(early.receive_json()["result"], json!([7]));
        assert_eq!(connect(&bus, 0).ask(ECHO)["result"], json!([7]));
        let mut client = connect(&bus, 1);
        assert_eq!(client.ask(&auth("secret"))["result"], json!({"ok": true}));
        assert_eq!(client.ask(ECHO)["result"], json!([7]));

        bus.stop().expect("stops");
        let address = addresses[0].tcp().expect("TCP");
        TcpStream::connect(address).expect_err("its descriptor is closed");
        assert!(
            dir.path("s").exists(),
            "the file belongs to whoever bound it"
        );
        UnixStream::connect(dir.path("s")).expect_err("its descriptor is closed");
    });
}

#[test]
fn a_socket_may_have_a_name_without_a_file() {
    alone(|| {
        let name = format!("stdio_bus-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("a name");
        let socket = UnixListener::bind_addr(&address).expect("bound");
        let bus = started(builder().listen(Listen::inherited(socket)));
        let told = ListenAddr::Unix(format!("@{name}").into());
        assert_eq!(bus.listen_addrs(), [told]);
        let mut client = UnixStream::connect_addr(&address).expect("connected");
        client.set_read_timeout(Some(BOUND)).expect("set");
        client
            .write_all(format!("{ECHO}\n").as_bytes())
            .expect("sent");
        let mut answer = [0; 256];
        let n = client.read(&mut answer).expect("answered");
        assert!(String::from_utf8_lossy(&answer[..n]).contains("[7]"));
        bus.stop().expect("stops");
    });
}

#[test]
fn each_bus_of_a_cloned_builder_gets_the_socket() {
    alone(|| {
        let builder = builder().listen(Listen::inherited(loopback()));
        for builder in [builder.clone(), builder] {
            let bus = started(builder);
            assert_eq!(connect(&bus, 0).ask(ECHO)["result"], json!([7]));
            bus.stop().expect("stops");
        }
    });
}

#[test]
fn a_socket_that_nobody_can_connect_to_fails_the_start() {
    alone(|| {
        let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("bound");
        let listening = loopback();
        let address = listening.local_addr().expect("bound");
        let accepted = thread::spawn(move || listening.accept().expect("accepted").0);
        let _peer = TcpStream::connect(address).expect("connected");
        let connection = accepted.join().expect("accepted");
        for (socket, reason) in [
            (OwnedFd::from(udp), "not a stream socket"),
            (OwnedFd::from(connection), "a connection"),
        ] {
            let bus = builder().listen(Listen::inherited(socket)).build();
            let error = assert_kind(
                block_on(bus.expect("valid").start()),
                ErrorCode::Unavailable,
            );
            assert!(error.to_string().contains(reason), "{error}");
        }
    });
}
