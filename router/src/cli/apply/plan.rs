//! What differs between a folder and the catalog, and the calls that take the difference away.

use super::course::Course;
use super::current::Current;
use super::folder::Folder;
use super::state::Kind;
use crate::cli::failure::Failure;
use crate::tenants::{check_reach, new_selectors, unmet_shares};
use hyper::Method;
use myelin_catalog::limits::{GOVERNANCE_CHANGES_MAX, GOVERNANCE_LEN_MAX_BYTES};
use myelin_catalog::{Binding, Name, Tenant, check_among};
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::Arc;

/// Characters of a value that are shown.
const SHOWN_CHARS_MAX: usize = 60;
/// Bytes that the catalog writes around a rule of a rollout, and more.
const FRAME_BYTES: usize = 64;

/// What is to be done, in this order.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) changes: Vec<Change>,
    pub(super) unchanged: usize,
    /// What stays as it is, although the folder says something else.
    pub(super) remarks: Vec<String>,
    /// Whether rules for topics are left as they are for a later rollout.
    pub(super) defers_rules: bool,
    /// The bindings that a rollout makes active, or takes away, at the end.
    pub(super) activates: Vec<String>,
    /// All sites, at which everything changes that says no sites of its own; none at a router that is alone.
    pub(super) sites: Vec<String>,
    /// The catalog's revision for which this is the plan.
    pub(super) revision: u64,
}

/// One thing that changes.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) kind: Kind,
    pub(super) name: String,
    pub(super) action: Action,
    /// What changes of it, for people.
    pub(super) details: Vec<String>,
    /// The sites at which something changes; `None` = all.
    pub(super) sites: Option<Vec<String>>,
    pub(super) by: By,
}

/// By what a change is made.
#[derive(Debug, PartialEq)]
pub(super) enum By {
    /// Calls of the admin API: it holds at once, everywhere.
    Calls(Vec<Call>),
    /// The rollout at the end brings it, site by site.
    Rollout(Brought),
}

/// A change of rules for topics that a rollout brings.
#[derive(Debug, PartialEq)]
pub(super) enum Brought {
    /// This rule, in the place of the one of the same name.
    Rule(Value),
    /// The rule of that name goes.
    Removal(String),
}

/// What becomes of a thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Action {
    Create,
    Update,
    Remove,
}

/// A call of the admin API.
#[derive(Debug, PartialEq)]
pub(super) struct Call {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) body: Option<Value>,
}

impl Action {
    /// As plans and programs name it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Update => "update",
            Self::Remove => "remove",
        }
    }

    /// As it is told afterwards.
    pub(super) fn done(self) -> &'static str {
        match self {
            Self::Create => "created",
            Self::Update => "updated",
            Self::Remove => "removed",
        }
    }
}

impl Call {
    pub(super) fn put(path: String, body: Value) -> Self {
        Self { method: Method::PUT, path, body: Some(body) }
    }

    pub(super) fn post(path: String, body: Value) -> Self {
        Self { method: Method::POST, path, body: Some(body) }
    }

    pub(super) fn delete(path: String) -> Self {
        Self { method: Method::DELETE, path, body: None }
    }
}

impl Plan {
    /// Adds what differs in tenants: removals first, then each as soon as nothing of it is another one's any more.
    ///
    /// # Errors
    /// Why some of them cannot be, or not after the others.
    pub(super) fn compare_tenants(
        &mut self,
        folder: &Folder,
        current: &Current,
        prune: bool,
    ) -> Result<(), Vec<String>> {
        let (wanted, there) = (&folder.state.tenants, &current.state.tenants);
        let is_pruned = |name: &Name| prune && folder.kinds.contains(&Kind::Tenant) && !wanted.contains_key(name);
        let mut now = BTreeMap::new();
        for (name, tenant) in there {
            if is_pruned(name) {
                self.remove(Kind::Tenant, name.to_string());
            } else {
                now.insert(name.clone(), Arc::new(tenant.clone()));
            }
        }
        let differs = |(name, tenant): &(&Name, &Tenant)| there.get(*name) != Some(*tenant);
        let (mut waiting, same): (Vec<_>, Vec<_>) = wanted.iter().partition(differs);
        self.unchanged += same.len();
        let mut faults = Vec::new();
        while let Some(at) = waiting.iter().position(|(_, tenant)| check_among(tenant, &now).is_ok()) {
            let (name, tenant) = waiting.remove(at);
            faults.extend(new_selectors(tenant, there.get(name)).find_map(|selector| {
                let why = check_reach(selector).err()?;
                Some(format!("{}: services: `{selector}` {why}", folder.file(Kind::Tenant, name.as_str())))
            }));
            now.insert(name.clone(), Arc::new(tenant.clone()));
            let before = there.get(name).map(|there| json!(there));
            self.change(Kind::Tenant, name.to_string(), before.as_ref(), json!(tenant));
        }
        let fault = |(name, tenant): (&Name, &Tenant)| {
            let why = check_among(tenant, &now).err().map(|error| error.to_string()).unwrap_or_default();
            format!("{}: {why}", folder.file(Kind::Tenant, name.as_str()))
        };
        faults.extend(waiting.into_iter().map(fault));
        // As it will be: those that come with the folder count, and those that are pruned do not.
        let unmet =
            wanted.values().filter_map(|tenant| unmet_shares(tenant, |name| now.keys().any(|it| it.as_str() == name)));
        self.remarks.extend(unmet);
        if faults.is_empty() { Ok(()) } else { Err(faults) }
    }

