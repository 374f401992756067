//! `rate-limit`: limits events or bytes, per identity, topic or header, over all workers of the router.
//!
//! ```json
//! {"amount": 100, "period_ms": 1000, "burst": 200, "by": ["identity"], "count": "events", "on_limit": "deny"}
//! ```
//!
//! * `amount` in every `period_ms` (1000 where not given), spread evenly, and up to `burst` at once (`amount` where not
//!   given).
//! * `by`: for what each limit of its own holds: parts of an event such as `identity`, `topic`, `level:0`, `key`,
//!   `header:x-tenant`, `field:customer.id`. `["identity"]` where not given; `[]` is one limit for all.
//! * `count`: `events`, or `bytes` of the payload. An event of more bytes than `burst` never passes.
//! * `on_limit`: `deny` (the publisher learns it and may try again), `drop` or `dead-letter`.
//!
//! The limits belong to the binding: they hold over all workers, and a new version or configuration goes on where the
//! old one was. Events that lack a part share one limit.

use myelin_filter::config::{Config, wrong};
use myelin_filter::host::Rate;
use myelin_filter::prelude::*;
use myelin_filter::source::{Source, join};

/// Most parts in `by`.
const PARTS_MAX: usize = 8;

/// The filter with its parsed configuration.
#[filter]
#[derive(Debug)]
pub struct RateLimit {
    rate: Rate,
    by: Vec<Source>,
    counts_bytes: bool,
    on_limit: OnLimit,
    /// The bucket's name; its memory is kept.
    name: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OnLimit {
    Deny,
    Drop,
    DeadLetter,
}

impl Filter for RateLimit {
    const REASONS: &[&str] = &["over the rate limit"];
    const COUNTERS: &[&str] = &["passed", "limited"];

    fn new(config: &[u8], _previous: Option<&[u8]>) -> Result<Self, String> {
        let config = Config::parse(config, &["amount", "period_ms", "burst", "by", "count", "on_limit"])?;
        let amount = config.required_number("amount", 1..=u32::MAX, "100")?;
        let period_ms = config.number("period_ms", 1..=u32::MAX, 1_000)?;
        let burst = config.number("burst", 1..=u32::MAX, amount)?;
        let on_limit = config.choice(
            "on_limit",
            &[("deny", OnLimit::Deny), ("drop", OnLimit::Drop), ("dead-letter", OnLimit::DeadLetter)],
        )?;
        let counts_bytes = config.choice("count", &[("events", false), ("bytes", true)])?;
        let rate = Rate { amount, period_ms, burst };
        Ok(Self { rate, by: parts(&config)?, counts_bytes, on_limit, name: String::new() })
    }

    fn on_event(&mut self, event: EventView<'_>) -> Verdict {
        self.name.clear();
        for part in &self.by {
            join(&mut self.name, part.text(&event).as_deref());
        }
        let n = if self.counts_bytes { event.payload_total() } else { 1 };
        if host::take(&self.name, n, self.rate) {
            host::count(counter!("passed"), 1);
            return Verdict::allow();
        }
        host::count(counter!("limited"), 1);
        match self.on_limit {
            OnLimit::Deny => Verdict::deny(reason!("over the rate limit")),
            OnLimit::DeadLetter => Verdict::dead_letter(reason!("over the rate limit")),
            OnLimit::Drop => Verdict::drop(),
        }
    }

    fn needs(&self) -> Needs {
        self.by.iter().fold(Self::NEEDS, |needs, part| needs.and(part.needs()))
    }
}

/// The parts of an event that name its limit.
fn parts(config: &Config) -> Result<Vec<Source>, String> {
    let Some(given) = config.value("by") else { return Ok(vec![Source::Identity]) };
    let write = format!("a list of at most {PARTS_MAX} parts such as [\"identity\"]");
    let list = given.as_array().filter(|list| list.len() <= PARTS_MAX).ok_or_else(|| wrong("by", given, &write))?;
    let parse = |(index, part): (usize, &myelin_filter::config::Value)| {
        let text = part.as_str().ok_or_else(|| wrong("by", given, &write))?;
        Source::parse(text).map_err(|error| format!("configuration key `by.{index}`: {error}"))
    };
    list.iter().enumerate().map(parse).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use myelin_filter::testing::{Harness, NOW_UNIX_NS, run_fixtures};

    fn refused(config: &str) -> String {
        Harness::<RateLimit>::new(config).err().unwrap()
    }

    #[test]
    fn fixtures_hold() {
        let report = run_fixtures::<RateLimit>(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures"));
        assert_eq!(report.events, report.expectations, "every fixture says what it expects");
    }

    #[test]
    fn a_limit_comes_back_with_time() {
        let mut limit = Harness::<RateLimit>::new(r#"{"amount":10,"burst":2}"#).unwrap();
        let mut passed = |at_ms: u64| {
            limit.set_now_unix_ns(NOW_UNIX_NS + at_ms * 1_000_000);
            limit.event("t").identity("a").verdict().kind == Kind::Allow
        };
        assert_eq!([0, 0, 0, 99, 100, 100].map(&mut passed), [true, true, false, false, true, false]);
        assert_eq!([9_000; 3].map(&mut passed), [true, true, false], "its burst and no more");
        assert_eq!((limit.counter("passed"), limit.counter("limited")), (5, 4));
    }

    #[test]
    fn only_what_is_looked_at_is_asked_for() {
        let needs =
            |by: &str| Harness::<RateLimit>::new(format!("{{\"amount\":1,\"by\":{by}}}")).unwrap().filter().needs();
        assert_eq!(needs("[]"), Needs::NOTHING);
        assert_eq!(needs("[\"topic\",\"level:1\"]"), Needs::NOTHING);
        assert_eq!(needs("[\"identity\",\"header:a\"]"), needs!(attributes, identity));
        assert_eq!(needs("[\"field:a\"]"), needs!(payload));
    }

    #[test]
    fn a_wrong_configuration_says_how_to_mend_it() {
        assert!(refused("").starts_with("configuration key `amount` is missing; write for example \"amount\": 100"));
        assert!(refused("{\"amount\":0}").contains("`amount` is 0; write a whole number from 1"));
        assert!(refused("{\"amount\":1.5}").contains("`amount` is 1.5"));
        assert!(refused("{\"amount\":1,\"perriod_ms\":5}").ends_with("did you mean `period_ms`?"));
        assert!(refused("{\"amount\":1,\"by\":\"identity\"}").contains("a list of at most 8 parts"));
        assert!(
            refused("{\"amount\":1,\"by\":[\"identity\",\"ip\"]}")
                .starts_with("configuration key `by.1`: \"ip\" names")
        );
        assert!(refused("{\"amount\":1,\"on_limit\":\"wait\"}").contains("\"deny\" or \"drop\" or \"dead-letter\""));
        assert!(refused("{\"amount\":1,\"count\":\"bits\"}").contains("\"events\" or \"bytes\""));
    }
}
