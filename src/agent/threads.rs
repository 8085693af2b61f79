//! What an agent remembers: one file for each thread, `~/.society/threads/ID.json`.
//!
//! A thread is locked while one of its messages is worked on, against other
//! processes too. All of this blocks; nothing here is for an async task.

use std::env;
use std::fmt::Write as _;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::time::Utc;

/// A thread that nobody else works on meanwhile.
#[derive(Debug)]
pub(super) struct Thread {
    memory: Memory,
    path: PathBuf,
    _lock: Lock,
}

/// The file. What is not known is kept as it was.
#[derive(Debug, Serialize, Deserialize)]
struct Memory {
    id: String,
    #[serde(default)]
    agent: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    session_id: String,
    // The reference writes no messages as `null`.
    #[serde(default)]
    messages: Option<Vec<Entry>>,
    #[serde(default)]
    created_at: String,
    #[serde(default)]
    updated_at: String,
    #[serde(flatten)]
    other: Map<String, Value>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    role: String,
    #[serde(default)]
    text: String,
    #[serde(flatten)]
    other: Map<String, Value>,
}

impl Thread {
    /// Waits for its turn, and reads the thread or begins it. The error is for
    /// the client.
    pub(super) fn open(folder: &Path, id: &str, agent: &str) -> Result<Self, String> {
        if matches!(id, "" | "." | "..") || id.contains(['/', '\\', '\0']) {
            return Err(format!("invalid thread ID: {}", quoted(id)));
        }
        let path = folder.join(format!("{id}.json"));
        let wrong = |error: io::Error| format!("{}: {error}", path.display());
        // For nobody else: it holds what was said.
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder.create(folder).map_err(wrong)?;
        let lock = Lock::take(folder.join(format!("{id}.lock"))).map_err(wrong)?;
        let memory = match fs::read(&path) {
            Ok(json) => serde_json::from_slice(&json).map_err(|e| wrong(e.into()))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Memory::new(id, agent),
            Err(error) => return Err(wrong(error)),
        };
        let mut thread = Self {
            memory,
            path,
            _lock: lock,
        };
        if thread.memory.session_id.is_empty() {
            thread.memory.session_id = Uuid::new_v4().to_string();
        }
        Ok(thread)
    }

    /// The session of the program that answers.
    pub(super) fn session(&self) -> &str {
        &self.memory.session_id
    }

    /// Whether the program has answered in this thread.
    pub(super) fn has_answer(&self) -> bool {
        let mut messages = self.memory.messages.iter().flatten();
        messages.any(|entry| entry.role == "assistant")
    }

    /// Adds what was said, `user` or `assistant`.
    pub(super) fn push(&mut self, role: &str, text: &str) {
        self.memory.messages.get_or_insert_default().push(Entry {
            role: role.to_owned(),
            text: text.to_owned(),
            other: Map::new(),
        });
    }

    /// Writes it: a reader sees it as it was or as it is. The error is for the
    /// client.
    pub(super) fn save(mut self) -> Result<(), String> {
        self.memory.updated_at = rfc3339(SystemTime::now());
        self.write()
            .map_err(|error| format!("{}: {error}", self.path.display()))
    }

    fn write(&self) -> io::Result<()> {
        let mut json = serde_json::to_vec_pretty(&self.memory)?;
        json.push(b'\n');
        // No thread's file ends like this.
        let new = self
            .path
            .with_file_name(format!(".{}.new", Uuid::new_v4().simple()));
        let written = create_private(&new)
            .and_then(|mut file| {
                file.write_all(&json)?;
                file.sync_all()
            })
            .and_then(|()| fs::rename(&new, &self.path));
        if written.is_err() {
            // What went wrong is told already.
            let _ = fs::remove_file(&new);
        }
        written
    }
}

impl Memory {
    fn new(id: &str, agent: &str) -> Self {
        let now = rfc3339(SystemTime::now());
        Self {
            id: id.to_owned(),
            agent: agent.to_owned(),
            session_id: String::new(),
            messages: Some(Vec::new()),
            created_at: now.clone(),
            updated_at: now,
            other: Map::new(),
        }
    }
}

/// Where threads are kept if nothing else was said.
pub(super) fn default_folder() -> Option<PathBuf> {
    let home = env::home_dir().filter(|home| !home.as_os_str().is_empty());
    home.map(|home| home.join(".society/threads"))
}

fn create_private(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
}

/// A file that is there while the thread is worked on, and locked, so that one
/// that was left behind is none.
#[derive(Debug)]
struct Lock {
    path: PathBuf,
    // Closing it unlocks it.
    _file: File,
}

