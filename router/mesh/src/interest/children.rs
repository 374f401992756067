//! What is below a level of the trie: sorted, in chunks that snapshots share.

use std::sync::Arc;

use super::trie::{Held, Node};

/// Most children of a chunk: a change copies one of them where a snapshot shares it, and looks through it in five steps.
const CHUNK_MAX: usize = 32;
/// Two neighbouring chunks of so many together become one, so that children that come and go leave no crumbs.
const MERGED_MAX: usize = CHUNK_MAX * 3 / 4;

/// All that begins with one level.
#[derive(Clone)]
pub(super) enum Child<V> {
    /// One pattern, however many levels it goes on: its text says which.
    Leaf(Arc<V>),
    /// Several.
    Node(Arc<Node<V>>),
}

/// The children of a node, sorted by their level. They do not keep it: a leaf has it in its pattern.
#[derive(Clone)]
pub(super) struct Children<V> {
    /// None is empty, or has more than [`CHUNK_MAX`].
    chunks: Vec<Arc<Vec<Child<V>>>>,
}

impl<V: Held> Child<V> {
    /// The level that this is the child of, for a node that is `depth` levels below the root.
    fn level(&self, depth: usize) -> &str {
        match self {
            Self::Leaf(held) => held.pattern().as_str().split('/').nth(depth).unwrap_or_default(),
            Self::Node(node) => node.level(),
        }
    }
}

impl<V> Child<V> {
    /// The one pattern, where it is one.
    pub(super) fn leaf(&self) -> Option<&Arc<V>> {
        match self {
            Self::Leaf(held) => Some(held),
            Self::Node(_) => None,
        }
    }
}

impl<V> Default for Children<V> {
    fn default() -> Self {
        Self { chunks: Vec::new() }
    }
}

impl<V: Held> Children<V> {
    /// The child of `level` in a node at `depth`.
    pub(super) fn find(&self, depth: usize, level: &str) -> Option<&Child<V>> {
        let chunk = self.chunks.get(self.chunk_of(depth, level))?;
        let at = chunk.binary_search_by(|child| child.level(depth).cmp(level)).ok()?;
        chunk.get(at)
    }

    /// Lets `change` set, alter or clear the child of `level` in a node at `depth`.
    pub(super) fn update(&mut self, depth: usize, level: &str, change: impl FnOnce(&mut Option<Child<V>>)) {
        let nth = self.chunk_of(depth, level);
        let found = self.chunks.get(nth).map(|chunk| chunk.binary_search_by(|child| child.level(depth).cmp(level)));
        match (self.chunks.get_mut(nth), found) {
            (Some(chunk), Some(Ok(at))) => {
                let chunk = Arc::make_mut(chunk);
                let mut place = Some(chunk.remove(at));
                change(&mut place);
                match place {
                    Some(child) => chunk.insert(at, child),
                    None => self.shrink(nth),
                }
            }
            (_, found) => {
                let mut place = None;
                change(&mut place);
                if let Some(child) = place {
                    self.insert(nth, found.and_then(Result::err).unwrap_or(0), child);
                }
            }
        }
    }

    /// Shows `visit` each child, with its level.
    pub(super) fn for_each<'a>(&'a self, depth: usize, mut visit: impl FnMut(&'a str, &'a Child<V>)) {
        self.chunks.iter().flat_map(|chunk| chunk.iter()).for_each(|child| visit(child.level(depth), child));
    }

    /// The child, where there is one and no other.
    pub(super) fn only(&self) -> Option<&Child<V>> {
        match &*self.chunks {
            [chunk] if chunk.len() == 1 => chunk.first(),
            _ => None,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// The chunk in which the child of `level` is, if there is one.
    fn chunk_of(&self, depth: usize, level: &str) -> usize {
        let begins_before = |chunk: &Arc<Vec<Child<V>>>| chunk.first().is_some_and(|first| first.level(depth) <= level);
        self.chunks.partition_point(begins_before).saturating_sub(1)
    }

    fn insert(&mut self, nth: usize, at: usize, child: Child<V>) {
        let Some(chunk) = self.chunks.get_mut(nth) else {
            // Exactly: most nodes have few children for life, and there may be a hundred thousand nodes.
            self.chunks.reserve_exact(1);
            return self.chunks.push(Arc::new(vec![child]));
        };
        if chunk.len() < CHUNK_MAX {
            return Arc::make_mut(chunk).insert(at, child);
        }
        if at == CHUNK_MAX {
            // What comes in order, as a snapshot does, fills its chunks.
            return self.chunks.insert(nth + 1, Arc::new(vec![child]));
        }
        let lower = Arc::make_mut(chunk);
        let mut upper = lower.split_off(CHUNK_MAX / 2);
        lower.shrink_to_fit();
        match at.checked_sub(CHUNK_MAX / 2) {
            Some(at) => upper.insert(at, child),
            None => lower.insert(at, child),
        }
        self.chunks.insert(nth + 1, Arc::new(upper));
    }

    /// A child of the `nth` chunk is gone.
    fn shrink(&mut self, nth: usize) {
        if self.chunks.get(nth).is_some_and(|chunk| chunk.is_empty()) {
            self.chunks.remove(nth);
            return;
        }
        for lower in [nth, nth.saturating_sub(1)] {
            if let [left, right, ..] = self.chunks.get_mut(lower..).unwrap_or_default()
                && left.len() + right.len() <= MERGED_MAX
            {
                Arc::make_mut(left).extend(right.iter().cloned());
                self.chunks.remove(lower + 1);
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use std::collections::BTreeSet;

    use myelin_wire::Pattern;

    use super::*;

    fn check(children: &Children<Pattern>, expected: &BTreeSet<String>) {
        let mut found = Vec::new();
        children.for_each(1, |level, _| found.push(level.to_owned()));
        assert!(found.iter().eq(expected), "{found:?} in place of {expected:?}");
        assert!(children.chunks.iter().all(|chunk| (1..=CHUNK_MAX).contains(&chunk.len())));
        assert_eq!(children.is_empty(), expected.is_empty());
    }

    #[test]
    fn children_stay_sorted_and_chunks_neither_empty_nor_too_large() {
        let mut rng = fastrand::Rng::with_seed(7);
        let (mut children, mut expected) = (Children::default(), BTreeSet::new());
        // First it grows, then it shrinks to nothing.
        for step in 0..12_000 {
            let (level, add) = (rng.u32(0..400).to_string(), rng.f64() < if step < 4_000 { 0.8 } else { 0.2 });
            let pattern: Pattern = format!("site/{level}/x").parse().unwrap();
            children.update(1, &level, |place| *place = add.then(|| Child::Leaf(Arc::new(pattern))));
            if add {
                expected.insert(level)
            } else {
                expected.remove(&level)
            };
            if step % 100 == 0 {
                check(&children, &expected);
            }
        }
        for level in std::mem::take(&mut expected) {
            assert!(children.find(1, &level).is_some());
            children.update(1, &level, |place| *place = None);
            assert!(children.find(1, &level).is_none());
        }
        check(&children, &expected);
    }

    #[test]
    fn what_comes_in_order_fills_its_chunks() {
        let mut children = Children::default();
        for number in 1_000..2_000 {
            let level = number.to_string();
            let pattern: Pattern = format!("{level}/**").parse().unwrap();
            children.update(0, &level, |place| *place = Some(Child::Leaf(Arc::new(pattern))));
        }
        assert_eq!(children.chunks.len(), 1_000_usize.div_ceil(CHUNK_MAX));
    }
}
