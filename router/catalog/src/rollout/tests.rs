#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use proptest::prelude::*;

use super::*;
use crate::catalog::Catalog;
use crate::error::CatalogError;
use crate::limits::ROLLOUTS_KEPT;
use crate::op::Op;
use crate::testing::{Story, add, add_router, add_site, binding, name, quarantine, stage};

fn plan(canary: &[&str], waves: &[u8]) -> RolloutPlan {
    let canary = canary.iter().map(|site| name(site)).collect();
    RolloutPlan { canary, waves: waves.to_vec(), ..RolloutPlan::default() }
}

/// A rollout over four sites, `b` first, that has just begun; and its number.
fn started() -> (Story, u64) {
    let mut story = Story::with_sites(4);
    let id = story.add(story.catalog.rollout_start(plan(&["b"], &[50, 100])));
    (story, id)
}

fn abort(id: u64) -> Op {
    Op::RolloutAborted { id, cause: Cause::Hand, reason: "enough".into() }
}

fn finish(id: u64, outcome: Outcome) -> Op {
    Op::RolloutFinished { id, outcome, reason: "it is over".into() }
}

fn versions(story: &Story) -> Vec<String> {
    ["a", "b", "c", "d"].map(|site| story.version_at(site)).to_vec()
}

fn reread(story: &Story) {
    assert_eq!(Catalog::from_records(&story.log).unwrap(), story.catalog, "whoever reads the log finds the same");
}

#[test]
fn a_rollout_changes_site_after_site_and_then_all_have_the_new_set() {
    let (mut story, id) = started();
    let old = story.catalog.generation();
    let mut seen = vec![story.catalog.rollout().unwrap().state()];
    while story.catalog.rollout().unwrap().next().is_some() {
        let before: Vec<u64> = ["a", "b", "c", "d"].map(|site| story.generation_at(site)).to_vec();
        let rev = story.advance();
        let rollout = story.catalog.rollout().unwrap().clone();
        seen.push(rollout.state());
        for (site, before) in ["a", "b", "c", "d"].into_iter().zip(before) {
            let changed = rollout.step_sites().contains(&name(site));
            let expected = if changed { rev } else { before };
            assert_eq!(story.generation_at(site), expected, "{site} at {}", rollout.step());
            let reached = rollout.reached().any(|reached| *reached == name(site));
            assert_eq!(story.version_at(site), if reached { "2.0.0" } else { "1.0.0" });
            let wanted = story.catalog.wanted(&name(site));
            assert_eq!(wanted.prepare.is_some(), !reached, "who has it prepares it no longer");
            assert!(wanted.prepare.is_none_or(|(of, set)| of == id && set == rollout.candidate));
        }
    }
    assert_eq!(seen, ["staged", "preparing", "prepared", "canary", "observe", "wave 1", "wave 2"]);
    assert_eq!((story.catalog.generation(), story.version_at("elsewhere")), (old, "1.0.0".into()));

    let generations: Vec<u64> = ["a", "b", "c", "d"].map(|site| story.generation_at(site)).to_vec();
    let rev = story.add(finish(id, Outcome::Complete));
    assert_eq!(
        ["a", "b", "c", "d"].map(|site| story.generation_at(site)).to_vec(),
        generations,
        "nothing changes there"
    );
    assert_eq!((story.catalog.generation(), story.version_at("elsewhere")), (rev, "2.0.0".into()));
    assert!(story.catalog.rollout().is_none() && story.catalog.is_uniform());
    assert_eq!(story.catalog.rollouts().last().unwrap().state(), "complete");
    assert_eq!(story.catalog.rollback_target().unwrap().number, old);
    let shown = |number: u64| story.catalog.find_generation_shown_as(number).map(|generation| generation.number);
    assert!(generations.iter().all(|number| shown(*number) == Some(rev)), "a site's number means that set, too");
    assert_eq!((shown(rev), shown(old), shown(id)), (Some(rev), Some(old), None));
    reread(&story);

    let rev = story.add(Op::RolledBack { to: old });
    assert_eq!(
        ["a", "b", "c", "d"].map(|site| story.generation_at(site)),
        [rev; 4],
        "an immediate change is everywhere"
    );
    reread(&story);
}

