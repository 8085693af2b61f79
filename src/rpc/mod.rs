//! JSON-RPC without I/O: writing frames, reading answers and workers' own
//! messages, and the table of requests in flight. Nothing in here knows a
//! runtime, a socket or a clock.

mod acp;
mod answer;
mod envelope;
mod lines;
mod message;
mod pending;
mod relations;
mod reply;

pub(crate) use acp::{chunk, is_progress, join, may_be_chunk};
pub(crate) use answer::parse_answer;
pub(crate) use envelope::{Route, check_raw, notification, request};
pub(crate) use lines::{Lines, release};
pub(crate) use message::{Parts, session_in};
pub(crate) use pending::Pending;
pub(crate) use relations::{Glance, Kind, Relations};
pub(crate) use reply::{overload, refusal, reply};
