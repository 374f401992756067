//! What is decided is what Cedar says of all statements at once.

use super::*;
use cedar_policy::{Authorizer, PolicyId};
use proptest::prelude::*;

const TOPICS: [&str; 6] = ["orders", "orders/1", "orders/secret", "orders/**", "a*b", "$dead/x/orders/1"];
const SERVICES: [&str; 3] =
    ["spiffe://example.org/service/billing", "spiffe://example.org/service/shop", "spiffe://other/service/billing"];

/// Clauses about events that fit any action: they look first at whether there is one.
const LOOKS_ANYWHERE: [&str; 9] = [
    "when { context has event.source && context.event.source == \"x\" }",
    "when { context has event && context.event.type == \"order\" }",
    "when { !(context has event) || context.event.key like \"a*\" }",
    "when { !(context has event) }",
    "when { context has event || resource.name like \"orders*\" }",
    "when { if context has event then context.event.source == \"\" else context.site == \"hamburg\" }",
    "unless { context has event && context.event.source == \"x\" }",
    "unless { !(context has event) && principal.name == \"shop\" }",
    "unless { context has event && context.event.hasTag(\"region\") && context.event.getTag(\"region\") == \"eu\" }",
];

/// Conditions about events.
const LOOKS: [&str; 5] = [
    "context.event.hasTag(context.event.key) && context.event.getTag(context.event.key) == \"eu\"",
    "context.event.type == \"order\"",
    "context.event.hasTag(\"region\") && context.event.getTag(\"region\") == \"eu\"",
    "context.event.key like \"a*\" || resource.name like \"orders*\"",
    "context.site == \"hamburg\" && !(context.event.source == \"\")",
];

/// Conditions that are true of some of the above.
fn condition() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        prop::sample::select(&TOPICS[..]).prop_map(|topic| format!("resource.name == \"{topic}\"")),
        prop::sample::select(&TOPICS[..]).prop_map(|topic| format!("Topic::\"{topic}\" == resource")),
        prop::sample::select(&["orders/*", "orders*", "o*/*", "*secret", "a\\*b", "$dead/*"][..])
            .prop_map(|pattern| format!("resource.name like \"{pattern}\"")),
        prop::sample::select(&SERVICES[..]).prop_map(|service| format!("principal.id == \"{service}\"")),
        prop::sample::select(&["spiffe://example.org/*", "spiffe://*/service/shop", "*"][..])
            .prop_map(|pattern| format!("principal.id like \"{pattern}\"")),
        prop::sample::select(&["billing", "shop"][..]).prop_map(|name| format!("principal.name == \"{name}\"")),
        prop::sample::subsequence(TOPICS.to_vec(), 1..4)
            .prop_map(|topics| format!("{topics:?}.contains(resource.name)")),
        Just("principal in [Service::\"spiffe://other/service/billing\"]".to_owned()),
        Just("principal.trust_domain == \"other\"".to_owned()),
        Just("context.site == \"hamburg\"".to_owned()),
        Just("principal.groups.contains(\"staff\")".to_owned()),
        Just("principal.tenant == \"acme\"".to_owned()),
        Just("action == Action::\"publish\"".to_owned()),
        Just("[Action::\"request\", Action::\"subscribe\"].contains(action)".to_owned()),
    ];
    leaf.prop_recursive(3, 12, 2, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} && {b})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} || {b})")),
            inner.clone().prop_map(|a| format!("!({a})")),
            (inner.clone(), inner).prop_map(|(a, b)| format!("(if {a} then {b} else context.site == \"x\")")),
        ]
    })
}

fn statement() -> impl Strategy<Value = String> {
    let principal = prop_oneof![
        3 => Just("principal".to_owned()),
        1 => Just("principal is Service".to_owned()),
        1 => prop::sample::select(&SERVICES[..]).prop_map(|service| format!("principal == Service::\"{service}\"")),
    ];
    let action = prop_oneof![
        1 => Just("action"),
        2 => Just("action == Action::\"publish\""),
        1 => Just("action == Action::\"request\""),
        1 => Just("action in [Action::\"subscribe\", Action::\"request\"]"),
        1 => Just("action in [Action::\"publish\", Action::\"request\"]"),
    ];
    let resource = prop_oneof![
        3 => Just("resource".to_owned()),
        1 => prop::sample::select(&TOPICS[..]).prop_map(|topic| format!("resource == Topic::\"{topic}\"")),
    ];
    let effect = prop_oneof![2 => Just("permit"), 1 => Just("forbid")];
    let clauses = prop::collection::vec((prop_oneof![3 => Just("when"), 1 => Just("unless")], condition()), 0..3);
    let looks = prop_oneof![
        5 => Just(None),
        // Only what is sent is an event.
        2 => prop::sample::select(&LOOKS[..]).prop_map(|condition| Some((true, format!("when {{ {condition} }}")))),
        3 => prop::sample::select(&LOOKS_ANYWHERE[..]).prop_map(|clause| Some((false, clause.to_owned()))),
    ];
    (effect, principal, action, resource, clauses, looks).prop_map(
        |(effect, principal, action, resource, clauses, looks)| {
            let is_sent = looks.as_ref().is_some_and(|(is_sent, _)| *is_sent);
            let action = match is_sent {
                true if action.contains("request") => "action in [Action::\"request\", Action::\"reply\"]",
                true => "action in [Action::\"publish\", Action::\"reply\"]",
                false => action,
            };
            let mut text = format!("{effect} ({principal}, {action}, {resource})");
            looks.into_iter().for_each(|(_, clause)| write!(text, " {clause}").unwrap());
            clauses.iter().for_each(|(kind, condition)| write!(text, " {kind} {{ {condition} }}").unwrap());
            text + ";\n"
        },
    )
}

