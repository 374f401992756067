//! A persistent trie of patterns: a node for each level that several of them share, `*` and `**` in places of their own.
//!
//! It answers three questions: which patterns match a topic, which imply a pattern, and which a pattern implies. A change
//! copies the nodes between the root and its place, and of those only what a snapshot still shares.
//!
//! Most patterns share their first levels only: from where one is alone it is a leaf, which is asked by its text.

use std::sync::Arc;

use myelin_wire::Pattern;
use myelin_wire::topic::{WILDCARD_DEEP, WILDCARD_ONE, is_reserved};
use smallvec::SmallVec;

use super::children::{Child, Children};

type Levels<'a> = SmallVec<[&'a str; 16]>;

/// What can be kept in a trie.
pub(super) trait Held: Clone {
    /// The pattern that it is kept for.
    fn pattern(&self) -> &Pattern;
}

impl Held for Pattern {
    fn pattern(&self) -> &Pattern {
        self
    }
}

/// Patterns and what is kept for each.
#[derive(Clone)]
pub(super) struct Trie<V> {
    root: Arc<Node<V>>,
}

/// What begins with the same levels.
#[derive(Clone)]
pub(super) struct Node<V> {
    /// The last of them; none at the root.
    level: Arc<str>,
    children: Children<V>,
    /// The child of the level `*`.
    any: Option<Child<V>>,
    /// The pattern that ends here.
    exact: Option<Arc<V>>,
    /// The pattern that goes on with `**` and ends.
    deep: Option<Arc<V>>,
}

/// Sets, alters or clears what is kept for a pattern; called once.
type Change<'a, V> = &'a mut dyn FnMut(&mut Option<V>);

/// A pattern or topic that is asked for.
struct Asked<'a, T: ?Sized> {
    text: &'a T,
    levels: Levels<'a>,
}

impl<V> Default for Trie<V> {
    fn default() -> Self {
        Self { root: Arc::new(Node::new("")) }
    }
}

impl<V: Held> Trie<V> {
    /// Lets `change` set, alter or clear what is kept for `pattern`.
    pub(super) fn update(&mut self, pattern: &Pattern, change: impl FnOnce(&mut Option<V>)) {
        let asked = Asked { text: pattern, levels: pattern.as_str().split('/').collect() };
        let mut change = Some(change);
        Arc::make_mut(&mut self.root).update(&asked, 0, &mut |place| {
            if let Some(change) = change.take() {
                change(place);
            }
        });
    }

    /// Shows `visit` what is kept for each pattern that matches `topic`, which must be valid.
    pub(super) fn matching<'a>(&'a self, topic: &str, mut visit: impl FnMut(&'a V)) {
        let asked = Asked { text: topic, levels: topic.split('/').collect() };
        self.root.matching(&asked, 0, &mut visit);
    }

    /// Whether `test` says yes to a pattern that implies `pattern`; the pattern itself is among those asked.
    pub(super) fn any_implying(&self, pattern: &Pattern, mut test: impl FnMut(&V) -> bool) -> bool {
        // A topic has at least one level, so that the pattern `**` is `*/**`.
        let whole = if pattern.as_str() == WILDCARD_DEEP { "*/**" } else { pattern.as_str() };
        let asked = Asked { text: pattern, levels: whole.split('/').collect() };
        self.root.any_implying(&asked, 0, &mut test)
    }

    /// Shows `visit` what is kept for each pattern that `pattern` implies; the pattern itself is among them.
    pub(super) fn implied<'a>(&'a self, pattern: &Pattern, mut visit: impl FnMut(&'a V)) {
        let asked = Asked { text: pattern, levels: pattern.as_str().split('/').collect() };
        if let (["*", "**"], Some(deep)) = (&*asked.levels, &self.root.deep) {
            visit(deep);
        }
        self.root.implied(&asked, 0, &mut visit);
    }
}

impl<V> Node<V> {
    fn new(level: &str) -> Self {
        Self { level: level.into(), children: Children::default(), any: None, exact: None, deep: None }
    }

    /// The level that leads here from the node above.
    pub(super) fn level(&self) -> &str {
        &self.level
    }
}

impl<V: Held> Node<V> {
    fn update(&mut self, asked: &Asked<'_, Pattern>, depth: usize, change: Change<'_, V>) {
        match asked.levels.get(depth) {
            None => change_shared(&mut self.exact, change),
            Some(&WILDCARD_DEEP) => change_shared(&mut self.deep, change),
            Some(&WILDCARD_ONE) => update_child(&mut self.any, asked, depth, change),
            Some(level) => self.children.update(depth, level, |child| update_child(child, asked, depth, change)),
        }
    }

