//! Made-up events in property style: none may make the filter fail, every verdict keeps the contract, and the same
//! events get the same verdicts, one by one and in batches.

use crate::cli::fixtures::FixtureFile;
use crate::cli::made_up::{MadeUp, Maker};
use crate::cli::trial::{NOW_UNIX_NS, patient_instance, told};
use myelin_engine::{BATCH_BYTES_MAX, BATCH_EVENTS_MAX, Decision, Program, TestVector, Trial};
use std::collections::BTreeMap;

/// Configurations that are tried at most; each gets its share of the events.
const CONFIGS_MAX: usize = 16;

/// What the made-up events have shown.
pub(super) struct Stress {
    /// The seed they were made from.
    pub(super) seed: u64,
    /// How many were judged.
    pub(super) events: usize,
    /// Under how many configurations.
    pub(super) configs: usize,
    /// Verdicts by kind.
    pub(super) verdicts: BTreeMap<&'static str, usize>,
    /// The first thing that is wrong.
    pub(super) failure: Option<StressFailure>,
}

/// What a made-up event has brought to light.
pub(super) struct StressFailure {
    /// What is wrong.
    pub(super) what: String,
    /// The configuration.
    pub(super) config: String,
    /// The event as a line for `fixtures/`.
    pub(super) event: String,
    /// Its payload, where that is no text: the line then holds it only nearly.
    pub(super) payload_hex: Option<String>,
    /// Its number, from 1: the same seed makes it the same again.
    pub(super) number: usize,
}

/// Runs `events` made-up events, shared among the configurations of the fixtures.
pub(super) fn stress(program: &Program, files: &[FixtureFile], events: usize, seed: u64) -> Stress {
    let samples: Vec<_> = files.iter().flat_map(|file| file.cases.iter().map(|case| case.vector.clone())).collect();
    let configs = configs(&samples);
    let mut stress = Stress { seed, events: 0, configs: configs.len(), verdicts: BTreeMap::new(), failure: None };
    let share = events.div_ceil(configs.len().max(1));
    for config in configs {
        let count = share.min(events - stress.events);
        if let Err(failure) = stress.run(program, &config, &samples, count) {
            stress.failure = Some(failure);
            break;
        }
    }
    stress
}

/// The different configurations of the fixtures; none at all stands for itself.
fn configs(samples: &[TestVector]) -> Vec<Vec<u8>> {
    let mut configs: Vec<Vec<u8>> = Vec::new();
    for sample in samples {
        if !configs.contains(&sample.config) && configs.len() < CONFIGS_MAX {
            configs.push(sample.config.clone());
        }
    }
    if configs.is_empty() { vec![Vec::new()] } else { configs }
}

impl Stress {
    /// Two instances see the same events: one each by itself, the other in batches.
    fn run(
        &mut self,
        program: &Program,
        config: &[u8],
        samples: &[TestVector],
        count: usize,
    ) -> Result<(), StressFailure> {
        let failure = |what: String, event: Option<&MadeUp>, number| StressFailure {
            what,
            config: String::from_utf8_lossy(config).into_owned(),
            event: event.map(MadeUp::line).unwrap_or_default(),
            payload_hex: event.and_then(MadeUp::payload_hex),
            number,
        };
        let make = || patient_instance(program, config).map_err(|error| failure(error, None, 0));
        let (mut singles, mut batches) = (make()?, make()?);
        let mut maker = Maker::new(self.seed, samples.to_vec(), &singles.info().needs.headers);
        let mut left = count;
        while left > 0 {
            let batch = next_batch(&mut maker, left);
            left -= batch.len();
            let first = self.events + 1;
            let told = |(index, what): (usize, String)| failure(what, batch.get(index), first + index);
            let one_by_one = self.one_by_one(&mut singles, &batch).map_err(told)?;
            compare(&mut batches, &batch, &one_by_one).map_err(told)?;
        }
        Ok(())
    }

    fn one_by_one(&mut self, trial: &mut Trial, batch: &[MadeUp]) -> Result<Vec<Decision>, (usize, String)> {
        let mut decisions = Vec::with_capacity(batch.len());
        for (index, event) in batch.iter().enumerate() {
            let decided = trial.decide(&[event.view()], NOW_UNIX_NS);
            let decided = decided.map_err(|fault| (index, format!("the filter fails: {fault}")))?;
            self.events += 1;
            for decision in decided {
                *self.verdicts.entry(decision.verdict.as_str()).or_default() += 1;
                decisions.push(decision);
            }
        }
        Ok(decisions)
    }
}

/// As many events as fit into a batch.
fn next_batch(maker: &mut Maker, count_max: usize) -> Vec<MadeUp> {
    let (mut batch, mut bytes) = (Vec::new(), 0);
    // The last one may be over the bound by its own size: it is then a batch's half at most.
    while batch.len() < BATCH_EVENTS_MAX.min(count_max) && bytes < BATCH_BYTES_MAX / 2 {
        // Some are as good as the samples: state that only good events build up is seen, too.
        let event = if batch.len().is_multiple_of(4) { maker.mild() } else { maker.wild() };
        bytes += event.bytes();
        batch.push(event);
    }
    batch
}

/// Judges the events as one batch, and holds that against what was said about each by itself.
fn compare(trial: &mut Trial, batch: &[MadeUp], one_by_one: &[Decision]) -> Result<(), (usize, String)> {
    let views: Vec<_> = batch.iter().map(MadeUp::view).collect();
    let decided = trial.decide(&views, NOW_UNIX_NS).map_err(|fault| {
        let what = format!("the filter fails on a batch of {}, and on none of its events alone: {fault}", batch.len());
        (0, what)
    })?;
    match decided.iter().zip(one_by_one).position(|(batched, single)| batched != single) {
        None => Ok(()),
        Some(index) => {
            let (single, batched) = (told(&one_by_one[index]), told(&decided[index]));
            let what = format!("alone it is `{single}`, as number {} of a batch `{batched}`", index + 1);
            Err((index, what))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use myelin_engine::{ModuleLimits, parse_vectors};

    #[test]
    fn every_configuration_of_the_fixtures_is_tried_once() {
        let lines =
            "{\"topic\":\"a\"}\n{\"config\":{\"x\":1}}\n{\"topic\":\"a\"}\n{\"config\":null}\n{\"topic\":\"a\"}";
        let samples = parse_vectors(lines.as_bytes(), &ModuleLimits::default()).expect("samples");
        assert_eq!(configs(&samples), [b"".to_vec(), br#"{"x":1}"#.to_vec()]);
        assert_eq!(configs(&[]), [b"".to_vec()]);
    }

    #[test]
    fn batches_are_what_the_engine_takes() {
        let mut maker = Maker::new(1, Vec::new(), &[]);
        for left in [1, 10, 1_000] {
            let batch = next_batch(&mut maker, left);
            assert!(!batch.is_empty() && batch.len() <= left.min(BATCH_EVENTS_MAX));
            assert!(batch.iter().map(MadeUp::bytes).sum::<usize>() <= BATCH_BYTES_MAX);
        }
    }
}
