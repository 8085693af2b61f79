//! The threads' common ground: what `wake`, `mailbox` and `budget` synchronise
//! with. Here in one place so that `tests/loom`, which tries all orders in which
//! threads can meet, can put its own in their stead and test those files as
//! they are.

pub(super) use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering, fence};
pub(super) use std::sync::{Arc, Mutex, MutexGuard};
pub(super) use std::thread::yield_now;
