//! A mesh of many places, each linked with a few others: how long it takes to agree after what happens to large meshes,
//! and what that costs. The figures of a thousand are in docs/SCALE.md:
//!
//! `cargo test -p myelin-mesh --test simulation scale_thousand -- --ignored --nocapture`

use std::collections::BTreeSet;
use std::time::Instant;

use myelin_mesh::InterestMatch;
use stats_alloc::Region;

use crate::chaos::directory;
use crate::network::{Network, Path};
use crate::oracle;
use crate::scale::ALLOCATOR;
use crate::world::{Happening, World};

/// Links of a place to others: a ring keeps them connected, the rest are chords, half of them begun by each end. A
/// thousand are then five or six hops apart at most, of the eight that an event may take.
const CHORDS: usize = 3;
/// No such mesh needs longer, in simulated milliseconds: a silent link is given up after four seconds, a question is
/// asked again every second.
const AGREED_MS_MAX: u64 = 30_000;
/// A place that falls silent is routed around, and one that is back is agreed upon, within this, in simulated milliseconds.
const REPAIRED_MS_MAX: u64 = 5_000;
/// How often it is looked at, in simulated milliseconds.
const LOOK_MS: u64 = 250;
/// How long it is quiet, in simulated milliseconds: one refresh of everybody's link state.
const QUIET_MS: u64 = 30_000;

/// What all want in the end.
const EVERYWHERE: &str = "everywhere";

/// Patterns that each place wants in the runs for figures.
const PATTERNS: usize = 20;

/// How large it is.
#[derive(Clone, Copy)]
pub struct Size {
    /// Places that are far from each other, each a site.
    places: usize,
    /// Routers of a place, all linked with each other.
    each: usize,
    /// Patterns that each place wants.
    patterns: usize,
}

struct Places {
    world: World,
    size: Size,
    rng: fastrand::Rng,
}

impl Places {
    /// All start at once; each place is a site.
    fn start(size: Size) -> Self {
        let Size { places, each, .. } = size;
        let sites_of: Vec<usize> = (0..places * each).map(|node| node % places).collect();
        let (mut network, mut rng) = (Network::default(), fastrand::Rng::with_seed(1));
        let mut linked = BTreeSet::new();
        let mut link = |a: usize, b: usize, delay_ms: u64| {
            if linked.insert((a.min(b), a.max(b))) {
                network.paths.push(Path::new([a, b], delay_ms, 2));
            }
        };
        for place in 0..places {
            for router in 0..each {
                (0..router).for_each(|other| link(place + places * router, place + places * other, 1));
            }
            let others = std::iter::once((place + 1) % places).chain((0..CHORDS).map(|_| rng.usize(0..places)));
            for other in others.filter(|other| *other != place).collect::<Vec<_>>() {
                let (from, to) = (rng.usize(0..each), rng.usize(0..each));
                link(place + places * from, other + places * to, rng.u64(5..100));
            }
        }
        let mut made = Self { world: World::new(1, directory((places, 1), &sites_of), network), size, rng };
        (0..places * each).for_each(|node| made.start_router(node, 0));
        made
    }

    /// A router starts in so many milliseconds, and its subscribers come back.
    fn start_router(&mut self, node: usize, in_ms: u64) {
        let Size { places, each, patterns } = self.size;
        let at = self.world.now + in_ms;
        self.world.at(at, Happening::Start { node });
        for pattern in (0..patterns).filter(|pattern| pattern % each == node / places) {
            let wanted = (wanted(node % places, pattern).parse().unwrap(), None);
            self.world.at(at + 1, Happening::Subscribe { node, wanted });
        }
    }

    /// Runs until all but the routers `apart` reach each other, know each other's interest to the last hash, and reach
    /// none of those; that takes less than `within_ms`.
    fn agree(&mut self, apart: &[usize], within_ms: u64) -> Spent {
        let (begin, before) = (self.world.now, self.world.counters.clone());
        loop {
            self.world.run(self.world.now + LOOK_MS);
            assert!(self.world.faults.is_empty(), "{:?}", self.world.faults);
            let not = match self.has_routes(apart) {
                Ok(()) => oracle::converged(&self.world),
                not => not,
            };
            let Err(not) = not else { break };
            assert!(self.world.now - begin < within_ms, "not agreed: {not}");
        }
        let routers = self.world.nodes.len() as u64;
        Spent {
            took_ms: self.world.now - begin,
            messages: (self.world.counters.control_messages - before.control_messages) / routers,
            bytes: (self.world.counters.control_bytes - before.control_bytes) / routers,
        }
    }

