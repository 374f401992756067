//! The log of records in redb: one table by revision, and the head beside it, changed in one transaction.

use std::io::{self, ErrorKind};

use myelin_catalog::{Digest, Head, Record};
use redb::{Builder, Database, ReadableDatabase, StorageBackend, TableDefinition};

use crate::control::{Announcer, Fence, Watch};
use crate::error::StoreError;
use crate::leases::Leases;

#[cfg(test)]
mod full_disk;
#[cfg(test)]
mod power_cut;

const RECORDS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("records");
const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
const HEAD: &str = "head";
const FORMAT: &str = "format";
/// The newest term of a lease. Not there in a log that never gave one.
const TERM: &str = "term";
/// The format of the tables above.
const FORMAT_KNOWN: u32 = 1;
/// A catalog is read once and appended to: it needs no cache to speak of.
const CACHE_SIZE_BYTES: usize = 4 * 1024 * 1024;

/// The log.
pub(crate) struct RedbLog {
    /// None while it could not be opened again.
    database: Option<Database>,
    place: String,
    head: Head,
    failed: bool,
    leases: Leases,
    term: u64,
    announcer: Announcer,
}

impl RedbLog {
    /// Writes an empty log into `backend`, which is empty. A crash on the way leaves what is no log: only when this
    /// has returned may the log get its name.
    pub(crate) fn begin(backend: impl StorageBackend, place: &str) -> Result<(), StoreError> {
        let begin = || -> Result<(), redb::Error> {
            let database = builder().create_with_backend(backend)?;
            let change = database.begin_write()?;
            change.open_table(RECORDS)?;
            {
                let mut meta = change.open_table(META)?;
                meta.insert(FORMAT, FORMAT_KNOWN.to_le_bytes().as_slice())?;
                meta.insert(HEAD, encode_head(&Head::EMPTY).as_slice())?;
            }
            change.commit()?;
            Ok(database.close()?)
        };
        begin().map_err(|e| failed(place, e))
    }

    /// Opens the log in `backend`.
    pub(crate) fn open(backend: impl StorageBackend, place: String) -> Result<Self, StoreError> {
        let database = builder().create_with_backend(backend).map_err(|e| failed(&place, e))?;
        let (leases, announcer) = (Leases::default(), Announcer::new(0));
        let database = Some(database);
        let mut log = Self { database, place, head: Head::EMPTY, failed: false, leases, term: 0, announcer };
        let [format, head, term] = log.meta().map_err(|e| failed(&log.place, e))?;
        match format.as_deref().map(|bytes| bytes.try_into().map(u32::from_le_bytes)) {
            Some(Ok(FORMAT_KNOWN)) => {}
            Some(Ok(found)) => return Err(StoreError::Format { place: log.place, found, known: FORMAT_KNOWN }),
            _ => return Err(log.damaged("its format is not readable")),
        }
        let head = head.as_deref().and_then(decode_head);
        log.head = head.ok_or_else(|| log.damaged("its head is not readable"))?;
        log.term = match term.as_deref().map(|bytes| bytes.try_into().map(u64::from_le_bytes)) {
            None => 0,
            Some(Ok(term)) => term,
            Some(Err(_)) => return Err(log.damaged("its newest term is not readable")),
        };
        log.announcer.announce(log.head.rev);
        Ok(log)
    }

    /// Opens the log anew after a write that failed, and tries whether it takes one now; what that write left is read. It
    /// refuses to append until [`RedbLog::resume`] says that the reader has what it has.
    pub(crate) fn reopen<B: StorageBackend>(
        &mut self,
        backend: impl FnOnce() -> Result<B, StoreError>,
    ) -> Result<(), StoreError> {
        self.failed = true;
        // The lock on its file goes with it.
        self.database = None;
        let Self { database, head, term, .. } = Self::open(backend()?, self.place.clone())?;
        // A disk that is still full lets others read at least.
        (self.database, self.head, self.term) = (database, head, self.term.max(term));
        self.announcer.announce(head.rev);
        self.try_keep_term(self.term).map_err(|e| failed(&self.place, e))
    }

    /// Appends again.
    pub(crate) fn resume(&mut self) {
        self.failed = false;
    }

    /// Whether a write failed, and it was not opened again since.
    pub(crate) fn has_failed(&self) -> bool {
        self.failed
    }

    fn database(&self) -> Result<&Database, redb::Error> {
        self.database.as_ref().ok_or_else(|| redb::Error::Io(io::Error::other("it could not be opened again yet")))
    }

    pub(crate) fn head(&self) -> Head {
        self.head
    }

    pub(crate) fn place(&self) -> String {
        self.place.clone()
    }

    pub(crate) fn read_after(&self, rev: u64, limit: usize) -> Result<Vec<Vec<u8>>, StoreError> {
        self.try_read_after(rev, limit).map_err(|e| failed(&self.place, e))
    }

    pub(crate) fn append(&mut self, record: &Record) -> Result<Head, StoreError> {
        if self.failed {
            return Err(StoreError::Failed { place: self.place.clone() });
        }
        let follows = Head { rev: record.rev.saturating_sub(1), hash: record.prev_hash };
        if record.rev == 0 || follows != self.head {
            return Err(StoreError::HeadMoved { expected: follows.rev, found: self.head.rev });
        }
        let bytes = record.encode();
        let head = Head { rev: record.rev, hash: Digest::of(&bytes) };
        match self.try_append(&head, &bytes) {
            Ok(()) => {
                self.head = head;
                self.announcer.announce(head.rev);
            }
            Err(e) => {
                self.failed = true;
                return Err(failed(&self.place, e));
            }
        }
        Ok(head)
    }

