//! This router's copy of the log: what is written down here, and what was written elsewhere and is taken over.

use super::{Blame, WorldError};
use crate::audit::Audit;
use myelin_catalog::exchange::BLOB_PIECE_BYTES;
use myelin_catalog::limits::{HASHES_KEPT, PAGE_RECORDS_MAX};
use myelin_catalog::{Catalog, Digest, FollowFault, Follower, Head, Op, PublicKey, Record, SigningKey, Verified};
use myelin_store::{BlobStore, CatalogStore, ControlLog, DiskStore, Fence, StoreError};
use serde_bytes::ByteBuf;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bytes of records in one answer to a neighbour: what a record that is larger exceeds alone.
const PAGE_BYTES: usize = 1024 * 1024;

/// A module and its bytes.
type Recent = Option<(Digest, Arc<[u8]>)>;

/// The store, which the writer's thread and whoever answers neighbours share. It is held for one file operation at a
/// time.
#[derive(Clone)]
pub(super) struct Shelf {
    store: Arc<Mutex<Option<DiskStore>>>,
    /// The module that was asked for last, until its last piece is given: each reading checks all of it.
    recent: Arc<Mutex<Recent>>,
}

impl Shelf {
    pub(super) fn new(store: DiskStore) -> Self {
        Self { store: Arc::new(Mutex::new(Some(store))), recent: Arc::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Option<DiskStore>> {
        // A store in which an operation failed half-way refuses by itself.
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes the store: its directory is free for the next start, whoever still holds a shelf.
    pub(super) fn close(&self) {
        self.lock().take();
        myelin_failpoint::reach("end-closed");
    }

    /// Works on the store.
    fn with<T>(&self, work: impl FnOnce(&mut DiskStore) -> Result<T, StoreError>) -> Result<T, WorldError> {
        let mut shelf = self.lock();
        let store = shelf.as_mut().ok_or_else(WorldError::stopped)?;
        work(store).map_err(store_error)
    }

    /// The bytes of a module.
    pub(super) fn blob(&self, digest: &Digest) -> Result<Vec<u8>, WorldError> {
        self.with(|store| store.blob(digest))
    }

    /// Whether there are bytes of that length for a module; what they are is checked when they are read.
    pub(super) fn has_blob(&self, digest: &Digest, size_bytes: u64) -> bool {
        matches!(self.with(|store| store.blob_size_bytes(digest)), Ok(Some(found)) if found == size_bytes)
    }

    /// Keeps the bytes of a module.
    pub(super) fn put(&self, digest: &Digest, bytes: &[u8]) -> Result<(), WorldError> {
        self.with(|store| store.put(digest, bytes))
    }

    /// A piece of a module's bytes, and how many there are in all.
    pub(super) fn piece(&self, digest: &Digest, offset: u64) -> Result<(u64, Vec<u8>), WorldError> {
        let bytes = self.recent(digest)?;
        let rest = usize::try_from(offset).ok().and_then(|offset| bytes.get(offset..)).ok_or_else(|| {
            let message = format!("module digest {digest} has {} bytes, so that none are at {offset}", bytes.len());
            WorldError::new(Blame::Request, "invalid-offset", message)
        })?;
        if rest.len() <= BLOB_PIECE_BYTES {
            self.lock_recent().take_if(|(known, _)| known == digest);
        }
        Ok((bytes.len() as u64, rest[..rest.len().min(BLOB_PIECE_BYTES)].to_vec()))
    }

    /// A module's bytes, read once for all pieces that are asked for in turn.
    fn recent(&self, digest: &Digest) -> Result<Arc<[u8]>, WorldError> {
        if let Some((_, bytes)) = self.lock_recent().as_ref().filter(|(known, _)| known == digest) {
            return Ok(bytes.clone());
        }
        let bytes: Arc<[u8]> = self.blob(digest)?.into();
        *self.lock_recent() = Some((*digest, bytes.clone()));
        Ok(bytes)
    }

    fn lock_recent(&self) -> MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The records after `rev`, as many as go into one answer, and where the log ends.
    pub(super) fn page(&self, rev: u64) -> Result<(Head, Vec<ByteBuf>), WorldError> {
        let (head, records) = self.with(|store| Ok((store.head(), store.read_after(rev, PAGE_RECORDS_MAX)?)))?;
        let mut bytes = 0;
        let fits = records.into_iter().enumerate().map_while(|(place, record)| {
            bytes += record.len();
            (place == 0 || bytes <= PAGE_BYTES).then(|| ByteBuf::from(record))
        });
        Ok((head, fits.collect()))
    }
}

/// The log as this router has it, with the catalog that it adds up to.
pub(super) struct Log {
    shelf: Shelf,
    copy: Follower,
    key: Option<SigningKey>,
    audit: Audit,
    /// Records that this router is about to append to a log elsewhere for another one, oldest first, and for which.
    handed_in: VecDeque<(Digest, String)>,
}

/// Records that are on their way for others, or were overtaken: what is forgotten is only for whom one was written.
const HANDED_IN_MAX: usize = 64;

impl Log {
    /// The log in `shelf`, which adds up to `catalog`; records that are written here are signed with `key`.
    ///
    /// # Errors
    /// When the log begins with another key than `root`.
    pub(super) fn resume(
        shelf: Shelf,
        catalog: Catalog,
        root: Option<PublicKey>,
        key: Option<SigningKey>,
        audit: Audit,
    ) -> Result<Self, WorldError> {
        let before = catalog.head().rev.saturating_sub(HASHES_KEPT as u64);
        let tail = shelf.with(|store| store.read_after(before, HASHES_KEPT))?;
        let copy = Follower::resume(catalog, root, &tail).map_err(|fault| follow_error(&fault))?;
        audit.resume(copy.catalog().head().rev);
        Ok(Self { shelf, copy, key, audit, handed_in: VecDeque::new() })
    }

    /// What the log adds up to.
    pub(super) fn catalog(&self) -> &Catalog {
        self.copy.catalog()
    }

    /// The copy, to compare with the heads of others.
    pub(super) fn copy(&self) -> &Follower {
        &self.copy
    }

    /// The key that signs what is written here.
    pub(super) fn key(&self) -> Option<&SigningKey> {
        self.key.as_ref()
    }

    pub(super) fn shelf(&self) -> &Shelf {
        &self.shelf
    }

    /// Whether records are signed: from the first key on.
    fn is_signed(&self, op: &Op) -> bool {
        self.catalog().keys().root().is_some() || matches!(op, Op::KeyTrusted { .. })
    }

    /// The record that makes this change.
    ///
    /// # Errors
    /// When the change cannot be made, or this router has no key and the log wants signatures.
    pub(super) fn draft(&self, op: Op, actor: &str, now_unix_ms: u64) -> Result<Record, WorldError> {
        let drafted = match self.key.as_ref().filter(|_| self.is_signed(&op)) {
            Some(key) => self.catalog().draft_signed(op, actor, now_unix_ms, key),
            None => self.catalog().draft(op, actor, now_unix_ms),
        };
        Ok(drafted?)
    }

    /// Writes a record down, then lets it count; `via` is where it came from, for the audit log.
    pub(super) fn keep(&mut self, record: &Record, via: Option<String>) -> Result<(), WorldError> {
        self.keep_by(record, via, |store| store.append(record))
    }

    /// The same, as long as a lease is held.
    pub(super) fn keep_under(&mut self, fence: &Fence, now_ms: u64, record: &Record) -> Result<(), WorldError> {
        self.keep_by(record, None, |store| store.append_under(fence, now_ms, record))
    }

    fn keep_by(
        &mut self,
        record: &Record,
        via: Option<String>,
        append: impl FnOnce(&mut DiskStore) -> Result<Head, StoreError>,
    ) -> Result<(), WorldError> {
        let page = [record.encode()];
        let verified = self.copy.verify(&page).map_err(|fault| follow_error(&fault))?;
        myelin_failpoint::reach("record-verified");
        self.shelf.with(append)?;
        let gone = self.unneeded(std::slice::from_ref(record));
        self.copy.adopt(verified).map_err(|fault| follow_error(&fault))?;
        myelin_failpoint::reach("record-adopted");
        self.audit.record(record, via);
        myelin_failpoint::reach("record-audited");
        self.discard(&gone);
        Ok(())
    }

    /// This router appends `record` elsewhere, for the one in `via`: when it comes from there it is told so in the audit log.
    pub(super) fn expect(&mut self, record: &Record, via: String) {
        if self.handed_in.len() >= HANDED_IN_MAX {
            self.handed_in.pop_front();
        }
        self.handed_in.push_back((record.hash(), via));
    }

    /// The right to write as `holder`, for the next `ttl_ms`.
    pub(super) fn lease(&self, name: &str, holder: &str, ttl_ms: u64, now_ms: u64) -> Result<Fence, WorldError> {
        self.shelf.with(|store| store.lease(name, holder, ttl_ms, now_ms))
    }

    /// Takes over records that were written elsewhere: all that are new and right, or none.
    ///
    /// # Errors
    /// What is wrong with them; `catalog-fork` is an alarm.
    pub(super) fn take(&mut self, page: &[ByteBuf]) -> Result<Vec<Record>, WorldError> {
        let verified = self.copy.verify(page).map_err(|fault| follow_error(&fault))?;
        for record in verified.accepted().encoded {
            self.shelf.with(|store| store.append_encoded(record))?;
        }
        self.adopt(verified)
    }

    /// Whether a write failed, so that no record is kept before the store is opened again.
    pub(super) fn has_failed(&self) -> bool {
        self.shelf.with(|store| Ok(store.has_failed())).unwrap_or(false)
    }

    /// Opens the store again after a write that failed; gives the records that it has beyond those known here. Whoever asked
    /// for one was told that it failed, as nobody knew: it counts, as it would after a restart.
    ///
    /// # Errors
    /// When that is not possible yet, or it is not the log that it was; then it is as it was before.
    pub(super) fn reopen(&mut self) -> Result<Vec<Record>, WorldError> {
        let head = self.shelf.with(DiskStore::reopen)?;
        let known = self.catalog().head();
        let mut records = Vec::new();
        if head != known {
            let page = self.shelf.with(|store| store.read_after(known.rev, PAGE_RECORDS_MAX))?;
            let page: Vec<_> = page.into_iter().map(ByteBuf::from).collect();
            let verified = self.copy.verify(&page).map_err(|fault| follow_error(&fault))?;
            records = self.adopt(verified)?;
        }
        if self.catalog().head() != head {
            let message = format!(
                "the log on the disk ends at revision {} and the one that was written at {}; restart the router",
                head.rev,
                self.catalog().head().rev
            );
            return Err(WorldError::new(Blame::Router, "store-damaged", message));
        }
        self.shelf.with(|store| {
            store.resume();
            Ok(())
        })?;
        Ok(records)
    }

    /// Lets records count that are written down.
    fn adopt(&mut self, verified: Verified<'_, ByteBuf>) -> Result<Vec<Record>, WorldError> {
        let gone = self.unneeded(&verified.accepted().records);
        let accepted = self.copy.adopt(verified).map_err(|fault| follow_error(&fault))?;
        let records = accepted.records;
        for record in &records {
            let place = self.handed_in.iter().position(|(hash, _)| *hash == record.hash());
            let via = place.and_then(|place| self.handed_in.remove(place)).map(|(_, via)| via);
            self.audit.record(record, via);
        }
        self.discard(&gone);
        Ok(records)
    }

    /// The bytes of modules that `records` remove.
    fn unneeded(&self, records: &[Record]) -> Vec<Digest> {
        let removed = records.iter().filter_map(|record| match &record.op {
            Op::ModuleRemoved { module } => self.catalog().module(module).map(|module| module.digest),
            _ => None,
        });
        removed.collect()
    }

    fn discard(&self, digests: &[Digest]) {
        for digest in digests.iter().filter(|digest| !self.catalog().needs_blob(digest)) {
            if let Err(error) = self.shelf.with(|store| store.remove(digest)) {
                // The next start collects what no module names.
                tracing::warn!(%error, "the bytes of a removed module stay for now");
            }
        }
    }
}

pub(super) fn store_error(error: StoreError) -> WorldError {
    WorldError::new(Blame::Router, error.code(), error.to_string())
}

pub(super) fn follow_error(fault: &FollowFault) -> WorldError {
    match fault {
        FollowFault::Record(refused) => refused.clone().into(),
        fault => WorldError::new(Blame::Router, fault.code(), fault.to_string()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::*;

    #[test]
    fn a_record_of_which_nobody_knew_whether_it_was_written_counts_when_the_store_is_opened_again() {
        let folder = tempfile::tempdir().unwrap();
        let audit = Audit::open(&folder.path().join("audit"), 1 << 20).unwrap();
        let (store, recovered) = DiskStore::open(folder.path()).unwrap();
        let shelf = Shelf::new(store);
        let mut log = Log::resume(shelf.clone(), recovered.catalog, None, None, audit).unwrap();
        let add = |name: &str| Op::SiteAdded {
            name: name.parse().unwrap(),
            region: "eu".parse().unwrap(),
            cloud: "own".parse().unwrap(),
        };
        let first = log.draft(add("a"), "ops", 1).unwrap();
        log.keep(&first, None).unwrap();
        assert!(!log.has_failed() && log.reopen().unwrap().is_empty(), "all of it is known");

        // It is on the disk, and whoever wrote it was told that it failed.
        let second = log.draft(add("b"), "ops", 2).unwrap();
        shelf.with(|store| store.append(&second)).unwrap();
        assert_eq!(log.catalog().head().rev, 1);
        assert_eq!(log.reopen().unwrap(), [second]);
        let third = log.draft(add("c"), "ops", 3).unwrap();
        log.keep(&third, None).unwrap();
        assert_eq!(log.catalog().fleet().sites().len(), 3);
        shelf.close();
        assert_eq!(DiskStore::open(folder.path()).unwrap().1.catalog.head().rev, 3);
    }

    #[test]
    fn the_pieces_of_a_module_are_the_module() {
        let folder = tempfile::tempdir().unwrap();
        let shelf = Shelf::new(DiskStore::open(folder.path()).unwrap().0);
        let bytes: Vec<u8> = (0..=250).cycle().take(2 * BLOB_PIECE_BYTES + 7).collect();
        let digest = Digest::of(&bytes);
        shelf.put(&digest, &bytes).unwrap();
        let mut got = Vec::new();
        while got.len() < bytes.len() {
            let (size_bytes, piece) = shelf.piece(&digest, got.len() as u64).unwrap();
            assert!(size_bytes == bytes.len() as u64 && !piece.is_empty() && piece.len() <= BLOB_PIECE_BYTES);
            got.extend(piece);
        }
        assert!(got == bytes);
        assert!(shelf.lock_recent().is_none(), "nothing is held once the last piece is given");
        assert_eq!(shelf.piece(&digest, bytes.len() as u64 + 1).unwrap_err().code, "invalid-offset");
        shelf.close();
        assert_eq!(shelf.piece(&Digest::of(b"other"), 0).unwrap_err().code, "stopping");
    }
}
