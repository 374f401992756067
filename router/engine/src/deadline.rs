//! The deadline of a call: thread CPU time, looked at only when the epoch has moved on.
//!
//! Reading a thread's CPU clock is a system call, as dear as a call into a small filter. So it is read in the epoch
//! callback, which runs only in a call that lasts into the next tick of a millisecond. The first reading is where the
//! account begins, so a call may use up to one tick more than its limit; a thread that was merely preempted is
//! extended for as long as it takes.

use nix::time::{ClockId, clock_gettime};

/// The CPU time that this thread has used, in nanoseconds.
///
/// By the C library: rustix looks for the kernel's vDSO by itself, which is not where it says under valgrind, and the
/// guard of the hot path counts instructions there.
pub fn thread_cpu_ns() -> u64 {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID);
    let time = time.unwrap_or_else(|error| unreachable!("every Linux has this clock: {error}"));
    let seconds = u64::try_from(time.tv_sec()).unwrap_or(0);
    seconds * 1_000_000_000 + u64::try_from(time.tv_nsec()).unwrap_or(0)
}

/// What follows from a tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tick {
    /// The call may go on until the next tick.
    Extend,
    /// The call has used up its time.
    Stop,
}

/// The account of one call.
#[derive(Debug, Default)]
pub(crate) struct Deadline {
    limit_ns: u64,
    start_ns: Option<u64>,
}

impl Deadline {
    /// Begins the account of a call that may use `limit_ns`, at `start_ns` where the clock was read anyhow.
    pub(crate) fn begin(&mut self, limit_ns: u64, start_ns: Option<u64>) {
        *self = Self { limit_ns, start_ns };
    }

    /// A tick has come while the thread's CPU clock stood at `now_ns`.
    pub(crate) fn on_tick(&mut self, now_ns: u64) -> Tick {
        let start = *self.start_ns.get_or_insert(now_ns);
        if now_ns.saturating_sub(start) < self.limit_ns { Tick::Extend } else { Tick::Stop }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_preempted_thread_is_extended_however_many_ticks_pass() {
        let mut deadline = Deadline::default();
        deadline.begin(2_000_000, None);
        for tick in 0..10_000 {
            assert_eq!(deadline.on_tick(5_000_000 + tick), Tick::Extend, "tick {tick}");
        }
    }

    #[test]
    fn a_busy_thread_is_stopped_at_its_limit() {
        let mut deadline = Deadline::default();
        deadline.begin(2_000_000, None);
        assert_eq!(deadline.on_tick(7_000_000), Tick::Extend, "the account begins at the first tick");
        assert_eq!(deadline.on_tick(8_999_999), Tick::Extend);
        assert_eq!(deadline.on_tick(9_000_000), Tick::Stop);
    }

    #[test]
    fn a_known_start_counts_and_the_next_call_begins_anew() {
        let mut deadline = Deadline::default();
        deadline.begin(2_000_000, Some(1_000_000));
        assert_eq!(deadline.on_tick(3_000_000), Tick::Stop);
        deadline.begin(2_000_000, None);
        assert_eq!(deadline.on_tick(3_000_000), Tick::Extend);
    }

    #[test]
    fn the_clock_counts_work_and_not_sleep() {
        let before = thread_cpu_ns();
        std::thread::sleep(std::time::Duration::from_millis(20));
        let slept = thread_cpu_ns() - before;
        assert!(slept < 10_000_000, "sleeping cost {slept} ns");
    }
}
