//! Changes as they are asked for, and the records that they become.

use super::handed_in::check_way_to;
use super::keeper::Keeper;
use super::{Actor, Blame, WorldError, unix_ms};
use crate::policy::named::{self, check_change};
use bytes::Bytes;
use myelin_catalog::{
    Binding, CatalogError, Digest, Generation, MinisignSignature, Module, ModuleRef, Name, Op, Policy, RolloutPlan,
    TrustRefusal, Version,
};
use std::sync::Arc;

/// A change that somebody asks for.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the fields are what the operations of `World` name")]
pub enum Change {
    /// Take a module into the catalog.
    AddModule { name: Name, version: Version, bytes: Bytes, signature: Option<MinisignSignature> },
    /// Remove a module that nothing uses; with `force` also one that the next rollback would use.
    RemoveModule { module: ModuleRef, force: bool },
    /// Put a binding into the staged set.
    Stage { binding: Box<Binding> },
    /// Take a binding out of the staged set.
    Unstage { name: Name },
    /// Make the staged set active: where there are sites, by a rollout with this plan.
    Activate { plan: RolloutPlan },
    /// Start a rollout over the sites.
    Start { plan: Box<RolloutPlan> },
    /// Start a rollout of the plan's rules and policies alone: what is staged stays staged.
    Govern { plan: Box<RolloutPlan> },
    /// Begin what somebody other than the actor has asked for.
    Approve { id: u64 },
    /// Make an earlier set active.
    RollBack { to: Option<u64> },
    /// Lift a quarantine.
    Release { module: ModuleRef },
    /// A change that needs no more than its record, such as a step of a rollout by hand or a new site.
    Record(Box<Op>),
}

/// What a change comes to.
pub(super) enum Decided {
    /// This record is to be written, in the name of whoever wants it.
    Write(Op, Actor),
    /// All is as it is wanted.
    Done,
}

/// Whether the catalog is where whoever wants a change has seen it.
///
/// # Errors
/// `conflict`.
pub(super) fn check_revision(revision: u64, if_match: Option<u64>) -> Result<(), WorldError> {
    match if_match {
        Some(wanted) if wanted != revision => {
            let message = format!(
                "the catalog is at revision {revision}, not {wanted}: look at what has changed, then try again"
            );
            Err(WorldError::new(Blame::Conflict, "conflict", message))
        }
        _ => Ok(()),
    }
}

impl Keeper {
    /// The record that makes a change, found right as far as this router can tell.
    ///
    /// # Errors
    /// Why the change cannot be made.
    pub(super) fn decide(
        &mut self,
        change: Change,
        if_match: Option<u64>,
        actor: &Actor,
    ) -> Result<Decided, WorldError> {
        check_revision(self.catalog().head().rev, if_match)?;
        let (change, actor) = match change {
            Change::Approve { id } => self.approved(id, actor)?,
            change => (change, actor.clone()),
        };
        let closes_the_way_back = matches!(change, Change::RemoveModule { force: true, .. });
        let op = match change {
            Change::AddModule { name, version, bytes, signature } => {
                match self.take_module(ModuleRef { name, version }, &bytes, signature)? {
                    Some(op) => op,
                    None => return Ok(Decided::Done),
                }
            }
            Change::RemoveModule { module, .. } => Op::ModuleRemoved { module },
            Change::Stage { binding } if self.is_staged(&binding) => return Ok(Decided::Done),
            Change::Stage { binding } => Op::BindingStaged { binding },
            Change::Unstage { name } => Op::BindingRemoved { name },
            Change::Activate { .. } if self.catalog().fleet().sites().len() == 0 => self.catalog().activation(),
            Change::Activate { plan } => self.catalog().rollout_start(plan),
            Change::Start { plan } => self.catalog().rollout_start(*plan),
            Change::Govern { plan } => self.catalog().governance_start(*plan),
            Change::RollBack { to } => {
                let to = self.find_earlier(to)?;
                if self.two_person {
                    check_way_to(self.catalog(), to)?;
                }
                Op::RolledBack { to }
            }
            Change::Release { module } => Op::Released { module },
            Change::Record(op) => *op,
            // What is approved is another change.
            Change::Approve { .. } => {
                return Err(WorldError::new(Blame::Router, "internal", "an approval does not begin an approval"));
            }
        };
        self.vet(&op, &actor)?;
        if let (Op::ModuleRemoved { module }, false) = (&op, closes_the_way_back) {
            self.check_way_back(module)?;
        }
        myelin_failpoint::reach("change-decided");
        Ok(Decided::Write(op, actor))
    }

