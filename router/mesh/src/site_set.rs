//! Sets of sites.
//!
//! Nearly every mesh has fewer than 128 sites, so the first 128 bits are in the set itself, and a set without others costs
//! what two words do: no allocation, no loop. Those from there on are in one allocation of a fixed size, which a set has
//! only while one of them is in it; so equal sets are equal in memory, too.

use std::fmt;
use std::ops::{BitAnd, BitAndAssign, BitOr, BitOrAssign, Sub, SubAssign};

use crate::ids::SiteNumber;
use crate::limits::SITES_MAX;

/// Sites of one word.
const WORD_SITES: usize = 64;
/// Words of the sites below 128.
const LOW_WORDS: usize = 2;
/// Words of the others.
const HIGH_WORDS: usize = SITES_MAX / WORD_SITES - LOW_WORDS;

type High = [u64; HIGH_WORDS];

/// Sites that are told by number where a set is printed.
const SHOWN_MAX: usize = 128;

/// A set of sites: one bit each.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SiteSet {
    low: [u64; LOW_WORDS],
    /// None where all of it would be zero.
    high: Option<Box<High>>,
}

/// The word and the bit of a site.
const fn place(site: SiteNumber) -> (usize, u64) {
    (site.index() / WORD_SITES, 1 << (site.index() % WORD_SITES))
}

impl SiteSet {
    /// No site.
    pub const EMPTY: Self = Self { low: [0; LOW_WORDS], high: None };
    /// Words of a set with every site that there can be.
    pub const WORDS_MAX: usize = LOW_WORDS + HIGH_WORDS;

    /// The set of these bits; bit n is site n, so that it has none from 128 on.
    #[expect(clippy::cast_possible_truncation, reason = "each half is a word")]
    pub const fn from_bits(bits: u128) -> Self {
        Self::from_low([bits as u64, (bits >> WORD_SITES) as u64])
    }

    /// The set of the first [`word`](Self::word)s.
    pub(crate) const fn from_low(low: [u64; LOW_WORDS]) -> Self {
        Self { low, high: None }
    }

    /// One site.
    #[inline]
    pub fn only(site: SiteNumber) -> Self {
        let mut set = Self::EMPTY;
        set.insert(site);
        set
    }

    /// The n-th word: its bit m is site 64 n + m.
    #[inline]
    pub fn word(&self, at: usize) -> u64 {
        match (self.low.get(at), &self.high) {
            (Some(word), _) => *word,
            (None, Some(high)) => high.get(at - LOW_WORDS).copied().unwrap_or_default(),
            (None, None) => 0,
        }
    }

    /// How many words it takes: those after them are zero.
    #[inline]
    pub fn words(&self) -> usize {
        match (&self.high, self.low) {
            (Some(high), _) => LOW_WORDS + high.iter().rposition(|word| *word != 0).map_or(0, |last| last + 1),
            (None, [0, 0]) => 0,
            (None, [_, 0]) => 1,
            (None, _) => LOW_WORDS,
        }
    }

    /// Sets the n-th [`word`](Self::word); beyond [`WORDS_MAX`](Self::WORDS_MAX) there is none.
    pub fn set_word(&mut self, at: usize, word: u64) {
        if let Some(known) = self.low.get_mut(at) {
            *known = word;
        } else if let Some(high) = self.high.as_mut() {
            if let Some(known) = high.get_mut(at - LOW_WORDS) {
                *known = word;
            }
            self.shrink();
        } else if word != 0 && at < Self::WORDS_MAX {
            self.high.get_or_insert_default()[at - LOW_WORDS] = word;
        }
    }

