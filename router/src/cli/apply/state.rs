//! What a folder says, or the catalog has: tenants, schemas, topics, policies and bindings, by name.

use myelin_catalog::{Binding, CompatibilityLevel, Name, SchemaFormat, SubjectName, Tenant, TopicRule};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The kinds of things, in the order in which they are applied: what others need comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Kind {
    Tenant,
    Schema,
    Topic,
    Policy,
    Binding,
}

impl Kind {
    /// All of them, in that order.
    pub(super) const ALL: [Self; 5] = [Self::Tenant, Self::Schema, Self::Topic, Self::Policy, Self::Binding];

    /// The folder that they are in.
    pub(super) fn folder(self) -> &'static str {
        match self {
            Self::Tenant => "tenants",
            Self::Schema => "schemas",
            Self::Topic => "topics",
            Self::Policy => "policies",
            Self::Binding => "bindings",
        }
    }

    /// `1 topic`, `2 topics`.
    pub(super) fn counted(self, count: usize) -> String {
        format!("{count} {}", if count == 1 { self.noun() } else { self.folder() })
    }

    /// What one of them is called.
    pub(super) fn noun(self) -> &'static str {
        match self {
            Self::Tenant => "tenant",
            Self::Schema => "schema",
            Self::Topic => "topic",
            Self::Policy => "policy",
            Self::Binding => "binding",
        }
    }
}

/// All that a folder or the catalog has of these kinds.
#[derive(Debug, Default, PartialEq)]
pub(super) struct State {
    pub(super) tenants: BTreeMap<Name, Tenant>,
    pub(super) schemas: BTreeMap<SubjectName, Subject>,
    pub(super) topics: BTreeMap<Name, TopicRule>,
    pub(super) policies: BTreeMap<Name, String>,
    pub(super) bindings: BTreeMap<Name, Binding>,
}

/// A subject of the schema registry, and its newest schema.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Subject {
    pub(super) format: SchemaFormat,
    pub(super) text: String,
    pub(super) references: Vec<Reference>,
    /// What new versions must be compatible with; `None` = what holds for the registry.
    pub(super) compatibility: Option<CompatibilityLevel>,
}

/// That a schema refers to another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::cli) struct Reference {
    /// How the text names it: an import's path, a URI, a full name.
    pub(in crate::cli) name: String,
    /// The subject that has it.
    pub(in crate::cli) subject: SubjectName,
    /// As which version; `None` = the newest when it is applied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::cli) version: Option<u32>,
}

/// What stands beside a schema, in the file that is called like it and ends in `.toml`.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Beside {
    /// The subject, where the file's name cannot be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) subject: Option<SubjectName>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) compatibility: Option<CompatibilityLevel>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) references: Vec<Reference>,
}
