//! From a seed to a mesh, what befalls it, and what is left of it.

use std::collections::BTreeSet;
use std::sync::Arc;

use myelin_mesh::control::GroupName;
use myelin_mesh::{Directory, Router, RouterNumber, Site, SiteNumber, SiteSet};

use crate::clock::Clock;
use crate::network::{IDLE_MS, Network, Path};
use crate::node::Wanted;
use crate::oracle;
use crate::world::{Happening, World};

/// Faults begin and end within this, in milliseconds; then everything that is to heal is healed.
const HEALED_MS: u64 = 22_000;
/// What is to stay cut or dead is so from here on at the latest.
const SETTLED_MS: u64 = 14_000;
/// After this, from the heal on, every router has everybody's interest.
const CONVERGED_MS: u64 = 5_000;

/// What the clock of a router shows at the beginning is below this.
const CLOCK_SHOWS_MS: u64 = 1 << 40;
/// Clocks are at most that much too fast or too slow, in parts of a million: ten times what a bad crystal is.
const DRIFT_PPM: i64 = 500;

/// A quarter of the meshes have sites that far apart: 64 of them use the numbers up to 945.
const SITES_STEP: usize = 15;

/// What a run was.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    pub routers: u64,
    pub control_messages: u64,
    pub control_bytes: u64,
    pub events: u64,
    pub deliveries: u64,
    pub group_deliveries: u64,
    pub forwarded: u64,
    pub sibling_copies: u64,
    pub retransmissions: u64,
    pub lost: u64,
    pub missed: u64,
    pub over_hops: u64,
    pub restricted: u64,
    pub snapshots: u64,
    pub crashes: u64,
    pub links_lost: u64,
    pub refused_identities: u64,
    pub refused_doubles: u64,
    pub jumps: u64,
    pub jumped_ms: u64,
}

impl Summary {
    pub fn add(&mut self, other: &Self) {
        self.routers += other.routers;
        self.control_messages += other.control_messages;
        self.control_bytes += other.control_bytes;
        self.events += other.events;
        self.deliveries += other.deliveries;
        self.group_deliveries += other.group_deliveries;
        self.forwarded += other.forwarded;
        self.sibling_copies += other.sibling_copies;
        self.retransmissions += other.retransmissions;
        self.lost += other.lost;
        self.missed += other.missed;
        self.over_hops += other.over_hops;
        self.restricted += other.restricted;
        self.snapshots += other.snapshots;
        self.crashes += other.crashes;
        self.links_lost += other.links_lost;
        self.refused_identities += other.refused_identities;
        self.refused_doubles += other.refused_doubles;
        self.jumps += other.jumps;
        self.jumped_ms += other.jumped_ms;
    }
}

/// Runs one seed.
pub fn run(seed: u64) -> Result<Summary, String> {
    let mut rng = fastrand::Rng::with_seed(seed ^ 0x6d65_7368);
    // The numbers of sites in a catalog in which many came and went: most are then above those of a small mesh.
    let step = if seed % 4 == 3 { SITES_STEP } else { 1 };
    let (directory, network) = topology(&mut rng, step);
    let mut world = World::new(seed, directory, network);
    let mut crashes = plan_lives(&mut world, &mut rng);
    plan_faults(&mut world, &mut rng);
    plan_use(&mut world, &mut rng);
    plan_clocks(&mut world, &mut fastrand::Rng::with_seed(seed ^ 0x0063_6c6f_636b));
    for second in 1..=HEALED_MS / 1_000 {
        world.run(second * 1_000);
        oracle::always(&world)?;
    }
    crashes += world.nodes.iter().filter(|node| node.mesh.is_none()).count() as u64;
    world.run(HEALED_MS + CONVERGED_MS);
    oracle::always(&world)?;
    oracle::converged(&world)?;
    let first = world.events.len();
    let sites = sites(&world);
    for node in 0..world.nodes.len() {
        for _ in 0..3 {
            let topic = topic(&mut rng);
            let allowed = rng.bool().then(|| sites_at_random(&mut rng, &sites, 0.7));
            let at = world.now + rng.u64(1..500);
            world.at(at, Happening::Publish { node, topic, allowed });
        }
    }
    world.run(world.now + 4_000);
    oracle::always(&world)?;
    oracle::delivered(&world, first)?;
    Ok(summary(&world, crashes))
}

