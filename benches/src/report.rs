//! The report: all runs, and their medians as tables.

use crate::goals::Goal;
use crate::machine::Machine;
use crate::row::Row;
use crate::swaps::Swap;
use comfy_table::{CellAlignment, Table, presets};
use myelin_load::{Cell, Measured, median};
use serde::Serialize;
use std::fmt::Write as _;

/// Everything that was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    machine: Machine,
    workers: usize,
    runs: usize,
    seconds: f64,
    pub(crate) goals: Vec<Goal>,
    pub(crate) cells: Vec<CellReport>,
}

/// One cell.
#[derive(Debug, Serialize)]
pub(crate) struct CellReport {
    pub(crate) cell: Cell,
    /// Events a second of each publisher; none = full load.
    pub(crate) rate: Option<u64>,
    pub(crate) rows: Vec<RowReport>,
}

/// One row of a cell.
#[derive(Debug, Serialize)]
pub(crate) struct RowReport {
    pub(crate) row: Row,
    pub(crate) runs: Vec<RunReport>,
}

/// One run of a row.
#[derive(Debug, Serialize)]
pub(crate) struct RunReport {
    #[serde(flatten)]
    pub(crate) measured: Measured,
    pub(crate) swaps: Vec<Swap>,
}

impl RunReport {
    /// A run in one line.
    pub(crate) fn line(&self) -> String {
        let run = &self.measured;
        let mut line = format!(
            "{:.0}/s, server {:.3} s/M, client {:.2} cores",
            run.delivered_per_second(),
            run.server_cpu_seconds_per_million(),
            run.client_cpu_seconds / run.seconds
        );
        if run.latency.is_some() {
            let at = run.percentiles();
            let _ = write!(line, ", p50 {:.0} us, p99 {:.0} us", at.p50_us, at.p99_us);
        }
        if let Some(pause_us) = self.swaps.iter().map(|swap| swap.pause_us).max() {
            let _ = write!(line, ", {} swaps, longest pause {pause_us} us", self.swaps.len());
        }
        if !run.is_exact() {
            let _ = write!(line, ", {} LOST, {} DOUBLED, {} REFUSED", run.lost, run.doubled, run.refused);
        }
        line
    }
}

impl Report {
    pub(crate) fn new(machine: Machine, workers: usize, runs: usize, seconds: f64) -> Self {
        Self { machine, workers, runs, seconds, goals: Vec::new(), cells: Vec::new() }
    }

    /// Whether no run lost, doubled or refused an event.
    pub(crate) fn is_exact(&self) -> bool {
        let runs = self.cells.iter().flat_map(|cell| &cell.rows).flat_map(|row| &row.runs);
        runs.map(|run| &run.measured).all(Measured::is_exact)
    }

    /// The machine and the settings.
    pub(crate) fn facts(&self) -> Vec<String> {
        let Machine { cores, cpu, kernel, rustc, packages } = &self.machine;
        vec![
            format!("{cores} cores ({cpu}), Linux {kernel}, {rustc}, {}.", packages.join(", ")),
            format!(
                "Router with {} worker(s); medians of {} interleaved runs of {} s (lowest to highest).",
                self.workers, self.runs, self.seconds
            ),
        ]
    }

    /// The goals, with their head.
    pub(crate) fn goals_table(&self) -> Vec<Vec<String>> {
        let head = ["goal", "figure", "reach", "aim", "verdict"].map(str::to_owned).to_vec();
        std::iter::once(head).chain(self.goals.iter().map(|goal| goal.cells().to_vec())).collect()
    }

    /// The tables, in Markdown; with `headings`, as sections of a page.
    pub(crate) fn text(&self, headings: bool) -> String {
        let heading = if headings { "### " } else { "" };
        let mut text = format!("\n{}\n", self.facts().join("\n"));
        for cell in &self.cells {
            let _ = write!(text, "\n{heading}{}\n\n{}\n", cell.title(), markdown(&cell.table()));
        }
        if !self.goals.is_empty() {
            let _ = write!(text, "\n{heading}Goals\n\n{}\n", markdown(&self.goals_table()));
        }
        text
    }
}

impl CellReport {
    /// What was measured, in a few words.
    pub(crate) fn title(&self) -> String {
        let Cell { payload_bytes, publishers, subscribers } = self.cell;
        let load = self.rate.map_or_else(|| "full load".to_owned(), |rate| format!("{rate} events/s, open loop"));
        format!("{payload_bytes} B, {publishers} -> {subscribers}, {load}")
    }

    pub(crate) fn row(&self, wanted: Row) -> Option<&RowReport> {
        self.rows.iter().find(|row| row.row == wanted && !row.runs.is_empty())
    }

    /// The medians, with their head.
    pub(crate) fn table(&self) -> Vec<Vec<String>> {
        let mut table = if self.rate.is_some() { self.latencies() } else { self.throughput() };
        if self.rows.iter().flat_map(|row| &row.runs).any(|run| !run.swaps.is_empty()) {
            table[0].extend(["swaps".to_owned(), "longest pause us".to_owned()]);
            for (line, row) in table.iter_mut().skip(1).zip(&self.rows) {
                let pauses = || row.runs.iter().flat_map(|run| &run.swaps).map(|swap| swap.pause_us);
                line.extend([
                    pauses().count().to_string(),
                    pauses().max().map_or_else(String::new, |us| us.to_string()),
                ]);
            }
        }
        table
    }

