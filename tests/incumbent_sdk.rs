//! The incumbent's own SDK for Python on this bus: with the program as its subprocess, and with this
//! library in its native extension. It is installed for the test, and nothing of it is kept.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use common::{TempDir, alone, program, python, run_within, zoo};

const SDK: &[&str] = &["stdiobus==2.2.1", "cffi==2.0.0", "setuptools==80.9.0"];
const USER: &str = "tests/sdk/incumbent.py";

#[track_caller]
fn run(command: &mut Command) -> String {
    let (status, [stdout, stderr]) = run_within(command, Duration::from_secs(60));
    let succeeded = status.is_some_and(|status| status.success());
    assert!(succeeded, "{command:?}: {status:?}\n{stdout}\n{stderr}");
    stdout
}

/// A user of the SDK, to its end.
#[track_caller]
fn user(python: &Path, packages: Option<&Path>, backend: &str, place: &Path) {
    let mut command = Command::new(python);
    command.arg(USER).arg(backend).arg(zoo()).arg(place);
    if let Some(packages) = packages {
        command.env("PYTHONPATH", packages);
    }
    let said = run(&mut command);
    assert!(said.contains("stopped in"), "{said}");
}

#[test]
fn its_subprocess_backend_works_with_this_program() {
    let Some(python) = python(SDK) else { return };
    alone(|| user(&python, None, "subprocess", program()));
}

#[test]
fn its_native_backend_works_with_this_library_and_needs_no_timer() {
    let Some(python) = python(SDK) else { return };
    alone(|| {
        let dir = TempDir::new();
        let packages = with_our_library(&python, &dir);
        user(&python, Some(&packages), "native", &dir.path("s"));
    });
}

/// The SDK with its extension built once more, where it looks for a library when it has none of its
/// own: in `build`, two folders above the one that holds its package.
fn with_our_library(python: &Path, dir: &TempDir) -> PathBuf {
    let (packages, build) = (dir.path("sdk/python"), dir.path("build"));
    fs::create_dir_all(&packages).expect("made");
    fs::create_dir(&build).expect("made");
    let library = Path::new(env!("OUT_DIR")).join("libstdio_bus.a");
    fs::copy(&library, build.join("libstdio_bus.a")).expect("built with this test");
    let installed = "import stdiobus; print(stdiobus.__path__[0])";
    let installed = run(Command::new(python).args(["-c", installed]));
    run(Command::new("cp")
        .args(["-r", installed.trim()])
        .arg(&packages));
    // The one it came with must not be what is loaded.
    let native = packages.join("stdiobus/native");
    for file in fs::read_dir(&native).expect("there").flatten() {
        if file.path().extension().is_some_and(|end| end == "so") {
            fs::remove_file(file.path()).expect("removed");
        }
    }
    let built = run(Command::new(python)
        .args(["-m", "stdiobus.native.build_ffi"])
        .current_dir(&packages));
    assert!(built.contains("(legacy)"), "{built}");
    packages
}
