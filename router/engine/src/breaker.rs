//! When a binding that faults is set apart from its worker, when it comes back, and when it is given up.

use std::collections::VecDeque;

use crate::limits::FaultPolicy;

/// What follows from a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Move {
    /// Nothing changes.
    Stay,
    /// From the next batch on it runs on a thread of its own.
    SetApart,
    /// It may run on its worker again.
    Return,
    /// It is not called any more.
    Quarantine,
}

/// Counts the faulted batches of one binding. Pure: time is passed in.
#[derive(Debug)]
pub(crate) struct Breaker {
    policy: FaultPolicy,
    /// Times of the faulted batches within the window; never more than `faults_max`.
    faults_ms: VecDeque<u64>,
    clean: u32,
    apart: bool,
}

impl Breaker {
    pub(crate) fn new(policy: FaultPolicy) -> Self {
        Self { policy, faults_ms: VecDeque::new(), clean: 0, apart: false }
    }

    /// A batch has ended at `now_ms`, with a fault in it or without.
    pub(crate) fn on_batch(&mut self, now_ms: u64, faulted: bool) -> Move {
        if faulted { self.on_fault(now_ms) } else { self.on_clean() }
    }

    fn on_clean(&mut self) -> Move {
        if !self.apart {
            return Move::Stay;
        }
        self.clean = self.clean.saturating_add(1);
        if self.clean < self.policy.clean_batches {
            return Move::Stay;
        }
        (self.apart, self.clean) = (false, 0);
        Move::Return
    }

    fn on_fault(&mut self, now_ms: u64) -> Move {
        self.clean = 0;
        let begin = now_ms.saturating_sub(self.policy.window_ms);
        while self.faults_ms.front().is_some_and(|time| *time < begin) {
            self.faults_ms.pop_front();
        }
        self.faults_ms.push_back(now_ms);
        if self.faults_ms.len() >= self.policy.faults_max as usize {
            return Move::Quarantine;
        }
        if self.apart {
            return Move::Stay;
        }
        self.apart = true;
        Move::SetApart
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn breaker() -> Breaker {
        Breaker::new(FaultPolicy { faults_max: 3, window_ms: 100, clean_batches: 2, deadlines_max: 4 })
    }

    #[test]
    fn the_first_fault_sets_apart_and_clean_batches_bring_back() {
        let mut breaker = breaker();
        assert_eq!(breaker.on_batch(0, false), Move::Stay);
        assert_eq!(breaker.on_batch(1, true), Move::SetApart);
        assert_eq!(breaker.on_batch(2, false), Move::Stay);
        assert_eq!(breaker.on_batch(3, true), Move::Stay, "a fault begins the count anew");
        assert_eq!(breaker.on_batch(4, false), Move::Stay);
        assert_eq!(breaker.on_batch(5, false), Move::Return);
        assert_eq!(breaker.on_batch(6, false), Move::Stay);
    }

    #[test]
    fn many_faults_in_the_window_quarantine() {
        let mut breaker = breaker();
        breaker.on_batch(0, true);
        breaker.on_batch(50, true);
        assert_eq!(breaker.on_batch(100, true), Move::Quarantine);
    }

    #[test]
    fn faults_far_apart_do_not() {
        let mut breaker = breaker();
        for at in 0..100 {
            assert_ne!(breaker.on_batch(at * 60, true), Move::Quarantine, "at {at}");
        }
    }
}
