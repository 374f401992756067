//! The one bearer token of the configuration.

use sha2::{Digest, Sha256};
use std::path::Path;
use subtle::ConstantTimeEq;

/// Characters of the shortest token that is accepted: 16 of base64 are 96 bits.
pub const TOKEN_LEN_MIN: usize = 16;
/// Characters of the longest token that is accepted.
pub const TOKEN_LEN_MAX: usize = 512;
/// Bytes of a token file that are read: a wrong path must not fill the memory.
const TOKEN_FILE_BYTES_MAX: u64 = 4_096;

/// The bearer token of the admin API. Only its digest is kept.
#[derive(Clone)]
pub struct Token([u8; 32]);

/// A token that cannot be one.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// Its length or its characters will not do.
    #[error(
        "a token has {TOKEN_LEN_MIN} to {TOKEN_LEN_MAX} printable ASCII characters without blanks; make one with `openssl rand -base64 32`"
    )]
    Text,
    /// The file cannot be read.
    #[error("the token file {path}: {error}; check [admin] token_file")]
    File {
        /// Which.
        path: String,
        /// Why.
        error: std::io::Error,
    },
}

impl Token {
    /// The token `text`.
    ///
    /// # Errors
    /// When it is too short, too long, or holds blanks.
    pub fn new(text: &str) -> Result<Self, TokenError> {
        let fits = (TOKEN_LEN_MIN..=TOKEN_LEN_MAX).contains(&text.len());
        if !fits || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(TokenError::Text);
        }
        Ok(Self(Sha256::digest(text).into()))
    }

    /// The token that stands in the file at `path`; blanks around it do not count.
    ///
    /// # Errors
    /// When the file cannot be read or holds no token.
    pub fn read(path: &Path) -> Result<Self, TokenError> {
        use std::io::Read;
        let mut text = String::new();
        let read = std::fs::File::open(path).and_then(|file| file.take(TOKEN_FILE_BYTES_MAX).read_to_string(&mut text));
        read.map_err(|error| TokenError::File { path: path.display().to_string(), error })?;
        Self::new(text.trim())
    }

    /// Whether `text` is this token. Takes the same time whatever it holds: digests are compared, all bytes of them.
    pub(super) fn is(&self, text: &[u8]) -> bool {
        let digest: [u8; 32] = Sha256::digest(text).into();
        self.0.ct_eq(&digest).into()
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Token(elided)")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::*;

    #[test]
    fn a_token_has_a_least_length_and_no_blanks() {
        assert!(Token::new("0123456789abcde").is_err() && Token::new("0123456789 abcdef").is_err());
        assert!(Token::new(&"x".repeat(TOKEN_LEN_MAX + 1)).is_err() && Token::new("0123456789abcdéf").is_err());
        assert_eq!(format!("{:?}", Token::new("0123456789abcdef").unwrap()), "Token(elided)");
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "0123456789abcdef\n").unwrap();
        assert!(Token::read(file.path()).unwrap().is(b"0123456789abcdef"));
        assert!(Token::read(Path::new("/nonexistent")).unwrap_err().to_string().contains("/nonexistent"));
    }
}
