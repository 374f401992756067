#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use super::*;
use crate::rollout::Gates;
use crate::testing::{Story, add_router, name, quarantine};

mod shadow;

const MINUTE_MS: u64 = 60_000;
/// Of a step, by default.
const DEADLINE_MS: u64 = 600_000;

/// A rollout over three sites, `a` first, and the controller that drives it.
struct Stage {
    story: Story,
    seen: Observations,
    now_ms: u64,
    id: u64,
}

fn plan() -> RolloutPlan {
    RolloutPlan { canary: vec![name("a")], waves: vec![100], events_min: 100, ..RolloutPlan::default() }
}

impl Stage {
    fn new(plan: RolloutPlan) -> Self {
        let mut story = Story::with_sites(3);
        let id = story.add(story.catalog.rollout_start(plan));
        let mut stage = Self { story, seen: Observations::default(), now_ms: 1_000_000, id };
        stage.seen.follow(&stage.story.catalog, stage.now_ms);
        stage
    }

    /// At the step `step`, whose routers have not done anything yet.
    fn at(step: Step) -> Self {
        Self::at_of(plan(), step)
    }

    fn at_of(plan: RolloutPlan, step: Step) -> Self {
        let mut stage = Self::new(plan);
        while stage.step() != step {
            stage.story.advance();
        }
        stage.seen.follow(&stage.story.catalog, stage.now_ms);
        ["a", "b", "c"].into_iter().for_each(|site| stage.report(site, Phase::Prepared));
        stage
    }

    fn step(&self) -> Step {
        self.story.catalog.rollout().unwrap().step()
    }

    fn report_with(&mut self, site: &str, phase: Phase, metrics: Metrics) {
        let router = self.story.catalog.fleet().router(&name(site), &name("r1")).unwrap().number;
        let report = Report { seen_ms: self.now_ms, rollout: self.id, phase, metrics };
        self.seen.note(router, report);
    }

    fn report(&mut self, site: &str, phase: Phase) {
        self.report_with(site, phase, Metrics { events: 1_000, ..Metrics::default() });
    }

    fn active(&self, site: &str, for_ms: u64) -> Phase {
        Phase::Active { generation: self.story.generation_at(site), for_ms }
    }

    fn report_active(&mut self, site: &str, for_ms: u64) {
        self.report(site, self.active(site, for_ms));
    }

    fn decide(&self) -> Decision {
        decide(&self.story.catalog, &self.seen, self.now_ms)
    }

    /// Which step the decision goes on to.
    fn goes_on(&self) -> Option<Step> {
        match self.decide() {
            Decision::Append(Op::RolloutAdvanced { to, .. }) => Some(to),
            _ => None,
        }
    }

