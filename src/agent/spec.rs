//! What an agent is, as its YAML file says it.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, Visitor};

use crate::error::{Error, Result};

/// An agent: its name, and what it does with a message.
///
/// ```
/// use stdiobus::agent::AgentSpec;
///
/// let spec = AgentSpec::from_yaml("name: echo\nhandler: echo\n")?;
/// assert_eq!(spec.name, "echo");
/// # Ok::<(), stdiobus::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct AgentSpec {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// The port it would have over HTTP, which is not served here.
    pub port: Option<u16>,
    /// What it does with a message.
    pub handler: Handler,
    /// What the program of an [`Handler::Exec`] is told before all messages; it
    /// needs [`Backend::system_prompt_flag`].
    pub system_prompt: String,
    /// What it can do, for those who look for an agent.
    pub skills: Vec<AgentSkill>,
}

/// What an agent does with a message.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Handler {
    /// Gives the parts of a message back.
    Echo,
    /// Gives them back with a greeting.
    Greeter,
    /// Runs a program for each message.
    Exec(Backend),
}

/// The program of an agent, and how it is told what.
///
/// Its command line is `args`, the system prompt, the message, and what names
/// the session. Where [`end_of_options`](Self::end_of_options) is set, the message
/// is last, behind `--`.
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub struct Backend {
    /// The program: a path, or a name that is looked for in PATH.
    pub command: String,
    /// Its first arguments.
    pub args: Vec<String>,
    /// The option that names a new session, as `--session-id`. Empty: none.
    pub session_flag: String,
    /// The option that names a session to go on with, as `--resume`. Empty: as
    /// `session_flag`.
    pub resume_flag: String,
    /// The option that takes the system prompt. Empty: what the known programs
    /// claude, happy and goose have, for others none.
    pub system_prompt_flag: String,
    /// Added to the environment of this process.
    pub env: Vec<(String, String)>,
    /// The folder it runs in. Default: that of this process.
    pub cwd: Option<PathBuf>,
    /// How long it may run. Default: as long as it likes.
    pub timeout: Option<Duration>,
    /// Whether it takes `--` as the end of its options. If not, a message that
    /// begins with `-` gets a space before it, so that it is none.
    pub end_of_options: bool,
}

/// One thing that an agent can do.
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub struct AgentSkill {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// More about it.
    pub description: String,
}

impl AgentSpec {
    /// An agent of this name.
    pub fn new(name: impl Into<String>, handler: Handler) -> Self {
        Self {
            name: name.into(),
            description: String::new(),
            port: None,
            handler,
            system_prompt: String::new(),
            skills: Vec::new(),
        }
    }

    /// Reads a file.
    ///
    /// # Errors
    /// [`InvalidArgument`](crate::ErrorCode::InvalidArgument): it can't be read,
    /// or is not an agent's.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let text = fs::read_to_string(path).map_err(|e| {
            Error::invalid_argument(format!("{}: {e}", path.display())).with_source(e)
        })?;
        Self::from_yaml(&text)
    }

    /// Reads the text of a file. Keys that are not known are ignored.
    ///
    /// # Errors
    /// [`InvalidArgument`](crate::ErrorCode::InvalidArgument): it is no YAML, or
    /// not an agent's; the text has everything that is wrong with it.
    pub fn from_yaml(yaml: &str) -> Result<Self> {
        let file: Option<File> = serde_norway::from_str(yaml)
            .map_err(|e| Error::invalid_argument(format!("parsing YAML: {e}")).with_source(e))?;
        file.unwrap_or_default().check()
    }

    /// What it says that has no effect, for the user.
    pub fn warnings(&self) -> Vec<String> {
        let unused = match &self.handler {
            _ if self.system_prompt.is_empty() => false,
            Handler::Exec(backend) => backend.prompt_flag().is_none(),
            _ => true,
        };
        let text = "system_prompt has no effect: the backend has no system_prompt_flag";
        unused.then(|| text.to_owned()).into_iter().collect()
    }
}

impl Backend {
    /// A program without arguments of its own.
    pub fn new(command: impl Into<String>) -> Self {
        Self {
            command: command.into(),
            ..Self::default()
        }
    }

