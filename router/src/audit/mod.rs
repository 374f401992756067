//! The audit log: who did what, when and from where, and what became of it.
//!
//! Every router keeps its own, append-only and chained by hashes ([`chain`]), in segments of lines ([`files`]). One thread
//! writes: a request that changes something is answered once its entry is on the disk. Other routers remember where the
//! log ended ([`witness`]), so that one that was written anew is noticed.

mod chain;
mod counted;
mod files;
mod witness;

pub use chain::{Entry, Fault, Head, Kind, LINE_BYTES_MAX, Note, Verified, verify, verify_noted};
pub use files::{is_log, lines};
pub(crate) use witness::FORK;
pub use witness::{Seen, Testimony, Witness};

use arc_swap::ArcSwap;
use counted::Counts;
use files::{Book, Found};
use myelin_catalog::Record;
use myelin_policy::Action;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::sync::oneshot;
use tokio::time::Instant;
use utoipa::ToSchema;

/// The folder of the log in the data directory.
pub const FOLDER: &str = "audit";
/// Notes that wait to be written: requests and records wait for a place beyond. What is counted takes none.
const WAITING_MAX: usize = 1_024;
/// How long a record waits between two looks for a place: a sync takes about as long.
const PLACE_PAUSE: Duration = Duration::from_millis(1);
/// So often at most: a second, after which the disk hangs and the catalog is not to hang with it.
const PLACE_PAUSES_MAX: u32 = 1_000;
/// Notes that are written and synced together.
const BATCH_MAX: usize = 64;
/// A time that never comes, for when nothing is counted.
const NEVER: Duration = Duration::from_secs(24 * 60 * 60);

/// A handle to the log: cheap to clone.
#[derive(Clone, Debug)]
pub struct Audit {
    items: mpsc::Sender<Item>,
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    folder: PathBuf,
    head: ArcSwap<Head>,
    counts: Counts,
    written: AtomicU64,
    lost: AtomicU64,
    /// The revision of the newest record of the catalog that the log had when it was opened.
    rev: u64,
    /// What the log held of other routers.
    seen: Vec<Entry>,
}

/// How the log does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Figures {
    /// Entries that were written since the start.
    pub written: u64,
    /// Notes that were not: too many at once, or the disk refused them.
    pub lost: u64,
}

/// A note, and whom to tell when it is on the disk.
type Item = (Note, Option<oneshot::Sender<()>>);

impl Audit {
    /// Opens the log in `data_dir`, which takes about `bytes_max` on the disk, and starts the thread that writes it.
    ///
    /// # Errors
    /// When it cannot be read or written.
    pub fn open(data_dir: &Path, bytes_max: u64) -> io::Result<Self> {
        let folder = data_dir.join(FOLDER);
        let (book, found) = Book::open(&folder, bytes_max)?;
        let Found { torn_bytes, fault, entries } = found;
        let rev = entries.iter().rev().find_map(|entry| entry.note.rev).unwrap_or(0);
        let seen = witness::remembered(lines(&folder, 0)?)?;
        let (written, lost, counts) = (AtomicU64::new(0), AtomicU64::new(0), Counts::default());
        let state = State { folder, head: ArcSwap::from_pointee(book.head()), counts, written, lost, rev, seen };
        let state = Arc::new(state);
        let (items, queue) = mpsc::channel(WAITING_MAX);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        let keeper = Keeper { book, state: state.clone() };
        thread::Builder::new().name("audit".into()).spawn(move || runtime.block_on(keeper.run(queue)))?;
        let audit = Self { items, state };
        let mut start = Note::new(Kind::Router, "-", "start", "ok");
        start.detail = format!("version {}", env!("CARGO_PKG_VERSION"));
        if torn_bytes > 0 {
            start.detail.push_str(&format!("; {torn_bytes} bytes of an unfinished entry were taken back"));
        }
        audit.note(start);
        if let Some(fault) = fault {
            tracing::error!(%fault, "the audit log was changed by somebody else");
            let mut note = Note::new(Kind::Alarm, "-", "audit-broken", "alarm");
            note.detail = fault;
            audit.note(note);
        }
        Ok(audit)
    }

    /// Writes a note; returns when it is on the disk, or the disk has refused it.
    pub async fn write(&self, note: Note) {
        let (done, written) = oneshot::channel();
        if self.items.send((note, Some(done))).await.is_ok() {
            let _ = written.await;
        }
    }

    /// Has a note written soon.
    pub fn note(&self, note: Note) {
        if self.items.try_send((note, None)).is_err() {
            self.state.lost.fetch_add(1, Relaxed);
        }
    }

