#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use proptest::prelude::*;

use super::super::tail::Grant;
use super::*;

const TTL_MS: u64 = 20;

/// What a router does next, and how far in the sequence of its steps with the servers it comes before others go on.
#[derive(Clone, Debug)]
enum Step {
    /// Looks at the servers, to act on what it saw later.
    Look {
        router: usize,
    },
    /// Acts on its last look: takes or renews.
    Act {
        router: usize,
    },
    /// Appends under its newest fence, decided by the stream as it saw it last.
    Append {
        router: usize,
    },
    Release {
        router: usize,
    },
    /// Its process ends; the next has the same name and another clock.
    Restart {
        router: usize,
    },
    Pass {
        ms: u64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let router = || 0usize..3;
    prop_oneof![
        5 => router().prop_map(|router| Step::Look { router }),
        5 => router().prop_map(|router| Step::Act { router }),
        5 => router().prop_map(|router| Step::Append { router }),
        1 => router().prop_map(|router| Step::Release { router }),
        1 => router().prop_map(|router| Step::Restart { router }),
        4 => (0u64..15).prop_map(|ms| Step::Pass { ms }),
    ]
}

/// The stream, reduced to who wrote: a grant's holder, or the term an append was made under.
#[derive(Default)]
struct Servers {
    stream: Vec<Entry>,
    beat: Option<Heard>,
    beats: u64,
    /// Appends that processes sent which are gone: each with the end that it follows, and its term.
    late: Vec<(u64, u64)>,
}

#[derive(Clone, Debug, PartialEq)]
enum Entry {
    Grant(Grant),
    Append { term: u64 },
}

type Look = (u64, Option<Given>, Option<Heard>, u64);

#[derive(Default)]
struct Router {
    leases: Leases,
    skew_ms: u64,
    /// Sequence, grant and beat of its last look, and when that was.
    look: Option<Look>,
    fence: Option<Fence>,
}

impl Servers {
    fn last(&self) -> u64 {
        self.stream.len() as u64
    }

    fn granted(&self) -> Option<Given> {
        let entries = (1..).zip(&self.stream).filter_map(|(sequence, entry)| match entry {
            Entry::Grant(grant) => Some((sequence, grant.clone())),
            Entry::Append { .. } => None,
        });
        entries.last()
    }

