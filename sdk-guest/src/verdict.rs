//! What a filter answers.

use myelin_arena::{AttrsBuilder, Entry, Kind, verdict::Verdict as Bits};

/// Most events that one verdict may emit: a router takes no more.
pub const EMITTED_MAX: usize = 64;
/// Longest detail text in bytes; a longer one is cut.
pub const DETAIL_BYTES_MAX: usize = 1024;

/// A declared reason of a deny or a dead-letter. [`reason!`](crate::reason) makes it from its text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reason(u16);

impl Reason {
    /// The reason with this index in the declared ones, for filters whose reasons follow from their configuration.
    ///
    /// # Panics
    /// Above 65,535; a filter declares at most 1,024.
    pub const fn nth(index: usize) -> Self {
        assert!(index <= u16::MAX as usize, "a filter declares at most 1024 reasons");
        #[allow(clippy::cast_possible_truncation, reason = "checked in the line above; `try_from` is not const")]
        Self(index as u16)
    }
}

/// A set of declared routes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Routes(u32);

impl Routes {
    /// The set with the routes of these indices.
    ///
    /// # Panics
    /// For an index above 31.
    pub fn of(indices: &[usize]) -> Self {
        Self(indices.iter().fold(0, |set, &index| {
            assert!(index < 32, "a filter declares at most 32 routes");
            set | 1 << index
        }))
    }
}

impl<const N: usize> From<[usize; N]> for Routes {
    fn from(indices: [usize; N]) -> Self {
        Self::of(&indices)
    }
}

/// What becomes of an event. Without payload, attributes, detail and emitted events it is one word.
#[derive(Debug)]
#[must_use = "a verdict counts only when `on_event` returns it"]
pub struct Verdict {
    pub(crate) bits: Bits,
    pub(crate) output: Option<Box<Output>>,
}

/// What goes out beside the verdict's bits.
#[derive(Debug, Default)]
pub(crate) struct Output {
    pub(crate) payload: Option<Vec<u8>>,
    pub(crate) attrs: Option<Vec<u8>>,
    pub(crate) detail: Option<String>,
    pub(crate) emitted: Vec<Emitted>,
}

/// An event that the filter makes itself.
#[derive(Debug)]
pub(crate) struct Emitted {
    pub(crate) topic: String,
    pub(crate) attrs: Vec<u8>,
    pub(crate) payload: Vec<u8>,
}

impl Verdict {
    /// The event goes on.
    pub const fn allow() -> Self {
        Self::of(Kind::Allow)
    }

    /// The event is refused; its publisher learns the reason.
    pub const fn deny(reason: Reason) -> Self {
        Self { bits: Bits::of(Kind::Deny).with_reason(reason.0), output: None }
    }

    /// The event goes to `$dead/<binding>/<topic>` with the reason.
    pub const fn dead_letter(reason: Reason) -> Self {
        Self { bits: Bits::of(Kind::DeadLetter).with_reason(reason.0), output: None }
    }

    /// The event vanishes; it is counted.
    pub const fn drop() -> Self {
        Self::of(Kind::Drop)
    }

    /// The event goes to these routes only. None at all = it vanishes, counted as a drop.
    ///
    /// `Verdict::redirect([route!("topic:orders/eu")])`
    pub fn redirect(routes: impl Into<Routes>) -> Self {
        match routes.into() {
            Routes(0) => Self::drop(),
            Routes(set) => Self { bits: Bits::of(Kind::Redirect).with_routes(set), output: None },
        }
    }

    /// The event goes on, and a copy to each of these routes. None at all = it just goes on.
    pub fn add(routes: impl Into<Routes>) -> Self {
        match routes.into() {
            Routes(0) => Self::allow(),
            Routes(set) => Self { bits: Bits::of(Kind::Add).with_routes(set), output: None },
        }
    }

