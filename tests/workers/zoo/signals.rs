//! The three things about signals and descriptors that the standard library doesn't offer.

use std::fs::File;
use std::os::fd::AsRawFd;

const SIGTERM: i32 = 15;
const SIG_BLOCK: i32 = 0;
const SIG_IGN: usize = 1;

#[repr(C)]
struct SignalSet([u64; 16]);

unsafe extern "C" {
    fn signal(signum: i32, handler: usize) -> usize;
    fn sigemptyset(set: *mut SignalSet) -> i32;
    fn sigaddset(set: *mut SignalSet, signum: i32) -> i32;
    fn pthread_sigmask(how: i32, set: *const SignalSet, old: *mut SignalSet) -> i32;
    fn sigwait(set: *const SignalSet, signum: *mut i32) -> i32;
    fn dup2(old: i32, new: i32) -> i32;
}

pub fn ignore_term() {
    // SAFETY: SIG_IGN runs no code of ours.
    unsafe { signal(SIGTERM, SIG_IGN) };
}

fn term() -> SignalSet {
    let mut set = SignalSet([0; 16]);
    // SAFETY: `set` is as large as the platform's sigset_t and lives through the call.
    unsafe { sigemptyset(&mut set) };
    // SAFETY: as above.
    unsafe { sigaddset(&mut set, SIGTERM) };
    set
}

pub fn block_term() {
    // SAFETY: the set is initialised; the old mask is not asked for.
    unsafe { pthread_sigmask(SIG_BLOCK, &term(), std::ptr::null_mut()) };
}

pub fn wait_for_term() {
    let mut signum = 0;
    // SAFETY: both pointers are to live values.
    unsafe { sigwait(&term(), &mut signum) };
}

/// Closes the pipe behind stdout; descriptor 1 stays taken, so that no file gets it.
pub fn close_stdout() {
    let null = File::options()
        .write(true)
        .open("/dev/null")
        .expect("/dev/null opens");
    // SAFETY: both descriptors are open; nothing owns descriptor 1 but the standard library's
    // handle, which keeps writing to it.
    unsafe { dup2(null.as_raw_fd(), 1) };
}
