//! Describing a bus: where its configuration comes from, what holds unless set, what is refused.

mod common;

use std::fs;
use std::time::Duration;

use common::client::{assert_kind, soon, started};
use common::{Client, TempDir, alone, alone_async, children, zoo_config, zoo_pool};
use serde_json::{Value, json};
use stdiobus::{
    BackendMode, BackendType, BusConfig, ClientMode, ErrorCode, LimitsConfig, ListenMode,
    NativeOptions, NotificationOptions, OverflowPolicy, PoolConfig, Protocol, RemoteOptions,
    RestartPolicy, StderrMode, StdioBus, StdioBusBuilder, SubprocessOptions,
};

#[track_caller]
fn refused(builder: StdioBusBuilder) -> String {
    let blocking = builder.clone().build_blocking().map(drop);
    let text = assert_kind(builder.build(), ErrorCode::InvalidArgument).to_string();
    let same = assert_kind(blocking, ErrorCode::InvalidArgument).to_string();
    assert_eq!(text, same);
    text
}

#[test]
fn there_is_one_configuration_and_a_refusal_names_those_that_clash() {
    type Give = fn(StdioBusBuilder) -> StdioBusBuilder;
    let sources: [(&str, Give); 5] = [
        ("config", |b| b.config(BusConfig::new().pool(zoo_pool(&[])))),
        ("config_path", |b| b.config_path("/no/such/file")),
        ("config_json", |b| b.config_json(zoo_config(1, &["echo"]))),
        ("pool", |b| b.pool(zoo_pool(&[]))),
        ("limits", |b| b.limits(LimitsConfig::new())),
    ];
    let backends = [BackendMode::Native, BackendMode::Subprocess];
    for backend in backends {
        let builder = || StdioBus::builder().backend(backend.clone());
        let none = refused(builder());
        for name in ["config", "config_path", "config_json", "pool"] {
            assert!(none.contains(name), "{none}");
        }
        for (i, (first, give)) in sources.iter().enumerate() {
            for (second, more) in &sources[i + 1..] {
                // Parts add to a value.
                if ["config", "pool"].contains(first) && ["pool", "limits"].contains(second) {
                    continue;
                }
                let text = refused(more(give(builder())));
                let mut names = text.split(": ").nth(1).expect("names").split(", ");
                let mut named = |name: &str| names.any(|n| n.split(" or ").any(|n| n == name));
                assert!(named(first) && named(second), "{first}, {second}: {text}");
            }
        }
    }
}

#[test]
fn two_pools_of_one_name_are_refused_by_that_name_wherever_they_come_from() {
    let pool = || zoo_pool(&["echo"]);
    let twice = BusConfig::new().pool(pool()).pool(pool());
    let json = json!({"pools": [pool(), pool()]}).to_string();
    let dir = TempDir::new();
    let path = dir.path("config.json");
    fs::write(&path, &json).expect("written");
    let one = BusConfig::new().pool(pool());
    for builder in [
        StdioBus::builder().config(twice),
        StdioBus::builder().pool(pool()).pool(pool()),
        StdioBus::builder().config(one).pool(pool()),
        StdioBus::builder().config_json(&json),
        StdioBus::builder().config_path(&path),
    ] {
        let text = refused(builder);
        assert!(text.contains("zoo") && text.contains("id"), "{text}");
    }
    let text = assert_kind(BusConfig::from_json(&json), ErrorCode::InvalidArgument).to_string();
    assert!(text.contains("\"zoo\"") && text.contains("id"), "{text}");
}

/// Every key there is, and none with its default.
fn everything() -> Value {
    json!({
        "pools": [{
            "id": "echo", "command": common::zoo(), "args": ["echo"], "instances": 2,
            "env": {"K": "V"}, "inherit_env": false, "cwd": "/", "protocol": "mcp",
            "restart": "on-failure", "stderr": "inherit",
            "initialize": {"protocolVersion": "2025-06-18", "capabilities": {}},
            "init_timeout_sec": 7, "clients": "exclusive",
        }],
        "default_pool": "echo",
        "limits": {
            "max_input_buffer": 20_000, "max_output_queue": 30_000,
            "max_restarts": 3, "restart_window_sec": 61, "drain_timeout_sec": 31,
            "backpressure_timeout_sec": 62, "stall_timeout_sec": 63,
            "max_sessions": 1000, "session_idle_sec": 64, "max_pending": 1001,
            "max_clients": 1002,
        },
        "transport": {"framing": "length"},
    })
}

