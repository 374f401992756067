//! Captures: live events with what filters said about them, kept for a replay.
//!
//! While none runs, a batch costs one look at a flag. While one does, the worker that judged writes what it saw into
//! the capture's ring, redacted, as the line of the file that it will be: what a ring costs is known to the byte.
//! Everything lies in memory, and ends with the router: no capture outlives a restart.

mod against;
mod data;
mod file;
mod read;
mod record;
mod redact;
mod ring;
mod spec;

pub use against::{Tallies, Tally};
pub use data::{Attribute, Data, packed, unpacked};
pub use file::{Batch, Bound, Call, Emitted, End, Event, FORMAT, Fault, Head, Judged, Said, Side, Verdict};
pub use read::{FILE_BYTES_MAX, ReadError, Recording, SeenEvents};
pub use record::Taken;
pub use redact::{REDACTED, Redaction};
pub(crate) use ring::Sampler;
pub use spec::{CaptureSpec, Keep, ROUTER_BYTES_MAX};

use arc_swap::ArcSwap;
use bytes::Bytes;
use file::Line;
use myelin_engine::EventView;
use ring::{Over, Ring};
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use utoipa::ToSchema;

/// Captures that a router keeps, running or over: each running one is looked at for every batch.
pub const CAPTURES_MAX: usize = 8;

/// Why a capture cannot begin.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CaptureError {
    /// What is asked for makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// There are too many.
    #[error("the router keeps {CAPTURES_MAX} captures already; remove one with `myelin capture rm`")]
    TooMany,
    /// Their bytes are spoken for.
    #[error(
        "{asked} bytes are asked for, {left} of the router's {ROUTER_BYTES_MAX} are left for captures; ask for less, or remove one with `myelin capture rm`"
    )]
    NoRoom {
        /// What was asked for.
        asked: u64,
        /// What is left.
        left: u64,
    },
}

impl CaptureError {
    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "invalid-capture",
            Self::TooMany => "too-many-captures",
            Self::NoRoom { .. } => "capture-room",
        }
    }
}

/// A capture, as the API shows it.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct CaptureInfo {
    /// Its number at this router; a number is never used twice until a restart.
    pub id: u64,
    /// What was asked for.
    #[serde(flatten)]
    pub spec: CaptureSpec,
    /// `running`, or why it is over: `stopped`, `time`, `full`.
    #[schema(pattern = "^(running|stopped|time|full)$")]
    pub state: String,
    /// Who began it.
    pub actor: String,
    /// When, Unix milliseconds.
    pub started_unix_ms: u64,
    /// Bytes that it keeps.
    pub bytes: u64,
    /// Batches that it keeps.
    pub batches: u64,
    /// Matching events that it keeps.
    pub events: u64,
    /// Matching events that have made room for later ones.
    pub evicted: u64,
    /// Matching events that were left out by `sample`.
    pub sampled_out: u64,
    /// Matching events of batches that are larger than the whole ring.
    pub too_large: u64,
}

/// One capture.
pub struct Capture {
    id: u64,
    spec: CaptureSpec,
    redaction: Redaction,
    head: Head,
    actor: String,
    ends_ms: u64,
    ring: Mutex<Ring>,
}

impl fmt::Debug for Capture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Capture({}, {})", self.id, self.spec.pattern.as_str())
    }
}

/// The captures that record a batch: as a rule none, and then nothing is allocated.
pub type Chosen = SmallVec<[Arc<Capture>; 1]>;

/// The captures of a router.
#[derive(Debug, Default)]
pub struct Captures {
    /// Whether any runs.
    on: AtomicBool,
    list: ArcSwap<Vec<Arc<Capture>>>,
    /// One change at a time; holds the last number.
    changes: Mutex<u64>,
}

impl Captures {
    /// Whether any capture runs. All that a batch pays for, as long as none does.
    #[inline]
    pub fn is_on(&self) -> bool {
        self.on.load(Relaxed)
    }

    /// Begins a capture.
    ///
    /// # Errors
    /// [`CaptureError`].
    pub fn start(
        &self,
        spec: CaptureSpec,
        (site, router): (&str, &str),
        actor: String,
        (now_ms, now_unix_ms): (u64, u64),
    ) -> Result<CaptureInfo, CaptureError> {
        let (sample, redaction) = spec.checked().map_err(CaptureError::Invalid)?;
        let mut last = locked(&self.changes);
        let mut list = Vec::clone(&self.list.load());
        if list.len() >= CAPTURES_MAX {
            return Err(CaptureError::TooMany);
        }
        let left = ROUTER_BYTES_MAX.saturating_sub(list.iter().map(|capture| capture.spec.bytes_max).sum());
        if spec.bytes_max > left {
            return Err(CaptureError::NoRoom { asked: spec.bytes_max, left });
        }
        *last += 1;
        let head = Head {
            format: FORMAT,
            id: *last,
            site: site.to_owned(),
            router: router.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_unix_ms: now_unix_ms,
            pattern: spec.pattern.as_str().to_owned(),
            binding: spec.binding.as_ref().map(ToString::to_string),
            sample: spec.sample.clone(),
            redacted: spec.redact.clone(),
            neighbours: spec.neighbours,
        };
        let ends_ms = now_ms.saturating_add(spec.seconds * 1_000);
        let ring = Mutex::new(Ring::new(&spec, sample));
        let capture = Arc::new(Capture { id: *last, spec, redaction, head, actor, ends_ms, ring });
        let info = capture.info(now_ms);
        list.push(capture);
        self.list.store(Arc::new(list));
        self.on.store(true, Relaxed);
        Ok(info)
    }

