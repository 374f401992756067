//! Who wants a topic: the interest of all other routers, folded into sites.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use myelin_wire::Pattern;
use smallvec::SmallVec;

use super::group_id;
use super::trie::{Held, Trie};
use crate::control::{Entry, GroupName};
use crate::directory::Directory;
use crate::ids::{RouterNumber, SiteNumber};
use crate::site_set::SiteSet;

/// A snapshot of the interest of all other routers: immutable, cheap to clone, good to send to every worker.
#[derive(Clone)]
pub struct Interest {
    trie: Trie<Slot>,
    directory: Arc<Directory>,
    /// Routers that no path leads to. What they want is kept, for they may be back in a moment; nothing is sent for it.
    absent: Arc<BTreeSet<RouterNumber>>,
    my_site: SiteNumber,
    version: u64,
}

/// Who wants an event of one topic, this router left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InterestMatch {
    /// The other sites with plain subscribers.
    pub sites: SiteSet,
    /// The other routers of this site with plain subscribers, sorted.
    pub siblings: SmallVec<[RouterNumber; 4]>,
    /// The queue groups with members elsewhere, sorted by name, then pattern. A group is its name and its pattern.
    pub groups: Vec<GroupInterest>,
}

impl InterestMatch {
    /// Forgets everybody who is not at one of `sites`; `mine` is the own one.
    pub fn keep(&mut self, sites: &SiteSet, mine: SiteNumber) {
        let is_here = sites.contains(mine);
        self.sites &= sites;
        if !is_here {
            self.siblings.clear();
        }
        for group in &mut self.groups {
            group.sites &= sites;
            if !is_here {
                group.siblings.clear();
            }
        }
        self.groups.retain(|group| !group.sites.is_empty() || !group.siblings.is_empty());
    }
}

/// Where a queue group has members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupInterest {
    /// What stands for it in a stamp.
    pub id: u32,
    /// Its name.
    pub name: Arc<str>,
    /// What its members subscribed to.
    pub pattern: Pattern,
    /// The other sites with members.
    pub sites: SiteSet,
    /// The other routers of this site with members, sorted.
    pub siblings: SmallVec<[RouterNumber; 4]>,
}

/// One pattern that matches a topic, and who has told of it: for explanations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// What is subscribed to.
    pub pattern: Pattern,
    /// As a member of which queue group.
    pub group: Option<Arc<str>>,
    /// The other routers that a path leads to, sorted.
    pub routers: Vec<RouterNumber>,
    /// Those that no path leads to, sorted: nothing is sent for them.
    pub absent: Vec<RouterNumber>,
}

/// The routers that advertise one pattern. There may be a million of them.
#[derive(Clone)]
struct Slot {
    pattern: Pattern,
    plain: Owners,
    groups: Option<Box<Groups>>,
}

/// The members of queue groups, sorted by the groups' names.
type Groups = SmallVec<[(GroupName, Owners); 1]>;

/// Routers, sorted. Most patterns are wanted by one.
#[derive(Clone, Default)]
enum Owners {
    #[default]
    None,
    One(RouterNumber),
    Many(Box<SmallVec<[RouterNumber; 8]>>),
}

impl Owners {
    fn as_slice(&self) -> &[RouterNumber] {
        match self {
            Self::None => &[],
            Self::One(owner) => std::slice::from_ref(owner),
            Self::Many(owners) => owners,
        }
    }

    fn insert(&mut self, owner: RouterNumber) {
        match self {
            Self::None => *self = Self::One(owner),
            Self::One(known) if *known == owner => {}
            Self::One(known) => {
                let pair = [(*known).min(owner), (*known).max(owner)];
                *self = Self::Many(Box::new(SmallVec::from_slice(&pair)));
            }
            Self::Many(owners) => {
                if let Err(at) = owners.binary_search(&owner) {
                    owners.insert(at, owner);
                }
            }
        }
    }

    fn remove(&mut self, owner: RouterNumber) {
        match self {
            Self::One(known) if *known == owner => *self = Self::None,
            Self::None | Self::One(_) => {}
            Self::Many(owners) => {
                owners.retain(|known| *known != owner);
                if let [last] = owners[..] {
                    *self = Self::One(last);
                }
            }
        }
    }
}

impl Slot {
    fn new(pattern: Pattern) -> Self {
        Self { pattern, plain: Owners::None, groups: None }
    }

    fn groups(&self) -> &[(GroupName, Owners)] {
        self.groups.as_ref().map_or(&[], |groups| groups)
    }

    fn is_empty(&self) -> bool {
        self.plain.as_slice().is_empty() && self.groups.is_none()
    }

    fn insert(&mut self, owner: RouterNumber, group: Option<&GroupName>) {
        let Some(name) = group else { return self.plain.insert(owner) };
        let groups = self.groups.get_or_insert_default();
        match groups.binary_search_by(|(known, _)| known.cmp(name)) {
            Ok(at) => groups[at].1.insert(owner),
            Err(at) => groups.insert(at, (name.clone(), Owners::One(owner))),
        }
    }

