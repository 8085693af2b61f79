//! Who asks, what is recorded, and which agent it is for.
//!
//! `cargo run --example identity` runs two agents, each a pool of its own. A
//! request's `agent_id` chooses one; identity, audit event and idempotency key
//! travel beside the params, and `workers/desk.py` answers with what it got.

use serde_json::json;
use stdiobus::{AuditEvent, Identity, PoolConfig, RequestOptions, StdioBus};

const WORKER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/workers/desk.py");

fn desk(name: &str) -> PoolConfig {
    PoolConfig::new(name, "python3").args([WORKER, name])
}

#[tokio::main]
async fn main() -> stdiobus::Result<()> {
    let bus = StdioBus::builder()
        .pool(desk("billing"))
        .pool(desk("support"))
        .build()?;
    bus.start().await?;

    let event = AuditEvent::new("evt-1", "refund")
        .timestamp("2026-01-01T12:00:00Z")
        .actor("type", "user")
        .resource("order/7");
    let options = RequestOptions::new()
        .agent_id("billing")
        .identity(Identity::new("alice", "clerk"))
        .audit(event)
        .idempotency_key("refund-7");
    let params = json!({"order": 7});
    let seen = bus.request_with("refund", params, options).await?;
    for part in ["desk", "agentId", "identity", "audit", "idempotencyKey"] {
        println!("{part}: {}", seen[part]);
    }

    let options = RequestOptions::new().agent_id("support");
    let seen = bus
        .request_with("close", json!({"case": 1}), options)
        .await?;
    println!("{seen}");

    bus.stop().await?;
    Ok(())
}
