#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::catalog::Catalog;
use crate::digest::Digest;
use crate::op::Op;
use crate::rollout::{Cause, Outcome, RolloutPlan};
use crate::schemas::{NewSchema, SchemaFormat, Wanted};
use crate::testing::{Story, name};

const SITES: [&str; 3] = ["a", "b", "c"];

fn rule(called: &str, site: u8) -> TopicRule {
    let residency = serde_json::json!({"sites": [format!("s{site}")]});
    let rule = serde_json::json!({"name": called, "pattern": format!("{called}/**"), "residency": residency});
    serde_json::from_value(rule).unwrap()
}

fn judged(called: &str, schema: serde_json::Value) -> GovernanceChange {
    let rule = serde_json::json!({"name": called, "pattern": "orders/**", "schema": schema});
    GovernanceChange::TopicRuleSet { rule: Box::new(serde_json::from_value(rule).unwrap()) }
}

fn policy(called: &str, text: u8) -> Policy {
    Policy { name: name(called), text: format!("permit (principal, action, resource); // {text}") }
}

fn plan(changes: Vec<GovernanceChange>) -> RolloutPlan {
    RolloutPlan { canary: vec![name("a")], waves: vec![50, 100], changes, ..RolloutPlan::default() }
}

fn register(story: &mut Story, subject: &str, text: &str) {
    let (format, digest) = (SchemaFormat::Json, Digest::of(text.as_bytes()));
    let schema = NewSchema { format, digest, text: text.to_owned(), references: Vec::new() };
    let Wanted::New(registration) = story.catalog.schemas().register_next(&subject.parse().unwrap(), schema) else {
        panic!("{subject} has that version already")
    };
    story.add(Op::SchemaRegistered { registration });
}

fn finish(story: &mut Story, outcome: Outcome) {
    let id = story.catalog.rollout().unwrap().id;
    story.add(Op::RolloutFinished { id, outcome, reason: String::new() });
}

fn abort(story: &mut Story) {
    let id = story.catalog.rollout().unwrap().id;
    story.add(Op::RolloutAborted { id, cause: Cause::Hand, reason: String::new() });
}

#[test]
fn a_rollout_without_filters_leaves_what_is_staged_and_is_no_generation_to_go_back_by() {
    let mut story = Story::with_sites(3);
    let (staged, active) = (story.catalog.staged().clone(), story.catalog.active().clone());
    let changes = vec![GovernanceChange::PolicySet { policy: policy("p", 1) }];
    story.add(story.catalog.governance_start(plan(changes.clone())));
    assert_eq!(story.catalog.rollout().unwrap().candidate, active.bindings);
    while story.catalog.rollout().unwrap().next().is_some() {
        story.advance();
    }
    finish(&mut story, Outcome::Complete);
    assert_eq!((story.catalog.staged(), &story.catalog.active().bindings), (&staged, &active.bindings));
    assert_eq!((story.catalog.active().source, story.catalog.policies().len()), (active.source, 1));
    assert_eq!(
        story.catalog.rollback_target().map(|target| target.number),
        Some(0),
        "the set before, and not this one"
    );
    let again = story.refusal(story.catalog.governance_start(plan(changes)));
    assert_eq!(again.code(), "conflict", "{again}");
    let removal = vec![GovernanceChange::PolicyRemoved { name: name("other") }];
    assert_eq!(story.refusal(story.catalog.governance_start(plan(removal))).code(), "not-found");
}

