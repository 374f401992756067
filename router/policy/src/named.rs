//! Whom and what statements name: services, callers of the admin API and topics.
//!
//! Cedar takes any text for an entity's name. One that nobody and nothing can have never matches, and a `forbid` with it
//! forbids nothing; whether there can be such a name, whoever knows the names tells.

use crate::scope::{self, Fields, Scope};
use cedar_policy::PolicySet;
use serde_json::Value;
use std::str::FromStr;

/// What a statement names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Named {
    /// A service, by its SPIFFE name.
    Service(String),
    /// Whoever asks the admin API.
    Caller(String),
    /// A topic, or a pattern that is subscribed to.
    Topic(String),
}

/// What the statements of `text` name, each once: in their heads, and in conditions as an entity, or as a text that the
/// principal's `id` is compared with. Nothing where it cannot be read, which [`Policies::compile`](crate::Policies::compile)
/// tells.
pub fn named(text: &str) -> Vec<Named> {
    let Ok(set) = PolicySet::from_str(text) else { return Vec::new() };
    let mut found = Vec::new();
    for json in set.policies().filter_map(|statement| statement.to_json().ok()) {
        let is_admin = scope::of(&json) == Scope::Admin;
        let mut left = vec![&json["principal"], &json["resource"], &json["conditions"]];
        while let Some(value) = left.pop() {
            match value {
                Value::Object(fields) => {
                    found.extend(entity(fields));
                    found.extend(ids(fields).map(|id| match is_admin {
                        true => Named::Caller(id.to_owned()),
                        false => Named::Service(id.to_owned()),
                    }));
                    left.extend(fields.values());
                }
                Value::Array(values) => left.extend(values),
                _ => {}
            }
        }
    }
    found.sort_unstable();
    found.dedup();
    found
}

/// The entity that this part is.
fn entity(fields: &Fields) -> Option<Named> {
    let text = |key: &str| fields.get(key).and_then(Value::as_str);
    let id = text("id")?.to_owned();
    match text("type")? {
        "Service" => Some(Named::Service(id)),
        "Caller" => Some(Named::Caller(id)),
        "Topic" => Some(Named::Topic(id)),
        _ => None,
    }
}

/// The texts that the principal's `id` is compared with in this part.
fn ids(fields: &Fields) -> impl Iterator<Item = &str> {
    let compared = ["==", "!="].into_iter().filter_map(|operator| fields.get(operator)).flat_map(|sides| {
        let (left, right) = (&sides["left"], &sides["right"]);
        let other = if is_id(left) { Some(right) } else { is_id(right).then_some(left) };
        other.into_iter()
    });
    let listed = fields.get("contains").filter(|sides| is_id(&sides["right"])).into_iter();
    let listed = listed.flat_map(|sides| {
        let set = &sides["left"];
        set["Set"].as_array().or_else(|| set["Value"].as_array()).into_iter().flatten()
    });
    // A list of texts alone may stand as it is.
    compared.chain(listed).filter_map(|part| part["Value"].as_str().or_else(|| part.as_str()))
}

fn is_id(part: &Value) -> bool {
    part["."]["attr"] == "id" && part["."]["left"]["Var"] == "principal"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whom_and_what_statements_name_is_found_in_heads_and_conditions() {
        let service = |id: &str| Named::Service(id.to_owned());
        let caller = |id: &str| Named::Caller(id.to_owned());
        let topic = |name: &str| Named::Topic(name.to_owned());
        for (text, names) in [
            ("permit (principal, action, resource);", vec![]),
            (r#"forbid (principal == Service::"a", action, resource == Topic::"t");"#, vec![service("a"), topic("t")]),
            (r#"forbid (principal in Service::"a", action, resource in Topic::"t");"#, vec![service("a"), topic("t")]),
            (r#"forbid (principal is Service in Service::"a", action, resource is Topic);"#, vec![service("a")]),
            (r#"forbid (principal, action, resource) when { principal == Service::"a" };"#, vec![service("a")]),
            (
                r#"forbid (principal, action, resource) unless { principal in [Service::"a", Service::"b"] || resource != Topic::"t" };"#,
                vec![service("a"), service("b"), topic("t")],
            ),
            (
                r#"permit (principal, action, resource) when { ["a", "b"].contains(principal.id) && "c" == principal.id };"#,
                vec![service("a"), service("b"), service("c")],
            ),
            (r#"permit (principal, action, resource) when { ["a"].contains(principal.path) };"#, vec![]),
            (r#"permit (principal, action, resource) when { principal.id like "a*" };"#, vec![]),
            (
                r#"forbid (principal == Caller::"a", action == Action::"admin", resource) when { principal.id != "b" };"#,
                vec![caller("a"), caller("b")],
            ),
            (r#"forbid (principal, action == Action::"admin", resource == Module::"m");"#, vec![]),
            ("no policy", vec![]),
        ] {
            assert_eq!(named(text), names, "{text}");
        }
    }
}
