//! The changes that a log can hold.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::approval::Intent;
use crate::binding::Binding;
use crate::governance;
use crate::keys::PublicKey;
use crate::minisign::MinisignSignature;
use crate::module::Module;
use crate::names::{ModuleRef, Name};
use crate::policy::Policy;
use crate::rollout::{Cause, Outcome, RolloutPlan, Step};
use crate::schemas::{CompatibilityLevel, Registration, RegistryMode, SubjectName};
use crate::tenant::Tenant;
use crate::topic::TopicRule;
use crate::trust::TrustChange;

/// A change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Op {
    /// A module was uploaded.
    ModuleAdded {
        /// What it is.
        module: Module,
    },
    /// A module has another signature, or its first: by a key of today, under a version that never changes.
    ModuleSigned {
        /// Which.
        module: ModuleRef,
        /// The signature.
        signature: MinisignSignature,
    },
    /// A module that nothing used was removed.
    ModuleRemoved {
        /// Which.
        module: ModuleRef,
    },
    /// A binding was put into the staged set, where it replaced the one of the same name.
    BindingStaged {
        /// What it is.
        binding: Box<Binding>,
    },
    /// A binding was taken out of the staged set.
    BindingRemoved {
        /// Which.
        name: Name,
    },
    /// The staged set became active.
    Activated {
        /// The set: each binding with the revision that staged it.
        bindings: BTreeMap<Name, u64>,
    },
    /// The set of an earlier generation became active again.
    RolledBack {
        /// The number of that generation.
        to: u64,
    },
    /// A module failed too often: bindings to it answer their fault verdict from now on.
    Quarantined {
        /// The module.
        module: ModuleRef,
        /// The binding in which it failed.
        binding: Name,
        /// How it failed.
        reason: String,
    },
    /// A quarantine was lifted.
    Released {
        /// The module.
        module: ModuleRef,
    },
    /// A key may sign records from the next one on. The first such record is signed by the very key that it names;
    /// from then on every record is signed.
    KeyTrusted {
        /// What the key is called; never used again, not even when it is revoked.
        key_id: Name,
        /// The key.
        public_key: PublicKey,
        /// Whose it is, for people.
        note: String,
    },
    /// A key may sign no further records; those that it signed before stay valid.
    KeyRevoked {
        /// Which.
        key_id: Name,
    },
    /// Whom the mesh trusts to sign modules, and who decides about that, has changed.
    TrustChanged {
        /// How.
        change: Box<TrustChange>,
    },
    /// A site belongs to the mesh; it gets the next number.
    SiteAdded {
        /// What it is called.
        name: Name,
        /// Where it is.
        region: Name,
        /// Whose machines it runs on.
        cloud: Name,
    },
    /// A site is elsewhere than was said, or nobody had said it: those that the configuration names at the beginning.
    SiteMoved {
        /// Which.
        name: Name,
        /// Where it is.
        region: Name,
        /// Whose machines it runs on.
        cloud: Name,
    },
    /// A site without routers is gone.
    SiteRemoved {
        /// Which.
        name: Name,
    },
    /// A router belongs to a site; it gets the next number.
    RouterAdded {
        /// Its site.
        site: Name,
        /// What it is called there.
        name: Name,
    },
    /// A router is gone for good.
    RouterRemoved {
        /// Its site.
        site: Name,
        /// Which.
        name: Name,
    },
    /// A rule for topics holds from now on, in the place of the one of the same name.
    TopicRuleSet {
        /// What it is.
        rule: Box<TopicRule>,
    },
    /// A rule for topics is gone.
    TopicRuleRemoved {
        /// Which.
        name: Name,
    },
    /// A schema is a version of a subject from now on.
    SchemaRegistered {
        /// Which.
        registration: Box<Registration>,
    },
    /// A version of a subject is deleted: first in such a way that whoever has its id can still read it, then for good.
    SchemaVersionDeleted {
        /// The subject.
        subject: SubjectName,
        /// The version.
        version: u32,
        /// For good.
        permanent: bool,
    },
    /// All versions of a subject are deleted, in one of the two ways.
    SubjectDeleted {
        /// Which.
        subject: SubjectName,
        /// For good.
        permanent: bool,
    },
    /// What new versions must be compatible with.
    CompatibilitySet {
        /// Of which subject; without one of all that say nothing of their own.
        subject: Option<SubjectName>,
        /// The level; none takes back what was said.
        level: Option<CompatibilityLevel>,
    },
    /// What may be changed in the registry.
    RegistryModeSet {
        /// In which subject; without one in all that say nothing of their own.
        subject: Option<SubjectName>,
        /// The mode; none takes back what was said.
        mode: Option<RegistryMode>,
    },
    /// A policy holds from now on, in the place of the one of the same name.
    PolicySet {
        /// What it is.
        policy: Policy,
    },
    /// A policy is gone.
    PolicyRemoved {
        /// Which.
        name: Name,
    },
    /// A tenant is as said from now on, in the place of the one of the same name.
    TenantSet {
        /// What it is.
        tenant: Box<Tenant>,
    },
    /// A tenant is gone; its topics are everybody's.
    TenantRemoved {
        /// Which.
        name: Name,
    },
    /// Somebody wants something to begin, and somebody else has to approve it; its number is the revision of this record.
    ApprovalRequested {
        /// What shall begin.
        intent: Intent,
        /// Why, for people.
        #[serde(default)]
        note: String,
    },
    /// What somebody wanted to begin is not to be approved any more.
    ApprovalWithdrawn {
        /// Which: the revision of the record that asked for it.
        id: u64,
    },
    /// A rollout of the staged set over the sites began; its number is the revision of this record.
    RolloutStarted {
        /// The set: each binding with the revision that staged it.
        bindings: BTreeMap<Name, u64>,
        /// How it goes on.
        plan: Box<RolloutPlan>,
    },
    /// A rollout went on to its next step, which makes its set active at these sites.
    RolloutAdvanced {
        /// Which rollout.
        id: u64,
        /// The step.
        to: Step,
        /// The sites that have the new set from now on, beside those that have it already.
        sites: Vec<Name>,
    },
    /// A rollout does not go on by itself.
    RolloutPaused {
        /// Which.
        id: u64,
    },
    /// A rollout goes on by itself again.
    RolloutResumed {
        /// Which.
        id: u64,
    },
    /// The present step of a rollout need not observe any longer; it goes on by itself again where it was paused.
    /// Its routers must still have done what the step wants.
    RolloutPromoted {
        /// Which.
        id: u64,
    },
    /// The sites that have the new set of a rollout have their old one again.
    RolloutAborted {
        /// Which.
        id: u64,
        /// Why.
        cause: Cause,
        /// More of that, for people.
        reason: String,
    },
    /// A rollout came to its end.
    RolloutFinished {
        /// Which.
        id: u64,
        /// How.
        outcome: Outcome,
        /// More of that, for people.
        reason: String,
    },
}

