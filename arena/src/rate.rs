//! How fast a bucket of tokens fills up: the arithmetic that the router and the SDK's test harness share.
//!
//! It is the generic cell rate algorithm: of a bucket nothing is kept but the time at which it will be full again.
//! A bucket whose time has passed is full, so it need not be kept at all.

/// Nanoseconds of a millisecond.
const MS_NS: u64 = 1_000_000;

/// A bucket's rate: `amount` tokens flow in evenly in every period, until it holds `burst`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rate {
    /// Tokens that flow in during one period; at least 1.
    pub amount: u32,
    /// The period in milliseconds; at least 1.
    pub period_ms: u32,
    /// The most that the bucket holds; at least 1.
    pub burst: u32,
}

impl Rate {
    /// So many each second, and as many at once.
    pub const fn per_second(amount: u32) -> Self {
        Self { amount, period_ms: 1_000, burst: amount }
    }

    /// The same with room for so many at once.
    #[must_use]
    pub const fn with_burst(self, burst: u32) -> Self {
        Self { burst, ..self }
    }

    /// Whether no part of it is 0.
    pub const fn is_valid(&self) -> bool {
        self.amount > 0 && self.period_ms > 0 && self.burst > 0
    }

    /// Nanoseconds in which `n` tokens flow in. Each token's time is rounded up, so that a bucket never gives more
    /// than its rate; a rate above one token a nanosecond counts as that.
    ///
    /// `None` where a part of the rate is 0.
    pub fn cost_ns(&self, n: u32) -> Option<u128> {
        if !self.is_valid() {
            return None;
        }
        let token = (u64::from(self.period_ms) * MS_NS).div_ceil(u64::from(self.amount));
        Some(u128::from(token) * u128::from(n))
    }

    /// Takes `n` tokens at `now_ns` from a bucket that will be full at `full_at_ns`, and gives the time at which it
    /// will be full then; `None` where it does not hold as many, or a part of the rate is 0.
    pub fn take(&self, full_at_ns: u64, now_ns: u64, n: u32) -> Option<u64> {
        let full_at = u128::from(full_at_ns.max(now_ns)) + self.cost_ns(n)?;
        let room = self.cost_ns(self.burst)?;
        if full_at - u128::from(now_ns) > room {
            return None;
        }
        u64::try_from(full_at).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of `tries` single tokens a bucket gives, one try in each step.
    fn given(rate: Rate, tries: u32, step_ns: u64) -> u32 {
        let (mut full_at, mut count) = (0, 0);
        for at in 0..tries {
            if let Some(next) = rate.take(full_at, u64::from(at) * step_ns, 1) {
                (full_at, count) = (next, count + 1);
            }
        }
        count
    }

    #[test]
    fn a_full_bucket_gives_its_burst_and_then_the_rate() {
        assert_eq!(given(Rate { amount: 3, period_ms: 10, burst: 3 }, 100, 0), 3, "the rounding takes none away");
        // Ten seconds of one try each millisecond: the burst, and what flowed in meanwhile.
        let slow = Rate { amount: 10, period_ms: 1_000, burst: 5 };
        assert_eq!(given(slow, 10_000, MS_NS), 5 + 99);
        assert_eq!(given(Rate::per_second(2_000), 10_000, MS_NS), 10_000, "slower than the rate: all of them");
    }

    #[test]
    fn several_are_given_together_or_not_at_all() {
        let rate = Rate { amount: 1, period_ms: 100, burst: 4 };
        let full_at = rate.take(0, 0, 3).expect("the bucket begins full");
        assert_eq!(rate.take(full_at, 0, 2), None);
        assert!(rate.take(full_at, 0, 1).is_some());
        assert!(rate.take(full_at, 100 * MS_NS, 2).is_some(), "one has flowed in");
        assert_eq!(rate.take(0, 0, 5), None, "more than it ever holds");
        assert_eq!(rate.take(full_at, 0, 0), Some(full_at), "nothing is always there");
    }

    #[test]
    fn no_rate_and_no_time_overflow() {
        for bad in
            [Rate::per_second(0), Rate { period_ms: 0, ..Rate::per_second(1) }, Rate::per_second(1).with_burst(0)]
        {
            assert_eq!(bad.take(0, 0, 1), None, "{bad:?}");
        }
        let endless = Rate { amount: 1, period_ms: u32::MAX, burst: u32::MAX };
        assert_eq!(endless.take(0, 0, u32::MAX), u64::try_from(endless.cost_ns(u32::MAX).expect("valid")).ok());
        assert_eq!(endless.take(u64::MAX, u64::MAX, 1), None, "past the end of time");
        assert_eq!(given(Rate { amount: u32::MAX, period_ms: 1, burst: 8 }, 100, 0), 8);
    }
}
