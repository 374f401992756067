//! What the mesh decides for every batch, and what a stamp costs on the wire: nanoseconds, for meshes of several sizes.
//!
//! `cargo run --release -p myelin-mesh --example decisions -- [ROUNDS]`. Every router has links to eight others. A plan is
//! made once for each topic and view of the mesh; a split, an encoding, and a decoding for each batch and hop.
#![allow(clippy::unwrap_used, reason = "a mesh that does not come up ends the measurement")]

use std::collections::VecDeque;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use myelin_mesh::{
    Config, Control, Directory, InterestMatch, LinkId, LinkUp, Mesh, Output, PeerIdentity, ResidencyCache, Router,
    RouterNumber, Site, SiteNumber, SiteSet, Split, Stamp, plan, split,
};

/// A router has links to this many on either side.
const REACH: usize = 4;
/// Nothing in these meshes takes longer to be known, in milliseconds.
const SETTLED_MS: u64 = 3_000;
/// Times that each thing is done in a round.
const TIMES: u32 = 20_000;

fn name(kind: char, number: usize) -> Arc<str> {
    format!("{kind}{number}").into()
}

fn site(number: usize) -> Option<SiteNumber> {
    SiteNumber::new(u16::try_from(number).ok()?)
}

/// The links of router n are numbered by the router at the other end.
fn neighbours(of: usize, count: usize) -> Vec<usize> {
    let mut all: Vec<usize> =
        (1..=REACH).flat_map(|step| [(of + step) % count, (of + count - step % count) % count]).collect();
    all.sort_unstable();
    all.dedup();
    all.retain(|other| *other != of);
    all
}

/// A mesh in which all know everything: one router a site, each wants what is below its own name and `all/**`.
fn meshes(count: usize) -> Vec<Mesh> {
    let sites = (0..count).map(|n| Site {
        number: site(n).unwrap(),
        name: name('s', n),
        region: Arc::default(),
        cloud: Arc::default(),
    });
    let routers = (0..count).map(|n| Router {
        number: RouterNumber(u32::try_from(n).unwrap() + 1),
        name: name('r', n),
        site: site(n).unwrap(),
    });
    let directory = Arc::new(Directory::new(sites, routers).unwrap());
    let mesh = |n: usize| {
        let number = RouterNumber(u32::try_from(n).unwrap() + 1);
        Mesh::new(0, Config::new(site(n).unwrap(), &name('s', n), number, &name('r', n), 1), directory.clone())
    };
    let mut meshes: Vec<Mesh> = (0..count).map(mesh).collect();
    let hellos: Vec<_> = meshes.iter().map(Mesh::hello).collect();
    for (at, mesh) in meshes.iter_mut().enumerate() {
        for other in neighbours(at, count) {
            let (site, router) = (name('s', other), name('r', other));
            let identity = PeerIdentity { site: &site, router: &router };
            let link = LinkId(other as u64);
            mesh.link_up(0, LinkUp { link, identity, dialled: at < other, hello: &hellos[other] }).unwrap();
        }
        mesh.subscribe(0, &format!("s{at}/**").parse().unwrap(), None).unwrap();
        mesh.subscribe(0, &"all/**".parse().unwrap(), None).unwrap();
    }
    let mut on_their_way: VecDeque<(usize, LinkId, Control)> = VecDeque::new();
    for now in (0..SETTLED_MS).step_by(50) {
        for (at, mesh) in meshes.iter_mut().enumerate() {
            mesh.tick(now);
            said(at, mesh, &mut on_their_way);
        }
        while let Some((to, link, control)) = on_their_way.pop_front() {
            meshes[to].receive(now, link, control).unwrap();
            said(to, &mut meshes[to], &mut on_their_way);
        }
    }
    meshes
}

fn said(from: usize, mesh: &mut Mesh, on_their_way: &mut VecDeque<(usize, LinkId, Control)>) {
    while let Some(output) = mesh.poll() {
        if let Output::Send { links, control } = output {
            let to = |link: LinkId| (usize::try_from(link.0).unwrap(), LinkId(from as u64), control.clone());
            on_their_way.extend(links.into_iter().map(to));
        }
    }
}

fn time_ns<T>(mut work: impl FnMut() -> T) -> f64 {
    let begin = Instant::now();
    (0..TIMES).for_each(|_| drop(black_box(work())));
    begin.elapsed().as_secs_f64() * 1e9 / f64::from(TIMES)
}

/// Nanoseconds of: a plan, a split, an encoding, a decoding; for an event to all, and for one to a single site.
fn measure(mesh: &Mesh, topic: &str, allowed: Option<&SiteSet>) -> ([f64; 4], usize) {
    let (routes, mut residency, mut matched) = (mesh.routes(), ResidencyCache::default(), InterestMatch::default());
    mesh.interest().matches(topic, &mut matched);
    let allowed = || allowed.cloned();
    let planned = plan(&matched, &routes, &mut residency, allowed(), |_| false);
    let stamp = Stamp {
        origin: routes.me(),
        epoch: 1,
        shard: 0,
        hops: 0,
        here_only: false,
        seq: 1,
        generation: 1,
        ttl_ms: 0,
        sites: planned.sites.clone(),
        allowed: planned.allowed.clone(),
        grants: planned.grants.clone(),
    };
    let (mut out, mut bytes) = (Split::default(), Vec::new());
    stamp.encode(&mut bytes).unwrap();
    let encoded = bytes.clone();
    let figures = [
        time_ns(|| plan(&matched, &routes, &mut residency, allowed(), |_| false)),
        time_ns(|| split(&stamp, &routes, &mut ResidencyCache::default(), &mut out).unwrap()),
        time_ns(|| {
            bytes.clear();
            stamp.encode(&mut bytes)
        }),
        time_ns(|| Stamp::decode(&encoded).unwrap()),
    ];
    assert_eq!(out.copies.is_empty(), planned.is_empty());
    (figures, encoded.len())
}

fn main() {
    let rounds = std::env::args().nth(1).map_or(5, |text| text.parse().unwrap());
    println!(
        "{:<28}{:>10}{:>10}{:>10}{:>10}{:>8}",
        "nanoseconds, best of rounds", "plan", "split", "encode", "decode", "bytes"
    );
    for count in [3, 64, 100, 200, 1_000] {
        if site(count - 1).is_none() {
            continue;
        }
        let meshes = meshes(count);
        let everywhere: SiteSet = (0..count).filter_map(site).collect();
        let one = format!("s{}/x", count / 2);
        for (what, topic, allowed) in
            [("to one", &*one, None), ("to all", "all/x", None), ("to all, restricted", "all/x", Some(&everywhere))]
        {
            let (mut best, mut len) = ([f64::MAX; 4], 0);
            for _ in 0..rounds {
                let (figures, bytes) = measure(&meshes[0], topic, allowed);
                len = bytes;
                best.iter_mut().zip(figures).for_each(|(best, ns)| *best = best.min(ns));
            }
            let [plan, split, encode, decode] = best;
            let row = format!("{count} sites, {what}");
            println!("{row:<28}{plan:>10.0}{split:>10.0}{encode:>10.0}{decode:>10.0}{len:>8}");
        }
    }
}
