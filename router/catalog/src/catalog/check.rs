//! Whether a record may be the next one. Nothing here changes anything.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Catalog, Generation};
use crate::binding::Binding;
use crate::error::CatalogError;
use crate::governance::Governed;
use crate::limits::{MODULES_MAX, REASON_LEN_MAX_BYTES, RECORD_LEN_MAX_BYTES, RECORDS_MAX};
use crate::module::Module;
use crate::names::{ModuleRef, Name};
use crate::op::Op;
use crate::plan::Plan;
use crate::policy::Policy;
use crate::record::Record;
use crate::set::StagedBinding;
use crate::tenant;
use crate::topic::TopicRule;

/// What a change of the sites waits for.
const SITES_MEND: &str = "its sites were chosen when it began: wait for its end, or abort it, then try again";
/// What an immediate activation waits for.
const ACTIVATION_MEND: &str = "abort it and wait until it is rolled back, then try again";

impl Catalog {
    pub(super) fn check(&self, record: &Record) -> Result<(), CatalogError> {
        record.validate()?;
        self.keys.check_record(record)?;
        self.check_change(record)
    }

    /// Whether a change may be made now: what a log may have already, and new records must not, is refused.
    pub(super) fn check_drafted(&self, op: &Op) -> Result<(), CatalogError> {
        match op {
            Op::SchemaRegistered { registration } => self.schemas.check_registration(registration),
            Op::TrustChanged { change } => Ok(self.trust.check_different(change)?),
            _ => Ok(()),
        }
    }

    /// All but the signature.
    pub(super) fn check_change(&self, record: &Record) -> Result<(), CatalogError> {
        if self.head().rev >= RECORDS_MAX {
            let mend = "start a new catalog from an export of this one";
            return Err(CatalogError::Full { what: "records", max: RECORDS_MAX, mend });
        }
        record.validate()?;
        self.check_not_held(&record.op)?;
        match &record.op {
            Op::ModuleAdded { module } => self.check_module_added(module, record.at_unix_ms),
            Op::ModuleSigned { module, signature } => self.check_resigned(module, signature, record.at_unix_ms),
            Op::ModuleRemoved { module } => self.check_module_removed(module),
            Op::BindingStaged { binding } => self.check_staged(binding),
            Op::BindingRemoved { name } => there(self.staged.find(name), || {
                not_found("binding", name, "`myelin rollout status` lists those that are staged")
            }),
            Op::Activated { bindings } => self.check_activated(bindings),
            Op::RolledBack { to } => self.check_rolled_back(*to),
            Op::Quarantined { module, binding, reason } => self.check_quarantined(module, binding, reason),
            Op::Released { module } => there(self.quarantine(module), || {
                not_found("quarantined module", module, "`myelin filter ls` shows which are")
            }),
            Op::KeyTrusted { key_id, public_key, note } => self.keys.check_trusted(key_id, public_key, note),
            Op::KeyRevoked { key_id } => self.keys.check_revoked(key_id),
            Op::TrustChanged { change } => Ok(self.trust.check(change)?),
            Op::SiteAdded { name, .. } => {
                self.check_no_rollout(SITES_MEND)?;
                self.fleet.check_site_added(name)
            }
            // It keeps its number, and a rollout its sites.
            Op::SiteMoved { name, .. } => self.fleet.find_site(name).map(|_| ()),
            Op::SiteRemoved { name } => {
                self.check_no_rollout(SITES_MEND)?;
                self.fleet.check_site_removed(name)
            }
            Op::RouterAdded { site, name } => self.fleet.check_router_added(site, name),
            Op::RouterRemoved { site, name } => self.fleet.check_router_removed(site, name),
            Op::TopicRuleSet { rule } => self.check_topic_rule(rule),
            Op::TopicRuleRemoved { name } => {
                there(self.topics.get(name), || not_found("topic rule", name, "list them with `myelin topic ls`"))
            }
            Op::SchemaRegistered { registration } => self.schemas.check_registered(registration),
            Op::SchemaVersionDeleted { subject, version, permanent } => {
                Ok(self.schemas.check_version_deleted(subject, *version, *permanent)?)
            }
            Op::SubjectDeleted { subject, permanent } => Ok(self.schemas.check_subject_deleted(subject, *permanent)?),
            Op::CompatibilitySet { subject, level } => self.schemas.check_compatibility_set(subject.as_ref(), *level),
            Op::RegistryModeSet { subject, mode } => self.schemas.check_mode_set(subject.as_ref(), *mode),
            Op::PolicySet { policy } => self.check_policy(policy),
            Op::PolicyRemoved { name } => {
                there(self.policies.get(name), || not_found("policy", name, "list them with `myelin policy ls`"))
            }
            Op::TenantSet { tenant } => tenant::check_among(tenant, &self.tenants),
            Op::TenantRemoved { name } => {
                there(self.tenants.get(name), || not_found("tenant", name, "list them with `myelin tenant ls`"))
            }
            Op::ApprovalRequested { intent, note } => self.check_approval(intent, note, record),
            Op::ApprovalWithdrawn { id } => self.check_withdrawal(*id),
            Op::RolloutStarted { .. }
            | Op::RolloutAdvanced { .. }
            | Op::RolloutPaused { .. }
            | Op::RolloutResumed { .. }
            | Op::RolloutPromoted { .. }
            | Op::RolloutAborted { .. }
            | Op::RolloutFinished { .. } => self.check_rollout(&record.op),
        }?;
        self.check_len(record)
    }

