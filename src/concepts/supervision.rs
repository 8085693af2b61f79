//! How workers start, end and come back.
//!
//! A pool is a command and a number of workers. [`StdioBus::start`] returns once
//! every program has been executed, and fails with the program's name and the
//! system's reason where one can't be.
//!
//! ```
//! use stdiobus::{ErrorCode, PoolConfig, blocking::StdioBus};
//!
//! # fn main() -> stdiobus::Result<()> {
//! let missing = PoolConfig::new("a", "/no/such/program");
//! let bus = StdioBus::builder().pool(missing).build_blocking()?;
//! let error = bus.start().unwrap_err();
//! assert!(error.is(ErrorCode::Unavailable));
//! assert!(error.to_string().contains("/no/such/program"));
//! # Ok(())
//! # }
//! ```
//!
//! # Ready is not running
//! A worker of a pool that speaks MCP or ACP takes requests when it has answered
//! the handshake, which the bus makes with each of them, once, whatever the number
//! of clients. Requests that come before any worker is ready wait for one, as long
//! as the pool's [`init_timeout_sec`], 30 seconds unless set.
//!
//! # When a worker ends
//! - What it had not answered ends with `TransportError`. [`Error::exit`] says how
//!   the worker ended, what it last wrote to stderr, and whether any byte of the
//!   request had reached it: where none had, sending it again is safe. The error's
//!   text ends with the last line of that stderr.
//! - It is started again, whatever its exit status, unless the pool's
//!   [`RestartPolicy`] says otherwise: at once where it had run for a while and
//!   served, else after 100 ms, doubled each time, up to 30 s, and up to a quarter
//!   less, so that workers that died together don't come back together.
//! - After more than [`max_restarts`] within [`restart_window_sec`] it has failed,
//!   until that time is over.
//! - What it had started itself is killed with it.
//! - Sessions that an ACP agent had created are gone with its process: a prompt for
//!   one reaches the new process, which answers as it does for any session it
//!   doesn't know, unless it is asked first to load it (`session/load`).
//!
//! ```
//! use stdiobus::{ErrorCode, PoolConfig, RestartPolicy, blocking::StdioBus};
//!
//! # fn main() -> stdiobus::Result<()> {
//! // Reads one line, complains, and ends.
//! let script = "read line; echo 'no more' >&2; exit 3";
//! let pool = PoolConfig::new("a", "sh").args(["-c", script]).restart(RestartPolicy::Never);
//! let bus = StdioBus::builder().pool(pool).build_blocking()?;
//! bus.start()?;
//! let error = bus.request("anything", ()).unwrap_err();
//! assert!(error.is(ErrorCode::TransportError));
//! let exit = error.exit().expect("it says how the worker ended");
//! assert_eq!((exit.code, exit.request_sent), (Some(3), Some(true)));
//! assert!(exit.stderr_tail.contains("no more"));
//! assert!(error.to_string().ends_with("exited with status 3: no more"));
//! bus.stop()?;
//! # Ok(())
//! # }
//! ```
//!
//! [`StdioBus::events`] tells of all this as it happens, each event with the
//! worker's generation, which counts its starts; [`StdioBus::workers`] is the
//! present, and [`StdioBus::worker_stderr_tail`] the end of what one wrote.
//!
//! # The end
//! At [`stop`] nothing new is accepted and what is in flight ends with an error.
//! Each worker sees the end of its input; one that stays gets SIGTERM, and at last
//! SIGKILL, all within the time given; the log tells each step, and [`StopReport`]
//! who needed what.
//! [`drain`] lets what is in flight end first. Where the bus's own process is
//! killed, or ends without having waited for a stop, each worker sees the end of its
//! input and, on Linux, gets SIGTERM: only one that ignores both outlives it.
//!
//! [`StdioBus::start`]: crate::StdioBus::start
//! [`StdioBus::events`]: crate::StdioBus::events
//! [`StdioBus::workers`]: crate::StdioBus::workers
//! [`StdioBus::worker_stderr_tail`]: crate::StdioBus::worker_stderr_tail
//! [`Error::exit`]: crate::Error::exit
//! [`RestartPolicy`]: crate::RestartPolicy
//! [`init_timeout_sec`]: crate::PoolConfig::init_timeout_sec
//! [`max_restarts`]: crate::LimitsConfig::max_restarts
//! [`restart_window_sec`]: crate::LimitsConfig::restart_window_sec
//! [`stop`]: crate::StdioBus::stop
//! [`drain`]: crate::StdioBus::drain
//! [`StopReport`]: crate::StopReport