    /// All captures, in the order in which they began.
    pub fn list(&self, now_ms: u64) -> Vec<CaptureInfo> {
        let list = self.list.load().iter().map(|capture| capture.info(now_ms)).collect();
        self.refresh();
        list
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.list.load().is_empty()
    }

    /// What each capture has, one after the other: to judge what came by other rules. Those that cannot be read are told in
    /// the log and left out.
    pub fn recordings(&self) -> impl Iterator<Item = Recording> {
        let list = self.list.load_full();
        (0..list.len()).filter_map(move |at| {
            let read = Recording::read(&list[at].file());
            read.inspect_err(|error| tracing::warn!(capture = list[at].id, %error, "a capture cannot be read")).ok()
        })
    }

    /// The capture with this number.
    pub fn find(&self, id: u64) -> Option<Arc<Capture>> {
        self.list.load().iter().find(|capture| capture.id == id).cloned()
    }

    /// Ends a capture; it keeps what it has. `None` where there is none of that number.
    pub fn stop(&self, id: u64, now_ms: u64) -> Option<CaptureInfo> {
        let capture = self.find(id)?;
        locked(&capture.ring).over.get_or_insert(Over::Stopped);
        self.refresh();
        Some(capture.info(now_ms))
    }

    /// Ends a capture and forgets what it has; whether there was one of that number.
    pub fn remove(&self, id: u64) -> bool {
        let changes = locked(&self.changes);
        let mut list = Vec::clone(&self.list.load());
        let count = list.len();
        list.retain(|capture| capture.id != id);
        let found = list.len() < count;
        self.list.store(Arc::new(list));
        drop(changes);
        self.refresh();
        found
    }

    /// Looks whether any capture still runs.
    fn refresh(&self) {
        // With the lock: a capture that begins meanwhile must not be taken for none.
        let _changes = locked(&self.changes);
        let runs = self.list.load().iter().any(|capture| locked(&capture.ring).over.is_none());
        self.on.store(runs, Relaxed);
    }

    /// The captures that want a batch of `views`, which the bindings that `binds` knows are about to judge.
    #[cold]
    pub fn choose(&self, views: &[EventView<'_>], now_ms: u64, binds: impl Fn(&str) -> bool) -> Chosen {
        let mut is_over = false;
        let list = self.list.load();
        let wants = |capture: &&Arc<Capture>| {
            let matched = capture.matched(views).filter(|matched| *matched).count() as u64;
            let is_bound = capture.spec.binding.as_ref().is_none_or(|binding| binds(binding.as_str()));
            let mut ring = locked(&capture.ring);
            if ring.over.is_none() && now_ms >= capture.ends_ms {
                ring.over = Some(Over::Time);
            }
            is_over |= ring.over.is_some();
            ring.over.is_none() && is_bound && matched > 0 && ring.wants(matched, now_ms)
        };
        let chosen = list.iter().filter(wants).cloned().collect();
        if is_over {
            self.refresh();
        }
        chosen
    }
}

impl Capture {
    /// What is known of it.
    pub fn info(&self, now_ms: u64) -> CaptureInfo {
        let mut ring = locked(&self.ring);
        if ring.over.is_none() && now_ms >= self.ends_ms {
            ring.over = Some(Over::Time);
        }
        CaptureInfo {
            id: self.id,
            spec: self.spec.clone(),
            state: Over::as_str(ring.over).to_owned(),
            actor: self.actor.clone(),
            started_unix_ms: self.head.started_unix_ms,
            bytes: ring.bytes,
            batches: ring.batches(),
            events: ring.events,
            evicted: ring.evicted,
            sampled_out: ring.sampled_out,
            too_large: ring.too_large,
        }
    }

    /// Its file, as it stands now.
    pub fn file(&self) -> Vec<u8> {
        // The lines are shared, not copied, while workers wait.
        let lines: Vec<Bytes> = locked(&self.ring).lines();
        let mut file = Line::Capture(self.head.clone()).bytes();
        file.reserve_exact(lines.iter().map(Bytes::len).sum());
        lines.iter().for_each(|line| file.extend_from_slice(line));
        file
    }

    /// Records a batch that it was [chosen](Captures::choose) for.
    pub fn record(&self, taken: &Taken<'_>) {
        let matched: Vec<bool> = self.matched(taken.views).collect();
        let is_meant = |name: &str| self.spec.binding.as_ref().is_none_or(|binding| binding.as_str() == name);
        let mut places: Vec<Bound> = Vec::new();
        // Places of this batch first: the ring is locked once, when everything is ready and redacted.
        let mut batch = taken.batch(&matched, self.spec.neighbours, |plan| {
            is_meant(&plan.name).then(|| {
                let mut bound = record::bound(plan);
                self.redaction.apply_to_binding(&mut bound);
                places.push(bound);
                places.len() - 1
            })
        });
        self.redaction.apply(&mut batch);
        let mut ring = locked(&self.ring);
        for judged in &mut batch.judged {
            let Some(place) = ring.place(&places[judged.binding]) else { return };
            judged.binding = place;
        }
        ring.push(batch);
    }

    fn matched<'a>(&'a self, views: &'a [EventView<'_>]) -> impl Iterator<Item = bool> + 'a {
        views.iter().map(|view| self.spec.pattern.matches(view.topic))
    }
}

fn locked<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    // A poisoned lock still guards whole values.
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
