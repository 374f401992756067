//! The subscription table: which sessions want a topic.
//!
//! One [`TableWriter`] keeps it and publishes [`Table`] snapshots, immutable and cheap to clone; workers read those
//! without a lock and may cache answers as long as the version stays the same.

use std::collections::BTreeMap;
use std::sync::Arc;

use myelin_wire::topic::{Pattern, TOPIC_LEVELS_MAX, is_reserved};
use smallvec::SmallVec;

use crate::session::SessionKey;

mod members;
mod node;
#[cfg(test)]
mod tests;

use node::Node;

/// A snapshot of all subscriptions.
#[derive(Clone, Default)]
pub struct Table {
    root: Arc<Node>,
    version: u64,
    subscriptions: usize,
}

/// Who gets an event of one topic. Answers compare equal where they say the same.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MatchSet {
    /// The sessions that get a copy: each once, sorted, however many of their patterns match.
    pub plain: SmallVec<[SessionKey; 8]>,
    /// The groups of which one member gets a copy, besides: sorted by name, then pattern.
    pub groups: Vec<GroupMatch>,
}

/// A queue group that wants the topic. A group is its name and its pattern: the same name under two patterns that
/// both match is two groups, each of which gets a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupMatch {
    /// What the subscribers call it.
    pub name: Arc<str>,
    /// What they subscribed to.
    pub pattern: Arc<str>,
    /// Its members, each a session and the id of the subscription there; sorted, never empty. A session that joined more
    /// than once is a member once, by its lowest id.
    pub members: Vec<(SessionKey, u32)>,
}

/// Why a change of the table is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// The session has a subscription of that id.
    #[error("the session has a subscription {subscription} already; unsubscribe it first, or use another id")]
    Duplicate {
        /// The id.
        subscription: u32,
    },
    /// The session has no subscription of that id.
    #[error("the session has no subscription {subscription}; use an id that it subscribed and did not unsubscribe")]
    Unknown {
        /// The id.
        subscription: u32,
    },
}

/// The only one that changes the table. Caps on the number of subscriptions are its caller's.
#[derive(Default)]
pub struct TableWriter {
    table: Table,
    subscriptions: BTreeMap<(SessionKey, u32), Subscription>,
}

struct Subscription {
    pattern: Pattern,
    group: Option<Arc<str>>,
}

/// What somebody subscribed to: the pattern, and the group that it was a member of.
pub type Subscribed = (Pattern, Option<Arc<str>>);

impl Table {
    /// Writes to `out` who gets an event of `topic`, which must be valid; what `out` held before is gone.
    pub fn matches(&self, topic: &str, out: &mut MatchSet) {
        out.clear();
        let levels: SmallVec<[&str; TOPIC_LEVELS_MAX]> = topic.split('/').collect();
        self.root.collect(&levels, !is_reserved(topic), out);
        out.plain.sort_unstable();
        out.plain.dedup();
        out.groups.sort_unstable_by(|a, b| (&a.name, &a.pattern).cmp(&(&b.name, &b.pattern)));
    }

    /// Grows with every change; equal versions of one writer have equal answers.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// How many subscriptions there are.
    pub fn len(&self) -> usize {
        self.subscriptions
    }

    /// Whether nobody subscribes to anything.
    pub fn is_empty(&self) -> bool {
        self.subscriptions == 0
    }
}

impl MatchSet {
    /// Forgets everybody; keeps the memory.
    pub fn clear(&mut self) {
        self.plain.clear();
        self.groups.clear();
    }

    /// Whether nobody wants the topic.
    pub fn is_empty(&self) -> bool {
        self.plain.is_empty() && self.groups.is_empty()
    }

    /// How many copies an event of the topic makes.
    pub fn targets(&self) -> usize {
        self.plain.len() + self.groups.len()
    }
}

impl TableWriter {
    /// A table without subscriptions.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the subscription `subscription` of `session`, as a member of `group` where one is named.
    pub fn subscribe(
        &mut self,
        session: SessionKey,
        subscription: u32,
        pattern: &Pattern,
        group: Option<Arc<str>>,
    ) -> Result<(), TableError> {
        let key = (session, subscription);
        if self.subscriptions.contains_key(&key) {
            return Err(TableError::Duplicate { subscription });
        }
        self.table.root.insert(&pattern.clone().into_shared(), key, group.as_ref());
        self.subscriptions.insert(key, Subscription { pattern: pattern.clone(), group });
        self.changed();
        Ok(())
    }

    /// Removes the subscription `subscription` of `session`, and says what it was.
    pub fn unsubscribe(&mut self, session: SessionKey, subscription: u32) -> Result<Subscribed, TableError> {
        let key = (session, subscription);
        let gone = self.subscriptions.remove(&key).ok_or(TableError::Unknown { subscription })?;
        self.detach(key, &gone);
        self.changed();
        Ok((gone.pattern, gone.group))
    }

    /// Removes everything that `session` subscribed, and says what that was.
    pub fn drop_session(&mut self, session: SessionKey) -> Vec<Subscribed> {
        let ids: Vec<u32> =
            self.subscriptions.range((session, 0)..=(session, u32::MAX)).map(|(key, _)| key.1).collect();
        let mut dropped = Vec::with_capacity(ids.len());
        for id in ids {
            let key = (session, id);
            if let Some(gone) = self.subscriptions.remove(&key) {
                self.detach(key, &gone);
                dropped.push((gone.pattern, gone.group));
            }
        }
        if !dropped.is_empty() {
            self.changed();
        }
        dropped
    }

    /// The table as it is now.
    pub fn snapshot(&self) -> Table {
        self.table.clone()
    }

    /// The version that a snapshot would have.
    pub fn version(&self) -> u64 {
        self.table.version
    }

    fn detach(&mut self, key: (SessionKey, u32), gone: &Subscription) {
        let levels: SmallVec<[&str; TOPIC_LEVELS_MAX]> = gone.pattern.levels().collect();
        Arc::make_mut(&mut self.table.root).remove(&levels, &key, gone.group.as_ref());
    }

    fn changed(&mut self) {
        self.table.version += 1;
        self.table.subscriptions = self.subscriptions.len();
    }
}

impl TableError {
    /// The stable name of this refusal.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Duplicate { .. } => "duplicate-subscription",
            Self::Unknown { .. } => "unknown-subscription",
        }
    }
}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The trie may have a million nodes: a log line wants none of them.
        f.debug_struct("Table")
            .field("version", &self.version)
            .field("subscriptions", &self.subscriptions)
            .finish_non_exhaustive()
    }
}
