//! What happens on the bus, as events with fields.

use std::time::Duration;

use serde_json::json;
use stdiobus::agent::{StdioOptions, StdioTransport};
use stdiobus::{
    LimitsConfig, ListenMode, NotificationOptions, PoolConfig, RequestOptions, StdioBus,
};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tracing::Level;

use crate::common::client::eventually;
use crate::common::{alone_async, signal, zoo_pool};
use crate::start;
use crate::subscriber::{Collector, Told};

/// The events with this message, once there are so many.
async fn told(collector: &Collector, message: &str, count: usize) -> Vec<Told> {
    let mut events = Vec::new();
    eventually(message, || {
        events = collector.events();
        events.retain(|event| event.is(message));
        events.len() >= count
    })
    .await;
    assert_eq!(events.len(), count, "{events:?}");
    events
}

fn fields<const N: usize>(event: &Told, names: [&str; N]) -> [String; N] {
    names.map(|name| event.field(name).to_owned())
}

#[test]
fn the_life_of_a_worker_is_told_with_its_pool_generation_and_pid() {
    alone_async(|| async {
        let collector = Collector::install(Level::INFO);
        let bus = start("life", StdioBus::builder().pool(zoo_pool(&["echo"]))).await;
        let pid = bus.workers().await.expect("known")[0].pid.expect("runs");
        let names = ["bus", "pool", "worker", "generation", "pid"];
        let worker = |generation: &str, pid: u32| {
            ["life", "zoo", "0", generation, &pid.to_string()].map(str::to_owned)
        };
        for message in ["worker started", "worker ready"] {
            let event = told(&collector, message, 1).await.remove(0);
            assert_eq!(event.level, Level::INFO);
            assert_eq!(fields(&event, names), worker("1", pid));
            assert_eq!(event.fields.len(), 6, "{event:?}");
        }

        signal(pid, "KILL");
        let stopped = told(&collector, "worker stopped", 1).await.remove(0);
        assert_eq!(stopped.level, Level::WARN);
        assert_eq!(fields(&stopped, names), worker("1", pid));
        assert_eq!(stopped.field("signal"), "9");
        assert!(!stopped.fields.contains_key("code"), "{stopped:?}");
        assert!(stopped.field("uptime_ms").parse::<u64>().is_ok());
        let again = told(&collector, "worker restarting", 1).await.remove(0);
        assert_eq!(again.level, Level::INFO);
        let delay = again.field("delay_ms").parse::<u64>();
        assert!(delay.is_ok_and(|ms| ms <= 100), "{again:?}");
        let started = told(&collector, "worker started", 2).await.remove(1);
        assert_eq!(started.field("generation"), "2");

        bus.stop().await.expect("stops");
        let stopping = told(&collector, "worker stopping", 1).await.remove(0);
        assert_eq!(stopping.level, Level::INFO);
        let stopped = told(&collector, "worker stopped", 2).await.remove(1);
        assert_eq!((stopped.level, stopped.field("code")), (Level::INFO, "0"));
        assert_eq!(stopped.field("generation"), "2");

        // Log lines say the same in words, under a target of their own.
        let line = |text: &str| {
            collector
                .lines()
                .iter()
                .any(|l| l.field("message").contains(text))
        };
        assert!(line("worker 0 (zoo) started"), "{:?}", collector.lines());
        assert!(
            collector
                .lines()
                .iter()
                .all(|line| line.field("bus") == "life")
        );
    });
}

#[test]
fn a_worker_that_is_given_up_is_an_error_with_its_reason() {
    alone_async(|| async {
        let collector = Collector::install(Level::INFO);
        let limits = LimitsConfig::new().max_restarts(1);
        let pool = PoolConfig::new("short", "sh").args(["-c", "exit 3"]);
        let bus = start("fails", StdioBus::builder().pool(pool).limits(limits)).await;
        let failed = told(&collector, "worker failed", 1).await.remove(0);
        assert_eq!(failed.level, Level::ERROR);
        assert_eq!(failed.field("reason"), "too many restarts");
        assert_eq!(
            fields(&failed, ["bus", "pool", "worker"]),
            ["fails", "short", "0"]
        );
        for stopped in told(&collector, "worker stopped", 2).await {
            assert_eq!((stopped.level, stopped.field("code")), (Level::WARN, "3"));
        }
        bus.stop().await.expect("stops");
    });
}

