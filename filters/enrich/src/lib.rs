//! `enrich`: adds headers and JSON fields: constants, parts of the event, the router's time, look-ups in a table.
//!
//! ```json
//! {"headers": {"x-region": "eu", "x-publisher": {"from": "identity"}, "x-received": {"from": "time"}},
//!  "fields": {"kind": {"from": "level:0"},
//!             "tier": {"from": "field:customer.id", "table": {"17": "gold"}, "default": "standard"}},
//!  "on_invalid": "allow"}
//! ```
//!
//! * `headers`: for each name a text, or where its value comes from. `fields` the same for members of the JSON object that
//!   the payload is; there a constant may be any JSON except an object with `from`.
//! * `from`: a part of the event (`id`, `identity`, `topic`, `level:N`, `key`, `type`, `content-type`, `header:NAME`,
//!   `field:PATH`), or `time`: when the router took the event up, in RFC 3339.
//! * `table`: the value is what stands there for the part's text; in `fields` it may be any JSON.
//! * `default`: the value where the part, or its entry in the table, is missing. Without one the name is then **taken
//!   away**.
//! * `on_invalid`: what becomes of a payload that is no JSON object where `fields` are to be added: `allow` (it goes on as it
//!   is, with its headers), `deny` or `dead-letter`. `allow` where not given.
//!
//! What is added replaces every header or member of that name: a reader may rely on it, whatever the publisher wrote.
//! Everything else stays byte for byte as it was.

mod members;

use members::{Members, rewrite};
use myelin_filter::Attrs;
use myelin_filter::config::{Config, Value, wrong};
use myelin_filter::prelude::*;
use myelin_filter::source::Source;
use std::borrow::Cow;
use std::collections::BTreeMap;

/// Most headers, and most fields, that are added.
const NAMES_MAX: usize = 32;
/// Longest enriched payload in bytes.
const PAYLOAD_BYTES_MAX: usize = 1 << 20;
/// Most bytes and headers of the attributes that a router takes.
const ATTRS_BYTES_MAX: usize = 16 * 1024;
const HEADERS_MAX: usize = 64;
/// Longest name of a header in bytes.
const HEADER_NAME_BYTES_MAX: usize = 255;

/// The filter with its parsed configuration.
#[filter]
#[derive(Debug)]
pub struct Enrich {
    headers: Vec<(String, Addition)>,
    fields: Vec<(String, Addition)>,
    on_invalid: OnInvalid,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OnInvalid {
    Allow,
    Deny,
    DeadLetter,
}

/// Where a value comes from. Values are kept as they are written: as text for headers, as JSON for fields.
#[derive(Debug)]
enum Addition {
    Constant(String),
    Part { from: Origin, table: Option<BTreeMap<String, String>>, default: Option<String> },
}

#[derive(Debug)]
enum Origin {
    Time,
    Part(Source),
}

/// How a value is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    Text,
    Json,
}

impl Filter for Enrich {
    const REASONS: &[&str] = &["payload is no JSON object", "no room for more"];
    const COUNTERS: &[&str] = &["enriched", "not_enriched"];

    fn new(config: &[u8], _previous: Option<&[u8]>) -> Result<Self, String> {
        let config = Config::parse(config, &["headers", "fields", "on_invalid"])?;
        let headers = additions(&config, "headers", Style::Text)?;
        let fields = additions(&config, "fields", Style::Json)?;
        if headers.is_empty() && fields.is_empty() {
            return Err(
                "there is nothing to add; write for example \"headers\": {\"x-publisher\": {\"from\": \"identity\"}}"
                    .into(),
            );
        }
        let is_name = |name: &str| (1..=HEADER_NAME_BYTES_MAX).contains(&name.len());
        if let Some((name, _)) = headers.iter().find(|(name, _)| !is_name(name)) {
            let bytes = name.len();
            return Err(format!(
                "configuration key `headers` has a name of {bytes} bytes; 1 to {HEADER_NAME_BYTES_MAX} fit"
            ));
        }
        let on_invalid = config.choice(
            "on_invalid",
            &[("allow", OnInvalid::Allow), ("deny", OnInvalid::Deny), ("dead-letter", OnInvalid::DeadLetter)],
        )?;
        Ok(Self { headers, fields, on_invalid })
    }

