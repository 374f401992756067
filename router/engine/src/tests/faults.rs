//! What follows from a fault: isolation, the lane apart, quarantine, and the verdict that the binding declares.

use super::*;
use myelin_arena::Kind;

fn policy() -> FaultPolicy {
    FaultPolicy { faults_max: 3, window_ms: 100, clean_batches: 5, deadlines_max: 4 }
}

fn chain(binding: &Rc<BoundFilter>) -> Chain {
    Chain::new(vec![binding.clone()])
}

#[test]
fn a_poison_event_takes_no_neighbour_with_it() {
    let binding = bind(faulty(), OnFault::DeadLetter, policy());
    let mut payloads = vec!["a"; 64];
    payloads[37] = "X";
    let (events, mut scratch) = (events(&payloads), ChainScratch::new());
    let chain = chain(&binding);
    let judgement = block_on(chain.run(&Batch::new(&events, 0, 0).unwrap(), &mut scratch));
    for (index, judged) in judgement.events().enumerate() {
        let fate = if index == 37 { Fate::DeadLetter } else { Fate::Pass };
        assert_eq!((judged.fate, judged.fault.is_some()), (fate, index == 37), "event {index}");
    }
    let poison = judgement.event(37);
    assert_eq!((poison.fault.unwrap().code, poison.binding, poison.reason), (FaultCode::Trap, Some(0), ""));
    let stats = binding.cells().read();
    assert_eq!((stats.events, stats.allowed, stats.faulted, stats.faulted_dead_lettered), (64, 63, 1, 1));
    assert_eq!(stats.faults, vec![("trap", 2)], "once with its batch, once alone");
    assert!(binding.is_apart() && !binding.is_quarantined());
}

#[test]
fn each_declared_verdict_is_carried_out() {
    let fate = |on_fault| fates(&chain(&bind(faulty(), on_fault, policy())), &["a", "X", "b"], 0);
    assert_eq!(fate(OnFault::Reject), [Fate::Pass, Fate::Deny, Fate::Pass]);
    assert_eq!(fate(OnFault::Pass), [Fate::Pass, Fate::Pass, Fate::Pass]);
    assert_eq!(fate(OnFault::DeadLetter), [Fate::Pass, Fate::DeadLetter, Fate::Pass]);
    assert_eq!(fate(OnFault::LastGood), [Fate::Pass, Fate::Deny, Fate::Pass], "there is no version before");
}

#[test]
fn last_good_asks_the_version_before_and_says_so() {
    let reasons = || FilterInfo { reasons: vec!["the old one said no".into()], ..FilterInfo::default() };
    let previous = native(reasons(), |payload, _| match payload {
        "X-bad" => Ok(Verdict::of(Kind::Deny)),
        "X-worse" => Err(FilterFault::new(FaultCode::Trap, "the old one too")),
        _ => Ok(Verdict::ALLOW),
    });
    let binding = bind_with_previous(faulty(), Some(Box::new(previous)), OnFault::LastGood, policy());
    let (events, mut scratch) = (events(&["a", "X", "X-bad", "X-worse", "b"]), ChainScratch::new());
    let chain = chain(&binding);
    let judgement = block_on(chain.run(&Batch::new(&events, 0, 0).unwrap(), &mut scratch));
    let said: Vec<_> = judgement.events().map(|judged| (judged.fate, judged.last_good, judged.reason)).collect();
    assert_eq!(
        said,
        [
            (Fate::Pass, false, ""),
            (Fate::Pass, true, ""),
            (Fate::Deny, true, "the old one said no"),
            (Fate::Deny, false, ""),
            (Fate::Pass, false, ""),
        ]
    );
    let stats = binding.cells().read();
    assert_eq!((stats.faulted, stats.faulted_last_good, stats.faulted_rejected), (3, 2, 1));
    assert_eq!((stats.events, stats.allowed + stats.faulted), (5, 5));
}

#[test]
fn after_clean_batches_the_filter_comes_back_to_its_worker() {
    let binding = bind(faulty(), OnFault::Reject, policy());
    let chain = chain(&binding);
    fates(&chain, &["X"], 0);
    assert!(binding.is_apart());
    for batch in 0..5 {
        assert!(binding.is_apart(), "batch {batch}");
        assert_eq!(fates(&chain, &["a", "b"], 1), [Fate::Pass, Fate::Pass]);
    }
    assert!(!binding.is_apart());
    let (events, mut scratch) = (events(&["a"]), ChainScratch::new());
    assert!(now(chain.run(&Batch::new(&events, 0, 2).unwrap(), &mut scratch)).is_some(), "inline again");
    assert_eq!(binding.save().as_deref(), Some(&b""[..]), "the filter is here");
}

#[test]
fn while_a_batch_is_apart_the_worker_serves_others() {
    let (release, gate) = std::sync::mpsc::sync_channel::<()>(1);
    let gate = std::sync::Mutex::new(gate);
    let slow = native(FilterInfo::default(), move |payload, _| match payload {
        "X" => Err(FilterFault::new(FaultCode::Trap, "poison")),
        "wait" => {
            gate.lock().unwrap().recv().unwrap();
            Ok(Verdict::ALLOW)
        }
        _ => Ok(Verdict::ALLOW),
    });
    let ill = bind(slow, OnFault::Reject, policy());
    let (ill_chain, well_chain) = (chain(&ill), chain(&bind(faulty(), OnFault::Reject, policy())));
    fates(&ill_chain, &["X"], 0);
    let events_ill = events(&["wait"]);
    block_on(async {
        let (mut scratch, batch) = (ChainScratch::new(), Batch::new(&events_ill, 0, 1).unwrap());
        let mut waiting = std::pin::pin!(ill_chain.run(&batch, &mut scratch));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(waiting.as_mut().poll(&mut context).is_pending(), "its session waits");
        let others = events(&["a", "b"]);
        let mut other = ChainScratch::new();
        assert!(now(well_chain.run(&Batch::new(&others, 0, 1).unwrap(), &mut other)).is_some(), "others do not");
        release.send(()).unwrap();
        assert_eq!(waiting.await.event(0).fate, Fate::Pass);
    });
}

