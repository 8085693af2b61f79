//! What happens to what is given up.
//!
//! A request ends exactly once: with its answer, with an error, or by being given
//! up. It is given up when its [`Request`] or [`ResponseStream`] is dropped, when
//! its timeout is over, and when the client that sent it through a socket goes
//! away.
//!
//! ```
//! use std::time::Duration;
//! use serde_json::json;
//! use stdiobus::{ErrorCode, PoolConfig, RequestOptions, blocking::StdioBus};
//!
//! # fn main() -> stdiobus::Result<()> {
//! // A worker that reads and never answers.
//! let silent = PoolConfig::new("silent", "sh").args(["-c", "cat >/dev/null"]);
//! let bus = StdioBus::builder().pool(silent).build_blocking()?;
//! bus.start()?;
//!
//! let short = RequestOptions::new().timeout(Duration::from_millis(50));
//! let error = bus.request_with("anything", json!({}), short).unwrap_err();
//! assert!(error.is(ErrorCode::Timeout));
//! assert_eq!(bus.stats()?.pending, 0);
//! assert_eq!(bus.stats()?.tombstones, 1); // its answer may still come, and reach nobody
//! bus.stop()?;
//! # Ok(())
//! # }
//! ```
//!
//! # What the worker hears
//! | protocol of the pool | what is sent to it |
//! |---|---|
//! | MCP | `notifications/cancelled` with the request's id |
//! | ACP | `session/cancel` for a `session/prompt`, else `$/cancel_request` |
//! | NDJSON | nothing: there is no word for it |
//!
//! A client on a socket says it in the words of its protocol, or to the bus itself:
//! `stdio_bus/cancel` with `{"requestId": ID}` does the same as dropping a
//! [`Request`] does here.
//!
//! Whether it stops is its own affair. Its late answer is swallowed and counted
//! ([`Stats::late_answers`]); until it comes or the worker ends, the id stays
//! taken, so that it can't be mistaken for the answer to something else.
//!
//! What an NDJSON worker goes on to *say* about a request that was given up can't be
//! told from what it says about the next one of the same session: a new stream there
//! may begin with the rest of the one that was dropped. Another session keeps them
//! apart. An ACP agent's next turn waits until the one that was given up has ended.
//!
//! # Timeouts
//! A request has the builder's timeout, 30 seconds unless set, from the first poll
//! on, waiting for room included. `session/prompt` has none, since a person may
//! have to be asked. MCP's progress begins the builder's timeout anew, up to ten
//! times its length in all; a timeout that the request itself was given is never
//! put off. An answer that is there beats a deadline that is over.
//!
//! # Futures that are dropped
//! Dropping any future of this crate is safe; each says under *Cancel safety* what
//! it leaves behind. In short: what commands the bus (`start`, `stop`, `drain`,
//! `reload`) goes on, what asks is given up, and what waits for the next item of a
//! stream loses nothing. [`Request::detach`] lets a request go without giving it
//! up.
//!
//! # Two things that can lock each other
//! A handler of [`on_request`] that sends a request and waits for it is fine: each
//! runs in a task of its own. A handler that *blocks* its thread while it waits is
//! not: on a runtime with one thread, which is what the [`blocking`] client uses,
//! nothing else runs then.
//!
//! [`Request`]: crate::Request
//! [`ResponseStream`]: crate::ResponseStream
//! [`Stats::late_answers`]: crate::Stats::late_answers
//! [`Request::detach`]: crate::Request::detach
//! [`on_request`]: crate::StdioBusBuilder::on_request
//! [`blocking`]: crate::blocking
