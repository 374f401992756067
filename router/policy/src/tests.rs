#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use super::*;
use crate::limits::{OPERATORS_MAX, REMEMBERED_MAX, STATEMENTS_MAX, TEXT_BYTES_MAX, TOGETHER_MAX};
use crate::mentions::{Mentions, Names};
use crate::needs::{Need, of};
use cedar_policy::PolicySet;
use std::fmt::Write;
use std::str::FromStr;

mod agreement;

fn compile(text: &str) -> Policies {
    Policies::compile([("p", text)]).unwrap_or_else(|errors| panic!("{errors}\nin {text}"))
}

fn refused(text: &str) -> PolicyErrors {
    Policies::compile([("p", text)]).expect_err(text)
}

const fn at(site: &str) -> Place<'_> {
    Place { site, tenant: "" }
}

fn asked<'a>(service: &'a Service, action: Action, topic: &'a str, site: &'a str) -> Question<'a> {
    Question { service, action, topic, place: at(site) }
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
        let Decision { verdict, reasons } = policies.decide(&asked(who, action, topic, "hamburg"));
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
    assert_eq!(policies.decide(&asked(&billing(), Action::Publish, "a", "hamburg")).verdict, Verdict::Permit);
    assert_eq!(policies.decide(&asked(&billing(), Action::Publish, "a", "madrid")).verdict, Verdict::Silent);
}

