//! The file in which a user's agents are written down.

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::card::AgentCard;
use super::file::{self, Locked};
use super::json::{Json, Object};
use super::options::StdioOptions;
use crate::config::{BusConfig, PoolConfig, Protocol};
use crate::error::{Error, ErrorCode, Result};

const FILE: &str = "registry.json";

/// The agents of a user, by name, as `registry.json` has them.
///
/// What is in the file stays as it is, but for what is changed: the order, and
/// members that nobody here knows.
///
/// ```no_run
/// use stdiobus::agent::{AgentCard, Registry};
///
/// # fn example() -> stdiobus::Result<()> {
/// let path = Registry::locate(None);
/// Registry::update(&path, |registry| {
///     registry.add(AgentCard::stdio("echo", "python3").with_args(["echo.py"]))
/// })?;
/// let options = Registry::load(&path)?.agent("echo")?.stdio_options()?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Registry {
    path: PathBuf,
    root: Object,
    agents: Vec<AgentCard>,
}

impl Registry {
    /// Where the registry is: as given, else as the environment variable
    /// `SOCIETY_REGISTRY` says, else `registry.json` in the current directory if
    /// there is one, else `~/.society/registry.json`.
    ///
    /// So a registry in the current directory comes before the user's own, and what
    /// is in a registry is run.
    pub fn locate(given: Option<&Path>) -> PathBuf {
        if let Some(path) = given {
            return path.to_owned();
        }
        let set = |path: &std::ffi::OsString| !path.is_empty();
        if let Some(path) = env::var_os("SOCIETY_REGISTRY").filter(set) {
            return path.into();
        }
        let here = PathBuf::from(FILE);
        match env::home_dir() {
            Some(home) if !home.as_os_str().is_empty() && !here.exists() => {
                home.join(".society").join(FILE)
            }
            _ => here,
        }
    }

    /// Reads a registry. One that isn't there is empty.
    ///
    /// # Errors
    /// - `InvalidArgument`: it isn't JSON, or a member that is known has a value of
    ///   the wrong type; file, agent and field are named.
    /// - `Unavailable`: the file can't be read.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let text = match fs::read_to_string(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => "{}".into(),
            text => text.map_err(|e| unavailable(path, e))?,
        };
        Self::parse(path, &text)
    }

    /// Reads a registry that has to be there, as one that is imported.
    ///
    /// # Errors
    /// As [`load`](Self::load), and `Unavailable` where there is none.
    pub fn load_existing(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let text = fs::read_to_string(path).map_err(|e| unavailable(path, e))?;
        Self::parse(path, &text)
    }

    fn parse(path: &Path, text: &str) -> Result<Self> {
        let wrong = |what: String| {
            let shown = path.display();
            Error::invalid_argument(format!("{shown}: parsing registry: {what}"))
        };
        let root = match serde_json::from_str(text) {
            Ok(Json::Object(root)) => root,
            Ok(_) => return Err(wrong("must be an object".into())),
            Err(error) => return Err(wrong(error.to_string()).with_source(error)),
        };
        let agents = match root.get("agents") {
            None => Vec::new(),
            Some(Json::Array(agents)) => agents.clone(),
            Some(other) if other.is_null() => Vec::new(),
            Some(_) => return Err(wrong("agents: must be an array".into())),
        };
        let agents = agents.into_iter().enumerate().map(|(i, agent)| {
            AgentCard::from_members(agent).map_err(|what| wrong(format!("agent[{i}]: {what}")))
        });
        Ok(Self {
            path: path.to_owned(),
            agents: agents.collect::<Result<_>>()?,
            root,
        })
    }

    /// Reads a registry, changes it and writes it, as one step: others who do the
    /// same, in this process or another, wait meanwhile, and whoever reads the file
    /// sees it as it was before or as it is then. Blocks while somebody else holds
    /// it; a lock file is left beside it.
    ///
    /// A new file has the mode 0644. Nothing is written where `change` fails or
    /// changes nothing.
    ///
    /// # Errors
    /// Those of [`load`](Self::load) and of `change`, and `Unavailable` if the file
    /// can't be written.
    pub fn update<T>(
        path: impl AsRef<Path>,
        change: impl FnOnce(&mut Self) -> Result<T>,
    ) -> Result<T> {
        let path = path.as_ref();
        let locked = Locked::new(path).map_err(|e| unavailable(path, e))?;
        let mut registry = Self::load(path)?;
        let before = registry.to_json();
        let value = change(&mut registry)?;
        let after = registry.to_json();
        if before != after {
            let written = locked.write(after.as_bytes());
            written.map_err(|e| unavailable(path, e))?;
        }
        Ok(value)
    }

    /// Writes it to another file, whatever is there.
    ///
    /// # Errors
    /// `Unavailable` if the file can't be written.
    pub fn export(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let written = file::write(path, self.to_json().as_bytes());
        written.map_err(|e| unavailable(path, e))
    }

    /// It as text, indented by two spaces, with a newline at the end.
    pub fn to_json(&self) -> String {
        let agents = self.agents.iter().cloned().map(AgentCard::into_json);
        let mut root = self.root.clone();
        root.set("agents", Json::Array(agents.collect()));
        // Its keys are text: this can't fail.
        serde_json::to_string_pretty(&root).unwrap_or_default() + "\n"
    }

    /// The agents, in their order.
    pub fn agents(&self) -> &[AgentCard] {
        &self.agents
    }

    /// The agent of this name. Of several the last counts.
    ///
    /// # Errors
    /// `InvalidArgument` if there is none.
    pub fn agent(&self, name: &str) -> Result<&AgentCard> {
        let mut found = self.agents.iter().rev();
        let found = found.find(|agent| agent.name() == name);
        found.ok_or_else(|| self.not_found(name))
    }

    /// How an agent is started; see [`AgentCard::stdio_options`].
    ///
    /// # Errors
    /// As there, with the file named as well, and `InvalidArgument` if there is no
    /// such agent.
    pub fn stdio_options(&self, name: &str) -> Result<StdioOptions> {
        self.agent(name)?.stdio_options().map_err(|error| {
            let text = format!("{}: {error}", self.path.display());
            Error::new(error.kind().unwrap_or(ErrorCode::InvalidArgument), text)
        })
    }

    /// Adds an agent behind the others.
    ///
    /// # Errors
    /// `InvalidArgument` if it isn't valid, or if there is one of its name.
    pub fn add(&mut self, agent: AgentCard) -> Result<()> {
        check(&agent)?;
        if self.agent(agent.name()).is_ok() {
            let (name, path) = (agent.name(), self.path.display());
            let text = format!("agent {name:?} already exists in registry {path}");
            return Err(Error::invalid_argument(text));
        }
        self.agents.push(agent);
        Ok(())
    }

    /// Puts an agent in the place of the one that has its name.
    ///
    /// # Errors
    /// `InvalidArgument` if it isn't valid, or if there is none of its name.
    pub fn replace(&mut self, agent: AgentCard) -> Result<()> {
        check(&agent)?;
        let mut found = self.agents.iter_mut().rev();
        match found.find(|known| known.name() == agent.name()) {
            Some(known) => {
                *known = agent;
                Ok(())
            }
            None => Err(self.not_found(agent.name())),
        }
    }

    /// Removes all agents of this name.
    ///
    /// # Errors
    /// `InvalidArgument` if there is none.
    pub fn remove(&mut self, name: &str) -> Result<()> {
        self.agent(name)?;
        self.agents.retain(|agent| agent.name() != name);
        Ok(())
    }

    /// Checks all agents.
    ///
    /// # Errors
    /// `InvalidArgument` with all that is wrong, each with the number of its agent,
    /// from 0.
    pub fn validate(&self) -> Result<()> {
        let mut problems = Vec::new();
        for (i, agent) in self.agents.iter().enumerate() {
            let mut found = agent.problems();
            let same = |known: &AgentCard| known.name() == agent.name();
            if !agent.name().is_empty() && self.agents[..i].iter().any(same) {
                found.push(format!("duplicate name {:?}", agent.name()));
            }
            problems.extend(found.iter().map(|problem| format!("agent[{i}]: {problem}")));
        }
        match problems.is_empty() {
            true => Ok(()),
            false => Err(Error::invalid_argument(problems.join("; "))),
        }
    }

    fn not_found(&self, name: &str) -> Error {
        let path = self.path.display();
        Error::invalid_argument(format!("agent {name:?} not found in {path}"))
    }
}

