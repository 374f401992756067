//! `schema-json`: holds the payload against a JSON Schema.
//!
//! ```json
//! {"schema": {"type": "object", "required": ["order_id"]}, "on_invalid": "deny"}
//! ```
//!
//! * `schema`: the JSON Schema itself, of any draft from 4 to 2020-12 (the newest where `$schema` is not given). It
//!   refers to nothing outside of itself: a filter opens no files and no connections.
//! * `on_invalid`: `deny` (the publisher learns the fault) or `dead-letter` (the event is kept with the fault). `deny`
//!   where not given.
//!
//! The verdict's detail begins with the JSON pointer of the first fault: `/items/0/quantity: value is less than ..`.
//! Values are not repeated in it: they may be personal, and details end in logs. `format` is an annotation, not
//! checked, as the newer drafts say. An object that has a name twice does not pass: readers do not agree which member
//! counts.

mod unique;

use jsonschema::Validator;
use myelin_filter::config::{Config, Value, wrong};
use myelin_filter::prelude::*;
use unique::Unique;

/// The filter with its compiled schema.
#[filter]
#[derive(Debug)]
pub struct SchemaJson {
    validator: Validator,
    /// The verdict on a payload that does not fit.
    judge: Judge,
}

/// Turns the reason into a verdict.
type Judge = fn(Reason) -> Verdict;

impl Filter for SchemaJson {
    const NEEDS: Needs = needs!(payload);
    const REASONS: &[&str] = &["payload does not match the schema", "payload is not JSON", "payload has a name twice"];
    const COUNTERS: &[&str] = &["valid", "invalid"];
    const MAX_OUTPUT: u32 = 1024;

    fn new(config: &[u8], _previous: Option<&[u8]>) -> Result<Self, String> {
        let config = Config::parse(config, &["schema", "on_invalid"])?;
        let schema = config.required("schema", "{\"type\": \"object\"}")?;
        if !matches!(schema, Value::Object(_) | Value::Bool(_)) {
            return Err(wrong("schema", schema, "the JSON Schema itself, an object such as {\"type\": \"object\"}"));
        }
        let on_invalid = [("deny", Verdict::deny as Judge), ("dead-letter", Verdict::dead_letter)];
        let judge = config.choice("on_invalid", &on_invalid)?;
        let validator = jsonschema::validator_for(schema).map_err(|error| {
            let place = error.schema_path().to_string();
            format!("configuration key `schema` is no JSON Schema: {error}, at {}; mend it there", pointer(&place))
        })?;
        Ok(Self { validator, judge })
    }

    fn on_event(&mut self, event: EventView<'_>) -> Verdict {
        let Unique(payload) = match serde_json::from_slice(event.payload()) {
            Ok(payload) => payload,
            Err(error) => {
                host::count(counter!("invalid"), 1);
                let reason = match error.is_data() {
                    true => reason!("payload has a name twice"),
                    false => reason!("payload is not JSON"),
                };
                return (self.judge)(reason).with_detail(error.to_string());
            }
        };
        let Err(error) = self.validator.validate(&payload) else {
            host::count(counter!("valid"), 1);
            return Verdict::allow();
        };
        host::count(counter!("invalid"), 1);
        let place = error.instance_path().to_string();
        let detail = format!("{}: {}", pointer(&place), error.masked());
        (self.judge)(reason!("payload does not match the schema")).with_detail(detail)
    }
}

