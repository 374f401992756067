//! `myelin client ls`

use super::connect::block_on;
use super::failure::Result;
use super::listing::{items, table, text};
use super::resource::Show;
use clap::Subcommand;
use serde_json::Value;

/// Who is connected
#[derive(Debug, Subcommand)]
pub(super) enum Client {
    /// Show the sessions of a router, and whom it turned away: numbers only
    #[command(after_help = "Examples:\n  myelin client ls\n  myelin client ls --watch 1\n  \
        myelin client ls -o json | jq .refusals\n\n\
        A router tells no names of clients; `myelin audit ls --kind denial` shows who was refused what.")]
    Ls(Show),
}

impl Client {
    pub(super) fn run(self) -> Result<()> {
        match self {
            Self::Ls(show) => block_on(show.run("/v1/clients", clients)),
        }
    }
}

const FIGURES: [&str; 7] = ["worker", "attempts", "accepted", "retried", "ignored", "timed_out", "handshaking"];

fn clients(value: &Value) -> String {
    let (sessions, publishers) = (text(&value["sessions"]), text(&value["publishers"]));
    let rows = items(value, "workers").iter().map(|worker| {
        let mut row = FIGURES.map(|figure| text(&worker[figure])).to_vec();
        row.push(counted(&worker["refused"]));
        row
    });
    let mut header = FIGURES.map(|figure| if figure == "timed_out" { "timed out" } else { figure }).to_vec();
    let right = header.clone();
    header.push("turned away");
    let mut shown =
        format!("{sessions} sessions, {publishers} streams of publishers\n\n{}", table(&header, &right, rows));
    let refusals = counted(&value["refusals"]);
    let refusals = if refusals.is_empty() { "none".to_owned() } else { refusals };
    shown += &format!("\nrefusals since this router's start: {refusals}\n");
    shown
}

/// Counts by code.
fn counted(value: &Value) -> String {
    let counts = value.as_object().into_iter().flatten().map(|(code, count)| format!("{code} {count}"));
    counts.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn clients_are_numbers_for_each_worker_and_refusals_by_code() {
        let worker = json!({"worker": 1, "attempts": 9, "accepted": 7, "retried": 0, "ignored": 0, "timed_out": 1,
            "handshaking": 0, "refused": {"wrong-authority": 1}});
        let shown = clients(
            &json!({"sessions": 3, "publishers": 2, "workers": [worker], "refusals": {"denied": 4, "forbidden": 1}}),
        );
        for part in ["3 sessions, 2 streams", "TIMED OUT", "wrong-authority 1", "denied 4, forbidden 1"] {
            assert!(shown.contains(part), "{part} is missing in\n{shown}");
        }
        assert!(clients(&json!({"sessions": 0})).contains("start: none"));
    }
}
