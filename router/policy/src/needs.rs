//! What a statement needs in order to hold: a topic, a service, the beginning of either, or nothing that can be told.
//!
//! Only conditions are read without which the statement cannot be satisfied - its scope, and what its `when` clauses
//! demand by `&&` - so that whatever is not found by them could not have spoken.

use crate::limits::{PLACES_MAX, PREFIX_BYTES_MAX};
use serde_json::Value;

/// One thing that a question must have.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Need {
    /// This topic.
    Topic(String),
    /// This service, by its whole name.
    Service(String),
    /// A service whose name ends in this part.
    Name(String),
    /// A topic that begins so.
    TopicPrefix(String),
    /// A service whose whole name begins so.
    ServicePrefix(String),
    /// Nothing.
    Nothing,
}

/// Things of which a question must have one.
type OneOf = Vec<Need>;

/// What the statement needs one of, from its form in JSON.
pub(crate) fn of(statement: &Value) -> OneOf {
    let mut best = vec![Need::Nothing];
    for (scope, subject) in [("principal", Subject::Service), ("resource", Subject::Topic)] {
        let constraint = &statement[scope];
        // `is Service in ..` has the entity one level further in. Nothing is in anything else here, so `in` is `==`.
        let entity = [&constraint["entity"], &constraint["in"]["entity"]].into_iter().find_map(entity);
        improve(&mut best, entity.map(|id| vec![subject.need(id)]));
    }
    for condition in statement["conditions"].as_array().into_iter().flatten() {
        if condition["kind"] == "when" {
            improve(&mut best, demanded(&condition["body"]));
        }
    }
    best
}

/// Takes what finds fewer statements' questions.
fn improve(best: &mut OneOf, other: Option<OneOf>) {
    if let Some(other) = other.filter(|other| other.len() <= PLACES_MAX && weight(other) < weight(best)) {
        *best = other;
    }
}

/// How much worse than the name of one topic it is.
fn weight(one_of: &OneOf) -> (usize, usize) {
    let weigh = |need: &Need| match need {
        Need::Topic(_) => 0,
        Need::Service(_) => 1,
        Need::Name(_) => 2,
        // The longer the better, and always worse than a whole name.
        Need::TopicPrefix(text) => 3 + PREFIX_BYTES_MAX - text.len(),
        Need::ServicePrefix(text) => 4 + PREFIX_BYTES_MAX - text.len(),
        Need::Nothing => usize::MAX,
    };
    (one_of.iter().map(weigh).max().unwrap_or(usize::MAX), one_of.len())
}

#[derive(Clone, Copy)]
enum Subject {
    Topic,
    Service,
    Name,
}

impl Subject {
    fn need(self, text: &str) -> Need {
        match self {
            Self::Topic => Need::Topic(text.to_owned()),
            Self::Service => Need::Service(text.to_owned()),
            Self::Name => Need::Name(text.to_owned()),
        }
    }

    /// What an expression stands for, where it is one of these.
    fn of(expression: &Value) -> Option<Self> {
        let variable = |value: &Value| match value["Var"].as_str()? {
            "resource" => Some(Self::Topic),
            "principal" => Some(Self::Service),
            _ => None,
        };
        let Some(attribute) = expression.get(".") else { return variable(expression) };
        match (variable(&attribute["left"])?, attribute["attr"].as_str()?) {
            (Self::Topic, "name") => Some(Self::Topic),
            (Self::Service, "id") => Some(Self::Service),
            (Self::Service, "name") => Some(Self::Name),
            _ => None,
        }
    }
}

/// What must be so for an expression to be true.
fn demanded(expression: &Value) -> Option<OneOf> {
    let (operator, sides) = expression.as_object()?.iter().next()?;
    let (left, right) = (&sides["left"], &sides["right"]);
    match operator.as_str() {
        "&&" => {
            let mut best = vec![Need::Nothing];
            improve(&mut best, demanded(left));
            improve(&mut best, demanded(right));
            (best != [Need::Nothing]).then_some(best)
        }
        "||" => {
            let mut both = demanded(left)?;
            both.extend(demanded(right)?);
            both.sort_unstable();
            both.dedup();
            (both.len() <= PLACES_MAX).then_some(both)
        }
        "==" => equal(left, right).or_else(|| equal(right, left)),
        "in" => equal(left, right),
        "contains" => equal(right, left),
        "like" => like(left, sides["pattern"].as_array()?),
        _ => None,
    }
}

/// What it means that a subject is a value, or one of several.
fn equal(subject: &Value, value: &Value) -> Option<OneOf> {
    let subject = Subject::of(subject)?;
    let texts = match value.get("Set").and_then(Value::as_array) {
        Some(members) => members.iter().map(literal).collect::<Option<Vec<_>>>()?,
        None => vec![literal(value)?],
    };
    // An empty set is never fitted; such a statement may stand anywhere.
    (!texts.is_empty()).then(|| texts.into_iter().map(|text| subject.need(text)).collect())
}

/// The text of a literal: a string, or an entity's name.
fn literal(value: &Value) -> Option<&str> {
    let value = value.get("Value")?;
    value.as_str().or_else(|| entity(value))
}

/// The name of an entity.
fn entity(value: &Value) -> Option<&str> {
    value.get("__entity").unwrap_or(value).get("id")?.as_str()
}

fn like(subject: &Value, pattern: &[Value]) -> Option<OneOf> {
    let subject = Subject::of(subject)?;
    let literals = pattern.iter().map_while(|part| part["Literal"].as_str());
    let parts = literals.clone().count();
    let beginning: String = literals.collect();
    if parts == pattern.len() {
        return Some(vec![subject.need(&beginning)]);
    }
    let beginning = beginning[..beginning.floor_char_boundary(PREFIX_BYTES_MAX)].to_owned();
    match subject {
        _ if beginning.is_empty() => None,
        Subject::Topic => Some(vec![Need::TopicPrefix(beginning)]),
        Subject::Service => Some(vec![Need::ServicePrefix(beginning)]),
        Subject::Name => None,
    }
}
