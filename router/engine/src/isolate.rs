//! Finds the poison events of a batch that faulted, so that they take no neighbour with them.
//!
//! The events are judged one by one, each on an instance that no fault has touched. A halving search would spend a
//! deadline at every level above a poison event; one by one spends a deadline on the poison events only, and the
//! calls for the others cost less than a thousandth of one.

use std::sync::Arc;

use myelin_arena::{Arena, ArenaBuilder};

use crate::batch::{FilterBatch, Payloads};
use crate::deadline::thread_cpu_ns;
use crate::fault::{FaultCode, FilterFault};
use crate::filter::{Filter, Outcome};
use crate::judge::Contract;

/// A deadline's fraction that a fault costs at least: so many cheap faults of one batch are looked at.
const FAULT_SHARE: u64 = 32;

/// A run of events of a batch that was judged, or not, in one call.
#[derive(Debug)]
pub(crate) struct Piece {
    /// Index of its first event.
    pub(crate) first: usize,
    /// How many events.
    pub(crate) count: usize,
    /// Its checked outcome.
    pub(crate) result: Result<Outcome, FilterFault>,
}

/// CPU time that a batch may still cost after it has faulted.
#[derive(Debug)]
pub(crate) struct Budget {
    deadline_ns: u64,
    left_ns: u64,
}

impl Budget {
    pub(crate) fn new(deadline_ns: u64, deadlines_max: u32) -> Self {
        Self { deadline_ns, left_ns: deadline_ns.saturating_mul(u64::from(deadlines_max)) }
    }

    /// Charges a call that used `cpu_ns`. An overrun deadline costs exactly one, whenever the tick came.
    fn charge(&mut self, cpu_ns: u64, fault: Option<&FilterFault>) {
        let cost = match fault {
            Some(fault) if fault.code == FaultCode::Deadline => self.deadline_ns,
            Some(_) => cpu_ns.max(self.deadline_ns / FAULT_SHARE),
            None => cpu_ns,
        };
        self.left_ns = self.left_ns.saturating_sub(cost);
    }
}

/// Runs a batch and checks the answer. After a fault of either kind the next call finds a fresh instance.
pub(crate) fn run_checked(
    filter: &mut dyn Filter,
    contract: &Contract,
    batch: &FilterBatch<'_>,
    outcome: &mut Outcome,
) -> Result<(), FilterFault> {
    outcome.clear();
    filter.run(batch, outcome)?;
    contract.check(outcome, batch.count as usize).inspect_err(|_| filter.reset())
}

/// Runs a batch whole; where it faults, or has already faulted as `after` says, event by event.
///
/// Gives back the pieces in order, and every fault of this call (without `after`).
pub(crate) fn run_or_isolate(
    filter: &mut dyn Filter,
    contract: &Contract,
    batch: &FilterBatch<'_>,
    after: Option<FilterFault>,
    deadlines_max: u32,
) -> (Vec<Piece>, Vec<FilterFault>) {
    let count = batch.count as usize;
    let (mut faults, mut already_told) = (Vec::new(), false);
    let mut outcome = Outcome::default();
    let whole = after.map_or_else(
        || run_checked(filter, contract, batch, &mut outcome),
        |fault| {
            already_told = true;
            Err(fault)
        },
    );
    let Err(first_fault) = whole else {
        return (vec![Piece { first: 0, count, result: Ok(outcome) }], faults);
    };
    if !already_told {
        faults.push(first_fault.clone());
    }
    if count <= 1 {
        return (vec![Piece { first: 0, count, result: Err(first_fault) }], faults);
    }
    let mut budget = Budget::new(filter.batch_cpu_ns_max(), deadlines_max);
    budget.charge(0, Some(&first_fault));
    let pieces = one_by_one(filter, contract, batch, &mut budget, &mut faults);
    (pieces, faults)
}

fn one_by_one(
    filter: &mut dyn Filter,
    contract: &Contract,
    batch: &FilterBatch<'_>,
    budget: &mut Budget,
    faults: &mut Vec<FilterFault>,
) -> Vec<Piece> {
    let count = batch.count as usize;
    let mut pieces = Vec::with_capacity(count);
    let mut builder = ArenaBuilder::default();
    for first in 0..count {
        if budget.left_ns == 0 {
            let detail = format!("the batch had spent its deadlines before its event {first} of {count}");
            let fault = FilterFault::new(FaultCode::BudgetSpent, detail);
            pieces.push(Piece { first, count: count - first, result: Err(fault) });
            break;
        }
        let start_ns = thread_cpu_ns();
        let mut outcome = Outcome::default();
        let result = run_single(filter, contract, batch, first, &mut builder, start_ns, &mut outcome);
        budget.charge(thread_cpu_ns().saturating_sub(start_ns), result.as_ref().err());
        faults.extend(result.as_ref().err().cloned());
        pieces.push(Piece { first, count: 1, result: result.map(|()| outcome) });
    }
    pieces
}

fn run_single(
    filter: &mut dyn Filter,
    contract: &Contract,
    batch: &FilterBatch<'_>,
    index: usize,
    builder: &mut ArenaBuilder,
    start_ns: u64,
    outcome: &mut Outcome,
) -> Result<(), FilterFault> {
    let lost = |e| FilterFault::new(FaultCode::Host, format!("the host's own arena: {e}"));
    let entry = Arena::new(batch.arena).and_then(|arena| arena.entry(index)).map_err(lost)?;
    builder.reset(1);
    builder.push(&entry);
    let payloads = batch.payloads.and_then(|payloads| payloads.payload(index)).map(|payload| {
        let mut one = Payloads::default();
        one.push(payload);
        Arc::new(one)
    });
    let single = FilterBatch {
        arena: builder.finish(),
        count: 1,
        payloads: payloads.as_ref(),
        cpu_start_ns: Some(start_ns),
        ..*batch
    };
    run_checked(filter, contract, &single, outcome)
}
