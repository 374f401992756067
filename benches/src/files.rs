//! The report's files: JSON with all runs, one HTML page, and an `.hgrm` for each row with latencies.

use crate::report::{CellReport, Report, RowReport};
use anyhow::Context;
use myelin_load::page::{Page, Section, Throughput};
use myelin_load::{Distribution, hgrm};
use std::path::Path;

/// Writes them into `folder`; the JSON to `json` where that is given.
pub(crate) fn write(report: &Report, folder: &Path, json: Option<&Path>) -> anyhow::Result<()> {
    let json = json.map_or_else(|| folder.join("report.json"), Path::to_path_buf);
    write_file(&json, &serde_json::to_vec(report)?)?;
    write_file(&folder.join("report.html"), page(report).html()?.as_bytes())?;
    for cell in &report.cells {
        for row in cell.rows.iter().filter(|row| cell.rate.is_some() && !row.runs.is_empty()) {
            let file = format!("{}-{}.hgrm", cell.cell.to_string().replace(':', "b-"), row.row.name());
            write_file(&folder.join(file), hgrm::text(&latencies(row)).as_bytes())?;
        }
    }
    Ok(())
}

fn write_file(file: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(file, bytes).with_context(|| format!("cannot write {}", file.display()))
}

/// All runs of a row together.
fn latencies(row: &RowReport) -> hdrhistogram::Histogram<u64> {
    Distribution::merge(row.runs.iter().filter_map(|run| run.measured.latency.as_ref()))
}

fn page(report: &Report) -> Page {
    let mut page = Page { title: "Myelin bench".into(), intro: report.facts(), sections: Vec::new() };
    if !report.goals.is_empty() {
        page.sections.push(Section { title: "Goals".into(), table: report.goals_table(), ..Section::default() });
    }
    let overviews = report.overviews().into_iter();
    page.sections.extend(overviews.map(|(title, table)| Section { title, table, ..Section::default() }));
    page.sections.extend(report.cells.iter().map(section));
    page
}

fn section(cell: &CellReport) -> Section {
    let rows = || cell.rows.iter().filter(|row| !row.runs.is_empty());
    let (mut by_percentile, mut over_time) = (Vec::new(), Vec::new());
    match cell.rate {
        Some(_) => by_percentile.extend(rows().map(|row| (row.row.label().to_owned(), latencies(row)))),
        None => over_time.extend(rows().filter_map(throughput)),
    }
    Section { title: cell.title(), table: cell.table(), latencies: by_percentile, throughput: over_time }
}

/// The run in the middle of a row: its curve is one that was, not an average of several.
fn throughput(row: &RowReport) -> Option<Throughput> {
    let mut runs: Vec<_> = row.runs.iter().collect();
    runs.sort_by_key(|run| run.measured.delivered);
    let run = runs.get(runs.len() / 2)?;
    let begin_ms = run.measured.begin_unix_ms;
    let marks = run.swaps.iter().map(|swap| (swap.at_unix_ms as f64 - begin_ms as f64) / 1e3);
    Some(Throughput {
        label: row.row.label().to_owned(),
        delivered: run.measured.timeline.iter().map(|(ms, count)| (*ms as f64 / 1e3, *count as f64)).collect(),
        marks: marks.collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Machine;
    use crate::report::RunReport;
    use crate::row::Row;
    use crate::swaps::Swap;
    use myelin_load::{Cell, Measured};

    #[test]
    fn every_file_of_a_report_is_there() {
        let folder = tempfile::tempdir().expect("a folder");
        let measured = Measured {
            seconds: 1.0,
            begin_unix_ms: 1_000,
            delivered: 50,
            latency: Some(Distribution(vec![(200_000, 40), (900_000, 10)])),
            timeline: vec![(500, 20), (1_000, 50)],
            ..Measured::default()
        };
        let swaps = vec![Swap { at_unix_ms: 1_250, took_ms: 3, pause_us: 40, pause_cpu_us: 30 }];
        let cell = Cell { payload_bytes: 128, publishers: 1, subscribers: 1 };
        let mut report = Report::new(Machine::here(), 1, 1, 1.0);
        for rate in [None, Some(10_000)] {
            let runs = vec![RunReport { measured: measured.clone(), swaps: swaps.clone() }];
            report.cells.push(CellReport {
                cell,
                rate,
                hops: 1,
                rows: vec![RowReport { row: Row::FilterSwaps, runs }],
            });
        }
        write(&report, folder.path(), None).expect("it can be written");
        let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).expect(name);
        let html = read("report.html");
        assert_eq!(html.matches("<svg").count(), 2, "throughput, and latencies");
        // Every element that is opened is closed: a browser shows what stands there.
        for name in ["html", "head", "body", "h2", "table", "tr", "th", "td", "figure", "svg", "figcaption"] {
            let opened = html.matches(&format!("<{name}>")).count() + html.matches(&format!("<{name} ")).count();
            assert!(opened > 0 && opened == html.matches(&format!("</{name}>")).count(), "{name}: {opened}");
        }
        assert!(read("128b-1-1-filter-swaps.hgrm").contains("Total count    =           50"));
        let json: serde_json::Value = serde_json::from_str(&read("report.json")).expect("JSON");
        assert_eq!(json["cells"][0]["rows"][0]["runs"][0]["swaps"][0]["pause_us"], 40);
    }
}
