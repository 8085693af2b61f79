//! Agents that are programs on stdin and stdout: how they are called one by one,
//! how one is made, and where those of a user are written down.
//!
//! Compatible with Society's STDIO transport: an agent knows one method,
//! `tasks/send`, and files made by either tool work with the other.

mod card;
mod children;
mod exec;
mod file;
mod handler;
mod input;
mod json;
mod options;
mod process;
mod registry;
mod server;
mod session;
mod spec;
mod task;
mod threads;
pub(crate) mod time;
mod transport;
mod wire;

pub use card::{AgentCard, Skill};
pub use options::StdioOptions;
pub use registry::Registry;
pub use server::StdioAgent;
pub use spec::{AgentSkill, AgentSpec, Backend, Handler};
pub use task::{Artifact, Message, Part, Task, TaskRequest, TaskState, TaskStatus};
pub use transport::StdioTransport;
