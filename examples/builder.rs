//! What a builder takes: a pool, limits, a listener, a timeout, a log, a handler.
//!
//! `cargo run --example builder` sets it for one worker, `workers/greeter.py`, which
//! asks for a name before it greets.

use std::time::Duration;

use serde_json::json;
use stdiobus::{
    LimitsConfig, ListenMode, LogLevel, PoolConfig, Protocol, RequestOptions, RestartPolicy,
    RpcError, StderrMode, StdioBus,
};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/workers");

#[tokio::main]
async fn main() -> stdiobus::Result<()> {
    let pool = PoolConfig::new("greeter", "python3")
        .arg("greeter.py")
        .cwd(FOLDER)
        .env("GREETING", "Good morning")
        .inherit_env(true) // the default; off, the worker has GREETING and nothing else
        .instances(1)
        .protocol(Protocol::Ndjson)
        .restart(RestartPolicy::OnFailure)
        .stderr(StderrMode::Log);
    let bus = StdioBus::builder()
        .pool(pool)
        .limits(
            LimitsConfig::new()
                .max_input_buffer(1 << 20)
                .max_restarts(3),
        )
        .listen(ListenMode::tcp("127.0.0.1", 0)) // port 0: one that is free
        .timeout(Duration::from_secs(20))
        .max_in_flight_bytes(1 << 20)
        .log_level(LogLevel::Warn)
        .on_log(|level, line| eprintln!("{level}: {line}"))
        .on_request(|request| async move {
            match request.method() {
                "name" => Ok(json!("Ada")),
                other => Err(RpcError::method_not_found(other)),
            }
        })
        .build()?;
    bus.start().await?;

    println!("{}", bus.request("greet", ()).await?);

    // A request may have less time than the builder gives it.
    let short = RequestOptions::new().timeout(Duration::from_millis(50));
    if let Err(error) = bus.request_with("ponder", (), short).await {
        println!("{error}");
    }

    bus.stop().await?;
    Ok(())
}
