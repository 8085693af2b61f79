//! What the program shows of itself: `--admin` and `--metrics`.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::thread;
use std::time::{Duration, Instant};

use common::cli::{NOBODY, asked_by_nobody, config_file, is_root, refused};
use common::{BOUND, Client, Program, alone, signal, zoo_config};
use serde_json::{Value, json};

// ---- admin -------------------------------------------------------------------------------------

const ADMIN: &[&str] = &["--unix={dir}/s", "--admin={dir}/admin"];
const SNAPSHOT: &str = r#"{"id":1,"method":"snapshot","params":{"stderr":5}}"#;

#[test]
fn a_snapshot_shows_what_there_is() {
    alone(|| {
        let mut config: Value = serde_json::from_str(&zoo_config(2, &["chatty"])).expect("JSON");
        config["pools"][0]["stderr"] = json!("log");
        let bus = Program::start(&config.to_string(), ADMIN);
        let mut client = bus.unix_client();
        for id in 0..10 {
            client.ask(&format!(r#"{{"id":{id},"method":"echo"}}"#));
        }
        client.send(r#"{"id":"pending","method":"hold"}"#);
        client.ask(r#"{"id":10,"sessionId":"s","method":"echo"}"#);
        let mut admin = Client::unix(bus.path("admin"));
        let shown = admin.ask(SNAPSHOT)["result"].clone();
        assert_eq!(shown["pid"], bus.pid());
        assert_eq!(shown["state"], "RUNNING");
        assert_eq!(shown["version"], stdiobus::version());
        assert_eq!(shown["clients"], 1, "those of the admin socket are others");
        assert_eq!(shown["stats"]["pending"], 1);
        assert_eq!(shown["stats"]["messagesIn"], 12);
        assert_eq!(shown["stats"]["messagesOut"], 11);
        assert_eq!(shown["stats"]["sessions"], 1);
        let listener = shown["listeners"][0].as_str().expect("text");
        assert!(listener.ends_with("/s"), "{listener}");
        let pool = &shown["pools"][0];
        assert_eq!(
            (&pool["id"], &pool["workers"], &pool["requests"]),
            (&json!("zoo"), &json!(2), &json!(12))
        );
        let workers = shown["workers"].as_array().expect("an array");
        let mut pids: Vec<_> = workers
            .iter()
            .map(|w| w["pid"].as_u64().expect("a pid") as u32)
            .collect();
        pids.sort_unstable();
        let mut children = common::children(bus.pid());
        children.sort_unstable();
        assert_eq!(pids, children);
        for worker in workers {
            assert_eq!(
                (&worker["state"], &worker["generation"]),
                (&json!("ready"), &json!(1))
            );
            let stderr = worker["stderr"].as_array().expect("lines");
            assert_eq!(stderr.len(), 5);
            assert!(
                stderr[4]
                    .as_str()
                    .expect("text")
                    .starts_with("01999 a chatty")
            );
        }
    });
}

#[test]
fn the_admin_socket_is_for_this_user_and_for_one_method() {
    alone(|| {
        let mut bus = Program::start(&zoo_config(1, &["echo"]), ADMIN);
        let path = bus.path("admin");
        let mode = |path| fs::metadata(path).expect("there").permissions().mode() & 0o7777;
        assert_eq!(mode(&path), 0o600);
        let line = bus.wait_for_log("admin on");
        assert!(line.contains("/admin"), "{line}");
        let mut admin = Client::unix(&path);
        for method in ["echo", "pid", "reload", "stop", ""] {
            let answer = admin.ask(&json!({"id": 1, "method": method}).to_string());
            assert_eq!(answer["error"]["code"], -32601, "{answer}");
        }
        // Nor can it reach a pool of the bus.
        let answer = admin.ask(r#"{"id":1,"pool":"zoo","method":"pid"}"#);
        assert_eq!(answer["error"]["code"], -32010, "{answer}");
        assert!(admin.ask(SNAPSHOT)["result"].is_object());
        if is_root() && common::has_python() {
            fs::set_permissions(bus.path("."), fs::Permissions::from_mode(0o711)).expect("set");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).expect("set");
            assert_eq!(
                asked_by_nobody(&path, SNAPSHOT).trim(),
                "",
                "{NOBODY} is sent away"
            );
        }
        signal(bus.pid(), "TERM");
        assert_eq!(bus.wait().code(), Some(0));
        assert!(!path.exists());
        assert!(admin.rest().is_empty());
    });
}

#[test]
fn an_admin_path_in_use_exits_with_1() {
    alone(|| {
        let bus = Program::start(&zoo_config(1, &["echo"]), ADMIN);
        let (dir, config) = config_file(&zoo_config(1, &["echo"]));
        fs::write(dir.path("file"), "data").expect("written");
        for (path, reason) in [
            (bus.path("admin"), "in use"),
            (dir.path("file"), "not a socket"),
        ] {
            let path = path.to_str().expect("text");
            let log = refused(&["--config", &config, "--tcp=127.0.0.1:0", "--admin", path]);
            assert!(log.contains(reason) && log.contains("--admin"), "{log}");
            assert!(!log.contains("started"), "{log}");
        }
        assert_eq!(fs::read_to_string(dir.path("file")).expect("there"), "data");
        assert!(Client::unix(bus.path("admin")).ask(SNAPSHOT)["result"].is_object());
    });
}

// ---- metrics -----------------------------------------------------------------------------------

const METRICS: &[&str] = &["--unix={dir}/s", "--metrics=127.0.0.1:0"];

fn with_metrics(instances: usize) -> (Program, String) {
    let mut bus = Program::start(&zoo_config(instances, &["echo"]), METRICS);
    let line = bus.wait_for_log("metrics on http://");
    let address = line.split_once("http://").expect("there").1;
    let address = address
        .strip_suffix("/metrics")
        .expect("its path")
        .to_owned();
    (bus, address)
}

fn connect(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(BOUND)).expect("set");
    stream
}

/// The status, the head and the body of the answer to one request.
#[track_caller]
fn http(address: &str, method: &str, path: &str) -> (u16, String, String) {
    let mut stream = connect(address);
    let request = format!("{method} {path} HTTP/1.1\r\nHost: bus\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("sent");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("an answer");
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    (
        status.expect("a status"),
        head.to_lowercase(),
        body.to_owned(),
    )
}

/// The page's samples, each with its labels.
fn samples(address: &str) -> BTreeMap<String, f64> {
    let (status, _, body) = http(address, "GET", "/metrics");
    assert_eq!(status, 200, "{body}");
    let lines = body
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    let sample = |line: &str| {
        let (name, value) = line.rsplit_once(' ').expect("a name and a value");
        (name.to_owned(), value.parse().expect("a number"))
    };
    lines.map(sample).collect()
}

#[test]
fn metrics_are_a_page_and_nothing_else_is() {
    alone(|| {
        let (mut bus, address) = with_metrics(1);
        let (status, head, body) = http(&address, "GET", "/metrics");
        assert_eq!(status, 200);
        assert!(
            head.contains("content-type: text/plain; version=0.0.4"),
            "{head}"
        );
        assert!(body.contains("# TYPE stdiobus_"), "{body}");
        let (status, head, body) = http(&address, "HEAD", "/metrics");
        assert_eq!((status, body.as_str()), (200, ""));
        assert!(head.contains("content-length: "), "{head}");
        for path in ["/", "/metrics/", "/other"] {
            assert_eq!(http(&address, "GET", path).0, 404, "{path}");
        }
        for method in ["POST", "PUT", "DELETE"] {
            let (status, head, _) = http(&address, method, "/metrics");
            assert_eq!(status, 405, "{method}");
            assert!(head.contains("allow: get, head"), "{head}");
        }
        assert_eq!(http(&address, "GET", "/metrics?x=1").0, 200);
        signal(bus.pid(), "TERM");
        assert_eq!(bus.wait().code(), Some(0));
    });
}

#[test]
fn what_metrics_count_is_right_under_load() {
    alone(|| {
        const CLIENTS: u64 = 4;
        const REQUESTS: u64 = 1000;
        let (bus, address) = with_metrics(2);
        let path = bus.path("s");
        thread::scope(|scope| {
            let load = || {
                let mut client = Client::unix(&path);
                for id in 0..REQUESTS {
                    client.ask(&format!(r#"{{"id":{id},"method":"echo"}}"#));
                }
                client
            };
            let loads: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(load)).collect();
            // Somebody looks all the while, and never sees a count go back.
            let mut before = 0.0;
            while loads.iter().any(|load| !load.is_finished()) {
                let now = value(&samples(&address), "messages_in");
                assert!(now >= before, "{now} < {before}");
                before = now;
            }
            let _clients: Vec<_> = loads
                .into_iter()
                .map(|load| load.join().expect("answered"))
                .collect();
            let now = samples(&address);
            let total = (CLIENTS * REQUESTS) as f64;
            assert_eq!(value(&now, "messages_in"), total, "{now:#?}");
            assert_eq!(value(&now, "messages_out"), total, "{now:#?}");
            assert_eq!(value(&now, "stdiobus_pending"), 0.0, "{now:#?}");
        });
    });
}

/// The only sample whose name contains this.
#[track_caller]
fn value(samples: &BTreeMap<String, f64>, name: &str) -> f64 {
    let found: Vec<_> = samples
        .iter()
        .filter(|(key, _)| key.contains(name))
        .collect();
    assert_eq!(found.len(), 1, "{name}: {samples:#?}");
    *found[0].1
}

#[test]
fn a_metrics_address_in_use_exits_with_1() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("bound");
    let address = taken.local_addr().expect("bound").to_string();
    let (_dir, config) = config_file(&zoo_config(1, &["echo"]));
    let log = refused(&[
        "--config",
        &config,
        "--tcp=127.0.0.1:0",
        "--metrics",
        &address,
    ]);
    assert!(log.contains("--metrics") && log.contains("in use"), "{log}");
    assert!(log.contains(&address) && !log.contains("started"), "{log}");
}

#[test]
fn a_hundred_connections_at_once_are_all_answered() {
    alone(|| {
        let (_bus, address) = with_metrics(1);
        let mut streams: Vec<_> = (0..100).map(|_| connect(&address)).collect();
        for stream in &mut streams {
            let request = b"GET /metrics HTTP/1.1\r\nHost: bus\r\nConnection: close\r\n\r\n";
            stream.write_all(request).expect("sent");
        }
        for stream in &mut streams {
            let mut text = String::new();
            stream.read_to_string(&mut text).expect("an answer");
            assert!(text.starts_with("HTTP/1.1 200"), "{text}");
        }
    });
}

#[test]
fn clients_that_send_nothing_or_too_slowly_are_harmless() {
    alone(|| {
        let (mut bus, address) = with_metrics(1);
        let mut idle: Vec<_> = (0..100).map(|_| connect(&address)).collect();
        idle[0].write_all(b"GET /metr").expect("sent");
        // The bus itself does not notice.
        let mut client = bus.unix_client();
        let start = Instant::now();
        for id in 0..100 {
            client.ask(&format!(r#"{{"id":{id},"method":"echo"}}"#));
        }
        assert!(
            start.elapsed() < Duration::from_secs(5),
            "{:?}",
            start.elapsed()
        );
        // And in time there is room for one that means it.
        assert_eq!(http(&address, "GET", "/metrics").0, 200);
        let mut byte = [0; 1];
        let closed = |stream: &mut TcpStream| !matches!(stream.read(&mut byte), Err(e) if e.kind() == std::io::ErrorKind::WouldBlock);
        assert!(idle.iter_mut().all(closed), "they are closed");
        signal(bus.pid(), "TERM");
        assert_eq!(bus.wait().code(), Some(0));
    });
}

#[test]
fn what_is_not_http_is_sent_away() {
    alone(|| {
        let (_bus, address) = with_metrics(1);
        for bytes in [
            &b"\x16\x03\x01\x02\x00"[..],
            b"{\"id\":1}\n\n",
            &[b'x'; 100_000],
        ] {
            let mut stream = connect(&address);
            // It may be gone before the end.
            let _ = stream.write_all(bytes);
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let mut text = Vec::new();
            let _ = stream.read_to_end(&mut text);
            assert!(!text.starts_with(b"HTTP/1.1 200"));
        }
        assert_eq!(http(&address, "GET", "/metrics").0, 200);
    });
}
