//! One agent, as a registry describes it.

use std::time::Duration;

use serde::{Serialize, Serializer};

use super::json::{Json, Object};
use super::options::StdioOptions;
use crate::error::{Error, ErrorCode, Result};

/// The transports of which agents can be written down. Those other than `stdio`
/// can't be used here.
const TRANSPORTS: [&str; 5] = ["http", "ssh", "docker", "stdio", "ssh-exec"];

/// What a registry says of an agent: its name, what it can do, and how it is
/// reached.
///
/// Members that nobody here knows stay as they are.
#[derive(Debug, Clone)]
pub struct AgentCard {
    members: Object,
}

/// Something that an agent can do.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Skill {
    /// Its id.
    pub id: String,
    /// Its name, for people.
    pub name: String,
    /// What it is, where that is said.
    pub description: String,
}

impl AgentCard {
    /// An agent that is a program, looked up in `PATH` unless it contains a slash.
    pub fn stdio(name: impl Into<String>, command: impl AsRef<str>) -> Self {
        let command = command.as_ref();
        let config = Object::from_iter([("args", Json::from("")), ("command", command.into())]);
        let transport = [
            ("type", Json::from("stdio")),
            ("config", Json::Object(config)),
        ];
        let members = [
            ("name", Json::Text(name.into())),
            ("url", Json::Text(url_of(command))),
            ("transport", Json::Object(Object::from_iter(transport))),
        ];
        Self {
            members: Object::from_iter(members),
        }
    }

    /// Reads a card from JSON.
    ///
    /// # Errors
    /// `InvalidArgument` if it isn't JSON, or if a member that is known has a
    /// value of the wrong type. Whether what is needed is there, is for
    /// [`validate`](Self::validate) to say.
    pub fn from_json(text: &str) -> Result<Self> {
        let json = serde_json::from_str(text).map_err(|e| e.to_string());
        let card = json.and_then(Self::from_members);
        card.map_err(|e| Error::invalid_argument(format!("parsing agent: {e}")))
    }

    pub(super) fn from_members(json: Json) -> Result<Self, String> {
        let Json::Object(members) = json else {
            return Err("must be an object".into());
        };
        let card = Self { members };
        let said = |problem: String| match card.name() {
            "" => problem,
            name => format!("agent {name:?}: {problem}"),
        };
        card.check_types().map_err(said)?;
        Ok(card)
    }

    pub(super) fn into_json(self) -> Json {
        Json::Object(self.members)
    }

    /// Sets the arguments. They are written as one text, unless one of them is
    /// empty or has spaces in it: then as an array, which other tools may not
    /// read. Does nothing for an agent that isn't a program.
    #[must_use]
    pub fn with_args<S: AsRef<str>>(self, args: impl IntoIterator<Item = S>) -> Self {
        let args: Vec<String> = args.into_iter().map(|arg| arg.as_ref().into()).collect();
        let splits = |arg: &String| arg.is_empty() || arg.contains(char::is_whitespace);
        let args = match args.iter().any(splits) {
            true => Json::Array(args.into_iter().map(Json::Text).collect()),
            false => Json::Text(args.join(" ")),
        };
        self.with_config("args", args)
    }

    fn with_config(mut self, name: &str, value: Json) -> Self {
        if let Some(Json::Object(transport)) = self.members.get("transport")
            && let Some(Json::Object(config)) = transport.get("config")
            && self.transport() == "stdio"
        {
            let (mut transport, mut config) = (transport.clone(), config.clone());
            config.set(name, value);
            transport.set("config", Json::Object(config));
            self.members.set("transport", Json::Object(transport));
        }
        self
    }

    /// Gives it another name.
    #[must_use]
    pub fn with_name(mut self, name: impl Into<String>) -> Self {
        self.members.set("name", Json::Text(name.into()));
        self
    }

    /// Sets the description; an empty one is taken off.
    #[must_use]
    pub fn with_description(self, description: &str) -> Self {
        match description {
            "" => self.without("description"),
            text => self.with("description", text.into()),
        }
    }

