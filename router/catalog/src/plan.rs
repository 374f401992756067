//! What changes between two sets of bindings.

use serde::Serialize;

use crate::names::Name;
use crate::set::{BindingSet, StagedBinding};

/// What a router has to do to get from one set of bindings to another; names are sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// Bindings that are new.
    pub added: Vec<Name>,
    /// Bindings that are in both sets and differ.
    pub changed: Vec<Changed>,
    /// Bindings that are gone.
    pub removed: Vec<Name>,
    /// Bindings that are the same: their filters need not be built again.
    pub kept: Vec<Name>,
}

/// A binding that differs between two sets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Changed {
    /// Which.
    pub name: Name,
    /// The fields that differ, as the API spells them; `digest` where the same version has other bytes.
    pub fields: Vec<&'static str>,
}

impl Plan {
    /// What changes on the way from `from` to `to`.
    pub fn between(from: &BindingSet, to: &BindingSet) -> Self {
        let mut plan = Self::default();
        for new in to.iter() {
            let name = new.binding.name.clone();
            match from.find(&name) {
                None => plan.added.push(name),
                Some(old) => match differing_fields(old, new) {
                    fields if fields.is_empty() => plan.kept.push(name),
                    fields => plan.changed.push(Changed { name, fields }),
                },
            }
        }
        let gone = from.iter().filter(|old| to.find(&old.binding.name).is_none());
        plan.removed.extend(gone.map(|old| old.binding.name.clone()));
        plan
    }

    /// Whether both sets are the same.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.changed.is_empty() && self.removed.is_empty()
    }

    /// The bindings whose filters are built anew: those added and those changed.
    pub fn built(&self) -> impl Iterator<Item = &Name> {
        self.added.iter().chain(self.changed.iter().map(|changed| &changed.name))
    }
}

impl StagedBinding {
    /// Whether a plan keeps one where the other is wanted.
    pub(crate) fn is_as(&self, other: &Self) -> bool {
        differing_fields(self, other).is_empty()
    }
}

fn differing_fields(old: &StagedBinding, new: &StagedBinding) -> Vec<&'static str> {
    let (a, b) = (&old.binding, &new.binding);
    let differs = [
        ("module", a.module != b.module),
        ("digest", a.module == b.module && old.digest != new.digest),
        ("pattern", a.pattern != b.pattern),
        ("stage", a.stage != b.stage),
        ("order", a.order != b.order),
        ("config", a.config != b.config),
        ("limits", a.limits != b.limits),
        ("on_fault", a.on_fault != b.on_fault),
        ("grant", a.grant != b.grant),
        ("policy", a.policy != b.policy),
        ("per_subscriber", a.per_subscriber != b.per_subscriber),
    ];
    differs.into_iter().filter(|(_, differs)| *differs).map(|(field, _)| field).collect()
}
