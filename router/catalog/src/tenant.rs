//! Tenants: services that share a router with others and are to notice nothing of them.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use myelin_wire::topic::{Pattern, TOPIC_LEN_MAX_BYTES, Topic, is_reserved};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::CatalogError;
use crate::limits::{
    QUOTA_MAX, SERVICE_SELECTOR_LEN_MAX_BYTES, TENANT_ROOT_LEVELS_MAX, TENANT_SELECTORS_MAX, TENANT_SHARED_WITH_MAX,
    TENANT_SHARES_MAX,
};
use crate::names::Name;
use crate::topic::Selector;

mod check;
#[cfg(test)]
mod tests;

pub use check::check_among;

/// Services that use topics of their own and no others, within quotas.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tenant {
    /// What it is called; a tenant of the same name replaces it.
    pub name: Name,
    /// Who belongs to it. Of several selectors that fit a service, also of other tenants, the longest counts.
    pub services: Vec<ServiceSelector>,
    /// Its topics are this one and all below it; those of two tenants never overlap.
    pub root: Topic,
    /// What it may use at each router.
    #[serde(default, skip_serializing_if = "Quota::is_unbounded")]
    pub quota: Quota,
    /// Topics of its own that others may use, too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shares: Vec<Share>,
}

/// What a tenant may use at each router; what is not said is not bounded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Quota {
    /// Events published, per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub events_per_s: Option<u64>,
    /// Bytes published, heads and payloads, per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_per_s: Option<u64>,
    /// Connections at a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connections: Option<u64>,
    /// CPU time that filters spend on its events, in milliseconds per second: what runs as fuel elsewhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filter_ms_per_s: Option<u64>,
    /// Bindings whose topics are its own, staged ones counted. Of the whole mesh.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bindings: Option<u64>,
    /// Events that go to dead letters, per second; those beyond are refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dead_letters_per_s: Option<u64>,
}

/// Topics of a tenant that others may use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Share {
    /// The topics, all below the tenant's root.
    pub topics: Pattern,
    /// Tenants by name; `*` is everybody, services without a tenant among them.
    pub with: Vec<Selector>,
    /// What they may do with them.
    #[serde(default)]
    pub access: Access,
}

/// What others may do with shared topics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    /// Subscribe.
    #[default]
    Subscribe,
    /// Publish, and ask: the tenant may answer them.
    Publish,
    /// Both.
    Both,
}

/// A service's name as its certificate or token has it, or with a `*` at its end all that begin with what stands before.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceSelector(Arc<str>);

impl Tenant {
    /// Checks what the parts do not say about themselves.
    ///
    /// # Errors
    /// `invalid-tenant`.
    pub fn validate(&self) -> Result<(), CatalogError> {
        let too_many = |field, count: usize, max: usize, mend| {
            self.refuse(field, format!("there are {count}; {max} are the most: {mend}"))
        };
        if self.services.is_empty() {
            return self.refuse("services", "nobody belongs to it: name a service, or `BEGINNING*`".to_owned());
        }
        if self.services.len() > TENANT_SELECTORS_MAX {
            let mend = "let one with `*` at its end take the place of several";
            return too_many("services", self.services.len(), TENANT_SELECTORS_MAX, mend);
        }
        self.validate_root()?;
        if self.shares.len() > TENANT_SHARES_MAX {
            let mend = "let one with a broader pattern take the place of several";
            return too_many("shares", self.shares.len(), TENANT_SHARES_MAX, mend);
        }
        for share in &self.shares {
            if share.with.is_empty() || share.with.len() > TENANT_SHARED_WITH_MAX {
                let why = format!(
                    "`{}` is shared with {} tenants; name 1 to {TENANT_SHARED_WITH_MAX}, or `*`",
                    share.topics,
                    share.with.len()
                );
                return self.refuse("shares", why);
            }
            if !self.topics().implies(&share.topics) {
                let why = format!("`{}` are not its own topics, which are `{}`", share.topics, self.topics());
                return self.refuse("shares", why);
            }
        }
        self.validate_quota()
    }