    fn has_routes(&self, apart: &[usize]) -> Result<(), String> {
        for (at, node) in self.world.nodes.iter().enumerate() {
            let mesh = node.mesh.as_ref().ok_or_else(|| format!("router {at} is not up"))?;
            let routes = mesh.routes();
            let here = apart.contains(&at);
            let wrong =
                |other: usize| routes.reaches(self.world.nodes[other].router) != (here == apart.contains(&other));
            if let Some(other) = (0..self.world.nodes.len()).find(|other| wrong(*other)) {
                return Err(format!("router {at} is wrong about whether a way leads to router {other}"));
            }
        }
        Ok(())
    }

    /// Every router has every pattern, and finds the owner's site for a topic of each of some places.
    fn knows_all(&mut self) {
        let Size { places, each, patterns } = self.size;
        let mut matched = InterestMatch::default();
        for (at, node) in self.world.nodes.iter().enumerate() {
            let mesh = node.mesh.as_ref().unwrap();
            let own = (0..patterns).filter(|pattern| pattern % each == at / places).count();
            let sizes = mesh.sizes();
            let known = (sizes.own_entries, sizes.interest_entries, sizes.behind, sizes.routers);
            assert_eq!(known, (own, places * patterns - own, 0, places * each - 1), "router {at}");
            for _ in 0..16 {
                let (place, pattern) = (self.rng.usize(0..places), self.rng.usize(0..patterns));
                let site = self.world.nodes[place].site;
                mesh.interest().matches(&wanted(place, pattern).replace("**", "x"), &mut matched);
                let elsewhere = matched.sites.contains(site) || site == node.site && !matched.siblings.is_empty();
                assert!(elsewhere || place == at % places, "router {at} on pattern {pattern} of place {place}");
            }
        }
    }

    /// Events from anywhere, for one place each or for all, come to exactly those who want them, those aside that are too
    /// many hops away; says how many.
    fn events(&mut self, count: usize, for_all: bool) -> usize {
        let first = self.world.events.len();
        for _ in 0..count {
            let (place, pattern) = (self.rng.usize(0..self.size.places), self.rng.usize(0..self.size.patterns));
            let (topic, node) = (wanted(place, pattern).replace("**", "x"), self.rng.usize(0..self.world.nodes.len()));
            let topic = if for_all { EVERYWHERE.to_owned() } else { topic };
            self.world.at(self.world.now + 1, Happening::Publish { node, topic, allowed: None });
        }
        self.world.run(self.world.now + 4_000);
        oracle::delivered(&self.world, first).unwrap();
        self.world.events[first..].iter().filter(|event| !event.over_hops.is_empty()).count()
    }

    /// Every router gets a subscriber to the same pattern.
    fn all_want(&mut self) {
        let at = self.world.now;
        for node in 0..self.world.nodes.len() {
            self.world.at(at, Happening::Subscribe { node, wanted: (EVERYWHERE.parse().unwrap(), None) });
        }
    }

    fn paths_of(&self, node: usize) -> Vec<usize> {
        let paths = self.world.network.paths.iter().enumerate();
        paths.filter(|(_, path)| path.end_of(node).is_some()).map(|(at, _)| at).collect()
    }

    /// What all that one router knows of the mesh takes, in bytes.
    fn held(mut self) -> usize {
        let region = Region::new(ALLOCATOR);
        self.world.nodes[0].mesh = None;
        let freed = region.change();
        freed.bytes_deallocated.saturating_sub(freed.bytes_allocated)
    }
}

/// What a router did on average until all agreed.
struct Spent {
    took_ms: u64,
    messages: u64,
    bytes: u64,
}

