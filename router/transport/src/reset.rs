//! The key of stateless resets (RFC 9000, section 10.3), kept across starts.
//!
//! A router that was killed knows nothing of its former connections. With the same key as before it answers their
//! packets with a reset that the clients understand: they reconnect at once, and do not wait for their idle timeout.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::tls::crypto_provider;

/// Length of a key in bytes: the block of SHA-256, as quinn's own random keys.
const KEY_BYTES: usize = 64;

/// Least time between two resets of an endpoint. All clients of a router that was killed ask within one keep-alive, some
/// 5,000 in 10 s; with quinn's 20 ms most of them would hear nothing and wait for their idle timeout. A reset is shorter
/// than the packet that it answers, so that nothing is amplified, and two endpoints that answer each other come to an end.
const RESET_INTERVAL: Duration = Duration::from_millis(1);

/// A secret from which the tokens of stateless resets are derived. Whoever has it can end connections.
#[derive(Clone, PartialEq, Eq)]
pub struct ResetKey([u8; KEY_BYTES]);

impl ResetKey {
    /// The key in `file`, which is made, for its owner's eyes only, where it is missing.
    ///
    /// # Errors
    /// When the file cannot be read or written, or does not hold a key.
    pub fn load_or_create(file: &Path) -> io::Result<Self> {
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", file.display()));
        match fs::read(file) {
            Ok(bytes) => bytes.try_into().map(Self).map_err(|bytes: Vec<u8>| {
                named(io::Error::other(format!(
                    "{} bytes, where a key has {KEY_BYTES}; remove it, and a new one is made (clients of before then \
                     notice a restart only after their idle timeout)",
                    bytes.len()
                )))
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::create(file).map_err(named),
            Err(error) => Err(named(error)),
        }
    }

    /// Whole or not at all: a start that is interrupted leaves no half of a key.
    fn create(file: &Path) -> io::Result<Self> {
        let mut key = [0; KEY_BYTES];
        crypto_provider()
            .secure_random
            .fill(&mut key)
            .map_err(|_| io::Error::other("the system gives no randomness"))?;
        let aside = file.with_extension("part");
        let mut out = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&aside)?;
        out.write_all(&key)?;
        out.sync_all()?;
        fs::rename(&aside, file)?;
        let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder)?.sync_all()?;
        Ok(Self(key))
    }

    pub(crate) fn endpoint_config(&self) -> quinn::EndpointConfig {
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &self.0);
        let mut config = quinn::EndpointConfig::new(Arc::new(key));
        config.min_reset_interval(RESET_INTERVAL);
        config
    }
}

/// A secret is not for logs.
impl fmt::Debug for ResetKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("ResetKey(..)")
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_key_is_made_once_and_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("reset.key");
        let key = ResetKey::load_or_create(&file).unwrap();
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(ResetKey::load_or_create(&file).unwrap() == key);
        assert!(ResetKey::load_or_create(&folder.path().join("other.key")).unwrap() != key);
        assert_eq!(format!("{key:?}"), "ResetKey(..)");
    }

    #[test]
    fn a_damaged_key_is_named_and_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("reset.key");
        fs::write(&file, b"short").unwrap();
        let error = ResetKey::load_or_create(&file).unwrap_err().to_string();
        assert!(error.contains("reset.key") && error.contains("5 bytes") && error.contains("remove it"), "{error}");
        assert_eq!(fs::read(&file).unwrap(), b"short");
        assert!(ResetKey::load_or_create(&folder.path().join("none/reset.key")).is_err());
    }
}
