//! `stdio_bus ping`: whether an agent answers at all.

use std::time::{Duration, Instant};

use clap::Args;
use stdiobus::Error;
use stdiobus::agent::TaskRequest;
use uuid::Uuid;

use super::call::with_agent;
use super::{Failure, RegistryArgs, print, printable};

const LIMIT: Duration = Duration::from_secs(30);

#[derive(Debug, Args)]
pub(crate) struct PingArgs {
    #[command(flatten)]
    registry: RegistryArgs,

    /// The agent
    name: String,
}

pub(super) fn run(args: &PingArgs) -> Result<(), Failure> {
    let registry = args.registry.load()?;
    let options = registry.stdio_options(&args.name)?.timeout(LIMIT);
    let agent = registry.agent(&args.name)?;
    let skills: Vec<String> = agent.skills().into_iter().map(|skill| skill.id).collect();
    with_agent(options, async |transport| {
        let start = Instant::now();
        let request = TaskRequest::text(format!("ping-{}", Uuid::new_v4()), "ping");
        match transport
            .request_with_id("ping", "tasks/send", &request)
            .await
        {
            // Whatever it says, it lives.
            Ok(_) | Err(Error::Rpc { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        let report = format!(
            "  Transport: {}\n  Name: {}\n  Skills: {}\n  Latency: {} ms\n",
            agent.transport(),
            agent.name(),
            skills.join(", "),
            start.elapsed().as_millis()
        );
        print(&printable(&report))
    })
}
