//! A shadow with real filters: what is copied, what is left out, and what a binding would have seen.

#[allow(dead_code, reason = "the integration tests use the rest of it")]
#[path = "../../../tests/admin/guest.rs"]
mod guest;

use super::*;
use crate::shadow::caster::Caster;
use myelin_catalog::{Catalog, Op};
use myelin_engine::{Program, Runtime, RuntimeConfig, Tape, TapedBinding};
use std::sync::OnceLock;

/// A filter that lets everything pass; compiled once.
fn program() -> &'static Program {
    static PROGRAM: OnceLock<Program> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let runtime = Runtime::new(&RuntimeConfig { slots: 32, ..RuntimeConfig::default() }).unwrap();
        runtime.load(&runtime.compile_here(&guest::component("1.0.0")).unwrap()).unwrap()
    })
}

/// A plan with these bindings: name, pattern, stage and order. Those that `kept` has by the same name stay as they are.
fn plan(kept: &Plan, bindings: &[(&str, &str, &str, i32)]) -> Plan {
    let mut catalog = Catalog::new();
    let mut add = |op: Op| {
        let record = catalog.draft(op, "test", 0).unwrap();
        catalog.apply(&record).unwrap();
    };
    let module = serde_json::json!({"name": "quiet", "version": "1.0.0", "digest": "ab".repeat(32), "size_bytes": 1,
        "uploaded_unix_ms": 0, "imports": [], "world": "fast"});
    add(Op::ModuleAdded { module: serde_json::from_value(module).unwrap() });
    for (name, pattern, stage, order) in bindings {
        let binding = serde_json::json!({"name": name, "module": "quiet@1.0.0", "pattern": pattern, "stage": stage,
            "order": order});
        add(Op::BindingStaged { binding: serde_json::from_value(binding).unwrap() });
    }
    let stages = [Stage::Ingress, Stage::Egress];
    let staged: Vec<_> = stages.into_iter().flat_map(|stage| catalog.staged().stage(stage)).cloned().collect();
    let bindings = staged.iter().map(|staged| {
        let known = kept.bindings.iter().find(|known| *known.name == *staged.binding.name.as_str());
        known.cloned().unwrap_or_else(|| Arc::new(BindingPlan::new(staged, program().clone(), None, false)))
    });
    Plan { bindings: bindings.collect() }
}

fn taken<'a>(views: &'a [EventView<'a>], chain: &'a [Option<Arc<BindingPlan>>], tape: Option<&'a Tape>) -> Taken<'a> {
    Taken { views, now_unix_ns: 7_000_000, worker: 0, generation: 1, side: Side::None, entry: true, chain, tape }
}

fn caster(sample_percent: u8) -> (Cast, Caster) {
    let cast =
        Cast::new(9, sample_percent, &Plan::default(), &plan(&Plan::default(), &[("new", "a/**", "ingress", 0)]));
    let caster = Caster::new(cast.instances().unwrap());
    (cast, caster)
}

fn views<'a>(topics: &[&'a str], payload: &'a [u8]) -> Vec<EventView<'a>> {
    topics.iter().map(|topic| EventView { topic, payload, ..EventView::default() }).collect()
}

