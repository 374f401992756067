//! The rule of two: with `[admin] two_person` a rollout is proposed by one and begun by another.
//!
//! A proposal waits in the catalog, an hour at most, so that any router can be asked for it and none forgets it. It names what
//! is to become active by a digest; whoever stages or sets something else meanwhile makes it void. Going back needs nobody's
//! leave: `abort`, `pause` and `rollback` stay with one.
//!
//! Both are persons: whoever has the token, or sits at the machine, could be the one who has asked as well.

use super::Context;
use super::access::{By, Caller};
use super::governance::{ChangeInfo, ChangesSpec};
use super::intake::{InPath, RevisionTag};
use super::problem::Problem;
use super::rollouts::approved;
use super::spec::BindingSpec;
use super::types::PlanSpec;
use crate::world::{Actor, Change, View, unix_ms};
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use axum::{Extension, Json};
use myelin_catalog::limits::APPROVAL_WAIT_MAX_MS;
use myelin_catalog::{Approval, Catalog, Digest, Intent, Name, Op, Plan};
use serde::Serialize;
use std::sync::Arc;
use utoipa::ToSchema;

/// A proposal that waits for less than this still, in seconds, is made anew when the same is asked for again: half of its hour.
const RENEWED_BELOW_S: u64 = APPROVAL_WAIT_MAX_MS / 1_000 / 2;

/// What somebody wants to make active, and somebody else has to approve.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(super) struct Proposal {
    /// Its number, at every router: `POST /v1/rollouts/{id}/approve`.
    pub(super) proposal: u64,
    /// Who wants it.
    by: String,
    /// What: `rollout`, or `promote` of the rollout `rollout`.
    wants: &'static str,
    /// The rollout whose next step is wanted.
    #[serde(skip_serializing_if = "Option::is_none")]
    rollout: Option<u64>,
    /// The digest of the staged set and of the plan. With another set there is nothing to approve any more.
    #[schema(value_type = String)]
    digest: Digest,
    /// Whether the staged set stays staged, and `changes` come alone.
    only_changes: bool,
    /// How the staged set differs from the active one: all that would judge otherwise.
    filters: Vec<FilterInfo>,
    /// The rules and policies that it brings.
    changes: Vec<ChangeInfo>,
    /// How it goes on over the sites; none where all swap as soon as all have prepared.
    plan: Option<PlanSpec>,
    /// Why it is wanted.
    note: Option<String>,
    /// How long it waits still, in seconds.
    expires_in_s: u64,
}

/// A binding that a proposal brings, changes or takes away.
#[derive(Clone, Debug, Serialize, ToSchema)]
struct FilterInfo {
    /// Which.
    binding: String,
    /// `added`, `changed` or `removed`.
    action: &'static str,
    /// The fields that differ from those of the active one.
    fields: Vec<&'static str>,
    /// The module; none where the binding goes.
    module: Option<String>,
    /// The digest of its bytes.
    #[schema(value_type = Option<String>)]
    digest: Option<Digest>,
}

/// All that a binding says, before and after what a proposal does to it.
#[derive(Clone, Debug, Serialize, ToSchema)]
struct BindingDifference {
    /// Which.
    binding: String,
    /// `added`, `changed` or `removed`.
    action: &'static str,
    /// The fields of `before` and `after` that differ; `digest` where the bytes of the module do. None where it comes or
    /// goes: then all of them are new, or gone.
    fields: Vec<&'static str>,
    /// As it is active now; none where it comes.
    before: Option<BindingSpec>,
    /// The digest of its module's bytes now.
    #[schema(value_type = Option<String>)]
    digest_before: Option<Digest>,
    /// As it will be active; none where it goes.
    after: Option<BindingSpec>,
    /// The digest of its module's bytes then.
    #[schema(value_type = Option<String>)]
    digest_after: Option<Digest>,
}

/// A proposal with the full text of what it brings.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ProposalDescription {
    #[serde(flatten)]
    proposal: Proposal,
    /// The bindings of `filters`, each with all that it says now and then.
    bindings: Vec<BindingDifference>,
    /// The changes as `POST /v1/rollouts` takes them.
    content: ChangesSpec,
}

