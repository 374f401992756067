//! What one server does.

use std::time::Instant;

use async_nats::jetstream::stream::{Config, DiscardPolicy, StorageType};
use futures_util::TryStreamExt as _;

use super::super::servers::{Server, Sync, with_client};
use super::super::testing::{Log, common_server, options, write_certificates};
use super::*;
use crate::conformance::Disk as _;

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
        config.subjects =
            config.subjects.iter().map(|subject| subject.replace("MORE", &format!("{}.x", options.stream))).collect();
        with_client(&options, async |context| drop(context.create_stream(config).await.unwrap()));
        let refused = refusal(&options);
        assert!(refused.code() == "store-unfit" && refused.to_string().contains(says), "{says}: {refused}");
    }
    let options = options(common_server().url("app"));
    drop(JetstreamStore::open(&options).unwrap());
    let strict = JetstreamOptions { allow_single_replica: false, replicas: 3, ..options };
    let refused = refusal(&strict).to_string();
    for stream in [&strict.stream, &format!("KV_{}_STATE", strict.stream), &format!("OBJ_{}_BLOBS", strict.stream)] {
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
fn an_old_upload_that_is_uploaded_again_is_young() {
    // An hour: half of it has not passed, so that nothing is written again. None: everything is.
    for (orphan_age_min_s, messages) in [(3_600, 2), (0, 4)] {
        let options = JetstreamOptions { orphan_age_min_s, ..options(common_server().url("app")) };
        let (mut store, _) = JetstreamStore::open(&options).unwrap();
        let digest = module("m@1.0.0").digest;
        store.put(&digest, b"m@1.0.0").unwrap();
        store.put(&digest, b"m@1.0.0").unwrap();
        let written = with_client(&options, async |context| {
            let stream = context.get_stream(format!("OBJ_{}", options.blob_bucket())).await.unwrap();
            stream.cached_info().state.last_sequence
        });
        assert_eq!(written, messages, "a chunk and an entry each time");
    }
}

#[test]
fn a_log_that_lost_its_end_is_taken_when_the_note_of_it_is_removed() {
    let log = Log::new();
    let (mut store, Recovered { mut catalog, .. }) = log.open().unwrap();
    let before = catalog.clone();
    change(&mut store, &mut catalog, added("m@1.0.0"));
    store.lease("rollout", "a", 60_000, 0).unwrap();
    drop(store);
    log.tamper_record(1, |_| None);
    let refused = refusal(&log.options);
    assert!(refused.code() == "chain-broken" && refused.to_string().contains("the log ends before it"), "{refused}");
    with_client(&log.options, async |context| {
        let state = context.get_key_value(log.options.state_bucket()).await.unwrap();
        for key in state.keys().await.unwrap().try_collect::<Vec<String>>().await.unwrap() {
            state.delete(key).await.unwrap();
        }
    });
    let (mut store, recovered) = log.open().unwrap();
    assert_eq!(recovered.catalog, before);
    let fence = store.lease("rollout", "a", 60_000, 0).unwrap();
    assert_eq!(store.lease("rollout", "a", 60_000, 1).unwrap(), fence, "its beats are written anew");
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
    assert!(refused.code() == "store-unfit" && says.contains("server alone answers before it has synced"), "{says}");
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
