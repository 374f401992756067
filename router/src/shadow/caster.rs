//! A worker's part of a shadow: the copies that wait, and the task that judges them when the worker has nothing else in
//! hand.

use super::budget::Budget;
use super::tally::Compared;
use super::work::Work;
use super::{Instances, Shadow, Subject, locked};
use crate::capture::{Sampler, Taken};
use crate::generation::Retired;
use myelin_catalog::{OnFault, Stage};
use myelin_engine::{Answers, Batch, Chain, ChainScratch, EventView, HostCall, TapedEvent, thread_cpu_ns};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;
use tokio::sync::Notify;
use tokio::task::{spawn_local, yield_now};

/// Copied batches that wait at a worker: what a burst brings while the shadow waits for its share of the time.
pub const WORK_MAX: usize = 64;
/// Bytes of them.
pub const WORK_BYTES_MAX: usize = 4 << 20;

/// The place of a shadow at a worker; as a rule empty.
#[derive(Debug, Default)]
pub struct Shade {
    caster: RefCell<Option<Rc<Caster>>>,
    on: Cell<bool>,
}

impl Shade {
    /// Whether there is one. All that a batch pays for, as long as there is none.
    #[inline]
    pub fn is_on(&self) -> bool {
        self.on.get()
    }

    /// Lets a shadow judge from here on, in the place of one before. To be called on the worker's own thread.
    pub fn begin(&self, instances: Instances, retired: &mut Retired) {
        self.end(retired);
        let caster = Rc::new(Caster::new(instances));
        self.caster.replace(Some(caster.clone()));
        self.on.set(true);
        spawn_local(caster.run());
    }

    /// Ends the shadow, where there is one; what it does not need any more goes to `retired`.
    pub fn end(&self, retired: &mut Retired) {
        self.on.set(false);
        if let Some(caster) = self.caster.take() {
            caster.end(retired);
        }
    }

    /// The shadow, where it wants a batch that is about to be judged: `views` on that side of the matching, by bindings
    /// that `binds` knows.
    #[cold]
    pub fn choose(&self, stage: Stage, views: &[EventView<'_>], binds: impl Fn(&str) -> bool) -> Option<Rc<Caster>> {
        let caster = self.caster.borrow().clone()?;
        caster.wants(stage, views, binds).then_some(caster)
    }
}

/// A shadow at a worker.
pub struct Caster {
    shadow: Arc<Shadow>,
    subjects: Arc<[Subject]>,
    /// For each subject that has a new filter.
    filters: Vec<Option<Cast>>,
    sampler: RefCell<Sampler>,
    queue: RefCell<VecDeque<Work>>,
    /// Bytes in the queue.
    bytes: Cell<usize>,
    wake: Notify,
    is_over: Cell<bool>,
}

/// A new filter.
struct Cast {
    chain: Chain,
    answers: Arc<Answers>,
    on_fault: OnFault,
}

impl fmt::Debug for Caster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Caster({:?}, {} batches wait)", self.shadow, self.queue.borrow().len())
    }
}

impl Caster {
    pub(super) fn new(instances: Instances) -> Self {
        let Instances { shadow, subjects, filters } = instances;
        let filters = subjects.iter().zip(filters).map(|(subject, filter)| {
            let (filter, answers) = filter?;
            let on_fault = subject.new.as_ref().map(|new| new.card().on_fault).unwrap_or_default();
            Some(Cast { chain: Chain::new(vec![Rc::new(filter)]), answers, on_fault })
        });
        Self {
            filters: filters.collect(),
            sampler: RefCell::new(Sampler::percent(shadow.sample_percent)),
            queue: RefCell::default(),
            bytes: Cell::new(0),
            wake: Notify::new(),
            is_over: Cell::new(false),
            shadow,
            subjects,
        }
    }

