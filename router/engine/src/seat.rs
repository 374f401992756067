//! Where a filter runs: on its worker, or after a fault on a thread of its own.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use tokio::sync::{Notify, oneshot};

use crate::batch::{Batch, Payloads};
use crate::breaker::{Breaker, Move};
use crate::deadline::thread_cpu_ns;
use crate::fault::{FaultCode, FilterFault};
use crate::filter::{Filter, LogLevel};
use crate::isolate::{Piece, run_checked};
use crate::judge::Contract;
use crate::lane::{Job, Lane, Reply};
use crate::limits::FaultPolicy;
use crate::scratch::ChainScratch;
use crate::stats::BindingCells;
use crate::times::{CPU_SAMPLE, Sampling};

/// What came of a batch.
pub(crate) enum Ran {
    /// Judged as a whole; the checked outcome lies in the scratch.
    Clean,
    /// Judged in pieces, some of which may have faulted.
    Pieces(Vec<Piece>),
    /// Not judged: the filter is given up.
    Gone,
}

/// A filter and the place where it runs.
pub(crate) struct Seat {
    name: Arc<str>,
    contract: Arc<Contract>,
    policy: FaultPolicy,
    reads_payloads: bool,
    place: RefCell<Place>,
    breaker: RefCell<Breaker>,
    /// Batches that the lane has not answered yet.
    outstanding: Cell<usize>,
    /// New batches wait until the lane is empty and the filter is back.
    returning: Cell<bool>,
    returned: Notify,
    sampling: Sampling,
}

enum Place {
    Here(Box<dyn Filter>),
    Apart(Lane),
    Gone,
}

enum Here {
    Clean,
    Faulted(FilterFault),
    Apart,
    Gone,
}

impl Seat {
    /// Puts another filter in the place of the one that runs here, and gives that back; where none does, it gives back
    /// the other one.
    pub(crate) fn replace(&self, filter: Box<dyn Filter>) -> Result<Box<dyn Filter>, Box<dyn Filter>> {
        match &mut *self.place.borrow_mut() {
            Place::Here(place) => Ok(std::mem::replace(place, filter)),
            Place::Apart(_) | Place::Gone => Err(filter),
        }
    }

    /// Takes the filter out, for good, where it runs here: one that runs apart ends with its lane.
    pub(crate) fn retire(&self) -> Option<Box<dyn Filter>> {
        let mut place = self.place.borrow_mut();
        match std::mem::replace(&mut *place, Place::Gone) {
            Place::Here(filter) => Some(filter),
            other => {
                *place = other;
                None
            }
        }
    }

    pub(crate) fn new(name: Arc<str>, filter: Box<dyn Filter>, contract: Contract, policy: FaultPolicy) -> Self {
        Self {
            name,
            contract: Arc::new(contract),
            policy,
            reads_payloads: filter.reads_payloads(),
            place: RefCell::new(Place::Here(filter)),
            breaker: RefCell::new(Breaker::new(policy)),
            outstanding: Cell::new(0),
            returning: Cell::new(false),
            returned: Notify::new(),
            sampling: Sampling::default(),
        }
    }

    pub(crate) fn contract(&self) -> &Contract {
        &self.contract
    }

    /// The filter's state for its next version; `None` where it runs apart, is given up, or faults.
    pub(crate) fn save(&self, cells: &BindingCells) -> Option<Vec<u8>> {
        let mut place = self.place.borrow_mut();
        let Place::Here(filter) = &mut *place else { return None };
        filter.save().inspect_err(|fault| cells.fault(fault, 0)).ok()
    }

    /// Judges the events that are alive. Awaits only where the filter runs apart.
    pub(crate) async fn run(&self, batch: &Batch<'_>, scratch: &mut ChainScratch, cells: &BindingCells) -> Ran {
        loop {
            if self.returning.get() {
                self.returned.notified().await;
                continue;
            }
            return match self.try_here(batch, scratch, cells) {
                Here::Clean => Ran::Clean,
                Here::Gone => Ran::Gone,
                Here::Apart => self.run_apart(batch, scratch, cells, None).await,
                Here::Faulted(fault) => {
                    cells.fault(&fault, batch.now_unix_ns());
                    self.count(batch, true, cells);
                    let count = scratch.alive.len();
                    if count > 1 && matches!(&*self.place.borrow(), Place::Apart(_)) {
                        self.run_apart(batch, scratch, cells, Some(fault)).await
                    } else {
                        Ran::Pieces(vec![Piece { first: 0, count, result: Err(fault) }])
                    }
                }
            };
        }
    }

    fn try_here(&self, batch: &Batch<'_>, scratch: &mut ChainScratch, cells: &BindingCells) -> Here {
        let mut place = self.place.borrow_mut();
        let filter = match &mut *place {
            Place::Here(filter) => filter,
            Place::Apart(_) => return Here::Apart,
            Place::Gone => return Here::Gone,
        };
        let start_ns = self.sampling.is_due().then(thread_cpu_ns);
        let needs = &self.contract.info.needs;
        let (filter_batch, outcome) = scratch.project(needs, self.reads_payloads, batch, start_ns);
        let result = run_checked(filter.as_mut(), &self.contract, &filter_batch, outcome);
        if let Some(start_ns) = start_ns {
            let cpu_ns = thread_cpu_ns().saturating_sub(start_ns);
            cells.took(cpu_ns, CPU_SAMPLE);
            scratch.cpu_ns += cpu_ns * u64::from(CPU_SAMPLE);
        }
        result.map_or_else(Here::Faulted, |()| Here::Clean)
    }

