//! The self-test before a module is activated: its own test vectors through a real slot, or a synthetic batch.

use myelin_arena::{AttrsBuilder, attrs};

use crate::batch::EventView;
use crate::fault::FilterFault;
use crate::info::FilterInfo;
use crate::limits::{BATCH_EVENTS_MAX, ModuleLimits};
use crate::program::Program;
use crate::slot::{InstantiateError, SlotSetup};
use crate::trial::Trial;
use crate::vectors::{TestVector, parse_vectors};

/// What the self-test has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SelfTestReport {
    /// Vectors that ran without a fault.
    pub vectors: usize,
    /// Of them: with an expectation, which was met.
    pub expected: usize,
    /// Events of the synthetic batches.
    pub synthetic: usize,
}

/// Why the self-test failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelfTestFailure {
    /// The vectors cannot be read.
    #[error("the test vectors: {0}")]
    Vectors(String),
    /// The filter could not be set up.
    #[error(transparent)]
    Instantiate(#[from] InstantiateError),
    /// It faulted on a vector.
    #[error("the filter faults on test vector {number} (topic `{topic}`): {fault}")]
    Fault {
        /// The vector, counted from 1.
        number: usize,
        /// Its topic.
        topic: String,
        /// The fault.
        fault: FilterFault,
    },
    /// It says something else than its vector expects.
    #[error("test vector {number} (topic `{topic}`) expects {expected}, the filter says {found}")]
    Unexpected {
        /// The vector, counted from 1.
        number: usize,
        /// Its topic.
        topic: String,
        /// What was expected.
        expected: String,
        /// What the filter says.
        found: String,
    },
    /// It faulted on a made-up event.
    #[error(
        "the filter faults on a made-up batch of {events}: {fault}; a filter must bear any event that its pattern matches"
    )]
    Synthetic {
        /// How many events the batch had.
        events: usize,
        /// The fault.
        fault: FilterFault,
    },
}

impl SelfTestFailure {
    /// The stable name.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Vectors(_) => "module-vectors",
            Self::Instantiate(error) => error.code(),
            Self::Fault { .. } => "self-test-fault",
            Self::Unexpected { .. } => "self-test-unexpected",
            Self::Synthetic { .. } => "self-test-synthetic-fault",
        }
    }
}

/// Tests a program on an instance of its own. With `vectors` (JSON lines, as [`inspect`](crate::inspect) found them),
/// each must run and meet its expectation; without, batches of one and of 64 made-up events must run without a fault.
/// No grant is looked at: that is the binding's business.
///
/// # Errors
/// The first failure.
pub fn self_test(
    program: &Program,
    setup: &SlotSetup<'_>,
    vectors: Option<&[u8]>,
) -> Result<SelfTestReport, SelfTestFailure> {
    let vectors = parse_vectors(vectors.unwrap_or_default(), &ModuleLimits::default());
    let vectors = vectors.map_err(SelfTestFailure::Vectors)?;
    if vectors.is_empty() {
        return test_made_up(&mut Trial::new(Box::new(program.instantiate(setup)?)));
    }
    let mut report = SelfTestReport { vectors: 0, expected: 0, synthetic: 0 };
    // Vectors bring their own configurations: one instance for each.
    for (first, part) in numbered(&vectors) {
        let config = part.first().map_or(&[][..], |vector| &vector.config);
        // And what they share is theirs alone, as in the harness of the SDK.
        let shared = std::sync::Arc::default();
        let slot = program.instantiate(&SlotSetup { config, shared, ..setup.clone() })?;
        let mut trial = Trial::new(Box::new(slot));
        for (number, vector) in (first..).zip(part) {
            report.expected += usize::from(test_vector(&mut trial, number, vector)?);
            report.vectors += 1;
        }
    }
    Ok(report)
}

/// The vectors of one instance each, with the number of the first, counted from 1.
fn numbered(vectors: &[TestVector]) -> impl Iterator<Item = (usize, &[TestVector])> {
    let mut next = 1;
    vectors.chunk_by(|a, b| a.instance == b.instance).map(move |part| {
        let first = next;
        next += part.len();
        (first, part)
    })
}

/// Tests one vector; whether it had an expectation.
fn test_vector(trial: &mut Trial, number: usize, vector: &TestVector) -> Result<bool, SelfTestFailure> {
    let topic = || vector.topic.clone();
    let decided = trial.decide(&[vector.view()], TIME_UNIX_NS);
    let decided = decided.map_err(|fault| SelfTestFailure::Fault { number, topic: topic(), fault })?;
    let (Some(expect), Some(decision)) = (&vector.expect, decided.first()) else { return Ok(false) };
    // Payloads are the author's business: they are looked at by `cargo test` and `myelin filter test`.
    match expect.unmet(decision).into_iter().find(|unmet| unmet.field != "payload") {
        None => Ok(true),
        Some(unmet) => {
            let (expected, found) = (unmet.expected, unmet.found);
            Err(SelfTestFailure::Unexpected { number, topic: topic(), expected, found })
        }
    }
}

/// Batches of one and of 64 made-up events.
fn test_made_up(trial: &mut Trial) -> Result<SelfTestReport, SelfTestFailure> {
    let mut report = SelfTestReport { vectors: 0, expected: 0, synthetic: 0 };
    let info = trial.info().clone();
    for events in [1, BATCH_EVENTS_MAX] {
        let judged = synthetic(&info, events, &mut |views| trial.judge(views, TIME_UNIX_NS));
        judged.map_err(|fault| SelfTestFailure::Synthetic { events, fault })?;
        report.synthetic += events;
    }
    Ok(report)
}

/// The time of every self-test, so that it always says the same: 2025-01-01.
const TIME_UNIX_NS: u64 = 1_735_689_600_000_000_000;

/// Runs events through the filter under test and checks its answer.
type Run<'a> = dyn FnMut(&[EventView<'_>]) -> Result<(), FilterFault> + 'a;

/// Made-up events with every header that the filter asks for, and JSON of different lengths.
fn synthetic(info: &FilterInfo, events: usize, run: &mut Run<'_>) -> Result<(), FilterFault> {
    let mut block = AttrsBuilder::new();
    block.own(attrs::TYPE, b"self-test").own(attrs::KEY, b"key");
    for name in &info.needs.headers {
        block.header(name, "self-test");
    }
    let payloads: Vec<_> = (0..events).map(|n| format!("{{\"self-test\":\"{}\"}}", "x".repeat(n * 7))).collect();
    let views: Vec<_> = payloads
        .iter()
        .map(|payload| EventView {
            topic: "self-test/event",
            attrs: block.as_bytes(),
            payload: payload.as_bytes(),
            identity: "spiffe://self-test/service/test",
        })
        .collect();
    run(&views)
}
