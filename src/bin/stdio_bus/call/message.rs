//! Looking into messages as they pass, and adding to their root.

use std::borrow::Cow;
use std::collections::HashMap;

use serde::Deserialize;
use serde_json::value::RawValue;

/// The bus wants a token. A worker may use the number as well.
const UNAUTHORIZED: i64 = -32014;

/// Of a member that comes twice the last counts, as for the bus.
type Members<'a> = HashMap<Cow<'a, str>, &'a RawValue>;

/// What is added to a message that lacks it.
#[derive(Debug, Clone, Default)]
pub(super) struct Defaults {
    pub(super) session: Option<String>,
    pub(super) pool: Option<String>,
}

/// A message of a user.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Outgoing {
    /// With its newline.
    pub(super) frame: Vec<u8>,
    /// The id under which an answer will come.
    pub(super) awaits: Option<String>,
}

impl Outgoing {
    /// `line` has no blanks around it. The error says what it is instead.
    pub(super) fn read(line: &[u8], defaults: &Defaults) -> Result<Self, String> {
        let members: Members<'_> = serde_json::from_slice(line)
            .map_err(|e| e.to_string().replace(" at line 1 column ", " at column "))?;
        let mut frame = Vec::with_capacity(line.len() + 64);
        frame.push(b'{');
        // An answer finds its way by its id alone.
        if members.contains_key("method") {
            let given = [("sessionId", &defaults.session), ("pool", &defaults.pool)];
            for (name, value) in given {
                if let (Some(value), false) = (value, members.contains_key(name)) {
                    let value = serde_json::Value::from(value.as_str());
                    frame.extend_from_slice(format!("\"{name}\":{value},").as_bytes());
                }
            }
        }
        // There is one, and a method behind what was added.
        frame.extend_from_slice(line.get(1..).unwrap_or_default());
        frame.push(b'\n');
        Ok(Self {
            frame,
            awaits: awaits(&members),
        })
    }
}

/// As the bus sees it: what is no JSON-RPC is answered, too, without an id if need
/// be.
fn awaits(members: &Members<'_>) -> Option<String> {
    let id = members.get("id").map_or("null", |id| id.get());
    let first = id.as_bytes().first().copied().unwrap_or_default();
    let is_id = first == b'"' || first == b'-' || first.is_ascii_digit();
    let is_valid = is_id || id == "null";
    let is_request = members
        .get("method")
        .map(|method| method.get().starts_with('"'));
    let has = |name| members.get(name).is_some();
    match is_request {
        Some(true) if is_valid => is_id.then(|| id.to_owned()),
        None if is_valid && (has("result") || has("error")) => None,
        _ if is_id => Some(id.to_owned()),
        _ => Some("null".to_owned()),
    }
}

/// What an answer says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) id: String,
    pub(super) is_error: bool,
    pub(super) is_refusal: bool,
}

impl Answer {
    /// `None` for what is none.
    pub(super) fn read(line: &[u8]) -> Option<Self> {
        // What a worker wrote may be no text; its id is.
        let text = String::from_utf8_lossy(line);
        let members: Members<'_> = serde_json::from_str(&text).ok()?;
        if members.contains_key("method") {
            return None;
        }
        let error = members.get("error").filter(|error| error.get() != "null");
        Some(Self {
            id: members.get("id").map_or("null", |id| id.get()).to_owned(),
            is_error: error.is_some(),
            is_refusal: error.is_some_and(|error| is_refusal(error)),
        })
    }
}

fn is_refusal(error: &RawValue) -> bool {
    #[derive(Deserialize)]
    struct Refusal {
        code: i64,
        data: Source,
    }
    #[derive(Deserialize)]
    struct Source {
        source: String,
    }
    serde_json::from_str::<Refusal>(error.get())
        .is_ok_and(|error| error.code == UNAUTHORIZED && error.data.source == "stdio_bus")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(line: &str) -> String {
        let defaults = Defaults {
            session: Some("s\"".into()),
            pool: Some("p".into()),
        };
        let message = Outgoing::read(line.as_bytes(), &defaults).expect("an object");
        String::from_utf8(message.frame).expect("text")
    }

    fn awaited(line: &str) -> Option<String> {
        let message = Outgoing::read(line.as_bytes(), &Defaults::default());
        message.expect("an object").awaits
    }

    #[test]
    fn what_a_message_lacks_is_added_and_the_rest_stays_byte_for_byte() {
        assert_eq!(
            sent(r#"{ "id" : 1.50, "method":"m"}"#),
            "{\"sessionId\":\"s\\\"\",\"pool\":\"p\", \"id\" : 1.50, \"method\":\"m\"}\n"
        );
        assert_eq!(
            sent(r#"{"method":"m","sessionId":null}"#),
            "{\"pool\":\"p\",\"method\":\"m\",\"sessionId\":null}\n"
        );
        for whole in [
            r#"{"method":"m","sessionId":"x","pool":"y"}"#,
            r#"{"id":1,"result":{}}"#,
            "{}",
        ] {
            assert_eq!(sent(whole), format!("{whole}\n"));
        }
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for bad in ["", "1", "[]", "{", "{} {}", "null", "{\"a\":}"] {
            let message = Outgoing::read(bad.as_bytes(), &Defaults::default());
            assert!(message.is_err(), "{bad}");
        }
        assert!(Outgoing::read(b"{\"a\":\"\xff\"}", &Defaults::default()).is_err());
    }

    #[test]
    fn requests_and_what_is_no_json_rpc_are_answered() {
        let id = |text: &str| Some(text.to_owned());
        assert_eq!(
            awaited(r#"{"id":"a\u0062","method":"m"}"#),
            id(r#""a\u0062""#)
        );
        assert_eq!(awaited(r#"{"id":-1,"method":"m"}"#), id("-1"));
        assert_eq!(awaited(r#"{"id":1,"m\u0065thod":"m"}"#), id("1"));
        assert_eq!(awaited(r#"{"method":"m"}"#), None);
        assert_eq!(awaited(r#"{"id":null,"method":"m"}"#), None);
        assert_eq!(awaited(r#"{"id":1,"result":null}"#), None);
        assert_eq!(awaited("{}"), id("null"));
        assert_eq!(awaited(r#"{"id":[],"method":"m"}"#), id("null"));
        assert_eq!(awaited(r#"{"id":1,"method":2}"#), id("1"));
    }

    #[test]
    fn an_answer_is_told_from_what_workers_say_on_their_own() {
        let read = |line: &str| Answer::read(line.as_bytes());
        assert_eq!(read(r#"{"id":1,"method":"ask"}"#), None);
        assert_eq!(read("no JSON"), None);
        let answer = read(r#"{"id":1,"result":2,"error":null}"#).expect("one");
        assert!(!answer.is_error && answer.id == "1");
        let refusal = r#"{"error":{"code":-32014,"data":{"source":"stdio_bus"}}}"#;
        let answer = read(refusal).expect("one");
        assert!(answer.is_error && answer.is_refusal && answer.id == "null");
        let workers = read(r#"{"id":1,"error":{"code":-32014}}"#).expect("one");
        assert!(workers.is_error && !workers.is_refusal);
        assert!(Answer::read(b"{\"id\":1,\"result\":\"\xff\"}").is_some());
    }
}