#[test]
fn what_cannot_be_evaluated_forbids() {
    let policies = compile(
        "permit (principal, action, resource);\n\
         forbid (principal, action, resource) when { 9223372036854775807 + 1 == 0 };",
    );
    let decision = policies.decide(&asked(&billing(), Action::Publish, "a", "hamburg"));
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
    assert_eq!(decider.decide(&Policies::default(), (&who, Action::Publish, "a"), || at("s")), Verdict::Silent);
    assert_eq!(decider.remembered(), 0, "nothing is remembered of no policies");
    let policies = compile(r#"permit (principal, action, resource == Topic::"7");"#);
    for number in 0..REMEMBERED_MAX + 10 {
        let wanted = if number == 7 { Verdict::Permit } else { Verdict::Silent };
        assert_eq!(decider.decide(&policies, (&who, Action::Publish, &number.to_string()), || at("s")), wanted);
    }
    assert_eq!(decider.remembered(), 10);
    assert_eq!(decider.decide(&policies, (&who, Action::Publish, "7"), || at("s")), Verdict::Permit);
    let other = compile(r#"forbid (principal, action, resource == Topic::"7");"#);
    decider.forget();
    assert_eq!(decider.decide(&other, (&who, Action::Publish, "7"), || at("s")), Verdict::Forbid);
}

#[test]
fn the_examples_of_the_page_compile() {
    let page = include_str!("../../../docs/POLICIES.md");
    let blocks: Vec<_> = page.split("```cedar\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(blocks.len() >= 8, "{}", blocks.len());
    let names: Vec<_> = (0..blocks.len()).map(|number| format!("p{number}")).collect();
    let texts = names.iter().map(String::as_str).zip(blocks.iter().copied());
    let policies = Policies::compile(texts).unwrap_or_else(|errors| panic!("{errors}"));
    let may = |who: &str, action, topic, site| {
        let service = Service::new(format!("spiffe://example.org/service/{who}"));
        policies.decide(&asked(&service, action, topic, site)).verdict
    };
    assert_eq!(may("shop", Action::Publish, "orders/eu/1", "ohio"), Verdict::Permit);
    assert_eq!(may("billing", Action::Subscribe, "orders/**", "ohio"), Verdict::Permit);
    assert_eq!(may("billing", Action::Subscribe, "orders/secret", "ohio"), Verdict::Forbid);
    assert_eq!(may("billing", Action::Subscribe, "**", "ohio"), Verdict::Silent);
    assert_eq!(may("team-a-web", Action::Publish, "team-a/x", "ohio"), Verdict::Permit);
    assert_eq!(may("pricing", Action::Reply, INBOX_TOPIC, "ohio"), Verdict::Permit);
    assert_eq!(may("any", Action::Subscribe, "invoices/1", "ohio"), Verdict::Forbid);
    assert_eq!(may("any", Action::Subscribe, "invoices/1", "hamburg"), Verdict::Silent);
    assert_eq!(may("any", Action::Subscribe, "vault/1", "ohio"), Verdict::Forbid);
    assert_eq!(may("any", Action::Publish, "vault/1", "ohio"), Verdict::ByEvent { is_permitted: false });
    // Nobody is let pass for what their own event says of where it comes from.
    let said = |who: &str, topic, event: &EventHead<'_>| {
        let service = Service::new(format!("spiffe://example.org/{who}"));
        policies.judge(&asked(&service, Action::Request, topic, "ohio"), event).verdict
    };
    let claimed = EventHead { kind: "seal", source: "gateway", ..EventHead::default() };
    assert_eq!(said("service/any", "vault/1", &claimed), Verdict::Forbid);
    assert_eq!(said("jwt/corp/gateway", "vault/1", &claimed), Verdict::Forbid);
    assert_eq!(said("service/gateway", "vault/1", &claimed), Verdict::Silent);
    assert_eq!(said("service/gateway", "vault/1", &EventHead::default()), Verdict::Forbid);
    assert_eq!(said("service/any", "claims/1", &EventHead { kind: "payout", ..claimed }), Verdict::Forbid);
    // The last part of a name is not the name: a token may say any subject.
    let token = Service::new("spiffe://example.org/jwt/corp/billing");
    assert_eq!(policies.decide(&asked(&token, Action::Subscribe, "orders/**", "ohio")).verdict, Verdict::Silent);
}

#[test]
fn who_somebody_is_decides_as_their_token_and_their_tenant_say() {
    let policies = compile(
        r#"permit (principal, action, resource) when { principal.groups.contains("staff") };
        forbid (principal, action, resource) when { principal.tenant == "acme" };"#,
    );
    let staff = billing().with_groups(["staff", "night", "staff"]);
    assert_eq!(staff.groups().iter().map(|group| &**group).collect::<Vec<_>>(), ["night", "staff"]);
    let decide = |service, tenant| {
        let place = Place { site: "s", tenant };
        policies.decide(&Question { service, action: Action::Publish, topic: "a", place }).verdict
    };
    assert_eq!(decide(&staff, ""), Verdict::Permit);
    assert_eq!(decide(&staff, "acme"), Verdict::Forbid);
    assert_eq!(decide(&billing(), ""), Verdict::Silent);
    // What is remembered of one is not of the other, who has the same name and no group.
    let mut decider = Decider::default();
    for (service, wanted) in [(&staff, Verdict::Permit), (&billing(), Verdict::Silent), (&staff, Verdict::Permit)] {
        assert_eq!(decider.decide(&policies, (service, Action::Publish, "a"), || at("s")), wanted);
    }
}

#[test]
fn what_a_statement_mentions_is_all_that_it_asks_for() {
    let mentions =
        |text: &str| Mentions::of(&PolicySet::from_str(text).unwrap().policies().next().unwrap().to_json().unwrap());
    let named = |names: &[&str]| Names::These(names.iter().map(|name| (*name).into()).collect());
    let found = mentions(r#"permit (principal, action, resource) when { context.event.hasTag("region") };"#);
    assert_eq!(found, Mentions { attributes: named(&["event"]), headers: named(&["region"]) });
    let path = mentions(r"permit (principal, action, resource) when { context has event.source };");
    assert!(["event", "source"].iter().all(|name| path.attributes.contain(name)), "{path:?}");
    let dynamic = r"permit (principal, action, resource) unless { context.event.hasTag(context.event.key) };";
    let mut dynamic = mentions(dynamic);
    assert_eq!(dynamic.headers, Names::Any);
    dynamic.extend(&found);
    assert!(dynamic.headers.contain("else") && dynamic.attributes.contain("key") && !dynamic.attributes.contain("id"));
    let none = mentions(r#"permit (principal == Service::"a", action, resource is Topic);"#);
    assert_eq!(none, Mentions::default());
}

#[test]
fn what_looks_at_events_is_judged_for_each() {
    let policies = compile(
        r#"permit (principal, action, resource) when { resource.name like "open/*" };
        permit (principal, action == Action::"publish", resource)
          when { resource.name like "orders/*" && context.event.type == "order" };
        forbid (principal, action in [Action::"publish", Action::"request"], resource)
          when { resource.name like "open/*" && context.event.hasTag("region") && context.event.getTag("region") != "eu" };"#,
    );
    let who = billing();
    let decide = |action, topic| policies.decide(&asked(&who, action, topic, "s"));
    let open = decide(Action::Publish, "open/1");
    assert_eq!((open.verdict, open.reasons), (Verdict::ByEvent { is_permitted: true }, vec!["p#3".to_owned()]));
    assert_eq!(decide(Action::Publish, "orders/1").verdict, Verdict::ByEvent { is_permitted: false });
    assert_eq!(decide(Action::Subscribe, "open/1").verdict, Verdict::Permit, "a subscription is about no event");
    assert_eq!(decide(Action::Publish, "else").verdict, Verdict::Silent, "what cannot speak of it costs it nothing");
    let judge = |topic, kind, headers: &[(&'static str, &'static str)]| {
        let event = EventHead { kind, headers: headers.to_vec(), ..EventHead::default() };
        policies.judge(&asked(&who, Action::Publish, topic, "s"), &event).verdict
    };
    assert_eq!(judge("orders/1", "order", &[]), Verdict::Permit);
    assert_eq!(judge("orders/1", "", &[]), Verdict::Silent);
    assert_eq!(judge("open/1", "", &[]), Verdict::Permit);
    assert_eq!(judge("open/1", "", &[("region", "us")]), Verdict::Forbid);
    assert_eq!(judge("open/1", "", &[("region", "eu"), ("region", "us")]), Verdict::Permit, "the first counts");
    let told = refused(r#"permit (principal, action, resource) when { context.event.type == "x" };"#).to_string();
    assert!(told.contains("event"), "whoever subscribes has none: {told}");
}

/// A request is an event like any other for those who get it.
#[test]
fn what_must_not_be_published_must_not_be_asked_either() {
    let who = billing();
    let decide = |text: &str, action| policies_say(text, &asked(&who, action, "claims/1", "s"));
    let all = "permit (principal, action, resource);";
    let closed = format!(r#"{all} forbid (principal, action == Action::"publish", resource);"#);
    for action in [Action::Publish, Action::Request] {
        assert_eq!(decide(&closed, action), (Verdict::Forbid, "p#2".to_owned()));
    }
    assert_eq!(decide(&closed, Action::Reply), (Verdict::Permit, "p#1".to_owned()));
    // Asking is a right of its own all the same, and may be given, or taken, alone.
    let ask = r#"permit (principal, action == Action::"request", resource);"#;
    assert_eq!(decide(ask, Action::Request), (Verdict::Permit, "p#1".to_owned()));
    assert_eq!(decide(ask, Action::Publish), (Verdict::Silent, String::new()));
    let publish = r#"permit (principal, action == Action::"publish", resource);"#;
    assert_eq!(decide(publish, Action::Request), (Verdict::Silent, String::new()));
    let never = format!(r#"{all} forbid (principal, action == Action::"request", resource);"#);
    assert_eq!(decide(&never, Action::Publish), (Verdict::Permit, "p#1".to_owned()));
    let both = format!(r#"{closed} forbid (principal, action == Action::"request", resource);"#);
    assert_eq!(decide(&both, Action::Request), (Verdict::Forbid, "p#2 p#3".to_owned()));
    // However the statement says that it is about publishing; what one says of both is told once.
    for (forbid, wanted) in [
        (r#"(principal, action in [Action::"publish", Action::"reply"], resource)"#, Verdict::Forbid),
        (r#"(principal, action, resource) when { action == Action::"publish" }"#, Verdict::Forbid),
        (r#"(principal, action, resource) unless { [Action::"request"].contains(action) }"#, Verdict::Forbid),
        (r#"(principal, action in [Action::"publish", Action::"request"], resource)"#, Verdict::Forbid),
        (r#"(principal, action == Action::"reply", resource)"#, Verdict::Permit),
        (r#"(principal, action, resource) when { action == Action::"subscribe" }"#, Verdict::Permit),
        (r#"(principal, action == Action::"publish", resource) when { resource.name == "other" }"#, Verdict::Permit),
    ] {
        let text = format!("{all} forbid {forbid};");
        let reason = if wanted == Verdict::Forbid { "p#2" } else { "p#1" };
        assert_eq!(decide(&text, Action::Request), (wanted, reason.to_owned()), "{forbid}");
    }
    // Where each event is looked at, and where that is remembered.
    let policies = compile(&format!(
        r#"{all} forbid (principal, action == Action::"publish", resource) when {{ context.event.type == "payout" }};"#
    ));
    let question = asked(&who, Action::Request, "claims/1", "s");
    let by_event = Verdict::ByEvent { is_permitted: true };
    let mut decider = Decider::default();
    for _ in 0..2 {
        let verdict = decider.decide(&policies, (&who, Action::Request, "claims/1"), || at("s"));
        assert_eq!(verdict, by_event);
    }
    for (kind, wanted) in [("payout", Verdict::Forbid), ("note", Verdict::Permit)] {
        let event = EventHead { kind, ..EventHead::default() };
        assert_eq!(policies.look(&question, &event, true), wanted);
        assert_eq!(policies.judge(&question, &event).verdict, wanted);
    }
}

/// Statements that look at whether there is an event speak of subscribing, where there is none.
#[test]
fn what_looks_at_events_speaks_of_subscribing_too() {
    let who = billing();
    let decide = |text, action| policies_say(text, &asked(&who, action, "secret/1", "s"));
    let closed = r#"permit (principal, action, resource);
        forbid (principal, action, resource) when { resource.name like "secret/*" }
          unless { context has event && context.event.source == "x" };"#;
    assert_eq!(decide(closed, Action::Subscribe), (Verdict::Forbid, "p#2".to_owned()));
    assert_eq!(decide(closed, Action::Publish), (Verdict::ByEvent { is_permitted: true }, "p#2".to_owned()));
    let open = r#"permit (principal, action, resource) when { !(context has event) || context.event.source == "x" };"#;
    assert_eq!(decide(open, Action::Subscribe), (Verdict::Permit, "p#1".to_owned()));
    let sent = r#"permit (principal, action, resource) when { context has event && context.event.source == "x" };"#;
    assert_eq!(decide(sent, Action::Subscribe), (Verdict::Silent, String::new()));
    // The head of an event makes no difference to it, and what is remembered is the same.
    let (policies, head) = (compile(closed), EventHead { source: "x", ..EventHead::default() });
    assert_eq!(policies.judge(&asked(&who, Action::Subscribe, "secret/1", "s"), &head).verdict, Verdict::Forbid);
    assert_eq!(policies.judge(&asked(&who, Action::Request, "secret/1", "s"), &head).verdict, Verdict::Permit);
    let mut decider = Decider::default();
    for _ in 0..2 {
        let verdict = decider.decide(&policies, (&who, Action::Subscribe, "secret/1"), || at("s"));
        assert_eq!(verdict, Verdict::Forbid);
    }
}

fn policies_say(text: &str, asked: &Question<'_>) -> (Verdict, String) {
    let Decision { verdict, reasons } = compile(text).decide(asked);
    (verdict, reasons.join(" "))
}

#[test]
fn of_the_admin_api_a_policy_only_takes_away() {
    let policies = compile(
        r#"forbid (principal, action == Action::"admin", resource is Binding)
          when { resource.name like "prod-*" && context.method != "GET" }
          unless { principal.roles.contains("operator") };
        forbid (principal == Caller::"spiffe://example.org/service/ci", action == Action::"admin", resource is Module)
          when { resource.name == "gate" && resource.version like "2.*" };"#,
    );
    assert!(policies.is_empty() && policies.speak_of_admin() && policies.statements() == 2);
    let who = billing();
    let nothing = policies.decide(&asked(&who, Action::Publish, "a", "s"));
    assert_eq!(nothing.verdict, Verdict::Silent, "it is nothing to clients");
    let decide = |caller, roles: &[&str], subject, method| {
        let call = Call { caller, roles, subject, method, route: "/v1/x", site: "s" };
        let Decision { verdict, reasons } = policies.decide_admin(&call);
        (verdict, reasons.join(" "))
    };
    let silent = (Verdict::Silent, String::new());
    let binding = Subject::Binding("prod-gate");
    assert_eq!(decide("ada", &["developer"], binding, "PUT"), (Verdict::Forbid, "p#1".into()));
    assert_eq!(decide("ada", &["developer", "operator"], binding, "PUT"), silent);
    assert_eq!(decide("ada", &["developer"], binding, "GET"), silent);
    assert_eq!(decide("ada", &[], Subject::Rule("prod-x"), "PUT"), silent);
    let ci = "spiffe://example.org/service/ci";
    assert_eq!(decide(ci, &[], Subject::Module("gate", "2.0.0"), "PUT"), (Verdict::Forbid, "p#2".into()));
    assert_eq!(decide(ci, &[], Subject::Module("gate", "1.0.0"), "PUT"), silent);
    assert_eq!(decide(ci, &[], Subject::Site("gate"), "PUT"), silent);
    for (text, why) in [
        (r#"permit (principal, action == Action::"admin", resource);"#, "roles say"),
        (r#"forbid (principal, action in [Action::"admin", Action::"publish"], resource);"#, "two statements"),
        (r#"forbid (principal, action == Action::"admin", resource) when { resource.topic == "x" };"#, "topic"),
        (r#"forbid (principal is Caller, action, resource);"#, "Caller"),
    ] {
        let told = refused(text).to_string();
        assert!(told.contains(why), "{text}: {told}");
    }
    let broad = "forbid (principal, action == Action::\"admin\", resource is Tenant);\n".repeat(TOGETHER_MAX + 1);
    assert!(refused(&broad).to_string().contains("about the admin API"));
}
