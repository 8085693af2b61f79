//! The handlers that answer at once.

use serde::Serialize;
use serde_json::value::RawValue;

use super::spec::Handler;
use super::task::{Part, TaskState};
use super::wire::{Call, InPart, answer};

/// The answer of echo or greeter.
pub(super) fn at_once(handler: &Handler, call: &Call<'_>) -> Vec<u8> {
    match handler {
        Handler::Greeter => completed(call, greeting),
        _ => completed(call, |part| OutPart::Same(part.raw)),
    }
}

/// Texts with a greeting, other parts as they came.
fn greeting<'a>(part: &InPart<'a>) -> OutPart<'a> {
    match part.kind.as_str() {
        "text" => OutPart::New(Part::text(format!("Hello! You said: {}", part.text))),
        _ => OutPart::Same(part.raw),
    }
}

fn completed<'a>(call: &Call<'a>, part: impl FnMut(&InPart<'a>) -> OutPart<'a>) -> Vec<u8> {
    let task = OutTask {
        id: &call.task,
        status: OutStatus {
            state: TaskState::Completed,
        },
        artifacts: [OutArtifact {
            parts: call.parts.iter().map(part).collect(),
        }],
    };
    answer(call.id, &task)
}

// A task whose parts may be JSON as it came, numbers and unknown members included.

#[derive(Serialize)]
struct OutTask<'a> {
    id: &'a str,
    status: OutStatus,
    artifacts: [OutArtifact<'a>; 1],
}

#[derive(Serialize)]
struct OutStatus {
    state: TaskState,
}

#[derive(Serialize)]
struct OutArtifact<'a> {
    parts: Vec<OutPart<'a>>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum OutPart<'a> {
    Same(&'a RawValue),
    New(Part),
}