    fn remove(&mut self, owner: RouterNumber, group: Option<&GroupName>) {
        let Some(name) = group else { return self.plain.remove(owner) };
        let Some(groups) = &mut self.groups else { return };
        if let Ok(at) = groups.binary_search_by(|(known, _)| known.cmp(name)) {
            groups[at].1.remove(owner);
            if groups[at].1.as_slice().is_empty() {
                groups.remove(at);
            }
        }
        if groups.is_empty() {
            self.groups = None;
        }
    }
}

impl Held for Slot {
    fn pattern(&self) -> &Pattern {
        &self.pattern
    }
}

impl Interest {
    pub(super) fn new(directory: Arc<Directory>, my_site: SiteNumber) -> Self {
        Self { trie: Trie::default(), directory, absent: Arc::default(), my_site, version: 0 }
    }

    /// Writes to `out` who wants an event of `topic`, which must be valid; what `out` held before is gone. Routers that
    /// the directory does not know, or that no path leads to, are left out.
    pub fn matches(&self, topic: &str, out: &mut InterestMatch) {
        out.clear();
        self.trie.matching(topic, |slot| {
            self.fold(slot.plain.as_slice(), &mut out.sites, &mut out.siblings);
            for (name, owners) in slot.groups() {
                let mut group = GroupInterest {
                    id: group_id(name.as_str(), &slot.pattern),
                    name: name.shared().clone(),
                    pattern: slot.pattern.clone(),
                    sites: SiteSet::EMPTY,
                    siblings: SmallVec::new(),
                };
                self.fold(owners.as_slice(), &mut group.sites, &mut group.siblings);
                if !group.sites.is_empty() || !group.siblings.is_empty() {
                    out.groups.push(group);
                }
            }
        });
        out.siblings.sort_unstable();
        out.siblings.dedup();
        out.groups.sort_unstable_by(|a, b| (&a.name, &a.pattern).cmp(&(&b.name, &b.pattern)));
    }

    /// Who wants an event of `topic`, which must be valid, and by which pattern; those that no path leads to as well.
    pub fn wishes(&self, topic: &str) -> Vec<Wish> {
        let mut wishes = Vec::new();
        self.trie.matching(topic, |slot| {
            let groups = slot.groups().iter().map(|(name, owners)| (Some(name.shared().clone()), owners));
            for (group, owners) in std::iter::once((None, &slot.plain)).chain(groups) {
                let known = owners.as_slice().iter().copied().filter(|owner| self.directory.site_of(*owner).is_some());
                let (absent, routers): (Vec<_>, Vec<_>) = known.partition(|owner| self.absent.contains(owner));
                if !absent.is_empty() || !routers.is_empty() {
                    wishes.push(Wish { pattern: slot.pattern.clone(), group, routers, absent });
                }
            }
        });
        wishes.sort_unstable_by(|a, b| (a.pattern.as_str(), &a.group).cmp(&(b.pattern.as_str(), &b.group)));
        wishes
    }

    /// The sites and routers that it is about.
    pub fn directory(&self) -> &Arc<Directory> {
        &self.directory
    }

    fn fold(&self, owners: &[RouterNumber], sites: &mut SiteSet, siblings: &mut SmallVec<[RouterNumber; 4]>) {
        for owner in owners.iter().filter(|owner| !self.absent.contains(owner)) {
            match self.directory.site_of(*owner) {
                Some(site) if site == self.my_site => siblings.push(*owner),
                Some(site) => sites.insert(site),
                None => {}
            }
        }
    }

    /// Grows with every change; equal versions have equal answers.
    pub fn version(&self) -> u64 {
        self.version
    }

    pub(super) fn set_directory(&mut self, directory: Arc<Directory>) {
        self.directory = directory;
        self.version += 1;
    }

    pub(super) fn set_absent(&mut self, absent: BTreeSet<RouterNumber>) {
        if *self.absent != absent {
            self.absent = Arc::new(absent);
            self.version += 1;
        }
    }

    pub(super) fn insert(&mut self, owner: RouterNumber, Entry(pattern, group): &Entry) {
        self.version += 1;
        self.trie.update(pattern, |place| {
            place.get_or_insert_with(|| Slot::new(pattern.clone())).insert(owner, group.as_ref());
        });
    }

    pub(super) fn remove(&mut self, owner: RouterNumber, Entry(pattern, group): &Entry) {
        self.version += 1;
        self.trie.update(pattern, |place| {
            let Some(slot) = place else { return };
            slot.remove(owner, group.as_ref());
            if slot.is_empty() {
                *place = None;
            }
        });
    }
}

impl InterestMatch {
    /// Forgets everybody; keeps the memory.
    pub fn clear(&mut self) {
        self.sites = SiteSet::EMPTY;
        self.siblings.clear();
        self.groups.clear();
    }

