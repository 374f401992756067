//! The store on a disk: a directory that one router has for itself.

use std::fs::{self, DirBuilder, OpenOptions};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use myelin_catalog::{Digest, Head, Record};
use redb::backends::FileBackend;

use crate::blobs::{FileBlobs, sync_dir};
use crate::control::{ControlLog, Fence, Watch};
use crate::error::StoreError;
use crate::lock::DirLock;
use crate::log::RedbLog;
use crate::store::{BlobStore, CatalogStore, Recovered, recover};

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) use tests::tamper_record;

const LOG_FILE: &str = "catalog.redb";
const LOG_FILE_ASIDE: &str = "catalog.redb.new";

/// The catalog in `catalog.redb` and the modules in `blobs/` of one directory.
pub struct DiskStore {
    log: RedbLog,
    blobs: FileBlobs,
    dir: PathBuf,
    /// Last, so that the directory is free only when the files are closed.
    _lock: DirLock,
}

impl DiskStore {
    /// Opens the store in `dir`, which is created where it is not, and brings it back to where it was. A log that is
    /// not the one that was written is refused, and no record and no module is touched.
    pub fn open(dir: &Path) -> Result<(Self, Recovered), StoreError> {
        let mut store = Self::open_unchecked(dir)?;
        let recovered = recover(&mut store)?;
        Ok((store, recovered))
    }

    /// Whether a write of the log failed, so that it takes none.
    pub fn has_failed(&self) -> bool {
        self.log.has_failed()
    }

    /// Opens the log anew after a write that failed, and says where it ends now: the record may be there or not. It takes
    /// none before [`DiskStore::resume`].
    pub fn reopen(&mut self) -> Result<Head, StoreError> {
        let path = self.dir.join(LOG_FILE);
        self.log.reopen(|| file_backend(&path))?;
        Ok(self.log.head())
    }

    /// Lets it take records again: all that it has are known.
    pub fn resume(&mut self) {
        self.log.resume();
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    fn open_unchecked(dir: &Path) -> Result<Self, StoreError> {
        // It says what is bound, allowed and signed: not for others on this machine. One that is there stays as it is.
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(StoreError::io("create", dir))?;
        let lock = DirLock::acquire(dir)?;
        let path = dir.join(LOG_FILE);
        if fs::metadata(&path).map_or(0, |facts| facts.len()) == 0 {
            // Modules without a log: were it begun anew, all of them would be orphans and collected.
            if FileBlobs::any(dir)? {
                return Err(StoreError::CatalogLost { dir: dir.into() });
            }
            begin_log(dir, &path)?;
        }
        let log = RedbLog::open(file_backend(&path)?, path.display().to_string())?;
        Ok(Self { log, blobs: FileBlobs::open(dir)?, dir: dir.into(), _lock: lock })
    }

    #[cfg(test)]
    fn log(&self) -> &RedbLog {
        &self.log
    }
}

/// Writes an empty log aside and gives it its name when it is whole: a crash on the way leaves no half log.
fn begin_log(dir: &Path, path: &Path) -> Result<(), StoreError> {
    let aside = dir.join(LOG_FILE_ASIDE);
    if aside.exists() {
        fs::remove_file(&aside).map_err(StoreError::io("remove", &aside))?;
    }
    RedbLog::begin(file_backend(&aside)?, &aside.display().to_string())?;
    myelin_failpoint::reach("log-begun");
    fs::rename(&aside, path).map_err(StoreError::io("rename to", path))?;
    myelin_failpoint::reach("log-named");
    sync_dir(dir)
}

pub(crate) fn file_backend(path: &Path) -> Result<FileBackend, StoreError> {
    let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
    let file = open.map_err(StoreError::io("open", path))?;
    let failed =
        |e: redb::DatabaseError| StoreError::Database { place: path.display().to_string(), source: Box::new(e.into()) };
    FileBackend::new(file).map_err(failed)
}

impl CatalogStore for DiskStore {
    fn head(&self) -> Head {
        self.log.head()
    }

    fn read_after(&self, rev: u64, limit: usize) -> Result<Vec<Vec<u8>>, StoreError> {
        self.log.read_after(rev, limit)
    }

    fn append(&mut self, record: &Record) -> Result<Head, StoreError> {
        self.log.append(record)
    }

    fn place(&self) -> String {
        self.log.place()
    }
}

impl ControlLog for DiskStore {
    fn lease(&mut self, name: &str, holder: &str, ttl_ms: u64, now_ms: u64) -> Result<Fence, StoreError> {
        self.log.lease(name, holder, ttl_ms, now_ms)
    }

    fn release(&mut self, fence: &Fence) {
        self.log.release(fence);
    }

    fn append_under(&mut self, fence: &Fence, now_ms: u64, record: &Record) -> Result<Head, StoreError> {
        self.log.append_under(fence, now_ms, record)
    }

    fn watch(&self) -> Watch {
        self.log.watch()
    }
}

impl BlobStore for DiskStore {
    fn put(&mut self, digest: &Digest, bytes: &[u8]) -> Result<(), StoreError> {
        self.blobs.put(digest, bytes)
    }

    fn blob(&self, digest: &Digest) -> Result<Vec<u8>, StoreError> {
        self.blobs.read(digest)
    }

    fn blob_size_bytes(&self, digest: &Digest) -> Result<Option<u64>, StoreError> {
        self.blobs.size_bytes(digest)
    }

    fn remove(&mut self, digest: &Digest) -> Result<bool, StoreError> {
        self.blobs.remove(digest)
    }

    fn blobs(&self) -> Result<Vec<Digest>, StoreError> {
        self.blobs.list()
    }
}
