//! What a request and a stream have in common: sent when first polled, given
//! up when dropped, collected piece by piece.

use std::mem;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use super::check_running;
use super::options::RequestOptions;
use crate::driver::{
    Answer, Budget, Command, Ended, Handle, Item, Mailbox, NewRequest, Patience, Place,
    SharedMessage, Wants, mailbox,
};
use crate::error::{Error, ErrorCode, Result};

/// Progress can put the default timeout off to this many times its length.
const PATIENCE: u32 = 10;

/// A request on its way through its life.
#[derive(Debug)]
pub(super) struct Call {
    id: u64,
    cap: usize,
    limit: Option<Duration>,
    /// Progress begins the time limit anew.
    patient: bool,
    state: State,
}

#[derive(Debug)]
enum State {
    /// It can't be sent.
    Failed(Error),
    Unsent(Unsent),
    Sent(InFlight),
    Done,
}

#[derive(Debug)]
struct Unsent {
    handle: Handle,
    frame: Vec<u8>,
    wants: Wants,
}

/// Gives the request up when it is dropped before its end.
#[derive(Debug)]
struct InFlight {
    handle: Handle,
    id: u64,
    mailbox: Mailbox,
    ended: bool,
}

/// What comes of a request, the end last.
pub(super) enum Step {
    Message(SharedMessage),
    End(Result<Answer>),
}

impl Call {
    /// `frame` is that of the request `id`, and what of it is wanted.
    pub(super) fn new(
        handle: &Handle,
        id: u64,
        frame: Result<(Vec<u8>, Wants)>,
        limit: Option<Duration>,
        options: &RequestOptions,
    ) -> Self {
        let state = match frame {
            Ok((frame, wants)) => State::Unsent(Unsent {
                handle: handle.clone(),
                frame,
                wants,
            }),
            Err(error) => State::Failed(error),
        };
        Self {
            id,
            cap: options.cap(),
            limit,
            patient: options.is_patient(),
            state,
        }
    }

    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// Sends it, if that hasn't happened yet; it may have to wait for room.
    fn send(&mut self) {
        self.send_with(|budget, bytes| Ok(budget.enter(bytes)));
    }

    /// Sends it if there is room.
    pub(super) fn try_send(mut self) -> Result<Self> {
        self.send_with(|budget, bytes| {
            budget.try_enter(bytes).ok_or_else(|| {
                let text = format!("more than {} bytes would be in flight", budget.cap());
                Error::new(ErrorCode::ResourceExhausted, text)
            })
        });
        match self.state {
            State::Failed(error) => Err(error),
            _ => Ok(self),
        }
    }

    fn send_with(&mut self, place: impl FnOnce(&Arc<Budget>, usize) -> Result<Place>) {
        self.state = match mem::replace(&mut self.state, State::Done) {
            State::Unsent(unsent) => {
                let shared = unsent.handle.shared();
                let place = check_running(shared.state())
                    .and_then(|()| place(&shared.budget, unsent.frame.len()));
                match place {
                    Ok(place) => State::Sent(self.sent(unsent, place)),
                    Err(error) => State::Failed(error),
                }
            }
            state => state,
        };
    }

    fn sent(&self, unsent: Unsent, place: Place) -> InFlight {
        let now = Instant::now();
        let (post, mailbox) = mailbox(self.cap);
        let patience = || {
            let step = self.limit.filter(|_| self.patient)?;
            let end = now.checked_add(step.checked_mul(PATIENCE)?)?;
            Some(Patience { step, end })
        };
        // If the thread has ended, the post is dropped, and the mailbox says so.
        unsent.handle.send(Command::Request(NewRequest {
            id: self.id,
            frame: unsent.frame,
            sent: now,
            // A deadline beyond what the clock can say is none.
            deadline: self.limit.and_then(|limit| now.checked_add(limit)),
            patience: patience(),
            wants: unsent.wants,
            post,
            place,
        }));
        InFlight {
            handle: unsent.handle,
            id: self.id,
            mailbox,
            ended: false,
        }
    }

    /// Sends it and lets it go: nobody gets the answer.
    pub(super) fn detach(mut self) -> Result<()> {
        self.send();
        match mem::replace(&mut self.state, State::Done) {
            State::Failed(error) => Err(error),
            State::Sent(mut in_flight) => {
                in_flight.ended = true;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// The next step; `None` after the end.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Step>> {
        self.advance(|mailbox| mailbox.poll(cx))
    }

    /// The next step if there is one now; `None` also after the end.
    pub(super) fn try_next(&mut self) -> Option<Step> {
        let look = |mailbox: &mut Mailbox| mailbox.try_take().map_or(Poll::Pending, Poll::Ready);
        match self.advance(look) {
            Poll::Ready(step) => step,
            Poll::Pending => None,
        }
    }

    fn advance(&mut self, take: impl FnOnce(&mut Mailbox) -> Poll<Item>) -> Poll<Option<Step>> {
        self.send();
        let item = match &mut self.state {
            State::Sent(in_flight) => ready!(take(&mut in_flight.mailbox)),
            _ => {
                return Poll::Ready(match mem::replace(&mut self.state, State::Done) {
                    State::Failed(error) => Some(Step::End(Err(error))),
                    _ => None,
                });
            }
        };
        Poll::Ready(Some(match item {
            Item::Message(message) => Step::Message(message),
            Item::End(outcome) => {
                if let State::Sent(mut in_flight) = mem::replace(&mut self.state, State::Done) {
                    in_flight.ended = true;
                }
                Step::End(outcome.map_err(|ended| self.error(ended)))
            }
        }))
    }

    fn error(&self, ended: Ended) -> Error {
        match ended {
            Ended::Refused(error) => error,
            Ended::ShuttingDown => Error::shutting_down(),
            Ended::Lost(reason) => Error::new(ErrorCode::TransportError, &*reason),
            Ended::TimedOut => {
                let limit = self.limit.unwrap_or_default();
                Error::new(ErrorCode::Timeout, format!("no answer within {limit:?}"))
            }
            Ended::NoRoom => {
                let limit = self.limit.unwrap_or_default();
                let text = format!("no room for it among the bytes in flight within {limit:?}");
                Error::new(ErrorCode::Timeout, text)
            }
            Ended::Overflow => Error::new(
                ErrorCode::ResourceExhausted,
                format!(
                    "more than {} bytes of what belongs to the request were left waiting",
                    self.cap
                ),
            ),
        }
    }

    /// Whether its end has been taken.
    pub(super) fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// For `Debug`.
    pub(super) fn state(&self) -> &'static str {
        match self.state {
            State::Failed(_) => "failed",
            State::Unsent(_) => "unsent",
            State::Sent(_) => "sent",
            State::Done => "done",
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if !self.ended {
            self.handle.send(Command::Cancel { id: self.id });
        }
    }
}