    fn validate_root(&self) -> Result<(), CatalogError> {
        if is_reserved(&self.root) {
            return self.refuse("root", "topics that begin with `$` are the router's own".to_owned());
        }
        let levels = self.root.split('/').count();
        if levels > TENANT_ROOT_LEVELS_MAX {
            return self.refuse("root", format!("it has {levels} levels; {TENANT_ROOT_LEVELS_MAX} are the most"));
        }
        // `ROOT/**` must be a pattern.
        if self.root.len() + "/**".len() > TOPIC_LEN_MAX_BYTES {
            let most = TOPIC_LEN_MAX_BYTES - "/**".len();
            return self.refuse("root", format!("it has {} bytes; {most} are the most", self.root.len()));
        }
        Ok(())
    }

    fn validate_quota(&self) -> Result<(), CatalogError> {
        let refuse = |field, why| self.refuse(field, why);
        for (field, value) in self.quota.named() {
            match value {
                // No bindings at all is a meaning; none of the others leaves a tenant that can do anything.
                Some(0) if field != "quota.bindings" => {
                    return refuse(
                        field,
                        "0 would shut it out: leave it away for no bound, or remove the tenant".into(),
                    );
                }
                Some(value) if value > QUOTA_MAX => {
                    return refuse(field, format!("{value} is more than {QUOTA_MAX}: leave it away for no bound"));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Its topics, as a pattern.
    pub fn topics(&self) -> Pattern {
        Pattern::new(&format!("{}/**", self.root)).expect("checked before: the root has room for it")
    }

    fn refuse(&self, field: &'static str, why: String) -> Result<(), CatalogError> {
        Err(CatalogError::InvalidTenant { tenant: self.name.to_string(), field, why })
    }
}

impl Quota {
    /// Whether it bounds nothing.
    pub fn is_unbounded(&self) -> bool {
        *self == Self::default()
    }

    /// The values with the names of their fields.
    pub fn named(&self) -> [(&'static str, Option<u64>); 6] {
        let Self { events_per_s, bytes_per_s, connections, filter_ms_per_s, bindings, dead_letters_per_s } = *self;
        [
            ("quota.events_per_s", events_per_s),
            ("quota.bytes_per_s", bytes_per_s),
            ("quota.connections", connections),
            ("quota.filter_ms_per_s", filter_ms_per_s),
            ("quota.bindings", bindings),
            ("quota.dead_letters_per_s", dead_letters_per_s),
        ]
    }
}

impl Access {
    /// Whether it lets others subscribe.
    pub fn subscribes(self) -> bool {
        self != Self::Publish
    }

    /// Whether it lets others publish and ask.
    pub fn publishes(self) -> bool {
        self != Self::Subscribe
    }
}

impl ServiceSelector {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What names begin with, where it means all of those.
    pub fn beginning(&self) -> Option<&str> {
        self.0.strip_suffix('*')
    }
}

impl FromStr for ServiceSelector {
    type Err = CatalogError;

    fn from_str(text: &str) -> Result<Self, CatalogError> {
        let refuse = |why: String| Err(CatalogError::InvalidServiceSelector { why });
        if text.is_empty() || text.len() > SERVICE_SELECTOR_LEN_MAX_BYTES {
            let len = text.len();
            return refuse(format!("it has {len} bytes; give 1 to {SERVICE_SELECTOR_LEN_MAX_BYTES}"));
        }
        let beginning = text.strip_suffix('*').unwrap_or(text);
        if beginning.is_empty() {
            return refuse(
                "`*` alone would take in everybody: begin with a trust domain, `spiffe://acme.example/*`".into(),
            );
        }
        if let Some(character) = beginning.chars().find(|c| *c == '*' || c.is_control() || c.is_whitespace()) {
            return refuse(format!("{character:?} cannot stand in `{}`; a `*` stands at the end", text.escape_debug()));
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for ServiceSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ServiceSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ServiceSelector({})", self.0)
    }
}

impl Serialize for ServiceSelector {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for ServiceSelector {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}
