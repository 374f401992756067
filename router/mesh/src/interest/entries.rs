//! What one router wants, as the others keep it.

use std::collections::BTreeSet;

use myelin_wire::Pattern;

use crate::control::Entry;

/// A set of entries. Most have no group: those take their text, which the table shares, and little more.
#[derive(Default)]
pub(super) struct Entries {
    plain: BTreeSet<Pattern>,
    grouped: BTreeSet<Entry>,
}

impl Entries {
    pub(super) fn len(&self) -> usize {
        self.plain.len() + self.grouped.len()
    }

    pub(super) fn contains(&self, entry: &Entry) -> bool {
        match entry.1 {
            None => self.plain.contains(&entry.0),
            Some(_) => self.grouped.contains(entry),
        }
    }

    pub(super) fn remove(&mut self, entry: &Entry) -> bool {
        match entry.1 {
            None => self.plain.remove(&entry.0),
            Some(_) => self.grouped.remove(entry),
        }
    }

    pub(super) fn extend(&mut self, entries: BTreeSet<Entry>) {
        let (grouped, plain): (BTreeSet<_>, BTreeSet<_>) = entries.into_iter().partition(|entry| entry.1.is_some());
        add(&mut self.plain, plain.into_iter().map(|Entry(pattern, _)| pattern).collect());
        add(&mut self.grouped, grouped);
    }

    /// All of them, those without a group first.
    pub(super) fn iter(&self) -> impl Iterator<Item = Entry> {
        self.plain.iter().map(|pattern| Entry(pattern.clone(), None)).chain(self.grouped.iter().cloned())
    }

    /// Those that `other` has not.
    pub(super) fn difference<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = Entry> + 'a {
        let plain = self.plain.difference(&other.plain).map(|pattern| Entry(pattern.clone(), None));
        plain.chain(self.grouped.difference(&other.grouped).cloned())
    }
}

impl From<BTreeSet<Entry>> for Entries {
    fn from(entries: BTreeSet<Entry>) -> Self {
        let mut made = Self::default();
        made.extend(entries);
        made
    }
}

/// Adds `more`. A set that is built in one go has full nodes, one that gets its members in order has half-full ones: it is
/// built anew where that costs no more than a few look-ups for each new member.
fn add<T: Ord>(set: &mut BTreeSet<T>, mut more: BTreeSet<T>) {
    if more.len() >= set.len() / 8 {
        set.append(&mut more);
    } else {
        set.extend(more);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use proptest::prelude::*;

    use super::*;
    use crate::control::GroupName;

    fn entries() -> impl Strategy<Value = BTreeSet<Entry>> {
        let group = prop::option::of(prop::sample::select(vec!["g", "h"]));
        let entry = (0..40_u32, group)
            .prop_map(|(topic, group)| Entry(format!("t/{topic}").parse().unwrap(), group.and_then(GroupName::new)));
        prop::collection::btree_set(entry, 0..60)
    }

    proptest! {
        #[test]
        fn it_is_a_set(first in entries(), more in entries(), gone in entries()) {
            let mut made = Entries::from(first.clone());
            made.extend(more.clone());
            let mut expected: BTreeSet<_> = &first | &more;
            for entry in &gone {
                prop_assert_eq!(made.contains(entry), expected.contains(entry));
                prop_assert_eq!(made.remove(entry), expected.remove(entry));
            }
            prop_assert_eq!(made.len(), expected.len());
            prop_assert_eq!(made.iter().collect::<BTreeSet<_>>(), expected.clone());
            let left: BTreeSet<_> = made.difference(&Entries::from(first.clone())).collect();
            prop_assert_eq!(left, &expected - &first);
        }
    }
}
