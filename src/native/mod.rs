//! The C library behind safe calls: [`RawBus`] owns the handle.
//!
//! A `RawBus` stays on the thread that created it. Nothing above this module
//! sees a pointer, with the one exception of `driver::wake`.

#![allow(unsafe_code)]

mod callbacks;
#[cfg(feature = "agent")]
mod group;
mod options;
mod process;
mod status;

use std::ffi::{CStr, c_char, c_int};
use std::os::fd::{AsRawFd, IntoRawFd};
use std::ptr::{self, NonNull};
use std::rc::Rc;
use std::time::Duration;

pub(crate) use callbacks::{FrameKind, Incoming, RawEvent, RawFrame, own_id};
#[cfg(feature = "agent")]
pub(crate) use group::Group;
pub(crate) use options::{
    Adopt, BusOptions, ConfigSource, Embed, Framing, Listen, ListenAt, Secret, c_string,
};
#[cfg(feature = "cli")]
pub(crate) use process::forget_variable;
pub(crate) use process::{block_sigpipe, terminate, tie};
#[cfg(feature = "agent")]
pub(crate) use process::{kill_group, terminate_group};
pub(crate) use status::Status;

use crate::sys;
use callbacks::Context;

/// What the library keeps of a worker's stderr, and the NUL behind it.
const STDERR_TAIL: usize = (64 << 10) + 1;

/// The version of the C library that is linked, "MAJOR.MINOR.PATCH".
pub(crate) fn version() -> &'static str {
    // SAFETY: takes nothing and may be called at any time; the result is a
    // NUL-terminated string in static storage, as the header promises.
    let version = unsafe { sys::stdio_bus_version() };
    // SAFETY: see above.
    unsafe { CStr::from_ptr(version) }
        .to_str()
        .unwrap_or("unknown")
}

/// A descriptor this process was given by number, as `--config-fd N` does.
///
/// Returns `None` where the number is not that of an open descriptor.
#[cfg(feature = "cli")]
pub(crate) fn take_fd(number: std::os::fd::RawFd) -> Option<std::os::fd::OwnedFd> {
    use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd};

    if number < 0 {
        return None;
    }
    // SAFETY: only borrowed for the duplication, which fails if it isn't open.
    let open = unsafe { BorrowedFd::borrow_raw(number) }
        .try_clone_to_owned()
        .is_ok();
    // SAFETY: it is open, and whoever started the program with its number gave
    // it away: nothing else in this process knows it.
    open.then(|| unsafe { OwnedFd::from_raw_fd(number) })
}

/// Owns a bus of the C library.
///
/// Invariants, upheld here: `ptr` is a live bus until `drop`; `context` is what
/// its callbacks get as user data and outlives it; neither leaves the thread
/// (both types are `!Send`), so no two calls overlap.
pub(crate) struct RawBus {
    ptr: NonNull<sys::stdio_bus>,
    context: Rc<Context>,
}

impl RawBus {
    /// Reads the configuration and allocates the bus; nothing is started.
    /// The error is the library's text.
    pub(crate) fn create(options: &BusOptions) -> Result<Self, String> {
        let context = Rc::new(Context::default());
        let (base, ext) = options.to_c(&context);
        // SAFETY: both structures and the strings they point to outlive the
        // call, which copies what it keeps.
        let ptr = unsafe { sys::stdio_bus_create_ext(&base, &ext) };
        context.resume_panic();
        match NonNull::new(ptr) {
            Some(ptr) => Ok(Self { ptr, context }),
            None => Err(context
                .take_error()
                .unwrap_or_else(|| "the bus can't be created".into())),
        }
    }

    /// Starts every worker; returns once each program has been executed.
    pub(crate) fn start(&self) -> Result<(), Failure> {
        // SAFETY: `ptr` is live (struct invariant).
        self.call(|| unsafe { sys::stdio_bus_start(self.ptr.as_ptr()) })
            .map(drop)
    }

    /// Looks for each pool's program.
    #[cfg(feature = "cli")]
    pub(crate) fn check(&self) -> Result<(), Failure> {
        // SAFETY: `ptr` is live (struct invariant).
        self.call(|| unsafe { sys::stdio_bus_check(self.ptr.as_ptr()) })
            .map(drop)
    }

    /// One turn of the loop. `None` waits without limit; else the wait is
    /// rounded up to whole milliseconds, so that it never ends too early.
    pub(crate) fn step(&self, wait: Option<Duration>) -> Result<(), Failure> {
        let timeout = match wait {
            None => -1,
            Some(wait) => {
                c_int::try_from(wait.as_nanos().div_ceil(1_000_000)).unwrap_or(c_int::MAX)
            }
        };
        // SAFETY: `ptr` is live (struct invariant); no step is running, since
        // callbacks only copy and nobody else is on this thread.
        self.call(|| unsafe { sys::stdio_bus_step(self.ptr.as_ptr(), timeout) })
            .map(drop)
    }