    /// Has a request counted with others of its sort, of a caller that was let in or of a stranger: the first is written
    /// soon, and then how many more there were.
    pub fn count(&self, note: Note, is_let_in: bool) {
        self.state.counts.request(note, is_let_in);
    }

    /// Has it counted that policies did not let `service` do that.
    pub(crate) fn deny(&self, service: &str, action: Action, topic: &str) {
        self.state.counts.denial(service, action, topic);
    }

    /// A record of the catalog came to count at this router, which wrote it for the one in `via`, if any. Blocks while there is
    /// no place for it, as its caller does while the record itself is written.
    pub(crate) fn record(&self, record: &Record, via: Option<String>) {
        let mut note = Note::new(Kind::Catalog, &record.actor, record.op.kind(), "ok");
        note.from = via;
        (note.rev, note.digest, note.subject) = (Some(record.rev), Some(record.hash()), record.op.subject());
        // Checked before the record counted: whoever appended it has that key, whoever it says to be.
        if !record.key_id.is_empty() {
            note.detail = format!("signed with the key {}", record.key_id);
        }
        let mut item = (note, None);
        for _ in 0..PLACE_PAUSES_MAX {
            item = match self.items.try_send(item) {
                Err(TrySendError::Full(item)) => item,
                Ok(()) => return,
                Err(TrySendError::Closed(_)) => break,
            };
            thread::sleep(PLACE_PAUSE);
        }
        self.state.lost.fetch_add(1, Relaxed);
    }

    /// The copy of the catalog is at `rev` when this router starts: what came while no log was kept is told in one entry.
    pub(crate) fn resume(&self, rev: u64) {
        if rev != self.state.rev {
            let mut note = Note::new(Kind::Catalog, "-", "resumed", "ok");
            note.rev = Some(rev);
            note.detail = format!("the log knew the catalog up to revision {}", self.state.rev);
            self.note(note);
        }
    }

    /// Where the log ends on the disk.
    pub fn head(&self) -> Head {
        **self.state.head.load()
    }

    /// How it does.
    pub fn figures(&self) -> Figures {
        Figures { written: self.state.written.load(Relaxed), lost: self.state.lost.load(Relaxed) }
    }

    /// Where it is kept.
    pub fn folder(&self) -> &Path {
        &self.state.folder
    }

    /// What the log held of other routers when it was opened.
    pub(crate) fn seen_before(&self) -> &[Entry] {
        &self.state.seen
    }

    /// What this router says to a witness that has seen its log end with the entry `seq`. Reads the disk.
    pub(crate) fn testify(&self, seq: u64) -> Testimony {
        let (head, folder) = (self.head(), &self.state.folder);
        let then = match seq {
            0 => None,
            // What cannot be read is not there.
            seq => files::head_at(folder, seq).unwrap_or_default(),
        };
        let first = files::first(folder);
        // Read last: whatever was removed meanwhile is announced by then.
        let retired = files::retired(folder).unwrap_or_default();
        let (first, prev) = first.map_or((0, None), |entry| (entry.seq, Some(entry.prev)));
        Testimony { first, head, then: then.map(|head| head.hash), prev, retired }
    }
}

/// The thread that writes.
struct Keeper {
    book: Book,
    state: Arc<State>,
}

impl Keeper {
    async fn run(mut self, mut queue: mpsc::Receiver<Item>) {
        let mut items = Vec::with_capacity(BATCH_MAX);
        loop {
            let due = self.state.counts.due().unwrap_or_else(|| Instant::now() + NEVER);
            let received = tokio::select! {
                received = queue.recv_many(&mut items, BATCH_MAX) => Some(received),
                () = self.state.counts.fresh.notified() => None,
                () = tokio::time::sleep_until(due) => None,
            };
            let is_over = received == Some(0);
            self.write(&mut items, is_over);
            if is_over {
                return;
            }
        }
    }

    fn write(&mut self, items: &mut Vec<Item>, is_over: bool) {
        let (mut notes, waiting): (Vec<_>, Vec<_>) = items.drain(..).unzip();
        let counted = self.state.counts.take((!is_over).then(Instant::now));
        for Note { actor, action, subject, count, .. } in counted.iter().filter(|note| note.kind == Kind::Denial) {
            tracing::warn!(service = actor, %action, topic = subject, denied = count, "policy: denials, one of which is this");
        }
        notes.extend(counted);
        if !notes.is_empty() {
            let (count, before) = (notes.len() as u64, self.book.head().seq);
            match self.book.append(notes, unix_ms()) {
                Ok(()) => {
                    self.state.written.fetch_add(self.book.head().seq - before, Relaxed);
                    self.state.head.store(Arc::new(self.book.head()));
                }
                Err(error) => {
                    self.state.lost.fetch_add(count, Relaxed);
                    tracing::error!(%error, count, "entries of the audit log are lost: make room on the disk");
                }
            }
        }
        for done in waiting.into_iter().flatten() {
            // Whoever waited may have gone.
            let _ = done.send(());
        }
    }
}

