//! The library's files, and what stands in for their neighbours.

#![allow(dead_code)] // models don't use all of them

#[path = "../../../src/driver/budget.rs"]
mod budget;
#[path = "../../../src/driver/mailbox.rs"]
mod mailbox;
#[path = "../../../src/driver/wake.rs"]
mod wake;

pub(crate) mod models;

mod sync {
    pub(super) use loom::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering, fence};
    pub(super) use loom::sync::{Arc, Mutex, MutexGuard};
    pub(super) use loom::thread::yield_now;
}

mod command {
    pub(crate) type Outcome = Result<u8, Ended>;

    #[derive(Debug)]
    pub(crate) enum Ended {
        TimedOut,
        ShuttingDown,
    }
}

mod message {
    #[derive(Debug)]
    pub(crate) struct WorkerMessage {
        pub(crate) frame: Vec<u8>,
    }
}
