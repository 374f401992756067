//! The folder that cargo builds into, which packages may share: to compile the standard library once, or because
//! `CARGO_TARGET_DIR` is set.
//!
//! Cargo names a module by its library alone. Two packages of the same name in one folder would overwrite each other's
//! module, and each would pass for the other's as long as its own sources stay as they are. So whoever builds holds the
//! folder until the module was read, and removes a module that another package has left.

use anyhow::{Context as _, Result};
use std::fs::File;
use std::path::{Path, PathBuf};

/// Held while a module is built and read; the operating system frees it with its holder.
const LOCK: &str = ".myelin-build.lock";

/// A target folder that is held.
pub(super) struct Place {
    _lock: File,
}

impl Place {
    /// Waits until nobody else builds a filter in `target`, and sees to it that the module of `library` that is there,
    /// for the target triple `triple`, is that of the package of `manifest`.
    ///
    /// # Errors
    /// When the folder cannot be written to.
    pub(super) fn hold(target: &Path, triple: &str, library: &str, manifest: &Path) -> Result<Self> {
        let release = target.join(triple).join("release");
        let made = |path: &Path| format!("cannot write to the target folder {}", path.display());
        std::fs::create_dir_all(&release).with_context(|| made(&release))?;
        let lock = File::create(target.join(LOCK)).with_context(|| made(target))?;
        lock.lock().with_context(|| made(target))?;
        let owner = release.join(format!(".{library}.myelin-owner"));
        let wanted = manifest.as_os_str().as_encoded_bytes();
        if std::fs::read(&owner).ok().is_none_or(|found| found != wanted) {
            let module = format!("{library}.wasm");
            for left in [release.join(&module), release.join("deps").join(&module)] {
                remove(&left).with_context(|| made(&left))?;
            }
            std::fs::write(&owner, wanted).with_context(|| made(&owner))?;
        }
        Ok(Self { _lock: lock })
    }
}

fn remove(file: &PathBuf) -> std::io::Result<()> {
    match std::fs::remove_file(file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::*;

    #[test]
    fn a_module_of_another_package_is_removed_and_the_own_one_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let hold = |manifest: &str| Place::hold(folder.path(), "wasm", "shape", Path::new(manifest)).unwrap();
        drop(hold("/a/Cargo.toml"));
        let modules = ["shape.wasm", "deps/shape.wasm"].map(|file| folder.path().join("wasm/release").join(file));
        std::fs::create_dir_all(modules[1].parent().unwrap()).unwrap();
        modules.iter().for_each(|module| std::fs::write(module, "a's").unwrap());
        drop(hold("/a/Cargo.toml"));
        assert!(modules.iter().all(|module| module.exists()));
        drop(hold("/b/Cargo.toml"));
        assert!(modules.iter().all(|module| !module.exists()));
    }

    #[test]
    fn a_place_is_held_by_one_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let place = Place::hold(folder.path(), "wasm", "shape", Path::new("/a")).unwrap();
        let other = File::open(folder.path().join(LOCK)).unwrap();
        assert!(other.try_lock().is_err());
        drop(place);
        assert!(other.try_lock().is_ok());
    }
}
