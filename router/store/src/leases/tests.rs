#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Ask { holder: u8, ttl_ms: u64 },
    Release { holder: u8 },
    Pass { ms: u64 },
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0u8..3, 1u64..50).prop_map(|(holder, ttl_ms)| Step::Ask { holder, ttl_ms }),
        1 => (0u8..3).prop_map(|holder| Step::Release { holder }),
        4 => (0u64..30).prop_map(|ms| Step::Pass { ms }),
        1 => Just(Step::Reopen),
    ]
}

proptest! {
    #[test]
    fn a_lease_has_one_holder_and_a_term_that_only_grows(steps in prop::collection::vec(step(), 1..200)) {
        let (mut leases, mut now_ms, mut newest) = (Leases::default(), 0u64, 0u64);
        // What each holder believes to have, however long ago it was told.
        let mut fences: [Option<Fence>; 3] = [None, None, None];
        for step in steps {
            match step {
                Step::Ask { holder, ttl_ms } => {
                    let name = holder.to_string();
                    if let Ok(fence) = leases.ask("controller", &name, ttl_ms, now_ms, newest) {
                        prop_assert!(fence.term == newest || fence.term == newest + 1);
                        let is_renewed = fences[usize::from(holder)].as_ref() == Some(&fence);
                        prop_assert!(fence.term > newest || is_renewed, "a term has one holder");
                        newest = fence.term;
                        leases.hold(&fence, &name, ttl_ms, now_ms);
                        fences[usize::from(holder)] = Some(fence);
                    }
                }
                Step::Release { holder } => {
                    if let Some(fence) = &fences[usize::from(holder)] {
                        leases.release(fence);
                    }
                }
                Step::Pass { ms } => now_ms += ms,
                Step::Reopen => (leases, now_ms) = (Leases::default(), 0),
            }
            let may_write = fences.iter().flatten().filter(|fence| leases.check(fence, now_ms).is_ok());
            let terms: Vec<u64> = may_write.map(|fence| fence.term).collect();
            prop_assert!(terms.is_empty() || terms == [newest], "{:?} of {}", terms, newest);
        }
    }
}

#[test]
fn leases_are_bounded() {
    let mut leases = Leases::default();
    for n in 0..LEASES_MAX {
        let fence = leases.ask(&n.to_string(), "a", 10, 0, n as u64).unwrap();
        leases.hold(&fence, "a", 10, 0);
    }
    assert_eq!(leases.ask("one-more", "a", 10, 0, 16).unwrap_err().code(), "invalid-lease");
    leases.ask("3", "a", 10, 0, 16).unwrap();
    for (name, holder, ttl_ms) in
        [("", "a", 1), ("x", "", 1), ("x", "a", 0), ("x", "a", LEASE_TTL_MAX_MS + 1), (&"x".repeat(129), "a", 1)]
    {
        assert_eq!(leases.ask(name, holder, ttl_ms, 0, 16).unwrap_err().code(), "invalid-lease");
    }
}
