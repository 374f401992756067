//! Validates orders: each is JSON with an `order_id` and a `total_cents` above zero; anything else is refused, and its
//! publisher learns which field is wrong.

use myelin_filter::prelude::*;

/// `#[filter]` exports this type as the package's filter; name and version are those of Cargo.toml.
#[filter]
pub struct OrderShape;

impl Filter for OrderShape {
    // What the router copies into the filter for each event. What is not asked for costs nothing and reads as absent.
    const NEEDS: Needs = needs!(payload);
    // Why the filter refuses. Publishers, dead letters and metrics name the text; a verdict carries its number.
    const REASONS: &[&str] = &["not JSON", "no order id", "no total"];
    // Room for the detail text. A filter that puts out more than this for one event has failed.
    const MAX_OUTPUT: u32 = 64;

    fn new(_config: &[u8], _previous: Option<&[u8]>) -> Result<Self, String> {
        Ok(Self)
    }

    fn on_event(&mut self, event: EventView<'_>) -> Verdict {
        let payload = event.payload();
        // `json::field` stops at the field that it looks for, so what stands behind it could be broken: `check` reads all.
        if let Err(offset) = json::check(payload) {
            return Verdict::deny(reason!("not JSON")).with_detail(format!("at byte {offset}"));
        }
        let id = json::field(payload, "order_id");
        if !id.is_some_and(|id| id.as_str().is_some_and(|id| !id.is_empty())) {
            return Verdict::deny(reason!("no order id")).with_detail("/order_id");
        }
        // `Verdict::dead_letter` would keep the event for somebody to look at, under `$dead/BINDING/TOPIC`.
        match json::field(payload, "total_cents").and_then(|total| total.as_u64()) {
            Some(1..) => Verdict::allow(),
            _ => Verdict::deny(reason!("no total")).with_detail("/total_cents"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use myelin_filter::testing::{Harness, run_fixtures};

    #[test]
    fn fixtures_hold() {
        run_fixtures::<OrderShape>(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures"));
    }

    #[test]
    fn the_detail_says_where() {
        let mut shape = Harness::<OrderShape>::new("").expect("it takes no configuration");
        let denied = shape
            .event("orders/new")
            .payload(r#"{"order_id":""}"#)
            .verdict();
        assert_eq!(denied.detail.as_deref(), Some("/order_id"));
    }
}
