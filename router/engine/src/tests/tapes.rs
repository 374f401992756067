//! What is taped of a batch, and that a replay of it says the same.

use super::*;

/// The easy guest: `T` takes a token of a bucket of two and is denied without one, `S` is dropped when seen before.
fn program() -> Program {
    runtime().load(&runtime().compile_here(&easy_guest::component()).expect("compiled")).expect("linked")
}

fn tape(chain: &Chain, payloads: &[&str]) -> Tape {
    let (events, mut scratch) = (events(payloads), ChainScratch::new());
    scratch.record();
    let judgement = block_on(chain.run(&Batch::new(&events, 1, 0).unwrap(), &mut scratch));
    judgement.tape().cloned().expect("it was asked for")
}

/// What a replay says about the events that the only binding of `taped` judged.
fn replayed(replay: &mut Replay, payloads: &[&str], taped: &TapedBinding) -> Vec<Replayed> {
    let events = events(payloads);
    let events: Vec<_> = taped.events.iter().map(|taped| events[taped.event]).collect();
    replay.run(&events, 1, &taped.calls)
}

#[test]
fn a_replay_says_what_was_said_and_asks_nobody() {
    let program = program();
    let chain = Chain::new(vec![bind(slot(&program), OnFault::Reject, FaultPolicy::default())]);
    let mut replay = Replay::new(&program, b"", SlotLimits::default()).expect("a slot");
    for payloads in [&["T", "S", "a", "T", "T", "S", "D"][..], &["S", "T"], &["Pnew", "Ax", "S"]] {
        let tape = tape(&chain, payloads);
        let taped = &tape.judged[0];
        assert_eq!((tape.judged.len(), taped.events.len()), (1, payloads.len()));
        let asked = payloads.iter().filter(|payload| matches!(**payload, "T" | "S")).count();
        assert_eq!(taped.calls.len(), asked, "{:?}", taped.calls);
        let said: Vec<_> =
            taped.events.iter().map(|event| Replayed::Decided(event.decision.clone().unwrap())).collect();
        assert_eq!(replayed(&mut replay, payloads, taped), said);
        assert_eq!(replayed(&mut replay, payloads, taped), said, "and again");
    }
}

#[test]
fn nothing_is_taped_unless_asked_and_for_one_batch_only() {
    let chain = Chain::new(vec![bind(faulty(), OnFault::Reject, FaultPolicy::default())]);
    let (events, mut scratch) = (events(&["a"]), ChainScratch::new());
    let batch = Batch::new(&events, 1, 0).unwrap();
    assert_eq!(block_on(chain.run(&batch, &mut scratch)).tape(), None);
    scratch.record();
    assert!(block_on(chain.run(&batch, &mut scratch)).tape().is_some());
    assert_eq!(block_on(chain.run(&batch, &mut scratch)).tape(), None);
}

#[test]
fn what_was_not_recorded_is_not_made_up_and_takes_no_neighbour_with_it() {
    let program = program();
    let mut replay = Replay::new(&program, b"", SlotLimits::default()).expect("a slot");
    let said = replay.run(&events(&["a", "S", "D"]), 1, &[]);
    let is_decided = |said: &Replayed| matches!(said, Replayed::Decided(_));
    assert_eq!(said.iter().map(is_decided).collect::<Vec<_>>(), [true, false, true]);
    assert!(matches!(&said[1], Replayed::NotRecorded(Question::Seen { .. })), "{said:?}");
    // `X` asks before it traps; `U` breaks the contract without a question.
    let said = replay.run(&events(&["X", "U"]), 1, &[]);
    assert!(matches!(&said[0], Replayed::NotRecorded(Question::Seen { .. })), "{said:?}");
    assert!(matches!(&said[1], Replayed::Faulted(fault) if fault.code == FaultCode::MalformedOutput), "{said:?}");
}

#[test]
fn a_binding_is_taped_with_what_the_ones_before_left_and_with_its_faults() {
    let info = FilterInfo { max_output: 64, ..FilterInfo::default() };
    let first = native(info, |payload, output| {
        if payload == "drop" {
            return Ok(Verdict::of(myelin_arena::Kind::Drop));
        }
        output.push(OutputEntry { payload: format!("{payload}2").into_bytes(), ..OutputEntry::default() });
        Ok(Verdict::ALLOW.with_replacement(true, false))
    });
    let bindings = [first, faulty()].map(|filter| bind(filter, OnFault::Pass, FaultPolicy::default()));
    let tape = tape(&Chain::new(bindings.to_vec()), &["a", "drop", "X"]);
    let second = &tape.judged[1];
    let seen: Vec<_> = second.events.iter().map(|event| (event.event, event.payload.as_deref())).collect();
    assert_eq!(seen, [(0, Some(&b"a2"[..])), (2, Some(&b"X2"[..]))]);
    let said: Vec<_> = second.events.iter().map(|event| (event.decision.is_some(), event.fault.is_some())).collect();
    assert_eq!(said, [(true, false), (false, true)]);
    assert_eq!(tape.judged[0].events[1].decision.as_ref().map(|decision| decision.verdict), Some(ExpectedKind::Drop));
}

#[test]
fn the_version_before_is_taped_beside_the_fault_that_it_mends() {
    let previous = native(FilterInfo::default(), |_, _| Ok(Verdict::of(myelin_arena::Kind::Drop)));
    let bound = bind_with_previous(faulty(), Some(Box::new(previous)), OnFault::LastGood, FaultPolicy::default());
    let tape = tape(&Chain::new(vec![bound]), &["X"]);
    let event = &tape.judged[0].events[0];
    assert_eq!(event.decision.as_ref().map(|decision| decision.verdict), Some(ExpectedKind::Drop));
    assert_eq!(event.fault.as_ref().map(|fault| fault.code), Some(FaultCode::Trap));
}

#[test]
fn a_shadow_is_told_what_was_told_and_asks_its_own_memory_for_the_rest() {
    let program = program();
    let chain = Chain::new(vec![bind(slot(&program), OnFault::Reject, FaultPolicy::default())]);
    let answers = Arc::new(Answers::falling_back());
    let setup = SlotSetup { answers: Some(Arc::clone(&answers)), ..SlotSetup::default() };
    let slot = program.instantiate(&setup).expect("a slot");
    let shadow = Chain::new(vec![bind(slot, OnFault::Reject, FaultPolicy::default())]);
    let said = |tape: &Tape| -> Vec<_> {
        tape.judged[0].events.iter().map(|event| event.decision.as_ref().map(|decision| decision.verdict)).collect()
    };
    for payloads in [&["S", "T"][..], &["S", "T"], &["T", "S"]] {
        let live = tape(&chain, payloads);
        answers.load(&live.judged[0].calls);
        let shadowed = tape(&shadow, payloads);
        assert_eq!((said(&shadowed), answers.take_others()), (said(&live), 0), "{payloads:?}");
    }
    answers.load(&[]);
    let alone = tape(&shadow, &["S", "S"]);
    assert_eq!(said(&alone), [Some(ExpectedKind::Allow), Some(ExpectedKind::Drop)], "its own memory was empty");
    assert_eq!(answers.take_others(), 2);
    // A neighbour's fault does not use the answers up: the batch is judged again, event by event.
    let live = tape(&chain, &["S"]);
    answers.load(&live.judged[0].calls);
    let shadowed = tape(&shadow, &["S", "U"]);
    assert_eq!(said(&shadowed), [said(&live)[0], None]);
    assert_eq!(answers.take_others(), 0);
}
