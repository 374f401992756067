//! The store on NATS JetStream: one log that many routers append to.
//!
//! # What is where
//! * The stream `<stream>` has one message for each record, on the subject `<stream>.record`, and one for each time that
//!   a lease was given to a new holder, on `<stream>.lease`. Nothing is ever deleted from it, so that a record's
//!   sequence is its revision plus the number of leases given before it. That is checked for every message: a stream
//!   with a gap, with something else in it, or whose records are no chain is refused.
//! * The key-value bucket `<stream>_STATE` has the newest renewal of each lease, and the newest record that somebody saw
//!   acknowledged: a log that ends before it lost its end, and is refused.
//! * The object store `<stream>_BLOBS` has the modules, named by digest.
//!
//! # What is guaranteed
//! Every append names the stream's last sequence (`Nats-Expected-Last-Sequence`); the stream's Raft group accepts one of
//! those that name the same. So records have one order, each follows the one that it was made for, and an append under
//! a lease (see the module `leases`) never follows the grant of a later holder. An append that was answered is on the
//! disks of a majority if the servers sync before they answer; that is why opening wants to know. An answer that does
//! not come is asked for again: the same message can follow the same end once only. Where it stays unclear, the error is
//! `store-unavailable`, every further append is refused with `store-failed`, and who opens the log anew sees whether the
//! record is there. It may come even after that, if the servers had it all along and could not agree before; then it
//! meets another end of the stream, or it is a record like any other and others' appends are refused.
//!
//! A lease that another router holds is free once this one has seen no renewal for its whole time, by its own clock and
//! from its own first look. The name of a holder is an identity: who asks under the name of the present holder takes the
//! lease over at once, under a new term.
//!
//! Reads come from a stream's leader. A leader that has lost its majority may give an old head for some seconds; no
//! append can follow an old head, so this costs a refused append and nothing else.
//!
//! Everything runs on a thread of its own; every call has a deadline (`call_timeout_ms`), no operation tries anything
//! again after its patience (`patience_ms`), and every queue has a bound.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use myelin_catalog::{Digest, Head, Record};

use self::blobs::Blobs;
use self::leases::{Ask, Beat, Claim, Heard, Leases, lost};
use self::log::{Failure, Log};
pub use self::options::JetstreamOptions;
use self::state::{State, Written};
use self::tail::{Given, Grant, Kind, Tail};
use self::thread::Thread;
use crate::blobs::check_put;
use crate::control::{ControlLog, Fence, Watch};
use crate::error::StoreError;
use crate::leases::{check_request, refused};
use crate::store::{BlobStore, CatalogStore, Recovered, recover};

mod blobs;
mod connect;
mod fit;
mod follow;
mod fsync;
mod leases;
mod log;
mod options;
#[cfg(any(test, feature = "testing"))]
pub mod servers;
mod state;
mod tail;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod thread;

/// Tries of one request for a lease: each but the last was overtaken by somebody else's.
const CLAIMS_MAX: usize = 8;

/// The catalog on JetStream. Several may be open on one stream, in one process or in many.
pub struct JetstreamStore {
    shared: Arc<Shared>,
    leases: Leases,
    failed: bool,
    /// Last: what runs there ends before the rest is gone.
    thread: Thread,
}

struct Shared {
    log: Arc<Log>,
    state: State,
    blobs: Blobs,
}

impl JetstreamStore {
    /// Connects, makes the streams where they are not, and brings the store to where the log is. Streams that would lose
    /// records are refused, and a log that is not the one that was written; then nothing is touched.
    ///
    /// # Errors
    /// `store-unfit` for options and streams that do not fit, `store-unavailable` where no majority of the servers
    /// answers, and `chain-broken` or `store-damaged` for what the log has.
    pub fn open(options: &JetstreamOptions) -> Result<(Self, Recovered), StoreError> {
        options.check()?;
        let place = options.place();
        let thread = Thread::start().map_err(|e| no_thread(&place, &e))?;
        let wanted = options.clone();
        let opened = thread.run(async move { Box::pin(connect::open(&wanted)).await });
        let connect::Opened { log, state, blobs } = opened.ok_or_else(|| panicked(&place))??;
        let shared = Arc::new(Shared { log: Arc::new(log), state, blobs });
        let mut store = Self { shared, leases: Leases::default(), failed: false, thread };
        // The head stands still until all is read.
        let recovered = recover(&mut store)?;
        store.thread.spawn(follow::follow(store.shared.log.clone()));
        Ok((store, recovered))
    }

