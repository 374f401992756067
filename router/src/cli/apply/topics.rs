//! Rules for topics: which version each means, where something changes, and whether a rollout brings it.

use super::current::Current;
use super::folder::Folder;
use super::plan::{Action, Brought, By, Call, Change, Plan, differences, path, pruned, unnamed};
use super::state::Kind;
use crate::cli::http::wishing;
use myelin_catalog::{SubjectName, TopicRule};
use serde_json::{Value, json};

/// What a rule judges by that is registered before it holds, as plans show it.
const REGISTERED: &str = "the new one";

/// How rules come to hold that judge payloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bringing {
    /// By the rollout at the end.
    Rollout,
    /// At once: there are no sites to roll out over.
    AtOnce {
        /// Also those that would turn back recorded events.
        accept_failures: bool,
    },
    /// Not at all: whoever applies the folder starts the rollout.
    Later,
}

impl Plan {
    /// Adds what differs in rules for topics; `meant` says which version one means that names none. Those that judge
    /// payloads otherwise than before come by a rollout, like filters: what they would turn back is found out before it is
    /// turned back everywhere.
    pub(super) fn compare_topics(
        &mut self,
        folder: &Folder,
        current: &Current,
        bringing: Bringing,
        meant: impl Fn(&SubjectName) -> Option<u32>,
    ) {
        for (name, rule) in &folder.state.topics {
            // One that is yet to be registered has no number: the router gives it.
            let (rule, before) = (rule.clone().settled_by(&meant), current.state.topics.get(name));
            if before == Some(&rule) {
                self.unchanged += 1;
                continue;
            }
            let is_judged_anew = rule.judges_otherwise_than(before);
            let by = match bringing {
                Bringing::Later if is_judged_anew => {
                    let file = folder.file(Kind::Topic, name.as_str());
                    self.remarks.push(format!(
                        "topic {name} judges payloads otherwise than before, which comes by a rollout: \
                         `myelin rollout start --topics {file}`"
                    ));
                    self.defers_rules = true;
                    continue;
                }
                Bringing::Rollout if is_judged_anew => By::Rollout(Brought::Rule(json!(rule))),
                _ => {
                    let accept_failures = bringing == Bringing::AtOnce { accept_failures: true };
                    let path = wishing(&path(Kind::Topic, name.as_str()), &[("accept-failures", accept_failures)]);
                    By::Calls(vec![Call::put(path, unnamed(json!(rule)))])
                }
            };
            self.changes.push(change(&rule, before, by, current));
        }
    }

    /// Removes the rules that the folder does not have; none before those that may come in their place: what judges payloads
    /// goes with the rollout that brings others, as everything does where one brings any, and nothing goes while others are
    /// left for later.
    pub(super) fn prune_topics(&mut self, folder: &Folder, current: &Current, bringing: Bringing) {
        let brings = self.changes.iter().any(|change| matches!(change.by, By::Rollout(_)));
        for name in pruned(Kind::Topic, folder, current) {
            if self.defers_rules {
                self.remarks.push(format!("topic {name} stays until the rules have come that may take its place"));
                continue;
            }
            let rule = current.state.topics.iter().find(|(known, _)| known.as_str() == name).map(|(_, rule)| rule);
            self.remove(Kind::Topic, name.clone());
            let (Some(removal), Some(rule)) = (self.changes.last_mut(), rule) else { continue };
            removal.sites = Some(current.sites_of(&[rule]));
            if brings || (bringing == Bringing::Rollout && rule.schema.is_some()) {
                removal.by = By::Rollout(Brought::Removal(name));
            }
        }
    }
}

fn change(rule: &TopicRule, before: Option<&TopicRule>, by: By, current: &Current) -> Change {
    let (kind, name) = (Kind::Topic, rule.name.to_string());
    let sites = Some(current.sites_of(&before.into_iter().chain([rule]).collect::<Vec<_>>()));
    let Some(before) = before else {
        return Change { kind, name, action: Action::Create, details: Vec::new(), sites, by };
    };
    let mut details = differences(&json!(before), &shown(rule));
    let [old, new] = [before, rule].map(|rule| current.sites_of(&[rule]));
    let told = [("now at", &new, &old), ("no more at", &old, &new)];
    details.extend(told.into_iter().filter_map(|(word, here, there)| {
        let only: Vec<_> = here.iter().filter(|site| !there.contains(site)).map(String::as_str).collect();
        (!only.is_empty()).then(|| format!("events may be {word} {}", only.join(", ")))
    }));
    Change { kind, name, action: Action::Update, details, sites, by }
}

