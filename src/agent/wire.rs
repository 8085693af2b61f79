//! Lines of an agent: what is asked, in the order in which it is checked, and
//! what is answered. Ids travel as they were written.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::task::METHOD;
use crate::error::RpcError;

/// What a line asks for.
#[derive(Debug)]
pub(super) enum Asked<'a> {
    Task(Call<'a>),
    /// It can't be done; here is why.
    Refused(Refusal<'a>),
    /// A notification, which is not answered.
    Notification,
}

/// A valid `tasks/send`.
#[derive(Debug)]
pub(super) struct Call<'a> {
    pub(super) id: &'a RawValue,
    pub(super) task: String,
    pub(super) parts: Vec<InPart<'a>>,
}

impl Call<'_> {
    /// The text parts, one per line.
    pub(super) fn text(&self) -> String {
        let texts = self.parts.iter().filter(|part| part.kind == "text");
        let texts: Vec<_> = texts.map(|part| part.text.as_str()).collect();
        texts.join("\n")
    }
}

/// One part of the message.
#[derive(Debug)]
pub(super) struct InPart<'a> {
    pub(super) kind: String,
    pub(super) text: String,
    /// All of it, as it was written.
    pub(super) raw: &'a RawValue,
}

/// What is wrong with a line.
#[derive(Debug)]
pub(super) struct Refusal<'a> {
    pub(super) id: Option<&'a RawValue>,
    /// The thread, where it is known.
    pub(super) task: String,
    // Boxed, so that a Result is small where nothing is wrong.
    pub(super) error: Box<RpcError>,
}

impl<'a> Refusal<'a> {
    fn new(id: Option<&'a RawValue>, code: i64, message: impl Into<String>) -> Self {
        Self {
            id,
            task: String::new(),
            error: Box::new(RpcError::new(code, message)),
        }
    }
}

/// A field has another type than it should.
struct WrongType;

/// Reads a line. `strict`: a notification is refused as the reference does it.
pub(super) fn read(line: &[u8], strict: bool) -> Asked<'_> {
    checked(line, strict).unwrap_or_else(Asked::Refused)
}

fn checked(line: &[u8], strict: bool) -> Result<Asked<'_>, Refusal<'_>> {
    let no_json = || Refusal::new(None, -32700, "parse error");
    // The last of several members of a name counts.
    let members: Option<HashMap<String, &RawValue>> =
        serde_json::from_slice(line).map_err(|_| no_json())?;
    let members = members.unwrap_or_default();
    let member = |name| members.get(name).copied();
    let version = text(member("jsonrpc")).map_err(|_| no_json())?;
    let method = text(member("method")).map_err(|_| no_json())?;
    let id = member("id");
    let invalid = |reason: &str| Refusal::new(id, -32600, format!("invalid request: {reason}"));
    if version != "2.0" {
        return Err(invalid("jsonrpc must be \"2.0\""));
    }
    if method.is_empty() {
        return Err(invalid("method is required"));
    }
    let id = match id {
        None if !strict => return Ok(Asked::Notification),
        Some(id) if id.get() != "null" => id,
        _ => return Err(invalid("id is required")),
    };
    if method != METHOD {
        let text = format!("method not found: {method}");
        return Err(Refusal::new(Some(id), -32601, text));
    }
    call(id, member("params")).map(Asked::Task)
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Params<'a> {
    id: Option<String>,
    #[serde(borrow)]
    message: Option<&'a RawValue>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct InMessage<'a> {
    role: Option<String>,
    #[serde(borrow)]
    parts: Option<Vec<&'a RawValue>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct PartHead {
    #[serde(rename = "type")]
    kind: Option<String>,
    text: Option<String>,
}

fn call<'a>(id: &'a RawValue, params: Option<&'a RawValue>) -> Result<Call<'a>, Refusal<'a>> {
    let (task, role, parts) =
        decode(params).map_err(|_| Refusal::new(Some(id), -32602, "invalid params"))?;
    let invalid = |reason: &str| {
        let mut refusal = Refusal::new(Some(id), -32602, format!("invalid params: {reason}"));
        refusal.task.clone_from(&task);
        refusal
    };
    if task.is_empty() {
        return Err(invalid("task id is required"));
    }
    if role != "user" {
        return Err(invalid("message role must be \"user\""));
    }
    if parts.is_empty() {
        return Err(invalid("message must have at least one part"));
    }
    if let Some(i) = parts.iter().position(|part| part.kind.is_empty()) {
        return Err(invalid(&format!("part[{i}] type is required")));
    }
    Ok(Call { id, task, parts })
}

