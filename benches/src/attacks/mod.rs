//! `myelin-bench attacks`: what attacks and crowds cost those who do nothing wrong, as ratios and percentiles.
//!
//! That the router survives, refuses with the right code and stays within its bounds is asserted by the tests; here it
//! is measured how much the others notice, and the scenarios have the sizes that a test has no time for.

mod change;
mod crowds;
mod fire;
mod probe;

use anyhow::{Result, ensure};
use clap::Args;
use comfy_table::Table;
use serde::Serialize;
use std::path::PathBuf;

/// Measures attacks and crowds.
#[derive(Debug, Args)]
pub(crate) struct AttackArgs {
    /// Only the scenarios whose name holds this.
    #[arg(long)]
    only: Option<String>,
    /// A tenth of the sizes and times: shows that the scenarios work, not what they cost.
    #[arg(long)]
    quick: bool,
    /// Also write the rows as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// One figure and its bound.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    /// The scenario and what of it was measured.
    what: String,
    /// What was measured.
    figure: f64,
    /// What it may be.
    bound: f64,
    /// Its unit; `x` is a ratio to the same without the attack.
    unit: &'static str,
    /// Whether the figure must not be over the bound; else not under it.
    is_ceiling: bool,
}

impl Row {
    fn at_most(what: impl Into<String>, figure: f64, bound: f64, unit: &'static str) -> Self {
        Self { what: what.into(), figure, bound, unit, is_ceiling: true }
    }

    fn at_least(what: impl Into<String>, figure: f64, bound: f64, unit: &'static str) -> Self {
        Self { what: what.into(), figure, bound, unit, is_ceiling: false }
    }

    fn holds(&self) -> bool {
        if self.is_ceiling { self.figure <= self.bound } else { self.figure >= self.bound }
    }
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

type Scenario = fn(&tokio::runtime::Runtime, Size) -> Result<Vec<Row>>;

/// Every scenario by its name.
const SCENARIOS: [(&str, Scenario); 7] = [
    ("hostile-modules", |runtime, size| runtime.block_on(fire::hostile_modules(size))),
    ("handshake-flood", |runtime, size| runtime.block_on(fire::handshake_flood(size))),
    ("slow-subscriber", |runtime, size| runtime.block_on(crowds::slow_subscriber(size))),
    ("dropped-clients", |runtime, size| runtime.block_on(crowds::dropped_clients(size))),
    ("idle-clients", |runtime, size| runtime.block_on(crowds::idle_clients(size))),
    ("swaps", |runtime, size| runtime.block_on(change::swaps(size))),
    ("overload", |runtime, size| runtime.block_on(change::overload(size))),
];

/// Runs the scenarios one after the other, each at a router of its own.
pub(crate) fn run(arguments: &AttackArgs) -> Result<()> {
    let size = Size { is_quick: arguments.quick };
    let mut rows = Vec::new();
    for (name, scenario) in SCENARIOS {
        if arguments.only.as_ref().is_some_and(|only| !name.contains(only.as_str())) {
            continue;
        }
        eprintln!("{name} ..");
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        rows.extend(scenario(&runtime, size)?);
    }
    ensure!(!rows.is_empty(), "no scenario has such a name; there are {:?}", SCENARIOS.map(|(name, _)| name));
    let mut table = Table::new();
    table.set_header(["what", "figure", "bound", ""]);
    for row in &rows {
        let sign = if row.is_ceiling { "<=" } else { ">=" };
        let verdict = if row.holds() { "holds" } else { "BROKEN" };
        let (figure, bound) = (format!("{:.2} {}", row.figure, row.unit), format!("{sign} {} {}", row.bound, row.unit));
        table.add_row([row.what.clone(), figure, bound, verdict.to_owned()]);
    }
    println!("{table}");
    if let Some(path) = &arguments.json {
        std::fs::write(path, serde_json::to_vec_pretty(&rows)?)?;
    }
    let broken = rows.iter().filter(|row| !row.holds()).count();
    ensure!(size.is_quick || broken == 0, "{broken} of {} figures are out of their bounds", rows.len());
    Ok(())
}
