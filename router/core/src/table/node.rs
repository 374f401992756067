//! The persistent trie under the table: one node for each level of a pattern.
//!
//! A change copies the nodes between the root and its place, and of those only what a snapshot still shares; wide
//! nodes keep their children in a hash trie, so that a change among a million siblings copies a few hundred bytes.

use std::sync::Arc;

use foldhash::fast::RandomState;
use imbl::{GenericHashMap, OrdMap};
use myelin_wire::topic::{WILDCARD_DEEP, WILDCARD_ONE};

use super::members::{Member, Members};
use super::{GroupMatch, MatchSet};

/// Up to here a node's children are one flat run that is searched from end to end.
const FLAT_MAX: usize = 8;

type ChildMap = GenericHashMap<Arc<str>, Arc<Node>, RandomState, imbl::shared_ptr::DefaultSharedPtr>;

/// Everything that is subscribed below one prefix.
#[derive(Clone, Default)]
pub(super) struct Node {
    children: Children,
    /// The child of the level `*`.
    any: Option<Arc<Node>>,
    /// The patterns that end here.
    exact: Option<Arc<Subscribers>>,
    /// The patterns that go on with `**` and end.
    deep: Option<Arc<Subscribers>>,
}

/// The subscribers of one pattern.
#[derive(Clone, Default)]
struct Subscribers {
    plain: Members,
    groups: Option<Box<OrdMap<Arc<str>, Group>>>,
}

#[derive(Clone)]
struct Group {
    pattern: Arc<str>,
    members: Members,
}

#[derive(Clone)]
enum Children {
    Flat(Vec<(Arc<str>, Arc<Node>)>),
    Map(ChildMap),
}

impl Node {
    /// Adds a subscriber of `pattern`, which must be valid.
    pub(super) fn insert(self: &mut Arc<Self>, pattern: &Arc<str>, member: Member, group: Option<&Arc<str>>) {
        let mut node = Arc::make_mut(self);
        for level in pattern.split('/') {
            let next = match level {
                WILDCARD_DEEP => {
                    let place = node.deep.get_or_insert_default();
                    return Arc::make_mut(place).insert(pattern, member, group);
                }
                WILDCARD_ONE => node.any.get_or_insert_default(),
                _ => node.children.get_or_insert(level),
            };
            node = Arc::make_mut(next);
        }
        Arc::make_mut(node.exact.get_or_insert_default()).insert(pattern, member, group);
    }