#[test]
fn an_aborted_rollout_gives_the_old_set_back_where_it_was_taken() {
    let (mut story, id) = started();
    let old = story.catalog.generation();
    story.add(stage(binding("other", "redact@1.0.0", "x")));
    for _ in 0..3 {
        story.advance();
    }
    assert_eq!(versions(&story), ["1.0.0", "2.0.0", "1.0.0", "1.0.0"]);
    let rev = story.add(abort(id));
    assert_eq!(versions(&story), ["1.0.0"; 4]);
    assert_eq!(["a", "b"].map(|site| story.generation_at(site)), [old, rev], "a new number where it changed");
    assert_eq!(story.catalog.rollout().unwrap().state(), "rolling-back");
    assert!(story.catalog.wanted(&name("a")).prepare.is_none(), "nobody prepares what was given up");
    for refused in [abort(id), Op::RolloutPaused { id }, Op::RolloutPromoted { id }, finish(id, Outcome::Complete)] {
        assert_eq!(story.refusal(refused).code(), "conflict");
    }
    story.add(finish(id, Outcome::RolledBack));
    assert_eq!((story.catalog.generation(), story.catalog.rollout()), (old, None));
    let staged: Vec<_> = story.catalog.staged().iter().map(|s| s.binding.module.to_string()).collect();
    assert_eq!(staged, ["redact@1.0.0"; 2], "what failed is staged no longer, what came later is");
    let ended = story.catalog.rollouts().last().unwrap();
    assert_eq!((ended.state().as_str(), ended.step()), ("rolled-back", Step::Canary));
    assert_eq!(ended.abort.as_ref().map(|abort| abort.cause), Some(Cause::Hand));
    reread(&story);
    story.activate();
    assert!(story.catalog.is_uniform());
}

#[test]
fn no_step_is_skipped_doubled_or_taken_elsewhere() {
    let (mut story, id) = started();
    let advanced = |to, sites: &[&str]| Op::RolloutAdvanced { id, to, sites: sites.iter().map(|s| name(s)).collect() };
    for (to, sites) in [
        (Step::Staged, &[] as &[&str]),
        (Step::Prepared, &[]),
        (Step::Canary, &["b"]),
        (Step::Wave { number: 2 }, &["a", "c", "d"]),
        (Step::Preparing, &["b"]),
    ] {
        let refused = story.refusal(advanced(to, sites));
        assert!(refused.code() == "conflict" && refused.to_string().contains("no step is skipped"), "{refused}");
    }
    story.advance();
    story.advance();
    assert_eq!(story.refusal(advanced(Step::Canary, &["a"])).code(), "conflict");
    assert_eq!(story.refusal(advanced(Step::Canary, &[])).code(), "conflict");
    assert_eq!(story.refusal(finish(id, Outcome::Complete)).code(), "conflict");
    assert_eq!(story.refusal(finish(id, Outcome::RolledBack)).code(), "conflict");
    assert_eq!(story.refusal(abort(id + 1)).code(), "not-found");
    while story.catalog.rollout().unwrap().next().is_some() {
        story.advance();
    }
    assert_eq!(story.refusal(advanced(Step::Wave { number: 3 }, &[])).code(), "conflict");
}

#[test]
fn one_rollout_runs_at_a_time_and_immediate_changes_wait_for_it() {
    let (mut story, id) = started();
    let running = |refused: CatalogError| {
        assert_eq!(refused.code(), "rollout-running");
        assert!(refused.to_string().starts_with(&format!("rollout {id} is ")), "{refused}");
    };
    for step in 0..4 {
        running(story.refusal(story.catalog.rollout_start(plan(&[], &[100]))));
        running(story.refusal(story.catalog.activation()));
        running(story.refusal(Op::RolledBack { to: 0 }));
        running(story.refusal(add_site("late")));
        running(story.refusal(Op::SiteRemoved { name: name("a") }));
        match step {
            0 => story.add(stage(binding("later", "redact@1.0.0", "y"))),
            3 => story.add(abort(id)),
            _ => story.advance(),
        };
    }
    story.add(add_router("a", "r2"));
    story.add(finish(id, Outcome::RolledBack));
    story.activate();
}

#[test]
fn the_modules_of_a_rollout_stay_and_may_be_quarantined() {
    let (mut story, id) = started();
    story.add(stage(binding("redact", "redact@1.0.0", "orders/**")));
    let remove = Op::ModuleRemoved { module: "redact@2.0.0".parse().unwrap() };
    assert!(story.refusal(remove.clone()).to_string().contains("candidate binding redact"));
    assert_eq!(story.refusal(quarantine("redact@2.0.0", "redact")).code(), "conflict", "it is active nowhere");
    for _ in 0..3 {
        story.advance();
    }
    story.add(quarantine("redact@2.0.0", "redact"));
    story.add(abort(id));
    story.add(finish(id, Outcome::RolledBack));
    story.add(remove);
    reread(&story);
}

