//! The report: all runs as JSON, and their medians as a table.

use crate::cell::Cell;
use crate::facts::Machine;
use crate::load::Measured;
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;
use std::fmt::Write as _;

/// The rows of a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    /// The bare relay.
    Relay,
    /// The router without filters.
    Router,
    /// The same, with the header on each event that the filter reads.
    RouterHeader,
    /// The router with one filter.
    Filter,
}

impl Kind {
    /// In the order in which they run.
    pub(crate) const ALL: [Self; 4] = [Self::Relay, Self::Router, Self::RouterHeader, Self::Filter];

    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Relay => "bare relay",
            Self::Router => "router, no filter",
            Self::RouterHeader => "router, no filter, header",
            Self::Filter => "router, one filter, header",
        }
    }

    /// Whether its events carry the header that the filter reads.
    pub(crate) fn has_header(self) -> bool {
        matches!(self, Self::RouterHeader | Self::Filter)
    }
}

/// Everything that was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    machine: Machine,
    workers: usize,
    runs: usize,
    seconds: f64,
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
    pub(crate) kind: Kind,
    pub(crate) runs: Vec<Measured>,
}

/// A run in one line.
pub(crate) fn line(run: &Measured) -> String {
    let mut line = format!(
        "{:.0}/s, server {:.3} s/M, client {:.2} cores",
        run.delivered_per_second(),
        run.server_cpu_seconds_per_million(),
        run.client_cpu_seconds / run.seconds
    );
    if let Some(latency) = run.latency {
        let _ = write!(line, ", p50 {:.0} us, p99 {:.0} us", latency.p50_us, latency.p99_us);
    }
    if !run.is_exact() {
        let _ = write!(line, ", {} LOST, {} DOUBLED, {} REFUSED", run.lost, run.doubled, run.refused);
    }
    line
}

impl Report {
    pub(crate) fn new(machine: Machine, workers: usize, runs: usize, seconds: f64) -> Self {
        Self { machine, workers, runs, seconds, cells: Vec::new() }
    }

    /// Whether no run lost, doubled or refused an event.
    pub(crate) fn is_exact(&self) -> bool {
        self.cells.iter().flat_map(|cell| &cell.rows).flat_map(|row| &row.runs).all(Measured::is_exact)
    }

    /// The tables, in Markdown.
    pub(crate) fn text(&self) -> String {
        let Machine { cores, cpu, kernel, rustc, packages } = &self.machine;
        let mut text = format!(
            "\n{cores} cores ({cpu}), Linux {kernel}, {rustc}, {}.\nRouter with {} worker(s); medians of {} interleaved \
             runs of {} s (lowest to highest).\n",
            packages.join(", "),
            self.workers,
            self.runs,
            self.seconds
        );
        for cell in &self.cells {
            let _ = write!(text, "\n{}\n", cell.text());
        }
        text
    }
}

impl CellReport {
    fn text(&self) -> String {
        let Cell { payload_bytes, publishers, subscribers } = self.cell;
        let load = self.rate.map_or_else(|| "full load".to_owned(), |rate| format!("{rate} events/s, open loop"));
        let table = if self.rate.is_some() { self.latencies() } else { self.throughput() };
        format!("{payload_bytes} B, {publishers} -> {subscribers}, {load}\n\n{table}")
    }

