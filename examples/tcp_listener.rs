//! A bus for other processes: any client that can write a line to a socket.
//!
//! `cargo run --example tcp_listener` listens on a free port of this machine, and is
//! then its own client, with nothing but the standard library.

use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;

use stdiobus::{ListenAddr, ListenMode, PoolConfig, blocking::StdioBus};

const WORKER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/workers/words.py");

fn main() -> Result<(), Box<dyn Error>> {
    let bus = StdioBus::builder()
        .pool(PoolConfig::new("words", "python3").arg(WORKER))
        .listen(ListenMode::tcp("127.0.0.1", 0))
        .build_blocking()?;
    bus.start()?;
    let address = bus.listen_addrs().iter().find_map(ListenAddr::tcp);
    let address = address.ok_or("a TCP listener was asked for")?;
    eprintln!("listening on {address}");

    let mut socket = TcpStream::connect(address)?;
    let mut answers = BufReader::new(socket.try_clone()?).lines();
    for request in [
        r#"{"jsonrpc":"2.0","id":1,"method":"upper","params":{"text":"hello"}}"#,
        r#"{"jsonrpc":"2.0","id":"two","method":"sing"}"#,
    ] {
        writeln!(socket, "{request}")?;
        println!("{}", answers.next().ok_or("no answer")??);
    }

    bus.stop()?;
    Ok(())
}