    /// Begins to stop, within the given time; zero kills at once.
    pub(crate) fn stop_within(&self, limit: Duration) -> Result<(), Failure> {
        let limit = millis(limit);
        // SAFETY: `ptr` is live (struct invariant).
        self.call(|| unsafe { sys::stdio_bus_stop_within(self.ptr.as_ptr(), limit) })
            .map(drop)
    }

    /// Refuses new requests, then stops within `grace` once nothing is pending
    /// or `limit` has passed; without one, the configured limit.
    pub(crate) fn drain(&self, limit: Option<Duration>, grace: Duration) -> Result<(), Failure> {
        let limit = match limit {
            // One less than the value that stands for the configured limit.
            Some(limit) => millis(limit).min(sys::STDIO_BUS_DRAIN_CONFIGURED - 1),
            None => sys::STDIO_BUS_DRAIN_CONFIGURED,
        };
        let grace = millis(grace);
        // SAFETY: `ptr` is live (struct invariant).
        self.call(|| unsafe { sys::stdio_bus_drain(self.ptr.as_ptr(), limit, grace) })
            .map(drop)
    }

    /// Hands a frame to the bus, which copies it. With `answer_errors`, a
    /// request that is refused is answered with a frame instead of a status.
    pub(crate) fn submit(&self, frame: &[u8], answer_errors: bool) -> Result<(), Failure> {
        let options = sys::stdio_bus_submit_options {
            size: size_of::<sys::stdio_bus_submit_options>() as u32,
            flags: if answer_errors {
                sys::STDIO_BUS_SUBMIT_ANSWER_ERRORS
            } else {
                0
            },
            ..Default::default()
        };
        // SAFETY: `ptr` is live (struct invariant); frame and options outlive
        // the call, which copies them.
        self.call(|| unsafe {
            sys::stdio_bus_submit(
                self.ptr.as_ptr(),
                frame.as_ptr().cast(),
                frame.len(),
                &options,
            )
        })
        .map(drop)
    }

    /// Gives up the pending request with this id token. `false` if none is
    /// pending.
    pub(crate) fn cancel(&self, id: &[u8]) -> bool {
        // SAFETY: `ptr` is live (struct invariant); the token outlives the call.
        self.call(|| unsafe {
            sys::stdio_bus_cancel(self.ptr.as_ptr(), id.as_ptr().cast(), id.len())
        })
        .is_ok()
    }

    /// Forgets a session in every pool. `false` if there was none.
    pub(crate) fn end_session(&self, session: &str) -> Result<bool, Failure> {
        // SAFETY: `ptr` is live (struct invariant); the text outlives the call,
        // and a null pool means every pool.
        let result = self.call(|| unsafe {
            sys::stdio_bus_end_session(
                self.ptr.as_ptr(),
                ptr::null(),
                session.as_ptr().cast(),
                session.len(),
            )
        });
        match result {
            Ok(_) => Ok(true),
            Err(failure) if failure.status == Status::NOT_FOUND => Ok(false),
            Err(failure) => Err(failure),
        }
    }

    /// Replaces the configuration. On failure nothing has changed.
    pub(crate) fn reload(&self, json: &CStr) -> Result<(), Failure> {
        // SAFETY: `ptr` is live (struct invariant); the text outlives the call;
        // without a path it is what counts.
        self.call(|| unsafe {
            sys::stdio_bus_reload(self.ptr.as_ptr(), ptr::null(), json.as_ptr())
        })
        .map(drop)
    }

    /// The newest of what a worker wrote to stderr; `None` for an unknown one.
    pub(crate) fn worker_stderr(&self, worker: usize) -> Option<Vec<u8>> {
        let worker = c_int::try_from(worker).ok()?;
        let mut out = vec![0_u8; STDERR_TAIL];
        // SAFETY: `ptr` is live (struct invariant); `out` has the room it is
        // said to have.
        let len = self.call(|| unsafe {
            sys::stdio_bus_worker_stderr(
                self.ptr.as_ptr(),
                worker,
                out.as_mut_ptr().cast(),
                out.len(),
            )
        });
        out.truncate(usize::try_from(len.ok()?).unwrap_or(0));
        out.shrink_to_fit();
        Some(out)
    }

