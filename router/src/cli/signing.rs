//! Keys of minisign's, and what they sign.

use super::failure::{Exit, Failure, Result};
use crate::files::{write_atomically, write_private};
use anyhow::Context;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use clap::Args;
use minisign::{KeyPair, SecretKey, SecretKeyBox};
use myelin_catalog::MinisignKey;
use std::path::{Path, PathBuf};

/// Bytes of a file with a key, a password or a signature: each is a few lines.
const TEXT_BYTES_MAX: u64 = 64 * 1024;

/// Who signs.
#[derive(Args, Debug)]
pub(super) struct Signer {
    /// The secret key: `myelin filter keygen` or `minisign -G` makes one
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// A file whose first line is the key's password; else it is asked for, where there is one
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
}

impl Signer {
    /// Signs, prehashed; the text is what goes into a `.minisig` file.
    pub(super) fn sign(&self, bytes: &[u8], comment: &str) -> Result<String> {
        let secret = self.secret()?;
        let signed = minisign::sign(None, &secret, bytes, Some(comment), None).context("signing")?;
        Ok(signed.to_string())
    }

    fn secret(&self) -> Result<SecretKey> {
        let text = read_text(&self.key)?;
        let boxed = || SecretKeyBox::from_string(&text);
        let shown = self.key.display();
        if let Ok(secret) = boxed().and_then(SecretKeyBox::into_unencrypted_secret_key) {
            return Ok(secret);
        }
        if let Some(secret) = of_the_tool(&text) {
            return Ok(secret);
        }
        if is_open(&text) {
            return Err(Failure::new(Exit::Usage, format!("{shown}: it has no password, and its checksum is wrong"))
                .next("take the key from a backup: the file is damaged"));
        }
        let password = password_of(self.password_file.as_deref(), &format!("{shown}: it is locked with a password"))?;
        boxed().and_then(|boxed| boxed.into_secret_key(password)).map_err(|error| {
            Failure::new(Exit::Usage, format!("{shown}: {error}"))
                .next("give the secret key, not the public one, and its password with --password-file")
        })
    }
}

/// Makes a pair of keys: `NAME.key`, for its owner alone, and `NAME.pub`. Returns the public one.
pub(super) fn make_keys(name: &Path, is_open: bool, password_file: Option<&Path>) -> Result<MinisignKey> {
    let [secret_file, public_file] = ["key", "pub"].map(|ending| with_ending(name, ending));
    if let Some(there) = [&secret_file, &public_file].into_iter().find(|file| file.exists()) {
        return Err(Failure::new(Exit::Conflict, format!("{} exists; a key is never overwritten", there.display())));
    }
    let pair = match (is_open, password_file) {
        (true, _) => KeyPair::generate_unencrypted_keypair(),
        (false, file) => KeyPair::generate_encrypted_keypair(password_of(file, "a key needs a password")?),
    };
    let pair = pair.context("making a key")?;
    let secret = pair.sk.to_box(Some("myelin secret key")).context("making a key")?;
    let public = pair.pk.to_box().context("making a key")?;
    write_private(&secret_file, &secret.to_string()).map_err(|error| Failure::of_file(&secret_file, error))?;
    write_atomically(&public_file, &public.to_string()).map_err(|error| Failure::of_file(&public_file, error))?;
    Ok(pair.pk.to_base64().parse().context("the key that was made")?)
}

/// The bytes of a secret key in its file, and where in them is how it is locked, and its checksum.
const SECRET_KEY_BYTES: usize = 158;
const LOCK: std::ops::Range<usize> = 2..4;
const CHECKSUM: std::ops::Range<usize> = 126..158;

/// The bytes of a secret key that has no password.
fn open_bytes(text: &str) -> Option<Vec<u8>> {
    let bytes = BASE64.decode(text.lines().nth(1)?.trim()).ok()?;
    (bytes.len() == SECRET_KEY_BYTES && bytes[LOCK] == [0, 0]).then_some(bytes)
}

fn is_open(text: &str) -> bool {
    open_bytes(text).is_some()
}

/// A secret key without a password as `minisign -G -W` writes it: with zeros for a checksum, which the library does not
/// take.
fn of_the_tool(text: &str) -> Option<SecretKey> {
    let bytes = open_bytes(text).filter(|bytes| bytes[CHECKSUM].iter().all(|byte| *byte == 0))?;
    SecretKey::from_bytes(&bytes).ok()
}

