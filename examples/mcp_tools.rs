//! The official MCP client on a supervised server.
//!
//! `cargo run --example mcp_tools -- [COMMAND [ARGUMENT...]]` starts an MCP
//! server, `python3 -m mcp_server_time` unless another command is given, and
//! connects two clients of the `rmcp` crate to it. Each thinks that it has the
//! server for itself; there is one process, and one handshake. With the time
//! server, the second one asks it for the time.

use std::env;
use std::error::Error;

use rmcp::ServiceExt;
use rmcp::model::CallToolRequestParams;
use rmcp::service::{RoleClient, RunningService};
use serde_json::json;
use stdiobus::{PoolConfig, Protocol, StdioBus};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

#[tokio::main]
async fn main() -> Result<()> {
    let mut command = env::args().skip(1);
    let pool = match command.next() {
        Some(program) => PoolConfig::new("server", program).args(command),
        None => PoolConfig::new("server", "python3").args(["-m", "mcp_server_time"]),
    };
    let bus = StdioBus::builder()
        .pool(pool.protocol(Protocol::Mcp))
        .build()?;
    bus.start().await?;

    let first = connect(&bus).await?;
    let second = connect(&bus).await?;
    let tools = first.list_all_tools().await?;
    for tool in &tools {
        let what = tool.description.as_deref().unwrap_or_default();
        println!("{}: {}", tool.name, what.lines().next().unwrap_or_default());
    }
    if tools.iter().any(|tool| tool.name == "get_current_time") {
        let mut call = CallToolRequestParams::new("get_current_time");
        call.arguments = json!({"timezone": "UTC"}).as_object().cloned();
        let answer = second.call_tool(call).await?;
        println!("{}", serde_json::to_string(&answer.content)?);
    }

    first.cancel().await?;
    second.cancel().await?;
    bus.stop().await?;
    Ok(())
}

/// A client of the `rmcp` crate, with a connection of its own.
async fn connect(bus: &StdioBus) -> Result<RunningService<RoleClient, ()>> {
    let connection = bus.connect_io(Some("server")).await?;
    Ok(().serve(tokio::io::split(connection)).await?)
}