    /// Opens one more listener and returns the address it is bound to. On
    /// failure a socket that came with it is closed.
    pub(crate) fn listen(&self, listen: Listen) -> Result<String, Failure> {
        let options = listen.to_c();
        // SAFETY: `ptr` is live (struct invariant); what `options` points to
        // belongs to `listen`, which outlives the call, and is copied; a
        // descriptor in it is open.
        let id = self.call(|| unsafe { sys::stdio_bus_listen(self.ptr.as_ptr(), &options) })?;
        if let ListenAt::Socket(fd) = listen.at {
            // The bus took it over.
            let _ = fd.into_raw_fd();
        }
        self.listener_address(id)
    }

    fn listener_address(&self, id: c_int) -> Result<String, Failure> {
        // Longer than any path a socket can have, and than any address.
        let mut out = [0_u8; 512];
        // SAFETY: `ptr` is live (struct invariant); `out` has the room it is
        // said to have.
        let len = self.call(|| unsafe {
            sys::stdio_bus_listener_address(
                self.ptr.as_ptr(),
                id,
                out.as_mut_ptr().cast(),
                out.len(),
            )
        })?;
        let len = usize::try_from(len).unwrap_or(0).min(out.len());
        Ok(String::from_utf8_lossy(&out[..len]).into_owned())
    }

    /// Serves a client over descriptors, which the bus then owns. Returns the
    /// client's id. On failure the descriptors are closed.
    pub(crate) fn adopt_client(&self, client: Adopt) -> Result<i32, Failure> {
        let from = client.from.as_raw_fd();
        let to = client.to.as_ref().map_or(from, AsRawFd::as_raw_fd);
        let options = client.to_c();
        // SAFETY: `ptr` is live (struct invariant); the descriptors are open and
        // the options' string lives, since `client` outlives the call.
        let id = self.call(|| unsafe {
            sys::stdio_bus_adopt_client_with(self.ptr.as_ptr(), from, to, &options)
        })?;
        // The bus took them over.
        let _ = client.from.into_raw_fd();
        let _ = client.to.map(IntoRawFd::into_raw_fd);
        Ok(id)
    }

    /// Adds a worker over descriptors, which the bus then owns. Returns its
    /// number. On failure the descriptors are closed.
    pub(crate) fn register_worker(&self, worker: Embed) -> Result<i32, Failure> {
        let (to, from) = (worker.to_worker.as_raw_fd(), worker.from_worker.as_raw_fd());
        // SAFETY: `ptr` is live (struct invariant); the descriptors are open and
        // the pool's name lives, since `worker` outlives the call.
        let id = self.call(|| unsafe {
            sys::stdio_bus_register_embedded_worker(
                self.ptr.as_ptr(),
                to,
                from,
                worker.pool.as_ptr(),
            )
        })?;
        // The bus took them over.
        let _ = worker.to_worker.into_raw_fd();
        let _ = worker.from_worker.into_raw_fd();
        Ok(id)
    }

    /// Takes such a worker out again. `false` if there is none of this number.
    pub(crate) fn unregister_worker(&self, worker: c_int) -> bool {
        // SAFETY: `ptr` is live (struct invariant); no step is running, since
        // callbacks only copy.
        self.call(|| unsafe {
            sys::stdio_bus_unregister_embedded_worker(self.ptr.as_ptr(), worker)
        })
        .is_ok()
    }

    /// Where the C library is in its life, as its number.
    pub(crate) fn state(&self) -> u8 {
        // SAFETY: `ptr` is live (struct invariant).
        let state = unsafe { sys::stdio_bus_get_state(self.ptr.as_ptr()) };
        u8::try_from(state).unwrap_or(u8::MAX)
    }

    pub(crate) fn worker_count(&self) -> usize {
        // SAFETY: `ptr` is live (struct invariant).
        count(unsafe { sys::stdio_bus_worker_count(self.ptr.as_ptr()) })
    }

    pub(crate) fn session_count(&self) -> usize {
        // SAFETY: `ptr` is live (struct invariant).
        count(unsafe { sys::stdio_bus_session_count(self.ptr.as_ptr()) })
    }

    pub(crate) fn pending_count(&self) -> usize {
        // SAFETY: `ptr` is live (struct invariant).
        count(unsafe { sys::stdio_bus_pending_count(self.ptr.as_ptr()) })
    }

    pub(crate) fn client_count(&self) -> usize {
        // SAFETY: `ptr` is live (struct invariant).
        count(unsafe { sys::stdio_bus_client_count(self.ptr.as_ptr()) })
    }

    pub(crate) fn stats(&self) -> sys::stdio_bus_stats {
        let mut stats = sys::stdio_bus_stats::default();
        // SAFETY: `ptr` is live (struct invariant); `stats` is ours to fill.
        unsafe { sys::stdio_bus_get_stats(self.ptr.as_ptr(), &mut stats) };
        stats
    }

