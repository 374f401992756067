//! The store's twin in memory, with faults to order.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use myelin_catalog::{Digest, Head, Record};

use crate::blobs::{check_put, check_read};
use crate::control::{Announcer, ControlLog, Fence, Watch};
use crate::error::StoreError;
use crate::leases::Leases;
use crate::store::{BlobStore, CatalogStore, Recovered, recover};

/// What outlives a [`MemoryStore`], as a disk outlives a process. Clones are the same disk.
#[derive(Clone, Debug, Default)]
pub struct MemoryDisk(Arc<Mutex<Content>>);

/// A store in memory. Like a router's process, it is one of at most one at a time on its disk.
#[derive(Debug)]
pub struct MemoryStore {
    disk: MemoryDisk,
    failed: bool,
    leases: Leases,
    announcer: Announcer,
}

/// How the next write that it fits goes wrong. After a failed append the store refuses others until it is opened anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The next append fails, and nothing is written.
    AppendFails,
    /// The next append is cut in the middle: half of the record is written and was never promised.
    AppendTorn,
    /// The next append is written and the answer is lost.
    AppendUnanswered,
    /// The next blob fails, and nothing is written.
    PutFails,
    /// The next blob is cut in the middle: half of it is written aside and was never renamed.
    PutTorn,
}

#[derive(Debug, Default)]
struct Content {
    records: BTreeMap<u64, Vec<u8>>,
    head: Head,
    /// The newest term of a lease.
    term: u64,
    blobs: BTreeMap<Digest, Vec<u8>>,
    /// Bytes of writes that did not come to their end: gone at the next opening.
    torn: Vec<Vec<u8>>,
    faults: VecDeque<Fault>,
    open: bool,
}

impl MemoryDisk {
    /// An empty disk.
    pub fn new() -> Self {
        Self::default()
    }

    /// Orders a fault; faults of one kind of write happen in the order in which they were ordered.
    pub fn order(&self, fault: Fault) {
        self.content().faults.push_back(fault);
    }

    /// Changes the bytes of a record behind the store's back, or removes it where `change` gives `None`.
    pub fn tamper_record(&self, rev: u64, change: impl FnOnce(Vec<u8>) -> Option<Vec<u8>>) {
        let mut content = self.content();
        if let Some(bytes) = content.records.remove(&rev).and_then(change) {
            content.records.insert(rev, bytes);
        }
    }

    /// Changes the bytes of a blob behind the store's back, or removes it where `change` gives `None`.
    pub fn tamper_blob(&self, digest: &Digest, change: impl FnOnce(Vec<u8>) -> Option<Vec<u8>>) {
        let mut content = self.content();
        if let Some(bytes) = content.blobs.remove(digest).and_then(change) {
            content.blobs.insert(*digest, bytes);
        }
    }

    fn content(&self) -> MutexGuard<'_, Content> {
        // A panic elsewhere leaves the content as whole as a killed process leaves a disk.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MemoryStore {
    /// Opens the store on `disk`, and brings it back to where it was.
    pub fn open(disk: &MemoryDisk) -> Result<(Self, Recovered), StoreError> {
        {
            let mut content = disk.content();
            if content.open {
                return Err(StoreError::Locked { dir: "memory".into(), pid: Some(std::process::id()) });
            }
            content.open = true;
            content.torn.clear();
        }
        let announcer = Announcer::new(disk.content().head.rev);
        let mut store = Self { disk: disk.clone(), failed: false, leases: Leases::default(), announcer };
        let recovered = recover(&mut store)?;
        Ok((store, recovered))
    }

    /// The fault that was ordered next among `kinds`, where one was.
    fn fault(&self, kinds: &[Fault]) -> Option<Fault> {
        let mut content = self.disk.content();
        let at = content.faults.iter().position(|fault| kinds.contains(fault))?;
        content.faults.remove(at)
    }

    fn broken(&self) -> StoreError {
        let source = std::io::Error::other("a fault that was ordered");
        StoreError::Io { action: "write", path: "memory".into(), source }
    }
}

impl Drop for MemoryStore {
    fn drop(&mut self) {
        self.disk.content().open = false;
    }
}

impl CatalogStore for MemoryStore {
    fn head(&self) -> Head {
        self.disk.content().head
    }

    fn read_after(&self, rev: u64, limit: usize) -> Result<Vec<Vec<u8>>, StoreError> {
        let Some(first) = rev.checked_add(1) else { return Ok(Vec::new()) };
        Ok(self.disk.content().records.range(first..).take(limit).map(|(_, bytes)| bytes.clone()).collect())
    }

    fn append(&mut self, record: &Record) -> Result<Head, StoreError> {
        if self.failed {
            return Err(StoreError::Failed { place: self.place() });
        }
        let (follows, found) = (Head { rev: record.rev.saturating_sub(1), hash: record.prev_hash }, self.head());
        if record.rev == 0 || follows != found {
            return Err(StoreError::HeadMoved { expected: follows.rev, found: found.rev });
        }
        let bytes = record.encode();
        let fault = self.fault(&[Fault::AppendFails, Fault::AppendTorn, Fault::AppendUnanswered]);
        self.failed = fault.is_some();
        let mut content = self.disk.content();
        match fault {
            Some(Fault::AppendFails) => return Err(self.broken()),
            Some(Fault::AppendTorn) => {
                content.torn.push(bytes[..bytes.len() / 2].to_vec());
                return Err(self.broken());
            }
            _ => {}
        }
        content.head = Head { rev: record.rev, hash: Digest::of(&bytes) };
        content.records.insert(record.rev, bytes);
        if fault.is_some() {
            return Err(self.broken());
        }
        self.announcer.announce(content.head.rev);
        Ok(content.head)
    }

