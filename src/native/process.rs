//! What starting and ending a child needs beyond the standard library.

use std::io;
use std::os::fd::RawFd;
use std::os::unix::process::CommandExt;
use std::process::{self, Command};

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

fn check(result: libc::c_int) -> io::Result<()> {
    match result {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}
