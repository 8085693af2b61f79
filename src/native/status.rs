//! The C library's status codes.

use std::ffi::{CStr, c_char, c_int};

use crate::sys;

/// A status that says something failed: always negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Status(c_int);

impl Status {
    pub(crate) const FULL: Self = Self(sys::STDIO_BUS_EFULL);
    pub(crate) const NOT_FOUND: Self = Self(sys::STDIO_BUS_ENOTFOUND);
    pub(crate) const REFUSED_BY_SYSTEM: Self = Self(sys::STDIO_BUS_EINVAL);
    pub(crate) const CONFIG: Self = Self(sys::STDIO_BUS_ERR_CONFIG);
    pub(crate) const WORKER: Self = Self(sys::STDIO_BUS_ERR_WORKER);
    pub(crate) const ROUTING: Self = Self(sys::STDIO_BUS_ERR_ROUTING);
    pub(crate) const BUFFER: Self = Self(sys::STDIO_BUS_ERR_BUFFER);
    pub(crate) const INVALID: Self = Self(sys::STDIO_BUS_ERR_INVALID);
    pub(crate) const STATE: Self = Self(sys::STDIO_BUS_ERR_STATE);

    /// `None` for a result that is no failure: OK, or a count.
    pub(crate) fn of(result: c_int) -> Option<Self> {
        (result < 0).then_some(Self(result))
    }

    /// What it means.
    pub(crate) fn message(self) -> &'static str {
        // SAFETY: may be called at any time with any number.
        let text = unsafe { sys::stdio_bus_status_message(self.0) };
        // SAFETY: that function returns text in static storage.
        unsafe { text_of(text) }
    }
}

/// # Safety
/// `text` is null or a NUL-terminated string in static storage.
unsafe fn text_of(text: *const c_char) -> &'static str {
    if text.is_null() {
        return "unknown status";
    }
    // SAFETY: by this function's contract.
    unsafe { CStr::from_ptr(text) }
        .to_str()
        .unwrap_or("unknown status")
}
