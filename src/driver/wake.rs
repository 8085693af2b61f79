//! Waking the bus thread, from any thread, at the price of one load when it is
//! awake anyway.
//!
//! The thread says that it is about to sleep, then looks at its queue once
//! more; a producer queues its command, then looks whether the thread sleeps.
//! Both put a full fence between the two, so at least one of them sees the
//! other: either the thread finds the command, or the producer wakes it. Only
//! the producer that turns `sleeping` off makes the call, so a burst costs one.

#![allow(unsafe_code)]

use std::fmt;
use std::ptr;
use std::sync::OnceLock;

use super::sync::{AtomicBool, AtomicPtr, AtomicUsize, Ordering, fence, yield_now};
use crate::backend::Bell;
use crate::sys;

/// Set in `users` once the bus may not be touched any more.
const CLOSED: usize = 1 << (usize::BITS - 1);

/// The bus thread's bell.
///
/// Invariant: while `users` has not got `CLOSED`, `bus` is null or a live bus;
/// whoever wants to use it is counted in `users`. [`close`](Self::close) sets
/// `CLOSED` and waits for the count to reach zero, and is called before the bus
/// is destroyed, by the thread that destroys it.
#[derive(Debug)]
pub(super) struct Waker {
    bus: AtomicPtr<sys::stdio_bus>,
    sleeping: AtomicBool,
    users: AtomicUsize,
    /// Instead of a bus: what to call.
    call: OnceLock<Call>,
}

struct Call(Box<dyn Fn() + Send + Sync>);

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Call")
    }
}

impl Waker {
    /// A bell for a bus that isn't there yet: ringing it does nothing.
    pub(super) fn new() -> Self {
        Self {
            bus: AtomicPtr::new(ptr::null_mut()),
            sleeping: AtomicBool::new(false),
            users: AtomicUsize::new(0),
            call: OnceLock::new(),
        }
    }

    /// Names the bus to wake. The caller closes this before it drops the bus.
    pub(super) fn arm(&self, bell: Bell<'_>) {
        match bell {
            Bell::Bus(bus) => self.bus.store(bus.as_ptr(), Ordering::Release),
            // The only place that sets it, and it runs once.
            Bell::Call(call) => drop(self.call.set(Call(call))),
        }
    }

    /// Any thread, after it has queued a command: wakes the bus thread if it
    /// sleeps. Does nothing once the bus is gone.
    pub(super) fn wake(&self) {
        fence(Ordering::SeqCst);
        if self.sleeping.load(Ordering::Relaxed) && self.sleeping.swap(false, Ordering::AcqRel) {
            self.ring();
        }
    }

    fn ring(&self) {
        if let Some(Call(call)) = self.call.get() {
            return call();
        }
        let users = self.users.fetch_add(1, Ordering::AcqRel);
        let bus = self.bus.load(Ordering::Acquire);
        if users & CLOSED == 0 && !bus.is_null() {
            // SAFETY: we are counted and it wasn't closed when we were, so by
            // the struct's invariant the bus lives until we count ourselves
            // out. The function may be called from any thread.
            unsafe { sys::stdio_bus_wakeup(bus) };
        }
        self.users.fetch_sub(1, Ordering::AcqRel);
    }

    /// The bus thread, before it waits: `true` if it may. `idle` says whether
    /// the queue is empty.
    pub(super) fn prepare_sleep(&self, idle: impl FnOnce() -> bool) -> bool {
        self.sleeping.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let sleep = idle();
        if !sleep {
            self.awake();
        }
        sleep
    }

    /// The bus thread, after it has waited. A producer that was faster makes
    /// one turn too many, which is harmless.
    pub(super) fn awake(&self) {
        self.sleeping.store(false, Ordering::Relaxed);
    }

    /// The bus thread, before it destroys the bus. Waits for producers that are
    /// inside the call, which is one write to a descriptor that never blocks.
    pub(super) fn close(&self) {
        self.users.fetch_or(CLOSED, Ordering::AcqRel);
        while self.users.load(Ordering::Acquire) != CLOSED {
            yield_now();
        }
        self.bus.store(ptr::null_mut(), Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bell_without_a_bus_is_silent_before_and_after() {
        let waker = Waker::new();
        assert!(waker.prepare_sleep(|| true));
        waker.wake();
        waker.close();
        assert!(waker.prepare_sleep(|| true));
        waker.wake();
    }

    #[test]
    fn the_thread_stays_awake_if_something_was_queued() {
        let waker = Waker::new();
        assert!(!waker.prepare_sleep(|| false));
        assert!(!waker.sleeping.load(Ordering::Relaxed));
    }
}
