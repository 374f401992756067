//! `myelin filter logs`: what filters logged, once or for as long as somebody reads.

use crate::cli::admin::{Admin, Api};
use crate::cli::connect::block_on;
use crate::cli::failure::{Exit, Failure, Result};
use crate::cli::listing::{Output, items, shown, text, time};
use crate::cli::signals::Signals;
use clap::Args;
use serde_json::{Value, json};
use std::io::Write;
use std::time::{Duration, Instant};

const AFTER_HELP: &str = "\
Examples:
  myelin filter logs check-orders -f        a binding, whichever version it runs, until Ctrl-C
  myelin filter logs redact@0.1.0           one version of a module
  myelin filter logs redact -o json         all versions, one JSON object a line";

/// How long the router may wait for lines before it answers that there are none.
const WAIT_MS: u64 = 10_000;
/// The shortest time between two questions: a router that cannot wait answers at once.
const PAUSE: Duration = Duration::from_millis(250);

/// Show what filters logged
#[derive(Args, Debug)]
#[command(after_help = AFTER_HELP)]
pub(in crate::cli) struct Logs {
    /// A binding, or a module as NAME or NAME@VERSION
    #[arg(value_name = "BINDING|MODULE")]
    of: String,
    /// Go on with what is logged from now on, until Ctrl-C
    #[arg(short, long)]
    follow: bool,
    /// For people, or one JSON object a line
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
    #[command(flatten)]
    admin: Admin,
}

impl Logs {
    pub(super) fn run(self) -> Result<()> {
        block_on(self.show())
    }

    async fn show(self) -> Result<()> {
        let api = self.admin.api()?;
        let query = query(&api, &self.of).await?;
        // Caught from now on: Ctrl-C ends a follower, and that is no failure.
        let mut signals = Signals::catch()?;
        let (mut after, mut wait_ms) = (0, 0);
        loop {
            let asked = Instant::now();
            let path = format!("/v1/logs?{query}&after={after}&wait_ms={wait_ms}");
            let logs = tokio::select! {
                logs = api.get(&path) => logs?,
                () = signals.next() => return Ok(()),
            };
            after = logs["next"].as_u64().unwrap_or(after);
            let is_read = self.print(&logs);
            if !self.follow && items(&logs, "lines").is_empty() {
                eprintln!("nothing was logged");
            }
            if !self.follow || !is_read {
                return Ok(());
            }
            wait_ms = WAIT_MS;
            tokio::select! {
                () = tokio::time::sleep(PAUSE.saturating_sub(asked.elapsed())) => {}
                () = signals.next() => return Ok(()),
            }
        }
    }

    /// Whether somebody still reads.
    fn print(&self, logs: &Value) -> bool {
        let lines = items(logs, "lines");
        let mut text: String = match self.output {
            Output::Json => lines.iter().map(|line| format!("{line}\n")).collect(),
            Output::Table => lines.iter().map(told).collect(),
        };
        if logs["missed"] == true && self.output == Output::Table {
            text.insert_str(0, "(more was logged than the router keeps: lines are missing here)\n");
        }
        let mut out = std::io::stdout();
        out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_ok()
    }
}

/// A line for people.
fn told(line: &Value) -> String {
    let time_ms = json!(line["time_unix_ns"].as_u64().unwrap_or_default() / 1_000_000);
    let [level, binding, module, message] = ["level", "binding", "module", "message"].map(|field| text(&line[field]));
    format!("{} {level:5} {binding} ({module}): {}\n", time(&time_ms), shown(&message))
}

/// What to ask for: the binding of that name where there is one, else the module.
async fn query(api: &Api, of: &str) -> Result<String> {
    let is_plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.@".contains(&byte));
    if !is_plain(of) || of.is_empty() {
        return Err(Failure::new(Exit::Usage, format!("`{of}` is the name of no binding and of no module")));
    }
    let has = |list: &Value, name: &str| items(list, name).iter().any(|item| item["name"] == of);
    if !of.contains('@') && has(&api.get("/v1/bindings").await?, "bindings") {
        return Ok(format!("binding={of}"));
    }
    if of.contains('@') || has(&api.get("/v1/modules").await?, "modules") {
        return Ok(format!("module={of}"));
    }
    Err(Failure::new(Exit::NotFound, format!("there is no binding and no module `{of}`"))
        .next("`myelin filter ls` shows those that there are"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_when_who_and_what() {
        let line = json!({"number": 1, "time_unix_ns": 1_000_000_000_u64, "level": "warn", "module": "m@1.0.0",
            "binding": "b", "message": "odd\u{1b}[2J"});
        assert_eq!(told(&line), "1970-01-01T00:00:01Z warn  b (m@1.0.0): odd?[2J\n");
    }
}
