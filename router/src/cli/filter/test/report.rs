//! What `myelin filter test` says, to people and to programs.

use super::measure::Speed;
use super::stress::Stress;
use crate::cli::examine::Checked;
use crate::cli::failure::{Exit, Failure, Result};
use crate::cli::listing::table;
use crate::cli::trial::{short, told};
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use std::fmt::Write;
use std::time::Duration;

/// Events of one file that are listed as good; further ones are counted.
const GOOD_LISTED_MAX: usize = 40;
/// Failures that are told in full; further ones are counted.
const BAD_LISTED_MAX: usize = 50;

/// Everything that a run has shown.
pub(super) struct Report {
    /// What was tested.
    pub(super) module: String,
    /// Size of the component.
    pub(super) component_bytes: usize,
    /// How long compiling it took.
    pub(super) compiled_in: Duration,
    /// The fixtures.
    pub(super) checked: Vec<Checked>,
    /// How many expectations were written anew.
    pub(super) updated: usize,
    /// Times and memory, where there were events.
    pub(super) speed: Option<Speed>,
    /// The made-up events, where they were asked for.
    pub(super) stress: Option<Stress>,
    /// What a router's self-test would say, where there are fixtures.
    pub(super) self_test: Option<Result<myelin_engine::SelfTestReport, String>>,
}

impl Report {
    /// Fixtures that are not as expected, unless the expectation was just written anew.
    fn bad(&self) -> usize {
        self.checked.iter().filter(|checked| !self.is_good(checked)).count()
    }

    /// Whether a fixture is as expected, or its expectation was just written anew.
    pub(super) fn is_good(&self, checked: &Checked) -> bool {
        checked.is_good() || self.updated > 0 && checked.said.is_ok()
    }

    /// Why the self-test fails, where nothing else says so: an updated fixture is in the next build only.
    fn self_test_failure(&self) -> Option<&str> {
        let failure = self.self_test.as_ref()?.as_ref().err()?;
        (self.bad() == 0 && self.updated == 0).then_some(failure)
    }

    /// Whether all is as it should be.
    ///
    /// # Errors
    /// What is not.
    pub(super) fn verdict(&self) -> Result<()> {
        let (bad, all) = (self.bad(), self.checked.len());
        if bad > 0 {
            let what = format!("{bad} of {all} events are not judged as expected");
            return Err(Failure::new(Exit::GateFailed, what)
                .next("mend the filter or the fixture; --update writes what the filter says into the fixtures"));
        }
        if let Some(failure) = self.stress.as_ref().and_then(|stress| stress.failure.as_ref()) {
            let what = format!("a made-up event brought something to light: {}", short(&failure.what));
            return Err(Failure::new(Exit::GateFailed, what)
                .next("put the event into a fixture, mend the filter, and run this again with the same seed"));
        }
        match self.self_test_failure() {
            None => Ok(()),
            Some(failure) => Err(Failure::new(Exit::GateFailed, format!("a router would refuse it: {failure}"))
                .next("build it again: the component carries other events than the fixtures that were run")),
        }
    }