    /// Whether nobody elsewhere wants the topic.
    pub fn is_empty(&self) -> bool {
        self.sites.is_empty() && self.siblings.is_empty() && self.groups.is_empty()
    }
}

impl fmt::Debug for Interest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // There may be a hundred thousand entries: a log line wants none of them.
        f.debug_struct("Interest").field("version", &self.version).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use proptest::prelude::*;

    use super::*;
    use crate::directory::{Router, Site};
    use crate::interest::trie::tests::{pattern, topic};

    /// Routers 0 to 7 at sites 0 to 3, two at each; router 9 is unknown, and 7 cannot be reached.
    fn directory() -> Arc<Directory> {
        let site = |number: u16| Site {
            number: SiteNumber::new(number).unwrap(),
            name: format!("s{number}").into(),
            region: Arc::default(),
            cloud: Arc::default(),
        };
        let router = |number: u32| Router {
            number: RouterNumber(number),
            name: format!("r{number}").into(),
            site: SiteNumber::new(u16::try_from(number / 2).unwrap()).unwrap(),
        };
        Arc::new(Directory::new((0..4).map(site), (0..8).map(router)).unwrap())
    }

    fn naive(all: &BTreeSet<(RouterNumber, Entry)>, directory: &Directory, topic: &str) -> InterestMatch {
        let mut out = InterestMatch::default();
        let mut groups = std::collections::BTreeMap::new();
        for (owner, Entry(pattern, group)) in all.iter().filter(|(_, entry)| entry.0.matches(topic)) {
            let Some(site) = directory.site_of(*owner).filter(|_| owner.0 != 7) else { continue };
            let (sites, siblings) = match group {
                None => (&mut out.sites, &mut out.siblings),
                Some(name) => {
                    let group = groups.entry((name.clone(), pattern.clone())).or_insert_with(|| GroupInterest {
                        id: group_id(name.as_str(), pattern),
                        name: name.shared().clone(),
                        pattern: pattern.clone(),
                        sites: SiteSet::EMPTY,
                        siblings: SmallVec::new(),
                    });
                    (&mut group.sites, &mut group.siblings)
                }
            };
            if site.number() == 1 {
                siblings.push(*owner);
            } else {
                sites.insert(site);
            }
        }
        out.siblings.sort_unstable();
        out.siblings.dedup();
        out.groups = groups.into_values().collect();
        out
    }

    #[test]
    fn wishes_name_patterns_and_groups_and_whom_no_path_leads_to() {
        let mut table = Interest::new(directory(), SiteNumber::new(1).unwrap());
        let entry = |pattern: &str, group: &str| Entry(pattern.parse().unwrap(), GroupName::new(group));
        for (owner, entry) in
            [(7, entry("a/*", "")), (4, entry("a/*", "")), (2, entry("**", "g")), (9, entry("a/b", ""))]
        {
            table.insert(RouterNumber(owner), &entry);
        }
        table.insert(RouterNumber(4), &entry("b", ""));
        table.set_absent([RouterNumber(7)].into());
        let told: Vec<_> = table
            .wishes("a/b")
            .into_iter()
            .map(|wish| {
                let numbers =
                    |routers: Vec<RouterNumber>| routers.into_iter().map(|router| router.0).collect::<Vec<_>>();
                (
                    wish.pattern.to_string(),
                    wish.group.as_deref().map(str::to_owned),
                    numbers(wish.routers),
                    numbers(wish.absent),
                )
            })
            .collect();
        let plain = ("a/*".to_owned(), None, vec![4], vec![7]);
        assert_eq!(told, [("**".to_owned(), Some("g".to_owned()), vec![2], vec![]), plain]);
    }

    proptest! {
        #[test]
        fn matching_agrees_with_the_naive_matcher(
            changes in prop::collection::vec(
                (prop::sample::select(vec![0u32, 2, 3, 4, 7, 9]), pattern(),
                 prop::option::of(prop::sample::select(vec!["g", "h"])), prop::bool::weighted(0.8)), 0..80),
            topics in prop::collection::vec(topic(), 1..10),
        ) {
            let directory = directory();
            let mut table = Interest::new(directory.clone(), SiteNumber::new(1).unwrap());
            let mut all = BTreeSet::new();
            table.set_absent([RouterNumber(7)].into());
            let before = table.clone();
            for (owner, pattern, group, add) in changes {
                let (owner, entry) = (RouterNumber(owner), Entry(pattern, group.and_then(GroupName::new)));
                if add {
                    table.insert(owner, &entry);
                    all.insert((owner, entry));
                } else {
                    table.remove(owner, &entry);
                    all.remove(&(owner, entry));
                }
            }
            let mut out = InterestMatch::default();
            for topic in &topics {
                table.matches(topic, &mut out);
                prop_assert_eq!(&out, &naive(&all, &directory, topic));
                before.matches(topic, &mut out);
                prop_assert!(out.is_empty(), "a snapshot does not change");
            }
        }
    }
}
