//! The handshake of the stdio_bus family: which extensions both ends use.
//!
//! `cargo run --example hello` offers some to `workers/hello.py`, which knows two of
//! them, and then requires one that it doesn't know.

use stdiobus::{ErrorCode, HelloParams, PoolConfig, StdioBus};

const WORKER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/workers/hello.py");

#[tokio::main]
async fn main() -> stdiobus::Result<()> {
    let bus = StdioBus::builder()
        .pool(PoolConfig::new("agent", "python3").arg(WORKER))
        .build()?;

    // `connect` is `start`, then `hello`.
    let offer = HelloParams::new()
        .require("identity", "1.0")
        .offer("audit", "1.0")
        .offer("tracing", "1.0");
    let hello = bus.connect(offer).await?;
    for (name, extension) in &hello.extensions {
        match extension.active {
            true => println!("{name}: version {}", extension.version),
            false => println!("{name}: not used"),
        }
    }
    let session = bus.agent_session_id().unwrap_or_default();
    println!("the agent's session: {session}");

    // Where something is missing the bus runs on: it is yours to decide.
    let demand = HelloParams::new().require("tracing", "1.0");
    match bus.hello(demand).await {
        Err(error) if error.is(ErrorCode::NegotiationFailed) => println!("{error}"),
        other => println!("unexpected: {other:?}"),
    }

    bus.stop().await?;
    Ok(())
}
