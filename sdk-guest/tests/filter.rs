//! A filter that uses everything, as an author would write and test it.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "tests")]

use myelin_filter::host::Level;
use myelin_filter::prelude::*;
use myelin_filter::testing::{FixtureReport, Harness, NOW_UNIX_NS, Observed, OwnedEvent, run_fixtures};

#[filter(name = "orders", version = "2.1.0")]
struct Orders {
    seen: u64,
    prefix: String,
}

impl Filter for Orders {
    const NEEDS: Needs = needs!(headers["x-tenant", "x-action"], identity, payload_prefix(4));
    const ROUTES: &[&str] = &["topic:audit/log", "site:eu-1", "topic:orders/big"];
    const REASONS: &[&str] = &["no tenant", "blocked"];
    const COUNTERS: &[&str] = &["seen", "blocked"];
    const MAX_OUTPUT: u32 = 64;

    fn new(config: &[u8], previous: Option<&[u8]>) -> Result<Self, String> {
        let prefix = String::from_utf8(config.to_vec()).map_err(|_| "the configuration is not UTF-8".to_owned())?;
        let seen = previous.and_then(|state| state.try_into().ok()).map_or(0, u64::from_le_bytes);
        Ok(Self { seen, prefix })
    }

    fn on_event(&mut self, event: EventView<'_>) -> Verdict {
        self.seen += 1;
        host::count(counter!("seen"), 1);
        if event.header(0).is_none() {
            return Verdict::deny(reason!("no tenant"))
                .with_detail(format!("from {}", event.identity().unwrap_or("?")));
        }
        match event.header(1) {
            None => Verdict::allow(),
            Some("block") => self.block(),
            Some("drop") => Verdict::drop(),
            Some("copy") => Verdict::add([route!("topic:audit/log"), route!("topic:orders/big")]),
            Some("move") => Verdict::redirect([route!("site:eu-1")]),
            Some("tag") => Verdict::allow().with_attrs(event.attrs_with(&[
                ("x-action", None),
                ("x-tenant", Some("other")),
                ("x-new", Some("1")),
            ])),
            Some("payload") => Verdict::allow().with_payload(event.payload()).emit(
                format!("{}copy", self.prefix),
                AttrsBuilder::new(),
                event.payload_whole().into_owned(),
            ),
            Some("time") => Verdict::allow().with_payload(event.now_unix_ns().to_string()),
            Some("long") => Verdict::deny(reason!("blocked")).with_detail("ü".repeat(200)),
            Some("flood") => Verdict::allow().with_payload(vec![0; 65]),
            Some("lie") => Verdict::deny(Reason::nth(2)),
            Some("broken") => Verdict::drop().with_payload("x"),
            Some(schema) => Verdict::allow().with_payload(host::schema(schema).unwrap_or_default()),
        }
    }

    fn save(&mut self) -> Vec<u8> {
        self.seen.to_le_bytes().to_vec()
    }
}

impl Orders {
    fn block(&self) -> Verdict {
        host::log(Level::Warn, "blocked");
        Verdict::dead_letter(reason!("blocked"))
    }
}

/// Outside of the filter's own `impl` the macro is told the type.
const BLOCKED: Reason = reason!(Orders, "blocked");

fn harness() -> Harness<Orders> {
    Harness::new("p/").unwrap()
}

fn act(harness: &mut Harness<Orders>, action: &str) -> Observed {
    harness.event("orders/eu").header("x-tenant", "acme").header("x-action", action).payload("123456789").verdict()
}

#[test]
fn verdicts_come_with_their_texts() {
    let mut orders = harness();
    let denied = orders.event("orders/eu").identity("spiffe://m/service/a").verdict();
    assert_eq!((denied.kind, denied.reason.as_deref()), (Kind::Deny, Some("no tenant")));
    assert_eq!(denied.detail.as_deref(), Some("from spiffe://m/service/a"));
    assert_eq!(act(&mut orders, "copy").routes, ["topic:audit/log", "topic:orders/big"]);
    assert_eq!(act(&mut orders, "move").routes, ["site:eu-1"]);
    assert_eq!(act(&mut orders, "move").kind, Kind::Redirect);
    assert_eq!(act(&mut orders, "drop").kind, Kind::Drop);
    let blocked = act(&mut orders, "block");
    assert_eq!((blocked.kind, blocked.reason.as_deref()), (Kind::DeadLetter, Some("blocked")));
    assert_eq!(orders.logs(), [(Level::Warn, "blocked".to_owned())]);
    assert_eq!((orders.counter("seen"), orders.counter("blocked")), (6, 0));
    assert_eq!(BLOCKED, Reason::nth(1));
}

#[test]
fn only_what_is_needed_is_seen_and_the_rest_is_asked_for() {
    let observed = act(&mut harness(), "payload");
    assert_eq!(observed.payload_text(), Some("1234"), "the prefix");
    assert_eq!(observed.emitted.len(), 1);
    assert_eq!((observed.emitted[0].topic.as_str(), &observed.emitted[0].payload[..]), ("p/copy", &b"123456789"[..]));
}

#[test]
fn headers_are_changed_removed_and_added() {
    let observed = act(&mut harness(), "tag");
    assert_eq!(observed.header("x-tenant"), Some("other"));
    assert_eq!(observed.header("x-action"), None);
    assert_eq!(observed.header("x-new"), Some("1"));
    assert_eq!(observed.payload, None);
}

