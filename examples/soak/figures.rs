//! What processes occupy, as `/proc` has it.

use std::fs;
use std::path::Path;

/// Rounds after which memory has found its level.
pub const WARM_UP: usize = 3;
/// How far memory may rise above that: arenas of the allocator that grow with the largest burst so far,
/// what is remembered of requests that no worker ever answers, and a bit for each request here.
const SLACK_KIB: u64 = 6 << 10;

/// One process at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Figures {
    pub rss_kib: u64,
    pub fds: usize,
    pub threads: usize,
    pub children: usize,
    pub zombies: usize,
}

impl Figures {
    pub fn of(pid: u32) -> Figures {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let rss = rss.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
        let count = |what: &str| numbers_in(&format!("/proc/{pid}/{what}")).len();
        let children: Vec<_> = stats()
            .into_iter()
            .filter(|stat| stat.parent == pid)
            .collect();
        Figures {
            rss_kib: rss.unwrap_or(0),
            fds: count("fd"),
            threads: count("task"),
            children: children.len(),
            zombies: children.iter().filter(|stat| stat.is_zombie).count(),
        }
    }

    /// All but memory, which never is the same twice.
    pub fn counts(&self) -> [usize; 4] {
        [self.fds, self.threads, self.children, self.zombies]
    }
}

/// Says what is wrong with the memory of the rounds, if something is.
pub fn rise(rounds: &[u64]) -> Option<String> {
    let after = rounds
        .get(WARM_UP..)
        .filter(|after| after.len() >= 2 * WARM_UP)?;
    let third = after.len() / 3;
    let median = |part: &[u64]| {
        let mut part = part.to_vec();
        part.sort_unstable();
        part[part.len() / 2]
    };
    let (early, late) = (
        median(&after[..third]),
        median(&after[after.len() - third..]),
    );
    let most = early + early / 10 + SLACK_KIB;
    (late > most).then(|| format!("memory rose from {early} to {late} KiB: {rounds:?}"))
}

struct Stat {
    parent: u32,
    is_zombie: bool,
}

fn stats() -> Vec<Stat> {
    let stat = |pid: u32| {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (_, rest) = text.rsplit_once(')')?;
        let mut fields = rest.split_whitespace();
        let is_zombie = matches!(fields.next()?, "Z" | "X");
        let parent = fields.next()?.parse().ok()?;
        Some(Stat { parent, is_zombie })
    };
    numbers_in("/proc").into_iter().filter_map(stat).collect()
}

/// The processes that have this path among their arguments.
pub fn with_argument(path: &Path) -> Vec<u32> {
    let path = path.as_os_str().as_encoded_bytes();
    let has = |pid: &u32| {
        let args = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        args.split(|byte| *byte == 0).any(|arg| arg == path)
    };
    numbers_in("/proc").into_iter().filter(has).collect()
}

fn numbers_in(folder: &str) -> Vec<u32> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}
