//! A bound filter: a filter under a binding's name, with what it is granted and what follows when it faults.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use serde::{Deserialize, Serialize};

use crate::batch::Batch;
use crate::fault::{FaultCode, FilterFault};
use crate::filter::{Filter, Outcome};
use crate::grant::Grant;
use crate::isolate::Piece;
use crate::judge::Contract;
use crate::limits::FaultPolicy;
use crate::scratch::{By, ChainScratch, Fate, Version};
use crate::seat::{Ran, Seat};
use crate::stats::BindingCells;

/// What becomes of an event whose filter has faulted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnFault {
    /// It is refused; the publisher may send it again.
    #[default]
    Reject,
    /// It goes on as if the binding were not there. Not for filters that guard something.
    Pass,
    /// It goes to the dead-letter topic with the fault's code.
    DeadLetter,
    /// The previous version of the filter judges it; where there is none, or it faults too, it is refused.
    LastGood,
}

/// What a binding says about its filter.
#[derive(Clone, Debug)]
pub struct BindingSetup {
    /// Its name.
    pub name: Arc<str>,
    /// What becomes of an event whose filter has faulted.
    pub on_fault: OnFault,
    /// Where its routes and emitted events may go.
    pub grant: Grant,
    /// When it is set apart and when it is given up.
    pub policy: FaultPolicy,
}

/// Why a filter cannot stand under a binding.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BindError {
    /// It declares a route that the binding does not grant.
    #[error("the filter declares the route `{route}`, which the binding `{binding}` does not grant: add it to `grant`")]
    RouteNotGranted {
        /// The binding.
        binding: String,
        /// The route.
        route: String,
    },
}

impl BindError {
    /// The stable name.
    pub fn code(&self) -> &'static str {
        match self {
            Self::RouteNotGranted { .. } => "route-not-granted",
        }
    }
}

/// A filter in its binding. Belongs to one worker at a time: it can be sent there, not shared.
pub struct BoundFilter {
    name: Arc<str>,
    on_fault: OnFault,
    current: Seat,
    previous: Option<Seat>,
    cells: Arc<BindingCells>,
}

impl BoundFilter {
    /// Binds `filter`. `previous` is the version before, already set up; it is asked only after a fault, and only
    /// where the binding says [`OnFault::LastGood`].
    ///
    /// # Errors
    /// [`BindError`] when a declared route is not granted.
    pub fn new(
        setup: BindingSetup,
        filter: Box<dyn Filter>,
        previous: Option<Box<dyn Filter>>,
    ) -> Result<Self, BindError> {
        let seat = |filter: Box<dyn Filter>| {
            let info = Arc::clone(filter.info());
            if let Some(route) = info.routes.iter().find(|route| !setup.grant.allows(route)) {
                let (binding, route) = (setup.name.to_string(), route.to_string());
                return Err(BindError::RouteNotGranted { binding, route });
            }
            let contract = Contract { info, grant: setup.grant.clone() };
            Ok(Seat::new(Arc::clone(&setup.name), filter, contract, setup.policy))
        };
        let budget_ns = filter.batch_cpu_ns_max();
        let current = seat(filter)?;
        let previous = previous.filter(|_| setup.on_fault == OnFault::LastGood).map(seat).transpose()?;
        let cells = Arc::new(BindingCells::new(&current.contract().info, budget_ns));
        Ok(Self { name: setup.name, on_fault: setup.on_fault, current, previous, cells })
    }

    /// Puts `filter`, which is the same one with a state, in the place of the one that it was bound with, and gives that
    /// back. For a binding that has judged nothing yet.
    ///
    /// # Errors
    /// Gives `filter` back where it declares something else than the one that was bound: a state may not change that.
    pub fn replace(&self, filter: Box<dyn Filter>) -> Result<Box<dyn Filter>, Box<dyn Filter>> {
        if **filter.info() == *self.current.contract().info { self.current.replace(filter) } else { Err(filter) }
    }

    /// Takes its instances out, for another thread to free, whoever still holds the binding: it is never asked again.
    pub fn retire(&self) -> Vec<Box<dyn Filter>> {
        [Some(&self.current), self.previous.as_ref()].into_iter().flatten().filter_map(Seat::retire).collect()
    }

    /// The binding's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its cells, for whoever reads them.
    pub fn cells(&self) -> &Arc<BindingCells> {
        &self.cells
    }

    /// Whether its filter is given up.
    pub fn is_quarantined(&self) -> bool {
        self.cells.is_quarantined()
    }

    /// Whether its filter runs on a thread of its own.
    pub fn is_apart(&self) -> bool {
        self.cells.apart.load(Relaxed)
    }

    /// The filter's state for its next version. `None` where it has faulted: the state was lost then.
    pub fn save(&self) -> Option<Vec<u8>> {
        self.current.save(&self.cells)
    }

    pub(crate) fn contract(&self, version: Version) -> Option<&Contract> {
        match version {
            Version::Current => Some(self.current.contract()),
            Version::Previous => self.previous.as_ref().map(Seat::contract),
        }
    }

