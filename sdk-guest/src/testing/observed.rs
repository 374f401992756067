//! What a test sees of a verdict.

use crate::instance::{Info, Outcome};
use myelin_arena::{Arena, Attrs, Entry, Kind, attrs, verdict::Verdict as Bits};

/// Most headers that a router lets through.
const HEADERS_MAX: usize = 64;

/// A verdict with its numbers resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    /// What becomes of the event.
    pub kind: Kind,
    /// Text of the reason of a deny or a dead-letter; `None` for the other kinds, or where none is declared.
    pub reason: Option<String>,
    /// Names of the routes, in the order in which they are declared.
    pub routes: Vec<String>,
    /// The new payload.
    pub payload: Option<Vec<u8>>,
    /// The new attribute block.
    pub attrs: Option<Vec<u8>>,
    /// The detail text.
    pub detail: Option<String>,
    /// What the filter emits beside the event.
    pub emitted: Vec<EmittedEvent>,
}

impl Observed {
    /// The header `name` of the new attributes.
    pub fn header(&self, name: &str) -> Option<&str> {
        Attrs::new(self.attrs.as_deref()?).header(name)
    }

    /// The new payload as text.
    ///
    /// # Panics
    /// When it is not UTF-8.
    pub fn payload_text(&self) -> Option<&str> {
        self.payload.as_deref().map(|payload| std::str::from_utf8(payload).expect("the new payload is UTF-8"))
    }
}

/// An event that the filter made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EmittedEvent {
    /// Its topic.
    pub topic: String,
    /// Its attribute block.
    pub attrs: Vec<u8>,
    /// Its payload.
    pub payload: Vec<u8>,
}

/// Reads a batch's answer as strictly as a router does.
pub(crate) fn read(info: &Info, outcome: &Outcome) -> Vec<Observed> {
    let arena = (!outcome.output.is_empty()).then(|| Arena::new(&outcome.output).expect("the output is an arena"));
    let mut entries = arena.iter().flat_map(Arena::entries).map(|entry| entry.expect("an output entry is whole"));
    let observed = outcome.verdicts.iter().map(|&bits| read_one(info, Bits(bits), &mut entries)).collect();
    assert!(entries.next().is_none(), "the output has more entries than the verdicts announce");
    observed
}

fn read_one<'a>(info: &Info, bits: Bits, entries: &mut impl Iterator<Item = Entry<'a>>) -> Observed {
    let kind = bits.check(info.reasons.len(), info.routes.len());
    let kind = kind.unwrap_or_else(|error| panic!("the verdict breaks the contract: {error}"));
    let mut size = 0;
    let mut next = || {
        let entry = entries.next().expect("the output has an entry for each that the verdicts announce");
        size += entry.topic.len() + entry.attrs.len() + entry.payload.len();
        attrs::validate(entry.attrs, HEADERS_MAX).unwrap_or_else(|error| panic!("new attributes: {error}"));
        entry
    };
    let replacement = (bits.replaces_payload() || bits.replaces_attrs()).then(&mut next);
    let detail = bits.has_detail().then(&mut next);
    let emitted = (0..bits.emitted()).map(|_| next()).map(|entry| EmittedEvent {
        topic: entry.topic.to_owned(),
        attrs: entry.attrs.to_vec(),
        payload: entry.payload.to_vec(),
    });
    let emitted: Vec<_> = emitted.collect();
    assert!(emitted.iter().all(|event| !event.topic.is_empty()), "an emitted event has no topic");
    let bytes_max = info.max_output;
    assert!(size <= bytes_max as usize, "the filter puts out {size} bytes for one event; MAX_OUTPUT is {bytes_max}");
    let gives_reason = matches!(kind, Kind::Deny | Kind::DeadLetter);
    let has_route = |bit: usize| bits.routes() >> bit & 1 == 1;
    Observed {
        kind,
        reason: gives_reason.then(|| info.reasons.get(usize::from(bits.reason())).cloned()).flatten(),
        routes: info
            .routes
            .iter()
            .enumerate()
            .filter(|(bit, _)| has_route(*bit))
            .map(|(_, name)| name.clone())
            .collect(),
        payload: replacement.filter(|_| bits.replaces_payload()).map(|entry| entry.payload.to_vec()),
        attrs: replacement.filter(|_| bits.replaces_attrs()).map(|entry| entry.attrs.to_vec()),
        detail: detail.map(|entry| String::from_utf8(entry.payload.to_vec()).expect("the detail is UTF-8")),
        emitted,
    }
}
