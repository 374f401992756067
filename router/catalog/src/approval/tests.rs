#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use super::*;
use crate::limits::APPROVALS_MAX;
use crate::testing::{Story, binding, stage};
use crate::{Catalog, Cause, Gates, GovernanceChange, Op, Policy};

/// When the story's next record is written.
fn now(story: &Story) -> u64 {
    1_000 + story.catalog.head().rev
}

fn staged() -> Story {
    let mut story = Story::with_two_versions();
    let site = |name: &str| Op::SiteAdded {
        name: name.parse().unwrap(),
        region: "eu".parse().unwrap(),
        cloud: "own".parse().unwrap(),
    };
    story.add(site("oslo"));
    story.add(site("rome"));
    story.add(stage(binding("redact", "redact@2.0.0", "orders/**")));
    story
}

fn plan() -> Box<RolloutPlan> {
    Box::new(RolloutPlan { canary: vec!["oslo".parse().unwrap()], gates: Gates::OPEN, ..RolloutPlan::default() })
}

fn ask(intent: Intent) -> Op {
    Op::ApprovalRequested { intent, note: "it is time".into() }
}

fn activate(story: &Story) -> Intent {
    Intent::Activate { bindings: story.catalog.staged().revisions() }
}

fn start(story: &Story) -> Intent {
    Intent::Start { bindings: story.catalog.staged().revisions(), plan: plan() }
}

fn govern() -> Intent {
    let policy = Policy { name: "all".parse().unwrap(), text: "permit (principal, action, resource);".into() };
    Intent::Govern { plan: Box::new(RolloutPlan { changes: vec![GovernanceChange::PolicySet { policy }], ..*plan() }) }
}

fn waiting(catalog: &Catalog, now: u64) -> Vec<u64> {
    catalog.approvals(now).map(|approval| approval.id).collect()
}

#[test]
fn an_intent_waits_for_an_hour_in_every_copy_of_the_log() {
    let mut story = staged();
    let intent = activate(&story);
    let id = story.add(ask(intent.clone()));
    let since = 1_000 + id - 1;
    let copy = Catalog::from_records(&story.log).unwrap();
    let approval = copy.approval(id, since).unwrap();
    assert_eq!((&*approval.by, &*approval.note, &approval.intent), ("ada", "it is time", &intent));
    assert!(copy.is_as_asked(&intent));
    assert_eq!(waiting(&copy, since + APPROVAL_WAIT_MAX_MS - 1), [id]);
    assert_eq!(waiting(&copy, since + APPROVAL_WAIT_MAX_MS), [0; 0]);
    assert_eq!(waiting(&copy, 0), [id], "a clock that lags behind ends nothing");
}

#[test]
fn whoever_stages_something_else_makes_it_void() {
    let mut story = staged();
    let (activate, start) = (activate(&story), start(&story));
    let ids = [story.add(ask(activate.clone())), story.add(ask(start.clone()))];
    let digests = ids.map(|id| story.catalog.approval(id, 0).unwrap().digest);
    assert_ne!(digests[0], digests[1], "a plan is part of what is approved");
    story.add(stage(binding("more", "redact@1.0.0", "other/**")));
    for intent in [activate, start] {
        assert!(!story.catalog.is_as_asked(&intent));
        assert_eq!(story.refusal(ask(intent)).code(), "conflict", "nor is it asked for then");
    }
}

#[test]
fn what_has_begun_waits_no_longer_and_neither_does_what_it_has_overtaken() {
    let mut story = staged();
    let intents = [activate(&story), start(&story), govern()];
    let asked: Vec<u64> = intents.iter().map(|intent| story.add(ask(intent.clone()))).collect();
    story.activate();
    assert_eq!(waiting(&story.catalog, now(&story)), [asked[2]], "rules and policies are no matter of filters");
    let rollout = story.add(story.catalog.governance_start(RolloutPlan {
        changes: match govern() {
            Intent::Govern { plan } => plan.changes,
            _ => Vec::new(),
        },
        ..*plan()
    }));
    assert_eq!(waiting(&story.catalog, now(&story)), [0; 0]);
    story.add(Op::RolloutPaused { id: rollout });

    let step = story.catalog.rollout().unwrap().step();
    let promote = |step| Intent::Promote { id: rollout, step };
    assert_eq!(story.refusal(ask(promote(Step::Observe))).code(), "conflict", "it is not there");
    assert_eq!(story.refusal(ask(Intent::Promote { id: 1, step })).code(), "not-found");
    story.add(ask(promote(step)));
    assert!(story.catalog.is_as_asked(&promote(step)));
    story.add(Op::RolloutPromoted { id: rollout });
    assert_eq!(waiting(&story.catalog, now(&story)), [0; 0]);
    story.add(Op::RolloutPaused { id: rollout });
    story.add(ask(promote(step)));
    story.add(Op::RolloutAborted { id: rollout, cause: Cause::Hand, reason: String::new() });
    assert_eq!(waiting(&story.catalog, now(&story)), [0; 0]);
    assert!(!story.catalog.is_as_asked(&promote(step)));
}

#[test]
fn only_so_many_wait_and_what_could_not_begin_is_not_asked_for() {
    let mut story = staged();
    for _ in 0..APPROVALS_MAX {
        let intent = start(&story);
        story.add(ask(intent));
    }
    let one_more = ask(activate(&story));
    assert_eq!(story.refusal(one_more.clone()).code(), "catalog-full");
    // Those that are over make room.
    let later = now(&story) + APPROVAL_WAIT_MAX_MS;
    let record = story.catalog.draft(one_more, "ada", later).unwrap();
    story.catalog.apply(&record).unwrap();
    assert_eq!(waiting(&story.catalog, later), [record.rev]);

    let mut story = Story::with_two_versions();
    let nothing = activate(&story);
    assert_eq!(story.refusal(ask(nothing)).code(), "conflict", "nothing is staged");
    assert_eq!(story.refusal(ask(govern())).code(), "conflict", "there are no sites");
    let mut story = staged();
    let odd = Intent::Start {
        bindings: story.catalog.staged().revisions(),
        plan: Box::new(RolloutPlan { waves: vec![7], ..*plan() }),
    };
    assert_eq!(story.refusal(ask(odd)).code(), "invalid-record");
    let intent = activate(&story);
    assert_eq!(story.refusal(Op::ApprovalRequested { intent, note: "a\u{1b}b".into() }).code(), "invalid-record");
}
