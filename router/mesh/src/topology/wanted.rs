//! Link states that neighbours have in a newer version: asked for at one of them at a time.

use std::collections::BTreeMap;

use smallvec::SmallVec;

use crate::ids::{LinkId, RouterNumber};
use crate::limits::{OFFERS_MAX, PULL_INTERVAL_MS, ROUTERS_MAX};

/// Questions about one link state before it is given up: whoever offered it does not have it.
const QUESTIONS_MAX: usize = 8;

/// What is wanted, and who offered it.
#[derive(Default)]
pub(crate) struct Wanted {
    /// At most [`ROUTERS_MAX`].
    owners: BTreeMap<RouterNumber, Want>,
    /// Nothing is due before this: it is asked after every message.
    due: u64,
}

struct Want {
    newest: (u32, u64),
    offers: SmallVec<[LinkId; OFFERS_MAX]>,
    questions: usize,
    asked: Option<LinkId>,
    due: u64,
}

impl Wanted {
    /// The neighbour at `link` has this version of the link state of `owner`, which is newer than ours.
    pub(crate) fn offered(&mut self, now: u64, link: LinkId, owner: RouterNumber, newest: (u32, u64)) {
        if self.owners.len() >= ROUTERS_MAX && !self.owners.contains_key(&owner) {
            return;
        }
        if !self.owners.contains_key(&owner) {
            self.due = self.deadline().map_or(now, |due| due.min(now));
        }
        let new = Want { newest, offers: SmallVec::new(), questions: 0, asked: None, due: now };
        let want = self.owners.entry(owner).or_insert(new);
        want.newest = want.newest.max(newest);
        if !want.offers.contains(&link) && want.offers.len() < OFFERS_MAX {
            want.offers.push(link);
        }
    }

    /// A version of the link state of `owner` is here.
    pub(crate) fn arrived(&mut self, owner: RouterNumber, version: (u32, u64)) {
        if self.owners.get(&owner).is_some_and(|want| version >= want.newest) {
            self.owners.remove(&owner);
        }
    }

    /// A link is gone: what was asked by it is asked elsewhere.
    pub(crate) fn link_down(&mut self, now: u64, link: LinkId) {
        self.owners.retain(|_, want| {
            want.offers.retain(|offer| *offer != link);
            if want.asked == Some(link) {
                (want.asked, want.due) = (None, now);
                self.due = self.due.min(now);
            }
            !want.offers.is_empty()
        });
    }

    /// When [`questions`](Self::questions) has something to do, or sooner.
    pub(crate) fn deadline(&self) -> Option<u64> {
        (!self.owners.is_empty()).then_some(self.due)
    }

    /// Whom to ask for what, now.
    pub(crate) fn questions(&mut self, now: u64) -> BTreeMap<LinkId, Vec<RouterNumber>> {
        let mut asked: BTreeMap<_, Vec<_>> = BTreeMap::new();
        if now < self.due {
            return asked;
        }
        self.owners.retain(|owner, want| {
            if want.due > now {
                return true;
            }
            let offer = want.offers.get(want.questions % want.offers.len().max(1)).copied();
            let Some(link) = offer.filter(|_| want.questions < QUESTIONS_MAX) else { return false };
            (want.asked, want.due) = (Some(link), now + PULL_INTERVAL_MS);
            want.questions += 1;
            asked.entry(link).or_default().push(*owner);
            true
        });
        self.due = self.owners.values().map(|want| want.due).min().unwrap_or_default();
        asked
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::*;

    #[test]
    fn one_neighbour_is_asked_at_a_time_and_the_next_when_it_is_gone() {
        let (mut wanted, owner) = (Wanted::default(), RouterNumber(5));
        for link in 1..9 {
            wanted.offered(0, LinkId(link), owner, (1, link));
        }
        let ask = |wanted: &mut Wanted, now| wanted.questions(now).into_keys().map(|link| link.0).collect::<Vec<_>>();
        assert_eq!(ask(&mut wanted, 0), [1]);
        assert_eq!(wanted.deadline(), Some(PULL_INTERVAL_MS));
        assert!(ask(&mut wanted, 999).is_empty());
        wanted.link_down(999, LinkId(1));
        assert_eq!(ask(&mut wanted, 999), [3]);
        wanted.arrived(owner, (1, 7));
        assert!(wanted.deadline().is_some(), "version 8 was offered");
        wanted.arrived(owner, (2, 1));
        assert_eq!(wanted.deadline(), None);
    }

    #[test]
    fn what_nobody_has_is_given_up() {
        let mut wanted = Wanted::default();
        wanted.offered(0, LinkId(1), RouterNumber(5), (1, 1));
        let asked: usize = (0..60_000).map(|now| wanted.questions(now).len()).sum();
        assert_eq!((asked, wanted.deadline()), (QUESTIONS_MAX, None));
    }
}
