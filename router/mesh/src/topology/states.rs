//! The newest link state of every router, as flooded by its owner.

use std::collections::{BTreeMap, BTreeSet};

use crate::control::LinkState;
use crate::ids::RouterNumber;
use crate::limits::{COST_MAX, OWNER_EXPIRY_MS, ROUTERS_MAX, VERSION_JUMP_MAX, VERSION_MAX};
use crate::violation::{Violation, ViolationCode};

/// What a link state that came was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Accepted {
    /// Newer than what was there.
    Newer {
        /// The routes may be others now.
        links_changed: bool,
    },
    /// Known already, or older.
    Old,
    /// From a router more than there may be.
    Full,
}

/// All link states but the own.
#[derive(Default)]
pub(crate) struct LinkStates {
    /// At most [`ROUTERS_MAX`].
    known: BTreeMap<RouterNumber, Known>,
    /// Those without a path to them, by since when: what is due is asked after every message, and few are away.
    away: BTreeSet<(u64, RouterNumber)>,
}

struct Known {
    state: LinkState,
    /// Since when there has been no path to its owner.
    unreachable_since: Option<u64>,
}

/// Checks what types do not say about a link state.
///
/// # Errors
/// `malformed` where it contradicts itself.
pub(crate) fn check(state: &LinkState) -> Result<(), Violation> {
    let owner = state.owner;
    let refuse =
        |why: &str| Err(Violation::new(ViolationCode::Malformed, format!("the link state of router {owner} {why}")));
    if !state.links.windows(2).all(|pair| pair[0].0 < pair[1].0) {
        return refuse("does not list its neighbours in order, each once");
    }
    if state.links.iter().any(|(neighbour, _)| *neighbour == owner) {
        return refuse("lists its owner as a neighbour");
    }
    if state.links.iter().any(|(_, cost)| !(1..=COST_MAX).contains(cost)) {
        return refuse("has a cost out of range");
    }
    if state.interest.epoch != state.epoch {
        return refuse("tells an interest of another epoch");
    }
    if state.interest.seq >= VERSION_MAX {
        return refuse("tells an interest of more changes than there can be");
    }
    Ok(())
}

impl LinkStates {
    /// Checks that `owner` can have told a link state in this version.
    ///
    /// # Errors
    /// `malformed` for a version that leaves no room for a higher one, or that is too far ahead of one that is fresh:
    /// of a router that could not be reached, much may have been missed.
    pub(crate) fn check_version(&self, owner: RouterNumber, (epoch, version): (u32, u64)) -> Result<(), Violation> {
        let fresh = self.known.get(&owner).filter(|known| known.unreachable_since.is_none());
        let fresh = fresh.filter(|known| known.state.epoch == epoch).map(|known| known.state.version);
        if version < fresh.map_or(VERSION_MAX, |fresh| VERSION_MAX.min(fresh.saturating_add(VERSION_JUMP_MAX))) {
            return Ok(());
        }
        let message = format!("a link state of router {owner} has version {version}, where {fresh:?} was the last");
        Err(Violation::new(ViolationCode::Malformed, message))
    }

    /// Keeps `state` if it is newer than what is there. Where there is no room, one of those goes that are no `member`.
    pub(crate) fn accept(&mut self, now: u64, state: LinkState, is_member: impl Fn(RouterNumber) -> bool) -> Accepted {
        if self.known.len() >= ROUTERS_MAX && !self.known.contains_key(&state.owner) && is_member(state.owner) {
            let stranger = self.known.keys().copied().find(|owner| !is_member(*owner));
            if let Some(stranger) = stranger {
                self.remove(stranger);
            }
        }
        let room = self.known.len() < ROUTERS_MAX;
        match self.known.get_mut(&state.owner) {
            Some(known) if (known.state.epoch, known.state.version) >= (state.epoch, state.version) => Accepted::Old,
            Some(known) => {
                let links_changed = known.state.links != state.links || known.state.draining != state.draining;
                known.state = state;
                Accepted::Newer { links_changed }
            }
            None if !room => Accepted::Full,
            None => {
                self.away.insert((now, state.owner));
                self.known.insert(state.owner, Known { state, unreachable_since: Some(now) });
                Accepted::Newer { links_changed: true }
            }
        }
    }

    pub(crate) fn get(&self, owner: RouterNumber) -> Option<&LinkState> {
        self.known.get(&owner).map(|known| &known.state)
    }

