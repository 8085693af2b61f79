//! The configuration as Rust values: what they take, and that the client refuses what the bus would,
//! in its words but without a place in JSON that nobody wrote.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use stdiobus::{BusConfig, ErrorCode, LimitsConfig, PoolConfig, StdioBus, StdioBusBuilder};

fn refusal(builder: StdioBusBuilder) -> Option<String> {
    let error = builder.build().err()?;
    assert!(error.is(ErrorCode::InvalidArgument), "{error:?}");
    Some(error.to_string())
}

/// What the client says to a configuration that is a value, and the bus to the same as JSON.
fn verdicts(config: &Value) -> (Option<String>, Option<String>) {
    let value: BusConfig = serde_json::from_value(config.clone()).expect("of the right types");
    let client = refusal(StdioBus::builder().config(value));
    (
        client,
        refusal(StdioBus::builder().config_json(config.to_string())),
    )
}

/// A text of the bus as the client has it.
fn without_position(text: &str) -> String {
    let (before, rest) = text.split_once("line ").expect("a position");
    let (_, rest) = rest.split_once(": ").expect("a field");
    format!("{before}{rest}").replace("pools[0].", "pool \"a\": ")
}

fn all_limits() -> LimitsConfig {
    LimitsConfig::new()
        .max_input_buffer(2000)
        .max_output_queue(2001)
        .max_restarts(2002)
        .restart_window_sec(2003)
        .drain_timeout_sec(2004)
        .backpressure_timeout_sec(2005)
        .stall_timeout_sec(2006)
        .max_sessions(2007)
        .session_idle_sec(2008)
        .max_pending(2009)
        .max_clients(2010)
}

#[test]
fn each_limit_has_a_setter_that_sets_it() {
    let expected = json!({
        "max_input_buffer": 2000, "max_output_queue": 2001, "max_restarts": 2002,
        "restart_window_sec": 2003, "drain_timeout_sec": 2004, "backpressure_timeout_sec": 2005,
        "stall_timeout_sec": 2006, "max_sessions": 2007, "session_idle_sec": 2008,
        "max_pending": 2009, "max_clients": 2010,
    });
    let limits = serde_json::to_value(all_limits()).expect("JSON");
    assert_eq!(limits, expected);
}

#[test]
fn a_number_out_of_range_is_refused_in_the_words_of_the_bus_but_without_a_position() {
    let (gib, most_seconds) = (1_u64 << 30, 4_294_967);
    let edges = [
        0,
        1,
        1023,
        1024,
        65_536,
        65_537,
        most_seconds,
        most_seconds + 1,
        gib,
        gib + 1,
        16 * gib,
        16 * gib + 1,
    ];
    let limits = serde_json::to_value(all_limits()).expect("JSON");
    let limits = limits.as_object().expect("an object").keys();
    let mut refused = 0;
    for number in edges {
        let limits = limits
            .clone()
            .map(|name| json!({"pools": [{"id": "a", "command": "c"}], "limits": {name: number}}));
        let pools = ["instances", "init_timeout_sec"]
            .into_iter()
            .map(|name| json!({"pools": [{"id": "a", "command": "c", name: number}]}));
        for config in limits.chain(pools) {
            // What doesn't fit the field can't be a Rust value.
            if serde_json::from_value::<BusConfig>(config.clone()).is_err() {
                continue;
            }
            let (client, bus) = verdicts(&config);
            assert_eq!(client, bus.as_deref().map(without_position), "{config}");
            refused += usize::from(client.is_some());
        }
    }
    assert!(refused > 20, "{refused}");
}

#[test]
fn what_the_bus_would_refuse_is_refused_without_a_position() {
    let pool = || PoolConfig::new("a", "c");
    let nested = |levels| (1..levels).fold(json!({}), |inner, _| json!({"x": inner}));
    let pools = |count: usize| {
        let pools = (0..count).map(|n| json!({"id": n.to_string(), "command": "c"}));
        json!({"pools": pools.collect::<Vec<_>>()})
    };
    let configs = [
        (true, json!({"pools": [pool().cwd("/")]})),
        (false, json!({"pools": [pool().cwd("")]})),
        (true, json!({"pools": [pool().initialize(nested(61))]})),
        (false, json!({"pools": [pool().initialize(nested(62))]})),
        (true, pools(10_000)),
        (false, pools(10_001)),
    ];
    for (valid, config) in configs {
        let (client, bus) = verdicts(&config);
        assert_eq!((client.is_none(), bus.is_none()), (valid, valid));
        let text = client.unwrap_or_default();
        assert!(!text.contains("line"), "{text}");
    }
}

#[test]
fn json_that_somebody_wrote_is_told_with_the_place() {
    let config = r#"{"pools": [{"id": "a", "command": "c"}], "limits": {"max_pending": 0}}"#;
    let text = refusal(StdioBus::builder().config_json(config)).expect("refused");
    assert!(text.contains("line 1, column"), "{text}");
}

#[test]
fn a_pool_takes_texts_and_paths_of_every_kind() {
    let (command, path) = (String::from("/bin/cat"), PathBuf::from("/bin/cat"));
    let list = [OsString::from("a"), "b".into()];
    let pool = |command| PoolConfig::new("a", command);
    let pools = [
        pool("/bin/cat").args(&list),
        PoolConfig::new("a", &command).args(["a", "b"]),
        PoolConfig::new("a", command).args(vec![String::from("a"), "b".into()]),
        PoolConfig::new("a", path.as_path()).args([Path::new("a"), Path::new("b")]),
        PoolConfig::new("a", path.as_os_str())
            .arg("a")
            .arg(String::from("b")),
        PoolConfig::new("a", &path)
            .arg(PathBuf::from("a"))
            .arg(Path::new("b")),
        PoolConfig::new("a", path).args(list),
    ];
    let pool = pool("/bin/cat").args(["a", "b"]);
    for other in pools {
        assert_eq!(other, pool);
    }
    let path = PathBuf::from("/tmp");
    let text = json!(PoolConfig::new("a", "c").env("TMPDIR", &path).cwd(&path));
    assert_eq!(
        (&text["env"]["TMPDIR"], &text["cwd"]),
        (&json!("/tmp"), &json!("/tmp"))
    );
}

#[test]
fn what_is_not_utf_8_is_refused_by_the_name_of_its_field() {
    let bad = OsStr::from_bytes(b"/opt/\xff");
    let pool = || PoolConfig::new("a", "c");
    let pools = [
        ("command", PoolConfig::new("a", bad)),
        ("args", pool().args(["x".as_ref(), bad])),
        ("args", pool().arg(bad)),
        ("env", pool().env("E", bad)),
        ("cwd", pool().cwd(bad)),
    ];
    for (field, pool) in pools {
        let text = refusal(StdioBus::builder().pool(pool)).expect("refused");
        assert!(text.contains(&format!("pool \"a\": {field}: ")), "{text}");
        assert!(text.contains("UTF-8") && text.contains("/opt/"), "{text}");
    }
    // What has been replaced doesn't count.
    assert_eq!(
        refusal(StdioBus::builder().pool(pool().arg(bad).args(["x"]))),
        None
    );
}
