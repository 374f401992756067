//! What peers say.

use std::collections::BTreeSet;

use super::{Alarm, Mesh, Output};
use crate::control::{
    Control, Digest, InterestDelta, InterestHead, InterestPull, InterestSnapshot, LinkState, LinkStatePull,
};
use crate::ids::{LinkId, RouterNumber};
use crate::interest::remote::Outcome;
use crate::limits::{HEARSAY_DOUBT_MS, PULL_INTERVAL_MS, ROUTERS_MAX, VERSION_JUMP_MAX, VERSION_MAX};
use crate::topology::states::{Accepted, check};
use crate::violation::{Violation, ViolationCode};

/// How much was answered to one peer lately: what it asks costs more than the question.
#[derive(Default)]
pub(super) struct Answers {
    since: u64,
    link_states: usize,
    /// Owners whose interest was sent, since then: at most [`ROUTERS_MAX`].
    interests: BTreeSet<RouterNumber>,
}

impl Answers {
    fn at(&mut self, now: u64) -> &mut Self {
        // Half of the interval in which a peer asks again.
        if now >= self.since + PULL_INTERVAL_MS / 2 {
            *self = Self { since: now, ..Self::default() };
        }
        self
    }
}

impl Mesh {
    /// A message came.
    ///
    /// # Errors
    /// What the peer did wrong. Where [`Violation::closes_link`] says so, the mesh has forgotten the link already: close
    /// it, and tell the peer why.
    pub fn receive(&mut self, now: u64, link: LinkId, control: Control) -> Result<(), Violation> {
        let Some((peer, is_known)) = self.links.get(&link).map(|link| (link.peer, link.is_known)) else {
            return Ok(());
        };
        self.stats.received += 1;
        let done = match control {
            Control::Hello(_) | Control::HelloRefused(_) => {
                let message = format!("router {peer} says hello on a link that is up");
                Err(Violation::new(ViolationCode::OutOfOrder, message))
            }
            Control::Application { kind, body } => {
                self.outputs.push_back(Output::Application { link, kind, body });
                Ok(())
            }
            Control::Drain(drain) => {
                if let Some(link) = self.links.get_mut(&link) {
                    link.draining = true;
                }
                self.outputs.push_back(Output::PeerDraining { link, drain_ms: drain.drain_ms });
                Ok(())
            }
            _ if !is_known => {
                self.stats.unread += 1;
                Ok(())
            }
            Control::LinkState(state) => self.link_state_came(now, link, state),
            Control::Digest(digest) => self.digest_came(now, link, &digest),
            Control::LinkStatePull(pull) => {
                self.link_states_asked(now, link, &pull);
                Ok(())
            }
            Control::InterestDelta(delta) => self.delta_came(now, link, delta),
            Control::InterestPull(pull) => {
                self.interest_asked(now, link, pull);
                Ok(())
            }
            Control::InterestSnapshot(piece) => self.snapshot_came(now, link, piece),
        };
        if done.as_ref().is_err_and(Violation::closes_link) {
            self.drop_link(now, link);
        }
        self.tick(now);
        done
    }

    fn link_state_came(&mut self, now: u64, link: LinkId, state: LinkState) -> Result<(), Violation> {
        check(&state)?;
        let (owner, version) = (state.owner, (state.epoch, state.version));
        self.states.check_version(owner, version)?;
        if owner == self.config.router {
            self.heard_of_self(now, version);
        } else if let Some(its_own) = self.own_word(owner).filter(|its_own| *its_own != link) {
            self.hearsay_came(now, its_own, state);
        } else {
            self.refute_hearsay(now, link, &state);
            self.take_link_state(now, Some(link), state);
        }
        Ok(())
    }

    /// The link to a router that speaks for itself here: it takes part, and says that it has this link. What others
    /// say about it is not needed, and cannot be told from a lie.
    pub(super) fn own_word(&self, owner: RouterNumber) -> Option<LinkId> {
        let id = *self.peers.get(&owner)?;
        let is_known = self.links.get(&id)?.is_known;
        (is_known && self.states.stated(owner, self.config.router).is_some()).then_some(id)
    }

