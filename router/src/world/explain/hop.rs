//! What this router would do with an event: found out from the snapshots that its workers and links go by, and with the
//! functions that they use.

use super::types::{
    ExplainedBinding, ExplainedCopy, ExplainedGroup, ExplainedHop, ExplainedSchema, HopAnswer, NextHop, Wanted,
};
use crate::generation::BindingCard;
use crate::local::is_member;
use crate::screen::Screen;
use crate::shared::{Reach, Shared};
use crate::world::{Blame, View, WorldError};
use myelin_catalog::Stage;
use myelin_core::MatchSet;
use myelin_mesh::{
    Directory, InterestMatch, Outgoing, Plan, ResidencyCache, RouterNumber, SiteNumber, SiteSet, Split, Stamp,
    group_id, hand_on, plan, split,
};
use myelin_policy::Decider;
use std::sync::Arc;

/// Patterns, and groups, that are told one by one; the rest is counted.
pub(super) const LISTED_MAX: usize = 256;
/// The worker for which the way is found. Which router of a site with several takes an event in depends on the
/// publisher's worker.
const SHARD: u8 = 0;

/// This router, at one moment.
pub(super) struct Here<'a> {
    shared: &'a Shared,
    view: &'a View,
    reach: Option<Arc<Reach>>,
}

impl<'a> Here<'a> {
    pub(super) fn now(shared: &'a Shared, view: &'a View) -> Self {
        let reach = shared.outward.as_ref().map(|outward| outward.reach.load_full());
        Self { shared, view, reach }
    }

    /// This router, as `SITE/ROUTER`.
    pub(super) fn title(&self) -> String {
        format!("{}/{}", self.shared.site, self.shared.router)
    }

    /// The snapshot of the mesh; none where this router has no links.
    pub(super) fn reach(&self) -> Option<&Arc<Reach>> {
        self.reach.as_ref()
    }

    /// The rollout under way whose rules and policies hold here.
    pub(super) fn governed_by(&self) -> Option<u64> {
        let (site, rollout) = self.view.site.as_ref().zip(self.view.catalog.rollout())?;
        (!rollout.changes_at(site).is_empty()).then_some(rollout.id)
    }

    /// The rules whose schemas judge payloads of `topic`.
    pub(super) fn schemas(&self, topic: &str) -> Vec<ExplainedSchema> {
        let screens = self.shared.screens.load();
        let explained = |screen: &Arc<Screen>| ExplainedSchema {
            rule: screen.rule().to_owned(),
            by: screen.describe(),
            on_invalid: screen.on_invalid().as_str().to_owned(),
            is_required: screen.is_required(),
        };
        screens.of(topic).map(explained).collect()
    }

    /// The bindings that judge events of `topic` at this stage, in the order of the chain.
    pub(super) fn bindings(&self, stage: Stage, topic: &str) -> Vec<ExplainedBinding> {
        let matching = self.view.cards.iter().filter(|card| card.stage == stage && card.pattern.matches(topic));
        let mut bindings: Vec<_> = matching.map(|card| explained(card)).collect();
        if stage == Stage::Egress {
            bindings.reverse();
        }
        bindings
    }

    /// What becomes of an event that is published here, after the ingress filters; and who wants it elsewhere.
    ///
    /// # Errors
    /// When the snapshots do not fit together: a defect of the router.
    pub(super) fn publish(&self, topic: &str) -> Result<(HopAnswer, Vec<Wanted>, usize), WorldError> {
        let targets = self.targets(topic);
        let mut answer = HopAnswer { hop: self.hop(), next: Vec::new() };
        answer.hop.is_destination = !targets.plain.is_empty() || !targets.groups.is_empty();
        let (mut wanted, mut left_out) = (Vec::new(), 0);
        let allowed = self.shared.residency.load().allowed(topic);
        let is_here = |allowed: &SiteSet| match &self.reach {
            Some(reach) => allowed.contains(reach.routes.my_site()),
            // It knows no other site.
            None => !allowed.is_empty(),
        };
        if !allowed.as_ref().is_none_or(is_here) {
            answer.hop.refused_here = true;
            answer.hop.is_destination = false;
            return Ok((answer, wanted, left_out));
        }
        if let Some(reach) = &self.reach {
            let mut matched = InterestMatch::default();
            reach.interest.matches(topic, &mut matched);
            let (mut residency, has_member) = (ResidencyCache::default(), |group: &_| is_member(&targets, group));
            let plan = plan(&matched, &reach.routes, &mut residency, allowed, has_member);
            (wanted, left_out) = self.wanted(reach, topic, &plan, &targets);
            answer.hop.no_path = names(reach, &plan.unreachable);
            answer.hop.not_allowed = names(reach, &plan.not_allowed);
            answer.hop.no_allowed_path = names(reach, &plan.no_allowed_path);
            if !plan.is_empty() {
                self.send(reach, &matched, &self.stamp(&plan), &mut answer)?;
            }
        }
        answer.hop.deliver(&targets);
        if answer.hop.is_destination || !answer.hop.copies.is_empty() {
            // Before anything leaves, for whomever.
            answer.hop.egress = self.bindings(Stage::Egress, topic);
        }
        Ok((answer, wanted, left_out))
    }