    /// Adds what differs in policies and bindings; removes what the folder does not have, where that is wanted.
    pub(super) fn compare(&mut self, folder: &Folder, current: &Current, prune: bool) {
        let (wanted, there) = (&folder.state, &current.state);
        let text = |text: &String| json!({"text": text});
        self.put(Kind::Policy, &wanted.policies, &there.policies, text);
        let bindings = consenting(&wanted.bindings, &there.bindings);
        self.put(Kind::Binding, &bindings, &there.bindings, |binding| json!(binding));
        if !prune {
            return;
        }
        // What was applied last goes first.
        for kind in [Kind::Binding, Kind::Policy] {
            for name in pruned(kind, folder, current) {
                self.remove(kind, name);
            }
        }
    }

    pub(super) fn remove(&mut self, kind: Kind, name: String) {
        let by = By::Calls(vec![Call::delete(path(kind, &name))]);
        self.changes.push(Change { kind, name, action: Action::Remove, details: Vec::new(), sites: None, by });
    }

    fn change(&mut self, kind: Kind, name: String, before: Option<&Value>, body: Value) {
        let (action, details) = match before {
            Some(before) => (Action::Update, differences(before, &body)),
            None => (Action::Create, Vec::new()),
        };
        let by = By::Calls(vec![Call::put(path(kind, &name), unnamed(body))]);
        self.changes.push(Change { kind, name, action, details, sites: None, by });
    }

    fn put<N: Ord + Display, T: PartialEq + Serialize>(
        &mut self,
        kind: Kind,
        wanted: &BTreeMap<N, T>,
        there: &BTreeMap<N, T>,
        body: impl Fn(&T) -> Value,
    ) {
        for (name, thing) in wanted {
            let before = there.get(name);
            if before == Some(thing) {
                self.unchanged += 1;
            } else {
                self.change(kind, name.to_string(), before.map(&body).as_ref(), body(thing));
            }
        }
    }

    /// Finds out what a rollout at the end makes active: all that will be staged and is not active.
    pub(super) fn activate(&mut self, current: &Current) {
        let bindings = self.changes.iter().filter(|change| change.kind == Kind::Binding);
        let mut names: Vec<_> = bindings.map(|change| change.name.clone()).collect();
        names.extend(current.inactive.iter().map(ToString::to_string));
        names.sort();
        names.dedup();
        self.activates = names;
    }

    /// What rollouts at the end bring, for the API: one after the other, each as much as one may. Rules come before others
    /// go, so that nothing is unjudged meanwhile.
    pub(super) fn brought(&self) -> Vec<Value> {
        let brought = self.changes.iter().filter_map(|change| match &change.by {
            By::Rollout(brought) => Some(brought),
            By::Calls(_) => None,
        });
        let (rules, removals): (Vec<_>, Vec<_>) = brought.partition(|brought| matches!(brought, Brought::Rule(_)));
        let (mut parts, mut count, mut len_bytes) = (Vec::<Value>::new(), 0, 0);
        for brought in rules.into_iter().chain(removals) {
            let (list, item) = match brought {
                Brought::Rule(rule) => ("topics", rule.clone()),
                Brought::Removal(name) => ("remove_topics", json!(name)),
            };
            let more_bytes = item.to_string().len() + FRAME_BYTES;
            if parts.is_empty() || count == GOVERNANCE_CHANGES_MAX || len_bytes + more_bytes > GOVERNANCE_LEN_MAX_BYTES
            {
                parts.push(json!({"topics": [], "remove_topics": []}));
                (count, len_bytes) = (0, 0);
            }
            (count, len_bytes) = (count + 1, len_bytes + more_bytes);
            let part = parts.last_mut().and_then(|part| part[list].as_array_mut());
            part.into_iter().for_each(|list| list.push(item.clone()));
        }
        parts
    }

