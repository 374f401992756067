#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod casting;

use super::tally::{Compared, SAMPLES_MAX};
use super::work::Work;
use super::*;
use crate::capture::{Side, Taken};
use myelin_catalog::OnFault;
use myelin_engine::{Decision, EventView, ExpectedKind, FaultCode, FilterFault, TapedEvent};
use myelin_wire::{AttrsBuilder, attrs};

fn decision(verdict: ExpectedKind, reason: Option<&str>) -> Decision {
    Decision {
        verdict,
        reason: reason.map(str::to_owned),
        routes: Vec::new(),
        payload: None,
        attrs: None,
        detail: Some("quotes the payload".into()),
        emitted: Vec::new(),
    }
}

fn said(verdict: ExpectedKind, reason: Option<&str>) -> TapedEvent {
    TapedEvent { decision: Some(decision(verdict, reason)), ..TapedEvent::default() }
}

fn trapped() -> TapedEvent {
    TapedEvent { fault: Some(FilterFault::new(FaultCode::Trap, "unreachable")), ..TapedEvent::default() }
}

fn add(tally: &mut Tally, view: &EventView<'_>, old: Option<&TapedEvent>, new: Option<&TapedEvent>) {
    let with = |said| (said, OnFault::Reject);
    tally.add(&Compared { view: *view, old: old.map(with), new: new.map(with) }, (1, 7_000_000));
}

#[test]
fn differences_are_counted_exactly_and_faults_and_rejects_beside_them() {
    let mut tally = Tally::default();
    let view = EventView { topic: "orders/new", payload: b"secret", ..EventView::default() };
    let (allow, deny) = (said(ExpectedKind::Allow, None), said(ExpectedKind::Deny, Some("odd")));
    (0..50).for_each(|_| add(&mut tally, &view, Some(&allow), Some(&allow)));
    (0..40).for_each(|_| add(&mut tally, &view, Some(&allow), Some(&deny)));
    (0..5).for_each(|_| add(&mut tally, &view, Some(&deny), Some(&deny)));
    (0..3).for_each(|_| add(&mut tally, &view, Some(&allow), Some(&trapped())));
    add(&mut tally, &view, Some(&trapped()), Some(&trapped()));
    assert_eq!((tally.events, tally.differences, tally.traps), (99, 43, 4));
    assert_eq!((tally.rejects, tally.base_rejects), (40 + 5 + 3 + 1, 5 + 1), "who fails refuses");
    let counts: Vec<_> = tally.transitions().into_iter().map(|found| (found.from, found.to, found.count)).collect();
    let found = [("allow", "deny: odd", 40), ("allow", "fault: trap", 3)];
    assert_eq!(counts, found.map(|(from, to, count)| (from.to_owned(), to.to_owned(), count)));
}

#[test]
fn what_only_one_set_judges_is_held_against_letting_pass() {
    let mut tally = Tally::default();
    let view = EventView { topic: "orders/new", ..EventView::default() };
    let plain = TapedEvent {
        decision: Some(Decision { detail: None, ..decision(ExpectedKind::Allow, None) }),
        ..TapedEvent::default()
    };
    add(&mut tally, &view, None, Some(&plain));
    add(&mut tally, &view, Some(&plain), None);
    assert_eq!((tally.events, tally.differences), (2, 0), "a filter that lets pass is as good as none");
    let drop = said(ExpectedKind::Drop, None);
    add(&mut tally, &view, None, Some(&drop));
    add(&mut tally, &view, Some(&drop), None);
    assert_eq!((tally.events, tally.differences), (4, 2));
    let sides: Vec<_> = tally.samples().into_iter().map(|sample| (sample.old.verdict, sample.new.verdict)).collect();
    let expected = [("not-judged", "drop"), ("drop", "not-judged")].map(|(old, new)| (old.to_owned(), new.to_owned()));
    assert_eq!(sides, expected);
}

#[test]
fn samples_are_the_newest_and_hold_no_payload_and_no_text_that_may_quote_it() {
    let mut tally = Tally::default();
    let mut block = AttrsBuilder::new();
    block.own(attrs::KEY, b"customer 7");
    let (allow, drop) = (said(ExpectedKind::Allow, None), said(ExpectedKind::Drop, None));
    for number in 0..100 {
        let topic = format!("orders/{number}");
        let view = EventView { topic: &topic, attrs: block.as_bytes(), payload: b"secret", ..EventView::default() };
        add(&mut tally, &view, Some(&allow), Some(&drop));
    }
    let samples = tally.samples();
    assert_eq!((samples.len(), &*samples[SAMPLES_MAX - 1].topic), (SAMPLES_MAX, "orders/99"));
    assert_eq!((samples[0].payload_bytes, samples[0].key.as_ref().unwrap().bytes), (6, 10));
    assert_eq!((samples[0].at_unix_ms, samples[0].worker), (7, 1));
    let told = serde_json::to_string(&samples).unwrap();
    assert!(!told.contains("secret") && !told.contains("quotes") && !told.contains("customer"), "{told}");
}

#[test]
fn reasons_without_end_are_bounded() {
    let mut tally = Tally::default();
    let allow = said(ExpectedKind::Allow, None);
    let view = EventView { topic: "orders/new", ..EventView::default() };
    for number in 0..1_000 {
        let reason = format!("{}{number}", "x".repeat(10_000));
        add(&mut tally, &view, Some(&allow), Some(&said(ExpectedKind::Deny, Some(&reason))));
        add(&mut tally, &view, Some(&allow), Some(&said(ExpectedKind::Deny, Some(&number.to_string()))));
    }
    let bytes = serde_json::to_vec(&(tally.transitions(), tally.samples())).unwrap().len();
    assert!(bytes < 32 << 10, "{bytes} bytes");
    let counted: u64 = tally.transitions().iter().map(|found| found.count).sum();
    assert_eq!((counted, tally.differences), (2_000, 2_000));
}

#[test]
fn a_copy_is_what_was_judged() {
    let views = [
        EventView { topic: "a/b", attrs: &[1, 2], payload: b"one", identity: "spiffe://d/service/s" },
        EventView { topic: "a/c", ..EventView::default() },
    ];
    let taken = Taken {
        views: &views,
        now_unix_ns: 9,
        worker: 3,
        generation: 1,
        side: Side::Ingress,
        entry: true,
        chain: &[],
        tape: None,
    };
    let work = Work::copy(&taken, Stage::Ingress, 4);
    let parts = |view: &EventView<'_>| {
        (view.topic.to_owned(), view.attrs.to_vec(), view.payload.to_vec(), view.identity.to_owned())
    };
    assert_eq!(work.views().iter().map(parts).collect::<Vec<_>>(), views.iter().map(parts).collect::<Vec<_>>());
    assert_eq!((work.now_unix_ns, work.now_ms, work.worker, work.stage), (9, 4, 3, Stage::Ingress));
    assert!(work.size() > "a/b".len() + 2 + 3 + "a/c".len(), "it is counted with what it takes beside its bytes");
}
