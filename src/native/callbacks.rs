//! What C calls: functions that copy and enqueue, and nothing else.
//!
//! No code of the user's runs in here. A panic is caught, kept, and goes on
//! once C has returned: unwinding must not cross C frames.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::ffi::{CStr, c_char, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::slice;

use crate::sys;

/// What the bus had to say during a call, copied.
#[derive(Debug)]
pub(crate) enum Incoming {
    Frame(RawFrame),
    // Boxed: events are rare and large, frames are neither.
    Event(Box<RawEvent>),
    /// A log line and its level, 0 debug to 3 error.
    Log(c_int, String),
    /// A line of a program's stderr.
    Stderr(String),
}

/// A frame for this process.
#[derive(Debug)]
pub(crate) struct RawFrame {
    pub(crate) kind: FrameKind,
    /// Made by the bus, not by a worker.
    pub(crate) from_bus: bool,
    /// The worker it came from, and how often that had been started; -1 for none.
    pub(crate) worker: i32,
    pub(crate) generation: u32,
    /// Of what a worker says on its own: which pending request of ours it
    /// belongs to.
    pub(crate) request: Option<u64>,
    pub(crate) data: Vec<u8>,
}

#[derive(Debug)]
pub(crate) enum FrameKind {
    /// The id is `None` where it is none of ours: all of ours are numbers.
    Response {
        id: Option<u64>,
    },
    /// A worker asks; `id` is the JSON token its answer must carry.
    Request {
        id: Vec<u8>,
    },
    Notification,
}

/// Something that happened; the fields are those of `stdio_bus_event`.
#[derive(Debug, Default)]
pub(crate) struct RawEvent {
    pub(crate) kind: u32,
    pub(crate) worker: i32,
    pub(crate) generation: u32,
    pub(crate) client: i32,
    pub(crate) pid: i32,
    pub(crate) exit_code: i32,
    pub(crate) exit_signal: i32,
    pub(crate) delay_ms: u32,
    /// Of a line of stderr: the pool doesn't say what becomes of it.
    pub(crate) stderr_unsaid: bool,
    pub(crate) uptime_ms: u64,
    pub(crate) pool: String,
    pub(crate) text: String,
}

/// Where callbacks leave things. Only ever used on the bus's own thread.
#[derive(Default)]
pub(crate) struct Context {
    incoming: RefCell<Vec<Incoming>>,
    /// The reason that came with the call being made.
    error: RefCell<Option<String>>,
    panic: Cell<Option<Box<dyn Any + Send>>>,
}

impl Context {
    pub(super) fn take_incoming(&self, into: &mut Vec<Incoming>) {
        into.append(&mut self.incoming.borrow_mut());
    }

    pub(super) fn has_incoming(&self) -> bool {
        !self.incoming.borrow().is_empty()
    }

    pub(super) fn clear_error(&self) {
        self.error.borrow_mut().take();
    }

    pub(super) fn take_error(&self) -> Option<String> {
        self.error.borrow_mut().take()
    }

    pub(super) fn resume_panic(&self) {
        if let Some(panic) = self.panic.take() {
            resume_unwind(panic);
        }
    }

    fn push(&self, item: Incoming) {
        self.incoming.borrow_mut().push(item);
    }

    /// Runs a callback's body, and keeps the first panic for `resume_panic`.
    fn guard(&self, body: impl FnOnce(&Self)) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| body(self))) {
            let first = self.panic.take().unwrap_or(panic);
            self.panic.set(Some(first));
        }
    }
}

/// The context behind a callback's user data.
///
/// # Safety
/// `user_data` is what `BusOptions::to_c` put there, and the call comes from
/// inside a call that a `RawBus` makes: it keeps the context alive.
unsafe fn context<'a>(user_data: *mut c_void) -> &'a Context {
    // SAFETY: by this function's contract.
    unsafe { &*user_data.cast::<Context>() }
}

/// # Safety
/// `data` is null, or `len` readable bytes that live for `'a`.
unsafe fn bytes<'a>(data: *const c_char, len: usize) -> &'a [u8] {
    if data.is_null() {
        return &[];
    }
    // SAFETY: by this function's contract.
    unsafe { slice::from_raw_parts(data.cast(), len) }
}

/// # Safety
/// `text` is null or a NUL-terminated string.
unsafe fn text(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: by this function's contract.
    unsafe { CStr::from_ptr(text) }
        .to_string_lossy()
        .into_owned()
}