    /// A wildcard as the first level matches no reserved topic.
    fn matching<'a>(&'a self, asked: &Asked<'_, str>, depth: usize, visit: &mut impl FnMut(&'a V)) {
        let wild = depth > 0 || !is_reserved(asked.text);
        if let (Some(deep), true) = (&self.deep, wild) {
            visit(deep);
        }
        let Some(level) = asked.levels.get(depth) else {
            return self.exact.as_deref().into_iter().for_each(visit);
        };
        let named = self.children.find(depth, level);
        for child in named.into_iter().chain(self.any.as_ref().filter(|_| wild)) {
            match child {
                Child::Leaf(held) if held.pattern().matches(asked.text) => visit(held),
                Child::Leaf(_) => {}
                Child::Node(node) => node.matching(asked, depth + 1, visit),
            }
        }
    }

    fn any_implying(&self, asked: &Asked<'_, Pattern>, depth: usize, test: &mut impl FnMut(&V) -> bool) -> bool {
        let wild = depth > 0 || !is_reserved(asked.text.as_str());
        if let (Some(deep), true) = (&self.deep, wild)
            && test(deep)
        {
            return true;
        }
        let Some(&level) = asked.levels.get(depth) else {
            return self.exact.as_deref().is_some_and(test);
        };
        if level == WILDCARD_DEEP {
            return false;
        }
        let named = if level == WILDCARD_ONE { None } else { self.children.find(depth, level) };
        named.into_iter().chain(self.any.as_ref().filter(|_| wild)).any(|child| match child {
            Child::Leaf(held) => held.pattern().implies(asked.text) && test(held),
            Child::Node(node) => node.any_implying(asked, depth + 1, test),
        })
    }

    fn implied<'a>(&'a self, asked: &Asked<'_, Pattern>, depth: usize, visit: &mut impl FnMut(&'a V)) {
        let mut visit_child = |child: &'a Child<V>| match child {
            Child::Leaf(held) if asked.text.implies(held.pattern()) => visit(held),
            Child::Leaf(_) => {}
            Child::Node(node) => node.implied(asked, depth + 1, visit),
        };
        // No wildcard implies a reserved topic, which only the first level can make one.
        let is_meant = |level: &str| depth > 0 || !is_reserved(level);
        match asked.levels.get(depth) {
            None => self.exact.as_deref().into_iter().for_each(visit),
            Some(&WILDCARD_DEEP) => self.all(depth, visit),
            Some(&WILDCARD_ONE) => {
                self.children.for_each(depth, |level, child| {
                    if is_meant(level) {
                        visit_child(child);
                    }
                });
                self.any.as_ref().into_iter().for_each(visit_child);
            }
            Some(level) => self.children.find(depth, level).into_iter().for_each(visit_child),
        }
    }

    fn all<'a>(&'a self, depth: usize, visit: &mut impl FnMut(&'a V)) {
        self.exact.as_deref().into_iter().for_each(&mut *visit);
        self.deep.as_deref().into_iter().for_each(&mut *visit);
        let mut visit_child = |child: &'a Child<V>| match child {
            Child::Leaf(held) => visit(held),
            Child::Node(node) => node.all(depth + 1, visit),
        };
        self.any.as_ref().into_iter().for_each(&mut visit_child);
        self.children.for_each(depth, |level, child| {
            if depth > 0 || !is_reserved(level) {
                visit_child(child);
            }
        });
    }

    fn is_empty(&self) -> bool {
        self.children.is_empty() && self.any.is_none() && self.exact.is_none() && self.deep.is_none()
    }

    /// What is kept here, where it is one thing and no more.
    fn only(&self) -> Option<&Arc<V>> {
        match (&self.exact, &self.deep, &self.any, self.children.is_empty()) {
            (Some(held), None, None, true) | (None, Some(held), None, true) => Some(held),
            (None, None, Some(child), true) => child.leaf(),
            (None, None, None, false) => self.children.only()?.leaf(),
            _ => None,
        }
    }
}

/// Changes what is kept for a pattern that goes through the child of its level at `depth`.
fn update_child<V: Held>(
    place: &mut Option<Child<V>>,
    asked: &Asked<'_, Pattern>,
    depth: usize,
    change: Change<'_, V>,
) {
    *place = match place.take() {
        None => {
            let mut kept = None;
            change_shared(&mut kept, change);
            kept.map(Child::Leaf)
        }
        Some(Child::Leaf(held)) if held.pattern() == asked.text => {
            let mut kept = Some(held);
            change_shared(&mut kept, change);
            kept.map(Child::Leaf)
        }
        Some(Child::Leaf(held)) => {
            let mut kept = None;
            change(&mut kept);
            let Some(kept) = kept else { return *place = Some(Child::Leaf(held)) };
            let mut node = Node::new(asked.levels[depth]);
            let other = held.pattern().clone();
            let other = Asked { text: &other, levels: other.as_str().split('/').collect() };
            let (mut held, mut kept) = (Some(Arc::unwrap_or_clone(held)), Some(kept));
            node.update(&other, depth + 1, &mut |place| *place = held.take());
            node.update(asked, depth + 1, &mut |place| *place = kept.take());
            Some(Child::Node(Arc::new(node)))
        }
        Some(Child::Node(mut node)) => {
            let inner = Arc::make_mut(&mut node);
            inner.update(asked, depth + 1, change);
            match inner.only() {
                Some(held) => Some(Child::Leaf(held.clone())),
                None => (!inner.is_empty()).then_some(Child::Node(node)),
            }
        }
    };
}

/// Changes what may be there.
fn change_shared<V: Clone>(place: &mut Option<Arc<V>>, change: Change<'_, V>) {
    let mut value = place.take().map(Arc::unwrap_or_clone);
    change(&mut value);
    *place = value.map(Arc::new);
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
            trie.any_implying(&asked, |pattern: &Pattern| { implying.insert(pattern.clone()); false });
            let expected: BTreeSet<_> = naive.iter().filter(|pattern| pattern.implies(&asked)).cloned().collect();
            prop_assert_eq!(implying, expected, "implying {}", &asked);

            let mut implied = BTreeSet::new();
            trie.implied(&asked, |pattern: &Pattern| { implied.insert(pattern.clone()); });
            let expected: BTreeSet<_> = naive.iter().filter(|pattern| asked.implies(pattern)).cloned().collect();
            prop_assert_eq!(implied, expected, "implied by {}", &asked);

            for pattern in naive {
                trie.update(&pattern, |place| *place = None);
            }
            prop_assert!(trie.root.is_empty(), "no node is left behind");
        }
    }
}
