//! How far everybody's interest is, in a form that can be compared from outside.

use myelin_mesh::Mesh;
use myelin_mesh::control::InterestHead;
use serde::Serialize;
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// How far a router's interest is: equal marks are equal interests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct InterestMark {
    /// Batches of changes since the router's start; it makes 20 a second at most, whatever its sessions do.
    pub batches: u64,
    /// A hash over all patterns, in hexadecimal.
    pub hash: String,
}

impl InterestMark {
    /// That of every router whose patterns are known, by `SITE/ROUTER`.
    pub(super) fn all(mesh: &Mesh) -> BTreeMap<String, Self> {
        let directory = mesh.directory();
        let known = directory.routers().filter_map(|router| {
            let (site, head) = (directory.site(router.site)?, mesh.interest_head(router.number)?);
            Some((format!("{}/{}", site.name, router.name), head.into()))
        });
        known.collect()
    }
}

impl From<InterestHead> for InterestMark {
    fn from(head: InterestHead) -> Self {
        Self { batches: head.seq, hash: format!("{:?}", head.hash) }
    }
}
