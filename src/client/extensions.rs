//! What travels beside a request's params: who asks, what is recorded, what
//! else the two ends have agreed on.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// The members of `_ext` that have an option of their own.
const IDENTITY: &str = "identity";
const AUDIT: &str = "audit";
const IDEMPOTENCY_KEY: &str = "idempotencyKey";

/// Who a request is made for: `_ext.identity`.
///
/// The bus passes it on and checks nothing: it says what the sender claims.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Identity {
    /// The subject's name. Must not be empty.
    pub subject_id: String,
    /// The part it plays. Must not be empty.
    pub role: String,
    /// Who vouches for it; `self` unless set.
    pub asserted_by: String,
}

impl Identity {
    /// An identity that its sender vouches for.
    pub fn new(subject_id: impl Into<String>, role: impl Into<String>) -> Self {
        Self {
            subject_id: subject_id.into(),
            role: role.into(),
            asserted_by: "self".into(),
        }
    }

    /// Sets who vouches for it.
    #[must_use]
    pub fn asserted_by(mut self, whom: impl Into<String>) -> Self {
        self.asserted_by = whom.into();
        self
    }

    fn check(&self) -> Result<()> {
        not_empty("identity: subject_id", &self.subject_id)?;
        not_empty("identity: role", &self.role)?;
        not_empty("identity: asserted_by", &self.asserted_by)
    }
}

/// What a worker is to record of a request: `_ext.audit`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct AuditEvent {
    /// The event's own name. Must not be empty.
    pub event_id: String,
    /// What is done. Must not be empty.
    pub action: String,
    /// The event it follows from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent_event_id: Option<String>,
    /// When it happens, as the two ends write times.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<String>,
    /// Who does it, by names of the two ends' own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actor: Option<BTreeMap<String, String>>,
    /// What it is done to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    /// What came of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<String>,
}

impl AuditEvent {
    /// An event with nothing but its name and what is done.
    pub fn new(event_id: impl Into<String>, action: impl Into<String>) -> Self {
        Self {
            event_id: event_id.into(),
            action: action.into(),
            parent_event_id: None,
            timestamp: None,
            actor: None,
            resource: None,
            outcome: None,
        }
    }

    /// Sets the event it follows from.
    #[must_use]
    pub fn parent_event_id(mut self, id: impl Into<String>) -> Self {
        self.parent_event_id = Some(id.into());
        self
    }

    /// Sets when it happens.
    #[must_use]
    pub fn timestamp(mut self, time: impl Into<String>) -> Self {
        self.timestamp = Some(time.into());
        self
    }

    /// Adds one thing about who does it.
    #[must_use]
    pub fn actor(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        let actor = self.actor.get_or_insert_default();
        actor.insert(name.into(), value.into());
        self
    }

    /// Sets what it is done to.
    #[must_use]
    pub fn resource(mut self, resource: impl Into<String>) -> Self {
        self.resource = Some(resource.into());
        self
    }

    /// Sets what came of it.
    #[must_use]
    pub fn outcome(mut self, outcome: impl Into<String>) -> Self {
        self.outcome = Some(outcome.into());
        self
    }

    fn check(&self) -> Result<()> {
        not_empty("audit: event_id", &self.event_id)?;
        not_empty("audit: action", &self.action)
    }
}

/// The options that make up `_ext`.
#[derive(Debug, Clone, Default)]
pub(super) struct Extensions {
    pub(super) identity: Option<Identity>,
    pub(super) audit: Option<AuditEvent>,
    pub(super) idempotency_key: Option<String>,
    pub(super) others: Map<String, Value>,
}

impl Extensions {
    /// The value of `_ext`; empty where there is nothing to say.
    pub(super) fn to_map(&self) -> Result<Map<String, Value>> {
        let mut map = self.others.clone();
        for name in [IDENTITY, AUDIT, IDEMPOTENCY_KEY, ""] {
            if map.contains_key(name) {
                let text = format!("extensions: {name:?} can't be the name of one");
                return Err(Error::invalid_argument(text));
            }
        }
        if let Some(identity) = &self.identity {
            identity.check()?;
            map.insert(IDENTITY.into(), value(identity)?);
        }
        if let Some(audit) = &self.audit {
            audit.check()?;
            map.insert(AUDIT.into(), value(audit)?);
        }
        if let Some(key) = &self.idempotency_key {
            not_empty("idempotency_key", key)?;
            map.insert(IDEMPOTENCY_KEY.into(), key.as_str().into());
        }
        Ok(map)
    }
}

fn value(of: &impl Serialize) -> Result<Value> {
    serde_json::to_value(of)
        .map_err(|e| Error::invalid_argument(format!("an extension isn't JSON: {e}")))
}

fn not_empty(what: &str, text: &str) -> Result<()> {
    if text.is_empty() {
        return Err(Error::invalid_argument(format!("{what} must not be empty")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn all_of_it_is_in_the_members_of_the_family() {
        let extensions = Extensions {
            identity: Some(Identity::new("u1", "admin")),
            audit: Some(
                AuditEvent::new("e1", "read")
                    .parent_event_id("e0")
                    .timestamp("2026-01-01T00:00:00Z")
                    .actor("type", "user")
                    .resource("file")
                    .outcome("ok"),
            ),
            idempotency_key: Some("k".into()),
            others: Map::from_iter([("trace".into(), json!({"id": 1}))]),
        };
        assert_eq!(
            Value::from(extensions.to_map().expect("valid")),
            json!({
                "identity": {"subjectId": "u1", "role": "admin", "assertedBy": "self"},
                "audit": {
                    "eventId": "e1", "action": "read", "parentEventId": "e0",
                    "timestamp": "2026-01-01T00:00:00Z", "actor": {"type": "user"},
                    "resource": "file", "outcome": "ok",
                },
                "idempotencyKey": "k",
                "trace": {"id": 1},
            })
        );
        assert!(Extensions::default().to_map().expect("valid").is_empty());
    }

    #[test]
    fn what_says_nothing_or_hides_an_option_is_refused() {
        let with = |change: &dyn Fn(&mut Extensions)| {
            let mut extensions = Extensions::default();
            change(&mut extensions);
            extensions.to_map().expect_err("refused").to_string()
        };
        assert!(with(&|e| e.identity = Some(Identity::new("", "r"))).contains("subject_id"));
        assert!(with(&|e| e.identity = Some(Identity::new("s", ""))).contains("role"));
        assert!(with(&|e| e.audit = Some(AuditEvent::new("", "a"))).contains("event_id"));
        assert!(with(&|e| e.audit = Some(AuditEvent::new("e", ""))).contains("action"));
        assert!(with(&|e| e.idempotency_key = Some(String::new())).contains("idempotency_key"));
        for name in ["identity", "audit", "idempotencyKey", ""] {
            let other = |e: &mut Extensions| {
                e.others.insert(name.into(), Value::Null);
            };
            assert!(with(&other).contains("extensions"), "{name}");
        }
    }
}
