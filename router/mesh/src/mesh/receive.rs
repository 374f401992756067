//! What peers say.

use std::collections::BTreeSet;

use super::{Alarm, Mesh, Output};
use crate::control::{Control, Digest, InterestDelta, InterestPull, LinkState, LinkStatePull};
use crate::ids::{LinkId, RouterNumber};
use crate::interest::remote::Outcome;
use crate::limits::{PULL_INTERVAL_MS, ROUTERS_MAX};
use crate::topology::states::{Accepted, check};
use crate::violation::{Violation, ViolationCode};

/// Versions of link states stay below this, so that there is always a higher one.
const VERSION_MAX: u64 = 1 << 62;

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
            Control::InterestSnapshot(piece) => {
                let owner = piece.owner;
                let done = self.remote.snapshot(now, link, piece);
                self.answer_askers(now, owner);
                done
            }
        };
        if done.as_ref().is_err_and(Violation::closes_link) {
            self.drop_link(now, link);
        }
        self.tick(now);
        done
    }

    fn link_state_came(&mut self, now: u64, link: LinkId, state: LinkState) -> Result<(), Violation> {
        check(&state)?;
        check_version(state.owner, state.version)?;
        let (owner, version) = (state.owner, (state.epoch, state.version));
        if owner == self.config.router {
            self.heard_of_self(now, version);
            return Ok(());
        }
        let interest = state.interest;
        match self.states.accept(now, state) {
            Accepted::Old => self.stats.link_states_old += 1,
            Accepted::Full => self.outputs.push_back(Output::Alarm(Alarm::RoutersFull { router: owner })),
            Accepted::Newer { links_changed } => {
                self.wanted.arrived(owner, version);
                self.remote.set_head(now, owner, interest);
                // By what the new state says: if the owner has lost its link to a neighbour, we tell that neighbour.
                let onward = self.onward(owner, link);
                if let (false, Some(state)) = (onward.is_empty(), self.states.get(owner).cloned()) {
                    self.send(onward, Control::LinkState(state));
                }
                self.outputs.push_back(Output::StatusChanged(owner));
                if links_changed {
                    self.want_routes(now);
                }
            }
        }
        Ok(())
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
        if epoch == self.config.epoch {
            // A version above it makes the truth win everywhere. Not above another epoch: that is another router.
            self.told.version = version;
            self.want_publish(now, 0);
        }
    }

    fn digest_came(&mut self, now: u64, link: LinkId, digest: &Digest) -> Result<(), Violation> {
        for (owner, epoch, version) in &digest.entries {
            check_version(*owner, *version)?;
            let newest = (*epoch, *version);
            if *owner == self.config.router {
                self.heard_of_self(now, newest);
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
        if owner == self.config.router {
            return Ok(());
        }
        let onward = self.onward(owner, link);
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

fn check_version(owner: RouterNumber, version: u64) -> Result<(), Violation> {
    if version < VERSION_MAX {
        return Ok(());
    }
    let message = format!("a link state of router {owner} has version {version}; the limit is {VERSION_MAX}");
    Err(Violation::new(ViolationCode::Malformed, message))
}
