//! How an agent is started.

use std::collections::BTreeMap;
use std::env;
use std::fmt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::process::{Child, Command};

use crate::error::{Error, ErrorCode, Result};
use crate::native::tie;

/// Where `PATH` isn't set.
const DEFAULT_PATH: &str = "/usr/bin:/bin";

pub(super) type OnNotification = Arc<dyn Fn(&str, &Value) + Send + Sync>;

/// The program of an agent, and how it is spoken to; for
/// [`StdioTransport::open`](super::StdioTransport::open).
#[derive(Clone)]
pub struct StdioOptions {
    pub(super) name: String,
    pub(super) command: String,
    pub(super) args: Vec<String>,
    pub(super) env: BTreeMap<String, String>,
    pub(super) cwd: Option<PathBuf>,
    pub(super) timeout: Option<Duration>,
    pub(super) max_line: usize,
    pub(super) on_notification: Option<OnNotification>,
    pub(crate) tied: bool,
}

impl StdioOptions {
    /// A program; looked up in `PATH` unless it contains a slash.
    pub fn new(command: impl Into<String>) -> Self {
        let command = command.into();
        Self {
            name: command.clone(),
            command,
            args: Vec::new(),
            env: BTreeMap::new(),
            cwd: None,
            timeout: Some(Duration::from_secs(120)),
            max_line: 16 << 20,
            on_notification: None,
            tied: false,
        }
    }

    /// Names the agent in errors and logs; its command unless set.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Sets the arguments.
    #[must_use]
    pub fn args<S: Into<String>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args = args.into_iter().map(Into::into).collect();
        self
    }

    /// Sets an environment variable of the agent, which has this process's others.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.insert(name.into(), value.into());
        self
    }

    /// Sets its working directory; this process's unless set.
    #[must_use]
    pub fn cwd(mut self, folder: impl Into<PathBuf>) -> Self {
        self.cwd = Some(folder.into());
        self
    }

    /// Sets how long a request may take; `None` for as long as the agent runs. 120
    /// seconds unless set.
    #[must_use]
    pub fn timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.timeout = timeout.into();
        self
    }

    /// Sets how many bytes a line may have, either way. 16 MiB unless set. An agent
    /// that writes a longer one is ended.
    #[must_use]
    pub fn max_line(mut self, bytes: usize) -> Self {
        self.max_line = bytes;
        self
    }

    /// Sets who gets the agent's notifications, as method and params (null where
    /// there are none). They are dropped and counted unless set.
    ///
    /// It is called where the agent's stdout is read, so it must not wait. If it
    /// panics, the agent is ended.
    #[must_use]
    pub fn on_notification(
        mut self,
        handler: impl Fn(&str, &Value) + Send + Sync + 'static,
    ) -> Self {
        self.on_notification = Some(Arc::new(handler));
        self
    }

    /// Starts the program, in a process group of its own.
    pub(super) fn spawn(&self) -> Result<Child> {
        let program = self.find()?;
        let mut command = Command::new(program);
        command
            .as_std_mut()
            .args(&self.args)
            .envs(&self.env)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        std::os::unix::process::CommandExt::arg0(command.as_std_mut(), &self.command);
        command.process_group(0).kill_on_drop(true);
        if let Some(folder) = &self.cwd {
            if !folder.is_dir() {
                let text = format!("stdio: {} is not a folder", folder.display());
                return Err(self.unavailable(text));
            }
            command.current_dir(folder);
        }
        if self.tied {
            tie(command.as_std_mut(), None);
        }
        command.spawn().map_err(|error| {
            let text = format!("stdio: {}: {error}", self.command);
            self.unavailable(text).with_source(error)
        })
    }

    fn unavailable(&self, what: String) -> Error {
        Error::new(
            ErrorCode::Unavailable,
            format!("agent {:?}: {what}", self.name),
        )
    }

    /// Where the program is. A relative path is one from this process's working
    /// directory, whatever the agent's is.
    fn find(&self) -> Result<PathBuf> {
        let command = self.command.as_str();
        if command.is_empty() {
            let text = format!("agent {:?}: stdio: command is required", self.name);
            return Err(Error::invalid_argument(text));
        }
        let found = match command.contains('/') {
            true => std::path::absolute(command)
                .ok()
                .filter(|path| is_program(path)),
            false => self.in_path(command),
        };
        found.ok_or_else(|| self.unavailable(format!("stdio: command not found: {command}")))
    }

    fn in_path(&self, command: &str) -> Option<PathBuf> {
        let path = match self.env.get("PATH") {
            Some(path) => path.into(),
            None => env::var_os("PATH").unwrap_or_else(|| DEFAULT_PATH.into()),
        };
        // What lies in the working directory is no command, whatever `PATH` says.
        let folders = env::split_paths(&path).filter(|folder| folder.is_absolute());
        let mut places = folders.map(|folder| folder.join(command));
        places.find(|place| is_program(place))
    }
}

/// Values of the environment may be secrets.
impl fmt::Debug for StdioOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StdioOptions")
            .field("name", &self.name)
            .field("command", &self.command)
            .field("args", &self.args)
            .field("env", &self.env.keys())
            .field("cwd", &self.cwd)
            .field("timeout", &self.timeout)
            .field("max_line", &self.max_line)
            .finish_non_exhaustive()
    }
}

fn is_program(path: &Path) -> bool {
    path.metadata()
        .is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}
