//! The bindings of a proposal with all that they say: what a second person approves is in none of their names.

use crate::cli::listing::{items, shown, text};
use serde_json::Value;

/// The longest value that stands on one line with the one before it: what a terminal shows without a break.
const LINE_CHARS: usize = 60;
/// The fields in the order of importance; others that a newer router tells come after them.
const FIELDS: [&str; 11] = [
    "module",
    "digest",
    "pattern",
    "stage",
    "order",
    "on_fault",
    "policy",
    "per_subscriber",
    "grant",
    "limits",
    "config",
];

/// Each binding: one that comes or goes with all of its fields, one that changes with the old and the new value of each
/// that differs.
pub(super) fn all(proposal: &Value) -> String {
    items(proposal, "bindings").iter().map(binding).collect()
}

fn binding(binding: &Value) -> String {
    let (before, after) = (side(binding, "before"), side(binding, "after"));
    let mut told = format!("\nbinding {} {}:\n", one_line(&binding["binding"]), one_line(&binding["action"]));
    let known = FIELDS.into_iter().map(str::to_owned);
    let more = [&before, &after].into_iter().filter_map(Value::as_object).flatten().map(|(field, _)| field.clone());
    let mut fields: Vec<String> = known.collect();
    for field in more.filter(|field| field != "name") {
        if !fields.contains(&field) {
            fields.push(field);
        }
    }
    for field in fields {
        told += &match (&before, &after) {
            (Value::Null, side) | (side, Value::Null) => whole(&field, &side[&field]),
            (before, after) if before[&field] == after[&field] => String::new(),
            (before, after) => changed(&field, &before[&field], &after[&field]),
        };
    }
    told
}

/// All that a binding says on one side, with the digest of its module's bytes; `null` where it is not there.
fn side(binding: &Value, side: &str) -> Value {
    let mut whole = binding[side].clone();
    if let Some(fields) = whole.as_object_mut() {
        fields.insert("digest".to_owned(), binding[format!("digest_{side}")].clone());
    }
    whole
}

fn whole(field: &str, value: &Value) -> String {
    match compact(value) {
        text if text.chars().count() <= LINE_CHARS || !value.is_object() && !value.is_array() => {
            format!("  {}: {text}\n", shown(field))
        }
        _ => format!("  {}:\n{}", shown(field), pretty("    ", value)),
    }
}

fn changed(field: &str, before: &Value, after: &Value) -> String {
    let (old, new) = (compact(before), compact(after));
    if old.chars().count() + new.chars().count() <= LINE_CHARS {
        return format!("  {}: {old} -> {new}\n", shown(field));
    }
    format!("  {}:\n{}{}", shown(field), pretty("  - ", before), pretty("  + ", after))
}

/// A value on one line: texts without quotes, as nothing else could be meant.
fn compact(value: &Value) -> String {
    match value {
        Value::Null => "none".to_owned(),
        Value::String(_) => one_line(value),
        _ => shown(&value.to_string()),
    }
}

/// A name on its line, whatever it is: a break in it must not look like another field.
fn one_line(value: &Value) -> String {
    shown(&text(value)).replace('\n', "?")
}

/// A value on as many lines as it needs, each after `mark`.
fn pretty(mark: &str, value: &Value) -> String {
    let whole = match value {
        Value::Object(_) | Value::Array(_) => serde_json::to_string_pretty(value).unwrap_or_else(|_| value.to_string()),
        _ => compact(value),
    };
    whole.lines().map(|line| format!("{mark}{}\n", shown(line))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn spec(module: &str) -> Value {
        json!({"name": "gate", "module": module, "pattern": "orders/**", "stage": "ingress", "order": 0, "config": null,
            "limits": {"memory_bytes": 1, "deadline_us": 2}, "on_fault": "reject", "grant": {"topics": [], "sites": []},
            "policy": true, "per_subscriber": false})
    }

    #[test]
    fn a_binding_that_comes_is_shown_with_all_that_it_says() {
        let mut after = spec("gate@1.0.0");
        after["config"] = json!({"tenants": ["acme", "evil\u{1b}"]});
        after["grant"]["topics"] = json!(["audit/*", "**"]);
        after["consent"] = json!({"capabilities": ["seen"]});
        let told = all(&json!({"bindings": [{"binding": "gate", "action": "added", "fields": [], "before": null,
            "digest_before": null, "after": after, "digest_after": "ab".repeat(32)}]}));
        let parts = [
            "binding gate added:\n  module: gate@1.0.0\n",
            "pattern: orders/**\n",
            "stage: ingress\n",
            "on_fault: reject\n",
            "policy: true\n",
            r#"grant: {"sites":[],"topics":["audit/*","**"]}"#,
            r#"config: {"tenants":["acme","evil"#,
            r#"consent: {"capabilities":["seen"]}"#,
        ];
        // The order of keys is a matter of how `serde_json` was built.
        let told_any =
            told.replace(r#""topics":["audit/*","**"],"sites":[]"#, r#""sites":[],"topics":["audit/*","**"]"#);
        for part in parts.into_iter().chain([&*"ab".repeat(32)]) {
            assert!(told_any.contains(part), "{part} is missing in\n{told}");
        }
        assert!(!told.contains('\u{1b}'), "{told:?}");
    }

    #[test]
    fn a_binding_that_changes_is_shown_with_the_old_and_the_new_value_of_each_field() {
        let (before, mut after) = (spec("gate@1.0.0"), spec("gate@1.0.0"));
        after["on_fault"] = "pass".into();
        after["policy"] = false.into();
        after["config"] = json!({"rules": ["a rule that is rather long", "another one that is no shorter than it"]});
        let told = all(&json!({"bindings": [{"binding": "gate", "action": "changed", "before": before, "after": after,
            "digest_before": "aa", "digest_after": "bb"}]}));
        assert_eq!(
            told,
            "\nbinding gate changed:\n  digest: aa -> bb\n  on_fault: reject -> pass\n  policy: true -> false\n  config:\n  \
             - none\n  + {\n  +   \"rules\": [\n  +     \"a rule that is rather long\",\n  +     \"another one that is no \
             shorter than it\"\n  +   ]\n  + }\n"
        );
        assert!(all(&json!({"bindings": []})).is_empty());
        assert!(all(&json!({"proposal": 1})).is_empty(), "an older router tells nothing of it");
    }

    #[test]
    fn a_binding_that_goes_is_shown_whole_and_on_lines_of_its_own() {
        let mut before = spec("gate@1.0.0");
        before["module"] = "gate\n  policy: false".into();
        let told = all(&json!({"bindings": [{"binding": "gate", "action": "removed", "before": before, "after": null,
            "digest_before": "aa", "digest_after": null}]}));
        assert!(told.contains("binding gate removed:\n  module: gate?  policy: false\n  digest: aa\n"), "{told}");
        assert_eq!(told.matches("\n  policy: ").count(), 1, "{told}");
    }
}
