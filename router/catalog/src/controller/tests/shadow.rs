use super::*;

#[test]
fn a_shadow_is_watched_and_judged_before_anything_is_active() {
    let with_shadow = || Stage::at_of(RolloutPlan { shadow_s: 30, ..plan() }, Step::Shadow);
    let mut stage = with_shadow();
    assert!(stage.story.catalog.wanted(&name("c")).is_shadow);
    assert_eq!(stage.waits(), Some(630_000));
    for site in ["a", "b", "c"] {
        stage.report(site, Phase::Shadowing { for_ms: 29_000 });
    }
    assert_eq!(stage.waits(), Some(1_000));
    for site in ["a", "b", "c"] {
        stage.report(site, Phase::Shadowing { for_ms: 30_000 });
    }
    assert_eq!(stage.goes_on(), Some(Step::Canary));
    stage.report_with("b", Phase::Shadowing { for_ms: 1 }, Metrics { events: 9, traps: 9, ..Metrics::default() });
    stage.aborts(Cause::GateTraps, "router b/r1");
}

#[test]
fn a_router_without_events_does_not_hold_up_a_shadow_and_one_with_few_does() {
    let mut stage = Stage::at_of(RolloutPlan { shadow_s: 30, ..plan() }, Step::Shadow);
    let shadowing = |events| (Phase::Shadowing { for_ms: 30_000 }, Metrics { events, ..Metrics::default() });
    for (site, events) in [("a", 100), ("b", 0), ("c", 99)] {
        let (phase, metrics) = shadowing(events);
        stage.report_with(site, phase, metrics);
    }
    assert_eq!(stage.waits(), Some(570_000), "c has something to compare, and not enough of it yet");
    let (phase, metrics) = shadowing(0);
    stage.report_with("c", phase, metrics);
    assert_eq!(stage.goes_on(), Some(Step::Canary));
    stage.report_with("c", Phase::Shadowing { for_ms: 29_000 }, Metrics::default());
    assert_eq!(stage.waits(), Some(1_000), "the time itself is waited for");
}

#[test]
fn a_held_shadow_goes_on_by_a_hand_only_and_ends_with_its_time() {
    let held = || Stage::at_of(RolloutPlan { shadow_s: 3_600, shadow_hold: true, ..plan() }, Step::Shadow);
    let mut stage = held();
    for site in ["a", "b", "c"] {
        stage.report(site, Phase::Shadowing { for_ms: 3_600_000 });
    }
    assert_eq!(stage.waits(), Some(3_600_000), "however long they have");
    // Routers that are away hold nothing up, and bad news ends it as ever.
    stage.now_ms += 3_599_999;
    assert_eq!(stage.waits(), Some(1));
    stage.now_ms += 1;
    stage.aborts(Cause::ShadowOver, "nobody promoted it within 3600 s");
    stage.report("b", Phase::Nack { code: "no-room".into(), reason: "no slot".into() });
    stage.aborts(Cause::Nack, "router b/r1");

    let mut stage = held();
    stage.story.add(Op::RolloutPromoted { id: stage.id });
    stage.waits().expect("its routers must be in shadow: what goes on is what was prepared");
    ["a", "b", "c"].into_iter().for_each(|site| stage.report(site, Phase::Shadowing { for_ms: 1 }));
    assert_eq!(stage.goes_on(), Some(Step::Canary));
}

#[test]
fn differences_end_a_shadow_only_where_the_plan_says_so() {
    let differing = |differences| Metrics { events: 1_000, base_events: 1_000, differences, ..Metrics::default() };
    let at_shadow = |gates: Gates| Stage::at_of(RolloutPlan { shadow_s: 30, gates, ..plan() }, Step::Shadow);
    let mut stage = at_shadow(Gates::default());
    stage.report_with("a", Phase::Shadowing { for_ms: 1 }, differing(1_000));
    stage.waits().expect("a new version is there to judge otherwise");
    let mut stage = at_shadow(Gates { differences_ppm: Some(10_000), ..Gates::default() });
    stage.report_with("a", Phase::Shadowing { for_ms: 1 }, differing(10));
    stage.waits().expect("as many as the gate allows");
    stage.report_with("a", Phase::Shadowing { for_ms: 1 }, differing(11));
    stage.aborts(Cause::GateDifferences, "router a/r1: 11 of 1000 events");
}