/// The pointer of the whole document is empty, which reads like a slip.
fn pointer(pointer: &str) -> &str {
    if pointer.is_empty() { "(document)" } else { pointer }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use myelin_filter::testing::{Harness, Observed, run_fixtures};

    const CONFIG: &str = r#"{"schema":{"type":"object","required":["id"],"properties":{"id":{"type":"string"},
        "items":{"type":"array","items":{"properties":{"quantity":{"type":"integer","minimum":1}}}},
        "code":{"pattern":"^[a-z]{2}-\\d+$"}}}}"#;

    fn refused(config: &str) -> String {
        Harness::<SchemaJson>::new(config).err().unwrap()
    }

    fn judge(payload: &str) -> Observed {
        Harness::<SchemaJson>::new(CONFIG).unwrap().event("orders/eu").payload(payload).verdict()
    }

    #[test]
    fn fixtures_hold() {
        let report = run_fixtures::<SchemaJson>(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures"));
        assert_eq!(report.events, report.expectations, "every fixture says what it expects");
    }

    #[test]
    fn the_detail_begins_with_the_pointer_and_repeats_no_value() {
        let detail = |payload: &str| judge(payload).detail.unwrap();
        let quantity = detail(r#"{"id":"a","items":[{"quantity":1},{"quantity":-4711}]}"#);
        assert!(quantity.starts_with("/items/1/quantity: ") && !quantity.contains("4711"), "{quantity}");
        assert!(detail("{}").starts_with("(document): "), "{}", detail("{}"));
        let code = detail(r#"{"id":"a","code":"secret"}"#);
        assert!(code.starts_with("/code: ") && !code.contains("secret"), "{code}");
        assert_eq!(judge("{").reason.as_deref(), Some("payload is not JSON"));
    }

    #[test]
    fn what_readers_read_differently_does_not_pass() {
        for payload in [r#"{"id":1,"id":"a"}"#, r#"{"id":"a","x":[{"b":1,"\u0062":2}]}"#] {
            let told = judge(payload);
            assert_eq!(told.reason.as_deref(), Some("payload has a name twice"), "{payload}");
            assert!(told.detail.is_some_and(|detail| detail.contains("more than one member")), "{payload}");
        }
        let numbers = r#"{"id":"a","n":[0,-1,1.5,18446744073709551615,null,true,"\u00e4"]}"#;
        assert_eq!(judge(numbers).reason, None);
    }

    #[test]
    fn a_long_detail_fits() {
        let names = (0..500).map(|at| format!("\"name-{at}\"")).collect::<Vec<_>>().join(",");
        let config = format!("{{\"schema\":{{\"enum\":[{names}]}}}}");
        let detail = Harness::<SchemaJson>::new(config).unwrap().event("t").payload("1").verdict().detail.unwrap();
        assert!(detail.len() <= 1024, "{}", detail.len());
    }

    #[test]
    fn a_wrong_configuration_says_how_to_mend_it() {
        let missing = "configuration key `schema` is missing; write for example \"schema\": {\"type\": \"object\"}";
        assert_eq!(refused(""), missing);
        assert!(refused("{\"schema\":\"orders\"}").contains("`schema` is \"orders\"; write the JSON Schema itself"));
        assert!(refused("{\"schema\":{},\"on_fail\":1}").contains("`on_fail` is not known; known are `schema`"));
        let choice = refused("{\"schema\":{},\"on_invalid\":\"drop\"}");
        assert_eq!(choice, "configuration key `on_invalid` is \"drop\"; write \"deny\" or \"dead-letter\"");
        let bad = refused("{\"schema\":{\"type\":\"strin\"}}");
        assert!(bad.starts_with("configuration key `schema` is no JSON Schema: ") && bad.contains("strin"), "{bad}");
        let outside = refused("{\"schema\":{\"$ref\":\"https://example.org/a.json\"}}");
        assert!(outside.contains("https://example.org/a.json"), "{outside}");
        assert!(refused("{\"schema\":{\"pattern\":\"(\"}}").contains("no JSON Schema"));
    }

    #[test]
    fn events_are_counted() {
        let mut schema = Harness::<SchemaJson>::new(CONFIG).unwrap();
        for payload in [r#"{"id":"a"}"#, "{}", "x"] {
            schema.event("t").payload(payload).verdict();
        }
        assert_eq!((schema.counter("valid"), schema.counter("invalid")), (1, 2));
    }
}
