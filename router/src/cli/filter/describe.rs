//! What `myelin filter describe` says about a module.

use super::super::listing::{items, shown, size, text, time};
use serde_json::Value;
use std::fmt::Write;

/// Everything about a module, for people.
pub(super) fn describe(module: &Value) -> String {
    let mut out = String::new();
    let mut line = |name: &str, value: String| {
        if !value.is_empty() {
            let _ = writeln!(out, "{name:<12}{}", shown(&value));
        }
    };
    line("module", format!("{}@{}", text(&module["name"]), text(&module["version"])));
    line("state", text(&module["state"]));
    line("digest", text(&module["digest"]));
    line("size", size(&module["size_bytes"]));
    line("uploaded", time(&module["uploaded_unix_ms"]));
    line("world", text(&module["world"]));
    line("imports", text(&module["imports"]));
    line("uses", text(&module["capabilities"]));
    let signature = &module["signature"];
    line(
        "signature",
        match text(&signature["key_id"]) {
            key_id if key_id.is_empty() => "none".to_owned(),
            key_id => match signature["state"].as_str() {
                Some("key-removed") => {
                    format!("by {key_id}, which was removed since: it runs on, and begins nowhere anew")
                }
                Some("expired") => format!("by {key_id}, expired: it runs on, and begins nowhere anew"),
                _ => format!("by {key_id}"),
            },
        },
    );
    let quarantine = &module["quarantine"];
    if !quarantine.is_null() {
        let [binding, reason] = ["binding", "reason"].map(|field| text(&quarantine[field]));
        line("quarantined", format!("{} at binding {binding}: {reason}", time(&quarantine["at_unix_ms"])));
        line("", "mended? `myelin filter release`, then `myelin rollout start`".to_owned());
    }
    for described in items(module, "bindings") {
        binding(&mut out, described);
    }
    if items(module, "bindings").is_empty() {
        out.push_str("no binding uses it\n");
    }
    out
}

fn binding(out: &mut String, binding: &Value) {
    let field = |name: &str| text(&binding[name]);
    out.push('\n');
    let mut line = |name: &str, value: String| {
        if !value.is_empty() {
            let _ = writeln!(out, "  {name:<14}{}", shown(&value));
        }
    };
    line("binding", format!("{} ({})", field("name"), field("state")));
    line("attached", format!("{} of {}, order {}", field("stage"), field("pattern"), field("order")));
    line("on fault", field("on_fault"));
    let limits = &binding["limits"];
    line(
        "limits",
        format!("{} memory, {} us for a batch", size(&limits["memory_bytes"]), text(&limits["deadline_us"])),
    );
    line("may send to", text(&binding["grant"]["topics"]));
    if !binding["config"].is_null() {
        line("config", binding["config"].to_string());
    }
    line("reasons", text(&binding["info"]["reasons"]));
    let stats = &binding["stats"];
    if stats.is_null() {
        line("events", "not active".to_owned());
        return;
    }
    let count = |name: &str| stats[name].as_u64().unwrap_or_default();
    line("events", format!("{} in {} batches on {} workers", count("events"), count("batches"), count("workers")));
    line("verdicts", counts(&stats["verdicts"]));
    line("faults", counts(&stats["faults"]));
    line("faulted", counts(&stats["faulted_became"]));
    let fault = &stats["last_fault"];
    if !fault.is_null() {
        let at_ms = Value::from(fault["time_unix_ns"].as_u64().unwrap_or_default() / 1_000_000);
        line("last fault", format!("{} {}: {}", time(&at_ms), text(&fault["code"]), text(&fault["detail"])));
    }
    line("counters", counts(&stats["counters"]));
    line("shared", counts(&stats["shared"]));
    // A u64 of nanoseconds is 584 years: dividing is exact enough for people.
    let (events, cpu_ns) = (count("events"), count("cpu_ns"));
    if let Some(each_ns) = cpu_ns.checked_div(events) {
        line("cpu", format!("{} ms in all, {each_ns} ns for an event", cpu_ns / 1_000_000));
    }
    if stats["apart"] == true {
        line("runs apart", "on a thread of its own, after a fault".to_owned());
    }
    if stats["quarantined"] == true {
        line("quarantined", "events get its fault verdict".to_owned());
    }
}

/// `a 1, b 2` of an object of numbers; those that are 0 are left out.
fn counts(value: &Value) -> String {
    let Some(counts) = value.as_object() else { return String::new() };
    let counts = counts.iter().filter(|(_, count)| **count != 0);
    counts.map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn faults_and_verdicts_are_told() {
        let told = describe(&json!({
            "name": "redact", "version": "1.0.0", "state": "quarantined", "size_bytes": 100, "digest": "d",
            "uploaded_unix_ms": 0, "imports": [], "world": "easy",
            "quarantine": {"binding": "hide", "reason": "trap", "at_unix_ms": 0},
            "bindings": [{"name": "hide", "state": "active", "stage": "ingress", "pattern": "a/**", "order": 1,
                "on_fault": "reject", "limits": {"memory_bytes": 65536, "deadline_us": 2000},
                "stats": {"events": 10, "batches": 2, "workers": 1, "verdicts": {"allow": 7, "deny": 0}, "faults": {"trap": 3},
                    "last_fault": {"code": "trap", "detail": "unreachable\u{1b}", "time_unix_ns": 0}, "cpu_ns": 5000,
                    "shared": {"buckets": 3, "keys": 0, "keys_forgotten": 2}}}],
        }));
        for part in [
            "quarantined",
            "allow 7",
            "trap 3",
            "unreachable?",
            "500 ns for an event",
            "10 in 2 batches",
            "easy",
            "buckets 3, keys_forgotten 2",
        ] {
            assert!(told.contains(part), "{part}:\n{told}");
        }
        assert!(!told.contains("deny"), "{told}");
    }

    #[test]
    fn a_module_that_nobody_uses_says_so() {
        assert!(describe(&json!({"name": "a", "version": "1.0.0", "bindings": []})).contains("no binding uses it"));
    }
}