    /// What becomes of an event that comes by a link.
    ///
    /// # Errors
    /// When this router has no links, or the stamp says what does not fit.
    pub(super) fn arrive(&self, topic: &str, stamp: &Stamp) -> Result<HopAnswer, WorldError> {
        let Some(reach) = &self.reach else {
            return Err(WorldError::new(Blame::Router, "no-mesh", "this router has no links: no event comes by one"));
        };
        let mut answer = HopAnswer { hop: self.hop(), next: Vec::new() };
        let mut out = Split::default();
        split(stamp, &reach.routes, &mut ResidencyCache::default(), &mut out).map_err(|violation| {
            WorldError::new(Blame::Request, violation.code.name(), violation.message.to_string())
        })?;
        answer.add(reach, &out);
        let Some(local) = out.local else { return Ok(answer) };
        answer.hop.is_destination = true;
        let (mut matched, mut targets) = (InterestMatch::default(), self.targets(topic));
        reach.interest.matches(topic, &mut matched);
        let has_member = |id| targets.groups.iter().any(|group| group_id(&group.name, &group.pattern) == id);
        let mut siblings = Vec::new();
        let served = hand_on(stamp, &local, &matched, &reach.routes, has_member, &mut siblings);
        answer.add_copies(reach, &siblings);
        if !local.plain {
            targets.plain.clear();
        }
        targets.groups.retain(|group| served.groups.contains(&group_id(&group.name, &group.pattern)));
        answer.hop.deliver(&targets);
        if answer.hop.subscribers > 0 || !answer.hop.groups.is_empty() {
            answer.hop.egress = self.bindings(Stage::Egress, topic);
        }
        Ok(answer)
    }

    fn hop(&self) -> ExplainedHop {
        ExplainedHop { router: self.title(), generation: self.view.generation, ..ExplainedHop::default() }
    }

    fn targets(&self, topic: &str) -> MatchSet {
        let mut targets = MatchSet::default();
        self.shared.table.load().matches(topic, &mut targets);
        let rules = self.shared.rules.load();
        rules.withhold(&self.shared.services, &mut Decider::default(), topic, &mut targets);
        targets
    }

    fn stamp(&self, plan: &Plan) -> Stamp {
        Stamp {
            origin: RouterNumber(self.shared.origin),
            epoch: self.shared.epoch,
            shard: SHARD,
            hops: 0,
            here_only: false,
            seq: 0,
            generation: self.view.generation,
            ttl_ms: 0,
            sites: plan.sites.clone(),
            allowed: plan.allowed.clone(),
            grants: plan.grants.clone(),
        }
    }

    /// The copies of an own event.
    fn send(
        &self,
        reach: &Arc<Reach>,
        matched: &InterestMatch,
        stamp: &Stamp,
        answer: &mut HopAnswer,
    ) -> Result<(), WorldError> {
        let mut out = Split::default();
        split(stamp, &reach.routes, &mut ResidencyCache::default(), &mut out).map_err(|violation| {
            WorldError::new(Blame::Router, "internal", format!("an own event does not split: {violation}"))
        })?;
        answer.add(reach, &out);
        if let Some(local) = &out.local {
            let mut siblings = Vec::new();
            // Groups with a member here are not granted: it gets the event without.
            hand_on(stamp, local, matched, &reach.routes, |_| false, &mut siblings);
            answer.add_copies(reach, &siblings);
        }
        Ok(())
    }

