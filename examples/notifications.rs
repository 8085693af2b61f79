//! What workers tell on their own, and subscribers that don't keep up.
//!
//! `cargo run --example notifications` lets `workers/ticker.py` count to five, then to
//! two, for three subscribers: one with room for all of it, and two with room for
//! three. Of these, one loses what doesn't fit and goes on, the other is closed.

use serde_json::{Value, json};
use stdiobus::{NotificationOptions, NotificationStream, OverflowPolicy, PoolConfig, StdioBus};

const WORKER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/workers/ticker.py");

#[tokio::main]
async fn main() -> stdiobus::Result<()> {
    let bus = StdioBus::builder()
        .pool(PoolConfig::new("ticker", "python3").arg(WORKER))
        .build()?;
    bus.start().await?;

    let small = NotificationOptions::new().max_queue(3);
    let mut all = bus.subscribe_notifications();
    let mut drops = bus.subscribe_notifications_with(small.overflow(OverflowPolicy::Drop));
    let mut closes = bus.subscribe_notifications_with(small.overflow(OverflowPolicy::Close));

    for to in [5, 2] {
        // What a worker tells before it answers is there before the answer is.
        bus.request("count", json!({"to": to})).await?;
        println!("counted to {to}");
        show("all", &mut all);
        show("drops", &mut drops);
        show("closes", &mut closes);
    }

    // Nothing waits here, so this is the end of the subscription, not of the bus.
    assert!(closes.next().await.is_none());
    bus.stop().await?;
    Ok(())
}

/// Takes what waits for a subscriber.
fn show(name: &str, stream: &mut NotificationStream) {
    let waiting = std::iter::from_fn(|| stream.try_next());
    let numbers: Vec<Value> = waiting
        .map(|tick| tick.params()["number"].clone())
        .collect();
    println!("  {name}: {}, {} lost", json!(numbers), stream.lagged());
}
