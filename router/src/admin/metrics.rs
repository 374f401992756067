//! `/metrics`: the figures of all parts, put together for [`crate::telemetry`].

use super::Context;
use super::bindings::figures;
use super::observe::sum;
use crate::generation::BindingCard;
use crate::ledger::{Counts, Term};
use crate::shared::Phase;
use crate::telemetry::{BindingReading, CONTENT_TYPE, ExportReading, LedgerReading, Readings, TenantReading, render};
use crate::tenants::Known;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// The terms of the events' balance that only grow.
const EVENT_TERMS: [Term; 9] = [
    Term::Accepted,
    Term::Emitted,
    Term::Received,
    Term::Rejected,
    Term::Dropped,
    Term::DeadLettered,
    Term::Expired,
    Term::Unmatched,
    Term::Matched,
];
/// The terms of the copies' balance that only grow.
const COPY_TERMS: [Term; 7] = [
    Term::Targets,
    Term::Delivered,
    Term::Forwarded,
    Term::EgressRejected,
    Term::CopiesExpired,
    Term::Shed,
    Term::Lost,
];

/// Figures for monitoring, as Prometheus (OpenMetrics) text.
#[utoipa::path(get, path = "/metrics", tag = "observation", responses(
    (status = 200, body = String, content_type = "application/openmetrics-text"),
))]
pub(super) async fn metrics(State(context): State<Arc<Context>>) -> impl IntoResponse {
    let text = render(readings(&context).await);
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], text)
}

async fn readings(context: &Context) -> Readings {
    let (state, shared) = (&context.state, &context.state.shared);
    let counts = (state.ledger)().await;
    let view = state.world.view();
    let newest = view.rollouts.back();
    let (refused_by_residency, held_back) = shared.held_back.read();
    Readings {
        version: env!("CARGO_PKG_VERSION"),
        site: shared.site.clone(),
        router: shared.router.clone(),
        uptime_seconds: shared.started.elapsed().as_secs_f64(),
        is_ready: view.is_ready && *shared.phase.borrow() == Phase::Serving,
        generation: view.generation,
        revision: view.catalog.head().rev,
        modules: view.catalog.modules().len(),
        modules_quarantined: view.catalog.quarantined().count(),
        sessions: shared.sessions.load(Relaxed),
        publishers: shared.publishers.load(Relaxed),
        refusals: shared.refusals.snapshot().into_iter().map(|(code, count)| (code.name(), count)).collect(),
        listeners: state.listeners.clone(),
        rollouts: view.rollout_counts.by_kind(),
        rollout_prepare_seconds: newest.map_or(0.0, |report| report.prepare_ms as f64 / 1e3),
        rollout_pause_seconds: newest.map_or(0.0, |report| report.swap_us_max as f64 / 1e6),
        ledger_total: ledger_reading(&sum(&counts)),
        ledger: counts.iter().map(|(generation, counts)| (*generation, ledger_reading(counts))).collect(),
        bindings: view.cards.iter().map(|card| binding_reading(card)).collect(),
        is_store_failed: view.is_store_failed,
        alarms: super::observe::alarms(&state.mesh.load(), &view, shared.tokens.as_deref()).into_iter().collect(),
        reloads: state.reloader.as_ref().map(|reloader| reloader.stats()),
        not_recorded: state.world.not_recorded().await,
        export: state.exports.as_ref().map(|figures| ExportReading {
            records: figures.records(),
            spans: figures.spans(),
            spans_rejected: figures.spans_rejected(),
            lost: figures.lost(),
            failed: figures.failed(),
        }),
        shadow: view.shadow.as_ref().map(|shadow| shadow.reading()),
        refused_by_residency,
        denials: shared.denials.by_action(),
        withheld: shared.denials.withheld(),
        held_back,
        tenants: shared.rules.load().tenants().iter().map(tenant_reading).collect(),
        screened: shared.screens.load().all().map(|screen| (screen.rule().to_owned(), screen.counts())).collect(),
        schema_compilations: shared.screens.load().compilations().into(),
        certificate_not_after: context.tls.as_ref().map(|tls| tls.not_after_unix_s()),
    }
}

#[expect(
    clippy::cast_possible_wrap,
    reason = "gauges are read one worker after another: a moment's sum may be negative"
)]
fn ledger_reading(counts: &Counts) -> LedgerReading {
    let terms = |terms: &[Term]| terms.iter().map(|term| (term.name(), counts.get(*term))).collect();
    LedgerReading {
        events: terms(&EVENT_TERMS),
        copies: terms(&COPY_TERMS),
        in_pipeline: counts.in_pipeline as i64,
        in_queue: counts.in_queue as i64,
        events_off_by: counts.events_off_by(),
        copies_off_by: counts.copies_off_by(),
    }
}

fn tenant_reading(known: &Known) -> TenantReading {
    let used = known.usage.figures();
    TenantReading {
        tenant: known.tenant.name.to_string(),
        events: used.events,
        bytes: used.bytes,
        filter_cpu_seconds: Duration::from_nanos(used.filters_ns).as_secs_f64(),
        dead_letters: used.dead_letters,
        dead_letters_refused: used.dead_letters_refused,
        connections: used.connections,
        connections_refused: used.connections_refused,
        paused_seconds: Duration::from_nanos(used.paused_ns).as_secs_f64(),
    }
}

fn binding_reading(card: &BindingCard) -> BindingReading {
    let figures = figures(card);
    let mut verdicts: Vec<_> = figures.verdicts.into_iter().collect();
    verdicts.push(("faulted", figures.faulted));
    BindingReading {
        binding: card.name.to_string(),
        module: card.module.to_string(),
        stage: card.stage.as_str(),
        batches: figures.batches,
        verdicts,
        faulted: figures.faulted_became.into_iter().collect(),
        faults: figures.faults.into_iter().collect(),
        cpu_seconds: figures.cpu_ns as f64 / 1e9,
        host_calls: figures.host_calls,
        emitted: figures.emitted,
        logs_dropped: figures.logs_dropped,
        counters: figures.counters.into_iter().collect(),
        apart: figures.apart,
        quarantined: figures.quarantined,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_term_of_the_ledger_is_shown_once() {
        let mut shown: Vec<_> = EVENT_TERMS.iter().chain(&COPY_TERMS).map(|term| term.name()).collect();
        shown.extend(["in_pipeline", "in_queue"]);
        shown.sort_unstable();
        let mut all: Vec<_> = Term::ALL.iter().map(|term| term.name()).collect();
        all.sort_unstable();
        assert_eq!(shown, all);
    }
}
