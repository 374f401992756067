//! Who belongs to the mesh: sites and routers with their numbers, as the catalog says.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::ids::{RouterNumber, SiteNumber};
use crate::limits::{NAME_BYTES_MAX, ROUTERS_MAX};
use crate::site_set::SiteSet;

/// A site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// Its number.
    pub number: SiteNumber,
    /// What certificates call it.
    pub name: Arc<str>,
    /// The region that it is in, for residency rules; may be empty.
    pub region: Arc<str>,
    /// The cloud or owner of its machines, for residency rules; may be empty.
    pub cloud: Arc<str>,
}

/// A router.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Router {
    /// Its number.
    pub number: RouterNumber,
    /// What certificates call it; one name at a site.
    pub name: Arc<str>,
    /// The site that it is at.
    pub site: SiteNumber,
}

/// All sites and routers; immutable, and replaced as a whole when the catalog changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Directory {
    sites: BTreeMap<SiteNumber, Site>,
    routers: BTreeMap<RouterNumber, Router>,
    by_name: BTreeMap<(Arc<str>, Arc<str>), RouterNumber>,
}

/// Why sites and routers make no directory.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the fields are what the message names")]
pub enum DirectoryError {
    /// Two sites have one number or one name.
    #[error("site {number} ({name}) is there twice by number or name; numbers and names are never reused")]
    SiteTwice { number: SiteNumber, name: Arc<str> },
    /// Two routers have one number, or one name at the same site.
    #[error("router {number} ({name}) is there twice by number or name; numbers and names are never reused")]
    RouterTwice { number: RouterNumber, name: Arc<str> },
    /// A router is at a site that is not there.
    #[error("router {number} is at site {site}, which the directory does not have; add the site first")]
    NoSite { number: RouterNumber, site: SiteNumber },
    /// There are too many routers.
    #[error("there are {count} routers; a full mesh has at most {ROUTERS_MAX}")]
    TooManyRouters { count: usize },
    /// A name is empty or too long.
    #[error("a name has {len_bytes} bytes; 1 to {NAME_BYTES_MAX} are allowed (a region or a cloud may be empty)")]
    Name { len_bytes: usize },
}

impl DirectoryError {
    /// The stable name of this error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::SiteTwice { .. } => "site-twice",
            Self::RouterTwice { .. } => "router-twice",
            Self::NoSite { .. } => "router-without-site",
            Self::TooManyRouters { .. } => "too-many-routers",
            Self::Name { .. } => "invalid-name",
        }
    }
}

impl Directory {
    /// The directory of these.
    ///
    /// # Errors
    /// The first thing that is twice, missing, or over a limit.
    pub fn new(
        sites: impl IntoIterator<Item = Site>,
        routers: impl IntoIterator<Item = Router>,
    ) -> Result<Self, DirectoryError> {
        let (mut directory, mut names) = (Self::default(), BTreeSet::new());
        for site in sites {
            check_name(&site.name, 1)?;
            check_name(&site.region, 0)?;
            check_name(&site.cloud, 0)?;
            if !names.insert(site.name.clone()) || directory.sites.contains_key(&site.number) {
                return Err(DirectoryError::SiteTwice { number: site.number, name: site.name });
            }
            directory.sites.insert(site.number, site);
        }
        for router in routers {
            directory.add_router(router)?;
        }
        Ok(directory)
    }

    fn add_router(&mut self, router: Router) -> Result<(), DirectoryError> {
        check_name(&router.name, 1)?;
        let Some(site) = self.sites.get(&router.site) else {
            return Err(DirectoryError::NoSite { number: router.number, site: router.site });
        };
        if self.routers.len() >= ROUTERS_MAX {
            return Err(DirectoryError::TooManyRouters { count: self.routers.len() + 1 });
        }
        let name = (site.name.clone(), router.name.clone());
        if self.by_name.contains_key(&name) || self.routers.contains_key(&router.number) {
            return Err(DirectoryError::RouterTwice { number: router.number, name: router.name });
        }
        self.by_name.insert(name, router.number);
        self.routers.insert(router.number, router);
        Ok(())
    }

    /// The site with this number.
    pub fn site(&self, number: SiteNumber) -> Option<&Site> {
        self.sites.get(&number)
    }

    /// The router with this number.
    pub fn router(&self, number: RouterNumber) -> Option<&Router> {
        self.routers.get(&number)
    }

    /// The site of a router.
    pub fn site_of(&self, router: RouterNumber) -> Option<SiteNumber> {
        self.routers.get(&router).map(|router| router.site)
    }

    /// The router of this name at the site of that name.
    pub fn by_name(&self, site: &str, router: &str) -> Option<RouterNumber> {
        self.by_name.get(&(site.into(), router.into())).copied()
    }

    /// All sites, by number.
    pub fn sites(&self) -> impl Iterator<Item = &Site> {
        self.sites.values()
    }

    /// All routers, by number.
    pub fn routers(&self) -> impl Iterator<Item = &Router> {
        self.routers.values()
    }

    /// The sites that `wanted` says yes to: what a residency rule makes of regions and clouds.
    pub fn sites_where(&self, mut wanted: impl FnMut(&Site) -> bool) -> SiteSet {
        self.sites.values().filter(|site| wanted(site)).map(|site| site.number).collect()
    }
}

fn check_name(name: &str, least: usize) -> Result<(), DirectoryError> {
    if (least..=NAME_BYTES_MAX).contains(&name.len()) {
        Ok(())
    } else {
        Err(DirectoryError::Name { len_bytes: name.len() })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::*;

    fn site(number: u16, name: &str, region: &str) -> Site {
        Site {
            number: SiteNumber::new(number).unwrap(),
            name: name.into(),
            region: region.into(),
            cloud: Arc::default(),
        }
    }

    fn router(number: u32, name: &str, site: u16) -> Router {
        Router { number: RouterNumber(number), name: name.into(), site: SiteNumber::new(site).unwrap() }
    }

    #[test]
    fn who_is_in_it_is_found_by_number_and_by_name() {
        let sites = [site(0, "hamburg", "eu-north"), site(5, "ohio", "us-east")];
        let directory = Directory::new(sites, [router(1, "r1", 0), router(2, "r1", 5)]).unwrap();
        assert_eq!(directory.by_name("ohio", "r1"), Some(RouterNumber(2)));
        assert_eq!(directory.by_name("ohio", "r2"), None);
        assert_eq!(directory.site_of(RouterNumber(2)), SiteNumber::new(5));
        let eu = directory.sites_where(|site| site.region.starts_with("eu-"));
        assert_eq!(eu, SiteSet::only(SiteNumber::new(0).unwrap()));
    }

    #[test]
    fn what_is_twice_or_nowhere_is_refused() {
        let refused = |sites: &[Site], routers: &[Router]| {
            Directory::new(sites.iter().cloned(), routers.iter().cloned()).unwrap_err().code()
        };
        assert_eq!(refused(&[site(0, "a", ""), site(0, "b", "")], &[]), "site-twice");
        assert_eq!(refused(&[site(0, "a", ""), site(1, "a", "")], &[]), "site-twice");
        assert_eq!(refused(&[site(0, "", "")], &[]), "invalid-name");
        assert_eq!(refused(&[site(0, "a", "")], &[router(1, "r", 1)]), "router-without-site");
        assert_eq!(refused(&[site(0, "a", "")], &[router(1, "r", 0), router(2, "r", 0)]), "router-twice");
        let many: Vec<_> = (0..=1_024).map(|n| router(n, &format!("r{n}"), 0)).collect();
        assert_eq!(refused(&[site(0, "a", "")], &many), "too-many-routers");
    }
}