impl Proposal {
    fn new(catalog: &Catalog, approval: &Approval, now_unix_ms: u64) -> Self {
        let intent = &approval.intent;
        let (wants, rollout) = match intent {
            Intent::Activate { .. } | Intent::Start { .. } | Intent::Govern { .. } => ("rollout", None),
            Intent::Promote { id, .. } => ("promote", Some(*id)),
        };
        Self {
            proposal: approval.id,
            by: approval.by.clone(),
            wants,
            rollout,
            digest: approval.digest,
            only_changes: matches!(intent, Intent::Govern { .. }),
            filters: intent.bindings().map_or_else(Vec::new, |_| filters(catalog)),
            changes: intent.changes().iter().map(ChangeInfo::new).collect(),
            plan: intent.plan().map(PlanSpec::of),
            note: Some(approval.note.clone()).filter(|note| !note.is_empty()),
            expires_in_s: catalog.approval_waits_ms(approval, now_unix_ms) / 1_000,
        }
    }

    /// Those that can be approved, oldest first.
    pub(super) fn list(view: &View) -> Vec<Self> {
        let now = unix_ms();
        view.catalog.approvals(now).map(|approval| Self::new(&view.catalog, approval, now)).collect()
    }
}

/// What making the staged set active changes: each binding, what becomes of it, and the fields that differ. What waits is
/// about the set that is staged now, or it would not wait.
fn differences(catalog: &Catalog) -> Vec<(Name, &'static str, Vec<&'static str>)> {
    let Plan { added, changed, removed, .. } = catalog.staged_plan();
    let added = added.into_iter().map(|name| (name, "added", Vec::new()));
    let changed = changed.into_iter().map(|changed| (changed.name, "changed", changed.fields));
    let removed = removed.into_iter().map(|name| (name, "removed", Vec::new()));
    added.chain(changed).chain(removed).collect()
}

fn filters(catalog: &Catalog) -> Vec<FilterInfo> {
    let filter = |(name, action, fields): (Name, _, _)| {
        let staged = catalog.staged().find(&name);
        FilterInfo {
            binding: name.to_string(),
            action,
            fields,
            module: staged.map(|staged| staged.binding.module.to_string()),
            digest: staged.map(|staged| staged.digest),
        }
    };
    differences(catalog).into_iter().map(filter).collect()
}

/// The same with all that each binding says. Nobody approves a topic, a grant or a configuration that they were not shown.
fn bindings(catalog: &Catalog) -> Vec<BindingDifference> {
    let difference = |(name, action, mut fields): (Name, &'static str, Vec<&'static str>)| {
        let (before, after) = (catalog.active().bindings.find(&name), catalog.staged().find(&name));
        if let (Some(before), Some(after)) = (before, after) {
            // A new version has other bytes; and what is agreed to makes no filter anew, but is approved with the rest.
            let differs = [
                ("digest", before.digest != after.digest),
                ("consent", before.binding.consent != after.binding.consent),
            ];
            let more = differs.into_iter().filter(|(field, differs)| *differs && !fields.contains(field));
            let more: Vec<_> = more.map(|(field, _)| field).collect();
            fields.extend(more);
        }
        BindingDifference {
            binding: name.to_string(),
            action,
            fields,
            before: before.map(|before| BindingSpec::from(&before.binding)),
            digest_before: before.map(|before| before.digest),
            after: after.map(|after| BindingSpec::from(&after.binding)),
            digest_after: after.map(|after| after.digest),
        }
    };
    differences(catalog).into_iter().map(difference).collect()
}

/// Whether somebody is a person, as far as the rule of two is concerned: has a name of their own.
fn check_person(caller: &Caller) -> Result<(), Problem> {
    let who = match caller.by {
        By::Certificate | By::Jwt(_) => return Ok(()),
        By::Local => "whoever is on this machine",
        By::Token => "whoever has the token of [admin] token_file",
    };
    let detail = format!(
        "this router wants two persons, and {who} may be either of them: ask with a certificate, or with a JSON Web Token, of \
         your own"
    );
    Err(Problem::new(StatusCode::FORBIDDEN, "two-person", detail))
}

