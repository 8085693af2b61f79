//! What is kept apart, and what is not.
//!
//! **Workers are as trusted as this process.** They run as its user, with its file
//! system, network and, unless [`inherit_env`] is off, its environment. The bus
//! starts them without a shell, each in a process group of its own, with no
//! descriptor but its three; it is no sandbox.
//!
//! ```
//! use stdiobus::PoolConfig;
//!
//! // Only what it needs, and nothing of this process's environment.
//! let pool = PoolConfig::new("tool", "/usr/bin/tool")
//!     .args(["--quiet", "$HOME; rm"]) // one argument, as it stands: there is no shell
//!     .env("PATH", "/usr/bin")
//!     .inherit_env(false);
//! # let _ = pool;
//! ```
//!
//! **Clients are kept apart from each other.** Each has ids of its own: the answer
//! to one never reaches another, also when it comes late, and also when both have
//! used the same id. A worker's question goes to the client it belongs to, and an
//! answer counts only if it comes from there and the worker that asked still runs.
//! What can't be told to belong to anybody is dropped and counted, not guessed.
//!
//! **They are not kept apart within a worker.** Clients of one pool share its
//! workers; what a worker remembers is between it and them. Whoever knows the name
//! of a session can send to it.
//!
//! # Who gets in
//! - A Unix socket has mode 0600, and only processes of the bus's own user and of
//!   root may connect, unless the listener is told otherwise ([`Listen::mode`],
//!   [`Listen::allow_uid`]).
//! - **TCP has no such check**: whoever reaches the port is a client. Listen on
//!   127.0.0.1, where every user of the machine still gets in, or on a Unix socket,
//!   or ask for a token.
//! - A listener with a [`token`](crate::Listen::token) lets only those in who show
//!   it. It is compared in constant time, and is in no log and no `Debug` output.
//! - Nothing is encrypted.
//! - To a client, the bus that it reaches ([`BackendMode::Remote`]) is as trusted as
//!   one of its own: it sees all messages, and its errors can't be told from those
//!   that a worker words in the same way.
//!
//! # What leaks where
//! - Errors about a worker's end carry the end of its stderr ([`WorkerExit`]) to
//!   the client whose request it was, socket clients included. A worker that writes
//!   secrets to stderr tells them. The last line is in the error's text, too, and so
//!   in whatever that is logged or passed on to.
//! - [`Identity`] and [`AuditEvent`] say what their sender claims. The bus passes
//!   them on and checks nothing.
//! - `Debug` of a builder shows no configuration, since environments hold secrets;
//!   that of a [`PoolConfig`] does.
//!
//! # Against floods
//! Every queue is bounded ([`backpressure`](super::backpressure)), one client gets
//! a share of a worker's queue and no more, and a message is at most
//! [`max_input_buffer`] long. A line that is no JSON-RPC harms nobody but its
//! sender.
//!
//! [`BackendMode::Remote`]: crate::BackendMode::Remote
//! [`Listen::mode`]: crate::Listen::mode
//! [`Listen::allow_uid`]: crate::Listen::allow_uid
//! [`inherit_env`]: crate::PoolConfig::inherit_env
//! [`WorkerExit`]: crate::WorkerExit
//! [`Identity`]: crate::Identity
//! [`AuditEvent`]: crate::AuditEvent
//! [`PoolConfig`]: crate::PoolConfig
//! [`max_input_buffer`]: crate::LimitsConfig::max_input_buffer
