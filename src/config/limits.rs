//! The limits, and the ranges of numbers.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use super::invalid;
use crate::error::Result;

/// The longest time that is given in seconds: its milliseconds fit 32 bits.
pub(super) const SECONDS_MAX: u64 = u32::MAX as u64 / 1000;

/// The most sessions, requests or clients.
const COUNT_MAX: u64 = 1 << 30;

const KIB: u64 = 1 << 10;
const GIB: u64 = 1 << 30;

/// The most bytes that may wait for one worker or client.
const QUEUE_MAX: u64 = if cfg!(target_pointer_width = "64") {
    16 * GIB
} else {
    GIB
};

/// The limits. `None` means the bus's default, which each field names.
///
/// ```
/// use stdiobus::LimitsConfig;
///
/// let limits = LimitsConfig::new().max_input_buffer(1 << 20).max_restarts(3);
/// assert_eq!(limits.max_restarts, Some(3));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct LimitsConfig {
    /// Largest message, in bytes. 10 MiB; from 1 KiB to 1 GiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_input_buffer: Option<u64>,
    /// Bytes that may wait for one worker or one client. 40 MiB; from 1 KiB to
    /// 16 GiB (1 GiB on 32-bit systems).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_output_queue: Option<u64>,
    /// Restarts of a worker within the window; where one more were due, it is
    /// given up until the window is over. 5; 0 is never restart.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_restarts: Option<u32>,
    /// That window, in seconds. 60; at least 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restart_window_sec: Option<u32>,
    /// How long a drain waits for what is in flight, in seconds. 30.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drain_timeout_sec: Option<u32>,
    /// How long a client may not read before it is closed, in seconds. 60; at least 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backpressure_timeout_sec: Option<u32>,
    /// How long a worker may not read before it is stopped, in seconds. 0: never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stall_timeout_sec: Option<u32>,
    /// Sessions kept; beyond it the one unused for longest is forgotten. 1048576.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_sessions: Option<u32>,
    /// How long an unused session is kept, in seconds. 0: for ever.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_idle_sec: Option<u32>,
    /// Requests in flight. 1048576.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_pending: Option<u32>,
    /// Socket clients. 65536.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_clients: Option<u32>,
}

impl LimitsConfig {
    /// All limits at the bus's defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the largest message, in bytes: from 1 KiB to 1 GiB.
    #[must_use]
    pub fn max_input_buffer(mut self, bytes: u64) -> Self {
        self.max_input_buffer = Some(bytes);
        self
    }

    /// Sets how many bytes may wait for one worker or one client: from 1 KiB to
    /// 16 GiB (1 GiB on 32-bit systems).
    #[must_use]
    pub fn max_output_queue(mut self, bytes: u64) -> Self {
        self.max_output_queue = Some(bytes);
        self
    }

    /// Sets how often a worker is started again within the window; 0 is never.
    #[must_use]
    pub fn max_restarts(mut self, restarts: u32) -> Self {
        self.max_restarts = Some(restarts);
        self
    }

    /// Sets that window, in seconds: at least 1.
    #[must_use]
    pub fn restart_window_sec(mut self, seconds: u32) -> Self {
        self.restart_window_sec = Some(seconds);
        self
    }

    /// Sets how long a drain waits for what is in flight, in seconds.
    #[must_use]
    pub fn drain_timeout_sec(mut self, seconds: u32) -> Self {
        self.drain_timeout_sec = Some(seconds);
        self
    }

    /// Sets how long a client may not read before it is closed, in seconds: at
    /// least 1.
    #[must_use]
    pub fn backpressure_timeout_sec(mut self, seconds: u32) -> Self {
        self.backpressure_timeout_sec = Some(seconds);
        self
    }

    /// Sets how long a worker may not read before it is stopped, in seconds; 0 is
    /// for ever.
    #[must_use]
    pub fn stall_timeout_sec(mut self, seconds: u32) -> Self {
        self.stall_timeout_sec = Some(seconds);
        self
    }

    /// Sets how many sessions are kept: from 1 to 2^30.
    #[must_use]
    pub fn max_sessions(mut self, sessions: u32) -> Self {
        self.max_sessions = Some(sessions);
        self
    }

    /// Sets how long an unused session is kept, in seconds; 0 is for ever.
    #[must_use]
    pub fn session_idle_sec(mut self, seconds: u32) -> Self {
        self.session_idle_sec = Some(seconds);
        self
    }

    /// Sets how many requests may be in flight: from 1 to 2^30.
    #[must_use]
    pub fn max_pending(mut self, requests: u32) -> Self {
        self.max_pending = Some(requests);
        self
    }

    /// Sets how many socket clients there may be: from 1 to 2^30.
    #[must_use]
    pub fn max_clients(mut self, clients: u32) -> Self {
        self.max_clients = Some(clients);
        self
    }

    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The ranges are those of the bus, which would name a line and a column that
    /// nobody wrote.
    pub(super) fn validate(&self) -> Result<()> {
        let (seconds, some_seconds) = (0..=SECONDS_MAX, 1..=SECONDS_MAX);
        let (count, wide) = (1..=COUNT_MAX, |n: Option<u32>| n.map(u64::from));
        let numbers = [
            ("max_input_buffer", self.max_input_buffer, KIB..=GIB),
            ("max_output_queue", self.max_output_queue, KIB..=QUEUE_MAX),
            (
                "restart_window_sec",
                wide(self.restart_window_sec),
                some_seconds.clone(),
            ),
            (
                "drain_timeout_sec",
                wide(self.drain_timeout_sec),
                seconds.clone(),
            ),
            (
                "backpressure_timeout_sec",
                wide(self.backpressure_timeout_sec),
                some_seconds,
            ),
            (
                "stall_timeout_sec",
                wide(self.stall_timeout_sec),
                seconds.clone(),
            ),
            ("max_sessions", wide(self.max_sessions), count.clone()),
            ("session_idle_sec", wide(self.session_idle_sec), seconds),
            ("max_pending", wide(self.max_pending), count.clone()),
            ("max_clients", wide(self.max_clients), count),
        ];
        for (name, value, range) in numbers {
            if let Some(value) = value {
                in_range(value, range)
                    .map_err(|wanted| invalid(format!("limits.{name}: {wanted}")))?;
            }
        }
        Ok(())
    }
}

/// The error is the text about it, in the words of the bus.
pub(super) fn in_range(value: u64, range: RangeInclusive<u64>) -> Result<(), String> {
    if range.contains(&value) {
        return Ok(());
    }
    let (least, most) = range.into_inner();
    Err(format!(
        "must be a whole number from {least} to {most}, not {value}"
    ))
}
