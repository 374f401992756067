//! The audit log: who did what, when and from where, and what became of it.
//!
//! Every router keeps its own, append-only and chained by hashes ([`chain`]), in segments of lines ([`files`]). One thread
//! writes: a request that changes something is answered once its entry is on the disk. Other routers remember where the
//! log ended ([`witness`]), so that one that was written anew is noticed.

mod chain;
mod files;
mod reads;
mod witness;

pub use chain::{Entry, Fault, Head, Kind, LINE_BYTES_MAX, Note, Verified, verify};
pub use files::lines;
pub use witness::{Seen, Testimony, Witness};

use arc_swap::ArcSwap;
use files::{Book, Found};
use myelin_catalog::Record;
use reads::Counted;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use utoipa::ToSchema;

/// The folder of the log in the data directory.
pub const FOLDER: &str = "audit";
/// Notes that wait to be written: what is told by the way is counted and given up beyond, a request waits.
const WAITING_MAX: usize = 1_024;
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
    written: AtomicU64,
    lost: AtomicU64,
    /// The revision of the newest record of the catalog that the log had when it was opened.
    rev: u64,
    /// What the last segment held of other routers.
    seen: Vec<Note>,
}

/// How the log does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Figures {
    /// Entries that were written since the start.
    pub written: u64,
    /// Notes that were not: too many at once, or the disk refused them.
    pub lost: u64,
}

#[derive(Debug)]
enum Item {
    Note(Note, Option<oneshot::Sender<()>>),
    Count(Note),
}

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
        let seen = entries.into_iter().map(|entry| entry.note).filter(|note| note.kind == Kind::Witness).collect();
        let (written, lost) = (AtomicU64::new(0), AtomicU64::new(0));
        let state = Arc::new(State { folder, head: ArcSwap::from_pointee(book.head()), written, lost, rev, seen });
        let (items, queue) = mpsc::channel(WAITING_MAX);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        let keeper = Keeper { book, counted: Counted::default(), state: state.clone() };
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
        if self.items.send(Item::Note(note, Some(done))).await.is_ok() {
            let _ = written.await;
        }
    }

    /// Has a note written soon.
    pub fn note(&self, note: Note) {
        self.send(Item::Note(note, None));
    }

    /// Has a note written that is counted with others of its sort: the first of a minute, and then how many more there were.
    pub fn count(&self, note: Note) {
        self.send(Item::Count(note));
    }

    fn send(&self, item: Item) {
        if self.items.try_send(item).is_err() {
            self.state.lost.fetch_add(1, Relaxed);
        }
    }

    /// A record of the catalog came to count at this router.
    pub(crate) fn record(&self, record: &Record) {
        let mut note = Note::new(Kind::Catalog, &record.actor, record.op.kind(), "ok");
        (note.rev, note.digest, note.subject) = (Some(record.rev), Some(record.hash()), record.op.subject());
        self.note(note);
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
    pub(crate) fn seen_before(&self) -> &[Note] {
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
    counted: Counted,
    state: Arc<State>,
}

impl Keeper {
    async fn run(mut self, mut queue: mpsc::Receiver<Item>) {
        let mut items = Vec::with_capacity(BATCH_MAX);
        loop {
            let due = self.counted.due().unwrap_or_else(|| Instant::now() + NEVER);
            let received = tokio::select! {
                received = queue.recv_many(&mut items, BATCH_MAX) => Some(received),
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
        let (now, mut notes, mut waiting) = (Instant::now(), Vec::new(), Vec::new());
        for item in items.drain(..) {
            match item {
                Item::Note(note, done) => {
                    notes.push(note);
                    waiting.extend(done);
                }
                Item::Count(note) => notes.extend(self.counted.add(note, now)),
            }
        }
        notes.extend(self.counted.take((!is_over).then_some(now)));
        if !notes.is_empty() {
            let count = notes.len() as u64;
            match self.book.append(notes, unix_ms()) {
                Ok(()) => {
                    self.state.written.fetch_add(count, Relaxed);
                    self.state.head.store(Arc::new(self.book.head()));
                }
                Err(error) => {
                    self.state.lost.fetch_add(count, Relaxed);
                    tracing::error!(%error, count, "entries of the audit log are lost: make room on the disk");
                }
            }
        }
        for done in waiting {
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

    #[tokio::test]
    async fn a_note_is_on_the_disk_when_it_is_written_and_what_was_counted_at_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let audit = Audit::open(folder.path(), 1 << 20).unwrap();
        (0..5).for_each(|_| audit.count(Note::new(Kind::Admin, "token", "GET /v1/modules", "ok")));
        audit.write(Note::new(Kind::Admin, "token", "PUT /v1/bindings/{name}", "ok")).await;
        let at = audit.folder().to_owned();
        let head = audit.head();
        assert_eq!((head.seq, lines(&at, 0).unwrap().count()), (3, 3), "the start, the first read, the change");
        let (then, prev) = (Some(head.hash), Some(myelin_catalog::Digest::ZERO));
        assert_eq!(audit.testify(head.seq), Testimony { first: 1, head, then, prev, retired: None });
        drop(audit);
        // The thread ends by itself once nobody can write any more.
        let all = async {
            while lines(&at, 0).unwrap().count() < 4 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), all).await.unwrap();
        let last = chain::read(&lines(&at, 4).unwrap().next().unwrap().unwrap()).unwrap();
        assert_eq!((last.note.count, &*last.note.action), (4, "GET /v1/modules"));
    }
}
