//! Reading answers.

use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;

use crate::error::{Error, ErrorCode, Result, RpcError, WorkerExit};

/// The result in an answer, or the error it carries. An error made by the bus
/// itself becomes one of ours; a worker's is passed on as it is.
pub(crate) fn parse_answer<T: DeserializeOwned>(frame: &[u8], from_bus: bool) -> Result<T> {
    let unreadable = |e: serde_json::Error| {
        let text = format!("the answer can't be read: {e}");
        Error::new(ErrorCode::TransportError, text).with_source(e)
    };
    let answer: Answer<T> = serde_json::from_slice(frame).map_err(|e| {
        if e.is_data() {
            Error::invalid_argument(format!("the result isn't of the type asked for: {e}"))
                .with_source(e)
        } else {
            unreadable(e)
        }
    })?;
    match answer {
        Answer {
            error: Some(error), ..
        } => match RpcError::deserialize(error).map_err(unreadable)? {
            error if from_bus => Err(bus_error(error)),
            error => Err(error.into()),
        },
        Answer {
            result: Some(result),
            ..
        } => Ok(result),
        _ => Err(Error::new(
            ErrorCode::TransportError,
            "the answer has no result and no error",
        )),
    }
}

struct Answer<T> {
    result: Option<T>,
    /// Whatever the worker calls one.
    error: Option<Value>,
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "lowercase")]
enum Member {
    Result,
    Error,
    #[serde(other)]
    Other,
}

// By hand, because a derived one refuses a member that comes twice: the bus
// takes the last one, and so do we.
impl<'de, T: Deserialize<'de>> Deserialize<'de> for Answer<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Members<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Members<T> {
            type Value = Answer<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON-RPC answer")
            }

            fn visit_map<A: MapAccess<'de>>(
                self,
                mut map: A,
            ) -> std::result::Result<Answer<T>, A::Error> {
                let mut answer = Answer {
                    result: None,
                    error: None,
                };
                while let Some(member) = map.next_key()? {
                    match member {
                        // `Some(T)`, not `Option<T>`: a null result is a result.
                        Member::Result => answer.result = Some(map.next_value()?),
                        // Some workers send `"error":null` beside a result.
                        Member::Error => answer.error = map.next_value()?,
                        Member::Other => {
                            map.next_value::<IgnoredAny>()?;
                        }
                    }
                }
                Ok(answer)
            }
        }

        deserializer.deserialize_map(Members(PhantomData))
    }
}

/// What `data` says in an error that the bus made.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct BusData {
    pool: String,
    worker: Option<usize>,
    exit: Option<ExitData>,
    sent: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ExitData {
    code: Option<i32>,
    signal: Option<i32>,
    uptime_ms: u64,
    stderr_tail: String,
}

