//! What can happen only to servers.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use myelin_catalog::{Catalog, Op};

use super::*;
use crate::conformance::{change, module, upload};

fn refusal(options: &JetstreamOptions) -> StoreError {
    JetstreamStore::open(options).err().expect("it is refused")
}

fn added(reference: &str) -> Op {
    Op::ModuleAdded { module: module(reference) }
}

/// Appends under a lease, and remembers what was promised.
fn promise(store: &mut JetstreamStore, catalog: &mut Catalog, fence: &Fence, promised: &mut Vec<Vec<u8>>) {
    let rev = catalog.head().rev + 1;
    let record = catalog.draft(added(&format!("m@{rev}.0.0")), "ada", 1).unwrap();
    let head = store.append_under(fence, 1, &record).unwrap();
    catalog.apply(&record).unwrap();
    assert_eq!(head, catalog.head());
    promised.push(record.encode());
}

#[test]
fn options_that_would_lose_a_catalog_are_refused_before_a_server_is_asked() {
    let nothing_said = JetstreamOptions { urls: vec!["nats://127.0.0.1:1".into()], ..JetstreamOptions::default() };
    let refused = refusal(&nothing_said);
    assert!(refused.code() == "store-unfit" && refused.to_string().contains("sync_interval: always"), "{refused}");
    let all_wrong = JetstreamOptions {
        stream: "no name".into(),
        replicas: 1,
        certificate: Some("c.pem".into()),
        call_timeout_ms: 0,
        ..JetstreamOptions::default()
    };
    let says = refusal(&all_wrong).to_string();
    for problem in
        ["`urls`", "`stream`", "allow_single_replica = true", "`certificate`", "`call_timeout_ms`", "system_urls"]
    {
        assert!(says.contains(problem), "{problem} is missing in: {says}");
    }
}

#[test]
fn passwords_are_in_no_error_and_no_log() {
    let options = JetstreamOptions {
        urls: vec!["nats://user:secret@127.0.0.1:1".into(), "127.0.0.1:2".into()],
        servers_sync_always: true,
        ..JetstreamOptions::default()
    };
    let refused = refusal(&options);
    assert_eq!(refused.code(), "store-unavailable");
    assert!(refused.to_string().contains("stream MYELIN_CATALOG at 127.0.0.1:1, 127.0.0.1:2"), "{refused}");
    assert!(!format!("{options:?} {refused} {refused:?}").contains("secret"));
}

