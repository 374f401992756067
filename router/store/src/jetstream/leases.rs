//! Who holds which lease, by this router's own clock. Pure: what the servers have and the time are passed in.
//!
//! A lease is *given* by a message in the stream of records ([`Given`]); the sequence of that message is its term. Its
//! holder *renews* it by writing a [`Beat`] into a bucket, which costs the stream nothing.
//!
//! * **Fence.** Records and grants stand in one stream, and every append names the stream's last sequence. So between
//!   the look that an append was decided by and the append itself there is no grant, or the append is refused: once a
//!   later holder's grant is in the stream, no append of an earlier holder can follow it, however long that one slept
//!   and whatever its clock shows. This needs no clock.
//! * **Time.** Clocks are not compared. A holder counts from before it asked; another router counts from when it first
//!   saw the newest beat, which is later; and a beat that was written only after the lease ran out lengthens nothing. As
//!   long as clocks run at the same speed, a holder knows that its lease ran out before anybody takes it. A router that
//!   has just started waits the whole time of the lease.
//! * **The same holder** that opens the log anew takes its lease back at once, under a new term: its name is a router's
//!   identity, which a mesh has once. What its earlier process still sends is fenced off as anybody else's.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::tail::Given;
use crate::control::Fence;
use crate::error::StoreError;

/// What a holder writes to keep its lease, or to give it back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Beat {
    pub(super) term: u64,
    pub(super) ttl_ms: u64,
    pub(super) released: bool,
}

/// The newest beat, and its revision in the bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Heard {
    pub(super) revision: u64,
    pub(super) beat: Beat,
}

/// Who asks for which lease, and when by its clock.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    pub(super) lease: String,
    pub(super) holder: String,
    pub(super) ttl_ms: u64,
    pub(super) now_ms: u64,
}

/// What is to be done for who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    /// It has the lease: a beat lengthens it.
    Renew {
        /// Its term.
        term: u64,
    },
    /// The lease is free: a grant takes it.
    Take,
}

/// What one open log knows of the leases.
#[derive(Debug, Default)]
pub(super) struct Leases {
    /// Those that were given to us.
    holds: BTreeMap<String, Hold>,
    /// Those that others have, as far as we asked for them. No more than there are leases in the stream.
    seen: BTreeMap<String, Seen>,
}

#[derive(Debug)]
struct Hold {
    holder: String,
    term: u64,
    expires_ms: u64,
}

#[derive(Debug)]
struct Seen {
    term: u64,
    revision: u64,
    since_ms: u64,
}

impl Leases {
    /// What asking comes to, given the newest grant of the lease, with its term, and the newest beat.
    pub(super) fn claim(
        &mut self,
        ask: &Ask,
        granted: Option<&Given>,
        heard: Option<&Heard>,
    ) -> Result<Claim, StoreError> {
        let Some((term, grant)) = granted else { return Ok(Claim::Take) };
        let held = |holder: &str, left_ms| {
            Err(StoreError::LeaseHeld { name: ask.lease.clone(), holder: holder.to_owned(), left_ms })
        };
        match self.holds.get(&ask.lease).filter(|hold| hold.term == *term) {
            Some(hold) if ask.now_ms >= hold.expires_ms => return Ok(Claim::Take),
            Some(hold) if hold.holder == ask.holder => return Ok(Claim::Renew { term: *term }),
            Some(hold) => return held(&hold.holder, hold.expires_ms - ask.now_ms),
            // If we ever had it, it has passed on.
            None => self.holds.remove(&ask.lease),
        };
        let heard = heard.filter(|heard| heard.beat.term == *term);
        if grant.holder == ask.holder || heard.is_some_and(|heard| heard.beat.released) {
            return Ok(Claim::Take);
        }
        let revision = heard.map_or(0, |heard| heard.revision);
        let now = Seen { term: *term, revision, since_ms: ask.now_ms };
        let seen = self.seen.entry(ask.lease.clone()).or_insert(now);
        if (seen.term, seen.revision) != (*term, revision) {
            *seen = Seen { term: *term, revision, since_ms: ask.now_ms };
        }
        let free_ms = seen.since_ms.saturating_add(heard.map_or(grant.ttl_ms, |heard| heard.beat.ttl_ms));
        if ask.now_ms < free_ms { held(&grant.holder, free_ms - ask.now_ms) } else { Ok(Claim::Take) }
    }

    /// Notes what was given or lengthened, from when it was asked for.
    pub(super) fn hold(&mut self, ask: &Ask, term: u64) -> Fence {
        let expires_ms = ask.now_ms.saturating_add(ask.ttl_ms);
        self.seen.remove(&ask.lease);
        self.holds.insert(ask.lease.clone(), Hold { holder: ask.holder.clone(), term, expires_ms });
        Fence { name: ask.lease.clone(), term }
    }

    /// Whether we still have the lease then: what a beat lengthens must not have ended when it was written.
    pub(super) fn is_held_at(&self, lease: &str, now_ms: u64) -> bool {
        self.holds.get(lease).is_some_and(|hold| now_ms < hold.expires_ms)
    }

    /// Whether the lease is held under that term by our clock; that nobody has taken it is the stream's to say.
    pub(super) fn check(&self, fence: &Fence, now_ms: u64) -> Result<(), StoreError> {
        match self.holds.get(&fence.name) {
            Some(hold) if hold.term == fence.term && now_ms < hold.expires_ms => Ok(()),
            _ => Err(lost(fence)),
        }
    }

    /// Forgets the lease, and says whether we had it under that term.
    pub(super) fn release(&mut self, fence: &Fence) -> bool {
        let is_ours = self.holds.get(&fence.name).is_some_and(|hold| hold.term == fence.term);
        if is_ours {
            self.holds.remove(&fence.name);
        }
        is_ours
    }
}

pub(super) fn lost(fence: &Fence) -> StoreError {
    StoreError::LeaseLost { name: fence.name.clone(), term: fence.term }
}

#[cfg(test)]
mod tests;
