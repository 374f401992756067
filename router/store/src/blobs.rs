//! Modules as files: `blobs/sha256/ab/abcd...`, each written aside, synced and renamed.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use myelin_catalog::Digest;
use myelin_catalog::limits::MODULE_SIZE_MAX_BYTES;

use crate::error::StoreError;

/// Files under a directory; a file is there whole or not at all.
#[derive(Debug)]
pub(crate) struct FileBlobs {
    /// `blobs/sha256`.
    root: PathBuf,
    /// `blobs/tmp`, on the same file system, emptied when opened.
    aside: PathBuf,
}

impl FileBlobs {
    /// Opens or creates the files under `dir`.
    pub(crate) fn open(dir: &Path) -> Result<Self, StoreError> {
        let blobs = dir.join("blobs");
        let (root, aside) = (blobs.join("sha256"), blobs.join("tmp"));
        if aside.exists() {
            // What a crash left half-written.
            fs::remove_dir_all(&aside).map_err(StoreError::io("empty", &aside))?;
        }
        for folder in [&root, &aside] {
            fs::create_dir_all(folder).map_err(StoreError::io("create", folder))?;
        }
        for folder in [&blobs, dir] {
            sync_dir(folder)?;
        }
        Ok(Self { root, aside })
    }

    /// Whether `dir` has blobs, before anything is opened there.
    pub(crate) fn any(dir: &Path) -> Result<bool, StoreError> {
        let root = dir.join("blobs").join("sha256");
        if !root.exists() {
            return Ok(false);
        }
        Ok(!list(&root)?.is_empty())
    }

    pub(crate) fn put(&self, digest: &Digest, bytes: &[u8]) -> Result<(), StoreError> {
        check_put(digest, bytes)?;
        let (path, aside) = (self.path(digest), self.aside.join(digest.to_string()));
        let folder = path.parent().expect("a blob is in a folder under the root");
        if self.read(digest).is_err() {
            fs::create_dir_all(folder).map_err(StoreError::io("create", folder))?;
            write_synced(&aside, bytes).map_err(StoreError::io("write", &aside))?;
            myelin_failpoint::reach("blob-aside");
            fs::rename(&aside, &path).map_err(StoreError::io("rename to", &path))?;
            myelin_failpoint::reach("blob-named");
        }
        // Even where it was there: an earlier try may have failed right here.
        sync_dir(folder)?;
        sync_dir(&self.root)
    }

    pub(crate) fn read(&self, digest: &Digest) -> Result<Vec<u8>, StoreError> {
        let path = self.path(digest);
        let file = match File::open(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(StoreError::BlobMissing { digest: *digest }),
            opened => opened.map_err(StoreError::io("open", &path))?,
        };
        let mut bytes = Vec::new();
        // One byte more than allowed shows a file that grew, without reading all of it.
        file.take(MODULE_SIZE_MAX_BYTES + 1).read_to_end(&mut bytes).map_err(StoreError::io("read", &path))?;
        check_read(digest, bytes)
    }

    pub(crate) fn size_bytes(&self, digest: &Digest) -> Result<Option<u64>, StoreError> {
        let path = self.path(digest);
        match fs::metadata(&path) {
            Ok(facts) => Ok(Some(facts.len())),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(StoreError::io("look at", &path)(e)),
        }
    }

    pub(crate) fn remove(&self, digest: &Digest) -> Result<bool, StoreError> {
        let path = self.path(digest);
        match fs::remove_file(&path) {
            Ok(()) => {
                myelin_failpoint::reach("blob-removed");
                Ok(true)
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(StoreError::io("remove", &path)(e)),
        }
    }

    pub(crate) fn list(&self) -> Result<Vec<Digest>, StoreError> {
        list(&self.root)
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        path_under(&self.root, digest)
    }
}

/// Checks bytes before they are kept.
pub(crate) fn check_put(digest: &Digest, bytes: &[u8]) -> Result<(), StoreError> {
    let refuse = |why| Err(StoreError::BlobRefused { digest: *digest, why });
    if bytes.len() as u64 > MODULE_SIZE_MAX_BYTES {
        return refuse(format!("{} bytes; {MODULE_SIZE_MAX_BYTES} are the most", bytes.len()));
    }
    let found = Digest::of(bytes);
    if found != *digest {
        return refuse(format!("their digest is {found}"));
    }
    Ok(())
}

/// Checks bytes that were kept.
pub(crate) fn check_read(digest: &Digest, bytes: Vec<u8>) -> Result<Vec<u8>, StoreError> {
    let found = Digest::of(&bytes);
    if found != *digest {
        let why = format!("{} bytes with digest {}", bytes.len(), found.short());
        return Err(StoreError::BlobDamaged { digest: *digest, why });
    }
    Ok(bytes)
}

fn path_under(root: &Path, digest: &Digest) -> PathBuf {
    let name = digest.to_string();
    root.join(&name[..2]).join(name)
}

fn list(root: &Path) -> Result<Vec<Digest>, StoreError> {
    let mut digests = Vec::new();
    for folder in entries(root)? {
        if !folder.is_dir() {
            continue;
        }
        for file in entries(&folder)? {
            let name = file.file_name().and_then(|name| name.to_str());
            // Files that are not ours stay unseen, and so stay where they are.
            if let Some(digest) = name.and_then(|name| name.parse().ok())
                && path_under(root, &digest) == file
            {
                digests.push(digest);
            }
        }
    }
    digests.sort_unstable();
    Ok(digests)
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let read = || fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>();
    read().map_err(StoreError::io("list", folder))
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Makes names in a folder survive a power cut.
pub(crate) fn sync_dir(folder: &Path) -> Result<(), StoreError> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(StoreError::io("sync", folder))
}
