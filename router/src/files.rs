//! Small files written whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// Who may read a file: everybody, or the router's user alone.
const OPEN: u32 = 0o666;
const PRIVATE: u32 = 0o600;

/// Writes `text` to `file` so that a reader sees the old or the new text, never half of it, also after a power cut.
///
/// # Errors
/// When the file or its folder cannot be written.
pub fn write_atomically(file: &Path, text: &str) -> io::Result<()> {
    write(file, text.as_bytes(), OPEN)
}

/// The same, for what is no text.
///
/// # Errors
/// When the file or its folder cannot be written.
pub fn write_bytes_atomically(file: &Path, bytes: &[u8]) -> io::Result<()> {
    write(file, bytes, OPEN)
}

/// The same, for what only the router's own user may read.
///
/// # Errors
/// When the file or its folder cannot be written.
pub fn write_private(file: &Path, text: &str) -> io::Result<()> {
    write(file, text.as_bytes(), PRIVATE)
}

fn write(file: &Path, text: &[u8], mode: u32) -> io::Result<()> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = file.file_name().ok_or_else(|| io::Error::other("this is no file name"))?.to_string_lossy();
    let aside = folder.join(format!(".{name}.{}", std::process::id()));
    let mut options = OpenOptions::new();
    let written = options.write(true).create(true).truncate(true).mode(mode).open(&aside).and_then(|mut out| {
        out.write_all(text)?;
        out.sync_all()
    });
    let moved = written.and_then(|()| {
        myelin_failpoint::reach("file-aside");
        fs::rename(&aside, file)
    });
    if moved.is_err() {
        let _ = fs::remove_file(&aside);
    }
    moved?;
    myelin_failpoint::reach("file-named");
    // The name is to survive a power cut as well.
    File::open(folder)?.sync_all()
}
