//! Keys of minisign's, and what they sign.

use super::failure::{Exit, Failure, Result};
use crate::files::{write_atomically, write_private};
use anyhow::Context;
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
        let password = self.password_file.as_deref().map(password).transpose()?;
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
        (false, file) => KeyPair::generate_encrypted_keypair(file.map(password).transpose()?),
    };
    let pair = pair.context("making a key")?;
    let secret = pair.sk.to_box(Some("myelin secret key")).context("making a key")?;
    let public = pair.pk.to_box().context("making a key")?;
    write_private(&secret_file, &secret.to_string()).with_context(|| format!("{}", secret_file.display()))?;
    write_atomically(&public_file, &public.to_string()).with_context(|| format!("{}", public_file.display()))?;
    Ok(pair.pk.to_base64().parse().context("the key that was made")?)
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
