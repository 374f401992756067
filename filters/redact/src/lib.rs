//! `redact`: masks or drops fields of the JSON payload.
//!
//! ```json
//! {"fields": ["customer.email", "card.number"], "action": "mask", "mask": "***", "on_invalid": "deny"}
//! ```
//!
//! * `fields`: names with dots between them. A path passes through lists: `lines.note` reaches the note of every line.
//!   `*` stands for any name. At most 64.
//! * `action`: `mask` (the value, whatever its kind, becomes the mask) or `drop` (the member goes). `mask` where not
//!   given.
//! * `mask`: the text that stands in the value's place; `"***"` where not given.
//! * `on_invalid`: what happens to a payload in which nothing can be found because it is not JSON: `deny`,
//!   `dead-letter` or `allow`. `deny` where not given. An empty payload has nothing to hide and goes on.
//!
//! Every occurrence is rewritten, also where an object has a name twice or writes it with escapes: what a reader of
//! the event sees does not hang on its JSON library. A payload without any of the fields goes on byte for byte.

mod rewrite;

use myelin_filter::config::{Config, wrong};
use myelin_filter::prelude::*;
use rewrite::{Fault, Rewriter};

/// Most fields: one bit of a set for each.
const FIELDS_MAX: usize = 64;
/// Longest rewritten payload in bytes.
const OUTPUT_BYTES_MAX: u32 = 1 << 20;

/// The filter with its parsed configuration.
#[filter]
#[derive(Debug)]
pub struct Redact {
    rewriter: Rewriter,
    on_invalid: OnInvalid,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OnInvalid {
    Deny,
    DeadLetter,
    Allow,
}

impl Filter for Redact {
    const NEEDS: Needs = needs!(payload);
    const REASONS: &[&str] = &["payload is not JSON", "payload is too large to redact"];
    const COUNTERS: &[&str] = &["redacted_fields"];
    const MAX_OUTPUT: u32 = OUTPUT_BYTES_MAX;

    fn new(config: &[u8], _previous: Option<&[u8]>) -> Result<Self, String> {
        let config = Config::parse(config, &["fields", "action", "mask", "on_invalid"])?;
        let example = "[\"customer.email\", \"card.number\"]";
        let fields = config.required_texts("fields", example)?;
        if fields.len() > FIELDS_MAX {
            return Err(format!(
                "configuration key `fields` has {} entries; write at most {FIELDS_MAX}, with `*` for any name",
                fields.len()
            ));
        }
        if let Some(field) = fields.iter().find(|field| field.split('.').any(str::is_empty)) {
            return Err(wrong("fields", &(*field).into(), "names with single dots between them"));
        }
        let drops = config.choice("action", &[("mask", false), ("drop", true)])?;
        let mask = config.text("mask")?;
        if drops && mask.is_some() {
            return Err("configuration key `mask` has no meaning with \"action\": \"drop\"; leave one out".to_owned());
        }
        let on_invalid = config.choice(
            "on_invalid",
            &[("deny", OnInvalid::Deny), ("dead-letter", OnInvalid::DeadLetter), ("allow", OnInvalid::Allow)],
        )?;
        let mask = (!drops).then(|| mask.unwrap_or("***"));
        Ok(Self { rewriter: Rewriter::new(&fields, mask), on_invalid })
    }

    fn on_event(&mut self, event: EventView<'_>) -> Verdict {
        if event.payload().is_empty() {
            return Verdict::allow();
        }
        match self.rewriter.rewrite(event.payload(), OUTPUT_BYTES_MAX as usize) {
            Ok(None) => Verdict::allow(),
            Ok(Some(rewritten)) => {
                host::count(counter!("redacted_fields"), rewritten.fields);
                Verdict::allow().with_payload(rewritten.payload)
            }
            // Letting it through would let through what was to be hidden.
            Err(Fault::TooLarge) => Verdict::deny(reason!("payload is too large to redact")),
            Err(Fault::NotJson { at }) => match self.on_invalid {
                OnInvalid::Deny => Verdict::deny(reason!("payload is not JSON")).with_detail(place(at)),
                OnInvalid::DeadLetter => Verdict::dead_letter(reason!("payload is not JSON")).with_detail(place(at)),
                OnInvalid::Allow => Verdict::allow(),
            },
        }
    }
}

fn place(at: usize) -> String {
    format!("malformed at byte {at}")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use myelin_filter::testing::{Harness, run_fixtures};

    fn refused(config: &str) -> String {
        Harness::<Redact>::new(config).err().unwrap()
    }

    #[test]
    fn fixtures_hold() {
        let report = run_fixtures::<Redact>(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures"));
        assert_eq!(report.events, report.expectations, "every fixture says what it expects");
    }

    #[test]
    fn a_wrong_configuration_says_how_to_mend_it() {
        let with = |rest: &str| refused(&format!("{{\"fields\":[\"a\"],{rest}}}"));
        let example = "[\"customer.email\", \"card.number\"]";
        let missing = "configuration key `fields` is missing; write for example \"fields\": ";
        assert_eq!(refused("{}"), format!("{missing}{example}"));
        let list = "configuration key `fields` is []; write a list of texts such as ";
        assert_eq!(refused("{\"fields\":[]}"), format!("{list}{example}"));
        let dots = "configuration key `fields` is \"a..b\"; write names with single dots between them";
        assert_eq!(refused("{\"fields\":[\"a..b\"]}"), dots);
        assert_eq!(with("\"action\":\"hide\""), "configuration key `action` is \"hide\"; write \"mask\" or \"drop\"");
        assert!(with("\"action\":\"drop\",\"mask\":\"x\"").contains("`mask` has no meaning with \"action\": \"drop\""));
        assert!(with("\"field\":[]").contains("`field` is not known; known are `fields`, `action`"));
        let many = format!("{{\"fields\":[{}\"a\"]}}", "\"a\",".repeat(64));
        assert!(refused(&many).contains("`fields` has 65 entries; write at most 64"));
    }

    #[test]
    fn what_was_done_is_counted_and_the_place_of_a_fault_told() {
        let mut redact = Harness::<Redact>::new(r#"{"fields":["*.email","email"]}"#).unwrap();
        redact.event("t").payload(r#"{"a":{"email":1},"b":{"email":2},"email":3,"c":4}"#).verdict();
        assert_eq!(redact.counter("redacted_fields"), 3);
        let denied = redact.event("t").payload(r#"{"a":1,}"#).verdict();
        assert_eq!(denied.detail.as_deref(), Some("malformed at byte 7"));
    }

    #[test]
    fn what_grows_beyond_the_bound_is_denied_not_let_through() {
        let config = format!("{{\"fields\":[\"a\"],\"mask\":\"{}\"}}", "x".repeat(1000));
        let mut redact = Harness::<Redact>::new(config).unwrap();
        let payload = |count: usize| format!("[{}{{\"a\":1}}]", "{\"a\":1},".repeat(count - 1));
        assert_eq!(redact.event("t").payload(payload(1000)).verdict().kind, Kind::Allow);
        let denied = redact.event("t").payload(payload(2000)).verdict();
        assert_eq!((denied.kind, denied.reason.as_deref()), (Kind::Deny, Some("payload is too large to redact")));
    }
}
