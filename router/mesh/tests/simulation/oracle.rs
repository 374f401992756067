//! What must hold, told from the network and the sessions alone: nothing here asks a mesh what it believes, but for
//! the hashes that are compared.

use std::collections::{BTreeMap, BTreeSet};

use myelin_mesh::SiteSet;
use myelin_mesh::limits::{INTEREST_COALESCE_MS, INTEREST_ENTRIES_MAX, LINKS_MAX};

use crate::world::World;

/// What holds at every moment, whatever happens.
pub fn always(world: &World) -> Result<(), String> {
    if let Some(fault) = world.faults.first() {
        return Err(format!("{fault} (and {} more faults)", world.faults.len() - 1));
    }
    for (number, event) in world.events.iter().enumerate() {
        if let Some((router, count)) = event.plain.iter().find(|(_, count)| **count > 1) {
            return Err(format!("event {number} came {count} times to the subscribers of router {router}"));
        }
        if let Some((site, count)) = event.sites.iter().find(|(_, count)| **count > 1) {
            return Err(format!("event {number} came {count} times to site {site}"));
        }
        if let Some((group, count)) = event.groups.iter().find(|(_, count)| **count > 1) {
            return Err(format!("event {number} came to {count} members of group {group:08x}"));
        }
    }
    for (node, state) in world.nodes.iter().enumerate() {
        let Some(mesh) = &state.mesh else { continue };
        let sizes = mesh.sizes();
        // A jump lets what waits for others go at once.
        let batches_max = state.clock.ran_ms(world.now) / INTEREST_COALESCE_MS + state.clock.jumps + 1;
        let told = mesh.interest_head(state.router).map_or(0, |head| head.seq);
        let distinct: usize = world.nodes.iter().map(|node| node.wanted.len()).sum();
        let within = sizes.links <= LINKS_MAX.min(world.nodes.len() - 1)
            && sizes.routers < world.nodes.len()
            && sizes.behind <= sizes.routers
            && sizes.own_entries == state.wanted.len()
            && sizes.interest_entries <= INTEREST_ENTRIES_MAX
            && told <= batches_max;
        if !within {
            return Err(format!("router {node} is over a bound: {sizes:?}, {told} deltas, {distinct} entries wanted"));
        }
    }
    let largest = world.counters.largest_control_bytes;
    if largest > 16 * 1024 {
        return Err(format!("a control message of {largest} bytes"));
    }
    Ok(())
}

/// All routers that can reach each other have each other's interest.
pub fn converged(world: &World) -> Result<(), String> {
    let truths: Vec<_> =
        world.nodes.iter().map(|node| node.mesh.as_ref().and_then(|mesh| mesh.interest_head(node.router))).collect();
    let mut reached = BTreeSet::new();
    for (at, node) in world.nodes.iter().enumerate() {
        let Some(mesh) = &node.mesh else { continue };
        // Paths lead both ways: whoever one reaches, all of them reach.
        if !reached.contains(&at) {
            reached = reachable(world, at, None);
        }
        for other in &reached {
            let (truth, other) = (truths[*other], &world.nodes[*other]);
            let copy = mesh.interest_head(other.router);
            if copy != truth {
                let told = mesh.link_state(other.router).map(|state| (state.epoch, state.version, state.interest));
                let linked = mesh.peers().any(|peer| peer.router == other.router);
                return Err(format!(
                    "router {at} has {copy:?} of {:?}, which is at {truth:?}; it was told {told:?}, is linked to it: \
                     {linked}, {:?}, {:?}",
                    other.router,
                    mesh.sizes(),
                    mesh.stats()
                ));
            }
        }
    }
    Ok(())
}

/// The nodes that `from` reaches, itself included, within the allowed sites.
fn reachable(world: &World, from: usize, allowed: Option<&SiteSet>) -> BTreeSet<usize> {
    let mut edges: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for path in world.network.paths.iter().filter(|path| path.is_whole()) {
        edges.entry(path.ends[0]).or_default().push(path.ends[1]);
        edges.entry(path.ends[1]).or_default().push(path.ends[0]);
    }
    let may_be = |node: usize| {
        let node = &world.nodes[node];
        node.mesh.is_some() && allowed.is_none_or(|allowed| allowed.contains(node.site))
    };
    let (mut seen, mut next) = (BTreeSet::new(), vec![from]);
    while let Some(node) = next.pop() {
        if may_be(node) && seen.insert(node) {
            next.extend(edges.get(&node).into_iter().flatten());
        }
    }
    seen
}

/// Every event from `first` on came to exactly those that want it and can be reached.
pub fn delivered(world: &World, first: usize) -> Result<(), String> {
    for (number, event) in world.events.iter().enumerate().skip(first) {
        let reached = reachable(world, event.origin, event.allowed.as_ref());
        let who = format!("event {number} ({} from router {}, {:?})", event.topic, event.origin, event.allowed);
        let mut groups = BTreeSet::new();
        for (at, node) in world.nodes.iter().enumerate().filter(|(_, node)| node.mesh.is_some()) {
            if event.over_hops.contains(node.site) {
                continue;
            }
            let wants = node.wants_plain(&event.topic) && reached.contains(&at);
            if event.plain.contains_key(&at) != wants {
                return Err(format!("{who}: router {at} wants it: {wants}, has it: {}", !wants));
            }
            if reached.contains(&at) {
                groups.extend(node.groups(&event.topic));
            }
        }
        if let Some(group) = event.groups.keys().find(|group| !groups.contains(group)) {
            return Err(format!("{who}: it came to group {group:08x}, which has no member there"));
        }
        let missing = groups.iter().find(|group| !event.groups.contains_key(group));
        if let (Some(group), true) = (missing, event.over_hops.is_empty()) {
            return Err(format!("{who}: nobody of group {group:08x} has it"));
        }
        for site in event.sites.keys() {
            let wanted = world
                .nodes
                .iter()
                .any(|node| node.site.number() == *site && node.mesh.is_some() && node.wants_plain(&event.topic));
            if !wanted {
                return Err(format!("{who}: it came to site {site}, where nobody wants it"));
            }
        }
    }
    Ok(())
}
