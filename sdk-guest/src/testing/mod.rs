//! Runs a filter on the host, without Wasm: for plain `cargo test`.
//!
//! The harness goes the way that a router goes: it projects each event to what `NEEDS` asks for, lays it into an arena,
//! runs the filter's batch loop and holds the answer against the contract. A test that breaks it panics with the
//! reason.

pub(crate) mod calls;
mod fixtures;
mod observed;

pub use fixtures::{FixtureReport, run_fixtures};
pub use observed::{EmittedEvent, Observed};

use crate::host::Level;
use crate::instance::{Info, Instance};
use crate::{Filter, PayloadNeed};
use calls::HostState;
use myelin_arena::{ArenaBuilder, AttrsBuilder, Entry, attrs};

/// The time of every batch unless a test sets another: 2026-01-01T00:00:00Z in Unix nanoseconds.
pub const NOW_UNIX_NS: u64 = 1_767_225_600_000_000_000;

/// A filter under test.
pub struct Harness<F: Filter> {
    instance: Instance<F>,
    info: Info,
    host: HostState,
    now_unix_ns: u64,
}

impl<F: Filter> Harness<F> {
    /// Makes the filter from a configuration; `""` = none given.
    ///
    /// # Errors
    /// What the filter says against its configuration.
    pub fn new(config: impl AsRef<[u8]>) -> Result<Self, String> {
        Self::with_previous(config, None)
    }

    /// The same, handing over what the version before saved.
    ///
    /// # Errors
    /// What the filter says against its configuration.
    pub fn with_previous(config: impl AsRef<[u8]>, previous: Option<&[u8]>) -> Result<Self, String> {
        let mut host = HostState::default();
        let made = calls::with_state(&mut host, || Instance::new(config.as_ref(), previous));
        made.map(|(instance, info)| Self { instance, info, host, now_unix_ns: NOW_UNIX_NS })
    }

    /// Begins an event; [`TestEvent::verdict`] runs it.
    pub fn event(&mut self, topic: &str) -> TestEvent<'_, F> {
        TestEvent { harness: self, event: OwnedEvent { topic: topic.to_owned(), ..OwnedEvent::default() } }
    }

    /// The filter itself, to look at its state.
    pub fn filter(&mut self) -> &mut F {
        &mut self.instance.filter
    }

    /// What the filter hands to its next version.
    pub fn save(&mut self) -> Vec<u8> {
        let Self { instance, host, .. } = self;
        calls::with_state(host, || instance.filter.save())
    }

    /// Sets the batch's clock, also for [`crate::host::take`] and [`crate::host::seen`].
    pub fn set_now_unix_ns(&mut self, now_unix_ns: u64) {
        self.now_unix_ns = now_unix_ns;
    }

    /// Puts a schema where [`crate::host::schema`] finds it.
    pub fn set_schema(&mut self, subject: &str, schema: impl Into<Vec<u8>>) {
        self.host.schemas.insert(subject.to_owned(), schema.into());
    }

    /// The value of the counter `name`.
    ///
    /// # Panics
    /// When the filter does not declare it.
    pub fn counter(&self, name: &str) -> u64 {
        let index = F::COUNTERS.iter().position(|&counter| counter == name);
        let index = index.unwrap_or_else(|| panic!("`{name}` is not in COUNTERS"));
        u32::try_from(index).ok().and_then(|index| self.host.counters.get(&index).copied()).unwrap_or_default()
    }

    /// What the filter logged, in order.
    pub fn logs(&self) -> &[(Level, String)] {
        &self.host.logs
    }

    /// The declared routes.
    pub fn routes(&self) -> &[String] {
        &self.info.routes
    }

    /// Runs several events as one batch.
    ///
    /// # Panics
    /// When the filter breaks the contract: output over `MAX_OUTPUT`, a reason or a route that is not declared, a new
    /// payload for an event that does not go on.
    pub fn batch(&mut self, events: Vec<OwnedEvent>) -> Vec<Observed> {
        let mut arena = ArenaBuilder::new(events.len());
        events.iter().for_each(|event| self.project(event, &mut arena));
        self.host.payloads = events.iter().map(|event| event.payload.clone()).collect();
        let count = u32::try_from(events.len()).expect("a test's batch is small");
        let Self { instance, host, now_unix_ns, info } = self;
        host.now_ms = Some(*now_unix_ns / 1_000_000);
        let outcome = calls::with_state(host, || instance.run(arena.finish(), count, *now_unix_ns));
        host.now_ms = None;
        assert_eq!(
            instance.details_lost, 0,
            "a detail was lost: MAX_OUTPUT is {} bytes; raise it by what the detail may take",
            info.max_output
        );
        assert!(
            host.counters.keys().all(|&counter| (counter as usize) < F::COUNTERS.len()),
            "the filter raised a counter that is not in COUNTERS"
        );
        observed::read(info, &outcome)
    }

    /// Copies of an event what the filter's needs ask for, as a router does.
    fn project(&self, event: &OwnedEvent, arena: &mut ArenaBuilder) {
        let needs = self.info.needs;
        let payload = match needs.payload {
            PayloadNeed::None => &[],
            PayloadNeed::Prefix(bytes) => &event.payload[..event.payload.len().min(bytes as usize)],
            PayloadNeed::Full => &event.payload[..],
        };
        arena.push(&Entry {
            topic: &event.topic,
            attrs: if needs.has_attributes() { event.attrs.as_bytes() } else { &[] },
            payload,
            payload_total: u32::try_from(event.payload.len()).expect("a test's payload is small"),
            identity: needs.identity.then_some(event.identity.as_str()),
        });
    }
}

/// An event for [`Harness::batch`].
#[derive(Clone, Debug, Default)]
pub struct OwnedEvent {
    /// Its topic.
    pub topic: String,
    /// Its attributes.
    pub attrs: AttrsBuilder,
    /// Its payload.
    pub payload: Vec<u8>,
    /// The identity of its publisher.
    pub identity: String,
}

/// An event in the making.
#[must_use = "an event is judged by `verdict()`"]
pub struct TestEvent<'h, F: Filter> {
    harness: &'h mut Harness<F>,
    event: OwnedEvent,
}

impl<F: Filter> TestEvent<'_, F> {
    /// Adds a header.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.event.attrs.header(name, value);
        self
    }

    /// Sets the ordering key.
    pub fn key(mut self, key: impl AsRef<[u8]>) -> Self {
        self.event.attrs.own(attrs::KEY, key.as_ref());
        self
    }

    /// Sets the CloudEvents `type`.
    pub fn event_type(mut self, event_type: &str) -> Self {
        self.event.attrs.own(attrs::TYPE, event_type.as_bytes());
        self
    }

    /// Sets the media type.
    pub fn content_type(mut self, content_type: &str) -> Self {
        self.event.attrs.own(attrs::CONTENT_TYPE, content_type.as_bytes());
        self
    }

    /// Sets the publisher's identity.
    pub fn identity(mut self, identity: &str) -> Self {
        identity.clone_into(&mut self.event.identity);
        self
    }

    /// Sets the payload.
    pub fn payload(mut self, payload: impl AsRef<[u8]>) -> Self {
        self.event.payload = payload.as_ref().to_vec();
        self
    }

    /// The event, for [`Harness::batch`].
    pub fn into_owned(self) -> OwnedEvent {
        self.event
    }

    /// Runs the event as a batch of one.
    ///
    /// # Panics
    /// When the filter breaks the contract; see [`Harness::batch`].
    pub fn verdict(self) -> Observed {
        self.harness.batch(vec![self.event]).remove(0)
    }
}
