//! Which modules the catalog takes and lets become active, by their signatures, capabilities and versions.
//!
//! A signature that is there is checked as part of the log, by every router alike. What a router demands beyond that -
//! that there be one, that new capabilities are approved, that no lower version follows a higher one - is its
//! configuration's, and so no part of whether a record belongs to the log: [`Catalog::check_demands`] is asked before a
//! record is drafted, and by every router before it prepares what others have written.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Catalog, Generation};
use crate::binding::Binding;
use crate::error::CatalogError;
use crate::minisign::MinisignSignature;
use crate::module::Module;
use crate::names::{ModuleRef, Name};
use crate::plan::Plan;
use crate::set::BindingSet;
use crate::statement::{ModuleStatement, RollbackStatement};
use crate::trust::TrustRefusal;

mod peaks;
#[cfg(test)]
mod tests;

pub(super) use peaks::Peaks;

/// What a router demands of modules, beyond what the log does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Demands {
    /// That they are signed, and that a lower version follows a higher one only where that is signed.
    pub signatures: bool,
    /// That what a new version can do beyond the running one is approved.
    pub approvals: bool,
}

/// How the signature of a module stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignatureState {
    /// There is none.
    Unsigned,
    /// By a key that is trusted.
    Valid,
    /// By a key that is trusted, and its time is over.
    Expired,
    /// By a key that was removed since.
    KeyRemoved,
}

impl SignatureState {
    /// As the API spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unsigned => "unsigned",
            Self::Valid => "valid",
            Self::Expired => "expired",
            Self::KeyRemoved => "key-removed",
        }
    }
}

impl Catalog {
    /// Whether a module has a signature that holds now: for a catalog of now, and a clock of now.
    ///
    /// # Errors
    /// `signature-missing`, `-untrusted`, `-invalid`, `-mismatch` or `-expired`.
    pub fn check_signature(&self, module: &Module, now_unix_ms: u64) -> Result<(), TrustRefusal> {
        match &module.signature {
            Some(signature) => self.check_signed(module, signature, now_unix_ms),
            None => Err(TrustRefusal::Missing { module: module.module_ref().to_string() }),
        }
    }

    /// How a module's signature stands.
    pub fn signature_state(&self, module: &Module, now_unix_ms: u64) -> SignatureState {
        match self.check_signature(module, now_unix_ms) {
            Ok(()) => SignatureState::Valid,
            Err(TrustRefusal::Missing { .. }) => SignatureState::Unsigned,
            Err(TrustRefusal::Expired { .. }) => SignatureState::Expired,
            // It was right when it was taken.
            Err(_) => SignatureState::KeyRemoved,
        }
    }

    /// Whether `signature` is one of this module, as far as its record goes: of the digest, not of the bytes.
    pub(super) fn check_signed(
        &self,
        module: &Module,
        signature: &MinisignSignature,
        now_unix_ms: u64,
    ) -> Result<(), TrustRefusal> {
        let name = module.module_ref().to_string();
        let key = self.trust.signer(&format!("module {name}"), &module.name, signature)?;
        if !key.has_signed_comment(signature) {
            let why = "its trusted comment is not what the key has signed";
            return Err(TrustRefusal::InvalidSignature { what: format!("module {name}"), why });
        }
        let mismatch = |why: String| TrustRefusal::Mismatch { module: name.clone(), why };
        let statement: ModuleStatement = signature.comment().parse().map_err(mismatch)?;
        if statement.module != module.module_ref() {
            return Err(mismatch(format!("it names {}", statement.module)));
        }
        if statement.digest != module.digest {
            return Err(mismatch(format!("its bytes have digest {}", statement.digest.short())));
        }
        match statement.expires_unix_s {
            Some(expires_unix_s) if now_unix_ms / 1000 >= expires_unix_s => {
                Err(TrustRefusal::Expired { module: name, expires_unix_s })
            }
            _ => Ok(()),
        }
    }

    pub(super) fn check_resigned(
        &self,
        module: &ModuleRef,
        signature: &MinisignSignature,
        at_unix_ms: u64,
    ) -> Result<(), CatalogError> {
        let there = self
            .module(module)
            .ok_or_else(|| super::check::not_found("module", module, "upload it first, or name one that is there"))?;
        if there.signature.as_ref() == Some(signature) {
            return super::check::conflict(format!("module {module} has this signature already"));
        }
        Ok(self.check_signed(there, signature, at_unix_ms)?)
    }

    /// Whether no module that a change would build anew is signed by a key that was removed since. Unsigned ones are the
    /// business of [`Catalog::check_demands`].
    pub(super) fn check_keys_kept(&self, plan: &Plan, set: &BindingSet) -> Result<(), CatalogError> {
        for staged in plan.built().filter_map(|name| set.find(name)) {
            let name = &staged.binding.module;
            let signature = self.module(name).and_then(|module| module.signature.as_ref());
            if let Some(signature) = signature {
                self.trust.signer(&format!("module {name}"), &name.name, signature)?;
            }
        }
        Ok(())
    }

    /// Whether the modules of a set may be built here; those that are active as they are may stay.
    ///
    /// # Errors
    /// `signature-missing`, `-untrusted` or `-expired`, `capability-approval`, `downgrade`.
    pub fn check_demands(&self, set: &BindingSet, demands: Demands, now_unix_ms: u64) -> Result<(), CatalogError> {
        self.check_all_signed(set, demands)?;
        let plan = Plan::between(&self.active().bindings, set);
        plan.built()
            .filter_map(|name| set.find(name))
            .try_for_each(|staged| self.check_demands_of(&staged.binding, demands, now_unix_ms))
    }

