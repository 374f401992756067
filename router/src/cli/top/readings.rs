//! The router's figures as `/metrics` tells them, and what two readings say together.

use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

/// The router's figures at one moment.
pub(super) struct Reading {
    at: Instant,
    /// By name without `_total`: labels and value.
    series: HashMap<String, Vec<(Labels, f64)>>,
}

type Labels = BTreeMap<String, String>;

impl Reading {
    /// Reads OpenMetrics text; what cannot be read is left out, as a newer router may tell more.
    pub(super) fn parse(text: &str) -> Self {
        let mut series: HashMap<String, Vec<(Labels, f64)>> = HashMap::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            if let Some((name, labels, value)) = sample(line) {
                series.entry(name.trim_end_matches("_total").to_owned()).or_default().push((labels, value));
            }
        }
        Self { at: Instant::now(), series }
    }

    fn of(&self, name: &str) -> &[(Labels, f64)] {
        self.series.get(name).map(Vec::as_slice).unwrap_or_default()
    }

    fn single(&self, name: &str) -> f64 {
        self.of(name).first().map(|(_, value)| *value).unwrap_or_default()
    }

    fn labels(&self, name: &str) -> Labels {
        self.of(name).first().map(|(labels, _)| labels.clone()).unwrap_or_default()
    }

    /// All values of `name` together, where the labels are as `wanted`; 0 where there are none (`Iterator::sum` says -0).
    fn sum(&self, name: &str, wanted: &Labels) -> f64 {
        self.by(name, "", wanted).values().fold(0.0, |sum, value| sum + value)
    }

    /// Values of `name` by one of their labels, where the others are as `wanted`.
    fn by(&self, name: &str, label: &str, wanted: &Labels) -> BTreeMap<&str, f64> {
        let mut values = BTreeMap::new();
        for (labels, value) in self.of(name) {
            if wanted.iter().all(|(key, value)| labels.get(key) == Some(value)) {
                *values.entry(labels.get(label).map_or("", String::as_str)).or_insert(0.0) += value;
            }
        }
        values
    }
}

/// `name{label="value",..} 1.5`
fn sample(line: &str) -> Option<(&str, Labels, f64)> {
    let (name, rest) = match line.find('{') {
        Some(brace) => (&line[..brace], &line[brace + 1..]),
        None => {
            let (name, value) = line.split_once(' ')?;
            return Some((name, Labels::new(), value.trim().parse().ok()?));
        }
    };
    let mut labels = Labels::new();
    let mut rest = rest;
    loop {
        rest = rest.trim_start_matches(',');
        if let Some(value) = rest.strip_prefix('}') {
            return Some((name, labels, value.trim().parse().ok()?));
        }
        let (label, quoted) = rest.split_once("=\"")?;
        let (text, after) = unquoted(quoted)?;
        labels.insert(label.to_owned(), text);
        rest = after;
    }
}

/// The text up to the closing quote, its escapes resolved, and what follows.
fn unquoted(quoted: &str) -> Option<(String, &str)> {
    let mut text = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((text, &quoted[at + 1..])),
            '\\' => text.push(match characters.next()?.1 {
                'n' => '\n',
                other => other,
            }),
            other => text.push(other),
        }
    }
    None
}

