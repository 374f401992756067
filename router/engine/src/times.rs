//! How long the calls of a filter take: a histogram that its worker alone writes, without a lock; and which calls are timed.

use crate::stats::Cell;
use std::hash::{BuildHasher, RandomState};

/// One batch of so many is timed on its worker: reading the CPU clock costs as much as a small filter.
pub(crate) const CPU_SAMPLE: u32 = 16;

/// Two buckets for each doubling of nanoseconds: a percentile is right to half of itself, upwards.
const BUCKETS: usize = 128;

/// A histogram of times.
#[derive(Debug)]
pub(crate) struct Times([Cell; BUCKETS]);

impl Default for Times {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Cell::default()))
    }
}

impl Times {
    pub(crate) fn record(&self, ns: u64) {
        self.0[bucket(ns)].add(1);
    }

    /// What `per_mille` of a thousand calls stay below, in nanoseconds; 0 where there was none.
    pub(crate) fn percentile_ns(&self, per_mille: u64) -> u64 {
        let counts: Vec<u64> = self.0.iter().map(Cell::value).collect();
        let all: u64 = counts.iter().sum();
        let wanted = all.saturating_mul(per_mille).div_ceil(1_000);
        let mut below = 0;
        for (bucket, count) in counts.iter().enumerate() {
            below += count;
            if wanted > 0 && below >= wanted {
                return upper_ns(bucket);
            }
        }
        0
    }
}

/// Which calls are timed: each with the same chance whatever was timed before, and nobody can tell beforehand. Whoever sends
/// the events could let the dear ones pass unseen otherwise.
#[derive(Debug, Default)]
pub(crate) struct Sampling {
    /// Calls until the next one that is timed.
    left: std::cell::Cell<u32>,
    drawn: std::cell::Cell<u64>,
    /// A key that nobody knows.
    key: RandomState,
}

impl Sampling {
    /// Whether this call is timed. The first one is.
    #[inline]
    pub(crate) fn is_due(&self) -> bool {
        if let Some(left) = self.left.get().checked_sub(1) {
            self.left.set(left);
            return false;
        }
        self.left.set(self.draw());
        true
    }

    /// How many calls are passed over: one more with the chance of not being timed, each time.
    #[cold]
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole, positive, and below 1,000")]
    fn draw(&self) -> u32 {
        let drawn = self.drawn.get();
        self.drawn.set(drawn.wrapping_add(1));
        // 53 bits: what a float has, and never 0.
        let chance = ((self.key.hash_one(drawn) >> 11) + 1) as f64 / (1_u64 << 53) as f64;
        (chance.ln() / (1.0 - 1.0 / f64::from(CPU_SAMPLE)).ln()) as u32
    }
}

/// The octave and its half.
fn bucket(ns: u64) -> usize {
    let octave = ns.max(1).ilog2();
    let half = if octave == 0 { 0 } else { ns >> (octave - 1) & 1 };
    2 * octave as usize + usize::from(half == 1)
}

/// The end of a bucket.
fn upper_ns(bucket: usize) -> u64 {
    let octave = 1u64 << (bucket / 2).min(63);
    match bucket % 2 {
        0 => octave.saturating_add(octave / 2),
        _ => octave.saturating_mul(2),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_call_is_timed_with_the_same_chance_whatever_was_timed_before() {
        const CALLS: usize = 1_000_000;
        let sampling = Sampling::default();
        let due: Vec<bool> = (0..CALLS).map(|_| sampling.is_due()).collect();
        assert!(due[0], "the first one is");
        let after = |distance: usize| {
            let timed: Vec<_> = (0..CALLS - distance).filter(|at| due[*at]).collect();
            let both = timed.iter().filter(|at| due[*at + distance]).count();
            both as f64 / timed.len() as f64
        };
        // Five times what chance alone makes of some 62,500.
        for distance in [1, 2, 8, 15, 16, 17, 31, 100] {
            assert!((after(distance) - 1.0 / 16.0).abs() < 0.005, "{distance}: {}", after(distance));
        }
    }

    #[test]
    fn a_percentile_is_above_the_time_and_at_most_half_above_it() {
        for ns in [1, 2, 3, 90, 1_000, 1_500, 65_535, 65_536, 2_000_000, 1 << 40] {
            let times = Times::default();
            (0..99).for_each(|_| times.record(1));
            times.record(ns);
            times.record(ns);
            let found = times.percentile_ns(990);
            assert!(found >= ns && found <= ns + ns / 2 + 1, "{ns}: {found}");
            assert_eq!(times.percentile_ns(500), 1, "half of them were short");
        }
    }

    #[test]
    fn nothing_and_the_longest_are_counted() {
        let times = Times::default();
        assert_eq!(times.percentile_ns(990), 0);
        times.record(0);
        times.record(u64::MAX);
        assert_eq!(times.percentile_ns(1_000), u64::MAX);
    }
}
