//! Who is told what workers say on their own, and what happens on the bus.

use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tokio::sync::mpsc;

use super::Handle;
use super::command::Command;
use super::event::{Event, EventSink, Overflow};
use super::message::SharedMessage;
use super::observe::Observer;
use crate::error::RpcError;
use crate::rpc;

/// Requests of workers that may be open here at once, waiting or being
/// handled. More are answered with an error.
pub(crate) const MAX_OPEN: usize = 1024;

/// What a subscriber with a full queue gets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OverflowPolicy {
    /// It loses the newest message, and can see how many it has lost.
    #[default]
    Drop,
    /// Its subscription ends, after what is in its queue.
    Close,
}

/// A subscriber to messages: its end on the bus thread.
#[derive(Debug)]
pub(crate) struct MessageSink {
    pub(crate) queue: mpsc::Sender<SharedMessage>,
    pub(crate) policy: OverflowPolicy,
    /// Messages that didn't fit.
    pub(crate) lagged: Arc<AtomicU64>,
    /// It sees workers' requests, too.
    pub(crate) requests: bool,
}

/// The way to the handler of workers' requests.
#[derive(Debug)]
pub(crate) struct RequestQueue {
    queue: mpsc::UnboundedSender<Asked>,
    /// How many are open; what bounds the queue.
    open: Arc<AtomicUsize>,
    handle: Handle,
}

impl RequestQueue {
    pub(crate) fn new(handle: &Handle) -> (Self, mpsc::UnboundedReceiver<Asked>) {
        let (queue, asked) = mpsc::unbounded_channel();
        let queue = Self {
            queue,
            open: Arc::default(),
            handle: handle.clone(),
        };
        (queue, asked)
    }

    /// `false` if there is no room.
    fn offer(&self, message: &SharedMessage) -> bool {
        // Only the bus thread counts up.
        if self.open.load(Ordering::Relaxed) >= MAX_OPEN {
            return false;
        }
        self.open.fetch_add(1, Ordering::Relaxed);
        let asked = Asked {
            message: Arc::clone(message),
            responder: Responder {
                id: message.id.clone().unwrap_or_default(),
                handle: self.handle.clone(),
                open: Arc::clone(&self.open),
                answered: false,
            },
        };
        // With nobody at the other end it is dropped, which answers it.
        let _ = self.queue.send(asked);
        true
    }
}

/// A worker's request, with the way to answer it.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) message: SharedMessage,
    pub(crate) responder: Responder,
}

/// Answers one request of a worker; with an error if it is dropped instead.
#[derive(Debug)]
pub(crate) struct Responder {
    id: Vec<u8>,
    handle: Handle,
    open: Arc<AtomicUsize>,
    answered: bool,
}

impl Responder {
    pub(crate) fn answer(mut self, outcome: &Result<serde_json::Value, RpcError>) {
        self.send(outcome);
    }

    fn send(&mut self, outcome: &Result<serde_json::Value, RpcError>) {
        self.answered = true;
        let id = mem::take(&mut self.id);
        let frame = rpc::reply(&id, outcome);
        // A bus that is gone has no worker that waits.
        self.handle.send(Command::Answer { id, frame });
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        if !self.answered {
            self.send(&Err(RpcError::internal("Nobody handles requests any more")));
        }
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What became of a worker's request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Handed {
    Taken,
    Full,
    /// There is no handler.
    Unhandled,
}

#[derive(Debug)]
pub(super) struct Hub {
    observer: Observer,
    pub(super) events: Vec<EventSink>,
    pub(super) messages: Vec<MessageSink>,
    pub(super) handler: Option<RequestQueue>,
    /// Messages that subscribers had no room for.
    pub(super) lagged: u64,
    /// Requests refused because too many are open.
    pub(super) overloads: u64,
    /// The last request was refused.
    overloaded: bool,
}

impl Hub {
    /// `name` is that of the bus.
    pub(super) fn new(name: Arc<str>) -> Self {
        Self {
            observer: Observer::new(name),
            events: Vec::new(),
            messages: Vec::new(),
            handler: None,
            lagged: 0,
            overloads: 0,
            overloaded: false,
        }
    }

