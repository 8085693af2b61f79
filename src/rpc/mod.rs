//! JSON-RPC without I/O: writing frames, reading answers, and the table of
//! requests in flight. Nothing in here knows a runtime, a socket or a clock.

mod answer;
mod envelope;
mod pending;

pub(crate) use answer::{parse_answer, refusal};
pub(crate) use envelope::{Route, check_raw, notification, request};
pub(crate) use pending::Pending;
