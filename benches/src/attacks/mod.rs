//! `myelin-bench attacks`: what attacks and crowds cost those who do nothing wrong, as ratios and percentiles.
//!
//! That the router survives, refuses with the right code and stays within its bounds is asserted by the tests; here it
//! is measured how much the others notice, and the scenarios have the sizes that a test has no time for.

mod change;
mod crowds;
mod fire;
mod neighbours;
mod overload;
mod probe;

use crate::scenarios::{self, Row, Scenario, ScenarioArgs, Sheet, Size};
use anyhow::Result;

const SCENARIOS: [Scenario; 8] = [
    Scenario {
        name: "hostile-modules",
        what: "59 modules that bide their time are woken again and again",
        takes_s: 60,
        run: |runtime, size, sheet| runtime.block_on(fire::hostile_modules(size, sheet)),
    },
    Scenario {
        name: "handshake-flood",
        what: "2,000 first packets a second from 100 networks",
        takes_s: 45,
        run: |runtime, size, sheet| runtime.block_on(fire::handshake_flood(size, sheet)),
    },
    Scenario {
        name: "slow-subscriber",
        what: "1 of 100 subscribers reads one event a second",
        takes_s: 60,
        run: |runtime, size, sheet| runtime.block_on(crowds::slow_subscriber(size, sheet)),
    },
    Scenario {
        name: "dropped-clients",
        what: "5,000 clients lose their router at once",
        takes_s: 60,
        run: |runtime, size, sheet| runtime.block_on(crowds::dropped_clients(size, sheet)),
    },
    Scenario {
        name: "idle-clients",
        what: "10,000 clients that do nothing",
        takes_s: 45,
        run: |runtime, size, sheet| runtime.block_on(crowds::idle_clients(size, sheet)),
    },
    Scenario {
        name: "swaps",
        what: "1,000 swaps of a filter at half load",
        takes_s: 50,
        run: |runtime, size, sheet| runtime.block_on(change::swaps(size, sheet)),
    },
    Scenario {
        name: "noisy-neighbour",
        what: "a tenant publishes ten times what it may, beside another one",
        takes_s: 45,
        run: |runtime, size, sheet| runtime.block_on(neighbours::noisy_neighbour(size, sheet)),
    },
    Scenario {
        name: "overload",
        what: "half as many events again as a subscriber takes",
        takes_s: 35,
        run: |runtime, size, sheet| runtime.block_on(overload::overload(size, sheet)),
    },
];

/// Runs the scenarios one after the other, each at a router of its own.
pub(crate) fn run(arguments: &ScenarioArgs) -> Result<()> {
    scenarios::run(arguments, "attacks", &SCENARIOS)
}