    fn on_event(&mut self, event: EventView<'_>) -> Verdict {
        let mut verdict = Verdict::allow();
        if !self.fields.is_empty() {
            match self.payload(&event) {
                Members::Rewritten(payload) if payload.len() > PAYLOAD_BYTES_MAX => {
                    return Verdict::deny(reason!("no room for more"));
                }
                Members::Rewritten(payload) => verdict = verdict.with_payload(payload),
                Members::NoObject => match self.on_invalid {
                    OnInvalid::Deny => return Verdict::deny(reason!("payload is no JSON object")),
                    OnInvalid::DeadLetter => return Verdict::dead_letter(reason!("payload is no JSON object")),
                    OnInvalid::Allow => host::count(counter!("not_enriched"), 1),
                },
            }
        }
        if !self.headers.is_empty() {
            let values: Vec<_> = self.headers.iter().map(|(_, addition)| addition.value(&event, Style::Text)).collect();
            let names = self.headers.iter().map(|(name, _)| name.as_str());
            let changes: Vec<_> = names.zip(values.iter().map(Option::as_deref)).collect();
            let attrs = event.attrs_with(&changes);
            if !fits(&attrs) {
                return Verdict::deny(reason!("no room for more"));
            }
            verdict = verdict.with_attrs(attrs);
        }
        host::count(counter!("enriched"), 1);
        verdict
    }

    fn needs(&self) -> Needs {
        let all = self.headers.iter().chain(&self.fields).map(|(_, addition)| addition.needs());
        let needs = all.fold(Self::NEEDS, Needs::and);
        // What is changed must be there.
        let needs = if self.headers.is_empty() { needs } else { needs.attributes() };
        if self.fields.is_empty() { needs } else { needs.payload(PayloadNeed::Full) }
    }

    fn max_output(&self) -> u32 {
        let attrs = if self.headers.is_empty() { 0 } else { ATTRS_BYTES_MAX };
        let payload = if self.fields.is_empty() { 0 } else { PAYLOAD_BYTES_MAX };
        // A router grants 1 MiB for one event, and this is as much as it may be.
        u32::try_from((attrs + payload).min(PAYLOAD_BYTES_MAX)).unwrap_or(u32::MAX)
    }
}

impl Enrich {
    fn payload(&self, event: &EventView<'_>) -> Members {
        let values: Vec<_> = self.fields.iter().map(|(_, addition)| addition.value(event, Style::Json)).collect();
        let names = self.fields.iter().map(|(name, _)| name.as_str());
        let changes: Vec<_> = names.zip(values.iter().map(Option::as_deref)).collect();
        rewrite(event.payload(), &changes)
    }
}

/// Whether a router takes these attributes. The headers of the event and the added ones may be too many together.
fn fits(attrs: &AttrsBuilder) -> bool {
    let headers = Attrs::new(attrs.as_bytes()).iter().filter(|attr| !attr.name.is_empty()).count();
    attrs.as_bytes().len() <= ATTRS_BYTES_MAX && headers <= HEADERS_MAX
}

impl Addition {
    fn parse(place: &str, given: &Value, style: Style) -> Result<Self, String> {
        let is_part = given.as_object().is_some_and(|object| object.contains_key("from"));
        if !is_part {
            let write = "a text, or an object such as {\"from\": \"identity\"}";
            return style.write(given).map(Self::Constant).ok_or_else(|| wrong(place, given, write));
        }
        let part = Config::within(place, given, &["from", "table", "default"])?;
        let from = match part.required_text("from", "\"identity\"")? {
            "time" => Origin::Time,
            source => Origin::Part(
                Source::parse(source)
                    .map_err(|error| format!("configuration key `{place}.from`: {error}, or `time`"))?,
            ),
        };
        let value = |key: &str, value: &Value| {
            style.write(value).ok_or_else(|| wrong(&format!("{place}.{key}"), value, "a text"))
        };
        let default = part.value("default").map(|given| value("default", given)).transpose()?;
        let table = part.value("table").map(|given| {
            let entries = given
                .as_object()
                .ok_or_else(|| wrong(&format!("{place}.table"), given, "an object such as {\"17\": \"gold\"}"))?;
            let entry = |(text, given): (&String, &Value)| Ok((text.clone(), value(&format!("table.{text}"), given)?));
            entries.iter().map(entry).collect::<Result<BTreeMap<_, _>, String>>()
        });
        Ok(Self::Part { from, table: table.transpose()?, default })
    }

