//! What can happen only to servers.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use myelin_catalog::{Catalog, Op};

use super::*;
use crate::conformance::{change, module, upload};

mod with_nats_server;
mod with_nats_servers;

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
fn plaintext_leaves_the_machine_only_where_that_is_accepted() {
    let options = |url: &str, allow_plaintext| JetstreamOptions {
        urls: vec![url.into()],
        allow_plaintext,
        servers_sync_always: true,
        ..JetstreamOptions::default()
    };
    for fine in ["tls://nats.example", "nats://localhost:4222", "127.0.0.1", "nats://[::1]:4222", "nats://127.8.9.1"] {
        options(fine, false).check().unwrap();
    }
    for open in ["nats://user:secret@nats.example", "nats.example:4222", "nats://192.0.2.1"] {
        let refused = options(open, false).check().unwrap_err().to_string();
        assert!(refused.contains("`urls[0]`") && refused.contains("allow_plaintext = true"), "{refused}");
        assert!(!refused.contains("secret"), "{refused}");
        options(open, true).check().unwrap();
    }
    for wrong in ["wss://nats.example", "http://nats.example", "nats://:x", "tls://a:99999"] {
        let refused = options(wrong, true).check().unwrap_err().to_string();
        assert!(refused.contains("`urls[0]`"), "{wrong}: {refused}");
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
fn a_file_that_is_not_there_is_named() {
    let urls = vec!["nats://127.0.0.1:1".into()];
    let options = JetstreamOptions { urls, servers_sync_always: true, ..JetstreamOptions::default() };
    let refused = refusal(&JetstreamOptions { credentials: Some("/nowhere/user.creds".into()), ..options });
    assert!(refused.code() == "store-io" && refused.to_string().contains("read /nowhere/user.creds"), "{refused}");
}

#[test]
fn a_configuration_says_what_it_must_and_nothing_unknown() {
    let read = |text: &str| serde_json::from_str::<JetstreamOptions>(text);
    let options = read(r#"{ "urls": ["tls://a"], "stream": "S", "accept_lazy_fsync": true }"#).unwrap();
    options.check().unwrap();
    assert_eq!((options.replicas, options.allow_single_replica), (3, false));
    assert!(read(r#"{ "urls": [], "replica": 3 }"#).is_err());
}
