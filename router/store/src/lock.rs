//! One router for one data directory.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::Path;

use crate::error::StoreError;

const LOCK_FILE: &str = "router.lock";
/// Bytes that a process id is read from; a longer file is not ours.
const PID_LEN_MAX_BYTES: u64 = 16;

/// The directory is ours while this lives. The kernel lets go of it when the process ends, however it ends.
#[derive(Debug)]
pub(crate) struct DirLock {
    file: File,
}

/// A child process that was begun a moment ago still has the file, until it has become another program: to close it here does
/// not let go of the directory then.
impl Drop for DirLock {
    fn drop(&mut self) {
        // Nothing is to be done where it fails: the process's end does it.
        let _ = self.file.unlock();
    }
}

impl DirLock {
    /// Takes the directory, which must exist, or says who has it.
    pub(crate) fn acquire(dir: &Path) -> Result<Self, StoreError> {
        let path = dir.join(LOCK_FILE);
        let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let mut file = open.map_err(StoreError::io("open", &path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(StoreError::Locked { dir: dir.into(), pid: owner(&mut file) }),
            Err(TryLockError::Error(source)) => return Err(StoreError::io("lock", &path)(source)),
        }
        let mut write = || {
            file.set_len(0)?;
            file.rewind()?;
            writeln!(file, "{}", std::process::id())
        };
        write().map_err(StoreError::io("write", &path))?;
        Ok(Self { file })
    }
}

fn owner(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.take(PID_LEN_MAX_BYTES).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::*;

    #[test]
    fn a_directory_is_let_go_of_though_a_child_still_has_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let lock = DirLock::acquire(dir.path()).unwrap();
        assert!(
            matches!(DirLock::acquire(dir.path()), Err(StoreError::Locked { pid: Some(pid), .. }) if pid == std::process::id())
        );
        // As a process has it between its fork and its exec.
        let childs = lock.file.try_clone().unwrap();
        drop(lock);
        drop(DirLock::acquire(dir.path()).unwrap());
        drop(childs);
    }
}
