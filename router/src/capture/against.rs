//! Recorded events judged by other rules than those that let them in: which of them would be turned back.

use super::file::{Event, Side};
use super::read::Recording;
use std::collections::BTreeMap;

/// Topics and producers that are told apart; all others count as one.
const TALLIES_MAX: usize = 10_000;

/// What came of the events of one topic from one publisher.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Events that were judged.
    pub events: u64,
    /// Those that would be turned back.
    pub turned_back: u64,
    /// The first reason.
    pub reason: String,
}

/// The events that were judged, by topic and publisher.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tallies(BTreeMap<(String, String), Tally>);

impl Tallies {
    /// Judges each event of a recording once, where it came in. `judge` says nothing about an event that it is not about,
    /// else whether it may come in, or why not.
    pub fn add(&mut self, recording: &Recording, mut judge: impl FnMut(&Event) -> Option<Result<(), String>>) {
        let came_in = recording.batches.iter().filter(|batch| batch.entry && batch.side != Side::Egress);
        for event in came_in.flat_map(|batch| &batch.events).filter(|event| event.matched) {
            let Some(judged) = judge(event) else { continue };
            let mut key = (event.topic.clone(), event.identity.clone());
            if self.0.len() >= TALLIES_MAX && !self.0.contains_key(&key) {
                key = Default::default();
            }
            let tally = self.0.entry(key).or_default();
            tally.events += 1;
            if let Err(reason) = judged {
                tally.turned_back += 1;
                if tally.reason.is_empty() {
                    tally.reason = reason;
                }
            }
        }
    }

    /// Events that were judged, and those of them that would be turned back.
    pub fn total(&self) -> (u64, u64) {
        self.0.values().fold((0, 0), |(events, bad), tally| (events + tally.events, bad + tally.turned_back))
    }

    /// Topic, publisher, and what came of their events, where some would be turned back; most of them first.
    pub fn turned_back(&self) -> Vec<(&str, &str, &Tally)> {
        let bad = self.0.iter().filter(|(_, tally)| tally.turned_back > 0);
        let mut bad: Vec<_> = bad.map(|((topic, producer), tally)| (&**topic, &**producer, tally)).collect();
        bad.sort_by_key(|(.., tally)| std::cmp::Reverse(tally.turned_back));
        bad
    }
}