    /// The option that takes the system prompt.
    pub(super) fn prompt_flag(&self) -> Option<&str> {
        if !self.system_prompt_flag.is_empty() {
            return Some(&self.system_prompt_flag);
        }
        match Path::new(&self.command).file_name()?.to_str()? {
            "claude" | "happy" => Some("--system-prompt"),
            "goose" => Some("--system"),
            _ => None,
        }
    }
}

// ---- the file ------------------------------------------------------------------------

#[derive(Default, Deserialize)]
#[serde(default)]
struct File {
    name: Text,
    description: Text,
    port: Option<i64>,
    handler: Text,
    system_prompt: Text,
    backend: Option<BackendFile>,
    skills: Option<Vec<SkillFile>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct BackendFile {
    command: Text,
    args: Option<Vec<Text>>,
    session_flag: Text,
    resume_flag: Text,
    system_prompt_flag: Text,
    env: Option<Vec<Text>>,
    cwd: Text,
    timeout_ms: Option<i64>,
    end_of_options: Option<bool>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct SkillFile {
    id: Text,
    name: Text,
    description: Text,
}

impl File {
    fn check(self) -> Result<AgentSpec> {
        let mut errors = Vec::new();
        if self.name.0.is_empty() {
            errors.push("name is required".to_owned());
        }
        let port = match u16::try_from(self.port.unwrap_or(0)) {
            Ok(port) => Some(port).filter(|port| *port != 0),
            Err(_) => {
                errors.push("port must be between 1 and 65535".into());
                None
            }
        };
        let handler = match self.handler.0.as_str() {
            "echo" => Handler::Echo,
            "greeter" => Handler::Greeter,
            "exec" => Handler::Exec(BackendFile::check(self.backend, &mut errors)),
            other => {
                errors.push(format!("unknown handler \"{other}\""));
                Handler::Echo
            }
        };
        if !errors.is_empty() {
            return Err(Error::invalid_argument(errors.join("; ")));
        }
        let skill = |skill: SkillFile| AgentSkill {
            id: skill.id.0,
            name: skill.name.0,
            description: skill.description.0,
        };
        Ok(AgentSpec {
            name: self.name.0,
            description: self.description.0,
            port,
            handler,
            system_prompt: self.system_prompt.0,
            skills: self.skills.into_iter().flatten().map(skill).collect(),
        })
    }
}

impl BackendFile {
    fn check(file: Option<Self>, errors: &mut Vec<String>) -> Backend {
        let Some(file) = file else {
            errors.push("exec handler requires backend config".into());
            return Backend::default();
        };
        if file.command.0.is_empty() {
            errors.push("exec handler requires backend command".into());
        }
        let mut env = Vec::new();
        for Text(entry) in file.env.into_iter().flatten() {
            match entry.split_once('=') {
                Some((key, value)) if !key.is_empty() => env.push((key.into(), value.into())),
                _ => errors.push(format!("backend env \"{entry}\" must be KEY=VALUE")),
            }
        }
        let timeout = match file.timeout_ms.map(u64::try_from) {
            None | Some(Ok(0)) => None,
            Some(Ok(ms)) => Some(Duration::from_millis(ms)),
            Some(Err(_)) => {
                errors.push("backend timeout_ms must not be negative".into());
                None
            }
        };
        let args = file.args.into_iter().flatten();
        Backend {
            command: file.command.0,
            args: args.map(|arg| arg.0).collect(),
            session_flag: file.session_flag.0,
            resume_flag: file.resume_flag.0,
            system_prompt_flag: file.system_prompt_flag.0,
            env,
            cwd: Some(file.cwd.0)
                .filter(|cwd| !cwd.is_empty())
                .map(Into::into),
            timeout,
            end_of_options: file.end_of_options.unwrap_or(false),
        }
    }
}

/// A text, or a number or a truth value that was meant as one: `args: [-n, 5]`.
#[derive(Default)]
struct Text(String);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextVisitor)
    }
}

struct TextVisitor;