#[test]
fn a_batch_keeps_its_order_and_its_outputs_apart() {
    let mut orders = harness();
    let event = |orders: &mut Harness<Orders>, action: &str| -> OwnedEvent {
        orders.event("t").header("x-tenant", "a").header("x-action", action).payload(action).into_owned()
    };
    let actions = ["copy", "payload", "drop", "payload", "tag"];
    let batch = actions.map(|action| event(&mut orders, action)).to_vec();
    let observed = orders.batch(batch);
    let kinds: Vec<_> = observed.iter().map(|one| one.kind).collect();
    assert_eq!(kinds, [Kind::Add, Kind::Allow, Kind::Drop, Kind::Allow, Kind::Allow]);
    assert_eq!(observed[1], observed[3]);
    assert_eq!(observed[1].emitted[0].payload, b"payload");
    assert_eq!((observed[2].payload.clone(), observed[4].header("x-new")), (None, Some("1")));
    assert!(orders.batch(vec![]).is_empty());
}

#[test]
fn state_goes_over_to_the_next_version() {
    let mut orders = harness();
    act(&mut orders, "drop");
    let saved = orders.save();
    let mut next = Harness::<Orders>::with_previous("", Some(&saved)).unwrap();
    act(&mut next, "drop");
    assert_eq!(next.filter().seen, 2);
}

#[test]
fn clock_and_schemas_are_the_tests_own() {
    let mut orders = harness();
    assert_eq!(act(&mut orders, "time").payload_text(), Some(NOW_UNIX_NS.to_string().as_str()));
    orders.set_now_unix_ns(7);
    assert_eq!(act(&mut orders, "time").payload_text(), Some("7"));
    orders.set_schema("s", "{}");
    assert_eq!(act(&mut orders, "s").payload_text(), Some("{}"));
    assert_eq!(act(&mut orders, "none").payload_text(), Some(""));
}

#[test]
fn a_refused_configuration_says_why() {
    assert_eq!(Harness::<Orders>::new([0xff]).err().as_deref(), Some("the configuration is not UTF-8"));
}

#[test]
fn a_long_detail_is_cut_between_characters() {
    let detail = act(&mut harness(), "long").detail.unwrap();
    assert_eq!(detail, "ü".repeat(32), "64 bytes");
}

#[test]
fn a_filter_is_named_after_its_attribute() {
    use myelin_filter::Described;
    assert_eq!((Orders::NAME, Orders::VERSION), ("orders", "2.1.0"));
}

#[test]
#[should_panic(expected = "puts out 65 bytes for one event; MAX_OUTPUT is 64")]
fn too_much_output_is_noticed() {
    act(&mut harness(), "flood");
}

#[test]
#[should_panic(expected = "the reason id is outside the declared reasons")]
fn an_undeclared_reason_is_noticed() {
    act(&mut harness(), "lie");
}

#[test]
#[should_panic(expected = "an event that does not go on is replaced")]
fn a_new_payload_for_a_dropped_event_is_noticed() {
    act(&mut harness(), "broken");
}

#[filter]
struct Mute;

impl Filter for Mute {
    fn new(_: &[u8], _: Option<&[u8]>) -> Result<Self, String> {
        Ok(Self)
    }

    fn on_event(&mut self, event: EventView<'_>) -> Verdict {
        match event.topic() {
            "detail" => Verdict::deny(Reason::default()).with_detail("why"),
            _ => Verdict::redirect([]),
        }
    }
}

#[test]
#[should_panic(expected = "MAX_OUTPUT is 0 bytes; raise it")]
fn a_detail_without_room_is_noticed() {
    Harness::<Mute>::new("").unwrap().event("detail").verdict();
}

#[test]
fn no_route_at_all_is_a_drop() {
    assert_eq!(Harness::<Mute>::new("").unwrap().event("a").verdict().kind, Kind::Drop);
}

/// Runs one fixture, in a folder of the test's own.
fn fixture(test: &str, expect: &str) -> FixtureReport {
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(test);
    std::fs::create_dir_all(&folder).unwrap();
    let action = if expect.contains("emitted") { "payload" } else { "tag" };
    let headers = format!(r#"{{"x-tenant":"acme","x-action":"{action}"}}"#);
    let line = format!(r#"{{"topic":"a","headers":{headers},"payload":{{"n":1}},"expect":{expect}}}"#);
    std::fs::write(folder.join("one.jsonl"), line).unwrap();
    run_fixtures::<Orders>(&folder)
}

#[test]
fn fixtures_expect_headers_details_and_emitted_events() {
    let report = fixture("headers", r#"{"verdict":"allow","headers":{"x-new":"1","x-action":null}}"#);
    assert_eq!((report.events, report.expectations), (1, 1));
    // The harness begins without a configuration, so that the copy goes to `copy`.
    fixture("emitted", r#"{"verdict":"allow","emitted":[{"topic":"copy","headers":{"x":null},"payload":{"n":1}}]}"#);
    fixture("untouched", r#"{"verdict":"allow","headers":{"x-action":"payload"},"emitted":[{"topic":"copy"}]}"#);
}

#[test]
#[should_panic(expected = "one.jsonl:1: expected headers")]
fn a_header_that_is_not_as_expected_is_noticed() {
    fixture("wrong-header", r#"{"verdict":"allow","headers":{"x-new":"2"}}"#);
}

#[test]
#[should_panic(expected = "one.jsonl:1: expected detail")]
fn a_missing_detail_is_noticed() {
    fixture("wrong-detail", r#"{"verdict":"allow","detail":"why"}"#);
}

#[test]
#[should_panic(expected = "one.jsonl:1: expected emitted")]
fn an_event_too_much_is_noticed() {
    fixture("wrong-emitted", r#"{"verdict":"allow","emitted":[]}"#);
}
