//! Whom the mesh trusts: the keys that may sign modules, and the root keys that must agree to any change of that.
//!
//! Without a root set whoever administers the mesh may change trust; the first root set ends that. From then on a
//! change carries signatures by at least `threshold` different root keys over what it does and what it follows, and
//! every router checks them when it takes the record: neither a router nor an administrator alone can add a key.

use std::collections::BTreeMap;

use crate::limits::TRUST_KEYS_MAX;
use crate::minisign::{KeyId, MinisignKey, MinisignSignature};
use crate::names::Name;
use crate::record::Head;

mod change;
mod refusal;
#[cfg(test)]
mod tests;

pub use change::{ModulePattern, TrustAction, TrustChange};
pub use refusal::TrustRefusal;

/// Whom the mesh trusts, at one place of the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trust {
    head: Head,
    /// Those that were removed, too: they never come back.
    keys: BTreeMap<KeyId, ModuleKey>,
    roots: Option<RootSet>,
}

/// A key that may sign modules, or might once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModuleKey {
    /// The key.
    pub public_key: MinisignKey,
    /// The modules that it may sign.
    pub modules: Vec<ModulePattern>,
    /// Whose it is, for people.
    pub note: String,
    /// The revision of the record since which it is trusted.
    pub rev: u64,
    /// The revision of the record that removed it.
    pub removed_rev: Option<u64>,
}

/// The keys that must agree to a change of trust.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootSet {
    /// The keys.
    pub keys: Vec<MinisignKey>,
    /// How many of them must agree.
    pub threshold: u8,
    /// The revision of the record that set them.
    pub rev: u64,
}

impl Trust {
    /// The record of the newest change: what the next one follows.
    pub fn head(&self) -> Head {
        self.head
    }

    /// The keys that may sign modules, and those that might once.
    pub fn keys(&self) -> impl ExactSizeIterator<Item = (&KeyId, &ModuleKey)> {
        self.keys.iter()
    }

    /// The root set.
    pub fn roots(&self) -> Option<&RootSet> {
        self.roots.as_ref()
    }

    /// The key that has made a signature, where it may sign modules of that name; `what` is told in the refusal.
    ///
    /// # Errors
    /// `signature-untrusted`.
    pub fn signer(&self, what: &str, name: &Name, signature: &MinisignSignature) -> Result<&MinisignKey, TrustRefusal> {
        let refuse = |why: String| {
            Err(TrustRefusal::Untrusted { what: what.to_owned(), key_id: signature.key_id().to_string(), why })
        };
        match self.keys.get(&signature.key_id()) {
            None => refuse("which the mesh does not trust; `myelin trust change` adds a key".to_owned()),
            Some(ModuleKey { removed_rev: Some(rev), .. }) => refuse(format!(
                "which was removed by the newer trust record {rev}; sign it with a key that is trusted and push it again"
            )),
            Some(key) if !key.modules.iter().any(|pattern| pattern.matches(name)) => refuse(format!(
                "which may sign {} only; use the key that is meant for `{name}`",
                key.modules.iter().map(ModulePattern::to_string).collect::<Vec<_>>().join(", ")
            )),
            Some(key) => Ok(&key.public_key),
        }
    }

    /// Whether a change may follow.
    pub(crate) fn check(&self, change: &TrustChange) -> Result<(), TrustRefusal> {
        change.validate()?;
        if change.after != self.head {
            let shown = |head: &Head| format!("{} ({})", head.rev, head.hash.short());
            return Err(TrustRefusal::Stale { given: shown(&change.after), newest: shown(&self.head) });
        }
        self.check_signatures(change)?;
        // Each action is tried on what those before it leave.
        let mut after = self.clone();
        for action in &change.actions {
            after.check_action(action)?;
            after.take(action, 0);
        }
        Ok(())
    }

