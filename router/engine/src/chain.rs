//! A chain: the bindings that match an event, one after the other, over a whole batch.

use std::rc::Rc;

use crate::batch::Batch;
use crate::bound::BoundFilter;
use crate::fault::FilterFault;
use crate::info::RouteTarget;
use crate::scratch::{ChainScratch, Fate};
use crate::tape::Tape;

/// Bindings in order. Belongs to one worker; bindings may stand in several chains of it.
#[derive(Clone, Default)]
pub struct Chain {
    bindings: Vec<Rc<BoundFilter>>,
}

impl Chain {
    /// A chain of `bindings`, first to last.
    pub fn new(bindings: Vec<Rc<BoundFilter>>) -> Self {
        Self { bindings }
    }

    /// Its bindings.
    pub fn bindings(&self) -> &[Rc<BoundFilter>] {
        &self.bindings
    }

    /// Judges a batch, each event by each binding until one ends it. Every binding sees what the one before left;
    /// sets of routes add up.
    ///
    /// The future is ready at once, unless a binding has faulted and runs apart. In the steady state nothing is
    /// allocated for an event. What was found out is read from the result, which borrows `scratch`.
    pub async fn run<'a>(&'a self, batch: &Batch<'_>, scratch: &'a mut ChainScratch) -> Judgement<'a> {
        scratch.begin(batch.events().len());
        for (index, binding) in self.bindings.iter().enumerate() {
            if scratch.alive.is_empty() {
                break;
            }
            binding.judge(index, batch, scratch).await;
        }
        self.judgement(scratch)
    }

    /// What the scratch says about the batch that this chain has judged last.
    pub(crate) fn judgement<'a>(&'a self, scratch: &'a ChainScratch) -> Judgement<'a> {
        Judgement { chain: self, scratch }
    }
}

/// What a chain found out about a batch.
#[derive(Clone, Copy)]
pub struct Judgement<'a> {
    chain: &'a Chain,
    scratch: &'a ChainScratch,
}

/// What became of one event, and why.
#[derive(Clone, Copy, Debug)]
pub struct Judged<'a> {
    /// What became of it.
    pub fate: Fate,
    /// The binding that decided so: index in the chain. `None` where every binding let it pass.
    pub binding: Option<usize>,
    /// The declared reason of a deny or a dead-letter; empty where there is none.
    pub reason: &'a str,
    /// The last detail text that a filter gave, such as the JSON pointer of a fault; empty where there is none.
    pub detail: &'a str,
    /// The last fault on the event's way. The fate follows from it where the binding rejects or dead-letters faulted
    /// events; where it lets them pass or asks the previous version, the fate is another's.
    pub fault: Option<&'a FilterFault>,
    /// Whether the previous version of the filter has judged it after a fault.
    pub last_good: bool,
    /// New attributes, where a filter has replaced them.
    pub attrs: Option<&'a [u8]>,
    /// A new payload, where a filter has replaced it.
    pub payload: Option<&'a [u8]>,
    /// Whether [`Judgement::targets`] has something.
    pub has_targets: bool,
}

/// An event that a filter emits beside the batch's own; the router admits it like any other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Emitted<'a> {
    /// Its topic: valid, and granted to the binding.
    pub topic: &'a str,
    /// Its attribute block: valid.
    pub attrs: &'a [u8],
    /// Its payload.
    pub payload: &'a [u8],
    /// The binding that emits it: index in the chain.
    pub binding: usize,
    /// The event that it was emitted for: index in the batch.
    pub cause: usize,
}

impl<'a> Judgement<'a> {
    /// What was taped, where that was [asked for](ChainScratch::record).
    pub fn tape(&self) -> Option<&'a Tape> {
        self.scratch.tape.as_deref()
    }

    /// How many events were judged.
    pub fn len(&self) -> usize {
        self.scratch.states.len()
    }

    /// Whether the batch had no events.
    pub fn is_empty(&self) -> bool {
        self.scratch.states.is_empty()
    }

    /// Whether every event passes as it came, without targets, and nothing is emitted: the common case, known
    /// without looking at each event.
    pub fn all_pass_untouched(&self) -> bool {
        self.scratch.untouched
    }

    /// What became of the event at `index`.
    ///
    /// # Panics
    /// When the batch has no such event.
    pub fn event(&self, index: usize) -> Judged<'a> {
        let (scratch, state) = (self.scratch, &self.scratch.states[index]);
        let contract = state.binding.and_then(|binding| self.chain.bindings[binding].contract(state.version));
        let gives_reason = !state.by_fault && matches!(state.fate, Fate::Deny | Fate::DeadLetter);
        let declared = contract.filter(|_| gives_reason).map(|contract| &contract.info.reasons);
        let reason = declared.and_then(|reasons| reasons.get(usize::from(state.reason)));
        let detail = state.detail.map_or(&[][..], |part| scratch.bytes(part));
        Judged {
            fate: state.fate,
            binding: state.binding,
            reason: reason.map_or("", String::as_str),
            detail: std::str::from_utf8(detail).unwrap_or_default(),
            fault: state.fault.and_then(|fault| scratch.faults.get(fault)),
            last_good: state.last_good,
            attrs: state.attrs.map(|part| scratch.bytes(part)),
            payload: state.payload.map(|part| scratch.bytes(part)),
            has_targets: state.routes.is_some(),
        }
    }

    /// All events in order.
    pub fn events(&self) -> impl Iterator<Item = Judged<'a>> + use<'a> {
        let this = *self;
        (0..this.len()).map(move |index| this.event(index))
    }

    /// Where the event at `index` goes beside, or instead of, its own topic. A target that two bindings name comes
    /// twice.
    ///
    /// # Panics
    /// When the batch has no such event.
    pub fn targets(&self, index: usize) -> impl Iterator<Item = &'a RouteTarget> + use<'a> {
        self.target_sets(index).flatten()
    }

    /// The same, those of each binding together.
    ///
    /// # Panics
    /// When the batch has no such event.
    pub fn target_sets(
        &self,
        index: usize,
    ) -> impl Iterator<Item = impl Iterator<Item = &'a RouteTarget> + use<'a>> + use<'a> {
        let this = *self;
        let mut next = this.scratch.states[index].routes;
        let sets = std::iter::from_fn(move || {
            let set = &this.scratch.routes[next?];
            next = set.before;
            Some(set)
        });
        sets.map(move |set| {
            let routes = this.chain.bindings[set.binding].contract(set.version).map(|contract| &contract.info.routes);
            let routes = routes.into_iter().flatten().enumerate();
            routes.filter(move |(bit, _)| set.bits >> bit & 1 == 1).map(|(_, target)| target)
        })
    }

    /// What filters emitted, in the order of bindings and events.
    pub fn emitted(&self) -> impl Iterator<Item = Emitted<'a>> + use<'a> {
        let scratch = self.scratch;
        scratch.emitted.iter().map(move |parts| Emitted {
            topic: std::str::from_utf8(scratch.bytes(parts.topic)).unwrap_or_default(),
            attrs: scratch.bytes(parts.attrs),
            payload: scratch.bytes(parts.payload),
            binding: parts.binding,
            cause: parts.cause,
        })
    }
}

impl std::fmt::Debug for Chain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.bindings.iter().map(|binding| binding.name())).finish()
    }
}
