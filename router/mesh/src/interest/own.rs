//! A router's own interest: counted, covered, coalesced, and told in numbered deltas.

use std::collections::{BTreeMap, BTreeSet};

use myelin_wire::Pattern;

use super::HashSum;
use super::trie::Trie;
use crate::control::{Entry, InterestDelta, InterestHead, InterestSnapshot};
use crate::ids::RouterNumber;
use crate::limits::{
    INTEREST_COALESCE_MS, INTEREST_ENTRIES_MAX, INTEREST_LEVELS_MAX, INTEREST_MESSAGE_BYTES,
    INTEREST_MESSAGE_ENTRIES_MAX,
};

/// Why a change of the own interest is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InterestError {
    /// There are as many different entries as there may be.
    #[error(
        "this router has {INTEREST_ENTRIES_MAX} different subscriptions, or {INTEREST_LEVELS_MAX} levels in them; \
         subscribe by broader patterns"
    )]
    TooMany,
    /// Nobody here has subscribed to it.
    #[error("nothing at this router subscribes to that; unsubscribe once for each subscribe")]
    Unknown,
}

impl InterestError {
    /// The stable name of this error.
    pub fn code(self) -> &'static str {
        match self {
            Self::TooMany => "too-many-interests",
            Self::Unknown => "unknown-interest",
        }
    }
}

/// What a router's own sessions want, and what of it the others were told.
pub(crate) struct OwnInterest {
    owner: RouterNumber,
    epoch: u32,
    /// How many subscriptions want each entry.
    wanted: BTreeMap<Entry, u32>,
    /// Levels of them all.
    levels: usize,
    /// The patterns of those without a group, for the questions of covering.
    plain: Trie<Pattern>,
    told: BTreeSet<Entry>,
    /// Entries that were wanted or given up since the last delta.
    changed: BTreeSet<Entry>,
    flush_at: Option<u64>,
    seq: u64,
    sum: HashSum,
}

impl OwnInterest {
    pub(crate) fn new(owner: RouterNumber, epoch: u32) -> Self {
        Self {
            owner,
            epoch,
            wanted: BTreeMap::new(),
            levels: 0,
            plain: Trie::default(),
            told: BTreeSet::new(),
            changed: BTreeSet::new(),
            flush_at: None,
            seq: 0,
            sum: HashSum::default(),
        }
    }

    /// How far what was told is.
    pub(crate) fn head(&self) -> InterestHead {
        InterestHead { epoch: self.epoch, seq: self.seq, hash: self.sum.finish() }
    }

    /// Different entries that are wanted here, told or covered.
    pub(crate) fn len(&self) -> usize {
        self.wanted.len()
    }

    /// Whether exactly this entry is wanted here.
    pub(crate) fn wants(&self, entry: &Entry) -> bool {
        self.wanted.contains_key(entry)
    }

    pub(crate) fn subscribe(&mut self, now: u64, entry: Entry) -> Result<(), InterestError> {
        if let Some(count) = self.wanted.get_mut(&entry) {
            *count += 1;
            return Ok(());
        }
        if self.wanted.len() >= INTEREST_ENTRIES_MAX || self.levels + entry.levels() > INTEREST_LEVELS_MAX {
            return Err(InterestError::TooMany);
        }
        self.levels += entry.levels();
        if entry.1.is_none() {
            self.plain.update(&entry.0, |place| *place = Some(entry.0.clone()));
        }
        self.wanted.insert(entry.clone(), 1);
        self.change(now, entry);
        Ok(())
    }

    pub(crate) fn unsubscribe(&mut self, now: u64, entry: Entry) -> Result<(), InterestError> {
        let count = self.wanted.get_mut(&entry).ok_or(InterestError::Unknown)?;
        *count -= 1;
        if *count > 0 {
            return Ok(());
        }
        self.wanted.remove(&entry);
        self.levels -= entry.levels();
        if entry.1.is_none() {
            self.plain.update(&entry.0, |place| *place = None);
        }
        self.change(now, entry);
        Ok(())
    }

    fn change(&mut self, now: u64, entry: Entry) {
        self.changed.insert(entry);
        self.flush_at.get_or_insert(now + INTEREST_COALESCE_MS);
    }

    /// When [`flush`](Self::flush) has something to do.
    pub(crate) fn deadline(&self) -> Option<u64> {
        self.flush_at
    }

