//! Looks over a chain's shoulder: what each binding said about some events of a batch, and how long it took. For events
//! that are traced; the others are judged by [`Chain::run`], which knows nothing of this.

use std::time::Instant;

use crate::batch::Batch;
use crate::chain::{Chain, Judgement};
use crate::scratch::{ChainScratch, EventState, Fate};

/// What one binding said about one event.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is said on its own")]
pub struct Seen {
    /// The event: index in the batch.
    pub event: usize,
    /// The binding: index in the chain.
    pub binding: usize,
    /// What it decided; [`Fate::Pass`] where it let the event go on.
    pub fate: Fate,
    /// It sends copies to further targets.
    pub adds: bool,
    /// It changed attributes or payload.
    pub changes: bool,
    /// It emitted events for this one.
    pub emits: bool,
    /// Its filter faulted: the stable name of the fault.
    pub fault: Option<&'static str>,
    /// The previous version of its filter has judged instead.
    pub last_good: bool,
    /// How long the binding took for the whole batch, in nanoseconds of wall time: a filter is called once for all.
    pub took_ns: u64,
    /// Events of the batch that it judged in that time.
    pub judged: usize,
}

impl Chain {
    /// Judges a batch as [`Chain::run`] does, and appends to `seen` what each binding says about the `watched` events,
    /// in the order of the chain.
    pub async fn run_watched<'a>(
        &'a self,
        batch: &Batch<'_>,
        scratch: &'a mut ChainScratch,
        watched: &[usize],
        seen: &mut Vec<Seen>,
    ) -> Judgement<'a> {
        scratch.begin(batch.events().len());
        for (index, binding) in self.bindings().iter().enumerate() {
            let judged = scratch.alive.len();
            if judged == 0 {
                break;
            }
            let before: Vec<_> = watched.iter().filter_map(|&event| alive(scratch, event)).collect();
            let begin = Instant::now();
            binding.judge(index, batch, scratch).await;
            let took_ns = u64::try_from(begin.elapsed().as_nanos()).unwrap_or(u64::MAX);
            seen.extend(before.iter().map(|(event, before)| {
                let now = &scratch.states[*event];
                let emits = scratch.emitted.iter().any(|emitted| (emitted.cause, emitted.binding) == (*event, index));
                Seen {
                    event: *event,
                    binding: index,
                    fate: if now.binding == Some(index) { now.fate } else { Fate::Pass },
                    adds: now.routes != before.routes && now.binding != Some(index),
                    changes: (now.attrs, now.payload) != (before.attrs, before.payload),
                    emits,
                    fault: now.fault.filter(|_| now.fault != before.fault).map(|fault| scratch.faults[fault].code()),
                    last_good: now.last_good && !before.last_good,
                    took_ns,
                    judged,
                }
            }));
        }
        self.judgement(scratch)
    }
}

/// A watched event that the next binding sees, as it is before.
fn alive(scratch: &ChainScratch, event: usize) -> Option<(usize, EventState)> {
    let state = scratch.states.get(event)?;
    state.fate.goes_on().then_some((event, *state))
}
