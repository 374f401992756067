//! How long payloads are judged in a row, and how long in all.

use std::time::Instant;

/// What judging may take, in nanoseconds as schemas estimate it from above, before a worker serves its other clients. They
/// wait as long as for two dear batches of a filter, and what it costs to let them is nothing beside it.
const TURN_NS: u64 = 2_000_000;

/// What a publisher's payloads take.
#[derive(Debug, Default)]
pub struct Pace {
    /// Since when there is judging.
    since: Option<Instant>,
    /// What it took so far, in nanoseconds. Nothing is waited for in between, so that the wall clock says it: two looks a
    /// batch are too cheap to be sampled.
    spent_ns: u64,
    /// What it was estimated to take since others had their turn.
    work_ns: u64,
}

impl Pace {
    /// Judging begins.
    pub fn begin(&mut self) {
        self.since = Some(Instant::now());
    }

    /// Judging ends.
    pub fn end(&mut self) {
        let took = self.since.take().map_or(0, |since| since.elapsed().as_nanos());
        self.spent_ns += u64::try_from(took).unwrap_or(u64::MAX);
    }

    /// To be told what judging is estimated to take.
    pub fn work_ns(&mut self) -> &mut u64 {
        &mut self.work_ns
    }

    /// Whether it is others' turn.
    #[inline]
    pub fn is_over(&self) -> bool {
        self.work_ns >= TURN_NS
    }

    /// Lets others have their turn, and goes on.
    pub async fn pass_turn(&mut self) {
        self.end();
        self.work_ns = 0;
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
    async fn others_have_their_turn_when_enough_was_judged_and_not_before() {
        let (turns, mut pace) = (Cell::new(0), Pace::default());
        let judging = async {
            pace.begin();
            for _ in 0..100 {
                *pace.work_ns() += TURN_NS / 10;
                if pace.is_over() {
                    pace.pass_turn().await;
                }
            }
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
        assert_eq!(turns.get(), 10);
        assert!(pace.take_ns() > 0 && pace.take_ns() == 0);
    }
}