    fn throughput(&self) -> Table {
        let mut table = markdown([
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
        ]);
        let (rate, cpu) = (Measured::delivered_per_second, Measured::server_cpu_seconds_per_million);
        let relay = self.rows.iter().find(|row| row.kind == Kind::Relay);
        for row in &self.rows {
            let share = |value: fn(&Measured) -> f64| {
                relay.map_or_else(String::new, |relay| {
                    format!("{:.0} %", 100.0 * row.median(value) / relay.median(value))
                })
            };
            table.add_row([
                row.kind.label().to_owned(),
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

    fn latencies(&self) -> Table {
        let mut table =
            markdown(["row", "p50 us", "p99 us", "p99.9 us", "max us", "server CPU s/million", "lost", "doubled"]);
        for row in &self.rows {
            table.add_row([
                row.kind.label().to_owned(),
                row.spread(|run| run.latency.unwrap_or_default().p50_us, 0),
                row.spread(|run| run.latency.unwrap_or_default().p99_us, 0),
                row.spread(|run| run.latency.unwrap_or_default().p999_us, 0),
                row.spread(|run| run.latency.unwrap_or_default().max_us, 0),
                row.spread(Measured::server_cpu_seconds_per_million, 3),
                row.sum(|run| run.lost + run.refused),
                row.sum(|run| run.doubled),
            ]);
        }
        table
    }
}

impl RowReport {
    pub(crate) fn new(kind: Kind) -> Self {
        Self { kind, runs: Vec::new() }
    }

    fn median(&self, value: impl Fn(&Measured) -> f64) -> f64 {
        median(self.sorted(value))
    }

    fn sorted(&self, value: impl Fn(&Measured) -> f64) -> Vec<f64> {
        let mut values: Vec<f64> = self.runs.iter().map(value).collect();
        values.sort_by(f64::total_cmp);
        values
    }

    /// The median, and the lowest and highest behind it.
    fn spread(&self, value: impl Fn(&Measured) -> f64, digits: usize) -> String {
        let values = self.sorted(value);
        let (low, high) = (values.first().copied().unwrap_or(0.0), values.last().copied().unwrap_or(0.0));
        format!("{:.digits$} ({low:.digits$} to {high:.digits$})", median(values))
    }

    fn sum(&self, value: impl Fn(&Measured) -> u64) -> String {
        self.runs.iter().map(value).sum::<u64>().to_string()
    }
}

/// The median of ascending values; 0 of none.
fn median(values: Vec<f64>) -> f64 {
    match (values.get((values.len().max(1) - 1) / 2), values.get(values.len() / 2)) {
        (Some(low), Some(high)) => f64::midpoint(*low, *high),
        _ => 0.0,
    }
}

fn markdown<const COLUMNS: usize>(header: [&str; COLUMNS]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_header(header);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(delivered: u64, server_cpu_seconds: f64) -> Measured {
        Measured { seconds: 1.0, delivered, server_cpu_seconds, ..Measured::default() }
    }

    fn cell(router: Vec<Measured>) -> CellReport {
        let relay = RowReport { kind: Kind::Relay, runs: vec![run(2_000_000, 1.0)] };
        let rows = vec![relay, RowReport { kind: Kind::Router, runs: router }];
        CellReport { cell: Cell { payload_bytes: 128, publishers: 1, subscribers: 1 }, rate: None, rows }
    }

    #[test]
    fn medians_and_shares_are_of_the_relay() {
        assert_eq!((median(vec![1.0, 2.0, 9.0]), median(vec![1.0, 2.0]), median(vec![])), (2.0, 1.5, 0.0));
        let text = cell(vec![run(1_000_000, 1.0), run(1_400_000, 1.0), run(1_200_000, 1.2)]).text();
        assert!(text.contains("1200000 (1000000 to 1400000)"), "{text}");
        assert!(text.contains("| 60 %") || text.contains(" 60 % |"), "{text}");
        assert!(text.contains("200 %"), "1.0 s/M against 0.5 s/M: {text}");
    }

    #[test]
    fn one_lost_event_spoils_the_report() {
        let mut report = Report::new(Machine::here(), 1, 1, 1.0);
        report.cells.push(cell(vec![run(1, 1.0)]));
        assert!(report.is_exact());
        report.cells.push(cell(vec![Measured { lost: 1, ..run(1, 1.0) }]));
        assert!(!report.is_exact());
        assert!(report.cells[1].text().lines().any(|line| line.contains("router") && line.contains("| 1")), "lost");
    }
}
