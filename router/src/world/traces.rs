//! What became of sampled events: the records of this router's workers, and of all routers of the mesh.

use super::{Account, Blame, World, WorldError};
use crate::trace::{Record, TraceId};
use crate::worker::Order;
use myelin_catalog::exchange::{Answer, Ask};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::oneshot;
use utoipa::ToSchema;

/// Records of one router in an answer: what some hundred events leave.
const RECORDS_MAX: usize = 1_000;
/// What became of the sampled events of a trace.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Trace {
    /// The trace.
    #[schema(value_type = String, pattern = "^[0-9a-f]{32}$")]
    pub trace_id: TraceId,
    /// What was recorded, in the order of the beginnings by the routers' own clocks.
    pub records: Vec<Record>,
    /// The routers that were asked and answered.
    pub routers: Vec<RouterTrace>,
    /// Those that did not, as `SITE/ROUTER`, and why.
    pub missing: BTreeMap<String, String>,
}

/// What a router says beside its records.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct RouterTrace {
    /// The router, as `SITE/ROUTER`.
    pub router: String,
    /// Records of the trace that it has and that the answer leaves out for their number.
    pub left_out: usize,
    /// Records, of any trace, that it did not make since its start because there were too many at once.
    pub not_recorded: u64,
}

/// A router's part.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Part {
    records: Vec<Record>,
    of: RouterTrace,
}

impl Account {
    /// The records of this router.
    async fn trace(&self, trace: TraceId) -> Part {
        let mut records = Vec::new();
        for worker in self.ledgers.workers() {
            let (answer, answered) = oneshot::channel();
            if worker.send(Order::Traces(trace, answer)).await.is_ok()
                && let Ok(mut found) = answered.await
            {
                records.append(&mut found);
            }
        }
        let not_recorded = self.ledgers.not_recorded().await;
        records.sort_by_key(|record| record.begin_unix_ns);
        let left_out = records.len().saturating_sub(RECORDS_MAX);
        records.truncate(RECORDS_MAX);
        // Copied here, and not by the workers.
        let records = records.into_iter().map(Arc::unwrap_or_clone).collect();
        let router = format!("{}/{}", self.site, self.router);
        Part { records, of: RouterTrace { router, left_out, not_recorded } }
    }

    /// The same for another router: as much of it as an answer holds.
    ///
    /// # Errors
    /// When the trace's number is none.
    pub(super) async fn encode_trace(&self, trace: &str) -> Result<Vec<u8>, WorldError> {
        let mut part = self.trace(read(trace)?).await;
        loop {
            let bytes = super::explain::encode(&part)?;
            // The answer's own frame is a few bytes.
            if bytes.len() + 64 <= super::others::ANSWER_BYTES_MAX {
                return Ok(bytes);
            }
            let half = part.records.len() / 2;
            part.of.left_out += part.records.len() - half;
            part.records.truncate(half);
        }
    }
}

/// Reads the number of a trace.
fn read(trace: &str) -> Result<TraceId, WorldError> {
    let refuse = |error| WorldError::new(Blame::Request, "invalid-trace-id", format!("the number of a trace: {error}"));
    trace.parse().map_err(refuse)
}

impl World {
    /// Records of sampled events that this router has not made since its start, because there were too many at once.
    pub async fn not_recorded(&self) -> u64 {
        self.account.ledgers.not_recorded().await
    }

    /// What became of the sampled events of a trace at this router, or at all routers of the mesh.
    ///
    /// # Errors
    /// `invalid-trace-id`; `not-found` where nothing was recorded.
    pub async fn trace(&self, trace: &str, mesh: bool) -> Result<Trace, WorldError> {
        let trace_id = read(trace)?;
        let own = self.account.trace(trace_id).await;
        let mut all = Trace { trace_id, records: own.records, routers: vec![own.of], missing: BTreeMap::new() };
        if mesh {
            self.ask_all(&mut all).await;
        }
        if all.records.is_empty() {
            let message = format!(
                "nothing of trace {trace} is recorded: it was not sampled, is older than what routers keep, or there were \
                 too many at once"
            );
            return Err(WorldError::new(Blame::NotFound, "not-found", message));
        }
        all.records.sort_by_key(|record| record.begin_unix_ns);
        all.routers.sort_by(|a, b| a.router.cmp(&b.router));
        Ok(all)
    }

    /// Asks every other router for its part.
    async fn ask_all(&self, all: &mut Trace) {
        let ask = Ask::Trace { trace: all.trace_id.to_string() };
        let read = |answer| match answer {
            Answer::Trace(json) => Ok(json),
            other => Err(other),
        };
        for (title, answered) in self.ask_others::<Part>(&ask, |_| true, read).await {
            match answered {
                Ok(part) => {
                    all.records.extend(part.records);
                    all.routers.push(part.of);
                }
                Err(why) => drop(all.missing.insert(title, why)),
            }
        }
    }
}
