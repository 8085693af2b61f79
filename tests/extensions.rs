//! What travels beside params, and the handshake about it.

mod common;

use common::alone_async;
use common::client::{assert_kind, soon};
use common::peer::puppet;
use serde_json::{Value, json};
use stdiobus::{
    AuditEvent, ErrorCode, HelloParams, Identity, PoolConfig, Protocol, RequestOptions, StdioBus,
};

fn pool(protocol: Protocol) -> PoolConfig {
    PoolConfig::new("puppets", puppet()).protocol(protocol)
}

async fn started(protocol: Protocol) -> StdioBus {
    let bus = StdioBus::builder().pool(pool(protocol)).build();
    let bus = bus.expect("valid");
    bus.start().await.expect("starts");
    bus
}

fn everything() -> RequestOptions {
    RequestOptions::new()
        .session_id("s")
        .agent_id("me")
        .identity(Identity::new("u1", "admin"))
        .audit(AuditEvent::new("e1", "read"))
        .idempotency_key("once")
        .extensions([("trace", json!({"id": 7}))])
}

fn everything_in_ext() -> Value {
    json!({
        "identity": {"subjectId": "u1", "role": "admin", "assertedBy": "self"},
        "audit": {"eventId": "e1", "action": "read"},
        "idempotencyKey": "once",
        "trace": {"id": 7},
    })
}

#[test]
fn every_option_reaches_a_worker_at_the_root() {
    alone_async(|| async {
        let bus = started(Protocol::Ndjson).await;
        let request = bus.request_with("message", json!({"a": 1}), everything());
        let message = request.await.expect("answered");
        assert_eq!(message["sessionId"], "s", "{message}");
        assert_eq!(message["agentId"], "me", "{message}");
        assert_eq!(message["_ext"], everything_in_ext());
        assert_eq!(message["params"], json!({"a": 1}));

        let plain = bus.request("message", json!({})).await.expect("answered");
        assert!(plain.get("_ext").is_none(), "{plain}");
        bus.stop().await.expect("stops");
    });
}

#[test]
fn a_worker_with_a_protocol_gets_the_extensions_inside_of_meta() {
    alone_async(|| async {
        let bus = started(Protocol::Mcp).await;
        let hello = json!({"protocolVersion": "2025-11-25", "capabilities": {}});
        bus.request("initialize", hello)
            .await
            .expect("shakes hands");
        let bare = bus.request_with("message", Value::Null, everything());
        let params = json!({"_meta": {"x": 1}});
        let full = bus.request_with("message", params, everything());
        for message in [bare.await, full.await] {
            let message = message.expect("answered");
            assert_eq!(
                message["params"]["_meta"]["stdio_bus/ext"],
                everything_in_ext(),
                "{message}"
            );
        }
        bus.stop().await.expect("stops");
    });
}

#[test]
fn what_could_not_travel_is_refused_and_not_left_out() {
    alone_async(|| async {
        let bus = started(Protocol::Ndjson).await;
        let options = || RequestOptions::new();
        for (params, options) in [
            (json!([1]), options().idempotency_key("k")),
            (json!({"_meta": 1}), options().idempotency_key("k")),
            (json!({}), options().idempotency_key("")),
            (json!({}), options().identity(Identity::new("", "r"))),
            (json!({}), options().audit(AuditEvent::new("e", ""))),
            (json!({}), options().extensions([("audit", json!(1))])),
        ] {
            let request = bus.request_with("message", &params, options.clone());
            assert_kind(request.await, ErrorCode::InvalidArgument);
            let notification = bus.notify_with("note", params, options).await;
            assert_kind(notification, ErrorCode::InvalidArgument);
        }
        bus.stop().await.expect("stops");
    });
}

#[test]
fn a_hello_brings_the_extensions_and_the_session_of_the_agent() {
    alone_async(|| async {
        let bus = StdioBus::builder().pool(pool(Protocol::Ndjson)).build();
        let bus = bus.expect("valid");
        let params = HelloParams::new()
            .require("audit", "1.0")
            .offer("trace", "off");
        let hello = soon("connected", bus.connect(params))
            .await
            .expect("agreed");
        assert!(hello.is_active("audit") && !hello.is_active("trace"));
        assert_eq!(hello.extensions["audit"].version, "1.0");
        assert_eq!(hello.negotiated_protocol_version.as_deref(), Some("0.1.0"));
        assert_eq!(bus.agent_session_id().as_deref(), Some("agents"));
        assert_ne!(bus.client_session_id(), "agents");
        bus.stop().await.expect("stops");
    });
}

#[test]
fn a_hello_fails_by_the_name_of_what_it_requires_and_the_bus_runs_on() {
    alone_async(|| async {
        let bus = StdioBus::builder().pool(pool(Protocol::Ndjson)).build();
        let bus = bus.expect("valid");
        let off = bus
            .connect(HelloParams::new().require("audit", "off"))
            .await;
        let error = assert_kind(off, ErrorCode::NegotiationFailed);
        assert!(error.to_string().contains("audit"), "{error}");
        assert!(!error.is_retryable());
        let absent = HelloParams::new().require("trace", "absent");
        let error = assert_kind(bus.hello(absent).await, ErrorCode::NegotiationFailed);
        assert!(error.to_string().contains("trace"), "{error}");
        assert_eq!(bus.agent_session_id(), None);

        assert!(bus.is_running());
        bus.hello(HelloParams::new()).await.expect("agreed");
        assert_eq!(bus.agent_session_id().as_deref(), Some("agents"));
        bus.stop().await.expect("stops");
    });
}
