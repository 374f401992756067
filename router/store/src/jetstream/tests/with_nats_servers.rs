//! What a cluster of three does when servers die and hang.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use super::super::servers::{Cluster, leader};
use super::*;

#[test]
fn a_server_that_hangs_is_left_for_another_and_what_it_still_has_lands_nowhere() {
    let cluster = Cluster::start();
    let options = JetstreamOptions {
        urls: cluster.urls(),
        servers_sync_always: true,
        call_timeout_ms: 2_000,
        patience_ms: 60_000,
        ..JetstreamOptions::default()
    };
    let (mut store, Recovered { mut catalog, .. }) = JetstreamStore::open(&options).unwrap();
    for rev in 1..4 {
        let connected = store.shared.log.context.client().server_info().server_name;
        let server: usize = connected.strip_prefix('n').unwrap().parse().unwrap();
        let server = cluster.servers[server].as_ref().unwrap();
        server.signal("STOP");
        // The first try is in the stopped server's hands, and stays there until it goes on.
        change(&mut store, &mut catalog, added(&format!("m@{rev}.0.0")));
        assert_ne!(store.shared.log.context.client().server_info().server_name, connected);
        server.signal("CONT");
    }
    drop(store);
    let (store, recovered) = JetstreamStore::open(&options).unwrap();
    assert_eq!((recovered.catalog.clone(), store.head().rev), (catalog, 3));
    assert_eq!(recovered.catalog.modules().len(), 3);
}

#[test]
fn a_server_that_dies_loses_no_record_and_doubles_none_and_leases_hold() {
    let mut cluster = Cluster::start();
    let options = JetstreamOptions {
        urls: cluster.urls(),
        system_urls: cluster.system_urls(),
        call_timeout_ms: 2_000,
        patience_ms: 60_000,
        ..JetstreamOptions::default()
    };
    let (mut one, Recovered { mut catalog, .. }) = JetstreamStore::open(&options).unwrap();
    let (mut two, _) = JetstreamStore::open(&options).unwrap();
    let fence = one.lease("rollout", "a", 60_000, 0).unwrap();
    let mut promised = Vec::new();
    for _ in 0..3 {
        promise(&mut one, &mut catalog, &fence, &mut promised);
    }
    // The leader of the records dies, then whoever leads next.
    for _ in 0..2 {
        let dead = leader(&options);
        cluster.kill(dead);
        for _ in 0..5 {
            promise(&mut one, &mut catalog, &fence, &mut promised);
        }
        assert_eq!(two.lease("rollout", "b", 60_000, 0).unwrap_err().code(), "lease-held");
        assert_eq!(one.lease("rollout", "a", 60_000, 1).unwrap(), fence, "and can be lengthened");
        cluster.revive(dead);
    }
    // By its own clock the other has waited long enough: the first holder is out, whatever it believes.
    assert_eq!(two.lease("rollout", "b", 60_000, 10).unwrap_err().code(), "lease-held");
    let second = two.lease("rollout", "b", 60_000, 60_010).unwrap();
    let late = catalog.draft(added("late@1.0.0"), "ada", 1).unwrap();
    assert_eq!(one.append_under(&fence, 2, &late).unwrap_err().code(), "lease-lost");
    let record = catalog.draft(added("m@14.0.0"), "bob", 1).unwrap();
    two.append_under(&second, 60_011, &record).unwrap();
    catalog.apply(&record).unwrap();
    promised.push(record.encode());
    drop((one, two));

    let (store, recovered) = JetstreamStore::open(&options).unwrap();
    assert_eq!((recovered.catalog, store.head()), (catalog.clone(), catalog.head()));
    assert_eq!(store.read_after(0, 100).unwrap(), promised);
}

/// Appends until it is told to stop, opening the log anew whenever nobody knows what became of an append. Counts its
/// promises, and says in the end what was promised: revision and bytes.
fn write_until(stop: &AtomicBool, count: &AtomicUsize, options: &JetstreamOptions, name: &str) -> Vec<(u64, Vec<u8>)> {
    let mut promised = Vec::new();
    let mut opened = JetstreamStore::open(options).ok();
    for n in 0.. {
        let Some((store, Recovered { catalog, .. })) = &mut opened else {
            opened = JetstreamStore::open(options).ok();
            continue;
        };
        for bytes in store.read_after(catalog.head().rev, 100).unwrap_or_default() {
            catalog.apply(&Record::decode(&bytes).unwrap()).unwrap();
        }
        if stop.load(Ordering::Relaxed) {
            break;
        }
        // As fast as it goes there would soon be more modules than a catalog has.
        std::thread::sleep(Duration::from_millis(5));
        let record = catalog.draft(added(&format!("{name}@{n}.0.0")), name, 1).unwrap();
        match store.append(&record) {
            Ok(head) => {
                promised.push((head.rev, record.encode()));
                count.fetch_add(1, Ordering::Relaxed);
            }
            Err(refused) if refused.code() == "conflict" => {}
            Err(refused) => {
                assert!(["store-unavailable", "store-damaged"].contains(&refused.code()), "{refused}");
                opened = None;
            }
        }
    }
    promised
}

