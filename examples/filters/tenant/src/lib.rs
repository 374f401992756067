//! The example filter of the README: only known tenants publish.
//!
//! The configuration lists them: `{"tenants": ["acme", "globex"]}`. Version 2 (`--features audit`) also copies
//! every order of 1,000.00 and more to `audit/orders`, and counts them. It takes over what version 1 has counted.
//! Version 3 (`--features tiers`) has the kind of bug that tests miss: the demo catches it at a canary.

use myelin_filter::config::Config;
use myelin_filter::prelude::*;

const VERSION: &str = match (cfg!(feature = "tiers"), cfg!(feature = "audit")) {
    (true, _) => "3.0.0",
    (false, true) => "2.0.0",
    (false, false) => "1.0.0",
};
/// From here on an order is audited.
const LARGE_CENTS: u64 = 100_000;

/// The known tenants, and how many events they sent.
#[filter(version = VERSION)]
pub struct Tenant {
    known: Vec<String>,
    seen: u64,
}

impl Filter for Tenant {
    // What is not needed is not copied into the filter: version 1 decides by the header alone.
    const NEEDS: Needs =
        if cfg!(feature = "audit") { needs!(headers["x-tenant"], payload) } else { needs!(headers["x-tenant"]) };
    // Declared by both versions, so that the grant of one binding fits both.
    const ROUTES: &[&str] = &["topic:audit/orders"];
    const REASONS: &[&str] = &["no tenant", "unknown tenant"];
    const COUNTERS: &[&str] = &["audited"];

    fn new(config: &[u8], previous: Option<&[u8]>) -> Result<Self, String> {
        let config = Config::parse(config, &["tenants"])?;
        let known = config.required_texts("tenants", "[\"acme\", \"globex\"]")?;
        let known = known.into_iter().map(str::to_owned).collect();
        let seen = previous.and_then(|state| state.try_into().ok()).map_or(0, u64::from_le_bytes);
        Ok(Self { known, seen })
    }

    fn on_event(&mut self, event: EventView<'_>) -> Verdict {
        let Some(tenant) = event.header(0) else { return Verdict::deny(reason!("no tenant")) };
        if !self.known.iter().any(|known| known == tenant) {
            return Verdict::deny(reason!("unknown tenant"));
        }
        self.seen += 1;
        if cfg!(feature = "tiers") {
            let tier = total(event.payload()).map_or(0, |total| total / LARGE_CENTS);
            // Nobody thought of an order of 2,000.00.
            let _name = ["small", "large"][usize::try_from(tier).unwrap_or_default()];
        }
        if cfg!(feature = "audit") && is_large(event.payload()) {
            host::count(counter!("audited"), 1);
            return Verdict::add([route!("topic:audit/orders")]);
        }
        Verdict::allow()
    }

    fn save(&mut self) -> Vec<u8> {
        self.seen.to_le_bytes().to_vec()
    }
}

fn is_large(payload: &[u8]) -> bool {
    total(payload).is_some_and(|total| total >= LARGE_CENTS)
}

fn total(payload: &[u8]) -> Option<u64> {
    json::field(payload, "total_cents")?.as_u64()
}

#[cfg(test)]
mod tests {
    use super::*;
    use myelin_filter::testing::{Harness, run_fixtures};

    const LARGE: &str = r#"{"order_id":"ord-1","total_cents":150000}"#;

    fn tenant() -> Harness<Tenant> {
        Harness::new(r#"{"tenants":["acme","globex"]}"#).expect("a good configuration")
    }

    #[test]
    fn fixtures_hold() {
        run_fixtures::<Tenant>(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures"));
    }

    #[test]
    fn large_orders_are_copied_by_version_2() {
        let verdict = tenant().event("orders/eu/paid").header("x-tenant", "acme").payload(LARGE).verdict();
        if cfg!(feature = "audit") {
            assert_eq!((verdict.kind, verdict.routes), (Kind::Add, vec!["topic:audit/orders".to_owned()]));
        } else {
            assert_eq!(verdict.kind, Kind::Allow);
        }
    }

    #[test]
    fn the_count_goes_over_to_the_next_version() {
        let mut first = tenant();
        first.event("orders/eu").header("x-tenant", "acme").verdict();
        let saved = first.save();
        let mut next =
            Harness::<Tenant>::with_previous(r#"{"tenants":["acme"]}"#, Some(&saved)).expect("a good configuration");
        next.event("orders/eu").header("x-tenant", "acme").verdict();
        assert_eq!(next.filter().seen, 2);
    }

    #[test]
    fn a_wrong_configuration_says_how_to_mend_it() {
        for config in ["", "{}", "{\"tenants\":[]}", "{\"tenants\":\"acme\"}"] {
            let error = Harness::<Tenant>::new(config).err().unwrap_or_default();
            assert!(error.contains("`tenants`") && error.contains("[\"acme\", \"globex\"]"), "{config}: {error}");
        }
    }
}