fn check(agent: &AgentCard) -> Result<()> {
    agent.validate().map_err(|error| {
        let text = format!("agent {:?}: validation failed: {error}", agent.name());
        Error::invalid_argument(text)
    })
}

fn unavailable(path: &Path, error: io::Error) -> Error {
    let text = format!("{}: {error}", path.display());
    Error::new(ErrorCode::Unavailable, text).with_source(error)
}

impl BusConfig {
    /// Pools of the agents of a registry that are programs: of those that are
    /// named, or of all where no name is given. Each pool has its agent's name, one
    /// worker and [`Protocol::Ndjson`]; an agent's `timeout_ms` is not for it.
    ///
    /// # Errors
    /// - `InvalidArgument`: there is no such agent, or none at all, or a value can't
    ///   be used; file, agent and field are named.
    /// - `NotSupported`: an agent that is named isn't a program.
    /// - `Unavailable`: the file can't be read.
    pub fn from_registry<S: AsRef<str>>(
        path: impl AsRef<Path>,
        names: impl IntoIterator<Item = S>,
    ) -> Result<Self> {
        let registry = Registry::load(path)?;
        let names = names.into_iter().map(|name| name.as_ref().to_owned());
        let mut names: Vec<String> = names.collect();
        if names.is_empty() {
            let programs = registry.agents.iter();
            let programs = programs.filter(|agent| agent.transport() == "stdio");
            names.extend(programs.map(|agent| agent.name().to_owned()));
        }
        let pools = names.into_iter().map(|name| {
            let options = registry.stdio_options(&name)?;
            Ok(pool(name, options))
        });
        let pools = pools.collect::<Result<_>>()?;
        let config = Self {
            pools,
            ..Self::new()
        };
        config.validate().map_err(|error| {
            let text = format!("{}: {error}", registry.path.display());
            Error::invalid_argument(text).with_source(error)
        })?;
        Ok(config)
    }
}

fn pool(name: String, options: StdioOptions) -> PoolConfig {
    let pool = PoolConfig::new(name, options.command)
        .args(options.args)
        .protocol(Protocol::Ndjson);
    let variables = options.env.into_iter();
    let pool = variables.fold(pool, |pool, (name, value)| pool.env(name, value));
    match options.cwd {
        Some(cwd) => pool.cwd(cwd),
        None => pool,
    }
}
