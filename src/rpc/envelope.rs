//! Writing requests and notifications: straight into the bytes that travel,
//! with no tree in between.

use std::collections::HashMap;
use std::fmt::Display;
use std::io::Write;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// Room for the members around `params`; one allocation does for small frames.
const HEAD: usize = 256;

/// The routed members of a frame, as its root carries them.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Route<'a> {
    pub(crate) session_id: Option<&'a str>,
    pub(crate) pool: Option<&'a str>,
    pub(crate) agent_id: Option<&'a str>,
    /// The value of `_ext`.
    pub(crate) ext: Option<&'a Map<String, Value>>,
}

/// A request frame. The id writes itself as JSON: a number does, and a value.
pub(crate) fn request<P: Serialize + ?Sized>(
    id: impl Display,
    method: &str,
    route: Route<'_>,
    params: &P,
) -> Result<Vec<u8>> {
    frame(Some(&id), method, route, params)
}

/// A notification frame.
pub(crate) fn notification<P: Serialize + ?Sized>(
    method: &str,
    route: Route<'_>,
    params: &P,
) -> Result<Vec<u8>> {
    frame(None, method, route, params)
}

fn frame<P: Serialize + ?Sized>(
    id: Option<&dyn Display>,
    method: &str,
    route: Route<'_>,
    params: &P,
) -> Result<Vec<u8>> {
    let mut out = Vec::with_capacity(HEAD);
    out.extend_from_slice(br#"{"jsonrpc":"2.0""#);
    if let Some(id) = id {
        // Writing to a Vec can't fail.
        let _ = write!(out, ",\"id\":{id}");
    }
    member(&mut out, "method", method);
    let routed = [
        ("sessionId", route.session_id),
        ("pool", route.pool),
        ("agentId", route.agent_id),
    ];
    for (name, value) in routed {
        if let Some(value) = value {
            member(&mut out, name, value);
        }
    }
    if let Some(ext) = route.ext {
        out.extend_from_slice(b",\"_ext\":");
        // A tree always serializes: its keys are strings.
        let _ = serde_json::to_writer(&mut out, ext);
    }
    let params_at = out.len();
    write_params(&mut out, params)?;
    if route.ext.is_some() {
        check_room_for_ext(&out[params_at..])?;
    }
    out.push(b'}');
    Ok(out)
}

/// Workers that speak MCP or ACP get `_ext` inside of `params._meta`: refuses
/// params in which there is no such place. `written` is what stands in the frame.
fn check_room_for_ext(written: &[u8]) -> Result<()> {
    let Some(params) = written.strip_prefix(b",\"params\":") else {
        return Ok(());
    };
    let members = serde_json::from_slice::<HashMap<String, &RawValue>>(params);
    let what = match members {
        Err(_) => "params",
        Ok(members) => match members.get("_meta") {
            Some(meta) if !meta.get().starts_with('{') => "a _meta",
            _ => return Ok(()),
        },
    };
    Err(Error::invalid_argument(format!(
        "identity, audit, idempotency_key and extensions need {what} that can take them: an object"
    )))
}

/// `name` needs no escapes.
fn member(out: &mut Vec<u8>, name: &str, value: &str) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
    // A string always serializes, and a Vec takes everything.
    let _ = serde_json::to_writer(out, value);
}

/// `params` may be left out but must not be null, so `()` and `None` leave it out.
fn write_params<P: Serialize + ?Sized>(out: &mut Vec<u8>, params: &P) -> Result<()> {
    let before = out.len();
    out.extend_from_slice(b",\"params\":");
    let start = out.len();
    serde_json::to_writer(&mut *out, params).map_err(|e| {
        Error::invalid_argument(format!("the params can't be written as JSON: {e}")).with_source(e)
    })?;
    let written = &mut out[start..];
    if written == b"null" {
        out.truncate(before);
    } else if written.contains(&b'\n') || written.contains(&b'\r') {
        // Only JSON that came ready-made (RawValue) contains line ends, and
        // only between tokens: inside a string they are escaped.
        written
            .iter_mut()
            .filter(|b| matches!(b, b'\n' | b'\r'))
            .for_each(|b| *b = b' ');
    }
    Ok(())
}

