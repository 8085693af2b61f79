//! What comes before what, and what may overtake.
//!
//! **Within a session, order holds.** All messages of a session reach the same
//! worker of a pool, in the order in which they were sent. A [`Request`] counts as
//! sent when it is first polled, a [`try_request`] when it is called. Everything a
//! [`StdioBus`] sends belongs to its own session unless [`RequestOptions`] says
//! otherwise, so by default one worker of a pool gets it all.
//!
//! ```
//! use serde_json::json;
//! use stdiobus::{PoolConfig, RequestOptions, blocking::StdioBus};
//!
//! # fn main() -> stdiobus::Result<()> {
//! // `sed` makes an answer of each request: its method becomes the result.
//! let sed = PoolConfig::new("sed", "sed").args(["-u", r#"s/"method"/"result"/"#]);
//! let bus = StdioBus::builder().pool(sed.instances(2)).build_blocking()?;
//! bus.start()?;
//!
//! // One session, one worker.
//! assert_eq!(bus.request("first", ())?, "first");
//! assert_eq!(bus.request("second", ())?, "second");
//! assert_eq!(bus.session_count(), Some(1));
//!
//! // No session: whichever worker has the least to do.
//! assert_eq!(bus.request_with("third", (), RequestOptions::new().unpinned())?, "third");
//! bus.stop()?;
//! # Ok(())
//! # }
//! ```
//!
//! **Answers come in the order in which the worker gives them.** A worker may
//! answer its second request first, and the bus passes that on as it is. What a
//! worker says about a request (chunks, progress) comes before the request's
//! answer, if the worker has written it before.
//!
//! **A stream or a subscription keeps the order of its worker.** What two workers
//! say has no order between them.
//!
//! # What may overtake
//! - Messages of different sessions, and requests without one.
//! - A notification overtakes requests that wait for room in the
//!   [budget](super::backpressure): it must, since it may be the one that cancels
//!   what fills it.
//! - Where a reload changes a pool, its old workers still answer what they have
//!   while the new ones take what comes, also of the same session.
//! - Requests that were queued while no worker of the pool was ready keep their
//!   order among themselves.
//! - Handlers of [`on_request`], and calls of [`register_worker`], run at the same
//!   time: they begin in no certain order.
//!   [`on_notification`] handlers are called one after the other, in order.
//!
//! # When a worker ends
//! Its sessions are bound anew by their next message, perhaps to another worker.
//! What the old one had not answered has ended with an error by then, so nothing
//! of before comes after.
//!
//! [`Request`]: crate::Request
//! [`try_request`]: crate::StdioBus::try_request
//! [`StdioBus`]: crate::StdioBus
//! [`RequestOptions`]: crate::RequestOptions
//! [`on_request`]: crate::StdioBusBuilder::on_request
//! [`register_worker`]: crate::StdioBus::register_worker
//! [`on_notification`]: crate::StdioBus::on_notification
