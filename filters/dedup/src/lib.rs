//! `dedup`: drops events that were there already within a while, over all workers of the router.
//!
//! ```json
//! {"by": ["id"], "ttl_ms": 60000, "per": ["topic"], "on_duplicate": "drop", "on_missing": "allow"}
//! ```
//!
//! * `by`: what makes two events the same: parts of an event such as `id`, `header:x-request-id`, `field:order.id`, `key`.
//!   `["id"]` where not given. All of them together.
//! * `ttl_ms`: for how long an event is known; 60000 where not given. It counts from the first of them.
//! * `per`: within what they are the same, such as `["topic"]` or `["identity"]`; `[]` where not given: everywhere. An
//!   event that lacks such a part stands with those that lack it too.
//! * `on_duplicate`: `drop` (the publisher is told that all is well), `deny` or `dead-letter`.
//! * `on_missing`: what becomes of an event that lacks a part of `by`: `allow`, `deny` or `dead-letter`. `allow` where not
//!   given. A value of more than 1,024 bytes counts as missing.
//!
//! The router remembers some 900,000 events for a binding; where more come within `ttl_ms`, the oldest are forgotten. An
//! event counts as seen once this filter has let it pass, also where a later filter refuses it: bind it last.

use myelin_filter::config::{Config, Value, wrong};
use myelin_filter::prelude::*;
use myelin_filter::source::{Source, join};

/// Most parts in `by`, and in `per`.
const PARTS_MAX: usize = 8;
/// Longest value that tells events apart, in bytes: a longer one is no id.
const VALUE_BYTES_MAX: usize = 1_024;
/// How long an event is known where nothing else is said.
const TTL_MS: u32 = 60_000;

/// The filter with its parsed configuration.
#[filter]
#[derive(Debug)]
pub struct Dedup {
    by: Vec<Source>,
    per: Vec<Source>,
    ttl_ms: u32,
    on_duplicate: Fate,
    on_missing: Fate,
    /// The key of an event; its memory is kept.
    key: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Allow,
    Deny,
    DeadLetter,
    Drop,
}

impl Filter for Dedup {
    const REASONS: &[&str] = &["was there already", "has nothing to know it by"];
    const COUNTERS: &[&str] = &["duplicates", "missing"];

