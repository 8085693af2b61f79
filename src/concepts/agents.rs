//! Two ways to reach an agent that is a program, and where agents are written down.
//!
//! An agent here is a program that knows one method, `tasks/send`: a message of a
//! thread in, a task out ([`TaskRequest`], [`Task`]). A user's agents stand in a
//! registry, a file that is shared with Society ([`Registry`]).
//!
//! # One by one
//! [`StdioTransport`] starts the program and speaks to that one process, as
//! `stdio_bus send` and `stdio_bus ping` do:
//!
//! ```
//! use stdiobus::agent::{StdioOptions, StdioTransport, TaskRequest};
//!
//! # const AGENT: &str = r#"
//! # import json, sys
//! # for line in sys.stdin:
//! #     r = json.loads(line)
//! #     parts = r["params"]["message"]["parts"]
//! #     result = {"id": r["params"]["id"], "status": {"state": "completed"}, "artifacts": [{"parts": parts}]}
//! #     print(json.dumps({"jsonrpc": "2.0", "id": r["id"], "result": result}), flush=True)
//! # "#;
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> stdiobus::Result<()> {
//! let options = StdioOptions::new("python3").args(["-c", AGENT]);
//! let agent = StdioTransport::open(options).await?;
//! let one = TaskRequest::text("thread 1", "hello");
//! let two = TaskRequest::text("thread 2", "world");
//! let (one, two) = tokio::join!(agent.send(&one), agent.send(&two));
//! assert_eq!(one?.texts().next(), Some("hello"));
//! assert_eq!(two?.texts().next(), Some("world"));
//! agent.close().await;
//! # Ok(())
//! # }
//! ```
//!
//! Any number of requests may be on their way at once. When the program ends, all of
//! them end with an error that says how, and nobody starts it again. Nothing is
//! shared with other processes, and when the last clone is gone so is the program.
//!
//! # Pooled
//! [`BusConfig::from_registry`] makes each agent a pool of a bus. It runs as long as
//! the bus does, is started again when it ends, may have several processes, and
//! serves clients on sockets as well:
//!
//! ```no_run
//! use stdiobus::agent::Registry;
//! use stdiobus::{BusConfig, ListenMode, StdioBus};
//!
//! # async fn example() -> stdiobus::Result<()> {
//! let config = BusConfig::from_registry(Registry::locate(None), ["echo", "greeter"])?;
//! let bus = StdioBus::builder()
//!     .config(config)
//!     .listen(ListenMode::unix("/run/agents.sock"))
//!     .build()?;
//! bus.start().await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Which one
//! | | one by one | pooled |
//! |---|---|---|
//! | a call now and then, as from a shell | yes | a process waits in between |
//! | many calls to an agent that starts slowly | keep the transport open | yes |
//! | it has to come back when it has died | open it again | by itself |
//! | several processes call it | each starts its own | through a listener |
//! | what it asks (`session/request_permission` and so on) | is refused | reaches a handler or client |
//! | bounds | one agent's memory and 64 MiB of requests | those of [`backpressure`](super::backpressure) |
//!
//! # The registry
//! [`Registry::locate`] looks at the option `--registry`, the environment variable
//! `SOCIETY_REGISTRY`, `registry.json` in the current directory, and
//! `~/.society/registry.json`, in this order.
//!
//! **So a registry in the current directory is found before your own, and what is in
//! a registry is run.** In a folder of somebody else's, say which one you mean.
//!
//! ```json
//! {
//!   "agents": [
//!     {
//!       "name": "echo",
//!       "description": "says it again",
//!       "url": "stdio://stdio_bus",
//!       "skills": [{"id": "echo", "name": "Echo"}],
//!       "transport": {
//!         "type": "stdio",
//!         "config": {
//!           "args": "run --config agents/echo.yaml --stdio",
//!           "command": "stdio_bus"
//!         }
//!       }
//!     }
//!   ]
//! }
//! ```
//!
//! All values of `config` are texts. `args` is split at spaces, without quotes and
//! without a shell; for arguments with spaces in them it may be an array of texts, which
//! other tools may not read. Of our own are `env` (`NAME=VALUE` and more of them,
//! separated by spaces, or an array), `cwd` and `timeout_ms`. Agents with another
//! transport (`http`, `ssh`, `docker`) can be in the file, but not be reached.
//!
//! Each change reads and writes the file as one step under a lock
//! ([`Registry::update`]), members that nobody here knows stay, and a process that is
//! killed meanwhile leaves the file as it was.
//!
//! [`BusConfig::from_registry`]: crate::BusConfig::from_registry
//! [`Registry`]: crate::agent::Registry
//! [`Registry::locate`]: crate::agent::Registry::locate
//! [`Registry::update`]: crate::agent::Registry::update
//! [`StdioTransport`]: crate::agent::StdioTransport
//! [`Task`]: crate::agent::Task
//! [`TaskRequest`]: crate::agent::TaskRequest
