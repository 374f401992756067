#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use proptest::prelude::*;
use std::collections::BTreeSet;

use crate::catalog::Catalog;
use crate::limits::{ROUTERS_MAX, SITES_EVER_MAX};
use crate::op::Op;
use crate::testing::{Story, add_router, add_site};

fn remove_site(name: &str) -> Op {
    Op::SiteRemoved { name: name.parse().unwrap() }
}

fn remove_router(site: &str, name: &str) -> Op {
    Op::RouterRemoved { site: site.parse().unwrap(), name: name.parse().unwrap() }
}

#[test]
fn numbers_are_counted_by_the_log_and_never_come_back() {
    let mut story = Story::default();
    for op in [add_site("eu1"), add_site("us1"), add_router("us1", "a"), add_router("eu1", "a"), add_router("eu1", "b")]
    {
        story.add(op);
    }
    story.add(remove_router("us1", "a"));
    story.add(remove_site("us1"));
    story.add(add_site("us1"));
    story.add(add_router("us1", "a"));

    let fleet = story.catalog.fleet();
    let sites: Vec<_> = fleet.sites().map(|site| (site.name.as_str(), site.number)).collect();
    assert_eq!(sites, [("eu1", 0), ("us1", 2)]);
    let routers: Vec<_> = fleet.routers().map(|r| (r.site.as_str(), r.name.as_str(), r.number)).collect();
    assert_eq!(routers, [("eu1", "a", 2), ("eu1", "b", 3), ("us1", "a", 4)]);
    assert_eq!(fleet.site_numbered(2).unwrap().name.as_str(), "us1");
    assert_eq!((fleet.site_numbered(1), fleet.router_numbered(1)), (None, None));
    let router = fleet.router(&"eu1".parse().unwrap(), &"b".parse().unwrap()).unwrap();
    assert_eq!(fleet.router_numbered(3), Some(router));
    assert_eq!(fleet.routers_of(&"eu1".parse().unwrap()).count(), 2);
    assert_eq!(Catalog::from_records(&story.log).unwrap(), story.catalog, "whoever reads the log counts the same");
}

#[test]
fn a_site_that_is_moved_keeps_its_number_and_its_routers() {
    let moved = |name: &str| Op::SiteMoved {
        name: name.parse().unwrap(),
        region: "us-east".parse().unwrap(),
        cloud: "aws".parse().unwrap(),
    };
    let mut story = Story::default();
    assert_eq!(story.refusal(moved("eu1")).code(), "not-found");
    for op in [add_site("eu1"), add_site("us1"), add_router("us1", "a"), moved("us1")] {
        story.add(op);
    }
    let fleet = story.catalog.fleet();
    let site = fleet.site(&"us1".parse().unwrap()).unwrap();
    assert_eq!((site.number, site.region.as_str(), site.cloud.as_str()), (1, "us-east", "aws"));
    assert_eq!((fleet.routers().count(), fleet.sites_ever()), (1, 2));
    assert_eq!(fleet.site(&"eu1".parse().unwrap()).unwrap().region.as_str(), "eu-west");
    assert_eq!(Catalog::from_records(&story.log).unwrap(), story.catalog);
}

#[test]
fn what_does_not_fit_is_refused() {
    let mut story = Story::default();
    assert_eq!(story.refusal(add_router("eu1", "a")).code(), "not-found");
    assert_eq!(story.refusal(remove_site("eu1")).code(), "not-found");
    story.add(add_site("eu1"));
    assert_eq!(story.refusal(add_site("eu1")).code(), "conflict");
    story.add(add_router("eu1", "a"));
    assert_eq!(story.refusal(add_router("eu1", "a")).code(), "conflict");
    assert_eq!(story.refusal(remove_router("eu1", "b")).code(), "not-found");
    let inhabited = story.refusal(remove_site("eu1"));
    assert!(inhabited.code() == "conflict" && inhabited.to_string().contains("such as a"), "{inhabited}");
}

#[test]
fn sites_and_routers_are_bounded() {
    let mut story = Story::default();
    for n in 0..SITES_EVER_MAX {
        story.add(add_site(&format!("s{n}")));
    }
    assert_eq!(
        story.catalog.fleet().sites().map(|site| site.number).max(),
        Some(1_023),
        "a bit of a set of sites each"
    );
    story.add(remove_site("s7"));
    assert_eq!(story.refusal(add_site("s7")).code(), "catalog-full", "the number of a removed site stays taken");
    for n in 0..ROUTERS_MAX {
        story.add(add_router("s1", &format!("r{n}")));
    }
    assert_eq!(story.refusal(add_router("s1", "one-more")).code(), "catalog-full");
    story.add(remove_router("s1", "r3"));
    story.add(add_router("s1", "one-more"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn no_number_is_ever_given_twice(choices in prop::collection::vec((0u8..4, 0u8..3, 0u8..3), 1..100)) {
        let mut story = Story::default();
        let mut given: BTreeSet<(bool, u32)> = BTreeSet::new();
        for (kind, site, router) in choices {
            let (site, router) = (format!("s{site}"), format!("r{router}"));
            let op = match kind {
                0 => add_site(&site),
                1 => remove_site(&site),
                2 => add_router(&site, &router),
                _ => remove_router(&site, &router),
            };
            let Ok(rev) = story.try_add(op) else { continue };
            let fleet = story.catalog.fleet();
            let new_site = fleet.sites().find(|site| site.rev == rev).map(|site| (true, u32::from(site.number)));
            let new_router = fleet.routers().find(|router| router.rev == rev).map(|router| (false, router.number));
            for number in new_site.into_iter().chain(new_router) {
                prop_assert!(given.insert(number));
            }
            prop_assert!(fleet.routers().all(|router| fleet.site(&router.site).is_some()));
        }
        prop_assert_eq!(Catalog::from_records(&story.log).unwrap(), story.catalog);
    }
}
