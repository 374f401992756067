//! Rules and policies that come with a rollout: files and flags into the changes of the API.

use crate::cli::admin::Api;
use crate::cli::apply::rules;
use crate::cli::failure::{Exit, Failure, Result};
use crate::cli::policy::files;
use clap::Args;
use myelin_catalog::Name;
use serde_json::{Value, json};
use std::path::PathBuf;

/// Rules and policies that come with it
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Rules and policies that come with it, site by site")]
pub(super) struct Changes {
    /// A rule for topics as `myelin apply` takes it, NAME.toml or NAME.json, or a folder of them; may be repeated
    #[arg(long, value_name = "FILE|DIR")]
    topics: Vec<PathBuf>,
    /// Let a rule that there is judge by that version of its subject, or by the newest there is now; may be repeated
    #[arg(long, value_name = "RULE[=VERSION]", value_parser = pin)]
    schema: Vec<(Name, Option<u32>)>,
    /// A rule for topics that goes; may be repeated
    #[arg(long, value_name = "NAME")]
    remove_topic: Vec<Name>,
    /// A policy, NAME.cedar, or a folder of them; may be repeated
    #[arg(long, value_name = "FILE|DIR")]
    policies: Vec<PathBuf>,
    /// A policy that goes; may be repeated
    #[arg(long, value_name = "NAME")]
    remove_policy: Vec<Name>,
    /// Leave out the filters that are staged: they stay staged
    #[arg(long)]
    only_changes: bool,
    /// Go on although a rule would turn back events that routers have recorded (`myelin capture`)
    #[arg(long)]
    pub(super) accept_failures: bool,
}

/// Reads `RULE=VERSION` or `RULE`.
fn pin(text: &str) -> std::result::Result<(Name, Option<u32>), String> {
    let (rule, version) = match text.split_once('=') {
        Some((rule, version)) => (rule, Some(version)),
        None => (text, None),
    };
    let told = |_| format!("`{text}` is neither RULE, for the newest version, nor RULE=VERSION, such as orders=2");
    let version = version.map(|version| version.parse().map_err(told)).transpose()?;
    Ok((rule.parse().map_err(|error| format!("{error}"))?, version))
}

impl Changes {
    /// Puts what flags ask for into the body of a request; `true` where they ask for something.
    pub(super) async fn put(&self, api: &Api, body: &mut Value) -> Result<bool> {
        let mut topics = Vec::new();
        for path in &self.topics {
            topics.extend(rules(path)?.iter().map(|rule| json!(rule)));
        }
        for (rule, version) in &self.schema {
            topics.push(repinned(&api.get(&format!("/v1/topics/{rule}")).await?, *version)?);
        }
        let mut policies = Vec::new();
        for path in &self.policies {
            let files = files::read(path)?;
            files::compile(&files)?;
            policies.extend(files.iter().map(|file| json!({"name": file.name, "text": file.text})));
        }
        let lists = [
            ("topics", topics),
            ("policies", policies),
            ("remove_topics", self.remove_topic.iter().map(|name| json!(name)).collect()),
            ("remove_policies", self.remove_policy.iter().map(|name| json!(name)).collect()),
        ];
        let mut changes = json!({});
        let lists = lists.into_iter().filter(|(_, list)| !list.is_empty());
        lists.for_each(|(kind, list)| changes[kind] = list.into());
        let has_some = changes != json!({});
        if self.only_changes && !has_some {
            let what = "--only-changes leaves the filters out, and nothing else is given";
            return Err(Failure::new(Exit::Usage, what).next("give --topics, --schema, --policies, or what to remove"));
        }
        if has_some {
            (body["changes"], body["only_changes"]) = (changes, self.only_changes.into());
        }
        Ok(has_some)
    }
}

/// The rule with another version of its subject, as a rollout takes it: `None` is the newest when it begins.
fn repinned(rule: &Value, version: Option<u32>) -> Result<Value> {
    let name = &rule["name"];
    if !rule["schema"]["subject"].is_string() || rule["schema"]["by"].is_string() {
        let what = format!("the rule {name} judges by no version of one subject");
        return Err(Failure::new(Exit::Usage, what).next("write the whole rule into a file, and give it with --topics"));
    }
    let mut schema = rule["schema"].clone();
    if let Some(fields) = schema.as_object_mut() {
        fields.remove("version");
        fields.extend(version.map(|version| ("version".to_owned(), version.into())));
    }
    Ok(json!({"name": name, "pattern": rule["pattern"], "residency": rule["residency"], "schema": schema}))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::*;
    use myelin_catalog::SchemaVersion;

    #[test]
    fn a_version_is_pinned_by_its_number() {
        let orders: Name = "orders".parse().unwrap();
        assert_eq!(pin("orders=2"), Ok((orders.clone(), Some(2))));
        assert_eq!(pin("orders"), Ok((orders, None)));
        for bad in ["", "orders=", "orders=latest", "=2", "Orders=2", "orders=-1"] {
            assert!(pin(bad).is_err(), "{bad}");
        }
        let rule = json!({"name": "orders", "pattern": "orders/**", "residency": {}, "allowed": ["eu1"],
            "schema": {"subject": "orders-value", "version": "latest", "on_invalid": "refuse", "required": true},
            "screening": {"by": "orders-value:1 (id 1)"}});
        for version in [Some(2), None] {
            let pinned = repinned(&rule, version).unwrap();
            let rule: myelin_catalog::TopicRule = serde_json::from_value(pinned).unwrap();
            assert_eq!(rule.schema.unwrap().version, version.map(SchemaVersion::Number));
        }
        let by_event = json!({"name": "orders", "schema": {"subject": "a", "by": "header"}});
        assert!(repinned(&by_event, Some(2)).is_err() && repinned(&json!({"name": "eu"}), None).is_err());
    }
}
