//! The schemas that events may name, compiled when one is named first.
//!
//! A registry holds more schemas than a router has memory for in compiled form. What is named is compiled on a thread of
//! its own, one after the other, while the stream that named it waits; those that were named longest ago give way. Only
//! what the registry has is ever compiled: an id that is made up costs one look-up.

use super::{Compiled, compile};
use arc_swap::ArcSwapOption;
use myelin_catalog::Schema;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::timeout;

/// Schemas that are compiled at a time for rules that let events name theirs. One in JSON of eight fields and 600 bytes was
/// measured to take 58 KB, so that these are 120 MB.
const NAMED_SCHEMAS_MAX: usize = 2_048;
/// Bytes of the texts of all of them, with what these refer to: what is compiled is some hundred times as long as its text,
/// so that these are 200 MB. One that is larger is there alone.
const NAMED_BYTES_MAX: u64 = 2 * 1024 * 1024;
/// How long a batch waits for all schemas that it names. Many must be named for the first time before it takes that long,
/// or somebody names all there are again and again.
const PATIENCE: Duration = Duration::from_secs(5);

/// How far the clock moves with a schema that is compiled: what is named after it is one later.
const TICK: u64 = 2;

/// A schema that events may name.
#[derive(Debug)]
pub(super) struct Slot {
    id: u32,
    /// What is to be compiled; none where it was from the beginning.
    schema: Option<Arc<Schema>>,
    shelf: Arc<Shelf>,
    compiled: ArcSwapOption<Compiled>,
    /// When it was named last, by the shelf's clock.
    used: AtomicU64,
}

/// What all slots of a router share.
#[derive(Debug)]
pub(super) struct Shelf {
    max: usize,
    patience: Duration,
    /// One is compiled at a time: whoever names all there are takes no more than half of one core.
    turn: Arc<Semaphore>,
    /// Moves with each schema that is compiled.
    clock: AtomicU64,
    /// Those that are compiled, with the bytes of their texts.
    full: Mutex<Vec<(Weak<Slot>, u64)>>,
    counts: Counts,
}

/// What the shelf has done since the router's start.
#[derive(Debug, Default)]
struct Counts {
    compiled: AtomicU64,
    failed: AtomicU64,
    evicted: AtomicU64,
    late: AtomicU64,
}

impl Default for Shelf {
    fn default() -> Self {
        Self::new(NAMED_SCHEMAS_MAX, PATIENCE)
    }
}

impl Shelf {
    /// With room for `max` schemas, each of which is waited for as long as `patience` lasts.
    pub(super) fn new(max: usize, patience: Duration) -> Self {
        let (turn, clock) = (Arc::new(Semaphore::new(1)), AtomicU64::new(0));
        Self { max, patience, turn, clock, full: Mutex::default(), counts: Counts::default() }
    }

    /// Schemas that were compiled, could not be, gave way to others, and were waited for in vain.
    pub(super) fn counts(&self) -> [(&'static str, u64); 4] {
        let Counts { compiled, failed, evicted, late } = &self.counts;
        [("compiled", compiled), ("failed", failed), ("evicted", evicted), ("late", late)]
            .map(|(outcome, count)| (outcome, count.load(Relaxed)))
    }

    /// Keeps everybody else from compiling.
    #[cfg(test)]
    pub(super) async fn turn(&self) -> tokio::sync::OwnedSemaphorePermit {
        self.turn.clone().acquire_owned().await.expect("nobody closes it")
    }

    /// Makes room for one more where there is none.
    fn put(&self, slot: &Arc<Slot>, bytes: u64) {
        // A poisoned lock still guards whole values.
        let mut full = self.full.lock().unwrap_or_else(PoisonError::into_inner);
        // Without those of tables that are gone, and one that was filled twice.
        full.retain(|(other, _)| other.strong_count() > 0 && other.as_ptr() != Arc::as_ptr(slot));
        let used = |slot: &Weak<Slot>| slot.upgrade().map_or(0, |slot| slot.used.load(Relaxed));
        while full.len() >= self.max || full.iter().map(|(_, bytes)| bytes).sum::<u64>() + bytes > NAMED_BYTES_MAX {
            let oldest = full.iter().enumerate().min_by_key(|(_, (slot, _))| used(slot)).map(|(at, _)| at);
            let Some(oldest) = oldest else { break };
            if let Some(oldest) = full.swap_remove(oldest).0.upgrade() {
                oldest.compiled.store(None);
                self.counts.evicted.fetch_add(1, Relaxed);
            }
        }
        full.push((Arc::downgrade(slot), bytes));
    }
}

impl Slot {
    pub(super) fn new(schema: Arc<Schema>, shelf: Arc<Shelf>) -> Arc<Self> {
        let (id, schema, used) = (schema.id, Some(schema), AtomicU64::new(0));
        Arc::new(Self { id, schema, shelf, compiled: ArcSwapOption::empty(), used })
    }