    /// Whether there is no site in it.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.low == [0; LOW_WORDS] && self.high.is_none()
    }

    /// How many sites are in it.
    pub fn len(&self) -> u32 {
        let high = self.high.as_deref().map_or(&[][..], |high| &high[..]);
        self.low.iter().chain(high).map(|word| word.count_ones()).sum()
    }

    /// Whether `site` is in it.
    #[inline]
    pub fn contains(&self, site: SiteNumber) -> bool {
        let (at, bit) = place(site);
        self.word(at) & bit != 0
    }

    /// Whether every site of `other` is in it.
    #[inline]
    pub fn contains_all(&self, other: &Self) -> bool {
        let [first, second] = self.low;
        let is_low_in = other.low[0] & !first == 0 && other.low[1] & !second == 0;
        is_low_in && other.high.as_deref().is_none_or(|theirs| self.has_high(theirs))
    }

    /// Adds `site`.
    #[inline]
    pub fn insert(&mut self, site: SiteNumber) {
        let (at, bit) = place(site);
        match self.low.get_mut(at) {
            Some(word) => *word |= bit,
            None => self.insert_high(at - LOW_WORDS, bit),
        }
    }

    /// Takes `site` out.
    #[inline]
    pub fn remove(&mut self, site: SiteNumber) {
        let (at, bit) = place(site);
        match self.low.get_mut(at) {
            Some(word) => *word &= !bit,
            None => self.set_word(at, self.word(at) & !bit),
        }
    }

    /// The sites, lowest number first.
    pub fn iter(&self) -> impl Iterator<Item = SiteNumber> + '_ {
        (0..self.words()).flat_map(|at| {
            let mut left = self.word(at);
            std::iter::from_fn(move || {
                let bit = usize::try_from(left.trailing_zeros()).ok().filter(|bit| *bit < WORD_SITES)?;
                left &= left - 1;
                SiteNumber::new(u16::try_from(at * WORD_SITES + bit).ok()?)
            })
        })
    }

    /// The highest site.
    pub fn last(&self) -> Option<SiteNumber> {
        let at = self.words().checked_sub(1)?;
        let bit = usize::try_from(self.word(at).ilog2()).ok()?;
        SiteNumber::new(u16::try_from(at * WORD_SITES + bit).ok()?)
    }
}

/// What concerns sites from 128 on, out of the way of all others.
impl SiteSet {
    #[cold]
    fn insert_high(&mut self, at: usize, bit: u64) {
        self.high.get_or_insert_default()[at] |= bit;
    }

    #[cold]
    fn has_high(&self, theirs: &High) -> bool {
        let is_in = |mine: &High| mine.iter().zip(theirs).all(|(mine, theirs)| theirs & !mine == 0);
        self.high.as_deref().is_some_and(is_in)
    }

    #[cold]
    fn add_high(&mut self, theirs: &High) {
        let mine = self.high.get_or_insert_default();
        mine.iter_mut().zip(theirs).for_each(|(mine, theirs)| *mine |= theirs);
    }

    /// Keeps what is in `theirs`.
    #[cold]
    fn keep_high(&mut self, theirs: Option<&High>) {
        match (&mut self.high, theirs) {
            (Some(mine), Some(theirs)) => mine.iter_mut().zip(theirs).for_each(|(mine, theirs)| *mine &= theirs),
            (high, _) => *high = None,
        }
        self.shrink();
    }

    #[cold]
    fn drop_high(&mut self, theirs: &High) {
        if let Some(mine) = &mut self.high {
            mine.iter_mut().zip(theirs).for_each(|(mine, theirs)| *mine &= !theirs);
        }
        self.shrink();
    }

    /// Gives the allocation back that has no site any more.
    fn shrink(&mut self) {
        if self.high.as_deref().is_some_and(|high| *high == [0; HIGH_WORDS]) {
            self.high = None;
        }
    }
}

impl BitOrAssign<&Self> for SiteSet {
    #[inline]
    fn bitor_assign(&mut self, other: &Self) {
        self.low[0] |= other.low[0];
        self.low[1] |= other.low[1];
        if let Some(theirs) = &other.high {
            self.add_high(theirs);
        }
    }
}

impl BitAndAssign<&Self> for SiteSet {
    #[inline]
    fn bitand_assign(&mut self, other: &Self) {
        self.low[0] &= other.low[0];
        self.low[1] &= other.low[1];
        if self.high.is_some() {
            self.keep_high(other.high.as_deref());
        }
    }
}

impl SubAssign<&Self> for SiteSet {
    #[inline]
    fn sub_assign(&mut self, other: &Self) {
        self.low[0] &= !other.low[0];
        self.low[1] &= !other.low[1];
        if let Some(theirs) = &other.high {
            self.drop_high(theirs);
        }
    }
}

impl BitOr<&Self> for SiteSet {
    type Output = Self;
    #[inline]
    fn bitor(mut self, other: &Self) -> Self {
        self |= other;
        self
    }
}

impl BitAnd<&Self> for SiteSet {
    type Output = Self;
    #[inline]
    fn bitand(mut self, other: &Self) -> Self {
        self &= other;
        self
    }
}

impl Sub<&Self> for SiteSet {
    type Output = Self;
    #[inline]
    fn sub(mut self, other: &Self) -> Self {
        self -= other;
        self
    }
}

