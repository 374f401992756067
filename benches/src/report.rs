//! The report: all runs, and their medians as tables.

use crate::goals::Goal;
use crate::machine::Machine;
use crate::row::Row;
use crate::swaps::Swap;
use comfy_table::{CellAlignment, Table, presets};
use myelin_load::{Cell, Measured, Percentiles, median};
use serde::Serialize;
use std::fmt::Write as _;

/// What is compared.
type Value = fn(&Measured) -> f64;

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
    /// Servers that an event passes.
    pub(crate) hops: usize,
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
            let cpu_us = self.swaps.iter().map(|swap| swap.pause_cpu_us).max().unwrap_or(0);
            let _ = write!(line, ", {} swaps, longest pause {pause_us} us, {cpu_us} us CPU at most", self.swaps.len());
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

    /// Whether no run of ours lost, doubled or refused an event.
    pub(crate) fn is_exact(&self) -> bool {
        self.cells.iter().flat_map(|cell| &cell.rows).all(|row| row.row.is_peer() || row.is_exact())
    }

    /// Which peers lost, doubled or refused events, and where: their figures are of what arrived.
    pub(crate) fn losses_of_peers(&self) -> Vec<String> {
        let told = |cell: &CellReport, row: &RowReport| {
            let (label, title) = (row.row.label(), cell.title());
            let [lost, doubled] = [row.count(|run| run.lost + run.refused), row.count(|run| run.doubled)];
            format!("{title}: {label} lost {lost} events and doubled {doubled}")
        };
        let cells = self.cells.iter();
        cells
            .flat_map(|cell| {
                cell.rows.iter().filter(|row| row.row.is_peer() && !row.is_exact()).map(|row| told(cell, row))
            })
            .collect()
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

    /// What follows the tables of the cells: all of them side by side, and the goals.
    pub(crate) fn end(&self, headings: bool) -> String {
        let mut text = String::new();
        for (title, table) in self.overviews() {
            let _ = write!(text, "\n{}\n", titled(headings, &title, &table));
        }
        if !self.goals.is_empty() {
            let _ = write!(text, "\n{}\n", titled(headings, "Goals", &self.goals_table()));
        }
        text
    }

    /// Two tables for full load and one for the open loop, each with a column for each cell; where there are several.
    pub(crate) fn overviews(&self) -> Vec<(String, Vec<Vec<String>>)> {
        let beside = |value: Value, digits: usize| {
            move |row: &RowReport, relay: Option<&RowReport>| {
                let figure = row.median(value);
                let share = relay.map(|relay| format!(" ({:.0} %)", 100.0 * figure / relay.median(value)));
                format!("{figure:.digits$}{}", share.unwrap_or_default())
            }
        };
        let (full, cpu): (Value, Value) = (Measured::delivered_per_second, Measured::server_cpu_seconds_per_million);
        let is_full = |cell: &&CellReport| cell.rate.is_none();
        let open = |row: &RowReport, _: Option<&RowReport>| {
            let at = |value: fn(&Percentiles) -> f64| row.median(|run| value(&run.percentiles()));
            format!("{:.0} / {:.0}", at(|it| it.p50_us), at(|it| it.p99_us))
        };
        let tables = [
            ("delivered/s (of the relay)", self.overview(is_full, beside(full, 0))),
            ("server CPU s/million (of the relay)", self.overview(is_full, beside(cpu, 3))),
            ("p50 / p99 us, open loop", self.overview(|cell| cell.rate.is_some(), open)),
        ];
        tables.into_iter().filter_map(|(title, table)| Some((format!("All cells: {title}"), table?))).collect()
    }

    fn overview(
        &self,
        is_shown: impl Fn(&&CellReport) -> bool,
        figure: impl Fn(&RowReport, Option<&RowReport>) -> String,
    ) -> Option<Vec<Vec<String>>> {
        let cells: Vec<&CellReport> = self.cells.iter().filter(is_shown).collect();
        let first = cells.first().filter(|_| cells.len() > 1)?;
        let mut table = vec![vec!["row".to_owned()]];
        table[0].extend(cells.iter().map(|cell| cell.title().replace(", full load", "").replace(", open loop", "")));
        for RowReport { row, .. } in &first.rows {
            let figures = cells.iter().map(|cell| cell.row(*row).map(|found| figure(found, cell.row(Row::Relay))));
            let label = std::iter::once(row.label().to_owned());
            table.push(label.chain(figures.map(Option::unwrap_or_default)).collect());
        }
        Some(table)
    }
}

