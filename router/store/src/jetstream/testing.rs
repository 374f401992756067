//! What the tests of the store do with servers.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};

use async_nats::HeaderMap;
use myelin_catalog::Digest;

use super::servers::{Server, Sync, with_client};
use super::{JetstreamOptions, JetstreamStore};
use crate::conformance::{Damage, Disk};
use crate::error::StoreError;
use crate::store::Recovered;

/// One server for all tests of a process; each has a stream of its own there.
pub(crate) fn common_server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| Server::alone(Sync::Always))
}

/// Options for one server.
pub(crate) fn options(url: String) -> JetstreamOptions {
    static STREAMS: AtomicUsize = AtomicUsize::new(0);
    JetstreamOptions {
        urls: vec![url],
        stream: format!("T{}", STREAMS.fetch_add(1, Ordering::Relaxed)),
        replicas: 1,
        allow_single_replica: true,
        servers_sync_always: true,
        orphan_age_min_s: 0,
        ..JetstreamOptions::default()
    }
}

/// Writes an authority and what it signed into a folder: `ca.pem`, and `.pem` and `.key` of `server` and `router`.
pub(crate) fn write_certificates(folder: &Path) {
    let write = |name: String, text: String| std::fs::write(folder.join(name), text).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let mut authority = rcgen::CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    write("ca.pem".into(), authority.self_signed(&key).unwrap().pem());
    let issuer = rcgen::Issuer::new(authority, key);
    for name in ["server", "router"] {
        let key = rcgen::KeyPair::generate().unwrap();
        let leaf = rcgen::CertificateParams::new(vec!["127.0.0.1".into()]).unwrap();
        write(format!("{name}.pem"), leaf.signed_by(&key, &issuer).unwrap().pem());
        write(format!("{name}.key"), key.serialize_pem());
    }
}

/// A log on the common server, for the conformance suite.
pub(crate) struct Log {
    pub(crate) options: JetstreamOptions,
    /// Which revisions the messages were written with, where some were tampered with.
    revs: Mutex<Option<Vec<u64>>>,
}

impl Log {
    pub(crate) fn new() -> Self {
        Self { options: options(common_server().url("app")), revs: Mutex::new(None) }
    }
}

impl Disk for Log {
    type Store = JetstreamStore;

    fn open(&self) -> Result<(JetstreamStore, Recovered), StoreError> {
        JetstreamStore::open(&self.options)
    }

    /// Nothing can be changed in such a stream: it is made anew.
    fn tamper_record(&self, rev: u64, change: Damage) {
        let mut revs = self.revs.lock().unwrap();
        with_client(&self.options, async |context| {
            let stream = context.get_stream(&self.options.stream).await.unwrap();
            let info = stream.cached_info();
            let mut messages = Vec::new();
            for sequence in 1..=info.state.last_sequence {
                let message = stream.get_raw_message(sequence).await.unwrap();
                messages.push((message.subject, message.payload.to_vec()));
            }
            let is_record = |subject: &str| subject.ends_with(".record");
            let records = messages.iter().filter(|(subject, _)| is_record(subject)).count() as u64;
            let revs = revs.get_or_insert_with(|| (1..=records).collect());
            let nth = revs.iter().position(|written| *written == rev).unwrap();
            let places: Vec<usize> = (0..messages.len()).filter(|n| is_record(&messages[*n].0)).collect();
            match change(messages[places[nth]].1.clone()) {
                Some(bytes) => messages[places[nth]].1 = bytes,
                None => {
                    messages.remove(places[nth]);
                    revs.remove(nth);
                }
            }
            context.delete_stream(&self.options.stream).await.unwrap();
            context.create_stream(info.config.clone()).await.unwrap();
            for (subject, payload) in messages {
                let sent = context.publish_with_headers(subject, HeaderMap::new(), payload.into()).await;
                sent.unwrap().await.unwrap();
            }
        });
    }

    fn tamper_blob(&self, digest: &Digest, change: Damage) {
        let name = digest.to_string();
        with_client(&self.options, async |context| {
            let bucket = context.get_object_store(self.options.blob_bucket()).await.unwrap();
            let mut bytes = Vec::new();
            let mut object = bucket.get(&name).await.unwrap();
            tokio::io::AsyncReadExt::read_to_end(&mut object, &mut bytes).await.unwrap();
            match change(bytes) {
                Some(bytes) => drop(bucket.put(name.as_str(), &mut bytes.as_slice()).await.unwrap()),
                None => bucket.delete(&name).await.unwrap(),
            }
        });
    }
}