    /// What the others must be told, if it is time.
    pub(crate) fn flush(&mut self, now: u64) -> Vec<InterestDelta> {
        if self.flush_at.is_none_or(|at| now < at) {
            return Vec::new();
        }
        self.flush_at = None;
        let mut affected = BTreeSet::new();
        for entry in std::mem::take(&mut self.changed) {
            if entry.1.is_none() {
                self.plain.implied(&entry.0, |pattern| {
                    affected.insert(Entry(pattern.clone(), None));
                });
            }
            affected.insert(entry);
        }
        let is_news = |entry: &Entry| self.must_be_told(entry) != self.told.contains(entry);
        let (added, removed): (Vec<_>, Vec<_>) =
            affected.into_iter().filter(is_news).partition(|entry| !self.told.contains(entry));
        // What is new first: a pattern that takes the place of narrower ones must be there before they go.
        let mut deltas = Vec::new();
        let changes =
            added.into_iter().map(|entry| (entry, true)).chain(removed.into_iter().map(|entry| (entry, false)));
        let (mut delta, mut budget) = (Delta::default(), Budget::default());
        for (entry, add) in changes {
            if !budget.take(&entry) {
                deltas.push(self.tell(std::mem::take(&mut delta)));
                budget = Budget::default();
                budget.take(&entry);
            }
            if add { delta.added.push(entry) } else { delta.removed.push(entry) }
        }
        if !delta.added.is_empty() || !delta.removed.is_empty() {
            deltas.push(self.tell(delta));
        }
        deltas
    }

    fn tell(&mut self, Delta { added, removed }: Delta) -> InterestDelta {
        for entry in &removed {
            self.told.remove(entry);
            self.sum.subtract(entry);
        }
        for entry in &added {
            self.told.insert(entry.clone());
            self.sum.add(entry);
        }
        self.seq += 1;
        InterestDelta { owner: self.owner, head: self.head(), added, removed }
    }

    /// Whether an entry is wanted and nothing broader is.
    fn must_be_told(&self, entry: &Entry) -> bool {
        let Entry(pattern, group) = entry;
        self.wanted.contains_key(entry)
            && (group.is_some()
                || !self.plain.any_implying(pattern, |broader| {
                    // Of two texts that mean the same (`**` and `*/**`) the lesser one is told.
                    broader != pattern && !(pattern.implies(broader) && pattern < broader)
                }))
    }

    /// All that was told, in pieces.
    pub(crate) fn snapshot(&self) -> Vec<InterestSnapshot> {
        pieces(self.owner, self.head(), self.told.iter().cloned())
    }
}

#[derive(Default)]
struct Delta {
    added: Vec<Entry>,
    removed: Vec<Entry>,
}

/// What still fits into an interest message.
#[derive(Default)]
struct Budget {
    bytes: usize,
    entries: usize,
}

impl Budget {
    fn take(&mut self, entry: &Entry) -> bool {
        self.bytes += entry.encoded_bytes();
        self.entries += 1;
        self.bytes <= INTEREST_MESSAGE_BYTES && self.entries <= INTEREST_MESSAGE_ENTRIES_MAX
    }
}