    /// The bounds of the parts keep a record far below this; it is checked so that what is written can be read.
    fn check_len(&self, record: &Record) -> Result<(), CatalogError> {
        let len = record.encode().len();
        if len > RECORD_LEN_MAX_BYTES {
            let why = format!("it has {len} bytes; {RECORD_LEN_MAX_BYTES} are the most: make the change smaller");
            return Err(CatalogError::InvalidRecord { field: "op", why });
        }
        Ok(())
    }

    fn check_topic_rule(&self, rule: &TopicRule) -> Result<(), CatalogError> {
        rule.validate()?;
        rule.check_settled()?;
        self.check_room_for(Governed::TopicRule(&rule.name))
    }

    fn check_policy(&self, policy: &Policy) -> Result<(), CatalogError> {
        policy.validate()?;
        self.check_room_for(Governed::Policy(&policy.name))
    }

    fn check_module_added(&self, module: &Module, at_unix_ms: u64) -> Result<(), CatalogError> {
        module.validate()?;
        let name = module.module_ref();
        if let Some(there) = self.module(&name) {
            let which = if there.digest == module.digest { "with the same bytes" } else { "with other bytes" };
            return conflict(format!(
                "module {name} is there already {which}; versions never change: raise the version"
            ));
        }
        if self.modules.len() >= MODULES_MAX {
            let mend = "remove versions that no binding uses";
            return Err(CatalogError::Full { what: "versions of modules", max: MODULES_MAX as u64, mend });
        }
        match &module.signature {
            Some(signature) => Ok(self.check_signed(module, signature, at_unix_ms)?),
            None => Ok(()),
        }
    }

    fn check_module_removed(&self, module: &ModuleRef) -> Result<(), CatalogError> {
        self.find_module(module)?;
        let everywhere = [("active", &self.active().bindings), ("staged", &self.staged)];
        let at_sites = self.sites.values().map(|generation| ("active", &generation.bindings));
        let rolled_out = self.rollout().map(|rollout| ("candidate", &rollout.candidate));
        for (which, set) in everywhere.into_iter().chain(at_sites).chain(rolled_out) {
            if let Some(user) = set.iter().find(|staged| staged.binding.module == *module) {
                let binding = &user.binding.name;
                return conflict(format!(
                    "module {module} is used by the {which} binding {binding}; remove or change the binding and \
                     activate that first"
                ));
            }
        }
        Ok(())
    }

    fn check_staged(&self, binding: &Binding) -> Result<(), CatalogError> {
        binding.validate()?;
        self.find_module(&binding.module)?;
        self.check_bindings_quota(binding)?;
        self.staged.check_insert(binding)
    }

    /// A binding for a tenant's topics is one of those that the tenant may have.
    fn check_bindings_quota(&self, binding: &Binding) -> Result<(), CatalogError> {
        let owner = self.tenants().find(|tenant| tenant.topics().implies(&binding.pattern));
        let Some((tenant, max)) = owner.and_then(|tenant| Some((tenant, tenant.quota.bindings?))) else {
            return Ok(());
        };
        let topics = tenant.topics();
        // One that is there already takes no further place, unless it had topics of others until now.
        let counts = |staged: &Arc<StagedBinding>| topics.implies(&staged.binding.pattern);
        if self.staged.find(&binding.name).is_some_and(counts) {
            return Ok(());
        }
        let has = self.bindings_of(tenant) as u64 + 1;
        if has > max {
            let (tenant, what, field) = (tenant.name.to_string(), "bindings for its topics", "quota.bindings");
            return Err(CatalogError::TenantQuota { tenant, what, has, max, field });
        }
        Ok(())
    }