    pub(super) fn event(&mut self, event: &Event) {
        self.observer.event(event);
        self.events.retain(|subscriber| subscriber.offer(event));
    }

    /// Whether anybody wants to see notifications.
    pub(super) fn listens(&self) -> bool {
        !self.messages.is_empty()
    }

    /// Tells the subscribers. Whether there are any, with room or without.
    pub(super) fn tell(&mut self, message: &SharedMessage) -> bool {
        let (mut heard, mut lags) = (false, false);
        self.messages.retain(|sink| {
            let offered = sink.offer(message);
            heard |= offered != Offered::Gone;
            self.lagged += u64::from(offered == Offered::Full);
            lags |= offered == Offered::Full && sink.lagged.load(Ordering::Relaxed) == 1;
            offered == Offered::Taken
                || (offered == Offered::Full && sink.policy == OverflowPolicy::Drop)
        });
        if lags {
            self.event(&Event::Overflow(Overflow::Subscriber));
        }
        heard
    }

    pub(super) fn ask(&mut self, message: &SharedMessage) -> Handed {
        let Some(queue) = &self.handler else {
            return Handed::Unhandled;
        };
        let taken = queue.offer(message);
        let was_overloaded = mem::replace(&mut self.overloaded, !taken);
        if taken {
            return Handed::Taken;
        }
        self.overloads += 1;
        if !was_overloaded {
            self.event(&Event::Overflow(Overflow::Handler));
        }
        Handed::Full
    }

    /// Nobody hears anything more: subscriptions end after what they have.
    pub(super) fn close(&mut self) {
        self.events.clear();
        self.messages.clear();
        self.handler = None;
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Offered {
    Taken,
    Full,
    Gone,
}

impl MessageSink {
    /// Never waits: what doesn't fit is counted.
    fn offer(&self, message: &SharedMessage) -> Offered {
        if message.id.is_some() && !self.requests {
            return Offered::Taken;
        }
        match self.queue.try_reserve() {
            Ok(slot) => {
                slot.send(Arc::clone(message));
                Offered::Taken
            }
            Err(mpsc::error::TrySendError::Closed(())) => Offered::Gone,
            Err(mpsc::error::TrySendError::Full(())) => {
                self.lagged.fetch_add(1, Ordering::Relaxed);
                Offered::Full
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::message::WorkerMessage;
    use super::*;

    fn sink(policy: OverflowPolicy) -> (MessageSink, mpsc::Receiver<SharedMessage>) {
        let (queue, receiver) = mpsc::channel(1);
        let sink = MessageSink {
            queue,
            policy,
            lagged: Arc::default(),
            requests: false,
        };
        (sink, receiver)
    }

    #[test]
    fn a_full_subscriber_loses_the_newest_or_its_subscription() {
        let mut hub = Hub::new("test".into());
        let ((drops, mut lossy), (closes, mut closed)) =
            (sink(OverflowPolicy::Drop), sink(OverflowPolicy::Close));
        hub.messages = vec![drops, closes];
        for i in 0..3_u8 {
            hub.tell(&WorkerMessage::for_test(&[i]));
        }
        assert_eq!(hub.messages.len(), 1);
        assert_eq!(hub.lagged, 3);
        assert_eq!(hub.messages[0].lagged.load(Ordering::Relaxed), 2);
        assert_eq!(lossy.try_recv().expect("the oldest").frame, [0]);
        assert_eq!(closed.try_recv().expect("the oldest").frame, [0]);
        assert!(closed.blocking_recv().is_none());
    }

    #[test]
    fn a_subscriber_that_is_gone_is_forgotten() {
        let mut hub = Hub::new("test".into());
        let (sink, receiver) = sink(OverflowPolicy::Drop);
        hub.messages.push(sink);
        assert!(hub.listens());
        drop(receiver);
        hub.tell(&WorkerMessage::for_test(b"x"));
        assert!(!hub.listens());
    }
}