#[test]
fn what_a_rollout_changes_nobody_else_changes_until_it_is_aborted() {
    let mut story = Story::with_sites(3);
    story.add(Op::PolicySet { policy: policy("p", 1) });
    story.add(Op::TopicRuleSet { rule: Box::new(rule("r", 1)) });
    let changes = vec![
        GovernanceChange::PolicySet { policy: policy("p", 2) },
        GovernanceChange::TopicRuleRemoved { name: name("r") },
    ];
    story.add(story.catalog.governance_start(plan(changes)));
    let held = [
        Op::PolicySet { policy: policy("p", 3) },
        Op::PolicyRemoved { name: name("p") },
        Op::TopicRuleSet { rule: Box::new(rule("r", 3)) },
        Op::TopicRuleRemoved { name: name("r") },
    ];
    for op in held.clone() {
        let refused = story.refusal(op);
        assert_eq!(refused.code(), "rollout-running");
        assert!(refused.to_string().contains("abort it"), "{refused}");
    }
    // A right is taken away at once, by a policy of another name, and everywhere.
    story.add(Op::PolicySet { policy: policy("revoked", 1) });
    assert_eq!(story.catalog.governance_ahead().policies().len(), 2);
    abort(&mut story);
    story.add(held[0].clone());
    finish(&mut story, Outcome::RolledBack);
    assert_eq!(story.catalog.policy(&name("p")), Some(&policy("p", 3)), "what came after the abort stays");
    assert!(story.catalog.topic_rule(&name("r")).is_some());
}

#[test]
fn a_rule_of_a_rollout_names_a_version_that_is_there_and_stays() {
    let mut story = Story::with_sites(2);
    register(&mut story, "orders-value", "1");
    let start = |story: &Story, schema| story.catalog.governance_start(plan(vec![judged("orders", schema)]));
    let latest = start(&story, serde_json::json!({"subject": "orders-value", "version": "latest"}));
    let refused = story.refusal(latest);
    assert_eq!(refused.code(), "invalid-topic-rule");
    assert!(refused.to_string().contains("say its number"), "{refused}");
    let missing = start(&story, serde_json::json!({"subject": "orders-value", "version": 2}));
    assert_eq!(story.refusal(missing).code(), "version-not-found");
    let unknown = start(&story, serde_json::json!({"subject": "other", "by": "header", "version": "latest"}));
    assert_eq!(story.refusal(unknown).code(), "version-not-found");

    register(&mut story, "orders-value", "2");
    story.add(start(&story, serde_json::json!({"subject": "orders-value", "version": 2})));
    let subject: crate::schemas::SubjectName = "orders-value".parse().unwrap();
    let delete = |version| Op::SchemaVersionDeleted { subject: subject.clone(), version, permanent: false };
    assert_eq!(story.refusal(delete(2)).code(), "rollout-running");
    assert_eq!(
        story.refusal(Op::SubjectDeleted { subject: subject.clone(), permanent: false }).code(),
        "rollout-running"
    );
    story.add(delete(1));
    abort(&mut story);
    story.add(delete(2));
}

#[test]
fn the_changes_of_a_rollout_are_bounded_and_each_is_made_once() {
    let mut story = Story::with_sites(2);
    let start = |story: &Story, changes| story.catalog.governance_start(plan(changes));
    let set = |called: &str| GovernanceChange::PolicySet { policy: policy(called, 1) };
    let twice = start(&story, vec![set("p"), GovernanceChange::PolicyRemoved { name: name("p") }]);
    assert!(story.refusal(twice).to_string().contains("changed twice"));
    let many = start(&story, (0..=GOVERNANCE_CHANGES_MAX).map(|at| set(&format!("p{at}"))).collect());
    assert!(story.refusal(many).to_string().contains("64 are the most"));
    let long = |at| Policy { name: name(&format!("p{at}")), text: "x".repeat(60 * 1024) };
    let long = start(&story, (0..5).map(|at| GovernanceChange::PolicySet { policy: long(at) }).collect());
    assert!(story.refusal(long).to_string().contains("bytes together"));
    let empty = GovernanceChange::PolicySet { policy: Policy { name: name("p"), text: String::new() } };
    let empty = start(&story, vec![empty]);
    assert_eq!(story.refusal(empty).code(), "invalid-policy");
    // Room is for what a rollout brings, too.
    for at in 0..crate::limits::POLICIES_MAX - 1 {
        story.add(Op::PolicySet { policy: policy(&format!("p{at}"), 1) });
    }
    let two = start(&story, vec![set("x"), set("y")]);
    assert_eq!(story.refusal(two).code(), "catalog-full");
    let one = start(&story, vec![set("x")]);
    assert_eq!(one.subject(), "policy x");
    assert_eq!(
        start(&story, (0..6).map(|at| set(&format!("p{at}"))).collect()).subject(),
        "policy p0, policy p1, policy p2, policy p3 and 2 more"
    );
    story.add(one);
    assert_eq!(story.refusal(Op::PolicySet { policy: policy("y", 1) }).code(), "catalog-full");
}

