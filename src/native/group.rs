//! A child that leads a process group of its own, and the end of all that is in it.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::process::{die_with, signal_group};

/// One group, from before its leader starts until after it has ended.
#[derive(Debug)]
pub(crate) struct Group(Mutex<State>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The leader may be started.
    Before,
    /// It has this number, which nobody else can get meanwhile.
    Running(u32),
    /// There is nobody left, or nobody shall come.
    Ended,
}

impl Group {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(State::Before))
    }

    /// Starts the leader. It is killed when the calling thread ends, where the
    /// system can do that: stay until [`wait`](Self::wait) returns.
    pub(crate) fn start(&self, command: &mut Command) -> io::Result<Child> {
        if *self.lock() == State::Ended {
            return Err(io::ErrorKind::Interrupted.into());
        }
        command.process_group(0);
        let parent = std::process::id();
        // SAFETY: between fork and exec the closure makes system calls only, each
        // async-signal-safe, and neither allocates nor locks.
        unsafe { command.pre_exec(move || die_with(parent, libc::SIGKILL)) };
        let child = command.spawn()?;
        let pid = child.id();
        let mut state = self.lock();
        let unwanted = *state == State::Ended;
        *state = State::Running(pid);
        if unwanted {
            signal_group(pid, libc::SIGKILL);
        }
        Ok(child)
    }

    /// Waits until the leader has ended, and kills whom it left in the group.
    pub(crate) fn wait(&self, child: &mut Child) -> io::Result<ExitStatus> {
        let ended = wait_for_end(child.id());
        let mut state = self.lock();
        if let State::Running(pid) = *state {
            // Before it is reaped, which would free the number of the group.
            signal_group(pid, libc::SIGKILL);
        }
        *state = State::Ended;
        drop(state);
        ended.and_then(|()| child.wait())
    }

    /// Sends SIGTERM to the group; one that is not there yet does not start.
    pub(crate) fn terminate(&self) {
        self.signal(libc::SIGTERM);
    }

    /// Sends SIGKILL to the group; one that is not there yet does not start.
    pub(crate) fn kill(&self) {
        self.signal(libc::SIGKILL);
    }

    fn signal(&self, signal: libc::c_int) {
        let mut state = self.lock();
        match *state {
            State::Running(pid) => signal_group(pid, signal),
            State::Before | State::Ended => *state = State::Ended,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Leaves the child to be reaped.
fn wait_for_end(child: u32) -> io::Result<()> {
    loop {
        let mut info = std::mem::MaybeUninit::<libc::siginfo_t>::zeroed();
        let options = libc::WEXITED | libc::WNOWAIT;
        // SAFETY: `info` is writable and large enough, and outlives the call.
        let result = unsafe { libc::waitid(libc::P_PID, child, info.as_mut_ptr(), options) };
        if result == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    #[test]
    fn a_group_that_was_ended_before_it_began_does_not_start() {
        let group = Group::new();
        group.kill();
        let error = group.start(&mut Command::new("true")).expect_err("refused");
        assert_eq!(error.kind(), io::ErrorKind::Interrupted);
    }

    #[test]
    fn a_group_ends_with_its_leader_and_signals_after_that_reach_nobody() {
        let group = Group::new();
        let mut child = group
            .start(Command::new("sleep").arg("1000"))
            .expect("it starts");
        group.terminate();
        let status = group.wait(&mut child).expect("it ends");
        assert_eq!(status.signal(), Some(libc::SIGTERM));
        group.kill();
        assert_eq!(*group.lock(), State::Ended);
    }
}
