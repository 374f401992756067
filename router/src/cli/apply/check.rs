//! Whether what will be there fits together: checked before anything is changed.

use super::current::Current;
use super::folder::Folder;
use super::plan::{Action, Plan};
use super::registry::{Registry, found};
use super::state::Kind;
use crate::cli::admin::{Api, module_path};
use crate::cli::failure::Result;
use crate::policy::named;
use myelin_catalog::{Name, SchemaVersion, SubjectName, TopicRule};
use myelin_policy::Policies;
use std::collections::{BTreeMap, BTreeSet};

/// What stands against a plan.
pub(super) async fn check(api: &Api, folder: &Folder, current: &Current, plan: &Plan) -> Result<Vec<String>> {
    let mut faults = policies(folder, current, plan);
    faults.extend(topics(&mut Registry::new(api), folder, current, plan).await?);
    faults.extend(modules(api, folder, plan).await?);
    Ok(faults)
}

fn is_removed(plan: &Plan, kind: Kind, name: &str) -> bool {
    plan.changes.iter().any(|change| change.kind == kind && change.action == Action::Remove && change.name == name)
}

/// Policies hold together, and so are compiled together: those of the folder, and those that stay.
fn policies(folder: &Folder, current: &Current, plan: &Plan) -> Vec<String> {
    let wanted = folder.state.policies.iter();
    let mut texts: BTreeMap<String, &str> =
        wanted.map(|(name, text)| (folder.file(Kind::Policy, name.as_str()), text.as_str())).collect();
    if !plan.changes.iter().any(|change| change.kind == Kind::Policy) {
        return Vec::new();
    }
    for (name, text) in &current.state.policies {
        let stays = !is_removed(plan, Kind::Policy, name.as_str()) && !folder.state.policies.contains_key(name);
        if stays {
            texts.insert(format!("policy {name}"), text);
        }
    }
    match Policies::compile(texts.iter().map(|(name, text)| (&**name, *text))) {
        Ok(_) => misnamed(folder, plan),
        Err(errors) => vec![errors.to_string()],
    }
}

/// Policies that change name only whom there can be.
fn misnamed(folder: &Folder, plan: &Plan) -> Vec<String> {
    let changes = |name: &str| plan.changes.iter().any(|change| change.kind == Kind::Policy && change.name == name);
    let changing = folder.state.policies.iter().filter(|(name, _)| changes(name.as_str()));
    let checked = changing
        .filter_map(|(name, text)| named::check_names(&folder.file(Kind::Policy, name.as_str()), text.as_str()).err());
    checked.collect()
}

/// Rules for topics name subjects that will be there.
async fn topics(registry: &mut Registry<'_>, folder: &Folder, current: &Current, plan: &Plan) -> Result<Vec<String>> {
    let stay = current.state.topics.iter().filter(|(name, _)| !is_removed(plan, Kind::Topic, name.as_str()));
    let mut rules: BTreeMap<&Name, &TopicRule> = stay.collect();
    rules.extend(&folder.state.topics);
    let mut faults = Vec::new();
    for (name, rule) in rules {
        let Some(schema) = &rule.schema else { continue };
        let Some(subject) = &schema.subject else { continue };
        let refuse = |what: String| format!("{}: it names {what}", folder.file(Kind::Topic, name.as_str()));
        if !will_be(subject, folder, current, plan) {
            faults.push(refuse(format!("subject {subject}, which is not there; add its schema to the folder")));
            continue;
        }
        if let Some(SchemaVersion::Number(number)) = schema.version
            && registry.version(subject, number).await?.is_none()
        {
            faults.push(refuse(format!("version {number} of subject {subject}, which is not there")));
        }
    }
    Ok(faults)
}

fn will_be(subject: &SubjectName, folder: &Folder, current: &Current, plan: &Plan) -> bool {
    let stays = current.latest(subject).is_some() && !is_removed(plan, Kind::Schema, subject.as_str());
    stays || folder.state.schemas.contains_key(subject)
}

/// Bindings that change name modules that were pushed.
async fn modules(api: &Api, folder: &Folder, plan: &Plan) -> Result<Vec<String>> {
    let is_put = |name: &Name| {
        let mut bindings = plan.changes.iter().filter(|change| change.kind == Kind::Binding);
        bindings.any(|change| change.name == name.as_str())
    };
    let bindings = folder.state.bindings.values().filter(|binding| is_put(&binding.name));
    let mut asked = BTreeSet::new();
    let mut faults = Vec::new();
    for binding in bindings {
        let module = binding.module.to_string();
        if !asked.insert(module.clone()) || found(api.get(&module_path(&module)?).await)?.is_some() {
            continue;
        }
        let file = folder.file(Kind::Binding, binding.name.as_str());
        faults.push(format!("{file}: there is no module {module}; push it with `myelin filter push`"));
    }
    Ok(faults)
}