#[test]
fn many_sessions_share_the_lane_and_all_get_their_answer() {
    let binding = bind(faulty(), OnFault::Reject, FaultPolicy { clean_batches: 20, ..policy() });
    let chain = Rc::new(chain(&binding));
    fates(&chain, &["X"], 0);
    let local = tokio::task::LocalSet::new();
    let session = |_| {
        let chain = Rc::clone(&chain);
        async move {
            for _ in 0..50 {
                let (events, mut scratch) = (events(&["a", "b", "c"]), ChainScratch::new());
                let judgement = chain.run(&Batch::new(&events, 0, 1).unwrap(), &mut scratch).await;
                assert!(judgement.events().all(|judged| judged.fate == Fate::Pass));
                tokio::task::yield_now().await;
            }
        }
    };
    let sessions: Vec<_> = (0..10).map(|n| local.spawn_local(session(n))).collect();
    block_on(local.run_until(async {
        for session in sessions {
            session.await.unwrap();
        }
    }));
    assert!(!binding.is_apart(), "it came back under load");
    assert_eq!(binding.cells().read().events, 1 + 10 * 50 * 3);
}

#[test]
fn a_session_that_goes_away_leaves_the_lane_usable() {
    let binding = bind(faulty(), OnFault::Reject, policy());
    let chain = chain(&binding);
    fates(&chain, &["X"], 0);
    for _ in 0..20 {
        let (events, mut scratch) = (events(&["a"]), ChainScratch::new());
        // Polled once and dropped, as when a connection is lost.
        assert!(now(chain.run(&Batch::new(&events, 0, 1).unwrap(), &mut scratch)).is_none_or(|j| j.len() == 1));
        assert_eq!(fates(&chain, &["a"], 1), [Fate::Pass]);
    }
    assert!(!binding.is_apart());
}

#[test]
fn faults_in_the_window_quarantine_and_the_declared_verdict_stands() {
    let binding = bind(faulty(), OnFault::DeadLetter, policy());
    let chain = chain(&binding);
    for at in 0..3 {
        assert!(!binding.is_quarantined(), "fault {at}");
        assert_eq!(fates(&chain, &["X"], at), [Fate::DeadLetter]);
    }
    assert!(binding.is_quarantined() && !binding.is_apart());
    let (events, mut scratch) = (events(&["a", "b"]), ChainScratch::new());
    let judgement = now(chain.run(&Batch::new(&events, 0, 4).unwrap(), &mut scratch)).expect("ready at once");
    for judged in judgement.events() {
        assert_eq!((judged.fate, judged.fault.unwrap().code()), (Fate::DeadLetter, "quarantined"));
    }
    let logs = binding.cells().take_logs();
    assert!(logs.iter().any(|line| line.text.contains("quarantined: 3 faulted batches")), "{logs:?}");
    assert_eq!(binding.save(), None);
}

#[test]
fn a_quarantined_filter_with_a_version_before_goes_on_with_that() {
    let previous = native(FilterInfo::default(), |payload, _| match payload {
        "b" => Ok(Verdict::of(Kind::Drop)),
        _ => Ok(Verdict::ALLOW),
    });
    let binding = bind_with_previous(faulty(), Some(Box::new(previous)), OnFault::LastGood, policy());
    let chain = chain(&binding);
    (0..3).for_each(|at| drop(fates(&chain, &["X"], at)));
    assert!(binding.is_quarantined());
    assert_eq!(fates(&chain, &["a", "b", "X"], 5), [Fate::Pass, Fate::Drop, Fate::Pass]);
}

#[test]
fn a_panic_in_the_lane_quarantines_and_does_not_hang() {
    let panics = native(FilterInfo::default(), |payload, _| match payload {
        "X" => Err(FilterFault::new(FaultCode::Trap, "poison")),
        "P" => panic!("a bug of the host"),
        _ => Ok(Verdict::ALLOW),
    });
    let binding = bind(panics, OnFault::Reject, policy());
    let chain = chain(&binding);
    fates(&chain, &["X"], 0);
    assert_eq!(fates(&chain, &["P"], 1), [Fate::Deny]);
    assert!(binding.is_quarantined());
    assert_eq!(fates(&chain, &["a"], 2), [Fate::Deny]);
}

#[test]
fn what_a_batch_costs_after_a_fault_is_bounded() {
    let endless = native(FilterInfo::default(), |payload, _| match payload {
        "L" => Err(FilterFault::new(FaultCode::Deadline, "too long")),
        _ => Ok(Verdict::ALLOW),
    });
    let binding = bind(endless, OnFault::Reject, policy());
    let chain = chain(&binding);
    let (events, mut scratch) = (events(&["L", "a", "L", "b", "L", "c", "L", "d"]), ChainScratch::new());
    let judgement = block_on(chain.run(&Batch::new(&events, 0, 0).unwrap(), &mut scratch));
    let codes: Vec<_> = judgement.events().map(|judged| judged.fault.map(FilterFault::code)).collect();
    let (late, spent) = (Some("deadline"), Some("budget-spent"));
    assert_eq!(codes, [late, None, late, None, late, spent, spent, spent], "one deadline went with the whole batch");
    assert_eq!(binding.cells().read().faults, vec![("deadline", 4)]);
}