impl Visitor<'_> for TextVisitor {
    type Value = Text;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text")
    }

    fn visit_str<E>(self, value: &str) -> Result<Text, E> {
        Ok(Text(value.to_owned()))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Text, E> {
        Ok(Text(value.to_string()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Text, E> {
        Ok(Text(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Text, E> {
        Ok(Text(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Text, E> {
        Ok(Text(value.to_string()))
    }

    fn visit_unit<E>(self) -> Result<Text, E> {
        Ok(Text::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(yaml: &str) -> String {
        AgentSpec::from_yaml(yaml).expect_err("refused").to_string()
    }

    #[test]
    fn a_file_has_all_there_is_to_say() {
        let spec = AgentSpec::from_yaml(
            "name: a\ndescription: d\nport: 8003\nhandler: exec\nsystem_prompt: be brief\nfuture: [1]\n\
             backend:\n  command: claude\n  args: [-p, -n, 5, true, 0.5, ~]\n  session_flag: --session-id\n  \
             resume_flag: --resume\n  system_prompt_flag: --sp\n  env: [A=1, B=x=y, C=]\n  cwd: /tmp\n  \
             timeout_ms: 1500\n  end_of_options: true\n  later: x\n\
             skills:\n  - {id: s, name: S, description: what}\n  - id: t\n",
        )
        .expect("valid");
        let pair = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
        assert_eq!((spec.name.as_str(), spec.port), ("a", Some(8003)));
        assert_eq!(spec.description, "d");
        assert_eq!(spec.system_prompt, "be brief");
        assert_eq!(
            spec.handler,
            Handler::Exec(Backend {
                command: "claude".into(),
                args: ["-p", "-n", "5", "true", "0.5", ""]
                    .map(String::from)
                    .into(),
                session_flag: "--session-id".into(),
                resume_flag: "--resume".into(),
                system_prompt_flag: "--sp".into(),
                env: [("A", "1"), ("B", "x=y"), ("C", "")].map(pair).into(),
                cwd: Some("/tmp".into()),
                timeout: Some(Duration::from_millis(1500)),
                end_of_options: true,
            })
        );
        assert_eq!((spec.skills[0].name.as_str(), spec.skills.len()), ("S", 2));
    }

    #[test]
    fn everything_that_is_wrong_is_told_at_once() {
        assert_eq!(wrong(""), "name is required; unknown handler \"\"");
        assert_eq!(
            wrong("port: 70000\nhandler: shell"),
            "name is required; port must be between 1 and 65535; unknown handler \"shell\""
        );
        assert_eq!(
            wrong("name: a\nhandler: exec\nport: -1"),
            "port must be between 1 and 65535; exec handler requires backend config"
        );
        assert_eq!(
            wrong("name: a\nhandler: exec\nbackend: {args: [x], env: [A], timeout_ms: -1}"),
            "exec handler requires backend command; backend env \"A\" must be KEY=VALUE; \
             backend timeout_ms must not be negative"
        );
        for no_agent in [
            "[1]",
            "name: [a]\nhandler: echo",
            "a: b: c",
            "name: a\nport: x",
        ] {
            assert!(wrong(no_agent).starts_with("parsing YAML: "), "{no_agent}");
        }
    }

    #[test]
    fn what_is_null_or_zero_is_as_if_it_were_not_there() {
        let yaml = "name: 7\nhandler: echo\nport: 0\ndescription: ~\nbackend: ~\nskills: ~";
        let spec = AgentSpec::from_yaml(yaml).expect("valid");
        assert_eq!(spec, AgentSpec::new("7", Handler::Echo));
    }

    #[test]
    fn known_programs_have_an_option_for_the_system_prompt() {
        let flag = |command: &str| Backend::new(command).prompt_flag().map(str::to_owned);
        assert_eq!(flag("/opt/bin/claude").as_deref(), Some("--system-prompt"));
        assert_eq!(flag("happy").as_deref(), Some("--system-prompt"));
        assert_eq!(flag("goose").as_deref(), Some("--system"));
        assert_eq!(flag("other"), None);
        let mut spec = AgentSpec::new("a", Handler::Exec(Backend::new("other")));
        assert!(spec.warnings().is_empty());
        spec.system_prompt = "be brief".into();
        assert_eq!(spec.warnings().len(), 1);
        spec.handler = Handler::Exec(Backend::new("claude"));
        assert!(spec.warnings().is_empty());
    }
}