    /// Does `work` on the store's own thread.
    fn run<T, F>(&self, work: impl FnOnce(Arc<Shared>) -> F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        self.thread.run(work(self.shared.clone())).unwrap_or_else(|| Err(panicked(&self.place())))
    }

    /// Appends while the lease, where one is named, has that term in the stream.
    fn append_if(&mut self, record: &Record, fence: Option<Fence>) -> Result<Head, StoreError> {
        if self.failed {
            return Err(StoreError::Failed { place: self.place() });
        }
        let bytes = Bytes::from(record.encode());
        let follows = Head { rev: record.rev.saturating_sub(1), hash: record.prev_hash };
        let head = Head { rev: record.rev, hash: Digest::of(&bytes) };
        let is_first = record.rev == 0;
        let permit = move |tail: &Tail| {
            if let Some(fence) = &fence
                && tail.grant(&fence.name).is_none_or(|(term, _)| *term != fence.term)
            {
                return Err(lost(fence));
            }
            if is_first || tail.head() != follows {
                return Err(StoreError::HeadMoved { expected: follows.rev, found: tail.head().rev });
            }
            Ok(())
        };
        let work = move |shared: Arc<Shared>| async move {
            if permit(&shared.log.tail()).is_err() {
                // It may follow what we have not seen yet; and who is refused is told by how far it was overtaken.
                shared.log.catch_up().await?;
            }
            let committed = shared.log.commit(Kind::Record, bytes, permit).await;
            if committed.is_ok() {
                shared.state.testify(head).await;
            }
            Ok(committed)
        };
        match self.run(work)? {
            Ok(_) => Ok(head),
            Err(Failure::Refused(error)) => Err(error),
            Err(Failure::Unclear(error)) => {
                self.failed = true;
                Err(error)
            }
        }
    }

    /// The newest grant of a lease, with its term, and the newest beat.
    fn look(&self, lease: &str) -> Result<(Option<Given>, Option<Heard>), StoreError> {
        let lease = lease.to_owned();
        self.run(|shared| async move {
            shared.log.catch_up().await?;
            let heard = shared.state.heard(&shared.log, &lease).await?;
            let granted = shared.log.tail().grant(&lease).cloned();
            Ok((granted, heard))
        })
    }

    /// Writes a grant that follows the newest one of its lease; `None` where another was faster.
    fn grant(&self, ask: &Ask, newest: Option<u64>) -> Result<Option<u64>, StoreError> {
        let Ask { lease, holder, ttl_ms, .. } = ask.clone();
        let committed = self.run(move |shared| async move {
            let nonce = shared.log.context.client().new_inbox();
            let grant = Grant { lease: lease.clone(), holder, ttl_ms, nonce };
            let payload = serde_json::to_vec(&grant).expect("numbers and text have a form in JSON");
            let permit = |tail: &Tail| {
                let is_newest = tail.grant(&lease).map(|(term, _)| *term) == newest;
                // The error is not seen: it stands for having been overtaken.
                if is_newest { Ok(()) } else { Err(refused(&lease, "it was given to somebody else")) }
            };
            Ok(shared.log.commit(Kind::Grant, payload.into(), permit).await)
        })?;
        match committed {
            Ok(term) => Ok(Some(term)),
            Err(Failure::Refused(StoreError::LeaseRefused { .. })) => Ok(None),
            // One that lands later was given to nobody who knows of it: whoever asks next waits for it to run out.
            Err(Failure::Refused(error) | Failure::Unclear(error)) => Err(error),
        }
    }

    fn beat(&self, lease: &str, after: u64, beat: Beat) -> Result<Written, StoreError> {
        let lease = lease.to_owned();
        self.run(move |shared| async move { shared.state.beat(&shared.log, &lease, after, &beat).await })
    }
}

fn no_thread(place: &str, error: &io::Error) -> StoreError {
    StoreError::Unavailable { action: "start the thread of", place: place.into(), why: error.to_string() }
}

fn panicked(place: &str) -> StoreError {
    StoreError::Failed { place: place.into() }
}

impl CatalogStore for JetstreamStore {
    fn head(&self) -> Head {
        self.shared.log.head()
    }

    fn read_after(&self, rev: u64, limit: usize) -> Result<Vec<Vec<u8>>, StoreError> {
        self.run(|shared| async move { shared.log.read_after(rev, limit).await })
    }

