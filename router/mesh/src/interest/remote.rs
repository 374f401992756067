//! Everybody else's interest: a copy for each router, kept up by deltas and repaired by snapshots.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::entries::Entries;
use super::own::pieces;
use super::{HashSum, Interest};
use smallvec::SmallVec;

use crate::control::{Entry, InterestDelta, InterestHead, InterestPull, InterestSnapshot};
use crate::directory::Directory;
use crate::ids::{LinkId, RouterNumber, SiteNumber};
use crate::limits::{
    INTEREST_ENTRIES_MAX, INTEREST_ENTRIES_TOTAL_MAX, INTEREST_GRACE_MS, INTEREST_LEVELS_MAX, INTEREST_PENDING_MAX,
    INTEREST_WAITING_MAX, PULL_INTERVAL_MS,
};
use crate::violation::{Violation, ViolationCode};

/// Links whose answers about one owner are waited for.
const ASKED_MAX: usize = 4;

/// What became of a delta.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It is new: it goes on to others.
    Fresh,
    /// It was here before.
    Duplicate,
    /// Its owner is not known, or has more than this router can keep.
    Unknown,
}

/// The copies, and the table that is made of them.
pub(crate) struct RemoteInterest {
    table: Interest,
    owners: BTreeMap<RouterNumber, Owner>,
    /// Those whose copy is known to be incomplete. At most as many as there are owners.
    behind: BTreeMap<RouterNumber, Pull>,
    /// No question is due before this: it is asked after every message.
    pull_due: u64,
    entries: usize,
    /// Owners that had more than fits, not yet reported.
    overflowed: Vec<RouterNumber>,
}

#[derive(Default)]
struct Owner {
    epoch: u32,
    seq: u64,
    sum: HashSum,
    entries: Entries,
    /// Levels of them all.
    levels: usize,
    /// What its link state says that there is.
    told: InterestHead,
    /// Deltas that came before one that is missing; at most [`INTEREST_WAITING_MAX`].
    waiting: BTreeMap<u64, InterestDelta>,
    /// The hash after a delta was not the one that came with it.
    is_wrong: bool,
    /// There was no room for it. Stays so until it starts anew or is forgotten.
    is_refused: bool,
    staging: Option<Staging>,
}

/// A snapshot that is arriving.
struct Staging {
    link: LinkId,
    head: InterestHead,
    next: u32,
    entries: BTreeSet<Entry>,
}

struct Pull {
    due: u64,
    tries: usize,
    /// The links that were asked last: an answer may be slower than the next question.
    asked: SmallVec<[LinkId; ASKED_MAX]>,
}

impl Owner {
    fn head(&self) -> InterestHead {
        InterestHead { epoch: self.epoch, seq: self.seq, hash: self.sum.finish() }
    }

    fn is_behind(&self) -> bool {
        let place = (self.epoch, self.seq).cmp(&(self.told.epoch, self.told.seq));
        let told_more = place.is_lt() || place.is_eq() && self.sum.finish() != self.told.hash;
        !self.is_refused && (told_more || self.is_wrong || !self.waiting.is_empty())
    }

    /// Entries that are here and not part of the copy yet.
    fn pending(&self) -> usize {
        let waiting = self.waiting.values().map(|delta| delta.added.len() + delta.removed.len());
        waiting.sum::<usize>() + self.staging.as_ref().map_or(0, |staging| staging.entries.len())
    }
}

impl RemoteInterest {
    pub(crate) fn new(directory: Arc<Directory>, my_site: SiteNumber) -> Self {
        Self {
            table: Interest::new(directory, my_site),
            owners: BTreeMap::new(),
            behind: BTreeMap::new(),
            pull_due: 0,
            entries: 0,
            overflowed: Vec::new(),
        }
    }

    /// The table as it is now.
    pub(crate) fn table(&self) -> &Interest {
        &self.table
    }

    pub(crate) fn set_directory(&mut self, directory: Arc<Directory>) {
        self.table.set_directory(directory);
    }

    /// No path leads to these routers.
    pub(crate) fn set_absent(&mut self, absent: BTreeSet<RouterNumber>) {
        self.table.set_absent(absent);
    }

    /// How far the copy of an owner is.
    pub(crate) fn head(&self, owner: RouterNumber) -> Option<InterestHead> {
        self.owners.get(&owner).map(Owner::head)
    }