    /// Sets the skills, by id; each has its id for a name. With none, the member
    /// is taken off.
    #[must_use]
    pub fn with_skills<S: AsRef<str>>(self, ids: impl IntoIterator<Item = S>) -> Self {
        let skill = |id: S| {
            let members = ["id", "name"].map(|member| (member, Json::from(id.as_ref())));
            Json::Object(Object::from_iter(members))
        };
        let skills: Vec<Json> = ids.into_iter().map(skill).collect();
        match skills.is_empty() {
            true => self.without("skills"),
            false => self.with("skills", Json::Array(skills)),
        }
    }

    /// Before the transport, where other tools write it.
    fn with(mut self, name: &str, value: Json) -> Self {
        let transport = self.members.get("transport").cloned();
        if self.members.get(name).is_none()
            && let Some(transport) = transport
        {
            self.members.remove("transport");
            self.members.set(name, value);
            self.members.set("transport", transport);
        } else {
            self.members.set(name, value);
        }
        self
    }

    fn without(mut self, name: &str) -> Self {
        self.members.remove(name);
        self
    }

    /// Its name; empty where it has none.
    pub fn name(&self) -> &str {
        self.members.text("name")
    }

    /// Its URL; `stdio://` and the command for one that is a program.
    pub fn url(&self) -> &str {
        self.members.text("url")
    }

    /// What it is, where that is said.
    pub fn description(&self) -> &str {
        self.members.text("description")
    }

    /// What it can do.
    pub fn skills(&self) -> Vec<Skill> {
        let Some(Json::Array(skills)) = self.members.get("skills") else {
            return Vec::new();
        };
        let skills = skills.iter().filter_map(|skill| match skill {
            Json::Object(skill) => Some(Skill {
                id: skill.text("id").to_owned(),
                name: skill.text("name").to_owned(),
                description: skill.text("description").to_owned(),
            }),
            _ => None,
        });
        skills.collect()
    }

    /// How it is reached: `stdio`, or what can't be used here (`http`, which is
    /// also meant where nothing is said, `ssh`, `docker`, `ssh-exec`).
    pub fn transport(&self) -> &str {
        match self
            .transport_member()
            .map(|transport| transport.text("type"))
        {
            None | Some("") => "http",
            Some(kind) => kind,
        }
    }

    /// The command of an agent that is a program; else empty.
    pub fn command(&self) -> &str {
        match self.config() {
            Some(config) if self.transport() == "stdio" => config.text("command"),
            _ => "",
        }
    }

    /// The arguments of an agent that is a program.
    pub fn args(&self) -> Vec<String> {
        self.config()
            .map_or_else(Vec::new, |config| words(config, "args"))
    }

    fn transport_member(&self) -> Option<&Object> {
        match self.members.get("transport") {
            Some(Json::Object(transport)) => Some(transport),
            _ => None,
        }
    }

    fn config(&self) -> Option<&Object> {
        match self.transport_member()?.get("config") {
            Some(Json::Object(config)) => Some(config),
            _ => None,
        }
    }

    /// How the program is started, for [`StdioTransport::open`].
    ///
    /// Beside `command` and `args` the configuration may have `env` (`NAME=VALUE`,
    /// separated by spaces, or an array of them), `cwd` and `timeout_ms`.
    ///
    /// # Errors
    /// - `NotSupported`: it isn't a program.
    /// - `InvalidArgument`: it has no command, or a value can't be used; the agent
    ///   and the field are named.
    ///
    /// [`StdioTransport::open`]: super::StdioTransport::open
    pub fn stdio_options(&self) -> Result<StdioOptions> {
        let name = self.name();
        let wrong = |what: String| Error::invalid_argument(format!("agent {name:?}: {what}"));
        let kind = self.transport();
        if kind != "stdio" {
            let text = match TRANSPORTS.contains(&kind) {
                true => format!(
                    "agent {name:?}: transport {kind:?} is out of scope here: only stdio is supported"
                ),
                false => format!("agent {name:?}: unknown transport type: {kind:?}"),
            };
            return Err(Error::new(ErrorCode::NotSupported, text));
        }
        if self.command().is_empty() {
            return Err(wrong("stdio transport requires command".into()));
        }
        let mut options = StdioOptions::new(self.command())
            .name(name)
            .args(self.args());
        let Some(config) = self.config() else {
            return Ok(options);
        };
        for variable in words(config, "env") {
            match variable.split_once('=') {
                Some((name, value)) if !name.is_empty() => options = options.env(name, value),
                _ => return Err(wrong(format!("env: {variable:?} is not NAME=VALUE"))),
            }
        }
        match config.text("cwd") {
            "" => {}
            cwd => options = options.cwd(cwd),
        }
        match config.text("timeout_ms") {
            "" => Ok(options),
            text => match text.parse() {
                Ok(ms @ 1..) => Ok(options.timeout(Duration::from_millis(ms))),
                _ => Err(wrong(format!(
                    "timeout_ms: {text:?} is not a number above 0"
                ))),
            },
        }
    }

