//! The handshake of the stdio_bus family: which extensions the two ends use.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{RequestOptions, StdioBus};
use crate::error::{Error, ErrorCode, Result};

/// The version of the handshake's own protocol.
const PROTOCOL_VERSION: &str = "0.1.0";

impl StdioBus {
    /// Starts the bus, then says [`hello`](Self::hello).
    ///
    /// Where the handshake fails the bus runs on: say hello again, or stop it.
    ///
    /// # Errors
    /// Those of [`start`](Self::start) and [`hello`](Self::hello).
    ///
    /// # Cancel safety
    /// Dropping the future doesn't stop the start.
    pub async fn connect(&self, params: HelloParams) -> Result<HelloResult> {
        self.start().await?;
        self.hello(params).await
    }

    /// Agrees on extensions with the worker that has this bus's session, by the
    /// request `stdio_bus/hello`. The session it names in its answer is
    /// [`agent_session_id`](Self::agent_session_id) from then on.
    ///
    /// ```no_run
    /// # use stdiobus::{HelloParams, StdioBus};
    /// # async fn example(bus: StdioBus) -> stdiobus::Result<()> {
    /// let hello = bus.hello(HelloParams::new().require("audit", "1.0")).await?;
    /// assert!(hello.is_active("audit"));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// - `NegotiationFailed`: a required extension isn't active; the text names
    ///   it. Nothing has been set then.
    /// - `InvalidArgument`: the answer is none to a hello, or an extension's name
    ///   or version is empty.
    /// - Those of [`request`](Self::request); a worker that doesn't know the
    ///   method answers with [`Error::Rpc`].
    ///
    /// # Cancel safety
    /// Dropping the future gives the request up, and sets nothing.
    pub async fn hello(&self, params: HelloParams) -> Result<HelloResult> {
        self.hello_with(params, RequestOptions::new()).await
    }

    /// [`hello`](Self::hello) with options: with several pools, the one it is for.
    ///
    /// # Errors
    /// As there.
    ///
    /// # Cancel safety
    /// As there.
    pub async fn hello_with(
        &self,
        params: HelloParams,
        options: RequestOptions,
    ) -> Result<HelloResult> {
        params.check()?;
        let request = self.make_request("stdio_bus/hello", &params, &options);
        let result: HelloResult = request.await?;
        params.check_result(&result)?;
        self.set_agent_session_id(result.session_id.clone());
        Ok(result)
    }
}

/// What a hello offers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct HelloParams {
    /// The version of the handshake: `0.1.0` unless set.
    pub protocol_version: String,
    /// The extensions, by name.
    pub extensions: BTreeMap<String, OfferedExtension>,
}

impl HelloParams {
    /// A hello without extensions.
    pub fn new() -> Self {
        Self {
            protocol_version: PROTOCOL_VERSION.into(),
            extensions: BTreeMap::new(),
        }
    }

    /// Offers an extension in a version, and goes on without it.
    #[must_use]
    pub fn offer(self, name: impl Into<String>, version: impl Into<String>) -> Self {
        self.extension(name.into(), version.into(), false)
    }

    /// Requires an extension in a version: a worker that doesn't activate it
    /// makes the hello fail.
    #[must_use]
    pub fn require(self, name: impl Into<String>, version: impl Into<String>) -> Self {
        self.extension(name.into(), version.into(), true)
    }

    fn extension(mut self, name: String, version: String, required: bool) -> Self {
        let extension = OfferedExtension { version, required };
        self.extensions.insert(name, extension);
        self
    }

    fn check(&self) -> Result<()> {
        let odd = |(name, extension): &(&String, &OfferedExtension)| {
            name.is_empty() || extension.version.is_empty()
        };
        match self.extensions.iter().find(odd) {
            Some((name, _)) => Err(Error::invalid_argument(format!(
                "extension {name:?}: name and version must not be empty"
            ))),
            None => Ok(()),
        }
    }

    fn check_result(&self, result: &HelloResult) -> Result<()> {
        let required = self.extensions.iter().filter(|(_, e)| e.required);
        for (name, _) in required {
            let state = match result.extensions.get(name) {
                Some(extension) if extension.active => continue,
                Some(_) => "is not active",
                None => "is unknown to the worker",
            };
            let text = format!("the required extension {name:?} {state}");
            return Err(Error::new(ErrorCode::NegotiationFailed, text));
        }
        Ok(())
    }
}

impl Default for HelloParams {
    fn default() -> Self {
        Self::new()
    }
}

/// An extension in a [`HelloParams`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct OfferedExtension {
    /// The version that this end speaks.
    pub version: String,
    /// Whether this end can't go on without it.
    pub required: bool,
}

/// What a worker answers to a hello.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[non_exhaustive]
pub struct HelloResult {
    /// The version of the handshake that it speaks, where it says so.
    pub negotiated_protocol_version: Option<String>,
    /// The session that it has opened, where it has.
    pub session_id: Option<String>,
    /// What became of the extensions, by name.
    pub extensions: BTreeMap<String, NegotiatedExtension>,
}

impl HelloResult {
    /// Whether an extension is to be used.
    pub fn is_active(&self, extension: &str) -> bool {
        self.extensions
            .get(extension)
            .is_some_and(|extension| extension.active)
    }
}

/// An extension in a [`HelloResult`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "Answered")]
#[non_exhaustive]
pub struct NegotiatedExtension {
    /// The version that the worker has chosen; empty where it doesn't say.
    pub version: String,
    /// Whether it is to be used.
    pub active: bool,
}

/// How workers of the family write it: with either name for the version.
#[derive(Deserialize)]
struct Answered {
    selected: Option<String>,
    version: Option<String>,
    #[serde(default)]
    active: bool,
}

impl From<Answered> for NegotiatedExtension {
    fn from(answered: Answered) -> Self {
        Self {
            version: answered.selected.or(answered.version).unwrap_or_default(),
            active: answered.active,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(json: &str) -> HelloResult {
        serde_json::from_str(json).expect("an answer")
    }

    #[test]
    fn a_version_has_two_names_and_may_be_left_out() {
        let result = result(
            r#"{"extensions":{"a":{"selected":"2","version":"1","active":true},
                "b":{"version":"1"},"c":{}}}"#,
        );
        let version = |name: &str| result.extensions[name].version.as_str();
        assert_eq!((version("a"), version("b"), version("c")), ("2", "1", ""));
        assert!(result.is_active("a") && !result.is_active("b") && !result.is_active("d"));
        assert_eq!(result.session_id, None);
    }

    #[test]
    fn only_what_is_required_has_to_be_active() {
        let params = HelloParams::new().require("a", "1").offer("b", "1");
        let check = |json: &str| params.check_result(&result(json)).err();
        assert!(check(r#"{"extensions":{"a":{"active":true}}}"#).is_none());
        for json in [r#"{"extensions":{"a":{"version":"1"}}}"#, "{}"] {
            let error = check(json).expect("an error");
            assert_eq!(error.kind(), Some(ErrorCode::NegotiationFailed));
            assert!(error.to_string().contains("\"a\""), "{error}");
        }
        assert!(HelloParams::new().offer("", "1").check().is_err());
        assert!(HelloParams::new().offer("a", "").check().is_err());
    }
}