fn summary(world: &World, crashes: u64) -> Summary {
    let counters = &world.counters;
    let sum = |count: &dyn Fn(&crate::world::Published) -> u64| world.events.iter().map(count).sum();
    let meshes = world.nodes.iter().filter_map(|node| node.mesh.as_ref());
    Summary {
        routers: world.nodes.len() as u64,
        control_messages: counters.control_messages,
        control_bytes: counters.control_bytes,
        events: world.events.len() as u64,
        deliveries: sum(&|event| event.plain.values().map(|count| u64::from(*count)).sum()),
        group_deliveries: sum(&|event| event.groups.values().map(|count| u64::from(*count)).sum()),
        forwarded: counters.batches,
        sibling_copies: counters.sibling_copies,
        retransmissions: counters.retransmissions,
        lost: counters.lost,
        missed: counters.missed,
        over_hops: sum(&|event| u64::from(!event.over_hops.is_empty())),
        restricted: sum(&|event| u64::from(event.allowed.is_some())),
        snapshots: meshes.map(|mesh| mesh.stats().snapshots_given).sum(),
        crashes,
        links_lost: counters.links_lost,
        refused_identities: counters.refused_identities,
        refused_doubles: counters.refused_doubles,
        jumps: counters.jumps,
        jumped_ms: counters.jumped_ms,
    }
}

/// `sites` sites, of which every next one has a number higher by `step`, and the routers at each.
pub fn directory((sites, step): (usize, usize), routers: &[usize]) -> Directory {
    let number = |site: usize| SiteNumber::new(u16::try_from(site * step).unwrap()).unwrap();
    let site = |site: usize| Site {
        number: number(site),
        name: format!("site-{site}").into(),
        region: Arc::default(),
        cloud: Arc::default(),
    };
    let routers = routers.iter().zip(1u32..).map(|(site, router)| Router {
        number: RouterNumber(router * 3),
        name: format!("r{router}").into(),
        site: number(*site),
    });
    Directory::new((0..sites).map(site), routers).unwrap()
}

fn topology(rng: &mut fastrand::Rng, step: usize) -> (Directory, Network) {
    let count = match rng.u32(0..100) {
        0..75 => rng.usize(3..=9),
        75..98 => rng.usize(9..=16),
        _ => rng.usize(24..=64),
    };
    let sites = rng.usize((count / 2).max(2)..=count);
    // Every site has a router; the rest is anywhere.
    let sites_of: Vec<usize> = (0..count).map(|node| if node < sites { node } else { rng.usize(0..sites) }).collect();
    let mut pairs = BTreeSet::new();
    let mut pair = |a: usize, b: usize| {
        if a != b {
            pairs.insert((a.min(b), a.max(b)));
        }
    };
    match if count > 20 { 0 } else { rng.u32(0..4) } {
        0 => (0..count).for_each(|a| (0..a).for_each(|b| pair(a, b))),
        1 if count <= 10 => (0..count).for_each(|a| pair(a, (a + 1) % count)),
        2 => (1..count).for_each(|a| pair(0, a)),
        _ => {
            for a in 1..count {
                pair(a, rng.usize(0..a));
                pair(a, rng.usize(0..count));
                pair(a, rng.usize(0..count));
            }
        }
    }
    for a in 0..count {
        (0..a).filter(|b| sites_of[a] == sites_of[*b]).for_each(|b| pair(a, b));
    }
    let mut network = Network::default();
    // Some meshes have good lines; the others lose up to 30 % on each of theirs.
    let loss_max = if rng.u32(0..100) < 40 { 0 } else { rng.u64(1..=30) };
    for (a, b) in pairs {
        let near = sites_of[a] == sites_of[b];
        let delay_ms = if near { rng.u64(0..3) } else { rng.u64(5..150) };
        let jitter_ms = if near { 1 } else { rng.u64(0..20) };
        let loss_percent = if near { 0 } else { rng.u64(0..=loss_max) };
        network.paths.push(Path { loss_percent, ..Path::new([a, b], delay_ms, jitter_ms) });
    }
    (directory((sites, step), &sites_of), network)
}

fn is_within_site(world: &World, path: usize) -> bool {
    let [a, b] = world.network.paths[path].ends;
    world.nodes[a].site == world.nodes[b].site
}

/// Starts, crashes and restarts. A few stay dead.
fn plan_lives(world: &mut World, rng: &mut fastrand::Rng) -> u64 {
    let mut crashes = 0;
    for node in 0..world.nodes.len() {
        world.at(rng.u64(0..1_000), Happening::Start { node });
        if rng.u32(0..100) < 15 {
            let at = rng.u64(2_000..SETTLED_MS - 3_000);
            world.at(at, Happening::Crash { node });
            if rng.u32(0..100) < 80 {
                crashes += 1;
                world.at(at + rng.u64(10..3_000), Happening::Start { node });
            }
        }
    }
    crashes
}

