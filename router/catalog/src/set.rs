//! A set of bindings, staged or active.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::binding::{Binding, Stage};
use crate::digest::Digest;
use crate::error::CatalogError;
use crate::limits::{BINDINGS_MAX, CHAIN_LEN_MAX, CONFIGS_TOTAL_MAX_BYTES};
use crate::names::Name;

/// Bindings by name; cloning it copies no binding.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BindingSet {
    bindings: BTreeMap<Name, Arc<StagedBinding>>,
    config_len_bytes: usize,
}

/// A binding as it was staged, with the code that its module had then.
#[derive(Clone, Debug, PartialEq)]
pub struct StagedBinding {
    /// The revision of the record that staged it.
    pub rev: u64,
    /// The same, of the first of those that staged it as it is: its filter sees the schema registry as it was then. Whoever
    /// stages what is active brings nothing new.
    pub since: u64,
    /// The digest of its module.
    pub digest: Digest,
    /// The binding.
    pub binding: Binding,
    config_len_bytes: usize,
}

impl StagedBinding {
    pub(crate) fn new(rev: u64, digest: Digest, binding: Binding) -> Self {
        Self { rev, since: rev, digest, config_len_bytes: binding.config_bytes().len(), binding }
    }
}

impl BindingSet {
    /// The bindings by name.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Arc<StagedBinding>> {
        self.bindings.values()
    }

    /// The binding of that name.
    pub fn find(&self, name: &Name) -> Option<&Arc<StagedBinding>> {
        self.bindings.get(name)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.bindings.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.bindings.is_empty()
    }

    /// The bindings of a stage by order, then name: as an ingress chain runs them. An egress chain runs in reverse.
    pub fn stage(&self, stage: Stage) -> Vec<&Arc<StagedBinding>> {
        let mut bindings: Vec<_> = self.iter().filter(|staged| staged.binding.stage == stage).collect();
        // Stable, and by name before.
        bindings.sort_by_key(|staged| staged.binding.order);
        bindings
    }

    pub(crate) fn insert(&mut self, staged: StagedBinding) {
        self.put(Arc::new(staged));
    }

    pub(crate) fn remove(&mut self, name: &Name) {
        if let Some(gone) = self.bindings.remove(name) {
            self.config_len_bytes -= gone.config_len_bytes;
        }
    }

    /// Each binding with the revision that staged it: that a set is this one and no other.
    pub fn revisions(&self) -> BTreeMap<Name, u64> {
        self.bindings.iter().map(|(name, staged)| (name.clone(), staged.rev)).collect()
    }

    /// Checks that `binding` may be put into this set.
    pub(crate) fn check_insert(&self, binding: &Binding) -> Result<(), CatalogError> {
        let mut then = self.clone();
        then.insert(StagedBinding::new(0, Digest::ZERO, binding.clone()));
        then.check_size()?;
        // Only chains that the new binding is part of can have become too long.
        let mut part = then.iter().filter(|other| sees(binding, &other.binding));
        part.try_for_each(|other| then.check_chain(&other.binding))
    }

    /// Checks the bounds of the whole set.
    pub(crate) fn validate(&self) -> Result<(), CatalogError> {
        self.check_size()?;
        self.iter().try_for_each(|staged| self.check_chain(&staged.binding))
    }

    /// This set with what it shares with `old` replaced by `new`: a change that is in this set alone stays.
    pub(crate) fn rebased(&self, old: &Self, new: &Self) -> Self {
        let mut rebased = new.clone();
        let names = self.bindings.keys().chain(old.bindings.keys());
        for name in names {
            let (mine, before) = (self.find(name), old.find(name));
            match mine {
                _ if mine == before => {}
                Some(mine) => rebased.put(mine.clone()),
                None => rebased.remove(name),
            }
        }
        rebased
    }

    fn put(&mut self, staged: Arc<StagedBinding>) {
        self.remove(&staged.binding.name);
        self.config_len_bytes += staged.config_len_bytes;
        self.bindings.insert(staged.binding.name.clone(), staged);
    }

    fn check_size(&self) -> Result<(), CatalogError> {
        let full = |what, max: usize, mend| Err(CatalogError::Full { what, max: max as u64, mend });
        if self.len() > BINDINGS_MAX {
            return full("bindings", BINDINGS_MAX, "remove one, or let one binding cover more topics");
        }
        if self.config_len_bytes > CONFIGS_TOTAL_MAX_BYTES {
            return full("bytes of configuration", CONFIGS_TOTAL_MAX_BYTES, "shorten the configurations");
        }
        Ok(())
    }

    fn check_chain(&self, of: &Binding) -> Result<(), CatalogError> {
        let length = self.iter().filter(|other| sees(&other.binding, of)).count();
        if length <= CHAIN_LEN_MAX {
            return Ok(());
        }
        let (stage, pattern) = (of.stage.as_str(), &of.pattern);
        Err(of.refuse(
            "pattern",
            format!("{length} {stage} bindings see `{pattern}`; {CHAIN_LEN_MAX} are the most: join or remove some"),
        ))
    }
}

/// Whether `binding` sees all events that `other` sees.
fn sees(binding: &Binding, other: &Binding) -> bool {
    binding.stage == other.stage && binding.pattern.implies(&other.pattern)
}
