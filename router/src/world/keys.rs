//! The key with which this router signs records, in its data directory.

use crate::files::write_private;
use anyhow::Context as _;
use myelin_catalog::{Name, SigningKey};
use rustix::rand::{GetRandomFlags, getrandom};
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

/// Bytes of a seed.
const SEED_BYTES: usize = 32;

/// The key in `file`, under the name `id`; drawn and kept where there is none.
///
/// # Errors
/// When the file cannot be read or written, or holds no seed.
pub(crate) fn load_or_create(file: &Path, id: Name) -> anyhow::Result<SigningKey> {
    let seed = match fs::read_to_string(file) {
        Ok(text) => {
            let mut seed = [0; SEED_BYTES];
            hex::decode_to_slice(text.trim(), &mut seed).with_context(|| {
                format!("{} does not hold 64 hexadecimal digits; restore it from a backup", file.display())
            })?;
            seed
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            create(file).with_context(|| format!("writing {}", file.display()))?
        }
        Err(error) => return Err(error).with_context(|| format!("reading {}", file.display())),
    };
    Ok(SigningKey::from_seed(id, &seed)?)
}

/// Draws a seed, and keeps it where only the router's user reads it. On the disk, name and all, before it is
/// used: once a record is signed with it, nobody else can sign the next one.
fn create(file: &Path) -> std::io::Result<[u8; SEED_BYTES]> {
    let mut seed = [0; SEED_BYTES];
    let filled = getrandom(&mut seed, GetRandomFlags::empty())?;
    if filled < SEED_BYTES {
        return Err(std::io::Error::other("the operating system gave too few random bytes"));
    }
    write_private(file, &format!("{}\n", hex::encode(seed)))?;
    Ok(seed)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_key_is_drawn_once_and_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("catalog.key");
        let id: Name = "root".parse().unwrap();
        let first = load_or_create(&file, id.clone()).unwrap();
        assert_eq!(load_or_create(&file, id.clone()).unwrap().public_key(), first.public_key());
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        let other = load_or_create(&folder.path().join("other.key"), id.clone()).unwrap();
        assert_ne!(other.public_key(), first.public_key());
        fs::write(&file, "garbage").unwrap();
        assert!(load_or_create(&file, id).unwrap_err().to_string().contains("64 hexadecimal digits"));
    }
}
