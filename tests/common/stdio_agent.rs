//! An agent as a child: `stdio_bus run --stdio`, with a home of its own.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;

use serde_json::{Value, json};

use super::{BOUND, TempDir, program, wait_for_child};

/// A running agent; killed on drop.
pub struct Agent {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    log: Option<thread::JoinHandle<String>>,
    home: TempDir,
}

impl Agent {
    /// Starts one. JSON is YAML, too.
    #[track_caller]
    pub fn start(config: &Value, args: &[&str]) -> Agent {
        Agent::start_in(TempDir::new(), config, args)
    }

    /// Starts one in a home that there is already.
    #[track_caller]
    pub fn start_in(home: TempDir, config: &Value, args: &[&str]) -> Agent {
        let path = home.path("agent.yaml");
        fs::write(&path, config.to_string()).expect("written");
        let mut child = Command::new(program())
            .args(["run", "--stdio", "--config"])
            .arg(&path)
            .args(args)
            .env("HOME", home.path(""))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        let (line, lines) = mpsc::channel();
        thread::spawn(move || {
            let texts = stdout.split(b'\n').map_while(Result::ok);
            for text in texts {
                if line.send(String::from_utf8(text).expect("UTF-8")).is_err() {
                    return;
                }
            }
        });
        let mut stderr = child.stderr.take().expect("piped");
        let log = thread::spawn(move || {
            let mut text = String::new();
            stderr.read_to_string(&mut text).ok();
            text
        });
        Agent {
            stdin: child.stdin.take(),
            child,
            lines,
            log: Some(log),
            home,
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A file in its home.
    pub fn path(&self, name: &str) -> PathBuf {
        self.home.path(name)
    }

    /// The thread's file.
    pub fn thread(&self, id: &str) -> Value {
        let path = self.path(&format!(".society/threads/{id}.json"));
        let json = fs::read(&path).unwrap_or_else(|e| panic!("{path:?}: {e}"));
        serde_json::from_slice(&json).expect("JSON")
    }

    #[track_caller]
    pub fn send(&mut self, line: &str) {
        self.send_bytes(format!("{line}\n").as_bytes());
    }

    #[track_caller]
    pub fn send_bytes(&mut self, bytes: &[u8]) {
        let stdin = self.stdin.as_mut().expect("not closed");
        stdin.write_all(bytes).expect("it reads");
    }

    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// The next line.
    #[track_caller]
    pub fn line(&self) -> String {
        self.lines.recv_timeout(BOUND).expect("a line")
    }

    /// The next line, as JSON.
    #[track_caller]
    pub fn answer(&self) -> Value {
        let line = self.line();
        serde_json::from_str(&line).unwrap_or_else(|e| panic!("{line}: {e}"))
    }

    /// Says something in a thread: the task.
    #[track_caller]
    pub fn ask(&mut self, thread: &str, text: &str) -> Value {
        self.send(&request("\"ask\"", thread, text));
        let mut answer = self.answer();
        assert_eq!(answer["id"], "ask", "{answer}");
        assert_eq!(answer["result"]["id"], thread, "{answer}");
        answer["result"].take()
    }

    /// Waits until it has ended: how, what it had to say still, and its stderr.
    #[track_caller]
    pub fn wait(&mut self) -> (ExitStatus, Vec<String>, String) {
        let status = wait_for_child(&mut self.child, BOUND).expect("it ends");
        let log = self.log.take().expect("waited for once").join();
        (status, self.lines.iter().collect(), log.expect("read"))
    }

    /// Ends its input, and gives what it says until it has ended with 0.
    #[track_caller]
    pub fn finish(mut self) -> Vec<String> {
        self.close_stdin();
        let (status, lines, log) = self.wait();
        assert_eq!(status.code(), Some(0), "{log}");
        lines
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // It may have ended.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A `tasks/send`; `id` is JSON.
pub fn request(id: &str, thread: &str, text: &str) -> String {
    let message = json!({"role": "user", "parts": [{"type": "text", "text": text}]});
    let params = json!({"id": thread, "message": message});
    format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"tasks/send","params":{params}}}"#)
}

/// The text of a task's first artifact.
#[track_caller]
pub fn text_of(task: &Value) -> &str {
    assert_eq!(task["status"]["state"], "completed", "{task}");
    // What is empty is left out.
    let part = &task["artifacts"][0]["parts"][0];
    part["text"].as_str().unwrap_or_default()
}

/// Why a task has failed.
#[track_caller]
pub fn reason_of(task: &Value) -> &str {
    assert_eq!(task["status"]["state"], "failed", "{task}");
    assert!(task.get("artifacts").is_none(), "{task}");
    task["status"]["message"].as_str().expect("a reason")
}

/// An agent that runs this program; `more` are other keys of its backend.
pub fn exec(command: &str, args: &[&str], more: Value) -> Value {
    let mut backend = json!({"command": command, "args": args});
    for (key, value) in more.as_object().into_iter().flatten() {
        backend[key] = value.clone();
    }
    json!({"name": "runner", "handler": "exec", "backend": backend})
}

/// An agent that runs a script of `sh`; the message is its `$1`.
pub fn sh(script: &str) -> Value {
    exec("sh", &["-c", script, "sh"], json!({}))
}
