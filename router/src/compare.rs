//! What two filters say about the same event, held against each other: in a replay, and in the shadow of a rollout.

use crate::capture::Verdict;
use std::collections::BTreeMap;

/// What stands for pairs of verdicts that are not told apart any more.
const OTHERS: &str = "(others)";

/// What is said about an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// A verdict.
    Verdict(Verdict),
    /// The stable code of a fault.
    Fault(String),
    /// The question that has no answer in the record.
    NotRecorded(String),
}

/// In what two differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// What was said before, in short.
    pub from: String,
    /// What is said now, in short.
    pub to: String,
    /// The parts that differ.
    pub fields: Vec<&'static str>,
}

impl Told {
    /// That an event goes on as it came: what is said where nobody judges.
    pub fn went_on() -> Self {
        Self::Verdict(Verdict { kind: "allow".into(), ..Verdict::default() })
    }

    /// Kind and reason.
    pub fn label(&self) -> String {
        match self {
            Self::Verdict(Verdict { kind, reason: Some(reason), .. }) if !reason.is_empty() => {
                format!("{kind}: {reason}")
            }
            Self::Verdict(verdict) => verdict.kind.clone(),
            Self::Fault(code) => format!("fault: {code}"),
            Self::NotRecorded(_) => "not recorded".to_owned(),
        }
    }
}

impl Difference {
    /// In what `new` differs from `old`; none where they say the same, and it is known that they do.
    pub fn between(old: &Told, new: &Told) -> Option<Self> {
        let is_unknown = [old, new].iter().any(|told| matches!(told, Told::NotRecorded(_)));
        if !is_unknown && old == new {
            return None;
        }
        let fields = differing(old, new);
        let (from, to) = (old.label(), new.label());
        let to = if from == to { format!("{to} with another {}", fields.join(", ")) } else { to };
        Some(Self { from, to, fields })
    }
}

fn differing(old: &Told, new: &Told) -> Vec<&'static str> {
    let (Told::Verdict(old), Told::Verdict(new)) = (old, new) else { return vec!["outcome"] };
    let fields = [
        ("kind", old.kind != new.kind),
        ("reason", old.reason != new.reason),
        ("routes", old.routes != new.routes),
        ("detail", old.detail != new.detail),
        ("headers", old.attrs != new.attrs),
        ("payload", old.payload != new.payload),
        ("emitted events", old.emitted != new.emitted),
    ];
    fields.iter().filter(|(_, differs)| *differs).map(|(field, _)| *field).collect()
}

/// Differences, counted by what was said before and now. A filter may make up reasons, so that only so many pairs are
/// told apart; further ones are counted together.
#[derive(Clone, Debug)]
pub struct Transitions {
    pairs_max: usize,
    counts: BTreeMap<(String, String), u64>,
}

impl Transitions {
    /// None yet, and at most `pairs_max` told apart.
    pub fn new(pairs_max: usize) -> Self {
        Self { pairs_max, counts: BTreeMap::new() }
    }

    /// Counts one.
    pub fn count(&mut self, difference: &Difference) {
        let pair = (difference.from.clone(), difference.to.clone());
        let is_known = self.counts.contains_key(&pair) || self.counts.len() < self.pairs_max;
        let pair = if is_known { pair } else { (OTHERS.to_owned(), OTHERS.to_owned()) };
        *self.counts.entry(pair).or_default() += 1;
    }

    /// What was said before and now, and how often.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str, u64)> {
        self.counts.iter().map(|((from, to), count)| (from.as_str(), to.as_str(), *count))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::*;
    use crate::capture::Data;

    fn verdict(kind: &str, reason: &str) -> Verdict {
        Verdict { kind: kind.into(), reason: Some(reason.into()), ..Verdict::default() }
    }

    #[test]
    fn a_difference_names_both_sides_and_the_parts() {
        let between = |old: &Verdict, new: &Verdict| {
            Difference::between(&Told::Verdict(old.clone()), &Told::Verdict(new.clone()))
        };
        let (allow, deny) = (verdict("allow", ""), verdict("deny", "too large"));
        assert_eq!(between(&deny, &deny), None);
        let found = between(&allow, &deny).unwrap();
        assert_eq!(
            (&*found.from, &*found.to, &found.fields[..]),
            ("allow", "deny: too large", &["kind", "reason"][..])
        );
        let changed = Verdict { payload: Some(Data::text("x")), routes: vec!["topic:a".into()], ..allow.clone() };
        let found = between(&allow, &changed).unwrap();
        assert_eq!((&*found.to, &found.fields[..]), ("allow with another routes, payload", &["routes", "payload"][..]));
        let fault = Told::Fault("trap".into());
        assert_eq!(Difference::between(&fault, &fault), None);
        assert_eq!(Difference::between(&Told::went_on(), &fault).unwrap().to, "fault: trap");
        let unknown = Told::NotRecorded("seen".into());
        assert!(Difference::between(&unknown, &unknown).is_some(), "nobody knows that they say the same");
    }

    #[test]
    fn pairs_are_bounded_and_all_differences_counted() {
        let mut transitions = Transitions::new(2);
        for reason in ["a", "b", "c", "d", "a"] {
            let found = Difference::between(&Told::went_on(), &Told::Verdict(verdict("deny", reason))).unwrap();
            transitions.count(&found);
        }
        let counts: Vec<_> = transitions.iter().map(|(_, to, count)| (to.to_owned(), count)).collect();
        let expected = [("(others)", 2), ("deny: a", 2), ("deny: b", 1)].map(|(to, count)| (to.to_owned(), count));
        assert_eq!(counts, expected);
    }
}