    /// Whether all modules of a set have a signature at all, where that is demanded. It was right when its record was
    /// taken; a key that was removed since stops nothing that runs.
    ///
    /// # Errors
    /// `signature-missing`.
    pub fn check_all_signed(&self, set: &BindingSet, demands: Demands) -> Result<(), CatalogError> {
        let unsigned = |name: &ModuleRef| self.module(name).is_none_or(|module| module.signature.is_none());
        match set.iter().map(|staged| &staged.binding.module).find(|name| unsigned(name)) {
            Some(module) if demands.signatures => Err(TrustRefusal::Missing { module: module.to_string() }.into()),
            _ => Ok(()),
        }
    }

    /// The same for one binding that is about to be staged.
    ///
    /// # Errors
    /// As [`Catalog::check_demands`].
    pub fn check_demands_of(&self, binding: &Binding, demands: Demands, now_unix_ms: u64) -> Result<(), CatalogError> {
        // Whether the module is there is for others to say.
        let Some(module) = self.module(&binding.module) else { return Ok(()) };
        if demands.signatures {
            self.check_signature(module, now_unix_ms)?;
            self.check_version(binding)?;
        }
        if demands.approvals {
            self.check_capabilities(binding, module)?;
        }
        Ok(())
    }

    /// What the host must do for a binding's module and not for the one that is active there now. Where none is, what ran
    /// of the module in any binding is what counts: a new name for a binding is no approval. None where one of the two
    /// was uploaded by a router that did not look, and for a module of which nothing ever ran.
    pub fn new_capabilities(&self, binding: &Name, module: &Module) -> BTreeSet<String> {
        let old: Option<BTreeSet<&String>> = match self.active().bindings.find(binding) {
            Some(active) => {
                let running = self.module(&active.binding.module).and_then(|running| running.capabilities.as_ref());
                running.map(|capabilities| capabilities.iter().collect())
            }
            None => self.peaks.capabilities_of(&module.name).map(|capabilities| capabilities.iter().collect()),
        };
        match (&module.capabilities, old) {
            (Some(new), Some(old)) => new.iter().filter(|capability| !old.contains(capability)).cloned().collect(),
            _ => BTreeSet::new(),
        }
    }

    fn check_capabilities(&self, binding: &Binding, module: &Module) -> Result<(), TrustRefusal> {
        let mut new = self.new_capabilities(&binding.name, module);
        new.retain(|capability| !binding.consent.capabilities.contains(capability));
        if new.is_empty() {
            return Ok(());
        }
        let running = self.active().bindings.find(&binding.name).map(|staged| staged.binding.module.to_string());
        Err(TrustRefusal::Capabilities {
            binding: binding.name.to_string(),
            module: binding.module.to_string(),
            running: running.unwrap_or_else(|| format!("whatever ran of {} before", module.name)),
            new: new.into_iter().collect::<Vec<_>>().join(","),
        })
    }

    /// Whether a binding gets no lower version than it had, or that is signed for. One that does not have the module now
    /// is measured by all bindings that ever had it: else an old version came back under another name.
    fn check_version(&self, binding: &Binding) -> Result<(), TrustRefusal> {
        let module = &binding.module;
        let active = self.active().bindings.find(&binding.name).map(|staged| &staged.binding.module);
        // What is active is no downgrade, whatever else of the binding changes: an explicit rollback brought it there.
        if active == Some(module) {
            return Ok(());
        }
        let highest = match active.is_some_and(|active| active.name == module.name) {
            true => self.peaks.of_binding(&binding.name, &module.name),
            false => self.peaks.of_module(&module.name),
        };
        let Some(highest) = highest.filter(|highest| **highest > module.version) else { return Ok(()) };
        let refuse = |why: String| TrustRefusal::Downgrade {
            binding: binding.name.to_string(),
            module: module.to_string(),
            highest: highest.to_string(),
            why,
        };
        let Some(signature) = &binding.consent.downgrade else {
            return Err(refuse("that needs a signed statement".to_owned()));
        };
        let what = format!("the downgrade to {module}");
        let key = self.trust.signer(&what, &module.name, signature)?;
        if !key.has_signed(signature.comment().as_bytes(), signature) {
            return Err(TrustRefusal::InvalidSignature { what, why: "the key has not signed this statement" });
        }
        let statement: RollbackStatement =
            signature.comment().parse().map_err(|why| refuse(format!("the signed statement is none: {why}")))?;
        if statement.module != *module || statement.binding != binding.name {
            let (named, at) = (&statement.module, &statement.binding);
            return Err(refuse(format!("the signed statement is for {named} in binding {at}")));
        }
        if !self.is_active_as(statement.generation) {
            let (given, now) = (statement.generation, self.active_numbers());
            return Err(refuse(format!("the signed statement is for generation {given}, and {now} is active")));
        }
        Ok(())
    }

    /// Whether the active set is shown under that number: that of the whole mesh, or the one that a site has for it, which
    /// is what `myelin rollout status` shows there.
    fn is_active_as(&self, number: u64) -> bool {
        let active = self.active();
        let is_it = |at_site: &Arc<Generation>| at_site.number == number && at_site.bindings == active.bindings;
        active.number == number || self.sites.values().any(is_it)
    }

    /// The numbers of the active set, for people: those that sites show first.
    fn active_numbers(&self) -> String {
        let active = self.active();
        let at_sites = self.sites.values().filter(|at_site| at_site.bindings == active.bindings);
        let mut numbers: BTreeSet<u64> = at_sites.map(|at_site| at_site.number).collect();
        if numbers.is_empty() {
            numbers.insert(active.number);
        }
        numbers.iter().map(u64::to_string).collect::<Vec<_>>().join(" or ")
    }

    /// Remembers what runs, now that a generation is active.
    pub(super) fn raise_peaks(&mut self, generation: &Generation) {
        self.peaks.raise(generation, &self.modules);
    }
}