/// The password in a file; none where it is to be asked for, at a terminal.
fn password_of(file: Option<&Path>, why: &str) -> Result<Option<String>> {
    given_or_asked(file, why, std::fs::File::open("/dev/tty").is_ok())
}

fn given_or_asked(file: Option<&Path>, why: &str, has_terminal: bool) -> Result<Option<String>> {
    match file {
        Some(file) => password(file).map(Some),
        None if has_terminal => Ok(None),
        None => Err(Failure::new(Exit::Usage, format!("{why}, and there is no terminal to ask for it"))
            .next("give --password-file FILE, whose first line is the password")),
    }
}

/// `NAME.ENDING`, also where the name has a dot in it.
pub(super) fn with_ending(name: &Path, ending: &str) -> PathBuf {
    let mut whole = name.as_os_str().to_owned();
    whole.push(".");
    whole.push(ending);
    whole.into()
}

/// A public key: of a file, or as it is given.
pub(super) fn public_key(given: &str) -> Result<MinisignKey> {
    if let Ok(key) = given.parse() {
        return Ok(key);
    }
    let text = read_text(Path::new(given))?;
    text.parse().map_err(|error| Failure::new(Exit::Usage, format!("{given}: {error}")))
}

/// The whole of a small file.
pub(super) fn read_text(file: &Path) -> Result<String> {
    let told = |why: String| Failure::new(Exit::Usage, format!("{}: {why}", file.display()));
    let len = std::fs::metadata(file).map_err(|error| told(error.to_string()))?.len();
    if len > TEXT_BYTES_MAX {
        return Err(told(format!("it has {len} bytes; {TEXT_BYTES_MAX} are the most here")));
    }
    std::fs::read_to_string(file).map_err(|error| told(error.to_string()))
}

fn password(file: &Path) -> Result<String> {
    let text = read_text(file)?;
    match text.lines().next() {
        Some(line) if !line.is_empty() => Ok(line.to_owned()),
        _ => Err(Failure::new(Exit::Usage, format!("{}: its first line is empty", file.display()))),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::*;

    /// A key as the tool writes it that has no password, and the public one.
    fn of_minisign(folder: &Path, touch: impl FnOnce(&mut [u8])) -> (Signer, MinisignKey) {
        let pair = KeyPair::generate_unencrypted_keypair().unwrap();
        let text = pair.sk.to_box(None).unwrap().to_string();
        let mut bytes = BASE64.decode(text.lines().nth(1).unwrap()).unwrap();
        touch(&mut bytes);
        let file = folder.join("key");
        let comment = "untrusted comment: minisign encrypted secret key";
        std::fs::write(&file, format!("{comment}\n{}\n", BASE64.encode(bytes))).unwrap();
        (Signer { key: file, password_file: None }, pair.pk.to_base64().parse().unwrap())
    }

    #[test]
    fn without_a_terminal_a_password_has_to_be_given() {
        assert_eq!(given_or_asked(None, "x", true).unwrap(), None);
        let told = given_or_asked(None, "k: it is locked", false).unwrap_err();
        assert!(told.exit == Exit::Usage && told.to_string().contains("--password-file"), "{told}");
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pw");
        std::fs::write(&file, "horse\n").unwrap();
        assert_eq!(given_or_asked(Some(&file), "x", false).unwrap().as_deref(), Some("horse"));
    }

    #[test]
    fn an_open_key_of_the_tool_signs_and_a_damaged_one_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let (signer, public) = of_minisign(folder.path(), |bytes| bytes[CHECKSUM].fill(0));
        let signature: myelin_catalog::MinisignSignature = signer.sign(b"text", "comment").unwrap().parse().unwrap();
        assert_eq!(signature.key_id(), public.id());
        let (damaged, _) = of_minisign(folder.path(), |bytes| bytes[80] ^= 1);
        let told = damaged.sign(b"text", "comment").unwrap_err();
        assert!(told.exit == Exit::Usage && told.to_string().contains("damaged"), "{told}");
        assert!(!told.to_string().contains("--password-file"), "{told}");
    }
}