impl Lock {
    fn take(path: PathBuf) -> io::Result<Self> {
        loop {
            let file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(&path)?;
            fs4::FileExt::lock(&file)?;
            // Who had it before us may have removed it; then it excludes nobody.
            match fs::metadata(&path) {
                Ok(now) if same_file(&now, &file.metadata()?) => {
                    return Ok(Self { path, _file: file });
                }
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
    }
}

fn same_file(a: &fs::Metadata, b: &fs::Metadata) -> bool {
    (a.dev(), a.ino()) == (b.dev(), b.ino())
}

impl Drop for Lock {
    fn drop(&mut self) {
        // While it is locked; if it stays, it is one file too many and no harm.
        let _ = fs::remove_file(&self.path);
    }
}

/// As the reference shows texts in its messages.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_ascii_control() => {
                // Writing to a String can't fail.
                let _ = write!(out, "\\x{:02x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// `YYYY-MM-DDTHH:MM:SS.nnnnnnnnnZ`
fn rfc3339(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let nanos = since.subsec_nanos();
    format!("{}.{nanos:09}Z", Utc(since.as_secs()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    #[test]
    fn times_are_in_utc_with_nanoseconds() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00"),
            (951_782_399, "2000-02-28T23:59:59"),
            (951_782_400, "2000-02-29T00:00:00"),
            (1_709_251_200, "2024-03-01T00:00:00"),
            (1_735_689_599, "2024-12-31T23:59:59"),
            (4_102_444_799, "2099-12-31T23:59:59"),
        ] {
            let time = UNIX_EPOCH + Duration::new(seconds, 5);
            assert_eq!(rfc3339(time), format!("{text}.000000005Z"));
        }
    }

    #[test]
    fn ids_that_would_leave_the_folder_are_refused_and_shown() {
        let folder = Path::new("/no/such/folder");
        for (id, shown) in [
            ("", r#""""#),
            (".", r#"".""#),
            ("..", r#""..""#),
            ("a/b", r#""a/b""#),
            ("a\\b", r#""a\\b""#),
            ("a\0\"\n", r#""a\x00\"\n""#),
        ] {
            let error = Thread::open(folder, id, "a").expect_err("refused");
            assert_eq!(error, format!("invalid thread ID: {shown}"));
        }
    }

    #[test]
    fn a_thread_is_kept_with_what_is_not_known_and_is_private() {
        let dir = tempfile::tempdir().expect("folder");
        let folder = dir.path().join("a/threads");
        let mut thread = Thread::open(&folder, "t", "me").expect("begun");
        let session = thread.session().to_owned();
        assert!(!thread.has_answer());
        thread.push("user", "hi");
        thread.push("assistant", "ho");
        thread.save().expect("written");

        let path = folder.join("t.json");
        let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!((mode(&folder), mode(&path)), (0o700, 0o600));
        let mut json: Value =
            serde_json::from_slice(&fs::read(&path).expect("read")).expect("JSON");
        assert_eq!(json["session_id"], session);
        json["later"] = 1.into();
        json["messages"][0]["more"] = 2.into();
        fs::write(&path, json.to_string()).expect("written");

        let mut thread = Thread::open(&folder, "t", "other").expect("read");
        assert!(thread.has_answer());
        assert_eq!(thread.session(), session);
        thread.push("user", "again");
        thread.save().expect("written");
        let json: Value = serde_json::from_slice(&fs::read(&path).expect("read")).expect("JSON");
        assert_eq!((&json["later"], &json["agent"]), (&1.into(), &"me".into()));
        assert_eq!(json["messages"][0]["more"], 2);
        assert_eq!(json["messages"].as_array().map(Vec::len), Some(3));
        // Neither locks nor drafts are left.
        assert_eq!(fs::read_dir(&folder).expect("folder").count(), 1);
    }

    #[test]
    fn no_messages_may_be_null() {
        let dir = tempfile::tempdir().expect("folder");
        fs::write(dir.path().join("t.json"), r#"{"id":"t","messages":null}"#).expect("written");
        let thread = Thread::open(dir.path(), "t", "a").expect("read");
        assert!(!thread.has_answer() && !thread.session().is_empty());
    }

    fn open_files(name: &str) -> usize {
        let files = fs::read_dir("/proc/self/fd")
            .expect("descriptors")
            .flatten();
        let paths = files.filter_map(|file| fs::read_link(file.path()).ok());
        paths.filter(|path| path.ends_with(name)).count()
    }

    #[test]
    fn who_comes_second_waits_for_the_first() {
        let dir = tempfile::tempdir().expect("folder");
        let mut first = Thread::open(dir.path(), "second", "a").expect("begun");
        let (came, comes) = mpsc::channel();
        let folder = dir.path().to_owned();
        let second = std::thread::spawn(move || {
            let thread = Thread::open(&folder, "second", "a").expect("read");
            came.send(thread.memory.messages.map(|m| m.len()))
                .expect("listened to");
        });
        first.push("user", "hi");
        // It has got as far as to the lock, and no further.
        while open_files("second.lock") < 2 {
            assert_eq!(comes.try_recv(), Err(mpsc::TryRecvError::Empty));
            std::thread::yield_now();
        }
        first.save().expect("written");
        assert_eq!(comes.recv(), Ok(Some(1)));
        second.join().expect("ended");
    }
}
