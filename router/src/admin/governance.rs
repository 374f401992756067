//! Rules and policies that a rollout brings: as they are asked for, by whom, and as they are shown.

use super::access::Caller;
use super::forbids;
use super::policies::PolicyInfo;
use super::problem::Problem;
use super::topics::{ResidencySpec, SchemaSpec};
use crate::policy::Rules;
use axum::http::Method;
use myelin_catalog::{GovernanceChange, Name, Policy, SchemaRule, TopicRule};
use myelin_policy::Subject;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Rules and policies that hold at the sites which the rollout has reached, and everywhere when it is complete. At most 64
/// of them.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ChangesSpec {
    /// Rules for topics, each in the place of the one of the same name. One that judges by a subject's schema says the
    /// version's number, or nothing for the newest that there is now.
    #[schema(value_type = Vec<NamedRule>)]
    topics: Vec<TopicRule>,
    /// Names of rules that go.
    #[schema(value_type = Vec<String>)]
    remove_topics: Vec<Name>,
    /// Policies, each in the place of the one of the same name. They are for the role security.
    #[schema(value_type = Vec<PolicyInfo>)]
    policies: Vec<Policy>,
    /// Names of policies that go.
    #[schema(value_type = Vec<String>)]
    remove_policies: Vec<Name>,
}

/// A rule for topics with its name.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes the catalog's own type to readers of the API")]
struct NamedRule {
    /// What it is called.
    name: String,
    /// The topics.
    pattern: String,
    /// Where their events may be; anywhere where nothing is said.
    residency: Option<ResidencySpec>,
    /// What their payloads must be like.
    schema: Option<SchemaSpec>,
}

/// A change that a rollout brings beside filters.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(super) struct ChangeInfo {
    /// `topic rule` or `policy`.
    kind: &'static str,
    /// What it is called.
    name: String,
    /// Whether it holds afterwards: `set`, or `removed`.
    action: &'static str,
    /// More of it, for people.
    detail: String,
}

impl ChangesSpec {
    /// As these changes were asked for.
    pub(super) fn of(changes: &[GovernanceChange]) -> Self {
        let mut spec = Self::default();
        for change in changes.iter().cloned() {
            match change {
                GovernanceChange::TopicRuleSet { rule } => spec.topics.push(*rule),
                GovernanceChange::TopicRuleRemoved { name } => spec.remove_topics.push(name),
                GovernanceChange::PolicySet { policy } => spec.policies.push(policy),
                GovernanceChange::PolicyRemoved { name } => spec.remove_policies.push(name),
            }
        }
        spec
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.topics.is_empty() && self.remove_topics.is_empty() && !self.has_policies()
    }

    fn has_policies(&self) -> bool {
        !self.policies.is_empty() || !self.remove_policies.is_empty()
    }

    /// Whether `caller` may make these changes at once, who then may let a rollout make them.
    ///
    /// # Errors
    /// `forbidden-role`, or `forbidden-policy`.
    pub(super) fn check(&self, caller: &Caller, rules: &Rules) -> Result<(), Problem> {
        if !self.topics.is_empty() || !self.remove_topics.is_empty() {
            caller.may(&Method::PUT, "/v1/topics/{name}")?;
        }
        let set = self.topics.iter().map(|rule| ("PUT", &rule.name));
        for (method, name) in set.chain(self.remove_topics.iter().map(|name| ("DELETE", name))) {
            forbids::ask(rules, caller, Subject::Rule(name.as_str()), (method, "/v1/topics/{name}"))?;
        }
        if self.has_policies() {
            caller.may(&Method::PUT, "/v1/policies/{name}")?;
        }
        Ok(())
    }

    /// The changes.
    pub(super) fn read(self) -> Vec<GovernanceChange> {
        let Self { topics, remove_topics, policies, remove_policies } = self;
        let topics = topics.into_iter().map(|rule| GovernanceChange::TopicRuleSet { rule: Box::new(rule) });
        let remove_topics = remove_topics.into_iter().map(|name| GovernanceChange::TopicRuleRemoved { name });
        let policies = policies.into_iter().map(|policy| GovernanceChange::PolicySet { policy });
        let remove_policies = remove_policies.into_iter().map(|name| GovernanceChange::PolicyRemoved { name });
        topics.chain(remove_topics).chain(policies).chain(remove_policies).collect()
    }
}

impl ChangeInfo {
    pub(super) fn new(change: &GovernanceChange) -> Self {
        let governed = change.governed();
        Self {
            kind: governed.kind(),
            name: governed.name().to_string(),
            action: if change.is_set() { "set" } else { "removed" },
            detail: change.rule().map(detail).unwrap_or_default(),
        }
    }
}

fn detail(rule: &TopicRule) -> String {
    let pattern = rule.pattern.as_str();
    match &rule.schema {
        Some(SchemaRule { subject: Some(subject), by: None, version: Some(version), on_invalid, .. }) => {
            format!("{pattern} judged by {subject}:{version}, {}", on_invalid.as_str())
        }
        Some(SchemaRule { on_invalid, .. }) => {
            format!("{pattern} judged by the schemas that events name, {}", on_invalid.as_str())
        }
        None => pattern.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::*;
    use serde_json::json;

    fn spec(value: serde_json::Value) -> Result<ChangesSpec, serde_json::Error> {
        serde_json::from_value(value)
    }

    #[test]
    fn changes_are_read_and_shown_and_what_is_unknown_is_refused() {
        let changes = spec(json!({
            "topics": [{"name": "orders", "pattern": "orders/**", "schema": {"subject": "orders-value", "version": 2}}],
            "remove_policies": ["old"]}));
        let changes = changes.unwrap().read();
        assert_eq!(ChangesSpec::of(&changes).read(), changes, "whoever approves them reads what was asked for");
        let shown: Vec<_> = changes.iter().map(ChangeInfo::new).collect();
        assert_eq!((shown[0].kind, shown[0].action), ("topic rule", "set"));
        assert_eq!(shown[0].detail, "orders/** judged by orders-value:2, refuse");
        assert_eq!((shown[1].kind, &*shown[1].name, shown[1].action), ("policy", "old", "removed"));
        for bad in [
            json!({"rules": []}),
            json!({"topics": [{"name": "a", "pattern": "a", "colour": "red"}]}),
            json!({"topics": [{"pattern": "a"}]}),
            json!({"policies": [{"name": "a", "text": "", "more": 1}]}),
            json!({"remove_topics": ["No Name"]}),
        ] {
            assert!(spec(bad.clone()).is_err(), "{bad}");
        }
    }
}
