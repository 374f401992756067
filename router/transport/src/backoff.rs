//! How long to wait before dialling again. Pure: chance is passed in.

use std::time::Duration;

/// Full jitter: each wait is anywhere between nothing and a bound that doubles with every failure. A thousand clients
/// of a router that restarts come back spread over the whole time, not in waves.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    most: Duration,
    failures: u32,
}

impl Backoff {
    /// The first bound, and the one it never passes.
    #[must_use]
    pub fn new(first: Duration, most: Duration) -> Self {
        Self { first, most, failures: 0 }
    }

    /// The next wait. `random` must be evenly spread over all of `u64`.
    pub fn next_wait(&mut self, random: u64) -> Duration {
        let bound = self.bound();
        self.failures = self.failures.saturating_add(1);
        let bound_ns = u64::try_from(bound.as_nanos()).unwrap_or(u64::MAX);
        // The high half of the product spreads evenly without a division's bias.
        let wait_ns = (u128::from(bound_ns) * u128::from(random)) >> 64;
        Duration::from_nanos(u64::try_from(wait_ns).unwrap_or(bound_ns))
    }

    /// The bound of the next wait.
    #[must_use]
    pub fn bound(&self) -> Duration {
        // 2^31 times any first bound is beyond every sensible largest one.
        self.first.saturating_mul(1 << self.failures.min(31)).min(self.most)
    }

    /// Failures since the last success.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// A connection has held: start from the first bound again.
    pub fn succeeded(&mut self) {
        self.failures = 0;
    }
}

impl Default for Backoff {
    /// From 0.2 s up to 30 s.
    fn default() -> Self {
        Self::new(Duration::from_millis(200), Duration::from_secs(30))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_bound_doubles_up_to_the_most_and_a_success_resets_it() {
        let mut backoff = Backoff::default();
        let bounds: Vec<_> = (0..10)
            .map(|_| {
                let bound = backoff.bound().as_millis();
                backoff.next_wait(0);
                bound
            })
            .collect();
        assert_eq!(bounds, [200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 30_000, 30_000]);
        backoff.succeeded();
        assert_eq!(backoff.bound(), Duration::from_millis(200));
    }

    #[test]
    fn waits_use_the_whole_range() {
        assert_eq!(Backoff::default().next_wait(0), Duration::ZERO);
        assert_eq!(Backoff::default().next_wait(u64::MAX / 2).as_millis(), 99);
        assert_eq!(Backoff::default().next_wait(u64::MAX).as_millis(), 199);
    }

    proptest! {
        #[test]
        fn a_wait_never_passes_its_bound(randoms in prop::collection::vec(any::<u64>(), 1..80)) {
            let mut backoff = Backoff::default();
            for random in randoms {
                let bound = backoff.bound();
                prop_assert!(backoff.next_wait(random) <= bound);
                prop_assert!(bound <= Duration::from_secs(30));
            }
        }
    }
}