    /// A link state of a neighbour came by another link than its own.
    fn hearsay_came(&mut self, now: u64, its_own: LinkId, state: LinkState) {
        let newest = |state: &LinkState| (state.epoch, state.version);
        let Some(link) = self.links.get_mut(&its_own) else { return };
        let known = [self.states.get(state.owner), link.hearsay.as_ref().map(|(_, state)| state)];
        if known.into_iter().flatten().any(|known| newest(known) >= newest(&state)) {
            self.stats.link_states_old += 1;
            return;
        }
        if state.epoch > link.epoch {
            // Either its key was copied, or it has started anew and its old link has not timed out yet.
            let (router, live, refused) = (state.owner, link.epoch, state.epoch);
            self.outputs.push_back(Output::Alarm(Alarm::IdentityInUse { router, live, refused }));
        }
        // Its own word of it may be on its way, or its link may be about to end: it counts then. If it is somebody
        // else's, the neighbour says so once it hears of it.
        self.stats.hearsay += 1;
        link.hearsay = Some((now, state.clone()));
        self.send(vec![its_own], Control::LinkState(state));
    }

    /// A router that speaks is alive in this epoch, whatever others say.
    fn refute_hearsay(&mut self, now: u64, link: LinkId, state: &LinkState) {
        let Some(link) = self.links.get_mut(&link).filter(|link| link.peer == state.owner) else { return };
        link.hearsay.take_if(|(since, hearsay)| match hearsay.epoch > state.epoch {
            true => now >= *since + HEARSAY_DOUBT_MS,
            false => hearsay.version <= state.version,
        });
    }

    /// Takes over a link state that is its owner's, as far as one can tell.
    pub(super) fn take_link_state(&mut self, now: u64, from: Option<LinkId>, state: LinkState) {
        let (owner, version, interest) = (state.owner, (state.epoch, state.version), state.interest);
        let directory = self.directory.clone();
        let is_member = |router| directory.router(router).is_some();
        match self.states.accept(now, state, is_member) {
            Accepted::Old => {
                self.stats.link_states_old += 1;
                self.contradict(from, owner, version);
            }
            Accepted::Full => self.outputs.push_back(Output::Alarm(Alarm::RoutersFull { router: owner })),
            Accepted::Newer { links_changed } => {
                self.wanted.arrived(owner, version);
                // What a stranger wants is not kept: it would take the room of a member.
                if is_member(owner) {
                    self.remote.set_head(now, owner, interest);
                }
                // By what the new state says: if the owner has lost its link to a neighbour, we tell that neighbour.
                let onward = self.onward_state(owner, from);
                if let (false, Some(state)) = (onward.is_empty(), self.states.get(owner).cloned()) {
                    self.send(onward, Control::LinkState(state));
                }
                self.outputs.push_back(Output::StatusChanged(owner));
                if links_changed {
                    self.want_routes(now);
                }
            }
        }
    }

    /// A router told a link state of its own that is older than one in its name: it hears of that, and outbids it.
    fn contradict(&mut self, from: Option<LinkId>, owner: RouterNumber, (epoch, version): (u32, u64)) {
        let Some(from) = from.filter(|from| self.links.get(from).is_some_and(|link| link.peer == owner)) else {
            return;
        };
        let known = self.states.get(owner).filter(|known| known.epoch == epoch && known.version > version);
        if let Some(known) = known.cloned() {
            self.send(vec![from], Control::LinkState(known));
        }
    }

    /// Somebody has a link state of this router. One from its own future is not its own.
    fn heard_of_self(&mut self, now: u64, (epoch, version): (u32, u64)) {
        if (epoch, version) <= (self.config.epoch, self.told.version) {
            return;
        }
        if self.alarmed != Some((epoch, version)) {
            self.alarmed = Some((epoch, version));
            self.outputs.push_back(Output::Alarm(Alarm::OwnIdentity { epoch, version }));
        }
        let is_near = version < self.told.version.saturating_add(VERSION_JUMP_MAX).min(VERSION_MAX - 1);
        if epoch == self.config.epoch && is_near {
            // A version above it makes the truth win everywhere. Not above another epoch: that is another router.
            self.told.version = version;
            self.want_publish(now, 0);
        }
    }