/// The task, the role and the parts.
fn decode(params: Option<&RawValue>) -> Result<(String, String, Vec<InPart<'_>>), WrongType> {
    let params: Params<'_> = object(params)?;
    let message: InMessage<'_> = object(params.message)?;
    let part = |raw| {
        let head: PartHead = object(Some(raw))?;
        Ok(InPart {
            kind: head.kind.unwrap_or_default(),
            text: head.text.unwrap_or_default(),
            raw,
        })
    };
    let parts = message.parts.into_iter().flatten().map(part);
    let parts = parts.collect::<Result<_, _>>()?;
    let text = Option::unwrap_or_default;
    Ok((text(params.id), text(message.role), parts))
}

/// An object's known members; those of `null` are not there.
fn object<'a, T: Default + Deserialize<'a>>(raw: Option<&'a RawValue>) -> Result<T, WrongType> {
    match raw.map(RawValue::get) {
        None | Some("null") => Ok(T::default()),
        Some(text) if text.starts_with('{') => serde_json::from_str(text).map_err(|_| WrongType),
        Some(_) => Err(WrongType),
    }
}

fn text(raw: Option<&RawValue>) -> Result<String, WrongType> {
    let text = raw.map_or(Ok(None), |raw| {
        serde_json::from_str::<Option<String>>(raw.get())
    });
    text.map(Option::unwrap_or_default).map_err(|_| WrongType)
}

/// A line with a result.
pub(super) fn answer(id: &RawValue, result: &impl Serialize) -> Vec<u8> {
    line(Some(id), "result", result)
}

/// A line with an error.
pub(super) fn refuse(id: Option<&RawValue>, error: &RpcError) -> Vec<u8> {
    line(id, "error", error)
}

fn line(id: Option<&RawValue>, name: &str, value: &impl Serialize) -> Vec<u8> {
    let mut out = br#"{"jsonrpc":"2.0","id":"#.to_vec();
    out.extend_from_slice(id.map_or("null", RawValue::get).as_bytes());
    out.extend_from_slice(format!(",\"{name}\":").as_bytes());
    // A Vec takes everything, and all keys are strings.
    let _ = serde_json::to_writer(&mut out, value);
    out.push(b'}');
    // Between the tokens of what is given back as it came; some readers would take
    // it for the end of a line.
    out.iter_mut()
        .filter(|byte| **byte == b'\r')
        .for_each(|byte| *byte = b' ');
    out.push(b'\n');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(line: &str, strict: bool) -> String {
        match read(line.as_bytes(), strict) {
            Asked::Refused(refusal) => {
                let out = refuse(refusal.id, &refusal.error);
                String::from_utf8(out).expect("UTF-8")
            }
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn ids_and_parts_are_given_back_as_they_were_written() {
        let line = "{\"jsonrpc\":\"2.0\",\"id\":1E2,\"method\":\"tasks/send\",\"params\":{\"id\":\"t\",\
                    \"message\":{\"role\":\"user\",\"parts\":[{\"type\":\"data\",\"data\":1e400, \"x\":\r1}]}}}";
        let Asked::Task(call) = read(line.as_bytes(), false) else {
            panic!("it is valid");
        };
        assert_eq!(
            call.parts[0].raw.get(),
            "{\"type\":\"data\",\"data\":1e400, \"x\":\r1}"
        );
        let out = answer(call.id, &[call.parts[0].raw]);
        assert_eq!(
            String::from_utf8(out).expect("UTF-8"),
            "{\"jsonrpc\":\"2.0\",\"id\":1E2,\"result\":[{\"type\":\"data\",\"data\":1e400, \"x\": 1}]}\n"
        );
    }

    #[test]
    fn a_notification_is_one_only_where_all_before_the_id_is_right() {
        let note = r#"{"jsonrpc":"2.0","method":"m"}"#;
        assert!(matches!(read(note.as_bytes(), false), Asked::Notification));
        assert!(error(note, true).contains("id is required"));
        assert!(error(r#"{"method":"m"}"#, false).contains("jsonrpc must be"));
        assert!(error(r#"{"jsonrpc":"2.0"}"#, false).contains("method is required"));
    }

    #[test]
    fn the_last_of_several_members_counts_and_arrays_are_no_objects() {
        let line = r#"{"id":1,"jsonrpc":"1.0","jsonrpc":"2.0","id":2,"method":"m"}"#;
        assert!(
            error(line, false).starts_with(r#"{"jsonrpc":"2.0","id":2,"error":{"code":-32601"#)
        );
        let line =
            r#"{"jsonrpc":"2.0","id":1,"method":"tasks/send","params":["t",{"role":"user"}]}"#;
        assert!(error(line, false).contains(r#""invalid params""#));
    }
}