    /// Whether that very binding is staged already, with the bytes that its module has now.
    fn is_staged(&self, binding: &Binding) -> bool {
        let catalog = self.catalog();
        let staged = catalog.staged().find(&binding.name).filter(|staged| staged.binding == *binding);
        staged.is_some_and(|staged| catalog.module(&binding.module).is_some_and(|is| is.digest == staged.digest))
    }

    /// A rollback is one swap: a module of the set that it would return to goes only with `force`. This is no rule of the
    /// catalog, where logs are that have it otherwise.
    fn check_way_back(&self, module: &ModuleRef) -> Result<(), WorldError> {
        let catalog = self.catalog();
        let target = catalog.rollback_target().filter(|target| catalog.can_return_to(target));
        let uses = |target: &&Arc<Generation>| target.bindings.iter().any(|staged| staged.binding.module == *module);
        match target.filter(uses) {
            None => Ok(()),
            Some(target) => {
                let number = target.number;
                let message = format!(
                    "module {module} is of generation {number}, which a rollback returns to; activate something else \
                     first, or remove it with `--force` (`?force=true`), and that way back with it"
                );
                Err(WorldError::new(Blame::Conflict, "conflict", message))
            }
        }
    }

    /// Checks, compiles, tests and keeps the bytes of a module; none where the catalog has it, and with that signature.
    fn take_module(
        &mut self,
        module_ref: ModuleRef,
        bytes: &[u8],
        signature: Option<MinisignSignature>,
    ) -> Result<Option<Op>, WorldError> {
        let digest = Digest::of(bytes);
        if let Some(signature) = &signature {
            self.check_signed(&module_ref, bytes, signature)?;
        }
        match self.catalog().module(&module_ref) {
            Some(known) if known.digest == digest => {
                let signature = signature.filter(|signature| known.signature.as_ref() != Some(signature));
                return Ok(signature.map(|signature| Op::ModuleSigned { module: module_ref, signature }));
            }
            Some(_) => {
                let message =
                    format!("{module_ref} exists with other bytes; a version never changes: upload a new version");
                return Err(WorldError::new(Blame::Conflict, "conflict", message));
            }
            None if signature.is_none() && self.demands.signatures => {
                return Err(CatalogError::from(TrustRefusal::Missing { module: module_ref.to_string() }).into());
            }
            None => {}
        }
        let facts = self.deployment.forge.inspect(bytes)?;
        let program = self.deployment.forge.program(digest, || Ok(bytes.to_vec()))?;
        self.deployment.forge.test(&program, &facts)?;
        let world = match facts.world {
            myelin_engine::World::Fast => myelin_catalog::World::Fast,
            myelin_engine::World::Easy => myelin_catalog::World::Easy,
        };
        let (size_bytes, imports, uploaded_unix_ms) = (bytes.len() as u64, facts.imports, unix_ms());
        let (ModuleRef { name, version }, capabilities) = (module_ref, Some(facts.capabilities));
        let module =
            Module { name, version, digest, size_bytes, uploaded_unix_ms, imports, world, capabilities, signature };
        // All that its signature says, before its bytes are kept.
        if module.signature.is_some() {
            self.catalog().check_signature(&module, unix_ms()).map_err(CatalogError::from)?;
        }
        myelin_failpoint::reach("module-tested");
        self.log.shelf().put(&digest, bytes)?;
        myelin_failpoint::reach("module-put");
        Ok(Some(Op::ModuleAdded { module }))
    }

    /// Whether a trusted key has signed these very bytes. What else the signature says is checked with the record.
    fn check_signed(&self, module: &ModuleRef, bytes: &[u8], signature: &MinisignSignature) -> Result<(), WorldError> {
        let what = format!("module {module}");
        let key = self.catalog().trust().signer(&what, &module.name, signature).map_err(CatalogError::from)?;
        if key.has_signed(bytes, signature) {
            return Ok(());
        }
        let why = "the key that it names has not signed these bytes";
        Err(CatalogError::from(TrustRefusal::InvalidSignature { what, why }).into())
    }