    /// Whether nothing is to be done.
    pub(super) fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.activates.is_empty()
    }

    /// How many things are changed how, where those that wait are not counted.
    pub(super) fn count(&self, action: Action, proposal: Option<u64>) -> usize {
        let counts = |change: &&Change| change.action == action && !(proposal.is_some() && self.waits(change));
        self.changes.iter().filter(counts).count()
    }

    /// Whether a change is not there, or is not active, before a proposal is approved: what a rollout brings, and the
    /// schemas that are removed after it.
    pub(super) fn waits(&self, change: &Change) -> bool {
        let is_last = change.kind == Kind::Schema && change.action == Action::Remove;
        let is_staged = change.kind == Kind::Binding && self.activates.contains(&change.name);
        is_last || is_staged || matches!(change.by, By::Rollout(_))
    }

    /// The same for programs, with what the router answered about the rollout, or why it went no further.
    pub(super) fn for_programs(&self, is_applied: bool, course: &Course, made: Result<&Value, &Failure>) -> Value {
        let rollout = made.unwrap_or(&Value::Null);
        let proposal = rollout["proposal"].as_u64();
        let is_through = is_applied && made.is_ok();
        let change = |change: &Change| {
            let Change { kind, name, action, details, sites, by } = change;
            let (by_rollout, waits) = (matches!(by, By::Rollout(_)), proposal.is_some() && self.waits(change));
            let done = course.done.contains(&(*kind, name.clone())) || (by_rollout && is_through && !waits);
            json!({"kind": kind.noun(), "name": name, "action": action.name(), "details": details,
                "sites": sites.as_ref().unwrap_or(&self.sites), "by_rollout": by_rollout, "waits": waits, "done": done})
        };
        json!({
            "changes": self.changes.iter().map(change).collect::<Vec<_>>(),
            "activates": self.activates,
            "sites": self.sites,
            "unchanged": self.unchanged,
            "remarks": self.remarks,
            "revision": course.revision,
            "applied": is_through && proposal.is_none(),
            "proposal": proposal,
            "rollout": rollout,
            "failed": made.err().map(|failure| &failure.what),
        })
    }
}

/// The things of a kind that a folder speaks of and does not have.
pub(super) fn pruned(kind: Kind, folder: &Folder, current: &Current) -> Vec<String> {
    let is_wanted = |name: &String| folder.files.contains_key(&(kind, name.clone()));
    let names = if folder.kinds.contains(&kind) { current.names(kind) } else { Vec::new() };
    names.into_iter().filter(|name| !is_wanted(name)).collect()
}

/// The bindings of a folder; one that says nothing of what is agreed to keeps what was agreed to for the same module.
fn consenting(wanted: &BTreeMap<Name, Binding>, there: &BTreeMap<Name, Binding>) -> BTreeMap<Name, Binding> {
    let mut bindings = wanted.clone();
    for (name, binding) in &mut bindings {
        let known = there.get(name).filter(|known| known.module == binding.module);
        if let Some(known) = known.filter(|_| binding.consent.is_empty()) {
            binding.consent = known.consent.clone();
        }
    }
    bindings
}

/// Where a topic's rule, a policy or a binding is in the API.
pub(super) fn path(kind: Kind, name: &str) -> String {
    format!("/v1/{}/{name}", kind.folder())
}

/// Without the name, which is in the path.
pub(super) fn unnamed(mut body: Value) -> Value {
    if let Some(fields) = body.as_object_mut() {
        fields.remove("name");
    }
    body
}

/// The fields that differ, for people.
pub(super) fn differences(old: &Value, new: &Value) -> Vec<String> {
    let mut found = Vec::new();
    differ(String::new(), old, new, &mut found);
    found
}

fn differ(field: String, old: &Value, new: &Value, found: &mut Vec<String>) {
    match (old, new) {
        (old, new) if old == new => {}
        (Value::Object(old), Value::Object(new)) => {
            let names = old.keys().chain(new.keys().filter(|name| !old.contains_key(*name)));
            for name in names {
                let inner = if field.is_empty() { name.clone() } else { format!("{field}.{name}") };
                let of = |fields: &serde_json::Map<String, Value>| fields.get(name).cloned().unwrap_or_default();
                differ(inner, &of(old), &of(new), found);
            }
        }
        (Value::String(old), Value::String(new)) if old.contains('\n') || new.contains('\n') => {
            found.push(format!("{field}: {} lines, {} before", new.lines().count(), old.lines().count()));
        }
        (old, new) => found.push(format!("{field}: {} -> {}", shown(old), shown(new))),
    }
}

fn shown(value: &Value) -> String {
    if value.is_null() {
        return "nothing".to_owned();
    }
    let text = value.to_string();
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests;
