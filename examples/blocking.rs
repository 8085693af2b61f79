//! The client without async: the same methods, and they wait.
//!
//! `cargo run --example blocking` needs no runtime. Any number of threads may use
//! one bus.

use std::thread;

use serde_json::json;
use stdiobus::{Error, PoolConfig, blocking::StdioBus};

const WORKER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/workers/words.py");

fn main() -> stdiobus::Result<()> {
    let bus = StdioBus::builder()
        .pool(PoolConfig::new("words", "python3").arg(WORKER))
        .build_blocking()?;
    bus.start()?;

    let loud: String = bus.request_as("upper", json!({"text": "hello"}))?;
    println!("{loud}");

    // The worker's own error is no failure of the bus.
    match bus.request("translate", json!({"text": "hello"})) {
        Err(Error::Rpc { code, message, .. }) => println!("error {code}: {message}"),
        other => println!("unexpected: {other:?}"),
    }

    let threads = ["stressed", "drawer"].map(|text| {
        let bus = bus.clone();
        thread::spawn(move || bus.request("reverse", json!({"text": text})))
    });
    for thread in threads {
        println!("{}", thread.join().expect("nothing in it panics")?);
    }

    bus.stop()?;
    Ok(())
}
