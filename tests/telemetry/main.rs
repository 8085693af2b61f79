//! What a bus tells operators: spans and events, and metrics.

#[path = "../common/mod.rs"]
mod common;
mod events;
mod figures;
mod recorder;
mod spans;
mod subscriber;

use stdiobus::{StdioBus, StdioBusBuilder};

/// A bus `name` with this pool, running.
async fn start(name: &str, builder: StdioBusBuilder) -> StdioBus {
    let bus = builder.name(name).build().expect("valid");
    bus.start().await.expect("starts");
    bus
}
