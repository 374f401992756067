//! All states, breadth first, and what must be true of them.

use super::*;
use std::collections::VecDeque;

/// If from now on nobody answers, the controller alone brings the rollout to an end.
fn check_ends(model: &mut Model, state: &State) {
    let heard = state.nodes.map(|(_, heard)| heard);
    let (mut head, mut ledger) = (state.head, state.ledger);
    for _ in 0..10 {
        if model.logs[usize::from(head)].rollout == 0 {
            return;
        }
        match model.decide(head, heard, ledger, true) {
            Does::Writes(next) => (head, ledger) = (next, Ledger::Unread),
            // Nobody answers.
            Does::Reads => ledger = Ledger::Off,
            Does::Waits => panic!("a deadline is never waited out twice"),
        }
    }
    panic!("a rollout without an end: {state:?}");
}

/// All states, and the transitions between them: where to, where from.
fn explore(model: &mut Model, first: State) -> (Vec<State>, Vec<(u32, u32)>) {
    let mut numbers: HashMap<State, u32, Quickly> = HashMap::from_iter([(first.normal(model), 0)]);
    let (mut states, mut transitions) = (vec![first.normal(model)], Vec::new());
    let (mut waiting, mut found) = (VecDeque::from([0u32]), Vec::new());
    while let Some(number) = waiting.pop_front() {
        let state = states[number as usize];
        check_ends(model, &state);
        found.clear();
        model.successors(&state, &mut found);
        for next in found.drain(..).map(|next| next.normal(model)) {
            let known = *numbers.entry(next).or_insert_with(|| {
                states.push(next);
                let new = u32::try_from(states.len() - 1).unwrap();
                waiting.push_back(new);
                new
            });
            if known != number {
                transitions.push((known, number));
            }
        }
        assert!(states.len() < STATES_MAX, "{STATES_MAX} states are not all");
    }
    transitions.sort_unstable();
    (states, transitions)
}

#[test]
fn every_rollout_ends_with_one_set_whatever_happens_on_its_way() {
    let (mut model, first) = Model::new();
    let (states, transitions) = explore(&mut model, first);

    // From everywhere there is a way to where both are over and all routers have caught up from the log.
    let mut can_settle: Vec<bool> = states.iter().map(|state| state.is_settled(&model)).collect();
    let mut waiting: Vec<u32> = (0u32..).zip(&can_settle).filter(|(_, settled)| **settled).map(|(n, _)| n).collect();
    while let Some(number) = waiting.pop() {
        let begin = transitions.partition_point(|(to, _)| *to < number);
        for (_, from) in transitions[begin..].iter().take_while(|(to, _)| *to == number) {
            if !std::mem::replace(&mut can_settle[*from as usize], true) {
                waiting.push(*from);
            }
        }
    }
    let stuck = states.iter().zip(&can_settle).find(|(_, can_settle)| !**can_settle);
    assert!(stuck.is_none(), "{stuck:?}");

    let settled_at = states.iter().filter(|state| state.is_settled(&model));
    let mut ends: Vec<u8> = settled_at.map(|state| model.logs[usize::from(state.head)].wants[0].set).collect();
    println!(
        "{} states, {} transitions, {} logs, {} settled",
        states.len(),
        transitions.len(),
        model.logs.len(),
        ends.len()
    );
    ends.sort_unstable();
    ends.dedup();
    assert_eq!(ends, [0, 1, 2], "both are rolled back, or the first stays, or the second");
    // The check that finds nothing because it looks at nothing.
    assert!(states.len() > 1_000_000, "{} states", states.len());
}
