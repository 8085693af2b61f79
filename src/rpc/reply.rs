//! Answering what workers ask.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::error::RpcError;

/// The code of "too much is waiting", as the bus uses it.
const OVERLOADED: i64 = -32012;

/// The answer to the request with this id token, which comes back byte for byte.
pub(crate) fn reply(id: &[u8], outcome: &Result<Value, RpcError>) -> Vec<u8> {
    match outcome {
        Ok(result) => answer(id, "result", result),
        Err(error) => answer(id, "error", error),
    }
}

fn answer(id: &[u8], member: &str, value: &impl Serialize) -> Vec<u8> {
    let mut out = Vec::with_capacity(128);
    out.extend_from_slice(br#"{"jsonrpc":"2.0","id":"#);
    out.extend_from_slice(if id.is_empty() { b"null" } else { id });
    out.extend_from_slice(b",\"");
    out.extend_from_slice(member.as_bytes());
    out.extend_from_slice(b"\":");
    // A tree has text for keys, and a Vec takes everything: this can't fail.
    let _ = serde_json::to_writer(&mut out, value);
    out.push(b'}');
    out
}

/// The answer to a request of a worker that nothing here takes. `id` is its
/// token, `frame` the request.
pub(crate) fn refusal(id: &[u8], frame: &[u8]) -> Vec<u8> {
    #[derive(Deserialize)]
    struct Request {
        #[serde(default)]
        method: String,
    }

    let method = serde_json::from_slice::<Request>(frame)
        .map(|r| r.method)
        .unwrap_or_default();
    // ACP has an answer of its own for a permission nobody can give.
    if method == "session/request_permission" {
        return reply(id, &Ok(json!({"outcome": {"outcome": "cancelled"}})));
    }
    reply(id, &Err(RpcError::new(-32601, "Method not found")))
}

/// The answer to a request that there is no room for now.
pub(crate) fn overload(id: &[u8]) -> Vec<u8> {
    let error = RpcError::new(OVERLOADED, "Too many requests of workers wait here")
        .with_data(json!({"source": "stdio_bus", "reason": "overloaded"}));
    reply(id, &Err(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(frame: Vec<u8>) -> Value {
        serde_json::from_slice(&frame).expect("JSON")
    }

    #[test]
    fn a_worker_is_refused_under_its_own_id() {
        let answer = read(refusal(b"\"x\"", br#"{"method":"roots/list"}"#));
        assert_eq!(answer["id"], "x");
        assert_eq!(answer["error"]["code"], -32601);
        let answer = read(refusal(b"0", br#"{"method":"session/request_permission"}"#));
        assert_eq!(answer["result"]["outcome"]["outcome"], "cancelled");
    }

    #[test]
    fn an_id_comes_back_byte_for_byte() {
        for id in [
            "0",
            "-1.50e3",
            "\"\\u0061\\/\"",
            "123456789012345678901234567890",
        ] {
            let frame = reply(id.as_bytes(), &Ok(json!({"a": 1})));
            let expected = format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{"a":1}}}}"#);
            assert_eq!(String::from_utf8(frame).expect("UTF-8"), expected);
        }
    }

    #[test]
    fn an_overload_says_what_it_is() {
        let answer = read(overload(b"7"));
        assert_eq!(answer["id"], 7);
        assert_eq!(answer["error"]["code"], OVERLOADED);
        assert_eq!(answer["error"]["data"]["reason"], "overloaded");
    }

    #[test]
    fn an_error_has_data_only_where_it_was_given() {
        let answer = read(reply(b"1", &Err(RpcError::internal("no"))));
        assert_eq!(answer["error"], json!({"code": -32603, "message": "no"}));
    }
}
