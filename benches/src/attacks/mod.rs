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
mod revocation;
mod sheet;

use anyhow::{Result, ensure};
use clap::Args;
use sheet::{Row, Sheet};
use std::path::PathBuf;
use std::time::Instant;

/// Measures attacks and crowds.
#[derive(Debug, Args)]
pub(crate) struct AttackArgs {
    /// Only these scenarios; a part of a name is enough.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    only: Vec<String>,
    /// A tenth of the sizes and times: shows that the scenarios work, not what they cost.
    #[arg(long)]
    quick: bool,
    /// Where the rows go as JSON, each as soon as it is there; without it `bench/attacks.json` in the target folder.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// How large a scenario is.
#[derive(Clone, Copy, Debug)]
struct Size {
    is_quick: bool,
}

impl Size {
    /// `whole`, or a tenth of it.
    fn of(self, whole: u64) -> u64 {
        if self.is_quick { (whole / 10).max(1) } else { whole }
    }
}

/// One attack or crowd, at a router of its own.
struct Scenario {
    name: &'static str,
    /// What it is, for somebody who waits for it.
    what: &'static str,
    /// About how long it takes at full size in a release build on two cores, in seconds.
    takes_s: u64,
    run: fn(&tokio::runtime::Runtime, Size, &mut Sheet) -> Result<()>,
}

const SCENARIOS: [Scenario; 9] = [
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
        name: "revocation",
        what: "rights are taken away at one end of three sites",
        takes_s: 15,
        run: |runtime, size, sheet| runtime.block_on(revocation::revocation(size, sheet)),
    },
    Scenario {
        name: "overload",
        what: "half as many events again as a subscriber takes",
        takes_s: 35,
        run: |runtime, size, sheet| runtime.block_on(overload::overload(size, sheet)),
    },
];

/// Runs the scenarios one after the other, each at a router of its own.
pub(crate) fn run(arguments: &AttackArgs) -> Result<()> {
    let size = Size { is_quick: arguments.quick };
    let chosen = chosen(&arguments.only)?;
    let own = std::env::current_exe()?;
    let target = own.parent().and_then(|folder| folder.parent());
    let json = arguments.json.clone().or_else(|| Some(target?.join("bench/attacks.json")));
    let mut sheet = Sheet::new(json)?;
    let whole = size.of(chosen.iter().map(|scenario| scenario.takes_s).sum());
    eprintln!("{} scenarios, about {whole} s in all", chosen.len());
    let mut failed = Vec::new();
    for (number, Scenario { name, what, takes_s, run }) in (1..).zip(&chosen) {
        let takes_s = size.of(*takes_s);
        eprintln!("{number} of {}: {name}, {what}: about {takes_s} s ..", chosen.len());
        let begin = Instant::now();
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        // The others are worth having even when one cannot be measured.
        match run(&runtime, size, &mut sheet) {
            Ok(()) => eprintln!("  took {} s", begin.elapsed().as_secs()),
            Err(error) => {
                eprintln!("  FAILED after {} s: {error:#}", begin.elapsed().as_secs());
                failed.push(*name);
            }
        }
    }
    eprintln!("Rows as JSON: {}", sheet.file());
    ensure!(failed.is_empty(), "not measured: {}", failed.join(", "));
    let broken = sheet.broken();
    ensure!(size.is_quick || broken.is_empty(), "out of their bounds: {}", broken.join("; "));
    Ok(())
}

/// The scenarios whose names hold one of `only`, all where there is none.
fn chosen(only: &[String]) -> Result<Vec<&'static Scenario>> {
    let names = || SCENARIOS.iter().map(|scenario| scenario.name).collect::<Vec<_>>().join(", ");
    for wanted in only {
        let is_known = SCENARIOS.iter().any(|scenario| scenario.name.contains(wanted.as_str()));
        ensure!(is_known, "no scenario is called `{wanted}`; there are {}", names());
    }
    let is_chosen =
        |scenario: &&Scenario| only.is_empty() || only.iter().any(|name| scenario.name.contains(name.as_str()));
    Ok(SCENARIOS.iter().filter(is_chosen).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scenarios_are_chosen_by_parts_of_their_names_and_unknown_ones_are_refused() {
        let names = |only: &[&str]| {
            let only: Vec<String> = only.iter().map(|&name| name.to_owned()).collect();
            chosen(&only).map(|found| found.iter().map(|scenario| scenario.name).collect::<Vec<_>>())
        };
        assert_eq!(names(&[]).expect("all").len(), SCENARIOS.len());
        assert_eq!(names(&["swaps", "clients"]).expect("some"), ["dropped-clients", "idle-clients", "swaps"]);
        let refused = names(&["swaps", "nothing"]).expect_err("unknown").to_string();
        assert!(refused.contains("`nothing`") && refused.contains("overload"), "{refused}");
    }
}
