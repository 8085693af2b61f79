//! Which request of ours a message belongs to, where the bus that knows is at
//! the other end of a wire: by progress token, else by session, as the bus
//! itself finds it.

use std::collections::HashMap;

use serde_json::value::RawValue;

use super::message::{Members, session_in, text};

/// What a frame is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The token of its id, where it has one.
    Response {
        id: Option<String>,
        /// By its own words it is an error that a bus made.
        from_bus: bool,
    },
    Request {
        id: String,
    },
    Notification,
}

/// What of a frame tells where it belongs.
#[derive(Debug)]
pub(crate) struct Glance {
    pub(crate) kind: Kind,
    method: String,
    session: Option<String>,
    /// The progress token that it asks for news under, and the one it tells of.
    asked: Option<String>,
    told: Option<String>,
}

impl Glance {
    /// `None` for what is no JSON object through and through.
    pub(crate) fn read(frame: &[u8]) -> Option<Self> {
        match serde_json::from_slice::<Members<'_>>(frame) {
            Ok(members) => Some(Self::of(&members)),
            // What isn't UTF-8 can't be read, but still be told whose it is.
            Err(_) if std::str::from_utf8(frame).is_err() => {
                let lossy = String::from_utf8_lossy(frame);
                serde_json::from_str::<Members<'_>>(&lossy)
                    .ok()
                    .map(|members| Self::of(&members))
            }
            Err(_) => None,
        }
    }

    fn of(members: &Members<'_>) -> Self {
        let id = members.get("id").map(|id| id.get());
        let id = id.filter(|id| *id != "null").map(str::to_owned);
        let method = text(members, "method");
        let params = members.get("params").copied().and_then(object);
        let meta = params.as_ref().and_then(|params| member(params, "_meta"));
        let kind = match (&method, id) {
            (None, id) => Kind::Response {
                id,
                from_bus: is_from_bus(members),
            },
            (Some(_), Some(id)) => Kind::Request { id },
            (Some(_), None) => Kind::Notification,
        };
        let in_params = || session_in(members.get("params")?.get());
        Self {
            kind,
            method: method.unwrap_or_default(),
            session: text(members, "sessionId").or_else(in_params),
            asked: meta.and_then(|meta| token(&meta, "progressToken")),
            told: params.and_then(|params| token(&params, "progressToken")),
        }
    }
}

fn object(value: &RawValue) -> Option<Members<'_>> {
    serde_json::from_str(value.get()).ok()
}

fn member<'a>(members: &Members<'a>, name: &str) -> Option<Members<'a>> {
    object(members.get(name).copied()?)
}

fn token(members: &Members<'_>, name: &str) -> Option<String> {
    Some(members.get(name)?.get().to_owned())
}

/// A worker may write this as well, and on a wire nothing can tell them apart.
fn is_from_bus(members: &Members<'_>) -> bool {
    let data = member(members, "error").and_then(|error| {
        let data = member(&error, "data")?;
        text(&data, "source")
    });
    data.as_deref() == Some("stdio_bus")
}

/// The requests that are pending, by what their messages name.
#[derive(Debug, Default)]
pub(crate) struct Relations {
    requests: HashMap<u64, Named>,
    /// Oldest first.
    by_session: HashMap<String, Vec<u64>>,
    by_token: HashMap<String, u64>,
}

#[derive(Debug)]
struct Named {
    session: Option<String>,
    token: Option<String>,
    /// While a turn is on, what its session says belongs to it.
    turn: bool,
}

impl Relations {
    pub(crate) fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.requests.len()
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = u64> {
        self.requests.keys().copied()
    }

    /// Adds a request that is sent.
    pub(crate) fn insert(&mut self, id: u64, request: Glance) {
        let Glance {
            session,
            asked: token,
            method,
            ..
        } = request;
        if let Some(session) = &session {
            self.by_session.entry(session.clone()).or_default().push(id);
        }
        if let Some(token) = &token {
            self.by_token.insert(token.clone(), id);
        }
        let turn = method == "session/prompt";
        let named = Named {
            session,
            token,
            turn,
        };
        self.requests.insert(id, named);
    }

