//! Reading what a worker says on its own: requests and notifications.

use std::collections::HashMap;
use std::sync::OnceLock;

use serde_json::Value;
use serde_json::value::RawValue;

/// The parts of a request or a notification. Its `params` become a tree only
/// when somebody asks for one.
#[derive(Debug, Default)]
pub(crate) struct Parts {
    /// The frame was JSON through and through; else everything here is empty.
    pub(crate) readable: bool,
    pub(crate) method: String,
    pub(crate) has_method: bool,
    /// The token of its id; `None` also where that is null.
    pub(crate) id: Option<String>,
    /// The session the message names at its root.
    pub(crate) root_session: Option<String>,
    /// That, else the one in its `params`.
    pub(crate) session: Option<String>,
    params: Option<Box<RawValue>>,
    tree: OnceLock<Value>,
}

/// The members of an object. Of one that comes twice the last counts, as for
/// the bus.
pub(super) type Members<'a> = HashMap<String, &'a RawValue>;

/// A member that only counts where it is text.
pub(super) fn text(members: &Members<'_>, name: &str) -> Option<String> {
    serde_json::from_str(members.get(name)?.get()).ok()
}

impl Parts {
    /// What the bus's own scan lets through may still be no JSON deep inside.
    pub(crate) fn read(frame: &[u8]) -> Self {
        let Ok(members) = serde_json::from_slice::<Members<'_>>(frame) else {
            return Self::default();
        };
        let params = members.get("params").copied();
        let in_params = || session_in(params?.get());
        let root_session = text(&members, "sessionId");
        let id = members.get("id").map(|id| id.get());
        Self {
            readable: true,
            method: text(&members, "method").unwrap_or_default(),
            has_method: members.contains_key("method"),
            id: id.filter(|id| *id != "null").map(str::to_owned),
            session: root_session.clone().or_else(in_params),
            root_session,
            params: params.map(ToOwned::to_owned),
            tree: OnceLock::new(),
        }
    }

    /// The text of `params`, where there are any.
    pub(crate) fn raw_params(&self) -> Option<&str> {
        self.params.as_ref().map(|params| params.get())
    }

    /// `params` as a tree; null where there are none. Built once.
    pub(crate) fn params(&self) -> &Value {
        self.tree.get_or_init(|| {
            self.raw_params()
                // Only its depth can be in the way: the text has been read once.
                .and_then(|params| serde_json::from_str(params).ok())
                .unwrap_or_default()
        })
    }
}

/// The session that `params` name as text: that of an ACP agent.
pub(crate) fn session_in(params: &str) -> Option<String> {
    text(&serde_json::from_str(params).ok()?, "sessionId")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_session_at_the_root_comes_before_that_of_the_params() {
        let session = |frame: &str| Parts::read(frame.as_bytes()).session;
        let both = r#"{"method":"m","params":{"sessionId":"inner"},"sessionId":"outer"}"#;
        assert_eq!(session(both).as_deref(), Some("outer"));
        let inner = r#"{"method":"m","params":{"sessionId":"in\u006eer"}}"#;
        assert_eq!(session(inner).as_deref(), Some("inner"));
        for none in [
            r#"{"method":"m"}"#,
            r#"{"method":"m","params":["sessionId"]}"#,
            r#"{"method":"m","params":{"sessionId":7},"sessionId":null}"#,
        ] {
            assert_eq!(session(none), None, "{none}");
        }
    }

    #[test]
    fn params_are_there_as_text_and_as_a_tree() {
        let parts = Parts::read(br#"{"method":"m","params":{"a": 1.50}}"#);
        assert!(parts.readable);
        assert_eq!(parts.method, "m");
        assert_eq!(parts.raw_params(), Some(r#"{"a": 1.50}"#));
        assert_eq!(parts.params(), &json!({"a": 1.5}));
        assert_eq!(Parts::read(br#"{"method":"m"}"#).params(), &Value::Null);
    }

    #[test]
    fn what_no_json_library_reads_is_empty() {
        for frame in [&b"{\"method\":\"\xff\"}"[..], b"{\"method\":", b""] {
            let parts = Parts::read(frame);
            assert!(!parts.readable);
            assert_eq!((parts.method.as_str(), parts.raw_params()), ("", None));
        }
    }
}
