//! The duplicate window: lets each event of an origin pass once.
//!
//! An event has its number at (origin router, boot epoch, shard). A router sees only some of an origin's numbers, and
//! after a change of route it may see them out of order for a moment; so there is no gap to wait for, only the question
//! whether this number was here. For each origin that is answered from the highest number and a bit for each of the
//! [`WINDOW_SEQS`] below it; what is older cannot be told from a duplicate and counts as too old.

use std::collections::BTreeMap;

use crate::ids::RouterNumber;
use crate::limits::{WINDOW_SEQS, WINDOWS_MAX};

const WORDS: usize = (WINDOW_SEQS / 64) as usize;

/// What numbers the events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Source {
    /// The router at which they were published.
    pub origin: RouterNumber,
    /// How often it had started.
    pub epoch: u32,
    /// Its worker.
    pub shard: u8,
}

/// What became of the events of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Seen for the first time.
    pub new: u32,
    /// Seen before.
    pub duplicates: u32,
    /// So old that nobody knows.
    pub too_old: u32,
}

/// Windows of all origins. The [`WINDOWS_MAX`] that were last used are kept.
#[derive(Debug, Default)]
pub struct DuplicateWindow {
    windows: BTreeMap<Source, Window>,
    /// Counts the batches; orders the windows by use.
    clock: u64,
}

#[derive(Debug)]
struct Window {
    highest: u64,
    /// A ring: the bit of number n is at n modulo the window.
    bits: Box<[u64; WORDS]>,
    used: u64,
}

impl DuplicateWindow {
    /// No events seen.
    pub fn new() -> Self {
        Self::default()
    }

    /// A batch of `count` events with the numbers from `first` on came. Where only some of them are new, `admitted`
    /// holds their places in the batch; otherwise it is empty, and the tally says whether all are or none is.
    pub fn admit(&mut self, source: Source, first: u64, count: u32, admitted: &mut Vec<u32>) -> Tally {
        admitted.clear();
        let Some(last) = first.checked_add(u64::from(count.saturating_sub(1))) else {
            return Tally { too_old: count, ..Tally::default() };
        };
        let Some(window) = self.window(source) else { return Tally { too_old: count, ..Tally::default() } };
        let mut tally = Tally::default();
        window.advance(last);
        for (place, seq) in (0..count).zip(first..) {
            match window.mark(seq) {
                Mark::New => {
                    tally.new += 1;
                    admitted.push(place);
                }
                Mark::Duplicate => tally.duplicates += 1,
                Mark::TooOld => tally.too_old += 1,
            }
        }
        if tally.new == count {
            admitted.clear();
        }
        tally
    }

    /// Forgets an origin: it left the mesh.
    pub fn forget(&mut self, origin: RouterNumber) {
        self.windows.retain(|source, _| source.origin != origin);
    }

    /// Windows there are.
    pub fn len(&self) -> usize {
        self.windows.len()
    }

    /// Whether nothing has been seen.
    pub fn is_empty(&self) -> bool {
        self.windows.is_empty()
    }

    /// The window of `source`; none for a life of its router before the last but one.
    fn window(&mut self, source: Source) -> Option<&mut Window> {
        self.clock += 1;
        if !self.windows.contains_key(&source) {
            let whole = |origin, epoch, shard| Source { origin, epoch, shard };
            let of_origin = whole(source.origin, 0, 0)..=whole(source.origin, u32::MAX, u8::MAX);
            let newest = self.windows.range(of_origin).next_back().map_or(0, |(known, _)| known.epoch);
            if u64::from(source.epoch) + 1 < u64::from(newest) {
                return None;
            }
            let last_but_one = source.epoch.saturating_sub(1);
            self.windows.retain(|known, _| known.origin != source.origin || known.epoch >= last_but_one);
            if self.windows.len() >= WINDOWS_MAX {
                let oldest = self.windows.iter().min_by_key(|(_, window)| window.used).map(|(source, _)| *source);
                oldest.map(|source| self.windows.remove(&source));
            }
            self.windows.insert(source, Window { highest: 0, bits: Box::new([0; WORDS]), used: 0 });
        }
        let window = self.windows.get_mut(&source)?;
        window.used = self.clock;
        Some(window)
    }
}

enum Mark {
    New,
    Duplicate,
    TooOld,
}

impl Window {
    /// Makes room up to `last`: the bits of numbers that were not seen yet are cleared.
    fn advance(&mut self, last: u64) {
        if last <= self.highest {
            return;
        }
        if last - self.highest >= WINDOW_SEQS {
            self.bits.fill(0);
        } else {
            for seq in self.highest + 1..=last {
                let (word, bit) = place(seq);
                self.bits[word] &= !bit;
            }
        }
        self.highest = last;
    }