    /// For people.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        let kib = self.component_bytes.div_ceil(1024);
        let _ = writeln!(text, "{}  {kib} KiB, compiled in {} ms", self.module, self.compiled_in.as_millis());
        for of_file in self.checked.chunk_by(|a, b| a.file == b.file) {
            self.file(&mut text, of_file);
        }
        let bad: Vec<_> = self.checked.iter().filter(|checked| !self.is_good(checked)).collect();
        for checked in bad.iter().take(BAD_LISTED_MAX) {
            difference(&mut text, checked);
        }
        if bad.len() > BAD_LISTED_MAX {
            let _ = writeln!(text, "\n{} more are not as expected", bad.len() - BAD_LISTED_MAX);
        }
        text.push('\n');
        let mut line = |name: &str, value: String| {
            let _ = writeln!(text, "{name:<10}{value}");
        };
        match self.checked.len() {
            0 => line("fixtures", "none; write events into fixtures/*.jsonl".into()),
            all => line("fixtures", format!("{} of {all} events as expected", all - bad.len())),
        }
        if self.updated > 0 {
            line("updated", format!("{} expectations; look at the difference before you commit it", self.updated));
        }
        if let Some(speed) = &self.speed {
            speed.lines(&mut line);
        }
        if let Some(stress) = &self.stress {
            stress.lines(&mut line);
        }
        if let Some(Ok(report)) = &self.self_test {
            line("self-test", format!("passes ({} events), as at every router", report.vectors + report.synthetic));
        }
        text
    }

    /// The events of one file.
    fn file(&self, text: &mut String, of_file: &[Checked]) {
        let Some(first) = of_file.first() else { return };
        let (mut listed, mut more) = (0, 0);
        let mut rows = Vec::new();
        for checked in of_file {
            let is_good = self.is_good(checked);
            listed += usize::from(is_good);
            if is_good && listed > GOOD_LISTED_MAX {
                more += 1;
                continue;
            }
            let sign = match (is_good, checked.has_expectation) {
                (false, _) => "FAIL",
                (true, true) => "ok",
                // Nothing was expected but that it does not fail.
                (true, false) => "-",
            };
            let said = checked.said.as_ref().map_or_else(|error| short(error), told);
            rows.push(vec![checked.line.to_string(), sign.to_owned(), checked.topic.clone(), said]);
        }
        let _ = write!(text, "\n{}\n{}", first.path.display(), table(&["line", "", "topic", "says"], &["line"], rows));
        if more > 0 {
            let _ = writeln!(text, "and {more} more as expected");
        }
    }

    /// For programs.
    pub(super) fn json(&self) -> Value {
        let fixtures = self.checked.iter().map(|checked| {
            json!({
                "file": checked.path.display().to_string(),
                "line": checked.line,
                "topic": checked.topic,
                "good": self.is_good(checked),
                "expected": checked.has_expectation,
                "says": checked.said.as_ref().ok().map(told),
                "verdict": checked.said.as_ref().ok().map(|decision| decision.verdict.as_str()),
                "fault": checked.said.as_ref().err(),
                "unmet": checked.unmet.iter().map(|unmet| {
                    json!({"field": unmet.field, "expected": unmet.expected, "found": unmet.found})
                }).collect::<Value>(),
            })
        });
        json!({
            "module": self.module,
            "component_bytes": self.component_bytes,
            "compile_ms": u64::try_from(self.compiled_in.as_millis()).unwrap_or(u64::MAX),
            "good": self.verdict().is_ok(),
            "events": self.checked.len(),
            "bad": self.bad(),
            "updated": self.updated,
            "fixtures": fixtures.collect::<Value>(),
            "time": self.speed.as_ref().map(Speed::json),
            "memory_bytes": self.speed.as_ref().map(|speed| speed.memory_bytes),
            "random": self.stress.as_ref().map(Stress::json),
            "self_test": self.self_test.as_ref().map(|tested| match tested {
                Ok(_) => json!({"passes": true}),
                Err(failure) => json!({"passes": false, "failure": failure}),
            }),
        })
    }
}

/// An event that is not judged as expected, field by field.
fn difference(text: &mut String, checked: &Checked) {
    let _ = writeln!(text, "\nFAIL {}:{}  {}", checked.path.display(), checked.line, short(&checked.topic));
    if let Err(error) = &checked.said {
        let _ = writeln!(text, "  no verdict: {error}");
    }
    for unmet in &checked.unmet {
        let _ = writeln!(text, "  {}\n    - expected {}\n    + got      {}", unmet.field, unmet.expected, unmet.found);
    }
}

impl Speed {
    fn lines(&self, line: &mut impl FnMut(&str, String)) {
        let at = |histogram: &Histogram<u64>, quantile| time(histogram.value_at_quantile(quantile));
        let both = |histogram| format!("p50 {}, p99 {}", at(histogram, 0.5), at(histogram, 0.99));
        line("time", format!("one event {}", both(&self.single_ns)));
        if !self.batch_ns.is_empty() {
            let each = both(&self.batch_event_ns);
            line("", format!("a full batch {}; for each of its events {each}", both(&self.batch_ns)));
        }
        if cfg!(debug_assertions) {
            line("", "this `myelin` is a debug build: a router is quicker".to_owned());
        }
        line("memory", format!("{} KiB an instance", self.memory_bytes.div_ceil(1024)));
    }

    fn json(&self) -> Value {
        let of = |histogram: &Histogram<u64>| {
            json!({
                "calls": histogram.len(),
                "p50_ns": histogram.value_at_quantile(0.5),
                "p99_ns": histogram.value_at_quantile(0.99),
            })
        };
        json!({
            "single": of(&self.single_ns),
            "batch": of(&self.batch_ns),
            "batch_event": of(&self.batch_event_ns),
            "is_debug_build": cfg!(debug_assertions),
        })
    }
}

