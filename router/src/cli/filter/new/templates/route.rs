//! Routes orders: those of a known region go to that region's topic, and large ones are copied to the reviewers.
//!
//! Configuration: `{"review_cents": 100000}`; without it, orders of 1,000.00 and more are large.

use myelin_filter::config::{Config, wrong};
use myelin_filter::prelude::*;

/// From here on an order is reviewed, unless the configuration says otherwise.
const REVIEW_CENTS: u64 = 100_000;

/// `#[filter]` exports this type as the package's filter; name and version are those of Cargo.toml.
#[filter]
pub struct OrderRoutes {
    review_cents: u64,
}

impl Filter for OrderRoutes {
    // What the router copies into the filter for each event. What is not asked for costs nothing and reads as absent.
    const NEEDS: Needs = needs!(headers["x-region"], payload);
    // Where events may go besides or instead of their own topic. The operator grants them to the binding.
    const ROUTES: &[&str] = &["topic:regions/eu", "topic:regions/us", "topic:review/large"];

    fn new(config: &[u8], _previous: Option<&[u8]>) -> Result<Self, String> {
        // An error refuses the binding: the operator reads the sentence word for word.
        let config = Config::parse(config, &["review_cents"])?;
        let review_cents = match config.value("review_cents") {
            None => REVIEW_CENTS,
            Some(given) => given
                .as_u64()
                .ok_or_else(|| wrong("review_cents", given, "a number of cents such as 100000"))?,
        };
        Ok(Self { review_cents })
    }

    fn on_event(&mut self, event: EventView<'_>) -> Verdict {
        // `redirect` takes an event off its own topic. `route!` finds the place in ROUTES when the filter is compiled.
        match event.header(0) {
            Some("eu") => return Verdict::redirect([route!("topic:regions/eu")]),
            Some("us") => return Verdict::redirect([route!("topic:regions/us")]),
            // No region, or one that nobody serves: the event stays where it is.
            _ => {}
        }
        // Looks one field up without parsing the document: nanoseconds, where a parser takes microseconds.
        let total = json::field(event.payload(), "total_cents").and_then(|total| total.as_u64());
        match total {
            // `add` lets the event go on and sends a copy.
            Some(total) if total >= self.review_cents => {
                Verdict::add([route!("topic:review/large")])
            }
            _ => Verdict::allow(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use myelin_filter::testing::{Harness, run_fixtures};

    #[test]
    fn fixtures_hold() {
        run_fixtures::<OrderRoutes>(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures"));
    }

    #[test]
    fn the_limit_is_part_of_what_is_reviewed() {
        let mut routes =
            Harness::<OrderRoutes>::new(r#"{"review_cents":500}"#).expect("a configuration");
        let mut kind = |payload: &str| routes.event("orders/new").payload(payload).verdict().kind;
        assert_eq!(kind(r#"{"total_cents":499}"#), Kind::Allow);
        assert_eq!(kind(r#"{"total_cents":500}"#), Kind::Add);
    }

    #[test]
    fn a_wrong_configuration_says_what_to_write() {
        let error = Harness::<OrderRoutes>::new(r#"{"review_cents":"much"}"#).err();
        assert!(error.is_some_and(|error| error.contains("a number of cents such as 100000")));
    }
}