#[test]
fn pausing_promoting_and_resuming_are_records() {
    let (mut story, id) = started();
    assert_eq!(story.refusal(Op::RolloutResumed { id }).code(), "conflict");
    assert_eq!(story.refusal(Op::RolloutPromoted { id }).code(), "conflict", "it waits for no time");
    story.add(Op::RolloutPaused { id });
    assert_eq!(story.catalog.rollout().unwrap().state(), "staged, paused");
    assert_eq!(story.refusal(Op::RolloutPaused { id }).code(), "conflict");
    let next = story.catalog.rollout().unwrap().next().unwrap().clone();
    let advanced = Op::RolloutAdvanced { id, to: next.step, sites: next.sites };
    assert!(story.refusal(advanced).to_string().contains("is paused"));
    let rev = story.add(Op::RolloutResumed { id });
    assert_eq!(story.catalog.rollout().unwrap().step_rev, rev, "the step has its whole time again");
    while story.catalog.rollout().unwrap().step() != Step::Observe {
        story.advance();
    }
    let step_rev = story.catalog.rollout().unwrap().step_rev;
    story.add(Op::RolloutPromoted { id });
    let rollout = story.catalog.rollout().unwrap();
    assert_eq!((rollout.is_promoted, rollout.step_rev), (true, step_rev));
    story.advance();
    assert!(!story.catalog.rollout().unwrap().is_promoted, "it counts for one step");
    story.add(Op::RolloutPaused { id });
    story.add(abort(id));
    assert_eq!(story.catalog.rollout().unwrap().state(), "rolling-back", "a pause does not hold a rollback up");
}

#[test]
fn rollouts_that_cannot_be_are_refused() {
    let mut story = Story::with_two_versions();
    story.add(stage(binding("redact", "redact@2.0.0", "orders/**")));
    let start = |story: &Story, plan| story.catalog.rollout_start(plan);
    let refused = story.refusal(start(&story, plan(&[], &[100]))).to_string();
    assert!(refused.contains("no sites") && refused.contains("`myelin rollout start` without"), "{refused}");
    story.add(add_site("a"));
    for waves in [&[] as &[u8], &[0, 100], &[50], &[50, 50, 100], &[60, 50, 100], &[100, 101]] {
        let refused = story.refusal(start(&story, plan(&[], waves)));
        assert!(refused.code() == "invalid-record" && refused.to_string().contains("plan.waves"), "{refused}");
    }
    let many: Vec<u8> = (84..=100).collect();
    assert_eq!(story.refusal(start(&story, plan(&[], &many))).code(), "invalid-record");
    assert_eq!(story.refusal(start(&story, plan(&["a", "a"], &[100]))).code(), "invalid-record");
    assert_eq!(story.refusal(start(&story, plan(&["z"], &[100]))).code(), "not-found");
    let long = RolloutPlan { deadline_s: 0, ..plan(&[], &[100]) };
    assert_eq!(story.refusal(start(&story, long)).code(), "invalid-record");
    let seen = start(&story, plan(&[], &[100]));
    story.add(stage(binding("more", "redact@1.0.0", "z")));
    assert!(story.refusal(seen).to_string().contains("has changed meanwhile"));
    let id = story.add(start(&story, plan(&[], &[100])));
    let wordy = Op::RolloutAborted { id, cause: Cause::Hand, reason: "x".repeat(1_025) };
    assert_eq!(story.refusal(wordy).code(), "invalid-record");
}

#[test]
fn rollouts_are_remembered_up_to_the_bound() {
    let mut story = Story::with_sites(1);
    for turn in 0..ROLLOUTS_KEPT + 3 {
        let version = ["redact@2.0.0", "redact@1.0.0"][turn % 2];
        story.add(stage(binding("redact", version, "orders/**")));
        let id = story.add(story.catalog.rollout_start(plan(&["a"], &[100])));
        while story.catalog.rollout().unwrap().next().is_some() {
            story.advance();
        }
        story.add(finish(id, Outcome::Complete));
    }
    assert_eq!(story.catalog.rollouts().count(), ROLLOUTS_KEPT);
    assert!(story.catalog.rollouts().all(|rollout| rollout.candidate.is_empty()), "their sets are in the history only");
}

#[test]
fn a_removed_site_begins_anew() {
    let (mut story, id) = started();
    for _ in 0..3 {
        story.advance();
    }
    story.add(abort(id));
    story.add(finish(id, Outcome::RolledBack));
    story.add(Op::RouterRemoved { site: name("b"), name: name("r1") });
    story.add(Op::SiteRemoved { name: name("b") });
    story.add(add_site("b"));
    assert_eq!(story.generation_at("b"), story.catalog.generation());
    story.add(add("other@1.0.0"));
    reread(&story);
}

