//! The model of a router: what it reads of the log, does by itself, and reports.

use super::{NOW_MS, Rev, WantId};
use crate::controller::{Metrics, Phase, Report};

/// What a log wants of a router; sets are numbered by the rollout that brought them.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Want {
    pub(super) generation: Rev,
    pub(super) set: u8,
    pub(super) prepare: Option<u8>,
    /// The running rollout; 0 = none.
    pub(super) rollout: Rev,
    /// How many have started.
    pub(super) started: u8,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) struct Node {
    pub(super) is_up: bool,
    /// What the log wants of it, as far as it has read.
    pub(super) want: WantId,
    /// Sets that are warm, one bit each.
    pub(super) warm: u8,
    /// The generation that judges events, and its set; 0 = none yet.
    pub(super) runs: Rev,
    pub(super) runs_set: u8,
    /// It has run that for as long as steps observe.
    pub(super) is_long: bool,
    /// It faults more often than the gates allow.
    pub(super) is_bad: bool,
    /// The rollout whose set it refused.
    pub(super) refused: Rev,
    /// The generation that it left on its own.
    pub(super) left: Rev,
}

/// What the controller heard of a router last.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) enum Heard {
    /// Nothing, or nothing that helps.
    Nothing,
    Prepared {
        rollout: Rev,
    },
    Refused {
        rollout: Rev,
    },
    Left {
        from: Rev,
    },
    Active {
        rollout: Rev,
        generation: Rev,
        is_long: bool,
        is_bad: bool,
    },
}

impl Want {
    /// Whether a router that runs `generation` runs the candidate of the running rollout.
    pub(super) fn runs_candidate(self, generation: Rev) -> bool {
        self.rollout != 0 && generation == self.generation && self.set == self.started
    }
}

impl Node {
    /// Reads the log. A word of the log ends a retreat from another generation, and a refusal of another rollout.
    pub(super) fn reads(self, id: WantId, want: Want) -> Self {
        let left = if self.left == want.generation { self.left } else { 0 };
        let refused = if self.refused == want.rollout && want.prepare.is_some() { self.refused } else { 0 };
        // Only of a candidate does anybody ask how it does, and for how long.
        let is_long = self.is_long || !want.runs_candidate(self.runs);
        let is_bad = self.is_bad && want.runs_candidate(self.runs);
        Self { want: id, left, refused, is_long, is_bad, ..self }
    }

    /// The next thing that a router does by itself: prepare what it must run, run it, prepare what it shall.
    pub(super) fn work(self, want: Want) -> Option<Self> {
        let has = |set: u8| self.warm & (1 << set) != 0;
        let has_left = self.left == want.generation;
        if !has(want.set) && !has_left {
            return Some(Self { warm: self.warm | 1 << want.set, ..self });
        }
        if self.runs != want.generation && !has_left {
            assert!(has(want.set), "never activate what is not prepared");
            // Warm are the new set and the one before.
            let warm = self.warm & (1 << want.set | 1 << self.runs_set);
            let (runs, runs_set) = (want.generation, want.set);
            let is_long = !want.runs_candidate(runs);
            return Some(Self { runs, runs_set, warm, is_long, is_bad: false, left: 0, ..self });
        }
        let prepare = want.prepare.filter(|set| !has(*set) && self.refused != want.rollout)?;
        Some(Self { warm: self.warm | 1 << prepare, ..self })
    }

    /// What it reports.
    pub(super) fn says(self, want: Want) -> Heard {
        let rollout = want.rollout;
        let is_warm = |set: u8| self.warm & (1 << set) != 0;
        if self.left == want.generation {
            Heard::Left { from: self.left }
        } else if want.prepare.is_some() && self.refused == rollout {
            Heard::Refused { rollout }
        } else if self.runs != want.generation {
            Heard::Nothing
        } else {
            match want.prepare {
                Some(set) if is_warm(set) => Heard::Prepared { rollout },
                Some(_) => Heard::Nothing,
                None => {
                    let Self { is_long, is_bad, .. } = self;
                    Heard::Active { rollout, generation: self.runs, is_long, is_bad }
                }
            }
        }
    }
}

pub(super) fn report(heard: Heard) -> Option<Report> {
    let mut metrics = Metrics::default();
    let (rollout, phase) = match heard {
        Heard::Nothing => return None,
        Heard::Prepared { rollout } => (rollout, Phase::Prepared),
        Heard::Refused { rollout } => (rollout, Phase::Nack { code: "self-test-failed".into(), reason: "no".into() }),
        Heard::Left { from } => (0, Phase::Retreated { from: from.into(), to: 0, reason: "boot guard".into() }),
        Heard::Active { rollout, generation, is_long, is_bad } => {
            metrics = Metrics { events: 10, traps: if is_bad { 5 } else { 0 }, ..metrics };
            (rollout, Phase::Active { generation: generation.into(), for_ms: if is_long { 1_000 } else { 0 } })
        }
    };
    Some(Report { seen_ms: NOW_MS, rollout: rollout.into(), phase, metrics })
}
