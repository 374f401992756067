//! `myelin-bench mesh`: how long others wait when something in the mesh breaks or changes, beside what they may.
//!
//! That nothing is delivered twice, and that all comes right in the end, is asserted by the tests, with much patience; here
//! it is judged how soon.

mod failures;
mod revocation;
mod rollouts;

use crate::scenarios::{self, Row, Scenario, ScenarioArgs, Sheet};
use anyhow::Result;
use myelin_tests::churn::churn_at_one_of_two_sites;
use std::time::Duration;

/// Both sites have equal hashes so long after the last of a hundred thousand changes, in seconds.
const EQUAL_S: f64 = 2.0;
/// Batches that go to a neighbour in ten seconds.
const BATCHES: f64 = 200.0;

const SCENARIOS: [Scenario; 4] = [
    Scenario {
        name: "dead-neighbour",
        what: "a link or a router on the way of events breaks, in four manners",
        takes_s: 340,
        run: |runtime, size, sheet| runtime.block_on(failures::dead_neighbours(size, sheet)),
    },
    Scenario {
        name: "rollout",
        what: "a new version of a filter goes to ten sites",
        takes_s: 15,
        run: |runtime, size, sheet| runtime.block_on(rollouts::rollout(size, sheet)),
    },
    Scenario {
        name: "revocation",
        what: "rights are taken away at one end of three sites",
        takes_s: 15,
        run: |runtime, size, sheet| runtime.block_on(revocation::revocation(size, sheet)),
    },
    Scenario {
        name: "interest",
        what: "100 sessions subscribe and unsubscribe 99,800 times",
        takes_s: 8,
        // The same at every size: it takes a few seconds.
        run: |runtime, _, sheet| runtime.block_on(interest(sheet)),
    },
];

/// Runs the scenarios one after the other, each in a mesh of its own.
pub(crate) fn run(arguments: &ScenarioArgs) -> Result<()> {
    scenarios::run(arguments, "mesh", &SCENARIOS)
}

async fn interest(sheet: &mut Sheet) -> Result<()> {
    let churned = churn_at_one_of_two_sites().await?;
    let ran = churned.took + churned.equal_after;
    eprintln!("  {} changes in {:.1?}, {} batches", churned.changes, churned.took, churned.batches);
    sheet.add(Row::at_most(
        "interest: equal hashes after the last",
        churned.equal_after.as_secs_f64(),
        EQUAL_S,
        "s",
    ))?;
    // In less time there are fewer; the first goes at once.
    let share = ran.as_secs_f64() / Duration::from_secs(10).as_secs_f64();
    let batches = churned.batches.saturating_sub(1) as f64 / share;
    sheet.add(Row::at_most("interest: batches to a neighbour in 10 s", batches, BATCHES, "batches"))
}
