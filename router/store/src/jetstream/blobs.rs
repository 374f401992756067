//! Modules in a JetStream object store, named by their digest.
//!
//! Written by the object store's own client; read chunk by chunk from the stream's leader, so that a chunk that is gone
//! is an error and not a wait, and what another router has just put is there.

use std::time::{Duration, Instant, SystemTime};

use async_nats::jetstream::object_store::{ObjectInfo, ObjectStore};
use async_nats::jetstream::stream::{RawMessageErrorKind, Stream};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use futures_util::{StreamExt as _, TryStreamExt as _};
use myelin_catalog::Digest;
use myelin_catalog::limits::MODULE_SIZE_MAX_BYTES;

use super::log::{Log, Trouble};
use crate::blobs::check_read;
use crate::error::StoreError;

/// Entries that are looked at at once.
const READS_IN_FLIGHT: usize = 16;

/// The bucket.
pub(super) struct Blobs {
    pub(super) bucket: ObjectStore,
    pub(super) stream: Stream,
    pub(super) name: String,
    pub(super) orphan_age_min: Duration,
}

/// What the bucket says of an object that is there.
struct Entry {
    info: ObjectInfo,
    /// By the servers' clock.
    at: SystemTime,
}

impl Blobs {
    /// Keeps bytes that were checked, unless they are there already. Those that may soon count as garbage are written
    /// again: their record is on the way now.
    pub(super) async fn put(&self, log: &Log, digest: Digest, bytes: &[u8]) -> Result<(), StoreError> {
        let entry = log.persist(|| self.entry(log, digest)).await?;
        let is_young = entry.is_some_and(|entry| age(&entry, SystemTime::now()) < self.orphan_age_min / 2);
        match self.read(log, digest).await {
            Ok(_) if is_young => return Ok(()),
            Ok(_) => {}
            Err(StoreError::BlobMissing { .. } | StoreError::BlobDamaged { .. }) => {}
            Err(error) => return Err(error),
        }
        // What a try left that failed is another object's chunks; the object has one name and its newest content.
        let put = || async move {
            let put = self.bucket.put(digest.to_string().as_str(), &mut &bytes[..]).await;
            put.map(|_| ()).map_err(|e| Trouble::Passing(log.unavailable("keep a module beside", e)))
        };
        log.persist(put).await
    }

