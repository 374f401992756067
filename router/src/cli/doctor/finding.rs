//! What a look found, and how it is told.

use super::super::values::say;
use serde_json::{Value, json};

/// What one look found.
#[derive(Debug)]
pub(super) struct Finding {
    pub(super) level: Level,
    pub(super) what: &'static str,
    pub(super) found: String,
    /// What to do about it.
    pub(super) step: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    Good,
    /// A router runs without it.
    Warning,
    Missing,
}

impl Finding {
    pub(super) fn good(what: &'static str, found: impl Into<String>) -> Self {
        Self { level: Level::Good, what, found: found.into(), step: None }
    }

    pub(super) fn warning(what: &'static str, found: impl Into<String>, step: impl Into<String>) -> Self {
        Self { level: Level::Warning, what, found: found.into(), step: Some(step.into()) }
    }

    pub(super) fn missing(what: &'static str, found: impl Into<String>, step: impl Into<String>) -> Self {
        Self { level: Level::Missing, what, found: found.into(), step: Some(step.into()) }
    }
}

/// Shows it to people.
pub(super) fn show(Finding { level, what, found, step }: &Finding) {
    let sign = match level {
        Level::Good => "ok     ",
        Level::Warning => "warning",
        Level::Missing => "MISSING",
    };
    say!("{sign}  {what:<14} {found}");
    if let Some(step) = step {
        say!("         {:<14} do: {step}", "");
    }
}

/// All of them for programs.
pub(super) fn for_programs(findings: &[Finding]) -> Value {
    let told = |Finding { level, what, found, step }: &Finding| {
        let level = match level {
            Level::Good => "ok",
            Level::Warning => "warning",
            Level::Missing => "missing",
        };
        json!({"level": level, "what": what, "found": found, "do": step})
    };
    json!({ "findings": findings.iter().map(told).collect::<Vec<_>>() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_read_level_and_step() {
        let told = for_programs(&[Finding::good("a", "b"), Finding::missing("c", "d", "e")]);
        assert_eq!(told["findings"][0], json!({"level": "ok", "what": "a", "found": "b", "do": null}));
        assert_eq!((&told["findings"][1]["level"], &told["findings"][1]["do"]), (&json!("missing"), &json!("e")));
    }
}
