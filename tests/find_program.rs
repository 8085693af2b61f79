//! Where the program of the subprocess backend is looked for: where it is said to be, beside the
//! running executable, in `PATH`.

mod common;

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::client::assert_kind;
use common::{BOUND, TempDir, run_within};
use stdiobus::{BackendMode, ErrorCode, PoolConfig, StdioBus, SubprocessOptions};

/// Set for a copy of this test program: the path it is to name, perhaps none.
const GIVEN: &str = "STDIO_BUS_TEST_GIVEN";

/// A program that says who it is, and no more.
fn place(folder: &Path, name: &str) -> PathBuf {
    fs::create_dir_all(folder).expect("a folder");
    let path = folder.join("stdio_bus");
    let script = format!("#!/bin/sh\necho 'this is the one {name}' >&2\nexit 1\n");
    fs::write(&path, script).expect("written");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("executable");
    path
}

/// What the copy does: it tells why the start fails.
fn start(given: OsString) {
    let mut options = SubprocessOptions::new();
    if !given.is_empty() {
        options = options.binary_path(PathBuf::from(given));
    }
    let builder = StdioBus::builder().pool(PoolConfig::new("p", "cat"));
    let builder = builder.backend(BackendMode::Subprocess);
    let bus = builder.subprocess(options).build_blocking();
    let started = bus.expect("valid").start();
    println!("{}", assert_kind(started, ErrorCode::Unavailable));
}

/// What a copy of this program, in a folder of its own, says of its start.
fn of_a_copy(copy: &Path, path: &[&Path], given: &str) -> String {
    let path = std::env::join_paths(path).expect("a PATH");
    let mut command = Command::new(copy);
    command
        .args(["the_program_is_the_one_named_else_the_one_beside_else_the_first_in_the_path"])
        .args(["--exact", "--nocapture"])
        .env("PATH", path)
        .env(GIVEN, given);
    let (status, [stdout, stderr]) = run_within(&mut command, BOUND);
    assert!(status.is_some_and(|s| s.success()), "{stdout}\n{stderr}");
    stdout
}

#[test]
fn the_program_is_the_one_named_else_the_one_beside_else_the_first_in_the_path() {
    if let Some(given) = std::env::var_os(GIVEN) {
        return start(given);
    }
    let dir = TempDir::new();
    let (home, first, second) = (dir.path("home"), dir.path("first"), dir.path("second"));
    let named = place(&dir.path("elsewhere"), "named");
    let beside = place(&home, "beside");
    place(&first, "in the first folder");
    place(&second, "in the second folder");
    let copy = home.join("copy");
    let own = std::env::current_exe().expect("own path");
    fs::copy(own, &copy).expect("copied");

    let path: [&Path; 2] = [&first, &second];
    let named = named.to_str().expect("text");
    let says = |text: String, who: &str| {
        assert!(text.contains(&format!("this is the one {who}")), "{text}");
    };
    says(of_a_copy(&copy, &path, named), "named");
    says(of_a_copy(&copy, &path, ""), "beside");
    fs::remove_file(beside).expect("removed");
    says(of_a_copy(&copy, &path, ""), "in the first folder");
    // A folder of that name is none.
    fs::remove_file(first.join("stdio_bus")).expect("removed");
    fs::create_dir(first.join("stdio_bus")).expect("a folder");
    says(of_a_copy(&copy, &path, ""), "in the second folder");
    let text = of_a_copy(&copy, &[&first], "");
    for part in ["beside the current executable", "PATH", "binary_path"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    // Who is named isn't looked for elsewhere.
    let missing = dir.path("missing");
    let missing = missing.to_str().expect("text");
    let text = of_a_copy(&copy, &path, missing);
    assert!(
        text.contains(missing) && text.contains("No such file"),
        "{text}"
    );
}
