//! Who belongs to the mesh: from the configuration into the catalog, and from the catalog to the links.

use myelin_catalog::{Catalog, Fleet, Name, Op, SigningKey};
use myelin_mesh::{Directory, Router, RouterNumber, Site, SiteNumber};
use std::collections::BTreeSet;

/// A line of `[mesh] members`: a router of a site; or a site by itself, which keeps the number of one without routers.
pub(crate) type Member = (Name, Option<Name>);

/// The region and the cloud of a site of which nobody has said where it is.
const UNSET: &str = "unset";

/// A region or a cloud as rules see it: empty where nobody has said it.
pub(crate) fn place(name: &Name) -> &str {
    if name.as_str() == UNSET { "" } else { name.as_str() }
}

/// What a writer writes down before all else: the key that signs from there on, and the sites and routers that its
/// configuration names and the catalog has given no number yet. Who was removed stays removed.
pub(super) fn enrolment(catalog: &Catalog, members: &[Member], key: Option<&SigningKey>) -> Vec<Op> {
    let mut ops = Vec::new();
    if let Some(key) = key.filter(|_| catalog.keys().root().is_none()) {
        let note = "the writer's own key, drawn at its first start".to_owned();
        ops.push(Op::KeyTrusted { key_id: key.id().clone(), public_key: key.public_key(), note });
    }
    let Ok(unset) = UNSET.parse::<Name>() else { return ops };
    let fleet = catalog.fleet();
    let mut sites: BTreeSet<&Name> = fleet.sites().map(|site| &site.name).collect();
    for (site, router) in unnumbered(fleet, members) {
        if sites.insert(site) {
            ops.push(Op::SiteAdded { name: site.clone(), region: unset.clone(), cloud: unset.clone() });
        }
        if let Some((_, name)) = router {
            ops.push(Op::RouterAdded { site: site.clone(), name: name.clone() });
        }
    }
    ops
}

/// A member that a catalog has given no number yet: its site, and the router with its number to be.
type Unnumbered<'a> = (&'a Name, Option<(u32, &'a Name)>);

/// Those, in their order. Of a site by itself its place among the sites says whether its number was given to anybody: one
/// that was removed stays removed.
fn unnumbered<'a>(fleet: &Fleet, members: &'a [Member]) -> Vec<Unnumbered<'a>> {
    let (mut number, mut places, mut found) = (0, Vec::new(), Vec::new());
    for (site, router) in members {
        let is_first = !places.contains(&site);
        if is_first {
            places.push(site);
        }
        match router {
            Some(name) => {
                number += 1;
                if number > fleet.routers_ever() {
                    found.push((site, Some((number, name))));
                }
            }
            None if is_first && places.len() > usize::from(fleet.sites_ever()) => found.push((site, None)),
            None => {}
        }
    }
    found
}

/// The `[mesh] members` that give every router and every site of a catalog the number that it has there. Numbers are never
/// used again: where nobody has one any more, a name keeps the place that nobody has.
pub(crate) fn listed(fleet: &Fleet) -> Vec<String> {
    let site_of = |number: u16| match fleet.site_numbered(number) {
        Some(site) => site.name.to_string(),
        None => unused(format!("removed-{number}"), |name| fleet.sites().any(|site| site.name.as_str() == name)),
    };
    let (mut lines, mut sites) = (Vec::new(), 0);
    for number in 1..=fleet.routers_ever() {
        let router = fleet.router_numbered(number);
        let (place, site, name) = match router.and_then(|router| fleet.site(&router.site).zip(Some(router))) {
            Some((site, router)) => (site.number, site.name.to_string(), router.name.to_string()),
            None => {
                let is_used = |name: &str| fleet.routers().any(|router| router.name.as_str() == name);
                (0, site_of(0), unused(format!("removed-{number}"), is_used))
            }
        };
        // Sites are numbered as they are named first.
        while sites < place {
            lines.push(site_of(sites));
            sites += 1;
        }
        sites = sites.max(place + 1);
        lines.push(format!("{site}/{name}"));
    }
    lines
}

/// A name that nobody has, made of this one.
fn unused(mut name: String, is_used: impl Fn(&str) -> bool) -> String {
    while is_used(&name) {
        name.push('x');
    }
    name
}

