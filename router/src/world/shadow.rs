//! What the shadow of a rollout's candidate found out: at this router, and at all routers of the mesh.

use super::{Account, Blame, View, World, WorldError};
use crate::shadow::ShadowReport;
use myelin_catalog::exchange::{Answer, Ask};
use myelin_catalog::fleet::Router;
use serde::Serialize;
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// What a candidate's new filters said about copies of live events, at all routers.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct MeshShadow {
    /// The rollout.
    pub rollout: u64,
    /// Events that were compared, at all routers and for all bindings.
    pub events: u64,
    /// Those that the candidate judges otherwise.
    pub differences: u64,
    /// Those on which a new filter failed.
    pub traps: u64,
    /// The routers that answered and have one, by site and name.
    pub routers: Vec<ShadowReport>,
    /// The others, as `SITE/ROUTER`, and why.
    pub missing: BTreeMap<String, String>,
}

/// What this router's shadow of that rollout found out; none where it has none.
pub(super) fn here(view: &View, account: &Account, rollout: u64) -> Option<ShadowReport> {
    let shadow = view.shadow.as_ref().filter(|shadow| shadow.rollout == rollout)?;
    Some(shadow.report(&account.site, &account.router))
}

/// The same for another router: as much of it as an answer holds.
pub(super) fn encode(mut report: ShadowReport) -> Result<Vec<u8>, WorldError> {
    let bytes = super::explain::encode(&report)?;
    // The answer's own frame is a few bytes.
    if bytes.len() + 64 <= super::others::ANSWER_BYTES_MAX {
        return Ok(bytes);
    }
    report.bindings.iter_mut().for_each(|binding| binding.samples.clear());
    report.samples_left_out = true;
    super::explain::encode(&report)
}

pub(super) fn none() -> WorldError {
    let message =
        "no shadow of this rollout has judged here since the router's start, or a later one has taken its place";
    WorldError::new(Blame::NotFound, "not-found", message)
}

impl World {
    /// What the shadow of a rollout's candidate found out, at all routers that answer or at those of one site.
    ///
    /// # Errors
    /// `not-found` where no router has a shadow of that rollout.
    pub async fn shadow(&self, rollout: u64, site: Option<&str>) -> Result<MeshShadow, WorldError> {
        let (mut routers, mut missing) = (Vec::new(), BTreeMap::new());
        let view = self.view();
        let is_meant = |router: &Router| site.is_none_or(|site| site == router.site.as_str());
        if let Some(own) = view.catalog.fleet().routers().find(|router| self.is_own(router) && is_meant(router)) {
            match here(&view, &self.account, rollout) {
                Some(report) => routers.push(report),
                None => drop(missing.insert(format!("{}/{}", own.site, own.name), none().message)),
            }
        }
        let read = |answer| match answer {
            Answer::Shadow(json) => Ok(json),
            other => Err(other),
        };
        for (title, answered) in self.ask_others(&Ask::Shadow { rollout }, is_meant, read).await {
            match answered {
                Ok(report) => routers.push(report),
                Err(why) => drop(missing.insert(title, why)),
            }
        }
        if routers.is_empty() {
            let why = missing.iter().map(|(router, why)| format!("{router}: {why}")).collect::<Vec<_>>().join("; ");
            let message = format!("no router has a shadow of rollout {rollout}; {why}");
            return Err(WorldError::new(Blame::NotFound, "not-found", message));
        }
        routers.sort_by(|a, b| (&a.site, &a.router).cmp(&(&b.site, &b.router)));
        let sum = |count: fn(&crate::shadow::ShadowedBinding) -> u64| {
            routers.iter().flat_map(|router| &router.bindings).map(count).sum()
        };
        Ok(MeshShadow {
            rollout,
            events: sum(|binding| binding.events),
            differences: sum(|binding| binding.differences),
            traps: sum(|binding| binding.traps),
            routers,
            missing,
        })
    }
}
