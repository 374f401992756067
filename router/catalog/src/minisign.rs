//! Keys and signatures as the tool `minisign` writes them, which sign modules and changes of trust.
//!
//! A signature file has two signatures: one of what is signed, prehashed, and a *global* one of that signature and the
//! trusted comment beside it. Because the trusted comment of a module's signature names the module's digest, a router
//! that has only the record of a module can check the second alone; whoever has the bytes checks both.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::signature::{ED25519, UnparsedPublicKey};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::limits::COMMENT_LEN_MAX_BYTES;
use crate::trust::TrustRefusal;

#[cfg(test)]
mod tests;

/// Bytes of a key: two of the algorithm, eight of its id, and the key.
const KEY_LEN_BYTES: usize = 42;
/// Where the key itself begins in these.
const KEY_BEGINS_AT: usize = 10;
/// Bytes of the first signature: two of the algorithm, eight of the key's id, and the signature.
const SIGNATURE_LEN_BYTES: usize = 74;
/// Bytes of an Ed25519 signature.
const ED25519_LEN_BYTES: usize = 64;
/// The algorithm of a key, and of a signature that is not prehashed.
const PLAIN: &[u8] = b"Ed";
/// The algorithm of a prehashed signature.
const PREHASHED: &[u8] = b"ED";
/// What precedes the trusted comment.
const TRUSTED: &str = "trusted comment: ";
/// Bytes of a text that is taken for a key or a signature at all.
const TEXT_LEN_MAX_BYTES: usize = 2 * COMMENT_LEN_MAX_BYTES + 512;

/// The id of a key, which every signature names; 16 hexadecimal digits, as minisign shows it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(u64);

/// A public key; as text, the second line of its `.pub` file.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MinisignKey([u8; KEY_LEN_BYTES]);

/// A prehashed signature; as text, its `.minisig` file. The untrusted comment is not kept: nobody has signed it.
#[derive(Clone, PartialEq, Eq)]
pub struct MinisignSignature(Arc<Parts>);

#[derive(Clone, PartialEq, Eq)]
struct Parts {
    first: [u8; SIGNATURE_LEN_BYTES],
    comment: String,
    global: [u8; ED25519_LEN_BYTES],
}

impl MinisignKey {
    /// Its id.
    pub fn id(&self) -> KeyId {
        KeyId::of(&self.0)
    }

    /// Whether both are the same key: whoever writes a key's file chooses its id, and may write several.
    pub fn is_same_key(&self, other: &Self) -> bool {
        self.0[KEY_BEGINS_AT..] == other.0[KEY_BEGINS_AT..]
    }

    /// Whether it has signed these bytes and the trusted comment beside.
    pub fn has_signed(&self, bytes: &[u8], signature: &MinisignSignature) -> bool {
        let key = minisign_verify::PublicKey::from_base64(&self.to_string());
        let signature = minisign_verify::Signature::decode(&signature.to_string());
        matches!((key, signature), (Ok(key), Ok(signature)) if key.verify(bytes, &signature, false).is_ok())
    }

    /// Whether it has signed the trusted comment; that says nothing of the bytes that the comment does not name.
    pub fn has_signed_comment(&self, signature: &MinisignSignature) -> bool {
        let mut signed = Vec::with_capacity(ED25519_LEN_BYTES + signature.0.comment.len());
        signed.extend_from_slice(&signature.0.first[SIGNATURE_LEN_BYTES - ED25519_LEN_BYTES..]);
        signed.extend_from_slice(signature.0.comment.as_bytes());
        let key = UnparsedPublicKey::new(&ED25519, &self.0[KEY_LEN_BYTES - 32..]);
        self.id() == signature.key_id() && key.verify(&signed, &signature.0.global).is_ok()
    }
}

impl MinisignSignature {
    /// The id of the key that has signed, as it says.
    pub fn key_id(&self) -> KeyId {
        KeyId::of(&self.0.first)
    }

