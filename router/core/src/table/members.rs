//! A set of subscribers that is small nearly always and stays cheap to copy where it is not.

use imbl::OrdSet;

use crate::session::SessionKey;

/// A subscription as its node in the table knows it: the session, and the id that the session gave it.
pub(super) type Member = (SessionKey, u32);

/// Up to here a set is one flat run, copied whole on a change; beyond, a persistent tree, of which a change copies
/// one path. 16 members are 256 bytes, about what one node of the tree costs.
const FLAT_MAX: usize = 16;

/// An ordered set of members.
#[derive(Clone)]
pub(super) enum Members {
    /// Sorted.
    Flat(Vec<Member>),
    Tree(OrdSet<Member>),
}

impl Default for Members {
    fn default() -> Self {
        Self::Flat(Vec::new())
    }
}

impl Members {
    /// Adds a member; a member that is there already stays once.
    pub(super) fn insert(&mut self, member: Member) {
        match self {
            Self::Flat(members) => {
                let Err(place) = members.binary_search(&member) else { return };
                if members.len() < FLAT_MAX {
                    // Exactly: most sets have one member for life, and there may be a million of them.
                    members.reserve_exact(1);
                    members.insert(place, member);
                } else {
                    *self = Self::Tree(members.iter().copied().chain([member]).collect());
                }
            }
            Self::Tree(members) => {
                members.insert(member);
            }
        }
    }

    /// Removes a member where it is there.
    pub(super) fn remove(&mut self, member: &Member) {
        match self {
            Self::Flat(members) => {
                if let Ok(place) = members.binary_search(member) {
                    members.remove(place);
                }
            }
            Self::Tree(members) => {
                members.remove(member);
                // At half, so that a set on the border does not change its shape with every change.
                if members.len() <= FLAT_MAX / 2 {
                    *self = Self::Flat(members.iter().copied().collect());
                }
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::Flat(members) => members.is_empty(),
            Self::Tree(members) => members.is_empty(),
        }
    }

    /// Hands every member to `visit`, in order.
    pub(super) fn for_each(&self, visit: impl FnMut(Member)) {
        match self {
            Self::Flat(members) => members.iter().copied().for_each(visit),
            Self::Tree(members) => members.iter().copied().for_each(visit),
        }
    }
}
