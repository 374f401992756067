//! Sites and their routers: who belongs to the mesh, and under which numbers.
//!
//! Numbers are not in the records: a site or router gets the next number that none ever had, so that the log alone says
//! it and every router that reads the log counts the same. No number comes back, not even for the same name: an event
//! that is under way with an old number must never be taken for a newer router's.

use std::collections::BTreeMap;

use crate::error::CatalogError;
use crate::limits::{ROUTERS_MAX, SITES_EVER_MAX};
use crate::names::Name;

#[cfg(test)]
mod tests;

/// The sites and routers that there are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fleet {
    sites: BTreeMap<Name, Site>,
    /// By site, then name: a router's name is its own within its site.
    routers: BTreeMap<(Name, Name), Router>,
    next_site: u16,
    last_router: u32,
}

/// A site: a place where routers stand together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// Its number, below [`SITES_EVER_MAX`]: its bit in the set of sites of an event.
    pub number: u16,
    /// Its name.
    pub name: Name,
    /// Where it is, for rules of residency.
    pub region: Name,
    /// Whose machines it runs on, for rules of residency.
    pub cloud: Name,
    /// The revision of the record that added it.
    pub rev: u64,
}

/// A router of a site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Router {
    /// Its number.
    pub number: u32,
    /// Its site.
    pub site: Name,
    /// Its name within the site, as its certificate says it.
    pub name: Name,
    /// The revision of the record that added it.
    pub rev: u64,
}

impl Fleet {
    /// The sites by name.
    pub fn sites(&self) -> impl ExactSizeIterator<Item = &Site> {
        self.sites.values()
    }

    /// The site of that name.
    pub fn site(&self, name: &Name) -> Option<&Site> {
        self.sites.get(name)
    }

    /// The site of that number.
    pub fn site_numbered(&self, number: u16) -> Option<&Site> {
        self.sites().find(|site| site.number == number)
    }

    /// The routers by site, then name.
    pub fn routers(&self) -> impl ExactSizeIterator<Item = &Router> {
        self.routers.values()
    }

    /// The routers of a site by name.
    pub fn routers_of<'a>(&'a self, site: &'a Name) -> impl Iterator<Item = &'a Router> {
        self.routers().filter(move |router| router.site == *site)
    }

    /// The router of that name in that site.
    pub fn router(&self, site: &Name, name: &Name) -> Option<&Router> {
        self.routers.get(&(site.clone(), name.clone()))
    }

    /// How many sites there ever were: the number of the next one.
    pub fn sites_ever(&self) -> u16 {
        self.next_site
    }

    /// How many routers there ever were: the number of the newest one.
    pub fn routers_ever(&self) -> u32 {
        self.last_router
    }

    /// The router of that number.
    pub fn router_numbered(&self, number: u32) -> Option<&Router> {
        self.routers().find(|router| router.number == number)
    }

    pub(crate) fn check_site_added(&self, name: &Name) -> Result<(), CatalogError> {
        if self.sites.contains_key(name) {
            return Err(CatalogError::Conflict(format!(
                "site {name} is there already; choose another name, or say where it is with `myelin site set`"
            )));
        }
        if self.next_site >= SITES_EVER_MAX {
            let mend = "their numbers are never used again: start a new catalog from an export of this one";
            return Err(CatalogError::Full { what: "sites, removed ones included", max: SITES_EVER_MAX.into(), mend });
        }
        Ok(())
    }

    pub(crate) fn check_site_removed(&self, name: &Name) -> Result<(), CatalogError> {
        self.find_site(name)?;
        match self.routers_of(name).next() {
            None => Ok(()),
            Some(router) => Err(CatalogError::Conflict(format!(
                "site {name} has routers, such as {}; remove them first",
                router.name
            ))),
        }
    }

    pub(crate) fn check_router_added(&self, site: &Name, name: &Name) -> Result<(), CatalogError> {
        self.find_site(site)?;
        if self.router(site, name).is_some() {
            let why = format!("router {name} of site {site} is there already; choose another name");
            return Err(CatalogError::Conflict(why));
        }
        let is_last = self.last_router == u32::MAX;
        if self.routers.len() >= ROUTERS_MAX || is_last {
            let mend = "remove routers that are gone for good";
            return Err(CatalogError::Full { what: "routers", max: ROUTERS_MAX as u64, mend });
        }
        Ok(())
    }

    pub(crate) fn check_router_removed(&self, site: &Name, name: &Name) -> Result<(), CatalogError> {
        match self.router(site, name) {
            Some(_) => Ok(()),
            None => {
                let (name, mend) = (format!("{site}/{name}"), "list the routers of that site");
                Err(CatalogError::NotFound { what: "router", name, mend })
            }
        }
    }

    pub(crate) fn add_site(&mut self, name: &Name, region: &Name, cloud: &Name, rev: u64) {
        let (number, name) = (self.next_site, name.clone());
        self.next_site += 1;
        self.sites.insert(name.clone(), Site { number, name, region: region.clone(), cloud: cloud.clone(), rev });
    }

    pub(crate) fn move_site(&mut self, name: &Name, region: &Name, cloud: &Name) {
        if let Some(site) = self.sites.get_mut(name) {
            (site.region, site.cloud) = (region.clone(), cloud.clone());
        }
    }

    pub(crate) fn remove_site(&mut self, name: &Name) {
        self.sites.remove(name);
    }

    pub(crate) fn add_router(&mut self, site: &Name, name: &Name, rev: u64) {
        // The first is 1: a router outside every mesh is 0.
        self.last_router += 1;
        let (number, site, name) = (self.last_router, site.clone(), name.clone());
        self.routers.insert((site.clone(), name.clone()), Router { number, site, name, rev });
    }

    pub(crate) fn remove_router(&mut self, site: &Name, name: &Name) {
        self.routers.remove(&(site.clone(), name.clone()));
    }

    pub(crate) fn find_site(&self, name: &Name) -> Result<&Site, CatalogError> {
        let mend = "list the sites, or add it first";
        self.site(name).ok_or_else(|| CatalogError::NotFound { what: "site", name: name.to_string(), mend })
    }
}
