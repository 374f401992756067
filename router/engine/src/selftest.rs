//! The self-test before a module is activated: its own test vectors through a real slot, or a synthetic batch.

use myelin_arena::{AttrsBuilder, Kind, Verdict, attrs};

use crate::batch::{Batch, EventView};
use crate::fault::FilterFault;
use crate::filter::Filter;
use crate::grant::Grant;
use crate::info::FilterInfo;
use crate::isolate::run_checked;
use crate::judge::Contract;
use crate::limits::{BATCH_EVENTS_MAX, ModuleLimits};
use crate::program::Program;
use crate::scratch::ChainScratch;
use crate::slot::{InstantiateError, SlotSetup};
use crate::vectors::{Expect, ExpectedKind, TestVector, parse_vectors};

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
        return test_filter(&mut program.instantiate(setup)?, &[]);
    }
    let mut report = SelfTestReport { vectors: 0, expected: 0, synthetic: 0 };
    // Vectors bring their own configurations: one instance for each.
    for part in vectors.chunk_by(|a, b| a.config == b.config) {
        let config = part.first().map_or(&[][..], |vector| &vector.config);
        // And what they share is theirs alone, as in the harness of the SDK.
        let shared = std::sync::Arc::default();
        let mut slot = program.instantiate(&SlotSetup { config, shared, ..setup.clone() })?;
        let tested = test_filter(&mut slot, part)?;
        report.vectors += tested.vectors;
        report.expected += tested.expected;
    }
    Ok(report)
}

/// The same for any filter.
fn test_filter(filter: &mut dyn Filter, vectors: &[TestVector]) -> Result<SelfTestReport, SelfTestFailure> {
    let contract = Contract { info: filter.info().clone(), grant: Grant::everything() };
    let mut run = |events: &[EventView<'_>]| {
        let batch = Batch::new(events, TIME_UNIX_NS, 0)
            .map_err(|e| FilterFault::new(crate::fault::FaultCode::Host, e.to_string()))?;
        let mut scratch = ChainScratch::new();
        scratch.begin(events.len());
        let reads_payloads = filter.reads_payloads();
        let (view, outcome) = scratch.project(&contract.info.needs, reads_payloads, &batch, None);
        run_checked(filter, &contract, &view, outcome)?;
        Ok::<_, FilterFault>(outcome.verdicts.clone())
    };
    let mut report = SelfTestReport { vectors: 0, expected: 0, synthetic: 0 };
    for (index, vector) in vectors.iter().enumerate() {
        let (number, topic) = (index + 1, vector.topic.clone());
        let verdicts = run(&[view(vector)]);
        let verdicts = verdicts.map_err(|fault| SelfTestFailure::Fault { number, topic: topic.clone(), fault })?;
        report.vectors += 1;
        if let Some(expect) = &vector.expect {
            let verdict = Verdict(verdicts.first().copied().unwrap_or(u64::MAX));
            meets(expect, verdict, &contract.info).map_err(|(expected, found)| SelfTestFailure::Unexpected {
                number,
                topic,
                expected,
                found,
            })?;
            report.expected += 1;
        }
    }
    if vectors.is_empty() {
        for events in [1, BATCH_EVENTS_MAX] {
            synthetic(&contract.info, events, &mut run)
                .map_err(|fault| SelfTestFailure::Synthetic { events, fault })?;
            report.synthetic += events;
        }
    }
    Ok(report)
}

/// The time of every self-test, so that it always says the same: 2025-01-01.
const TIME_UNIX_NS: u64 = 1_735_689_600_000_000_000;

fn view(vector: &TestVector) -> EventView<'_> {
    EventView { topic: &vector.topic, attrs: &vector.attrs, payload: &vector.payload, identity: &vector.identity }
}

/// Runs events through the filter under test and gives its checked verdicts.
type Run<'a> = dyn FnMut(&[EventView<'_>]) -> Result<Vec<u64>, FilterFault> + 'a;

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
    run(&views).map(drop)
}

/// Compares a checked verdict with its expectation; the error holds both in words.
fn meets(expect: &Expect, verdict: Verdict, info: &FilterInfo) -> Result<(), (String, String)> {
    let kind = match verdict.kind() {
        Ok(Kind::Deny) => ExpectedKind::Deny,
        Ok(Kind::DeadLetter) => ExpectedKind::DeadLetter,
        Ok(Kind::Drop) => ExpectedKind::Drop,
        Ok(Kind::Redirect) => ExpectedKind::Redirect,
        Ok(Kind::Add) => ExpectedKind::Add,
        Ok(Kind::Allow) | Err(_) => ExpectedKind::Allow,
    };
    if kind != expect.verdict {
        return Err((expect.verdict.as_str().into(), kind.as_str().into()));
    }
    let reason = info.reasons.get(usize::from(verdict.reason())).map_or("", String::as_str);
    if let Some(expected) = &expect.reason
        && expected != reason
    {
        return Err((format!("the reason `{expected}`"), format!("`{reason}`")));
    }
    let bits = verdict.routes();
    let set = info.routes.iter().enumerate().filter(|(bit, _)| bits >> bit & 1 == 1);
    let mut routes: Vec<_> = set.map(|(_, route)| route.to_string()).collect();
    if let Some(expected) = &expect.routes {
        let mut expected = expected.clone();
        expected.sort();
        routes.sort();
        if expected != routes {
            return Err((format!("the routes {expected:?}"), format!("{routes:?}")));
        }
    }
    Ok(())
}