    fn needs(&self) -> Needs {
        match self {
            Self::Part { from: Origin::Part(source), .. } => source.needs(),
            Self::Constant(_) | Self::Part { from: Origin::Time, .. } => Needs::NOTHING,
        }
    }

    /// The value as it is written; `None` takes the name away.
    fn value<'a>(&'a self, event: &EventView<'a>, style: Style) -> Option<Cow<'a, str>> {
        let (from, table, default) = match self {
            Self::Constant(value) => return Some(Cow::Borrowed(value)),
            Self::Part { from, table, default } => (from, table, default),
        };
        let text = match from {
            Origin::Time => Some(Cow::Owned(time(event.now_unix_ns()))),
            Origin::Part(source) => source.text(event),
        };
        let found = match table {
            None => text.map(|text| match style {
                Style::Text => text,
                Style::Json => Cow::Owned(Value::from(text.into_owned()).to_string()),
            }),
            Some(table) => text.and_then(|text| table.get(&*text)).map(|value| Cow::Borrowed(value.as_str())),
        };
        found.or_else(|| default.as_deref().map(Cow::Borrowed))
    }
}

impl Style {
    /// A configured value as it is written out; `None` where it cannot be.
    fn write(self, value: &Value) -> Option<String> {
        match self {
            Self::Text => value.as_str().map(str::to_owned),
            Self::Json => Some(value.to_string()),
        }
    }
}

fn additions(config: &Config, key: &str, style: Style) -> Result<Vec<(String, Addition)>, String> {
    let Some(given) = config.value(key) else { return Ok(Vec::new()) };
    let write = format!("an object with at most {NAMES_MAX} names");
    let entries = given.as_object().filter(|entries| entries.len() <= NAMES_MAX);
    let entries = entries.ok_or_else(|| wrong(key, given, &write))?;
    let parse =
        |(name, value): (&String, &Value)| Ok((name.clone(), Addition::parse(&format!("{key}.{name}"), value, style)?));
    entries.iter().map(parse).collect()
}

