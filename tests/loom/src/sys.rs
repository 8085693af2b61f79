//! The wake-up of the C library, with its promise: one that comes before the wait ends it at once.

use loom::cell::UnsafeCell;
use loom::sync::{Condvar, Mutex};

#[allow(non_camel_case_types)]
#[derive(Default)]
pub(crate) struct stdio_bus {
    rung: Mutex<bool>,
    bell: Condvar,
    pub(crate) alive: UnsafeCell<()>,
}

impl stdio_bus {
    pub(crate) fn wait(&self) {
        let mut rung = self.rung.lock().unwrap();
        while !*rung {
            rung = self.bell.wait(rung).unwrap();
        }
        *rung = false;
    }
}

pub(crate) unsafe fn stdio_bus_wakeup(bus: *mut stdio_bus) {
    // SAFETY: the caller's promise; loom fails where it is broken.
    let bus = unsafe { &*bus };
    bus.alive.with(|_| ());
    *bus.rung.lock().unwrap() = true;
    bus.bell.notify_one();
}
