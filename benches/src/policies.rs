//! What a policy decision costs: remembered, made anew among a thousand statements, and made for each event.

use crate::goals::{Better, Goal};
use crate::micro::time_ns;
use anyhow::{bail, ensure};
use myelin_policy::{Action, Decider, EventHead, Place, Policies, Question, Service, Verdict};
use std::fmt::Write;
use std::hint::black_box;

/// Statements of the set.
const STATEMENTS: usize = 1_000;
/// Decisions in a round.
const DECISIONS: usize = 10_000;
/// Services and topics that are asked about in turn: all of them are remembered.
const ASKED: usize = 100;

/// A statement besides, which is judged for every event of its topics.
const LOOKING: &str = "permit (principal, action == Action::\"publish\", resource)\n\
    when { resource.name like \"claims/*\" && context.event.type == \"claim\" && context.event.hasTag(\"region\") };";

/// Another, which a request is asked about as well, since what must not be published must not be asked.
const CLOSED: &str = "forbid (principal, action == Action::\"publish\", resource)\n\
    when { resource.name like \"ask/closed/*\" && principal.groups.contains(\"guests\") };";

/// Where it is asked.
const PLACE: Place<'_> = Place { site: "hamburg", tenant: "" };

/// A set as a company has it: what each service may, beginnings of topics, and some rules for everybody.
fn policies() -> anyhow::Result<Policies> {
    let mut text = String::new();
    for number in 0..STATEMENTS {
        match number % 10 {
            0..5 => writeln!(
                text,
                "permit (principal == Service::\"{}\", action == Action::\"publish\", resource)\n\
                 when {{ resource.name like \"orders/{number}/*\" }};",
                service(number)
            )?,
            5..8 => writeln!(
                text,
                "permit (principal, action == Action::\"subscribe\", resource)\n\
                 when {{ resource.name like \"orders/{number}/*\" && principal.trust_domain == \"example.org\" }};"
            )?,
            8 => writeln!(
                text,
                "forbid (principal, action, resource == Topic::\"orders/{number}/secret\")\n\
                 unless {{ principal.name == \"audit\" }};"
            )?,
            // One in a hundred can be found by nothing, and is evaluated for every decision.
            _ if number % 100 == 99 => {
                writeln!(text, "forbid (principal, action, resource) when {{ context.site == \"mars-{number}\" }};")?;
            }
            _ => writeln!(
                text,
                "permit (principal, action == Action::\"request\", resource)\n\
                 when {{ [\"a{number}\", \"b{number}\"].contains(principal.name) && resource.name like \"ask/*\" }};"
            )?,
        }
    }
    // A text of its own for every hundred: none may be larger than a policy.
    let mut texts = vec![String::new()];
    for statement in text.split_inclusive(";\n") {
        if texts.last().is_some_and(|last| last.len() > 32 * 1024) {
            texts.push(String::new());
        }
        if let Some(last) = texts.last_mut() {
            last.push_str(statement);
        }
    }
    texts.push(format!("{LOOKING}\n{CLOSED}"));
    let names: Vec<String> = (0..texts.len()).map(|number| format!("p{number}")).collect();
    Ok(Policies::compile(names.iter().zip(&texts).map(|(name, text)| (&**name, &**text)))?)
}

fn service(number: usize) -> String {
    format!("spiffe://example.org/service/shop-{number}")
}

/// A decision with a hit, with a miss, and for an event.
pub(crate) fn decisions() -> anyhow::Result<Vec<Goal>> {
    eprintln!("{STATEMENTS} policies ..");
    let policies = policies()?;
    ensure!(policies.statements() == STATEMENTS + 2);
    let asked: Vec<(Service, String)> =
        (0..ASKED).map(|number| (Service::new(service(number * 10)), format!("orders/{}/1", number * 10))).collect();
    let miss_ns = made_anew(&policies, Action::Publish, &asked)?;
    // Numbers that end in 9, but not in 99, are of those who may ask.
    let asking = |topics: &str| -> Vec<(Service, String)> {
        let numbers = (0..STATEMENTS).filter(|number| number % 10 == 9 && number % 100 != 99);
        numbers
            .map(|number| {
                (Service::new(format!("spiffe://example.org/service/a{number}")), format!("{topics}/{number}"))
            })
            .collect()
    };
    let request_ns = made_anew(&policies, Action::Request, &asking("ask"))?;
    let closed_ns = made_anew(&policies, Action::Request, &asking("ask/closed"))?;
    let mut decider = Decider::default();
    let hit_ns = time_ns(DECISIONS, || {
        for (service, topic) in asked.iter().cycle().take(DECISIONS) {
            let verdict = decider.decide(&policies, (service, Action::Publish, topic), || PLACE);
            ensure!(black_box(verdict) == Verdict::Permit);
        }
        Ok(())
    })?;
    let event = EventHead {
        id: "0192f8a1",
        kind: "claim",
        headers: vec![("region", "eu"), ("myelin-trace", "00")],
        ..EventHead::default()
    };
    let event_ns = time_ns(DECISIONS, || {
        for (service, _) in asked.iter().cycle().take(DECISIONS) {
            let question = Question { service, action: Action::Publish, topic: "claims/eu/1", place: PLACE };
            let verdict = decider.decide(&policies, (service, Action::Publish, question.topic), || PLACE);
            let Verdict::ByEvent { is_permitted } = verdict else { bail!("it looks at no event: {verdict:?}") };
            ensure!(black_box(policies.look(&question, &event, is_permitted)) == Verdict::Permit);
        }
        Ok(())
    })?;
    let made = |what, ns: f64| Goal::new(what, ns / 1e3, (20.0, 10.0), Better::Lower).unit("us");
    Ok(vec![
        Goal::new("a policy decision that is remembered", hit_ns, (100.0, 50.0), Better::Lower).unit("ns"),
        made("the same made anew, 1,000 statements", miss_ns),
        made("of a request", request_ns),
        made("of a request where a statement forbids to publish", closed_ns),
        made("one of an event that a statement looks at", event_ns),
    ])
}

/// What a decision takes that is not remembered, in nanoseconds: each is a permission.
fn made_anew(policies: &Policies, action: Action, asked: &[(Service, String)]) -> anyhow::Result<f64> {
    time_ns(DECISIONS, || {
        for (service, topic) in asked.iter().cycle().take(DECISIONS) {
            let decision = policies.decide(&Question { service, action, topic, place: PLACE });
            ensure!(black_box(decision).verdict == Verdict::Permit);
        }
        Ok(())
    })
}
