//! A disk that is full for a while: nothing is lost, and the log goes on by itself.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::fmt::{self, Debug};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use myelin_catalog::{Catalog, Op};
use redb::StorageBackend;
use redb::backends::FileBackend;

use super::RedbLog;
use crate::error::StoreError;

/// A file on a disk that has room or has not.
struct Disk {
    file: FileBackend,
    is_full: Arc<AtomicBool>,
}

impl Debug for Disk {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a disk")
    }
}

impl Disk {
    fn check(&self) -> io::Result<()> {
        if self.is_full.load(SeqCst) { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.check()?;
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.check()?;
        self.file.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }
}

fn disk(path: &Path, is_full: &Arc<AtomicBool>) -> Result<Disk, StoreError> {
    Ok(Disk { file: crate::disk::file_backend(path)?, is_full: is_full.clone() })
}

#[test]
fn a_log_goes_on_by_itself_once_its_disk_has_room_again() {
    let (dir, is_full) = (tempfile::tempdir().unwrap(), Arc::new(AtomicBool::new(false)));
    let path = dir.path().join("log");
    let backend = || disk(&path, &is_full);
    RedbLog::begin(backend().unwrap(), "log").unwrap();
    let mut log = RedbLog::open(backend().unwrap(), "log".into()).unwrap();
    let mut catalog = Catalog::default();
    let mut append = |log: &mut RedbLog, name: &str| {
        let (region, cloud) = ("eu".parse().unwrap(), "own".parse().unwrap());
        let op = Op::SiteAdded { name: name.parse().unwrap(), region, cloud };
        let record = catalog.draft(op, "a test", 1).unwrap();
        log.append(&record).inspect(|_| catalog.apply(&record).unwrap())
    };
    let before = append(&mut log, "a").unwrap();
    is_full.store(true, SeqCst);
    assert_eq!(append(&mut log, "b").unwrap_err().code(), "store-io");
    let refused = append(&mut log, "b").unwrap_err();
    assert!(refused.code() == "store-failed" && !refused.to_string().contains("restart"), "{refused}");
    for _ in 0..3 {
        assert!(log.reopen(backend).is_err() && log.has_failed(), "there is no room yet");
        assert_eq!(append(&mut log, "b").unwrap_err().code(), "store-failed");
    }

    is_full.store(false, SeqCst);
    log.reopen(backend).unwrap();
    assert_eq!(log.head(), before, "what was refused is not there");
    assert_eq!(append(&mut log, "b").unwrap_err().code(), "store-failed", "nobody has said what it has");
    log.resume();
    let after = append(&mut log, "b").unwrap();
    drop(log);
    let log = RedbLog::open(backend().unwrap(), "log".into()).unwrap();
    assert_eq!((log.head(), log.read_after(0, 9).unwrap().len()), (after, 2));
}