    fn throughput(&self) -> Vec<Vec<String>> {
        let head = [
            "row",
            "delivered/s",
            "of the relay",
            "server CPU s/million",
            "of the relay",
            "server cores",
            "client cores",
            "server MiB",
            "lost",
            "doubled",
        ];
        let (rate, cpu) = (Measured::delivered_per_second, Measured::server_cpu_seconds_per_million);
        let relay = self.row(Row::Relay);
        let mut table = vec![head.map(str::to_owned).to_vec()];
        for row in &self.rows {
            let share = |value: fn(&Measured) -> f64| {
                relay.map_or_else(String::new, |relay| {
                    format!("{:.0} %", 100.0 * row.median(value) / relay.median(value))
                })
            };
            table.push(vec![
                row.row.label().to_owned(),
                row.spread(rate, 0),
                share(rate),
                row.spread(cpu, 3),
                share(cpu),
                format!("{:.2}", row.median(|run| run.server_cpu_seconds / run.seconds)),
                format!("{:.2}", row.median(|run| run.client_cpu_seconds / run.seconds)),
                format!("{:.0}", row.median(|run| run.server_memory_mib)),
                row.sum(|run| run.lost + run.refused),
                row.sum(|run| run.doubled),
            ]);
        }
        table
    }

    fn latencies(&self) -> Vec<Vec<String>> {
        let head = ["row", "p50 us", "p99 us", "p99.9 us", "max us", "server CPU s/million", "lost", "doubled"];
        let mut table = vec![head.map(str::to_owned).to_vec()];
        for row in &self.rows {
            table.push(vec![
                row.row.label().to_owned(),
                row.spread(|run| run.percentiles().p50_us, 0),
                row.spread(|run| run.percentiles().p99_us, 0),
                row.spread(|run| run.percentiles().p999_us, 0),
                row.spread(|run| run.percentiles().max_us, 0),
                row.spread(Measured::server_cpu_seconds_per_million, 3),
                row.sum(|run| run.lost + run.refused),
                row.sum(|run| run.doubled),
            ]);
        }
        table
    }
}

impl RowReport {
    pub(crate) fn new(row: Row) -> Self {
        Self { row, runs: Vec::new() }
    }

    pub(crate) fn median(&self, value: impl Fn(&Measured) -> f64) -> f64 {
        median(self.runs.iter().map(|run| value(&run.measured)).collect())
    }

    /// The median, and the lowest and highest behind it.
    fn spread(&self, value: impl Fn(&Measured) -> f64, digits: usize) -> String {
        let values: Vec<f64> = self.runs.iter().map(|run| value(&run.measured)).collect();
        let low = values.iter().copied().reduce(f64::min).unwrap_or(0.0);
        let high = values.iter().copied().reduce(f64::max).unwrap_or(0.0);
        format!("{:.digits$} ({low:.digits$} to {high:.digits$})", median(values))
    }

    fn sum(&self, value: impl Fn(&Measured) -> u64) -> String {
        self.runs.iter().map(|run| value(&run.measured)).sum::<u64>().to_string()
    }
}

/// A table with its head first, as Markdown.
pub(crate) fn markdown(rows: &[Vec<String>]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    if let Some((head, rows)) = rows.split_first() {
        table.set_header(head).add_rows(rows);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(delivered: u64, server_cpu_seconds: f64) -> RunReport {
        let measured = Measured { seconds: 1.0, delivered, server_cpu_seconds, ..Measured::default() };
        RunReport { measured, swaps: Vec::new() }
    }

    fn cell(router: Vec<RunReport>) -> CellReport {
        let relay = RowReport { row: Row::Relay, runs: vec![run(2_000_000, 1.0)] };
        let rows = vec![relay, RowReport { row: Row::Router, runs: router }];
        CellReport { cell: Cell { payload_bytes: 128, publishers: 1, subscribers: 1 }, rate: None, rows }
    }

    #[test]
    fn medians_and_shares_are_of_the_relay() {
        let table = cell(vec![run(1_000_000, 1.0), run(1_400_000, 1.0), run(1_200_000, 1.2)]).table();
        assert_eq!(table[2][1..5], ["1200000 (1000000 to 1400000)", "60 %", "1.000 (0.714 to 1.000)", "200 %"]);
    }

    #[test]
    fn one_lost_event_spoils_the_report() {
        let mut report = Report::new(Machine::here(), 1, 1, 1.0);
        report.cells.push(cell(vec![run(1, 1.0)]));
        assert!(report.is_exact());
        let mut lossy = run(1, 1.0);
        lossy.measured.lost = 1;
        report.cells.push(cell(vec![lossy]));
        assert!(!report.is_exact());
        assert_eq!(report.cells[1].table()[2][8], "1");
        assert!(report.text(true).contains("### 128 B, 1 -> 1, full load\n\n| row"), "{}", report.text(true));
    }

    #[test]
    fn swaps_have_columns_where_there_are_any() {
        let mut swapped = run(1, 1.0);
        swapped.swaps.extend([30, 70].map(|pause_us| Swap { at_unix_ms: 0, took_ms: 1, pause_us }));
        let table = cell(vec![swapped]).table();
        assert_eq!(
            (table[0].len(), &table[1][10..], &table[2][10..]),
            (12, &["0".into(), String::new()][..], &["2".into(), "70".into()][..])
        );
    }
}
