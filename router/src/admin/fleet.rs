//! `/v1/rollouts/{id}`: rollouts over the sites of a mesh.

use super::Context;
use super::access::Caller;
use super::governance::ChangeInfo;
use super::intake::{InPath, Json as Body, RevisionTag, revision_tag};
use super::problem::Problem;
use super::proposals::propose;
use super::rollouts::{Begun, check_note};
use crate::world::{Actor, Change, View};
use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use myelin_catalog::controller::percent;
use myelin_catalog::exchange::Heard;
use myelin_catalog::rollout::{Cause, Outcome, Rollout};
use myelin_catalog::{Intent, Metrics, Name, Op, Phase};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::ToSchema;

/// A rollout over the sites of the mesh.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(super) struct MeshRollout {
    /// Its number: the revision of the record that started it.
    pub(super) id: u64,
    /// Where it stands: a step, `.., paused`, `shadow, held` until it is promoted, `rolling-back`, `complete`, `rolled-back`, or `unbalanced`: every
    /// site has the new set, and the ledger of the mesh did not balance in time.
    state: String,
    /// Whether it is not over yet.
    running: bool,
    /// Who started it.
    actor: String,
    /// When, Unix milliseconds.
    at_unix_ms: u64,
    /// Its steps, and the sites for which each makes the new set active.
    steps: Vec<StepInfo>,
    /// The rules and policies that it brings beside filters.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    changes: Vec<ChangeInfo>,
    /// Why it is rolled back: a stable code, and what happened.
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<&'static str>,
    /// The same for people, and how it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// A step of a rollout.
#[derive(Clone, Debug, Serialize, ToSchema)]
struct StepInfo {
    /// Which.
    step: String,
    /// The sites that have the new set from it on.
    sites: Vec<String>,
    /// `done`, `now`, or `ahead`.
    state: &'static str,
}

/// A rollout, and how far each router is.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct MeshRolloutDescription {
    #[serde(flatten)]
    rollout: MeshRollout,
    /// What the controller heard last of each router; none where it was not heard of.
    routers: Vec<RouterProgress>,
    /// Why it is not complete although every router runs the new set and was watched: what is off in the ledger of the
    /// mesh, as the asked router reads it.
    #[serde(skip_serializing_if = "Option::is_none")]
    ledger_off: Option<String>,
}

/// How far a router is.
#[derive(Debug, Serialize, ToSchema)]
struct RouterProgress {
    site: String,
    router: String,
    /// `PULLING`, `PULLED`, `COMPILED`, `TESTED`, `PREPARED`, `SHADOWING`, `ACTIVE`, `RETREATED` or `NACK`; none = not
    /// heard of.
    phase: Option<&'static str>,
    /// Whether it judges events by the set that is rolled out.
    has_new_set: bool,
    /// The generation that is active there, or why there is none.
    detail: String,
    /// How old the report is, in milliseconds.
    age_ms: Option<u64>,
    /// How the new set does there.
    events: u64,
    traps: u64,
    rejects: u64,
    /// Events that it judges otherwise than the old set, in shadow.
    differences: u64,
    module_p99_us: u32,
    /// Events that publishers sent there since the rules and policies of the rollout hold.
    arrived: u64,
    /// How many of a million these hold back, where the difference to before is the largest; and how many it was before.
    held_back_ppm: u32,
    held_back_before_ppm: u32,
}

/// What is to be done with a rollout.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct StepRequest {
    /// Why, for those who read the history: at most 1,024 bytes.
    reason: String,
}

impl MeshRollout {
    pub(super) fn new(rollout: &Rollout) -> Self {
        let at = rollout.schedule().iter().position(|scheduled| scheduled.step == rollout.step()).unwrap_or_default();
        let steps = rollout.schedule().iter().enumerate().map(|(place, scheduled)| StepInfo {
            step: scheduled.step.to_string(),
            sites: scheduled.sites.iter().map(Name::to_string).collect(),
            state: match place.cmp(&at) {
                std::cmp::Ordering::Less => "done",
                std::cmp::Ordering::Equal if rollout.is_running() => "now",
                std::cmp::Ordering::Equal => "done",
                std::cmp::Ordering::Greater => "ahead",
            },
        });
        let abort = rollout.abort.as_ref();
        let reason = abort.map(|abort| &abort.reason).or(rollout.end.as_ref().map(|end| &end.reason));
        Self {
            id: rollout.id,
            state: rollout.state(),
            running: rollout.is_running(),
            actor: rollout.actor.clone(),
            at_unix_ms: rollout.at_unix_ms,
            steps: steps.collect(),
            changes: rollout.plan.changes.iter().map(ChangeInfo::new).collect(),
            cause: abort.map(|abort| abort.cause.code()),
            reason: reason.cloned(),
        }
    }
}

/// A rollout over the sites, and how far each router is with it.
#[utoipa::path(get, path = "/v1/rollouts/{id}", tag = "rollouts",
    params(("id" = u64, Path, description = "The rollout's number")),
    responses(
        (status = 200, body = MeshRolloutDescription),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 500, body = Problem, content_type = "application/problem+json", description = "The controller is not reached"),
    ))]