#[test]
fn every_key_of_a_configuration_survives_the_way_through_the_types() {
    let config = BusConfig::from_json(&everything().to_string()).expect("valid");
    let written: Value = serde_json::from_str(&config.to_json()).expect("JSON");
    assert_eq!(written, everything());
    assert_eq!(
        BusConfig::from_json(&config.to_json()).expect("valid"),
        config
    );
    let pool = &config.pools[0];
    assert_eq!(
        (pool.protocol, pool.clients),
        (Protocol::Mcp, ClientMode::Exclusive)
    );
    assert_eq!(pool.restart, RestartPolicy::OnFailure);
    assert_eq!(pool.stderr, Some(StderrMode::Inherit));
    // Each word of each key.
    for (key, words) in [
        ("protocol", &["auto", "ndjson", "mcp", "acp"][..]),
        ("restart", &["always", "on-failure", "never"]),
        ("stderr", &["log", "inherit", "null"]),
        ("clients", &["shared", "exclusive"]),
    ] {
        for word in words {
            let mut json = json!({"pools": [{"id": "a", "command": "cat"}]});
            json["pools"][0][key] = json!(word);
            let config = BusConfig::from_json(&json.to_string()).expect(word);
            let again = BusConfig::from_json(&config.to_json()).expect(word);
            assert_eq!(again, config, "{key}: {word}");
            json["pools"][0][key] = json!("other");
            let odd = BusConfig::from_json(&json.to_string());
            assert_kind(odd, ErrorCode::InvalidArgument);
        }
    }
}

#[test]
fn the_bus_takes_every_key_as_text_and_as_a_value() {
    alone(|| {
        let complaints = |builder: StdioBusBuilder| {
            let (heard, lines) = std::sync::mpsc::channel();
            let builder = builder.log_level(stdiobus::LogLevel::Warn);
            let builder = builder.on_log(move |_, line| drop(heard.send(line.to_owned())));
            let bus = builder.build_blocking().expect("valid");
            bus.start().expect("starts");
            bus.stop_with_timeout(Duration::ZERO).expect("stops");
            drop(bus);
            lines.try_iter().collect::<Vec<_>>()
        };
        let text = everything().to_string();
        let value = BusConfig::from_json(&text).expect("valid");
        let none: [String; 0] = [];
        assert_eq!(complaints(StdioBus::builder().config(value)), none);
        assert_eq!(complaints(StdioBus::builder().config_json(text)), none);
    });
}

#[test]
fn the_framing_of_a_configuration_is_that_of_its_listeners() {
    alone_async(|| async {
        use std::io::{Read, Write};

        let dir = TempDir::new();
        let path = dir.path("bus.sock");
        let text = zoo_config(1, &["echo"]);
        let mut json: Value = serde_json::from_str(&text).expect("JSON");
        json["transport"] = json!({"framing": "length"});
        let config = BusConfig::from_json(&json.to_string()).expect("valid");
        let builder = StdioBus::builder().config(config);
        let bus = builder.listen(ListenMode::unix(&path)).build();
        let bus = bus.expect("valid");
        bus.start().await.expect("starts");
        let answer = tokio::task::block_in_place(|| {
            let mut client = std::os::unix::net::UnixStream::connect(&path).expect("connected");
            let frame = br#"{"id":1,"method":"echo","params":[7]}"#;
            let len = u32::try_from(frame.len()).expect("short").to_be_bytes();
            client.write_all(&[&len[..], frame].concat()).expect("sent");
            let mut len = [0; 4];
            client.read_exact(&mut len).expect("a length");
            let mut answer = vec![0; u32::from_be_bytes(len) as usize];
            client.read_exact(&mut answer).expect("an answer");
            serde_json::from_slice::<Value>(&answer).expect("JSON")
        });
        assert_eq!(answer["result"], json!([7]));
        bus.stop().await.expect("stops");
    });
}