    /// Removes a subscriber of the pattern of these `levels`, and the nodes that nobody needs any more.
    pub(super) fn remove(&mut self, levels: &[&str], member: &Member, group: Option<&Arc<str>>) {
        match levels {
            [] => remove_subscriber(&mut self.exact, member, group),
            [WILDCARD_DEEP, ..] => remove_subscriber(&mut self.deep, member, group),
            [WILDCARD_ONE, rest @ ..] => {
                let Some(child) = &mut self.any else { return };
                let child = Arc::make_mut(child);
                child.remove(rest, member, group);
                if child.is_empty() {
                    self.any = None;
                }
            }
            [level, rest @ ..] => {
                let Some(child) = self.children.find_mut(level) else { return };
                let child = Arc::make_mut(child);
                child.remove(rest, member, group);
                if child.is_empty() {
                    self.children.remove(level);
                }
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.children.is_empty() && self.any.is_none() && self.exact.is_none() && self.deep.is_none()
    }

    /// Adds to `out` whoever matches the topic of these `levels` by a pattern below this node. `wild` is false where
    /// a wildcard of this very level must not match.
    pub(super) fn collect(&self, levels: &[&str], wild: bool, out: &mut MatchSet) {
        if let (Some(deep), true) = (&self.deep, wild) {
            deep.collect(out);
        }
        let Some((level, rest)) = levels.split_first() else {
            if let Some(exact) = &self.exact {
                exact.collect(out);
            }
            return;
        };
        if let Some(child) = self.children.find(level) {
            child.collect(rest, true, out);
        }
        if let (Some(child), true) = (&self.any, wild) {
            child.collect(rest, true, out);
        }
    }
}

fn remove_subscriber(place: &mut Option<Arc<Subscribers>>, member: &Member, group: Option<&Arc<str>>) {
    if let Some(subscribers) = place {
        let subscribers = Arc::make_mut(subscribers);
        subscribers.remove(member, group);
        if subscribers.plain.is_empty() && subscribers.groups.is_none() {
            *place = None;
        }
    }
}

impl Subscribers {
    fn insert(&mut self, pattern: &Arc<str>, member: Member, group: Option<&Arc<str>>) {
        let Some(name) = group else { return self.plain.insert(member) };
        let groups = self.groups.get_or_insert_default();
        groups
            .entry(name.clone())
            .or_insert_with(|| Group { pattern: pattern.clone(), members: Members::default() })
            .members
            .insert(member);
    }

    fn remove(&mut self, member: &Member, group: Option<&Arc<str>>) {
        let Some(name) = group else { return self.plain.remove(member) };
        let Some(groups) = &mut self.groups else { return };
        let Some(group) = groups.get_mut(name) else { return };
        group.members.remove(member);
        if group.members.is_empty() {
            groups.remove(name);
        }
        if groups.is_empty() {
            self.groups = None;
        }
    }

    fn collect(&self, out: &mut MatchSet) {
        self.plain.for_each(|(session, _)| out.plain.push(session));
        for (name, group) in self.groups.iter().flat_map(|groups| groups.iter()) {
            let mut members: Vec<Member> = Vec::new();
            // In order: a session that joined several times has its places next to each other, and counts once.
            group.members.for_each(|member| {
                if members.last().is_none_or(|last| last.0 != member.0) {
                    members.push(member);
                }
            });
            out.groups.push(GroupMatch { name: name.clone(), pattern: group.pattern.clone(), members });
        }
    }
}

impl Default for Children {
    fn default() -> Self {
        Self::Flat(Vec::new())
    }
}

impl Children {
    fn find(&self, level: &str) -> Option<&Arc<Node>> {
        match self {
            Self::Flat(children) => children.iter().find(|(name, _)| **name == *level).map(|(_, child)| child),
            Self::Map(children) => children.get(level),
        }
    }

    fn find_mut(&mut self, level: &str) -> Option<&mut Arc<Node>> {
        match self {
            Self::Flat(children) => children.iter_mut().find(|(name, _)| **name == *level).map(|(_, child)| child),
            Self::Map(children) => children.get_mut(level),
        }
    }

    fn get_or_insert(&mut self, level: &str) -> &mut Arc<Node> {
        if self.find(level).is_none() {
            self.insert(level.into());
        }
        self.find_mut(level).expect("it was there, or was added just now")
    }

    fn insert(&mut self, level: Arc<str>) {
        match self {
            Self::Flat(children) if children.len() < FLAT_MAX => {
                // Exactly: most nodes have one child for life, and there may be a million of them.
                children.reserve_exact(1);
                children.push((level, Arc::default()));
            }
            Self::Flat(children) => {
                *self = Self::Map(children.drain(..).chain([(level, Arc::default())]).collect());
            }
            Self::Map(children) => {
                children.insert(level, Arc::default());
            }
        }
    }

    fn remove(&mut self, level: &str) {
        match self {
            Self::Flat(children) => children.retain(|(name, _)| **name != *level),
            Self::Map(children) => {
                children.remove(level);
                // At half, so that a node on the border does not change its shape with every change.
                if children.len() <= FLAT_MAX / 2 {
                    *self = Self::Flat(children.iter().map(|(name, child)| (name.clone(), child.clone())).collect());
                }
            }
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Self::Flat(children) => children.is_empty(),
            Self::Map(children) => children.is_empty(),
        }
    }
}