pub(super) async fn describe(
    State(context): State<Arc<Context>>,
    InPath(id): InPath<u64>,
) -> Result<Json<MeshRolloutDescription>, Problem> {
    let world = &context.state.world;
    let view = world.view();
    let rollout = find(&view, id)?;
    let heard = if rollout.is_running() { world.progress().await? } else { Vec::new() };
    let mut description = description(&view, &rollout, &heard);
    if waits_for_ledger(&view, &rollout, &heard) {
        description.ledger_off = world.ledger_off().await;
    }
    Ok(Json(description))
}

/// Whether nothing is left to do but the end: every router runs the new set and was watched long enough.
fn waits_for_ledger(view: &View, rollout: &Rollout, heard: &[Heard]) -> bool {
    let watched_ms = u64::from(rollout.plan.observe_s) * 1_000;
    let is_done = |router: &myelin_catalog::Router| {
        let active = view.catalog.active_for(&router.site).number;
        heard.iter().any(|Heard { report, .. }| {
            let is_it = report.site == router.site && report.router == router.name;
            let phase = &report.phase;
            is_it && matches!(phase, Phase::Active { generation, for_ms } if *generation == active && *for_ms >= watched_ms)
        })
    };
    rollout.is_forward() && rollout.next().is_none() && view.catalog.fleet().routers().all(is_done)
}

pub(super) fn find(view: &View, id: u64) -> Result<Arc<Rollout>, Problem> {
    view.catalog.rollouts().find(|rollout| rollout.id == id).cloned().ok_or_else(|| {
        Problem::not_found(format!("there is no rollout {id}; `myelin rollout history` shows those that are kept"))
    })
}

fn description(view: &View, rollout: &Rollout, heard: &[Heard]) -> MeshRolloutDescription {
    let routers = view.catalog.fleet().routers().map(|router| {
        let heard = heard.iter().find(|heard| heard.report.site == router.site && heard.report.router == router.name);
        let is_reached = rollout.reached().any(|site| *site == router.site);
        let phase = heard.map(|heard| &heard.report.phase);
        let is_shadowing = matches!(phase, Some(Phase::Shadowing { .. }));
        let metrics =
            heard.filter(|_| is_reached || is_shadowing).map_or(Metrics::default(), |heard| heard.report.metrics);
        let failed =
            rollout.abort.is_some() || rollout.end.as_ref().is_some_and(|end| end.outcome == Outcome::RolledBack);
        RouterProgress {
            site: router.site.to_string(),
            router: router.name.to_string(),
            phase: phase.map(Phase::as_str),
            has_new_set: is_reached && !failed,
            detail: phase.map_or_else(String::new, |phase| detail(phase, &metrics)),
            age_ms: heard.map(|heard| heard.age_ms),
            events: metrics.events,
            traps: metrics.traps,
            rejects: metrics.rejects,
            differences: metrics.differences,
            module_p99_us: metrics.module_p99_us,
            arrived: metrics.arrived,
            held_back_ppm: metrics.held_ppm,
            held_back_before_ppm: metrics.base_held_ppm,
        }
    });
    MeshRolloutDescription { rollout: MeshRollout::new(rollout), routers: routers.collect(), ledger_off: None }
}

fn detail(phase: &Phase, metrics: &Metrics) -> String {
    match phase {
        Phase::Active { generation, .. } if metrics.arrived > 0 => {
            let (arrived, [held, before]) = (metrics.arrived, [metrics.held_ppm, metrics.base_held_ppm].map(percent));
            format!("generation {generation}; {arrived} events came, {held} held back ({before} before)")
        }
        Phase::Active { generation, .. } => format!("generation {generation}"),
        Phase::Retreated { from, to, reason } => format!("generation {to} instead of {from}: {reason}"),
        Phase::Nack { code, reason } => format!("{code}: {reason}"),
        Phase::Shadowing { for_ms } if metrics.events == 0 => {
            format!("for {} s; no event came to compare", for_ms / 1_000)
        }
        Phase::Shadowing { for_ms } => format!("for {} s", for_ms / 1_000),
        _ => String::new(),
    }
}

/// Take a step of a rollout by hand: `pause`, `resume`, `promote` (do not wait any longer), or `abort` (every site has
/// its old set again).
#[utoipa::path(post, path = "/v1/rollouts/{id}/{step}", tag = "rollouts",
    params(
        ("id" = u64, Path, description = "The rollout's number"),
        ("step" = String, Path, description = "`pause`, `resume`, `promote` or `abort`"),
    ),
    request_body(content = StepRequest),
    responses(
        (status = 200, body = Begun),
        (status = 202, body = Begun, description = "With `[admin] two_person`, `promote` waits for somebody else to approve it"),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "The rollout is not where this step can be taken"),
        (status = 507, body = Problem, content_type = "application/problem+json", description = "The catalog holds as much as it may"),
    ))]
