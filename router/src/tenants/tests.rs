#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use super::*;
use myelin_catalog::Quota;
use proptest::prelude::*;
use serde_json::{Value, json};

fn table(tenants: &[Value]) -> Tenants {
    let tenants: Vec<Arc<Tenant>> =
        tenants.iter().map(|tenant| Arc::new(serde_json::from_value(tenant.clone()).unwrap())).collect();
    tenants.iter().for_each(|tenant| tenant.validate().unwrap());
    Tenants::after(&Tenants::default(), tenants.iter())
}

fn two() -> Tenants {
    table(&[
        json!({"name": "acme", "services": ["spiffe://acme.example/*", "jwt:anna"], "root": "acme", "shares": [
            {"topics": "acme/news/**", "with": ["*"]},
            {"topics": "acme/ask/*", "with": ["umbra"], "access": "publish"},
        ]}),
        json!({"name": "umbra", "services": ["spiffe://acme.example/umbra/*"], "root": "customers/umbra"}),
    ])
}

const ACME: &str = "spiffe://acme.example/shop";
const UMBRA: &str = "spiffe://acme.example/umbra/shop";
const NOBODY: &str = "spiffe://else.example/shop";

#[test]
fn a_service_belongs_to_the_longest_selector_that_fits() {
    let tenants = two();
    let of = |id: &str| tenants.of(&Service::new(id)).map(|known| known.tenant.name.to_string());
    assert_eq!(of(ACME).as_deref(), Some("acme"));
    assert_eq!(of(UMBRA).as_deref(), Some("umbra"));
    assert_eq!(of("jwt:anna").as_deref(), Some("acme"));
    for nobody in [NOBODY, "jwt:anna2", "spiffe://acme.example", "", "ß"] {
        assert_eq!(of(nobody), None, "{nobody}");
    }
}

#[test]
fn topics_are_for_their_tenant_and_those_it_shares_them_with() {
    use Action::{Publish, Request, Subscribe};
    let tenants = two();
    let may = |id: &str, action, topic: &str| tenants.check(&Service::new(id), action, topic).is_ok();
    for (id, action, topic, wanted) in [
        (ACME, Publish, "acme", true),
        (ACME, Publish, "acme/a/b", true),
        (ACME, Publish, "acme2/a", false),
        (ACME, Publish, "customers/umbra/a", false),
        (ACME, Publish, "orders", false),
        (ACME, Subscribe, "acme/**", true),
        (ACME, Subscribe, "**", false),
        (ACME, Subscribe, "*/a", false),
        (ACME, Subscribe, "acm*", false),
        (UMBRA, Publish, "customers/umbra/a", true),
        (UMBRA, Subscribe, "customers/*", false),
        (UMBRA, Subscribe, "customers/umbra/*/x", true),
        // What is shared, and nothing around it.
        (UMBRA, Subscribe, "acme/news/today", true),
        (UMBRA, Subscribe, "acme/news/**", true),
        (UMBRA, Subscribe, "acme/**", false),
        (UMBRA, Subscribe, "acme/*/today", false),
        (UMBRA, Publish, "acme/news/today", false),
        (UMBRA, Request, "acme/ask/price", true),
        (UMBRA, Subscribe, "acme/ask/price", false),
        (NOBODY, Subscribe, "acme/news/today", true),
        (NOBODY, Request, "acme/ask/price", false),
        (NOBODY, Publish, "acme/a", false),
        (NOBODY, Publish, "orders", true),
        (NOBODY, Publish, "customers/else", true),
        // Each topic is looked at by itself.
        (NOBODY, Subscribe, "**", true),
        (NOBODY, Subscribe, "customers/**", true),
        (NOBODY, Subscribe, "acme/*", false),
        // Dead letters are of whom their events were of.
        (ACME, Subscribe, "$dead/gate/acme/x", true),
        (ACME, Subscribe, "$dead/*/acme/**", true),
        (ACME, Subscribe, "$dead/gate/customers/umbra/x", false),
        (ACME, Subscribe, "$dead/**", false),
        (ACME, Subscribe, "$dead/gate", false),
        // What is shared is what came in: what was turned back has the reason, and whatever a filter would have taken out.
        (UMBRA, Subscribe, "acme/news/today", true),
        (UMBRA, Subscribe, "$dead/gate/acme/news/today", false),
        (UMBRA, Subscribe, "$dead/*/acme/news/**", false),
        (NOBODY, Subscribe, "$dead/**", true),
        (NOBODY, Subscribe, "$dead/gate", false),
        (NOBODY, Subscribe, "$dead/gate/acme/x", false),
    ] {
        assert_eq!(may(id, action, topic), wanted, "{id} {action} {topic}");
    }
}

