//! What holds for the public API as a whole: between which threads its types and futures may go. The
//! lists here are complete: they are compared with docs/public-api.txt, which is compared with the
//! crate.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::fs;

use serde_json::{Value, json};
use stdiobus::*;

fn listing() -> Vec<String> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/public-api.txt");
    let text = fs::read_to_string(path).expect("the listing");
    text.lines().map(str::to_owned).collect()
}

/// What is in the listing, between these two texts.
fn listed(before: &str, end: &[char]) -> BTreeSet<String> {
    let names = listing().into_iter().filter_map(|line| {
        let rest = line.split_once(before)?.1;
        Some(rest.split(end).next()?.to_owned())
    });
    names.collect()
}

macro_rules! types {
    ($check:ident: $($name:ty),* $(,)?) => {{
        $($check::<$name>();)*
        BTreeSet::from([$(stringify!($name).replace(' ', "")),*])
    }};
}

#[test]
fn every_public_type_can_go_to_another_thread_and_be_shown() {
    fn check<T: Send + Debug + 'static>() {}
    let types = types![check:
        AdoptedClient, AuditEvent, BackendMode, BackendType, BusConfig, BusError, BusState, BusStream, ClientMode,
        Error, ErrorCode, Event, EventStream, Framing, HandlerGuard, HelloParams, HelloResult, Identity,
        Latency, LimitsConfig, Listen, ListenAddr, ListenMode, LogLevel, Message, NativeOptions, NegotiatedExtension,
        Notification, NotificationOptions, NotificationStream, OfferedExtension, Overflow, OverflowPolicy, PoolInfo,
        PoolConfig, Protocol, RemoteOptions, Request, RequestOptions, ResponseStream, RestartPolicy, RpcError,
        ServiceCall, StateChanges, Stats, StderrMode, StdioBus, StdioBusBuilder, StopReport, StreamEvent, SubprocessOptions, TransportConfig,
        WeakBus, WorkerExit, WorkerGuard, WorkerInfo, WorkerRef, WorkerRequest, WorkerState,
        agent::AgentCard, agent::AgentSkill, agent::AgentSpec, agent::Artifact, agent::Backend,
        agent::Handler, agent::Message, agent::Part, agent::Registry, agent::Skill,
        agent::StdioAgent, agent::StdioOptions, agent::StdioTransport, agent::Task, agent::TaskRequest, agent::TaskState,
        agent::TaskStatus,
        blocking::AdoptedClient, blocking::BusStream, blocking::EventStream,
        blocking::NotificationStream, blocking::ResponseStream, blocking::StateChanges,
        blocking::StdioBus,
    ];
    let end = ['(', '<', ' '];
    let mut listed_types = listed("pub struct stdiobus::", &end);
    listed_types.extend(listed("pub enum stdiobus::", &end));
    assert!(listed_types.len() > 40);
    assert_eq!(types, listed_types);
}

#[test]
fn what_is_held_by_many_is_shared_between_threads() {
    fn shared<T: Clone + Send + Sync + 'static>() {}
    let _ = types![shared: StdioBus, blocking::StdioBus, WeakBus, StdioBusBuilder, BusConfig, PoolConfig, Listen,
        RequestOptions, Notification, Message, Event, Stats, WorkerInfo, agent::StdioTransport];
    fn error<T: std::error::Error + Send + Sync + 'static>() {}
    let _ = types![error: Error, BusError, RpcError];
}

