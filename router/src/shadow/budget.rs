//! How much of a worker's time its shadow may use.

use std::time::{Duration, Instant};

/// The share of a worker's time that its shadow may use, in percent: what a worker has left at three quarters of its
/// load. Whoever wants less still asks for a sample.
pub const TIME_SHARE_PERCENT: u64 = 25;
/// Unused time that is kept: after a quiet moment the shadow catches up with a queue, and live events wait no longer
/// behind each other than this and one batch.
const SAVED_NS_MAX: i64 = 20_000_000;

/// An account of CPU time. It may be overdrawn by one batch, which is then waited for.
#[derive(Debug)]
pub(super) struct Budget {
    left_ns: i64,
    filled: Instant,
}

impl Budget {
    pub(super) fn new(now: Instant) -> Self {
        Self { left_ns: SAVED_NS_MAX, filled: now }
    }

    /// Books what a batch has used.
    pub(super) fn spend(&mut self, now: Instant, cpu_ns: u64) {
        self.fill(now);
        self.left_ns = self.left_ns.saturating_sub(i64::try_from(cpu_ns).unwrap_or(i64::MAX));
    }

    /// How long the shadow waits before its next batch; none where it may go on.
    pub(super) fn wait(&mut self, now: Instant) -> Option<Duration> {
        self.fill(now);
        let owed_ns = 1u64.saturating_sub_signed(self.left_ns);
        (owed_ns > 0).then(|| Duration::from_nanos(owed_ns.saturating_mul(100).div_ceil(TIME_SHARE_PERCENT)))
    }

    fn fill(&mut self, now: Instant) {
        let passed_ns = now.saturating_duration_since(self.filled).as_nanos() * u128::from(TIME_SHARE_PERCENT) / 100;
        self.filled = now;
        let gained_ns = i64::try_from(passed_ns).unwrap_or(i64::MAX);
        self.left_ns = self.left_ns.saturating_add(gained_ns).min(SAVED_NS_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shadow_has_its_share_of_the_time_and_no_more() {
        let begin = Instant::now();
        let mut budget = Budget::new(begin);
        // Batches of a millisecond, one after the other, as soon as each may begin.
        let (mut now, mut used) = (begin, Duration::ZERO);
        while now < begin + Duration::from_secs(10) {
            match budget.wait(now) {
                Some(wait) => now += wait,
                None => {
                    now += Duration::from_millis(1);
                    used += Duration::from_millis(1);
                    budget.spend(now, 1_000_000);
                }
            }
        }
        let share = Duration::from_secs(10) * u32::try_from(TIME_SHARE_PERCENT).unwrap_or(u32::MAX) / 100;
        let saved = Duration::from_nanos(SAVED_NS_MAX.unsigned_abs());
        assert!(used <= share + saved + Duration::from_millis(1), "{used:?}");
        assert!(used >= share, "{used:?}");
    }

    #[test]
    fn a_long_batch_is_waited_for_and_quiet_saves_little() {
        let begin = Instant::now();
        let mut budget = Budget::new(begin);
        assert_eq!(budget.wait(begin), None);
        budget.spend(begin, 120_000_000);
        let wait = budget.wait(begin).unwrap_or_default();
        assert!(wait >= Duration::from_millis(400) && wait <= Duration::from_millis(401), "{wait:?}");
        assert_eq!(budget.wait(begin + wait), None);
        let later = begin + Duration::from_secs(3_600);
        assert_eq!(budget.wait(later), None);
        budget.spend(later, SAVED_NS_MAX.unsigned_abs());
        assert!(budget.wait(later).is_some(), "an hour without events saves no more than a moment");
    }
}
