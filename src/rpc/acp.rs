//! What ACP's protocol version 1 and MCP say about messages that belong to a
//! request: which are chunks of the text an agent streams, and which say that
//! it goes on. The next revision is a change in here.

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

/// The notification that streams a turn. [v1 Prompt Turn]
const UPDATE: &str = "session/update";

/// Whether a frame can be a chunk of text. Only a quick look for the one word
/// that every chunk has, or for an escape that may spell it: what passes may be
/// anything.
pub(crate) fn may_be_chunk(frame: &[u8]) -> bool {
    has(frame, b"\"agent_message_chunk\"") || has(frame, b"\\u")
}

/// Whether a frame is MCP's progress, as far as a quick look for its method
/// tells. One that spells it with escapes is taken for none.
pub(crate) fn is_progress(frame: &[u8]) -> bool {
    has(frame, b"\"notifications/progress\"")
}

/// With its quotes a word can't be found inside of a string: there they are
/// escaped.
fn has(frame: &[u8], what: &[u8]) -> bool {
    memchr::memmem::find(frame, what).is_some()
}

/// The text of a chunk of the agent's message: a `session/update` of the kind
/// `agent_message_chunk` with a text block. Thoughts, the user's own chunks and
/// blocks of other types have none.
pub(crate) fn chunk(method: &str, params: Option<&str>) -> Option<String> {
    #[derive(Deserialize)]
    struct Params<'a> {
        #[serde(borrow)]
        update: &'a RawValue,
    }
    #[derive(Deserialize)]
    struct Kind {
        #[serde(rename = "sessionUpdate")]
        kind: String,
    }
    #[derive(Deserialize)]
    struct Update {
        content: Block,
    }
    #[derive(Deserialize)]
    struct Block {
        #[serde(rename = "type")]
        kind: String,
        text: String,
    }

    if method != UPDATE {
        return None;
    }
    let update = serde_json::from_str::<Params<'_>>(params?)
        .ok()?
        .update
        .get();
    // The content of other kinds has other forms.
    let kind: Kind = serde_json::from_str(update).ok()?;
    if kind.kind != "agent_message_chunk" {
        return None;
    }
    let block = serde_json::from_str::<Update>(update).ok()?.content;
    (block.kind == "text").then_some(block.text)
}

/// Adds the joined chunks to a result, as its member `text`. A result that is
/// no object, or has such a member, stays as it is.
pub(crate) fn join(result: &mut Value, text: String) {
    if let Value::Object(members) = result {
        members.entry("text").or_insert(Value::String(text));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn update(kind: &str, content: &Value) -> String {
        let update = json!({"sessionUpdate": kind, "content": content});
        json!({"sessionId": "s", "update": update}).to_string()
    }

    fn text_of(kind: &str, content: &Value) -> Option<String> {
        chunk(UPDATE, Some(&update(kind, content)))
    }

    #[test]
    fn only_text_of_the_agent_is_a_chunk() {
        let text = json!({"type": "text", "text": "hi", "annotations": {}});
        assert_eq!(text_of("agent_message_chunk", &text).as_deref(), Some("hi"));
        for kind in [
            "agent_thought_chunk",
            "user_message_chunk",
            "agent_message",
            "tool_call",
        ] {
            assert_eq!(text_of(kind, &text), None, "{kind}");
        }
        for block in [
            json!({"type": "image", "data": "", "mimeType": "image/png"}),
            json!({"type": "resource_link", "text": "no"}),
            json!({"type": "text"}),
            json!({"type": "text", "text": 1}),
            json!([text]),
            json!(null),
        ] {
            assert_eq!(text_of("agent_message_chunk", &block), None, "{block}");
        }
    }

    #[test]
    fn other_methods_and_odd_params_are_no_chunks() {
        let params = update("agent_message_chunk", &json!({"type": "text", "text": "x"}));
        assert_eq!(chunk("session/other", Some(&params)), None);
        assert_eq!(chunk(UPDATE, None), None);
        for params in ["{}", "[]", "null", r#"{"update":7}"#, r#"{"update":{}}"#] {
            assert_eq!(chunk(UPDATE, Some(params)), None, "{params}");
        }
    }

    #[test]
    fn text_is_added_to_objects_that_have_none() {
        let joined = |mut result: Value| {
            join(&mut result, "abc".into());
            result
        };
        assert_eq!(joined(json!({"a": 1})), json!({"a": 1, "text": "abc"}));
        assert_eq!(joined(json!({"text": null})), json!({"text": null}));
        assert_eq!(joined(json!([1])), json!([1]));
        assert_eq!(joined(json!("x")), json!("x"));
    }

    #[test]
    fn a_word_inside_a_text_is_not_taken_for_one() {
        let frame = json!({"text": "say \"notifications/progress\" and \"agent_message_chunk\""});
        let frame = frame.to_string();
        assert!(!is_progress(frame.as_bytes()));
        assert!(!may_be_chunk(frame.as_bytes()));
        assert!(is_progress(br#"{"method":"notifications/progress"}"#));
    }

    /// Any JSON, a few levels deep.
    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            ".{0,12}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            let name = prop_oneof![
                Just("update".to_owned()),
                Just("sessionUpdate".to_owned()),
                Just("content".to_owned()),
                Just("type".to_owned()),
                Just("text".to_owned()),
                ".{0,6}",
            ];
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec((name, inner), 0..4)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_text_comes_out_as_it_went_in(text in ".*", session in ".*") {
            let params = json!({
                "sessionId": session,
                "update": {
                    "content": {"type": "text", "text": text},
                    "sessionUpdate": "agent_message_chunk",
                },
            }).to_string();
            prop_assert_eq!(chunk(UPDATE, Some(&params)), Some(text));
        }

        #[test]
        fn a_chunk_is_never_missed_by_the_quick_look(params in any_json(), kind in any::<bool>()) {
            let mut params = params;
            if kind && params.pointer("/update").is_some_and(Value::is_object) {
                params["update"]["sessionUpdate"] = json!("agent_message_chunk");
            }
            let text = params.to_string();
            if chunk(UPDATE, Some(&text)).is_some() {
                prop_assert!(may_be_chunk(text.as_bytes()));
            }
        }

        #[test]
        fn nothing_that_comes_breaks_the_rule(params in ".*", tree in any_json()) {
            let _ = chunk(UPDATE, Some(&params));
            let _ = chunk(UPDATE, Some(&tree.to_string()));
            let mut result = tree.clone();
            join(&mut result, "t".into());
            match tree {
                Value::Object(_) => prop_assert!(result.get("text").is_some()),
                other => prop_assert_eq!(result, other),
            }
        }
    }
}
