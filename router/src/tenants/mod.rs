//! Tenants: whose topics are whose, and what each tenant uses of this router.
//!
//! The keeper of the catalog publishes a table with the policies ([`crate::policy::Rules`]): who may not touch a topic
//! because it is another tenant's is found out before any policy is asked. Who belongs to which tenant follows from a
//! service's name alone, never from anything that it sends.

mod groups;
mod meter;
mod reach;
mod usage;

#[cfg(test)]
mod tests;

pub use self::groups::group_name;
pub use self::reach::{check_reach, new_selectors, unmet_shares};
pub use self::usage::{Figures, Member, Spent, Usage};

use crate::names::INBOX;
use crate::residency::event_of_letter;
use myelin_catalog::limits::TENANT_ROOT_LEVELS_MAX;
use myelin_catalog::{Selector, Share, Tenant};
use myelin_policy::{Action, Service};
use myelin_wire::Pattern;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

/// Stands between a session and its tenant in the name of the session's inbox.
const INBOX_TENANT: char = ':';

/// The tenants at a moment.
#[derive(Debug, Default)]
pub struct Tenants {
    known: Box<[Known]>,
    roots: HashMap<Box<str>, usize>,
    services: HashMap<Box<str>, usize>,
    beginnings: HashMap<Box<str>, usize>,
    /// How long those beginnings are, longest first, each length once.
    lengths: Box<[usize]>,
}

/// A tenant with what follows from it.
#[derive(Debug)]
pub struct Known {
    /// As the catalog has it.
    pub tenant: Arc<Tenant>,
    /// Its topics.
    topics: Pattern,
    /// What it uses here.
    pub usage: Arc<Usage>,
}

/// Why a topic is not for a service, whatever the policies say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Foreign {
    /// The service's own tenant has other topics.
    Outside {
        /// The tenant.
        tenant: Arc<str>,
        /// Its topics.
        topics: Pattern,
    },
    /// The topic is a tenant's, to which the service does not belong.
    Owned {
        /// The tenant.
        tenant: Arc<str>,
    },
    /// The answer would go to a session of another tenant.
    Inbox,
    /// A topic of dead letters that does not say whose they are.
    DeadLetters,
}

impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Outside { tenant, topics } => write!(f, "the topics of tenant {tenant} are `{topics}`"),
            Self::Owned { tenant } => write!(f, "it is a topic of tenant {tenant}"),
            Self::Inbox => f.write_str("whoever asked is of another tenant, which may not ask"),
            Self::DeadLetters => f.write_str("it may hold dead letters of any tenant"),
        }
    }
}

