//! The figures of a run: printed and written down one by one, so that a run that is interrupted has not been for nothing.

use anyhow::{Context, Result};
use serde::Serialize;
use std::io::Write as _;
use std::path::PathBuf;

/// Columns of the printed table, in signs.
const WIDTHS: [usize; 3] = [50, 14, 14];

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
    pub(crate) fn at_most(what: impl Into<String>, figure: f64, bound: f64, unit: &'static str) -> Self {
        Self { what: what.into(), figure, bound, unit, is_ceiling: true }
    }

    pub(crate) fn at_least(what: impl Into<String>, figure: f64, bound: f64, unit: &'static str) -> Self {
        Self { what: what.into(), figure, bound, unit, is_ceiling: false }
    }

    fn holds(&self) -> bool {
        if self.is_ceiling { self.figure <= self.bound } else { self.figure >= self.bound }
    }

    /// Its line in the table.
    fn line(&self) -> String {
        let sign = if self.is_ceiling { "<=" } else { ">=" };
        let verdict = if self.holds() { "holds" } else { "BROKEN" };
        let (figure, bound) =
            (format!("{:.2} {}", self.figure, self.unit), format!("{sign} {} {}", self.bound, self.unit));
        line([&self.what, &figure, &bound], verdict)
    }
}

fn line([what, figure, bound]: [&str; 3], verdict: &str) -> String {
    let [first, second, third] = WIDTHS;
    format!("| {what:<first$} | {figure:>second$} | {bound:>third$} | {verdict:<7} |")
}

/// Every figure so far.
#[derive(Debug)]
pub(crate) struct Sheet {
    rows: Vec<Row>,
    json: Option<PathBuf>,
}

impl Sheet {
    /// An empty one; its rows go to `json` as well.
    pub(crate) fn new(json: Option<PathBuf>) -> Result<Self> {
        let sheet = Self { rows: Vec::new(), json };
        // Now, not after minutes: a place that cannot be written to is told before anything is measured.
        sheet.save()?;
        Ok(sheet)
    }

    /// Takes a figure down: on stdout, and in the file.
    pub(crate) fn add(&mut self, row: Row) -> Result<()> {
        let mut out = std::io::stdout().lock();
        if self.rows.is_empty() {
            let rule = WIDTHS.map(|width| "-".repeat(width));
            writeln!(out, "{}", line(["what", "figure", "bound"], ""))?;
            writeln!(out, "{}", line(rule.each_ref().map(String::as_str), "-------"))?;
        }
        writeln!(out, "{}", row.line())?;
        out.flush()?;
        self.rows.push(row);
        self.save()
    }

    /// The figures that are out of their bounds.
    pub(crate) fn broken(&self) -> Vec<&str> {
        self.rows.iter().filter(|row| !row.holds()).map(|row| row.what.as_str()).collect()
    }

    /// Where the rows are.
    pub(crate) fn file(&self) -> String {
        self.json.as_ref().map_or_else(|| "nowhere".to_owned(), |path| path.display().to_string())
    }

    fn save(&self) -> Result<()> {
        let Some(path) = &self.json else { return Ok(()) };
        let write = || {
            if let Some(folder) = path.parent() {
                std::fs::create_dir_all(folder)?;
            }
            std::fs::write(path, serde_json::to_vec_pretty(&self.rows)?)
        };
        write().with_context(|| format!("cannot write {}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_row_is_in_the_file_as_soon_as_it_is_there() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("bench/attacks.json");
        let mut sheet = Sheet::new(Some(path.clone())).expect("it can be written");
        let rows =
            || -> serde_json::Value { serde_json::from_slice(&std::fs::read(&path).expect("a file")).expect("JSON") };
        assert_eq!(rows().as_array().map(Vec::len), Some(0));
        sheet.add(Row::at_most("a: time", 1.5, 2.0, "x")).expect("written");
        assert_eq!((&rows()[0]["what"], &rows()[0]["figure"]), (&"a: time".into(), &1.5.into()));
        sheet.add(Row::at_most("b: time", 2.5, 2.0, "x")).expect("written");
        sheet.add(Row::at_least("c: rate", 0.94, 0.95, "x")).expect("written");
        sheet.add(Row::at_least("d: rate", 0.95, 0.95, "x")).expect("written");
        assert_eq!((rows().as_array().map(Vec::len), sheet.broken()), (Some(4), vec!["b: time", "c: rate"]));
    }

    #[test]
    fn a_row_says_its_bound_and_whether_it_holds() {
        let line = Row::at_most("a: time", 2.125, 2.0, "s").line();
        assert!(line.contains("2.12 s |") && line.contains("<= 2 s |") && line.contains("BROKEN"), "{line}");
        assert!(Row::at_least("a: rate", 2.0, 2.0, "x").line().contains(">= 2 x | holds"));
    }
}