    /// One that is compiled and stays so.
    pub(super) fn full(id: u32, compiled: Compiled) -> Arc<Self> {
        let compiled = ArcSwapOption::from_pointee(compiled);
        Arc::new(Self { id, schema: None, shelf: Arc::default(), compiled, used: AtomicU64::new(0) })
    }

    /// What is compiled, if it is.
    #[inline]
    pub(super) fn load(&self) -> arc_swap::Guard<Option<Arc<Compiled>>> {
        // Later than what was compiled last.
        let now = self.shelf.clock.load(Relaxed) + 1;
        if self.used.load(Relaxed) != now {
            self.used.store(now, Relaxed);
        }
        self.compiled.load()
    }

    /// Compiles it here, unless it is.
    pub(super) fn fill_here(self: &Arc<Self>) -> Arc<Compiled> {
        if let Some(compiled) = &*self.load() {
            return compiled.clone();
        }
        let Some(schema) = &self.schema else { return Arc::new(Err("it is not there any more".into())) };
        let compiled = Arc::new(compile(schema));
        let counts = &self.shelf.counts;
        let count = if compiled.is_ok() { &counts.compiled } else { &counts.failed };
        count.fetch_add(1, Relaxed);
        self.used.store(self.shelf.clock.fetch_add(TICK, Relaxed) + TICK, Relaxed);
        self.compiled.store(Some(compiled.clone()));
        let needed: usize = schema.dependencies().iter().map(|(_, needed)| needed.text.len()).sum();
        self.shelf.put(self, (schema.text.len() + needed) as u64);
        compiled
    }

    /// Has it compiled aside, unless it is, when it is its turn.
    async fn fill(self: &Arc<Self>) {
        let Ok(turn) = self.shelf.turn.clone().acquire_owned().await else { return };
        // Somebody else may have waited for it, too.
        if self.load().is_some() {
            return;
        }
        let (answer, answered) = oneshot::channel();
        let slot = self.clone();
        tokio::task::spawn_blocking(move || {
            let begin = Instant::now();
            slot.fill_here();
            // Whoever has lost patience finds it there the next time.
            let _ = answer.send(());
            // As long again nobody has a turn: routing needs its cores.
            std::thread::sleep(begin.elapsed().min(PATIENCE));
            drop(turn);
        });
        let _ = answered.await;
    }

    /// What is said of an event whose schema is not there in time, or gave way before the event was judged.
    pub(super) fn late(&self) -> Arc<Compiled> {
        let (id, late) = (self.id, self.shelf.counts.late.fetch_add(1, Relaxed) + 1);
        // Seldom, however many there are.
        if late.is_power_of_two() {
            tracing::warn!(id, late, "events wait in vain for schemas to be compiled");
        }
        let why = format!(
            "the schema {id} was not compiled in time: many are named for the first time here; send the event again, or name \
             a subject in the topic rule"
        );
        Arc::new(Err(why.into()))
    }
}

/// How long the events of a batch still wait for schemas that they are the first to name. What is compiled stays on the
/// shelf alone, so that a batch holds no more of it than the shelf has room for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Waiting {
    /// Since the first of them waited.
    since: Option<Instant>,
}

impl Waiting {
    pub(super) async fn wait_for(&mut self, slot: &Arc<Slot>) {
        let patience = slot.shelf.patience;
        let left = patience.saturating_sub(self.since.get_or_insert_with(Instant::now).elapsed());
        if !left.is_zero() {
            // In vain it is told when the event is judged.
            let _ = timeout(left, slot.fill()).await;
        }
    }
}
