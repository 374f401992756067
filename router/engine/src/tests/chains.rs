//! Chains with real components in them.

use super::*;

fn chain(on_fault: OnFault) -> (Chain, Rc<BoundFilter>) {
    let policy = FaultPolicy { clean_batches: 2, ..FaultPolicy::default() };
    let previous: Box<dyn Filter> = Box::new(slot(healthy()));
    let binding = bind_with_previous(slot(hostile()), Some(previous), on_fault, policy);
    (Chain::new(vec![binding.clone()]), binding)
}

#[test]
fn a_healthy_batch_is_ready_at_once() {
    let (chain, binding) = chain(OnFault::Reject);
    let (events, mut scratch) = (events(&["a"; 64]), ChainScratch::new());
    for _ in 0..20 {
        let judgement = now(chain.run(&Batch::new(&events, 0, 0).unwrap(), &mut scratch)).expect("ready at once");
        assert!(judgement.all_pass_untouched());
    }
    let stats = binding.cells().read();
    assert_eq!((stats.batches, stats.events, stats.allowed), (20, 1280, 1280));
    assert!(stats.cpu_ns > 0, "the first and the seventeenth batch were timed");
}

#[test]
fn verdicts_output_and_notes_come_through() {
    let (chain, binding) = chain(OnFault::Reject);
    let (events, mut scratch) = (events(&["D", "T", "G", "P.!"]), ChainScratch::new());
    let judgement = now(chain.run(&Batch::new(&events, 77, 0).unwrap(), &mut scratch)).expect("ready at once");
    assert_eq!((judgement.event(0).fate, judgement.event(0).reason), (Fate::Deny, "second reason"));
    assert_eq!((judgement.event(3).fate, judgement.event(3).reason), (Fate::Deny, "first reason"));
    let emitted: Vec<_> = judgement.emitted().collect();
    assert_eq!((emitted[0].topic, emitted[0].payload, emitted[0].cause), ("audit/log", &b"seen"[..], 1));
    let stats = binding.cells().read();
    assert_eq!(stats.counters, vec![("seen_total".into(), 2)]);
    assert_eq!((stats.host_calls, stats.emitted), (3, 1));
    assert_eq!(binding.cells().take_logs()[0].time_unix_ns, 77);
}

#[test]
fn every_hostile_event_is_alone_with_its_fault() {
    for (payload, code) in [
        ("X", "trap"),
        ("L", "deadline"),
        ("M", "memory"),
        ("R", "stack-overflow"),
        ("O", "out-of-bounds"),
        ("C", "malformed-output"),
        ("V", "malformed-output"),
        ("E", "malformed-output"),
        ("Z", "malformed-output"),
        ("B", "host-call-budget"),
    ] {
        let (chain, binding) = chain(OnFault::DeadLetter);
        let mut payloads = vec!["a"; 16];
        payloads[5] = payload;
        payloads[6] = "D";
        let (events, mut scratch) = (events(&payloads), ChainScratch::new());
        let judgement = block_on(chain.run(&Batch::new(&events, 0, 0).unwrap(), &mut scratch));
        for (index, judged) in judgement.events().enumerate() {
            let expected = match index {
                5 => (Fate::DeadLetter, Some(code)),
                6 => (Fate::Deny, None),
                _ => (Fate::Pass, None),
            };
            assert_eq!((judged.fate, judged.fault.map(FilterFault::code)), expected, "{payload}, event {index}");
        }
        assert!(binding.is_apart(), "{payload}");
        fates(&chain, &["a"], 1);
        fates(&chain, &["a"], 1);
        assert!(!binding.is_apart(), "{payload}: back after two clean batches");
    }
}

#[test]
fn three_endless_events_are_found_and_the_fourth_ends_the_budget() {
    let (chain, _) = chain(OnFault::Reject);
    let (events, mut scratch) = (events(&["L", "a", "L", "L", "a", "L", "a"]), ChainScratch::new());
    let judgement = block_on(chain.run(&Batch::new(&events, 0, 0).unwrap(), &mut scratch));
    let fates: Vec<_> = judgement.events().map(|judged| judged.fate).collect();
    // Clean calls and fresh instances are charged as well, so the third endless event is the last that is looked at.
    assert_eq!(fates[..3], [Fate::Deny, Fate::Pass, Fate::Deny]);
    assert_eq!(fates[5..], [Fate::Deny, Fate::Deny]);
    assert_eq!(judgement.event(6).fault.map(FilterFault::code), Some("budget-spent"));
}

#[test]
fn last_good_runs_the_version_before() {
    let (chain, binding) = chain(OnFault::LastGood);
    assert_eq!(fates(&chain, &["a", "X", "D", "L"], 0), [Fate::Pass, Fate::Pass, Fate::Deny, Fate::Pass]);
    let stats = binding.cells().read();
    assert_eq!((stats.faulted, stats.faulted_last_good, stats.faulted_rejected), (2, 2, 0));
}

#[test]
fn a_filter_that_always_traps_is_quarantined() {
    let (chain, binding) = chain(OnFault::Reject);
    for at in 0..8 {
        assert!(!binding.is_quarantined(), "batch {at}");
        fates(&chain, &["X", "X"], at);
    }
    assert!(binding.is_quarantined());
}
