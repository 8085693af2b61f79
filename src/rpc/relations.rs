//! Which request of ours a message belongs to, where the bus that knows is at
//! the other end of a wire: by progress token, else by session, as the bus
//! itself finds it.

use std::collections::HashMap;

use serde_json::Value;
use serde_json::value::RawValue;

use super::message::{Members, text};

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
    /// At its root, and in its params.
    session: Option<String>,
    inner: Option<String>,
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
        Self {
            kind,
            method: method.unwrap_or_default(),
            session: text(members, "sessionId"),
            inner: params.as_ref().and_then(|params| text(params, "sessionId")),
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

/// As it is written the shortest way: a worker may write it in another one.
fn token(members: &Members<'_>, name: &str) -> Option<String> {
    let token: Value = serde_json::from_str(members.get(name)?.get()).ok()?;
    Some(token.to_string())
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
///
/// A turn that is given up stays until the bus is known to have heard of that:
/// what comes before is still its own.
#[derive(Debug, Default)]
pub(crate) struct Relations {
    requests: HashMap<u64, Named>,
    by_session: Index,
    by_token: Index,
    given_up: usize,
}

#[derive(Debug)]
struct Named {
    /// A worker's sessions are named in the params, others at the root. Only the
    /// bus knows which this is.
    sessions: Vec<String>,
    token: Option<String>,
    /// While a turn is on, what its session says belongs to it.
    turn: bool,
    given_up: bool,
}

/// The ids of requests under a name, oldest first.
#[derive(Debug, Default)]
struct Index(HashMap<String, Vec<u64>>);

impl Index {
    fn insert(&mut self, name: &str, id: u64) {
        self.0.entry(name.to_owned()).or_default().push(id);
    }

    fn remove(&mut self, name: &str, id: u64) {
        if let Some(ids) = self.0.get_mut(name) {
            ids.retain(|other| *other != id);
            if ids.is_empty() {
                self.0.remove(name);
            }
        }
    }

    fn get(&self, name: Option<&String>) -> &[u64] {
        let ids = name.and_then(|name| self.0.get(name));
        ids.map_or(&[], Vec::as_slice)
    }
}

impl Relations {
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many are waited for.
    pub(crate) fn len(&self) -> usize {
        self.requests.len() - self.given_up
    }

    /// Those that are waited for.
    pub(crate) fn ids(&self) -> impl Iterator<Item = u64> {
        let waited = self.requests.iter().filter(|(_, named)| !named.given_up);
        waited.map(|(id, _)| *id)
    }

    /// Adds a request that is sent.
    pub(crate) fn insert(&mut self, id: u64, request: Glance) {
        let mut sessions: Vec<_> = request.session.into_iter().chain(request.inner).collect();
        sessions.dedup();
        for session in &sessions {
            self.by_session.insert(session, id);
        }
        if let Some(token) = &request.asked {
            self.by_token.insert(token, id);
        }
        let named = Named {
            sessions,
            token: request.asked,
            turn: request.method == "session/prompt",
            given_up: false,
        };
        self.requests.insert(id, named);
    }

    /// Takes a request out. `false` if nobody waits for it.
    pub(crate) fn remove(&mut self, id: u64) -> bool {
        let Some(named) = self.requests.remove(&id) else {
            return false;
        };
        for session in &named.sessions {
            self.by_session.remove(session, id);
        }
        if let Some(token) = &named.token {
            self.by_token.remove(token, id);
        }
        self.given_up -= usize::from(named.given_up);
        !named.given_up
    }

    /// Nobody waits for a request any more. Whether it stays until it is
    /// [removed](Self::remove).
    pub(crate) fn give_up(&mut self, id: u64) -> bool {
        match self.requests.get_mut(&id) {
            Some(named) if named.turn => {
                self.given_up += usize::from(!named.given_up);
                named.given_up = true;
                true
            }
            _ => {
                self.remove(id);
                false
            }
        }
    }

    pub(crate) fn waits_for(&self, id: u64) -> bool {
        self.requests.get(&id).is_some_and(|named| !named.given_up)
    }

    /// The request that a worker's own message belongs to.
    pub(crate) fn find(&self, message: &Glance) -> Option<u64> {
        if let Some(id) = self.by_token.get(message.told.as_ref()).last() {
            return Some(*id);
        }
        let session = message.session.as_ref().or(message.inner.as_ref());
        let ids = self.by_session.get(session);
        let newest = |is: fn(&Named) -> bool| {
            let is = |id: &&u64| self.requests.get(id).is_some_and(is);
            ids.iter().rev().find(is).copied()
        };
        // The next turn only begins when that which was given up is over.
        newest(|named| named.given_up)
            .or_else(|| newest(|named| named.turn))
            .or_else(|| ids.last().copied())
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

    fn request(method: &str) -> Glance {
        glance(&format!(
            r#"{{"id":1,"method":"{method}","sessionId":"own","params":{{"sessionId":"inner"}}}}"#
        ))
    }

    #[test]
    fn a_message_belongs_to_the_newest_turn_of_its_session_else_to_the_newest_request() {
        let mut relations = Relations::default();
        for (id, method) in [
            (1, "a"),
            (2, "session/prompt"),
            (3, "session/prompt"),
            (4, "b"),
        ] {
            relations.insert(id, request(method));
        }
        for session in ["own", "inner"] {
            assert_eq!(relations.find(&update(session)), Some(3));
        }
        assert!(relations.remove(3) && !relations.remove(3));
        assert_eq!(relations.find(&update("own")), Some(2));
        assert!(relations.remove(2));
        assert_eq!(relations.find(&update("inner")), Some(4));
        assert!(relations.remove(4) && relations.remove(1));
        assert_eq!(relations.find(&update("own")), None);
        assert!(relations.is_empty() && relations.by_session.0.is_empty());
    }

    #[test]
    fn a_turn_that_is_given_up_keeps_its_messages_until_it_is_removed() {
        let mut relations = Relations::default();
        relations.insert(1, request("session/prompt"));
        relations.insert(2, request("session/prompt"));
        relations.insert(3, request("a"));
        assert!(relations.give_up(1) && relations.give_up(1) && !relations.give_up(3));
        assert!(!relations.waits_for(1) && relations.waits_for(2) && !relations.waits_for(3));
        assert_eq!(relations.find(&update("inner")), Some(1));
        assert_eq!((relations.len(), relations.ids().collect()), (1, vec![2]));
        assert!(!relations.remove(1), "nobody waits for it");
        assert_eq!(relations.find(&update("inner")), Some(2));
        assert!(relations.remove(2) && relations.is_empty());
        assert!(relations.by_session.0.is_empty());
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
        relations.insert(3, request("7"));
        assert_eq!(relations.find(&progress("7")), Some(3));
        assert!(relations.remove(3));
        assert_eq!(relations.find(&progress("\"a\"")), Some(1));
        assert_eq!(relations.find(&progress("\"\\u0061\"")), Some(1));
        assert_eq!(relations.find(&progress("7")), Some(2));
        assert_eq!(relations.find(&progress("\"7\"")), None);
        assert!(relations.remove(1) && relations.remove(2));
        assert!(relations.by_token.0.is_empty());
    }
}