    /// Entries of all copies.
    pub(crate) fn entries(&self) -> usize {
        self.entries
    }

    /// Whether the copy of `owner` is known to be incomplete.
    pub(crate) fn is_behind(&self, owner: RouterNumber) -> bool {
        self.behind.contains_key(&owner)
    }

    /// Owners whose copy is incomplete.
    pub(crate) fn behind(&self) -> usize {
        self.behind.len()
    }

    /// An owner that had more than fits, once.
    pub(crate) fn take_overflowed(&mut self) -> Option<RouterNumber> {
        self.overflowed.pop()
    }

    /// `owner` says in its link state that its interest is this far.
    pub(crate) fn set_head(&mut self, now: u64, number: RouterNumber, told: InterestHead) {
        let owner = self.owners.entry(number).or_default();
        if told.epoch < owner.epoch {
            return;
        }
        owner.told = told;
        if told.epoch > owner.epoch {
            self.restart(number, told.epoch);
        }
        self.look(now, number);
    }

    /// Forgets an owner and all that it wanted.
    pub(crate) fn forget(&mut self, number: RouterNumber) {
        if let Some(owner) = self.owners.remove(&number) {
            self.entries -= owner.entries.len();
            owner.entries.iter().for_each(|entry| self.table.remove(number, &entry));
        }
        self.behind.remove(&number);
    }

    /// A delta came.
    ///
    /// # Errors
    /// `too-many` where the owner would have more entries than one may.
    pub(crate) fn delta(&mut self, now: u64, delta: InterestDelta) -> Result<Outcome, Violation> {
        let number = delta.owner;
        let Some(owner) = self.owners.get_mut(&number) else { return Ok(Outcome::Unknown) };
        let head = delta.head;
        if head.epoch > owner.epoch {
            self.restart(number, head.epoch);
        }
        let Some(owner) = self.owners.get_mut(&number) else { return Ok(Outcome::Unknown) };
        if head.epoch < owner.epoch || head.seq <= owner.seq || owner.waiting.contains_key(&head.seq) {
            return Ok(Outcome::Duplicate);
        }
        if owner.is_refused {
            return Ok(Outcome::Unknown);
        }
        if head.seq == owner.seq + 1 {
            self.apply(delta)?;
            self.apply_waiting(number)?;
        } else if owner.waiting.len() < INTEREST_WAITING_MAX
            && self.pending() + delta.added.len() + delta.removed.len() <= INTEREST_PENDING_MAX
            && let Some(owner) = self.owners.get_mut(&number)
        {
            owner.waiting.insert(head.seq, delta);
        }
        self.look(now, number);
        Ok(Outcome::Fresh)
    }

    /// Entries of all owners that are here and not part of their copies yet: whoever has some is behind.
    fn pending(&self) -> usize {
        self.behind.keys().filter_map(|number| self.owners.get(number)).map(Owner::pending).sum()
    }

    fn apply_waiting(&mut self, number: RouterNumber) -> Result<(), Violation> {
        while let Some(owner) = self.owners.get_mut(&number) {
            let done = owner.seq;
            owner.waiting.retain(|seq, _| *seq > done);
            let Some(delta) = owner.waiting.remove(&(done + 1)) else { break };
            self.apply(delta)?;
        }
        Ok(())
    }

    /// Applies the delta that is next.
    fn apply(&mut self, delta: InterestDelta) -> Result<(), Violation> {
        let number = delta.owner;
        let Some(owner) = self.owners.get_mut(&number) else { return Ok(()) };
        check_entries(number, (owner.entries.len() + delta.added.len()).saturating_sub(delta.removed.len()))?;
        check_levels(number, (owner.levels + levels(&delta.added)).saturating_sub(levels(&delta.removed)))?;
        if self.entries + delta.added.len() > INTEREST_ENTRIES_TOTAL_MAX {
            self.refuse(number);
            return Ok(());
        }
        for entry in &delta.removed {
            if owner.entries.remove(entry) {
                self.entries -= 1;
                owner.levels -= entry.levels();
                owner.sum.subtract(entry);
                self.table.remove(number, entry);
            }
        }
        let added: BTreeSet<_> = delta.added.into_iter().filter(|entry| !owner.entries.contains(entry)).collect();
        self.entries += added.len();
        for entry in &added {
            owner.levels += entry.levels();
            owner.sum.add(entry);
            self.table.insert(number, entry);
        }
        owner.entries.extend(added);
        owner.seq = delta.head.seq;
        owner.is_wrong = owner.sum.finish() != delta.head.hash;
        Ok(())
    }

