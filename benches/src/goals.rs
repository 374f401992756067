//! The ratios that shall be reached, and how far this run is: reach, aim, or behind.

use crate::report::{CellReport, RowReport};
use crate::row::Row;
use myelin_load::{Cell, Measured, median};
use serde::Serialize;

/// A ratio or a figure, beside what it shall be.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Goal {
    /// What it is about.
    pub(crate) what: String,
    /// What was measured.
    pub(crate) figure: f64,
    /// What must be reached.
    pub(crate) reach: f64,
    /// What is aimed at.
    pub(crate) aim: f64,
    /// Its unit; empty for a ratio, which is written `1.8x`.
    pub(crate) unit: &'static str,
    pub(crate) verdict: Verdict,
}

/// How a figure stands to its goal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Verdict {
    /// What was aimed at, or better.
    Aim,
    /// What must be.
    Reach,
    /// Less.
    Behind,
}

/// Which way a figure is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Better {
    Higher,
    Lower,
}

impl Goal {
    pub(crate) fn new(what: impl Into<String>, figure: f64, (reach, aim): (f64, f64), better: Better) -> Self {
        let meets = |bound: f64| match better {
            Better::Higher => figure >= bound,
            Better::Lower => figure <= bound,
        };
        let verdict = match (meets(aim), meets(reach)) {
            (true, _) => Verdict::Aim,
            (false, true) => Verdict::Reach,
            _ => Verdict::Behind,
        };
        Self { what: what.into(), figure, reach, aim, unit: "", verdict }
    }

    /// The same as a figure with a unit.
    pub(crate) fn unit(mut self, unit: &'static str) -> Self {
        self.unit = unit;
        self
    }

    pub(crate) fn is_behind(&self) -> bool {
        self.verdict == Verdict::Behind
    }

    /// Its cells in a table: what, figure, reach, aim, verdict.
    pub(crate) fn cells(&self) -> [String; 5] {
        let text = |value: f64| match self.unit {
            "" => format!("{value:.2}x"),
            unit if value != 0.0 && value.abs() < 1.0 => format!("{value:.3} {unit}"),
            unit if value < 100.0 => format!("{value:.1} {unit}"),
            unit => format!("{value:.0} {unit}"),
        };
        let verdict = match self.verdict {
            Verdict::Aim => "aim",
            Verdict::Reach => "reach",
            Verdict::Behind => "**behind**",
        };
        [self.what.clone(), text(self.figure), text(self.reach), text(self.aim), verdict.to_owned()]
    }
}

/// What is compared.
type Value = fn(&Measured) -> f64;

/// A ratio of two rows of one cell: what must be reached, and the aim.
struct Ratio(Row, Row, (f64, f64));

/// Delivered events a second, higher is better: payload bytes and subscribers of the cell, and the ratios in it.
const THROUGHPUT: &[(usize, usize, &[Ratio])] = &[
    (
        128,
        1,
        &[
            Ratio(Row::Router, Row::ZenohQuic, (1.8, 2.5)),
            Ratio(Row::Router, Row::NatsTls, (3.0, 4.5)),
            Ratio(Row::Router, Row::ZenohTls, (1.2, 1.7)),
            Ratio(Row::Router, Row::Relay, (0.6, 0.75)),
            Ratio(Row::Filter, Row::Relay, (0.5, 0.7)),
            Ratio(Row::Chain, Row::Relay, (0.4, 0.6)),
        ],
    ),
    (
        128,
        8,
        &[
            Ratio(Row::Router, Row::ZenohQuic, (1.8, 2.5)),
            Ratio(Row::Router, Row::NatsTls, (5.0, 8.0)),
            Ratio(Row::Router, Row::ZenohTls, (1.1, 1.5)),
            Ratio(Row::Router, Row::Relay, (0.6, 0.75)),
            Ratio(Row::Filter, Row::Relay, (0.5, 0.7)),
            Ratio(Row::Chain, Row::Relay, (0.4, 0.6)),
        ],
    ),
    (1024, 1, &[Ratio(Row::Router, Row::ZenohQuic, (1.4, 1.8)), Ratio(Row::Router, Row::NatsTls, (1.0, 1.3))]),
    (1024, 8, &[Ratio(Row::Router, Row::ZenohQuic, (1.4, 2.0)), Ratio(Row::Router, Row::NatsTls, (1.4, 2.0))]),
];
/// CPU time of the server for an event, 128 B, 1 to 1; lower is better.
const CPU: &[Ratio] =
    &[Ratio(Row::Router, Row::ZenohQuic, (0.6, 0.45)), Ratio(Row::Router, Row::NatsTls, (0.35, 0.25))];
