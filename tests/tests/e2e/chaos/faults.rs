//! What breaks while events flow: links and routers, and what is left of it once they are whole again.

use super::{Ears, Mouth};
use anyhow::{Result, ensure};
use myelin_tests::relay::Path;
use myelin_tests::sites::{Sites, shapes};
use std::time::Duration;

const SITES: usize = 5;
/// Sites that publish. What they publish passes sites 1 and 3 on its way to the ears.
const MOUTHS: [usize; 2] = [0, 4];
const INTERVAL: Duration = Duration::from_millis(25);
/// More than a test publishes.
const MANY: u64 = 1_000_000;
/// What may still be lost after everybody knows everything again: the routes follow within this time.
const ROUTES: Duration = Duration::from_secs(2);
/// How long a fault lasts that nothing goes around: longer than a silent link is believed to be alive.
const LASTS: Duration = Duration::from_secs(6);

#[derive(Clone, Copy, Debug)]
enum Fault {
    /// A link is cut, both ways.
    Cut((usize, usize)),
    /// A link is cut from the one that dials to the other.
    CutOneWay((usize, usize)),
    /// A link goes and comes, once a second.
    Flap((usize, usize)),
    /// A router is killed and started again.
    Kill(usize),
    /// A router stands still for ten seconds.
    Freeze(usize),
}

