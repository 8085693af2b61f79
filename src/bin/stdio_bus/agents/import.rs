//! `stdio_bus import`: the agents of another registry are added.

use std::path::PathBuf;

use clap::Args;
use serde_json::Value;
use stdiobus::agent::{AgentCard, Registry};

use super::prompt::{Prompt, is_yes};
use super::{Failure, RegistryArgs, print, printable};

#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    #[command(flatten)]
    registry: RegistryArgs,

    /// The other registry
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// What is to be done with the agents that aren't skipped.
#[derive(Default)]
struct Plan {
    add: Vec<AgentCard>,
    replace: Vec<AgentCard>,
    rename: Vec<AgentCard>,
    skipped: usize,
}

pub(super) fn run(args: &ImportArgs) -> Result<(), Failure> {
    let file = args.file.to_string_lossy();
    if ["http://", "https://"]
        .iter()
        .any(|scheme| file.starts_with(scheme))
    {
        let text = "import from a URL is out of scope here: only a file can be imported";
        return Err(text.to_owned().into());
    }
    let others = Registry::load_existing(&args.file)?;
    others
        .validate()
        .map_err(|error| format!("{file}: {error}"))?;
    // All is asked before anything is locked, since people take their time. What
    // others change meanwhile makes it fail as a whole.
    let plan = plan(&args.registry.load()?, &others)?;
    let counts = [
        ("imported", plan.add.len()),
        ("skipped", plan.skipped),
        ("replaced", plan.replace.len()),
        ("renamed", plan.rename.len()),
    ];
    Registry::update(args.registry.path(), |registry| {
        let mut add = plan.add.into_iter().chain(plan.rename);
        add.try_for_each(|agent| registry.add(agent))?;
        plan.replace
            .into_iter()
            .try_for_each(|agent| registry.replace(agent))
    })?;
    let counts = counts.map(|(what, count)| format!("{what} {count}"));
    print(&format!("{}\n", counts.join(", ")))
}

fn plan(registry: &Registry, others: &Registry) -> Result<Plan, Failure> {
    let mut prompt = Prompt::new();
    let mut plan = Plan::default();
    for agent in others.agents() {
        let Ok(known) = registry.agent(agent.name()) else {
            plan.add.push(agent.clone());
            continue;
        };
        if without_transport(known) == without_transport(agent) {
            plan.skipped += 1;
            continue;
        }
        let name = printable(agent.name());
        let question = format!("Agent \"{name}\" exists. Overwrite? [y/n/rename]");
        match prompt.ask(&question)?.as_str() {
            yes if is_yes(yes) => plan.replace.push(agent.clone()),
            "r" | "rename" => {
                let taken = |name: &str| {
                    let renamed = plan.rename.iter().chain(others.agents());
                    registry.agent(name).is_ok()
                        || renamed.into_iter().any(|agent| agent.name() == name)
                };
                match ask_name(&mut prompt, taken)? {
                    Some(name) => plan.rename.push(agent.clone().with_name(name)),
                    None => plan.skipped += 1,
                }
            }
            _ => plan.skipped += 1,
        }
    }
    Ok(plan)
}

/// A name that nobody has; `None` where none is given.
fn ask_name(prompt: &mut Prompt, taken: impl Fn(&str) -> bool) -> Result<Option<String>, Failure> {
    loop {
        let name = prompt.ask("New name")?;
        if name.is_empty() {
            return Ok(None);
        }
        if !taken(&name) {
            return Ok(Some(name));
        }
        eprintln!("There is an agent \"{}\" already", printable(&name));
    }
}

/// How it is reached is each user's own affair: agents that differ in nothing else
/// are the same.
fn without_transport(agent: &AgentCard) -> Value {
    let mut value = serde_json::to_value(agent).unwrap_or_default();
    if let Some(members) = value.as_object_mut() {
        members.remove("transport");
    }
    value
}