    fn waits(&self) -> Option<u64> {
        match self.decide() {
            Decision::Wait { until_ms } => Some(until_ms.unwrap() - self.now_ms),
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    fn aborts(&self, expected: Cause, says: &str) {
        let Decision::Append(Op::RolloutAborted { id, cause, reason }) = self.decide() else {
            panic!("{:?}", self.decide())
        };
        assert_eq!((id, cause), (self.id, expected), "{reason}");
        assert!(reason.contains(says), "{reason}");
    }

    /// The ledger of the mesh is read.
    fn reads(&mut self, off: Option<&str>) {
        let step_rev = self.story.catalog.rollout().unwrap().step_rev;
        self.seen.note_ledger(step_rev, self.now_ms, off.map(str::to_owned));
    }

    /// In how long the ledger is read at the latest, where it is what the rollout waits for.
    fn reconciles(&self) -> Option<u64> {
        match self.decide() {
            Decision::Reconcile { until_ms } => Some(until_ms - self.now_ms),
            _ => None,
        }
    }

    /// How the rollout ends.
    fn ends(&self) -> Option<(Outcome, String)> {
        match self.decide() {
            Decision::Append(Op::RolloutFinished { outcome, reason, .. }) => Some((outcome, reason)),
            _ => None,
        }
    }

    /// At the last step, which is over.
    fn over() -> Self {
        let mut stage = Self::at(Step::Wave { number: 1 });
        ["a", "b", "c"].into_iter().for_each(|site| stage.report_active(site, MINUTE_MS));
        stage
    }

    fn obey(&mut self) {
        let Decision::Append(op) = self.decide() else { panic!("{:?}", self.decide()) };
        self.story.add(op);
        self.seen.follow(&self.story.catalog, self.now_ms);
    }
}

#[test]
fn nothing_is_done_without_a_rollout() {
    let story = Story::with_sites(3);
    assert_eq!(decide(&story.catalog, &Observations::default(), 7), Decision::Nothing);
}

#[test]
fn a_rollout_whose_routers_do_what_they_are_told_completes() {
    let mut stage = Stage::new(plan());
    let mut steps = Vec::new();
    while stage.story.catalog.rollout().is_some() {
        steps.push(stage.story.catalog.rollout().unwrap().state());
        for site in ["a", "b", "c"] {
            let is_reached = stage.story.catalog.rollout().unwrap().reached().any(|reached| *reached == name(site));
            let phase = if is_reached { stage.active(site, MINUTE_MS) } else { Phase::Prepared };
            stage.report(site, phase);
        }
        if let Decision::Reconcile { .. } = stage.decide() {
            stage.reads(None);
        }
        stage.obey();
    }
    assert_eq!(steps, ["staged", "preparing", "prepared", "canary", "observe", "wave 1"]);
    assert_eq!(stage.story.catalog.rollouts().last().unwrap().state(), "complete");
    assert!(stage.story.catalog.is_uniform() && stage.story.version_at("a") == "2.0.0");
    assert_eq!(stage.decide(), Decision::Nothing);
}

#[test]
fn every_router_prepares_before_any_runs_the_new_set() {
    let mut stage = Stage::at(Step::Preparing);
    for phase in [Phase::Pulling, Phase::Pulled, Phase::Compiled, Phase::Tested] {
        stage.report("c", phase);
        assert_eq!(stage.waits(), Some(600_000));
    }
    stage.report("c", Phase::Prepared);
    assert_eq!(stage.goes_on(), Some(Step::Prepared));
    stage.report_active("c", MINUTE_MS);
    stage.waits().expect("it has not read of the new set and runs the old one");
    stage.report("c", Phase::Prepared);
    // A router that joins is one of them.
    stage.story.add(add_router("b", "r2"));
    assert_eq!(stage.waits(), Some(600_000));
}

#[test]
fn a_router_that_started_anew_is_prepared_again_before_its_site_has_its_turn() {
    let mut stage = Stage::at(Step::Observe);
    stage.report_active("a", MINUTE_MS);
    stage.report("b", Phase::Pulled);
    stage.waits().unwrap();
    stage.report("b", Phase::Prepared);
    assert_eq!(stage.goes_on(), Some(Step::Wave { number: 1 }));
}

#[test]
fn reports_of_another_rollout_or_generation_count_for_nothing() {
    let mut stage = Stage::at(Step::Preparing);
    let fleet = stage.story.catalog.fleet();
    let number = fleet.router(&name("b"), &name("r1")).unwrap().number;
    let phase = Phase::Prepared;
    let old = Report { seen_ms: stage.now_ms, rollout: stage.id - 1, phase, metrics: Metrics::default() };
    stage.seen.note(number, old);
    stage.waits().unwrap();

    let mut stage = Stage::at(Step::Canary);
    stage.report("a", Phase::Active { generation: stage.story.catalog.generation(), for_ms: MINUTE_MS });
    stage.waits().unwrap();
    stage.report_active("a", 0);
    assert_eq!(stage.goes_on(), Some(Step::Observe));
}

#[test]
fn stale_reports_say_nothing_good() {
    let mut stage = Stage::at(Step::Canary);
    stage.report_active("a", MINUTE_MS);
    stage.now_ms += OBSERVATION_FRESH_MS + 1;
    stage.waits().unwrap();
    stage.report_active("a", MINUTE_MS);
    assert_eq!(stage.goes_on(), Some(Step::Observe));
}

#[test]
fn a_router_that_nobody_hears_of_stalls_the_step_until_its_deadline() {
    for step in [Step::Preparing, Step::Canary, Step::Observe, Step::Wave { number: 1 }] {
        let mut stage = Stage::at(step);
        let watch_ms = if step.is_observing() { MINUTE_MS } else { 0 };
        stage.now_ms += 600_000 + watch_ms - 1;
        assert_eq!(stage.waits(), Some(1), "{step}");
        stage.now_ms += 1;
        let heard_s = (DEADLINE_MS + watch_ms) / 1_000;
        stage.aborts(
            Cause::Stalled,
            &format!("nothing was heard of it for {heard_s} s; see that it runs, or `myelin site rm"),
        );
        // A controller that takes over gives the step its time again.
        stage.seen = Observations::default();
        stage.seen.follow(&stage.story.catalog, stage.now_ms);
        stage.waits().unwrap();
    }
}

#[test]
fn a_step_is_watched_for_as_long_as_the_plan_says() {
    let mut stage = Stage::at(Step::Observe);
    stage.report_active("a", 0);
    assert_eq!(stage.waits(), Some(MINUTE_MS));
    stage.report_active("a", MINUTE_MS - 1);
    assert_eq!(stage.waits(), Some(1));
    stage.report_active("a", MINUTE_MS);
    assert_eq!(stage.goes_on(), Some(Step::Wave { number: 1 }));
    stage.report_active("a", 5);
    stage.story.add(Op::RolloutPromoted { id: stage.id });
    assert_eq!(stage.goes_on(), Some(Step::Wave { number: 1 }), "somebody has seen enough");
    stage.report("a", Phase::Prepared);
    stage.waits().expect("but a router that does not run the set is waited for");
}

#[test]
fn a_quiet_router_is_watched_longer_and_not_for_ever() {
    let mut stage = Stage::at(Step::Observe);
    let quiet = Metrics { events: 99, ..Metrics::default() };
    let at = |stage: &mut Stage, for_ms: u64| {
        let phase = stage.active("a", for_ms);
        stage.report_with("a", phase, quiet);
    };
    at(&mut stage, MINUTE_MS);
    assert_eq!(stage.waits(), Some(600_000 - MINUTE_MS));
    at(&mut stage, 600_000);
    assert_eq!(stage.goes_on(), Some(Step::Wave { number: 1 }));
    // It took so long to begin that the step's deadline comes first: that is no failure.
    stage.now_ms += 660_000;
    for site in ["b", "c"] {
        stage.report(site, Phase::Prepared);
    }
    at(&mut stage, 590_000);
    assert_eq!(stage.goes_on(), Some(Step::Wave { number: 1 }));
    at(&mut stage, 5);
    stage.aborts(Cause::Stalled, "again and again");
}

#[test]
fn where_rules_and_policies_come_alone_what_publishers_send_is_watched() {
    let mut stage = Stage::at(Step::Observe);
    let phase = stage.active("a", MINUTE_MS);
    stage.report_with("a", phase.clone(), Metrics { arrived: 99, ..Metrics::default() });
    assert_eq!(stage.waits(), Some(600_000 - MINUTE_MS));
    stage.report_with("a", phase, Metrics { arrived: 100, ..Metrics::default() });
    assert_eq!(stage.goes_on(), Some(Step::Wave { number: 1 }));
}

#[test]
fn bad_news_ends_a_rollout_at_every_step_even_when_paused() {
    for step in [Step::Preparing, Step::Prepared, Step::Canary, Step::Observe, Step::Wave { number: 1 }] {
        for is_paused in [false, true] {
            let mut stage = Stage::at(step);
            if is_paused {
                stage.story.add(Op::RolloutPaused { id: stage.id });
                assert_eq!(stage.decide(), Decision::Wait { until_ms: None });
            }
            let nack = Phase::Nack { code: "self-test-failed".into(), reason: "vector 3\n".repeat(500) };
            stage.report("c", nack);
            stage.aborts(Cause::Nack, "router c/r1: self-test-failed: vector 3");
            stage.obey();
        }
    }
}

#[test]
fn a_retreat_of_a_router_is_a_failed_step() {
    let mut stage = Stage::at(Step::Observe);
    let (from, to) = (stage.story.generation_at("a"), stage.story.catalog.generation());
    let retreated = |from| Phase::Retreated { from, to, reason: "it failed to start 2 times".into() };
    stage.report("b", retreated(to));
    stage.report("a", retreated(to));
    stage.waits().expect("it left another generation than this one");
    stage.report("a", retreated(from));
    stage.aborts(Cause::Retreated, "router a/r1: it failed to start 2 times");
}

#[test]
fn a_quarantined_module_ends_its_rollout() {
    let mut stage = Stage::at(Step::Canary);
    stage.story.add(quarantine("redact@2.0.0", "redact"));
    stage.aborts(Cause::Quarantined, "redact@2.0.0: trap");
}

#[test]
fn a_router_that_went_down_before_a_rollout_is_not_said_to_be_what_it_was() {
    let mut stage = Stage::new(RolloutPlan { deadline_s: 10, ..plan() });
    stage.story.advance();
    stage.seen.follow(&stage.story.catalog, stage.now_ms);
    // The last that was heard of `c` is from before: that it ran the old set.
    let router = stage.story.catalog.fleet().router(&name("c"), &name("r1")).unwrap().number;
    let before = Report { seen_ms: stage.now_ms, rollout: 0, phase: stage.active("c", 7), metrics: Metrics::default() };
    stage.seen.note(router, before.clone());
    stage.now_ms += 10_000;
    ["a", "b"].into_iter().for_each(|site| stage.report(site, Phase::Prepared));
    stage.aborts(Cause::Stalled, "router c/r1 has not prepared the new set; nothing was heard of it for 10 s");
    stage.seen.note(router, Report { seen_ms: stage.now_ms, ..before });
    stage.aborts(Cause::Stalled, "it has told nothing of this rollout yet");
    stage.report("c", Phase::Compiled);
    stage.aborts(Cause::Stalled, "it is COMPILED");
}

#[test]
fn shares_are_told_in_percent_as_gates_are_given() {
    let told = [0_u32, 1, 250, 1_000, 20_000, 21_001, 1_000_000].map(percent);
    assert_eq!(told, ["0 %", "0.0001 %", "0.025 %", "0.1 %", "2 %", "2.1001 %", "100 %"]);
    let all = Metrics { held_ppm: 1_000_000, ..Metrics::default() };
    let (_, why) = all.exceeds(&Gates::default()).unwrap();
    assert_eq!(why, "rules and policies hold back 100 % of the events and 0 % before; 2 % more are the most");
}

#[test]
fn gates_are_judged_for_each_router_at_their_exact_bound() {
    let base = Metrics { events: 10_000, base_events: 1_000, base_rejects: 100, rejects: 1_000, ..Metrics::default() };
    let cases = [
        (Metrics { traps: 10, ..base }, Metrics { traps: 11, ..base }, Cause::GateTraps),
        (Metrics { rejects: 1_200, ..base }, Metrics { rejects: 1_201, ..base }, Cause::GateRejects),
        (Metrics { module_p99_us: 5_000, ..base }, Metrics { module_p99_us: 5_001, ..base }, Cause::GateTime),
        (Metrics { fuel_p99_percent: 50, ..base }, Metrics { fuel_p99_percent: 51, ..base }, Cause::GateFuel),
        (Metrics::default(), Metrics { traps: 1, ..Metrics::default() }, Cause::GateTraps),
        (
            Metrics { events: 50, rejects: 1, ..Metrics::default() },
            Metrics { events: 49, rejects: 1, ..Metrics::default() },
            Cause::GateRejects,
        ),
        (
            Metrics { held_ppm: 21_000, base_held_ppm: 1_000, ..base },
            Metrics { held_ppm: 21_001, base_held_ppm: 1_000, ..base },
            Cause::GateRejects,
        ),
        (
            Metrics { rejects: 0, base_rejects: 1_000, ..base },
            Metrics { traps: u64::MAX, events: u64::MAX, ..base },
            Cause::GateTraps,
        ),
    ];
    for (good, bad, cause) in cases {
        let mut stage = Stage::at(Step::Wave { number: 1 });
        stage.report_active("a", MINUTE_MS);
        let phase = stage.active("b", 10);
        stage.report_with("b", phase.clone(), good);
        stage.waits().unwrap();
        stage.report_with("b", phase.clone(), bad);
        stage.aborts(cause, "router b/r1");
        stage.report_with("b", Phase::Prepared, bad);
        stage.waits().expect("figures of a set that is not active are none of the candidate's");

        let mut open = Stage::at_of(RolloutPlan { gates: Gates::OPEN, ..plan() }, Step::Canary);
        let phase = open.active("a", 10);
        open.report_with("a", phase, bad);
        assert_eq!(open.goes_on(), Some(Step::Observe));
    }
}

#[test]
fn a_rollback_waits_for_those_who_had_the_new_set_and_for_no_longer_than_a_deadline() {
    let rolling_back = || {
        let mut stage = Stage::at(Step::Observe);
        stage.story.add(Op::RolloutAborted { id: stage.id, cause: Cause::Hand, reason: "enough".into() });
        stage.seen.follow(&stage.story.catalog, stage.now_ms);
        stage
    };
    let ends = |stage: &Stage| match stage.decide() {
        Decision::Append(Op::RolloutFinished { outcome: Outcome::RolledBack, reason, .. }) => Some(reason),
        _ => None,
    };
    let mut stage = rolling_back();
    stage.report("b", Phase::Nack { code: "late".into(), reason: "news".into() });
    assert_eq!(stage.waits(), Some(600_000));
    stage.report_active("a", 0);
    assert!(ends(&stage).unwrap().contains("every router"));

    let mut stage = rolling_back();
    stage.now_ms += 600_000;
    assert!(ends(&stage).unwrap().contains("router a/r1"));
    stage.obey();
    assert_eq!(stage.decide(), Decision::Nothing);
}

#[test]
fn a_pause_does_not_use_up_the_time_of_a_step() {
    let mut stage = Stage::at(Step::Canary);
    stage.story.add(Op::RolloutPaused { id: stage.id });
    stage.now_ms += 10 * 600_000;
    assert_eq!(stage.decide(), Decision::Wait { until_ms: None });
    stage.story.add(Op::RolloutResumed { id: stage.id });
    stage.seen.follow(&stage.story.catalog, stage.now_ms);
    assert_eq!(stage.waits(), Some(600_000));
}

#[test]
fn a_router_that_is_gone_for_good_holds_nothing_up() {
    let mut stage = Stage::at(Step::Preparing);
    stage.report("c", Phase::Nack { code: "no-room".into(), reason: "its disk is full".into() });
    stage.aborts(Cause::Nack, "no-room");
    stage.story.add(Op::RouterRemoved { site: name("c"), name: name("r1") });
    stage.seen.follow(&stage.story.catalog, stage.now_ms);
    assert_eq!(stage.goes_on(), Some(Step::Prepared));
}

#[test]
fn a_rollout_is_complete_when_the_ledger_of_the_mesh_balances_and_not_before() {
    let mut stage = Stage::over();
    assert_eq!(stage.reconciles(), Some(DEADLINE_MS));
    stage.reads(Some("router b/r1: off by 1 copies"));
    assert_eq!((stage.reconciles(), stage.ends()), (Some(DEADLINE_MS), None));
    stage.now_ms += 5_000;
    stage.reads(None);
    let (outcome, reason) = stage.ends().unwrap();
    assert!(outcome == Outcome::Complete && reason.contains("balances"), "{reason}");
    // What was read too long ago, or in another step, says nothing.
    stage.now_ms += OBSERVATION_FRESH_MS + 1;
    ["a", "b", "c"].into_iter().for_each(|site| stage.report_active(site, MINUTE_MS));
    assert_eq!(stage.reconciles(), Some(DEADLINE_MS - 5_000 - OBSERVATION_FRESH_MS - 1));
    stage.story.add(Op::RolloutPaused { id: stage.id });
    stage.story.add(Op::RolloutResumed { id: stage.id });
    stage.reads(None);
    assert!(stage.ends().is_some());
    let mut before = Stage::at(Step::Observe);
    before.report_active("a", MINUTE_MS);
    before.reads(None);
    assert_eq!(before.goes_on(), Some(Step::Wave { number: 1 }));
}

#[test]
fn a_ledger_that_does_not_balance_in_time_ends_a_rollout_as_unbalanced_and_takes_nothing_back() {
    let mut stage = Stage::over();
    stage.reads(Some("router b/r1: off by 1 copies"));
    stage.now_ms += DEADLINE_MS - 1;
    stage.reads(Some("router b/r1: off by 2 copies\n"));
    ["a", "b", "c"].into_iter().for_each(|site| stage.report_active(site, MINUTE_MS));
    assert_eq!(stage.reconciles(), Some(1));
    stage.now_ms += 1;
    let (outcome, reason) = stage.ends().unwrap();
    assert!(outcome == Outcome::Unbalanced && reason.contains("off by 2 copies"), "{reason}");
    stage.obey();
    assert_eq!(stage.story.catalog.rollouts().last().unwrap().state(), "unbalanced");
    assert!(stage.story.catalog.is_uniform() && stage.story.version_at("a") == "2.0.0");
}

#[test]
fn a_site_that_is_cut_off_after_the_last_step_does_not_take_a_rollout_back() {
    let mut stage = Stage::over();
    stage.reads(Some("router c/r1 did not answer"));
    stage.now_ms += OBSERVATION_FRESH_MS + 1;
    ["a", "b"].into_iter().for_each(|site| stage.report_active(site, MINUTE_MS));
    assert_eq!(stage.waits(), Some(DEADLINE_MS - OBSERVATION_FRESH_MS - 1));
    // It is back: the ledger is read again.
    stage.report_active("c", MINUTE_MS);
    assert!(stage.reconciles().is_some());
    stage.now_ms += DEADLINE_MS;
    ["a", "b"].into_iter().for_each(|site| stage.report_active(site, MINUTE_MS));
    let (outcome, reason) = stage.ends().unwrap();
    assert!(outcome == Outcome::Unbalanced && reason.contains("router c/r1"), "{reason}");
    // Bad news count to the end.
    stage.report("c", Phase::Nack { code: "late".into(), reason: "it fails after all".into() });
    stage.aborts(Cause::Nack, "router c/r1");
}
