//! What holds for topics and services beside the filters: rules for topics, and policies.
//!
//! Each is set and removed by a record of its own, which holds at once everywhere; or it is a [`GovernanceChange`] of a
//! rollout, which holds at the sites that the rollout has reached, and everywhere when it is complete. What holds where
//! follows from the log alone: [`crate::catalog::Catalog::governance_at`].

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error::CatalogError;
use crate::limits::{GOVERNANCE_CHANGES_MAX, GOVERNANCE_LEN_MAX_BYTES};
use crate::names::Name;
use crate::policy::Policy;
use crate::topic::TopicRule;

#[cfg(test)]
mod tests;

/// Changes that are named where there is room for one line.
const NAMED_MAX: usize = 4;

/// A change of what holds that a rollout brings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum GovernanceChange {
    /// A rule for topics, in the place of the one of the same name.
    TopicRuleSet {
        /// What it is.
        rule: Box<TopicRule>,
    },
    /// A rule for topics goes.
    TopicRuleRemoved {
        /// Which.
        name: Name,
    },
    /// A policy, in the place of the one of the same name.
    PolicySet {
        /// What it is.
        policy: Policy,
    },
    /// A policy goes.
    PolicyRemoved {
        /// Which.
        name: Name,
    },
}

/// What a change is about; nothing else may change it while a rollout does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Governed<'a> {
    /// The rule for topics of that name.
    TopicRule(&'a Name),
    /// The policy of that name.
    Policy(&'a Name),
}

/// What holds at a site, or would.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Governance<'a> {
    topics: BTreeMap<&'a Name, &'a TopicRule>,
    policies: BTreeMap<&'a Name, Arc<Policy>>,
}

impl GovernanceChange {
    /// What it is about.
    pub fn governed(&self) -> Governed<'_> {
        match self {
            Self::TopicRuleSet { rule } => Governed::TopicRule(&rule.name),
            Self::TopicRuleRemoved { name } => Governed::TopicRule(name),
            Self::PolicySet { policy } => Governed::Policy(&policy.name),
            Self::PolicyRemoved { name } => Governed::Policy(name),
        }
    }

    /// Whether something holds after it that it names, and not only before.
    pub fn is_set(&self) -> bool {
        matches!(self, Self::TopicRuleSet { .. } | Self::PolicySet { .. })
    }

    /// The rule that it sets.
    pub fn rule(&self) -> Option<&TopicRule> {
        match self {
            Self::TopicRuleSet { rule } => Some(rule),
            _ => None,
        }
    }

    /// Checks what the parts do not say about themselves.
    fn validate(&self) -> Result<(), CatalogError> {
        match self {
            Self::TopicRuleSet { rule } => {
                rule.validate()?;
                rule.check_settled()?;
                if rule.follows().is_none() {
                    return Ok(());
                }
                let why =
                    "a rollout brings one version to site after site, and `latest` is another one as soon as it is \
                           registered: say its number, or leave it out for the newest that there is now"
                        .to_owned();
                Err(CatalogError::InvalidTopicRule { rule: rule.name.to_string(), field: "schema.version", why })
            }
            Self::PolicySet { policy } => policy.validate(),
            Self::TopicRuleRemoved { .. } | Self::PolicyRemoved { .. } => Ok(()),
        }
    }
}

impl Governed<'_> {
    /// The kind of thing, for people.
    pub fn kind(self) -> &'static str {
        match self {
            Self::TopicRule(_) => "topic rule",
            Self::Policy(_) => "policy",
        }
    }

    /// Its name.
    pub fn name(&self) -> &Name {
        match self {
            Self::TopicRule(name) | Self::Policy(name) => name,
        }
    }
}

/// What a rollout brings, for people: the first few, and how many more.
pub(crate) fn subject(changes: &[GovernanceChange]) -> String {
    let named = changes.iter().take(NAMED_MAX).map(|change| {
        let governed = change.governed();
        format!("{} {}", governed.kind(), governed.name())
    });
    let mut subject = named.collect::<Vec<_>>().join(", ");
    if changes.len() > NAMED_MAX {
        subject += &format!(" and {} more", changes.len() - NAMED_MAX);
    }
    subject
}

/// Checks the changes of one rollout; whether they fit the catalog is the catalog's to say.
pub(crate) fn validate(changes: &[GovernanceChange]) -> Result<(), CatalogError> {
    let refuse = |why: String| Err(CatalogError::InvalidRecord { field: "plan.changes", why });
    if changes.len() > GOVERNANCE_CHANGES_MAX {
        return refuse(format!("there are {}; {GOVERNANCE_CHANGES_MAX} are the most of one rollout", changes.len()));
    }
    let mut governed: Vec<_> = changes.iter().map(GovernanceChange::governed).collect();
    governed.sort_unstable();
    if let Some(twice) = governed.windows(2).find(|pair| pair[0] == pair[1]) {
        return refuse(format!("{} `{}` is changed twice; change it once", twice[0].kind(), twice[0].name()));
    }
    changes.iter().try_for_each(GovernanceChange::validate)?;
    let len_bytes = serde_json::to_vec(changes).map_or(usize::MAX, |text| text.len());
    if len_bytes > GOVERNANCE_LEN_MAX_BYTES {
        return refuse(format!(
            "they have {len_bytes} bytes together; {GOVERNANCE_LEN_MAX_BYTES} are the most of one rollout: make several"
        ));
    }
    Ok(())
}

impl<'a> Governance<'a> {
    /// What holds with these changes laid over it.
    pub(crate) fn laid_over(
        topics: &'a BTreeMap<Name, TopicRule>,
        policies: &'a BTreeMap<Name, Arc<Policy>>,
        changes: &'a [GovernanceChange],
    ) -> Self {
        let mut governance = Self {
            topics: topics.iter().collect(),
            policies: policies.iter().map(|(name, policy)| (name, policy.clone())).collect(),
        };
        for change in changes {
            match change {
                GovernanceChange::TopicRuleSet { rule } => drop(governance.topics.insert(&rule.name, rule)),
                GovernanceChange::TopicRuleRemoved { name } => drop(governance.topics.remove(name)),
                GovernanceChange::PolicySet { policy } => {
                    governance.policies.insert(&policy.name, Arc::new(policy.clone()));
                }
                GovernanceChange::PolicyRemoved { name } => drop(governance.policies.remove(name)),
            }
        }
        governance
    }

    /// The rules for topics, by name.
    pub fn topic_rules(&self) -> impl Iterator<Item = &'a TopicRule> {
        self.topics.values().copied()
    }

    /// The policies, by name.
    pub fn policies(&self) -> impl ExactSizeIterator<Item = &Arc<Policy>> {
        self.policies.values()
    }

    /// How many rules for topics and how many policies there are.
    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.topics.len(), self.policies.len())
    }
}