/// `a & b` where neither is to go.
impl BitAnd for &SiteSet {
    type Output = SiteSet;
    #[inline]
    fn bitand(self, other: Self) -> SiteSet {
        let mut set = SiteSet::from_low([self.low[0] & other.low[0], self.low[1] & other.low[1]]);
        if let (Some(mine), Some(theirs)) = (&self.high, &other.high) {
            set.add_high(mine);
            set.keep_high(Some(theirs));
        }
        set
    }
}

/// `a - b` where neither is to go.
impl Sub for &SiteSet {
    type Output = SiteSet;
    #[inline]
    fn sub(self, other: Self) -> SiteSet {
        let mut set = SiteSet::from_low([self.low[0] & !other.low[0], self.low[1] & !other.low[1]]);
        if let Some(mine) = &self.high {
            set.add_high(mine);
            set.drop_high(other.high.as_deref().unwrap_or(&[0; HIGH_WORDS]));
        }
        set
    }
}

impl FromIterator<SiteNumber> for SiteSet {
    fn from_iter<I: IntoIterator<Item = SiteNumber>>(sites: I) -> Self {
        let mut set = Self::EMPTY;
        sites.into_iter().for_each(|site| set.insert(site));
        set
    }
}

impl fmt::Debug for SiteSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // It is in messages about what others send: a line has room for some.
        f.debug_set().entries(self.iter().take(SHOWN_MAX).map(SiteNumber::number)).finish()?;
        match (self.len() as usize).saturating_sub(SHOWN_MAX) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// Sets with sites below 64, below 128, and from there on, each often.
    pub(crate) fn site_sets() -> impl Strategy<Value = SiteSet> {
        let high = prop::collection::vec(0u16..u16::try_from(SITES_MAX).unwrap(), 0..40)
            .prop_map(|sites| sites.into_iter().filter_map(SiteNumber::new).collect());
        let low = prop_oneof![any::<u128>(), any::<u64>().prop_map(u128::from)].prop_map(SiteSet::from_bits);
        prop_oneof![low, high]
    }

    #[test]
    fn a_set_is_as_small_as_two_words_can_be_and_holds_every_site() {
        assert_eq!(size_of::<SiteSet>(), 24);
        assert_eq!(SITES_MAX, SiteSet::WORDS_MAX * WORD_SITES);
        let all: SiteSet = (0..=u16::MAX).filter_map(SiteNumber::new).collect();
        assert_eq!((all.iter().count(), all.len()), (SITES_MAX, 1_024));
        assert_eq!(SiteSet::from_bits(u128::MAX).iter().count(), 128);
        let mut low = all.clone() & &SiteSet::from_bits(u128::MAX);
        assert!(low.high.is_none() && low == SiteSet::from_bits(u128::MAX));
        low.set_word(SiteSet::WORDS_MAX, 1);
        assert!(low.high.is_none(), "there is no such word");
    }

    proptest! {
        #[test]
        fn sets_of_sites_do_what_sets_do(a in site_sets(), b in site_sets(), one in 0u16..1_024) {
            type Model = BTreeSet<SiteNumber>;
            let one = SiteNumber::new(one).unwrap();
            let (x, y): (Model, Model) = (a.iter().collect(), b.iter().collect());
            let same = |set: &SiteSet, model: &Model| {
                let rebuilt: SiteSet = model.iter().copied().collect();
                // Equal in memory: what hashes and compares it goes by that.
                *set == rebuilt
                    && set.iter().eq(model.iter().copied())
                    && set.len() as usize == model.len()
                    && set.is_empty() == model.is_empty()
                    && set.last() == model.last().copied()
            };
            prop_assert!(same(&a, &x));
            prop_assert!(same(&(a.clone() | &b), &(&x | &y)));
            prop_assert!(same(&(a.clone() & &b), &(&x & &y)));
            prop_assert!(same(&(a.clone() - &b), &(&x - &y)));
            prop_assert!(same(&(&a & &b), &(&x & &y)));
            prop_assert!(same(&(&a - &b), &(&x - &y)));
            prop_assert_eq!(a.contains_all(&b), x.is_superset(&y));
            prop_assert_eq!(a.contains(one), x.contains(&one));
            let (mut more, mut model) = (a.clone(), x.clone());
            more.insert(one);
            model.insert(one);
            prop_assert!(same(&more, &model));
            more.remove(one);
            model.remove(&one);
            prop_assert!(same(&more, &model));
            let mut copied = SiteSet::EMPTY;
            (0..a.words()).for_each(|at| copied.set_word(at, a.word(at)));
            prop_assert!(copied == a && a.words() <= SiteSet::WORDS_MAX && a.word(a.words()) == 0);
        }
    }
}
