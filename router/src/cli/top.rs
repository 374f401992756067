//! `myelin top`: what the router does right now, again and again.

mod readings;

use super::admin::{Admin, Api};
use super::connect::block_on;
use super::failure::Result;
use super::listing::{Shape, items, period, shown, table, text};
use super::signals::Signals;
use super::values::print;
use clap::Args;
use readings::{Reading, summary};
use serde_json::Value;
use std::fmt::Write as _;
use std::io::{IsTerminal, Write};
use std::time::Duration;

const AFTER_HELP: &str = "\
Examples:
  myelin top                      until Ctrl-C
  myelin top --once -o json       one summary for scripts: rates over one interval
  myelin top -o json | jq .queued one JSON object each interval";

/// The other screen, without a cursor; what was there comes back at the end.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";
/// To the upper left corner; what is left of a longer line or page before is cleared as it is passed.
const HOME: &str = "\x1b[H";
const CLEAR_LINE: &str = "\x1b[K\r\n";
const CLEAR_BELOW: &str = "\x1b[J";

/// Show rates, filters and queues of a router, live
#[derive(Args, Debug)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Top {
    /// Seconds between two looks
    #[arg(short, long, value_name = "SECONDS", default_value = "1", value_parser = period)]
    interval: Duration,
    /// One summary, then end
    #[arg(long)]
    once: bool,
    #[command(flatten)]
    shape: Shape,
    #[command(flatten)]
    admin: Admin,
}

impl Top {
    pub(super) fn run(self) -> Result<()> {
        block_on(self.show())
    }

    async fn show(self) -> Result<()> {
        let api = self.admin.api()?;
        let mut signals = Signals::catch()?;
        let mut before = read(&api).await?;
        let is_screen = !self.once && !self.shape.is_json() && std::io::stdout().is_terminal();
        let _screen = is_screen.then(Screen::enter);
        loop {
            tokio::select! {
                () = tokio::time::sleep(self.interval) => {}
                () = signals.next() => return Ok(()),
            }
            let now = tokio::select! {
                now = read(&api) => now?,
                () = signals.next() => return Ok(()),
            };
            let summary = summary(&before, &now);
            let text = match self.shape.is_json() {
                true => format!("{summary}\n"),
                false if is_screen => page(&told(&summary)),
                false => format!("{}\n", told(&summary)),
            };
            let mut out = std::io::stdout();
            let is_read = out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_ok();
            if self.once || !is_read {
                return Ok(());
            }
            before = now;
        }
    }
}

async fn read(api: &Api) -> Result<Reading> {
    Ok(Reading::parse(&api.text("/metrics").await?))
}

/// The other screen of the terminal, until it is dropped: also when something fails on the way.
struct Screen;

impl Screen {
    fn enter() -> Self {
        print(ENTER);
        Self
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        print(LEAVE);
    }
}

/// A text over what is there, without flicker.
fn page(text: &str) -> String {
    let lines: String = text.lines().map(|line| format!("{line}{CLEAR_LINE}")).collect();
    format!("{HOME}{lines}{CLEAR_BELOW}")
}