/// A table with its title, in Markdown; with `headings`, as a section of a page.
fn titled(headings: bool, title: &str, table: &[Vec<String>]) -> String {
    format!("{}{title}\n\n{}", if headings { "### " } else { "" }, markdown(table))
}

impl CellReport {
    /// What was measured, in a few words.
    pub(crate) fn title(&self) -> String {
        let Cell { payload_bytes, publishers, subscribers } = self.cell;
        let each = if publishers > 1 { " each" } else { "" };
        let load = self.rate.map_or_else(|| "full load".to_owned(), |rate| format!("{rate} events/s{each}, open loop"));
        let hops = if self.hops > 1 { "two hops, " } else { "" };
        format!("{hops}{payload_bytes} B, {publishers} -> {subscribers}, {load}")
    }

    /// Its table with its title.
    pub(crate) fn text(&self, headings: bool) -> String {
        titled(headings, &self.title(), &self.table())
    }

    /// Events a second of each publisher that are half of what the slowest row did, in two digits.
    #[expect(clippy::cast_possible_truncation, reason = "a rate is at least one, and far below 2^53")]
    pub(crate) fn half_load(&self) -> u64 {
        let rates = self.rows.iter().map(|row| row.median(Measured::delivered_per_second));
        let slowest = rates.fold(f64::INFINITY, f64::min);
        // No row, no rate; and a rate is at least one event a second.
        let half =
            if slowest.is_finite() { slowest / (2 * self.cell.publishers * self.cell.subscribers) as f64 } else { 0.0 };
        let digits = 10_f64.powf((half.max(1.0).log10().floor() - 1.0).max(0.0));
        ((half / digits).floor() * digits).max(1.0) as u64
    }

    pub(crate) fn row(&self, wanted: Row) -> Option<&RowReport> {
        self.rows.iter().find(|row| row.row == wanted && !row.runs.is_empty())
    }

    /// The medians, with their head.
    pub(crate) fn table(&self) -> Vec<Vec<String>> {
        let mut table = if self.rate.is_some() { self.latencies() } else { self.throughput() };
        if self.rows.iter().flat_map(|row| &row.runs).any(|run| !run.swaps.is_empty()) {
            table[0].extend(["swaps", "longest pause us", "its CPU us"].map(str::to_owned));
            for (line, row) in table.iter_mut().skip(1).zip(&self.rows) {
                let text = |longest: Vec<f64>| if longest.is_empty() { String::new() } else { spread(longest, 0) };
                line.extend([
                    row.runs.iter().map(|run| run.swaps.len()).sum::<usize>().to_string(),
                    text(row.longest(|swap| swap.pause_us)),
                    text(row.longest(|swap| swap.pause_cpu_us)),
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
                row.flaw(|run| run.lost + run.refused),
                row.flaw(|run| run.doubled),
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
                row.flaw(|run| run.lost + run.refused),
                row.flaw(|run| run.doubled),
            ]);
        }
        table
    }
}

/// The median, and the lowest and highest behind it.
fn spread(values: Vec<f64>, digits: usize) -> String {
    let low = values.iter().copied().reduce(f64::min).unwrap_or(0.0);
    let high = values.iter().copied().reduce(f64::max).unwrap_or(0.0);
    format!("{:.digits$} ({low:.digits$} to {high:.digits$})", median(values))
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
        spread(self.runs.iter().map(|run| value(&run.measured)).collect(), digits)
    }

    /// The longest of `value` of the swaps of each run that has any.
    fn longest(&self, value: impl Fn(&Swap) -> u64) -> Vec<f64> {
        self.runs.iter().filter_map(|run| run.swaps.iter().map(&value).max()).map(|us| us as f64).collect()
    }

    /// The longest pause of a worker for a swap in a run, in microseconds: the median of the runs.
    pub(crate) fn pause_us(&self) -> Option<f64> {
        let longest = self.longest(|swap| swap.pause_us);
        (!longest.is_empty()).then(|| median(longest))
    }

