//! What a filter says about itself, checked: its needs, its routes, its reasons and its counters.

use std::fmt;

use myelin_wire::topic::Topic;

use crate::limits::{
    COUNTERS_MAX, NAME_BYTES_MAX, NEEDED_HEADERS_MAX, REASON_BYTES_MAX, REASONS_MAX, ROUTES_MAX, SlotLimits,
};

/// How much of each payload the filter sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PayloadNeed {
    /// Nothing but its length.
    #[default]
    None,
    /// At most so many bytes from its beginning.
    Prefix(u32),
    /// All of it.
    Full,
}

/// What the host copies into the arena for each event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Names of the headers that the filter reads.
    pub headers: Vec<String>,
    /// It reads attributes, whatever their names.
    pub all_headers: bool,
    /// The publisher's identity.
    pub identity: bool,
    /// The payload.
    pub payload: PayloadNeed,
}

impl Needs {
    /// Everything there is.
    pub fn everything() -> Self {
        Self { headers: Vec::new(), all_headers: true, identity: true, payload: PayloadNeed::Full }
    }

    /// Whether the attribute block is copied.
    pub fn attrs(&self) -> bool {
        self.all_headers || !self.headers.is_empty()
    }
}

/// Where a route bit of a verdict leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteTarget {
    /// The event goes on under this topic.
    Topic(Topic),
    /// The event goes to this site.
    Site(std::sync::Arc<str>),
}

impl RouteTarget {
    /// Reads `topic:NAME` or `site:NAME`.
    ///
    /// # Errors
    /// A sentence that says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Some(topic) = text.strip_prefix("topic:") {
            return Topic::new(topic).map(Self::Topic).map_err(|e| format!("route `{text}`: {e}"));
        }
        match text.strip_prefix("site:") {
            Some(site) if !site.is_empty() && site.len() <= NAME_BYTES_MAX && !site.contains(char::is_whitespace) => {
                Ok(Self::Site(site.into()))
            }
            Some(_) => Err(format!("route `{text}`: a site's name has 1 to {NAME_BYTES_MAX} bytes and no blanks")),
            None => Err(format!("route `{text}`: write `topic:NAME` or `site:NAME`")),
        }
    }
}

impl fmt::Display for RouteTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Topic(topic) => write!(f, "topic:{}", topic.as_str()),
            Self::Site(site) => write!(f, "site:{site}"),
        }
    }
}

/// What a filter declares when it is set up. Checked by [`check`](Self::check) before anything of it is used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FilterInfo {
    /// Its name, as its author wrote it.
    pub name: String,
    /// Its version.
    pub version: String,
    /// What it wants to see.
    pub needs: Needs,
    /// What the bits of a verdict's route set mean.
    pub routes: Vec<RouteTarget>,
    /// What the reason id of a deny or a dead-letter means.
    pub reasons: Vec<String>,
    /// Metrics that it may raise.
    pub counters: Vec<String>,
    /// Bytes that it may put out for each event; 0 = it never transforms, emits or explains.
    pub max_output: u32,
}

impl FilterInfo {
    /// Checks every count and every text against its limit.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    pub fn check(&self, limits: &SlotLimits) -> Result<(), String> {
        at_most("routes", self.routes.len(), ROUTES_MAX)?;
        at_most("reasons", self.reasons.len(), REASONS_MAX)?;
        at_most("counters", self.counters.len(), COUNTERS_MAX)?;
        at_most("headers in `needs`", self.needs.headers.len(), NEEDED_HEADERS_MAX)?;
        at_most("bytes of output for an event", self.max_output as usize, limits.event_output_bytes_max as usize)?;
        text("name", &self.name, NAME_BYTES_MAX)?;
        text("version", &self.version, NAME_BYTES_MAX)?;
        self.needs.headers.iter().try_for_each(|header| text("header name", header, usize::from(u8::MAX)))?;
        self.reasons.iter().try_for_each(|reason| text("reason", reason, REASON_BYTES_MAX))?;
        for (index, counter) in self.counters.iter().enumerate() {
            text("counter name", counter, NAME_BYTES_MAX)?;
            if !counter.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_') {
                return Err(format!("counter `{counter}`: only a-z, 0-9 and _ may stand in a metric's name"));
            }
            if self.counters[..index].contains(counter) {
                return Err(format!("counter `{counter}` is declared twice"));
            }
        }
        Ok(())
    }
}

fn at_most(what: &str, count: usize, limit: usize) -> Result<(), String> {
    if count <= limit { Ok(()) } else { Err(format!("{count} {what}: at most {limit} are allowed")) }
}

fn text(what: &str, text: &str, bytes_max: usize) -> Result<(), String> {
    if text.is_empty() || text.len() > bytes_max {
        return Err(format!("a {what} of {} bytes: 1 to {bytes_max} are allowed", text.len()));
    }
    if text.contains(char::is_control) {
        return Err(format!("the {what} {text:?} holds a control character"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> FilterInfo {
        FilterInfo { name: "a".into(), version: "1".into(), ..FilterInfo::default() }
    }

    #[test]
    fn every_lie_about_itself_is_refused() {
        let limits = SlotLimits::default();
        assert_eq!(good().check(&limits), Ok(()));
        let refused = |change: &dyn Fn(&mut FilterInfo)| {
            let mut info = good();
            change(&mut info);
            info.check(&limits).expect_err("refused")
        };
        assert!(refused(&|i| i.name.clear()).contains("name"));
        assert!(refused(&|i| i.version = "x".repeat(65)).contains("version"));
        assert!(refused(&|i| i.name = "a\nb".into()).contains("control"));
        assert!(refused(&|i| i.reasons = vec!["r".into(); 1025]).contains("1024"));
        assert!(refused(&|i| i.reasons = vec![String::new()]).contains("reason"));
        assert!(refused(&|i| i.counters = (0..65).map(|n| format!("c{n}")).collect()).contains("64"));
        assert!(refused(&|i| i.counters = vec!["Bad-Name".into()]).contains("a-z"));
        assert!(refused(&|i| i.counters = vec!["a".into(), "a".into()]).contains("twice"));
        assert!(refused(&|i| i.max_output = u32::MAX).contains("output"));
        let site = RouteTarget::parse("site:eu-1").expect("site");
        assert!(refused(&|i| i.routes = vec![site.clone(); 33]).contains("32"));
    }

    #[test]
    fn a_route_names_a_topic_or_a_site() {
        assert_eq!(RouteTarget::parse("topic:audit/log").expect("topic").to_string(), "topic:audit/log");
        assert_eq!(RouteTarget::parse("site:eu-1").expect("site").to_string(), "site:eu-1");
        for bad in ["audit/log", "topic:", "topic:a/*", "topic:a//b", "site:", "site:a b"] {
            assert!(RouteTarget::parse(bad).is_err(), "{bad}");
        }
    }
}