    fn digest_came(&mut self, now: u64, link: LinkId, digest: &Digest) -> Result<(), Violation> {
        for (owner, epoch, version) in &digest.entries {
            let newest = (*epoch, *version);
            self.states.check_version(*owner, newest)?;
            if *owner == self.config.router {
                self.heard_of_self(now, newest);
            } else if self.own_word(*owner).is_some_and(|its_own| its_own != link) {
                // It tells its link states itself.
            } else if self.states.get(*owner).is_none_or(|known| (known.epoch, known.version) < newest) {
                self.wanted.offered(now, link, *owner, newest);
            }
        }
        if digest.reply {
            let answer = Control::Digest(self.digest(false));
            self.send(vec![link], answer);
            // What was told before was not read there.
            let told = Control::LinkState(self.told.clone());
            self.send(vec![link], told);
        }
        Ok(())
    }

    fn link_states_asked(&mut self, now: u64, id: LinkId, pull: &LinkStatePull) {
        let Some(link) = self.links.get_mut(&id) else { return };
        let answers = link.answers.at(now);
        let room = ROUTERS_MAX.saturating_sub(answers.link_states);
        let given = pull.owners.len().min(room);
        answers.link_states += given;
        self.stats.questions_refused += (pull.owners.len() - given) as u64;
        for owner in &pull.owners[..given] {
            let state = if *owner == self.config.router { Some(&self.told) } else { self.states.get(*owner) };
            if let Some(state) = state.cloned() {
                self.send(vec![id], Control::LinkState(state));
            }
        }
    }

    fn delta_came(&mut self, now: u64, link: LinkId, delta: InterestDelta) -> Result<(), Violation> {
        let owner = delta.owner;
        check_head(owner, delta.head)?;
        if owner == self.config.router {
            return Ok(());
        }
        if self.own_word(owner).is_some_and(|its_own| its_own != link) {
            self.stats.hearsay += 1;
            return Ok(());
        }
        let onward = self.onward(owner, Some(link));
        let copy = (!onward.is_empty()).then(|| delta.clone());
        match self.remote.delta(now, delta)? {
            Outcome::Fresh => {
                self.stats.deltas_fresh += 1;
                self.answer_askers(now, owner);
                if let Some(delta) = copy {
                    self.send(onward, Control::InterestDelta(delta));
                }
            }
            Outcome::Duplicate => self.stats.deltas_duplicate += 1,
            Outcome::Unknown => self.stats.deltas_unknown += 1,
        }
        Ok(())
    }

    fn snapshot_came(&mut self, now: u64, link: LinkId, piece: InterestSnapshot) -> Result<(), Violation> {
        let owner = piece.owner;
        check_head(owner, piece.head)?;
        if self.own_word(owner).is_some_and(|its_own| its_own != link) {
            self.stats.hearsay += 1;
            return Ok(());
        }
        let done = self.remote.snapshot(now, link, piece);
        self.answer_askers(now, owner);
        done
    }

    fn interest_asked(&mut self, now: u64, id: LinkId, pull: InterestPull) {
        let Some(link) = self.links.get_mut(&id) else { return };
        let interests = &mut link.answers.at(now).interests;
        if interests.contains(&pull.owner) || interests.len() >= ROUTERS_MAX {
            self.stats.questions_refused += 1;
            return;
        }
        let pieces =
            if pull.owner == self.config.router { Some(self.own.snapshot()) } else { self.remote.answer(&pull) };
        let Some(pieces) = pieces else {
            // On the way from the owner to whoever asks: the answer follows once it is here.
            if self.remote.is_behind(pull.owner) {
                self.askers.entry(pull.owner).or_default().insert(id, pull);
            }
            return;
        };
        interests.insert(pull.owner);
        self.stats.snapshots_given += 1;
        for piece in pieces {
            self.send(vec![id], Control::InterestSnapshot(piece));
        }
    }

    /// Whoever asked for the interest of `owner` while it was not here gets it, if it is now.
    fn answer_askers(&mut self, now: u64, owner: RouterNumber) {
        if self.remote.is_behind(owner) {
            return;
        }
        for (link, pull) in self.askers.remove(&owner).unwrap_or_default() {
            self.interest_asked(now, link, pull);
        }
    }
}

/// Sequence numbers leave room for a higher one.
fn check_head(owner: RouterNumber, head: InterestHead) -> Result<(), Violation> {
    if head.seq < VERSION_MAX {
        return Ok(());
    }
    let message = format!("the interest of router {owner} is said to have changed {} times", head.seq);
    Err(Violation::new(ViolationCode::Malformed, message))
}
