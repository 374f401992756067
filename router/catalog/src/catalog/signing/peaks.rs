//! What is remembered of the modules that ran: their highest versions, and what the host did for them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::catalog::Generation;
use crate::limits::PEAKS_MAX;
use crate::module::Module;
use crate::names::{ModuleRef, Name, Version};

/// The highest version of a module that ran.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Peak {
    version: Version,
    /// The generation that had it first.
    generation: u64,
}

/// What ran of a module, whatever the binding.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Past {
    peak: Peak,
    /// The newest generation in which something new of it ran.
    generation: u64,
    /// What the host did for any of its versions; none where no router looked.
    capabilities: Option<BTreeSet<String>>,
}

/// What downgrades and new capabilities are measured by, bindings and modules included that are gone. It follows from the
/// log and refuses no record of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::catalog) struct Peaks {
    /// By binding and name of the module.
    bindings: BTreeMap<(Name, Name), Peak>,
    /// By name of the module: a new name for a binding makes nobody forget what ran.
    modules: BTreeMap<Name, Past>,
}

impl Peaks {
    /// The highest version of the module that this binding had.
    pub(super) fn of_binding(&self, binding: &Name, module: &Name) -> Option<&Version> {
        self.bindings.get(&(binding.clone(), module.clone())).map(|peak| &peak.version)
    }

    /// The highest version of the module that any binding had.
    pub(super) fn of_module(&self, module: &Name) -> Option<&Version> {
        self.modules.get(module).map(|past| &past.peak.version)
    }

    /// What the host did for any version of the module that ran; none where that is not known.
    pub(super) fn capabilities_of(&self, module: &Name) -> Option<&BTreeSet<String>> {
        self.modules.get(module).and_then(|past| past.capabilities.as_ref())
    }

    /// Remembers what runs, now that a generation is active.
    pub(super) fn raise(&mut self, generation: &Generation, modules: &BTreeMap<ModuleRef, Arc<Module>>) {
        for staged in generation.bindings.iter() {
            let module = &staged.binding.module;
            let peak = Peak { version: module.version.clone(), generation: generation.number };
            let at = (staged.binding.name.clone(), module.name.clone());
            if self.bindings.get(&at).is_none_or(|known| known.version < peak.version) {
                self.bindings.insert(at, peak.clone());
            }
            let capabilities = modules.get(module).and_then(|module| module.capabilities.as_deref());
            match self.modules.get_mut(&module.name) {
                Some(past) => past.add(peak, capabilities),
                None => {
                    let capabilities = capabilities.map(|known| known.iter().cloned().collect());
                    let past = Past { generation: peak.generation, peak, capabilities };
                    self.modules.insert(module.name.clone(), past);
                }
            }
        }
        let has = |binding: &Name, module: &Name| {
            generation.bindings.find(binding).is_some_and(|staged| staged.binding.module.name == *module)
        };
        forget(&mut self.bindings, |(binding, module)| has(binding, module), |peak| peak.generation);
        let runs = |module: &Name| generation.bindings.iter().any(|staged| staged.binding.module.name == *module);
        forget(&mut self.modules, runs, |past| past.generation);
    }
}

impl Past {
    fn add(&mut self, peak: Peak, capabilities: Option<&[String]>) {
        let generation = peak.generation;
        if self.peak.version < peak.version {
            self.peak = peak;
            self.generation = generation;
        }
        if let Some(new) = capabilities {
            let known = self.capabilities.get_or_insert_default();
            let count = known.len();
            known.extend(new.iter().cloned());
            if known.len() > count {
                self.generation = generation;
            }
        }
    }
}

/// Lets the oldest go, of what is not used any more, until no more than [`PEAKS_MAX`] are there.
fn forget<K: Ord + Clone, V>(known: &mut BTreeMap<K, V>, is_used: impl Fn(&K) -> bool, since: impl Fn(&V) -> u64) {
    while known.len() > PEAKS_MAX {
        let gone = known.iter().filter(|(at, _)| !is_used(at));
        let Some(oldest) = gone.min_by_key(|(_, what)| since(what)).map(|(at, _)| at.clone()) else { break };
        known.remove(&oldest);
    }
}
