//! Scenarios that are measured one after the other, each with figures that must stay within a bound: what `attacks` and
//! `mesh` have in common.

mod sheet;

pub(crate) use sheet::{Row, Sheet};

use anyhow::{Result, ensure};
use clap::Args;
use std::path::PathBuf;
use std::time::Instant;

/// Which scenarios, and how large.
#[derive(Debug, Args)]
pub(crate) struct ScenarioArgs {
    /// Only these scenarios; a part of a name is enough.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    only: Vec<String>,
    /// A tenth of the sizes and times: shows that the scenarios work, not what they cost.
    #[arg(long)]
    quick: bool,
    /// Where the rows go as JSON, each as soon as it is there; without it `bench/COMMAND.json` in the target folder.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// How large a scenario is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    is_quick: bool,
}

impl Size {
    /// `whole`, or a tenth of it.
    pub(crate) fn of(self, whole: u64) -> u64 {
        if self.is_quick { (whole / 10).max(1) } else { whole }
    }
}

/// One thing that is measured, at routers of its own.
pub(crate) struct Scenario {
    /// What it is called.
    pub(crate) name: &'static str,
    /// What it is, for somebody who waits for it.
    pub(crate) what: &'static str,
    /// About how long it takes at full size in a release build on two cores, in seconds.
    pub(crate) takes_s: u64,
    /// Measures it.
    pub(crate) run: fn(&tokio::runtime::Runtime, Size, &mut Sheet) -> Result<()>,
}

/// Runs the scenarios one after the other, each at a router of its own.
pub(crate) fn run(arguments: &ScenarioArgs, command: &str, scenarios: &[Scenario]) -> Result<()> {
    let size = Size { is_quick: arguments.quick };
    let chosen = chosen(scenarios, &arguments.only)?;
    let own = std::env::current_exe()?;
    let target = own.parent().and_then(|folder| folder.parent());
    let json = arguments.json.clone().or_else(|| Some(target?.join(format!("bench/{command}.json"))));
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
fn chosen<'a>(scenarios: &'a [Scenario], only: &[String]) -> Result<Vec<&'a Scenario>> {
    let names = || scenarios.iter().map(|scenario| scenario.name).collect::<Vec<_>>().join(", ");
    for wanted in only {
        let is_known = scenarios.iter().any(|scenario| scenario.name.contains(wanted.as_str()));
        ensure!(is_known, "no scenario is called `{wanted}`; there are {}", names());
    }
    let is_chosen =
        |scenario: &&Scenario| only.is_empty() || only.iter().any(|name| scenario.name.contains(name.as_str()));
    Ok(scenarios.iter().filter(is_chosen).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn called(name: &'static str) -> Scenario {
        Scenario { name, what: "", takes_s: 1, run: |_, _, _| Ok(()) }
    }

    #[test]
    fn scenarios_are_chosen_by_parts_of_their_names_and_unknown_ones_are_refused() {
        let all = ["dropped-clients", "idle-clients", "swaps", "overload"].map(called);
        let names = |only: &[&str]| {
            let only: Vec<String> = only.iter().map(|&name| name.to_owned()).collect();
            chosen(&all, &only).map(|found| found.iter().map(|scenario| scenario.name).collect::<Vec<_>>())
        };
        assert_eq!(names(&[]).expect("all").len(), all.len());
        assert_eq!(names(&["swaps", "clients"]).expect("some"), ["dropped-clients", "idle-clients", "swaps"]);
        let refused = names(&["swaps", "nothing"]).expect_err("unknown").to_string();
        assert!(refused.contains("`nothing`") && refused.contains("overload"), "{refused}");
    }
}