#[test]
fn what_is_not_set_has_its_default() {
    let pool = PoolConfig::new("a", "cat");
    assert_eq!((pool.instances, pool.inherit_env), (1, true));
    assert!(pool.args.is_empty() && pool.env.is_empty());
    assert_eq!((pool.cwd, pool.stderr, pool.initialize), (None, None, None));
    assert_eq!(pool.protocol, Protocol::Auto);
    let read = BusConfig::from_json(r#"{"pools":[{"id":"a","command":"cat"}]}"#);
    assert_eq!(read.expect("valid").pools, [PoolConfig::new("a", "cat")]);
    assert_eq!(LimitsConfig::new(), LimitsConfig::default());

    let subprocess = SubprocessOptions::new();
    assert_eq!(subprocess.binary_path, None);
    assert_eq!(subprocess.start_timeout, Duration::from_secs(5));
    assert_eq!(subprocess.drain_timeout, Duration::from_secs(30));
    assert_eq!(subprocess.stderr_buffer_lines, 200);
    assert!(subprocess.env.is_empty());
    assert_eq!(
        RemoteOptions::unix("/s").connect_timeout,
        Duration::from_secs(5)
    );
    let native = NativeOptions::new();
    assert_eq!(
        (&*native.thread_name, native.parent_death_signal),
        ("stdiobus", true)
    );
    let notifications = NotificationOptions::new();
    assert_eq!(notifications.max_queue, 256);
    assert_eq!(notifications.overflow, OverflowPolicy::Drop);
}

#[test]
fn auto_is_the_bus_in_this_process() {
    alone_async(|| async {
        for mode in [
            BackendMode::default(),
            BackendMode::Auto,
            BackendMode::Native,
        ] {
            let builder = StdioBus::builder().pool(zoo_pool(&["echo"]));
            let bus = builder.backend(mode).build().expect("valid");
            assert_eq!(bus.backend_type(), BackendType::Native);
            bus.start().await.expect("starts");
            assert!(bus.worker_count() == Some(1) && bus.workers().await.is_ok());
            bus.stop().await.expect("stops");
        }
    });
}

#[test]
fn a_build_starts_nothing_and_a_start_everything() {
    alone_async(|| async {
        let dir = TempDir::new();
        let path = dir.path("bus.sock");
        let (unix, tcp) = (ListenMode::unix(&path), ListenMode::tcp("127.0.0.1", 0));
        let builder = StdioBus::builder().pool(zoo_pool(&["echo"]).instances(3));
        let builder = builder.listen(unix.clone()).listen(tcp.clone());
        let named = NativeOptions::new().thread_name("my bus");
        let bus = builder.native(named).build().expect("valid");
        assert_eq!(common::threads_named("my bus").len(), 1);
        assert_eq!(bus.listen_mode(), [unix, tcp]);
        assert!(bus.listen_addrs().is_empty() && !path.exists());
        assert!(children(std::process::id()).is_empty());
        bus.start().await.expect("starts");
        assert_eq!(children(std::process::id()).len(), 3);
        assert_eq!(bus.listen_addrs().len(), 2);
        let answer = tokio::task::block_in_place(|| {
            Client::unix(&path).ask(r#"{"id":1,"method":"echo","params":[1]}"#)
        });
        assert_eq!(answer["result"], json!([1]));
        bus.stop().await.expect("stops");
        assert!(children(std::process::id()).is_empty() && !path.exists());
    });
}

#[test]
fn the_configuration_of_a_subprocess_goes_through_a_descriptor_and_no_argument() {
    alone_async(|| async {
        let options = SubprocessOptions::new().binary_path(common::program());
        let pool = zoo_pool(&["echo"]).env("ZOO_SECRET", "sesame");
        let builder = StdioBus::builder().backend(BackendMode::Subprocess);
        let bus = builder.subprocess(options).pool(pool).build();
        let bus = bus.expect("valid");
        bus.start().await.expect("starts");
        let [program] = children(std::process::id())[..] else {
            panic!("one child");
        };
        let arguments = fs::read(format!("/proc/{program}/cmdline")).expect("it runs");
        let arguments = String::from_utf8_lossy(&arguments);
        assert!(arguments.contains("--config-fd"), "{arguments}");
        assert!(!arguments.contains("sesame"), "{arguments}");
        let secret = bus.request("env", json!({"name": "ZOO_SECRET"})).await;
        assert_eq!(secret.expect("answered"), "sesame");
        bus.stop().await.expect("stops");
    });
}

#[test]
fn the_report_of_a_stop_tells_who_needed_a_signal() {
    alone_async(|| async {
        let with = |id: &str, modes: &[&str]| {
            let mut pool = zoo_pool(modes);
            pool.id = id.into();
            pool
        };
        let bus = StdioBus::builder()
            .pool(with("willing", &["echo"]).instances(3))
            .pool(with("slow", &["ignore-eof"]).instances(2))
            .pool(with("stubborn", &["ignore-term"]))
            .build()
            .expect("valid");
        bus.start().await.expect("starts");
        // Each has set up what it ignores once it answers.
        for pool in ["slow", "slow", "stubborn"] {
            let options = stdiobus::RequestOptions::new().pool(pool).unpinned();
            let answer = bus.request_with("echo", (), options).await;
            answer.expect("answered");
        }
        let stop = bus.stop_with_timeout(Duration::from_secs(3));
        let report = soon("the end", stop).await.expect("stops");
        let ended = |pool: &str| {
            let exits = report.exits.iter().filter(|exit| exit.pool == pool);
            exits
                .map(|exit| (exit.code, exit.signal))
                .collect::<Vec<_>>()
        };
        assert_eq!(ended("willing"), [(Some(0), None); 3]);
        assert_eq!(ended("slow"), [(None, Some(15)); 2]);
        assert_eq!(ended("stubborn"), [(None, Some(9))]);
        assert_eq!((report.terminated(), report.killed()), (2, 1));
        assert_eq!(bus.stop().await.expect("stops again"), report);
    });
}

#[test]
fn each_client_has_a_session_name_of_its_own() {
    alone_async(|| async {
        let bus = started(&["echo"]).await;
        let other = StdioBus::builder().pool(zoo_pool(&["echo"])).build();
        let other = other.expect("valid");
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let now = now.expect("after 1970").as_millis();
        let random = [bus.client_session_id(), other.client_session_id()].map(|name| {
            let parts: Vec<_> = name.split('-').collect();
            let [client, ms, random] = parts[..] else {
                panic!("{name}");
            };
            assert_eq!(client, "client");
            let ms: u128 = ms.parse().expect("milliseconds");
            assert!(ms <= now && now - ms < 60_000, "{ms}, {now}");
            assert_eq!(random.len(), 6);
            let known = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
            assert!(random.chars().all(known), "{name}");
            random.to_owned()
        });
        // What was random once stays so: one pair in two thousand million is the same.
        assert_ne!(random[0], random[1]);
        assert_eq!(bus.clone().client_session_id(), bus.client_session_id());
        bus.stop().await.expect("stops");
    });
}