/// Lets `intent` wait for somebody other than `caller`.
///
/// # Errors
/// When they are no person, it could not begin, or too many wait already.
pub(super) async fn propose(
    context: &Context,
    intent: Intent,
    note: Option<String>,
    caller: &Caller,
) -> Result<Proposal, Problem> {
    check_person(caller)?;
    let note = note.unwrap_or_default();
    if let Some(same) = waiting(&context.state.world.view(), caller.actor.as_ref(), &intent, &note) {
        return Ok(same);
    }
    let op = Op::ApprovalRequested { intent, note };
    let world = &context.state.world;
    let id = world.change(Change::Record(Box::new(op)), None, caller.actor.clone()).await?;
    let view = world.view();
    // Its hour is by the writer's clock.
    let approval = view.catalog.find_approval(id).cloned().map_or_else(|| view.proposal(id).cloned(), Ok)?;
    Ok(Proposal::new(&view.catalog, &approval, unix_ms()))
}

/// The same that the same person has asked for, for the same reason, where most of its hour is left: a script that asks again
/// has the number that somebody may be reading just now. Later it is asked for anew, so that it does not run out under them.
fn waiting(view: &View, by: &str, intent: &Intent, note: &str) -> Option<Proposal> {
    let now = unix_ms();
    let is_same = |it: &&Arc<Approval>| it.by == by && it.intent == *intent && it.note == note;
    let approval = view.catalog.approvals(now).find(is_same)?;
    let proposal = Proposal::new(&view.catalog, approval, now);
    (proposal.expires_in_s >= RENEWED_BELOW_S).then_some(proposal)
}

/// What waits under that number, with all that its bindings say, before and after, and the full text of its rules and
/// policies: what there is to read before it is approved.
#[utoipa::path(get, path = "/v1/rollouts/{id}/approve", tag = "rollouts",
    params(("id" = u64, Path, description = "The proposal's number")),
    responses(
        (status = 200, body = ProposalDescription),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "It does not wait, or has begun"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "Something else is staged or set now"),
    ))]
pub(super) async fn describe(
    State(context): State<Arc<Context>>,
    InPath(id): InPath<u64>,
) -> Result<Json<ProposalDescription>, Problem> {
    context.state.world.proposal(id).await?;
    // Judged by the very view that is shown: what was staged since then would be told as if it were what waits.
    let view = context.state.world.view();
    let approval = view.proposal(id)?;
    let proposal = Proposal::new(&view.catalog, approval, unix_ms());
    let bindings = approval.intent.bindings().map_or_else(Vec::new, |_| bindings(&view.catalog));
    Ok(Json(ProposalDescription { proposal, bindings, content: ChangesSpec::of(approval.intent.changes()) }))
}

/// Approve what somebody else has proposed (`[admin] two_person`), at any router: it begins at once. Only with what was staged
/// and set then. Where two persons are wanted, with a certificate or a JSON Web Token of one's own.
#[utoipa::path(post, path = "/v1/rollouts/{id}/approve", tag = "rollouts",
    params(("id" = u64, Path, description = "The proposal's number")),
    responses(
        (status = 200, body = super::types::Rollout),
        (status = 202, body = super::fleet::MeshRollout, description = "A rollout over the sites has begun"),
        (status = 403, body = Problem, content_type = "application/problem+json", description = "It is one's own, or the asker is no person"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "It does not wait, or has begun"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "Something else is staged or set now"),
        (status = 422, body = Problem, content_type = "application/problem+json", description = "A filter cannot be prepared; nothing has changed"),
    ))]
pub(super) async fn approve(
    State(context): State<Arc<Context>>,
    Extension(caller): Extension<Caller>,
    InPath(id): InPath<u64>,
) -> Result<Response, Problem> {
    check_person(&caller)?;
    let approval = context.state.world.proposal(id).await?;
    approved(&context, &approval, caller.actor).await
}

/// Withdraw a proposal before its hour is over: whoever has made it, or any other releaser.
#[utoipa::path(delete, path = "/v1/rollouts/{id}/approve", tag = "rollouts",
    params(("id" = u64, Path, description = "The proposal's number")),
    responses(
        (status = 204, description = "It cannot be approved any more"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "It does not wait, or has begun"),
        (status = 507, body = Problem, content_type = "application/problem+json", description = "The catalog holds as much as it may"),
    ))]
pub(super) async fn withdraw(
    State(context): State<Arc<Context>>,
    Extension(actor): Extension<Actor>,
    InPath(id): InPath<u64>,
) -> Result<(StatusCode, RevisionTag), Problem> {
    super::fleet::record(&context, actor, Op::ApprovalWithdrawn { id }).await
}