    /// Appends if nothing came after `expected`.
    fn publish(&mut self, expected: u64, entry: Entry) -> Option<u64> {
        (self.last() == expected).then(|| {
            self.stream.push(entry);
            self.last()
        })
    }
}

fn act(servers: &mut Servers, router: &mut Router, name: &str, time_ms: u64) {
    let Some((sequence, granted, heard, now_ms)) = router.look.take() else { return };
    let ask = Ask { lease: "rollout".into(), holder: name.into(), ttl_ms: TTL_MS, now_ms };
    let Ok(claim) = router.leases.claim(&ask, granted.as_ref(), heard.as_ref()) else { return };
    let term = match claim {
        Claim::Renew { term } => term,
        Claim::Take => {
            let grant = Grant { lease: "rollout".into(), holder: name.into(), ttl_ms: TTL_MS, nonce: String::new() };
            let Some(term) = servers.publish(sequence, Entry::Grant(grant)) else { return };
            term
        }
    };
    // The bucket compares revisions, too.
    let is_written = servers.beat.as_ref().map(|heard| heard.revision) == heard.map(|heard| heard.revision);
    if is_written {
        servers.beats += 1;
        let beat = Beat { term, ttl_ms: TTL_MS, released: false };
        servers.beat = Some(Heard { revision: servers.beats, beat });
    }
    let is_in_time = router.leases.is_held_at("rollout", time_ms + router.skew_ms);
    if claim == Claim::Take || (is_written && is_in_time) {
        router.fence = Some(router.leases.hold(&ask, term));
    }
}

proptest! {
    #[test]
    fn no_append_of_an_earlier_holder_follows_a_later_grant(steps in prop::collection::vec(step(), 1..300)) {
        let mut servers = Servers::default();
        let mut routers: [Router; 3] = std::array::from_fn(|n| Router { skew_ms: 1_000 * n as u64, ..Router::default() });
        let mut time_ms = 0;
        for step in steps {
            match step {
                Step::Look { router } => {
                    let router = &mut routers[router];
                    let now_ms = time_ms + router.skew_ms;
                    router.look = Some((servers.last(), servers.granted(), servers.beat.clone(), now_ms));
                }
                Step::Act { router } => {
                    act(&mut servers, &mut routers[router], &router.to_string(), time_ms);
                },
                Step::Append { router } => {
                    if let Some((sequence, term)) = servers.late.pop() {
                        servers.publish(sequence, Entry::Append { term });
                    }
                    let router = &mut routers[router];
                    // Whatever its clock says: the stream alone must keep it out. It knows the stream up to its look.
                    let Some((sequence, granted, ..)) = &router.look else { continue };
                    let Some(fence) = &router.fence else { continue };
                    if granted.as_ref().is_some_and(|(term, _)| *term == fence.term) {
                        servers.publish(*sequence, Entry::Append { term: fence.term });
                    }
                }
                Step::Release { router } => {
                    let Some(fence) = routers[router].fence.clone() else { continue };
                    if routers[router].leases.release(&fence) {
                        servers.beats += 1;
                        let beat = Beat { term: fence.term, ttl_ms: TTL_MS, released: true };
                        servers.beat = Some(Heard { revision: servers.beats, beat });
                    }
                }
                Step::Restart { router } => {
                    let skew_ms = routers[router].skew_ms + 77;
                    let past = std::mem::replace(&mut routers[router], Router { skew_ms, ..Router::default() });
                    // What it had sent arrives when it arrives.
                    if let (Some((sequence, Some((term, _)), ..)), Some(fence)) = (past.look, past.fence)
                        && term == fence.term
                    {
                        servers.late.push((sequence, term));
                    }
                }
                Step::Pass { ms } => time_ms += ms,
            }
            // By their clocks, which run equally, one router at most believes to have the lease.
            let believers = routers.iter().filter(|router| {
                let now_ms = time_ms + router.skew_ms;
                router.fence.as_ref().is_some_and(|fence| router.leases.check(fence, now_ms).is_ok())
            });
            prop_assert!(believers.count() <= 1);
        }
        let mut newest = 0;
        for (sequence, entry) in (1u64..).zip(&servers.stream) {
            match entry {
                Entry::Grant(_) => newest = sequence,
                Entry::Append { term } => prop_assert_eq!(*term, newest, "at {}", sequence),
            }
        }
    }
}

fn ask(holder: &str, now_ms: u64) -> Ask {
    Ask { lease: "rollout".into(), holder: holder.into(), ttl_ms: TTL_MS, now_ms }
}

#[test]
fn a_stranger_waits_from_its_own_first_look_and_anew_after_each_beat() {
    let grant = Grant { lease: "rollout".into(), holder: "a".into(), ttl_ms: TTL_MS, nonce: String::new() };
    let granted = (7, grant);
    let heard = |revision, released| Heard { revision, beat: Beat { term: 7, ttl_ms: TTL_MS, released } };
    let mut leases = Leases::default();
    let mut left = |now_ms, heard: Option<&Heard>| match leases.claim(&ask("b", now_ms), Some(&granted), heard) {
        Ok(claim) => {
            assert_eq!(claim, Claim::Take);
            0
        }
        Err(StoreError::LeaseHeld { left_ms, .. }) => left_ms,
        Err(other) => panic!("{other}"),
    };
    assert_eq!(left(500, None), 20);
    assert_eq!(left(519, None), 1);
    assert_eq!(left(519, Some(&heard(1, false))), 20, "it lives");
    assert_eq!(left(538, Some(&heard(1, false))), 1);
    assert_eq!(left(538, Some(&heard(2, true))), 0, "it gave the lease back");
    assert_eq!(left(539, Some(&heard(1, false))), 0, "that beat was 20 ms ago");
    let stale = Heard { revision: 9, beat: Beat { term: 3, ttl_ms: 1, released: true } };
    assert_eq!(left(560, Some(&stale)), 20, "a beat of another term says nothing");
    assert_eq!(leases.claim(&ask("a", 0), Some(&granted), None).unwrap(), Claim::Take, "its own, from before");
}
