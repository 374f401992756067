//! A persistent trie of patterns: one node for each level, `*` and `**` in places of their own.
//!
//! It answers three questions: which patterns match a topic, which imply a pattern, and which a pattern implies. A change
//! copies the nodes between the root and its place, and of those only what a snapshot still shares.

use std::sync::Arc;

use foldhash::fast::RandomState;
use imbl::GenericHashMap;
use myelin_wire::topic::{WILDCARD_DEEP, WILDCARD_ONE, is_reserved};
use smallvec::SmallVec;

/// Up to here a node's children are one flat run that is searched from end to end.
const FLAT_MAX: usize = 8;

type ChildMap<V> = GenericHashMap<Arc<str>, Arc<Node<V>>, RandomState, imbl::shared_ptr::DefaultSharedPtr>;
type Levels<'a> = SmallVec<[&'a str; 16]>;

/// Patterns and what is kept for each.
#[derive(Clone)]
pub(super) struct Trie<V> {
    root: Arc<Node<V>>,
}

/// There is one for nearly every pattern: what most of them lack takes a word.
#[derive(Clone)]
struct Node<V> {
    children: Children<V>,
    /// The child of the level `*`.
    any: Option<Arc<Node<V>>>,
    /// The pattern that ends here.
    exact: Option<Box<V>>,
    /// The pattern that goes on with `**` and ends.
    deep: Option<Box<V>>,
}

#[derive(Clone)]
enum Children<V> {
    Flat(Vec<(Arc<str>, Arc<Node<V>>)>),
    Map(Box<ChildMap<V>>),
}

impl<V> Default for Trie<V> {
    fn default() -> Self {
        Self { root: Arc::default() }
    }
}

impl<V> Default for Node<V> {
    fn default() -> Self {
        Self { children: Children::Flat(Vec::new()), any: None, exact: None, deep: None }
    }
}

impl<V: Clone> Trie<V> {
    /// Lets `change` set, alter or clear what is kept for `pattern`, which must be valid.
    pub(super) fn update(&mut self, pattern: &str, change: impl FnOnce(&mut Option<V>)) {
        let levels: Levels<'_> = pattern.split('/').collect();
        Arc::make_mut(&mut self.root).update(&levels, change);
    }

    /// Shows `visit` what is kept for each pattern that matches `topic`, which must be valid.
    pub(super) fn matching<'a>(&'a self, topic: &str, mut visit: impl FnMut(&'a V)) {
        let levels: Levels<'_> = topic.split('/').collect();
        self.root.matching(&levels, !is_reserved(topic), &mut visit);
    }

    /// Whether `test` says yes to a pattern that implies `pattern`; the pattern itself is among those asked.
    pub(super) fn any_implying(&self, pattern: &str, mut test: impl FnMut(&V) -> bool) -> bool {
        // A topic has at least one level, so that the pattern `**` is `*/**`.
        let whole = if pattern == WILDCARD_DEEP { "*/**" } else { pattern };
        let levels: Levels<'_> = whole.split('/').collect();
        self.root.any_implying(&levels, !is_reserved(pattern), &mut test)
    }

    /// Shows `visit` what is kept for each pattern that `pattern` implies; the pattern itself is among them.
    pub(super) fn implied<'a>(&'a self, pattern: &str, mut visit: impl FnMut(&'a V)) {
        let levels: Levels<'_> = pattern.split('/').collect();
        if let (["*", "**"], Some(deep)) = (&*levels, &self.root.deep) {
            visit(deep);
        }
        self.root.implied(&levels, true, &mut visit);
    }
}

impl<V: Clone> Node<V> {
    fn update(&mut self, levels: &[&str], change: impl FnOnce(&mut Option<V>)) {
        match levels {
            [] => change_boxed(&mut self.exact, change),
            [WILDCARD_DEEP, ..] => change_boxed(&mut self.deep, change),
            [WILDCARD_ONE, rest @ ..] => {
                let child = Arc::make_mut(self.any.get_or_insert_default());
                child.update(rest, change);
                if child.is_empty() {
                    self.any = None;
                }
            }
            [level, rest @ ..] => {
                let child = Arc::make_mut(self.children.get_or_insert(level));
                child.update(rest, change);
                if child.is_empty() {
                    self.children.remove(level);
                }
            }
        }
    }

    /// `wild` is false where a wildcard of this very level must not match.
    fn matching<'a>(&'a self, levels: &[&str], wild: bool, visit: &mut impl FnMut(&'a V)) {
        if let (Some(deep), true) = (&self.deep, wild) {
            visit(deep);
        }
        let Some((level, rest)) = levels.split_first() else {
            if let Some(exact) = &self.exact {
                visit(exact);
            }
            return;
        };
        if let Some(child) = self.children.find(level) {
            child.matching(rest, true, visit);
        }
        if let (Some(child), true) = (&self.any, wild) {
            child.matching(rest, true, visit);
        }
    }

    fn any_implying(&self, levels: &[&str], wild: bool, test: &mut impl FnMut(&V) -> bool) -> bool {
        if let (Some(deep), true) = (&self.deep, wild)
            && test(deep)
        {
            return true;
        }
        match levels {
            [] => self.exact.as_deref().is_some_and(test),
            [WILDCARD_DEEP, ..] => false,
            [level, rest @ ..] => {
                let child = if *level == WILDCARD_ONE { None } else { self.children.find(level) };
                child.is_some_and(|child| child.any_implying(rest, true, test))
                    || (wild && self.any.as_ref().is_some_and(|child| child.any_implying(rest, true, test)))
            }
        }
    }

