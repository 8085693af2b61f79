//! The C API as bindgen sees it.
//!
//! `bindings.rs` is committed, so that a build needs a C compiler and nothing
//! else. With the feature `buildtime-bindgen` the same text comes fresh from
//! the headers; `tests/bindings_drift.rs` compares the two.

#![allow(unsafe_code, missing_docs, unreachable_pub, dead_code)]
#![allow(non_camel_case_types, non_upper_case_globals, clippy::all)]
#![allow(
    clippy::undocumented_unsafe_blocks,
    clippy::multiple_unsafe_ops_per_block
)]

mod layout;

#[cfg(not(feature = "buildtime-bindgen"))]
include!("bindings.rs");
#[cfg(feature = "buildtime-bindgen")]
include!(concat!(env!("OUT_DIR"), "/bindings.rs"));
