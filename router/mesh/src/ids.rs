//! Numbers of sites, routers and links, and sets of sites.

use std::fmt;
use std::ops::{BitAnd, BitOr, BitOrAssign, Sub};

use serde::{Deserialize, Serialize};

use crate::limits::SITES_MAX;

/// A site of a full mesh, 0 to 127. Comes from the catalog and is never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct SiteNumber(u16);

/// A router. Comes from the catalog and is never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RouterNumber(pub u32);

/// One connection to a neighbour, as the shell numbers them; never reused while the process lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u64);

/// A set of sites: one bit each.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SiteSet(u128);

impl SiteNumber {
    /// The site with this number, where a full mesh has one.
    pub const fn new(number: u16) -> Option<Self> {
        if (number as usize) < SITES_MAX { Some(Self(number)) } else { None }
    }

    /// The number.
    pub const fn number(self) -> u16 {
        self.0
    }

    /// The number as an index.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl TryFrom<u16> for SiteNumber {
    type Error = String;
    fn try_from(number: u16) -> Result<Self, String> {
        Self::new(number).ok_or_else(|| format!("site {number} is out of range; a full mesh has sites 0 to 127"))
    }
}

impl From<SiteNumber> for u16 {
    fn from(site: SiteNumber) -> u16 {
        site.0
    }
}

impl fmt::Debug for SiteNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "site {}", self.0)
    }
}

impl fmt::Display for SiteNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for RouterNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "router {}", self.0)
    }
}

impl fmt::Display for RouterNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl SiteSet {
    /// No site.
    pub const EMPTY: Self = Self(0);
    /// Every site that a mesh can have.
    pub const ALL: Self = Self(u128::MAX);

    /// The set of these bits; bit n is site n.
    pub const fn from_bits(bits: u128) -> Self {
        Self(bits)
    }

    /// One site.
    pub const fn only(site: SiteNumber) -> Self {
        Self(1 << site.0)
    }

    /// The bits.
    pub const fn bits(self) -> u128 {
        self.0
    }

    /// Whether there is no site in it.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// How many sites are in it.
    pub const fn len(self) -> u32 {
        self.0.count_ones()
    }

    /// Whether `site` is in it.
    pub const fn contains(self, site: SiteNumber) -> bool {
        self.0 & (1 << site.0) != 0
    }

    /// Whether every site of `other` is in it.
    pub const fn contains_all(self, other: Self) -> bool {
        other.0 & !self.0 == 0
    }

    /// Adds `site`.
    pub fn insert(&mut self, site: SiteNumber) {
        self.0 |= 1 << site.0;
    }

    /// Takes `site` out.
    pub fn remove(&mut self, site: SiteNumber) {
        self.0 &= !(1 << site.0);
    }

    /// The sites, lowest number first.
    pub fn iter(self) -> impl Iterator<Item = SiteNumber> {
        let mut left = self.0;
        std::iter::from_fn(move || {
            let site = SiteNumber::new(u16::try_from(left.trailing_zeros()).ok()?)?;
            left &= left - 1;
            Some(site)
        })
    }
}

impl BitOr for SiteSet {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for SiteSet {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

impl BitAnd for SiteSet {
    type Output = Self;
    fn bitand(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl Sub for SiteSet {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

impl FromIterator<SiteNumber> for SiteSet {
    fn from_iter<I: IntoIterator<Item = SiteNumber>>(sites: I) -> Self {
        sites.into_iter().fold(Self::EMPTY, |set, site| set | Self::only(site))
    }
}

impl fmt::Debug for SiteSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter().map(SiteNumber::number)).finish()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::*;

    #[test]
    fn sets_of_sites_do_what_sets_do() {
        let site = |n| SiteNumber::new(n).unwrap();
        let ends: SiteSet = [site(0), site(64), site(127)].into_iter().collect();
        let low: SiteSet = [site(0), site(1)].into_iter().collect();
        assert_eq!((ends | low).iter().map(SiteNumber::number).collect::<Vec<_>>(), [0, 1, 64, 127]);
        assert_eq!(ends & low, SiteSet::only(site(0)));
        assert_eq!(ends - low, [site(64), site(127)].into_iter().collect());
        assert!(SiteSet::ALL.contains_all(ends) && !low.contains_all(ends) && SiteSet::EMPTY.is_empty());
        assert_eq!(SiteSet::ALL.iter().count(), SITES_MAX);
        assert_eq!(SiteNumber::new(128), None);
    }
}