impl Fault {
    async fn begin(self, sites: &mut Sites) -> Result<()> {
        match self {
            Self::Cut(link) => sites.link(link).cut(),
            Self::CutOneWay(link) => sites.link(link).change_there(|path| path.is_cut = true),
            Self::Flap(link) => {
                for _ in 0..6 {
                    sites.link(link).cut();
                    tokio::time::sleep(Duration::from_millis(500)).await;
                    sites.link(link).heal();
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
            }
            Self::Kill(site) => drop(sites.routers[site].kill()?),
            Self::Freeze(site) => sites.routers[site].freeze()?,
        }
        Ok(())
    }

    async fn end(self, sites: &mut Sites) -> Result<()> {
        match self {
            Self::Cut(link) | Self::CutOneWay(link) => sites.link(link).heal(),
            Self::Flap(_) => {}
            Self::Kill(site) => sites.routers[site].restart()?,
            Self::Freeze(site) => {
                tokio::time::sleep(Duration::from_secs(10)).await;
                sites.routers[site].thaw()?;
            }
        }
        Ok(())
    }
}

/// Publishes at two sites and subscribes at `ears` while `fault` lasts. With a `detour` the ears must hear of what is
/// published meanwhile; after it they must hear of everything; and never of anything twice.
async fn survives(links: Vec<(usize, usize)>, ears: &[usize], fault: Fault, detour: bool, seed: u64) -> Result<()> {
    println!("{fault:?}, seed {seed}");
    let path = Path::wide_area(Duration::from_millis(80), 20);
    let mut sites = Sites::start(SITES, &links, seed, |_| path).await?;
    let wanted: Vec<(usize, usize)> =
        (0..SITES).map(|site| (site, ears.iter().filter(|ears| **ears != site).count())).collect();
    let mut open = Vec::new();
    for site in ears {
        open.push(Ears::open(&sites, *site).await?);
    }
    let ears = open;
    sites.agree(&wanted).await?;
    let mut mouths = Vec::new();
    for site in MOUTHS {
        mouths.push(Mouth::open(&sites, site, INTERVAL, MANY).await?);
    }
    for (ears, mouth) in ears.iter().flat_map(|ears| mouths.iter().map(move |mouth| (ears, mouth))) {
        ears.hears_later_than(mouth.site, 20).await?;
    }

    let before: Vec<u64> = mouths.iter().map(Mouth::sent).collect();
    fault.begin(&mut sites).await?;
    for (mouth, before) in mouths.iter().zip(&before).filter(|_| detour) {
        for ears in &ears {
            ears.hears_later_than(mouth.site, *before).await?;
        }
    }
    if !detour {
        tokio::time::sleep(LASTS).await;
    }
    fault.end(&mut sites).await?;

    // Everybody knows everything again, by all links, and from there on nothing is lost.
    sites.agree(&wanted).await?;
    tokio::time::sleep(ROUTES).await;
    let whole: Vec<u64> = mouths.iter().map(Mouth::sent).collect();
    tokio::time::sleep(ROUTES).await;
    for (mouth, whole) in mouths.into_iter().zip(whole) {
        let site = mouth.site;
        let sent = mouth.close(true).await?;
        for ears in &ears {
            ears.hears(site, whole, sent).await?;
            ears.heard_none_twice(site)?;
            println!("site {} heard {} of {sent} events of site {site}", ears.site, ears.heard(site).len());
        }
    }
    let ledger = sites.settle().await?;
    let (forwarded, received, lost) = (ledger["forwarded"], ledger["received"], ledger["lost"]);
    println!("forwarded {forwarded}, received {received}, lost {lost}, delivered {}", ledger["delivered"]);
    // The ledger of a router that was killed is gone with it.
    if !matches!(fault, Fault::Kill(_)) {
        // Where a site with ears also hands on, it counts what it received twice.
        let twice = if ears.len() > 1 { ledger["delivered"] } else { 0 };
        ensure!(forwarded <= received, "{forwarded} copies were acknowledged, {received} received");
        ensure!(received <= forwarded + lost + twice, "{received} received, {forwarded} forwarded, {lost} lost");
    }
    sites.end()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn traffic_goes_around_a_cut_link() -> Result<()> {
    survives(shapes::ring(SITES), &[2], Fault::Cut((1, 2)), true, 21).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn traffic_goes_around_a_link_that_is_cut_one_way() -> Result<()> {
    survives(shapes::ring(SITES), &[2], Fault::CutOneWay((1, 2)), true, 22).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_that_flaps_doubles_nothing() -> Result<()> {
    survives(shapes::mesh(SITES), &[2, 3], Fault::Flap((0, 2)), true, 23).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn traffic_goes_around_a_router_that_is_killed_and_it_comes_back() -> Result<()> {
    survives(shapes::ring(SITES), &[2], Fault::Kill(1), true, 24).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn traffic_goes_around_a_router_that_stands_still_and_it_comes_back() -> Result<()> {
    survives(shapes::ring(SITES), &[2], Fault::Freeze(1), true, 25).await
}

/// Every fault in one shape, with ears at two sites: one to three minutes. `detour` says whether a cut of `link` leaves
/// another way; what happens to router 1 leaves one where it is on nobody's.
async fn every_fault(links: Vec<(usize, usize)>, link: (usize, usize), detour: [bool; 2], seed: u64) -> Result<()> {
    let [around_link, around_router] = detour;
    survives(links.clone(), &[2, 3], Fault::Cut(link), around_link, seed).await?;
    survives(links.clone(), &[2, 3], Fault::CutOneWay(link), around_link, seed + 1).await?;
    survives(links.clone(), &[2, 3], Fault::Flap(link), true, seed + 2).await?;
    survives(links.clone(), &[2, 3], Fault::Kill(1), around_router, seed + 3).await?;
    survives(links, &[2, 3], Fault::Freeze(1), around_router, seed + 4).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: cargo test -p myelin-tests --test e2e every_fault -- --ignored --nocapture"]
async fn every_fault_in_a_line() -> Result<()> {
    every_fault(shapes::line(SITES), (1, 2), [false, false], 100).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: see every_fault_in_a_line"]
async fn every_fault_in_a_ring() -> Result<()> {
    every_fault(shapes::ring(SITES), (0, 1), [true, true], 110).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: see every_fault_in_a_line"]
async fn every_fault_in_a_star() -> Result<()> {
    every_fault(shapes::star(SITES), (0, 2), [false, true], 120).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: see every_fault_in_a_line"]
async fn every_fault_in_a_mesh() -> Result<()> {
    every_fault(shapes::mesh(SITES), (0, 2), [true, true], 130).await
}
