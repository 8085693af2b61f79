//! Counters, gauges and the histogram.

use std::collections::BTreeSet;

use metrics::Unit;
use serde_json::json;
use stdiobus::{BusConfig, RequestOptions, StdioBus};

use crate::common::client::{eventually, short};
use crate::common::{alone, alone_async, zoo_pool};
use crate::recorder::Values;
use crate::start;

fn builder() -> stdiobus::StdioBusBuilder {
    StdioBus::builder().pool(zoo_pool(&["echo"]).instances(2))
}

#[test]
fn counters_and_gauges_are_those_of_the_bus_when_it_is_asked_to_publish() {
    alone_async(|| async {
        let values = Values::install();
        let bus = start("figures", builder()).await;
        for _ in 0..3 {
            bus.request("echo", ()).await.expect("answered");
        }
        assert_eq!(values.get("stdiobus_messages_in_total{bus=figures}"), None);
        let held = bus.try_request("hold", ()).expect("room");
        bus.publish_metrics().await.expect("published");
        let stats = bus.stats().await.expect("counted");
        let expected = [
            (
                "stdiobus_messages_in_total{bus=figures}",
                stats.messages_in as f64,
            ),
            (
                "stdiobus_bytes_in_total{bus=figures}",
                stats.bytes_in as f64,
            ),
            ("stdiobus_pending_requests{bus=figures}", 1.0),
            ("stdiobus_clients{bus=figures}", 0.0),
            ("stdiobus_sessions{bus=figures}", 1.0),
            ("stdiobus_pool_requests_total{bus=figures,pool=zoo}", 4.0),
            ("stdiobus_pool_answers_total{bus=figures,pool=zoo}", 3.0),
            ("stdiobus_pool_pending_requests{bus=figures,pool=zoo}", 1.0),
            (
                "stdiobus_pool_workers{bus=figures,pool=zoo,state=ready}",
                2.0,
            ),
            (
                "stdiobus_pool_workers{bus=figures,pool=zoo,state=failed}",
                0.0,
            ),
            ("stdiobus_worker_ready{bus=figures,pool=zoo,worker=0}", 1.0),
            ("stdiobus_worker_ready{bus=figures,pool=zoo,worker=1}", 1.0),
        ];
        for (key, value) in expected {
            assert_eq!(values.get(key), Some(value), "{key}");
        }
        assert!(stats.messages_in >= 4 && stats.bytes_in > 0);
        let latency = bus.pools().await.expect("known")[0].latency;
        for (quantile, time) in [("0.5", latency.p50), ("1", latency.max)] {
            let key = format!(
                "stdiobus_pool_latency_seconds{{bus=figures,pool=zoo,quantile={quantile}}}"
            );
            assert_eq!(values.get(&key), Some(time.as_secs_f64()), "{key}");
        }

        // Only what has been added is added.
        drop(held);
        bus.request("echo", ()).await.expect("answered");
        bus.publish_metrics().await.expect("published");
        let requests = "stdiobus_pool_requests_total{bus=figures,pool=zoo}";
        assert_eq!(values.get(requests), Some(5.0));
        assert_eq!(
            values.get("stdiobus_pending_requests{bus=figures}"),
            Some(0.0)
        );

        bus.stop().await.expect("stops");
        bus.publish_metrics().await.expect("the last ones");
        assert_eq!(values.get(requests), Some(5.0));
        let ready = "stdiobus_worker_ready{bus=figures,pool=zoo,worker=0}";
        assert_eq!(values.get(ready), Some(0.0));
    });
}