    pub(crate) fn lease(&mut self, name: &str, holder: &str, ttl_ms: u64, now_ms: u64) -> Result<Fence, StoreError> {
        if self.failed {
            return Err(StoreError::Failed { place: self.place.clone() });
        }
        let fence = self.leases.ask(name, holder, ttl_ms, now_ms, self.term)?;
        if fence.term > self.term {
            if let Err(e) = self.try_keep_term(fence.term) {
                self.failed = true;
                return Err(failed(&self.place, e));
            }
            self.term = fence.term;
        }
        self.leases.hold(&fence, holder, ttl_ms, now_ms);
        Ok(fence)
    }

    pub(crate) fn release(&mut self, fence: &Fence) {
        self.leases.release(fence);
    }

    pub(crate) fn append_under(&mut self, fence: &Fence, now_ms: u64, record: &Record) -> Result<Head, StoreError> {
        self.leases.check(fence, now_ms)?;
        self.append(record)
    }

    pub(crate) fn watch(&self) -> Watch {
        self.announcer.watch()
    }

    /// What is kept of the format, the head and the newest term.
    fn meta(&self) -> Result<[Option<Vec<u8>>; 3], redb::Error> {
        let meta = self.database()?.begin_read()?.open_table(META)?;
        let read = |key| -> Result<_, redb::Error> { Ok(meta.get(key)?.map(|value| value.value().to_vec())) };
        Ok([read(FORMAT)?, read(HEAD)?, read(TERM)?])
    }

    fn try_read_after(&self, rev: u64, limit: usize) -> Result<Vec<Vec<u8>>, redb::Error> {
        let Some(first) = rev.checked_add(1) else { return Ok(Vec::new()) };
        let records = self.database()?.begin_read()?.open_table(RECORDS)?;
        let mut page = Vec::new();
        for entry in records.range(first..)?.take(limit) {
            page.push(entry?.1.value().to_vec());
        }
        Ok(page)
    }

    fn try_append(&self, head: &Head, bytes: &[u8]) -> Result<(), redb::Error> {
        let change = self.database()?.begin_write()?;
        change.open_table(RECORDS)?.insert(head.rev, bytes)?;
        myelin_failpoint::reach("log-record-written");
        change.open_table(META)?.insert(HEAD, encode_head(head).as_slice())?;
        myelin_failpoint::reach("log-head-written");
        // Durability is immediate by default: it returns when the file is synced.
        change.commit()?;
        myelin_failpoint::reach("log-committed");
        Ok(())
    }

    fn try_keep_term(&self, term: u64) -> Result<(), redb::Error> {
        let change = self.database()?.begin_write()?;
        change.open_table(META)?.insert(TERM, term.to_le_bytes().as_slice())?;
        change.commit()?;
        myelin_failpoint::reach("log-term-kept");
        Ok(())
    }

    fn damaged(&self, why: &str) -> StoreError {
        StoreError::Damaged { place: self.place.clone(), why: why.into() }
    }

    /// Damages the log behind its own back.
    #[cfg(test)]
    pub(crate) fn tamper(&self, change: impl FnOnce(&mut redb::Table<'_, u64, &'static [u8]>)) {
        let transaction = self.database().expect("a test's database").begin_write().expect("a test's database");
        change(&mut transaction.open_table(RECORDS).expect("a test's table"));
        transaction.commit().expect("a test's change");
    }

    /// Writes another format, as a newer router would.
    #[cfg(test)]
    pub(crate) fn set_format(&self, format: u32) {
        let transaction = self.database().expect("a test's database").begin_write().expect("a test's database");
        let mut meta = transaction.open_table(META).expect("a test's table");
        meta.insert(FORMAT, format.to_le_bytes().as_slice()).expect("a test's change");
        drop(meta);
        transaction.commit().expect("a test's change");
    }
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    // The check turns damage into an error instead of a panic, at the price of reading a file of a few MiB.
    builder.set_cache_size(CACHE_SIZE_BYTES).set_check_integrity_on_open(true);
    builder
}

fn failed(place: &str, error: impl Into<redb::Error>) -> StoreError {
    let place = place.to_owned();
    match error.into() {
        redb::Error::Corrupted(why) => StoreError::Damaged { place, why },
        redb::Error::TableDoesNotExist(table) => StoreError::Damaged { place, why: format!("no table `{table}`") },
        // The second is a file that ends before it says it does.
        redb::Error::Io(e) if matches!(e.kind(), ErrorKind::InvalidData | ErrorKind::UnexpectedEof) => {
            StoreError::Damaged { place, why: e.to_string() }
        }
        other => StoreError::Database { place, source: Box::new(other) },
    }
}

fn encode_head(head: &Head) -> [u8; 40] {
    let mut bytes = [0; 40];
    bytes[..8].copy_from_slice(&head.rev.to_le_bytes());
    bytes[8..].copy_from_slice(head.hash.as_bytes());
    bytes
}

fn decode_head(bytes: &[u8]) -> Option<Head> {
    let (rev, hash) = bytes.split_first_chunk::<8>()?;
    Some(Head { rev: u64::from_le_bytes(*rev), hash: Digest::from_bytes(hash.try_into().ok()?) })
}
