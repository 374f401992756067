//! The shadow of a rollout: the candidate's new filters judge copies of live events, and what they say is compared with
//! what the active ones said.
//!
//! Nothing follows from it. A shadow has instances of its own on every worker, made for it and gone with it; its host
//! tells it what it told the active filter for the same events, and answers what that did not ask from a memory of the
//! shadow's own. Its verdicts are counted and thrown away. What becomes active later is the set that was prepared
//! beside the shadow, with the state of the filters that judge then.
//!
//! A worker copies a batch when it has judged it ([`Caster::take`]) and lets the shadow judge the copy when it has
//! nothing else in hand, within a share of its time. What there is no time for is left out and counted.

mod budget;
mod caster;
mod report;
mod tally;
#[cfg(test)]
mod tests;
mod work;

pub use budget::TIME_SHARE_PERCENT;
pub use caster::{Caster, Shade, WORK_BYTES_MAX, WORK_MAX};
pub use report::{SampledKey, ShadowReport, ShadowSaid, ShadowSample, ShadowTransition, ShadowedBinding};

use crate::generation::{BindingPlan, Plan, PrepareError};
use crate::telemetry::{ShadowBindingReading, ShadowReading};
use myelin_catalog::{Metrics, Stage};
use myelin_engine::{Answers, BindingCells, BoundFilter, SharedState};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tally::Tally;

/// A binding that differs between the active set and the candidate.
pub(crate) struct Subject {
    name: Arc<str>,
    old: Option<Arc<BindingPlan>>,
    new: Option<Arc<BindingPlan>>,
    /// The bindings of the candidate that stand before it.
    before: Vec<Arc<str>>,
    /// What the shadow's instances share on all workers, apart from those that judge.
    shared: Arc<SharedState>,
}

impl Subject {
    /// Whether the new filter would judge events of `topic` here.
    fn judges(&self, stage: Stage, topic: &str) -> bool {
        self.new.as_ref().is_some_and(|new| new.card().stage == stage && new.card().pattern.matches(topic))
    }
}

/// The bindings that differ between the two sets.
fn subjects(active: &Plan, candidate: &Plan) -> Vec<Subject> {
    let named = |plan: &Plan, name: &str| plan.bindings.iter().find(|binding| *binding.name == *name).cloned();
    let subject = |name: &Arc<str>, old, new, before| {
        let (name, shared) = (name.clone(), Arc::default());
        Subject { name, old, new, before, shared }
    };
    let is_kept = |new: &Arc<BindingPlan>| active.bindings.iter().any(|old| Arc::ptr_eq(old, new));
    let fresh = candidate.bindings.iter().enumerate().filter(|(_, new)| !is_kept(new));
    let fresh = fresh.map(|(at, new)| {
        // A plan lists the bindings of a stage as they judge at ingress; at egress they judge the other way round.
        let (earlier, later) = (&candidate.bindings[..at], &candidate.bindings[at + 1..]);
        let others = if new.card().stage == Stage::Egress { later } else { earlier };
        let before = others.iter().filter(|other| other.card().stage == new.card().stage);
        let before = before.map(|other| other.name.clone()).collect();
        subject(&new.name, named(active, &new.name), Some(new.clone()), before)
    });
    let gone = active.bindings.iter().filter(|old| named(candidate, &old.name).is_none());
    let gone = gone.map(|old| subject(&old.name, Some(old.clone()), None, Vec::new()));
    fresh.chain(gone).collect()
}

/// What is known of one binding.
#[derive(Debug)]
struct Found {
    name: Arc<str>,
    old: Option<String>,
    new: Option<String>,
    tally: Mutex<Tally>,
    /// The cells of the new filter on every worker.
    cells: Mutex<Vec<Arc<BindingCells>>>,
}

/// What a candidate's shadow found out at this router, while it runs and afterwards.
pub struct Shadow {
    /// The rollout.
    pub rollout: u64,
    sample_percent: u8,
    found: Vec<Found>,
    sampled_out: AtomicU64,
    skipped: AtomicU64,
    began: Instant,
    is_over: AtomicBool,
    /// How long it judged, once it is over, in milliseconds.
    took_ms: AtomicU64,
}

impl fmt::Debug for Shadow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Shadow(rollout {}, {} bindings)", self.rollout, self.found.len())
    }
}

/// A shadow that is to judge: from it every worker gets its instances.
pub struct Cast {
    /// What it finds out.
    pub shadow: Arc<Shadow>,
    subjects: Arc<[Subject]>,
}

/// One worker's instances of a shadow, made before it begins.
pub struct Instances {
    shadow: Arc<Shadow>,
    subjects: Arc<[Subject]>,
    /// For each subject that has a new filter.
    filters: Vec<Option<(BoundFilter, Arc<Answers>)>>,
}

impl fmt::Debug for Instances {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Instances({:?})", self.shadow)
    }
}

