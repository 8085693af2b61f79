//! The shortest useful bus: asks a worker, and prints its answers.
//!
//! `cargo run --example echo` starts two workers (`workers/echo.py`), which answer
//! every request with its own params.

use serde_json::json;
use stdiobus::{PoolConfig, RequestOptions, StdioBus};

const WORKER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/workers/echo.py");

#[tokio::main]
async fn main() -> stdiobus::Result<()> {
    let bus = StdioBus::builder()
        .pool(PoolConfig::new("echo", "python3").arg(WORKER).instances(2))
        .build()?;
    bus.start().await?;

    let answer = bus.request("echo", json!({"message": "hello"})).await?;
    println!("{answer}");

    // Without a session each request goes to the worker with the least to do.
    let free = RequestOptions::new().unpinned();
    let (one, two) = tokio::try_join!(
        bus.request_with("echo", ["at once"], free.clone()),
        bus.request_with("echo", ["on two workers"], free),
    )?;
    println!("{one} {two}");

    bus.stop().await?;
    Ok(())
}
