//! A bus, as far as its bell goes.

use crate::sys;

pub(crate) struct RawBus(*mut sys::stdio_bus);

impl RawBus {
    pub(crate) fn new() -> Self {
        Self(Box::into_raw(Box::new(sys::stdio_bus::default())))
    }

    pub(crate) fn as_ptr(&self) -> *mut sys::stdio_bus {
        self.0
    }

    /// Waits until somebody has rung, since it last did.
    pub(crate) fn step(&self) {
        // SAFETY: it lives until the drop.
        unsafe { &*self.0 }.wait();
    }
}

impl Drop for RawBus {
    fn drop(&mut self) {
        // SAFETY: it lived until now.
        let bus = unsafe { Box::from_raw(self.0) };
        // loom fails if anybody may still be inside.
        bus.alive.with_mut(|_| ());
    }
}