/// # Safety
/// Called by the C library only, with a valid frame and our user data.
pub(super) unsafe extern "C" fn on_frame(
    _bus: *mut sys::stdio_bus_t,
    frame: *const sys::stdio_bus_frame_t,
    user_data: *mut c_void,
) {
    // SAFETY: our user data, inside a call of ours (this function's contract).
    let context = unsafe { context(user_data) };
    // SAFETY: valid until the callback returns (the header's promise).
    let frame = unsafe { &*frame };
    // SAFETY: data and length belong together (the header's promise).
    let data = unsafe { bytes(frame.data, frame.len) };
    // SAFETY: the same for the id token.
    let id = unsafe { bytes(frame.id, frame.id_len) };
    // SAFETY: and for that of the request it belongs to.
    let request = unsafe { bytes(frame.request, frame.request_len) };
    context.guard(|context| {
        let kind = match frame.kind {
            sys::STDIO_BUS_FRAME_RESPONSE => FrameKind::Response { id: own_id(id) },
            sys::STDIO_BUS_FRAME_REQUEST => FrameKind::Request { id: id.to_vec() },
            _ => FrameKind::Notification,
        };
        let from_bus = frame.flags & sys::STDIO_BUS_FRAME_FROM_BUS != 0;
        context.push(Incoming::Frame(RawFrame {
            kind,
            from_bus,
            worker: frame.worker,
            generation: frame.generation,
            request: own_id(request),
            data: data.to_vec(),
        }));
    });
}

/// # Safety
/// Called by the C library only, with a valid event and our user data.
pub(super) unsafe extern "C" fn on_event(
    _bus: *mut sys::stdio_bus_t,
    event: *const sys::stdio_bus_event_t,
    user_data: *mut c_void,
) {
    // SAFETY: our user data, inside a call of ours (this function's contract).
    let context = unsafe { context(user_data) };
    // SAFETY: valid until the callback returns (the header's promise).
    let event = unsafe { &*event };
    // SAFETY: text and length belong together (the header's promise).
    let line = unsafe { bytes(event.text, event.text_len) };
    // SAFETY: null or NUL-terminated (the header's promise).
    let pool = unsafe { text(event.pool) };
    context.guard(|context| {
        context.push(Incoming::Event(Box::new(RawEvent {
            kind: event.kind,
            worker: event.worker,
            generation: event.generation,
            client: event.client,
            pid: event.pid,
            exit_code: event.exit_code,
            exit_signal: event.exit_signal,
            delay_ms: event.delay_ms,
            stderr_unsaid: event.flags & sys::STDIO_BUS_EVENT_STDERR_UNSAID != 0,
            uptime_ms: event.uptime_ms,
            pool,
            text: String::from_utf8_lossy(line).into_owned(),
        })));
    });
}

/// # Safety
/// Called by the C library only, with a NUL-terminated text and our user data.
pub(super) unsafe extern "C" fn on_error(
    _bus: *mut sys::stdio_bus_t,
    _code: c_int,
    message: *const c_char,
    user_data: *mut c_void,
) {
    // SAFETY: our user data, inside a call of ours (this function's contract).
    let context = unsafe { context(user_data) };
    // SAFETY: null or NUL-terminated (this function's contract).
    let message = unsafe { text(message) };
    context.guard(|context| {
        // The first one is the cause, later ones are its consequences.
        context.error.borrow_mut().get_or_insert(message);
    });
}

/// # Safety
/// Called by the C library only, with a NUL-terminated text and our user data.
pub(super) unsafe extern "C" fn on_log(
    _bus: *mut sys::stdio_bus_t,
    level: c_int,
    message: *const c_char,
    user_data: *mut c_void,
) {
    // SAFETY: our user data, inside a call of ours (this function's contract).
    let context = unsafe { context(user_data) };
    // SAFETY: null or NUL-terminated (this function's contract).
    let message = unsafe { text(message) };
    context.guard(|context| context.push(Incoming::Log(level, message)));
}

/// The number in an id token, if it is one of ours: digits and nothing else.
pub(crate) fn own_id(token: &[u8]) -> Option<u64> {
    if token.is_empty() || (token[0] == b'0' && token.len() > 1) {
        return None;
    }
    token.iter().try_fold(0_u64, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_numbers_are_ids_of_ours() {
        assert_eq!(own_id(b"1"), Some(1));
        assert_eq!(own_id(b"0"), Some(0));
        assert_eq!(own_id(b"18446744073709551615"), Some(u64::MAX));
        for token in [
            "",
            "01",
            "-1",
            "1.0",
            "1e3",
            "\"1\"",
            "null",
            "18446744073709551616",
        ] {
            assert_eq!(own_id(token.as_bytes()), None, "{token}");
        }
    }

    #[test]
    fn a_panic_in_a_callback_goes_on_after_the_call() {
        let context = Context::default();
        context.guard(|_| panic!("first"));
        context.guard(|_| panic!("second"));
        let caught = catch_unwind(AssertUnwindSafe(|| context.resume_panic()));
        let payload = caught.expect_err("the panic goes on");
        assert_eq!(payload.downcast_ref::<&str>(), Some(&"first"));
        context.resume_panic();
    }
}
