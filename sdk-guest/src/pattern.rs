//! Patterns for topics and identities, as a router writes them.

/// A run of levels with `/` between them: `*` is exactly one level, `**` at the end is any number of further levels, none
/// included. Fits topics (`orders/*/paid`) and identities (`spiffe://shop/service/*`).
///
/// ```
/// use myelin_filter::Pattern;
/// let pattern = Pattern::new("orders/**").unwrap();
/// assert!(pattern.matches("orders") && pattern.matches("orders/eu/paid") && !pattern.matches("order/eu"));
/// assert!(Pattern::new("**").unwrap().matches(""), "and whoever says nothing");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(String);

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// A sentence that says what is wrong with it.
    pub fn new(text: &str) -> Result<Self, String> {
        let levels: Vec<_> = text.split('/').collect();
        let (last, before) = levels.split_last().unwrap_or((&"", &[]));
        if text.is_empty() {
            return Err("a pattern is empty; write ** for everything".to_owned());
        }
        if before.contains(&"**") {
            return Err(format!("the pattern \"{text}\" has ** before its end; it may only be the last level"));
        }
        let is_mixed = |level: &&str| level.contains('*') && !matches!(*level, "*" | "**");
        match before.iter().chain([last]).find(|level| is_mixed(level)) {
            Some(level) => Err(format!("the pattern \"{text}\" has \"{level}\" as a level; * and ** stand alone")),
            None => Ok(Self(text.to_owned())),
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it matches a topic or an identity. As at a router, a topic that begins with `$` is not matched by a
    /// leading wildcard.
    pub fn matches(&self, text: &str) -> bool {
        if text.starts_with('$') && self.0.starts_with('*') {
            return false;
        }
        let mut levels = text.split('/');
        for wanted in self.0.split('/') {
            if wanted == "**" {
                return true;
            }
            match levels.next() {
                Some(level) if wanted == "*" || wanted == level => {}
                _ => return false,
            }
        }
        levels.next().is_none()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn levels_are_matched_one_by_one() {
        let matches = |pattern: &str, text: &str| Pattern::new(pattern).unwrap().matches(text);
        for (pattern, text) in [
            ("a/b", "a/b"),
            ("a/*", "a/b"),
            ("*/b", "a/b"),
            ("a/**", "a"),
            ("a/**", "a/b/c"),
            ("*/**", "a"),
            ("**", "a/b"),
            ("spiffe://shop/service/*", "spiffe://shop/service/web"),
            ("$dead/**", "$dead/x/y"),
        ] {
            assert!(matches(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [
            ("a/b", "a"),
            ("a", "a/b"),
            ("a/*", "a"),
            ("a/*", "a/b/c"),
            ("a/**", "ab"),
            ("**", "$dead/x"),
            ("*/x", "$dead/x"),
            ("spiffe://shop/service/*", "spiffe://other/service/web"),
        ] {
            assert!(!matches(pattern, text), "{pattern} {text}");
        }
    }

    #[test]
    fn what_is_no_pattern_is_told() {
        let refused = |text: &str| Pattern::new(text).unwrap_err();
        assert!(refused("").contains("empty"));
        assert!(refused("a/**/b").contains("last level"));
        assert!(refused("a/b*").contains("\"b*\""));
        assert!(refused("a/***").contains("\"***\""));
    }
}