    /// Checks that what is needed is there.
    ///
    /// # Errors
    /// `InvalidArgument` with all that is wrong.
    pub fn validate(&self) -> Result<()> {
        match self.problems() {
            problems if problems.is_empty() => Ok(()),
            problems => Err(Error::invalid_argument(problems.join("; "))),
        }
    }

    pub(super) fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.name().is_empty() {
            problems.push("name is required".into());
        }
        match self.url() {
            "" => problems.push("url is required".into()),
            url => problems.extend(why_no_url(url).map(|why| format!("invalid url: {why}"))),
        }
        match self.transport() {
            "stdio" if self.command().is_empty() => {
                problems.push("stdio transport requires command".into());
            }
            kind if !TRANSPORTS.contains(&kind) => {
                problems.push(format!("invalid transport type {kind:?}"));
            }
            _ => {}
        }
        problems
    }

    /// What is known must have the type that it has everywhere.
    fn check_types(&self) -> Result<(), String> {
        for name in ["name", "url", "description", "version"] {
            check_text(&self.members, name, name)?;
        }
        match self.members.get("skills") {
            None => {}
            Some(Json::Array(skills)) => {
                for (i, skill) in skills.iter().enumerate() {
                    let Json::Object(skill) = skill else {
                        return Err(format!("skills[{i}]: must be an object"));
                    };
                    for name in ["id", "name", "description"] {
                        check_text(skill, name, &format!("skills[{i}].{name}"))?;
                    }
                }
            }
            Some(other) if other.is_null() => {}
            Some(_) => return Err("skills: must be an array".into()),
        }
        let Some(transport) = object(&self.members, "transport", "transport")? else {
            return Ok(());
        };
        check_text(transport, "type", "transport.type")?;
        let Some(config) = object(transport, "config", "transport.config")? else {
            return Ok(());
        };
        for (name, value) in config.iter() {
            let texts = |items: &[Json]| items.iter().all(|item| matches!(item, Json::Text(_)));
            match value {
                Json::Text(_) => {}
                Json::Array(items) if matches!(name, "args" | "env") && texts(items) => {}
                _ => return Err(format!("transport.config.{name}: must be a string")),
            }
        }
        Ok(())
    }
}

impl Serialize for AgentCard {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.members.serialize(serializer)
    }
}

fn check_text(members: &Object, name: &str, shown: &str) -> Result<(), String> {
    match members.get(name) {
        None | Some(Json::Text(_)) => Ok(()),
        Some(other) if other.is_null() => Ok(()),
        Some(_) => Err(format!("{shown}: must be a string")),
    }
}

fn object<'a>(members: &'a Object, name: &str, shown: &str) -> Result<Option<&'a Object>, String> {
    match members.get(name) {
        None => Ok(None),
        Some(Json::Object(object)) => Ok(Some(object)),
        Some(other) if other.is_null() => Ok(None),
        Some(_) => Err(format!("{shown}: must be an object")),
    }
}

/// The words of a text, or the texts of an array.
fn words(config: &Object, name: &str) -> Vec<String> {
    match config.get(name) {
        Some(Json::Text(text)) => text.split_whitespace().map(str::to_owned).collect(),
        Some(Json::Array(items)) => {
            let texts = items.iter().filter_map(|item| match item {
                Json::Text(text) => Some(text.clone()),
                _ => None,
            });
            texts.collect()
        }
        _ => Vec::new(),
    }
}

/// What would break the URL is escaped: it is only for show.
fn url_of(command: &str) -> String {
    let mut url = String::from("stdio://");
    for c in command.chars() {
        match c {
            '%' | ' ' => url.push_str(&format!("%{:02X}", u32::from(c))),
            c if c.is_ascii_control() => url.push_str(&format!("%{:02X}", u32::from(c))),
            c => url.push(c),
        }
    }
    url
}