impl Stress {
    fn lines(&self, line: &mut impl FnMut(&str, String)) {
        let verdicts: Vec<_> = self.verdicts.iter().map(|(verdict, count)| format!("{verdict} {count}")).collect();
        let Self { seed, events, configs, .. } = self;
        let plural = if *configs == 1 { "" } else { "s" };
        line(
            "random",
            format!("{events} events, {configs} configuration{plural}, seed {seed}: {}", verdicts.join(", ")),
        );
        if let Some(failure) = &self.failure {
            line("", format!("FAIL at event {}: {}", failure.number, failure.what));
            if !failure.config.is_empty() {
                line("", format!("{{\"config\":{}}}", failure.config));
            }
            line("", failure.event.clone());
            if let Some(hex) = &failure.payload_hex {
                line("", format!("its payload is no text, and no fixture can hold it; as hex: {hex}"));
            }
        }
    }

    fn json(&self) -> Value {
        json!({
            "seed": self.seed,
            "events": self.events,
            "configs": self.configs,
            "verdicts": self.verdicts,
            "failure": self.failure.as_ref().map(|failure| json!({
                "what": failure.what,
                "config": failure.config,
                "event": failure.event,
                "payload_hex": failure.payload_hex,
                "number": failure.number,
            })),
        })
    }
}

/// Nanoseconds for people.
fn time(nanos: u64) -> String {
    match nanos {
        0..10_000 => format!("{nanos} ns"),
        10_000..10_000_000 => format!("{} us", nanos / 1_000),
        _ => format!("{} ms", nanos / 1_000_000),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::stress::StressFailure;
    use super::*;
    use myelin_engine::{Decision, ExpectedKind, Unmet};

    fn checked(line: usize, said: Result<ExpectedKind, String>, unmet: &[(&str, &str)]) -> Checked {
        let decision = |verdict| Decision {
            verdict,
            reason: None,
            routes: Vec::new(),
            payload: None,
            attrs: None,
            detail: None,
            emitted: Vec::new(),
        };
        let unmet = unmet.iter().map(|(expected, found)| Unmet {
            field: "verdict",
            expected: (*expected).into(),
            found: (*found).into(),
        });
        Checked {
            file: 0,
            path: "fixtures/a.jsonl".into(),
            line,
            topic: "orders/<new>".into(),
            said: said.map(decision),
            unmet: unmet.collect(),
            has_expectation: true,
        }
    }

    pub(in super::super) fn report(has_faults: bool) -> Report {
        let mut all = vec![checked(1, Ok(ExpectedKind::Allow), &[])];
        if has_faults {
            all.push(checked(2, Ok(ExpectedKind::Allow), &[("deny", "allow")]));
            all.push(checked(3, Err("trap: \"x\" & y".into()), &[]));
        }
        Report {
            module: "m@1.0.0".into(),
            component_bytes: 2_048,
            compiled_in: Duration::from_millis(7),
            checked: all,
            updated: 0,
            speed: None,
            stress: None,
            self_test: None,
        }
    }

    #[test]
    fn a_difference_is_told_with_its_place_and_both_sides() {
        let report = report(true);
        let text = report.text();
        for part in
            ["FAIL fixtures/a.jsonl:2", "- expected deny", "+ got      allow", "no verdict: trap", "1 of 3 events"]
        {
            assert!(text.contains(part), "{part}:\n{text}");
        }
        assert_eq!(report.verdict().map_err(|failure| failure.exit), Err(Exit::GateFailed));
        assert_eq!((&report.json()["good"], &report.json()["bad"]), (&json!(false), &json!(2)));
    }

    #[test]
    fn a_faulty_made_up_event_and_a_failing_self_test_are_failures_too() {
        let mut good = report(false);
        assert!(good.verdict().is_ok() && good.json()["good"] == true);
        good.self_test = Some(Err("test vector 1 ..".into()));
        assert!(good.verdict().is_err_and(|failure| failure.what.contains("a router would refuse it")));
        good.updated = 1;
        assert!(good.verdict().is_ok(), "the next build has the new expectations");
        let (what, event) = ("trap".to_owned(), "{\"topic\":\"a\"}".to_owned());
        let failure = Some(StressFailure { what, config: "{}".into(), event, payload_hex: None, number: 3 });
        let verdicts = [("allow", 2)].into();
        good.stress = Some(Stress { seed: 9, events: 3, configs: 1, verdicts, failure });
        assert_eq!(good.verdict().map_err(|failure| failure.exit), Err(Exit::GateFailed));
        let text = good.text();
        assert!(
            text.contains("seed 9") && text.contains("FAIL at event 3: trap") && text.contains("{\"topic\":\"a\"}")
        );
    }

    #[test]
    fn times_are_for_people() {
        assert_eq!([time(512), time(12_345), time(34_000_000)], ["512 ns", "12 us", "34 ms"]);
    }
}
