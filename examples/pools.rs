//! Two pools on one bus, and limits for both.
//!
//! `cargo run --example pools` runs two workers that echo and one that does things to
//! words. A request names its pool; one that names none goes to the default.

use serde_json::json;
use stdiobus::{BusConfig, LimitsConfig, PoolConfig, RequestOptions, StdioBus};

const ECHO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/workers/echo.py");
const WORDS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/workers/words.py");

#[tokio::main]
async fn main() -> stdiobus::Result<()> {
    let limits = LimitsConfig::new()
        .max_input_buffer(1024) // bytes of one message
        .max_restarts(2)
        .restart_window_sec(10);
    let config = BusConfig::new()
        .pool(PoolConfig::new("echo", "python3").arg(ECHO).instances(2))
        .pool(PoolConfig::new("words", "python3").arg(WORDS))
        .default_pool("echo")
        .limits(limits);
    let bus = StdioBus::builder().config(config).build()?;
    bus.start().await?;
    for worker in bus.workers().await? {
        println!("worker {}: {}", worker.id, worker.pool);
    }

    let text = json!({"text": "hello"});
    println!("{}", bus.request("upper", &text).await?);
    let words = RequestOptions::new().pool("words");
    println!("{}", bus.request_with("upper", &text, words).await?);

    // What is refused harms nobody: the bus goes on.
    let nowhere = RequestOptions::new().pool("numbers");
    if let Err(error) = bus.request_with("upper", &text, nowhere).await {
        println!("{error}");
    }
    if let Err(error) = bus.request("upper", ["x".repeat(1024)]).await {
        println!("too large: {:?}", error.kind());
    }

    bus.stop().await?;
    Ok(())
}