impl Op {
    /// The kind of change, as it is spelled in the log and the API.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::ModuleAdded { .. } => "module-added",
            Self::ModuleSigned { .. } => "module-signed",
            Self::ModuleRemoved { .. } => "module-removed",
            Self::BindingStaged { .. } => "binding-staged",
            Self::BindingRemoved { .. } => "binding-removed",
            Self::Activated { .. } => "activated",
            Self::RolledBack { .. } => "rolled-back",
            Self::Quarantined { .. } => "quarantined",
            Self::Released { .. } => "released",
            Self::KeyTrusted { .. } => "key-trusted",
            Self::KeyRevoked { .. } => "key-revoked",
            Self::TrustChanged { .. } => "trust-changed",
            Self::SiteAdded { .. } => "site-added",
            Self::SiteMoved { .. } => "site-moved",
            Self::SiteRemoved { .. } => "site-removed",
            Self::RouterAdded { .. } => "router-added",
            Self::RouterRemoved { .. } => "router-removed",
            Self::TopicRuleSet { .. } => "topic-rule-set",
            Self::TopicRuleRemoved { .. } => "topic-rule-removed",
            Self::SchemaRegistered { .. } => "schema-registered",
            Self::SchemaVersionDeleted { .. } => "schema-version-deleted",
            Self::SubjectDeleted { .. } => "subject-deleted",
            Self::CompatibilitySet { .. } => "compatibility-set",
            Self::RegistryModeSet { .. } => "registry-mode-set",
            Self::PolicySet { .. } => "policy-set",
            Self::PolicyRemoved { .. } => "policy-removed",
            Self::TenantSet { .. } => "tenant-set",
            Self::TenantRemoved { .. } => "tenant-removed",
            Self::ApprovalRequested { .. } => "approval-requested",
            Self::ApprovalWithdrawn { .. } => "approval-withdrawn",
            Self::RolloutStarted { .. } => "rollout-started",
            Self::RolloutAdvanced { .. } => "rollout-advanced",
            Self::RolloutPaused { .. } => "rollout-paused",
            Self::RolloutResumed { .. } => "rollout-resumed",
            Self::RolloutPromoted { .. } => "rollout-promoted",
            Self::RolloutAborted { .. } => "rollout-aborted",
            Self::RolloutFinished { .. } => "rollout-finished",
        }
    }

    /// What is changed, for people; empty where the change names nothing.
    pub fn subject(&self) -> String {
        match self {
            Self::ModuleAdded { module } => format!("{}@{}", module.name, module.version),
            Self::ModuleSigned { module, .. } | Self::ModuleRemoved { module } | Self::Released { module } => {
                module.to_string()
            }
            Self::BindingStaged { binding } => binding.name.to_string(),
            Self::BindingRemoved { name } | Self::TopicRuleRemoved { name } => name.to_string(),
            Self::Activated { .. } | Self::TrustChanged { .. } => String::new(),
            Self::RolloutStarted { plan, .. } => governance::subject(&plan.changes),
            Self::ApprovalRequested { intent, .. } => intent.subject(),
            Self::ApprovalWithdrawn { id } => format!("proposal {id}"),
            Self::RolledBack { to } => format!("generation {to}"),
            Self::Quarantined { module, binding, .. } => format!("{module} in {binding}"),
            Self::KeyTrusted { key_id, .. } | Self::KeyRevoked { key_id } => key_id.to_string(),
            Self::SiteAdded { name, .. } | Self::SiteMoved { name, .. } | Self::SiteRemoved { name } => {
                name.to_string()
            }
            Self::RouterAdded { site, name } | Self::RouterRemoved { site, name } => format!("{site}/{name}"),
            Self::TopicRuleSet { rule } => rule.name.to_string(),
            Self::PolicySet { policy } => policy.name.to_string(),
            Self::PolicyRemoved { name } | Self::TenantRemoved { name } => name.to_string(),
            Self::TenantSet { tenant } => tenant.name.to_string(),
            Self::SchemaRegistered { registration } => {
                format!("{} version {}", registration.subject, registration.version)
            }
            Self::SchemaVersionDeleted { subject, version, .. } => format!("{subject} version {version}"),
            Self::SubjectDeleted { subject, .. } => subject.to_string(),
            Self::CompatibilitySet { subject, .. } | Self::RegistryModeSet { subject, .. } => {
                subject.as_ref().map(ToString::to_string).unwrap_or_default()
            }
            Self::RolloutAdvanced { id, to, .. } => format!("rollout {id} to {to}"),
            Self::RolloutPaused { id }
            | Self::RolloutResumed { id }
            | Self::RolloutPromoted { id }
            | Self::RolloutAborted { id, .. }
            | Self::RolloutFinished { id, .. } => format!("rollout {id}"),
        }
    }
}