    /// There is no room for what `number` wants.
    fn refuse(&mut self, number: RouterNumber) {
        let Some(epoch) = self.owners.get(&number).map(|owner| owner.epoch) else { return };
        self.restart(number, epoch);
        if let Some(owner) = self.owners.get_mut(&number) {
            owner.is_refused = true;
        }
        self.overflowed.push(number);
    }

    /// The copy of `number` begins anew, empty, as its owner did.
    fn restart(&mut self, number: RouterNumber, epoch: u32) {
        let Some(owner) = self.owners.get_mut(&number) else { return };
        let told = owner.told;
        let old = std::mem::replace(owner, Owner { epoch, told, ..Owner::default() });
        self.entries -= old.entries.len();
        old.entries.iter().for_each(|entry| self.table.remove(number, &entry));
    }

    /// A piece of a snapshot came by `link`. What nobody asked that link for is ignored.
    ///
    /// # Errors
    /// `too-many`; `interest-hash` where the pieces do not add up to what they say.
    pub(crate) fn snapshot(&mut self, now: u64, link: LinkId, piece: InterestSnapshot) -> Result<(), Violation> {
        let number = piece.owner;
        let is_asked = self.behind.get(&number).is_some_and(|pull| pull.asked.contains(&link));
        let room = INTEREST_PENDING_MAX.saturating_sub(self.pending());
        let Some(owner) = self.owners.get_mut(&number).filter(|_| is_asked) else { return Ok(()) };
        if piece.index == 0 && owner.staging.is_none() {
            owner.staging = Some(Staging { link, head: piece.head, next: 0, entries: BTreeSet::new() });
        }
        let fits =
            |staging: &mut Staging| staging.link == link && staging.head == piece.head && staging.next == piece.index;
        let Some(mut staging) = owner.staging.take_if(fits) else { return Ok(()) };
        staging.next += 1;
        if piece.entries.len() > room {
            // It is asked for again, and by then others are done.
            return Ok(());
        }
        check_entries(number, staging.entries.len() + piece.entries.len())?;
        staging.entries.extend(piece.entries);
        if !piece.last {
            // More is coming: no reason to ask another router meanwhile.
            owner.staging = Some(staging);
            if let Some(pull) = self.behind.get_mut(&number) {
                pull.due = now + PULL_INTERVAL_MS;
            }
            return Ok(());
        }
        self.take_over(number, staging)?;
        self.apply_waiting(number)?;
        self.look(now, number);
        Ok(())
    }

    fn take_over(&mut self, number: RouterNumber, staging: Staging) -> Result<(), Violation> {
        let Staging { head, entries, .. } = staging;
        let mut sum = HashSum::default();
        entries.iter().for_each(|entry| sum.add(entry));
        if sum.finish() != head.hash {
            let message = format!("the interest of router {number} does not add up to the hash that came with it");
            return Err(Violation::new(ViolationCode::InterestHash, message));
        }
        let levels = levels(&entries);
        check_levels(number, levels)?;
        let Some(owner) = self.owners.get_mut(&number) else { return Ok(()) };
        if (head.epoch, head.seq) < (owner.epoch, owner.seq) {
            return Ok(());
        }
        if self.entries - owner.entries.len() + entries.len() > INTEREST_ENTRIES_TOTAL_MAX {
            self.refuse(number);
            return Ok(());
        }
        let entries = Entries::from(entries);
        self.entries = self.entries - owner.entries.len() + entries.len();
        owner.entries.difference(&entries).for_each(|entry| self.table.remove(number, &entry));
        entries.difference(&owner.entries).for_each(|entry| self.table.insert(number, &entry));
        if head.epoch > owner.epoch {
            owner.waiting.clear();
        }
        (owner.epoch, owner.seq, owner.sum, owner.entries, owner.is_wrong) =
            (head.epoch, head.seq, sum, entries, false);
        owner.levels = levels;
        Ok(())
    }