/// The sites and routers of a catalog as the links know them; `members` are those that the configuration names. Where
/// this router has another number there than the one under which it runs, or none, it is not for the links.
///
/// # Errors
/// Why it is not.
pub(super) fn directory(
    fleet: &Fleet,
    members: &[Member],
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
pub(crate) fn read(fleet: &Fleet, members: &[Member]) -> Result<Directory, String> {
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
    for (site, router) in unnumbered(fleet, members) {
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
        if let Some((number, name)) = router {
            routers.push(Router { number: RouterNumber(number), name: name.as_str().into(), site });
        }
    }
    Directory::new(sites, routers).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::*;
    use crate::config::{MeshConfig, members};

    fn member(line: &str) -> Member {
        match line.split_once('/') {
            Some((site, router)) => (site.parse().unwrap(), Some(router.parse().unwrap())),
            None => (line.parse().unwrap(), None),
        }
    }

    fn enrolled(names: &[&str]) -> Catalog {
        let named: Vec<Member> = names.iter().map(|name| member(name)).collect();
        let mut catalog = Catalog::new();
        for op in enrolment(&catalog.clone(), &named, None) {
            make(&mut catalog, op);
        }
        assert!(enrolment(&catalog, &named, None).is_empty(), "once");
        catalog
    }

    fn make(catalog: &mut Catalog, op: Op) {
        let record = catalog.draft(op, "test", 0).unwrap();
        catalog.apply(&record).unwrap();
    }

    fn added(line: &str) -> Op {
        match member(line) {
            (site, Some(name)) => Op::RouterAdded { site, name },
            (name, None) => Op::SiteAdded { name, region: UNSET.parse().unwrap(), cloud: UNSET.parse().unwrap() },
        }
    }

    fn removed(line: &str) -> Op {
        match member(line) {
            (site, Some(name)) => Op::RouterRemoved { site, name },
            (name, None) => Op::SiteRemoved { name },
        }
    }

    /// Whether the members that are listed for `catalog` give everybody there the same numbers.
    fn check_listed(catalog: &Catalog) {
        let listed = listed(catalog.fleet());
        let config = MeshConfig { members: listed.clone(), ..MeshConfig::default() };
        let (named, fleet) = (members(&config).unwrap(), catalog.fleet());
        for router in fleet.routers() {
            let number = named.by_name(router.site.as_str(), router.name.as_str()).unwrap();
            let site = named.router(number).unwrap().site;
            let wanted = (router.number, fleet.site(&router.site).unwrap().number);
            assert_eq!((number.0, u16::from(site)), wanted, "{listed:?}");
        }
        // And whoever has them in its configuration changes nothing by that.
        let named: Vec<_> = listed.iter().map(|line| member(line)).collect();
        assert!(enrolment(catalog, &named, None).is_empty(), "{listed:?}");
        assert_eq!(read(fleet, &named), read(fleet, &[]), "{listed:?}");
    }

    #[test]
    fn a_site_that_was_added_by_mistake_keeps_nobody_out() {
        let mut catalog = enrolled(&["a/r1", "b/r1"]);
        for op in [added("typo"), removed("typo"), added("c"), added("c/r1")] {
            make(&mut catalog, op);
        }
        assert_eq!(listed(catalog.fleet()), ["a/r1", "b/r1", "removed-2", "c/r1"]);
        check_listed(&catalog);
        // Its own name is free for it, at another place.
        for op in [removed("c/r1"), removed("c"), added("c"), added("c/r1")] {
            make(&mut catalog, op);
        }
        let wanted = ["a/r1", "b/r1", "a/removed-3", "removed-2", "removed-3", "c/r1"];
        assert_eq!(listed(catalog.fleet()), wanted);
        check_listed(&catalog);
    }

    #[test]
    fn members_are_listed_for_whatever_was_added_and_removed() {
        for seed in 0..300_u64 {
            let mut chance = seed;
            let mut draw = |below: usize| {
                chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                usize::try_from(chance >> 33).unwrap() % below
            };
            let mut catalog = Catalog::new();
            for _ in 0..draw(24) {
                let site = ["a", "b", "c", "removed-1"][draw(4)];
                let line = match draw(2) {
                    0 => site.to_owned(),
                    _ => format!("{site}/{}", ["r1", "removed-2"][draw(2)]),
                };
                let op = if draw(3) == 0 { removed(&line) } else { added(&line) };
                // What cannot be at this moment is left out.
                if let Ok(record) = catalog.draft(op, "test", 0) {
                    let _ = catalog.apply(&record);
                }
                check_listed(&catalog);
            }
        }
    }

    #[test]
    fn a_site_by_itself_begins_with_a_mesh() {
        let names = ["a/r1", "b", "c/r1"];
        let catalog = enrolled(&names);
        let config = MeshConfig { members: names.map(str::to_owned).to_vec(), ..MeshConfig::default() };
        let named = names.map(member);
        assert_eq!(read(catalog.fleet(), &named).unwrap(), members(&config).unwrap());
        assert_eq!(read(Catalog::new().fleet(), &named).unwrap(), members(&config).unwrap());
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
        let named = names.map(member);
        let mut catalog = Catalog::new();
        for op in enrolment(&Catalog::new(), &named, None) {
            assert_eq!(read(catalog.fleet(), &named).unwrap(), whole);
            let record = catalog.draft(op, "test", 0).unwrap();
            catalog.apply(&record).unwrap();
        }
        // Who was removed stays removed.
        let (site, name) = named[1].clone();
        let record = catalog.draft(Op::RouterRemoved { site, name: name.unwrap() }, "test", 0).unwrap();
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
