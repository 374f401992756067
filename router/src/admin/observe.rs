//! `/v1/ledger`, `/v1/clients`, `/v1/status`, `/v1/mesh`: what is going on.

use super::Context;
use super::types::{Clients, LedgerLine, LedgerReport, Status, WorkerClients};
use crate::ledger::Counts;
use crate::links::LinksStatus;
use crate::shared::Phase;
use crate::tokens::Tokens;
use crate::world::{MeshLedger, View};
use axum::Json;
use axum::extract::State;
use myelin_transport::{ListenerStats, Refusal};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// What became of every event and every copy, by generation. Each worker answers between two batches, so that the sums
/// balance under load, too.
#[utoipa::path(get, path = "/v1/ledger", tag = "observation", responses(
    (status = 200, body = LedgerReport),
))]
pub(super) async fn ledger(State(context): State<Arc<Context>>) -> Json<LedgerReport> {
    let counts = (context.state.ledger)().await;
    let generations: Vec<_> =
        counts.iter().map(|(generation, counts)| LedgerLine::new(Some(*generation), *counts)).collect();
    let balances = generations.iter().all(|line| line.balances);
    Json(LedgerReport { generations, total: LedgerLine::new(None, sum(&counts)), balances })
}

/// The ledger of the whole mesh: that of every router, and what each link says at its two ends.
#[utoipa::path(get, path = "/v1/mesh/ledger", tag = "mesh", responses(
    (status = 200, body = MeshLedger),
))]
pub(super) async fn mesh_ledger(State(context): State<Arc<Context>>) -> Json<MeshLedger> {
    Json(context.state.world.mesh_ledger().await)
}

/// Who is connected, in numbers.
#[utoipa::path(get, path = "/v1/clients", tag = "observation", responses(
    (status = 200, body = Clients),
))]
pub(super) async fn clients(State(context): State<Arc<Context>>) -> Json<Clients> {
    let shared = &context.state.shared;
    let refusals = shared.refusals.snapshot().into_iter().map(|(code, count)| (code.name(), count));
    let workers = context.state.listeners.iter().enumerate();
    Json(Clients {
        sessions: shared.sessions.load(Relaxed),
        publishers: shared.publishers.load(Relaxed),
        workers: workers.map(|(worker, stats)| worker_clients(worker, stats)).collect(),
        refusals: refusals.collect(),
    })
}

/// What the router is and how it is.
#[utoipa::path(get, path = "/v1/status", tag = "observation", responses(
    (status = 200, body = Status),
))]
pub(super) async fn status(State(context): State<Arc<Context>>) -> Json<Status> {
    let (state, shared) = (&context.state, &context.state.shared);
    let view = state.world.view();
    let phase = *shared.phase.borrow();
    Json(Status {
        site: shared.site.clone(),
        router: shared.router.clone(),
        version: env!("CARGO_PKG_VERSION"),
        boot_epoch: shared.epoch,
        uptime_ms: shared.now_ms(),
        phase: match phase {
            Phase::Serving => "serving",
            Phase::Draining(_) => "draining",
            Phase::Flushing(_) => "flushing",
        },
        ready: view.is_ready && phase == Phase::Serving,
        generation: view.generation,
        revision: view.catalog.head().rev,
        workers: shared.mailboxes.len(),
        addr: state.client_addr.to_string(),
        admin_addr: context.gate.addr.to_string(),
    })
}

/// The links to other routers, and what is known through them. At most a second old.
#[utoipa::path(get, path = "/v1/mesh", tag = "observation", responses(
    (status = 200, body = LinksStatus),
))]
pub(super) async fn mesh(State(context): State<Arc<Context>>) -> Json<LinksStatus> {
    let mut status = LinksStatus::clone(&context.state.mesh.load());
    status.alarms = alarms(&status, &context.state.world.view(), context.state.shared.tokens.as_deref());
    Json(status)
}

/// The alarm that tokens are refused because their issuer's keys could not be read for too long.
const KEYS_TOO_OLD: &str = "token-keys-old";

/// The alarms of the links, of the catalog and of the issuers of tokens, by code.
pub(super) fn alarms(status: &LinksStatus, view: &View, tokens: Option<&Tokens>) -> BTreeMap<String, u64> {
    let mut all = status.alarms.clone();
    let too_old = tokens.map_or(0, Tokens::keys_too_old);
    if too_old > 0 {
        all.insert(KEYS_TOO_OLD.to_owned(), too_old);
    }
    for (code, count) in &view.alarms {
        *all.entry(code.clone()).or_default() += count;
    }
    all
}

/// All generations together.
pub(super) fn sum(counts: &BTreeMap<u64, Counts>) -> Counts {
    let mut total = Counts::default();
    counts.values().for_each(|counts| total.add(counts));
    total
}

fn worker_clients(worker: usize, stats: &ListenerStats) -> WorkerClients {
    let refused = Refusal::ALL.iter().map(|refusal| (refusal.code(), stats.refused(*refusal)));
    let by_client = ("refused-by-client", stats.refused_by_client.load(Relaxed));
    WorkerClients {
        worker,
        attempts: stats.attempts.load(Relaxed),
        accepted: stats.accepted.load(Relaxed),
        retried: stats.retried.load(Relaxed),
        ignored: stats.ignored.load(Relaxed),
        timed_out: stats.timed_out.load(Relaxed),
        handshaking: stats.handshaking.load(Relaxed),
        refused: refused.chain([by_client]).filter(|(_, count)| *count > 0).collect(),
    }
}
