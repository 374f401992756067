//! What the records add up to.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use crate::binding::Binding;
use crate::digest::Digest;
use crate::error::{CatalogError, ChainFault};
use crate::fleet::Fleet;
use crate::keyring::KeyRing;
use crate::keys::SigningKey;
use crate::limits::HISTORY_MAX;
use crate::module::Module;
use crate::names::{ModuleRef, Name};
use crate::op::Op;
use crate::plan::Plan;
use crate::policy::Policy;
use crate::record::{Chain, Head, Record};
use crate::rollout::Rollout;
use crate::schemas::Schemas;
use crate::set::{BindingSet, StagedBinding};
use crate::tenant::Tenant;
use crate::topic::TopicRule;
use crate::trust::Trust;

mod approvals;
mod check;
mod governed;
mod rollouts;
mod signing;
#[cfg(test)]
mod tests;

pub use rollouts::Wanted;
pub use signing::{Demands, SignatureState};

/// The state after a record: modules, the staged set, the active generation and those before it.
#[derive(Clone, Debug, PartialEq)]
pub struct Catalog {
    chain: Chain,
    modules: BTreeMap<ModuleRef, Arc<Module>>,
    staged: BindingSet,
    /// Oldest first, never empty; the last is active.
    history: VecDeque<Arc<Generation>>,
    quarantined: BTreeMap<ModuleRef, Quarantine>,
    keys: KeyRing,
    trust: Trust,
    /// What a downgrade is measured by.
    peaks: signing::Peaks,
    fleet: Fleet,
    topics: BTreeMap<Name, TopicRule>,
    schemas: Schemas,
    policies: BTreeMap<Name, Arc<Policy>>,
    tenants: BTreeMap<Name, Arc<Tenant>>,
    /// What waits for a second person.
    approvals: approvals::Approvals,
    /// Oldest first; the last may be under way.
    rollouts: VecDeque<Arc<Rollout>>,
    /// What is active at a site, where a rollout changed it there after the whole mesh had the active generation.
    sites: BTreeMap<Name, Arc<Generation>>,
}

/// A set of bindings that is or was active.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Generation {
    /// The revision of the record that made it active; 0 for the empty set at the beginning.
    pub number: u64,
    /// The generation that had this set first; the number itself unless a rollback returned to the set.
    pub source: u64,
    /// When it became active, for people.
    pub at_unix_ms: u64,
    /// Who made it active.
    pub actor: String,
    /// The set.
    pub bindings: BindingSet,
    /// Other numbers that sites of the mesh know it by: a rollout makes it active there by records of its own.
    pub at_sites: Vec<u64>,
}

/// A module that failed too often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quarantine {
    /// The revision of the record that says so.
    pub rev: u64,
    /// The binding in which it failed.
    pub binding: Name,
    /// How it failed.
    pub reason: String,
    /// When, for people.
    pub at_unix_ms: u64,
}

impl Catalog {
    /// The catalog before its first record.
    pub fn new() -> Self {
        Self {
            chain: Chain::new(),
            modules: BTreeMap::new(),
            staged: BindingSet::default(),
            history: VecDeque::from([Arc::default()]),
            quarantined: BTreeMap::new(),
            keys: KeyRing::default(),
            trust: Trust::default(),
            peaks: signing::Peaks::default(),
            fleet: Fleet::default(),
            topics: BTreeMap::new(),
            schemas: Schemas::default(),
            policies: BTreeMap::new(),
            tenants: BTreeMap::new(),
            approvals: approvals::Approvals::default(),
            rollouts: VecDeque::new(),
            sites: BTreeMap::new(),
        }
    }

