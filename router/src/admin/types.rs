//! The JSON of the API, both ways.

mod rollouts;

pub(super) use rollouts::{GenerationInfo, PlanSpec, RollbackRequest, Rollout, RolloutList, RolloutRequest};

use super::spec::BindingSpec;
use crate::ledger::Counts;
use serde::Serialize;
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// A version of a module.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(super) struct ModuleSummary {
    /// What it is called.
    pub(super) name: String,
    /// Which version of that it is.
    pub(super) version: String,
    /// SHA-256 of its bytes.
    pub(super) digest: String,
    /// How many bytes it has.
    pub(super) size_bytes: u64,
    /// When it was uploaded, Unix milliseconds.
    pub(super) uploaded_unix_ms: u64,
    /// What it is used for.
    pub(super) state: ModuleState,
    /// Who vouches for it.
    pub(super) signature: Option<SignatureInfo>,
}

/// Who vouches for a module.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(super) struct SignatureInfo {
    /// The id of the key that has signed.
    pub(super) key_id: String,
    /// What it has signed beside the bytes.
    pub(super) statement: String,
    /// How that stands now: `valid`, `expired` or `key-removed`. It runs on in any case.
    pub(super) state: &'static str,
}

/// What a module is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum ModuleState {
    /// No binding uses it.
    Unused,
    /// A binding that is not active yet uses it.
    Staged,
    /// It judges events.
    Active,
    /// It failed too often: its bindings answer their fault verdict.
    Quarantined,
}

/// All modules.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ModuleList {
    /// By name and version.
    pub(super) modules: Vec<ModuleSummary>,
    /// The catalog's revision.
    pub(super) revision: u64,
}

/// Everything about a version of a module.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ModuleDescription {
    /// The module.
    #[serde(flatten)]
    pub(super) module: ModuleSummary,
    /// The world of the filter contract that it is built for: `fast` or `easy`.
    pub(super) world: &'static str,
    /// The interfaces that it imports from the router.
    pub(super) imports: Vec<String>,
    /// The functions of the host that it uses; none where it was uploaded by a router that did not look.
    pub(super) capabilities: Option<Vec<String>>,
    /// Why it is quarantined, where it is.
    pub(super) quarantine: Option<QuarantineInfo>,
    /// The bindings that use it.
    pub(super) bindings: Vec<BindingDescription>,
}

/// Why a module is quarantined.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct QuarantineInfo {
    /// The binding in which it failed.
    pub(super) binding: String,
    /// How it failed.
    pub(super) reason: String,
    /// When, Unix milliseconds.
    pub(super) at_unix_ms: u64,
}

/// How a binding stands between the staged and the active set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum BindingState {
    /// It is staged and not active yet: the next rollout adds it.
    Staged,
    /// It is active in an older form: the next rollout changes it.
    Changed,
    /// It is active as it is staged.
    Active,
    /// It is active and no longer staged: the next rollout removes it.
    Leaving,
}

/// A binding in the catalog.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct BindingSummary {
    /// The binding.
    #[serde(flatten)]
    pub(super) binding: BindingSpec,
    /// The catalog's revision that staged it.
    pub(super) revision: u64,
    /// SHA-256 of its module's bytes.
    pub(super) digest: String,
    /// How it stands between the staged and the active set.
    pub(super) state: BindingState,
}

/// All bindings.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct BindingList {
    /// The staged set by name, and those active ones that are no longer in it.
    pub(super) bindings: Vec<BindingSummary>,
    /// The catalog's revision; what `If-Match` takes.
    pub(super) revision: u64,
    /// The generation that judges events now.
    pub(super) active_generation: u64,
}

/// Everything about a binding.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct BindingDescription {
    /// The binding.
    #[serde(flatten)]
    pub(super) summary: BindingSummary,
    /// What its filter declared; none while it is not active.
    pub(super) info: Option<FilterDeclaration>,
    /// What happened at it, all workers together; none while it is not active.
    pub(super) stats: Option<BindingFigures>,
}

