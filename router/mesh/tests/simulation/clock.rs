//! The clock of one router: it drifts, it jumps forward where the machine was suspended, and it never goes back. What it
//! showed when the router started says nothing to anybody else.

/// Parts of a million.
const MILLION: u64 = 1_000_000;

/// Milliseconds that a router reads, told from the simulation's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clock {
    /// Since then, in the simulation's time, it has run without a jump ...
    since: u64,
    /// ... from this on.
    showed: u64,
    /// Its milliseconds in a million of the simulation's.
    rate: u64,
    /// What it showed when the router started.
    started: u64,
    /// Jumps since then, and how far they went together, in milliseconds.
    pub jumps: u64,
    jumped: u64,
}

impl Clock {
    /// A clock that agrees with the simulation's.
    pub fn exact() -> Self {
        Self { since: 0, showed: 0, rate: MILLION, started: 0, jumps: 0, jumped: 0 }
    }

    /// A clock that shows `showed` at the beginning, and is `drift_ppm` too fast.
    pub fn drifting(showed: u64, drift_ppm: i64) -> Self {
        Self { showed, rate: MILLION.saturating_add_signed(drift_ppm), started: showed, ..Self::exact() }
    }

    /// What it shows at a moment of the simulation.
    pub fn at(&self, now: u64) -> u64 {
        self.showed + (now - self.since) * self.rate / MILLION
    }

    /// The first moment of the simulation at which it shows `local`, or more.
    pub fn when(&self, local: u64) -> u64 {
        let left = u128::from(local.saturating_sub(self.showed)) * u128::from(MILLION);
        // What is never due stays so.
        u64::try_from(left.div_ceil(self.rate.into())).unwrap_or(u64::MAX).saturating_add(self.since)
    }

    pub fn jump(&mut self, now: u64, by_ms: u64) {
        (self.showed, self.since) = (self.at(now) + by_ms, now);
        self.jumps += 1;
        self.jumped += by_ms;
    }

    /// The router starts.
    pub fn start(&mut self, now: u64) {
        (self.started, self.jumps, self.jumped) = (self.at(now), 0, 0);
    }

    /// How long the router has run by this clock, in milliseconds, jumps left out.
    pub fn ran_ms(&self, now: u64) -> u64 {
        self.at(now) - self.started - self.jumped
    }
}

#[test]
fn a_clock_shows_what_it_was_asked_for_and_not_before() {
    for drift_ppm in [-500, 0, 499] {
        let mut clock = Clock::drifting(7_000, drift_ppm);
        clock.start(3);
        clock.jump(10_000, 30_000);
        assert!((46_990..47_010).contains(&clock.at(10_000)) && (9_990..10_010).contains(&clock.ran_ms(10_000)));
        for local in [47_010, 48_000, 123_456_789] {
            let when = clock.when(local);
            assert!(clock.at(when) >= local && clock.at(when - 1) < local);
        }
        assert_eq!(clock.when(0), 10_000, "what was due before the jump is due at once");
    }
}
