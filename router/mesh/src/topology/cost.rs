//! What a link costs: its round trip in milliseconds, damped so that routes do not flap with it.

use crate::limits::{COST_CHANGE_FOR_MS, COST_CHANGE_MS, COST_CHANGE_PER_CENT, COST_MAX, COST_UNKNOWN};

/// The cost of one link.
#[derive(Debug, Default)]
pub(crate) struct Cost {
    current: Option<u32>,
    /// Since when every measurement was off to one side, and whether that is up.
    off: Option<(u64, bool)>,
}

impl Cost {
    /// The cost that is told.
    pub(crate) fn current(&self) -> u32 {
        self.current.unwrap_or(COST_UNKNOWN)
    }

    /// A round trip was measured; says whether the cost changed.
    pub(crate) fn measured(&mut self, now: u64, rtt_us: u64) -> bool {
        let measured = u32::try_from(rtt_us.div_ceil(1_000)).unwrap_or(u32::MAX).clamp(1, COST_MAX);
        let Some(current) = self.current else {
            self.current = Some(measured);
            return measured != COST_UNKNOWN;
        };
        let by = measured.abs_diff(current);
        if by < COST_CHANGE_MS || u64::from(by) * 100 < u64::from(current) * u64::from(COST_CHANGE_PER_CENT) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_measurement_counts_at_once() {
        let mut cost = Cost::default();
        assert_eq!(cost.current(), COST_UNKNOWN);
        assert!(cost.measured(0, 41_200));
        assert_eq!(cost.current(), 42);
        let mut near = Cost::default();
        near.measured(0, 90);
        assert_eq!(near.current(), 1);
    }

    #[test]
    fn a_cost_follows_only_what_is_far_off_for_long() {
        let mut cost = Cost::default();
        cost.measured(0, 100_000);
        for second in 1..60 {
            assert!(!cost.measured(second * 1_000, 119_000), "within 20 per cent");
        }
        for second in 60..100 {
            let rtt_us = if second % 9 == 0 { 100_000 } else { 200_000 };
            assert!(!cost.measured(second * 1_000, rtt_us), "never for ten seconds");
        }
        for second in 100..140 {
            let rtt_us = if second % 2 == 0 { 20_000 } else { 200_000 };
            assert!(!cost.measured(second * 1_000, rtt_us), "to both sides in turn");
        }
        for second in 200..210 {
            assert!(!cost.measured(second * 1_000, 60_000));
        }
        assert!(cost.measured(210_000, 61_000));
        assert_eq!(cost.current(), 61);
        let mut near = Cost::default();
        near.measured(0, 1_000);
        assert!((0..30).all(|second| !near.measured(second * 1_000, 5_000)), "by less than five milliseconds");
    }
}