/// Offers a batch as a worker does; whether it was taken.
fn offer(caster: &Caster, views: &[EventView<'_>]) -> bool {
    let wants = caster.wants(Stage::Ingress, views, |_| false);
    if wants {
        caster.take(&taken(views, &[], None), Stage::Ingress, 0);
    }
    wants
}

#[test]
fn what_waits_is_bounded_in_batches_and_bytes_and_what_has_no_room_is_counted() {
    let (cast, small) = caster(100);
    let batch = views(&["a/b", "a/c", "other"], b"x");
    let took = (0..WORK_MAX + 5).filter(|_| offer(&small, &batch)).count();
    let report = cast.shadow.report("eu1", "r1");
    assert_eq!((took, report.skipped, report.sampled_out), (WORK_MAX, 5 * 2, 0), "those of its pattern count");
    let (cast, large) = caster(100);
    let payload = vec![0; WORK_BYTES_MAX / 2];
    let took = (0..5).filter(|_| offer(&large, &views(&["a/b"], &payload))).count();
    assert_eq!((took, cast.shadow.report("eu1", "r1").skipped), (2, 3));
}

#[test]
fn a_sample_is_a_share_of_the_events() {
    let (cast, caster) = caster(10);
    let took = (0..400).filter(|_| offer(&caster, &views(&["a/b"], b""))).count();
    assert_eq!((took, cast.shadow.report("eu1", "r1").sampled_out), (40, 360));
    assert!(!offer(&caster, &views(&["other"], b"")), "it concerns nobody");
    assert!(!caster.wants(Stage::Egress, &views(&["a/b"], b""), |_| false), "nor does the other side of the matching");
    assert_eq!(cast.shadow.report("eu1", "r1").sampled_out, 360);
}

#[test]
fn a_new_filter_judges_the_events_of_its_pattern() {
    let (cast, caster) = caster(100);
    let batch = views(&["a/b", "other", "a/c"], b"x");
    let work = Work::copy(&taken(&batch, &[], None), Stage::Ingress, 0);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(caster.judge(&work, &mut myelin_engine::ChainScratch::new()));
    let report = cast.shadow.report("eu1", "r1");
    let new = &report.bindings[0];
    assert_eq!((&*new.change, &new.old, new.new.as_deref()), ("added", &None, Some("quiet@1.0.0")));
    assert_eq!((new.events, new.differences, new.traps), (2, 0, 0), "it lets them pass, as nobody does");
    let metrics = cast.shadow.metrics();
    assert_eq!((metrics.events, metrics.base_events, metrics.differences), (2, 2, 0));
    assert!(report.running);
    cast.shadow.end();
    assert!(!cast.shadow.is_running() && cast.shadow.report("eu1", "r1").bindings[0].events == 2);
}

/// What the first binding of a chain said about three events: it changed the first, dropped the second, failed on the
/// third.
fn tape() -> Tape {
    let changed = Decision { payload: Some(b"new".to_vec()), ..decision(ExpectedKind::Allow, None) };
    let events = [Some(changed), Some(decision(ExpectedKind::Drop, None)), None].into_iter().enumerate();
    let events = events.map(|(event, decision)| TapedEvent { event, decision, ..TapedEvent::default() });
    Tape { judged: vec![TapedBinding { binding: 0, events: events.collect(), calls: Vec::new() }] }
}

#[test]
fn a_binding_that_is_added_would_see_what_those_before_it_let_pass() {
    for (stage, first, last) in [("ingress", "early", "late"), ("egress", "late", "early")] {
        let both = [("early", "a/**", stage, 0), ("late", "a/**", stage, 20)];
        let active = plan(&Plan::default(), &both);
        let candidate = plan(&active, &[both[0], ("middle", "a/**", stage, 10), both[1]]);
        let subjects = subjects(&active, &candidate);
        assert_eq!(subjects.iter().map(|subject| &*subject.name).collect::<Vec<_>>(), ["middle"], "{stage}");
        let named = |name: &str| active.bindings.iter().find(|binding| *binding.name == *name).cloned();
        let (batch, tape) = (views(&["a/b", "a/c", "a/d"], b"old"), tape());
        let seen_after = |chain: &[&str]| {
            let chain: Vec<_> = chain.iter().map(|name| named(name)).collect();
            let stage = subjects[0].new.as_ref().unwrap().card().stage;
            let work = Work::copy(&taken(&batch, &chain, Some(&tape)), stage, 0);
            let views = work.views();
            let (seen, calls) = work.seen(&subjects[0], &views);
            assert!(calls.is_empty() && seen.iter().all(|seen| seen.old.is_none()));
            seen.iter().map(|seen| (seen.view.topic.to_owned(), seen.view.payload.to_vec())).collect::<Vec<_>>()
        };
        assert_eq!(seen_after(&[first]), [("a/b".to_owned(), b"new".to_vec())], "{stage}: after {first}");
        assert_eq!(seen_after(&[last]).len(), 3, "{stage}: before {last}");
    }
}

#[test]
fn a_binding_that_changes_sees_what_the_active_one_saw() {
    let active = plan(&Plan::default(), &[("gate", "a/**", "ingress", 0), ("away", "a/**", "ingress", 1)]);
    let candidate = plan(&Plan::default(), &[("gate", "a/**", "ingress", 0)]);
    let subjects = subjects(&active, &candidate);
    let changes: Vec<_> = subjects.iter().map(|subject| (&*subject.name, subject.new.is_some())).collect();
    assert_eq!(changes, [("gate", true), ("away", false)]);
    let mut tape = tape();
    tape.judged[0].events.remove(1);
    tape.judged[0].events[0].payload = Some(b"seen".to_vec());
    let (batch, chain) = (views(&["a/b", "a/c", "a/d"], b"old"), [Some(active.bindings[0].clone())]);
    let work = Work::copy(&taken(&batch, &chain, Some(&tape)), Stage::Ingress, 0);
    let views = work.views();
    let (seen, _) = work.seen(&subjects[0], &views);
    let seen: Vec<_> = seen.iter().map(|seen| (seen.view.topic, seen.view.payload, seen.old.is_some())).collect();
    assert_eq!(seen, [("a/b", &b"seen"[..], true), ("a/d", &b"old"[..], true)]);
    assert!(work.size() >= b"oldoldold".len() + b"seen".len() + b"new".len(), "what filters made counts, too");
}