#[test]
fn a_configuration_says_what_it_must_and_nothing_unknown() {
    let read = |text: &str| serde_json::from_str::<JetstreamOptions>(text);
    let options = read(r#"{ "urls": ["nats://a"], "stream": "S", "accept_lazy_fsync": true }"#).unwrap();
    options.check().unwrap();
    assert_eq!((options.replicas, options.allow_single_replica), (3, false));
    assert!(read(r#"{ "urls": [], "replica": 3 }"#).is_err());
}

/// As a router's `[catalog]` chooses among engines.
#[derive(Debug, serde::Deserialize)]
#[serde(tag = "engine", rename_all = "kebab-case")]
enum Engine {
    Jetstream(JetstreamOptions),
}

#[test]
fn options_stand_beside_the_name_of_the_engine() {
    let read = |text: &str| serde_json::from_str::<Engine>(text);
    let Engine::Jetstream(options) = read(r#"{ "engine": "jetstream", "urls": ["nats://a"], "replicas": 5 }"#).unwrap();
    assert_eq!((options.replicas, options.urls.len()), (5, 1));
    assert!(read(r#"{ "engine": "jetstream", "url": "nats://a" }"#).unwrap_err().to_string().contains("`url`"));
}

mod with_nats_server {
    use async_nats::jetstream::stream::{Config, DiscardPolicy, StorageType};

    use super::super::testing::{Cluster, Server, Sync, common_server, options, with_client, write_certificates};
    use super::*;

    type Change = fn(&mut Config);

    #[test]
    fn streams_that_would_lose_records_are_refused_with_what_to_do() {
        let wrongs: [(Change, &str); 8] = [
            (|config| config.storage = StorageType::Memory, "kept in memory"),
            (|config| config.deny_delete = false, "--deny-delete"),
            (|config| config.deny_purge = false, "--deny-purge"),
            (|config| config.max_age = Duration::from_secs(1_000), "--max-age 0"),
            (|config| config.discard = DiscardPolicy::Old, "--discard new"),
            (|config| config.subjects.push("MORE".into()), "its subjects are"),
            (|config| config.max_messages_per_subject = 5, "--max-msgs-per-subject -1"),
            (|config| config.max_message_size = 100, "--max-msg-size -1"),
        ];
        for (wrong, says) in wrongs {
            let options = options(common_server().url("app"));
            let mut config = fit::log_config(&options);
            wrong(&mut config);
            config.subjects = config
                .subjects
                .iter()
                .map(|subject| subject.replace("MORE", &format!("{}.x", options.stream)))
                .collect();
            with_client(&options, async |context| drop(context.create_stream(config).await.unwrap()));
            let refused = refusal(&options);
            assert!(refused.code() == "store-unfit" && refused.to_string().contains(says), "{says}: {refused}");
        }
        let options = options(common_server().url("app"));
        drop(JetstreamStore::open(&options).unwrap());
        let strict = JetstreamOptions { allow_single_replica: false, replicas: 3, ..options };
        let refused = refusal(&strict).to_string();
        for stream in [&strict.stream, &format!("KV_{}_STATE", strict.stream), &format!("OBJ_{}_BLOBS", strict.stream)]
        {
            assert!(refused.contains(&format!("{stream}: it has 1 replicas and needs 3")), "{refused}");
        }
    }

    #[test]
    fn a_stream_whose_sequences_are_no_revisions_is_refused() {
        let options = options(common_server().url("app"));
        let config = Config { first_sequence: Some(10), ..fit::log_config(&options) };
        with_client(&options, async |context| drop(context.create_stream(config).await.unwrap()));
        let refused = refusal(&options);
        assert!(refused.code() == "store-damaged" && refused.to_string().contains("did not begin with 1"), "{refused}");
    }

    #[test]
    fn what_strangers_publish_stops_the_log_and_is_never_passed_over() {
        for (subject, code) in [("record", "chain-broken"), ("lease", "store-damaged")] {
            let options = options(common_server().url("app"));
            let (mut store, Recovered { mut catalog, .. }) = JetstreamStore::open(&options).unwrap();
            upload(&mut store, &mut catalog, "m@1.0.0");
            let subject = format!("{}.{subject}", options.stream);
            with_client(&options, async |context| {
                context.publish(subject, "rubbish".into()).await.unwrap().await.unwrap();
            });
            let record = catalog.draft(added("m@2.0.0"), "ada", 1).unwrap();
            assert_eq!(store.append(&record).unwrap_err().code(), code);
            assert_eq!(store.head(), catalog.head(), "what is good stays good");
            assert_eq!(store.read_after(0, 9).unwrap().len(), 1);
            assert_eq!(refusal(&options).code(), code);
        }
    }

    #[test]
    fn a_record_that_the_servers_do_not_take_is_refused_before_it_is_sent() {
        let options = options(common_server().url("app"));
        let (mut store, Recovered { mut catalog, .. }) = JetstreamStore::open(&options).unwrap();
        let large = Record::after(&catalog.head(), added("m@1.0.0"), &"x".repeat(1_500_000), 1);
        let refused = store.append(&large).unwrap_err();
        assert!(refused.code() == "record-too-large" && refused.to_string().contains("`max_payload`"), "{refused}");
        change(&mut store, &mut catalog, added("m@1.0.0"));
    }

    #[test]
    fn a_renewal_that_came_too_late_is_a_new_term() {
        let server = Server::alone(Sync::Always);
        let (mut store, _) = JetstreamStore::open(&options(server.url("app"))).unwrap();
        let first = store.lease("rollout", "a", 100, 0).unwrap();
        server.signal("STOP");
        let second = std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(300));
                server.signal("CONT");
            });
            // At 1 it holds the lease until 100; the beat is written at 300, when somebody else could have it.
            store.lease("rollout", "a", 100, 1).unwrap()
        });
        assert!(second.term > first.term, "{second:?} after {first:?}");
    }

    #[test]
    fn a_module_whose_record_is_on_the_way_is_not_collected() {
        let young = JetstreamOptions { orphan_age_min_s: 24 * 60 * 60, ..options(common_server().url("app")) };
        let (mut one, _) = JetstreamStore::open(&young).unwrap();
        let digest = module("m@1.0.0").digest;
        one.put(&digest, b"m@1.0.0").unwrap();
        let (two, recovered) = JetstreamStore::open(&young).unwrap();
        assert_eq!((recovered.orphans, two.blobs().unwrap()), (0, vec![digest]));
        let old = JetstreamOptions { orphan_age_min_s: 0, ..young };
        assert_eq!(JetstreamStore::open(&old).unwrap().1.orphans, 1);
    }

    #[test]
    fn a_module_that_lost_a_chunk_is_damaged_at_once() {
        let options = options(common_server().url("app"));
        let (mut store, _) = JetstreamStore::open(&options).unwrap();
        let bytes = vec![7; 300_000];
        let digest = Digest::of(&bytes);
        store.put(&digest, &bytes).unwrap();
        with_client(&options, async |context| {
            let stream = context.get_stream(format!("OBJ_{}", options.blob_bucket())).await.unwrap();
            // The first message is the first chunk.
            stream.delete_message(1).await.unwrap();
        });
        assert_eq!(store.blob(&digest).unwrap_err().code(), "blob-damaged");
        store.put(&digest, &bytes).unwrap();
        assert_eq!(store.blob(&digest).unwrap(), bytes);
    }

    #[test]
    fn servers_that_answer_before_they_have_synced_are_found_by_the_system_account() {
        let server = Server::alone(Sync::Lazy);
        let mut options = options(server.url("app"));
        (options.servers_sync_always, options.system_urls) = (false, vec![server.url("sys")]);
        let refused = refusal(&options);
        let says = refused.to_string();
        assert!(
            refused.code() == "store-unfit" && says.contains("server alone answers before it has synced"),
            "{says}"
        );
        options.accept_lazy_fsync = true;
        drop(JetstreamStore::open(&options).unwrap());
        options.system_urls = vec![server.url("app")];
        let refused = refusal(&options).to_string();
        assert!(refused.contains("a user of the system account"), "{refused}");

        let synced = common_server();
        options.accept_lazy_fsync = false;
        (options.urls, options.system_urls) = (vec![synced.url("app")], vec![synced.url("sys")]);
        drop(JetstreamStore::open(&options).unwrap());
        let strict = JetstreamOptions { allow_single_replica: false, replicas: 3, ..options };
        let refused = refusal(&strict).to_string();
        assert!(refused.contains("1 servers with JetStream answer") && refused.contains("3 are needed"), "{refused}");
    }

    #[test]
    fn an_append_without_an_answer_is_there_once_or_not_at_all() {
        let server = Server::alone(Sync::Always);
        let mut options = options(server.url("app"));
        (options.call_timeout_ms, options.patience_ms) = (200, 1_000);
        let (mut store, Recovered { mut catalog, .. }) = JetstreamStore::open(&options).unwrap();
        change(&mut store, &mut catalog, added("m@1.0.0"));
        let unclear = catalog.draft(added("m@2.0.0"), "ada", 1).unwrap();
        server.signal("STOP");
        let began = Instant::now();
        // As the trait says: nobody knows, and the store must be opened anew.
        let refused = store.append(&unclear).unwrap_err();
        assert!(refused.code() == "store-unavailable" && refused.to_string().contains("append to"), "{refused}");
        assert_eq!(store.append(&unclear).unwrap_err().code(), "store-failed");
        assert_eq!(store.lease("rollout", "a", 1_000, 0).unwrap_err().code(), "store-failed");
        assert!(began.elapsed() < Duration::from_secs(60), "it gave up by itself");
        server.signal("CONT");
        drop(store);

        options.patience_ms = 30_000;
        options.call_timeout_ms = 5_000;
        let (mut store, Recovered { catalog: mut found, .. }) = JetstreamStore::open(&options).unwrap();
        // All tries were the same message after the same end.
        assert!([1, 2].contains(&found.head().rev), "{:?}", found.head());
        let landed = store.append(&unclear);
        if found.head().rev == 2 {
            assert_eq!(landed.unwrap_err().code(), "conflict");
            assert_eq!(store.read_after(1, 10).unwrap(), [unclear.encode()]);
        } else if landed.is_ok() {
            found.apply(&unclear).unwrap();
        }
        let (_, Recovered { catalog, .. }) = JetstreamStore::open(&options).unwrap();
        assert_eq!((catalog.head().rev, catalog.modules().len()), (2, 2));
    }

    #[test]
    fn both_sides_show_certificates_and_a_server_of_another_authority_is_refused() {
        let (ours, others) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        write_certificates(ours.path());
        write_certificates(others.path());
        let server = Server::with_tls(ours.path());
        let mut options = options(server.url("app").replace("nats://", "tls://"));
        (options.call_timeout_ms, options.patience_ms) = (2_000, 10_000);
        let mut refused = |ca: &std::path::Path, own: Option<&std::path::Path>| {
            options.ca = Some(ca.join("ca.pem"));
            options.certificate = own.map(|own| own.join("router.pem"));
            options.key = own.map(|own| own.join("router.key"));
            JetstreamStore::open(&options).err().map(|refused| (refused.code(), refused.to_string()))
        };
        assert_eq!(refused(ours.path(), Some(ours.path())), None);
        for (ca, own) in [(&others, Some(&ours)), (&ours, Some(&others)), (&ours, None)] {
            let own = own.map(tempfile::TempDir::path);
            let (code, says) = refused(ca.path(), own).expect("it is refused");
            assert!(code == "store-unavailable" && says.contains("connect to"), "{says}");
        }
    }

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

    /// Which server leads the stream of records.
    fn leader(options: &JetstreamOptions) -> usize {
        let name = with_client(options, async |context| {
            let stream = context.get_stream(&options.stream).await.unwrap();
            stream.cached_info().cluster.as_ref().and_then(|cluster| cluster.leader.clone())
        });
        name.and_then(|name| name.strip_prefix('n')?.parse().ok()).expect("a stream has a leader")
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
        assert_eq!(refusal(&hasty).code(), "store-unavailable");
        drop(store);
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
}