fn shown(rule: &TopicRule) -> Value {
    let mut shown = json!(rule);
    if rule.schema.as_ref().is_some_and(|schema| schema.version.is_none()) {
        shown["schema"]["version"] = REGISTERED.into();
    }
    shown
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::*;
    use myelin_catalog::limits::GOVERNANCE_CHANGES_MAX;

    /// Rules as a folder or the catalog has them, at two sites.
    fn rules(rules: &[Value]) -> (Folder, Current) {
        let topics: std::collections::BTreeMap<_, TopicRule> = rules
            .iter()
            .map(|rule| serde_json::from_value::<TopicRule>(rule.clone()).unwrap())
            .map(|rule| (rule.name.clone(), rule))
            .collect();
        let mut folder = Folder::default();
        folder.kinds.insert(Kind::Topic);
        folder.files =
            topics.keys().map(|name| ((Kind::Topic, name.to_string()), format!("{name}.toml").into())).collect();
        folder.state.topics = topics.clone();
        let mut current = Current::default();
        current.state.topics = topics;
        current.sites = ["eu1", "us1"]
            .map(|name| serde_json::from_value(json!({"name": name, "region": &name[..2], "cloud": "unset"})).unwrap())
            .into();
        (folder, current)
    }

    fn plan(wanted: &[Value], there: &[Value], bringing: Bringing, newest: Option<u32>) -> Plan {
        let (folder, current) = (rules(wanted).0, rules(there).1);
        let mut plan = Plan::default();
        plan.compare_topics(&folder, &current, bringing, |_| newest);
        plan.prune_topics(&folder, &current, bringing);
        plan
    }

    fn judging(name: &str, version: Option<Value>) -> Value {
        let schema = json!({"subject": "s", "on_invalid": "refuse", "required": true});
        let mut rule = json!({"name": name, "pattern": "orders/**", "schema": schema});
        if let Some(version) = version {
            rule["schema"]["version"] = version;
        }
        rule
    }

    #[test]
    fn a_rule_without_a_version_means_the_folders_and_another_one_comes_by_a_rollout() {
        let (unsaid, there) = ([judging("a", None)], [judging("a", Some(3.into()))]);
        let same = plan(&unsaid, &there, Bringing::Rollout, Some(3));
        assert!(same.is_empty() && same.unchanged == 1, "{same:?}");
        let next = plan(&unsaid, &there, Bringing::Rollout, Some(4));
        assert_eq!(next.changes[0].details, ["schema.version: 3 -> 4"]);
        assert_eq!(next.brought(), [json!({"topics": [judging("a", Some(4.into()))], "remove_topics": []})]);
        // What the folder registers first has no number yet.
        let new = plan(&unsaid, &there, Bringing::Rollout, None);
        assert_eq!(new.changes[0].details, ["schema.version: 3 -> \"the new one\""]);
        assert!(new.brought()[0]["topics"][0]["schema"]["version"].is_null());
        // Alone there is nothing to roll out over; without a rollout the rule waits.
        assert!(plan(&unsaid, &there, Bringing::AtOnce { accept_failures: false }, Some(4)).brought().is_empty());
        let later = plan(&unsaid, &there, Bringing::Later, Some(4));
        assert!(later.is_empty() && later.remarks[0].contains("`myelin rollout start --topics a.toml`"), "{later:?}");
    }

    #[test]
    fn where_events_may_be_changes_at_once_and_at_the_sites_that_it_is_about() {
        let at = |regions: &[&str]| json!({"name": "a", "pattern": "x", "residency": {"regions": regions}});
        let plan = plan(&[at(&["us"])], &[at(&["eu"])], Bringing::Rollout, None);
        let change = &plan.changes[0];
        assert!(matches!(change.by, By::Calls(_)));
        assert_eq!(change.sites.as_deref(), Some(&["eu1".to_owned(), "us1".to_owned()][..]));
        assert_eq!(change.details[1..], ["events may be now at us1", "events may be no more at eu1"]);
    }

    #[test]
    fn no_rule_goes_before_the_one_that_takes_its_place() {
        let there = [json!({"name": "eu", "pattern": "orders/**", "residency": {"regions": ["eu"]}})];
        let mut instead = judging("eu-orders", None);
        instead["residency"] = json!({"regions": ["eu"]});
        let brought = plan(&[instead.clone()], &there, Bringing::Rollout, Some(1));
        assert!(brought.changes.iter().all(|change| matches!(change.by, By::Rollout(_))), "{brought:?}");
        let later = plan(&[instead], &there, Bringing::Later, Some(1));
        assert!(later.is_empty() && later.remarks[1].contains("topic eu stays"), "{later:?}");
        // What a rule judges is its topics, too.
        let mut wider = judging("a", Some(1.into()));
        let narrow = [wider.clone()];
        wider["pattern"] = "**".into();
        let wider = plan(&[wider], &narrow, Bringing::Rollout, None);
        assert!(matches!(wider.changes[0].by, By::Rollout(_)), "{wider:?}");
    }

    #[test]
    fn a_rollout_brings_what_it_may_and_rules_before_others_go() {
        let wanted: Vec<_> = (0..GOVERNANCE_CHANGES_MAX).map(|at| judging(&format!("r{at}"), None)).collect();
        let plan = plan(&wanted, &[judging("old", Some(1.into()))], Bringing::Rollout, Some(1));
        let parts = plan.brought();
        let counts: Vec<_> = parts
            .iter()
            .map(|part| ["topics", "remove_topics"].map(|list| part[list].as_array().unwrap().len()))
            .collect();
        assert_eq!(counts, [[GOVERNANCE_CHANGES_MAX, 0], [0, 1]]);
    }
}
