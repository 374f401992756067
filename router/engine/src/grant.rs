//! What a binding allows its filter to reach.

use myelin_wire::topic::{Pattern, is_reserved, validate_topic};

use crate::info::RouteTarget;

/// Topics and sites that a filter's routes and emitted events may name. An empty grant allows none.
#[derive(Clone, Debug, Default)]
pub struct Grant {
    topics: Vec<Pattern>,
    sites: Vec<String>,
    everything: bool,
}

impl Grant {
    /// The topics that match one of `topics`, and the `sites` by name (`*` is any site).
    pub fn new(topics: Vec<Pattern>, sites: Vec<String>) -> Self {
        Self { topics, sites, everything: false }
    }

    /// Any topic that is not the router's own, and any site: for self-tests and for operators who want it so.
    pub fn everything() -> Self {
        Self { everything: true, ..Self::default() }
    }

    /// Whether an event may go out under `topic`.
    pub fn allows_topic(&self, topic: &str) -> bool {
        if self.everything { !is_reserved(topic) } else { self.topics.iter().any(|pattern| pattern.matches(topic)) }
    }

    /// Whether an event may be sent to `site`.
    pub fn allows_site(&self, site: &str) -> bool {
        self.everything || self.sites.iter().any(|granted| granted == "*" || granted == site)
    }

    /// Whether a declared route is granted.
    pub fn allows(&self, target: &RouteTarget) -> bool {
        match target {
            RouteTarget::Topic(topic) => self.allows_topic(topic.as_str()),
            RouteTarget::Site(site) => self.allows_site(site),
        }
    }

    /// Checks the topic of an emitted event.
    pub(crate) fn check_emitted(&self, topic: &str) -> Result<(), String> {
        validate_topic(topic).map_err(|e| format!("an emitted event: {e}"))?;
        if self.allows_topic(topic) {
            return Ok(());
        }
        Err(format!("an emitted event goes to `{topic}`, which the binding does not grant"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_granted_unless_it_was_said() {
        let none = Grant::default();
        assert!(!none.allows_topic("a") && !none.allows_site("eu"));
        let some = Grant::new(vec![Pattern::new("audit/**").expect("pattern")], vec!["eu".into()]);
        assert!(some.allows_topic("audit/log") && !some.allows_topic("orders"));
        assert!(some.allows_site("eu") && !some.allows_site("us"));
        assert!(some.check_emitted("audit/log").is_ok());
        assert!(some.check_emitted("audit//log").is_err() && some.check_emitted("orders").is_err());
        let all = Grant::everything();
        assert!(all.allows_topic("a/b") && all.allows_site("us") && !all.allows_topic("$dead/x"));
    }
}
