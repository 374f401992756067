//! The log as the control plane of a mesh needs it: copies of records that were signed elsewhere, leases, and a hint
//! that it grew.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use myelin_catalog::{Head, Record};

use crate::error::StoreError;
use crate::store::CatalogStore;

/// A log that routers share: [`CatalogStore`] is its head, its pages and its compare-and-set append, and this is the
/// rest. Every engine passes the same conformance suite.
///
/// Whoever drives a rollout holds a lease and appends under it. The time of a lease is the caller's monotonic clock,
/// which ends with the process; what outlives it is the *term*, which grows with every new holder. An append under a
/// lease names its term: a controller that was stopped, woke up and believes that it still holds the lease writes
/// nothing.
///
/// Where several routers share a log, a term is kept in the log itself, so that no append of an earlier holder can land
/// behind the grant of a later one; when another router may ask with success is the engine's to say.
pub trait ControlLog: CatalogStore {
    /// Appends a record that was written elsewhere, byte for byte. Signature and change are checked before, by a
    /// `Follower`; here, that it is a record in its one encoding and that it follows the head.
    fn append_encoded(&mut self, bytes: &[u8]) -> Result<Head, StoreError> {
        // There is one encoding of each record and `decode` refuses every other: what is appended are these bytes.
        let read = Record::decode(bytes);
        let record = read.map_err(|source| StoreError::Catalog { place: self.place(), source })?;
        self.append(&record)
    }

    /// Gives the lease of that name to `holder` for `ttl_ms`, or lengthens it where `holder` has it. The term stays
    /// the same as long as the lease never ran out.
    ///
    /// # Errors
    /// `lease-held` while somebody else has it.
    fn lease(&mut self, name: &str, holder: &str, ttl_ms: u64, now_ms: u64) -> Result<Fence, StoreError>;

    /// Gives a lease back before its time. Where it has passed on already nothing happens.
    fn release(&mut self, fence: &Fence);

    /// Appends as [`CatalogStore::append`] does, but only while the lease is held.
    ///
    /// # Errors
    /// `lease-lost`, and all of [`CatalogStore::append`].
    fn append_under(&mut self, fence: &Fence, now_ms: u64, record: &Record) -> Result<Head, StoreError>;

    /// Where the log ends now. Where others append to the same log this asks for what they have appended; the head of
    /// this handle moves there.
    fn newest(&self) -> Result<Head, StoreError> {
        Ok(self.head())
    }

    /// Who waits here is woken when the log grows. A hint: whoever must not miss a record looks at the head now and
    /// then all the same.
    fn watch(&self) -> Watch;
}

/// The right to append under a lease.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Fence {
    /// The lease.
    pub name: String,
    /// Its term.
    pub term: u64,
}

/// Waits for a log to grow. Clones wait for the same log.
#[derive(Clone, Debug)]
pub struct Watch(Arc<Shared>);

/// What a store keeps to wake whoever watches it; they are woken as well when it is closed.
#[derive(Debug)]
pub(crate) struct Announcer(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    seen: Mutex<Seen>,
    moved: Condvar,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    rev: u64,
    is_closed: bool,
}

impl Shared {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        // A panic elsewhere leaves whole values.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watch {
    /// The newest revision.
    pub fn rev(&self) -> u64 {
        self.0.seen().rev
    }

    /// Whether the store is closed: there will be no more records.
    pub fn is_closed(&self) -> bool {
        self.0.seen().is_closed
    }

    /// Waits until the log has a record after `rev`, is closed, or `timeout` has passed, and says the newest revision.
    pub fn wait_past(&self, rev: u64, timeout: Duration) -> u64 {
        let waits = |seen: &mut Seen| seen.rev <= rev && !seen.is_closed;
        let waited = self.0.moved.wait_timeout_while(self.0.seen(), timeout, waits);
        waited.unwrap_or_else(PoisonError::into_inner).0.rev
    }
}

impl Announcer {
    /// For a log that ends with `rev`.
    pub(crate) fn new(rev: u64) -> Self {
        let seen = Mutex::new(Seen { rev, is_closed: false });
        Self(Arc::new(Shared { seen, moved: Condvar::new() }))
    }

    /// The log ends with `rev` now. One that comes late, behind a newer one, changes nothing.
    pub(crate) fn announce(&self, rev: u64) {
        let mut seen = self.0.seen();
        seen.rev = seen.rev.max(rev);
        drop(seen);
        self.0.moved.notify_all();
    }

    pub(crate) fn watch(&self) -> Watch {
        Watch(self.0.clone())
    }
}

impl Drop for Announcer {
    fn drop(&mut self) {
        self.0.seen().is_closed = true;
        self.0.moved.notify_all();
    }
}