/// The same of what is enforced.
const ENFORCED_CPU: &[Ratio] = &[
    Ratio(Row::Governed, Row::Router, (1.1, 1.05)),
    Ratio(Row::SchemaJson, Row::Router, (1.3, 1.15)),
    Ratio(Row::SchemaAvro, Row::Router, (1.3, 1.15)),
    Ratio(Row::SchemaProtobuf, Row::Router, (1.3, 1.15)),
];
/// Median latency in the open loop; lower is better.
const P50: &[Ratio] = &[Ratio(Row::Router, Row::ZenohQuic, (0.55, 0.4)), Ratio(Row::Router, Row::NatsTls, (1.1, 0.9))];
/// The same across two linked servers.
const HOPS_THROUGHPUT: &[(usize, usize, &[Ratio])] = &[
    (128, 1, &[Ratio(Row::Router, Row::ZenohQuic, (1.5, 2.0)), Ratio(Row::Router, Row::NatsTls, (2.5, 3.0))]),
    (1024, 1, &[Ratio(Row::Router, Row::ZenohQuic, (1.3, 1.6)), Ratio(Row::Router, Row::NatsTls, (1.0, 1.3))]),
];
/// The same across two linked servers.
const HOPS_P50: &[Ratio] =
    &[Ratio(Row::Router, Row::ZenohQuic, (0.55, 0.4)), Ratio(Row::Router, Row::NatsTls, (1.1, 1.0))];
/// The 99th percentile in the open loop, of the best peer; lower is better.
const P99_OF_BEST: (f64, f64) = (1.25, 1.0);
/// CPU time that one filter adds to an event in full batches, in microseconds; lower is better.
const FILTER_CPU_US: (f64, f64) = (0.150, 0.080);
/// The longest that a worker pauses for a swap, in microseconds; lower is better.
const PAUSE_US: (f64, f64) = (1_000.0, 100.0);

/// Every goal for which this run has both sides.
pub(crate) fn judge(cells: &[CellReport]) -> Vec<Goal> {
    if cells.iter().any(|cell| cell.hops > 1) {
        return judge_hops(cells);
    }
    let mut goals = Vec::new();
    compare_throughput(cells, THROUGHPUT, &mut goals);
    if let Some(found) = full_load(cells, Cell { payload_bytes: 128, publishers: 1, subscribers: 1 }) {
        let cpu: Value = Measured::server_cpu_seconds_per_million;
        compare(found, "server CPU an event", CPU, cpu, Better::Lower, &mut goals);
        compare(found, "server CPU an event", ENFORCED_CPU, cpu, Better::Lower, &mut goals);
        if let (Some(with), Some(without)) = (found.row(Row::Filter), found.row(Row::RouterHeader)) {
            let added = with.median(cpu) - without.median(cpu);
            goals.push(
                Goal::new("CPU that one filter adds to an event", added, FILTER_CPU_US, Better::Lower).unit("us"),
            );
        }
    }
    if let Some(found) = cells.iter().find(|cell| cell.rate.is_some()) {
        let cpu: Value = Measured::server_cpu_seconds_per_million;
        compare(found, "server CPU an event", ENFORCED_CPU, cpu, Better::Lower, &mut goals);
        compare(found, "p50", P50, |run| run.percentiles().p50_us, Better::Lower, &mut goals);
        let p99 = |row: &RowReport| row.median(|run| run.percentiles().p99_us);
        let best = found.rows.iter().filter(|row| row.row.is_peer()).map(p99).reduce(f64::min);
        if let (Some(best), Some(router)) = (best, found.row(Row::Router)) {
            let what = format!("{}: p99 of the best peer", found.title());
            goals.push(Goal::new(what, p99(router) / best, P99_OF_BEST, Better::Lower));
        }
    }
    // By medians as everything else: on cores that router and load share, one pause in some dozens lasts as long as the
    // operating system lets others run. The tables tell the longest of all.
    let pauses = cells.iter().flat_map(|cell| &cell.rows).filter_map(RowReport::pause_us);
    if let Some(pause_us) = pauses.reduce(f64::max) {
        let what = "longest pause of a worker for a swap, median of the runs, worst row";
        goals.push(Goal::new(what, pause_us, PAUSE_US, Better::Lower).unit("us"));
    }
    let swaps = cells.iter().flat_map(|cell| &cell.rows).flat_map(|row| &row.runs).flat_map(|run| &run.swaps);
    if let Some(cpu_us) = swaps.map(|swap| swap.pause_cpu_us).max() {
        let what = "most CPU time of any such pause";
        goals.push(Goal::new(what, cpu_us as f64, PAUSE_US, Better::Lower).unit("us"));
    }
    goals
}

