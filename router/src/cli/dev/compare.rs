//! What differs between two versions: their decisions on the same events.

use super::package::{Package, samples};
use crate::cli::failure::Result;
use crate::cli::made_up::{MadeUp, Maker};
use crate::cli::trial::{NOW_UNIX_NS, instance, short, told};
use myelin_engine::{Decision, Program};
use std::fmt::Write;

/// Kinds of differences that are shown; further ones are counted.
const SHOWN_MAX: usize = 10;

/// What a version says about an event, or how it fails.
type Said = Result<Decision, String>;

/// Events on which versions are compared: the fixtures' and `made_up` like and unlike them.
pub(super) fn sample(package: &Package, made_up: u32, seed: u64, headers: &[String]) -> Result<Vec<MadeUp>> {
    let samples = samples(&package.fixtures()?);
    let mut events: Vec<_> = samples.iter().map(MadeUp::from_sample).collect();
    let mut maker = Maker::new(seed, samples, headers);
    // Most are like the traffic; some are what a stranger may send.
    events.extend((0..made_up).map(|number| if number % 4 == 0 { maker.wild() } else { maker.mild() }));
    Ok(events)
}

/// What `program` says about each event, in their order on one instance.
pub(super) fn decide(program: &Program, config: &[u8], events: &[MadeUp]) -> Result<Vec<Said>, String> {
    let mut trial = instance(program, config)?;
    let said = events.iter().map(|event| {
        let mut decided = trial.decide(&[event.view()], NOW_UNIX_NS).map_err(|fault| fault.to_string())?;
        decided.pop().ok_or_else(|| "no verdict".to_owned())
    });
    Ok(said.collect())
}

/// Events that two versions treat alike differently.
struct Difference {
    before: String,
    after: String,
    count: usize,
    /// The first of them.
    example: String,
}

/// The differences between what two versions say, for people.
pub(super) fn differences(events: &[MadeUp], before: &[Said], after: &[Said]) -> String {
    let mut kinds: Vec<Difference> = Vec::new();
    for (event, (before, after)) in events.iter().zip(before.iter().zip(after)) {
        if before == after {
            continue;
        }
        let (before, after) = words(before, after);
        match kinds.iter_mut().find(|kind| kind.before == before && kind.after == after) {
            Some(kind) => kind.count += 1,
            None => kinds.push(Difference { before, after, count: 1, example: event.line() }),
        }
    }
    let different: usize = kinds.iter().map(|kind| kind.count).sum();
    if different == 0 {
        return format!("the same decisions on {} events as before\n", events.len());
    }
    kinds.sort_by_key(|kind| std::cmp::Reverse(kind.count));
    let mut text = format!("{different} of {} events are decided otherwise\n", events.len());
    for kind in kinds.iter().take(SHOWN_MAX) {
        let _ = writeln!(text, "  {:>5} x  {}  ->  {}", kind.count, kind.before, kind.after);
        let _ = writeln!(text, "           such as {}", shown(&kind.example));
    }
    if kinds.len() > SHOWN_MAX {
        let _ = writeln!(text, "  and {} other kinds of differences", kinds.len() - SHOWN_MAX);
    }
    text
}

/// Both sides in words: in short, unless they differ in what the short words leave out.
fn words(before: &Said, after: &Said) -> (String, String) {
    let (short_before, short_after) = (brief(before), brief(after));
    if short_before != short_after {
        return (short_before, short_after);
    }
    let whole = |said: &Said| said.as_ref().map_or_else(|error| short(error), told);
    (whole(before), whole(after))
}

/// The verdict with its reason and routes.
fn brief(said: &Said) -> String {
    match said {
        Ok(decision) => {
            let Decision { verdict, reason, routes, .. } = decision.clone();
            told(&Decision { verdict, reason, routes, payload: None, attrs: None, detail: None, emitted: Vec::new() })
        }
        Err(error) => format!("fails ({})", short(error)),
    }
}

/// An event fit for a line of a terminal.
fn shown(line: &str) -> String {
    /// Characters of an event that are shown.
    const LINE_MAX: usize = 200;
    let mut shown: String = line.chars().take(LINE_MAX).map(|c| if c.is_control() { '?' } else { c }).collect();
    if line.chars().nth(LINE_MAX).is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use myelin_engine::ExpectedKind;

    fn said(verdict: ExpectedKind, payload: Option<&str>) -> Said {
        let payload = payload.map(|payload| payload.as_bytes().to_vec());
        Ok(Decision { verdict, reason: None, routes: vec![], payload, attrs: None, detail: None, emitted: vec![] })
    }

    #[test]
    fn differences_are_counted_by_kind_with_an_example() {
        let event = |topic: &str| MadeUp {
            topic: topic.into(),
            attrs: Vec::new(),
            payload: Vec::new(),
            identity: String::new(),
        };
        let events = [event("a"), event("b"), event("c"), event("d")];
        let allow = || said(ExpectedKind::Allow, None);
        let before = [allow(), allow(), allow(), said(ExpectedKind::Allow, Some("1"))];
        assert_eq!(differences(&events, &before, &before), "the same decisions on 4 events as before\n");
        let deny = || said(ExpectedKind::Deny, None);
        let after = [deny(), deny(), Err("trap: x".into()), said(ExpectedKind::Allow, Some("2"))];
        let text = differences(&events, &before, &after);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "4 of 4 events are decided otherwise");
        assert_eq!(lines[1], "      2 x  allow  ->  deny");
        assert!(lines[2].contains("\"topic\":\"a\""), "{text}");
        assert!(text.contains("allow  ->  fails (trap: x)") && text.contains("allow, payload 1  ->  allow, payload 2"));
    }
}
