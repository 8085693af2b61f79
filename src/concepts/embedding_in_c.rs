//! The same bus without Rust.
//!
//! The bus is a C11 library with no dependencies but libc, and this crate is one of
//! its hosts. `make -C vendor/stdio_bus` gives `libstdio_bus.a`; the headers are in
//! `include`: `stdio_bus_embed.h`, the embedding API of the stdio_bus family in its
//! version 2, and `stdio_bus_ext.h`, what is added to it. Each function says who
//! owns what, which thread may call it, and how it fails.
//!
//! - One thread at a time makes all calls; only `stdio_bus_wakeup` may come from
//!   elsewhere. Callbacks run inside of the calls.
//! - The library is a guest: it installs no signal handler, waits for no child but
//!   its own, keeps no globals, and never raises SIGPIPE in the host.
//! - A host with an event loop waits for the descriptor of
//!   `stdio_bus_get_poll_fd`, then steps; one without lets `stdio_bus_step` wait.
//!
//! A whole host, `examples/c_host/minimal.c`:
//!
#![doc = concat!("```c\n", include_str!("../../examples/c_host/minimal.c"), "```")]
//!
//! # Both at once
//! Another crate's build script finds the library that Cargo has built with this
//! one in `DEP_STDIO_BUS_ROOT`, and its headers in `DEP_STDIO_BUS_INCLUDE`. A bus
//! of this crate's has a thread of its own and can't be handed to C code; C code
//! makes its own, and any number of them live in one process.
//!
//! ```
//! // The version of the C library inside.
//! assert!(stdiobus::version().split('.').count() == 3);
//! ```
