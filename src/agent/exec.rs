//! A message as the argument of a program, and its output as the answer.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::Arc;
use std::thread;

use serde_json::Value;
use tokio::sync::oneshot;

use super::children::{Children, Output};
use super::spec::Backend;
use super::task::{Artifact, Part, Task};
use super::threads::{Thread, default_folder};
use crate::error::RpcError;

/// What runs the program of one agent.
#[derive(Debug)]
pub(super) struct Exec {
    pub(super) agent: String,
    pub(super) system_prompt: String,
    pub(super) backend: Backend,
    pub(super) folder: Option<PathBuf>,
    pub(super) children: Arc<Children>,
}

/// What the program has said.
#[derive(Debug, PartialEq)]
struct Said {
    text: String,
    trace: Vec<Value>,
}

impl Exec {
    /// What becomes of a text in a thread.
    pub(super) async fn answer(&self, task: &str, text: &str) -> Result<Task, RpcError> {
        let mut thread = self.open(task).await.map_err(failed("loading thread"))?;
        let command = self.command(&thread, text);
        let ended = self.run(command).await;
        thread.push("user", text);
        if let Ok(said) = &ended {
            thread.push("assistant", &said.text);
        }
        blocking(move || thread.save())
            .await
            .map_err(failed("saving thread"))?;
        Ok(match ended {
            Ok(said) => said.into_task(task),
            Err(reason) => Task::failed(task, reason),
        })
    }

    async fn open(&self, id: &str) -> Result<Thread, String> {
        let folder = self.folder.clone().or_else(default_folder);
        let folder = folder.ok_or("there is no home directory")?;
        let (id, agent) = (id.to_owned(), self.agent.clone());
        blocking(move || Thread::open(&folder, &id, &agent)).await
    }

    fn command(&self, thread: &Thread, text: &str) -> Command {
        let backend = &self.backend;
        let mut command = Command::new(&backend.command);
        command.args(&backend.args);
        if let Some(flag) = backend.prompt_flag()
            && !self.system_prompt.is_empty()
        {
            command.args([flag, &self.system_prompt]);
        }
        let session_flag = match thread.has_answer() && !backend.resume_flag.is_empty() {
            true => &backend.resume_flag,
            false => &backend.session_flag,
        };
        let session = (!session_flag.is_empty()).then_some([session_flag, thread.session()]);
        match backend.end_of_options {
            // Behind `--` there are no options any more.
            true => {
                command.args(session.into_iter().flatten());
                command.args(["--", text]);
            }
            false => {
                command.arg(no_option(text));
                command.args(session.into_iter().flatten());
            }
        }
        command.envs(backend.env.iter().map(|(key, value)| (key, value)));
        if let Some(cwd) = &backend.cwd {
            command.current_dir(cwd);
        }
        command
    }

    /// The error is why the task has failed.
    async fn run(&self, command: Command) -> Result<Said, String> {
        let Backend { timeout, cwd, .. } = &self.backend;
        let output = self.children.run(command, *timeout).await;
        let output = output.map_err(|error| self.not_started(&error, cwd.as_deref()))?;
        if output.late {
            return Err(format!("timed out after {:?}", timeout.unwrap_or_default()));
        }
        if output.captured.too_long {
            return Err("the output is too long".into());
        }
        match output.status.success() {
            true => Ok(Said::read(&output.captured.stdout)),
            false => Err(reason(&output)),
        }
    }

    fn not_started(&self, error: &io::Error, cwd: Option<&Path>) -> String {
        let command = &self.backend.command;
        let missing = error.kind() == io::ErrorKind::NotFound;
        match cwd {
            Some(cwd) if missing && !cwd.is_dir() => format!("chdir {}: {error}", cwd.display()),
            _ if missing && !command.contains('/') => {
                format!("exec: \"{command}\": executable file not found in $PATH")
            }
            _ => format!("{command}: {error}"),
        }
    }
}

/// For the client: this side has failed.
fn failed(what: &'static str) -> impl FnOnce(String) -> RpcError {
    move |reason| RpcError::internal(format!("handler error: {what}: {reason}"))
}

/// On a thread of its own: waiting for somebody else's turn may take long, and
/// would hold up the end of a runtime.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    let (tell, done) = oneshot::channel();
    thread::Builder::new()
        .name("agent-thread".into())
        .spawn(move || tell.send(work()).is_ok())
        .map_err(|error| error.to_string())?;
    done.await.unwrap_or_else(|error| Err(error.to_string()))
}