/// Unix nanoseconds as RFC 3339 in milliseconds, UTC.
fn time(unix_ns: u64) -> String {
    let (ms, seconds) = (unix_ns / 1_000_000 % 1_000, unix_ns / 1_000_000_000);
    let (day, second) = (seconds / 86_400, seconds % 86_400);
    // Days of the proleptic Gregorian calendar, counted from 0000-03-01 so that leap days come last.
    let day = day + 719_468;
    let (era, of_era) = (day / 146_097, day % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let (month, date) = (if shifted < 10 { shifted + 3 } else { shifted - 9 }, of_year - (153 * shifted + 2) / 5 + 1);
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{date:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use myelin_filter::testing::{Harness, run_fixtures};

    fn enrich(config: &str) -> Harness<Enrich> {
        Harness::new(config).unwrap()
    }

    #[test]
    fn fixtures_hold() {
        let report = run_fixtures::<Enrich>(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures"));
        assert_eq!(report.events, report.expectations, "every fixture says what it expects");
    }

    #[test]
    fn headers_replace_what_the_publisher_wrote() {
        let mut enrich = enrich(
            r#"{"headers":{"x-const":"eu","x-who":{"from":"identity"},"x-when":{"from":"time"},
                "x-tier":{"from":"header:x-id","table":{"17":"gold"},"default":"standard"},"x-gone":{"from":"level:9"}}}"#,
        );
        let event = enrich.event("a").identity("me").header("x-who", "forged").header("x-who", "twice");
        let seen = event.header("x-gone", "forged").header("x-id", "17").header("x-own", "stays").key("k").verdict();
        assert_eq!((seen.header("x-const"), seen.header("x-who")), (Some("eu"), Some("me")));
        assert_eq!((seen.header("x-tier"), seen.header("x-gone")), (Some("gold"), None));
        assert_eq!((seen.header("x-own"), seen.header("x-when")), (Some("stays"), Some("2026-01-01T00:00:00.000Z")));
        let forged = seen.attrs.as_deref().unwrap().windows(6).any(|bytes| bytes == b"forged");
        assert!(!forged && seen.payload.is_none());
        assert_eq!(enrich.event("a").verdict().header("x-tier"), Some("standard"));
    }

    #[test]
    fn only_what_is_looked_at_is_asked_for() {
        let needs = |config: &str| enrich(config).filter().needs();
        assert_eq!(needs(r#"{"headers":{"a":"b"}}"#), needs!(attributes));
        assert_eq!(needs(r#"{"headers":{"a":{"from":"field:x"}}}"#), needs!(attributes, payload));
        assert_eq!(needs(r#"{"fields":{"a":{"from":"identity"}}}"#), needs!(identity, payload));
        assert_eq!(enrich(r#"{"headers":{"a":"b"}}"#).filter().max_output(), 16 * 1024);
    }

    #[test]
    fn there_is_an_end_to_what_fits() {
        let mut enrich = enrich(r#"{"headers":{"x-new":"1"},"fields":{"a":1}}"#);
        let with_headers = |harness: &mut Harness<Enrich>, count: usize| {
            let event =
                (0..count).fold(harness.event("t").payload("{}"), |event, at| event.header(&format!("h{at}"), ""));
            event.verdict()
        };
        assert_eq!(with_headers(&mut enrich, 63).kind, Kind::Allow);
        assert_eq!(with_headers(&mut enrich, 64).reason.as_deref(), Some("no room for more"));
        let long = format!("{{\"b\":\"{}\"}}", "x".repeat(1 << 20));
        assert_eq!(enrich.event("t").payload(long).verdict().reason.as_deref(), Some("no room for more"));
    }

    #[test]
    fn a_wrong_configuration_says_how_to_mend_it() {
        let refused = |config: &str| Harness::<Enrich>::new(config).err().unwrap();
        assert!(refused("").starts_with("there is nothing to add"));
        assert!(refused("{\"header\":{}}").ends_with("did you mean `headers`?"));
        assert!(refused("{\"headers\":{\"a\":7}}").contains("`headers.a` is 7; write a text, or an object such as"));
        assert!(refused("{\"headers\":{\"\":\"x\"}}").contains("a name of 0 bytes"));
        let part = |rest: &str| refused(&format!("{{\"fields\":{{\"a\":{{\"from\":{rest}}}}}}}"));
        assert!(part("\"ip\"").starts_with("configuration key `fields.a.from`: \"ip\" names no part"));
        assert!(part("\"key\",\"tabel\":{}").ends_with("did you mean `table`?"));
        assert!(part("\"key\",\"table\":[]").contains("`fields.a.table` is []; write an object"));
        let header = "{\"headers\":{\"a\":{\"from\":\"key\",\"table\":{\"k\":1}}}}";
        assert!(refused(header).contains("`headers.a.table.k` is 1; write a text"));
        let many = (0..33).map(|at| format!("\"h{at}\":\"\"")).collect::<Vec<_>>().join(",");
        assert!(refused(&format!("{{\"headers\":{{{many}}}}}")).contains("at most 32 names"));
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399, "2000-02-28T23:59:59.000Z"),
            (951_782_400, "2000-02-29T00:00:00.000Z"),
            (951_868_800, "2000-03-01T00:00:00.000Z"),
            (1_767_225_599, "2025-12-31T23:59:59.000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(time(seconds * 1_000_000_000), text);
        }
        assert_eq!(time(1_767_225_600_123_456_789), "2026-01-01T00:00:00.123Z");
    }
}