#[test]
fn plans_are_read_with_defaults_and_without_unknown_keys() {
    let read: RolloutPlan = serde_json::from_str(r#"{"canary":["eu1"],"gates":{"traps_ppm":null}}"#).unwrap();
    assert_eq!(read.canary, [name("eu1")]);
    assert_eq!((read.waves.as_slice(), read.gates.traps_ppm), (&[10, 50, 100][..], None));
    assert_eq!(read.gates.module_p99_us, Gates::default().module_p99_us);
    for bad in [r#"{"wave":[100]}"#, r#"{"gates":{"trap":1}}"#, r#"{"waves":[300]}"#] {
        assert!(serde_json::from_str::<RolloutPlan>(bad).is_err(), "{bad}");
    }
}

#[test]
fn what_a_plan_of_before_did_not_know_is_not_written() {
    let written = |plan: &RolloutPlan| serde_json::to_value(plan).unwrap();
    let plan = written(&RolloutPlan { shadow_s: 30, ..RolloutPlan::default() });
    assert!(plan.get("shadow_percent").is_none() && plan["gates"].get("differences_ppm").is_none(), "{plan}");
    assert!(plan.get("changes").is_none() && plan.get("accept_failures").is_none(), "{plan}");
    let read: RolloutPlan = serde_json::from_value(plan).unwrap();
    assert_eq!((read.shadow_percent, read.gates.differences_ppm), (100, None));
    let gates = Gates { differences_ppm: Some(5), ..Gates::default() };
    let new = RolloutPlan { shadow_percent: 10, gates, ..RolloutPlan::default() };
    assert_eq!(serde_json::from_value::<RolloutPlan>(written(&new)).unwrap(), new);
    for shadow_percent in [0, 101] {
        let refused = RolloutPlan { shadow_percent, ..RolloutPlan::default() }.validate().unwrap_err();
        assert!(refused.to_string().contains("plan.shadow_percent"), "{refused}");
    }
}

proptest! {
    /// Whatever the plan: each site is reached exactly once, a share of sites is never less than the plan says, and
    /// everybody finds the same.
    #[test]
    fn each_site_is_reached_exactly_once(
        id in 1u64..1_000, sites in 1usize..=64, canaries in 0usize..4, waves in prop::collection::btree_set(1u8..100, 0..6),
        shadow_s in 0u32..2,
    ) {
        let all: Vec<Name> = (0..sites).map(|n| name(&format!("s{n}"))).collect();
        let canary: Vec<Name> = all.iter().rev().take(canaries).cloned().collect();
        let canaries = canary.len();
        let waves: Vec<u8> = waves.into_iter().chain([100]).collect();
        let plan = RolloutPlan { canary, waves: waves.clone(), shadow_s, ..RolloutPlan::default() };
        plan.validate().unwrap();
        let steps = schedule(id, &plan, &all);
        prop_assert_eq!(&steps, &schedule(id, &plan, &all));
        prop_assert!(steps.windows(2).all(|pair| pair[0].step < pair[1].step), "in order");
        let mut reached = 0;
        for scheduled in &steps {
            reached += scheduled.sites.len();
            if let Step::Wave { number } = scheduled.step {
                let percent = usize::from(waves[usize::from(number) - 1]);
                prop_assert_eq!(reached, (sites * percent).div_ceil(100).max(canaries));
                prop_assert!(!scheduled.sites.is_empty());
            }
        }
        let mut names: Vec<&Name> = steps.iter().flat_map(|scheduled| &scheduled.sites).collect();
        names.sort();
        names.dedup();
        prop_assert_eq!((names.len(), reached), (sites, sites));
    }
}

#[test]
fn the_number_under_which_sites_return_to_a_set_means_that_set() {
    let (mut story, id) = started();
    let old = story.catalog.generation();
    while story.catalog.rollout().unwrap().step() != Step::Observe {
        story.advance();
    }
    let canary = story.generation_at("b");
    let back = story.add(abort(id));
    story.add(finish(id, Outcome::RolledBack));
    assert_eq!(story.generation_at("b"), back);
    let shown = |number: u64| story.catalog.find_generation_shown_as(number).map(|generation| generation.number);
    assert_eq!((shown(back), shown(old), shown(canary)), (Some(old), Some(old), None));
    reread(&story);
}

#[test]
fn a_shadow_is_held_for_a_time_or_not_at_all() {
    let held = |shadow_s| RolloutPlan { shadow_s, shadow_hold: true, ..RolloutPlan::default() };
    assert!(held(1).validate().is_ok() && held(0).validate().is_err());
    let mut story = Story::with_sites(2);
    let id = story.add(story.catalog.rollout_start(held(60)));
    while story.catalog.rollout().unwrap().step() != Step::Shadow {
        story.advance();
    }
    let rollout = |story: &Story| story.catalog.rollout().unwrap().clone();
    assert!(rollout(&story).is_held() && rollout(&story).state() == "shadow, held");
    story.add(Op::RolloutPromoted { id });
    assert!(!rollout(&story).is_held() && rollout(&story).state() == "shadow");
    reread(&story);
}