    /// The catalog after `records`, the whole log from its first record. A record that does not belong there is
    /// `chain-broken`.
    pub fn from_records<'a>(records: impl IntoIterator<Item = &'a Record>) -> Result<Self, CatalogError> {
        let mut catalog = Self::new();
        for record in records {
            catalog.replay(record)?;
        }
        Ok(catalog)
    }

    /// Takes the next record of a log that was written before. Other than in [`Catalog::apply`], a change that could
    /// not be made is no conflict but a sign that the log is not the one that was written: `chain-broken`. A signature
    /// that is not right keeps its own code.
    pub fn replay(&mut self, record: &Record) -> Result<(), CatalogError> {
        let rev = self.head().rev + 1;
        self.apply(record).map_err(|refused| match refused {
            CatalogError::ChainBroken { .. } | CatalogError::Signature { .. } => refused,
            _ => CatalogError::ChainBroken { rev, fault: ChainFault::Impossible(refused.to_string()) },
        })
    }

    /// The record that would make this change, if the change can be made. The catalog stays as it is until the
    /// record is kept and applied. It is not signed: where the catalog trusts keys that is refused.
    pub fn draft(&self, op: Op, actor: &str, at_unix_ms: u64) -> Result<Record, CatalogError> {
        let record = Record::after(&self.head(), op, actor, at_unix_ms);
        self.check_drafted(&record.op)?;
        self.check(&record)?;
        Ok(record)
    }

    /// The same, signed by `key`: for every change since the first key is trusted, and for that change itself.
    pub fn draft_signed(&self, op: Op, actor: &str, at_unix_ms: u64, key: &SigningKey) -> Result<Record, CatalogError> {
        let record = Record::after(&self.head(), op, actor, at_unix_ms).sign(key);
        self.check_drafted(&record.op)?;
        self.check(&record)?;
        Ok(record)
    }

    /// The catalog as it would be after a change, whoever signs its record: for a router that asks another one to write
    /// it. Its head is the present one.
    ///
    /// # Errors
    /// Why the change cannot be made.
    pub fn preview(&self, op: Op, actor: &str, at_unix_ms: u64) -> Result<Self, CatalogError> {
        let record = Record::after(&self.head(), op, actor, at_unix_ms);
        self.check_drafted(&record.op)?;
        self.check_change(&record)?;
        let mut after = self.clone();
        after.commit(&record);
        Ok(after)
    }

    /// Takes the next record, or leaves everything as it was.
    pub fn apply(&mut self, record: &Record) -> Result<(), CatalogError> {
        let mut chain = self.chain.clone();
        chain.accept(record)?;
        self.check(record)?;
        self.commit(record);
        self.chain = chain;
        Ok(())
    }

    /// The newest record's place and hash.
    pub fn head(&self) -> Head {
        self.chain.head()
    }

    /// All modules, by name and version.
    pub fn modules(&self) -> impl ExactSizeIterator<Item = &Arc<Module>> {
        self.modules.values()
    }

    /// The module of that name and version.
    pub fn module(&self, module: &ModuleRef) -> Option<&Arc<Module>> {
        self.modules.get(module)
    }

    /// Whether any module has these bytes.
    pub fn needs_blob(&self, digest: &Digest) -> bool {
        self.modules.values().any(|module| module.digest == *digest)
    }

    /// The set that the next activation makes active.
    pub fn staged(&self) -> &BindingSet {
        &self.staged
    }

    /// The active generation of the whole mesh: the newest that every site had. During a rollout, and after it, a site
    /// has its own; see [`Catalog::active_for`].
    pub fn active(&self) -> &Arc<Generation> {
        self.history.back().expect("a catalog begins with generation 0 and keeps the newest")
    }

    /// The number of the active generation: the revision of the newest record that changed the active set.
    pub fn generation(&self) -> u64 {
        self.active().number
    }

    /// The generations that are kept, oldest first; the last is active.
    pub fn history(&self) -> impl DoubleEndedIterator<Item = &Arc<Generation>> {
        self.history.iter()
    }

    /// The kept generation of that number.
    pub fn find_generation(&self, number: u64) -> Option<&Arc<Generation>> {
        self.history.iter().find(|generation| generation.number == number)
    }

    /// The kept generation that people mean by that number: its own, or the one that a site shows for it.
    pub fn find_generation_shown_as(&self, number: u64) -> Option<&Arc<Generation>> {
        let shown = |generation: &&Arc<Generation>| generation.at_sites.contains(&number);
        self.find_generation(number).or_else(|| self.history.iter().find(shown))
    }

    /// Where a rollback without a named generation returns to: the set before the active one. A second rollback goes
    /// one further back, not forward again.
    pub fn rollback_target(&self) -> Option<&Arc<Generation>> {
        let source = self.active().source;
        self.history.iter().rev().find(|generation| generation.number < source)
    }

    /// Whether to return to that generation's set is no way back from the active one, and why: it judged later than the
    /// active one did for the first time, or it was taken back when it judged last.
    pub fn goes_forward_to(&self, generation: &Generation) -> Option<&'static str> {
        if generation.source > self.active().source {
            return Some("is newer than the active one, which was returned to");
        }
        // A step back passes over all that came between, whether it judged at that moment or not.
        let mut was_taken_back = false;
        for (before, after) in self.history.iter().zip(self.history.iter().skip(1)) {
            if after.source == generation.source {
                was_taken_back = false;
            } else if (after.source + 1..=before.source).contains(&generation.source) {
                was_taken_back = true;
            }
        }
        was_taken_back.then_some("was rolled back when it judged last, or with a later one")
    }

    /// The modules that failed too often.
    pub fn quarantined(&self) -> impl Iterator<Item = (&ModuleRef, &Quarantine)> {
        self.quarantined.iter()
    }

    /// Why a module is quarantined, where it is.
    pub fn quarantine(&self, module: &ModuleRef) -> Option<&Quarantine> {
        self.quarantined.get(module)
    }

    /// The keys that may sign records, and those that might once.
    pub fn keys(&self) -> &KeyRing {
        &self.keys
    }

    /// Whom the mesh trusts to sign modules.
    pub fn trust(&self) -> &Trust {
        &self.trust
    }

    /// The sites and routers of the mesh.
    pub fn fleet(&self) -> &Fleet {
        &self.fleet
    }

    /// The rules for topics, by name.
    pub fn topic_rules(&self) -> impl ExactSizeIterator<Item = &TopicRule> {
        self.topics.values()
    }

    /// The rule for topics of that name.
    pub fn topic_rule(&self, name: &Name) -> Option<&TopicRule> {
        self.topics.get(name)
    }

    /// The schema registry.
    pub fn schemas(&self) -> &Schemas {
        &self.schemas
    }

    /// The policies, by name.
    pub fn policies(&self) -> impl ExactSizeIterator<Item = &Arc<Policy>> {
        self.policies.values()
    }

    /// The policy of that name.
    pub fn policy(&self, name: &Name) -> Option<&Policy> {
        self.policies.get(name).map(Arc::as_ref)
    }

    /// The tenants, by name.
    pub fn tenants(&self) -> impl ExactSizeIterator<Item = &Arc<Tenant>> {
        self.tenants.values()
    }

    /// The tenant of that name.
    pub fn tenant(&self, name: &Name) -> Option<&Tenant> {
        self.tenants.get(name).map(Arc::as_ref)
    }

    /// How many bindings are there for the topics of `tenant`: active ones at any site, staged ones, and those under way.
    pub fn bindings_of(&self, tenant: &Tenant) -> usize {
        let sets = [&self.active().bindings, &self.staged].into_iter();
        let sets = sets.chain(self.sites.values().map(|generation| &generation.bindings));
        let sets = sets.chain(self.rollout().map(|rollout| &rollout.candidate));
        let topics = tenant.topics();
        let own = sets.flat_map(BindingSet::iter).filter(|staged| topics.implies(&staged.binding.pattern));
        own.map(|staged| &staged.binding.name).collect::<BTreeSet<_>>().len()
    }

    /// The change that makes the staged set active.
    pub fn activation(&self) -> Op {
        Op::Activated { bindings: self.staged.revisions() }
    }

    /// What that change would do.
    pub fn staged_plan(&self) -> Plan {
        Plan::between(&self.active().bindings, &self.staged)
    }

    fn commit(&mut self, record: &Record) {
        self.settle_approvals(&record.op);
        match &record.op {
            Op::ModuleAdded { module } => {
                self.modules.insert(module.module_ref(), Arc::new(module.clone()));
            }
            Op::ModuleSigned { module, signature } => {
                if let Some(there) = self.modules.get_mut(module) {
                    Arc::make_mut(there).signature = Some(signature.clone());
                }
            }
            Op::ModuleRemoved { module } => {
                self.modules.remove(module);
                self.quarantined.remove(module);
            }
            Op::BindingStaged { binding } => self.stage(record.rev, binding),
            Op::BindingRemoved { name } => self.staged.remove(name),
            Op::Activated { .. } => self.activate_everywhere(record, record.rev, self.staged.clone()),
            Op::RolledBack { to } => self.roll_back(record, *to),
            Op::Quarantined { module, binding, reason } => {
                let (rev, at_unix_ms) = (record.rev, record.at_unix_ms);
                let quarantine = Quarantine { rev, binding: binding.clone(), reason: reason.clone(), at_unix_ms };
                self.quarantined.insert(module.clone(), quarantine);
            }
            Op::Released { module } => {
                self.quarantined.remove(module);
            }
            Op::KeyTrusted { key_id, public_key, note } => {
                self.keys.trust(key_id.clone(), *public_key, note.clone(), record.rev);
            }
            Op::KeyRevoked { key_id } => self.keys.revoke(key_id, record.rev),
            Op::TrustChanged { change } => {
                self.trust.commit(change, Head { rev: record.rev, hash: record.hash() });
            }
            Op::SiteAdded { name, region, cloud } => self.fleet.add_site(name, region, cloud, record.rev),
            Op::SiteMoved { name, region, cloud } => self.fleet.move_site(name, region, cloud),
            Op::SiteRemoved { name } => {
                self.fleet.remove_site(name);
                self.sites.remove(name);
            }
            Op::RouterAdded { site, name } => self.fleet.add_router(site, name, record.rev),
            Op::RouterRemoved { site, name } => self.fleet.remove_router(site, name),
            Op::TopicRuleSet { rule } => {
                self.topics.insert(rule.name.clone(), TopicRule::clone(rule));
            }
            Op::TopicRuleRemoved { name } => {
                self.topics.remove(name);
            }
            Op::SchemaRegistered { .. }
            | Op::SchemaVersionDeleted { .. }
            | Op::SubjectDeleted { .. }
            | Op::CompatibilitySet { .. }
            | Op::RegistryModeSet { .. } => self.commit_schemas(record),
            Op::PolicySet { policy } => {
                self.policies.insert(policy.name.clone(), Arc::new(Policy::clone(policy)));
            }
            Op::PolicyRemoved { name } => {
                self.policies.remove(name);
            }
            Op::TenantSet { tenant } => {
                self.tenants.insert(tenant.name.clone(), Arc::new(Tenant::clone(tenant)));
            }
            Op::TenantRemoved { name } => {
                self.tenants.remove(name);
            }
            Op::ApprovalRequested { intent, note } => self.commit_approval(record, intent, note),
            // It is let go of already.
            Op::ApprovalWithdrawn { .. } => {}
            Op::RolloutStarted { .. }
            | Op::RolloutAdvanced { .. }
            | Op::RolloutPaused { .. }
            | Op::RolloutResumed { .. }
            | Op::RolloutPromoted { .. }
            | Op::RolloutAborted { .. }
            | Op::RolloutFinished { .. } => self.commit_rollout(record),
        }
        self.review_approvals(record);
    }

    fn commit_schemas(&mut self, record: &Record) {
        let rev = record.rev;
        match &record.op {
            Op::SchemaRegistered { registration } => self.schemas.register(registration, rev, record.at_unix_ms),
            Op::SchemaVersionDeleted { subject, version, permanent } => {
                self.schemas.delete_version(subject, *version, *permanent, rev);
            }
            Op::SubjectDeleted { subject, permanent } => self.schemas.delete_subject(subject, *permanent, rev),
            Op::CompatibilitySet { subject, level } => self.schemas.set_compatibility(subject.as_ref(), *level, rev),
            Op::RegistryModeSet { subject, mode } => self.schemas.set_mode(subject.as_ref(), *mode, rev),
            _ => {}
        }
    }

    fn stage(&mut self, rev: u64, binding: &Binding) {
        let module = self.modules.get(&binding.module).expect("checked before: the module is there");
        let mut staged = StagedBinding::new(rev, module.digest, binding.clone());
        // The candidate is to be the active set, and who looks at the difference then sees none.
        let sets = self.rollout().map(|rollout| &rollout.candidate).into_iter().chain([&self.active().bindings]);
        let known = sets.filter_map(|set| set.find(&binding.name)).find(|known| known.is_as(&staged));
        staged.since = known.map_or(rev, |known| known.since);
        self.staged.insert(staged);
    }

    /// Makes a set the active one of every site at once.
    fn activate_everywhere(&mut self, record: &Record, source: u64, bindings: BindingSet) {
        self.sites.clear();
        self.activate(Generation::of(record, source, bindings));
    }

    fn activate(&mut self, generation: Generation) {
        self.raise_peaks(&generation);
        self.history.push_back(Arc::new(generation));
        if self.history.len() > HISTORY_MAX {
            self.history.pop_front();
        }
    }

    /// Returns to an earlier set. What is staged and was not active stays staged, so that nobody's work is lost; all
    /// else follows the set, so that the next activation does not bring back what was just taken away.
    fn roll_back(&mut self, record: &Record, to: u64) {
        let target = self.find_generation(to).expect("checked before: the generation is kept").clone();
        self.unstage(&self.active().bindings.clone(), &target.bindings);
        self.activate_everywhere(record, target.source, target.bindings.clone());
    }

    /// Takes out of the staged set what it shares with `gone`, for what `back` has.
    fn unstage(&mut self, gone: &BindingSet, back: &BindingSet) {
        let merged = self.staged.rebased(gone, back);
        self.staged = if merged.validate().is_ok() { merged } else { back.clone() };
    }
}

impl Generation {
    /// The generation that `record` makes active.
    fn of(record: &Record, source: u64, bindings: BindingSet) -> Self {
        let (at_unix_ms, actor) = (record.at_unix_ms, record.actor.clone());
        Self { number: record.rev, source, at_unix_ms, actor, bindings, at_sites: Vec::new() }
    }
}

impl Default for Catalog {
    fn default() -> Self {
        Self::new()
    }
}
