//! What the shadow of a rollout's candidate found out: at this router, and at all routers of the mesh.

use super::propose::Writer;
use super::{Account, Blame, View, World, WorldError};
use crate::shadow::ShadowReport;
use bytes::Bytes;
use myelin_catalog::exchange::{Answer, Ask};
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::task::JoinSet;
use utoipa::ToSchema;

/// Bytes of what another router says: as much as the links pass on.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;
/// How long a router may take to say it.
const ANSWER_WAIT: Duration = Duration::from_secs(5);

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
    if bytes.len() + 64 <= ANSWER_BYTES_MAX {
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
        let is_meant = |other: &str| site.is_none_or(|site| site == other);
        let mut asking = JoinSet::new();
        for router in view.catalog.fleet().routers().filter(|router| is_meant(router.site.as_str())) {
            let title = format!("{}/{}", router.site, router.name);
            if *router.site.as_str() == *self.account.site && *router.name.as_str() == *self.account.router {
                match here(&view, &self.account, rollout) {
                    Some(report) => routers.push(report),
                    None => drop(missing.insert(title, none().message)),
                }
            } else if let Some(writer) = &self.progress {
                asking.spawn(ask(Writer { number: router.number, title, ..writer.clone() }, rollout));
            }
        }
        while let Some(answered) = asking.join_next().await {
            match answered {
                Ok((_, Ok(report))) => routers.push(report),
                Ok((title, Err(why))) => drop(missing.insert(title, why)),
                // A task that broke off has told so.
                Err(_) => {}
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

async fn ask(to: Writer, rollout: u64) -> (String, Result<ShadowReport, String>) {
    let ask = Bytes::from(Ask::Shadow { rollout }.encode());
    let answered = async {
        let call = to.caller.call(to.number, ask, ANSWER_BYTES_MAX);
        let answer = tokio::time::timeout(ANSWER_WAIT, call).await;
        let answer =
            answer.map_err(|_| format!("no answer within {ANSWER_WAIT:?}"))?.map_err(|error| error.to_string())?;
        match Answer::decode(&answer).map_err(|error| error.to_string())? {
            Answer::Shadow(bytes) => serde_json::from_slice(&bytes).map_err(|error| error.to_string()),
            answer => Err(super::propose::unexpected(answer).message),
        }
    };
    let answered = answered.await;
    (to.title, answered)
}