    /// Notes whether the copy of `number` is behind.
    fn look(&mut self, now: u64, number: RouterNumber) {
        if self.owners.get(&number).is_some_and(Owner::is_behind) {
            let due = now + INTEREST_GRACE_MS;
            self.pull_due = self.deadline().map_or(due, |other| other.min(due));
            self.behind.entry(number).or_insert(Pull { due, tries: 0, asked: SmallVec::new() });
        } else {
            self.behind.remove(&number);
            if let Some(owner) = self.owners.get_mut(&number) {
                owner.staging = None;
            }
        }
    }

    /// When [`pulls`](Self::pulls) has something to do, or sooner.
    pub(crate) fn deadline(&self) -> Option<u64> {
        (!self.behind.is_empty()).then_some(self.pull_due)
    }

    /// Whom to ask for what, now. `choose` names a link for the n-th question about an owner.
    pub(crate) fn pulls(
        &mut self,
        now: u64,
        mut choose: impl FnMut(RouterNumber, usize) -> Option<LinkId>,
    ) -> Vec<(LinkId, InterestPull)> {
        let mut asked = Vec::new();
        for (number, pull) in self.behind.iter_mut().filter(|(_, pull)| pull.due <= now) {
            let Some(owner) = self.owners.get_mut(number) else { continue };
            owner.staging = None;
            pull.due = now + PULL_INTERVAL_MS;
            let link = choose(*number, pull.tries);
            pull.tries += 1;
            if let Some(link) = link {
                pull.asked.retain(|asked| *asked != link);
                if pull.asked.len() == ASKED_MAX {
                    pull.asked.remove(0);
                }
                pull.asked.push(link);
                asked.push((link, InterestPull { owner: *number, have: owner.head() }));
            }
        }
        self.pull_due = self.behind.values().map(|pull| pull.due).min().unwrap_or_default();
        asked
    }

    /// There is a link to `owner` now: whoever asks it itself need not wait.
    pub(crate) fn link_up(&mut self, now: u64, owner: RouterNumber) {
        if let Some(pull) = self.behind.get_mut(&owner) {
            (pull.tries, pull.due) = (0, pull.due.min(now + INTEREST_GRACE_MS));
            self.pull_due = self.pull_due.min(pull.due);
        }
    }

    /// A link is gone: what was asked by it is asked elsewhere.
    pub(crate) fn link_down(&mut self, now: u64, link: LinkId) {
        for (number, pull) in &mut self.behind {
            if pull.asked.last() == Some(&link) {
                pull.due = now;
                self.pull_due = self.pull_due.min(now);
            }
            pull.asked.retain(|asked| *asked != link);
            if let Some(owner) = self.owners.get_mut(number) {
                owner.staging.take_if(|staging| staging.link == link);
            }
        }
    }

    /// The answer to a question: nothing where this router has no more than whoever asks.
    pub(crate) fn answer(&self, pull: &InterestPull) -> Option<Vec<InterestSnapshot>> {
        let owner = self.owners.get(&pull.owner)?;
        let (head, have) = (owner.head(), pull.have);
        // A copy that is itself wrong would only be refused for its hash.
        let is_good = !owner.is_wrong && !owner.is_refused && (owner.epoch, owner.seq) >= (have.epoch, have.seq);
        (is_good && head != have).then(|| pieces(pull.owner, head, owner.entries.iter()))
    }
}

fn check_entries(owner: RouterNumber, count: usize) -> Result<(), Violation> {
    if count <= INTEREST_ENTRIES_MAX {
        return Ok(());
    }
    let message = format!("router {owner} is said to want {count} things; the limit is {INTEREST_ENTRIES_MAX}");
    Err(Violation::new(ViolationCode::TooMany, message))
}

fn levels<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> usize {
    entries.into_iter().map(Entry::levels).sum()
}

fn check_levels(owner: RouterNumber, levels: usize) -> Result<(), Violation> {
    if levels <= INTEREST_LEVELS_MAX {
        return Ok(());
    }
    let message =
        format!("what router {owner} is said to want has {levels} levels; the limit is {INTEREST_LEVELS_MAX}");
    Err(Violation::new(ViolationCode::TooMany, message))
}

#[cfg(test)]
mod tests;
