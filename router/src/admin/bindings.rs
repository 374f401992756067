//! `/v1/bindings`: which module judges which events. Changes are staged; a rollout makes them active.

use super::Context;
use super::access::Caller;
use super::intake::{IfMatch, Json as JsonBody, NamePath, revision_tag};
use super::problem::{Problem, shown};
use super::rights;
use super::spec::BindingSpec;
use super::types::{
    BindingDescription, BindingFigures, BindingList, BindingState, BindingSummary, FaultInfo, FilterDeclaration,
    FilterNeeds, SharedFigures, Staged,
};
use crate::config::Roles;
use crate::generation::BindingCard;
use crate::world::{Actor, View};
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::{Extension, Json};
use myelin_catalog::{Binding, Plan, StagedBinding};
use myelin_engine::{FilterInfo, LastFault, PayloadNeed};
use std::collections::BTreeMap;
use std::sync::Arc;

/// All bindings. `ETag` is the catalog's revision.
#[utoipa::path(get, path = "/v1/bindings", tag = "bindings", responses(
    (status = 200, body = BindingList, headers(("etag" = String, description = "The catalog's revision, for If-Match"))),
))]
pub(super) async fn list(State(context): State<Arc<Context>>) -> impl IntoResponse {
    let view = context.state.world.view();
    let revision = view.catalog.head().rev;
    let bindings = all(&view).map(|(staged, state)| summary(staged, state)).collect();
    (revision_tag(revision), Json(BindingList { bindings, revision, active_generation: view.generation }))
}

/// Stage a binding, in place of the one of the same name. It judges nothing before a rollout; one that is staged just so
/// changes nothing, and the revision stays. To approve capabilities takes
/// the role releaser or security as well.
#[utoipa::path(put, path = "/v1/bindings/{name}", tag = "bindings",
    params(
        ("name" = String, Path, description = "Name of the binding"),
        ("if-match" = Option<String>, Header, description = "Stage only when the catalog's revision is this one"),
    ),
    request_body = BindingSpec,
    responses(
        (status = 202, description = "Staged", body = Staged),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "The binding cannot be so"),
        (status = 403, body = Problem, content_type = "application/problem+json", description = "It approves capabilities, which is for another role"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "There is no such module"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "The catalog has another revision"),
        (status = 413, body = Problem, content_type = "application/problem+json"),
        (status = 415, body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json", description = "The filter refuses its configuration, or declares what is not granted"),
        (status = 507, body = Problem, content_type = "application/problem+json", description = "The catalog holds as much as it may"),
    ))]
pub(super) async fn stage(
    State(context): State<Arc<Context>>,
    Extension(caller): Extension<Caller>,
    NamePath(name): NamePath,
    IfMatch(if_match): IfMatch,
    JsonBody(spec): JsonBody<BindingSpec>,
) -> Result<impl IntoResponse, Problem> {
    let binding = spec.named(name)?;
    check_approvals(&context.state.world.view(), &binding, &caller)?;
    let revision = context.state.world.stage(binding, if_match, caller.actor).await?;
    Ok((StatusCode::ACCEPTED, revision_tag(revision), Json(Staged { revision })))
}

/// Whether whoever stages a binding may approve what it approves. What is approved for the same module there is kept by
/// whoever changes something else.
fn check_approvals(view: &View, binding: &Binding, caller: &Caller) -> Result<(), Problem> {
    let sets = [view.catalog.staged(), &view.catalog.active().bindings];
    let there = sets.iter().filter_map(|set| set.find(&binding.name)).map(|staged| &staged.binding);
    let same: Vec<&Binding> = there.filter(|there| there.module.name == binding.module.name).collect();
    let is_new = |capability: &&String| same.iter().all(|there| !there.consent.capabilities.contains(capability));
    let new: Vec<&str> = binding.consent.capabilities.iter().filter(is_new).map(String::as_str).collect();
    if new.is_empty() {
        return Ok(());
    }
    let what = format!("to approve capabilities of {} (`{}`)", binding.module, shown(&new.join(",")));
    caller.need(rights::APPROVE, what)
}

/// Everything about a binding: what its filter declared and what happened at it.
#[utoipa::path(get, path = "/v1/bindings/{name}", tag = "bindings",
    params(("name" = String, Path)),
    responses(
        (status = 200, body = BindingDescription, headers(("etag" = String, description = "The catalog's revision, for If-Match"))),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn describe(
    State(context): State<Arc<Context>>,
    Extension(caller): Extension<Caller>,
    NamePath(name): NamePath,
) -> Result<impl IntoResponse, Problem> {
    let view = context.state.world.view();
    let (staged, state) = all(&view).find(|(staged, _)| staged.binding.name == name).ok_or_else(|| {
        Problem::not_found(format!("there is no binding `{name}`; `myelin filter ls` shows those that there are"))
    })?;
    Ok((revision_tag(view.catalog.head().rev), Json(description(&view, staged, state, caller.roles))))
}

/// Take a binding out of the staged set. It judges until the next rollout.
#[utoipa::path(delete, path = "/v1/bindings/{name}", tag = "bindings",
    params(
        ("name" = String, Path),
        ("if-match" = Option<String>, Header, description = "Remove only when the catalog's revision is this one"),
    ),
    responses(
        (status = 202, description = "Staged", body = Staged),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "The catalog has another revision"),
        (status = 507, body = Problem, content_type = "application/problem+json", description = "The catalog holds as much as it may"),
    ))]
