//! Files that several processes change: whole at every moment, and one change
//! at a time.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use fs4::FileExt;

/// For a file that is new; the process's umask takes its part.
const MODE: u32 = 0o644;

/// Holds the right to change a file, until it is dropped or the process ends.
#[derive(Debug)]
pub(super) struct Locked {
    /// The file itself, where the path given is a link to it.
    path: PathBuf,
    _lock: File,
}

impl Locked {
    /// Waits for whoever else holds it. Makes the folder where there is none.
    pub(super) fn new(path: &Path) -> io::Result<Self> {
        if let Some(folder) = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty())
        {
            fs::create_dir_all(folder)?;
        }
        // A link stays one: what it leads to is changed.
        let path = match fs::canonicalize(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => path.to_owned(),
            path => path?,
        };
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(MODE)
            .custom_flags(libc::O_NOFOLLOW)
            .open(beside(&path, ".lock"))?;
        FileExt::lock(&lock)?;
        Ok(Self { path, _lock: lock })
    }

    /// Puts another content in the file's place; see [`replace`].
    pub(super) fn write(&self, content: &[u8]) -> io::Result<()> {
        // Only who holds the lock uses this name, so what is there was left by
        // somebody who was killed.
        replace(&self.path, &beside(&self.path, ".new"), content)
    }
}

/// Puts another content in the place of a file that nobody else changes.
pub(super) fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    let new = beside(path, &format!(".{}.new", std::process::id()));
    replace(path, &new, content)
}

/// Writes a new file and gives it the other's name: whoever reads that one sees the
/// old content or the new one, also if this process is killed meanwhile.
fn replace(path: &Path, new: &Path, content: &[u8]) -> io::Result<()> {
    let mode = fs::metadata(path).map(|old| old.permissions().mode() & 0o777);
    match fs::remove_file(new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(*mode.as_ref().unwrap_or(&MODE))
        .open(new)?;
    if let Ok(mode) = mode {
        file.set_permissions(fs::Permissions::from_mode(mode))?;
    }
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(new, path)
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(ending);
    PathBuf::from(name)
}