/// Never called: that it compiles is the test.
#[allow(dead_code)]
#[expect(clippy::too_many_arguments)]
fn every_future_is_send(
    bus: StdioBus,
    client: AdoptedClient,
    mut events: EventStream,
    mut notifications: NotificationStream,
    mut answers: ResponseStream,
    mut states: StateChanges,
    call: ServiceCall,
    agent: agent::StdioTransport,
    served: agent::StdioAgent,
    fds: [std::os::fd::OwnedFd; 2],
) {
    fn send<T: Send>(_: T) {}
    let [from, to] = fds;
    send(agent::StdioTransport::open(agent::StdioOptions::new("")));
    send(served.serve(tokio::io::empty(), tokio::io::sink()));
    send(served.serve_until(tokio::io::empty(), tokio::io::sink(), async {}));
    send(agent.close());
    send(agent.close_within(std::time::Duration::ZERO));
    send(agent.request("m", json!({})));
    send(agent.request_with_id(1, "m", json!({})));
    send(agent.request_raw("{}"));
    send(agent.send(&agent::TaskRequest::text("", "")));
    send(client.closed());
    send(events.next());
    send(notifications.next());
    send(answers.next());
    send(states.next());
    send(states.reached(BusState::Stopped));
    send(call.notify("m", json!({})));
    send(bus.adopt_client(from, to));
    send(bus.connect(HelloParams::default()));
    send(bus.connect_io(None));
    send(bus.drain(None));
    send(bus.end_session("s"));
    send(bus.hello(HelloParams::default()));
    send(bus.hello_with(HelloParams::default(), RequestOptions::new()));
    send(bus.notify("m", json!({})));
    send(bus.notify_with("m", json!({}), RequestOptions::new()));
    send(bus.register_worker("p", |_| async { Ok(Value::Null) }));
    send(bus.reload(BusConfig::new()));
    send(bus.reload_json("{}"));
    send(bus.send("{}"));
    send(bus.start());
    send(bus.pools());
    send(bus.stats());
    send(bus.stderr_tail(1));
    send(bus.worker_stderr_tail(0, 1));
    send(bus.stop());
    send(bus.stop_with_timeout(std::time::Duration::ZERO));
    send(bus.workers());
    #[cfg(feature = "metrics")]
    send(bus.publish_metrics());
    // These are types, and in the list of types.
    send(bus.request("m", json!({})));
    send(bus.stream_request("m", json!({})));
}

#[test]
fn no_future_is_missing_above() {
    let source = include_str!("api.rs");
    let futures = listed("pub async fn stdiobus::", &['(', '<']);
    assert!(futures.len() > 20);
    for future in futures {
        let method = future.rsplit("::").next().expect("a name");
        let called = [".", "::"].map(|before| format!("{before}{method}("));
        assert!(called.iter().any(|call| source.contains(call)), "{future}");
    }
}

/// Methods of async types that their twins in `blocking` don't have, or not by that name.
const WITHOUT_TWIN: [(&str, &str); 10] = [
    // The twins are iterators.
    ("EventStream", "poll_next"),
    ("NotificationStream", "poll_next"),
    ("ResponseStream", "poll_next"),
    // A thread that waits can't be dropped, so it waits within a limit: `reached_within`.
    ("StateChanges", "reached"),
    // The twin reads and writes as a socket does.
    ("BusStream", "poll_read"),
    ("BusStream", "poll_write"),
    ("BusStream", "poll_write_vectored"),
    ("BusStream", "is_write_vectored"),
    ("BusStream", "poll_flush"),
    ("BusStream", "poll_shutdown"),
];

fn methods(of: &str) -> BTreeSet<String> {
    let mut methods = listed(&format!("pub fn stdiobus::{of}::"), &['(', '<']);
    methods.extend(listed(
        &format!("pub async fn stdiobus::{of}::"),
        &['(', '<'],
    ));
    methods
}

