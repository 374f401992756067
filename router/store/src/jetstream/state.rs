//! The bucket beside the log: who renews its lease, and the newest record that was seen.

use async_nats::jetstream::kv::{Store, UpdateErrorKind};
use bytes::Bytes;
use myelin_catalog::{CatalogError, ChainFault, Digest, Head};
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
    /// The newest beat of a lease.
    pub(super) async fn heard(&self, log: &Log, lease: &str) -> Result<Option<Heard>, StoreError> {
        let read = log.persist(|| self.read::<Beat>(log, lease_key(lease))).await?;
        Ok(read.map(|(revision, beat)| Heard { revision, beat }))
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

    /// Compares the log with the newest record that was noted: a log that ends before it has lost its end, which its own
    /// chain cannot show.
    pub(super) async fn examine(&self, log: &Log) -> Result<(), StoreError> {
        let Some((_, noted)) = log.persist(|| self.read::<Head>(log, WITNESS.into())).await? else { return Ok(()) };
        let broken = |rev, fault| {
            Err(StoreError::Catalog { place: log.place.clone(), source: CatalogError::ChainBroken { rev, fault } })
        };
        let head = log.head();
        match log.record(noted.rev).await? {
            _ if noted == Head::EMPTY => Ok(()),
            None => broken(head.rev + 1, ChainFault::Missing),
            Some(bytes) if Digest::of(&bytes) != noted.hash => broken(noted.rev, ChainFault::Hash),
            Some(_) => Ok(()),
        }
    }

    async fn read<T: DeserializeOwned>(&self, log: &Log, key: String) -> Result<Option<(u64, T)>, Trouble> {
        let read = self.0.entry(key.clone()).await;
        let entry = read.map_err(|e| Trouble::Passing(log.unavailable("read beside", e)))?;
        let Some(entry) = entry else { return Ok(None) };
        let value = serde_json::from_slice(&entry.value).map_err(|e| {
            let why = format!("key {key} of its bucket {} is not ours ({e}); remove that key", self.0.name);
            Trouble::Lasting(StoreError::Damaged { place: log.place.clone(), why })
        })?;
        Ok(Some((entry.revision, value)))
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
