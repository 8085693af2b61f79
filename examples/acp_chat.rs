//! A chat with an ACP agent in the terminal.
//!
//! `cargo run --example acp_chat -- COMMAND [ARGUMENT...]` starts the agent and
//! sends it each line you type. Its text appears as it is written, its other
//! doings in brackets, and where it wants a permission you are asked. It ends
//! with the end of the input (Ctrl-D) or Ctrl-C.

use std::env;
use std::error::Error;
use std::io::{self, Write};
use std::sync::Arc;

use serde_json::{Value, json};
use stdiobus::{PoolConfig, Protocol, RpcError, StdioBus, StreamEvent, WorkerRequest};
use tokio::io::{AsyncBufReadExt, BufReader, Lines, Stdin};
use tokio::sync::Mutex;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// The person at the terminal: they type prompts, and answers to questions.
type Person = Arc<Mutex<Lines<BufReader<Stdin>>>>;

#[tokio::main]
async fn main() -> Result<()> {
    let mut command = env::args().skip(1);
    let program = command
        .next()
        .ok_or("usage: acp_chat COMMAND [ARGUMENT...]")?;
    let person = Arc::new(Mutex::new(BufReader::new(tokio::io::stdin()).lines()));

    let asked = Arc::clone(&person);
    let bus = StdioBus::builder()
        .pool(
            PoolConfig::new("agent", program)
                .args(command)
                .protocol(Protocol::Acp),
        )
        .on_request(move |request| answer(request, Arc::clone(&asked)))
        .build()?;
    bus.start().await?;
    let end = tokio::select! {
        end = chat(&bus, &person) => end,
        _ = tokio::signal::ctrl_c() => Ok(()),
    };
    bus.stop().await?;
    if let Err(error) = &end {
        eprintln!("{error}");
    }
    // A return from here would wait for one more line: tokio's stdin can't be interrupted.
    std::process::exit(i32::from(end.is_err()))
}

async fn chat(bus: &StdioBus, person: &Person) -> Result<()> {
    let hello = json!({"protocolVersion": 1, "clientCapabilities": {}});
    bus.request("initialize", hello).await?;
    let here = env::current_dir()?;
    let session = bus
        .request("session/new", json!({"cwd": here, "mcpServers": []}))
        .await?;

    while let Some(line) = read(person, "> ").await? {
        turn(bus, &session["sessionId"], &line).await?;
    }
    Ok(())
}

/// Sends one prompt, and shows what comes.
async fn turn(bus: &StdioBus, session: &Value, text: &str) -> Result<()> {
    let prompt = json!({"sessionId": session, "prompt": [{"type": "text", "text": text}]});
    let mut answer = bus.stream_request("session/prompt", prompt);
    while let Some(event) = answer.next().await {
        match event? {
            StreamEvent::Chunk(text) => print!("{text}"),
            StreamEvent::Update(update) => {
                print!("[{}]", text_of(&update.params()["update"]["sessionUpdate"]));
            }
            StreamEvent::Result(result) => println!("\n({})", text_of(&result["stopReason"])),
            _ => {}
        }
        io::stdout().flush()?;
    }
    Ok(())
}

/// Answers what the agent asks.
async fn answer(request: WorkerRequest, person: Person) -> std::result::Result<Value, RpcError> {
    if request.method() != "session/request_permission" {
        return Err(RpcError::method_not_found(request.method()));
    }
    let params = request.params();
    let title = text_of(&params["toolCall"]["title"]);
    println!("\nThe agent wants to: {title}");
    let options = params["options"].as_array().cloned().unwrap_or_default();
    for (number, option) in options.iter().enumerate() {
        println!("  {number}: {}", text_of(&option["name"]));
    }
    let line = read(&person, "Which one? ").await;
    let line = line.map_err(|e| RpcError::internal(e.to_string()))?;
    let number = line.and_then(|line| line.trim().parse::<usize>().ok());
    // Whatever is no number of an option is a no.
    let outcome = match number.and_then(|number| options.get(number)) {
        Some(option) => json!({"outcome": "selected", "optionId": option["optionId"]}),
        None => json!({"outcome": "cancelled"}),
    };
    Ok(json!({"outcome": outcome}))
}

fn text_of(value: &Value) -> &str {
    value.as_str().unwrap_or("?")
}

async fn read(person: &Person, question: &str) -> io::Result<Option<String>> {
    print!("{question}");
    io::stdout().flush()?;
    person.lock().await.next_line().await
}
