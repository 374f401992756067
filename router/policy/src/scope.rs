//! What a statement is about: clients or the admin API; and whether it looks at single events.

use crate::schema::ADMIN;
use serde_json::Value;

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
    let action = &statement["action"];
    let listed = action["entities"].as_array().into_iter().flatten();
    let named: Vec<_> = listed.chain([&action["entity"]]).filter_map(|entity| entity["id"].as_str()).collect();
    match named.iter().filter(|name| **name == ADMIN).count() {
        0 => Scope::Clients,
        found if found == named.len() => Scope::Admin,
        _ => Scope::Both,
    }
}

/// Whether a statement looks at more of its context than the site: at the event, or at whether there is one. It may speak
/// of subscribing all the same, which is about no event.
pub(crate) fn looks_at_events(statement: &Value) -> bool {
    let mut left: Vec<&Value> = statement["conditions"].as_array().into_iter().flatten().collect();
    while let Some(value) = left.pop() {
        match value {
            Value::Object(fields) => {
                if fields.get("Var").is_some_and(|name| name == "context") {
                    return true;
                }
                let site = fields.get(".").is_some_and(|of| of["left"]["Var"] == "context" && of["attr"] == "site");
                if !site {
                    left.extend(fields.values());
                }
            }
            Value::Array(values) => left.extend(values),
            _ => {}
        }
    }
    false
}
