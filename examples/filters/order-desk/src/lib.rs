//! An order desk: an example that uses every kind of verdict and most host calls.
//!
//! Its twin in JavaScript, `examples/filters-js/order-desk`, passes the same fixtures, and the end-to-end tests hold
//! the two against each other: the worlds `fast` and `easy` are one contract.
//!
//! * Events of type `test` vanish.
//! * Only the configured tenants (header `x-tenant`) may order, each so many times a minute, over all workers.
//! * What is no order (JSON with an `id`) goes to the dead letters.
//! * The same order of the same tenant within a minute is dropped, counted.
//! * Orders to be reviewed go to `desk/review` only. Card numbers are masked. A refund is told to `audit/refunds`.
//!   Large orders are copied to `audit/orders`, marked and without their tenant.

use myelin_filter::config::{Config, Value, wrong};
use myelin_filter::host::Rate;
use myelin_filter::prelude::*;

/// From here on an order is audited.
const LARGE_CENTS: f64 = 100_000.0;
/// An order is known again for so long.
const DUPLICATE_MS: u64 = 60_000;
/// Orders a minute, where nothing else is said.
const PER_MINUTE: u64 = 60;
/// The most that can be configured.
const PER_MINUTE_MAX: u64 = 1_000_000;

/// The known tenants, their limit, and how many events were judged.
#[filter]
pub struct OrderDesk {
    tenants: Vec<String>,
    rate: Rate,
    judged: u16,
}

impl Filter for OrderDesk {
    const NEEDS: Needs = needs!(headers["x-tenant"], identity, payload);
    const ROUTES: &[&str] = &["topic:audit/orders", "topic:desk/review"];
    const REASONS: &[&str] = &["no tenant", "unknown tenant", "not an order", "too many orders"];
    const COUNTERS: &[&str] = &["duplicates", "masked"];
    const MAX_OUTPUT: u32 = 4096;

    fn new(config: &[u8], previous: Option<&[u8]>) -> Result<Self, String> {
        let config = Config::parse(config, &["tenants", "per_minute"])?;
        let tenants = config.required_texts("tenants", "[\"acme\", \"globex\"]")?;
        let tenants = tenants.into_iter().map(str::to_owned).collect();
        let per_minute = config.value("per_minute").map_or(Ok(PER_MINUTE), |value| {
            let number = value.as_u64().filter(|number| (1..=PER_MINUTE_MAX).contains(number));
            number.ok_or_else(|| wrong("per_minute", value, "a whole number from 1 to 1000000"))
        })?;
        let amount = u32::try_from(per_minute).unwrap_or(u32::MAX);
        let judged = previous.and_then(|state| state.try_into().ok()).map_or(0, u16::from_le_bytes);
        Ok(Self { tenants, rate: Rate { amount, period_ms: 60_000, burst: amount }, judged })
    }

    fn on_event(&mut self, event: EventView<'_>) -> Verdict {
        self.judged = self.judged.wrapping_add(1);
        if event.event_type() == Some("test") {
            return Verdict::drop();
        }
        let Some(tenant) = event.header(0) else {
            let from = format!("from {}", event.identity().unwrap_or_default());
            return Verdict::deny(reason!("no tenant")).with_detail(from);
        };
        if !self.tenants.iter().any(|known| known == tenant) {
            return Verdict::deny(reason!("unknown tenant"));
        }
        let order: Value = serde_json::from_slice(event.payload()).unwrap_or_default();
        let Some(id) = order["id"].as_str() else {
            return Verdict::dead_letter(reason!("not an order")).with_detail("/id");
        };
        if !host::take(tenant, 1, self.rate) {
            return Verdict::deny(reason!("too many orders"));
        }
        if host::seen(&format!("{tenant}/{id}"), DUPLICATE_MS) {
            host::count(counter!("duplicates"), 1);
            return Verdict::drop();
        }
        judge(&event, order)
    }

    fn save(&mut self) -> Vec<u8> {
        self.judged.to_le_bytes().to_vec()
    }
}

fn judge(event: &EventView<'_>, mut order: Value) -> Verdict {
    if order["review"] == true {
        return Verdict::redirect([route!(OrderDesk, "topic:desk/review")]);
    }
    if let Some(card) = order["card"].as_str() {
        host::count(counter!(OrderDesk, "masked"), 1);
        let hidden = card.chars().count().saturating_sub(4);
        let shown: String = card.chars().skip(hidden).collect();
        order["card"] = format!("****{shown}").into();
        return Verdict::allow().with_payload(order.to_string());
    }
    if order["refund"] == true {
        let at = event.now_unix_ns() / 1_000_000_000;
        let notice = serde_json::json!({"id": order["id"], "at": at}).to_string();
        let mut attrs = AttrsBuilder::new();
        attrs.header("x-kind", "refund");
        return Verdict::allow().emit("audit/refunds", attrs, notice);
    }
    if order["cents"].as_f64().is_some_and(|cents| cents >= LARGE_CENTS) {
        let marked = event.attrs_with(&[("x-large", Some("yes")), ("x-tenant", None)]);
        return Verdict::add([route!(OrderDesk, "topic:audit/orders")]).with_attrs(marked);
    }
    Verdict::allow()
}

#[cfg(test)]
mod tests {
    use super::*;
    use myelin_filter::testing::{Harness, run_fixtures};

    fn desk(per_minute: u32) -> Harness<OrderDesk> {
        Harness::new(format!("{{\"tenants\":[\"acme\"],\"per_minute\":{per_minute}}}")).expect("a good configuration")
    }

    fn verdict(desk: &mut Harness<OrderDesk>, payload: &str) -> myelin_filter::testing::Observed {
        desk.event("orders/new").header("x-tenant", "acme").payload(payload).verdict()
    }

    #[test]
    fn fixtures_hold() {
        let report = run_fixtures::<OrderDesk>(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures"));
        assert_eq!(report.events, report.expectations, "every fixture says what it expects");
    }

    #[test]
    fn limits_and_duplicates_end_with_time() {
        let mut desk = desk(2);
        assert_eq!(verdict(&mut desk, r#"{"id":"a"}"#).kind, Kind::Allow);
        assert_eq!(verdict(&mut desk, r#"{"id":"a"}"#).kind, Kind::Drop, "the same order");
        assert_eq!(verdict(&mut desk, r#"{"id":"b"}"#).reason.as_deref(), Some("too many orders"));
        desk.set_now_unix_ns(myelin_filter::testing::NOW_UNIX_NS + 60_000_000_000);
        assert_eq!(verdict(&mut desk, r#"{"id":"a"}"#).kind, Kind::Allow);
        assert_eq!(desk.counter("duplicates"), 1);
    }

    #[test]
    fn a_refund_is_told_and_a_large_order_marked() {
        let mut desk = desk(9);
        let refund = verdict(&mut desk, r#"{"id":"a","refund":true}"#);
        assert_eq!((refund.kind, refund.emitted[0].topic.as_str()), (Kind::Allow, "audit/refunds"));
        assert_eq!(refund.emitted[0].payload, br#"{"at":1767225600,"id":"a"}"#);
        let large = verdict(&mut desk, r#"{"id":"b","cents":100000}"#);
        assert_eq!((large.header("x-large"), large.header("x-tenant")), (Some("yes"), None));
    }

    #[test]
    fn a_wrong_configuration_says_how_to_mend_it() {
        let error = Harness::<OrderDesk>::new(r#"{"tenants":["a"],"per_minute":0}"#).err().unwrap_or_default();
        assert_eq!(error, "configuration key `per_minute` is 0; write a whole number from 1 to 1000000");
    }
}
