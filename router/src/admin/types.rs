//! The JSON of the API, both ways.

use super::fleet::MeshRollout;
use super::governance::ChangesSpec;
use super::proposals::Proposal;
use super::spec::BindingSpec;
use crate::ledger::Counts;
use crate::world::{RolloutKind, RolloutReport};
use myelin_catalog::{CatalogError, Gates, GovernanceChange, Name, RolloutPlan};
use serde::{Deserialize, Serialize};
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

/// A fault of a filter.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct FaultInfo {
    /// Its stable code.
    pub(super) code: &'static str,
    /// What happened.
    pub(super) detail: String,
    /// The batch's time, Unix nanoseconds.
    pub(super) time_unix_ns: u64,
}

/// A change that was staged.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Staged {
    /// The catalog's new revision. `POST /v1/rollouts` makes it active.
    pub(super) revision: u64,
}

/// What to roll out.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RolloutRequest {
    /// Why, for people who read the list of rollouts; at most 1,024 bytes.
    pub(super) note: Option<String>,
    /// How it goes on over the sites of the mesh; without, every site swaps as soon as all have prepared.
    pub(super) plan: Option<PlanSpec>,
    /// Rules and policies that it brings beside filters; it goes on over the sites then, by the default plan where none is
    /// given.
    pub(super) changes: ChangesSpec,
    /// Leave out the filters that are staged: they stay staged, and the rollout brings `changes` alone.
    pub(super) only_changes: bool,
}

/// How a rollout goes on over the sites of a mesh. What is left out has its default.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct PlanSpec {
    /// The sites that have the new set first.
    canary: Vec<String>,
    /// How many sites have it after each wave, in percent of all; rises to 100. Default 10, 50, 100.
    waves: Option<Vec<u8>>,
    /// How long the new set judges copies of events before it is active anywhere, in seconds. Default 0: not at all.
    shadow_s: Option<u32>,
    /// How many of a hundred events it judges copies of meanwhile. Default 100.
    shadow_percent: Option<u8>,
    /// Stay in the shadow until the rollout is promoted; it is rolled back after `shadow_s`.
    shadow_hold: bool,
    /// How long it is watched after the canaries and after each wave, in seconds. Default 60.
    observe_s: Option<u32>,
    /// How many events each router shall have judged before a step is over. Default 1,000; a quiet router is waited
    /// for until the deadline, but in shadow not one that no event came to.
    events_min: Option<u64>,
    /// What ends it; `null` in place of a number: any.
    gates: Option<GatesSpec>,
    /// How long a step may take beyond the time of observing, in seconds. Default 600.
    deadline_s: Option<u32>,
    /// Go on although rules of `changes` would turn back events that captures of routers hold.
    accept_failures: bool,
}

/// What the new set may do at each router before it is rolled back. What is left out has its default.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
struct GatesSpec {
    /// Most faults, in events of a million. Default 1,000.
    traps_ppm: Option<u32>,
    /// Most rejected events beyond the share of the old set, in events of a million. Default 20,000.
    rejects_ppm: Option<u32>,
    /// Longest time of a call for all but one of a hundred, in microseconds. Default 5,000.
    module_p99_us: Option<u32>,
    /// Most CPU time in percent of what a call may use, for all but one of a hundred. Default 50.
    fuel_percent: Option<u8>,
    /// Most events that it judges otherwise than the old set in shadow, in events of a million. Default any.
    differences_ppm: Option<u32>,
}

impl Default for GatesSpec {
    fn default() -> Self {
        let Gates { traps_ppm, rejects_ppm, module_p99_us, fuel_percent, differences_ppm } = Gates::default();
        Self { traps_ppm, rejects_ppm, module_p99_us, fuel_percent, differences_ppm }
    }
}

impl PlanSpec {
    /// The plan.
    ///
    /// # Errors
    /// When a site's name is none.
    pub(super) fn read(self, changes: Vec<GovernanceChange>) -> Result<RolloutPlan, CatalogError> {
        let default = RolloutPlan::default();
        let GatesSpec { traps_ppm, rejects_ppm, module_p99_us, fuel_percent, differences_ppm } =
            self.gates.unwrap_or_default();
        Ok(RolloutPlan {
            canary: self.canary.iter().map(|site| site.parse()).collect::<Result<_, _>>()?,
            waves: self.waves.unwrap_or(default.waves),
            shadow_s: self.shadow_s.unwrap_or(default.shadow_s),
            shadow_percent: self.shadow_percent.unwrap_or(default.shadow_percent),
            shadow_hold: self.shadow_hold,
            observe_s: self.observe_s.unwrap_or(default.observe_s),
            events_min: self.events_min.unwrap_or(default.events_min),
            gates: Gates { traps_ppm, rejects_ppm, module_p99_us, fuel_percent, differences_ppm },
            deadline_s: self.deadline_s.unwrap_or(default.deadline_s),
            changes,
            accept_failures: self.accept_failures,
        })
    }
}

