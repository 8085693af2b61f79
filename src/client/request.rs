//! A request in flight.

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::call::{Call, Step};
use super::trace::Trace;
use crate::driver::Answer;
use crate::error::{Error, Result};
use crate::rpc;

/// A request: a future of its result.
///
/// It is sent when it is first polled (one of
/// [`try_request`](crate::StdioBus::try_request) has been sent already). Dropping it gives it up, unless it was
/// [detached](Self::detach). It holds no [`StdioBus`](crate::StdioBus), so it
/// doesn't keep one alive: when the last of those is dropped it ends with
/// `TransportError`.
///
/// Text that an ACP agent streams while it works on the request
/// (`session/update` with `agent_message_chunk`) is joined into the member
/// `text` of the result, where the result is an object without such a member;
/// an agent's own `text` is kept. [`StdioBus::stream_request`](crate::StdioBus::stream_request)
/// gives the pieces as they come.
///
/// # Panics
/// When it is polled after it has ended.
#[must_use = "a request is sent when it is first polled"]
pub struct Request<T = Value> {
    call: Call,
    trace: Trace,
    /// The chunks so far; `None` without any.
    text: Option<String>,
    result: PhantomData<fn() -> T>,
}

impl<T> Request<T> {
    pub(super) fn new(trace: Trace, call: Call) -> Self {
        Self {
            call,
            trace,
            text: None,
            result: PhantomData,
        }
    }

    /// Its number, which no other request of the bus has: that by which
    /// [`Notification::request_id`](crate::Notification::request_id) names it.
    pub fn id(&self) -> u64 {
        self.call.id()
    }

    /// Sends it, if that hasn't happened yet, and lets it go: the worker
    /// finishes it, and nobody gets the answer.
    ///
    /// # Errors
    /// `InvalidState` and `InvalidArgument` as for
    /// [`StdioBus::request`](crate::StdioBus::request).
    pub fn detach(mut self) -> Result<()> {
        let call = self.call;
        let sent = self.trace.in_scope(|| call.detach());
        self.trace.detached(sent)
    }
}

impl<T: DeserializeOwned> Future for Request<T> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<T>> {
        let this = &mut *self;
        let result = ready!(
            this.trace
                .in_scope(|| collect(&mut this.call, &mut this.text, cx))
        );
        Poll::Ready(this.trace.ended(result))
    }
}

/// The result, with the text of the chunks that come before it.
fn collect<T: DeserializeOwned>(
    call: &mut Call,
    text: &mut Option<String>,
    cx: &mut Context<'_>,
) -> Poll<Result<T>> {
    loop {
        match ready!(call.poll(cx)) {
            None => panic!("a request was polled after it had ended"),
            Some(Step::End(Err(error))) => return Poll::Ready(Err(error)),
            Some(Step::End(Ok(answer))) => {
                return Poll::Ready(result_with(&answer, text.take()));
            }
            Some(Step::Message(message)) => {
                let parts = message.parts();
                if let Some(chunk) = rpc::chunk(&parts.method, parts.raw_params()) {
                    text.get_or_insert_default().push_str(&chunk);
                }
            }
        }
    }
}

/// The result in an answer, with the text that had come before it.
pub(super) fn result_with<T: DeserializeOwned>(answer: &Answer, text: Option<String>) -> Result<T> {
    let Some(text) = text else {
        return rpc::parse_answer(&answer.frame, answer.from_bus);
    };
    let mut result: Value = rpc::parse_answer(&answer.frame, answer.from_bus)?;
    rpc::join(&mut result, text);
    serde_json::from_value(mem::take(&mut result)).map_err(|e| {
        Error::invalid_argument(format!("the result isn't of the type asked for: {e}"))
            .with_source(e)
    })
}

// All fields are: nothing in here points into itself.
impl<T> Unpin for Request<T> {}

impl<T> fmt::Debug for Request<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("state", &self.call.state())
            .field("id", &self.id())
            .finish()
    }
}