#[test]
fn clients_that_come_and_go_are_told_and_those_that_fail_are_warned_of() {
    alone_async(|| async {
        let collector = Collector::install(Level::DEBUG);
        let builder = StdioBus::builder().pool(zoo_pool(&["echo"]));
        let limits = LimitsConfig::new().max_output_queue(1 << 16);
        let builder = builder
            .limits(limits)
            .listen(ListenMode::tcp("127.0.0.1", 0));
        let bus = start("clients", builder).await;
        let address = bus.listen_addrs()[0].tcp().expect("TCP");
        let client = TcpStream::connect(address).await.expect("connects");
        let connected = told(&collector, "client connected", 1).await.remove(0);
        assert_eq!(connected.level, Level::DEBUG);
        let peer = client.local_addr().expect("bound").to_string();
        assert_eq!(fields(&connected, ["bus", "peer"]), ["clients", &peer]);
        drop(client);
        let gone = told(&collector, "client disconnected", 1).await.remove(0);
        assert_eq!((gone.level, gone.field("reason")), (Level::DEBUG, "closed"));
        assert_eq!(gone.field("client"), connected.field("client"));

        // More than the queue and the system's own buffers take.
        let mut deaf = TcpStream::connect(address).await.expect("connects");
        let request =
            |id| json!({"jsonrpc": "2.0", "id": id, "method": "big", "params": {"n": 50_000}});
        let lines: String = (0..600).map(|id| format!("{}\n", request(id))).collect();
        deaf.write_all(lines.as_bytes()).await.expect("written");
        let gone = told(&collector, "client disconnected", 2).await.remove(1);
        assert_eq!(
            (gone.level, gone.field("reason")),
            (Level::WARN, "overflow")
        );
        let dropped = collector.events().into_iter().find(|event| {
            event.is("dropped") && event.field("reason") == "the client does not read"
        });
        assert_eq!(dropped.expect("an answer is lost").level, Level::WARN);
        bus.stop().await.expect("stops");
    });
}

#[test]
fn what_does_not_arrive_is_told_too() {
    alone_async(|| async {
        let collector = Collector::install(Level::DEBUG);
        let builder = StdioBus::builder().pool(zoo_pool(&["garbage"]));
        let bus = start("lost", builder).await;
        let mut notes = bus.subscribe_notifications_with(NotificationOptions::new().max_queue(1));
        let answer = bus.request("notify", json!({"n": 3})).await;
        answer.expect("answered");
        let garbage = told(&collector, "worker garbage", 1).await.remove(0);
        assert_eq!(
            (garbage.level, garbage.field("pool")),
            (Level::DEBUG, "zoo")
        );
        assert!(garbage.field("bytes").parse::<u64>().is_ok_and(|n| n > 0));
        let overflow = told(&collector, "overflow", 1).await.remove(0);
        assert_eq!(
            (overflow.level, overflow.field("queue")),
            (Level::WARN, "subscriber")
        );
        assert!(notes.try_next().is_some());

        let options = RequestOptions::new().max_waiting(10);
        let params = json!({"n": 9, "size": 100, "hold": true});
        let mut stuck = bus.stream_request_with("turn", params, options);
        drop(stuck.try_next()); // sends it
        let overflow = told(&collector, "overflow", 2).await.remove(1);
        assert_eq!(overflow.field("queue"), "request");
        assert_eq!(overflow.field("request"), stuck.id().to_string());
        bus.stop_with_timeout(Duration::from_secs(5))
            .await
            .expect("stops");
    });
}

#[test]
fn two_buses_are_told_apart_by_their_names() {
    alone_async(|| async {
        let collector = Collector::install(Level::INFO);
        let pool = || StdioBus::builder().pool(zoo_pool(&["echo"]));
        let (a, b) = (start("a", pool()).await, start("b", pool()).await);
        assert_eq!((a.name(), b.name()), ("a", "b"));
        let started = told(&collector, "worker started", 2).await;
        let buses = started.iter().map(|event| event.field("bus"));
        assert_eq!(buses.collect::<Vec<_>>(), ["a", "b"]);
        a.stop().await.expect("stops");
        b.stop().await.expect("stops");
        let plain = pool().build().expect("valid");
        assert_eq!(plain.name(), "stdiobus");
        plain.stop().await.expect("stops");
        let nameless = pool().name("").build();
        assert!(nameless.expect_err("refused").to_string().contains("name"));
    });
}

#[test]
fn what_an_agent_says_on_stderr_is_told_line_by_line_for_debugging() {
    alone_async(|| async {
        let collector = Collector::install(Level::DEBUG);
        let script = "echo one >&2; echo two >&2; read line";
        let options = StdioOptions::new("sh").name("loud").args(["-c", script]);
        let agent = StdioTransport::open(options).await.expect("starts");
        eventually("it is told", || collector.agents().len() == 2).await;
        for (event, line) in collector.agents().iter().zip(["one", "two"]) {
            assert!(event.is(line), "{event:?}");
            assert_eq!((event.level, event.field("agent")), (Level::DEBUG, "loud"));
        }
        agent.close().await;
    });
}
