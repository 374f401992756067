//! The rule of two: what one person wants to begin waits in the log until another one has approved it.
//!
//! Whether two are needed is the configuration's to say, of the router that is asked; the log keeps what waits, so that every
//! router can be asked, and none forgets it. Going back never waits.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::governance::GovernanceChange;
use crate::limits::{APPROVAL_WAIT_MAX_MS, CLOCKS_APART_MAX_MS};
use crate::names::Name;
use crate::rollout::{RolloutPlan, Step};

#[cfg(test)]
mod tests;

/// What shall begin.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Intent {
    /// The staged set becomes active everywhere at once.
    Activate {
        /// The set: each binding with the revision that staged it.
        bindings: BTreeMap<Name, u64>,
    },
    /// The staged set becomes active over the sites.
    Start {
        /// The set: each binding with the revision that staged it.
        bindings: BTreeMap<Name, u64>,
        /// How it goes on.
        plan: Box<RolloutPlan>,
    },
    /// Rules and policies come to the sites, and filters stay as they are.
    Govern {
        /// What comes, and how it goes on.
        plan: Box<RolloutPlan>,
    },
    /// A rollout takes its next step ahead of time.
    Promote {
        /// Which rollout.
        id: u64,
        /// Where it is now.
        step: Step,
    },
}

/// An intent that waits for somebody else.
#[derive(Clone, Debug, PartialEq)]
pub struct Approval {
    /// Its number: the revision of the record that asked for it.
    pub id: u64,
    /// Who wants it.
    pub by: String,
    /// Since when it waits.
    pub at_unix_ms: u64,
    /// What shall begin.
    pub intent: Intent,
    /// Why, for people; may be empty.
    pub note: String,
    /// The digest of all that shall begin.
    pub digest: Digest,
}

impl Intent {
    /// The staged set that it makes active.
    pub fn bindings(&self) -> Option<&BTreeMap<Name, u64>> {
        match self {
            Self::Activate { bindings } | Self::Start { bindings, .. } => Some(bindings),
            Self::Govern { .. } | Self::Promote { .. } => None,
        }
    }

    /// How it goes on over the sites; none where it does so at once, or is a step.
    pub fn plan(&self) -> Option<&RolloutPlan> {
        match self {
            Self::Start { plan, .. } | Self::Govern { plan } => Some(plan),
            Self::Activate { .. } | Self::Promote { .. } => None,
        }
    }

    /// The rules and policies that it brings.
    pub fn changes(&self) -> &[GovernanceChange] {
        self.plan().map_or(&[], |plan| &plan.changes)
    }

    /// Whether it is a step of that rollout.
    pub(crate) fn promotes(&self, rollout: u64) -> bool {
        matches!(self, Self::Promote { id, .. } if *id == rollout)
    }

    /// What it is about, for people; empty where that is the staged set.
    pub fn subject(&self) -> String {
        match self {
            Self::Activate { .. } => String::new(),
            Self::Start { plan, .. } | Self::Govern { plan } => crate::governance::subject(&plan.changes),
            Self::Promote { id, .. } => format!("rollout {id}"),
        }
    }
}

impl Approval {
    /// How long it waits still, in milliseconds; 0 when it is over. It is judged by two clocks, that of whoever asks and that
    /// of the newest record, and the later one counts: neither makes it wait longer by lagging behind.
    pub(crate) fn waits_ms(&self, now_unix_ms: u64, newest_unix_ms: u64) -> u64 {
        // It would wait for as long as the clock of its router was ahead.
        if self.at_unix_ms > now_unix_ms.saturating_add(CLOCKS_APART_MAX_MS) {
            return 0;
        }
        let waited_ms = now_unix_ms.max(newest_unix_ms).saturating_sub(self.at_unix_ms);
        APPROVAL_WAIT_MAX_MS.saturating_sub(waited_ms)
    }

    /// Whether the same person has asked for the same.
    pub(crate) fn is_same(&self, by: &str, intent: &Intent) -> bool {
        self.by == by && self.intent == *intent
    }
}
