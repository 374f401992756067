//! Small files written whole or not at all.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::Duration;

/// Who may read a file: everybody, or the router's user alone.
const OPEN: u32 = 0o666;
const PRIVATE: u32 = 0o600;
const PRIVATE_FOLDER: u32 = 0o700;
/// How old a file is that nobody is writing any more: each is written within moments.
const LEFT_AGE: Duration = Duration::from_secs(3_600);
/// Names that are looked at in one folder: far more than a router has there. What is beyond them waits for another start.
const SWEPT_MAX: usize = 16_384;

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

/// Makes a folder for the router's own user alone, and those above it as any. One that is there stays as it is.
///
/// # Errors
/// When it cannot be made.
pub fn make_private_folder(folder: &Path) -> io::Result<()> {
    // Those above it are not ours to close.
    if let Some(above) = folder.parent() {
        fs::create_dir_all(above)?;
    }
    DirBuilder::new().recursive(true).mode(PRIVATE_FOLDER).create(folder)
}

fn write(file: &Path, text: &[u8], mode: u32) -> io::Result<()> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = file.file_name().ok_or_else(|| io::Error::other("this is no file name"))?.to_string_lossy();
    // In a folder where others may write as well, nobody is to know the name before, nor to find it taken: a file or a link
    // that lay there would be written, or have the mode that its owner gave it.
    let aside = folder.join(aside_name(&name, fastrand::u64(..)));
    let mut options = OpenOptions::new();
    let mut out = options.write(true).create_new(true).mode(mode).open(&aside)?;
    let written = out.write_all(text).and_then(|()| out.sync_all());
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

/// Removes what whoever was killed in the middle of a write has left in `folder`, not below it: files, no links and nothing
/// else, with names as [`write`] makes them, that nobody has touched for an hour. For whoever holds the folder alone. Returns
/// how many there were.
///
/// # Errors
/// When the folder cannot be read, or a file cannot be removed.
pub fn sweep(folder: &Path) -> io::Result<usize> {
    let mut removed = 0;
    for entry in fs::read_dir(folder)?.take(SWEPT_MAX) {
        let entry = entry?;
        // Of the link itself, where it is one.
        let is_left = entry.file_name().to_str().is_some_and(is_aside)
            && entry.metadata().is_ok_and(|found| found.is_file() && is_old(&found));
        if is_left {
            fs::remove_file(entry.path())?;
            removed += 1;
        }
    }
    Ok(removed)
}

/// What is touched at a time that is still to come is not old.
fn is_old(found: &Metadata) -> bool {
    found.modified().is_ok_and(|at| at.elapsed().is_ok_and(|age| age >= LEFT_AGE))
}

fn aside_name(name: &str, random: u64) -> String {
    format!(".{name}.{random:016x}")
}

fn is_aside(name: &str) -> bool {
    let parts = name.strip_prefix('.').and_then(|rest| rest.rsplit_once('.'));
    parts.is_some_and(|(file, digits)| {
        let random = u64::from_str_radix(digits, 16);
        !file.is_empty() && random.is_ok_and(|random| aside_name(file, random) == name)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::*;
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use std::time::SystemTime;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn what_lies_beside_a_file_is_neither_written_nor_taken() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("victim"), "mine").unwrap();
        // The name that was used aside before, as a link and as a file that everybody may read.
        symlink(at("victim"), at(&format!(".linked.{}", std::process::id()))).unwrap();
        let open = at(&format!(".secret.{}", std::process::id()));
        fs::write(&open, "").unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o666)).unwrap();
        write_private(&at("linked"), "text").unwrap();
        write_private(&at("secret"), "text").unwrap();
        assert_eq!(fs::read_to_string(at("victim")).unwrap(), "mine");
        for name in ["linked", "secret"] {
            assert_eq!((fs::read_to_string(at(name)).unwrap().as_str(), mode(&at(name))), ("text", 0o600), "{name}");
        }
        // A link at the very name is replaced, not followed.
        symlink(at("victim"), at("named")).unwrap();
        write_private(&at("named"), "text").unwrap();
        assert_eq!(fs::read_to_string(at("victim")).unwrap(), "mine");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 6, "nothing is left beside them");
    }

    #[test]
    fn what_a_kill_has_left_is_swept_and_nothing_that_only_looks_like_it() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let old = SystemTime::now() - 2 * LEFT_AGE;
        let plant = |name: &str, modified: SystemTime| {
            fs::write(at(name), "half").unwrap();
            File::options().write(true).open(at(name)).unwrap().set_modified(modified).unwrap();
        };
        let left = [".epoch.0123456789abcdef", ".jwks-corp.json.00000000000000ff"];
        left.iter().for_each(|name| plant(name, old));
        let kept = [
            "epoch.0123456789abcdef",
            "..0123456789abcdef",
            ".0123456789abcdef",
            ".epoch.0123456789ABCDEF",
            ".epoch.0123456789abcde",
            ".epoch.0123456789abcdef0",
            ".epoch.+123456789abcdef",
            ".epoch.0123456789abcdeg",
            ".epoch.0123456789abcdef.swp",
        ];
        kept.iter().for_each(|name| plant(name, old));
        // One that is being written, one of a clock that was ahead, a folder, and links with just such names.
        plant(".epoch.aaaaaaaaaaaaaaaa", SystemTime::now());
        plant(".epoch.bbbbbbbbbbbbbbbb", SystemTime::now() + 2 * LEFT_AGE);
        fs::create_dir(at(".epoch.cccccccccccccccc")).unwrap();
        plant("victim", old);
        symlink(at("victim"), at(".epoch.dddddddddddddddd")).unwrap();
        symlink(at("nowhere"), at(".epoch.eeeeeeeeeeeeeeee")).unwrap();
        let before = fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(sweep(folder.path()).unwrap(), left.len());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), before - left.len());
        assert!(left.iter().all(|name| !at(name).exists()) && at("victim").exists());
        assert_eq!(sweep(folder.path()).unwrap(), 0);
        assert!(is_aside(&aside_name("any.name", fastrand::u64(..))));
    }

    #[test]
    fn a_private_folder_is_made_so_and_one_that_is_there_stays_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let made = folder.path().join("a/b");
        make_private_folder(&made).unwrap();
        assert_eq!(mode(&made), 0o700);
        fs::create_dir(folder.path().join("any")).unwrap();
        let [above, any] = ["a", "any"].map(|name| mode(&folder.path().join(name)));
        assert_eq!(above, any, "others may have something there");
        fs::set_permissions(&made, fs::Permissions::from_mode(0o755)).unwrap();
        make_private_folder(&made).unwrap();
        assert_eq!(mode(&made), 0o755);
    }
}
