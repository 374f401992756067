//! How the cost of a mesh grows: figures for docs/SCALE.md, outside CI.
//!
//! `cargo test -p myelin-mesh --test simulation scale -- --ignored --nocapture`

use std::time::Instant;

use myelin_mesh::Mesh;
use myelin_mesh::limits::OWNER_EXPIRY_MS;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

use crate::chaos::directory;
use crate::network::{Network, Path};
use crate::oracle;
use crate::world::{Happening, World};

#[global_allocator]
pub static ALLOCATOR: &StatsAlloc<std::alloc::System> = &INSTRUMENTED_SYSTEM;

/// Patterns that each site wants.
const PATTERNS: usize = 500;
/// How long it is quiet, in simulated milliseconds.
const QUIET_MS: u64 = 60_000;
/// After this long, in simulated milliseconds, everybody has forgotten a router that is away, and its interest.
const FORGOTTEN_MS: u64 = OWNER_EXPIRY_MS + 10_000;
/// No mesh needs longer, in simulated milliseconds.
const CONVERGED_MS_MAX: u64 = 30_000;

/// A mesh from its start on, then quiet, then with one router that comes back to it.
struct Scale {
    world: World,
    sites: usize,
}

impl Scale {
    /// `sites` sites of `each` routers that all start at once; those of a site all have a link, and `degree` links for
    /// each router, or one to everybody, lead to other sites.
    fn start(sites: usize, each: usize, degree: Option<usize>) -> Self {
        let count = sites * each;
        let sites_of: Vec<usize> = (0..count).map(|node| node % sites).collect();
        let (mut network, mut rng) = (Network::default(), fastrand::Rng::with_seed(1));
        for a in 0..count {
            for b in 0..a {
                let near = sites_of[a] == sites_of[b];
                // A ring keeps it connected.
                let linked = near || a == b + 1 || degree.is_none_or(|degree| rng.usize(0..count) < degree);
                if linked {
                    let delay_ms = if near { 1 } else { rng.u64(10..150) };
                    network.paths.push(Path::new([a, b], delay_ms, 2));
                }
            }
        }
        let mut scale = Self { world: World::new(1, directory((sites, 1), &sites_of), network), sites };
        (0..count).for_each(|node| scale.start_router(node));
        scale
    }

    fn start_router(&mut self, node: usize) {
        let now = self.world.now;
        self.world.at(now, Happening::Start { node });
        let (site, each) = (node % self.sites, self.routers() / self.sites);
        for pattern in (0..PATTERNS).filter(|pattern| pattern % each == node / self.sites) {
            let wanted = (format!("site{site}/device/{pattern}/**").parse().unwrap(), None);
            self.world.at(now + 1, Happening::Subscribe { node, wanted });
        }
    }

    fn routers(&self) -> usize {
        self.world.nodes.len()
    }

    /// How long it takes from now until everybody knows everything, in simulated milliseconds.
    fn converge(&mut self) -> u64 {
        let (begin, others) = (self.world.now, self.routers() - 1);
        let knows_all = |mesh: &Mesh| mesh.sizes().routers == others;
        loop {
            self.world.run(self.world.now + 250);
            let complete = self.world.nodes.iter().all(|node| node.mesh.as_ref().is_some_and(knows_all));
            match oracle::converged(&self.world) {
                Ok(()) if complete => return self.world.now - begin,
                not => assert!(self.world.now - begin < CONVERGED_MS_MAX, "not converged: {not:?}"),
            }
        }
    }

    /// What every router sends in a quiet second, in bytes.
    fn quiet(&mut self) -> u64 {
        let before = self.world.counters.control_bytes;
        self.world.run(self.world.now + QUIET_MS);
        (self.world.counters.control_bytes - before) / self.routers() as u64 / (QUIET_MS / 1_000)
    }

    /// The last router is away until it is forgotten, and comes back: how long that takes, in simulated milliseconds, and
    /// what comes to it, in bytes.
    fn join(&mut self) -> (u64, u64) {
        let node = self.routers() - 1;
        self.world.at(self.world.now, Happening::Crash { node });
        self.world.run(self.world.now + FORGOTTEN_MS);
        self.world.nodes[node].came.clear();
        self.start_router(node);
        let took_ms = self.converge();
        let came = &self.world.nodes[node].came;
        println!("join: {came:?} (messages, bytes)");
        (took_ms, came.values().map(|(_, bytes)| bytes).sum())
    }

    /// What all that one router knows of the mesh takes, in bytes.
    fn held(mut self) -> usize {
        let region = Region::new(ALLOCATOR);
        self.world.nodes[0].mesh = None;
        let freed = region.change();
        freed.bytes_deallocated.saturating_sub(freed.bytes_allocated)
    }
}

fn measure(sites: usize, each: usize, degree: Option<usize>) {
    let started = Instant::now();
    let mut scale = Scale::start(sites, each, degree);
    let (routers, links) = (scale.routers(), scale.world.network.paths.len());
    let converged_ms = scale.converge();
    let joined = scale.world.counters.clone();
    let entries = scale.world.nodes[0].mesh.as_ref().unwrap().sizes().interest_entries;
    let quiet = scale.quiet();
    let (join_ms, join_bytes) = scale.join();
    println!(
        "| {sites} | {routers} | {links} | {entries} | {converged_ms} ms | {} | {} KB | {} KB | {quiet} B/s | {join_ms} ms | {} KB | {} KB | {:.1} s |",
        joined.control_messages / routers as u64,
        joined.control_bytes / routers as u64 / 1_000,
        joined.largest_control_bytes / 1_000,
        join_bytes / 1_000,
        scale.held() / 1_000,
        started.elapsed().as_secs_f64(),
    );
}

#[test]
#[ignore = "minutes; prints figures"]
fn scale() {
    println!(
        "| sites | routers | links | entries | converged | messages sent each | bytes sent each | largest | quiet | join | join download | memory | took |"
    );
    measure(10, 1, None);
    measure(64, 1, None);
    measure(100, 1, None);
    measure(100, 1, Some(8));
}