/// Cedar's own answer over all statements at once; of a request also over those of it that forbid publishing.
fn plain(text: &str, asked: &Question<'_>, event: Option<&EventHead<'_>>) -> (Verdict, Vec<String>) {
    let (verdict, mut reasons) = cedar(text, asked, event);
    if asked.action != Action::Request {
        return (verdict, reasons);
    }
    match cedar(text, &Question { action: Action::Publish, ..*asked }, event) {
        (Verdict::Forbid, forbidden) => {
            reasons.retain(|_| verdict == Verdict::Forbid);
            reasons.extend(forbidden);
            reasons.sort_unstable();
            reasons.dedup();
            (Verdict::Forbid, reasons)
        }
        _ => (verdict, reasons),
    }
}

fn cedar(text: &str, asked: &Question<'_>, event: Option<&EventHead<'_>>) -> (Verdict, Vec<String>) {
    let mut set = PolicySet::new();
    for (number, policy) in PolicySet::from_str(text).unwrap().policies().enumerate() {
        let at: usize = policy.id().to_string().strip_prefix("policy").unwrap().parse().unwrap();
        assert!(number < 100);
        set.add(policy.new_id(PolicyId::new(format!("p#{}", at + 1)))).unwrap();
    }
    let everything = Mentions { attributes: Names::Any, headers: Names::Any };
    let (request, entities) = crate::question::of_client(asked, event, &[&everything]).unwrap();
    let response = Authorizer::new().is_authorized(&request, &set, &entities);
    assert_eq!(response.diagnostics().errors().count(), 0);
    let mut reasons: Vec<_> = response.diagnostics().reason().map(ToString::to_string).collect();
    reasons.sort_unstable();
    let verdict = match response.decision() {
        cedar_policy::Decision::Allow => Verdict::Permit,
        cedar_policy::Decision::Deny if reasons.is_empty() => Verdict::Silent,
        cedar_policy::Decision::Deny => Verdict::Forbid,
    };
    (verdict, reasons)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_index_and_the_memory_say_what_cedar_says(statements in prop::collection::vec(statement(), 1..12)) {
        let text = statements.concat();
        // Cedar refuses some comparisons of texts that it can tell apart by themselves.
        let Ok(policies) = Policies::compile([("p", &*text)]) else { return Ok(()) };
        let mut decider = Decider::default();
        let events = [
            EventHead::default(),
            EventHead { kind: "order", key: "ab", ..EventHead::default() },
            EventHead { source: "x", key: "region", headers: vec![("region", "eu")], ..EventHead::default() },
        ];
        let place = Place { site: "hamburg", tenant: "acme" };
        for service in SERVICES.map(Service::new).into_iter().chain([billing().with_groups(["staff"])]) {
            for action in Action::ALL {
                for topic in TOPICS {
                    let asked = Question { service: &service, action, topic, place };
                    let told = policies.decide(&asked);
                    for _ in 0..2 {
                        prop_assert_eq!(decider.decide(&policies, (&service, action, topic), || place), told.verdict);
                    }
                    let by_event = match told.verdict {
                        Verdict::ByEvent { is_permitted } => Some(is_permitted),
                        _ => None,
                    };
                    prop_assert!(by_event.is_none() || action.has_event(), "{} in\n{}", action, text);
                    for event in events.iter().map(Some).chain((!action.has_event()).then_some(None)) {
                        let wanted = plain(&text, &asked, event);
                        let judged = event.map_or_else(|| told.clone(), |event| policies.judge(&asked, event));
                        let judged = (judged.verdict, judged.reasons);
                        prop_assert_eq!(&judged, &wanted, "{} {} {} in\n{}", service.id(), action, topic, text);
                        // What is said of all events is so of each; and what looks at them needs no other to be asked
                        // again.
                        let short = match (by_event, event) {
                            (Some(is_permitted), Some(event)) => policies.look(&asked, event, is_permitted),
                            _ => told.verdict,
                        };
                        prop_assert_eq!(short, wanted.0, "{}", text);
                    }
                }
            }
        }
    }

    #[test]
    fn no_text_does_harm(text in "[ -~\n]{0,400}") {
        if let Err(errors) = Policies::compile([("p", &*text)]) {
            prop_assert!(errors.iter().next().is_some());
        }
    }
}
