//! The keys that a log trusts, at one place in it. The rules are those of [`crate::keys`].

use std::collections::BTreeMap;

use crate::error::{CatalogError, SignatureFault};
use crate::keys::PublicKey;
use crate::limits::{KEYS_MAX, NOTE_LEN_MAX_BYTES};
use crate::names::Name;
use crate::op::Op;
use crate::record::{Algorithm, Record};

#[cfg(test)]
mod tests;

/// All keys that a log ever trusted. Revoked ones stay: their names are never used again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyRing {
    keys: BTreeMap<Name, TrustedKey>,
    root: Option<PublicKey>,
}

/// A key that is or was trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustedKey {
    /// The key.
    pub public_key: PublicKey,
    /// Whose it is, for people.
    pub note: String,
    /// The revision of the record since which it is trusted.
    pub rev: u64,
    /// The revision of the record that revoked it.
    pub revoked_rev: Option<u64>,
}

impl KeyRing {
    /// The keys by name.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&Name, &TrustedKey)> {
        self.keys.iter()
    }

    /// The key of that name, revoked or not.
    pub fn find(&self, key_id: &Name) -> Option<&TrustedKey> {
        self.keys.get(key_id)
    }

    /// The key with which the signed part of the log begins; `None` while no record is signed.
    pub fn root(&self) -> Option<PublicKey> {
        self.root
    }

    /// How many keys may sign.
    pub fn trusted(&self) -> usize {
        self.keys.values().filter(|key| key.revoked_rev.is_none()).count()
    }

    /// Checks that `record` is signed as the log demands at this place.
    pub(crate) fn check_record(&self, record: &Record) -> Result<(), CatalogError> {
        let refuse = |fault| Err(CatalogError::Signature { rev: record.rev, fault });
        let key_id = || record.key_id.clone();
        if record.alg == Algorithm::None {
            let begins = matches!(record.op, Op::KeyTrusted { .. });
            return if self.root.is_some() || begins { refuse(SignatureFault::Unsigned) } else { Ok(()) };
        }
        let public_key = match (self.keys.get(record.key_id.as_str()), &record.op) {
            (Some(TrustedKey { revoked_rev: Some(revoked_rev), .. }), _) => {
                return refuse(SignatureFault::RevokedKey { key_id: key_id(), revoked_rev: *revoked_rev });
            }
            (Some(key), _) => key.public_key,
            // The first key vouches for itself.
            (None, Op::KeyTrusted { key_id: named, public_key, .. })
                if self.root.is_none() && named.as_str() == record.key_id =>
            {
                *public_key
            }
            (None, _) => return refuse(SignatureFault::UnknownKey { key_id: key_id() }),
        };
        if public_key.has_signed(&record.signing_digest(), &record.sig) {
            return Ok(());
        }
        refuse(SignatureFault::Bad { key_id: key_id() })
    }

    pub(crate) fn check_trusted(&self, key_id: &Name, public_key: &PublicKey, note: &str) -> Result<(), CatalogError> {
        if note.len() > NOTE_LEN_MAX_BYTES || note.chars().any(char::is_control) {
            let why = format!("it has at most {NOTE_LEN_MAX_BYTES} bytes and no control characters; shorten it");
            return Err(CatalogError::InvalidRecord { field: "note", why });
        }
        if self.keys.contains_key(key_id) {
            let why = format!("key `{key_id}` is or was trusted; names of keys are used once: choose another");
            return Err(CatalogError::Conflict(why));
        }
        if let Some((there, _)) = self.keys.iter().find(|(_, there)| there.public_key == *public_key) {
            // Else a revoked key would come back under another name.
            let why = format!("key `{there}` is or was the same key under another name; make a new key");
            return Err(CatalogError::Conflict(why));
        }
        if self.keys.len() >= KEYS_MAX {
            let mend = "start a new catalog from an export of this one";
            return Err(CatalogError::Full { what: "keys", max: KEYS_MAX as u64, mend });
        }
        Ok(())
    }

    pub(crate) fn check_revoked(&self, key_id: &Name) -> Result<(), CatalogError> {
        match self.keys.get(key_id) {
            Some(TrustedKey { revoked_rev: None, .. }) => {}
            _ => {
                let mend = "list the keys that are trusted";
                return Err(CatalogError::NotFound { what: "trusted key", name: key_id.to_string(), mend });
            }
        }
        if self.trusted() == 1 {
            let why = format!("key `{key_id}` is the only one that may sign; trust another one first");
            return Err(CatalogError::Conflict(why));
        }
        Ok(())
    }

    pub(crate) fn trust(&mut self, key_id: Name, public_key: PublicKey, note: String, rev: u64) {
        self.root.get_or_insert(public_key);
        self.keys.insert(key_id, TrustedKey { public_key, note, rev, revoked_rev: None });
    }

    pub(crate) fn revoke(&mut self, key_id: &Name, rev: u64) {
        if let Some(key) = self.keys.get_mut(key_id) {
            key.revoked_rev = Some(rev);
        }
    }
}