/// What may happen to a catalog; names and values are small numbers, so that they meet.
#[derive(Clone, Debug)]
enum Act {
    AtOnce(Edit),
    Start { edits: Vec<Edit>, is_alone: bool },
    Advance,
    Abort,
    Finish,
}

/// A rule or a policy gets a value, or goes.
#[derive(Clone, Debug)]
struct Edit {
    is_policy: bool,
    of: u8,
    to: Option<u8>,
}

/// What holds, by kind and name.
type Held = BTreeMap<(bool, u8), u8>;

/// The same in few words: what holds, and the rollout under way.
#[derive(Default)]
struct Model {
    base: Held,
    running: Option<Running>,
}

struct Running {
    edits: Vec<Edit>,
    is_aborted: bool,
    reached: BTreeSet<String>,
}

impl Edit {
    fn key(&self) -> (bool, u8) {
        (self.is_policy, self.of)
    }

    fn apply(&self, held: &mut Held) {
        match self.to {
            Some(to) => drop(held.insert(self.key(), to)),
            None => drop(held.remove(&self.key())),
        }
    }

    fn change(&self) -> GovernanceChange {
        let called = format!("n{}", self.of);
        match (self.is_policy, self.to) {
            (true, Some(to)) => GovernanceChange::PolicySet { policy: policy(&called, to) },
            (true, None) => GovernanceChange::PolicyRemoved { name: name(&called) },
            (false, Some(to)) => GovernanceChange::TopicRuleSet { rule: Box::new(rule(&called, to)) },
            (false, None) => GovernanceChange::TopicRuleRemoved { name: name(&called) },
        }
    }

    fn op(&self) -> Op {
        match self.change() {
            GovernanceChange::PolicySet { policy } => Op::PolicySet { policy },
            GovernanceChange::PolicyRemoved { name } => Op::PolicyRemoved { name },
            GovernanceChange::TopicRuleSet { rule } => Op::TopicRuleSet { rule },
            GovernanceChange::TopicRuleRemoved { name } => Op::TopicRuleRemoved { name },
        }
    }
}

impl Model {
    fn may(&self, act: &Act, story: &Story) -> bool {
        let is_forward = self.running.as_ref().is_some_and(|running| !running.is_aborted);
        let has_next = || story.catalog.rollout().is_some_and(|rollout| rollout.next().is_some());
        match act {
            Act::AtOnce(edit) => {
                let is_held = is_forward
                    && self.running.iter().flat_map(|running| &running.edits).any(|other| other.key() == edit.key());
                !is_held && (edit.to.is_some() || self.base.contains_key(&edit.key()))
            }
            Act::Start { edits, is_alone } => {
                let keys: BTreeSet<_> = edits.iter().map(Edit::key).collect();
                let are_there = edits.iter().all(|edit| edit.to.is_some() || self.base.contains_key(&edit.key()));
                let is_new = edits.iter().any(|edit| edit.to != self.base.get(&edit.key()).copied());
                let has_filters = !is_alone && !story.catalog.staged_plan().is_empty();
                self.running.is_none() && keys.len() == edits.len() && are_there && (is_new || has_filters)
            }
            Act::Advance => is_forward && has_next(),
            Act::Abort => is_forward,
            Act::Finish => self.running.is_some() && (!is_forward || !has_next()),
        }
    }

