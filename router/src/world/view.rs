//! What everybody but the keeper reads: an immutable snapshot of what is deployed.

use super::{RolloutCounts, RolloutReport, admission};
use crate::generation::BindingCard;
use crate::shadow::Shadow;
use myelin_catalog::exchange::{Heard, RouterReport};
use myelin_catalog::{Catalog, Follower, Generation, Name};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

/// What is deployed, at one moment.
#[derive(Clone, Debug)]
pub struct View {
    /// Modules, staged bindings, generations.
    pub catalog: Arc<Catalog>,
    /// The same as a copy that others can be compared with.
    pub copy: Arc<Follower>,
    /// This router's site, where its name can be in a catalog.
    pub site: Option<Name>,
    /// The bindings that judge events now: what their modules declared, and their live figures.
    pub cards: Vec<Arc<BindingCard>>,
    /// The bindings that judged before: what the new ones are compared with.
    pub cards_before: Vec<Arc<BindingCard>>,
    /// The newest shadow of a candidate at this router, running or over.
    pub shadow: Option<Arc<Shadow>>,
    /// The generation that judges events now.
    pub generation: u64,
    /// The newest rollouts of this process, newest last.
    pub rollouts: VecDeque<Arc<RolloutReport>>,
    /// All of them, counted.
    pub rollout_counts: RolloutCounts,
    /// Every worker runs the active generation.
    pub is_ready: bool,
    /// What this router says of itself to whoever controls a rollout.
    pub report: Option<RouterReport>,
    /// What the controller heard of all routers: at the writer only.
    pub heard: Arc<[(Heard, Instant)]>,
    /// Alarms by code since the start, such as `catalog-fork`.
    pub alarms: BTreeMap<String, u64>,
    /// A write of the catalog failed, and its disk takes none still: nothing can be changed here.
    pub is_store_failed: bool,
    /// Where the counters stood when the rules and policies of the rollout under way began to hold here.
    pub(crate) marks: Option<Arc<admission::Marks>>,
}

impl Default for View {
    fn default() -> Self {
        Self {
            catalog: Arc::default(),
            copy: Arc::new(Follower::new(None)),
            site: None,
            cards: Vec::new(),
            cards_before: Vec::new(),
            shadow: None,
            generation: 0,
            rollouts: VecDeque::new(),
            rollout_counts: RolloutCounts::default(),
            is_ready: false,
            report: None,
            heard: Arc::from([]),
            alarms: BTreeMap::new(),
            is_store_failed: false,
            marks: None,
        }
    }
}

impl View {
    /// What the controller heard, and how old that is now.
    pub fn heard(&self) -> Vec<Heard> {
        let aged = |(heard, at): &(Heard, Instant)| {
            let since = u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX);
            Heard { report: heard.report.clone(), age_ms: heard.age_ms.saturating_add(since) }
        };
        self.heard.iter().map(aged).collect()
    }

    /// The set that judges at this router's site, as the log says.
    pub fn active(&self) -> &Arc<Generation> {
        active_at(&self.catalog, self.site.as_ref())
    }
}

/// The generation that the log wants at `site`.
pub(super) fn active_at<'a>(catalog: &'a Catalog, site: Option<&Name>) -> &'a Arc<Generation> {
    site.map_or_else(|| catalog.active(), |site| catalog.active_for(site))
}
