//! How long the calls of a filter take: a histogram that its worker alone writes, without a lock.

use crate::stats::Cell;

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