    /// The same with a new payload. Counts against `MAX_OUTPUT`, as all that follow.
    pub fn with_payload(mut self, payload: impl Into<Vec<u8>>) -> Self {
        self.output().payload = Some(payload.into());
        self
    }

    /// The same with new attributes in place of all old ones; see
    /// [`EventView::attrs_with`](crate::EventView::attrs_with) for changing single headers.
    pub fn with_attrs(mut self, attrs: AttrsBuilder) -> Self {
        self.output().attrs = Some(attrs.into_bytes());
        self
    }

    /// The same with a text that explains it, for example the JSON pointer of a fault. It is cut to what `MAX_OUTPUT`
    /// leaves, and to [`DETAIL_BYTES_MAX`].
    pub fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.output().detail = Some(detail.into());
        self
    }

    /// The same, emitting another event beside this one. Its topic must lie in the binding's grant.
    ///
    /// # Panics
    /// At the 65th event of one verdict ([`EMITTED_MAX`]).
    pub fn emit(mut self, topic: impl Into<String>, attrs: AttrsBuilder, payload: impl Into<Vec<u8>>) -> Self {
        let emitted = &mut self.output().emitted;
        assert!(emitted.len() < EMITTED_MAX, "a verdict emits at most {EMITTED_MAX} events");
        emitted.push(Emitted { topic: topic.into(), attrs: attrs.into_bytes(), payload: payload.into() });
        self
    }

    const fn of(kind: Kind) -> Self {
        Self { bits: Bits::of(kind), output: None }
    }

    fn output(&mut self) -> &mut Output {
        self.output.get_or_insert_default()
    }
}

impl Output {
    /// Cuts the detail to what `bytes_max` leaves, measured as the router does: topics, attributes and payloads; says whether there was one and nothing of it is left.
    pub(crate) fn cut_detail(&mut self, bytes_max: usize) -> bool {
        let left = bytes_max.saturating_sub(self.replacement_bytes_len()).min(DETAIL_BYTES_MAX);
        let Some(detail) = self.detail.as_mut().filter(|detail| detail.len() > left) else { return false };
        detail.truncate(detail.floor_char_boundary(left));
        if detail.is_empty() {
            self.detail = None;
            return true;
        }
        false
    }

    /// The bits that announce it.
    #[allow(clippy::cast_possible_truncation, reason = "`emit` keeps the count at or below 64")]
    pub(crate) fn announce(&self, bits: Bits) -> Bits {
        let bits = bits.with_replacement(self.payload.is_some(), self.attrs.is_some());
        let bits = bits.with_emitted(self.emitted.len() as u8);
        if self.detail.is_some() { bits.with_detail() } else { bits }
    }

    /// Its entries, in the order of the contract: replacement, detail, emitted events.
    pub(crate) fn entries(&self) -> impl Iterator<Item = Entry<'_>> {
        let replaces = self.payload.is_some() || self.attrs.is_some();
        let payload = self.payload.as_deref().unwrap_or_default();
        let replacement = replaces.then(|| entry("", self.attrs.as_deref().unwrap_or_default(), payload));
        let detail = self.detail.as_ref().map(|detail| entry("", &[], detail.as_bytes()));
        let emitted = self.emitted.iter().map(|event| entry(&event.topic, &event.attrs, &event.payload));
        replacement.into_iter().chain(detail).chain(emitted)
    }

    fn replacement_bytes_len(&self) -> usize {
        let emitted = self.emitted.iter().map(|event| event.topic.len() + event.attrs.len() + event.payload.len());
        let (payload, attrs) = (self.payload.as_deref(), self.attrs.as_deref());
        payload.map_or(0, <[u8]>::len) + attrs.map_or(0, <[u8]>::len) + emitted.sum::<usize>()
    }
}

fn entry<'a>(topic: &'a str, attrs: &'a [u8], payload: &'a [u8]) -> Entry<'a> {
    let payload_total = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    Entry { topic, attrs, payload, payload_total, identity: None }
}