fn bus_error(rpc: RpcError) -> Error {
    let kind = match rpc.code {
        -32700 | -32600 | -32602 | -32010 => ErrorCode::InvalidArgument,
        -32601 => ErrorCode::NotSupported,
        -32012 => ErrorCode::ResourceExhausted,
        -32014 => ErrorCode::PolicyDenied,
        _ => ErrorCode::TransportError,
    };
    let data = rpc
        .data
        .as_ref()
        .and_then(|data| BusData::deserialize(data).ok());
    let pool = data.as_ref().map(|data| data.pool.clone());
    let exit = data.and_then(|data| {
        let exit = data.exit?;
        Some(WorkerExit {
            pool: data.pool,
            worker: data.worker.unwrap_or(0),
            code: exit.code,
            signal: exit.signal,
            uptime: Duration::from_millis(exit.uptime_ms),
            stderr_tail: exit.stderr_tail,
            request_sent: data.sent,
        })
    });
    if rpc.code == -32013 {
        return Error::shutting_down().with_rpc(rpc, exit);
    }
    let message = match (&exit, pool) {
        (Some(exit), _) => format!("{}: {exit}", rpc.message),
        (None, Some(pool)) if !pool.is_empty() => format!("{} (pool {pool:?})", rpc.message),
        (None, _) => rpc.message.clone(),
    };
    Error::new(kind, message).with_rpc(rpc, exit)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(frame: &str, from_bus: bool) -> Result<Value> {
        parse_answer(frame.as_bytes(), from_bus)
    }

    #[test]
    fn a_result_is_found_wherever_it_stands() {
        let frame = r#"{"id":1,"x":[{}],"result":{"a":1},"jsonrpc":"2.0"}"#;
        assert_eq!(read(frame, false).expect("result"), json!({"a": 1}));
        assert_eq!(
            read(r#"{"result":null}"#, false).expect("result"),
            Value::Null
        );
        assert_eq!(
            read(r#"{"result":1,"error":null}"#, false).expect("result"),
            json!(1)
        );
        assert_eq!(
            read(r#"{"result":1,"result":2}"#, false).expect("result"),
            json!(2)
        );
        assert_eq!(
            read(r#"{"r\u0065sult":3}"#, false).expect("result"),
            json!(3)
        );
    }

    #[test]
    fn the_error_of_a_worker_stays_as_it_is_even_with_a_number_of_ours() {
        let frame =
            r#"{"id":1,"error":{"code":-32011,"message":"mine","data":{"source":"stdio_bus"}}}"#;
        match read(frame, false).expect_err("error") {
            Error::Rpc {
                code,
                message,
                data,
            } => {
                assert_eq!((code, message.as_str()), (-32011, "mine"));
                assert_eq!(data, Some(json!({"source": "stdio_bus"})));
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn errors_of_the_bus_have_a_kind_each() {
        let kinds = [
            (-32700, ErrorCode::InvalidArgument),
            (-32600, ErrorCode::InvalidArgument),
            (-32010, ErrorCode::InvalidArgument),
            (-32011, ErrorCode::TransportError),
            (-32012, ErrorCode::ResourceExhausted),
            (-32013, ErrorCode::TransportError),
            (-32014, ErrorCode::PolicyDenied),
        ];
        for (code, kind) in kinds {
            let frame = format!(r#"{{"id":1,"error":{{"code":{code},"message":"m"}}}}"#);
            let error = read(&frame, true).expect_err("error");
            assert_eq!(error.kind(), Some(kind), "{code}");
            assert_eq!(error.rpc_code(), Some(code));
        }
    }

    #[test]
    fn the_exit_of_a_worker_can_be_asked_for() {
        let frame = r#"{"id":1,"error":{"code":-32011,"message":"Worker exited","data":{
            "source":"stdio_bus","reason":"worker_exited","pool":"p","worker":2,"sent":true,
            "exit":{"signal":9,"uptime_ms":1500,"stderr_tail":"oops"}}}}"#;
        let error = read(frame, true).expect_err("error");
        let exit = error.exit().expect("exit");
        assert_eq!((exit.pool.as_str(), exit.worker), ("p", 2));
        assert_eq!((exit.code, exit.signal), (None, Some(9)));
        assert_eq!(exit.uptime, Duration::from_millis(1500));
        assert_eq!(
            (exit.stderr_tail.as_str(), exit.request_sent),
            ("oops", Some(true))
        );
        assert!(error.is_retryable());
    }

    #[test]
    fn what_no_json_library_takes_is_a_typed_error() {
        for frame in [&b"{\"result\":\"\xff\"}"[..], b"{\"result\":", b"{}", b""] {
            let error = parse_answer::<Value>(frame, false).expect_err("not readable");
            assert_eq!(error.kind(), Some(ErrorCode::TransportError), "{error}");
        }
        let deep = format!("{{\"result\":{}{}}}", "[".repeat(1000), "]".repeat(1000));
        assert!(read(&deep, false).is_err());
    }

    #[test]
    fn an_error_that_is_none_is_not_taken_for_a_result() {
        for error in [
            r#""no""#,
            "{}",
            r#"{"code":"E"}"#,
            r#"{"code":1,"message":[]}"#,
        ] {
            let frame = format!(r#"{{"id":1,"error":{error}}}"#);
            let error = read(&frame, false).expect_err("not readable");
            assert_eq!(error.kind(), Some(ErrorCode::TransportError), "{error}");
            assert!(error.to_string().contains("can't be read"), "{error}");
        }
    }

    #[test]
    fn a_result_of_another_type_says_so() {
        let error = parse_answer::<u32>(br#"{"result":"x"}"#, false).expect_err("a string");
        assert_eq!(error.kind(), Some(ErrorCode::InvalidArgument));
    }
}