/// What a filter said about itself when it was set up.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct FilterDeclaration {
    /// Its name, as its author wrote it.
    pub(super) name: String,
    /// Its version, as its author wrote it.
    pub(super) version: String,
    /// What it wants to see of an event.
    pub(super) needs: FilterNeeds,
    /// Where the bits of its verdicts lead.
    pub(super) routes: Vec<String>,
    /// What the reason ids of its verdicts mean.
    pub(super) reasons: Vec<String>,
    /// Counters that it may raise.
    pub(super) counters: Vec<String>,
    /// Bytes that it may put out for each event; 0 = it never transforms, emits or explains.
    pub(super) output_bytes_max: u32,
}

/// What a filter wants to see of an event.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct FilterNeeds {
    /// Names of the headers that it reads.
    pub(super) headers: Vec<String>,
    /// It reads headers, whatever their names.
    pub(super) all_headers: bool,
    /// It reads the publisher's identity.
    pub(super) identity: bool,
    /// How much of the payload it reads: `none`, `prefix` or `full`.
    pub(super) payload: String,
    /// With `prefix`: so many bytes.
    pub(super) payload_bytes: Option<u32>,
}

/// What the instances of a binding keep together, across versions.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(super) struct SharedFigures {
    /// Buckets of `take`.
    pub(super) buckets: usize,
    /// Keys of `seen`.
    pub(super) keys: usize,
    /// Buckets that were forgotten for want of room before they were full again: each began full once more.
    pub(super) buckets_forgotten: u64,
    /// Keys that were forgotten for want of room before their time: a duplicate of each would pass.
    pub(super) keys_forgotten: u64,
}

/// What happened at a binding since it became active, all workers together.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(super) struct BindingFigures {
    /// Workers that run it.
    pub(super) workers: usize,
    /// Events that came in: the sum of `verdicts` and `faulted`.
    pub(super) events: u64,
    /// Batches judged.
    pub(super) batches: u64,
    /// Events by verdict: `allow`, `deny`, `dead-letter`, `drop`, `redirect`, `add`.
    pub(super) verdicts: BTreeMap<&'static str, u64>,
    /// Events without a verdict because of a fault.
    pub(super) faulted: u64,
    /// Of these, by what became of them: `last-good`, `pass`, `reject`, `dead-letter`.
    pub(super) faulted_became: BTreeMap<&'static str, u64>,
    /// Calls that failed, by code; codes that never happened are left out.
    pub(super) faults: BTreeMap<&'static str, u64>,
    /// The last of them.
    pub(super) last_fault: Option<FaultInfo>,
    /// Events that it made beside those that came in.
    pub(super) emitted: u64,
    /// Events that it changed.
    pub(super) replaced: u64,
    /// CPU time in nanoseconds.
    pub(super) cpu_ns: u64,
    /// Calls to its host.
    pub(super) host_calls: u64,
    /// Log lines that were over the rate.
    pub(super) logs_dropped: u64,
    /// Its own counters.
    pub(super) counters: BTreeMap<String, u64>,
    /// What its instances keep together: answers of the host calls `take` and `seen`.
    pub(super) shared: SharedFigures,
    /// Whether it runs on a thread of its own at any worker, after a fault.
    pub(super) apart: bool,
    /// Whether any worker gave it up.
    pub(super) quarantined: bool,
}

/// In place of what a filter put out.
const HIDDEN: &str =
    "what it was is told to those with the role developer or payloads, who may read what filters write";

/// A fault of a filter.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct FaultInfo {
    /// Its stable code.
    pub(super) code: &'static str,
    /// What happened. Where that may quote what the filter put out, it is for those who may read what filters write.
    pub(super) detail: String,
    #[serde(skip)]
    pub(super) may_quote: bool,
    /// The batch's time, Unix nanoseconds.
    pub(super) time_unix_ns: u64,
}

impl FaultInfo {
    /// Leaves out what may hold a part of a payload.
    pub(super) fn hide(&mut self) {
        if self.may_quote {
            HIDDEN.clone_into(&mut self.detail);
        }
    }
}

/// A change that was staged.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Staged {
    /// The catalog's new revision. `POST /v1/rollouts` makes it active.
    pub(super) revision: u64,
}

