//! Rules and policies that a rollout brings: where they hold, and what may not be changed meanwhile.

use super::Catalog;
use super::check::{conflict, not_found};
use crate::error::CatalogError;
use crate::governance::{Governance, GovernanceChange, Governed};
use crate::limits::{POLICIES_MAX, TOPIC_RULES_MAX};
use crate::names::Name;
use crate::op::Op;
use crate::rollout::Rollout;
use crate::schemas::{SchemaRefusal, SubjectName};
use crate::topic::{SchemaVersion, TopicRule};

/// What a change waits for that a rollout makes as well.
const GOVERNED_MEND: &str = "it changes just that: abort it, which takes its change back at once, or wait for its end; a \
                             right is taken away at once by a new policy that forbids";
/// What the end of a schema waits for.
const SCHEMA_MEND: &str = "a rule that it brings judges by that schema: abort it, or wait for its end";

impl Catalog {
    /// What holds at a site: the changes of the rollout under way are laid over what holds everywhere, where the site has
    /// its candidate. For a router without a site, and one that the rollout has not reached, the latter holds.
    pub fn governance_at(&self, site: Option<&Name>) -> Governance<'_> {
        let changes = site.zip(self.rollout()).map_or(&[][..], |(site, rollout)| rollout.changes_at(site));
        self.laid_over(changes)
    }

    /// What will hold everywhere once the rollout under way is complete; what holds now where there is none.
    pub fn governance_ahead(&self) -> Governance<'_> {
        self.laid_over(self.forward().map_or(&[][..], |rollout| &rollout.plan.changes))
    }

    fn laid_over<'a>(&'a self, changes: &'a [GovernanceChange]) -> Governance<'a> {
        Governance::laid_over(&self.topics, &self.policies, changes)
    }

    /// The rollout under way whose changes hold somewhere, or will.
    fn forward(&self) -> Option<&Rollout> {
        self.rollout().map(AsRef::as_ref).filter(|rollout| rollout.is_forward())
    }

    /// Whether all is so already that a change makes so.
    pub(super) fn has(&self, change: &GovernanceChange) -> bool {
        match change {
            GovernanceChange::TopicRuleSet { rule } => self.topics.get(&rule.name) == Some(rule),
            GovernanceChange::TopicRuleRemoved { name } => !self.topics.contains_key(name),
            GovernanceChange::PolicySet { policy } => self.policy(&policy.name) == Some(policy),
            GovernanceChange::PolicyRemoved { name } => !self.policies.contains_key(name),
        }
    }

    /// Whether the changes of a rollout that begins now can be made.
    pub(super) fn check_changes(&self, changes: &[GovernanceChange]) -> Result<(), CatalogError> {
        for change in changes {
            match change {
                GovernanceChange::TopicRuleRemoved { name } if self.has(change) => {
                    return Err(not_found("topic rule", name, "list them with `myelin topic ls`"));
                }
                GovernanceChange::PolicyRemoved { name } if self.has(change) => {
                    return Err(not_found("policy", name, "list them with `myelin policy ls`"));
                }
                _ => change.rule().map_or(Ok(()), |rule| self.check_judged_by(rule))?,
            }
        }
        let (topics, policies) = self.laid_over(changes).counts();
        check_room(topics, policies)
    }

    /// Whether a rollout begins that brings rules and policies and leaves the filters as they are; what is staged stays
    /// staged.
    ///
    /// # Errors
    /// `conflict` where nothing of it is new.
    pub(super) fn check_governance_alone(&self, changes: &[GovernanceChange]) -> Result<(), CatalogError> {
        match changes.iter().all(|change| self.has(change)) {
            true => conflict("all rules and policies are as the rollout would make them; change one first"),
            false => Ok(()),
        }
    }

    /// Whether the schema of a rule is there.
    fn check_judged_by(&self, rule: &TopicRule) -> Result<(), CatalogError> {
        let Some((subject, version)) =
            rule.schema.as_ref().and_then(|schema| Some((schema.subject.as_ref()?, schema.version?)))
        else {
            return Ok(());
        };
        let (is_there, version) = match version {
            SchemaVersion::Latest => (self.schemas.latest(subject.as_str()).is_some(), 1),
            SchemaVersion::Number(number) => (self.schemas.version(subject.as_str(), number).is_some(), number),
        };
        match is_there {
            true => Ok(()),
            false => Err(SchemaRefusal::VersionNotFound { subject: subject.clone(), version }.into()),
        }
    }

    /// How many rules and policies there are with one more, those included that a rollout brings.
    ///
    /// # Errors
    /// `catalog-full`.
    pub(super) fn check_room_for(&self, new: Governed<'_>) -> Result<(), CatalogError> {
        let brought = self.forward().map_or(&[][..], |rollout| &rollout.plan.changes);
        let is_new = |governed: Governed<'_>| match governed {
            Governed::TopicRule(name) => !self.topics.contains_key(name),
            Governed::Policy(name) => !self.policies.contains_key(name),
        };
        let brought = brought.iter().filter(|change| change.is_set()).map(GovernanceChange::governed);
        let (mut topics, mut policies) = (self.topics.len(), self.policies.len());
        for governed in brought.chain([new]).filter(|governed| is_new(*governed)) {
            match governed {
                Governed::TopicRule(_) => topics += 1,
                Governed::Policy(_) => policies += 1,
            }
        }
        check_room(topics, policies)
    }

    /// Whether a change at once is about something that the rollout under way changes as well, or needs.
    ///
    /// # Errors
    /// `rollout-running`.
    pub(super) fn check_not_held(&self, op: &Op) -> Result<(), CatalogError> {
        let Some(rollout) = self.forward() else { return Ok(()) };
        let changes = |governed: Governed<'_>| rollout.plan.changes.iter().any(|change| change.governed() == governed);
        let needs = |subject: &SubjectName, version: Option<u32>| {
            let schemas = rollout.plan.changes.iter().filter_map(|change| change.rule()?.schema.as_ref());
            schemas.filter(|schema| schema.subject.as_ref() == Some(subject)).any(|schema| match schema.version {
                None | Some(SchemaVersion::Latest) => true,
                Some(SchemaVersion::Number(number)) => version.is_none_or(|version| version == number),
            })
        };
        let (is_held, mend) = match op {
            Op::TopicRuleSet { rule } => (changes(Governed::TopicRule(&rule.name)), GOVERNED_MEND),
            Op::TopicRuleRemoved { name } => (changes(Governed::TopicRule(name)), GOVERNED_MEND),
            Op::PolicySet { policy } => (changes(Governed::Policy(&policy.name)), GOVERNED_MEND),
            Op::PolicyRemoved { name } => (changes(Governed::Policy(name)), GOVERNED_MEND),
            Op::SchemaVersionDeleted { subject, version, .. } => (needs(subject, Some(*version)), SCHEMA_MEND),
            Op::SubjectDeleted { subject, .. } => (needs(subject, None), SCHEMA_MEND),
            _ => (false, ""),
        };
        match is_held {
            true => Err(CatalogError::RolloutRunning { id: rollout.id, state: rollout.state(), mend }),
            false => Ok(()),
        }
    }

    /// The changes of a rollout hold everywhere, and stay.
    pub(super) fn govern(&mut self, changes: Vec<GovernanceChange>) {
        for change in changes {
            match change {
                GovernanceChange::TopicRuleSet { rule } => drop(self.topics.insert(rule.name.clone(), *rule)),
                GovernanceChange::TopicRuleRemoved { name } => drop(self.topics.remove(&name)),
                GovernanceChange::PolicySet { policy } => {
                    self.policies.insert(policy.name.clone(), policy.into());
                }
                GovernanceChange::PolicyRemoved { name } => drop(self.policies.remove(&name)),
            }
        }
    }
}

fn check_room(topics: usize, policies: usize) -> Result<(), CatalogError> {
    if topics > TOPIC_RULES_MAX {
        let mend = "let one with a broader pattern take the place of several";
        return Err(CatalogError::Full { what: "rules for topics", max: TOPIC_RULES_MAX as u64, mend });
    }
    if policies > POLICIES_MAX {
        let mend = "put the statements of several into one";
        return Err(CatalogError::Full { what: "policies", max: POLICIES_MAX as u64, mend });
    }
    Ok(())
}
