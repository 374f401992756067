//! What a link costs: its round trip in milliseconds, damped so that routes do not flap with it.

use crate::limits::{COST_CHANGE_FOR_MS, COST_CHANGE_MS, COST_CHANGE_PER_CENT, COST_MAX, COST_UNKNOWN};

/// One look at the round trips of a link, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoundTrips {
    /// As they are now, smoothed (RFC 9002, section 5.3).
    pub smoothed_us: u64,
    /// The least one since the link is up (RFC 9002, section 5.2).
    pub least_us: u64,
}

impl RoundTrips {
    /// When nothing but one round trip is known.
    pub fn one(rtt_us: u64) -> Self {
        Self { smoothed_us: rtt_us, least_us: rtt_us }
    }
}

/// The cost of one link.
///
/// A new least round trip shows a shorter way than was known, which noise cannot: it counts at once. That matters most
/// at the start, when the handshake's own work has made the first round trips long. All else may be noise and counts
/// when it lasts.
#[derive(Debug, Default)]
pub(crate) struct Cost {
    current: Option<u32>,
    /// The least round trip so far as a cost.
    least: Option<u32>,
    /// Since when every measurement was off to one side, and whether that is up.
    off: Option<(u64, bool)>,
}

impl Cost {
    /// The cost that is told.
    pub(crate) fn current(&self) -> u32 {
        self.current.unwrap_or(COST_UNKNOWN)
    }

    /// Round trips were measured; says whether the cost changed.
    pub(crate) fn measured(&mut self, now: u64, round_trips: RoundTrips) -> bool {
        let least = in_milliseconds(round_trips.least_us);
        let is_new_least = self.least.is_none_or(|before| least < before);
        if is_new_least {
            self.least = Some(least);
        }
        let Some(current) = self.current else {
            self.current = Some(least);
            return least != COST_UNKNOWN;
        };
        if is_new_least && least < current && is_far(least, current) {
            (self.current, self.off) = (Some(least), None);
            return true;
        }
        self.smoothed(now, current, in_milliseconds(round_trips.smoothed_us))
    }

    fn smoothed(&mut self, now: u64, current: u32, measured: u32) -> bool {
        if measured.abs_diff(current) < COST_CHANGE_MS || !is_far(measured, current) {
            self.off = None;
            return false;
        }
        let up = measured > current;
        let since = self.off.filter(|(_, was_up)| *was_up == up).map_or(now, |(since, _)| since);
        if now.saturating_sub(since) < COST_CHANGE_FOR_MS {
            self.off = Some((since, up));
            return false;
        }
        (self.current, self.off) = (Some(measured), None);
        true
    }
}

fn in_milliseconds(rtt_us: u64) -> u32 {
    u32::try_from(rtt_us.div_ceil(1_000)).unwrap_or(u32::MAX).clamp(1, COST_MAX)
}

fn is_far(measured: u32, current: u32) -> bool {
    u64::from(measured.abs_diff(current)) * 100 >= u64::from(current) * u64::from(COST_CHANGE_PER_CENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_measurement_counts_at_once() {
        let mut cost = Cost::default();
        assert_eq!(cost.current(), COST_UNKNOWN);
        assert!(cost.measured(0, RoundTrips::one(41_200)));
        assert_eq!(cost.current(), 42);
        let mut near = Cost::default();
        near.measured(0, RoundTrips::one(90));
        assert_eq!(near.current(), 1);
    }

    /// Smoothed, with a least one that was seen at the start.
    fn smoothed(smoothed_us: u64, least_us: u64) -> RoundTrips {
        RoundTrips { smoothed_us, least_us }
    }

    #[test]
    fn a_new_least_round_trip_counts_at_once_and_an_old_one_does_not() {
        let mut cost = Cost::default();
        cost.measured(0, RoundTrips::one(60_000));
        assert!(cost.measured(1_000, smoothed(52_000, 900)), "the handshake was slow, the way is short");
        assert_eq!(cost.current(), 1);
        for second in 2..12 {
            assert!(!cost.measured(second * 1_000, smoothed(80_000, 900)));
        }
        assert!(cost.measured(12_000, smoothed(80_000, 900)), "the way has become longer, for good");
        assert!(!cost.measured(13_000, smoothed(80_000, 900)), "what it once was says nothing now");
        assert_eq!(cost.current(), 80);
    }

    #[test]
    fn a_cost_follows_only_what_is_far_off_for_long() {
        let mut cost = Cost::default();
        cost.measured(0, smoothed(100_000, 100_000));
        for second in 1..60 {
            assert!(!cost.measured(second * 1_000, smoothed(119_000, 100_000)), "within 20 per cent");
        }
        for second in 60..100 {
            let rtt_us = if second % 9 == 0 { 100_000 } else { 200_000 };
            assert!(!cost.measured(second * 1_000, smoothed(rtt_us, 100_000)), "never for ten seconds");
        }
        for second in 100..140 {
            let rtt_us = if second % 2 == 0 { 20_000 } else { 200_000 };
            assert!(!cost.measured(second * 1_000, smoothed(rtt_us, 100_000)), "to both sides in turn");
        }
        for second in 200..210 {
            assert!(!cost.measured(second * 1_000, smoothed(60_000, 100_000)));
        }
        assert!(cost.measured(210_000, smoothed(61_000, 100_000)));
        assert_eq!(cost.current(), 61);
        let mut near = Cost::default();
        near.measured(0, RoundTrips::one(1_000));
        assert!(
            (0..30).all(|second| !near.measured(second * 1_000, smoothed(5_000, 1_000))),
            "by less than five milliseconds"
        );
    }
}