    pub(super) async fn read(&self, log: &Log, digest: Digest) -> Result<Vec<u8>, StoreError> {
        let began = Instant::now();
        let Some(entry) = log.persist_since(began, || self.entry(log, digest)).await? else {
            return Err(StoreError::BlobMissing { digest });
        };
        let size_bytes = entry.info.size as u64;
        let nuid = &entry.info.nuid;
        if size_bytes > MODULE_SIZE_MAX_BYTES || !nuid.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            let why = format!("it says it has {size_bytes} bytes in chunks `{nuid}`");
            return Err(StoreError::BlobDamaged { digest, why });
        }
        let subject = format!("$O.{}.C.{nuid}", self.name);
        let (mut bytes, mut from) = (Vec::new(), 1);
        // Chunks have at least one byte, so that this ends.
        while (bytes.len() as u64) < size_bytes {
            let Some((at, chunk)) = log.persist_since(began, || self.chunk(log, &subject, from)).await? else { break };
            bytes.extend_from_slice(&chunk);
            from = at + 1;
            if chunk.is_empty() {
                break;
            }
        }
        check_read(&digest, bytes)
    }

    pub(super) async fn size_bytes(&self, log: &Log, digest: Digest) -> Result<Option<u64>, StoreError> {
        let entry = log.persist(|| self.entry(log, digest)).await?;
        Ok(entry.map(|entry| entry.info.size as u64))
    }

    pub(super) async fn remove(&self, log: &Log, digest: Digest) -> Result<bool, StoreError> {
        if log.persist(|| self.entry(log, digest)).await?.is_none() {
            return Ok(false);
        }
        let remove = || async move {
            let failed = |e: &dyn ToString| Trouble::Passing(log.unavailable("remove a module beside", e.to_string()));
            self.bucket.delete(digest.to_string()).await.map_err(|e| failed(&e))?;
            // The note that there was such an object, which would stay for ever.
            self.stream.purge().filter(self.entry_subject(digest)).await.map_err(|e| failed(&e))?;
            Ok(())
        };
        match log.persist(remove).await {
            Ok(()) => Ok(true),
            // A try before came further than it knew.
            Err(_) if log.persist(|| self.entry(log, digest)).await?.is_none() => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// The digests that there are bytes for, of at least that age.
    pub(super) async fn list(&self, log: &Log, age_min: Duration) -> Result<Vec<Digest>, StoreError> {
        log.persist(|| self.try_list(log, age_min)).await
    }

    async fn try_list(&self, log: &Log, age_min: Duration) -> Result<Vec<Digest>, Trouble> {
        let failed = |e: &dyn ToString| Trouble::Passing(log.unavailable("list the modules beside", e.to_string()));
        let prefix = format!("$O.{}.M.", self.name);
        let subjects = self.stream.info_with_subjects(format!("{prefix}>")).await.map_err(|e| failed(&e))?;
        let subjects: Vec<String> =
            subjects.map_ok(|(subject, _)| subject).try_collect().await.map_err(|e| failed(&e))?;
        // Objects that are not ours stay unseen, and so stay where they are.
        let digests = subjects.iter().filter_map(|subject| {
            let name = URL_SAFE.decode(subject.strip_prefix(&prefix)?).ok()?;
            String::from_utf8(name).ok()?.parse::<Digest>().ok()
        });
        let digests: Vec<Digest> = digests.collect();
        let look = |digest| async move { Ok((digest, self.entry(log, digest).await?)) };
        let looks = futures_util::stream::iter(digests).map(look).buffered(READS_IN_FLIGHT);
        let entries: Vec<(Digest, Option<Entry>)> = looks.try_collect().await?;
        let now = SystemTime::now();
        let is_old = |entry: &Entry| age(entry, now) >= age_min;
        let mut listed: Vec<Digest> =
            entries.iter().filter(|(_, entry)| entry.as_ref().is_some_and(is_old)).map(|(digest, _)| *digest).collect();
        listed.sort_unstable();
        Ok(listed)
    }

    /// What is there under that name; one that was removed is not.
    async fn entry(&self, log: &Log, digest: Digest) -> Result<Option<Entry>, Trouble> {
        let message = match self.stream.get_last_raw_message_by_subject(&self.entry_subject(digest)).await {
            Ok(message) => message,
            Err(e) if e.kind() == RawMessageErrorKind::NoMessageFound => return Ok(None),
            Err(e) => return Err(Trouble::Passing(log.unavailable("read a module beside", e))),
        };
        let info: ObjectInfo = serde_json::from_slice(&message.payload).map_err(|e| {
            let why = format!("its entry in bucket {} cannot be read: {e}", self.name);
            Trouble::Lasting(StoreError::BlobDamaged { digest, why })
        })?;
        Ok((!info.deleted).then(|| Entry { info, at: message.time.into() }))
    }

    /// The first chunk from a sequence on, with its sequence.
    async fn chunk(&self, log: &Log, subject: &str, from: u64) -> Result<Option<(u64, bytes::Bytes)>, Trouble> {
        match self.stream.get_first_raw_message_by_subject(subject, from).await {
            Ok(message) => Ok(Some((message.sequence, message.payload))),
            Err(e) if e.kind() == RawMessageErrorKind::NoMessageFound => Ok(None),
            Err(e) => Err(Trouble::Passing(log.unavailable("read a module beside", e))),
        }
    }

    fn entry_subject(&self, digest: Digest) -> String {
        format!("$O.{}.M.{}", self.name, URL_SAFE.encode(digest.to_string()))
    }
}

/// How long ago an entry was written; nothing where our clock is behind the servers'.
fn age(entry: &Entry, now: SystemTime) -> Duration {
    now.duration_since(entry.at).unwrap_or_default()
}
