//! Patterns as other brokers write them: they are topics here, and match nothing that their writer thinks of.

/// Tells on stderr what was probably meant, where a pattern looks like one of NATS or MQTT. It is used as it is.
pub(super) fn hint(pattern: &str) {
    if let Some(meant) = meant(pattern) {
        eprintln!("hint: `{pattern}` is that very topic and no pattern here; did you mean `{meant}`?");
    }
}

/// What such a pattern is called here: `*` is one level, `**` at the end is any number.
fn meant(pattern: &str) -> Option<String> {
    // NATS parts levels by dots.
    let of_nats = !pattern.contains('/') && (pattern.ends_with(".>") || pattern.contains(".*"));
    let with_slashes = if of_nats { pattern.replace('.', "/") } else { pattern.to_owned() };
    let levels: Vec<&str> = with_slashes.split('/').collect();
    let last = levels.len() - 1;
    let ours = levels.iter().enumerate().map(|(at, level)| match *level {
        ">" | "#" if at == last => "**",
        "+" => "*",
        level => level,
    });
    let ours = ours.collect::<Vec<_>>().join("/");
    (ours != pattern).then_some(ours)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_of_other_brokers_are_recognized() {
        for (given, ours) in [
            ("a/>", "a/**"),
            ("a/#", "a/**"),
            ("#", "**"),
            ("+/b/#", "*/b/**"),
            ("a/+/c", "a/*/c"),
            ("orders.eu.>", "orders/eu/**"),
            ("orders.*.new", "orders/*/new"),
        ] {
            assert_eq!(meant(given).as_deref(), Some(ours), "{given}");
        }
        for ours in ["a/**", "a/*/b", "a", "a/b#", "a/#/b", "a.b/c", "v1.2", "$dead/**"] {
            assert_eq!(meant(ours), None, "{ours}");
        }
    }
}
