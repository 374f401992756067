#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use super::*;
use crate::limits::{APPROVALS_KEPT, APPROVALS_MAX};
use crate::testing::{Story, binding, stage};
use crate::{Catalog, CatalogError, Cause, Gates, GovernanceChange, Op, Outcome, Policy};

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

/// Somebody asks, at a router with this clock.
fn asked_at(story: &mut Story, intent: Intent, by: &str, at: u64) -> Result<u64, CatalogError> {
    let record = story.catalog.draft(ask(intent), by, at)?;
    story.catalog.apply(&record)?;
    story.log.push(record);
    Ok(story.catalog.head().rev)
}

#[test]
fn clocks_of_routers_differ() {
    let (hour, minute, noon) = (APPROVAL_WAIT_MAX_MS, 60_000, 1_000_000_000);
    let mut story = staged();
    let intents = [activate(&story), start(&story)];
    let first = asked_at(&mut story, intents[0].clone(), "ann", noon).unwrap();
    // A router whose clock is two hours ahead asks, and ends nothing that waits for those whose clocks are right.
    let ahead = asked_at(&mut story, intents[1].clone(), "eve", noon + 2 * hour).unwrap();
    assert_eq!(waiting(&story.catalog, noon), [0; 0], "by its clock the hour is over");
    let third = asked_at(&mut story, intents[0].clone(), "bob", noon + minute).unwrap();
    assert_eq!(waiting(&story.catalog, noon + minute), [first, third], "what it asks for does not wait three hours");
    assert_eq!(waiting(&story.catalog, noon + 2 * hour), [ahead]);
    // A router whose clock lags behind goes by the newest record.
    let later = asked_at(&mut story, intents[1].clone(), "bob", noon + hour).unwrap();
    assert_eq!(waiting(&story.catalog, noon + hour - 2 * minute), [third, later]);
    assert_eq!(waiting(&story.catalog, noon - hour), [0; 0], "far behind it knows nothing of the hour");
}

#[test]
fn a_log_that_was_written_before_is_read() {
    let (hour, noon) = (APPROVAL_WAIT_MAX_MS, 1_000_000_000);
    let mut story = staged();
    let intent = activate(&story);
    for by in 1..APPROVALS_MAX {
        asked_at(&mut story, intent.clone(), &format!("p{by}"), noon).unwrap();
    }
    // It dropped all others by its clock then, so that there was room by any clock.
    asked_at(&mut story, intent.clone(), "ahead", noon + 2 * hour).unwrap();
    for by in 0..APPROVALS_KEPT {
        let by = format!("q{by}");
        match asked_at(&mut story, intent.clone(), &by, noon + 1) {
            Ok(_) => {}
            Err(error) => panic!("{by}: {error}"),
        }
    }
    assert_eq!(Catalog::from_records(&story.log).unwrap(), story.catalog);
    assert!(waiting(&story.catalog, noon + 1).len() <= APPROVALS_KEPT);
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
    assert!(ids.iter().all(|id| story.catalog.find_approval(*id).is_none() && story.catalog.is_stale_approval(*id)));
}

#[test]
fn what_can_begin_no_more_takes_no_room() {
    let mut story = staged();
    for number in 0..=u64::try_from(APPROVALS_MAX).unwrap() {
        story.add(stage(binding("more", "redact@1.0.0", &format!("other/{number}"))));
        let intent = activate(&story);
        let id = story.add(ask(intent));
        assert_eq!(waiting(&story.catalog, now(&story)), [id]);
    }
    assert_eq!(Catalog::from_records(&story.log).unwrap(), story.catalog);
}

#[test]
fn who_asks_again_asks_once() {
    let mut story = staged();
    let intent = activate(&story);
    let mut last = 0;
    for _ in 0..=APPROVALS_MAX {
        last = story.add(ask(intent.clone()));
    }
    assert_eq!(waiting(&story.catalog, now(&story)), [last]);
    let other = asked_at(&mut story, intent, "bob", 2_000).unwrap();
    assert_eq!(waiting(&story.catalog, 2_000), [last, other], "another one may ask for the same");
}

#[test]
fn what_is_withdrawn_waits_no_longer() {
    let mut story = staged();
    let (activate, start) = (activate(&story), start(&story));
    let ids = [story.add(ask(activate)), story.add(ask(start))];
    story.add(Op::ApprovalWithdrawn { id: ids[0] });
    assert_eq!(waiting(&story.catalog, now(&story)), [ids[1]]);
    assert_eq!(story.refusal(Op::ApprovalWithdrawn { id: ids[0] }).code(), "not-found");
    assert!(!story.catalog.is_stale_approval(ids[0]));
}

#[test]
fn a_rule_or_policy_that_changes_meanwhile_is_not_undone() {
    let mut story = staged();
    let (govern, start) = (govern(), start(&story));
    let changes = govern.changes().to_vec();
    let with_changes = match start {
        Intent::Start { bindings, plan } => {
            Intent::Start { bindings, plan: Box::new(RolloutPlan { changes: changes.clone(), ..*plan }) }
        }
        _ => unreachable!("it is a start"),
    };
    let policy = |name: &str, text: &str| Policy { name: name.parse().unwrap(), text: text.into() };
    let asked = [govern.clone(), with_changes].map(|intent| story.add(ask(intent)));
    story.add(Op::PolicySet { policy: policy("other", "permit (principal, action, resource);") });
    assert_eq!(waiting(&story.catalog, now(&story)), asked, "another one is no matter of theirs");
    story.add(Op::PolicySet { policy: policy("all", "forbid (principal, action, resource);") });
    assert_eq!(waiting(&story.catalog, now(&story)), [0; 0]);
    assert!(asked.iter().all(|id| story.catalog.is_stale_approval(*id)));
    story.add(ask(govern.clone()));
    story.add(Op::PolicyRemoved { name: "all".parse().unwrap() });
    assert_eq!(waiting(&story.catalog, now(&story)), [0; 0]);

    // A rollout does the same when it is complete; one that is rolled back changes nothing.
    for (outcome, left) in [(Outcome::RolledBack, 1), (Outcome::Complete, 0)] {
        let rollout = story.add(story.catalog.governance_start(RolloutPlan { changes: changes.clone(), ..*plan() }));
        story.add(ask(govern.clone()));
        match outcome {
            Outcome::RolledBack => {
                story.add(Op::RolloutAborted { id: rollout, cause: Cause::Hand, reason: String::new() });
            }
            _ => {
                while story.catalog.rollout().unwrap().next().is_some() {
                    story.advance();
                }
            }
        }
        story.add(Op::RolloutFinished { id: rollout, outcome, reason: String::new() });
        assert_eq!(waiting(&story.catalog, now(&story)).len(), left, "{outcome:?}");
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
    for person in 0..APPROVALS_MAX {
        let (intent, at) = (start(&story), now(&story));
        asked_at(&mut story, intent, &format!("p{person}"), at).unwrap();
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
    let refused = story.refusal(Op::ApprovalRequested { intent, note: "a\u{1b}b".into() });
    assert!(refused.code() == "invalid-record" && refused.to_string().contains("note"), "{refused}");
}
