//! Agents that are programs on stdin and stdout: how they are called one by one,
//! how one is made, and where those of a user are written down.
//!
//! Compatible with Society's STDIO transport: an agent knows one method,
//! `tasks/send`, and files made by either tool work with the other.

mod children;
mod exec;
mod handler;
mod input;
mod server;
mod session;
mod spec;
mod task;
mod threads;
mod wire;

pub use server::StdioAgent;
pub use spec::{AgentSkill, AgentSpec, Backend, Handler};
pub use task::{Artifact, Message, Part, Task, TaskRequest, TaskState, TaskStatus};
