//! A request whose pieces are seen as they come.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_core::Stream;
use serde_json::Value;

use super::call::{Call, Step};
use super::notifications::Notification;
use super::request::result_with;
use super::trace::Trace;
use crate::error::Result;
use crate::rpc;

/// One piece of a [`ResponseStream`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum StreamEvent {
    /// Text that the agent adds to its answer: that of a `session/update` with
    /// an `agent_message_chunk` whose content is of type `text`. The agent's
    /// thoughts and the user's own words are [updates](Self::Update).
    Chunk(String),
    /// Anything else the worker said about the request: a tool call, a plan, a
    /// thought, progress.
    Update(Notification),
    /// The result; nothing comes after it. Where it is an object, its member
    /// `text` is all chunks joined, unless there were none or the worker had
    /// sent a `text` of its own.
    Result(Value),
}

/// A request, as a stream: what belongs to it in the order it came, then
/// exactly one [`StreamEvent::Result`] or an error, then nothing.
///
/// It is sent when it is first polled. Its timeout is one for the whole, and
/// what has come in time beats it. Dropping it gives the request up, and the
/// worker is told where its protocol has a way. Like a
/// [`Request`](crate::Request) it doesn't keep a bus alive.
///
/// What isn't taken waits, up to
/// [`RequestOptions::max_waiting`](crate::RequestOptions::max_waiting) bytes;
/// beyond that the stream ends with `ResourceExhausted`, after what waits.
/// Other streams don't notice.
#[must_use = "a request is sent when its stream is first polled"]
pub struct ResponseStream {
    call: Call,
    trace: Trace,
    /// The chunks so far; `None` without any.
    text: Option<String>,
}

impl ResponseStream {
    pub(super) fn new(trace: Trace, call: Call) -> Self {
        Self {
            call,
            trace,
            text: None,
        }
    }

    /// The number of the request, as
    /// [`Notification::request_id`](crate::Notification::request_id) has it.
    pub fn id(&self) -> u64 {
        self.call.id()
    }

    /// The next piece; `None` after the result or an error.
    ///
    /// # Errors
    /// As for [`StdioBus::stream_request`](crate::StdioBus::stream_request).
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Result<StreamEvent>> {
        poll_fn(|cx| self.poll(cx)).await
    }

    /// The next piece if there is one now; `None` where there is none, be it that
    /// the stream is over ([`is_closed`](Self::is_closed)). The first call sends the
    /// request.
    ///
    /// # Errors
    /// As for [`next`](Self::next).
    pub fn try_next(&mut self) -> Option<Result<StreamEvent>> {
        let step = self.trace.in_scope(|| self.call.try_next())?;
        Some(self.piece(step))
    }

    /// Whether the stream is over: the result or an error has been taken.
    pub fn is_closed(&self) -> bool {
        self.call.is_done()
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<StreamEvent>>> {
        let step = ready!(self.trace.in_scope(|| self.call.poll(cx)));
        Poll::Ready(step.map(|step| self.piece(step)))
    }

    fn piece(&mut self, step: Step) -> Result<StreamEvent> {
        match step {
            Step::Message(message) => Ok(self.event(Notification::new(message))),
            Step::End(outcome) => {
                let result = outcome.and_then(|answer| result_with(&answer, self.text.take()));
                self.trace.ended(result).map(StreamEvent::Result)
            }
        }
    }

    fn event(&mut self, update: Notification) -> StreamEvent {
        match rpc::chunk(update.method(), update.raw_params()) {
            Some(chunk) => {
                self.text.get_or_insert_default().push_str(&chunk);
                StreamEvent::Chunk(chunk)
            }
            None => StreamEvent::Update(update),
        }
    }
}

impl Stream for ResponseStream {
    type Item = Result<StreamEvent>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll(cx)
    }
}

impl fmt::Debug for ResponseStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseStream")
            .field("state", &self.call.state())
            .field("id", &self.id())
            .finish()
    }
}