    fn new(config: &[u8], _previous: Option<&[u8]>) -> Result<Self, String> {
        let config = Config::parse(config, &["by", "ttl_ms", "per", "on_duplicate", "on_missing"])?;
        let by = parts(&config, "by", 1)?.unwrap_or_else(|| vec![Source::Id]);
        let per = parts(&config, "per", 0)?.unwrap_or_default();
        let ttl_ms = config.number("ttl_ms", 1..=u32::MAX, TTL_MS)?;
        let refusals = [("deny", Fate::Deny), ("dead-letter", Fate::DeadLetter)];
        let with = |first: (&'static str, Fate)| [first, refusals[0], refusals[1]];
        let on_duplicate = config.choice("on_duplicate", &with(("drop", Fate::Drop)))?;
        let on_missing = config.choice("on_missing", &with(("allow", Fate::Allow)))?;
        Ok(Self { by, per, ttl_ms, on_duplicate, on_missing, key: String::new() })
    }

    fn on_event(&mut self, event: EventView<'_>) -> Verdict {
        self.key.clear();
        for part in &self.by {
            let Some(value) = part.text(&event).filter(|value| value.len() <= VALUE_BYTES_MAX) else {
                host::count(counter!("missing"), 1);
                return verdict(self.on_missing, reason!("has nothing to know it by"));
            };
            join(&mut self.key, Some(&value));
        }
        for part in &self.per {
            let value = part.text(&event).filter(|value| value.len() <= VALUE_BYTES_MAX);
            join(&mut self.key, value.as_deref());
        }
        if !host::seen(&self.key, u64::from(self.ttl_ms)) {
            return Verdict::allow();
        }
        host::count(counter!("duplicates"), 1);
        verdict(self.on_duplicate, reason!("was there already"))
    }

    fn needs(&self) -> Needs {
        self.by.iter().chain(&self.per).fold(Self::NEEDS, |needs, part| needs.and(part.needs()))
    }
}

fn verdict(fate: Fate, reason: Reason) -> Verdict {
    match fate {
        Fate::Allow => Verdict::allow(),
        Fate::Deny => Verdict::deny(reason),
        Fate::DeadLetter => Verdict::dead_letter(reason),
        Fate::Drop => Verdict::drop(),
    }
}

/// The parts of an event that `key` lists; at least so many where it is given.
fn parts(config: &Config, key: &str, parts_min: usize) -> Result<Option<Vec<Source>>, String> {
    let Some(given) = config.value(key) else { return Ok(None) };
    let write = format!("a list of {parts_min} to {PARTS_MAX} parts such as [\"id\"]");
    let fits = |list: &&Vec<Value>| (parts_min..=PARTS_MAX).contains(&list.len());
    let list = given.as_array().filter(fits).ok_or_else(|| wrong(key, given, &write))?;
    let parse = |(index, part): (usize, &Value)| {
        let text = part.as_str().ok_or_else(|| wrong(key, given, &write))?;
        Source::parse(text).map_err(|error| format!("configuration key `{key}.{index}`: {error}"))
    };
    list.iter().enumerate().map(parse).collect::<Result<_, _>>().map(Some)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use myelin_filter::testing::{Harness, NOW_UNIX_NS, run_fixtures};

    fn refused(config: &str) -> String {
        Harness::<Dedup>::new(config).err().unwrap()
    }

    #[test]
    fn fixtures_hold() {
        let report = run_fixtures::<Dedup>(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures"));
        assert_eq!(report.events, report.expectations, "every fixture says what it expects");
    }

    #[test]
    fn an_event_is_known_for_its_time_from_the_first_on() {
        let mut dedup = Harness::<Dedup>::new(r#"{"by":["header:r"],"ttl_ms":1000}"#).unwrap();
        let mut passed = |at_ms: u64| {
            dedup.set_now_unix_ns(NOW_UNIX_NS + at_ms * 1_000_000);
            dedup.event("t").header("r", "1").verdict().kind == Kind::Allow
        };
        assert_eq!([0, 1, 999, 1_000, 1_999, 2_000].map(&mut passed), [true, false, false, true, false, true]);
        assert_eq!(dedup.counter("duplicates"), 3);
    }

    #[test]
    fn a_value_that_is_no_id_counts_as_missing() {
        let mut dedup = Harness::<Dedup>::new(r#"{"by":["field:id"],"on_missing":"deny"}"#).unwrap();
        let mut kind =
            |bytes: usize| dedup.event("t").payload(format!("{{\"id\":\"{}\"}}", "x".repeat(bytes))).verdict().kind;
        assert_eq!([1_024, 1_024, 1_025, 1_025].map(&mut kind), [Kind::Allow, Kind::Drop, Kind::Deny, Kind::Deny]);
        assert_eq!(dedup.counter("missing"), 2);
    }

    #[test]
    fn a_wrong_configuration_says_how_to_mend_it() {
        assert!(refused("{\"by\":[]}").contains("`by` is []; write a list of 1 to 8 parts"));
        assert!(refused("{\"by\":\"id\"}").contains("a list of 1 to 8 parts"));
        assert!(refused("{\"per\":[\"topics\"]}").starts_with("configuration key `per.0`: \"topics\" names"));
        assert!(refused("{\"ttl\":5}").contains("known are `by`, `ttl_ms`"));
        assert!(refused("{\"ttl_ms\":0}").contains("a whole number from 1"));
        assert!(refused("{\"on_duplicate\":\"allow\"}").contains("\"drop\" or \"deny\" or \"dead-letter\""));
        assert!(refused("{\"on_missing\":\"drop\"}").contains("\"allow\" or \"deny\" or \"dead-letter\""));
    }
}