struct StopWhenDropped<'a>(&'a AtomicBool);

impl Drop for StopWhenDropped<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Waits until each writer has promised some records more.
fn await_promises(counts: &[AtomicUsize; 2]) {
    let before = counts.each_ref().map(|count| count.load(Ordering::Relaxed));
    let began = Instant::now();
    while !counts.iter().zip(before).all(|(count, before)| count.load(Ordering::Relaxed) >= before + 3) {
        assert!(began.elapsed() < Duration::from_secs(180), "nothing goes on: {before:?}, {counts:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn two_writers_among_dying_and_hanging_servers_lose_nothing_that_was_promised() {
    // A long run is one that somebody asks for.
    let asked = std::env::var("MYELIN_STORE_ROUNDS").ok();
    let rounds = asked.map_or(2, |rounds| rounds.parse::<usize>().unwrap());
    let mut cluster = Cluster::start();
    let options = JetstreamOptions {
        urls: cluster.urls(),
        servers_sync_always: true,
        call_timeout_ms: 1_000,
        patience_ms: 8_000,
        ..JetstreamOptions::default()
    };
    let patient = JetstreamOptions { patience_ms: 60_000, ..options.clone() };
    drop(JetstreamStore::open(&patient).unwrap());
    let (stop, counts) = (AtomicBool::new(false), [const { AtomicUsize::new(0) }; 2]);
    let promised = std::thread::scope(|scope| {
        let (stop, options) = (&stop, &options);
        // A test that fails here shall not wait for its writers for ever.
        let stopper = StopWhenDropped(stop);
        let writers = ["ada", "bob"].into_iter().zip(&counts);
        let writers: Vec<_> =
            writers.map(|(name, count)| scope.spawn(move || write_until(stop, count, options, name))).collect();
        await_promises(&counts);
        for round in 0..rounds {
            let victim = leader(&patient);
            if round % 2 == 0 {
                cluster.kill(victim);
                await_promises(&counts);
                cluster.revive(victim);
            } else {
                cluster.servers[victim].as_ref().unwrap().signal("STOP");
                await_promises(&counts);
                cluster.servers[victim].as_ref().unwrap().signal("CONT");
            }
            await_promises(&counts);
        }
        drop(stopper);
        writers.into_iter().map(|writer| writer.join().unwrap()).collect::<Vec<_>>()
    });
    let (store, recovered) = JetstreamStore::open(&patient).unwrap();
    let head = store.head();
    let log = store.read_after(0, usize::MAX).unwrap();
    assert_eq!((log.len() as u64, recovered.catalog.modules().len() as u64), (head.rev, head.rev));
    for (rev, bytes) in promised.iter().flatten() {
        assert_eq!(&log[usize::try_from(rev - 1).unwrap()], bytes, "record {rev} was promised");
    }
    println!("{counts:?} promised, {} in the log", head.rev);
}

#[test]
fn without_a_majority_nothing_is_appended_and_with_it_everything_goes_on() {
    let mut cluster = Cluster::start();
    let patient = JetstreamOptions {
        urls: cluster.urls(),
        servers_sync_always: true,
        call_timeout_ms: 2_000,
        patience_ms: 60_000,
        ..JetstreamOptions::default()
    };
    let (mut store, Recovered { mut catalog, .. }) = JetstreamStore::open(&patient).unwrap();
    change(&mut store, &mut catalog, added("m@1.0.0"));
    drop(store);
    let hasty = JetstreamOptions { call_timeout_ms: 300, patience_ms: 2_000, ..patient.clone() };
    let (mut store, _) = JetstreamStore::open(&hasty).unwrap();
    cluster.kill(0);
    cluster.kill(1);
    let record = catalog.draft(added("m@2.0.0"), "ada", 1).unwrap();
    assert_eq!(store.append(&record).unwrap_err().code(), "store-unavailable");
    assert_eq!(store.head(), catalog.head(), "what is known stays known");
    drop(store);
    // A leader that has not noticed yet that it is alone gives what it has; it takes nothing.
    match JetstreamStore::open(&hasty) {
        Err(refused) => assert_eq!(refused.code(), "store-unavailable"),
        Ok((mut store, _)) => {
            assert_eq!(store.head(), catalog.head());
            assert_eq!(store.append(&record).unwrap_err().code(), "store-unavailable");
        }
    }
    cluster.revive(0);
    cluster.revive(1);
    let (mut store, Recovered { catalog: mut found, .. }) = JetstreamStore::open(&patient).unwrap();
    if found.head() == catalog.head() && store.append(&record).is_ok() {
        found.apply(&record).unwrap();
    }
    let (mut store, Recovered { catalog: mut found, .. }) = JetstreamStore::open(&patient).unwrap();
    assert_eq!(found.head(), Head { rev: 2, hash: record.hash() }, "once, by whichever try");
    change(&mut store, &mut found, added("m@3.0.0"));
}
