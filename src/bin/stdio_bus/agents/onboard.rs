//! `stdio_bus onboard`: an agent is added by questions.

use clap::Args;
use stdiobus::agent::{AgentCard, Registry};

use super::prompt::Prompt;
use super::{Failure, RegistryArgs, print, printable};

#[derive(Debug, Args)]
pub(crate) struct OnboardArgs {
    #[command(flatten)]
    registry: RegistryArgs,

    /// Ask, which is what is done anyway
    #[arg(long, hide = true)]
    manual: bool,
}

pub(super) fn run(args: &OnboardArgs) -> Result<(), Failure> {
    let agent = ask(&mut Prompt::new())?;
    let name = agent.name().to_owned();
    Registry::update(args.registry.path(), |registry| registry.add(agent))?;
    print(&format!("✓ Added \"{}\" to registry\n", printable(&name)))
}

fn ask(prompt: &mut Prompt) -> Result<AgentCard, Failure> {
    let name = prompt.ask("Agent name")?;
    if name.is_empty() {
        return Err("agent name is required".to_owned().into());
    }
    let description = prompt.ask("Description (optional)")?;
    let transport = prompt.ask("Transport [http/ssh/docker/stdio] (http)")?;
    match transport.to_ascii_lowercase().as_str() {
        "stdio" => {}
        "" => return Err(out_of_scope("http")),
        other @ ("http" | "ssh" | "docker" | "ssh-exec") => return Err(out_of_scope(other)),
        _ => {
            let text = format!("validation failed: invalid transport type {transport:?}");
            return Err(text.into());
        }
    }
    let command = prompt.ask("Command")?;
    if command.is_empty() {
        return Err("command is required".to_owned().into());
    }
    let arguments = prompt.ask("Args (space-separated)")?;
    let skills = prompt.ask("Skills (comma-separated IDs, or empty to skip)")?;
    let skills = skills.split(',').map(str::trim).filter(|id| !id.is_empty());
    Ok(AgentCard::stdio(name, command)
        .with_description(&description)
        .with_skills(skills)
        .with_args(arguments.split_whitespace()))
}

fn out_of_scope(transport: &str) -> Failure {
    format!("transport {transport:?} is out of scope here: only stdio is supported").into()
}