/// Checks a message that a caller made itself: one line, one JSON object, and
/// nothing that expects an answer.
pub(crate) fn check_raw(message: &str) -> Result<()> {
    if message.contains('\n') {
        return Err(Error::invalid_argument("the message contains a newline"));
    }
    let members: Members = serde_json::from_str(message).map_err(|e| {
        Error::invalid_argument(format!("the message isn't a JSON-RPC object: {e}")).with_source(e)
    })?;
    if members.method.is_some() && members.id.is_some() {
        return Err(Error::invalid_argument(
            "the message is a request, and its answer would reach nobody: use request()",
        ));
    }
    Ok(())
}

#[derive(Deserialize)]
struct Members {
    // `null` counts as absent for both, as it does for the bus.
    method: Option<serde::de::IgnoredAny>,
    id: Option<serde::de::IgnoredAny>,
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;
    use serde_json::{Value, json};

    use super::*;

    fn text(frame: Vec<u8>) -> String {
        String::from_utf8(frame).expect("UTF-8")
    }

    #[test]
    fn a_request_carries_what_it_was_given_in_order() {
        let route = Route {
            session_id: Some("s\"1"),
            pool: Some("p"),
            agent_id: Some("a"),
            ext: None,
        };
        let frame = request(7, "echo", route, &json!({"d": [1, null]})).expect("valid");
        assert_eq!(
            text(frame),
            r#"{"jsonrpc":"2.0","id":7,"method":"echo","sessionId":"s\"1","pool":"p","agentId":"a","params":{"d":[1,null]}}"#
        );
    }

    #[test]
    fn extensions_stand_at_the_root_and_need_a_place_in_the_params() {
        let ext = Map::from_iter([("a".to_owned(), json!(1))]);
        let route = Route {
            ext: Some(&ext),
            ..Route::default()
        };
        let frame = |params: Value| request(1, "m", route, &params).map(text);
        assert_eq!(
            frame(json!({"x": [2]})).expect("valid"),
            r#"{"jsonrpc":"2.0","id":1,"method":"m","_ext":{"a":1},"params":{"x":[2]}}"#
        );
        assert!(frame(Value::Null).is_ok());
        assert!(frame(json!({"_meta": {"progressToken": 1}})).is_ok());
        for params in [
            json!([1]),
            json!("x"),
            json!({"_meta": []}),
            json!({"_meta": null}),
        ] {
            let error = frame(params.clone()).expect_err("refused");
            assert_eq!(
                error.kind(),
                Some(crate::ErrorCode::InvalidArgument),
                "{params}"
            );
        }
    }

    #[test]
    fn a_notification_has_no_id_and_null_params_are_left_out() {
        let frame = notification("note", Route::default(), &()).expect("valid");
        assert_eq!(text(frame), r#"{"jsonrpc":"2.0","method":"note"}"#);
        let frame = notification("note", Route::default(), &Value::Null).expect("valid");
        assert_eq!(text(frame), r#"{"jsonrpc":"2.0","method":"note"}"#);
    }

    #[test]
    fn a_frame_is_one_line_whatever_the_params_look_like() {
        let raw = RawValue::from_string("{\r\n \"a\": \"x\\ny\"\n}".into()).expect("JSON");
        let frame = text(request(1, "m", Route::default(), &raw).expect("valid"));
        assert!(!frame.contains(['\n', '\r']), "{frame}");
        let value: Value = serde_json::from_str(&frame).expect("JSON");
        assert_eq!(value["params"]["a"], "x\ny");
    }

    #[test]
    fn params_that_are_no_json_are_refused() {
        let map = std::collections::HashMap::from([((1, 2), 3)]);
        let error = request(1, "m", Route::default(), &map).expect_err("keys must be strings");
        assert_eq!(error.kind(), Some(crate::ErrorCode::InvalidArgument));
    }

    #[test]
    fn raw_messages_are_one_object_on_one_line_that_asks_nothing() {
        assert!(check_raw(r#"{"jsonrpc":"2.0","method":"note"}"#).is_ok());
        assert!(check_raw(r#"{"jsonrpc":"2.0","id":1,"result":{}}"#).is_ok());
        for bad in [
            "",
            "x",
            "[]",
            "1",
            "{\"a\":\n1}",
            "{}{}",
            r#"{"id":1,"method":"m"}"#,
        ] {
            assert!(check_raw(bad).is_err(), "{bad}");
        }
    }
}