/// What became of every event and every copy.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct LedgerReport {
    /// By generation, oldest first.
    pub(super) generations: Vec<LedgerLine>,
    /// All generations together.
    pub(super) total: LedgerLine,
    /// Whether both balances hold in every generation.
    pub(super) balances: bool,
}

/// A generation's ledger.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct LedgerLine {
    /// The generation; none in the total.
    #[serde(skip_serializing_if = "Option::is_none")]
    generation: Option<u64>,
    /// The terms.
    #[serde(flatten)]
    counts: Counts,
    /// Whether both balances hold.
    pub(super) balances: bool,
    /// What is missing in the balance of the events.
    events_off_by: i64,
    /// What is missing in the balance of the copies.
    copies_off_by: i64,
    /// Whether nothing is on its way any more.
    settled: bool,
}

impl LedgerLine {
    /// The terms of `generation`, or of all of them.
    pub(super) fn new(generation: Option<u64>, counts: Counts) -> Self {
        Self {
            generation,
            balances: counts.balances(),
            events_off_by: counts.events_off_by(),
            copies_off_by: counts.copies_off_by(),
            settled: counts.is_settled(),
            counts,
        }
    }
}

/// What the router is and how it is.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Status {
    /// Name of the site.
    pub(super) site: String,
    /// Name of the router.
    pub(super) router: String,
    /// Version of the program.
    pub(super) version: &'static str,
    /// How often the router was started with its data directory.
    pub(super) boot_epoch: u32,
    /// Milliseconds since the start.
    pub(super) uptime_ms: u64,
    /// `serving`, `draining` or `flushing`.
    pub(super) phase: &'static str,
    /// Whether `/readyz` says so.
    pub(super) ready: bool,
    /// The generation that judges events now.
    pub(super) generation: u64,
    /// The catalog's revision.
    pub(super) revision: u64,
    /// Worker threads.
    pub(super) workers: usize,
    /// Where clients connect (QUIC).
    pub(super) addr: String,
    /// Where this API listens.
    pub(super) admin_addr: String,
}

/// Who is connected: numbers only.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Clients {
    /// Open sessions.
    pub(super) sessions: usize,
    /// Open publish streams.
    pub(super) publishers: usize,
    /// Each worker's listener.
    pub(super) workers: Vec<WorkerClients>,
    /// Refusals told to clients, by code.
    pub(super) refusals: BTreeMap<&'static str, u64>,
}

/// What a worker's listener has seen.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct WorkerClients {
    /// The worker.
    pub(super) worker: usize,
    /// First packets looked at.
    pub(super) attempts: u64,
    /// Connections through the handshake.
    pub(super) accepted: u64,
    /// Clients asked to prove their address.
    pub(super) retried: u64,
    /// First packets over the rate.
    pub(super) ignored: u64,
    /// Handshakes that took too long.
    pub(super) timed_out: u64,
    /// Handshakes under way.
    pub(super) handshaking: usize,
    /// Clients refused, by reason.
    pub(super) refused: BTreeMap<&'static str, u64>,
}

/// Lines that a module's filters logged.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct LogList {
    /// Oldest first; the newest 1,000 of each module since the admin API first looked.
    pub(super) lines: Vec<LogEntry>,
    /// Number of the newest line that there is: with it as `after`, `/v1/logs` gives what comes after these lines.
    pub(super) next: u64,
    /// Whether lines after `after` are not kept any more.
    pub(super) missed: bool,
}

/// One line of a filter's log.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(super) struct LogEntry {
    /// Its number among all lines of this router's run.
    pub(super) number: u64,
    /// The batch's time, Unix nanoseconds; 0 during set-up.
    pub(super) time_unix_ns: u64,
    /// `debug`, `info`, `warn` or `error`.
    pub(super) level: &'static str,
    /// The module, `name@version`.
    pub(super) module: String,
    /// The binding that runs the filter.
    pub(super) binding: String,
    /// What it says, as the filter wrote it: may hold any character.
    pub(super) message: String,
}

/// The answer of a health check.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Health {
    /// `alive` or `ready`.
    pub(super) status: &'static str,
}
