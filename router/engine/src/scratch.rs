//! Where a chain keeps what it finds out about a batch: owned by the caller, its memory kept from batch to batch.

use std::sync::Arc;

use myelin_arena::{Arena, ArenaBuilder, Entry, Kind, Verdict};

use crate::batch::{Batch, EventView, FilterBatch, Payloads};
use crate::fault::FilterFault;
use crate::filter::Outcome;
use crate::info::{Needs, PayloadNeed};
use crate::stats::BindingCells;
use crate::tape::Tape;

/// What became of an event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Fate {
    /// It goes on under its own topic, and under its targets where there are any.
    #[default]
    Pass,
    /// It is refused.
    Deny,
    /// It goes to the dead-letter topic.
    DeadLetter,
    /// It vanishes.
    Drop,
    /// It goes on under its targets only.
    Redirect,
}

impl Fate {
    /// Whether later bindings still see the event.
    pub fn goes_on(self) -> bool {
        matches!(self, Self::Pass | Self::Redirect)
    }

    /// The name in logs and in `explain`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Deny => "deny",
            Self::DeadLetter => "dead-letter",
            Self::Drop => "drop",
            Self::Redirect => "redirect",
        }
    }
}

/// A run of bytes in one of the outputs that the scratch keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    output: usize,
    start: usize,
    len: usize,
}

/// Which version of a binding's filter has spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Version {
    #[default]
    Current,
    Previous,
}

/// What is known about one event.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct EventState {
    pub(crate) fate: Fate,
    /// The binding that has decided the fate, where one has.
    pub(crate) binding: Option<usize>,
    pub(crate) version: Version,
    pub(crate) reason: u16,
    pub(crate) detail: Option<Part>,
    /// Index into the faults.
    pub(crate) fault: Option<usize>,
    pub(crate) attrs: Option<Part>,
    pub(crate) payload: Option<Part>,
    /// The previous version has judged it after a fault.
    pub(crate) last_good: bool,
    /// The fate follows from a fault and not from a verdict.
    pub(crate) by_fault: bool,
    /// The event's last entry in the list of routes.
    pub(crate) routes: Option<usize>,
}

/// Route bits that one binding has set for one event.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RouteSet {
    pub(crate) binding: usize,
    pub(crate) version: Version,
    pub(crate) bits: u32,
    /// The same event's entry before.
    pub(crate) before: Option<usize>,
}

/// An event that a filter has emitted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EmittedParts {
    pub(crate) binding: usize,
    pub(crate) cause: usize,
    pub(crate) topic: Part,
    pub(crate) attrs: Part,
    pub(crate) payload: Part,
}

/// The caller's memory for [`Chain::run`](crate::Chain::run); one for each session or worker.
#[derive(Debug, Default)]
pub struct ChainScratch {
    builder: ArenaBuilder,
    payloads: Arc<Payloads>,
    /// CPU time of the filters that were asked with this, in nanoseconds, by the calls that were measured.
    pub(crate) cpu_ns: u64,
    pub(crate) outcome: Outcome,
    /// Indices of the events that the next binding sees.
    pub(crate) alive: Vec<usize>,
    pub(crate) states: Vec<EventState>,
    outputs: Vec<Vec<u8>>,
    pub(crate) routes: Vec<RouteSet>,
    pub(crate) emitted: Vec<EmittedParts>,
    pub(crate) faults: Vec<FilterFault>,
    pub(crate) untouched: bool,
    /// The next batch shall be taped.
    records_next: bool,
    pub(crate) tape: Option<Box<Tape>>,
}

impl ChainScratch {
    /// An empty scratch; it grows to the size of the largest batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// The CPU time of all filters that were asked with this since the last look, in nanoseconds. One call in some stands
    /// for its like: right over many batches, not for one.
    pub fn take_cpu_ns(&mut self) -> u64 {
        std::mem::take(&mut self.cpu_ns)
    }

    pub(crate) fn begin(&mut self, count: usize) {
        self.states.clear();
        self.states.resize(count, EventState::default());
        self.alive.clear();
        self.alive.extend(0..count);
        self.outputs.clear();
        self.routes.clear();
        self.emitted.clear();
        self.faults.clear();
        self.untouched = true;
        self.tape = std::mem::take(&mut self.records_next).then(Box::default);
    }

    /// Asks for a [`Tape`] of the next batch, and of no other.
    pub fn record(&mut self) {
        self.records_next = true;
    }

    /// The bytes of a part.
    pub(crate) fn bytes(&self, part: Part) -> &[u8] {
        self.outputs.get(part.output).and_then(|output| output.get(part.start..part.start + part.len)).unwrap_or(&[])
    }

    /// Builds what a filter with `needs` sees of the events that are alive, and the place for its answer.
    pub(crate) fn project(
        &mut self,
        needs: &Needs,
        reads_payloads: bool,
        batch: &Batch<'_>,
        cpu_start_ns: Option<u64>,
    ) -> (FilterBatch<'_>, &mut Outcome) {
        let Self { builder, payloads, outcome, alive, states, outputs, tape, .. } = self;
        builder.reset(alive.len());
        let bytes = |part: Part| &outputs[part.output][part.start..part.start + part.len];
        let now = |index: usize| {
            let (event, state) = (&batch.events()[index], &states[index]);
            (event, state.attrs.map_or(event.attrs, bytes), state.payload.map_or(event.payload, bytes))
        };
        for &index in alive.iter() {
            let (event, attrs, payload) = now(index);
            builder.push(&view(needs, event, attrs, payload));
        }
        if reads_payloads {
            let copies = Arc::make_mut(payloads);
            copies.clear();
            alive.iter().for_each(|&index| copies.push(now(index).2));
        }
        let filter_batch = FilterBatch {
            count: word(builder.len()),
            arena: builder.finish(),
            now_unix_ns: batch.now_unix_ns(),
            now_ms: batch.now_ms(),
            payloads: reads_payloads.then_some(&*payloads),
            cpu_start_ns,
            record_calls: tape.is_some(),
        };
        (filter_batch, outcome)
    }

