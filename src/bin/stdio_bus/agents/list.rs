//! `stdio_bus list`: the agents of the registry as a table.

use clap::Args;
use stdiobus::agent::AgentCard;

use super::{Failure, RegistryArgs, print, printable};

/// The longest endpoint that is shown.
const ENDPOINT: usize = 30;

const HEAD: [&str; 4] = ["NAME", "TRANSPORT", "ENDPOINT", "SKILLS"];

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    registry: RegistryArgs,
}

pub(super) fn run(args: &ListArgs) -> Result<(), Failure> {
    let registry = args.registry.load()?;
    print(&table(registry.agents()))
}

fn table(agents: &[AgentCard]) -> String {
    if agents.is_empty() {
        return "  No agents registered\n".into();
    }
    let rows = agents.iter().map(row);
    let rows: Vec<_> = std::iter::once(HEAD.map(str::to_owned))
        .chain(rows)
        .collect();
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.max().unwrap_or_default()
    };
    let widths = [width(0), width(1), width(2)];
    let mut table = String::new();
    for [name, transport, endpoint, skills] in &rows {
        let [a, b, c] = widths;
        let line = format!("  {name:a$}  {transport:b$}  {endpoint:c$}  {skills}");
        table += line.trim_end();
        table.push('\n');
    }
    table + &format!("\n  {} agents registered\n", agents.len())
}

fn row(agent: &AgentCard) -> [String; 4] {
    let endpoint = match agent.transport() {
        "stdio" => {
            let words = std::iter::once(agent.command().to_owned()).chain(agent.args());
            format!("stdio://{}", words.collect::<Vec<_>>().join(" "))
        }
        _ => agent.url().to_owned(),
    };
    let skills: Vec<String> = agent.skills().into_iter().map(|skill| skill.id).collect();
    let cells = [
        agent.name().to_owned(),
        agent.transport().to_owned(),
        cut(endpoint.trim_end()),
        skills.join(", "),
    ];
    // A cell is one line.
    cells.map(|cell| printable(&cell.replace(['\n', '\t'], " ")))
}

fn cut(endpoint: &str) -> String {
    if endpoint.chars().count() <= ENDPOINT {
        return endpoint.to_owned();
    }
    let start = endpoint.chars().take(ENDPOINT - 3);
    start.chain("...".chars()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_cut_by_characters() {
        assert_eq!(cut(&"é".repeat(30)), "é".repeat(30));
        assert_eq!(cut(&"é".repeat(31)), "é".repeat(27) + "...");
    }
}