fn why_no_url(url: &str) -> Option<String> {
    let hex = |at: usize| url.as_bytes().get(at).is_some_and(u8::is_ascii_hexdigit);
    let escape = url
        .match_indices('%')
        .find(|(at, _)| !hex(at + 1) || !hex(at + 2));
    if url.contains(|c: char| c.is_ascii_control()) {
        Some(format!("{url:?} contains a control character"))
    } else if url.starts_with(':') {
        Some(format!("{url:?} has no scheme"))
    } else {
        escape.map(|(at, _)| format!("{url:?} has an escape that is none, at byte {at}"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn problems(card: serde_json::Value) -> String {
        let card = AgentCard::from_json(&card.to_string()).expect("a card");
        card.problems().join("; ")
    }

    #[test]
    fn a_program_is_written_as_everywhere() {
        let card = AgentCard::stdio("echo", "python3")
            .with_args(["a.py", "-x"])
            .with_skills(["echo"])
            .with_description("says it again");
        let written = r#"{"name":"echo","url":"stdio://python3","skills":[{"id":"echo","name":"echo"}],"description":"says it again","transport":{"type":"stdio","config":{"args":"a.py -x","command":"python3"}}}"#;
        assert_eq!(serde_json::to_string(&card).expect("JSON"), written);
        assert_eq!(card.args(), ["a.py", "-x"]);
        card.validate().expect("valid");
    }

    #[test]
    fn arguments_with_spaces_are_an_array() {
        let card = AgentCard::stdio("a", "b").with_args(["c d", "", "e"]);
        assert_eq!(card.args(), ["c d", "", "e"]);
        let config = &serde_json::to_value(&card).expect("JSON")["transport"]["config"];
        assert_eq!(config["args"], json!(["c d", "", "e"]));
    }

    #[test]
    fn what_is_missing_or_wrong_is_said() {
        assert_eq!(problems(json!({})), "name is required; url is required");
        let transport = |kind: &str| json!({"name": "a", "url": "u", "transport": {"type": kind}});
        assert_eq!(
            problems(transport("stdio")),
            "stdio transport requires command"
        );
        assert_eq!(
            problems(transport("telnet")),
            "invalid transport type \"telnet\""
        );
        for fine in ["", "http", "ssh", "docker", "ssh-exec"] {
            assert_eq!(problems(transport(fine)), "");
        }
        for bad in [":x", "a\nb", "http://a/%zz", "http://a/%"] {
            assert!(problems(json!({"name": "a", "url": bad})).starts_with("invalid url: "));
        }
        AgentCard::stdio("a", "100% of\tit")
            .validate()
            .expect("escaped");
    }

    #[test]
    fn a_value_of_the_wrong_type_names_agent_and_field() {
        let wrong = [
            (json!({"url": 1}), "url: must be a string"),
            (json!({"skills": {}}), "skills: must be an array"),
            (
                json!({"skills": [{"id": 1}]}),
                "skills[0].id: must be a string",
            ),
            (
                json!({"transport": "stdio"}),
                "transport: must be an object",
            ),
            (
                json!({"transport": {"config": {"port": 22}}}),
                "transport.config.port: must be a string",
            ),
            (
                json!({"transport": {"config": {"args": [1]}}}),
                "transport.config.args: must be a string",
            ),
        ];
        for (mut card, message) in wrong {
            card["name"] = json!("x");
            let error = AgentCard::from_json(&card.to_string()).expect_err("wrong");
            let expected = format!("parsing agent: agent \"x\": {message}");
            assert_eq!(error.to_string(), expected);
        }
    }

    #[test]
    fn how_it_is_started_has_more_than_a_command() {
        let card = |config| {
            let transport = json!({"type": "stdio", "config": config});
            let card = json!({"name": "a", "url": "u", "transport": transport});
            AgentCard::from_json(&card.to_string()).expect("a card")
        };
        let options =
            card(json!({"command": "c", "env": "A=1 B=x=y", "cwd": "/", "timeout_ms": "5"}));
        options.stdio_options().expect("valid");
        for wrong in ["env", "timeout_ms"] {
            let error = card(json!({"command": "c", (wrong): "?"})).stdio_options();
            let text = error.expect_err("wrong").to_string();
            assert!(
                text.starts_with(&format!("agent \"a\": {wrong}: ")),
                "{text}"
            );
        }
    }
}