    /// Takes in the checked outcome of the `count` events from `first` on in the list of those alive.
    pub(crate) fn apply(&mut self, by: By<'_>, first: usize, outcome: &mut Outcome) {
        let verdicts = std::mem::take(&mut outcome.verdicts);
        let output = std::mem::take(&mut outcome.output);
        let mut reader = Reader { base: &output, arena: Arena::new(&output).ok(), next: 0, output: self.outputs.len() };
        for (offset, verdict) in verdicts.iter().enumerate() {
            let Some(&event) = self.alive.get(first + offset) else { break };
            self.apply_verdict(by, event, Verdict(*verdict), &mut reader);
        }
        if !output.is_empty() {
            self.outputs.push(output);
        }
        outcome.verdicts = verdicts;
    }

    fn apply_verdict(&mut self, by: By<'_>, event: usize, verdict: Verdict, reader: &mut Reader<'_>) {
        let kind = verdict.kind().unwrap_or(Kind::Deny);
        by.tally(kind);
        if verdict == Verdict::ALLOW {
            return;
        }
        self.untouched = false;
        let Some(state) = self.states.get_mut(event) else { return };
        if verdict.replaces_payload() || verdict.replaces_attrs() {
            let entry = reader.take();
            by.cells.replaced.add(1);
            if verdict.replaces_payload() {
                state.payload = Some(reader.part(entry.payload));
            }
            if verdict.replaces_attrs() {
                state.attrs = Some(reader.part(entry.attrs));
            }
        }
        if verdict.has_detail() {
            let entry = reader.take();
            state.detail = Some(reader.part(entry.payload));
        }
        let fate = match kind {
            Kind::Allow | Kind::Add => state.fate,
            Kind::Deny => Fate::Deny,
            Kind::DeadLetter => Fate::DeadLetter,
            Kind::Drop => Fate::Drop,
            Kind::Redirect => Fate::Redirect,
        };
        if !matches!(kind, Kind::Allow | Kind::Add) {
            (state.fate, state.binding, state.version, state.reason) =
                (fate, Some(by.binding), by.version, verdict.reason());
        }
        if verdict.routes() != 0 {
            let before = state.routes.replace(self.routes.len());
            self.routes.push(RouteSet { binding: by.binding, version: by.version, bits: verdict.routes(), before });
        }
        for _ in 0..verdict.emitted() {
            let entry = reader.take();
            let (topic, attrs, payload) =
                (reader.part(entry.topic.as_bytes()), reader.part(entry.attrs), reader.part(entry.payload));
            self.emitted.push(EmittedParts { binding: by.binding, cause: event, topic, attrs, payload });
            by.cells.emitted.add(1);
        }
    }

    /// Takes the events whose fate is sealed off the list of those alive.
    pub(crate) fn bury(&mut self) {
        let states = &self.states;
        self.alive.retain(|&event| states[event].fate.goes_on());
    }
}

/// Who has spoken, and where it is counted.
#[derive(Clone, Copy)]
pub(crate) struct By<'a> {
    pub(crate) binding: usize,
    pub(crate) version: Version,
    pub(crate) cells: &'a BindingCells,
}

impl By<'_> {
    fn tally(&self, kind: Kind) {
        let cells = self.cells;
        if self.version == Version::Previous {
            return cells.faulted_last_good.add(1);
        }
        let cell = match kind {
            Kind::Allow => &cells.allowed,
            Kind::Deny => &cells.denied,
            Kind::DeadLetter => &cells.dead_lettered,
            Kind::Drop => &cells.dropped,
            Kind::Redirect => &cells.redirected,
            Kind::Add => &cells.added,
        };
        cell.add(1);
    }
}

/// Reads the entries of a checked output in order.
struct Reader<'a> {
    base: &'a [u8],
    arena: Option<Arena<'a>>,
    next: usize,
    output: usize,
}

impl<'a> Reader<'a> {
    /// The next entry. The outcome was checked, so there is one; an empty one keeps this total.
    fn take(&mut self) -> Entry<'a> {
        let index = self.next;
        self.next += 1;
        self.arena.and_then(|arena| arena.entry(index).ok()).unwrap_or(Entry {
            topic: "",
            attrs: &[],
            payload: &[],
            payload_total: 0,
            identity: None,
        })
    }

    /// Where `bytes` lie in the output.
    fn part(&self, bytes: &[u8]) -> Part {
        let start = (bytes.as_ptr() as usize).wrapping_sub(self.base.as_ptr() as usize);
        let start = if bytes.is_empty() { 0 } else { start };
        Part { output: self.output, start, len: bytes.len() }
    }
}

/// What a filter with `needs` sees of an event.
fn view<'a>(needs: &Needs, event: &EventView<'a>, attrs: &'a [u8], payload: &'a [u8]) -> Entry<'a> {
    let shown = match needs.payload {
        PayloadNeed::None => 0,
        PayloadNeed::Prefix(bytes) => payload.len().min(bytes as usize),
        PayloadNeed::Full => payload.len(),
    };
    Entry {
        topic: event.topic,
        attrs: if needs.attrs() { attrs } else { &[] },
        payload: &payload[..shown],
        payload_total: word(payload.len()),
        identity: needs.identity.then_some(event.identity),
    }
}

/// A length as the arena stores it; admission bounds payloads far below 4 GiB.
fn word(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}