    fn append(&mut self, record: &Record) -> Result<Head, StoreError> {
        self.append_if(record, None)
    }

    fn place(&self) -> String {
        self.shared.log.place.clone()
    }
}

impl ControlLog for JetstreamStore {
    fn lease(&mut self, name: &str, holder: &str, ttl_ms: u64, now_ms: u64) -> Result<Fence, StoreError> {
        check_request(name, holder, ttl_ms)?;
        if self.failed {
            return Err(StoreError::Failed { place: self.place() });
        }
        let asked = Instant::now();
        let later_ms = || now_ms.saturating_add(u64::try_from(asked.elapsed().as_millis()).unwrap_or(u64::MAX));
        let mut ask = Ask { lease: name.into(), holder: holder.into(), ttl_ms, now_ms };
        for _ in 0..CLAIMS_MAX {
            let (granted, heard) = self.look(name)?;
            if !self.shared.log.tail().has_room_for(name) {
                return Err(refused(name, "there are 16 leases in the log, which is the most; use one of those"));
            }
            let after = heard.as_ref().map_or(0, |heard| heard.revision);
            match self.leases.claim(&ask, granted.as_ref(), heard.as_ref())? {
                Claim::Renew { term } => {
                    let written = self.beat(name, after, Beat { term, ttl_ms, released: false })?;
                    if written == Written::Yes && self.leases.is_held_at(name, later_ms()) {
                        return Ok(self.leases.hold(&ask, term));
                    }
                }
                Claim::Take => {
                    if let Some(term) = self.grant(&ask, granted.map(|(term, _)| term))? {
                        // Without it others count from the grant itself.
                        if let Err(error) = self.beat(name, after, Beat { term, ttl_ms, released: false }) {
                            tracing::debug!(%error, "a lease was taken and its first renewal not written");
                        }
                        return Ok(self.leases.hold(&ask, term));
                    }
                }
            }
            if asked.elapsed() >= self.shared.log.patience {
                break;
            }
            ask.now_ms = later_ms();
        }
        Err(self.shared.log.unavailable("take a lease of", "others write to it all the time"))
    }

    fn release(&mut self, fence: &Fence) {
        if !self.leases.release(fence) {
            return;
        }
        let given_back = self.look(&fence.name).and_then(|(_, heard)| {
            let after = heard.map_or(0, |heard| heard.revision);
            self.beat(&fence.name, after, Beat { term: fence.term, ttl_ms: 1, released: true })
        });
        if let Err(error) = given_back {
            tracing::debug!(%error, "a lease was given back and others have to wait for its end");
        }
    }

    fn append_under(&mut self, fence: &Fence, now_ms: u64, record: &Record) -> Result<Head, StoreError> {
        self.leases.check(fence, now_ms)?;
        self.append_if(record, Some(fence.clone()))
    }

    fn newest(&self) -> Result<Head, StoreError> {
        self.run(|shared| async move {
            shared.log.catch_up().await?;
            Ok(shared.log.head())
        })
    }

    fn watch(&self) -> Watch {
        self.shared.log.announcer.watch()
    }
}

impl BlobStore for JetstreamStore {
    fn put(&mut self, digest: &Digest, bytes: &[u8]) -> Result<(), StoreError> {
        check_put(digest, bytes)?;
        let (digest, bytes) = (*digest, bytes.to_vec());
        self.run(move |shared| async move { shared.blobs.put(&shared.log, digest, &bytes).await })
    }

    fn blob(&self, digest: &Digest) -> Result<Vec<u8>, StoreError> {
        let digest = *digest;
        self.run(move |shared| async move { shared.blobs.read(&shared.log, digest).await })
    }

    fn blob_size_bytes(&self, digest: &Digest) -> Result<Option<u64>, StoreError> {
        let digest = *digest;
        self.run(move |shared| async move { shared.blobs.size_bytes(&shared.log, digest).await })
    }

    fn remove(&mut self, digest: &Digest) -> Result<bool, StoreError> {
        let digest = *digest;
        self.run(move |shared| async move { shared.blobs.remove(&shared.log, digest).await })
    }

    fn blobs(&self) -> Result<Vec<Digest>, StoreError> {
        self.run(|shared| async move { shared.blobs.list(&shared.log, Duration::ZERO).await })
    }

    fn collectable(&self) -> Result<Vec<Digest>, StoreError> {
        self.run(|shared| async move { shared.blobs.list(&shared.log, shared.blobs.orphan_age_min).await })
    }
}
