#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use super::*;
use crate::limits::{OPERATORS_MAX, REMEMBERED_MAX, STATEMENTS_MAX, TEXT_BYTES_MAX, TOGETHER_MAX};
use crate::needs::{Need, of};
use cedar_policy::{Authorizer, PolicyId, PolicySet};
use proptest::prelude::*;
use std::fmt::Write;
use std::str::FromStr;

fn compile(text: &str) -> Policies {
    Policies::compile([("p", text)]).unwrap_or_else(|errors| panic!("{errors}\nin {text}"))
}

fn refused(text: &str) -> PolicyErrors {
    Policies::compile([("p", text)]).expect_err(text)
}

fn billing() -> Service {
    Service::new("spiffe://example.org/service/billing")
}

fn needs(text: &str) -> Vec<Need> {
    of(&cedar_policy::Policy::parse(None, text).unwrap().to_json().unwrap())
}

#[test]
fn a_name_has_its_parts() {
    let service = billing();
    assert_eq!((service.trust_domain(), service.path(), service.name()), ("example.org", "service/billing", "billing"));
    let odd = Service::new("x");
    assert_eq!((odd.trust_domain(), odd.path(), odd.name()), ("x", "", ""));
}

#[test]
fn statements_decide_and_are_named() {
    let policies = Policies::compile([
        ("orders", r#"permit (principal, action, resource) when { resource.name like "orders/*" };"#),
        (
            "secrets",
            r#"// Nobody but billing reads these.
            permit (principal == Service::"spiffe://example.org/service/billing", action, resource);
            forbid (principal, action == Action::"subscribe", resource)
              when { resource.name like "orders/secret*" } unless { principal.name == "billing" };"#,
        ),
    ])
    .unwrap();
    assert_eq!(policies.statements(), 3);
    let other = Service::new("spiffe://example.org/service/other");
    let decide = |who: &Service, action, topic| {
        let Decision { verdict, reasons } = policies.decide(who, action, topic, "hamburg");
        (verdict, reasons.join(" "))
    };
    assert_eq!(decide(&other, Action::Publish, "orders/1"), (Verdict::Permit, "orders#1".into()));
    assert_eq!(decide(&other, Action::Subscribe, "orders/secret"), (Verdict::Forbid, "secrets#2".into()));
    assert_eq!(decide(&billing(), Action::Subscribe, "orders/secret"), (Verdict::Permit, "orders#1 secrets#1".into()));
    assert_eq!(decide(&billing(), Action::Reply, INBOX_TOPIC), (Verdict::Permit, "secrets#1".into()));
    assert_eq!(decide(&other, Action::Publish, "else"), (Verdict::Silent, String::new()));
}

#[test]
fn a_place_can_decide() {
    let policies = compile(r#"permit (principal, action, resource) when { context.site == "hamburg" };"#);
    assert_eq!(policies.decide(&billing(), Action::Publish, "a", "hamburg").verdict, Verdict::Permit);
    assert_eq!(policies.decide(&billing(), Action::Publish, "a", "madrid").verdict, Verdict::Silent);
}

#[test]
fn what_cannot_be_evaluated_forbids() {
    let policies = compile(
        "permit (principal, action, resource);\n\
         forbid (principal, action, resource) when { 9223372036854775807 + 1 == 0 };",
    );
    let decision = policies.decide(&billing(), Action::Publish, "a", "hamburg");
    assert_eq!((decision.verdict, decision.reasons), (Verdict::Forbid, vec!["p#2".to_owned()]));
}

#[test]
fn faults_are_told_with_their_place_and_a_way_out() {
    let told = |text: &str| refused(text).to_string();
    let syntax = told("permit (principal, action, resource)\nwhen { resource.nam = \"x\" };");
    assert!(syntax.starts_with("p:2:"), "{syntax}");
    let attribute = told("permit (principal, action, resource)\n  when { resource.nme == \"x\" };");
    assert!(
        attribute.starts_with("p:2:10: ") && attribute.contains("nme") && attribute.contains("`name`"),
        "{attribute}"
    );
    let action = told(r#"permit (principal, action == Action::"publsh", resource);"#);
    assert!(action.contains("publsh") && action.contains("publish"), "{action}");
    let kind = told(r#"permit (principal, action, resource) when { resource.name > 3 };"#);
    assert!(kind.starts_with("p:1:") && kind.contains("type"), "{kind}");
    let event = told(r#"permit (principal, action, resource) when { context.payload == "x" };"#);
    assert!(event.contains("payload"), "{event}");
    assert!(told("permit (principal == ?principal, action, resource);").contains("name the service"));
    assert!(told("// nothing").contains("no statement"));
    let both = Policies::compile([("a", "permit"), ("b", "forbid"), ("c", "permit (principal, action, resource);")]);
    let names: Vec<_> = both.unwrap_err().iter().map(|error| error.policy.clone()).collect();
    assert!(names.contains(&"a".to_owned()) && names.contains(&"b".to_owned()), "{names:?}");
}

#[test]
fn size_and_depth_are_bounded() {
    let long = format!("// {}\npermit (principal, action, resource);", "x".repeat(TEXT_BYTES_MAX));
    assert!(refused(&long).to_string().contains("split it"));
    for deep in ["(", "[", "{", "!", "-", "if ", "true && ", "1 + ", "principal."] {
        let text = format!("permit (principal, action, resource) when {{ {} }};", deep.repeat(4_000));
        let told = refused(&text).to_string();
        assert!(told.starts_with("p:1:") && told.contains(&OPERATORS_MAX.to_string()), "{deep}: {told}");
    }
    // What a text or a comment holds is no operator, and the next statement begins anew.
    let quoted = format!(
        "permit (principal, action, resource) when {{ resource.name == \"\\\"{}\" }}; // {0}\n",
        "((".repeat(OPERATORS_MAX)
    );
    assert_eq!(compile(&quoted.repeat(40)).statements(), 40);
}

#[test]
fn statements_are_bounded() {
    let numbered = |count: usize| {
        (0..count).fold(String::new(), |mut text, number| {
            writeln!(text, "permit(principal,action,resource==Topic::\"{number}\");").unwrap();
            text
        })
    };
    let (text, names) = (numbered(1_024), ["a", "b", "c", "d", "e"]);
    let full = Policies::compile(names.map(|name| (name, &*text))).unwrap_err().to_string();
    assert!(full.starts_with("e: ") && full.contains(&STATEMENTS_MAX.to_string()), "{full}");
    let broad = "permit (principal, action, resource);\n".repeat(TOGETHER_MAX + 1);
    assert!(refused(&broad).to_string().contains("neither a topic nor a service"));
}

#[test]
fn statements_stand_where_they_are_needed() {
    let topic = |text: &str| Need::Topic(text.to_owned());
    let when = |condition: &str| needs(&format!("permit (principal, action, resource) when {{ {condition} }};"));
    assert_eq!(needs(r#"permit (principal, action, resource == Topic::"a");"#), [topic("a")]);
    assert_eq!(
        needs(r#"permit (principal is Service in Service::"a", action, resource);"#),
        [Need::Service("a".into())]
    );
    assert_eq!(when(r#"resource.name like "a/*/b*" && principal.name == "x""#), [Need::Name("x".into())]);
    assert_eq!(when(r#"resource.name like "a/*" && context.site == "x""#), [Need::TopicPrefix("a/".into())]);
    assert_eq!(when(r#"resource.name like "a\*b""#), [topic("a*b")]);
    assert_eq!(when(r#""a" == resource.name || resource == Topic::"b""#), [topic("a"), topic("b")]);
    assert_eq!(when(r#"["a", "b"].contains(resource.name)"#), [topic("a"), topic("b")]);
    assert_eq!(when(r#"resource.name == "a" || context.site == "x""#), [Need::Nothing]);
    assert_eq!(when(r#"!(resource.name == "a")"#), [Need::Nothing]);
    assert_eq!(when(r#"resource.name like "*""#), [Need::Nothing]);
    let unless = r#"permit (principal, action, resource) unless { resource.name == "a" };"#;
    assert_eq!(needs(unless), [Need::Nothing]);
}

#[test]
fn decisions_are_remembered_within_a_bound_and_forgotten() {
    let (mut decider, who) = (Decider::default(), billing());
    assert_eq!(decider.decide(&Policies::default(), &who, Action::Publish, "a", "s"), Verdict::Silent);
    assert_eq!(decider.remembered(), 0, "nothing is remembered of no policies");
    let policies = compile(r#"permit (principal, action, resource == Topic::"7");"#);
    for number in 0..REMEMBERED_MAX + 10 {
        let wanted = if number == 7 { Verdict::Permit } else { Verdict::Silent };
        assert_eq!(decider.decide(&policies, &who, Action::Publish, &number.to_string(), "s"), wanted);
    }
    assert_eq!(decider.remembered(), 10);
    assert_eq!(decider.decide(&policies, &who, Action::Publish, "7", "s"), Verdict::Permit);
    let other = compile(r#"forbid (principal, action, resource == Topic::"7");"#);
    decider.forget();
    assert_eq!(decider.decide(&other, &who, Action::Publish, "7", "s"), Verdict::Forbid);
}

#[test]
fn the_examples_of_the_page_compile() {
    let page = include_str!("../../../docs/POLICIES.md");
    let blocks: Vec<_> = page.split("```cedar\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(blocks.len() >= 7, "{}", blocks.len());
    let names: Vec<_> = (0..blocks.len()).map(|number| format!("p{number}")).collect();
    let texts = names.iter().map(String::as_str).zip(blocks.iter().copied());
    let policies = Policies::compile(texts).unwrap_or_else(|errors| panic!("{errors}"));
    let may = |who: &str, action, topic, site| {
        policies.decide(&Service::new(format!("spiffe://example.org/service/{who}")), action, topic, site).verdict
    };
    assert_eq!(may("shop", Action::Publish, "orders/eu/1", "ohio"), Verdict::Permit);
    assert_eq!(may("billing", Action::Subscribe, "orders/**", "ohio"), Verdict::Permit);
    assert_eq!(may("billing", Action::Subscribe, "orders/secret", "ohio"), Verdict::Forbid);
    assert_eq!(may("billing", Action::Subscribe, "**", "ohio"), Verdict::Silent);
    assert_eq!(may("team-a-web", Action::Publish, "team-a/x", "ohio"), Verdict::Permit);
    assert_eq!(may("pricing", Action::Reply, INBOX_TOPIC, "ohio"), Verdict::Permit);
    assert_eq!(may("any", Action::Subscribe, "invoices/1", "ohio"), Verdict::Forbid);
    assert_eq!(may("any", Action::Subscribe, "invoices/1", "hamburg"), Verdict::Silent);
}

const TOPICS: [&str; 6] = ["orders", "orders/1", "orders/secret", "orders/**", "a*b", "$dead/x/orders/1"];
const SERVICES: [&str; 3] =
    ["spiffe://example.org/service/billing", "spiffe://example.org/service/shop", "spiffe://other/service/billing"];

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
        Just("action"),
        Just("action == Action::\"publish\""),
        Just("action in [Action::\"subscribe\", Action::\"request\"]"),
    ];
    let resource = prop_oneof![
        3 => Just("resource".to_owned()),
        1 => prop::sample::select(&TOPICS[..]).prop_map(|topic| format!("resource == Topic::\"{topic}\"")),
    ];
    let effect = prop_oneof![2 => Just("permit"), 1 => Just("forbid")];
    let clauses = prop::collection::vec((prop_oneof![3 => Just("when"), 1 => Just("unless")], condition()), 0..3);
    (effect, principal, action, resource, clauses).prop_map(|(effect, principal, action, resource, clauses)| {
        let mut text = format!("{effect} ({principal}, {action}, {resource})");
        clauses.iter().for_each(|(kind, condition)| write!(text, " {kind} {{ {condition} }}").unwrap());
        text + ";\n"
    })
}

/// Cedar's own answer over all statements at once.
fn plain(text: &str, service: &Service, action: Action, topic: &str) -> (Verdict, Vec<String>) {
    let mut set = PolicySet::new();
    for (number, policy) in PolicySet::from_str(text).unwrap().policies().enumerate() {
        let at: usize = policy.id().to_string().strip_prefix("policy").unwrap().parse().unwrap();
        assert!(number < 100);
        set.add(policy.new_id(PolicyId::new(format!("p#{}", at + 1)))).unwrap();
    }
    let (request, entities) = crate::policies::question(service, action, topic, "hamburg").unwrap();
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
    #![proptest_config(ProptestConfig { cases: 192, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_index_and_the_memory_say_what_cedar_says(statements in prop::collection::vec(statement(), 1..12)) {
        let text = statements.concat();
        // Cedar refuses some comparisons of texts that it can tell apart by themselves.
        let Ok(policies) = Policies::compile([("p", &*text)]) else { return Ok(()) };
        let mut decider = Decider::default();
        for service in SERVICES.map(Service::new) {
            for action in Action::ALL {
                for topic in TOPICS {
                    let wanted = plain(&text, &service, action, topic);
                    let Decision { verdict, reasons } = policies.decide(&service, action, topic, "hamburg");
                    prop_assert_eq!(&(verdict, reasons), &wanted, "{} {} {} in\n{}", service.id(), action, topic, text);
                    for _ in 0..2 {
                        prop_assert_eq!(decider.decide(&policies, &service, action, topic, "hamburg"), wanted.0);
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
