//! How long payloads are judged in a row, and how long in all.

use std::time::{Duration, Instant};

/// What judging may take before a worker serves its other clients. They wait as long as for two dear batches of a filter,
/// and what it costs to let them is nothing beside it.
const TURN: Duration = Duration::from_millis(2);
/// After so much judging, in nanoseconds as schemas estimate it from above, the clock is looked at: small payloads take a
/// tenth of what is estimated, and a batch of them is not to be torn apart.
const LOOK_NS: u64 = 2_000_000;

/// What a publisher's payloads take.
#[derive(Debug, Default)]
pub struct Pace {
    /// Since when there is judging.
    since: Option<Instant>,
    /// What it took so far, in nanoseconds. Nothing is waited for in between, so that the wall clock says it: two looks a
    /// batch are too cheap to be sampled.
    spent_ns: u64,
    /// What it took since others had their turn, before `since`.
    turn: Duration,
    /// What it was estimated to take since the clock was looked at.
    work_ns: u64,
}

impl Pace {
    /// Judging begins.
    pub fn begin(&mut self) {
        self.since = Some(Instant::now());
    }

    /// Judging ends.
    pub fn end(&mut self) {
        let took = self.since.take().map_or(Duration::ZERO, |since| since.elapsed());
        self.turn += took;
        self.spent_ns += u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
    }

    /// To be told what judging is estimated to take.
    pub fn work_ns(&mut self) -> &mut u64 {
        &mut self.work_ns
    }

    /// Whether it is others' turn.
    #[inline]
    pub fn is_over(&mut self) -> bool {
        self.work_ns >= LOOK_NS && self.has_taken_long(Instant::now())
    }

    #[cold]
    fn has_taken_long(&mut self, now: Instant) -> bool {
        self.work_ns = 0;
        self.turn + self.since.map_or(Duration::ZERO, |since| now.duration_since(since)) >= TURN
    }

    /// Lets others have their turn, and goes on.
    pub async fn pass_turn(&mut self) {
        self.end();
        self.turn = Duration::ZERO;
        tokio::task::yield_now().await;
        self.begin();
    }

    /// What judging took since the last look.
    pub fn take_ns(&mut self) -> u64 {
        std::mem::take(&mut self.spent_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[tokio::test(flavor = "current_thread")]
    async fn others_have_their_turn_when_judging_took_long_and_not_when_it_was_only_estimated_to() {
        let (turns, mut pace) = (Cell::new(0), Pace::default());
        let judging = async {
            pace.begin();
            let begin = pace.since.unwrap_or_else(Instant::now);
            *pace.work_ns() += LOOK_NS - 1;
            assert!(!pace.is_over(), "nobody looks yet");
            *pace.work_ns() += 1;
            assert!(!pace.has_taken_long(begin + TURN / 2) && *pace.work_ns() == 0, "it took less");
            assert!(pace.has_taken_long(begin + TURN));
            pace.pass_turn().await;
            let again = pace.since.unwrap_or_else(Instant::now);
            assert!(!pace.has_taken_long(again + TURN / 2), "it begins anew");
            // What was judged in several goes is taken together.
            pace.end();
            pace.turn += TURN / 2;
            pace.begin();
            let last = pace.since.unwrap_or_else(Instant::now);
            assert!(pace.has_taken_long(last + TURN / 2));
            pace.end();
        };
        let others = async {
            loop {
                turns.set(turns.get() + 1);
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            biased;
            () = judging => {}
            () = others => {}
        }
        assert_eq!(turns.get(), 1);
        assert!(pace.take_ns() > 0 && pace.take_ns() == 0);
    }
}