    /// Whether no run lost, doubled or refused an event.
    fn is_exact(&self) -> bool {
        self.runs.iter().all(|run| run.measured.is_exact())
    }

    fn count(&self, value: impl Fn(&Measured) -> u64) -> u64 {
        self.runs.iter().map(|run| value(&run.measured)).sum()
    }

    /// Events that should not be; those of a peer are told apart.
    fn flaw(&self, value: impl Fn(&Measured) -> u64) -> String {
        match self.count(value) {
            count if count > 0 && self.row.is_peer() => format!("{count} by the peer"),
            count => count.to_string(),
        }
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
        CellReport { cell: Cell { payload_bytes: 128, publishers: 1, subscribers: 1 }, rate: None, hops: 1, rows }
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
        let text = report.cells[1].text(true);
        assert!(text.starts_with("### 128 B, 1 -> 1, full load\n\n| row"), "{text}");
    }

    #[test]
    fn half_load_is_half_of_the_slowest_row_for_each_publisher_and_subscriber() {
        let mut found = cell(vec![run(1_000_000, 1.0), run(1_400_000, 1.0), run(1_277_000, 1.2)]);
        assert_eq!(found.half_load(), 630_000);
        found.cell = Cell { payload_bytes: 128, publishers: 4, subscribers: 4 };
        assert_eq!(found.half_load(), 39_000);
        found.rows[1].runs = vec![run(3, 1.0)];
        assert_eq!(found.half_load(), 1);
    }

    #[test]
    fn an_overview_has_a_column_for_each_cell_and_a_table_for_each_kind_of_load() {
        let mut report = Report::new(Machine::here(), 1, 1, 1.0);
        report.cells.push(cell(vec![run(1_000_000, 1.0)]));
        assert!(report.overviews().is_empty(), "one cell stands for itself");
        let mut other = cell(vec![run(500_000, 1.0)]);
        other.cell.subscribers = 8;
        let mut open = cell(vec![run(1, 1.0)]);
        open.rate = Some(100);
        report.cells.extend([other, open]);
        let overviews = report.overviews();
        assert_eq!(overviews.len(), 2, "{overviews:?}");
        assert_eq!(overviews[1].1[2], ["router, no filter", "1.000 (200 %)", "2.000 (400 %)"]);
        let (title, table) = &overviews[0];
        assert!(title.contains("delivered/s"), "{title}");
        assert_eq!(table[0], ["row", "128 B, 1 -> 1", "128 B, 1 -> 8"]);
        assert_eq!(table[2], ["router, no filter", "1000000 (50 %)", "500000 (25 %)"]);
        assert!(report.end(true).starts_with("\n### All cells: delivered/s"), "{}", report.end(true));
    }

    #[test]
    fn what_a_peer_loses_is_told_and_is_not_ours() {
        let mut lossy = run(1, 1.0);
        (lossy.measured.lost, lossy.measured.doubled) = (7, 2);
        let mut report = Report::new(Machine::here(), 1, 1, 1.0);
        let mut peers = cell(vec![run(1, 1.0)]);
        peers.rows.push(RowReport { row: Row::ZenohTls, runs: vec![run(1, 1.0), lossy] });
        report.cells.push(peers);
        assert!(report.is_exact(), "nothing of ours is lost");
        assert_eq!(report.losses_of_peers(), ["128 B, 1 -> 1, full load: Zenoh over TLS lost 7 events and doubled 2"]);
        assert_eq!(report.cells[0].table()[3][8..10], ["7 by the peer", "2 by the peer"]);
        assert_eq!(report.cells[0].table()[2][8..10], ["0", "0"]);
    }

    #[test]
    fn swaps_have_columns_where_there_are_any() {
        let mut swapped = run(1, 1.0);
        swapped.swaps.extend([(30, 25), (70, 20)].map(|(pause_us, pause_cpu_us)| Swap {
            at_unix_ms: 0,
            took_ms: 1,
            pause_us,
            pause_cpu_us,
        }));
        let table = cell(vec![swapped]).table();
        assert_eq!(
            (table[0].len(), &table[1][10..], &table[2][10..]),
            (
                13,
                &["0".into(), String::new(), String::new()][..],
                &["2".into(), "70 (70 to 70)".into(), "25 (25 to 25)".into()][..]
            )
        );
    }
}