    pub(crate) fn ext_stats(&self) -> sys::stdio_bus_ext_stats {
        let mut stats = sys::stdio_bus_ext_stats {
            size: size_of::<sys::stdio_bus_ext_stats>() as u32,
            ..Default::default()
        };
        // SAFETY: `ptr` is live (struct invariant); `stats` is ours to fill and
        // says how large it is. A failure leaves it zeroed.
        let _ = self.call(|| unsafe { sys::stdio_bus_ext_stats(self.ptr.as_ptr(), &mut stats) });
        stats
    }

    /// What each worker slot holds, with the pool's name.
    pub(crate) fn workers(&self) -> Vec<(sys::stdio_bus_worker_info, String)> {
        // SAFETY: `ptr` is live (struct invariant).
        let slots = unsafe { sys::stdio_bus_worker_slots(self.ptr.as_ptr()) };
        (0..slots)
            .filter_map(|worker| self.worker(worker))
            .collect()
    }

    /// What one worker slot holds, with the pool's name.
    pub(crate) fn worker(&self, worker: c_int) -> Option<(sys::stdio_bus_worker_info, String)> {
        let mut info = sys::stdio_bus_worker_info {
            size: size_of::<sys::stdio_bus_worker_info>() as u32,
            ..Default::default()
        };
        // SAFETY: `ptr` is live (struct invariant); `info` is ours to fill and
        // says how large it is.
        self.call(|| unsafe { sys::stdio_bus_worker_info(self.ptr.as_ptr(), worker, &mut info) })
            .ok()?;
        // SAFETY: NUL-terminated, and valid until the next step.
        let pool = unsafe { text(info.pool) };
        Some((info, pool))
    }

    /// What each pool holds, with its name.
    pub(crate) fn pools(&self) -> Vec<(sys::stdio_bus_pool_info, String)> {
        // SAFETY: `ptr` is live (struct invariant).
        let pools = unsafe { sys::stdio_bus_pool_count(self.ptr.as_ptr()) };
        (0..pools).filter_map(|pool| self.pool(pool)).collect()
    }

    fn pool(&self, pool: c_int) -> Option<(sys::stdio_bus_pool_info, String)> {
        let mut info = sys::stdio_bus_pool_info {
            size: size_of::<sys::stdio_bus_pool_info>() as u32,
            ..Default::default()
        };
        // SAFETY: `ptr` is live (struct invariant); `info` is ours to fill and
        // says how large it is.
        self.call(|| unsafe { sys::stdio_bus_pool_info(self.ptr.as_ptr(), pool, &mut info) })
            .ok()?;
        // SAFETY: NUL-terminated, and valid until the next step.
        let id = unsafe { text(info.id) };
        Some((info, id))
    }

    /// Moves out what the callbacks have collected, in the order it came.
    pub(crate) fn take_incoming(&self, into: &mut Vec<Incoming>) {
        self.context.take_incoming(into);
    }

    /// Whether they have collected anything.
    pub(crate) fn has_incoming(&self) -> bool {
        self.context.has_incoming()
    }

    /// For `driver::wake`, which has its own rule for how long it may be used.
    pub(crate) fn as_ptr(&self) -> *mut sys::stdio_bus {
        self.ptr.as_ptr()
    }

    /// Makes one call: what a callback panicked with goes on here, once C has
    /// returned, and a negative result becomes a [`Failure`].
    fn call(&self, call: impl FnOnce() -> c_int) -> Result<c_int, Failure> {
        self.context.clear_error();
        let result = call();
        self.context.resume_panic();
        match Status::of(result) {
            None => Ok(result),
            Some(status) => Err(Failure {
                status,
                reason: self.context.take_error(),
            }),
        }
    }
}

impl Drop for RawBus {
    fn drop(&mut self) {
        // SAFETY: `ptr` is live (struct invariant) and never used again; we are
        // not inside a callback, since those only copy. The context is still
        // there for the callbacks this makes: fields are dropped afterwards.
        unsafe { sys::stdio_bus_destroy(self.ptr.as_ptr()) };
    }
}

/// A call that failed: its status, and the text the library gave with it.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) status: Status,
    pub(crate) reason: Option<String>,
}

impl Failure {
    /// The library's own words, or those of the status.
    pub(crate) fn message(&self) -> String {
        match &self.reason {
            Some(reason) => reason.clone(),
            None => self.status.message().to_owned(),
        }
    }
}

/// A copy of a string of the library's; empty for none.
///
/// # Safety
/// `text` is null, or NUL-terminated and valid during the call.
unsafe fn text(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: not null, and the rest is the caller's promise.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_string_lossy().into_owned()
}

fn count(n: c_int) -> usize {
    usize::try_from(n).unwrap_or(0)
}

fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(u32::MAX)
}
