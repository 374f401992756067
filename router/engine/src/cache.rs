//! Compiled code on disk. Only what this router has written, and nobody has changed since, is ever loaded: loading
//! compiled code means running it.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::SystemTime;

use hmac::{Hmac, KeyInit, Mac};
use rustix::rand::{GetRandomFlags, getrandom};
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::compile::{Artefact, CompileError, compile_in_child};
use crate::limits::CompilerConfig;
use crate::program::{LoadError, Program};
use crate::runtime::{Compatibility, Runtime};

/// The first bytes of a cache file; the number is the layout's version.
const MAGIC: &[u8; 8] = b"MYCWASM1";
/// Bytes of the MAC.
const MAC_BYTES: usize = 32;
/// Bytes of the key.
const KEY_BYTES: usize = 32;
/// Name of the file with the key.
const KEY_FILE: &str = "mac.key";
/// Files that are kept; the one unused for longest goes first.
const FILES_MAX: usize = 256;
/// Bytes of a cache file that are read at most.
const FILE_BYTES_MAX: u64 = 256 << 20;

/// Compiled code by the module's digest and the engine's compatibility. Safe to use from several threads.
#[derive(Debug)]
pub struct CodeCache {
    folder: PathBuf,
    key: [u8; KEY_BYTES],
    hits: AtomicU64,
    misses: AtomicU64,
    refused: AtomicU64,
    write_failures: AtomicU64,
}

/// How the cache was used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CacheStats {
    /// Code found and authenticated.
    pub hits: u64,
    /// Code that was not there.
    pub misses: u64,
    /// Files that were not ours, or were changed or cut.
    pub refused: u64,
    /// Code that could not be written; it works all the same, until the next start.
    pub write_failures: u64,
}

/// The cache cannot be opened, or not be written.
#[derive(Debug, thiserror::Error)]
#[error("the code cache {}: {error}; the folder must be writable by the router alone", path.display())]
pub struct CacheError {
    /// The folder or file.
    pub path: PathBuf,
    /// What the system said.
    pub error: std::io::Error,
}

impl CacheError {
    /// The stable name.
    pub fn code(&self) -> &'static str {
        "code-cache"
    }
}

/// A module became no program.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// It was not compiled.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// The compiled code was not loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
}

impl ProgramError {
    /// The stable name.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Compile(error) => error.code(),
            Self::Load(error) => error.code(),
        }
    }
}

