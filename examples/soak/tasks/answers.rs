//! How the answers to a task are awaited.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;

use serde_json::Value;
use stdiobus::{Error, Request, ResponseStream, StreamEvent};

use crate::check::{Ledger, Sent, get, one};
use crate::plan::Work;

/// Polls them in their order, which is the order in which they are sent.
pub(super) async fn together(requests: Vec<Request>) -> Vec<Result<Value, Error>> {
    let mut outcomes: Vec<_> = requests.iter().map(|_| None).collect();
    let mut requests = requests;
    poll_fn(|cx| {
        for (request, outcome) in requests.iter_mut().zip(&mut outcomes) {
            if outcome.is_none()
                && let Poll::Ready(ended) = Pin::new(request).poll(cx)
            {
                *outcome = Some(ended);
            }
        }
        if outcomes.iter().all(Option::is_some) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
    outcomes.into_iter().flatten().collect()
}

/// Reads a stream to its end. What comes before that is its own, and in order.
pub(super) async fn read(
    mut stream: ResponseStream,
    sent: &Sent,
    ledger: &Ledger,
) -> Result<Value, Error> {
    let mut next = 0;
    while let Some(event) = stream.next().await {
        let text = match event? {
            StreamEvent::Chunk(text) => text,
            StreamEvent::Update(update) => update.params()["message"]
                .as_str()
                .unwrap_or_default()
                .to_owned(),
            StreamEvent::Result(result) => {
                if stream.next().await.is_some() {
                    ledger.violates(&ledger.duplicated, format!("{sent:?} ended twice"));
                }
                let whole = next == chunks(sent) || result["stopReason"] == "cancelled";
                if !whole {
                    let text = format!("{sent:?} had {next} chunks before {result}");
                    ledger.violates(&ledger.misdelivered, text);
                }
                return Ok(result);
            }
            other => format!("{other:?}"),
        };
        if text != format!("{}:{next} ", sent.nonce) {
            let text = format!("{sent:?} heard {text:?} as its piece {next}");
            ledger.violates(&ledger.misdelivered, text);
        }
        next += 1;
        one(&ledger.heard);
    }
    let text = format!(
        "{sent:?} ended without a result, after {} sent",
        get(&ledger.sent)
    );
    ledger.violates(&ledger.lost, text);
    Ok(Value::Null)
}

fn chunks(sent: &Sent) -> u64 {
    match sent.work {
        Work::Stream { chunks, .. } => chunks,
        _ => 0,
    }
}