    /// Hands a copy of the batch to the lane and waits for its answer, while the worker goes on with other sessions.
    async fn run_apart(
        &self,
        batch: &Batch<'_>,
        scratch: &mut ChainScratch,
        cells: &BindingCells,
        after: Option<FilterFault>,
    ) -> Ran {
        // Declared before the sender, so dropped after it: a lane ends only when all its senders are gone.
        let _outstanding = Outstanding::new(self, cells);
        let Some(jobs) = self.lane_jobs() else { return Ran::Gone };
        let counted = after.is_some();
        let (reply, answer) = oneshot::channel();
        let (view, _) = scratch.project(&self.contract.info.needs, self.reads_payloads, batch, None);
        let job = Job {
            arena: view.arena.to_vec(),
            count: view.count,
            now_unix_ns: view.now_unix_ns,
            now_ms: view.now_ms,
            payloads: view.payloads.map(|payloads| Arc::new(Payloads::clone(payloads))),
            record_calls: view.record_calls,
            after,
            reply,
        };
        // The lane ends early only by a panic in it; then there is no answer either.
        drop(jobs.send(job).await);
        drop(jobs);
        let Ok(Reply { pieces, faults, cpu_ns }) = answer.await else {
            let fault = FilterFault::new(FaultCode::Host, "the thread of the filter has ended");
            cells.fault(&fault, batch.now_unix_ns());
            self.give_up(cells, batch, "the thread of the filter has ended");
            return Ran::Gone;
        };
        cells.took(cpu_ns, 1);
        scratch.cpu_ns += cpu_ns;
        faults.iter().for_each(|fault| cells.fault(fault, batch.now_unix_ns()));
        if !counted {
            self.count(batch, !faults.is_empty(), cells);
        }
        Ran::Pieces(pieces)
    }

    fn lane_jobs(&self) -> Option<tokio::sync::mpsc::Sender<Job>> {
        match &*self.place.borrow() {
            Place::Apart(lane) => Some(lane.jobs()),
            Place::Here(_) | Place::Gone => None,
        }
    }

    /// Counts a batch and does what follows from it.
    fn count(&self, batch: &Batch<'_>, faulted: bool, cells: &BindingCells) {
        let next = self.breaker.borrow_mut().on_batch(batch.now_ms(), faulted);
        match next {
            Move::Stay => {}
            Move::SetApart => self.set_apart(batch, cells),
            Move::Return => self.returning.set(true),
            Move::Quarantine => {
                let text = format!("{} faulted batches in {} ms", self.policy.faults_max, self.policy.window_ms);
                self.give_up(cells, batch, &text);
            }
        }
    }

    fn set_apart(&self, batch: &Batch<'_>, cells: &BindingCells) {
        // It may still be there: called back, and faulted again before the lane was empty.
        self.stop_returning();
        let mut place = self.place.borrow_mut();
        match std::mem::replace(&mut *place, Place::Gone) {
            Place::Here(filter) => match Lane::start(&self.name, filter, Arc::clone(&self.contract), self.policy) {
                Ok(lane) => {
                    *place = Place::Apart(lane);
                    cells.apart.store(true, Relaxed);
                    cells.remark(LogLevel::Warn, "set apart after a fault".into(), batch.now_unix_ns());
                }
                Err(error) => {
                    drop(place);
                    self.give_up(cells, batch, &format!("no thread to run it apart: {error}"));
                }
            },
            other => *place = other,
        }
    }

    /// Quarantine: the filter is not called any more, its instance is freed.
    fn give_up(&self, cells: &BindingCells, batch: &Batch<'_>, why: &str) {
        *self.place.borrow_mut() = Place::Gone;
        self.stop_returning();
        cells.apart.store(false, Relaxed);
        cells.quarantined.store(true, Relaxed);
        cells.remark(LogLevel::Error, format!("quarantined: {why}"), batch.now_unix_ns());
    }

    fn stop_returning(&self) {
        if self.returning.replace(false) {
            self.returned.notify_waiters();
        }
    }

    /// Brings the filter back from its lane once that is empty.
    fn bring_back(&self, cells: &BindingCells) {
        let mut place = self.place.borrow_mut();
        *place = match std::mem::replace(&mut *place, Place::Gone) {
            // The lane has nothing to do, so this waits for a thread's end and no longer.
            Place::Apart(lane) => match lane.stop() {
                Some(filter) => Place::Here(filter),
                None => {
                    cells.quarantined.store(true, Relaxed);
                    Place::Gone
                }
            },
            other => other,
        };
        cells.apart.store(false, Relaxed);
        drop(place);
        self.stop_returning();
    }
}

/// Counts a batch in the lane for as long as somebody waits for it, also when the waiting is given up.
struct Outstanding<'a> {
    seat: &'a Seat,
    cells: &'a BindingCells,
}

impl<'a> Outstanding<'a> {
    fn new(seat: &'a Seat, cells: &'a BindingCells) -> Self {
        seat.outstanding.set(seat.outstanding.get() + 1);
        Self { seat, cells }
    }
}

impl Drop for Outstanding<'_> {
    fn drop(&mut self) {
        let left = self.seat.outstanding.get() - 1;
        self.seat.outstanding.set(left);
        if left == 0 && self.seat.returning.get() {
            self.seat.bring_back(self.cells);
        }
    }
}