fn plan_faults(world: &mut World, rng: &mut fastrand::Rng) {
    let count = world.network.paths.len();
    for _ in 0..rng.usize(0..10) {
        let (path, at) = (rng.usize(0..count), rng.u64(1_000..HEALED_MS - 2_000));
        let until = (at + rng.u64(100..9_000)).min(HEALED_MS);
        match rng.u32(0..4) {
            0 => {
                world.at(at, Happening::Cut { path, ends: [true, true] });
                world.at(until, Happening::Heal { path });
            }
            1 => {
                let first = rng.bool();
                world.at(at, Happening::Cut { path, ends: [first, !first] });
                world.at(until, Happening::Heal { path });
            }
            2 => {
                world.at(at, Happening::Clog { path, by_ms: rng.u64(200..2_000) });
                world.at(until, Happening::Clog { path, by_ms: 0 });
            }
            _ => {
                let side: Vec<bool> = world.nodes.iter().map(|_| rng.bool()).collect();
                for path in 0..count {
                    let [a, b] = world.network.paths[path].ends;
                    if side[a] != side[b] {
                        world.at(at, Happening::Cut { path, ends: [true, true] });
                        world.at(until, Happening::Heal { path });
                    }
                }
            }
        }
    }
    let keep_cut = if rng.u32(0..100) < 30 { rng.u32(5..40) } else { 0 };
    for path in 0..count {
        let stays = rng.u32(0..100) < keep_cut && !is_within_site(world, path);
        world.at(HEALED_MS, Happening::Clog { path, by_ms: 0 });
        if stays {
            // And again after whatever heals it until then; the last cut is long enough before the check.
            world.at(SETTLED_MS, Happening::Cut { path, ends: [true, true] });
            world.at(HEALED_MS, Happening::Cut { path, ends: [true, true] });
        } else {
            world.at(HEALED_MS, Happening::Heal { path });
        }
    }
}

/// Clocks show anything, drift, and jump now and then; long before and shortly before all is to be well again.
fn plan_clocks(world: &mut World, rng: &mut fastrand::Rng) {
    for node in &mut world.nodes {
        node.clock = Clock::drifting(rng.u64(0..CLOCK_SHOWS_MS), rng.i64(-DRIFT_PPM..=DRIFT_PPM));
    }
    let most = world.nodes.len().min(8);
    for _ in 0..rng.usize(0..=most) {
        let (node, links_end) = (rng.usize(0..world.nodes.len()), rng.bool());
        // A suspended machine is away for seconds up to a minute; a paused one for less.
        let by_ms = if links_end || rng.bool() { rng.u64(IDLE_MS..60_000) } else { rng.u64(10..IDLE_MS) };
        // The other end of a link that ended without a word needs as long as for a cut to give it up.
        let last = if links_end { HEALED_MS - IDLE_MS } else { HEALED_MS };
        world.at(rng.u64(1_000..last), Happening::Jump { node, by_ms, links_end });
    }
}

fn plan_use(world: &mut World, rng: &mut fastrand::Rng) {
    let sites = sites(world);
    for node in 0..world.nodes.len() {
        for _ in 0..rng.usize(0..12) {
            world.at(rng.u64(1_000..HEALED_MS - 200), Happening::Subscribe { node, wanted: wanted(rng) });
        }
        for _ in 0..rng.usize(0..6) {
            let at = rng.usize(0..64);
            world.at(rng.u64(1_000..HEALED_MS - 200), Happening::Unsubscribe { node, at });
        }
        for _ in 0..rng.usize(0..15) {
            let (topic, at) = (topic(rng), rng.u64(1_000..HEALED_MS));
            let allowed = (rng.u32(0..100) < 20).then(|| sites_at_random(rng, &sites, 0.7));
            world.at(at, Happening::Publish { node, topic, allowed });
        }
    }
}

fn sites(world: &World) -> Vec<SiteNumber> {
    world.directory.sites().map(|site| site.number).collect()
}

fn sites_at_random(rng: &mut fastrand::Rng, sites: &[SiteNumber], share: f64) -> SiteSet {
    sites.iter().filter(|_| rng.f64() < share).copied().collect()
}

fn topic(rng: &mut fastrand::Rng) -> String {
    let levels: Vec<&str> = (0..rng.usize(1..4)).map(|_| *rng.choice(&["a", "b", "c"]).unwrap()).collect();
    levels.join("/")
}

fn wanted(rng: &mut fastrand::Rng) -> Wanted {
    let mut levels: Vec<&str> = (0..rng.usize(1..4)).map(|_| *rng.choice(&["a", "b", "c", "*"]).unwrap()).collect();
    if rng.u32(0..4) == 0 {
        levels.push("**");
    }
    let group = (rng.u32(0..5) == 0).then(|| GroupName::new(rng.choice(&["g", "h"]).unwrap()).unwrap());
    (levels.join("/").parse().unwrap(), group)
}
