//! What operators see of a bus: spans, events and metrics, and their names.
//!
//! Nothing below costs anything unless its feature is on, `tracing` or `metrics`:
//! without it the code isn't there. Without any feature there are
//! [`StdioBus::stats`], [`pools`], [`workers`], [`events`] and the builder's
//! [`on_log`].
//!
//! Several buses in one process are told apart by their [`name`], `stdiobus`
//! unless set: the field `bus`, and the label `bus`. Give each its own.
//!
//! No params, results, error texts or lines of workers are in any field or label.
//! Names of methods, pools and sessions are; of log lines see below.
//!
//! # The span of a request
//! Each request and each stream of this process has a span `stdiobus.request` of
//! target `stdiobus` and level DEBUG. It is made where the request is, so the
//! caller's span is its parent; it is entered at each poll and left again; and it
//! closes when the request is dropped. Where that level is off, a request costs a few
//! looks at a flag more.
//!
//! | field | what |
//! |---|---|
//! | `bus` | the bus |
//! | `request` | the request's number: [`Request::id`] |
//! | `method` | its method |
//! | `pool` | the pool or agent it names; absent without one |
//! | `session` | the session it belongs to; absent for none |
//! | `outcome` | `ok`; `rpc_error` for a worker's own error; the name of an [`ErrorCode`], `Cancelled` for one that was dropped; `detached`; `unsent` for one that was never polled |
//! | `rpc_code` | the number of the JSON-RPC error, the worker's or the bus's; absent without one |
//! | `elapsed_ms` | from the first poll to the end, in milliseconds with a fraction; absent where `outcome` is `detached` or `unsent` |
//!
//! The last three are recorded at the end.
//!
//! # Events
//! What happens on the bus is told with target `stdiobus`, on the bus's own thread,
//! so only to the subscriber of the whole process: while that looks at an event, no
//! message moves. Each event has the field `bus`, those about a worker also `pool`,
//! `worker`, `generation` and, where there is a process, `pid`.
//!
//! | message | level | more fields |
//! |---|---|---|
//! | `worker started` | INFO | |
//! | `worker ready` | INFO | |
//! | `worker stalled` | WARN | |
//! | `worker stopping` | INFO | |
//! | `worker stopped` | INFO; WARN where nobody had asked it to | `code` or `signal`, `uptime_ms` |
//! | `worker restarting` | INFO | `delay_ms` |
//! | `worker failed` | ERROR | `reason` |
//! | `worker garbage` | DEBUG | `bytes`: how much of the line the bus has kept |
//! | `unattributed` | DEBUG | |
//! | `client connected` | DEBUG | `client`, `peer` |
//! | `client disconnected` | DEBUG; WARN unless `closed` or `shutdown` | `client`, `reason` |
//! | `dropped` | WARN | `reason` |
//! | `overflow` | WARN | `queue`: `request`, `subscriber` or `handler`; `request`: its number |
//!
//! They are those of [`Event`], which explains them. Nothing is told of each message
//! at INFO or above, unless messages are lost.
//!
//! # Log lines
//! The bus's log lines say in words what the events say with fields, and a little
//! more: where it listens, why a program can't be executed. They have target
//! `stdiobus::log` and the field `bus`, so that a filter such as
//! `stdiobus=info,stdiobus::log=off` leaves them out. They may quote what a worker
//! wrote: at WARN a line on stdout that is no message, at DEBUG its stderr.
//!
//! What an agent that is called without a bus writes to stderr has target
//! `stdiobus::agent`, the field `agent`, and DEBUG.
//!
//! # Metrics
//! Counters and gauges are brought up to date by `StdioBus::publish_metrics`, which
//! whoever scrapes calls before; so no message pays for them, and the bus thread
//! answers three questions a scrape. Only the histogram is recorded as requests end,
//! in the task that gets the answer, for the price of one look-up of its series.
//! Counters count from the first publishing on
//! what the bus has counted since it was built; a bus that follows another one under
//! the same name goes on from there. A recorder has to be installed before.
//!
//! ```
//! use stdiobus::{PoolConfig, blocking::StdioBus};
//!
//! # fn main() -> stdiobus::Result<()> {
//! let bus = StdioBus::builder()
//!     .name("tools")
//!     .pool(PoolConfig::new("cat", "cat"))
//!     .build_blocking()?;
//! bus.start()?;
//! assert_eq!(bus.name(), "tools");
//!
//! // In the handler of `/metrics`, before the exporter writes its page:
//! #[cfg(feature = "metrics")]
//! bus.publish_metrics()?;
//!
//! // The same without any feature:
//! let pool = &bus.pools()?[0];
//! assert_eq!((pool.id.as_str(), pool.ready, pool.pending), ("cat", 1, 0));
//! assert_eq!(bus.stats()?.pending, 0);
//! bus.stop()?;
//! # Ok(())
//! # }
//! ```
//!
//! Of this process's requests, a histogram with the labels `bus` and `outcome`, as
//! above but for `detached` and `unsent`. The method is no label: callers may choose
//! it, and each value would be a series for ever.
//! - `stdiobus_request_duration_seconds`
//!
//! Counters with the label `bus`:
//! - `stdiobus_messages_in_total`, `stdiobus_messages_out_total`,
//!   `stdiobus_bytes_in_total`, `stdiobus_bytes_out_total`
//! - `stdiobus_worker_restarts_total`, `stdiobus_worker_garbage_total`,
//!   `stdiobus_unattributed_frames_total`, `stdiobus_late_answers_total`
//! - `stdiobus_client_connects_total`, `stdiobus_client_disconnects_total`,
//!   `stdiobus_unauthorized_clients_total`, `stdiobus_parse_errors_total`,
//!   `stdiobus_stale_cancels_total`
//! - `stdiobus_routing_errors_total`, `stdiobus_oversize_frames_total`,
//!   `stdiobus_dropped_frames_total`, `stdiobus_overload_refusals_total`
//! - `stdiobus_refused_worker_requests_total`,
//!   `stdiobus_unhandled_notifications_total`, `stdiobus_lagged_messages_total`
//!
//! Gauges with the label `bus`:
//! - `stdiobus_pending_requests`, `stdiobus_queued_requests`,
//!   `stdiobus_queued_bytes`, `stdiobus_outbox_bytes`, `stdiobus_tombstones`
//! - `stdiobus_sessions`, `stdiobus_clients`
//! - `stdiobus_in_flight_bytes`, `stdiobus_waiting_for_room_requests`
//!
//! With the labels `bus` and `pool`, the first three of them counters, the others
//! gauges, `stdiobus_pool_workers` also with `state` (`starting`, `ready`,
//! `stopping`, `backoff`, `failed`), `stdiobus_pool_latency_seconds` with `quantile`
//! (`0.5`, `0.9`, `0.99`, `1`):
//! - `stdiobus_pool_requests_total`, `stdiobus_pool_answers_total`,
//!   `stdiobus_pool_restarts_total`
//! - `stdiobus_pool_latency_seconds`: of all answers since the pool began, those to
//!   clients on sockets included
//! - `stdiobus_pool_workers`, `stdiobus_pool_sessions`
//! - `stdiobus_pool_pending_requests`, `stdiobus_pool_queued_requests`,
//!   `stdiobus_pool_queued_bytes`, `stdiobus_pool_outbox_bytes`
//!
//! Gauges with the labels `bus`, `pool` and `worker`:
//! - `stdiobus_worker_ready` (0 or 1), `stdiobus_worker_pending_requests`,
//!   `stdiobus_worker_generation`, `stdiobus_worker_uptime_seconds`
//!
//! Those of a pool or worker that is gone are 0. All have a description and a unit;
//! what they mean is with [`Stats`], [`PoolInfo`] and [`WorkerInfo`].
//!
//! [`StdioBus::stats`]: crate::StdioBus::stats
//! [`pools`]: crate::StdioBus::pools
//! [`workers`]: crate::StdioBus::workers
//! [`events`]: crate::StdioBus::events
//! [`on_log`]: crate::StdioBusBuilder::on_log
//! [`name`]: crate::StdioBusBuilder::name
//! [`Request::id`]: crate::Request::id
//! [`ErrorCode`]: crate::ErrorCode
//! [`Event`]: crate::Event
//! [`Stats`]: crate::Stats
//! [`PoolInfo`]: crate::PoolInfo
//! [`WorkerInfo`]: crate::WorkerInfo
