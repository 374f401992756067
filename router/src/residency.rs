//! Where events may be: the catalog's rules for topics, as the sites' numbers.
//!
//! The keeper of the catalog publishes a table whenever the rules or the sites change; each worker looks its topics up
//! and remembers the answer with the topic's route. A rule binds the ways too: the mesh finds routes over the allowed
//! sites only, the stamp of an event carries them, and every hop checks them again before each link.

use myelin_catalog::TopicRule;
use myelin_mesh::{Directory, SiteSet};
use myelin_wire::{Pattern, validate_topic};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Topics of dead letters begin with this; binding and topic of the event follow.
pub const DEAD_LETTERS: &str = "$dead/";

/// The topic of the dead letter that a binding makes of an event. None where the event's topic is so long, or of so many
/// levels, that the letter's cannot hold it: policies, tenants and residency go by it, and nothing else would say to them
/// whose letter it is.
pub fn dead_letter(binding: &str, topic: &str) -> Option<String> {
    let letter = format!("{DEAD_LETTERS}{binding}/{topic}");
    validate_topic(&letter).is_ok().then_some(letter)
}

/// The topic of the event that a dead letter was; `Some(None)` where the letter's topic does not say, as routers of a
/// version before had it for long ones. None where it is no dead letter.
pub fn event_of_letter(topic: &str) -> Option<Option<&str>> {
    let rest = topic.strip_prefix(DEAD_LETTERS)?;
    Some(rest.split_once('/').map(|(_binding, event)| event))
}

/// The rules at a moment. At most [`TOPIC_RULES_MAX`](myelin_catalog::limits::TOPIC_RULES_MAX) of them, which are looked
/// through once for each topic.
#[derive(Debug, Default)]
pub struct Residency {
    /// Grows with every table.
    version: u64,
    rules: Vec<(Pattern, SiteSet)>,
    sites: HashMap<Arc<str>, SiteSet>,
}

impl Residency {
    /// The table that comes after `before`.
    pub fn after<'a>(before: &Self, rules: impl Iterator<Item = &'a TopicRule>, directory: &Directory) -> Self {
        let set = |rule: &TopicRule| {
            directory.sites_where(|site| rule.residency.allows(&site.name, &site.region, &site.cloud))
        };
        Self {
            version: before.version + 1,
            rules: rules
                .filter(|rule| !rule.residency.is_anywhere())
                .map(|rule| (rule.pattern.clone(), set(rule)))
                .collect(),
            sites: directory.sites().map(|site| (site.name.clone(), SiteSet::only(site.number))).collect(),
        }
    }

    /// Tells tables apart.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The sites at which events of `topic` may be; `None` = anywhere. Dead letters stay where their events may be.
    pub fn allowed(&self, topic: &str) -> Option<SiteSet> {
        let topic = event_of_letter(topic).unwrap_or(Some(topic));
        // A dead letter that does not say which event it was: as if it were of all.
        let holds = |pattern: &Pattern| topic.is_none_or(|topic| pattern.matches(topic));
        let rules = self.rules.iter().filter(|(pattern, _)| holds(pattern));
        rules.map(|(_, sites)| sites.clone()).reduce(|a, b| a & &b)
    }

    /// The site of that name, as a set; empty where there is none.
    pub fn site(&self, name: &str) -> SiteSet {
        self.sites.get(name).cloned().unwrap_or(SiteSet::EMPTY)
    }
}

/// What residency has held back since the router's start.
#[derive(Debug, Default)]
pub struct HeldBack {
    /// Events that were refused because they may not be at this site.
    pub refused: AtomicU64,
    /// Copies for other sites that want an event and may not have it, or that only a forbidden way leads to.
    pub copies: AtomicU64,
}

impl HeldBack {
    /// Both figures.
    pub fn read(&self) -> (u64, u64) {
        (self.refused.load(Relaxed), self.copies.load(Relaxed))
    }

    /// Counts `events` that `sites` other sites do not get.
    pub fn add(&self, events: u64, sites: u32) {
        self.copies.fetch_add(events * u64::from(sites), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::*;
    use myelin_mesh::{Router, Site, SiteNumber};

    fn table(rules: &[serde_json::Value]) -> Residency {
        let place = |number, name: &str, region: &str| Site {
            number: SiteNumber::new(number).unwrap(),
            name: name.into(),
            region: region.into(),
            cloud: "own".into(),
        };
        let sites = [place(0, "hamburg", "eu-north"), place(1, "madrid", "eu-south"), place(2, "ohio", "us-east")];
        let directory = Directory::new(sites, std::iter::empty::<Router>()).unwrap();
        let rules: Vec<TopicRule> = rules.iter().map(|rule| serde_json::from_value(rule.clone()).unwrap()).collect();
        Residency::after(&Residency::default(), rules.iter(), &directory)
    }

    #[test]
    fn a_dead_letter_says_of_which_event_it_is_or_there_is_none() {
        let longest = "x".repeat(250 - "$dead/gate/".len());
        for event in ["a", "orders/1", &longest, &["a"; 30].join("/")] {
            let letter = dead_letter("gate", event).unwrap();
            assert_eq!(event_of_letter(&letter), Some(Some(event)));
        }
        for event in [&*format!("{longest}x"), &["a"; 31].join("/")] {
            assert_eq!(dead_letter("gate", event), None, "{event}");
        }
        assert_eq!((event_of_letter("$dead/gate"), event_of_letter("orders/1")), (Some(None), None));
    }

    #[test]
    fn all_rules_of_a_topic_hold() {
        let table = table(&[
            serde_json::json!({"name": "eu", "pattern": "orders/**", "residency": {"regions": ["eu-*"]}}),
            serde_json::json!({"name": "one", "pattern": "orders/secret", "residency": {"sites": ["madrid", "ohio"]}}),
        ]);
        let set = |names: &[&str]| names.iter().fold(SiteSet::EMPTY, |set, name| set | &table.site(name));
        assert_eq!(table.allowed("orders/1"), Some(set(&["hamburg", "madrid"])));
        assert_eq!(table.allowed("orders/secret"), Some(set(&["madrid"])));
        assert_eq!(table.allowed("other"), None);
        assert_eq!(table.allowed("$dead/gate/orders/secret"), Some(set(&["madrid"])));
        assert_eq!(table.allowed("$dead/gate/other"), None);
        assert_eq!(table.allowed("$dead/gate"), Some(set(&["madrid"])), "of which event nobody knows");
        assert_eq!(table.site("nowhere"), SiteSet::EMPTY);
        assert_eq!(table.version(), 1);
    }
}
