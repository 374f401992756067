//! Lists: as a table for people or JSON for programs, once or again and again.

use super::failure::Result;
use super::signals::Signals;
use super::values::print;
use clap::{ArgMatches, Args, ValueEnum};
use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, ContentArrangement, Table};
use serde_json::Value;
use std::io::{IsTerminal, Write};
use std::time::{Duration, UNIX_EPOCH};

/// Clears a terminal and goes to its upper left corner.
const CLEAR: &str = "\x1b[2J\x1b[H";

/// How a list is shown.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Output")]
pub(super) struct Listing {
    #[command(flatten)]
    shape: Shape,
    /// Show it again every so many seconds
    #[arg(short, long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "1", value_parser = period)]
    watch: Option<Duration>,
}

/// For whom something is told: the same two flags wherever there is something to tell.
#[derive(Args, Clone, Copy, Debug, Default)]
#[command(next_help_heading = "Output")]
pub(super) struct Shape {
    /// For people or for programs
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
    /// The same as `--output json`
    #[arg(long, conflicts_with = "output")]
    json: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Output {
    #[default]
    Table,
    Json,
}

/// Whether a command line asks for JSON, whatever command it is of: its errors are JSON, then.
pub(super) fn is_for_programs(told: &ArgMatches) -> bool {
    if let Some((_, below)) = told.subcommand() {
        return is_for_programs(below);
    }
    let is_output = |output: &Output| *output == Output::Json;
    // One that has no such flag, or has it for something else, does not ask.
    told.try_get_one::<bool>("json").is_ok_and(|json| json == Some(&true))
        || told.try_get_one::<Output>("output").is_ok_and(|output| output.is_some_and(is_output))
}

impl Shape {
    /// Whether a program reads it.
    pub(super) fn is_json(self) -> bool {
        self.json || self.output == Output::Json
    }

    /// Prints `value`: as `show` makes text of it, or as it is.
    pub(super) fn tell(self, value: &Value, show: impl FnOnce(&Value) -> String) {
        print(if self.is_json() { format!("{value}\n") } else { show(value) });
    }
}

impl Listing {
    /// Shows what `fetch` gives, as `show` makes text of it, until it need not be shown again.
    pub(super) async fn show<F>(&self, mut fetch: impl FnMut() -> F, show: impl Fn(&Value) -> String) -> Result<()>
    where
        F: Future<Output = Result<Value>>,
    {
        let mut signals = Signals::catch()?;
        loop {
            let value = tokio::select! {
                value = fetch() => value?,
                () = signals.next() => return Ok(()),
            };
            if !self.print(&value, &show) {
                return Ok(());
            }
            let Some(watch) = self.watch else { return Ok(()) };
            tokio::select! {
                () = tokio::time::sleep(watch) => {}
                () = signals.next() => return Ok(()),
            }
        }
    }

    /// Whether somebody still reads.
    fn print(&self, value: &Value, show: &impl Fn(&Value) -> String) -> bool {
        let clear = if self.watch.is_some() && std::io::stdout().is_terminal() { CLEAR } else { "" };
        let text = match self.shape.is_json() {
            true => format!("{value}\n"),
            false => format!("{clear}{}", show(value)),
        };
        let mut out = std::io::stdout();
        out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_ok()
    }
}

/// Seconds between two looks.
pub(super) fn period(text: &str) -> Result<Duration, String> {
    let period = super::values::duration(text)?;
    if period < Duration::from_millis(100) { Err("give at least 0.1 seconds".into()) } else { Ok(period) }
}

/// A table without lines; columns named in `right` are aligned there.
pub(super) fn table(header: &[&str], right: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header.iter().map(|name| name.to_uppercase()));
    let mut count = 0;
    for row in rows {
        table.add_row(row.iter().map(|text| shown(text)));
        count += 1;
    }
    if count == 0 {
        return "none\n".to_owned();
    }
    for (column, name) in table.column_iter_mut().zip(header) {
        column.set_padding((0, 2));
        if right.contains(name) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// Text of a stranger, fit for a terminal: nothing in it steers the terminal, is invisible, or turns the order of what is
/// beside it (Unicode TR 36, "Bidirectional Text Spoofing").
pub(super) fn shown(text: &str) -> String {
    let is_unfit = |c: char| {
        let is_hidden = matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}');
        (c.is_control() && c != '\n') || is_hidden || matches!(c, '\u{61c}' | '\u{feff}')
    };
    text.chars().map(|c| if is_unfit(c) { '?' } else { c }).collect()
}

/// The text of a value: texts without quotes, nothing for `null`.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(values) => values.iter().map(text).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

/// The items of a list of the API.
pub(super) fn items<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value[name].as_array().map(Vec::as_slice).unwrap_or_default()
}

/// Unix milliseconds as a time of day and date.
pub(super) fn time(unix_ms: &Value) -> String {
    match unix_ms.as_u64() {
        // The calendar of the formatter ends with the year 9999.
        Some(unix_ms) if unix_ms < 253_402_300_800_000 => {
            humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_millis(unix_ms)).to_string()
        }
        _ => String::new(),
    }
}

/// Bytes for people.
pub(super) fn size(bytes: &Value) -> String {
    match bytes.as_u64() {
        Some(bytes) if bytes < 10 * 1024 => format!("{bytes} B"),
        Some(bytes) if bytes < 10 * 1024 * 1024 => format!("{} KiB", bytes / 1024),
        Some(bytes) => format!("{} MiB", bytes / 1024 / 1024),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn tables_align_and_say_when_there_is_nothing() {
        let rows = vec![vec!["a".into(), "1".into()], vec!["bb\u{1b}".into(), "100".into()]];
        assert_eq!(table(&["name", "count"], &["count"], rows), "NAME  COUNT\na         1\nbb?     100\n");
        assert_eq!(table(&["name"], &[], []), "none\n");
    }

    #[test]
    fn what_strangers_wrote_looks_like_what_it_is() {
        assert_eq!(shown("pay\u{202e}fdp\u{2066}.exe\u{200b}\u{feff}\r"), "pay?fdp?.exe???");
        assert_eq!(shown("Größe – \u{5d0}\u{627}\n"), "Größe – \u{5d0}\u{627}\n");
    }

    #[test]
    fn values_are_shown_for_people() {
        assert_eq!(time(&json!(0)), "1970-01-01T00:00:00Z");
        assert_eq!(time(&json!(u64::MAX)), "");
        assert_eq!([size(&json!(512)), size(&json!(20_480)), size(&json!(null))], ["512 B", "20 KiB", ""]);
        assert_eq!(text(&json!(["a", 1, null])), "a, 1, ");
    }
}