/// Where to return to.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RollbackRequest {
    /// The generation whose set becomes active again, by any number that is shown for it; without it the one before the
    /// active one.
    pub(super) to: Option<u64>,
    /// Why, for people who read the list of rollouts; at most 1,024 bytes.
    pub(super) note: Option<String>,
}

/// What a rollout did.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(super) struct Rollout {
    /// What kind of change it was.
    kind: RolloutKind,
    /// The generation that is active since.
    pub(super) generation: u64,
    /// The generation before.
    previous: u64,
    /// What changed.
    plan: PlanInfo,
    /// Who wanted it.
    actor: String,
    /// Why, where a note was given to this process.
    note: Option<String>,
    /// When, Unix milliseconds.
    at_unix_ms: u64,
    /// How long it took, preparing included, in milliseconds.
    took_ms: u64,
    /// How long preparing took on all workers together, in milliseconds.
    prepare_ms: u64,
    /// The longest that a worker paused for the swap, in microseconds.
    swap_us_max: u64,
    /// The most CPU time that a worker used for the swap, in microseconds: what the swap itself costs. What a pause lasts
    /// longer, the operating system ran something else on that core.
    swap_cpu_us_max: u64,
    /// How many workers swapped.
    workers: usize,
    /// Bindings whose state was handed over to the new version.
    handed_over: Vec<String>,
    /// Bindings whose new version refused the state of the old one, and began anew: why.
    not_handed_over: Vec<String>,
}

/// What changed between two generations.
#[derive(Clone, Debug, Serialize, ToSchema)]
struct PlanInfo {
    /// Bindings that are new.
    added: Vec<String>,
    /// Bindings that differ.
    changed: Vec<ChangeInfo>,
    /// Bindings that are gone.
    removed: Vec<String>,
    /// Bindings that stayed.
    kept: Vec<String>,
}

/// A binding that differs between two generations.
#[derive(Clone, Debug, Serialize, ToSchema)]
struct ChangeInfo {
    /// Which.
    name: String,
    /// The fields that differ.
    fields: Vec<&'static str>,
}

impl Rollout {
    /// The report, with the note that was given for it.
    pub(super) fn new(report: &RolloutReport, note: Option<String>) -> Self {
        let texts = |names: &[Name]| names.iter().map(Name::to_string).collect();
        let changed = report.plan.changed.iter();
        let changed = changed.map(|change| ChangeInfo { name: change.name.to_string(), fields: change.fields.clone() });
        Self {
            kind: report.kind,
            generation: report.generation,
            previous: report.previous,
            plan: PlanInfo {
                added: texts(&report.plan.added),
                changed: changed.collect(),
                removed: texts(&report.plan.removed),
                kept: texts(&report.plan.kept),
            },
            actor: report.actor.clone(),
            note,
            at_unix_ms: report.at_unix_ms,
            took_ms: report.prepare_ms + report.swap_us_max.div_ceil(1_000),
            prepare_ms: report.prepare_ms,
            swap_us_max: report.swap_us_max,
            swap_cpu_us_max: report.swap_cpu_us_max,
            workers: report.workers,
            handed_over: report.handed_over.clone(),
            not_handed_over: report.not_handed_over.clone(),
        }
    }
}

/// The rollouts since the router's start that are remembered.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RolloutList {
    /// What waits at this router for somebody else to approve it, oldest first.
    pub(super) proposals: Vec<Proposal>,
    /// Newest last.
    pub(super) rollouts: Vec<Rollout>,
    /// The generation that judges events now.
    pub(super) active_generation: u64,
    /// Rollouts over the sites of the mesh, oldest first.
    pub(super) mesh: Vec<MeshRollout>,
    /// The generations that a rollback can return to, oldest first.
    pub(super) generations: Vec<GenerationInfo>,
}

/// A set of bindings that is or was active.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct GenerationInfo {
    /// Its number.
    pub(super) generation: u64,
    /// Other numbers for it: those under which a rollout made it active at sites. A rollback takes them as well.
    pub(super) at_sites: Vec<u64>,
    /// The generation that had this set first: the number itself unless a rollback returned to the set.
    pub(super) source: u64,
    /// When it became active, Unix milliseconds.
    pub(super) at_unix_ms: u64,
    /// Who made it active.
    pub(super) actor: String,
    /// How many bindings it has.
    pub(super) bindings: usize,
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
