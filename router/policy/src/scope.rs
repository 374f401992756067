//! What a statement is about: clients or the admin API; and whether it looks at single events.

use crate::schema::ADMIN;
use crate::who::Action;
use serde_json::Value;

/// The variable for what is done.
pub(crate) const ACTION: &str = "action";

/// What a statement is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// What clients do with topics.
    Clients,
    /// What is asked of the admin API.
    Admin,
    /// Both, which no statement may be.
    Both,
}

/// What a statement is about, from its form in JSON. One that names no action is about clients: that of the admin API
/// has to be named, so that no rule for topics ever locks anybody out of it.
pub(crate) fn of(statement: &Value) -> Scope {
    let named: Vec<_> = actions(statement).collect();
    match named.iter().filter(|name| **name == ADMIN).count() {
        0 => Scope::Clients,
        found if found == named.len() => Scope::Admin,
        _ => Scope::Both,
    }
}

/// The actions that the head of a statement names; where it names none, it speaks of all.
fn actions(statement: &Value) -> impl Iterator<Item = &str> {
    let action = &statement["action"];
    let listed = action["entities"].as_array().into_iter().flatten();
    listed.chain([&action["entity"]]).filter_map(|entity| entity["id"].as_str())
}

/// Whether a statement speaks of an action, as far as its head says.
pub(crate) fn speaks_of(statement: &Value, action: Action) -> bool {
    let mut named = actions(statement).peekable();
    named.peek().is_none() || named.any(|name| name == action.name())
}

/// Whether its conditions look at the action.
pub(crate) fn looks_at_actions(statement: &Value) -> bool {
    any_in_conditions(statement, |fields| Looked::at(is_variable(fields, ACTION)))
}

/// Whether a statement looks at more of its context than the site: at the event, or at whether there is one. It may speak
/// of subscribing all the same, which is about no event.
pub(crate) fn looks_at_events(statement: &Value) -> bool {
    any_in_conditions(statement, |fields| {
        let is_site = fields.get(".").is_some_and(|of| of["left"]["Var"] == "context" && of["attr"] == "site");
        if is_site { Looked::Past } else { Looked::at(is_variable(fields, "context")) }
    })
}

/// Whether a part of a condition is that variable.
pub(crate) fn is_variable(fields: &Fields, name: &str) -> bool {
    fields.get("Var").is_some_and(|variable| variable == name)
}

/// What was seen of a part of a condition.
enum Looked {
    /// It is what was looked for.
    Found,
    /// It is not, and its own parts are to be looked at.
    Into,
    /// Neither it nor anything in it is.
    Past,
}

impl Looked {
    const fn at(is_it: bool) -> Self {
        if is_it { Self::Found } else { Self::Into }
    }
}

/// A part of a condition: an operator, and what it is applied to.
pub(crate) type Fields = serde_json::Map<String, Value>;

/// Whether `look` finds what it looks for anywhere in the conditions of a statement.
fn any_in_conditions(statement: &Value, look: impl Fn(&Fields) -> Looked) -> bool {
    let mut left: Vec<&Value> = statement["conditions"].as_array().into_iter().flatten().collect();
    while let Some(value) = left.pop() {
        match value {
            Value::Object(fields) => match look(fields) {
                Looked::Found => return true,
                Looked::Into => left.extend(fields.values()),
                Looked::Past => {}
            },
            Value::Array(values) => left.extend(values),
            _ => {}
        }
    }
    false
}
