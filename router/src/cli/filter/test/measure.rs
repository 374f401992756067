//! How long the filter takes, and what memory an instance has.

use crate::cli::examine::Checked;
use crate::cli::fixtures::FixtureFile;
use crate::cli::trial::{NOW_UNIX_NS, instance};
use hdrhistogram::Histogram;
use myelin_engine::{BATCH_BYTES_MAX, BATCH_EVENTS_MAX, EventView, Program};
use std::time::{Duration, Instant};

/// Calls that are measured at most, of each kind and for each instance.
const CALLS_MAX: usize = 2_000;
/// Time that measuring may take, for each kind and instance.
const TIME_MAX: Duration = Duration::from_millis(200);
/// Instances that are measured at most: fixtures may have hundreds of configurations.
const INSTANCES_MAX: usize = 8;
/// Longest time that is told apart; no call comes near.
const NANOS_MAX: u64 = 60_000_000_000;
/// Calls that warm caches up, and are not measured.
const WARM_UP: usize = 50;

/// What was measured: wall time of calls, with the projection and the checks that a router makes, too.
pub(super) struct Speed {
    /// A call with one event, in nanoseconds.
    pub(super) single_ns: Histogram<u64>,
    /// A call with a full batch, in nanoseconds.
    pub(super) batch_ns: Histogram<u64>,
    /// The same for each of its events.
    pub(super) batch_event_ns: Histogram<u64>,
    /// Largest memory of an instance, in bytes.
    pub(super) memory_bytes: usize,
}

/// Measures with the events of the fixtures on which the filter does not fail; nothing where there are none.
pub(super) fn measure(program: &Program, files: &[FixtureFile], checked: &[Checked]) -> Option<Speed> {
    let (single_ns, batch_ns, batch_event_ns) = (histogram()?, histogram()?, histogram()?);
    let mut speed = Speed { single_ns, batch_ns, batch_event_ns, memory_bytes: 0 };
    let cases = files.iter().enumerate().flat_map(|(number, file)| file.cases.iter().map(move |case| (number, case)));
    let cases: Vec<_> = cases.zip(checked).filter(|(_, checked)| checked.said.is_ok()).map(|(case, _)| case).collect();
    let instances =
        cases.chunk_by(|(a_file, a), (b_file, b)| a_file == b_file && a.vector.instance == b.vector.instance);
    for cases in instances.take(INSTANCES_MAX) {
        let events: Vec<_> = cases.iter().map(|(_, case)| case.vector.view()).collect();
        let config = cases.first().map_or(&[][..], |(_, case)| &case.vector.config);
        speed.take(program, config, &events);
    }
    (!speed.single_ns.is_empty()).then_some(speed)
}

impl Speed {
    fn take(&mut self, program: &Program, config: &[u8], events: &[EventView<'_>]) {
        let Ok(mut trial) = instance(program, config) else { return };
        let mut cycle = events.iter().cycle();
        timed(CALLS_MAX, &mut self.single_ns, || {
            let event: Vec<_> = cycle.by_ref().take(1).copied().collect();
            let begin = Instant::now();
            trial.judge(&event, NOW_UNIX_NS).ok().map(|()| begin.elapsed())
        });
        let batch = full_batch(events);
        let each = &mut self.batch_event_ns;
        timed(CALLS_MAX / 8, &mut self.batch_ns, || {
            let begin = Instant::now();
            trial.judge(&batch, NOW_UNIX_NS).ok()?;
            let took = begin.elapsed();
            let count = u64::try_from(batch.len()).unwrap_or(1).max(1);
            each.saturating_record(nanos(took) / count);
            Some(took)
        });
        self.memory_bytes = self.memory_bytes.max(trial.memory_bytes().unwrap_or_default());
    }
}

/// Up to a minute, three digits.
fn histogram() -> Option<Histogram<u64>> {
    Histogram::new_with_bounds(1, NANOS_MAX, 3).ok()
}

/// Repeats a call until there are enough, the time is up, or it fails.
fn timed(calls_max: usize, into: &mut Histogram<u64>, mut call: impl FnMut() -> Option<Duration>) {
    let begin = Instant::now();
    for number in 0..calls_max + WARM_UP {
        let Some(took) = call() else { return };
        if number >= WARM_UP || begin.elapsed() > TIME_MAX {
            into.saturating_record(nanos(took));
        }
        if begin.elapsed() > TIME_MAX {
            return;
        }
    }
}

/// The events again and again, until no further one fits into a batch.
fn full_batch<'a>(events: &[EventView<'a>]) -> Vec<EventView<'a>> {
    let mut bytes = 0;
    let fits = |event: &&EventView<'a>| {
        bytes += event.topic.len() + event.attrs.len() + event.payload.len() + event.identity.len();
        bytes <= BATCH_BYTES_MAX
    };
    let batch: Vec<_> = events.iter().cycle().take(BATCH_EVENTS_MAX).take_while(fits).copied().collect();
    // A single event may be larger than a batch of several.
    if batch.is_empty() { events.iter().take(1).copied().collect() } else { batch }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_as_full_as_a_router_makes_it() {
        let small = EventView { topic: "a", ..EventView::default() };
        assert_eq!(full_batch(&[small]).len(), BATCH_EVENTS_MAX);
        let payload = vec![0; BATCH_BYTES_MAX / 3];
        assert_eq!(full_batch(&[EventView { payload: &payload, ..small }]).len(), 2);
        let payload = vec![0; BATCH_BYTES_MAX + 1];
        assert_eq!(full_batch(&[EventView { payload: &payload, ..small }]).len(), 1);
        assert!(full_batch(&[]).is_empty());
    }

    #[test]
    fn measuring_ends_with_the_calls_or_with_the_first_failure() {
        let mut histogram = histogram().expect("a histogram");
        timed(100, &mut histogram, || Some(Duration::from_micros(5)));
        assert_eq!(histogram.len(), 100);
        assert!((4_990..5_010).contains(&histogram.value_at_quantile(0.5)), "nanoseconds are kept");
        timed(100, &mut histogram, || None);
        assert_eq!(histogram.len(), 100);
    }
}