    pub(crate) fn len(&self) -> usize {
        self.known.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &LinkState> {
        self.known.values().map(|known| &known.state)
    }

    /// What `a` says that its link to `b` costs.
    pub(crate) fn stated(&self, a: RouterNumber, b: RouterNumber) -> Option<u32> {
        let links = &self.get(a)?.links;
        let at = links.binary_search_by_key(&b, |(neighbour, _)| *neighbour).ok()?;
        Some(links[at].1)
    }

    /// Whether both say that they have a link to each other.
    pub(crate) fn are_adjacent(&self, a: RouterNumber, b: RouterNumber) -> bool {
        self.stated(a, b).is_some() && self.stated(b, a).is_some()
    }

    /// Notes who can be reached now.
    pub(crate) fn note_reachable(&mut self, now: u64, mut is_reachable: impl FnMut(RouterNumber) -> bool) {
        for (owner, known) in &mut self.known {
            match (is_reachable(*owner), known.unreachable_since) {
                (true, Some(since)) => {
                    known.unreachable_since = None;
                    self.away.remove(&(since, *owner));
                }
                (false, None) => {
                    known.unreachable_since = Some(now);
                    self.away.insert((now, *owner));
                }
                _ => {}
            }
        }
    }

    /// Those without a path to them.
    pub(crate) fn away(&self) -> impl Iterator<Item = RouterNumber> {
        self.away.iter().map(|(_, owner)| *owner)
    }

    /// When [`expire`](Self::expire) has something to do.
    pub(crate) fn deadline(&self) -> Option<u64> {
        self.away.first().map(|(since, _)| since + OWNER_EXPIRY_MS)
    }

    /// Forgets those who could not be reached for long, and says who they are.
    pub(crate) fn expire(&mut self, now: u64) -> Vec<RouterNumber> {
        let over = self.away.iter().take_while(|(since, _)| now >= since + OWNER_EXPIRY_MS);
        let gone: Vec<_> = over.map(|(_, owner)| *owner).collect();
        gone.iter().for_each(|owner| self.remove(*owner));
        gone
    }

    fn remove(&mut self, owner: RouterNumber) {
        if let Some(since) = self.known.remove(&owner).and_then(|known| known.unreachable_since) {
            self.away.remove(&(since, owner));
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::*;
    use crate::control::{CatalogHead, InterestHead, Status};

    pub(crate) fn state(owner: u32, epoch: u32, version: u64, links: &[(u32, u32)]) -> LinkState {
        LinkState {
            owner: RouterNumber(owner),
            epoch,
            version,
            draining: false,
            links: links.iter().map(|(neighbour, cost)| (RouterNumber(*neighbour), *cost)).collect(),
            interest: InterestHead { epoch, ..InterestHead::default() },
            catalog: CatalogHead::default(),
            status: Status::default(),
        }
    }

    #[test]
    fn the_newest_holds_by_epoch_then_version() {
        let mut states = LinkStates::default();
        let newer = |links_changed| Accepted::Newer { links_changed };
        assert_eq!(states.accept(0, state(1, 1, 5, &[(2, 9)]), |_| true), newer(true));
        assert_eq!(states.accept(0, state(1, 1, 5, &[]), |_| true), Accepted::Old);
        assert_eq!(states.accept(0, state(1, 1, 4, &[]), |_| true), Accepted::Old);
        assert_eq!(states.accept(0, state(1, 1, 6, &[(2, 9)]), |_| true), newer(false));
        assert_eq!(states.accept(0, state(1, 2, 1, &[(2, 8)]), |_| true), newer(true));
        assert_eq!(states.accept(0, state(1, 1, 99, &[]), |_| true), Accepted::Old);
        assert_eq!(states.stated(RouterNumber(1), RouterNumber(2)), Some(8));
        assert!(!states.are_adjacent(RouterNumber(1), RouterNumber(2)));
        states.accept(0, state(2, 1, 1, &[(1, 3)]), |_| true);
        assert!(states.are_adjacent(RouterNumber(2), RouterNumber(1)));
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        assert!(check(&state(1, 1, 1, &[(0, 1), (2, 1)])).is_ok());
        let mut wrong_epoch = state(1, 2, 1, &[]);
        wrong_epoch.interest.epoch = 1;
        let wrong =
            [state(1, 1, 1, &[(3, 1), (2, 1)]), state(1, 1, 1, &[(1, 1)]), state(1, 1, 1, &[(2, 0)]), wrong_epoch];
        assert!(wrong.iter().all(|state| check(state).unwrap_err().code == ViolationCode::Malformed));
    }

    #[test]
    fn whoever_cannot_be_reached_is_forgotten_in_time_and_there_is_a_limit() {
        let mut states = LinkStates::default();
        for owner in 0..ROUTERS_MAX {
            states.accept(100, state(u32::try_from(owner).unwrap(), 1, 1, &[]), |_| true);
        }
        assert_eq!(states.accept(100, state(5_000, 1, 1, &[]), |_| true), Accepted::Full);
        states.note_reachable(200, |owner| owner.0 != 7);
        assert_eq!(states.deadline(), Some(100 + OWNER_EXPIRY_MS));
        assert!(states.expire(99 + OWNER_EXPIRY_MS).is_empty());
        assert_eq!(states.expire(100 + OWNER_EXPIRY_MS), [RouterNumber(7)]);
        assert_eq!(states.deadline(), None);
    }
}