#[test]
fn each_method_of_the_async_client_has_its_twin_in_the_blocking_one() {
    let twins = listed("pub struct stdiobus::blocking::", &['(', ' ']);
    assert!(twins.contains("StdioBus") && twins.len() > 5, "{twins:?}");
    let mut missing = Vec::new();
    for of in &twins {
        let (all, there) = (methods(of), methods(&format!("blocking::{of}")));
        assert!(all.len() > 2, "{of}: {all:?}");
        missing.extend(
            all.difference(&there)
                .map(|method| (of.clone(), method.clone())),
        );
    }
    let expected = WITHOUT_TWIN.map(|(of, method)| (of.to_owned(), method.to_owned()));
    let missing: BTreeSet<_> = missing.into_iter().collect();
    assert_eq!(missing, BTreeSet::from(expected));
    // What is in the twin alone is no trap, but this is to be known: the way back.
    let (all, there) = (methods("StdioBus"), methods("blocking::StdioBus"));
    assert_eq!(there.difference(&all).collect::<Vec<_>>(), ["into_async"]);
}

#[test]
fn each_field_of_a_configuration_can_be_set_by_a_method_of_its_name() {
    let mut count = 0;
    for of in [
        "LimitsConfig",
        "PoolConfig",
        "BusConfig",
        "NotificationOptions",
        "SubprocessOptions",
    ] {
        let methods = methods(of);
        let fields = listed(&format!("pub stdiobus::{of}::"), &[':']);
        count += fields.len();
        for field in fields {
            // These are given to `new`; pools are added one by one, and of a transport
            // there is only its framing.
            let otherwise = [
                "PoolConfig::id",
                "PoolConfig::command",
                "BusConfig::pools",
                "BusConfig::transport",
            ];
            let set = otherwise.contains(&format!("{of}::{field}").as_str());
            assert!(set || methods.contains(&field), "{of}: {field}");
        }
    }
    assert!(count > 30, "{count}");
}

#[test]
fn the_client_without_async_can_do_all_that_the_other_can() {
    let (own, other) = (methods("StdioBus"), methods("blocking::StdioBus"));
    assert!(own.len() > 40);
    let missing: Vec<_> = own.difference(&other).collect();
    assert!(missing.is_empty(), "{missing:?}");
    for stream in [
        "NotificationStream",
        "ResponseStream",
        "EventStream",
        "StateChanges",
    ] {
        let listing = listing();
        let of = format!("Iterator for stdiobus::blocking::{stream}");
        assert!(listing.iter().any(|line| line.ends_with(&of)), "{stream}");
    }
}

#[test]
fn the_lists_of_what_can_be_counted_on_name_tests_that_exist() {
    let root = env!("CARGO_MANIFEST_DIR");
    let mut tests = String::new();
    let mut folders = vec![format!("{root}/tests"), format!("{root}/src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path.to_str().expect("text").to_owned());
            } else if path.extension().is_some_and(|ext| ext == "rs") {
                tests += &fs::read_to_string(path).expect("source");
            }
        }
    }
    for list in ["CLIENT.md", "CONFORMANCE.md"] {
        let text = fs::read_to_string(format!("{root}/tests/{list}")).expect("a list");
        let quoted = text.split('`').skip(1).step_by(2);
        let sentence = |word: &&str| word.matches('_').count() > 2 && !word.contains('.');
        let names: Vec<_> = quoted.filter(sentence).collect();
        assert!(names.len() > 30, "{list}");
        for name in names {
            assert!(tests.contains(&format!("fn {name}(")), "{list}: {name}");
        }
    }
}

#[test]
fn no_public_type_shows_what_the_crate_is_made_of() {
    // What a user has to have anyway; a new major version of one of these is one of ours.
    let allowed = [
        "alloc",
        "core",
        "futures_core::stream::Stream",
        "serde_core",
        "serde_json::value::Value",
        "std",
        "stdiobus",
        "tokio::io",
    ];
    for line in listing() {
        let words = line.split(|c: char| !c.is_alphanumeric() && c != '_' && c != ':');
        for path in words.filter(|word| word.contains("::") && !word.starts_with(':')) {
            let known = allowed.iter().any(|known| {
                let rest = path.strip_prefix(known);
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
            });
            // Names of type parameters have paths, too: `__S::Ok`, `Self::Item`.
            let own = path.starts_with("Self::") || path.starts_with("__");
            assert!(known || own, "{path}: {line}");
        }
    }
}
