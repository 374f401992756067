//! The keys of an issuer that were read last, on disk for the next start: whose, from where and when beside them.

use crate::files::write_private;
use anyhow::{Context, ensure};
use myelin_token::{KEYS_BYTES_MAX, Keys};
use serde::{Deserialize, Serialize};
use std::io::Read;
use std::path::Path;

/// Bytes of such a file that are read: a text of keys in JSON takes at most six bytes for one, and the rest is short.
const KEPT_BYTES_MAX: u64 = 6 * KEYS_BYTES_MAX as u64 + 16 * 1024;
/// Into how many parts the age that keys may have is cut: what is on disk is no older than one of them than what is read
/// again and again, and is written no more often.
const AGE_PARTS: u64 = 16;

/// A file of kept keys.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    issuer: String,
    jwks_url: String,
    read_unix_s: u64,
    keys: String,
}

/// Whose keys they are, and until when they count.
#[derive(Clone, Debug)]
pub(super) struct Origin {
    pub(super) issuer: String,
    pub(super) jwks_url: String,
    pub(super) max_age_s: u64,
}

/// How far a clock may be set back, as one that is synchronized is: keys that were read before that are new.
const SET_BACK_S: u64 = 600;

/// Whether keys that were read then are too old now. A time further to come says nothing: the clock was wrong, then or now.
pub(super) fn is_too_old(read_unix_s: u64, max_age_s: u64, now_unix_s: u64) -> bool {
    match now_unix_s.checked_sub(read_unix_s) {
        Some(age) => age > max_age_s,
        None => read_unix_s - now_unix_s > SET_BACK_S,
    }
}

impl Origin {
    /// The keys in a file, and when they were read.
    ///
    /// # Errors
    /// Where there are none, they are another issuer's or of another place, or are too old.
    pub(super) fn load(&self, file: &Path, now_unix_s: u64) -> anyhow::Result<(Keys, u64)> {
        let Kept { issuer, jwks_url, read_unix_s, keys } = read(file)?;
        ensure!(issuer == self.issuer && jwks_url == self.jwks_url, "they are of {issuer}, from {jwks_url}");
        ensure!(
            !is_too_old(read_unix_s, self.max_age_s, now_unix_s),
            "they were read at {read_unix_s} (Unix seconds), and count for keys_max_age_seconds = {}",
            self.max_age_s
        );
        Ok((Keys::parse(keys.as_bytes())?, read_unix_s))
    }

    /// Keeps keys that were read now, where that is news.
    pub(super) fn keep(&self, file: &Path, keys: &str, now_unix_s: u64) -> anyhow::Result<()> {
        let is_news = read(file).map_or(true, |kept| {
            let is_same = kept.keys == keys && kept.issuer == self.issuer && kept.jwks_url == self.jwks_url;
            !is_same || is_too_old(kept.read_unix_s, self.max_age_s / AGE_PARTS, now_unix_s)
        });
        if !is_news {
            return Ok(());
        }
        let (issuer, jwks_url) = (self.issuer.clone(), self.jwks_url.clone());
        let kept = Kept { issuer, jwks_url, read_unix_s: now_unix_s, keys: keys.to_owned() };
        Ok(write_private(file, &serde_json::to_string(&kept)?)?)
    }
}

fn read(file: &Path) -> anyhow::Result<Kept> {
    let mut text = Vec::new();
    let open = std::fs::File::open(file).and_then(|file| file.take(KEPT_BYTES_MAX).read_to_end(&mut text));
    open.with_context(|| file.display().to_string())?;
    serde_json::from_slice(&text).context("this file says not whose they are; it is written anew")
}