impl Tenants {
    /// The table after `before`: who is in both goes on being counted and metered as before.
    pub fn after<'a>(before: &Self, tenants: impl Iterator<Item = &'a Arc<Tenant>>) -> Self {
        let mut table = Self::default();
        let mut known = Vec::new();
        for tenant in tenants {
            let at = known.len();
            let usage = match before.find(tenant.name.as_str()) {
                Some(same) => same.usage.clone(),
                None => Arc::new(Usage::new(tenant.name.as_str())),
            };
            usage.bound(&tenant.quota);
            known.push(Known { tenant: tenant.clone(), topics: tenant.topics(), usage });
            table.roots.insert(tenant.root.as_str().into(), at);
            for selector in &tenant.services {
                match selector.beginning() {
                    Some(beginning) => table.beginnings.insert(beginning.into(), at),
                    None => table.services.insert(selector.as_str().into(), at),
                };
            }
        }
        let mut lengths: Vec<_> = table.beginnings.keys().map(|beginning| beginning.len()).collect();
        lengths.sort_unstable_by(|a, b| b.cmp(a));
        lengths.dedup();
        (table.known, table.lengths) = (known.into(), lengths.into());
        table
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Known> {
        self.known.iter()
    }

    /// The tenant of that name.
    pub fn find(&self, name: &str) -> Option<&Known> {
        self.known.iter().find(|known| known.tenant.name.as_str() == name)
    }

    /// The tenant that a service belongs to: that of its whole name, or of the longest beginning.
    pub fn of(&self, service: &Service) -> Option<&Known> {
        let id = service.id();
        let longest = || {
            let beginnings = self.lengths.iter().filter_map(|length| id.get(..*length));
            beginnings.filter_map(|beginning| self.beginnings.get(beginning)).next()
        };
        self.services.get(id).or_else(longest).map(|at| &self.known[*at])
    }

    /// The tenant whose topic this is, or whose topics the levels before a wildcard lead to.
    fn owner(&self, topic: &str) -> Option<&Known> {
        let ends = topic.match_indices('/').map(|(at, _)| at).chain([topic.len()]);
        let at = ends.take(TENANT_ROOT_LEVELS_MAX).find_map(|end| self.roots.get(&topic[..end]))?;
        self.known.get(*at)
    }

    /// Whether a topic, or the pattern of a subscription, is for a service at all.
    ///
    /// # Errors
    /// Why it is not.
    pub fn check(&self, service: &Service, action: Action, topic: &str) -> Result<(), Foreign> {
        if self.is_empty() {
            return Ok(());
        }
        let own = self.of(service);
        if action == Action::Reply {
            return self.check_reply(own, topic);
        }
        // Dead letters are of whom their events were of, and of nobody that these are shared with: what was turned back, or
        // taken out of an event on its way to them, is in there.
        let (topic, is_letter) = match event_of_letter(topic) {
            None => (topic, false),
            Some(Some(event)) => (event, true),
            // Of all bindings: each topic is looked at by itself.
            Some(None) if topic.contains('*') && own.is_none() => return Ok(()),
            Some(None) => return Err(Foreign::DeadLetters),
        };
        let owner = self.owner(topic);
        match (own, owner) {
            (None, None) => Ok(()),
            (Some(own), Some(owner)) if std::ptr::eq(own, owner) => Ok(()),
            (Some(own), None) => Err(Foreign::Outside { tenant: own.usage.name().clone(), topics: own.topics.clone() }),
            (own, Some(owner)) if !is_letter && owner.shares(own, action, topic) => Ok(()),
            (_, Some(owner)) => Err(Foreign::Owned { tenant: owner.usage.name().clone() }),
        }
    }

    /// Answers go to those of the own tenant, and to those who may ask it.
    fn check_reply(&self, own: Option<&Known>, inbox: &str) -> Result<(), Foreign> {
        let asker = tenant_of_inbox(inbox);
        let may = match own {
            None => asker.is_none(),
            Some(own) if asker.is_some_and(|asker| asker == own.tenant.name.as_str()) => true,
            Some(own) => own.tenant.shares.iter().any(|share| share.access.publishes() && is_with(share, asker)),
        };
        if may { Ok(()) } else { Err(Foreign::Inbox) }
    }
}

impl Known {
    /// Whether it lets those of `other` do that with its topic, or with all topics of a pattern.
    fn shares(&self, other: Option<&Self>, action: Action, topic: &str) -> bool {
        let other = other.map(|other| other.tenant.name.as_str());
        let fits = |share: &&Share| {
            let access = match action {
                Action::Subscribe => share.access.subscribes(),
                Action::Publish | Action::Request | Action::Reply => share.access.publishes(),
            };
            access && is_with(share, other)
        };
        let mut shares = self.tenant.shares.iter().filter(fits);
        if !topic.contains('*') {
            return shares.any(|share| share.topics.matches(topic));
        }
        Pattern::new(topic).is_ok_and(|pattern| shares.any(|share| share.topics.implies(&pattern)))
    }
}

/// Whether a share is for a tenant, or for those without one.
fn is_with(share: &Share, tenant: Option<&str>) -> bool {
    let fits = |selector: &Selector| match tenant {
        Some(name) => selector.fits(name),
        None => selector.as_str() == "*",
    };
    share.with.iter().any(fits)
}

/// The last part of a session's inbox where it is of a tenant: whoever answers is judged by it.
pub fn inbox_suffix(tenant: Option<&Usage>) -> String {
    tenant.map_or_else(String::new, |tenant| format!("{INBOX_TENANT}{}", tenant.name()))
}

/// Whose inbox it is: routers name them, so that a name that somebody made up is nobody's.
fn tenant_of_inbox(topic: &str) -> Option<&str> {
    let session = topic.strip_prefix(INBOX)?.split('/').nth(1)?;
    session.split_once(INBOX_TENANT).map(|(_, tenant)| tenant)
}