    /// `first` is true at the root, where no wildcard implies a reserved topic.
    fn implied<'a>(&'a self, levels: &[&str], first: bool, visit: &mut impl FnMut(&'a V)) {
        match levels {
            [] => self.exact.as_deref().into_iter().for_each(visit),
            [WILDCARD_DEEP, ..] => self.all(first, visit),
            [WILDCARD_ONE, rest @ ..] => {
                self.children.for_each(|level, child| {
                    if !(first && is_reserved(level)) {
                        child.implied(rest, false, visit);
                    }
                });
                if let Some(child) = &self.any {
                    child.implied(rest, false, visit);
                }
            }
            [level, rest @ ..] => {
                if let Some(child) = self.children.find(level) {
                    child.implied(rest, false, visit);
                }
            }
        }
    }

    fn all<'a>(&'a self, first: bool, visit: &mut impl FnMut(&'a V)) {
        self.exact.as_deref().into_iter().for_each(&mut *visit);
        self.deep.as_deref().into_iter().for_each(&mut *visit);
        if let Some(child) = &self.any {
            child.all(false, visit);
        }
        self.children.for_each(|level, child| {
            if !(first && is_reserved(level)) {
                child.all(false, visit);
            }
        });
    }

    fn is_empty(&self) -> bool {
        self.children.is_empty() && self.any.is_none() && self.exact.is_none() && self.deep.is_none()
    }
}

/// Changes what may be there.
fn change_boxed<V>(place: &mut Option<Box<V>>, change: impl FnOnce(&mut Option<V>)) {
    let mut value = place.take().map(|value| *value);
    change(&mut value);
    *place = value.map(Box::new);
}

impl<V: Clone> Children<V> {
    fn find(&self, level: &str) -> Option<&Arc<Node<V>>> {
        match self {
            Self::Flat(children) => children.iter().find(|(name, _)| **name == *level).map(|(_, child)| child),
            Self::Map(children) => children.get(level),
        }
    }

    fn get_or_insert(&mut self, level: &str) -> &mut Arc<Node<V>> {
        if self.find(level).is_none() {
            self.insert(level.into());
        }
        let found = match self {
            Self::Flat(children) => children.iter_mut().find(|(name, _)| **name == *level).map(|(_, child)| child),
            Self::Map(children) => children.get_mut(level),
        };
        found.expect("it was there, or was added just now")
    }

    fn insert(&mut self, level: Arc<str>) {
        match self {
            Self::Flat(children) if children.len() < FLAT_MAX => {
                // Exactly: most nodes have one child for life, and there may be a hundred thousand of them.
                children.reserve_exact(1);
                children.push((level, Arc::default()));
            }
            Self::Flat(children) => {
                *self = Self::Map(Box::new(children.drain(..).chain([(level, Arc::default())]).collect()));
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

    fn for_each<'a>(&'a self, mut visit: impl FnMut(&'a str, &'a Node<V>)) {
        match self {
            Self::Flat(children) => children.iter().for_each(|(level, child)| visit(level, child)),
            Self::Map(children) => children.iter().for_each(|(level, child)| visit(level, child)),
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Self::Flat(children) => children.is_empty(),
            Self::Map(children) => children.is_empty(),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use std::collections::BTreeSet;

    use myelin_wire::Pattern;
    use proptest::prelude::*;

    use super::*;

    fn level() -> impl Strategy<Value = String> {
        // A few that meet often, and enough others that a node outgrows its flat children.
        prop_oneof![
            6 => prop::sample::select(vec!["a", "b", "$s"]).prop_map(str::to_owned),
            2 => (0..16).prop_map(|n| format!("n{n}")),
        ]
    }

    pub(crate) fn topic() -> impl Strategy<Value = String> {
        prop::collection::vec(level(), 1..5).prop_map(|levels| levels.join("/"))
    }

    pub(crate) fn pattern() -> impl Strategy<Value = Pattern> {
        let level = prop_oneof![3 => level(), 1 => Just("*".to_owned())];
        (prop::collection::vec(level, 0..4), prop::bool::weighted(0.3)).prop_map(|(mut levels, deep)| {
            if deep || levels.is_empty() {
                levels.push("**".to_owned());
            }
            levels.join("/").parse().unwrap()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn the_three_questions_are_answered_as_by_asking_every_pattern(
            changes in prop::collection::vec((pattern(), prop::bool::weighted(0.8)), 0..60),
            asked in pattern(), topic in topic(),
        ) {
            let (mut trie, mut naive) = (Trie::default(), BTreeSet::new());
            for (pattern, add) in changes {
                trie.update(&pattern, |place| *place = add.then(|| pattern.clone()));
                if add { naive.insert(pattern) } else { naive.remove(&pattern) };
            }
            let mut matching = BTreeSet::new();
            trie.matching(&topic, |pattern: &Pattern| assert!(matching.insert(pattern.clone())));
            let expected: BTreeSet<_> = naive.iter().filter(|pattern| pattern.matches(&topic)).cloned().collect();
            prop_assert_eq!(matching, expected, "matching {}", topic);

            let mut implying = BTreeSet::new();
            trie.any_implying(&asked, |pattern| { implying.insert(pattern.clone()); false });
            let expected: BTreeSet<_> = naive.iter().filter(|pattern| pattern.implies(&asked)).cloned().collect();
            prop_assert_eq!(implying, expected, "implying {}", &asked);

            let mut implied = BTreeSet::new();
            trie.implied(&asked, |pattern| { implied.insert(pattern.clone()); });
            let expected: BTreeSet<_> = naive.iter().filter(|pattern| asked.implies(pattern)).cloned().collect();
            prop_assert_eq!(implied, expected, "implied by {}", &asked);

            for pattern in naive {
                trie.update(&pattern, |place| *place = None);
            }
            prop_assert!(trie.root.is_empty(), "no node is left behind");
        }
    }
}
