//! What is asked again and again.

use std::io::Write;
use std::time::Duration;

use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use stdiobus::RequestOptions;

use super::args::BenchArgs;

const SIZE: u32 = 200;

/// The method that the echo worker never answers.
const HOLD: &str = "hold";

/// What ids look like most of the time, for the size of a request.
const SOME_ID: u64 = 1_000_000;

#[derive(Debug, Clone)]
pub(super) struct Work {
    pub(super) method: String,
    pub(super) params: Params,
    pub(super) sessions: u64,
    pub(super) timeout: Duration,
    pool: Option<String>,
}

#[derive(Debug, Clone)]
pub(super) enum Params {
    Given(Box<RawValue>),
    /// An object with a text.
    Filled(String),
}

impl Serialize for Params {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Filled<'a> {
            d: &'a str,
        }

        match self {
            Self::Given(params) => params.serialize(serializer),
            Self::Filled(text) => Filled { d: text }.serialize(serializer),
        }
    }
}

impl Work {
    pub(super) fn new(args: &BenchArgs) -> Self {
        let mut work = Self {
            method: args.method.clone(),
            params: Params::Filled(String::new()),
            sessions: args.sessions,
            timeout: args.timeout,
            pool: args.pool.clone(),
        };
        if let Some(params) = &args.params {
            work.params = Params::Given(params.clone());
        } else {
            let wanted = args.size.unwrap_or(SIZE) as usize;
            let room = wanted.saturating_sub(work.size());
            work.params = Params::Filled("x".repeat(room));
        }
        work
    }

    /// The same with so many sessions.
    pub(super) fn over(&self, sessions: u64) -> Self {
        Self {
            sessions,
            ..self.clone()
        }
    }

    /// What is asked and stays without an answer.
    pub(super) fn held(&self) -> Self {
        Self {
            method: HOLD.into(),
            params: Params::Filled(String::new()),
            ..self.clone()
        }
    }

    /// Bytes of a request on the wire.
    pub(super) fn size(&self) -> usize {
        Lines::new(self).with(SOME_ID, 0).len()
    }

    pub(super) fn options(&self, session: u64) -> RequestOptions {
        let options = RequestOptions::new()
            .session_id(format!("sess-{session:07}"))
            .timeout(self.timeout);
        match &self.pool {
            Some(pool) => options.pool(pool),
            None => options,
        }
    }
}

/// Requests as lines, for a connection.
#[derive(Debug)]
pub(super) struct Lines {
    after_id: Vec<u8>,
    after_session: Vec<u8>,
    line: Vec<u8>,
}

impl Lines {
    pub(super) fn new(work: &Work) -> Self {
        let mut after_id = format!(",\"method\":{}", json(&work.method)).into_bytes();
        if let Some(pool) = &work.pool {
            after_id.extend_from_slice(b",\"pool\":");
            after_id.extend_from_slice(json(pool).as_bytes());
        }
        after_id.extend_from_slice(b",\"sessionId\":\"sess-");
        Self {
            after_id,
            after_session: format!("\",\"params\":{}}}\n", json(&work.params)).into_bytes(),
            line: Vec::new(),
        }
    }

    pub(super) fn with(&mut self, id: u64, session: u64) -> &[u8] {
        self.line.clear();
        // Writing to a Vec can't fail.
        let _ = write!(self.line, "{{\"jsonrpc\":\"2.0\",\"id\":{id}");
        self.line.extend_from_slice(&self.after_id);
        let _ = write!(self.line, "{session:07}");
        self.line.extend_from_slice(&self.after_session);
        &self.line
    }
}

/// Texts, and params that were JSON or are one text, always serialize.
fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn work(params: Params) -> Work {
        Work {
            method: "a \"b\"".into(),
            params,
            sessions: 1,
            timeout: Duration::from_secs(1),
            pool: Some("p".into()),
        }
    }

    #[test]
    fn a_line_is_a_request_with_everything_in_it() {
        let work = work(Params::Filled("xx".into()));
        let mut lines = Lines::new(&work);
        let line = lines.with(SOME_ID, 3);
        assert_eq!(line.iter().position(|b| *b == b'\n'), Some(line.len() - 1));
        assert_eq!(line.len(), work.size());
        let read: Value = serde_json::from_slice(line).expect("JSON");
        let wanted = json!({
            "jsonrpc": "2.0", "id": SOME_ID, "method": "a \"b\"", "pool": "p",
            "sessionId": "sess-0000003", "params": {"d": "xx"},
        });
        assert_eq!(read, wanted);
    }

    #[test]
    fn given_params_are_sent_as_they_are() {
        let given = RawValue::from_string("[1.50]".into()).expect("JSON");
        let work = work(Params::Given(given));
        let line = String::from_utf8_lossy(Lines::new(&work).with(1, 0)).into_owned();
        assert!(line.ends_with(",\"params\":[1.50]}\n"), "{line}");
    }
}
