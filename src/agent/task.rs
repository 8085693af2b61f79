//! What `tasks/send` carries: a message in, a task out.
//!
//! What is empty is left out when it is written, and may be left out when it is
//! read.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The one method that an agent has.
pub(crate) const METHOD: &str = "tasks/send";

/// The params of `tasks/send`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct TaskRequest {
    /// The task, and the thread that it belongs to.
    pub id: String,
    /// What the agent is told.
    pub message: Message,
}

impl TaskRequest {
    /// A user's text for a thread.
    pub fn text(id: impl Into<String>, text: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            message: Message::user(text),
        }
    }
}

/// One message of a thread.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Message {
    /// Who says it: `user` or `agent`.
    pub role: String,
    /// What it is made of.
    #[serde(default)]
    pub parts: Vec<Part>,
}

impl Message {
    /// Text of a user.
    pub fn user(text: impl Into<String>) -> Self {
        Self {
            role: "user".into(),
            parts: vec![Part::text(text)],
        }
    }
}

/// One part of a message or of an artifact.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Part {
    /// What it is: `text`, `data` or something else.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// Its text.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub text: String,
    /// Its data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Value>,
}

impl Part {
    /// A part of type `text`.
    pub fn text(text: impl Into<String>) -> Self {
        Self {
            kind: "text".into(),
            text: text.into(),
            data: None,
        }
    }
}

/// What became of a message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Task {
    /// The id of the request.
    pub id: String,
    /// Where it is.
    pub status: TaskStatus,
    /// The messages of the thread, where the agent tells them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub messages: Vec<Message>,
    /// What the agent has made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub artifacts: Vec<Artifact>,
}

impl Task {
    /// One that is done, with one artifact of these parts.
    pub fn completed(id: impl Into<String>, parts: Vec<Part>) -> Self {
        let status = TaskStatus {
            state: TaskState::Completed,
            message: String::new(),
        };
        Self {
            id: id.into(),
            status,
            messages: Vec::new(),
            artifacts: vec![Artifact {
                name: String::new(),
                parts,
            }],
        }
    }

    /// One that could not be done, with the reason.
    pub fn failed(id: impl Into<String>, reason: impl Into<String>) -> Self {
        let status = TaskStatus {
            state: TaskState::Failed,
            message: reason.into(),
        };
        Self {
            id: id.into(),
            status,
            messages: Vec::new(),
            artifacts: Vec::new(),
        }
    }

    /// The texts of all artifacts, in their order.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        let parts = self.artifacts.iter().flat_map(|artifact| &artifact.parts);
        let texts = parts.filter(|part| part.kind == "text");
        texts.map(|part| part.text.as_str())
    }
}

/// Where a task is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct TaskStatus {
    /// The state.
    pub state: TaskState,
    /// More about it, as why it failed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// The states of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum TaskState {
    /// Taken, not begun.
    Submitted,
    /// Begun.
    Working,
    /// Done.
    Completed,
    /// It could not be done.
    Failed,
    /// It was given up.
    Cancelled,
}

/// Something that an agent has made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Artifact {
    /// Its name, where it has one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// What it is made of.
    #[serde(default)]
    pub parts: Vec<Part>,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_empty_is_left_out_and_may_be_there() {
        let task = Task::completed("1", vec![Part::text("hello")]);
        let written = json!({
            "id": "1",
            "status": {"state": "completed"},
            "artifacts": [{"parts": [{"type": "text", "text": "hello"}]}],
        });
        assert_eq!(serde_json::to_value(&task).expect("JSON"), written);
        let full = json!({
            "id": "1",
            "status": {"state": "cancelled", "message": ""},
            "messages": [],
            "artifacts": [{"name": "", "parts": [{"type": "data", "text": "", "data": [1]}]}],
        });
        let task: Task = serde_json::from_value(full).expect("a task");
        assert_eq!(task.status.state, TaskState::Cancelled);
        assert_eq!(task.artifacts[0].parts[0].data, Some(json!([1])));
        assert_eq!(task.texts().count(), 0);
    }
}