pub(super) async fn step(
    State(context): State<Arc<Context>>,
    Extension(caller): Extension<Caller>,
    InPath((id, step)): InPath<(u64, String)>,
    Body(request): Body<StepRequest>,
) -> Result<(StatusCode, Json<Begun>), Problem> {
    check_note("reason", Some(&request.reason))?;
    let actor = caller.actor.clone();
    let op = match step.as_str() {
        "pause" => Op::RolloutPaused { id },
        "resume" => Op::RolloutResumed { id },
        "promote" => Op::RolloutPromoted { id },
        "abort" => {
            let wanted = || format!("{actor} wants it");
            let reason = if request.reason.is_empty() { wanted() } else { request.reason.clone() };
            Op::RolloutAborted { id, cause: Cause::Hand, reason }
        }
        other => {
            let detail = format!("`{}` is no step; give pause, resume, promote or abort", super::problem::shown(other));
            return Err(Problem::new(StatusCode::NOT_FOUND, "not-found", detail));
        }
    };
    let world = &context.state.world;
    let rollout = find(&world.view(), id)?;
    if let (Op::RolloutPromoted { id }, true) = (&op, context.two_person) {
        let note = Some(request.reason).filter(|reason| !reason.is_empty());
        let intent = Intent::Promote { id: *id, step: rollout.step() };
        return Ok((StatusCode::ACCEPTED, Json(Begun::Proposed(propose(&context, intent, note, &caller).await?))));
    }
    world.change(Change::Record(Box::new(op)), None, actor).await?;
    Ok((StatusCode::OK, Json(Begun::Rollout(MeshRollout::new(&*find(&world.view(), id)?)))))
}

pub(super) async fn record(context: &Context, actor: Actor, op: Op) -> Result<(StatusCode, RevisionTag), Problem> {
    let revision = context.state.world.change(Change::Record(Box::new(op)), None, actor).await?;
    Ok((StatusCode::NO_CONTENT, revision_tag(revision)))
}

/// The rollouts that the catalog remembers, oldest first.
pub(super) fn newest(view: &View) -> Vec<MeshRollout> {
    view.catalog.rollouts().map(|rollout| MeshRollout::new(rollout)).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::*;

    use myelin_catalog::exchange::RouterReport;
    use myelin_catalog::rollout::Step;
    use myelin_catalog::{Catalog, RolloutPlan};

    fn mesh() -> (View, Arc<Rollout>) {
        let mut catalog = Catalog::new();
        let name = |name: &str| name.parse::<Name>().unwrap();
        let mut ops = Vec::new();
        for site in ["eu1", "us1"] {
            ops.push(Op::SiteAdded { name: name(site), region: name("unset"), cloud: name("unset") });
            ops.push(Op::RouterAdded { site: name(site), name: name("r1") });
        }
        let module = serde_json::json!({"name": "gate", "version": "1.0.0", "digest": "ab".repeat(32), "size_bytes": 1,
            "uploaded_unix_ms": 0, "imports": [], "world": "fast"});
        ops.push(Op::ModuleAdded { module: serde_json::from_value(module).unwrap() });
        let binding = serde_json::json!({"name": "gate", "module": "gate@1.0.0", "pattern": "orders/**"});
        ops.push(Op::BindingStaged { binding: serde_json::from_value(binding).unwrap() });
        for op in ops {
            let record = catalog.draft(op, "test", 0).unwrap();
            catalog.apply(&record).unwrap();
        }
        let plan = RolloutPlan { canary: vec![name("us1")], waves: vec![100], ..RolloutPlan::default() };
        let record = catalog.draft(catalog.rollout_start(plan), "ann", 7).unwrap();
        catalog.apply(&record).unwrap();
        let rollout = catalog.rollout().unwrap().clone();
        (View { catalog: Arc::new(catalog), ..View::default() }, rollout)
    }

    #[test]
    fn a_rollout_shows_its_steps_and_every_router() {
        let (view, rollout) = mesh();
        let phase = Phase::Nack { code: "self-test".into(), reason: "sample 1".into() };
        let report = RouterReport {
            site: "eu1".parse().unwrap(),
            router: "r1".parse().unwrap(),
            rollout: rollout.id,
            phase,
            metrics: Metrics { events: 5, ..Metrics::default() },
        };
        let shown = description(&view, &rollout, &[Heard { report, age_ms: 12 }]);
        assert_eq!(shown.rollout.steps[0].state, "now");
        let canary = shown.rollout.steps.iter().find(|step| step.step == Step::Canary.to_string()).unwrap();
        assert_eq!((canary.state, &canary.sites[..]), ("ahead", &["us1".to_owned()][..]));
        let [eu1, us1] = &shown.routers[..] else { panic!("two routers") };
        assert_eq!((eu1.phase, &*eu1.detail, eu1.events), (Some("NACK"), "self-test: sample 1", 0));
        assert_eq!((us1.phase, us1.age_ms, us1.has_new_set), (None, None, false));
    }
}
