//! What the task behind one request waits for: messages that belong to the
//! request, then its end. The bus thread posts, the task collects; neither
//! waits for the other.

use std::collections::VecDeque;
use std::mem;
use std::sync::PoisonError;
use std::task::{Context, Poll, Waker};

use super::command::{Ended, Outcome};
use super::message::WorkerMessage;
use super::sync::{Arc, Mutex, MutexGuard};

/// A mailbox in which at most `cap` bytes of messages wait, and its slot.
pub(crate) fn mailbox(cap: usize) -> (Post, Mailbox) {
    let shared = Arc::new(Shared {
        cap,
        state: Mutex::default(),
    });
    (Post(Arc::clone(&shared)), Mailbox(shared))
}

#[derive(Debug)]
struct Shared {
    cap: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    messages: VecDeque<Arc<WorkerMessage>>,
    /// Of the frames in `messages`.
    bytes: usize,
    outcome: Option<Outcome>,
    /// The outcome was posted, and perhaps collected.
    ended: bool,
    /// Nobody collects any more.
    abandoned: bool,
    waker: Option<Waker>,
}

impl State {
    fn take(&mut self) -> Option<Item> {
        if let Some(message) = self.messages.pop_front() {
            self.bytes -= message.frame.len();
            return Some(Item::Message(message));
        }
        self.outcome.take().map(Item::End)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change below is whole before anything in it can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a change and wakes the task, outside the lock.
    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.lock();
        let result = change(&mut state);
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
        result
    }
}

/// The bus thread's end. Dropped before the end was posted, it tells the task
/// that the bus is shutting down.
#[derive(Debug)]
pub(crate) struct Post(Arc<Shared>);

impl Post {
    /// `false` if too much waits already. A message of any size passes where
    /// nothing is before it.
    pub(super) fn message(&self, message: &Arc<WorkerMessage>) -> bool {
        self.0.change(|state| {
            if state.abandoned {
                return true;
            }
            let bytes = state.bytes + message.frame.len();
            if !state.messages.is_empty() && bytes > self.0.cap {
                return false;
            }
            state.bytes = bytes;
            state.messages.push_back(Arc::clone(message));
            true
        })
    }

    pub(super) fn end(self, outcome: Outcome) {
        self.finish(outcome);
    }

    fn finish(&self, outcome: Outcome) {
        self.0.change(|state| {
            if !mem::replace(&mut state.ended, true) && !state.abandoned {
                state.outcome = Some(outcome);
            }
        });
    }
}

impl Drop for Post {
    fn drop(&mut self) {
        self.finish(Err(Ended::ShuttingDown));
    }
}

/// What comes out of a mailbox.
#[derive(Debug)]
pub(crate) enum Item {
    Message(Arc<WorkerMessage>),
    /// The last one.
    End(Outcome),
}

/// The task's end.
#[derive(Debug)]
pub(crate) struct Mailbox(Arc<Shared>);

impl Mailbox {
    /// Messages in their order, then the end. Not to be polled after that.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Item> {
        let mut state = self.0.lock();
        if let Some(item) = state.take() {
            return Poll::Ready(item);
        }
        match &mut state.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            None => state.waker = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    /// What is there now. Whoever was to be woken still is.
    pub(crate) fn try_take(&mut self) -> Option<Item> {
        self.0.lock().take()
    }
}

impl Drop for Mailbox {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.abandoned = true;
        state.waker = None;
        let rest = (mem::take(&mut state.messages), state.outcome.take());
        drop(state);
        drop(rest);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::task::Wake;

    use super::*;

    fn message(len: usize) -> Arc<WorkerMessage> {
        WorkerMessage::for_test(&vec![b'x'; len])
    }

    fn poll(mailbox: &mut Mailbox) -> Poll<Item> {
        mailbox.poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn messages_come_before_the_end_even_when_that_is_there() {
        let (post, mut mailbox) = mailbox(100);
        assert!(poll(&mut mailbox).is_pending());
        assert!(post.message(&message(1)));
        assert!(post.message(&message(2)));
        post.end(Err(Ended::TimedOut));
        for len in [1, 2] {
            match poll(&mut mailbox) {
                Poll::Ready(Item::Message(message)) => assert_eq!(message.frame.len(), len),
                other => panic!("{other:?}"),
            }
        }
        assert!(matches!(
            poll(&mut mailbox),
            Poll::Ready(Item::End(Err(Ended::TimedOut)))
        ));
    }

    #[test]
    fn what_waits_is_bounded_and_one_message_always_passes() {
        let (post, mut mailbox) = mailbox(10);
        assert!(post.message(&message(1000)));
        assert!(!post.message(&message(1)));
        assert!(matches!(poll(&mut mailbox), Poll::Ready(Item::Message(_))));
        assert!(post.message(&message(4)));
        assert!(post.message(&message(6)));
        assert!(!post.message(&message(1)));
    }

    #[test]
    fn a_post_that_is_lost_is_an_end() {
        let (post, mut mailbox) = mailbox(10);
        drop(post);
        assert!(matches!(
            poll(&mut mailbox),
            Poll::Ready(Item::End(Err(Ended::ShuttingDown)))
        ));
    }

    #[test]
    fn a_look_takes_what_is_there_and_leaves_the_one_who_waits_waiting() {
        let (post, mut mailbox) = mailbox(10);
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        assert!(mailbox.poll(&mut Context::from_waker(&waker)).is_pending());
        assert!(mailbox.try_take().is_none());
        assert!(post.message(&message(1)));
        assert!(woken.0.load(Ordering::Relaxed));
        assert!(matches!(mailbox.try_take(), Some(Item::Message(_))));
        assert!(mailbox.try_take().is_none());
        drop(post);
        assert!(matches!(mailbox.try_take(), Some(Item::End(_))));
    }

    #[derive(Default)]
    struct Woken(AtomicBool);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    #[test]
    fn nothing_is_kept_for_a_mailbox_that_is_gone() {
        let (post, mailbox) = mailbox(10);
        let kept = message(5);
        assert!(post.message(&kept));
        drop(mailbox);
        assert!(post.message(&kept) && post.message(&kept) && post.message(&kept));
        assert_eq!(Arc::strong_count(&kept), 1);
    }
}
