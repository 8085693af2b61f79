//! `stdio_bus send`: a message to an agent, and what it says.

use clap::Args;
use stdiobus::Error;
use stdiobus::agent::{Task, TaskRequest, TaskState};
use uuid::Uuid;

use super::call::with_agent;
use super::{Failure, RegistryArgs, print};

#[derive(Debug, Args)]
#[command(
    override_usage = "stdio_bus send [--registry <PATH>] [--thread <ID>] [--fail] <NAME> <MESSAGE>..."
)]
pub(crate) struct SendArgs {
    #[command(flatten)]
    registry: RegistryArgs,

    /// Go on with this thread [default: a new one]
    #[arg(long, value_name = "ID")]
    thread: Option<String>,

    /// Exit with 1 where the task fails
    #[arg(long)]
    fail: bool,

    /// The agent, and the words of the message; what comes behind the agent is no
    /// option
    #[arg(
        value_name = "NAME MESSAGE",
        num_args = 2..,
        required = true,
        trailing_var_arg = true
    )]
    words: Vec<String>,
}

pub(super) fn run(args: &SendArgs) -> Result<(), Failure> {
    let [name, message @ ..] = args.words.as_slice() else {
        return Err("an agent is needed".to_owned().into());
    };
    let options = args.registry.load()?.stdio_options(name)?;
    let thread = args.thread.clone();
    let thread = thread.unwrap_or_else(|| Uuid::new_v4().to_string());
    let request = TaskRequest::text(thread.as_str(), message.join(" "));
    with_agent(options, async |agent| {
        let answer = agent.request_with_id(thread.as_str(), "tasks/send", &request);
        let task = match answer.await {
            Ok(result) => serde_json::from_value::<Task>(result),
            Err(Error::Rpc { code, message, .. }) => {
                return Err(format!("agent error [{code}]: {message}").into());
            }
            Err(error) => return Err(error.into()),
        };
        let task = task.map_err(|e| format!("agent {name:?}: the answer is no task: {e}"))?;
        print(&report(&thread, &task))?;
        match task.status.state {
            TaskState::Failed if args.fail => Err(Failure::Told),
            _ => Ok(()),
        }
    })
}

fn report(thread: &str, task: &Task) -> String {
    let state = serde_json::to_value(task.status.state).unwrap_or_default();
    let state = state.as_str().unwrap_or_default();
    let mut report = format!("  Thread {thread}\n  Status: {state}\n");
    if !task.status.message.is_empty() {
        report += &format!("  Error: {}\n", task.status.message.trim());
    }
    let texts = task.texts().map(str::trim).filter(|text| !text.is_empty());
    for line in texts.flat_map(str::lines) {
        report += &format!("  {line}\n");
    }
    report
}