    fn check_activated(&self, bindings: &BTreeMap<Name, u64>) -> Result<(), CatalogError> {
        self.check_no_rollout(ACTIVATION_MEND)?;
        self.check_activation(bindings)
    }

    /// Whether the staged set is the one that was meant, is another than the active one, and can run.
    pub(super) fn check_activation(&self, bindings: &BTreeMap<Name, u64>) -> Result<(), CatalogError> {
        if *bindings != self.staged.revisions() {
            return conflict("the staged set has changed meanwhile; look at it and activate again");
        }
        let plan = self.staged_plan();
        if plan.is_empty() {
            return conflict(format!(
                "nothing is staged that is not active in generation {}; stage a change first",
                self.generation()
            ));
        }
        self.check_keys_kept(&plan, &self.staged)?;
        for staged in plan.built().filter_map(|name| self.staged.find(name)) {
            let (binding, module) = (&staged.binding.name, &staged.binding.module);
            if self.quarantine(module).is_some() {
                return conflict(format!(
                    "binding {binding} needs module {module}, which is quarantined; use another version or release it"
                ));
            }
        }
        Ok(())
    }

    fn check_rolled_back(&self, to: u64) -> Result<(), CatalogError> {
        self.check_no_rollout(ACTIVATION_MEND)?;
        let target = self
            .find_generation(to)
            .ok_or_else(|| not_found("generation", to, "`myelin rollout history` lists those that are kept"))?;
        let plan = Plan::between(&self.active().bindings, &target.bindings);
        if plan.is_empty() {
            return conflict(format!(
                "generation {} has the same bindings as generation {to}; name an earlier one",
                self.generation()
            ));
        }
        self.check_keys_kept(&plan, &target.bindings)?;
        self.check_modules_kept(target)
    }

    /// Whether a rollback could make that generation's set active, once no rollout is under way.
    pub fn can_return_to(&self, generation: &Generation) -> bool {
        let plan = Plan::between(&self.active().bindings, &generation.bindings);
        !plan.is_empty()
            && self.check_keys_kept(&plan, &generation.bindings).is_ok()
            && self.check_modules_kept(generation).is_ok()
    }

    /// A generation holds digests: a version that was removed and uploaded again with other bytes is another module.
    fn check_modules_kept(&self, target: &Generation) -> Result<(), CatalogError> {
        for staged in target.bindings.iter() {
            let module = &staged.binding.module;
            if self.module(module).is_none_or(|there| there.digest != staged.digest) {
                return conflict(format!(
                    "generation {} needs module {module} with digest {}, which was removed; upload it again, or name \
                     another generation",
                    target.number,
                    staged.digest.short()
                ));
            }
        }
        Ok(())
    }

    fn check_quarantined(&self, module: &ModuleRef, binding: &Name, reason: &str) -> Result<(), CatalogError> {
        self.find_module(module)?;
        if reason.len() > REASON_LEN_MAX_BYTES {
            let why = format!("it has {} bytes; {REASON_LEN_MAX_BYTES} are the most", reason.len());
            return Err(CatalogError::InvalidRecord { field: "reason", why });
        }
        let mut active = [self.active()].into_iter().chain(self.sites.values());
        let uses = |generation: &Generation| {
            generation.bindings.find(binding).is_some_and(|staged| staged.binding.module == *module)
        };
        match active.any(|generation| uses(generation)) {
            true => {}
            false => return conflict(format!("binding {binding} is not active with module {module}; nothing to stop")),
        }
        match self.quarantine(module) {
            Some(_) => conflict(format!("module {module} is quarantined already")),
            None => Ok(()),
        }
    }

    fn find_module(&self, module: &ModuleRef) -> Result<(), CatalogError> {
        match self.module(module) {
            Some(_) => Ok(()),
            None => Err(not_found("module", module, "upload it first, or name one that is there")),
        }
    }
}

pub(super) fn conflict<T>(why: impl Into<String>) -> Result<T, CatalogError> {
    Err(CatalogError::Conflict(why.into()))
}

/// Whether that was found.
fn there<T>(found: Option<T>, missing: impl FnOnce() -> CatalogError) -> Result<(), CatalogError> {
    found.map(drop).ok_or_else(missing)
}

pub(super) fn not_found(what: &'static str, name: impl ToString, mend: &'static str) -> CatalogError {
    CatalogError::NotFound { what, name: name.to_string(), mend }
}
