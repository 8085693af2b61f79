//! What this process has used: CPU time, memory, wake-ups.

use std::fs;
use std::time::Duration;

use nix::time::ClockId;

/// Memory, in KiB.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Memory {
    pub(super) peak: Option<u64>,
    pub(super) now: Option<u64>,
}

/// CPU time of all threads so far, those that have ended included.
pub(super) fn cpu() -> Option<Duration> {
    let clock = ClockId::CLOCK_PROCESS_CPUTIME_ID;
    clock.now().ok().map(Duration::from)
}

/// CPU time since then.
pub(super) fn since(before: Option<Duration>) -> Option<Duration> {
    Some(cpu()?.saturating_sub(before?))
}

/// Lets the peak begin anew. Where the kernel refuses, it goes back to the start.
pub(super) fn forget_peak() {
    const PEAK: &str = "5";
    let _ = fs::write("/proc/self/clear_refs", PEAK);
}

pub(super) fn memory() -> Memory {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    Memory {
        peak: number(&status, "VmHWM:"),
        now: number(&status, "VmRSS:"),
    }
}

/// How often its threads have gone to sleep so far.
pub(super) fn sleeps() -> Option<u64> {
    let tasks = fs::read_dir("/proc/self/task").ok()?;
    let of_task = |task: fs::DirEntry| {
        let status = fs::read_to_string(task.path().join("status")).ok()?;
        number(&status, "voluntary_ctxt_switches:")
    };
    Some(tasks.flatten().filter_map(of_task).sum())
}

fn number(status: &str, key: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_this_process_uses_is_seen() {
        assert!(cpu().is_some_and(|cpu| !cpu.is_zero()));
        let found = memory();
        assert!(found.peak >= found.now && found.now > Some(0), "{found:?}");
        assert!(sleeps().is_some());
    }
}