/// The goals of two hops.
fn judge_hops(cells: &[CellReport]) -> Vec<Goal> {
    let mut goals = Vec::new();
    compare_throughput(cells, HOPS_THROUGHPUT, &mut goals);
    if let Some(found) = cells.iter().find(|cell| cell.rate.is_some()) {
        compare(found, "p50", HOPS_P50, |run| run.percentiles().p50_us, Better::Lower, &mut goals);
    }
    goals
}

fn compare_throughput(cells: &[CellReport], wanted: &[(usize, usize, &[Ratio])], goals: &mut Vec<Goal>) {
    for (payload_bytes, subscribers, ratios) in wanted {
        let cell = Cell { payload_bytes: *payload_bytes, publishers: 1, subscribers: *subscribers };
        let Some(found) = full_load(cells, cell) else { continue };
        compare(found, "delivered/s", ratios, Measured::delivered_per_second, Better::Higher, goals);
    }
}

fn full_load(cells: &[CellReport], wanted: Cell) -> Option<&CellReport> {
    cells.iter().find(|cell| cell.cell == wanted && cell.rate.is_none())
}

fn compare(cell: &CellReport, of_what: &str, ratios: &[Ratio], value: Value, better: Better, goals: &mut Vec<Goal>) {
    for Ratio(ours, theirs, bounds) in ratios {
        let (Some(left), Some(right)) = (cell.row(*ours), cell.row(*theirs)) else { continue };
        let what = format!("{}: {of_what}, {} of {}", cell.title(), ours.label(), theirs.label());
        goals.push(Goal::new(what, ratio(left, right, value), *bounds, better));
    }
}

/// The median of the ratios of turns that were made one after the other: what slows the machine for a while slows both.
fn ratio(left: &RowReport, right: &RowReport, value: Value) -> f64 {
    let turns = left.runs.iter().zip(&right.runs);
    median(turns.map(|(left, right)| value(&left.measured) / value(&right.measured)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::RunReport;
    use crate::swaps::Swap;

    #[test]
    fn a_figure_reaches_aims_or_is_behind() {
        let verdict = |figure, better| Goal::new("x", figure, (1.8, 2.5), better).verdict;
        assert_eq!(
            [1.7, 1.8, 2.5].map(|figure| verdict(figure, Better::Higher)),
            [Verdict::Behind, Verdict::Reach, Verdict::Aim]
        );
        let lower = |figure| Goal::new("x", figure, (0.6, 0.45), Better::Lower).verdict;
        assert_eq!([0.7, 0.6, 0.4].map(lower), [Verdict::Behind, Verdict::Reach, Verdict::Aim]);
    }

    #[test]
    fn ratios_are_of_turns_of_one_cell_and_missing_rows_give_none() {
        let row = |row, delivered: &[u64]| {
            let run = |delivered| Measured { seconds: 1.0, delivered, ..Measured::default() };
            let runs = delivered.iter().map(|count| RunReport { measured: run(*count), swaps: Vec::new() });
            RowReport { row, runs: runs.collect() }
        };
        // The machine is slower in the second turn, and something else happens in the third.
        let rows = vec![row(Row::Router, &[190, 100, 900]), row(Row::ZenohQuic, &[100, 50, 1])];
        let cell = Cell { payload_bytes: 128, publishers: 1, subscribers: 1 };
        let goals = judge(&[CellReport { cell, rate: None, hops: 1, rows }]);
        let throughput: Vec<&Goal> = goals.iter().filter(|goal| goal.what.contains("delivered")).collect();
        assert_eq!(throughput.len(), 1, "{goals:?}");
        assert!((throughput[0].figure - 2.0).abs() < 1e-9 && throughput[0].verdict == Verdict::Reach, "{goals:?}");
    }

    #[test]
    fn the_pause_is_the_worst_rows_median_of_the_longest_of_each_run() {
        let run = |pauses: &[u64]| {
            let swap = |pause_us: &u64| Swap { at_unix_ms: 0, took_ms: 1, pause_us: *pause_us, pause_cpu_us: 60 };
            RunReport { measured: Measured::default(), swaps: pauses.iter().map(swap).collect() }
        };
        let row = |row, runs: &[&[u64]]| RowReport { row, runs: runs.iter().map(|pauses| run(pauses)).collect() };
        let rows = vec![
            row(Row::Filter, &[&[]]),
            row(Row::FilterSwaps, &[&[60, 70], &[1_800, 65], &[62, 66]]),
            row(Row::ChainSwaps, &[&[61, 62]]),
        ];
        let cell = Cell { payload_bytes: 128, publishers: 1, subscribers: 1 };
        let goals = judge(&[CellReport { cell, rate: None, hops: 1, rows }]);
        let figures: Vec<f64> =
            goals.iter().filter(|goal| goal.what.contains("pause")).map(|goal| goal.figure).collect();
        assert_eq!(figures, [70.0, 60.0], "{goals:?}");
    }
}