    /// Whether no key comes under a second id: as one that is or was trusted, or as two that must agree. A log may have it,
    /// of routers that told keys apart by their ids alone.
    pub(crate) fn check_different(&self, change: &TrustChange) -> Result<(), TrustRefusal> {
        let refuse = |a: &MinisignKey, b: &MinisignKey, what: &str| {
            let why = format!("keys {} and {} are one key under two ids, {what}: make a new key", a.id(), b.id());
            Err(TrustRefusal::InvalidChange(why))
        };
        let mut known: Vec<MinisignKey> = self.keys.values().map(|key| key.public_key).collect();
        for action in &change.actions {
            match action {
                TrustAction::AddKey { public_key, .. } => {
                    // The same id is refused with a sentence of its own.
                    let is_other = |key: &&MinisignKey| key.is_same_key(public_key) && key.id() != public_key.id();
                    if let Some(key) = known.iter().find(is_other) {
                        return refuse(key, public_key, "and a key that is or was trusted does not come back");
                    }
                    known.push(*public_key);
                }
                TrustAction::SetRoots { keys, .. } => {
                    for (at, key) in keys.iter().enumerate() {
                        if let Some(same) =
                            keys[..at].iter().find(|same| same.is_same_key(key) && same.id() != key.id())
                        {
                            return refuse(same, key, "whose holder would agree twice");
                        }
                    }
                }
                TrustAction::RemoveKey { .. } => {}
            }
        }
        Ok(())
    }

    /// One wrong signature is refused, though there be enough others: whoever sent it meant it to count.
    fn check_signatures(&self, change: &TrustChange) -> Result<(), TrustRefusal> {
        let Some(RootSet { keys, threshold, .. }) = &self.roots else { return Ok(()) };
        let (statement, mut signers) = (change.statement(), Vec::<&MinisignKey>::new());
        let refuse = |valid, why| Err(TrustRefusal::Signatures { threshold: *threshold, valid, why });
        for signature in &change.signatures {
            let key_id = signature.key_id();
            let Some(key) = keys.iter().find(|key| key.id() == key_id) else {
                return refuse(signers.len(), format!("key {key_id} is no root key"));
            };
            if !key.has_signed(statement.as_bytes(), signature) {
                return refuse(signers.len(), format!("what key {key_id} has signed is not this change"));
            }
            // By the key and not by its id: a root set of earlier may have one under two.
            if signers.iter().any(|signer| signer.is_same_key(key)) {
                return refuse(signers.len(), format!("key {key_id} has signed twice, which counts once"));
            }
            signers.push(key);
        }
        match signers.len() >= usize::from(*threshold) {
            true => Ok(()),
            false => refuse(signers.len(), "have more of their holders run `myelin trust sign`".to_owned()),
        }
    }

    fn check_action(&self, action: &TrustAction) -> Result<(), TrustRefusal> {
        let refuse = |why: String| Err(TrustRefusal::InvalidChange(why));
        match action {
            TrustAction::AddKey { public_key, .. } if self.keys.contains_key(&public_key.id()) => {
                let id = public_key.id();
                refuse(format!("key {id} is or was trusted, and none comes back: make a new key, or remove it first"))
            }
            TrustAction::AddKey { .. } if self.keys.len() >= TRUST_KEYS_MAX => {
                refuse(format!("the catalog holds {TRUST_KEYS_MAX} keys, removed ones included, which is the most"))
            }
            TrustAction::RemoveKey { key_id } => match self.keys.get(key_id) {
                Some(ModuleKey { removed_rev: None, .. }) => Ok(()),
                Some(_) => refuse(format!("key {key_id} is removed already")),
                None => refuse(format!("key {key_id} is not trusted; `myelin trust ls` lists those that are")),
            },
            TrustAction::AddKey { .. } | TrustAction::SetRoots { .. } => Ok(()),
        }
    }

    /// Takes a change that was checked, from the record with that head.
    pub(crate) fn commit(&mut self, change: &TrustChange, head: Head) {
        change.actions.iter().for_each(|action| self.take(action, head.rev));
        self.head = head;
    }

    fn take(&mut self, action: &TrustAction, rev: u64) {
        match action {
            TrustAction::AddKey { public_key, modules, note } => {
                let (public_key, modules, note) = (*public_key, modules.clone(), note.clone());
                self.keys.insert(public_key.id(), ModuleKey { public_key, modules, note, rev, removed_rev: None });
            }
            TrustAction::RemoveKey { key_id } => {
                if let Some(key) = self.keys.get_mut(key_id) {
                    key.removed_rev = Some(rev);
                }
            }
            TrustAction::SetRoots { keys, threshold } => {
                self.roots = Some(RootSet { keys: keys.clone(), threshold: *threshold, rev });
            }
        }
    }
}
