use loom::model::Builder;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;

use crate::backend::Bell;
use crate::driver::wake::Waker;
use crate::native::RawBus;

/// The bus thread and what it shares. The queue is only a count: what is needed of the real one is
/// that a command is seen by whoever synchronises with its producer, and no more.
struct Bus {
    waker: Waker,
    queued: AtomicUsize,
}

impl Bus {
    fn new() -> (Arc<Self>, RawBus) {
        let raw = RawBus::new();
        let bus = Self {
            waker: Waker::new(),
            queued: AtomicUsize::new(0),
        };
        bus.waker.arm(Bell::Bus(&raw));
        (Arc::new(bus), raw)
    }

    fn produce(&self) {
        self.queued.fetch_add(1, Ordering::Release);
        self.waker.wake();
    }

    /// Turns, as the driver does, until so many commands have come. Where one is overlooked the thread
    /// sleeps for ever, which loom reports.
    fn take(&self, raw: &RawBus, commands: usize) {
        let mut taken = 0;
        loop {
            taken = taken.max(self.queued.load(Ordering::Acquire));
            if taken == commands {
                return;
            }
            let idle = || self.queued.load(Ordering::Acquire) == taken;
            if self.waker.prepare_sleep(idle) {
                raw.step();
                self.waker.awake();
            }
        }
    }
}

fn commands_are_seen(producers: usize, preemptions: Option<usize>) {
    let mut model = Builder::new();
    model.preemption_bound = preemptions;
    model.check(move || {
        let (bus, raw) = Bus::new();
        let threads = (0..producers).map(|_| {
            let bus = bus.clone();
            thread::spawn(move || bus.produce())
        });
        let threads: Vec<_> = threads.collect();
        bus.take(&raw, producers);
        bus.waker.close();
        drop(raw);
        for thread in threads {
            thread.join().unwrap();
        }
    });
}

pub(crate) fn a_queued_command_is_never_left_with_a_thread_that_sleeps() {
    commands_are_seen(1, None);
}

pub(crate) fn commands_of_two_producers_are_both_seen() {
    // Without a bound this takes for ever.
    commands_are_seen(2, Some(2));
}

pub(crate) fn nobody_rings_a_bus_that_is_destroyed() {
    loom::model(|| {
        let (bus, raw) = Bus::new();
        let threads = [bus.clone(), bus.clone()];
        let threads = threads.map(|bus| thread::spawn(move || bus.produce()));
        // It sleeps as far as they know, so that they ring, and ends without waiting for them.
        bus.waker.prepare_sleep(|| true);
        bus.waker.close();
        drop(raw);
        for thread in threads {
            thread.join().unwrap();
        }
        bus.waker.wake();
    });
}
