//! The bucket beside the log: who renews its lease, and the newest record that was seen.

use async_nats::jetstream::kv::{Operation, Store, UpdateErrorKind};
use bytes::Bytes;
use myelin_catalog::Head;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::leases::{Beat, Heard};
use super::log::{Log, Trouble};
use crate::error::StoreError;

const WITNESS: &str = "head";

/// What became of a beat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Written {
    /// It is there.
    Yes,
    /// Somebody else wrote meanwhile.
    Moved,
}

/// The bucket.
pub(super) struct State(pub(super) Store);

impl State {
    /// The newest beat of a lease, with its revision.
    pub(super) async fn heard(&self, log: &Log, lease: &str) -> Result<Option<Heard>, StoreError> {
        let read = log.persist(|| self.read::<Beat>(log, lease_key(lease))).await?;
        // Where somebody removed it, the revision counts all the same.
        let nothing = Beat { term: 0, ttl_ms: 1, released: false };
        Ok(read.map(|(revision, beat)| Heard { revision, beat: beat.unwrap_or(nothing) }))
    }

    /// Writes a beat after the one with that revision; 0 where there was none.
    pub(super) async fn beat(&self, log: &Log, lease: &str, after: u64, beat: &Beat) -> Result<Written, StoreError> {
        let value = encode(beat);
        match self.0.update(lease_key(lease), value, after).await {
            Ok(_) => Ok(Written::Yes),
            Err(e) if e.kind() == UpdateErrorKind::WrongLastRevision => Ok(Written::Moved),
            Err(e) => Err(log.unavailable("renew a lease of", e)),
        }
    }

    /// Notes the newest record, beside the log that it is in. Not being able to is no failure of the append.
    pub(super) async fn testify(&self, head: Head) {
        if let Err(error) = self.0.put(WITNESS, encode(&head)).await {
            tracing::warn!(%error, rev = head.rev, "the catalog's newest record is in its log and not noted beside it");
        }
    }

    /// The newest record that was noted: the log has it, or has lost its end.
    pub(super) async fn witness(&self, log: &Log) -> Result<Head, StoreError> {
        let noted = log.persist(|| self.read::<Head>(log, WITNESS.into())).await?;
        Ok(noted.and_then(|(_, head)| head).unwrap_or(Head::EMPTY))
    }

    async fn read<T: DeserializeOwned>(&self, log: &Log, key: String) -> Result<Option<(u64, Option<T>)>, Trouble> {
        let read = self.0.entry(key.clone()).await;
        let entry = read.map_err(|e| Trouble::Passing(log.unavailable("read beside", e)))?;
        let Some(entry) = entry else { return Ok(None) };
        if entry.operation != Operation::Put {
            return Ok(Some((entry.revision, None)));
        }
        let value = serde_json::from_slice(&entry.value).map_err(|e| {
            let why = format!("key {key} of its bucket {} is not ours ({e}); remove that key", self.0.name);
            Trouble::Lasting(StoreError::Damaged { place: log.place.clone(), why })
        })?;
        Ok(Some((entry.revision, Some(value))))
    }
}

fn encode(value: &impl Serialize) -> Bytes {
    serde_json::to_vec(value).expect("numbers and text have a form in JSON").into()
}

/// Keys of a bucket have fewer characters than names of leases.
fn lease_key(lease: &str) -> String {
    let digits: String = lease.bytes().map(|byte| format!("{byte:02x}")).collect();
    format!("lease.{digits}")
}