    /// The trusted comment.
    pub fn comment(&self) -> &str {
        &self.0.comment
    }
}

impl KeyId {
    /// The id behind the two bytes of the algorithm.
    fn of(bytes: &[u8]) -> Self {
        let id: [u8; 8] = bytes[2..10].try_into().expect("keys and signatures are longer");
        Self(u64::from_le_bytes(id))
    }
}

impl FromStr for KeyId {
    type Err = TrustRefusal;

    fn from_str(text: &str) -> Result<Self, TrustRefusal> {
        let is_hex = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let id = u64::from_str_radix(text, 16).ok().filter(|_| is_hex);
        id.map(Self).ok_or_else(|| invalid_key("the id of a key has 16 hexadecimal digits, as `myelin trust ls` shows"))
    }
}

impl FromStr for MinisignKey {
    type Err = TrustRefusal;

    /// Reads the text, or the whole of its file.
    fn from_str(text: &str) -> Result<Self, TrustRefusal> {
        let line = text.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or_default();
        let bytes = decode::<KEY_LEN_BYTES>(line).filter(|bytes| bytes.starts_with(PLAIN));
        let bytes = bytes.filter(|_| text.len() <= TEXT_LEN_MAX_BYTES);
        let why = "a public key is the second line of a `.pub` file of minisign's: 56 characters that begin with `RW`";
        bytes.map(Self).ok_or_else(|| invalid_key(why))
    }
}

impl FromStr for MinisignSignature {
    type Err = TrustRefusal;

    fn from_str(text: &str) -> Result<Self, TrustRefusal> {
        let refuse = |why: &'static str| TrustRefusal::InvalidSignature { what: "the signature".into(), why };
        if text.len() > TEXT_LEN_MAX_BYTES {
            return Err(refuse("it is too long for a file that minisign wrote"));
        }
        let lines: Vec<&str> = text.trim_end().lines().map(|line| line.trim_end_matches('\r')).collect();
        let [_, first, comment, global] = lines[..] else {
            return Err(refuse("a `.minisig` file has four lines"));
        };
        let first = decode::<SIGNATURE_LEN_BYTES>(first).ok_or_else(|| refuse("its second line is no signature"))?;
        if !first.starts_with(PREHASHED) {
            return Err(refuse("it is not prehashed: sign again without minisign's `-l`"));
        }
        let comment = comment.strip_prefix(TRUSTED).ok_or_else(|| refuse("its third line is no trusted comment"))?;
        // The tool's own comments have tabs between their parts.
        let moves_cursor = |character: char| character.is_control() && character != '\t';
        if comment.len() > COMMENT_LEN_MAX_BYTES || comment.chars().any(moves_cursor) {
            return Err(refuse("its trusted comment is too long, or holds control characters"));
        }
        let global = decode::<ED25519_LEN_BYTES>(global).ok_or_else(|| refuse("its fourth line is no signature"))?;
        Ok(Self(Arc::new(Parts { first, comment: comment.to_owned(), global })))
    }
}

/// The bytes behind base64, where there are as many as there must be.
fn decode<const LEN: usize>(text: &str) -> Option<[u8; LEN]> {
    BASE64.decode(text).ok()?.try_into().ok()
}

fn invalid_key(why: &str) -> TrustRefusal {
    TrustRefusal::InvalidKey { why: why.to_owned() }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016X}", self.0)
    }
}

impl fmt::Display for MinisignKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64.encode(self.0))
    }
}

impl fmt::Display for MinisignSignature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, global) = (BASE64.encode(self.0.first), BASE64.encode(self.0.global));
        writeln!(f, "untrusted comment: signature\n{first}\n{TRUSTED}{}\n{global}", self.0.comment)
    }
}

macro_rules! as_text {
    ($($type:ty)*) => {$(
        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", self.to_string())
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}

as_text!(KeyId MinisignKey MinisignSignature);