    /// Whether a batch is to be copied once it is judged.
    pub(super) fn wants(&self, stage: Stage, views: &[EventView<'_>], binds: impl Fn(&str) -> bool) -> bool {
        let is_bound = |subject: &Subject| {
            subject.old.as_ref().is_some_and(|old| old.card().stage == stage) && binds(&subject.name)
        };
        let events = if self.subjects.iter().any(is_bound) {
            views.len()
        } else {
            let concerns = |view: &&EventView<'_>| self.subjects.iter().any(|new| new.judges(stage, view.topic));
            views.iter().filter(concerns).count()
        };
        let events = events as u64;
        if events == 0 {
            return false;
        }
        if !self.sampler.borrow_mut().takes(events, 0) {
            self.shadow.sampled_out.fetch_add(events, Relaxed);
            return false;
        }
        let has_room = self.queue.borrow().len() < WORK_MAX && self.bytes.get() < WORK_BYTES_MAX;
        if !has_room {
            self.shadow.skipped.fetch_add(events, Relaxed);
        }
        has_room
    }

    /// Takes a copy of a batch that it was [chosen](Shade::choose) for and that is judged now.
    pub fn take(&self, taken: &Taken<'_>, stage: Stage, now_ms: u64) {
        // A filter that runs apart may answer later.
        if self.is_over.get() {
            return;
        }
        let work = Work::copy(taken, stage, now_ms);
        self.bytes.set(self.bytes.get() + work.size());
        self.queue.borrow_mut().push_back(work);
        self.wake.notify_one();
    }

    fn end(&self, retired: &mut Retired) {
        self.is_over.set(true);
        self.queue.borrow_mut().clear();
        self.wake.notify_one();
        let bindings = self.filters.iter().flatten().flat_map(|cast| cast.chain.bindings());
        retired.add(bindings.flat_map(|binding| binding.retire()));
    }

    /// Judges copies until the end: one batch at a time, and after each one whatever else there is to do goes first.
    async fn run(self: Rc<Self>) {
        let mut budget = Budget::new(Instant::now());
        let mut scratch = ChainScratch::new();
        while !self.is_over.get() {
            if let Some(wait) = budget.wait(Instant::now()) {
                tokio::time::sleep(wait).await;
                continue;
            }
            let work = self.queue.borrow_mut().pop_front();
            let Some(work) = work else {
                self.wake.notified().await;
                continue;
            };
            self.bytes.set(self.bytes.get() - work.size());
            // Where a filter runs apart, what the worker does meanwhile is booked as well: rather too much than too little.
            let begin_ns = thread_cpu_ns();
            self.judge(&work, &mut scratch).await;
            budget.spend(Instant::now(), thread_cpu_ns().saturating_sub(begin_ns));
            yield_now().await;
        }
    }

    /// Lets the new filters judge a copy, and counts what they say otherwise.
    pub(super) async fn judge(&self, work: &Work, scratch: &mut ChainScratch) {
        let views = work.views();
        for (at, subject) in self.subjects.iter().enumerate() {
            let (seen, calls) = work.seen(subject, &views);
            let asked: Vec<_> = seen.iter().map(|seen| subject.judges(work.stage, seen.view.topic)).collect();
            let asked_views: Vec<_> =
                seen.iter().zip(&asked).filter(|(_, asked)| **asked).map(|(seen, _)| seen.view).collect();
            let Some((said, asked_otherwise)) =
                self.ask(at, &asked_views, (work.now_unix_ns, work.now_ms), calls, scratch).await
            else {
                self.shadow.skipped.fetch_add(seen.len() as u64, Relaxed);
                continue;
            };
            if self.is_over.get() {
                return;
            }
            let old_on_fault = subject.old.as_ref().map(|old| old.card().on_fault).unwrap_or_default();
            let new_on_fault = self.filters[at].as_ref().map(|cast| cast.on_fault).unwrap_or_default();
            let mut said = said.iter();
            let mut tally = locked(&self.shadow.found[at].tally);
            for (seen, asked) in seen.iter().zip(asked) {
                let new = if asked { said.next().map(|said| (said, new_on_fault)) } else { None };
                let old = seen.old.map(|old| (old, old_on_fault));
                if old.is_some() || new.is_some() {
                    tally.add(&Compared { view: seen.view, old, new }, (work.worker, work.now_unix_ns));
                }
            }
            // Where no active filter was asked, every question is new and says nothing.
            if subject.old.is_some() {
                tally.asked_otherwise += asked_otherwise;
            }
        }
    }

    /// What a new filter says about events, and how many questions it asked that the active one did not; none where they
    /// are no batch.
    async fn ask(
        &self,
        at: usize,
        views: &[EventView<'_>],
        (now_unix_ns, now_ms): (u64, u64),
        calls: &[HostCall],
        scratch: &mut ChainScratch,
    ) -> Option<(Vec<TapedEvent>, u64)> {
        let Some(cast) = self.filters[at].as_ref().filter(|_| !views.is_empty()) else { return Some((Vec::new(), 0)) };
        // A filter before it may have made its events larger than a batch of several may be.
        let batch = Batch::new(views, now_unix_ns, now_ms).ok()?;
        cast.answers.load(calls);
        scratch.record();
        let judgement = cast.chain.run(&batch, scratch).await;
        let taped = judgement.tape().and_then(|tape| tape.judged.first());
        let said = taped.map(|taped| taped.events.clone()).unwrap_or_default();
        (said.len() == views.len()).then(|| (said, cast.answers.take_others()))
    }
}
