//! The committed bindings are what bindgen makes of the headers.
//!
//! Runs with `cargo test --features buildtime-bindgen --test bindings_drift`,
//! with the bindgen version that Cargo.toml pins and libclang 14. To renew the
//! file, copy the one that this names.

#![cfg(feature = "buildtime-bindgen")]

#[test]
fn the_committed_bindings_are_those_of_the_headers() {
    let fresh = concat!(env!("OUT_DIR"), "/bindings.rs");
    let committed = concat!(env!("CARGO_MANIFEST_DIR"), "/src/sys/bindings.rs");
    let read = |path: &str| std::fs::read_to_string(path).expect(path);
    assert!(
        read(fresh) == read(committed),
        "{committed} differs from {fresh}"
    );
}
