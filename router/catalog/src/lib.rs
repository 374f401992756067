//! What is deployed on a router: modules, bindings, and the log of every change to them.
//!
//! The log is a chain of [`Record`]s, each of which carries the hash of the one before. [`Catalog`] is what the
//! records add up to: the modules there are, the bindings that are *staged*, and the *generation* that is active.
//! A binding is staged first; a rollout then makes the whole staged set active at once.
//!
//! Pure: no I/O, no clock, no randomness. Who writes the log down is `myelin-store`; who drafts records is the
//! router's single writer.
#![forbid(unsafe_code)]

pub mod approval;
pub mod binding;
pub mod boot;
pub mod catalog;
pub mod controller;
pub mod digest;
pub mod error;
pub mod exchange;
pub mod fleet;
pub mod follower;
pub mod governance;
pub mod keyring;
pub mod keys;
pub mod limits;
pub mod minisign;
pub mod module;
pub mod names;
pub mod op;
pub mod plan;
pub mod policy;
pub mod proposal;
pub mod record;
pub mod rollout;
pub mod schemas;
pub mod set;
pub mod statement;
pub mod tenant;
#[cfg(test)]
mod testing;
pub mod topic;
pub mod trust;

pub use approval::{Approval, Intent};
pub use binding::{Binding, BindingLimits, Consent, Grant, OnFault, Stage};
pub use boot::{BootDecision, BootMarker, Retreat};
pub use catalog::{Catalog, Demands, Generation, Quarantine, SignatureState, Wanted};
pub use controller::{Decision, Metrics, Observations, Phase, Report, SILENT_MS, decide};
pub use digest::Digest;
pub use error::{CatalogError, ChainFault, SignatureFault};
pub use exchange::{Answer, Ask, Heard, RouterReport};
pub use fleet::{Fleet, Router, Site};
pub use follower::{Accepted, FollowFault, Follower, Standing, Verified};
pub use governance::{Governance, GovernanceChange, Governed};
pub use keyring::{KeyRing, TrustedKey};
pub use keys::{PublicKey, SigningKey};
pub use minisign::{KeyId, MinisignKey, MinisignSignature};
pub use module::{Module, World};
pub use names::{ModuleRef, Name, Version};
pub use op::Op;
pub use plan::{Changed, Plan};
pub use policy::Policy;
pub use proposal::{Admission, Inbox, Nonce, Proposal};
pub use record::{Algorithm, Chain, Head, Record};
pub use rollout::{Cause, Gates, Outcome, Rollout, RolloutPlan, Scheduled, Step};
pub use schemas::{
    CompatibilityLevel, NewSchema, Reference, Registration, RegistryMode, Schema, SchemaFormat, SchemaRefusal, Schemas,
    Subject, SubjectName, SubjectVersion,
};
pub use set::{BindingSet, StagedBinding};
pub use statement::{ModuleStatement, RollbackStatement};
pub use tenant::{Access, Quota, ServiceSelector, Share, Tenant, check_among};
pub use topic::{OnInvalid, Residency, SchemaNaming, SchemaRule, SchemaVersion, Selector, TopicRule};
pub use trust::{ModuleKey, ModulePattern, RootSet, Trust, TrustAction, TrustChange, TrustRefusal};