fn wanted(place: usize, pattern: usize) -> String {
    format!("place{place}/device/{pattern}/**")
}

fn report(step: &str, spent: &Spent, started: Instant) {
    let Spent { took_ms, messages, bytes } = spent;
    let (kilobytes, seconds) = (bytes / 1_000, started.elapsed().as_secs());
    println!("| {step} | {took_ms} ms | {messages} | {kilobytes} KB | (after {seconds} s)");
}

/// A start of all, one place that is cut off and comes back, one place in a hundred that starts anew.
pub fn run(size: Size) {
    let started = Instant::now();
    let mut mesh = Places::start(size);
    let (routers, links) = (mesh.world.nodes.len(), mesh.world.network.paths.len());
    println!("{} places, {routers} routers, {links} links, {} patterns each", size.places, size.patterns);
    println!("| | until all agree | messages that a router sends | bytes |");
    report("all start", &mesh.agree(&[], AGREED_MS_MAX), started);
    mesh.knows_all();

    let apart: Vec<usize> = (0..size.each).map(|router| size.places * router).collect();
    let within = |path: &Path| path.ends.iter().all(|end| end % size.places == 0);
    let cut: Vec<usize> = apart.iter().flat_map(|node| mesh.paths_of(*node)).collect();
    let cut: Vec<usize> = cut.into_iter().filter(|path| !within(&mesh.world.network.paths[*path])).collect();
    let now = mesh.world.now;
    cut.iter().for_each(|path| mesh.world.at(now, Happening::Cut { path: *path, ends: [true, true] }));
    report("a place is cut off", &mesh.agree(&apart, REPAIRED_MS_MAX), started);
    let now = mesh.world.now;
    cut.iter().for_each(|path| mesh.world.at(now, Happening::Heal { path: *path }));
    report("it comes back", &mesh.agree(&[], REPAIRED_MS_MAX), started);
    mesh.knows_all();

    let count = (size.places / 100).max(1);
    let places: Vec<usize> = (0..count).map(|n| 1 + n * (size.places - 1) / count).collect();
    let now = mesh.world.now;
    for node in places.iter().flat_map(|place| (0..size.each).map(move |router| place + size.places * router)) {
        mesh.world.at(now, Happening::Crash { node });
        mesh.start_router(node, 2_000);
    }
    mesh.world.run(now + 2_000);
    report(&format!("{count} start anew, after 2 s away"), &mesh.agree(&[], AGREED_MS_MAX), started);
    mesh.knows_all();

    let before = mesh.world.counters.control_bytes;
    mesh.world.run(mesh.world.now + QUIET_MS);
    let quiet = (mesh.world.counters.control_bytes - before) / routers as u64 / (QUIET_MS / 1_000);
    let before = mesh.world.counters.batches;
    println!("500 events for one place came there and to no other; {} were too far away", mesh.events(500, false));
    mesh.all_want();
    report("all want one more", &mesh.agree(&[], AGREED_MS_MAX), started);
    let few = (size.places / 100).max(1);
    println!("{few} events for all came everywhere; {} were too far away", mesh.events(few, true));
    let most_hops = mesh.world.counters.most_hops;
    println!("these took {} batches, over {most_hops} links at most", mesh.world.counters.batches - before);
    let computed: u64 = mesh.world.nodes.iter().map(|node| node.mesh.as_ref().unwrap().stats().routes_computed).sum();
    println!("routes computed by a router: {}", computed / routers as u64);
    println!("a quiet router sends {quiet} B/s; it keeps {} KB", mesh.held() / 1_000);
}

#[test]
fn places_with_few_links_agree_after_a_cut_and_new_starts() {
    run(Size { places: 40, each: 1, patterns: 6 });
    run(Size { places: 12, each: 3, patterns: 6 });
}

#[test]
#[ignore = "minutes; prints figures"]
fn scale_places() {
    for places in [64, 128, 256] {
        run(Size { places, each: 1, patterns: PATTERNS });
    }
}

#[test]
#[ignore = "13 minutes and 5 GB of memory; prints figures"]
fn scale_thousand() {
    run(Size { places: 1_000, each: 1, patterns: PATTERNS });
}
