//! Who belongs to the mesh: from the configuration into the catalog, and from the catalog to the links.

use myelin_catalog::{Catalog, Fleet, Name, Op, SigningKey};
use myelin_mesh::{Directory, Router, RouterNumber, Site, SiteNumber};
use std::collections::BTreeSet;

/// The region and the cloud of a site of which nobody has said where it is.
const UNSET: &str = "unset";

/// A region or a cloud as rules see it: empty where nobody has said it.
pub(crate) fn place(name: &Name) -> &str {
    if name.as_str() == UNSET { "" } else { name.as_str() }
}

/// What a writer writes down before all else: the key that signs from there on, and the sites and routers that its
/// configuration names and the catalog has given no number yet. Who was removed stays removed.
pub(super) fn enrolment(catalog: &Catalog, members: &[(Name, Name)], key: Option<&SigningKey>) -> Vec<Op> {
    let mut ops = Vec::new();
    if let Some(key) = key.filter(|_| catalog.keys().root().is_none()) {
        let note = "the writer's own key, drawn at its first start".to_owned();
        ops.push(Op::KeyTrusted { key_id: key.id().clone(), public_key: key.public_key(), note });
    }
    let Ok(unset) = UNSET.parse::<Name>() else { return ops };
    let fleet = catalog.fleet();
    let mut sites: BTreeSet<&Name> = fleet.sites().map(|site| &site.name).collect();
    for (site, name) in members.iter().skip(fleet.routers_ever() as usize) {
        if sites.insert(site) {
            ops.push(Op::SiteAdded { name: site.clone(), region: unset.clone(), cloud: unset.clone() });
        }
        ops.push(Op::RouterAdded { site: site.clone(), name: name.clone() });
    }
    ops
}

/// The sites and routers of a catalog as the links know them; `members` are those that the configuration names. Where
/// this router has another number there than the one under which it runs, or none, it is not for the links.
///
/// # Errors
/// Why it is not.
pub(super) fn directory(
    fleet: &Fleet,
    members: &[(Name, Name)],
    (site, router): (Option<&Name>, &Name),
    number: u32,
) -> Result<Directory, String> {
    let directory = read(fleet, members)?;
    match site.and_then(|site| directory.by_name(site.as_str(), router.as_str())) {
        Some(own) if own.0 == number => Ok(directory),
        Some(own) => Err(format!("this router runs as number {number} and is number {own} in the catalog; restart it")),
        None => Err("the catalog does not name this router any more; add it, or stop it".to_owned()),
    }
}

/// The same, whoever asks. A catalog that is just being begun, or pulled, does not have all members yet: those whose
/// numbers it has not given to anybody belong to the mesh as the configuration says.
///
/// # Errors
/// Where the two do not fit together.
pub(crate) fn read(fleet: &Fleet, members: &[(Name, Name)]) -> Result<Directory, String> {
    let mut sites = Vec::new();
    for site in fleet.sites() {
        let number = SiteNumber::new(site.number).ok_or("a site has a number that this router has no room for")?;
        let (region, cloud) = (place(&site.region).into(), place(&site.cloud).into());
        sites.push(Site { number, name: site.name.as_str().into(), region, cloud });
    }
    let mut routers = Vec::new();
    let at =
        |sites: &[Site], name: &Name| sites.iter().find(|site| *site.name == *name.as_str()).map(|site| site.number);
    for router in fleet.routers() {
        let site = at(&sites, &router.site).ok_or("a router's site is not there")?;
        routers.push(Router { number: RouterNumber(router.number), name: router.name.as_str().into(), site });
    }
    let mut next_site = fleet.sites_ever();
    for (number, (site, name)) in (1..).zip(members).filter(|(number, _)| *number > fleet.routers_ever()) {
        let site = match at(&sites, site) {
            Some(site) => site,
            None => {
                let number = SiteNumber::new(next_site).ok_or("a member is at one site too many")?;
                next_site += 1;
                let nowhere = || "".into();
                sites.push(Site { number, name: site.as_str().into(), region: nowhere(), cloud: nowhere() });
                number
            }
        };
        routers.push(Router { number: RouterNumber(number), name: name.as_str().into(), site });
    }
    Directory::new(sites, routers).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::*;
    use crate::config::{MeshConfig, members};

    fn enrolled(names: &[&str]) -> Catalog {
        let split = |name: &&str| {
            let (site, router) = name.split_once('/').unwrap();
            (site.parse().unwrap(), router.parse().unwrap())
        };
        let named: Vec<(Name, Name)> = names.iter().map(split).collect();
        let mut catalog = Catalog::new();
        for op in enrolment(&catalog.clone(), &named, None) {
            let record = catalog.draft(op, "test", 0).unwrap();
            catalog.apply(&record).unwrap();
        }
        assert!(enrolment(&catalog, &named, None).is_empty(), "once");
        catalog
    }

    #[test]
    fn members_have_the_same_numbers_in_the_configuration_and_in_the_catalog() {
        let names = ["eu1/a", "us1/a", "eu1/b"];
        let catalog = enrolled(&names);
        let (eu1, b): (Name, Name) = ("eu1".parse().unwrap(), "b".parse().unwrap());
        let from_catalog = directory(catalog.fleet(), &[], (Some(&eu1), &b), 3).unwrap();
        let config = MeshConfig { members: names.map(str::to_owned).to_vec(), ..MeshConfig::default() };
        assert_eq!(from_catalog, members(&config).unwrap());
    }

    #[test]
    fn a_catalog_that_is_just_begun_takes_nobody_out() {
        let names = ["eu1/a", "us1/a", "eu1/b"];
        let config = MeshConfig { members: names.map(str::to_owned).to_vec(), ..MeshConfig::default() };
        let whole = members(&config).unwrap();
        let named = names.map(|name| {
            let (site, router) = name.split_once('/').unwrap();
            (site.parse().unwrap(), router.parse().unwrap())
        });
        let mut catalog = Catalog::new();
        for op in enrolment(&Catalog::new(), &named, None) {
            assert_eq!(read(catalog.fleet(), &named).unwrap(), whole);
            let record = catalog.draft(op, "test", 0).unwrap();
            catalog.apply(&record).unwrap();
        }
        // Who was removed stays removed.
        let (site, name) = named[1].clone();
        let record = catalog.draft(Op::RouterRemoved { site, name }, "test", 0).unwrap();
        catalog.apply(&record).unwrap();
        assert_eq!(read(catalog.fleet(), &named).unwrap().routers().count(), 2);
        assert!(enrolment(&catalog, &named, None).is_empty());
    }

    #[test]
    fn a_router_that_is_somebody_else_in_the_catalog_keeps_what_it_knows() {
        let catalog = enrolled(&["eu1/a", "us1/a"]);
        let (us1, a): (Name, Name) = ("us1".parse().unwrap(), "a".parse().unwrap());
        assert!(directory(catalog.fleet(), &[], (Some(&us1), &a), 7).unwrap_err().contains("number 2"));
        assert!(
            directory(catalog.fleet(), &[], (Some(&us1), &"z".parse().unwrap()), 7)
                .unwrap_err()
                .contains("does not name")
        );
    }
}
