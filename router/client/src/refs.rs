//! Numbers for topics on a publish stream.

use std::sync::Arc;

use hashbrown::HashMap;
use myelin_wire::limits::TOPIC_REFS_MAX;

/// References in use on one stream, at most: all that the protocol has but 0, which elsewhere means the router.
pub(crate) const REFS_MAX: usize = TOPIC_REFS_MAX as usize - 1;

/// Which topic has which reference on the publish stream. When all are taken, the oldest is given a new meaning.
#[derive(Debug)]
pub(crate) struct TopicRefs {
    refs: HashMap<Arc<str>, u32>,
    /// The name of reference `n` is at `n - 1`.
    names: Vec<Arc<str>>,
    /// Where the next new name goes.
    next: usize,
    /// Where the name used last is: publishers mostly stay with one.
    last: usize,
    refs_max: usize,
}

impl TopicRefs {
    /// None is taken; at most `refs_max` (1 to [`REFS_MAX`]) will be.
    pub(crate) fn new(refs_max: usize) -> Self {
        let refs_max = refs_max.clamp(1, REFS_MAX);
        Self { refs: HashMap::new(), names: Vec::new(), next: 0, last: 0, refs_max }
    }

    /// The reference of `topic`, if it has one.
    #[inline]
    pub(crate) fn find(&mut self, topic: &str) -> Option<u32> {
        if self.names.get(self.last).is_some_and(|name| **name == *topic) {
            return Some(reference_at(self.last));
        }
        let reference = *self.refs.get(topic)?;
        self.last = reference as usize - 1;
        Some(reference)
    }

    /// Gives `topic` a reference, which must be announced on the stream before it is used.
    pub(crate) fn define(&mut self, topic: &str) -> u32 {
        let (at, name) = (self.next, Arc::<str>::from(topic));
        if at < self.names.len() {
            let forgotten = std::mem::replace(&mut self.names[at], name.clone());
            self.refs.remove(&forgotten);
        } else {
            self.names.push(name.clone());
        }
        self.next = (at + 1) % self.refs_max;
        self.last = at;
        self.refs.insert(name, reference_at(at));
        reference_at(at)
    }
}

fn reference_at(at: usize) -> u32 {
    // `at` is below `REFS_MAX`.
    u32::try_from(at + 1).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_reference_is_given_a_new_meaning() {
        let mut refs = TopicRefs::new(2);
        assert_eq!([refs.define("a"), refs.define("b")], [1, 2]);
        assert_eq!([refs.find("a"), refs.find("b")], [Some(1), Some(2)]);
        assert_eq!(refs.define("c"), 1);
        assert_eq!([refs.find("a"), refs.find("b"), refs.find("c")], [None, Some(2), Some(1)]);
    }

    #[test]
    fn references_stay_below_the_limit_of_the_protocol() {
        let mut refs = TopicRefs::new(usize::MAX);
        let most = (0..70_000).map(|n| refs.define(&format!("t/{n}"))).max();
        assert_eq!(most, Some(TOPIC_REFS_MAX - 1));
        assert_eq!(refs.refs.len(), REFS_MAX);
    }
}