impl Cast {
    /// A shadow of `candidate` beside `active`, that judges `sample_percent` of a hundred events.
    pub fn new(rollout: u64, sample_percent: u8, active: &Plan, candidate: &Plan) -> Self {
        let subjects: Arc<[Subject]> = subjects(active, candidate).into();
        let module = |plan: &Option<Arc<BindingPlan>>| plan.as_ref().map(|plan| plan.module.to_string());
        let found = subjects.iter().map(|subject| Found {
            name: subject.name.clone(),
            old: module(&subject.old),
            new: module(&subject.new),
            tally: Mutex::default(),
            cells: Mutex::default(),
        });
        let shadow = Shadow {
            rollout,
            sample_percent,
            found: found.collect(),
            sampled_out: AtomicU64::new(0),
            skipped: AtomicU64::new(0),
            began: Instant::now(),
            is_over: AtomicBool::new(false),
            took_ms: AtomicU64::new(0),
        };
        Self { shadow: Arc::new(shadow), subjects }
    }

    /// Instances for one worker.
    ///
    /// # Errors
    /// The name of the binding whose filter does not come to life, and why.
    pub fn instances(&self) -> Result<Instances, (Arc<str>, PrepareError)> {
        let instance = |subject: &Subject| {
            let Some(new) = &subject.new else { return Ok(None) };
            let answers = Arc::new(Answers::falling_back());
            match new.instantiate_shadow(answers.clone(), subject.shared.clone()) {
                Ok(filter) => Ok(Some((filter, answers))),
                Err(error) => Err((subject.name.clone(), error)),
            }
        };
        let filters = self.subjects.iter().map(instance).collect::<Result<Vec<_>, _>>()?;
        for (found, filter) in self.shadow.found.iter().zip(&filters) {
            locked(&found.cells).extend(filter.iter().map(|(filter, _)| filter.cells().clone()));
        }
        Ok(Instances { shadow: self.shadow.clone(), subjects: self.subjects.clone(), filters })
    }
}

impl Shadow {
    /// Nothing is judged any more; what was found out stays.
    pub fn end(&self) {
        if !self.is_over.load(Relaxed) {
            self.took_ms.store(self.for_ms(), Relaxed);
            self.is_over.store(true, Relaxed);
        }
    }

    /// Whether its filters still judge.
    pub fn is_running(&self) -> bool {
        !self.is_over.load(Relaxed)
    }

    /// For how long its filters have judged.
    pub fn for_ms(&self) -> u64 {
        if self.is_over.load(Relaxed) {
            return self.took_ms.load(Relaxed);
        }
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// How the new filters do, for the gates.
    pub fn metrics(&self) -> Metrics {
        let mut metrics = Metrics::default();
        for found in &self.found {
            let tally = locked(&found.tally);
            metrics.events += tally.events;
            metrics.traps += tally.traps;
            metrics.rejects += tally.rejects;
            metrics.base_events += tally.events;
            metrics.base_rejects += tally.base_rejects;
            metrics.differences += tally.differences;
            let (call_us_p99, budget_p99_percent) = found.times();
            metrics.module_p99_us = metrics.module_p99_us.max(call_us_p99);
            metrics.fuel_p99_percent = metrics.fuel_p99_percent.max(budget_p99_percent);
        }
        metrics
    }

    /// The counts, for monitoring.
    pub fn reading(&self) -> ShadowReading {
        let bindings = self.found.iter().map(|found| {
            let Tally { events, differences, traps, .. } = &*locked(&found.tally);
            ShadowBindingReading {
                binding: found.name.to_string(),
                events: *events,
                differences: *differences,
                faults: *traps,
            }
        });
        ShadowReading {
            rollout: self.rollout,
            is_running: self.is_running(),
            sampled_out: self.sampled_out.load(Relaxed),
            skipped: self.skipped.load(Relaxed),
            bindings: bindings.collect(),
        }
    }

    /// All that is known, for people.
    pub fn report(&self, site: &str, router: &str) -> ShadowReport {
        ShadowReport {
            site: site.to_owned(),
            router: router.to_owned(),
            running: self.is_running(),
            for_ms: self.for_ms(),
            sample_percent: self.sample_percent,
            sampled_out: self.sampled_out.load(Relaxed),
            skipped: self.skipped.load(Relaxed),
            bindings: self.found.iter().map(Found::report).collect(),
            samples_left_out: false,
        }
    }
}

impl Found {
    /// The longest times over the workers: of all but one of a hundred calls, and in percent of what a call may use.
    fn times(&self) -> (u32, u8) {
        let cells = locked(&self.cells);
        let figures = cells.iter().map(|cells| cells.read());
        figures.fold((0, 0), |(us, percent), figures| {
            (us.max(figures.call_us_p99), percent.max(figures.budget_p99_percent))
        })
    }

    fn report(&self) -> ShadowedBinding {
        let (call_us_p99, budget_p99_percent) = self.times();
        let change = match (&self.old, &self.new) {
            (None, _) => "added",
            (Some(_), Some(_)) => "changed",
            (Some(_), None) => "removed",
        };
        let tally = locked(&self.tally);
        ShadowedBinding {
            name: self.name.to_string(),
            change: change.to_owned(),
            old: self.old.clone(),
            new: self.new.clone(),
            events: tally.events,
            differences: tally.differences,
            traps: tally.traps,
            rejects: tally.rejects,
            base_rejects: tally.base_rejects,
            asked_otherwise: tally.asked_otherwise,
            call_us_p99,
            budget_p99_percent,
            transitions: tally.transitions(),
            samples: tally.samples(),
        }
    }
}

fn locked<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    // A poisoned lock still guards whole values.
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}