fn unix_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::*;
    use myelin_catalog::Op;

    /// Waits until the log in `folder` fits; its entries.
    async fn entries(folder: &Path, fits: impl Fn(&[Entry]) -> bool) -> Vec<Entry> {
        let all = async {
            loop {
                let lines = lines(folder, 0).unwrap().map(|line| chain::read(&line.unwrap()).unwrap());
                let entries: Vec<_> = lines.collect();
                if fits(&entries) {
                    return entries;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), all).await.unwrap()
    }

    fn count_of(entries: &[Entry], action: &str) -> u64 {
        entries.iter().filter(|entry| entry.note.action == action).map(|entry| entry.note.count).sum()
    }

    #[tokio::test]
    async fn a_note_is_on_the_disk_when_it_is_written_and_what_was_counted_at_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let audit = Audit::open(folder.path(), 1 << 20).unwrap();
        let read = || Note::new(Kind::Admin, "token", "GET /v1/modules", "ok");
        audit.count(read(), true);
        let at = audit.folder().to_owned();
        entries(&at, |entries| entries.len() == 2).await;
        (0..4).for_each(|_| audit.count(read(), true));
        audit.write(Note::new(Kind::Admin, "token", "PUT /v1/bindings/{name}", "ok")).await;
        let head = audit.head();
        assert_eq!((head.seq, lines(&at, 0).unwrap().count()), (3, 3), "the start, the first read, the change");
        let (then, prev) = (Some(head.hash), Some(myelin_catalog::Digest::ZERO));
        assert_eq!(audit.testify(head.seq), Testimony { first: 1, head, then, prev, retired: None });
        drop(audit);
        // The thread ends by itself once nobody can write any more.
        let entries = entries(&at, |entries| entries.len() == 4).await;
        let last = &entries[3].note;
        assert_eq!((last.count, &*last.action), (4, "GET /v1/modules"));
    }

    #[tokio::test]
    async fn strangers_do_not_displace_what_the_log_has_nor_what_it_is_to_have() {
        let folder = tempfile::tempdir().unwrap();
        let audit = Audit::open(folder.path(), 1 << 20).unwrap();
        let at = audit.folder().to_owned();
        let (requests, records) = (200_000_u64, 3_000_u64);
        let op = Op::Activated { bindings: std::collections::BTreeMap::new() };
        let record = Record::after(&myelin_catalog::Head::default(), op, "token", 0);
        for number in 0..requests {
            audit.count(Note::new(Kind::Admin, "-", format!("GET /v1/x{number}"), "unauthorized"), false);
            if number < records {
                audit.record(&Record { rev: number + 1, ..record.clone() }, None);
            }
        }
        audit.write(Note::new(Kind::Admin, "token", "PUT /v1/bindings/{name}", "ok")).await;
        let figures = audit.figures();
        drop(audit);
        let entries = entries(&at, |entries| {
            entries.iter().filter(|entry| entry.note.actor == "-").map(|entry| entry.note.count).sum::<u64>() > requests
        });
        let entries = entries.await;
        assert_eq!(figures.lost, 0);
        let of = |kind| entries.iter().filter(|entry| entry.note.kind == kind).count() as u64;
        assert_eq!((of(Kind::Catalog), of(Kind::Router)), (records, 1), "all of them, and the start is still there");
        assert!(of(Kind::Admin) <= 1 + 2 * 33 + 1, "{}", of(Kind::Admin));
        assert_eq!(count_of(&entries, "PUT /v1/bindings/{name}"), 1);
    }

    #[tokio::test]
    async fn every_denial_of_a_burst_is_told_within_seconds() {
        let folder = tempfile::tempdir().unwrap();
        let audit = Audit::open(folder.path(), 1 << 20).unwrap();
        for _ in 0..1_000 {
            audit.deny("shop", Action::Publish, "orders/1");
        }
        audit.deny("till", Action::Publish, "orders/2");
        // Nothing is denied any more, and the router goes on.
        let entries = entries(audit.folder(), |entries| count_of(entries, "publish") == 1_001).await;
        let of =
            |actor: &str| entries.iter().filter(|entry| entry.note.actor == actor).map(|entry| entry.note.count).sum();
        let counts: [u64; 2] = [of("shop"), of("till")];
        assert_eq!(counts, [1_000, 1]);
    }
}
