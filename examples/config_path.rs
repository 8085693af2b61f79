//! A configuration that is a JSON file.
//!
//! `cargo run --example config_path` reads `examples/config.json`, the file that
//! the README starts the program `stdio_bus` with.

use std::env;
use std::error::Error;

use serde_json::json;
use stdiobus::StdioBus;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // Paths in the file are relative to the folder that this process is in.
    env::set_current_dir(env!("CARGO_MANIFEST_DIR"))?;
    let bus = StdioBus::builder()
        .config_path("examples/config.json")
        .build()?;
    bus.start().await?;

    for worker in bus.workers().await? {
        println!("worker {}: {}", worker.id, worker.pool);
    }
    println!("{}", bus.request("echo", json!({"from": "a file"})).await?);
    bus.stop().await?;

    // A file that isn't right is refused before anything is started.
    if let Err(error) = StdioBus::builder().config_path("no-such-file.json").build() {
        println!("{error}");
    }
    Ok(())
}