/// What two readings say: levels as they are now, counters as rates between the two.
pub(super) fn summary(before: &Reading, now: &Reading) -> Value {
    let seconds = now.at.duration_since(before.at).as_secs_f64().max(1e-3);
    // A counter that is smaller than before began anew.
    let grown = |now: f64, before: f64| if now < before { now } else { now - before };
    let rates = |name: &str, label: &str, wanted: &Labels| -> Map<String, Value> {
        let earlier = before.by(name, label, wanted);
        let values = now.by(name, label, wanted).into_iter();
        let values = values.map(|(key, value)| {
            let rate = grown(value, earlier.get(key).copied().unwrap_or_default()) / seconds;
            (key.to_owned(), rounded(rate))
        });
        values.collect()
    };
    let everything = Labels::new();
    let build = now.labels("myelin_build_info");
    let label = |name: &str| build.get(name).cloned().unwrap_or_default();
    let mut bindings: Vec<Labels> = Vec::new();
    for (labels, _) in now.of("myelin_filter_batches") {
        bindings.push(labels.clone());
    }
    let bindings = bindings.into_iter().map(|wanted| {
        let grown_of = |name: &str| grown(now.sum(name, &wanted), before.sum(name, &wanted));
        let (events, cpu_seconds) = (grown_of("myelin_filter_events"), grown_of("myelin_filter_cpu_seconds"));
        let level = |name: &str| now.sum(name, &wanted);
        json!({
            "binding": wanted.get("binding"),
            "module": wanted.get("module"),
            "stage": wanted.get("stage"),
            "events_per_second": rounded(events / seconds),
            "verdicts_per_second": rates("myelin_filter_events", "verdict", &wanted),
            "faults_per_second": rounded(grown_of("myelin_filter_faults") / seconds),
            "faults": level("myelin_filter_faults"),
            "cpu_ns_per_event": if events > 0.0 { rounded(cpu_seconds * 1e9 / events) } else { Value::Null },
            "apart": level("myelin_filter_apart") > 0.0,
            "quarantined": level("myelin_filter_quarantined") > 0.0,
        })
    });
    json!({
        "router": {
            "site": label("site"),
            "name": label("router"),
            "version": label("version"),
            "uptime_seconds": rounded(now.single("myelin_uptime_seconds")),
            "ready": now.single("myelin_ready") > 0.0,
            "generation": now.single("myelin_generation"),
        },
        "interval_seconds": rounded(seconds),
        "sessions": now.single("myelin_sessions"),
        "publishers": now.single("myelin_publishers"),
        "events_per_second": rates("myelin_events", "outcome", &everything),
        "copies_per_second": rates("myelin_copies", "outcome", &everything),
        "refusals_per_second": rates("myelin_refusals", "code", &everything),
        "judging": now.single("myelin_events_in_pipeline"),
        "queued": now.single("myelin_copies_in_queue"),
        "ledger_off_by": now.by("myelin_ledger_off_by", "balance", &everything),
        "bindings": bindings.collect::<Value>(),
    })
}

/// Three decimals: more is noise.
fn rounded(value: f64) -> Value {
    json!((value * 1e3).round() / 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const BEFORE: &str = "\
# TYPE myelin_events counter
myelin_events_total{outcome=\"accepted\"} 100
myelin_copies_in_queue -1
myelin_filter_batches_total{binding=\"b\",module=\"m@1.0.0\",stage=\"ingress\"} 5
myelin_filter_events_total{binding=\"b\",module=\"m@1.0.0\",stage=\"ingress\",verdict=\"allow\"} 60
myelin_filter_events_total{binding=\"b\",module=\"m@1.0.0\",stage=\"ingress\",verdict=\"deny\"} 40
myelin_filter_cpu_seconds_total{binding=\"b\",module=\"m@1.0.0\",stage=\"ingress\"} 0.5
# EOF
";

    fn reading(text: &str, after: Duration) -> Reading {
        let reading = Reading::parse(text);
        Reading { at: reading.at + after, ..reading }
    }

    #[test]
    fn labels_with_quotes_and_newlines_are_read() {
        let (name, labels, value) = sample(r#"myelin_build_info{site="a\"b\\c\nd",x="{1,2}"} 1"#).expect("a sample");
        assert_eq!(
            (name, labels["site"].as_str(), labels["x"].as_str(), value),
            ("myelin_build_info", "a\"b\\c\nd", "{1,2}", 1.0)
        );
        assert!(sample("myelin_x{a=\"b} 1").is_none() && sample("nonsense").is_none());
    }

    #[test]
    fn counters_become_rates_and_levels_stay() {
        let now = BEFORE
            .replace("} 100", "} 300")
            .replace("\"allow\"} 60", "\"allow\"} 160")
            .replace("} 0.5", "} 0.50001")
            .replace("queue -1", "queue 7");
        let summary = summary(&reading(BEFORE, Duration::ZERO), &reading(&now, Duration::from_secs(2)));
        assert_eq!(summary["queued"], 7.0);
        let near =
            |value: &Value, wanted: f64| value.as_f64().is_some_and(|value| (value - wanted).abs() < wanted * 0.05);
        assert!(near(&summary["events_per_second"]["accepted"], 100.0), "{summary}");
        let binding = &summary["bindings"][0];
        assert!(near(&binding["events_per_second"], 50.0) && near(&binding["cpu_ns_per_event"], 100.0), "{binding}");
        assert_eq!(binding["verdicts_per_second"]["deny"], 0.0);
        assert_eq!(binding["faults"].to_string(), "0.0", "and not -0.0");
    }

    #[test]
    fn a_counter_that_began_anew_is_not_negative() {
        let now = BEFORE.replace("} 100", "} 10");
        let summary = summary(&reading(BEFORE, Duration::ZERO), &reading(&now, Duration::from_secs(1)));
        assert!(summary["events_per_second"]["accepted"].as_f64().is_some_and(|rate| rate > 0.0), "{summary}");
    }
}