    fn place(&self) -> String {
        "memory".into()
    }
}

impl ControlLog for MemoryStore {
    fn lease(&mut self, name: &str, holder: &str, ttl_ms: u64, now_ms: u64) -> Result<Fence, StoreError> {
        if self.failed {
            return Err(StoreError::Failed { place: self.place() });
        }
        let newest = self.disk.content().term;
        let fence = self.leases.ask(name, holder, ttl_ms, now_ms, newest)?;
        self.disk.content().term = newest.max(fence.term);
        self.leases.hold(&fence, holder, ttl_ms, now_ms);
        Ok(fence)
    }

    fn release(&mut self, fence: &Fence) {
        self.leases.release(fence);
    }

    fn append_under(&mut self, fence: &Fence, now_ms: u64, record: &Record) -> Result<Head, StoreError> {
        self.leases.check(fence, now_ms)?;
        self.append(record)
    }

    fn watch(&self) -> Watch {
        self.announcer.watch()
    }
}

impl BlobStore for MemoryStore {
    fn put(&mut self, digest: &Digest, bytes: &[u8]) -> Result<(), StoreError> {
        check_put(digest, bytes)?;
        let fault = self.fault(&[Fault::PutFails, Fault::PutTorn]);
        let mut content = self.disk.content();
        match fault {
            Some(Fault::PutTorn) => content.torn.push(bytes[..bytes.len() / 2].to_vec()),
            Some(_) => {}
            None => {
                content.blobs.insert(*digest, bytes.to_vec());
                return Ok(());
            }
        }
        Err(self.broken())
    }

    fn blob(&self, digest: &Digest) -> Result<Vec<u8>, StoreError> {
        let bytes = self.disk.content().blobs.get(digest).cloned();
        check_read(digest, bytes.ok_or(StoreError::BlobMissing { digest: *digest })?)
    }

    fn blob_size_bytes(&self, digest: &Digest) -> Result<Option<u64>, StoreError> {
        Ok(self.disk.content().blobs.get(digest).map(|bytes| bytes.len() as u64))
    }

    fn remove(&mut self, digest: &Digest) -> Result<bool, StoreError> {
        Ok(self.disk.content().blobs.remove(digest).is_some())
    }

    fn blobs(&self) -> Result<Vec<Digest>, StoreError> {
        Ok(self.disk.content().blobs.keys().copied().collect())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use myelin_catalog::Op;

    use super::*;
    use crate::conformance::{change, module, upload};

    /// The store after one module, a fault, and a second module on the way.
    fn after(fault: Fault) -> (MemoryDisk, Result<Head, StoreError>, MemoryStore) {
        let disk = MemoryDisk::new();
        let (mut store, Recovered { mut catalog, .. }) = MemoryStore::open(&disk).unwrap();
        upload(&mut store, &mut catalog, "m@1.0.0");
        disk.order(fault);
        let second = module("m@2.0.0");
        let record = catalog.draft(Op::ModuleAdded { module: second.clone() }, "ada", 1).unwrap();
        let put = store.put(&second.digest, b"m@2.0.0");
        let answer = put.and_then(|()| store.append(&record));
        (disk, answer, store)
    }

    #[test]
    fn a_failed_append_leaves_the_state_before_or_after_and_nothing_between() {
        for (fault, rev, orphans) in
            [(Fault::AppendFails, 1, 1), (Fault::AppendTorn, 1, 1), (Fault::AppendUnanswered, 2, 0)]
        {
            let (disk, answer, mut store) = after(fault);
            assert_eq!(answer.unwrap_err().code(), "store-io");
            let follows = Record::after(&store.head(), Op::RolledBack { to: 0 }, "ada", 1);
            assert_eq!(store.append(&follows).unwrap_err().code(), "store-failed");
            drop(store);
            let (mut store, Recovered { mut catalog, orphans: found, missing }) = MemoryStore::open(&disk).unwrap();
            assert_eq!((catalog.head().rev, found, missing.len()), (rev, orphans, 0), "{fault:?}");
            upload(&mut store, &mut catalog, "m@3.0.0");
        }
    }

    #[test]
    fn a_failed_upload_leaves_no_bytes_and_the_log_goes_on() {
        for fault in [Fault::PutFails, Fault::PutTorn] {
            let (_disk, answer, mut store) = after(fault);
            assert_eq!(answer.unwrap_err().code(), "store-io");
            assert_eq!(store.blobs().unwrap(), [module("m@1.0.0").digest]);
            let mut catalog = recover(&mut store).unwrap().catalog;
            change(&mut store, &mut catalog, Op::ModuleRemoved { module: "m@1.0.0".parse().unwrap() });
        }
    }
}