    /// Judges the events that are alive, as binding number `index` of a chain.
    pub(crate) async fn judge(&self, index: usize, batch: &Batch<'_>, scratch: &mut ChainScratch) {
        let alive = scratch.alive.len();
        self.cells.batches.add(1);
        self.cells.events.add(alive as u64);
        if scratch.tape.is_some() {
            scratch.tape_input(index);
        }
        let by = By { binding: index, version: Version::Current, cells: &self.cells };
        match self.current.run(batch, scratch, &self.cells).await {
            Ran::Clean => self.take_in(by, alive, scratch),
            Ran::Pieces(pieces) => {
                let orphans = self.take_pieces(by, pieces, scratch);
                self.resolve(index, batch, scratch, orphans).await;
            }
            Ran::Gone => {
                let detail = format!("the filter of the binding `{}` is quarantined", self.name);
                scratch.faults.push(FilterFault::new(FaultCode::Quarantined, detail));
                let orphans = self.orphan(0, alive, scratch);
                self.resolve(index, batch, scratch, orphans).await;
            }
        }
        if !scratch.untouched {
            scratch.bury();
        }
    }

    /// Takes in the outcome of a whole batch that lies in the scratch.
    fn take_in(&self, by: By<'_>, alive: usize, scratch: &mut ChainScratch) {
        let mut outcome = std::mem::take(&mut scratch.outcome);
        self.tape(by.version, 0, scratch, &mut outcome);
        self.cells.note(&mut outcome.notes);
        if outcome.output.is_empty() && outcome.verdicts.iter().all(|verdict| *verdict == 0) {
            self.cells.allowed.add(alive as u64);
        } else {
            scratch.apply(by, 0, &mut outcome);
        }
        scratch.outcome = outcome;
    }

    /// Notes an outcome where the batch is taped.
    fn tape(&self, version: Version, first: usize, scratch: &mut ChainScratch, outcome: &mut Outcome) {
        if scratch.tape.is_some()
            && let Some(contract) = self.contract(version)
        {
            scratch.tape_outcome(version, first, &contract.info, outcome);
        }
    }

    /// Takes in what was judged and gives back the events that were not.
    fn take_pieces(&self, by: By<'_>, pieces: Vec<Piece>, scratch: &mut ChainScratch) -> Vec<usize> {
        let mut orphans = Vec::new();
        for piece in pieces {
            match piece.result {
                Ok(mut outcome) => {
                    self.tape(by.version, piece.first, scratch, &mut outcome);
                    if by.version == Version::Current {
                        self.cells.note(&mut outcome.notes);
                    }
                    scratch.apply(by, piece.first, &mut outcome);
                }
                Err(fault) => {
                    scratch.faults.push(fault);
                    orphans.append(&mut self.orphan(piece.first, piece.count, scratch));
                }
            }
        }
        orphans
    }

    /// Marks events, by their places among those alive, with the last fault of the scratch.
    fn orphan(&self, first: usize, count: usize, scratch: &mut ChainScratch) -> Vec<usize> {
        let fault = scratch.faults.len().checked_sub(1);
        let events: Vec<usize> = scratch.alive.iter().skip(first).take(count).copied().collect();
        for event in &events {
            scratch.states[*event].fault = fault;
        }
        scratch.untouched &= events.is_empty();
        if scratch.tape.is_some() {
            scratch.tape_fault(&events);
        }
        events
    }

    /// Decides what becomes of the events that this version has not judged.
    async fn resolve(&self, index: usize, batch: &Batch<'_>, scratch: &mut ChainScratch, orphans: Vec<usize>) {
        self.cells.faulted.add(orphans.len() as u64);
        let rest = match (self.on_fault, &self.previous) {
            (OnFault::LastGood, Some(previous)) if !orphans.is_empty() => {
                self.ask_previous(previous, index, batch, scratch, orphans).await
            }
            _ => orphans,
        };
        let (fate, cell) = match self.on_fault {
            OnFault::Pass => (None, &self.cells.faulted_passed),
            OnFault::DeadLetter => (Some(Fate::DeadLetter), &self.cells.faulted_dead_lettered),
            OnFault::Reject | OnFault::LastGood => (Some(Fate::Deny), &self.cells.faulted_rejected),
        };
        cell.add(rest.len() as u64);
        for event in rest {
            let state = &mut scratch.states[event];
            if let Some(fate) = fate {
                (state.fate, state.binding, state.by_fault) = (fate, Some(index), true);
            }
        }
    }

    /// Lets the previous version judge the `orphans` and gives back those that it has not judged either.
    async fn ask_previous(
        &self,
        previous: &Seat,
        index: usize,
        batch: &Batch<'_>,
        scratch: &mut ChainScratch,
        orphans: Vec<usize>,
    ) -> Vec<usize> {
        let everybody = std::mem::replace(&mut scratch.alive, orphans);
        let by = By { binding: index, version: Version::Previous, cells: &self.cells };
        let rest = match previous.run(batch, scratch, &self.cells).await {
            Ran::Clean => {
                let mut outcome = std::mem::take(&mut scratch.outcome);
                self.tape(by.version, 0, scratch, &mut outcome);
                scratch.apply(by, 0, &mut outcome);
                scratch.outcome = outcome;
                Vec::new()
            }
            Ran::Pieces(pieces) => self.take_pieces(by, pieces, scratch),
            Ran::Gone => scratch.alive.clone(),
        };
        let judged = std::mem::replace(&mut scratch.alive, everybody);
        for event in judged.into_iter().filter(|event| !rest.contains(event)) {
            scratch.states[event].last_good = true;
        }
        rest
    }
}
