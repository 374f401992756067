//! The key with which this router signs records, in its data directory.

use crate::files::write_private;
use anyhow::Context as _;
use myelin_catalog::limits::NAME_LEN_MAX;
use myelin_catalog::{Catalog, Name, PublicKey, SigningKey};
use rustix::rand::{GetRandomFlags, getrandom};
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

/// Bytes of a seed.
const SEED_BYTES: usize = 32;
/// Hexadecimal digits of a key that are part of its name where every router signs.
const MARK_DIGITS: usize = 8;

/// The key in `file`, under the name `id`; drawn and kept where there is none.
///
/// # Errors
/// When the file cannot be read or written, or holds no seed.
pub(crate) fn load_or_create(file: &Path, id: Name) -> anyhow::Result<SigningKey> {
    Ok(SigningKey::from_seed(id, &seed(file)?)?)
}

/// The key in `file` of a router of a mesh in which every router signs, drawn and kept where there is none. It has the
/// name under which `catalog` knows it, else one of its own: a router that has lost its disk draws another key, and the
/// name of a key is used once.
///
/// # Errors
/// When the file cannot be read or written, or holds no seed.
pub(crate) fn load_or_create_own(
    file: &Path,
    (site, router): (&Name, &Name),
    catalog: &Catalog,
) -> anyhow::Result<SigningKey> {
    let seed = seed(file)?;
    let public_key = SigningKey::from_seed(router.clone(), &seed)?.public_key();
    let known = catalog.keys().iter().find(|(_, key)| key.public_key == public_key);
    let id = match known {
        Some((id, _)) => id.clone(),
        None => own_id(site, router, &public_key)?,
    };
    Ok(SigningKey::from_seed(id, &seed)?)
}

/// What the key of a router is called in a log that every router signs: by its router, and by itself.
///
/// # Errors
/// Never: what is left of names is a name.
pub(crate) fn own_id(site: &Name, router: &Name, public_key: &PublicKey) -> anyhow::Result<Name> {
    let mut id = format!("{site}-{router}");
    id.truncate(NAME_LEN_MAX - MARK_DIGITS - 1);
    let mark: String = public_key.to_string().chars().take(MARK_DIGITS).collect();
    Ok(format!("{}-{mark}", id.trim_end_matches('-')).parse()?)
}

/// The seed in `file`; drawn and kept where there is none.
fn seed(file: &Path) -> anyhow::Result<[u8; SEED_BYTES]> {
    match fs::read_to_string(file) {
        Ok(text) => {
            let mut seed = [0; SEED_BYTES];
            hex::decode_to_slice(text.trim(), &mut seed).with_context(|| {
                format!("{} does not hold 64 hexadecimal digits; restore it from a backup", file.display())
            })?;
            Ok(seed)
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            create(file).with_context(|| format!("writing {}", file.display()))
        }
        Err(error) => Err(error).with_context(|| format!("reading {}", file.display())),
    }
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
    use myelin_catalog::Op;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn each_key_of_a_router_has_a_name_of_its_own_unless_the_catalog_has_named_it() {
        let folder = tempfile::tempdir().unwrap();
        let long: Name = "s".repeat(NAME_LEN_MAX).parse().unwrap();
        let router: Name = "r1".parse().unwrap();
        let own = |file: &str, catalog: &Catalog| {
            load_or_create_own(&folder.path().join(file), (&long, &router), catalog).unwrap()
        };
        let mut catalog = Catalog::new();
        let (first, second) = (own("first", &catalog), own("second", &catalog));
        assert_ne!(first.id(), second.id());
        assert!(first.id().as_str().ends_with(&first.public_key().to_string()[..MARK_DIGITS]));
        // One that signed a log by itself before keeps its name there.
        let old = load_or_create(&folder.path().join("first"), "root".parse().unwrap()).unwrap();
        let op = Op::KeyTrusted { key_id: old.id().clone(), public_key: old.public_key(), note: String::new() };
        let record = catalog.draft_signed(op, "test", 0, &old).unwrap();
        catalog.apply(&record).unwrap();
        assert_eq!((own("first", &catalog).id(), own("second", &catalog).id()), (old.id(), second.id()));
    }

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
