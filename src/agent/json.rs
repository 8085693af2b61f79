//! JSON that is written as it was read: members in their order, numbers digit by
//! digit, and what nobody here knows.

use std::fmt;

use serde::de::{Error as _, MapAccess, Visitor};
use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

/// What is nested deeper is refused, as by `serde_json`.
const MAX_DEPTH: usize = 120;

#[derive(Debug, Clone)]
pub(super) enum Json {
    Text(String),
    Array(Vec<Json>),
    Object(Object),
    /// A number, a truth value or null, as it was written.
    Other(Box<RawValue>),
}

/// The members of an object, in their order.
#[derive(Debug, Clone, Default)]
pub(super) struct Object(Vec<(String, Json)>);

impl Object {
    /// Of a member that comes twice the last counts.
    pub(super) fn get(&self, name: &str) -> Option<&Json> {
        let found = self.0.iter().rev().find(|(known, _)| known == name);
        found.map(|(_, value)| value)
    }

    /// The text of a member; empty where there is none.
    pub(super) fn text(&self, name: &str) -> &str {
        match self.get(name) {
            Some(Json::Text(text)) => text,
            _ => "",
        }
    }

    /// Sets a member where it stands, else behind the others.
    pub(super) fn set(&mut self, name: &str, value: Json) {
        match self.0.iter_mut().rev().find(|(known, _)| known == name) {
            Some((_, old)) => *old = value,
            None => self.0.push((name.to_owned(), value)),
        }
    }

    pub(super) fn remove(&mut self, name: &str) {
        self.0.retain(|(known, _)| known != name);
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &Json)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value))
    }
}

impl Json {
    pub(super) fn is_null(&self) -> bool {
        matches!(self, Self::Other(raw) if raw.get() == "null")
    }
}

impl From<&str> for Json {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl<'a> FromIterator<(&'a str, Json)> for Object {
    fn from_iter<I: IntoIterator<Item = (&'a str, Json)>>(members: I) -> Self {
        let members = members.into_iter();
        Self(
            members
                .map(|(name, value)| (name.to_owned(), value))
                .collect(),
        )
    }
}

impl Serialize for Object {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Text(text) => serializer.serialize_str(text),
            Self::Object(object) => object.serialize(serializer),
            Self::Other(raw) => raw.serialize(serializer),
            Self::Array(items) => {
                let mut seq = serializer.serialize_seq(Some(items.len()))?;
                for item in items {
                    seq.serialize_element(item)?;
                }
                seq.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = <&RawValue>::deserialize(deserializer)?;
        read(raw, 0).map_err(D::Error::custom)
    }
}

/// Each value is skipped over once as a whole before its parts are read, which
/// only costs where it is deeply nested.
fn read(raw: &RawValue, depth: usize) -> Result<Json, String> {
    if depth > MAX_DEPTH {
        return Err("it is nested too deeply".into());
    }
    let text = raw.get();
    let said = |e: serde_json::Error| e.to_string();
    match text.as_bytes().first() {
        Some(b'"') => serde_json::from_str(text).map(Json::Text).map_err(said),
        Some(b'[') => {
            let items: Vec<&RawValue> = serde_json::from_str(text).map_err(said)?;
            let items = items.into_iter().map(|item| read(item, depth + 1));
            items.collect::<Result<_, _>>().map(Json::Array)
        }
        Some(b'{') => {
            let Members(members) = serde_json::from_str(text).map_err(said)?;
            let members = members
                .into_iter()
                .map(|(name, value)| Ok((name, read(value, depth + 1)?)));
            let members = members.collect::<Result<_, String>>()?;
            Ok(Json::Object(Object(members)))
        }
        _ => Ok(Json::Other(raw.to_owned())),
    }
}

struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;

        impl<'de> Visitor<'de> for InOrder {
            type Value = Vec<(String, &'de RawValue)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(members)
            }
        }

        deserializer.deserialize_map(InOrder).map(Members)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_written_with_its_order_and_its_digits() {
        let text =
            r#"{"z":1e2,"a":[12345678901234567890123,{"b":null,"b":-0.0}],"m":{},"t":"<é\n"}"#;
        let json: Json = serde_json::from_str(text).expect("JSON");
        assert_eq!(serde_json::to_string(&json).expect("JSON"), text);
    }

    #[test]
    fn what_is_nested_too_deeply_is_refused() {
        for n in [1000, 20_000] {
            let text = format!("{}{}", "[".repeat(n), "]".repeat(n));
            assert!(serde_json::from_str::<Json>(&text).is_err(), "{n}");
        }
        let text = format!("{}{}", "[".repeat(100), "]".repeat(100));
        assert!(serde_json::from_str::<Json>(&text).is_ok());
    }

    #[test]
    fn a_member_keeps_its_place_when_it_is_set() {
        let text = r#"{"a":1,"b":2}"#;
        let Ok(Json::Object(mut object)) = serde_json::from_str(text) else {
            panic!("an object");
        };
        object.set("a", "x".into());
        object.set("c", "y".into());
        let written = serde_json::to_string(&object).expect("JSON");
        assert_eq!(written, r#"{"a":"x","b":2,"c":"y"}"#);
        object.remove("b");
        assert_eq!(object.text("c"), "y");
        assert_eq!(object.text("b"), "");
    }
}