impl CodeCache {
    /// Opens or makes the cache in `folder`, with a key of its own that nobody else can read.
    ///
    /// # Errors
    /// When the folder cannot be made, or the key cannot be read or written.
    pub fn open(folder: &Path) -> Result<Self, CacheError> {
        let fail = |error| CacheError { path: folder.to_owned(), error };
        fs::create_dir_all(folder).map_err(fail)?;
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).map_err(fail)?;
        let key = key(folder).map_err(|error| CacheError { path: folder.join(KEY_FILE), error })?;
        Ok(Self {
            folder: folder.to_owned(),
            key,
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            write_failures: AtomicU64::new(0),
        })
    }

    /// The program of the module `wasm`: from the cache, or compiled in a child process and kept. Blocks while it
    /// compiles.
    ///
    /// # Errors
    /// [`ProgramError`] when the module does not compile or does not link.
    pub fn program(&self, runtime: &Runtime, compiler: &CompilerConfig, wasm: &[u8]) -> Result<Program, ProgramError> {
        let digest: [u8; 32] = Sha256::digest(wasm).into();
        if let Some(artefact) = self.get(&digest, &runtime.compatibility())
            && let Ok(program) = runtime.load(&artefact)
        {
            return Ok(program);
        }
        let artefact = compile_in_child(compiler, wasm)?;
        myelin_failpoint::reach("code-compiled");
        let program = runtime.load(&artefact)?;
        // Counted in `put`: without the file the next start compiles again, and that is all.
        drop(self.put(&digest, &artefact));
        Ok(program)
    }

    /// How it was used.
    pub fn stats(&self) -> CacheStats {
        CacheStats {
            hits: self.hits.load(Relaxed),
            misses: self.misses.load(Relaxed),
            refused: self.refused.load(Relaxed),
            write_failures: self.write_failures.load(Relaxed),
        }
    }

    /// The code of the module with `digest` (SHA-256 of its bytes), authenticated. A file that is not ours, or was
    /// changed, is removed and counted: the module is to be compiled again.
    pub fn get(&self, digest: &[u8; 32], compatibility: &Compatibility) -> Option<Artefact> {
        let path = self.path(digest, *compatibility);
        let mut bytes = Vec::new();
        let read = File::open(&path).and_then(|file| file.take(FILE_BYTES_MAX).read_to_end(&mut bytes));
        if read.is_err() {
            self.misses.fetch_add(1, Relaxed);
            return None;
        }
        let Some(code) = self.authenticate(&bytes, digest, *compatibility) else {
            self.refused.fetch_add(1, Relaxed);
            // A removal that fails is made up for by the next write.
            drop(fs::remove_file(&path));
            return None;
        };
        self.hits.fetch_add(1, Relaxed);
        // The time of use decides what goes first; a file whose time stays is only kept for a shorter time.
        drop(File::open(&path).and_then(|file| file.set_modified(SystemTime::now())));
        Some(Artefact::authenticated(*compatibility, code.to_vec()))
    }

    fn authenticate<'a>(&self, bytes: &'a [u8], digest: &[u8; 32], compatibility: Compatibility) -> Option<&'a [u8]> {
        let (mac, code) = bytes.strip_prefix(MAGIC)?.split_at_checked(MAC_BYTES)?;
        // Compares in constant time.
        self.mac(digest, compatibility, code).verify_slice(mac).ok()?;
        Some(code)
    }

    /// The MAC covers what the code is for, so that a file under another's name is refused as well.
    fn mac(&self, digest: &[u8; 32], compatibility: Compatibility, code: &[u8]) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).expect("HMAC takes keys of any length");
        mac.update(MAGIC);
        mac.update(digest);
        mac.update(compatibility.as_bytes());
        mac.update(code);
        mac
    }

    /// Writes code, whole or not at all, and removes what was unused for longest where there is too much.
    ///
    /// # Errors
    /// When the file cannot be written; also counted. The code at hand works all the same.
    pub fn put(&self, digest: &[u8; 32], artefact: &Artefact) -> Result<(), CacheError> {
        let mac = self.mac(digest, artefact.compatibility(), artefact.code()).finalize().into_bytes();
        let path = self.path(digest, artefact.compatibility());
        let written = write_whole(&path, &[MAGIC, &mac[..], artefact.code()]).and_then(|()| self.prune());
        written.map_err(|error| {
            self.write_failures.fetch_add(1, Relaxed);
            CacheError { path, error }
        })
    }

    /// Removes the files that were unused for longest, down to the limit.
    fn prune(&self) -> std::io::Result<()> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            if entry.path().extension().is_some_and(|extension| extension == "cwasm") {
                files.push((entry.metadata()?.modified()?, entry.path()));
            }
        }
        files.sort();
        let surplus = files.len().saturating_sub(FILES_MAX);
        files[..surplus].iter().try_for_each(|(_, path)| fs::remove_file(path))
    }

    fn path(&self, digest: &[u8; 32], compatibility: Compatibility) -> PathBuf {
        let engine = hex::encode(&compatibility.as_bytes()[..8]);
        self.folder.join(format!("{}-{engine}.cwasm", hex::encode(digest)))
    }
}

/// The key of the folder; made where there is none.
fn key(folder: &Path) -> std::io::Result<[u8; KEY_BYTES]> {
    let path = folder.join(KEY_FILE);
    let mut key = [0; KEY_BYTES];
    match fs::read(&path) {
        Ok(bytes) if bytes.len() == KEY_BYTES => {
            key.copy_from_slice(&bytes);
            return Ok(key);
        }
        // A key of another length was cut by a crash or by somebody: a new one makes the old files invalid.
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let filled = getrandom(&mut key, GetRandomFlags::empty())?;
    if filled != KEY_BYTES {
        return Err(std::io::Error::other("the system gives no random bytes"));
    }
    write_whole(&path, &[&key])?;
    Ok(key)
}

/// Writes a file under another name, readable by its owner alone, and renames it: it is there whole or not at all.
fn write_whole(path: &Path, parts: &[&[u8]]) -> std::io::Result<()> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Relaxed);
    let aside = path.with_extension(format!("{}-{number}.tmp", std::process::id()));
    let write = || {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&aside)?;
        parts.iter().try_for_each(|part| file.write_all(part))?;
        file.sync_all()?;
        myelin_failpoint::reach("code-aside");
        fs::rename(&aside, path)?;
        myelin_failpoint::reach("code-named");
        Ok(())
    };
    write().inspect_err(|_| drop(fs::remove_file(&aside)))
}