pub(super) async fn remove(
    State(context): State<Arc<Context>>,
    Extension(actor): Extension<Actor>,
    NamePath(name): NamePath,
    IfMatch(if_match): IfMatch,
) -> Result<impl IntoResponse, Problem> {
    let revision = context.state.world.unstage(name, if_match, actor).await?;
    Ok((StatusCode::ACCEPTED, revision_tag(revision), Json(Staged { revision })))
}

/// The staged set by name, then the active bindings that are no longer in it.
pub(super) fn all(view: &View) -> impl Iterator<Item = (&Arc<StagedBinding>, BindingState)> {
    let (staged, active) = (view.catalog.staged(), &view.active().bindings);
    // As a rollout sees it: what was staged anew as it is active changes nothing.
    let plan = Plan::between(active, staged);
    let present = staged.iter().map(move |binding| {
        let state = match active.find(&binding.binding.name) {
            None => BindingState::Staged,
            Some(_) if plan.kept.binary_search(&binding.binding.name).is_ok() => BindingState::Active,
            Some(_) => BindingState::Changed,
        };
        (binding, state)
    });
    let leaving = active.iter().filter(|binding| staged.find(&binding.binding.name).is_none());
    present.chain(leaving.map(|binding| (binding, BindingState::Leaving)))
}

fn summary(staged: &StagedBinding, state: BindingState) -> BindingSummary {
    let binding = BindingSpec::from(&staged.binding);
    BindingSummary { binding, revision: staged.rev, digest: staged.digest.to_string(), state }
}

/// Everything about `staged`, for somebody with `roles`; what happened at it where it, or an older form of it, is active.
pub(super) fn description(
    view: &View,
    staged: &StagedBinding,
    state: BindingState,
    roles: Roles,
) -> BindingDescription {
    let shown = |card: &Arc<BindingCard>| {
        let mut stats = figures(card);
        if let Some(fault) = stats.last_fault.as_mut().filter(|_| !rights::reads_lines(roles)) {
            fault.hide();
        }
        stats
    };
    let card = view.cards.iter().find(|card| *card.name == *staged.binding.name.as_str());
    BindingDescription {
        summary: summary(staged, state),
        info: card.and_then(|card| card.info()).map(|info| declaration(&info)),
        stats: card.map(shown),
    }
}

fn declaration(info: &FilterInfo) -> FilterDeclaration {
    let (payload, payload_bytes) = match info.needs.payload {
        PayloadNeed::None => ("none", None),
        PayloadNeed::Prefix(bytes) => ("prefix", Some(bytes)),
        PayloadNeed::Full => ("full", None),
    };
    FilterDeclaration {
        name: info.name.clone(),
        version: info.version.clone(),
        needs: FilterNeeds {
            headers: info.needs.headers.clone(),
            all_headers: info.needs.all_headers,
            identity: info.needs.identity,
            payload: payload.into(),
            payload_bytes,
        },
        routes: info.routes.iter().map(ToString::to_string).collect(),
        reasons: info.reasons.clone(),
        counters: info.counters.clone(),
        output_bytes_max: info.max_output,
    }
}

/// The figures of `card`, summed over the workers.
pub(super) fn figures(card: &BindingCard) -> BindingFigures {
    let mut sum = BindingFigures::default();
    let shared = card.shared();
    sum.shared = SharedFigures {
        buckets: shared.buckets,
        keys: shared.keys,
        buckets_forgotten: shared.buckets_forgotten,
        keys_forgotten: shared.keys_forgotten,
    };
    for (_, stats) in card.figures() {
        let add = |map: &mut BTreeMap<&'static str, u64>, key, by| *map.entry(key).or_default() += by;
        sum.workers += 1;
        sum.events += stats.events;
        sum.batches += stats.batches;
        let verdicts = [
            ("allow", stats.allowed),
            ("deny", stats.denied),
            ("dead-letter", stats.dead_lettered),
            ("drop", stats.dropped),
            ("redirect", stats.redirected),
            ("add", stats.added),
        ];
        verdicts.into_iter().for_each(|(verdict, count)| add(&mut sum.verdicts, verdict, count));
        sum.faulted += stats.faulted;
        let became = [
            ("last-good", stats.faulted_last_good),
            ("pass", stats.faulted_passed),
            ("reject", stats.faulted_rejected),
            ("dead-letter", stats.faulted_dead_lettered),
        ];
        became.into_iter().for_each(|(became, count)| add(&mut sum.faulted_became, became, count));
        stats.faults.into_iter().for_each(|(code, count)| add(&mut sum.faults, code, count));
        for (counter, count) in stats.counters {
            *sum.counters.entry(counter).or_default() += count;
        }
        sum.emitted += stats.emitted;
        sum.replaced += stats.replaced;
        sum.cpu_ns += stats.cpu_ns;
        sum.host_calls += stats.host_calls;
        sum.logs_dropped += stats.logs_dropped;
        sum.apart |= stats.apart;
        sum.quarantined |= stats.quarantined;
        if let Some(fault) = stats.last_fault
            && sum.last_fault.as_ref().is_none_or(|known| known.time_unix_ns < fault.time_unix_ns)
        {
            let LastFault { code, detail, may_quote, time_unix_ns } = fault;
            sum.last_fault = Some(FaultInfo { code, detail, may_quote, time_unix_ns });
        }
    }
    sum
}
