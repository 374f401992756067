//! Numbers of sites, routers and links.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::limits::SITES_MAX;

/// A site of a mesh, below [`SITES_MAX`]. Comes from the catalog and is never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct SiteNumber(u16);

/// A router. Comes from the catalog and is never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RouterNumber(pub u32);

/// One connection to a neighbour, as the shell numbers them; never reused while the process lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u64);

impl SiteNumber {
    /// The site with this number, where a mesh can have one.
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
        Self::new(number)
            .ok_or_else(|| format!("site {number} is out of range; a mesh has sites 0 to {}", SITES_MAX - 1))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_as_many_sites_as_the_limit_says() {
        assert_eq!(SiteNumber::new(1_023).map(SiteNumber::index), Some(SITES_MAX - 1));
        assert_eq!(SiteNumber::new(1_024), None);
        assert!(SiteNumber::try_from(1_024).is_err_and(|why| why.contains("0 to 1023")));
    }
}
