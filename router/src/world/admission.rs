//! How many events a rollout's rules and policies hold back here, beside what was held back before: for its gates.
//!
//! Nothing is counted for this on the way of an event. What is counted anyway - by the ledger, by the policies, by each rule
//! about schemas - is read when the changes begin to hold here, and again whenever the controller is told.

use super::Account;
use crate::ledger::Counts;
use crate::screen::Screen;
use crate::shared::Shared;
use myelin_catalog::{GovernanceChange, Metrics, Rollout};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// Where a counter stands of what came, and of what of it was held back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Share {
    /// What came.
    pub(super) came: u64,
    /// What of it was held back.
    pub(super) held_back: u64,
}

/// Where the counters stand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Counters {
    /// Events that publishers sent.
    all: Share,
    /// Copies for subscribers here, and those withheld from some.
    copies: Share,
    /// Subscriptions that were denied, of these and the sessions that are open.
    subscriptions: Share,
    /// Events that each rule of the rollout has judged, in the order of the rollout's changes.
    rules: Vec<Share>,
}

/// Where the counters stood when the changes of a rollout began to hold here.
#[derive(Clone, Debug)]
pub(crate) struct Marks {
    pub(super) rollout: u64,
    /// The rules about schemas that it brings.
    rules: Arc<[String]>,
    before: Counters,
}

impl Share {
    /// In events of a million.
    fn ppm(self) -> u32 {
        let came = u128::from(self.came.max(self.held_back));
        let ppm = (u128::from(self.held_back) * 1_000_000).checked_div(came).unwrap_or(0);
        u32::try_from(ppm).unwrap_or(1_000_000)
    }

    fn since(self, before: Self) -> Self {
        let (came, held_back) =
            (self.came.saturating_sub(before.came), self.held_back.saturating_sub(before.held_back));
        Self { came, held_back }
    }
}

impl Counters {
    fn new(shared: &Shared, ledger: &Counts, rules: &[String]) -> Self {
        let denied = shared.denials.subscriptions();
        let withheld = shared.denials.withheld();
        let screens = shared.screens.load();
        let judged = |rule: &String| {
            let counts = screens.all().find(|screen| screen.rule() == rule).map(Screen::counts);
            let (passed, refused, dead_lettered) = counts.unwrap_or_default();
            let held_back = refused + dead_lettered;
            Share { came: passed + held_back, held_back }
        };
        Self {
            all: Share { came: ledger.accepted, held_back: ledger.rejected },
            copies: Share { came: ledger.targets + withheld, held_back: withheld },
            subscriptions: Share { came: denied, held_back: denied },
            rules: rules.iter().map(judged).collect(),
        }
    }

    /// Both shares where the difference is the largest, in events of a million: since `before`, and until then.
    fn worst_since(&self, before: &Self, sessions: u64) -> (u32, u32) {
        // A session that may go on counts beside those that may not.
        let with_sessions = |share: Share| Share { came: share.came + sessions, ..share };
        let pair = |now: Share, before: Share| (now.since(before), before);
        let (denied, denied_before) = pair(self.subscriptions, before.subscriptions);
        let pairs = [
            pair(self.all, before.all),
            pair(self.copies, before.copies),
            (with_sessions(denied), with_sessions(denied_before)),
        ];
        let rules = self.rules.iter().zip(&before.rules).map(|(now, before)| pair(*now, *before));
        let shares = pairs.into_iter().chain(rules).map(|(now, before)| (now.ppm(), before.ppm()));
        shares.max_by_key(|(now, before)| now.saturating_sub(*before)).unwrap_or_default()
    }
}

impl Marks {
    /// Reads the counters before the changes of `rollout` begin to hold.
    pub(super) async fn take(account: &Account, rollout: &Rollout) -> Self {
        let rules = rollout.plan.changes.iter().filter_map(GovernanceChange::rule);
        let rules: Arc<[String]> =
            rules.filter(|rule| rule.schema.is_some()).map(|rule| rule.name.to_string()).collect();
        let before = Counters::new(&account.shared, &total(account).await, &rules);
        Self { rollout: rollout.id, rules, before }
    }

    /// Puts into `metrics` what came and was held back since.
    pub(super) async fn measure(&self, account: &Account, metrics: &mut Metrics) {
        let now = Counters::new(&account.shared, &total(account).await, &self.rules);
        let sessions = account.shared.sessions.load(Relaxed) as u64;
        metrics.arrived = now.all.since(self.before.all).came;
        (metrics.held_ppm, metrics.base_held_ppm) = now.worst_since(&self.before, sessions);
    }
}

async fn total(account: &Account) -> Counts {
    let mut total = Counts::default();
    account.ledgers.read().await.values().for_each(|counts| total.add(counts));
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(came: u64, held_back: u64) -> Share {
        Share { came, held_back }
    }

    fn counters(all: Share, denied: u64, rules: &[Share]) -> Counters {
        Counters { all, copies: Share::default(), subscriptions: share(denied, denied), rules: rules.to_vec() }
    }

    #[test]
    fn a_rule_of_few_events_is_not_hidden_by_the_many_others() {
        let before = counters(share(1_000_000, 1_000), 0, &[share(1_000, 10)]);
        let now = counters(share(1_100_000, 1_150), 0, &[share(1_100, 60)]);
        assert_eq!(
            now.worst_since(&before, 4),
            (500_000, 10_000),
            "half of the rule's events, and one in a hundred before"
        );
        let same = counters(share(1_100_000, 1_100), 0, &[share(1_100, 11)]);
        let (now, then) = same.worst_since(&before, 4);
        assert_eq!(now, then, "no share is another one");
    }

    #[test]
    fn denied_subscriptions_are_held_against_the_sessions() {
        let before = counters(share(10, 0), 1, &[]);
        let now = counters(share(20, 0), 4, &[]);
        assert_eq!(now.worst_since(&before, 9), (250_000, 100_000));
    }

    #[test]
    fn a_rule_that_is_new_has_nothing_before_and_counters_that_began_anew_are_no_debt() {
        let before = counters(share(10, 0), 0, &[share(0, 0)]);
        assert_eq!(counters(share(20, 0), 0, &[share(2, 2)]).worst_since(&before, 0), (1_000_000, 0));
        assert_eq!(counters(share(5, 1), 0, &[share(0, 0)]).worst_since(&before, 0), (1_000_000, 0));
    }
}