    /// Takes a request out. `false` if there is none.
    pub(crate) fn remove(&mut self, id: u64) -> bool {
        let Some(named) = self.requests.remove(&id) else {
            return false;
        };
        if let Some(session) = named.session {
            let left = self.by_session.get_mut(&session).is_some_and(|ids| {
                ids.retain(|other| *other != id);
                !ids.is_empty()
            });
            if !left {
                self.by_session.remove(&session);
            }
        }
        if let Some(token) = named.token
            && self.by_token.get(&token) == Some(&id)
        {
            self.by_token.remove(&token);
        }
        true
    }

    /// The pending request that a worker's own message belongs to.
    pub(crate) fn find(&self, message: &Glance) -> Option<u64> {
        if let Some(id) = message.told.as_ref().and_then(|t| self.by_token.get(t)) {
            return Some(*id);
        }
        let ids = self.by_session.get(message.session.as_ref()?)?;
        let is_turn = |id: &u64| self.requests.get(id).is_some_and(|named| named.turn);
        let turn = ids.iter().copied().find(is_turn);
        turn.or_else(|| ids.last().copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn glance(frame: &str) -> Glance {
        Glance::read(frame.as_bytes()).expect("an object")
    }

    fn update(session: &str) -> Glance {
        glance(&format!(
            r#"{{"method":"session/update","params":{{"sessionId":"{session}"}}}}"#
        ))
    }

    #[test]
    fn a_frame_is_told_by_id_and_method() {
        let kind = |frame: &str| glance(frame).kind;
        let answer = |id: Option<&str>, from_bus| Kind::Response {
            id: id.map(str::to_owned),
            from_bus,
        };
        assert_eq!(kind(r#"{"id":1,"result":{}}"#), answer(Some("1"), false));
        assert_eq!(kind(r#"{"id":null,"error":{}}"#), answer(None, false));
        assert_eq!(
            kind(r#"{"id":1,"error":{"data":{"source":"stdio_bus"}}}"#),
            answer(Some("1"), true)
        );
        assert_eq!(
            kind(r#"{"id":1,"error":{"data":"stdio_bus"}}"#),
            answer(Some("1"), false)
        );
        assert_eq!(
            kind(r#"{"id":"a","method":"m"}"#),
            Kind::Request { id: "\"a\"".into() }
        );
        assert_eq!(kind(r#"{"id":null,"method":"m"}"#), Kind::Notification);
        assert!(Glance::read(b"[1]").is_none() && Glance::read(b"{\"id\":").is_none());
        let bad = Glance::read(b"{\"id\":7,\"result\":\"\xff\"}").expect("an object all the same");
        assert_eq!(bad.kind, answer(Some("7"), false));
    }

    #[test]
    fn a_message_belongs_to_the_turn_of_its_session_else_to_the_newest_request() {
        let mut relations = Relations::default();
        let request = |method: &str| {
            glance(&format!(
                r#"{{"id":1,"method":"{method}","sessionId":"own","params":{{"sessionId":"inner"}}}}"#
            ))
        };
        relations.insert(1, request("a"));
        relations.insert(2, request("session/prompt"));
        relations.insert(3, request("b"));
        assert_eq!(relations.find(&update("own")), Some(2));
        assert_eq!(relations.find(&update("inner")), None);
        assert!(relations.remove(2) && !relations.remove(2));
        assert_eq!(relations.find(&update("own")), Some(3));
        assert!(relations.remove(3) && relations.remove(1));
        assert_eq!(relations.find(&update("own")), None);
        assert!(relations.is_empty() && relations.by_session.is_empty());
    }

    #[test]
    fn progress_belongs_to_the_request_with_its_token() {
        let mut relations = Relations::default();
        let request = |token: &str| {
            glance(&format!(
                r#"{{"method":"m","sessionId":"s","params":{{"_meta":{{"progressToken":{token}}}}}}}"#
            ))
        };
        relations.insert(1, request("\"a\""));
        relations.insert(2, request("7"));
        let progress = |token: &str| {
            glance(&format!(
                r#"{{"method":"notifications/progress","params":{{"progressToken":{token}}}}}"#
            ))
        };
        assert_eq!(relations.find(&progress("\"a\"")), Some(1));
        assert_eq!(relations.find(&progress("7")), Some(2));
        assert_eq!(relations.find(&progress("\"7\"")), None);
        assert!(relations.remove(1) && relations.remove(2));
        assert!(relations.by_token.is_empty());
    }
}