/// A snapshot of `entries`, cut into messages; at least one.
pub(super) fn pieces(
    owner: RouterNumber,
    head: InterestHead,
    entries: impl Iterator<Item = Entry>,
) -> Vec<InterestSnapshot> {
    let piece = |index| InterestSnapshot { owner, head, index, last: false, entries: Vec::new() };
    let (mut done, mut current, mut budget) = (Vec::new(), piece(0), Budget::default());
    for entry in entries {
        if !budget.take(&entry) {
            let next = piece(current.index + 1);
            done.push(std::mem::replace(&mut current, next));
            budget = Budget::default();
            budget.take(&entry);
        }
        current.entries.push(entry);
    }
    current.last = true;
    done.push(current);
    done
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use proptest::prelude::*;

    use super::*;
    use crate::control::GroupName;
    use crate::interest::trie::tests::{pattern, topic};

    fn entry(pattern: &str) -> Entry {
        Entry(pattern.parse().unwrap(), None)
    }

    fn member(pattern: &str, group: &str) -> Entry {
        Entry(pattern.parse().unwrap(), GroupName::new(group))
    }

    fn own() -> OwnInterest {
        OwnInterest::new(RouterNumber(1), 1)
    }

    #[test]
    fn only_the_first_and_the_last_subscription_are_told_and_not_at_once() {
        let mut own = own();
        own.subscribe(100, entry("a")).unwrap();
        own.subscribe(120, entry("a")).unwrap();
        assert_eq!(own.deadline(), Some(150));
        assert!(own.flush(149).is_empty());
        let told = own.flush(150);
        assert_eq!(told.len(), 1);
        assert_eq!((told[0].head.seq, &told[0].added[..]), (1, &[entry("a")][..]));
        own.unsubscribe(200, entry("a")).unwrap();
        assert_eq!(own.deadline(), None);
        own.unsubscribe(200, entry("a")).unwrap();
        assert_eq!(own.flush(250)[0].removed, [entry("a")]);
        assert_eq!(own.head(), InterestHead { epoch: 1, seq: 2, hash: InterestHead::default().hash });
        assert_eq!(own.unsubscribe(300, entry("a")), Err(InterestError::Unknown));
    }

    #[test]
    fn what_comes_and_goes_within_a_batch_is_not_told() {
        let mut own = own();
        own.subscribe(0, entry("a")).unwrap();
        own.unsubscribe(10, entry("a")).unwrap();
        assert!(own.flush(50).is_empty());
        assert_eq!(own.head().seq, 0);
    }

    #[test]
    fn a_broader_pattern_takes_the_place_of_narrower_ones_and_gives_it_back() {
        let mut own = own();
        for wanted in [entry("a/b"), entry("a/*/c"), entry("b"), entry("$x/a"), member("a/b", "g")] {
            own.subscribe(0, wanted).unwrap();
        }
        own.flush(50);
        own.subscribe(100, entry("a/**")).unwrap();
        let told = own.flush(150);
        assert_eq!(told[0].added, [entry("a/**")]);
        assert_eq!(told[0].removed, [entry("a/*/c"), entry("a/b")]);
        own.subscribe(200, entry("**")).unwrap();
        assert_eq!(own.flush(250)[0].removed, [entry("a/**"), entry("b")]);
        own.unsubscribe(300, entry("**")).unwrap();
        own.unsubscribe(300, entry("a/**")).unwrap();
        let told = own.flush(350);
        assert_eq!(told[0].added, [entry("a/*/c"), entry("a/b"), entry("b")]);
        assert_eq!(told[0].removed, [entry("**")]);
    }

    #[test]
    fn of_two_patterns_that_mean_the_same_one_is_told() {
        let mut own = own();
        own.subscribe(0, entry("*/**")).unwrap();
        own.subscribe(0, entry("**")).unwrap();
        assert_eq!(own.flush(50)[0].added, [entry("**")]);
        own.unsubscribe(100, entry("**")).unwrap();
        assert_eq!(own.flush(150)[0].added, [entry("*/**")]);
    }

    #[test]
    fn deep_patterns_are_counted_by_their_levels() {
        let mut own = own();
        let deep = |number: usize| entry(&format!("{number}{}", "/x".repeat(31)));
        let most = INTEREST_LEVELS_MAX / 32;
        (0..most).for_each(|number| own.subscribe(0, deep(number)).unwrap());
        assert_eq!(own.subscribe(0, deep(most)), Err(InterestError::TooMany));
        own.unsubscribe(0, deep(0)).unwrap();
        own.subscribe(0, deep(most)).unwrap();
    }

    #[test]
    fn many_changes_are_cut_into_messages_within_their_bounds() {
        let mut own = own();
        let long = "x".repeat(200);
        for number in 0..INTEREST_ENTRIES_MAX {
            own.subscribe(0, entry(&format!("{long}/{number}"))).unwrap();
        }
        assert_eq!(own.subscribe(0, entry("one-more")), Err(InterestError::TooMany));
        let told = own.flush(50);
        assert_eq!(told.iter().map(|delta| delta.added.len()).sum::<usize>(), INTEREST_ENTRIES_MAX);
        let mut bytes = Vec::new();
        for (delta, seq) in told.into_iter().zip(1..) {
            assert_eq!(delta.head.seq, seq);
            crate::Control::InterestDelta(delta).encode(&mut bytes).unwrap();
        }
        let pieces = own.snapshot();
        assert!(pieces.iter().rev().skip(1).all(|piece| !piece.last) && pieces.last().unwrap().last);
        for piece in pieces {
            crate::Control::InterestSnapshot(piece).encode(&mut bytes).unwrap();
        }
    }

    proptest! {
        /// What is told is the least that matches what is wanted.
        #[test]
        fn what_is_told_matches_what_is_wanted(
            steps in prop::collection::vec(prop::collection::vec((pattern(), any::<bool>()), 1..5), 1..20),
            topics in prop::collection::vec(topic(), 20),
        ) {
            let (mut own, mut now) = (own(), 0);
            let (mut wanted, mut copy) = (Vec::new(), BTreeSet::new());
            for step in steps {
                for (pattern, add) in step {
                    if add || wanted.is_empty() {
                        own.subscribe(now, Entry(pattern.clone(), None)).unwrap();
                        wanted.push(pattern);
                    } else {
                        let gone = wanted.swap_remove(usize::from(pattern.as_bytes()[0]) % wanted.len());
                        own.unsubscribe(now, Entry(gone, None)).unwrap();
                    }
                }
                now += 1_000;
                for delta in own.flush(now) {
                    prop_assert!(delta.removed.iter().all(|entry| copy.remove(entry)));
                    prop_assert!(delta.added.into_iter().all(|entry| copy.insert(entry)));
                }
                for topic in &topics {
                    prop_assert_eq!(
                        copy.iter().any(|entry| entry.0.matches(topic)),
                        wanted.iter().any(|pattern| pattern.matches(topic))
                    );
                }
                for a in &copy {
                    prop_assert!(copy.iter().all(|b| a == b || !a.0.implies(&b.0)), "{a:?} covers another");
                }
                prop_assert_eq!(&own.told, &copy);
            }
        }
    }
}
