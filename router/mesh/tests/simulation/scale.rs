//! How the cost of a mesh grows: figures for docs/SCALE.md, outside CI.
//!
//! `cargo test -p myelin-mesh --test simulation scale -- --ignored --nocapture`

use std::time::Instant;

use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

use crate::chaos::directory;
use crate::network::{Network, Path};
use crate::oracle;
use crate::world::{Happening, World};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<std::alloc::System> = &INSTRUMENTED_SYSTEM;

/// Patterns that each site wants.
const PATTERNS: usize = 500;
/// No mesh needs longer, in simulated milliseconds.
const CONVERGED_MS_MAX: u64 = 30_000;

/// `sites` sites of `each` routers; those of a site all have a link, and `degree` links for each router, or one to
/// everybody, lead to other sites.
fn measure(sites: usize, each: usize, degree: Option<usize>) {
    let (started, region) = (Instant::now(), Region::new(ALLOCATOR));
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
                network.paths.push(Path { ends: [a, b], delay_ms, jitter_ms: 2, clog_ms: 0, deaf: [None; 2] });
            }
        }
    }
    let paths = network.paths.len();
    let mut world = World::new(1, directory(sites, &sites_of), network);
    for (node, site) in sites_of.iter().enumerate() {
        world.at(0, Happening::Start { node });
        for pattern in (0..PATTERNS).filter(|pattern| pattern % each == node / sites) {
            let wanted = (format!("site{site}/device/{pattern}/**").parse().unwrap(), None);
            world.at(1, Happening::Subscribe { node, wanted });
        }
    }
    let mut converged = 0;
    while converged == 0 {
        world.run(world.now + 250);
        if oracle::converged(&world).is_ok()
            && world.nodes.iter().all(|node| node.mesh.as_ref().unwrap().sizes().routers == count - 1)
        {
            converged = world.now;
        }
        assert!(world.now < CONVERGED_MS_MAX, "not converged: {:?}", oracle::converged(&world));
    }
    let joined = world.counters.clone();
    let quiet = 60_000;
    world.run(world.now + quiet);
    let after = &world.counters;
    let per_router_s = (after.control_bytes - joined.control_bytes) / count as u64 / (quiet / 1_000);
    let stats = region.change();
    let held = stats.bytes_allocated.saturating_sub(stats.bytes_deallocated) / count;
    let entries = world.nodes[0].mesh.as_ref().unwrap().sizes().interest_entries;
    println!(
        "| {sites} | {count} | {paths} | {entries} | {converged} ms | {} | {} KB | {} KB | {per_router_s} B/s | {} KB | {:.1} s |",
        joined.control_messages / count as u64,
        joined.control_bytes / count as u64 / 1_000,
        joined.largest_control_bytes / 1_000,
        held / 1_000,
        started.elapsed().as_secs_f64(),
    );
}

#[test]
#[ignore = "minutes; prints figures"]
fn scale() {
    println!(
        "| sites | routers | links | entries | converged | messages sent each | bytes sent each | largest | quiet | memory each | took |"
    );
    measure(10, 1, None);
    measure(64, 1, None);
    measure(64, 2, None);
}

#[test]
#[ignore = "many minutes and much memory; prints figures"]
fn scale_thousand() {
    measure(64, 16, Some(4));
}