    /// The generation that a rollback returns to.
    fn find_earlier(&self, to: Option<u64>) -> Result<u64, WorldError> {
        let target = match to {
            Some(number) => self.catalog().find_generation_shown_as(number),
            None => self.catalog().rollback_target(),
        };
        target.map(|generation| generation.number).ok_or_else(|| {
            let message = "there is no such earlier generation; `myelin rollout history` lists those that are kept";
            WorldError::new(Blame::NotFound, "not-found", message)
        })
    }

    /// Tries a change out before its record is written: what the catalog, a filter or a worker would refuse later is
    /// refused now.
    ///
    /// # Errors
    /// What is wrong.
    pub(super) fn vet(&mut self, op: &Op, actor: &str) -> Result<(), WorldError> {
        let after = self.catalog().preview(op.clone(), actor, unix_ms())?;
        self.check_demands(op)?;
        let is_there = |policy: &Policy| self.catalog().policy(&policy.name) == Some(policy);
        check_change(op, is_there).map_err(|why| WorldError::new(Blame::Request, named::CODE, why))?;
        match op {
            Op::ModuleAdded { module } if self.is_writer() => self.check_module(module),
            Op::PolicySet { .. } | Op::PolicyRemoved { .. } => {
                // They may meet those that a rollout brings.
                self.policing.check(&after.governance_ahead())?;
                self.policing.check(&after.governance_at(None))
            }
            Op::RolloutStarted { plan, .. } if !plan.changes.is_empty() => {
                self.policing.check(&after.governance_ahead())
            }
            Op::KeyRevoked { key_id } => self.check_other_key(key_id),
            Op::BindingStaged { binding } => match after.staged().find(&binding.name).cloned() {
                Some(staged) => self.deployment.try_out(&staged),
                None => Ok(()),
            },
            Op::Activated { .. } | Op::RolledBack { .. } => {
                let set = super::view::active_at(&after, self.site()).bindings.clone();
                if self.deployment.is_warm(&set) {
                    return Ok(());
                }
                self.deployment.prepare(&set, |_| {})
            }
            _ => Ok(()),
        }
    }

    /// A router does not revoke the key that it signs with: it could not sign the next record.
    fn check_other_key(&self, key_id: &Name) -> Result<(), WorldError> {
        match self.log.key() {
            Some(key) if key.id() == key_id => {
                let message = format!("this router signs with key `{key_id}`; ask another router to revoke it");
                Err(WorldError::new(Blame::Conflict, "conflict", message))
            }
            _ => Ok(()),
        }
    }

    /// Whether what a change brings is signed and approved as this router's configuration demands.
    fn check_demands(&self, op: &Op) -> Result<(), WorldError> {
        let (catalog, demands) = (self.catalog(), self.demands);
        match op {
            Op::ModuleAdded { module } if demands.signatures => {
                catalog.check_signature(module, unix_ms()).map_err(CatalogError::from)?;
            }
            Op::BindingStaged { binding } => catalog.check_demands_of(binding, demands, unix_ms())?,
            Op::Activated { .. } | Op::RolloutStarted { .. } => {
                catalog.check_demands(catalog.staged(), demands, unix_ms())?;
            }
            // Nobody shall be asked to approve what is refused then.
            Op::ApprovalRequested { intent, .. } if intent.bindings().is_some() => {
                catalog.check_demands(catalog.staged(), demands, unix_ms())?;
            }
            // A rollback is explicit, and a way out: it asks for no more than that what it runs was ever signed.
            Op::RolledBack { to } => {
                if let Some(target) = catalog.find_generation(*to) {
                    catalog.check_all_signed(&target.bindings, demands)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// What a module's record says of its bytes must be so: another router may have asked for it.
    fn check_module(&mut self, module: &Module) -> Result<(), WorldError> {
        let bytes = self.log.shelf().blob(&module.digest)?;
        let facts = self.deployment.forge.inspect(&bytes)?;
        let may = module.capabilities.as_ref().is_none_or(|capabilities| *capabilities == facts.capabilities);
        if facts.imports != module.imports || !may || bytes.len() as u64 != module.size_bytes {
            let message =
                format!("module {}@{} is not what its record says; upload it again", module.name, module.version);
            return Err(WorldError::new(Blame::Request, "invalid-module", message));
        }
        if let Some(signature) = &module.signature {
            self.check_signed(&module.module_ref(), &bytes, signature)?;
        }
        let program = self.deployment.forge.program(module.digest, || Ok(bytes))?;
        self.deployment.forge.test(&program, &facts)
    }
}
