//! A load on a bus: so many requests in flight, until it is told to end. This is
//! what its tasks or threads share; each way to a bus has a file of its own.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use stdiobus::{Error, ErrorCode};
use tokio::sync::Notify;

use super::histogram::Histogram;
use super::work::Work;

#[derive(Debug)]
pub(super) struct Load {
    pub(super) work: Work,
    pub(super) inflight: u32,
    pub(super) latencies: Histogram,
    phase: AtomicU8,
    ended: Notify,
    sent: AtomicU64,
    failed: AtomicU64,
    lost: AtomicU64,
    first_problem: OnceLock<Problem>,
}

/// Why a request had no result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Problem {
    /// An error came instead.
    Failed(String),
    /// Nothing came in time.
    Lost(String),
}

impl Problem {
    pub(super) fn text(&self) -> &str {
        match self {
            Self::Failed(text) | Self::Lost(text) => text,
        }
    }
}

const WARM: u8 = 0;
const MEASURED: u8 = 1;
const ENDED: u8 = 2;

impl Load {
    pub(super) fn new(work: Work, inflight: u32) -> Self {
        Self {
            work,
            inflight,
            latencies: Histogram::new(),
            phase: AtomicU8::new(WARM),
            ended: Notify::new(),
            sent: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            first_problem: OnceLock::new(),
        }
    }

    /// One that sends what may be in flight, and no more.
    pub(super) fn once(work: Work, inflight: u32) -> Self {
        let load = Self::new(work, inflight);
        load.end();
        load
    }

    /// Answers count from now on.
    pub(super) fn measure(&self) {
        self.phase.store(MEASURED, Ordering::SeqCst);
    }

    /// Answers don't count any more, and none is followed by another request.
    pub(super) fn end(&self) {
        self.phase.store(ENDED, Ordering::SeqCst);
        self.ended.notify_one();
    }

    /// Waits for [`end`](Self::end). For one task.
    pub(super) async fn ended(&self) {
        self.ended.notified().await;
    }

    pub(super) fn goes_on(&self) -> bool {
        self.phase.load(Ordering::Relaxed) != ENDED
    }

    /// The session of the next request.
    pub(super) fn next_session(&self) -> u64 {
        self.sent.fetch_add(1, Ordering::Relaxed) % self.work.sessions
    }

    pub(super) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    pub(super) fn answered(&self, sent: Instant, now: Instant) {
        if self.phase.load(Ordering::Relaxed) == MEASURED {
            self.latencies.record(now.saturating_duration_since(sent));
        }
    }

    /// What became of a request, by the library's clients.
    pub(super) fn took<T>(&self, sent: Instant, result: Result<T, Error>) -> bool {
        match result {
            Ok(_) => {
                self.answered(sent, Instant::now());
                true
            }
            Err(error) => {
                match error.is(ErrorCode::Timeout) {
                    true => self.lost(1),
                    false => self.failed(error.to_string()),
                }
                false
            }
        }
    }

    pub(super) fn failed(&self, why: String) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        self.first_problem.get_or_init(|| Problem::Failed(why));
    }

    pub(super) fn lost(&self, requests: u64) {
        if requests > 0 {
            self.lost.fetch_add(requests, Ordering::Relaxed);
            let limit: Duration = self.work.timeout;
            let text = format!("no answer within {limit:?}");
            self.first_problem.get_or_init(|| Problem::Lost(text));
        }
    }

    /// How many requests failed, and how many were lost.
    pub(super) fn problems(&self) -> (u64, u64, Option<Problem>) {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let first = self.first_problem.get().cloned();
        (count(&self.failed), count(&self.lost), first)
    }
}
