//! An agent's text as it is written.
//!
//! `cargo run --example streaming` prompts a small ACP agent (`workers/story.py`) and
//! prints each piece of its answer when it comes.

use std::io::{self, Write};

use serde_json::json;
use stdiobus::{PoolConfig, Protocol, StdioBus, StreamEvent};

const WORKER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/workers/story.py");

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let agent = PoolConfig::new("agent", "python3")
        .arg(WORKER)
        .protocol(Protocol::Acp)
        .initialize(json!({"protocolVersion": 1, "clientCapabilities": {}}));
    let bus = StdioBus::builder().pool(agent).build()?;
    bus.start().await?;

    let session = json!({"cwd": "/", "mcpServers": []});
    let session = bus.request("session/new", session).await?;

    let prompt = json!([{"type": "text", "text": "Tell me a story."}]);
    let params = json!({"sessionId": session["sessionId"], "prompt": prompt});
    let mut answer = bus.stream_request("session/prompt", params);
    while let Some(event) = answer.next().await {
        match event? {
            StreamEvent::Chunk(text) => print!("{text}"),
            // Thoughts, tool calls, plans.
            StreamEvent::Update(update) => {
                let update = &update.params()["update"];
                println!(
                    "[{}] {}",
                    update["sessionUpdate"], update["content"]["text"]
                );
            }
            StreamEvent::Result(result) => {
                println!("\n[{}]", result["stopReason"]);
                println!("the whole: {}", result["text"]);
            }
            _ => {}
        }
        io::stdout().flush()?;
    }

    bus.stop().await?;
    Ok(())
}
