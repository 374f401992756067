//! What is forbidden to publish must not be asked, either: a request is delivered like any event.
//!
//! What may be published may not be asked for that, so that nothing follows from a `permit`.

use crate::scope::{self, ACTION};
use crate::who::Action;
use cedar_policy::{Effect, Policy};
use serde_json::{Value, json};

/// What a statement forbids of a request since it forbids publishing, with its name; nothing where it says so by itself.
/// `json` is its own form in JSON.
///
/// # Errors
/// When Cedar refuses what it becomes.
pub(crate) fn of(statement: &Policy, json: &Value) -> Result<Option<Policy>, String> {
    let says_it = scope::speaks_of(json, Action::Request) && !scope::looks_at_actions(json);
    if statement.effect() != Effect::Forbid || !scope::speaks_of(json, Action::Publish) || says_it {
        return Ok(None);
    }
    let mut json = json.clone();
    json["action"] = json!({ "op": "==", "entity": entity(Action::Request) });
    // What it asks of the action it asks of publishing.
    let mut left: Vec<&mut Value> = json["conditions"].as_array_mut().into_iter().flatten().collect();
    while let Some(value) = left.pop() {
        match value {
            Value::Object(fields) if scope::is_variable(fields, ACTION) => {
                *value = json!({ "Value": { "__entity": entity(Action::Publish) } });
            }
            Value::Object(fields) => left.extend(fields.values_mut()),
            Value::Array(values) => left.extend(values),
            _ => {}
        }
    }
    Policy::from_json(Some(statement.id().clone()), json).map(Some).map_err(|error| error.to_string())
}

fn entity(action: Action) -> Value {
    json!({ "type": "Action", "id": action.name() })
}