#[test]
fn the_time_of_each_request_is_recorded_by_its_outcome_as_it_ends() {
    alone_async(|| async {
        let values = Values::install();
        let bus = start("times", builder()).await;
        let times = |outcome: &str| {
            values.all(&format!(
                "stdiobus_request_duration_seconds{{bus=times,outcome={outcome}}}"
            ))
        };
        bus.request("echo", ()).await.expect("answered");
        let slow = bus.request("sleep", json!({"ms": 50})).await;
        slow.expect("answered");
        bus.request("error", ()).await.expect_err("an error");
        bus.request_with("hold", (), short())
            .await
            .expect_err("late");
        drop(bus.try_request("hold", ()).expect("room"));
        drop(bus.request("echo", ()));
        bus.request("echo", ()).detach().expect("sent");

        let ok = times("ok");
        assert_eq!(ok.len(), 2);
        assert!(ok[1] >= 0.05 && ok[1] < 30.0, "{ok:?}");
        assert_eq!(times("rpc_error").len(), 1);
        assert_eq!(times("Timeout").len(), 1);
        assert_eq!(times("Cancelled").len(), 1);
        assert_eq!(values.names(), ["stdiobus_request_duration_seconds"]);
        assert!(times("unsent").is_empty() && times("detached").is_empty());
        bus.stop().await.expect("stops");
    });
}

#[test]
fn two_buses_are_two_series_and_one_that_follows_another_goes_on_where_it_was() {
    alone(|| {
        let values = Values::install();
        let bus = |name: &str| {
            let bus = builder().name(name).build_blocking().expect("valid");
            bus.start().expect("starts");
            bus
        };
        let (a, b) = (bus("a"), bus("b"));
        a.request("echo", ()).expect("answered");
        for _ in 0..3 {
            b.request("echo", ()).expect("answered");
        }
        a.stop().expect("stops");
        a.publish_metrics().expect("the last ones");
        b.publish_metrics().expect("published");
        let requests = |bus: &str| {
            values.get(&format!(
                "stdiobus_pool_requests_total{{bus={bus},pool=zoo}}"
            ))
        };
        assert_eq!((requests("a"), requests("b")), (Some(1.0), Some(3.0)));
        b.stop().expect("stops");

        let next = bus("a");
        next.request("echo", ()).expect("answered");
        next.publish_metrics().expect("published");
        assert_eq!(requests("a"), Some(2.0));
        next.stop().expect("stops");
    });
}

#[test]
fn the_gauges_of_a_pool_that_is_gone_are_zero() {
    alone_async(|| async {
        let values = Values::install();
        let mut other = zoo_pool(&["echo"]);
        other.id = "other".into();
        let bus = start("reloads", builder().pool(other)).await;
        let held = RequestOptions::new().pool("other");
        let held = bus.try_request_with("hold", (), held).expect("room");
        bus.publish_metrics().await.expect("published");
        let keys = [
            "stdiobus_pool_pending_requests{bus=reloads,pool=other}",
            "stdiobus_pool_workers{bus=reloads,pool=other,state=ready}",
            "stdiobus_worker_ready{bus=reloads,pool=other,worker=2}",
        ];
        assert_eq!(keys.map(|key| values.get(key)), [Some(1.0); 3]);
        drop(held);
        let config = BusConfig::new().pool(zoo_pool(&["echo"]).instances(2));
        bus.reload(config).await.expect("taken");
        eventually("the other pool is gone", || bus.worker_count() == Some(2)).await;
        bus.publish_metrics().await.expect("published");
        assert_eq!(keys.map(|key| values.get(key)), [Some(0.0); 3]);
        bus.stop().await.expect("stops");
    });
}

#[test]
fn every_metric_is_described_and_in_the_chapter() {
    alone(|| {
        let values = Values::install();
        let bus = builder().build_blocking().expect("valid");
        bus.start().expect("starts");
        bus.request("echo", ()).expect("answered");
        bus.publish_metrics().expect("published");
        bus.stop().expect("stops");
        let described = values.described();
        let names: BTreeSet<_> = described.keys().cloned().collect();
        assert_eq!(values.names().into_iter().collect::<BTreeSet<_>>(), names);

        let chapter = include_str!("../../src/concepts/observability.rs");
        let written = chapter.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let written = written.filter(|word| word.starts_with("stdiobus_"));
        assert_eq!(written.map(str::to_owned).collect::<BTreeSet<_>>(), names);
        for (name, unit) in described {
            let expected = match () {
                () if name.contains("_bytes") => Unit::Bytes,
                () if name.ends_with("_seconds") => Unit::Seconds,
                () => Unit::Count,
            };
            assert_eq!(unit, Some(expected), "{name}");
        }
    });
}