    fn take(&mut self, act: &Act, story: &Story) {
        match (act, &mut self.running) {
            (Act::AtOnce(edit), _) => edit.apply(&mut self.base),
            (Act::Start { edits, .. }, running) => {
                *running = Some(Running { edits: edits.clone(), is_aborted: false, reached: BTreeSet::new() });
            }
            (Act::Advance, Some(running)) => {
                let sites = story.catalog.rollout().unwrap().step_sites();
                running.reached.extend(sites.iter().map(ToString::to_string));
            }
            (Act::Abort, Some(running)) => running.is_aborted = true,
            (Act::Finish, running) => {
                let ended = running.take().unwrap();
                if !ended.is_aborted {
                    ended.edits.iter().for_each(|edit| edit.apply(&mut self.base));
                }
            }
            _ => unreachable!("it may be"),
        }
    }

    fn at(&self, site: Option<&str>) -> Held {
        let mut held = self.base.clone();
        let there = |running: &&Running| !running.is_aborted && site.is_some_and(|site| running.reached.contains(site));
        if let Some(running) = self.running.as_ref().filter(there) {
            running.edits.iter().for_each(|edit| edit.apply(&mut held));
        }
        held
    }
}

fn op(act: &Act, catalog: &Catalog) -> Option<Op> {
    let rollout = catalog.rollout();
    Some(match act {
        Act::AtOnce(edit) => edit.op(),
        Act::Start { edits, is_alone } => {
            let plan = plan(edits.iter().map(Edit::change).collect());
            if *is_alone { catalog.governance_start(plan) } else { catalog.rollout_start(plan) }
        }
        Act::Advance => {
            let next = rollout?.next()?.clone();
            Op::RolloutAdvanced { id: rollout?.id, to: next.step, sites: next.sites }
        }
        Act::Abort => Op::RolloutAborted { id: rollout?.id, cause: Cause::GateRejects, reason: "too many".into() },
        Act::Finish => {
            let outcome = if rollout?.abort.is_some() { Outcome::RolledBack } else { Outcome::Complete };
            Op::RolloutFinished { id: rollout?.id, outcome, reason: String::new() }
        }
    })
}

fn held(governance: &Governance<'_>) -> Held {
    let number = |text: &str| text[1..].parse().unwrap();
    let value = |text: &str| text.chars().last().unwrap().to_digit(10).unwrap().try_into().unwrap();
    let rules = governance
        .topic_rules()
        .map(|rule| ((false, number(rule.name.as_str())), value(rule.residency.sites[0].as_str())));
    let policies = governance.policies().map(|policy| ((true, number(policy.name.as_str())), value(&policy.text)));
    rules.chain(policies).collect()
}

fn edit() -> impl Strategy<Value = Edit> {
    (any::<bool>(), 0..3u8, prop::option::weighted(0.7, 0..3u8)).prop_map(|(is_policy, of, to)| Edit {
        is_policy,
        of,
        to,
    })
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        3 => edit().prop_map(Act::AtOnce),
        2 => (prop::collection::vec(edit(), 0..4), any::<bool>())
            .prop_map(|(edits, is_alone)| Act::Start { edits, is_alone }),
        6 => Just(Act::Advance),
        1 => Just(Act::Abort),
        2 => Just(Act::Finish),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// At every site there holds what a short model says, after every record; and whoever has read the log that far, after
    /// a crash or for the first time, finds the same.
    #[test]
    fn at_each_site_holds_what_the_log_says_and_nothing_else(acts in prop::collection::vec(act(), 1..40)) {
        let (mut story, mut model) = (Story::with_sites(3), Model::default());
        let begin = story.log.len();
        for act in acts {
            let Some(op) = op(&act, &story.catalog) else { continue };
            if !model.may(&act, &story) {
                story.refusal(op);
                continue;
            }
            story.add(op);
            model.take(&act, &story);
            for site in SITES {
                prop_assert_eq!(held(&story.catalog.governance_at(Some(&name(site)))), model.at(Some(site)), "{}", site);
            }
            prop_assert_eq!(held(&story.catalog.governance_at(None)), model.at(None), "a router without a site");
            prop_assert_eq!(held(&story.catalog.governance_at(Some(&name("z")))), model.at(None));
            prop_assert_eq!(&Catalog::from_records(&story.log).unwrap(), &story.catalog);
        }
        prop_assert!(begin <= story.log.len());
    }
}