    fn mark(&mut self, seq: u64) -> Mark {
        if self.highest - seq >= WINDOW_SEQS {
            return Mark::TooOld;
        }
        let (word, bit) = place(seq);
        if self.bits[word] & bit != 0 {
            return Mark::Duplicate;
        }
        self.bits[word] |= bit;
        Mark::New
    }
}

fn place(seq: u64) -> (usize, u64) {
    let at = seq % WINDOW_SEQS;
    (usize::try_from(at / 64).unwrap_or(0), 1 << (at % 64))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const SOURCE: Source = Source { origin: RouterNumber(1), epoch: 5, shard: 0 };

    fn admit(window: &mut DuplicateWindow, source: Source, first: u64, count: u32) -> (u32, u32, u32) {
        let tally = window.admit(source, first, count, &mut Vec::new());
        (tally.new, tally.duplicates, tally.too_old)
    }

    #[test]
    fn an_event_passes_once() {
        let (mut window, mut admitted) = (DuplicateWindow::new(), Vec::new());
        assert_eq!(window.admit(SOURCE, 10, 5, &mut admitted).new, 5);
        assert!(admitted.is_empty());
        let tally = window.admit(SOURCE, 13, 4, &mut admitted);
        assert_eq!((tally, &admitted[..]), (Tally { new: 2, duplicates: 2, too_old: 0 }, &[2, 3][..]));
        assert_eq!(admit(&mut window, SOURCE, 8, 3), (2, 1, 0), "late, and not seen");
        assert_eq!(admit(&mut window, Source { shard: 1, ..SOURCE }, 10, 5), (5, 0, 0));
        assert_eq!(admit(&mut window, SOURCE, 10 + WINDOW_SEQS, 1), (1, 0, 0));
        assert_eq!(admit(&mut window, SOURCE, 9, 4), (0, 2, 2));
        assert_eq!(admit(&mut window, SOURCE, u64::MAX, 2), (0, 0, 2), "numbers that cannot be");
    }

    #[test]
    fn the_life_before_is_remembered_and_no_other() {
        let mut window = DuplicateWindow::new();
        let life = |epoch| Source { epoch, ..SOURCE };
        admit(&mut window, life(4), 1, 1);
        admit(&mut window, life(5), 1, 1);
        assert_eq!(admit(&mut window, life(4), 1, 2), (1, 1, 0));
        admit(&mut window, life(6), 1, 1);
        assert_eq!(admit(&mut window, life(4), 3, 1), (0, 0, 1));
        assert_eq!(window.len(), 2);
    }

    #[test]
    fn the_last_epoch_of_all_is_one_like_others() {
        let mut window = DuplicateWindow::new();
        for shard in 0..3 {
            let last = Source { epoch: u32::MAX, shard, ..SOURCE };
            assert_eq!(admit(&mut window, last, 1, 1), (1, 0, 0));
        }
        assert_eq!(admit(&mut window, Source { epoch: u32::MAX - 1, ..SOURCE }, 1, 1), (1, 0, 0));
        assert_eq!(window.len(), 4);
    }

    #[test]
    fn there_are_never_more_windows_than_allowed() {
        let mut window = DuplicateWindow::new();
        for origin in 0..u32::try_from(WINDOWS_MAX).unwrap_or(0) + 10 {
            admit(&mut window, Source { origin: RouterNumber(origin), ..SOURCE }, 1, 1);
            admit(&mut window, Source { origin: RouterNumber(0), ..SOURCE }, 1, 1);
        }
        assert_eq!(window.len(), WINDOWS_MAX);
        assert_eq!(
            admit(&mut window, Source { origin: RouterNumber(0), ..SOURCE }, 1, 1),
            (0, 1, 0),
            "in use, so kept"
        );
        window.forget(RouterNumber(0));
        assert_eq!(window.len(), WINDOWS_MAX - 1);
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_set_of_all_numbers(
            batches in prop::collection::vec((0u64..3 * WINDOW_SEQS, 1u32..300), 1..60),
        ) {
            let (mut window, mut seen, mut admitted) = (DuplicateWindow::new(), BTreeSet::new(), Vec::new());
            let mut highest = 0;
            for (first, count) in batches {
                highest = highest.max(first + u64::from(count) - 1);
                let tally = window.admit(SOURCE, first, count, &mut admitted);
                let mut expected = (Tally::default(), Vec::new());
                for (place, seq) in (0..count).zip(first..) {
                    if highest - seq >= WINDOW_SEQS {
                        expected.0.too_old += 1;
                    } else if seen.insert(seq) {
                        expected.0.new += 1;
                        expected.1.push(place);
                    } else {
                        expected.0.duplicates += 1;
                    }
                }
                if expected.0.new == count {
                    expected.1.clear();
                }
                prop_assert_eq!((tally, &admitted), (expected.0, &expected.1));
            }
        }
    }
}
