//! Who waits when somebody is slow, and what is refused.
//!
//! Everything that can pile up is bounded in bytes or in number. What is beyond a
//! bound waits, is refused, or is lost; what is lost is counted in [`Stats`].
//! Nobody has to wait for another one's slowness.
//!
//! | what piles up | bound | beyond it |
//! |---|---|---|
//! | requests of this process in flight | [`max_in_flight_bytes`], 64 MiB | the next waits for room, within its own timeout; [`try_request`] is refused |
//! | bytes that one worker has not read | [`max_output_queue`], 40 MiB; half of it for one client | refused at once: `ResourceExhausted` |
//! | bytes that wait in a pool whose workers aren't ready | [`max_output_queue`] | refused at once: `ResourceExhausted` |
//! | bytes that a socket client has not read | [`max_output_queue`], and 60 seconds ([`backpressure_timeout_sec`]) without reading any | its connection is closed |
//! | what belongs to a stream that isn't read | [`max_waiting`], 16 MiB | the stream ends: `ResourceExhausted` |
//! | notifications for a subscriber | [`max_queue`], 256 | the newest is lost, or the subscription ends |
//! | events for a subscriber | 1024, or as [`events_with`] says | the newest is lost |
//! | messages for a handler ([`on_notification`], [`on_message`]) | 1024 | the newest is lost |
//! | requests of workers open here | 1024 | the next is answered with an error |
//! | calls open in a worker of this process | 1024 | the next waits in that worker's queue |
//! | requests in flight, of everybody | [`max_pending`], 1048576 | refused at once: `ResourceExhausted` |
//! | sessions | [`max_sessions`], 1048576 | the one that has been unused for longest is forgotten |
//! | socket clients | [`max_clients`], 65536 | the next is refused |
//! | one message | [`max_input_buffer`], 10 MiB | refused |
//!
//! But for the last of these, a message that exceeds a bound all by itself isn't
//! stuck behind it: where nothing else is before it, it passes.
//!
//! # The budget
//! A request has its bytes in the budget from the moment it is sent to the moment
//! it ends. Those that wait for room do so in a line, and nobody overtakes it:
//!
//! ```
//! use serde_json::json;
//! use stdiobus::{ErrorCode, PoolConfig, StdioBus};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> stdiobus::Result<()> {
//! // A worker that reads and never answers.
//! let silent = PoolConfig::new("silent", "sh").args(["-c", "cat >/dev/null"]);
//! let bus = StdioBus::builder().pool(silent).max_in_flight_bytes(1000).build()?;
//! bus.start().await?;
//!
//! let first = bus.try_request("store", "x".repeat(800))?;
//! let second = bus.try_request("store", "y".repeat(800));
//! assert!(second.unwrap_err().is(ErrorCode::ResourceExhausted));
//! drop(first); // given up, which makes room
//! assert_eq!(bus.stats().await?.in_flight_bytes, 0);
//! let _third = bus.try_request("store", "z".repeat(800))?;
//! bus.stop().await?;
//! # Ok(())
//! # }
//! ```
//!
//! A handler that sends a request while the one that it serves fills the budget
//! waits for room that only it can make: it ends with its timeout. Leave the budget
//! larger than what is in flight at once, or use [`try_request`] in handlers.
//!
//! The budget counts until a request ends, the bus's own bound only until the
//! worker has read it. So with long requests to many workers it is the budget that
//! is met first, and with a burst to one slow worker it is the bound of its queue:
//! a budget below half of [`max_output_queue`] turns those refusals into waiting,
//! but for what was given up before the worker had read it.
//!
//! [`Stats`]: crate::Stats
//! [`max_in_flight_bytes`]: crate::StdioBusBuilder::max_in_flight_bytes
//! [`try_request`]: crate::StdioBus::try_request
//! [`max_output_queue`]: crate::LimitsConfig::max_output_queue
//! [`max_input_buffer`]: crate::LimitsConfig::max_input_buffer
//! [`backpressure_timeout_sec`]: crate::LimitsConfig::backpressure_timeout_sec
//! [`max_pending`]: crate::LimitsConfig::max_pending
//! [`max_sessions`]: crate::LimitsConfig::max_sessions
//! [`max_clients`]: crate::LimitsConfig::max_clients
//! [`on_notification`]: crate::StdioBus::on_notification
//! [`on_message`]: crate::StdioBus::on_message
//! [`max_waiting`]: crate::RequestOptions::max_waiting
//! [`max_queue`]: crate::NotificationOptions::max_queue
//! [`events_with`]: crate::StdioBus::events_with
