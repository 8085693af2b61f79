//! What can be said about a request beside its method and params.

use std::time::Duration;

use serde_json::{Map, Value};

use super::extensions::{AuditEvent, Extensions, Identity};
use crate::error::{Error, Result};
use crate::rpc::Route;

/// Bytes of messages that may wait for one request, unless it says otherwise.
const MAX_WAITING: usize = 16 << 20;

/// How a request travels, and how long it may take.
///
/// Each option either reaches the wire or is refused.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct RequestOptions {
    timeout: Timeout,
    session_id: Option<String>,
    unpinned: bool,
    pool: Option<String>,
    agent_id: Option<String>,
    extensions: Extensions,
    max_waiting: Option<usize>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Timeout {
    #[default]
    Default,
    Never,
    After(Duration),
}

impl RequestOptions {
    /// The bus's timeout, its own session, and whatever pool that leads to.
    pub fn new() -> Self {
        Self::default()
    }

    /// How long to wait for the answer, from the first poll on; `None` waits
    /// for ever.
    ///
    /// Unlike the bus's own timeout, one that is given here is never put off by
    /// progress that the worker reports.
    #[must_use]
    pub fn timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.timeout = timeout.into().map_or(Timeout::Never, Timeout::After);
        self
    }

    /// The session it belongs to: all messages of a session reach the same
    /// worker of a pool, in their order.
    #[must_use]
    pub fn session_id(mut self, session: impl Into<String>) -> Self {
        self.session_id = Some(session.into());
        self
    }

    /// No session: each request may go to another worker of the pool. Not so
    /// where the workers speak MCP with a handshake, or ACP: there a client
    /// that names no session stays with one worker; to spread requests over
    /// several, give them [`session_id`](Self::session_id)s of their own.
    #[must_use]
    pub fn unpinned(mut self) -> Self {
        self.unpinned = true;
        self
    }

    /// The pool it is for.
    #[must_use]
    pub fn pool(mut self, pool: impl Into<String>) -> Self {
        self.pool = Some(pool.into());
        self
    }

    /// The agent it is for: travels as `agentId`, and chooses the pool of that
    /// name where there is one.
    #[must_use]
    pub fn agent_id(mut self, agent: impl Into<String>) -> Self {
        self.agent_id = Some(agent.into());
        self
    }

    /// Who it is made for: travels as `_ext.identity`.
    #[must_use]
    pub fn identity(mut self, identity: Identity) -> Self {
        self.extensions.identity = Some(identity);
        self
    }

    /// What the worker is to record of it: travels as `_ext.audit`.
    #[must_use]
    pub fn audit(mut self, event: AuditEvent) -> Self {
        self.extensions.audit = Some(event);
        self
    }

    /// By what the worker knows a request that is sent once more: travels as
    /// `_ext.idempotencyKey`. It is for the worker: the bus itself doesn't look
    /// at it, and sends nothing twice on its own.
    #[must_use]
    pub fn idempotency_key(mut self, key: impl Into<String>) -> Self {
        self.extensions.idempotency_key = Some(key.into());
        self
    }

    /// Adds members of `_ext` that the two ends have agreed on. Of a name that
    /// comes twice the last value counts; those of the other options, and the
    /// empty one, are refused.
    ///
    /// A worker that speaks plain NDJSON gets `_ext` at the root of the message.
    /// One that speaks MCP or ACP gets it as `params._meta["stdio_bus/ext"]`, so
    /// params have to be an object then, or absent, and `_meta` too: others are
    /// refused with anything that travels in `_ext`.
    #[must_use]
    pub fn extensions<S: Into<String>>(
        mut self,
        extensions: impl IntoIterator<Item = (S, Value)>,
    ) -> Self {
        let extensions = extensions.into_iter();
        let others = &mut self.extensions.others;
        others.extend(extensions.map(|(name, value)| (name.into(), value)));
        self
    }

    /// How many bytes of messages that belong to the request may wait to be
    /// taken; 16 MiB unless set. One message of any size passes where none is
    /// before it.
    ///
    /// A stream whose reader doesn't keep up, and a request whose future isn't
    /// polled while chunks of text come, end with `ResourceExhausted` beyond it.
    #[must_use]
    pub fn max_waiting(mut self, bytes: usize) -> Self {
        self.max_waiting = Some(bytes);
        self
    }

    /// The option that says something about an answer, where none is awaited.
    pub(super) fn about_the_answer(&self) -> Option<&'static str> {
        if self.timeout != Timeout::Default {
            return Some("timeout");
        }
        self.max_waiting.map(|_| "max_waiting")
    }

    pub(super) fn cap(&self) -> usize {
        self.max_waiting.unwrap_or(MAX_WAITING)
    }

    /// Whether progress gives it more time.
    pub(super) fn is_patient(&self) -> bool {
        self.timeout == Timeout::Default
    }

    pub(super) fn limit(&self, method: &str, default: Option<Duration>) -> Option<Duration> {
        match self.timeout {
            Timeout::After(limit) => Some(limit),
            Timeout::Never => None,
            Timeout::Default if method == "session/prompt" => None,
            Timeout::Default => default,
        }
    }

    /// The pool or agent and the session it names, for those who watch.
    #[cfg(feature = "tracing")]
    pub(super) fn named<'a>(&'a self, own_session: &'a str) -> (Option<&'a str>, Option<&'a str>) {
        let pool = self.pool.as_deref().or(self.agent_id.as_deref());
        let own = (!self.unpinned).then_some(own_session);
        (pool, self.session_id.as_deref().or(own))
    }

    /// What travels in `_ext`; empty for nothing.
    pub(super) fn ext(&self) -> Result<Map<String, Value>> {
        self.extensions.to_map()
    }

    /// `ext` is that of [`ext`](Self::ext).
    pub(super) fn route<'a>(
        &'a self,
        own_session: &'a str,
        ext: &'a Map<String, Value>,
    ) -> Result<Route<'a>> {
        let given = [
            ("session_id", &self.session_id),
            ("pool", &self.pool),
            ("agent_id", &self.agent_id),
        ];
        // The bus takes an empty one for none.
        if let Some((name, _)) = given.iter().find(|(_, v)| v.as_deref() == Some("")) {
            return Err(Error::invalid_argument(format!("{name} must not be empty")));
        }
        let session_id = match (&self.session_id, self.unpinned) {
            (Some(_), true) => {
                return Err(Error::invalid_argument(
                    "session_id and unpinned exclude each other",
                ));
            }
            (Some(session), false) => Some(session.as_str()),
            (None, true) => None,
            (None, false) => Some(own_session),
        };
        Ok(Route {
            session_id,
            pool: self.pool.as_deref(),
            agent_id: self.agent_id.as_deref(),
            ext: Some(ext).filter(|ext| !ext.is_empty()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorCode;

    #[test]
    fn a_request_has_the_own_session_another_or_none() {
        let session = |options: RequestOptions| {
            options
                .route("own", &Map::new())
                .map(|route| route.session_id.map(str::to_owned))
        };
        assert_eq!(
            session(RequestOptions::new()).expect("valid").as_deref(),
            Some("own")
        );
        assert_eq!(
            session(RequestOptions::new().session_id("s"))
                .expect("valid")
                .as_deref(),
            Some("s")
        );
        assert_eq!(
            session(RequestOptions::new().unpinned()).expect("valid"),
            None
        );
        assert!(session(RequestOptions::new().unpinned().session_id("s")).is_err());
    }

    #[test]
    fn empty_names_are_refused_not_ignored() {
        for options in [
            RequestOptions::new().session_id(""),
            RequestOptions::new().pool(""),
            RequestOptions::new().agent_id(""),
        ] {
            let error = options.route("own", &Map::new()).expect_err("empty");
            assert_eq!(error.kind(), Some(ErrorCode::InvalidArgument));
        }
    }

    #[test]
    fn a_prompt_has_no_default_timeout() {
        let default = Some(Duration::from_secs(30));
        let short = Duration::from_secs(1);
        assert_eq!(RequestOptions::new().limit("echo", default), default);
        assert_eq!(RequestOptions::new().limit("session/prompt", default), None);
        assert_eq!(
            RequestOptions::new()
                .timeout(short)
                .limit("session/prompt", default),
            Some(short)
        );
        assert_eq!(
            RequestOptions::new().timeout(None).limit("echo", default),
            None
        );
    }
}
