//! A meter with a rate: what is used beyond it must be waited for.
//!
//! The generic cell rate algorithm (ITU-T I.371, annex A) with one atomic: the time at which everything that was used so
//! far is paid for. Whoever uses something moves it; whoever finds it in the future waits. Used by all workers.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

const SECOND_NS: u64 = 1_000_000_000;
/// What may be used at once after a pause, as time at the full rate: long enough to even out batches, short enough that
/// others notice nothing of it.
const BURST_NS: u64 = 100_000_000;

/// Counts what is used, and says how long to wait for more.
#[derive(Debug, Default)]
pub(super) struct Meter {
    used: AtomicU64,
    /// 0 = without bound.
    per_s: AtomicU64,
    /// When all that was used is paid for, in nanoseconds of the router's clock.
    paid_ns: AtomicU64,
}

impl Meter {
    /// Sets the rate; debts of another rate are forgotten.
    pub(super) fn bound(&self, per_s: Option<u64>) {
        let per_s = per_s.unwrap_or(0);
        if self.per_s.swap(per_s, Relaxed) != per_s {
            self.paid_ns.store(0, Relaxed);
        }
    }

    /// The rate; 0 = without bound.
    pub(super) fn per_s(&self) -> u64 {
        self.per_s.load(Relaxed)
    }

    /// What was used in all.
    pub(super) fn used(&self) -> u64 {
        self.used.load(Relaxed)
    }

    /// Counts what is used, whether it is within the rate or not.
    pub(super) fn charge(&self, now_ns: u64, amount: u64) {
        self.used.fetch_add(amount, Relaxed);
        let per_s = self.per_s();
        if per_s > 0 {
            let pay = |paid_ns| Some(paid(paid_ns, now_ns, amount, per_s));
            let _ = self.paid_ns.fetch_update(Relaxed, Relaxed, pay);
        }
    }

    /// Counts what is to be used, if it is within the rate.
    pub(super) fn take(&self, now_ns: u64, amount: u64) -> bool {
        let per_s = self.per_s();
        let pay = |paid_ns: u64| (paid_ns <= now_ns).then(|| paid(paid_ns, now_ns, amount, per_s));
        let is_within = per_s == 0 || self.paid_ns.fetch_update(Relaxed, Relaxed, pay).is_ok();
        if is_within {
            self.used.fetch_add(amount, Relaxed);
        }
        is_within
    }

    /// How long to wait until everything is paid for, in nanoseconds; 0 where more may be used now.
    pub(super) fn wait_ns(&self, now_ns: u64) -> u64 {
        self.paid_ns.load(Relaxed).saturating_sub(now_ns)
    }
}

/// When everything is paid for once `amount` more is used.
fn paid(paid_ns: u64, now_ns: u64, amount: u64, per_s: u64) -> u64 {
    let cost_ns = u128::from(amount) * u128::from(SECOND_NS) / u128::from(per_s.max(1));
    let since = paid_ns.max(now_ns.saturating_sub(BURST_NS));
    since.saturating_add(u64::try_from(cost_ns).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn meter(per_s: u64) -> Meter {
        let meter = Meter::default();
        meter.bound(Some(per_s));
        meter
    }

    proptest! {
        /// Whoever waits as told never gets more than the rate and one burst, and no less than the rate.
        #[test]
        fn the_rate_is_kept_to_and_used_up(per_s in 1u64..1_000_000, batches in prop::collection::vec(1u64..5_000, 1..200)) {
            let (meter, start_ns) = (meter(per_s), 10 * SECOND_NS);
            let mut now_ns = start_ns;
            let (mut all, mut last) = (0, 0);
            for batch in batches {
                now_ns += meter.wait_ns(now_ns);
                prop_assert_eq!(meter.wait_ns(now_ns), 0);
                meter.charge(now_ns, batch);
                all += batch;
                last = batch;
            }
            // All but the last batch, which is not waited for yet, took its time; rounding is down, a nanosecond each.
            let paid_ns = u128::from(all - last) * u128::from(SECOND_NS) / u128::from(per_s);
            let spent_ns = u128::from(now_ns - start_ns + BURST_NS) + 200;
            prop_assert!(paid_ns <= spent_ns, "{} events in {} ns", all, spent_ns);
            prop_assert!(u128::from(now_ns - start_ns) <= paid_ns, "waited too long");
            prop_assert_eq!(meter.used(), all);
        }
    }

    #[test]
    fn without_a_rate_nothing_waits_and_all_is_counted() {
        let meter = Meter::default();
        meter.charge(5, 1_000_000);
        assert!(meter.take(5, 7) && meter.wait_ns(5) == 0 && meter.used() == 1_000_007);
    }

    #[test]
    fn what_is_taken_is_within_the_rate() {
        let (meter, now_ns) = (meter(10), SECOND_NS);
        // One of the burst, one that stands at the rate itself.
        let taken = (0..10).filter(|_| meter.take(now_ns, 1)).count();
        assert_eq!((taken, meter.used()), (2, 2));
        assert!(meter.take(now_ns + SECOND_NS / 10, 1));
    }

    #[test]
    fn another_rate_forgives_debts() {
        let meter = meter(1);
        meter.charge(0, 1_000_000_000);
        assert!(meter.wait_ns(0) > SECOND_NS);
        meter.bound(Some(1));
        assert!(meter.wait_ns(0) > SECOND_NS, "the same rate changes nothing");
        meter.bound(Some(2));
        assert_eq!(meter.wait_ns(0), 0);
    }

    #[test]
    fn nothing_overflows() {
        let meter = meter(1);
        meter.charge(u64::MAX - 1, u64::MAX);
        assert_eq!(meter.wait_ns(u64::MAX), 0);
        meter.charge(0, u64::MAX);
        assert!(meter.wait_ns(0) > 0);
    }
}
