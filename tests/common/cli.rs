//! Runs of the program that end by themselves, and files for them.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use super::{TempDir, program};

/// Runs it to its end, with nothing on stdin.
#[track_caller]
pub fn run(args: &[&str]) -> Output {
    Command::new(program())
        .args(args)
        .stdin(Stdio::null())
        .output()
        .expect("it starts")
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Exits with 1 and says why on stderr; stdout stays empty.
#[track_caller]
pub fn refused(args: &[&str]) -> String {
    let output = run(args);
    assert_eq!(
        output.status.code(),
        Some(1),
        "{args:?}: {}",
        text(&output.stderr)
    );
    assert_eq!(text(&output.stdout), "", "{args:?}");
    assert!(!output.stderr.is_empty(), "{args:?}");
    text(&output.stderr)
}

/// A configuration file in a folder that lives as long as the first value.
pub fn config_file(config: &str) -> (TempDir, String) {
    let dir = TempDir::new();
    let path = dir.path("config.json");
    fs::write(&path, config).expect("written");
    let path = path.to_str().expect("text").to_owned();
    (dir, path)
}

/// Whether this process may be somebody else.
pub fn is_root() -> bool {
    fs::metadata("/proc/self").expect("proc").uid() == 0
}

pub const NOBODY: u32 = 65534;

/// What a client of another user gets as the answer to a request; nothing if it is sent away.
#[track_caller]
pub fn asked_by_nobody(path: &Path, request: &str) -> String {
    let script = "import socket, sys\n\
                  s = socket.socket(socket.AF_UNIX)\n\
                  s.connect(sys.argv[1])\n\
                  try:\n    s.sendall(sys.argv[2].encode())\n    print(s.makefile().readline())\n\
                  except OSError: pass\n";
    let output = Command::new("python3")
        .args(["-c", script, path.to_str().expect("text")])
        .arg(format!("{request}\n"))
        .current_dir("/")
        .uid(NOBODY)
        .gid(NOBODY)
        .output()
        .expect("python3 runs");
    assert!(output.status.success(), "{output:?}");
    text(&output.stdout)
}