    /// Who wants the topic elsewhere, and how many entries are left out.
    fn wanted(&self, reach: &Reach, topic: &str, plan: &Plan, targets: &MatchSet) -> (Vec<Wanted>, usize) {
        let directory = reach.interest.directory();
        let titles = |routers: Vec<RouterNumber>| routers.into_iter().map(|router| title(directory, router)).collect();
        let mut wishes = reach.interest.wishes(topic);
        let left_out = wishes.len().saturating_sub(LISTED_MAX);
        wishes.truncate(LISTED_MAX);
        let wanted = wishes.into_iter().map(|wish| {
            let chosen = wish.group.as_deref().and_then(|name| {
                let is_it = |here: &&myelin_core::GroupMatch| *here.name == *name && *here.pattern == *wish.pattern;
                if targets.groups.iter().find(is_it).is_some() {
                    return Some(self.shared.site.clone());
                }
                let id = group_id(name, &wish.pattern);
                let grant = plan.grants.iter().find(|grant| grant.group == id)?;
                Some(site_name(directory, grant.site))
            });
            Wanted {
                pattern: wish.pattern.to_string(),
                group: wish.group.as_deref().map(str::to_owned),
                routers: titles(wish.routers),
                without_path: titles(wish.absent),
                chosen,
            }
        });
        (wanted.collect(), left_out)
    }
}

impl HopAnswer {
    fn add(&mut self, reach: &Reach, split: &Split) {
        self.hop.no_path.extend(names(reach, &split.unreachable));
        self.hop.too_far.extend(names(reach, &split.over_hops));
        self.add_copies(reach, &split.copies);
    }

    fn add_copies(&mut self, reach: &Reach, copies: &[Outgoing]) {
        for copy in copies {
            let mut stamp = Vec::new();
            // One that does not encode could not be sent either.
            if copy.stamp.encode(&mut stamp).is_err() {
                continue;
            }
            self.hop.copies.push(ExplainedCopy {
                to: title(reach.interest.directory(), copy.neighbour),
                cost: reach.routes.direct(copy.neighbour).map_or(0, |hop| hop.cost),
                sites: names(reach, &copy.stamp.destinations()),
            });
            self.next.push(NextHop { router: copy.neighbour.0, stamp: hex::encode(stamp) });
        }
    }
}

impl ExplainedHop {
    fn deliver(&mut self, targets: &MatchSet) {
        self.subscribers = targets.plain.len();
        self.groups = targets.groups.iter().take(LISTED_MAX).map(group).collect();
    }
}

fn group(group: &myelin_core::GroupMatch) -> ExplainedGroup {
    ExplainedGroup { name: group.name.to_string(), pattern: group.pattern.to_string(), members: group.members.len() }
}

fn explained(card: &BindingCard) -> ExplainedBinding {
    // What is not instantiated yet has declared nothing; what judges has.
    let info = card.info().unwrap_or_default();
    ExplainedBinding {
        name: card.name.to_string(),
        order: card.order,
        pattern: card.pattern.to_string(),
        module: card.module.to_string(),
        digest: card.digest.to_string(),
        on_fault: card.on_fault.as_str().to_owned(),
        routes: info.routes.iter().map(ToString::to_string).collect(),
        may_emit_to: card.grant.topics.iter().map(ToString::to_string).collect(),
        reasons: info.reasons.clone(),
        output_bytes_max: info.max_output,
        reads_identity: info.needs.identity,
        is_quarantined: card.is_quarantined(),
    }
}

/// A router as `SITE/ROUTER`, or by its number where the directory has no name for it.
pub(super) fn title(directory: &Directory, number: RouterNumber) -> String {
    match directory.router(number) {
        Some(router) => format!("{}/{}", site_name(directory, router.site), router.name),
        None => format!("router {number}"),
    }
}

fn site_name(directory: &Directory, number: SiteNumber) -> String {
    directory.site(number).map_or_else(|| format!("site {number}"), |site| site.name.to_string())
}

fn names(reach: &Reach, sites: &SiteSet) -> Vec<String> {
    sites.iter().map(|site| site_name(reach.interest.directory(), site)).collect()
}
