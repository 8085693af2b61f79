//! A bus in this process, used from inside and through two sockets.
//!
//! `cargo run --example embed` starts two echo workers, which are this example
//! run again with `--worker`, and prints three answers: one that was asked for
//! in this process, one through TCP, and one through a Unix socket.

use std::env;
use std::error::Error;
use std::io::{self, BufRead, Write};

use serde_json::{Value, json};
use stdiobus::{ListenMode, PoolConfig, StdioBus};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpStream, UnixStream};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

#[tokio::main]
async fn main() -> Result<()> {
    if env::args().any(|arg| arg == "--worker") {
        return worker();
    }

    let socket = env::temp_dir().join(format!("stdiobus-embed-{}.sock", std::process::id()));
    let bus = StdioBus::builder()
        .pool(
            PoolConfig::new("echo", env::current_exe()?)
                .arg("--worker")
                .instances(2),
        )
        .listen(ListenMode::tcp("127.0.0.1", 0))
        .listen(ListenMode::unix(&socket))
        .build()?;
    bus.start().await?;
    for address in bus.listen_addrs() {
        println!("listening on {address}");
    }

    let answer = bus.request("echo", json!({"from": "this process"})).await?;
    println!("in-process: {answer}");

    for address in bus.listen_addrs() {
        if let Some(address) = address.tcp() {
            let stream = TcpStream::connect(address).await?;
            println!("tcp: {}", ask(stream, "a TCP client").await?);
        }
        if let Some(path) = address.unix() {
            let stream = UnixStream::connect(path).await?;
            println!("unix: {}", ask(stream, "a Unix client").await?);
        }
    }

    bus.stop().await?;
    println!("stopped");
    Ok(())
}

/// What any client in any language does: write a line, read a line.
async fn ask(stream: impl AsyncRead + AsyncWrite + Unpin, from: &str) -> Result<Value> {
    let mut stream = BufReader::new(stream);
    let request = json!({"jsonrpc": "2.0", "id": 1, "method": "echo", "params": {"from": from}});
    stream.write_all(format!("{request}\n").as_bytes()).await?;
    let mut line = String::new();
    stream.read_line(&mut line).await?;
    let answer: Value = serde_json::from_str(&line)?;
    Ok(answer["result"].clone())
}

/// A worker: reads requests from stdin, and answers each with its params.
fn worker() -> Result<()> {
    let mut out = io::stdout().lock();
    for line in io::stdin().lock().lines() {
        // The bus checks how a message is built, not every value deep inside it:
        // a line that is no JSON after all must not end the worker.
        let Ok(request) = serde_json::from_str::<Value>(&line?) else {
            continue;
        };
        if let Some(id) = request.get("id") {
            let answer = json!({"jsonrpc": "2.0", "id": id, "result": request["params"]});
            writeln!(out, "{answer}")?;
            out.flush()?;
        }
    }
    Ok(())
}