/// A summary for people.
fn told(summary: &Value) -> String {
    let mut told = String::new();
    let router = &summary["router"];
    let [site, name, version] = ["site", "name", "version"].map(|field| shown(&text(&router[field])));
    let ready = if router["ready"] == true { "ready" } else { "NOT READY" };
    let (generation, uptime) = (whole(&router["generation"]), whole(&router["uptime_seconds"]));
    let _ = writeln!(told, "{site}/{name}  myelin {version}  {ready}  generation {generation}  up {uptime} s");
    let [sessions, publishers, judging, queued] =
        ["sessions", "publishers", "judging", "queued"].map(|field| whole(&summary[field]));
    let _ = writeln!(told, "sessions {sessions}  publishers {publishers}  judging {judging}  queued {queued}");
    if summary["ledger_off_by"].as_object().is_some_and(|off| off.values().any(|off| off.as_f64() != Some(0.0))) {
        let _ = writeln!(told, "THE LEDGER IS OFF BY {}", summary["ledger_off_by"]);
    }
    told.push('\n');
    for (title, field) in [("events/s", "events_per_second"), ("copies/s", "copies_per_second")] {
        let _ = writeln!(told, "{title:<10}{}", rates(&summary[field]));
    }
    let refusals = rates(&summary["refusals_per_second"]);
    let _ = writeln!(told, "{:<10}{refusals}", "refused/s");
    told.push('\n');
    let rows = items(summary, "bindings").iter().map(|binding| {
        let verdicts = &binding["verdicts_per_second"];
        let mut state = Vec::new();
        if binding["apart"] == true {
            state.push("apart");
        }
        if binding["quarantined"] == true {
            state.push("QUARANTINED");
        }
        vec![
            text(&binding["binding"]),
            text(&binding["module"]),
            whole(&binding["events_per_second"]),
            whole(&verdicts["deny"]),
            whole(&verdicts["dead-letter"]),
            whole(&verdicts["faulted"]),
            whole(&binding["faults"]),
            binding["cpu_ns_per_event"].as_f64().map_or_else(|| "-".to_owned(), |ns| format!("{ns:.0}")),
            state.join(" "),
        ]
    });
    let header = ["binding", "module", "events/s", "deny/s", "dead/s", "faulted/s", "faults", "cpu ns/event", ""];
    told.push_str(&table(&header, &header[2..8], rows));
    told
}

/// `accepted 120, matched 80`; what is zero is left out, `none` where all are.
fn rates(value: &Value) -> String {
    let rates = value.as_object().into_iter().flatten();
    let rates = rates.filter(|(_, rate)| rate.as_f64().is_some_and(|rate| rate > 0.0));
    let rates: Vec<_> = rates.map(|(name, rate)| format!("{name} {}", whole(rate))).collect();
    if rates.is_empty() { "none".to_owned() } else { rates.join(", ") }
}

/// A number without decimals, unless it is small.
fn whole(value: &Value) -> String {
    match value.as_f64() {
        Some(value) if value > 0.0 && value < 10.0 && value.fract() != 0.0 => format!("{value:.1}"),
        Some(value) => format!("{value:.0}"),
        None => "-".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_summary_is_a_page_for_people() {
        let told = told(&json!({
            "router": {"site": "hamburg", "name": "r1\u{1b}", "version": "1.0.0", "ready": true, "generation": 7.0,
                "uptime_seconds": 12.5},
            "sessions": 2.0, "publishers": 1.0, "judging": 0.0, "queued": 33.0,
            "events_per_second": {"accepted": 120.0, "dropped": 0.0}, "copies_per_second": {"delivered": 1.25},
            "refusals_per_second": {}, "ledger_off_by": {"events": 0.0, "copies": -1.0},
            "bindings": [{"binding": "b", "module": "m@1.0.0", "events_per_second": 120.0, "faults": 3.0,
                "verdicts_per_second": {"deny": 5.0, "faulted": 0.5}, "cpu_ns_per_event": 88.4, "quarantined": true}],
        }));
        for part in ["hamburg/r1?  myelin 1.0.0  ready  generation 7", "queued 33", "accepted 120\n", "delivered 1.2"] {
            assert!(told.contains(part), "{part}:\n{told}");
        }
        assert!(told.contains("THE LEDGER IS OFF BY") && told.contains("QUARANTINED") && !told.contains("dropped"));
        let row = told.lines().last().unwrap_or_default();
        assert_eq!(
            row.split_whitespace().collect::<Vec<_>>(),
            ["b", "m@1.0.0", "120", "5", "-", "0.5", "3", "88", "QUARANTINED"]
        );
    }

    #[test]
    fn a_page_clears_what_it_does_not_cover() {
        assert_eq!(page("a\nb\n"), "\x1b[Ha\x1b[K\r\nb\x1b[K\r\n\x1b[J");
    }
}