/// A message that the program can't take for an option.
fn no_option(text: &str) -> String {
    match text.starts_with('-') {
        true => format!(" {text}"),
        false => text.to_owned(),
    }
}

/// Why a program has failed: what it says, else how it ended.
fn reason(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.captured.stderr);
    match said.trim() {
        "" => ending(output.status),
        said => said.to_owned(),
    }
}

/// In the words of the reference.
fn ending(status: ExitStatus) -> String {
    let signal = match status.signal() {
        None => return format!("exit status {}", status.code().unwrap_or_default()),
        Some(libc::SIGHUP) => "hangup",
        Some(libc::SIGINT) => "interrupt",
        Some(libc::SIGABRT) => "aborted",
        Some(libc::SIGKILL) => "killed",
        Some(libc::SIGSEGV) => "segmentation fault",
        Some(libc::SIGTERM) => "terminated",
        Some(other) => return format!("signal: signal {other}"),
    };
    format!("signal: {signal}")
}

impl Said {
    fn read(stdout: &[u8]) -> Self {
        let text = String::from_utf8_lossy(stdout);
        let text = text.trim();
        let (result, trace) = match text.as_bytes().first() {
            Some(b'{' | b'[') => from_json(text),
            _ => None,
        }
        .unwrap_or_else(|| (text.to_owned(), Vec::new()));
        Self {
            text: result,
            trace,
        }
    }

    fn into_task(self, id: &str) -> Task {
        let mut task = Task::completed(id, vec![Part::text(self.text)]);
        if !self.trace.is_empty() {
            let data = Part {
                kind: "data".into(),
                text: String::new(),
                data: Some(Value::Array(self.trace)),
            };
            task.artifacts.push(Artifact {
                name: "trace".into(),
                parts: vec![data],
            });
        }
        task
    }
}

/// The result and the trace, where the output is an object with a result or a
/// list of events.
fn from_json(text: &str) -> Option<(String, Vec<Value>)> {
    let result_of = |event: &Value| {
        let result = event.get("result")?.as_str()?;
        (!result.is_empty()).then(|| result.to_owned())
    };
    let kind = |event: &Value| {
        let kind = event.get("type").and_then(Value::as_str);
        kind.unwrap_or_default().to_owned()
    };
    match serde_json::from_str(text).ok()? {
        Value::Array(mut events) => {
            let mut results = events.iter().filter(|event| kind(event) == "result");
            let result = results.find_map(result_of)?;
            events.retain(|event| !matches!(kind(event).as_str(), "system" | "rate_limit_event"));
            Some((result, events))
        }
        object => Some((result_of(&object)?, Vec::new())),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn said(stdout: &str) -> (String, Vec<Value>) {
        let said = Said::read(stdout.as_bytes());
        (said.text, said.trace)
    }

    #[test]
    fn the_answer_is_the_result_where_there_is_one_and_else_all() {
        for (stdout, text) in [
            ("  plain\n\n", "plain"),
            ("", ""),
            ("{\"result\": \"yes\", \"x\": 1}\n", "yes"),
            ("{\"result\": \"\"}", "{\"result\": \"\"}"),
            ("{\"result\": 1}", "{\"result\": 1}"),
            ("{\"result\": \"a\"} tail", "{\"result\": \"a\"} tail"),
            ("\"text\"", "\"text\""),
            ("[1]", "[1]"),
            (
                "[{\"type\":\"x\",\"result\":\"a\"}]",
                "[{\"type\":\"x\",\"result\":\"a\"}]",
            ),
        ] {
            assert_eq!(said(stdout), (text.to_owned(), Vec::new()), "{stdout}");
        }
    }

    #[test]
    fn events_have_a_result_and_leave_a_trace() {
        let events = json!([
            {"type": "system"},
            {"type": "assistant", "n": 1},
            {"type": "rate_limit_event"},
            {"type": "result", "result": "done"},
        ]);
        let (text, trace) = said(&events.to_string());
        assert_eq!(text, "done");
        assert_eq!(trace, [events[1].clone(), events[3].clone()]);
    }

    #[test]
    fn endings_are_told_in_words() {
        for (raw, text) in [
            (3 << 8, "exit status 3"),
            (9, "signal: killed"),
            (15, "signal: terminated"),
            (64, "signal: signal 64"),
        ] {
            assert_eq!(ending(ExitStatus::from_raw(raw)), text);
        }
    }
}