#[test]
fn answers_go_to_the_own_tenant_and_to_those_who_may_ask() {
    let tenants = two();
    let may = |id: &str, inbox: &str| tenants.check(&Service::new(id), Action::Reply, inbox).is_ok();
    let (acme, umbra, none) = ("$inbox/1/2-0-3-1:acme/7", "$inbox/1/2-0-4-1:umbra/7", "$inbox/1/2-0-5-1/7");
    assert_eq!([acme, umbra, none].map(|inbox| may(ACME, inbox)), [true, true, false]);
    assert_eq!([acme, umbra, none].map(|inbox| may(UMBRA, inbox)), [false, true, false]);
    assert_eq!([acme, umbra, none].map(|inbox| may(NOBODY, inbox)), [false, false, true]);
    let suffix = inbox_suffix(Some(&Usage::new("acme")));
    assert_eq!(tenant_of_inbox(&format!("$inbox/1/2-0-3-1{suffix}/7")), Some("acme"));
    assert_eq!((inbox_suffix(None), tenant_of_inbox("$inbox/1")), (String::new(), None));
}

#[test]
fn without_tenants_everything_is_for_everybody() {
    let tenants = Tenants::default();
    for action in Action::ALL {
        assert_eq!(tenants.check(&Service::new(NOBODY), action, "$dead/gate"), Ok(()));
    }
}

#[test]
fn another_table_goes_on_counting() {
    let before = two();
    let usage = before.find("acme").unwrap().usage.clone();
    usage.charge(0, Spent { events: 5, bytes: 70, filters_ns: 9 });
    let _connected = usage.connect().unwrap();
    let acme = json!({"name": "acme", "services": ["x"], "root": "acme", "quota": {"connections": 1}});
    let acme: Arc<Tenant> = Arc::new(serde_json::from_value(acme).unwrap());
    let after = Tenants::after(&before, [&acme].into_iter());
    let kept = &after.find("acme").unwrap().usage;
    assert!(Arc::ptr_eq(kept, &usage) && after.find("umbra").is_none());
    assert_eq!((kept.figures().events, kept.figures().bytes, kept.figures().filters_ns), (5, 70, 9));
    // What is beyond the new quota stays, and nothing comes on top.
    assert_eq!(kept.connect().unwrap_err().code.name(), "too-many-sessions");
    assert_eq!((kept.figures().connections, kept.figures().connections_refused), (1, 1));
}

#[test]
fn connections_are_given_back_and_dead_letters_have_a_rate() {
    let usage = Arc::new(Usage::new("acme"));
    usage.bound(&Quota { connections: Some(2), dead_letters_per_s: Some(10), ..Quota::default() });
    let (first, _second) = (usage.connect().unwrap(), usage.connect().unwrap());
    usage.connect().unwrap_err();
    drop(first);
    usage.connect().unwrap();
    let buried = (0..10).filter(|_| usage.may_bury(1_000_000_000)).count();
    assert_eq!((buried, usage.figures().dead_letters, usage.figures().dead_letters_refused), (2, 2, 8));
}

#[test]
fn a_rate_bounds_the_batches_and_any_of_the_rates_is_waited_for() {
    let usage = Usage::new("acme");
    assert_eq!(usage.events_per_round(2_048), 2_048);
    for (per_s, wanted) in [(1, 1), (1_000, 20), (1_000_000, 2_048)] {
        usage.bound(&Quota { events_per_s: Some(per_s), ..Quota::default() });
        assert_eq!(usage.events_per_round(2_048), wanted);
    }
    for quota in [
        Quota { events_per_s: Some(1), ..Quota::default() },
        Quota { bytes_per_s: Some(1), ..Quota::default() },
        Quota { filter_ms_per_s: Some(1), ..Quota::default() },
    ] {
        let usage = Usage::new("acme");
        usage.bound(&quota);
        usage.charge(0, Spent { events: 100, bytes: 100, filters_ns: 100_000_000 });
        // A hundred units of a second each.
        assert_eq!(usage.wait_ns(0), 100_000_000_000, "{quota:?}");
    }
}

/// Levels that make roots, topics and patterns meet often.
fn level() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["a", "b", "c", "*"])
}

proptest! {
    /// Whoever may subscribe to a pattern as a member of a tenant may have every topic that it matches.
    #[test]
    fn no_pattern_reaches_further_than_its_topics(
        levels in prop::collection::vec(level(), 1..5),
        deep in any::<bool>(),
        topic in prop::collection::vec(prop::sample::select(vec!["a", "b", "c"]), 1..6),
        who in prop::sample::select(vec!["s-a", "s-b"]),
    ) {
        let tenants = table(&[
            json!({"name": "a", "services": ["s-a"], "root": "a", "shares": [{"topics": "a/b/*", "with": ["b"]}]}),
            json!({"name": "b", "services": ["s-b"], "root": "b/c"}),
        ]);
        let mut text = levels.join("/");
        if deep {
            text += "/**";
        }
        let (pattern, topic, who) = (Pattern::new(&text).unwrap(), topic.join("/"), Service::new(who));
        if tenants.check(&who, Action::Subscribe, &text).is_ok() && pattern.matches(&topic) {
            prop_assert_eq!(tenants.check(&who, Action::Subscribe, &topic), Ok(()), "{} {}", text, topic);
        }
    }
}
