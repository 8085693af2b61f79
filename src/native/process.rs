//! What starting and ending a child needs beyond the standard library.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::RawFd;
use std::os::unix::process::CommandExt;
use std::process::{self, Command};
use std::ptr;

/// Lets children of this command keep a descriptor, and gives them SIGTERM when
/// the thread that starts them ends, where the system can.
pub(crate) fn tie(command: &mut Command, keep: Option<RawFd>) {
    let parent = process::id();
    let set_up = move || {
        if let Some(fd) = keep {
            // SAFETY: takes a number, and is async-signal-safe.
            check(unsafe { libc::fcntl(fd, libc::F_SETFD, 0) })?;
        }
        die_with(parent, libc::SIGTERM)
    };
    // SAFETY: between fork and exec the closure makes system calls only, each
    // async-signal-safe, and neither allocates nor locks.
    unsafe { command.pre_exec(set_up) };
}

/// Lets no write of this thread raise SIGPIPE, whatever the host does with that
/// signal. Children that are started here don't inherit it: the standard library
/// empties their mask.
pub(crate) fn block_sigpipe() {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    let set = set.as_mut_ptr();
    // SAFETY: writes the set, which is ours.
    unsafe { libc::sigemptyset(set) };
    // SAFETY: the set has been written.
    unsafe { libc::sigaddset(set, libc::SIGPIPE) };
    // SAFETY: reads the set; the rest of the thread's mask stays as it is.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, set, ptr::null_mut()) };
}

/// Gets this signal when the thread ends that the calling process was forked by.
#[cfg(target_os = "linux")]
pub(super) fn die_with(parent: u32, signal: libc::c_int) -> io::Result<()> {
    // SAFETY: sets an attribute of the calling process; async-signal-safe.
    check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, signal) })?;
    // It may have died before that.
    // SAFETY: takes nothing, can't fail, and is async-signal-safe.
    let now = unsafe { libc::getppid() };
    match u32::try_from(now) {
        Ok(now) if now == parent => Ok(()),
        _ => Err(io::ErrorKind::NotFound.into()),
    }
}

#[cfg(not(target_os = "linux"))]
pub(super) fn die_with(_parent: u32, _signal: libc::c_int) -> io::Result<()> {
    Ok(())
}

/// Sends SIGTERM to a child that has not been waited for, so that its number is
/// still its own.
pub(crate) fn terminate(child: u32) {
    if let Ok(pid) = libc::pid_t::try_from(child)
        && pid > 0
    {
        // SAFETY: takes numbers; one that has ended already is no harm.
        let _ = unsafe { libc::kill(pid, libc::SIGTERM) };
    }
}

/// Sends SIGTERM to all processes of a child's group; see [`kill_group`].
#[cfg(feature = "agent")]
pub(crate) fn terminate_group(child: u32) {
    signal_group(child, libc::SIGTERM);
}

/// Sends SIGKILL to all processes of the group that a child was started in as
/// the first. It has not been waited for, or was so just now: a group's number
/// isn't given to others while one of the group runs, and numbers come round late.
#[cfg(feature = "agent")]
pub(crate) fn kill_group(child: u32) {
    signal_group(child, libc::SIGKILL);
}

#[cfg(feature = "agent")]
pub(super) fn signal_group(child: u32, signal: libc::c_int) {
    // 0 and 1 would mean this process's own group, and everybody.
    if let Ok(group) = libc::pid_t::try_from(child)
        && group > 1
    {
        // SAFETY: takes numbers; a group that has ended already is no harm.
        let _ = unsafe { libc::kill(-group, signal) };
    }
}

fn check(result: libc::c_int) -> io::Result<()> {
    match result {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Takes a variable out of the environment, if this is the only thread.
#[cfg(feature = "cli")]
pub(crate) fn forget_variable(name: &str) {
    let threads = std::fs::read_dir("/proc/self/task").map(Iterator::count);
    if threads.is_ok_and(|threads| threads == 1) {
        // SAFETY: there is nobody who could read the environment meanwhile.
        unsafe { std::env::remove_var(name) };
    }
}
