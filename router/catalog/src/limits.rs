//! The bounds of a catalog. All are checked when a record is drafted and again when it is read.

/// Bindings in one set. Each is an instance on every worker.
pub const BINDINGS_MAX: usize = 1_024;
/// Versions of modules, all names together.
pub const MODULES_MAX: usize = 10_000;
/// Records in the log, all of which are read at start.
pub const RECORDS_MAX: u64 = 1_000_000;
/// Generations that are kept for rollbacks; with [`CONFIGS_TOTAL_MAX_BYTES`] it bounds the memory of old ones.
pub const HISTORY_MAX: usize = 32;
/// Bindings of one stage that see the same pattern.
pub const CHAIN_LEN_MAX: usize = 32;

/// Characters of a name: a DNS label's, so that names fit host names, metric labels and file names.
pub const NAME_LEN_MAX: usize = 63;
/// Bytes of a version.
pub const VERSION_LEN_MAX_BYTES: usize = 64;
/// Bytes of a module.
pub const MODULE_SIZE_MAX_BYTES: u64 = 16 * 1024 * 1024;
/// Imports that a module names.
pub const IMPORTS_MAX: usize = 64;
/// Bytes of one import's name.
pub const IMPORT_LEN_MAX_BYTES: usize = 256;

/// Bytes of a binding's configuration, as compact JSON.
pub const CONFIG_LEN_MAX_BYTES: usize = 256 * 1024;
/// Bytes of the configurations of one set together.
pub const CONFIGS_TOTAL_MAX_BYTES: usize = 8 * 1024 * 1024;
/// Objects and arrays inside each other in a configuration: as deep as JSON texts are read.
pub const CONFIG_DEPTH_MAX: usize = 128;
/// Topics, and sites, that one binding's grant names.
pub const GRANTS_MAX: usize = 64;
/// Rules for topics.
pub const TOPIC_RULES_MAX: usize = 256;
/// Regions, clouds, or sites that one rule for topics names.
pub const SELECTORS_MAX: usize = 64;
/// Subjects of the schema registry, deleted ones that are kept included: what a list of them can show, and twice what the
/// largest registries are said to have.
pub const SUBJECTS_MAX: usize = 20_000;
/// Versions of one subject: a transitive check reads them all.
pub const SUBJECT_VERSIONS_MAX: usize = 1_000;
/// Versions of all subjects together: with 100 bytes of index each, 10 MB.
pub const SCHEMA_VERSIONS_MAX: usize = 100_000;
/// Bytes of a subject's name: a topic of the longest kind, and a suffix.
pub const SUBJECT_LEN_MAX_BYTES: usize = 255;
/// Bytes of a schema's text: with its frame it fits a record.
pub const SCHEMA_LEN_MAX_BYTES: usize = 1024 * 1024;
/// Bytes of the texts of all schemas together: they are held in memory, once.
pub const SCHEMAS_TOTAL_MAX_BYTES: u64 = 256 * 1024 * 1024;
/// Schemas that one schema names.
pub const REFERENCES_MAX: usize = 64;
/// Schemas that one schema refers to, directly and through others: what a parser is given.
pub const REFERENCES_TOTAL_MAX: usize = 64;
/// Bytes of the texts that one schema refers to.
pub const REFERENCED_LEN_MAX_BYTES: usize = 4 * 1024 * 1024;
/// Bytes of the name by which a text refers to another: a URI or the path of a file.
pub const REFERENCE_LEN_MAX_BYTES: usize = 512;
/// The largest id of a schema: clients write it as a signed number of 32 bits.
pub const SCHEMA_ID_MAX: u32 = i32::MAX as u32;
/// The largest id, and the largest version, that are taken over from elsewhere: registries count from 1, or from 100,000,
/// and far beyond is a slip or ill will. What is above is for what is registered here, and is more than a log has records:
/// whatever was taken over, numbers do not run out.
pub const IMPORTED_ID_MAX: u32 = 1 << 30;
const _: () = assert!((SCHEMA_ID_MAX - IMPORTED_ID_MAX) as u64 > RECORDS_MAX);
/// Policies: names in a list that people read, all of which are compiled when one changes.
pub const POLICIES_MAX: usize = 256;
/// Bytes of one policy's text.
pub const POLICY_LEN_MAX_BYTES: usize = 64 * 1024;
/// Tenants: each costs a router some hundred bytes, and a list of them is still read by people.
pub const TENANTS_MAX: usize = 1_024;
/// Selectors of services that one tenant names.
pub const TENANT_SELECTORS_MAX: usize = 64;
/// Bytes of one of them: as long as a SPIFFE name that fits a topic's length.
pub const SERVICE_SELECTOR_LEN_MAX_BYTES: usize = 256;
/// Levels of a tenant's root: so many lookups find the tenant of a topic.
pub const TENANT_ROOT_LEVELS_MAX: usize = 4;
/// Patterns that one tenant shares; all of them are looked at for a topic that is not one's own.
pub const TENANT_SHARES_MAX: usize = 64;
/// Tenants that one of them is shared with by name.
pub const TENANT_SHARED_WITH_MAX: usize = 64;
/// The largest quota: what is more is no bound. So many nanoseconds are 11 days, so that no time overflows.
pub const QUOTA_MAX: u64 = 1_000_000_000_000_000;
/// Least memory of a filter: one page of Wasm.
pub const MEMORY_MIN_BYTES: u64 = 64 * 1024;
/// Most memory of a filter, and what it gets where the binding does not say.
pub const MEMORY_MAX_BYTES: u64 = 64 * 1024 * 1024;
/// Shortest deadline of a batch, in microseconds of CPU time.
pub const DEADLINE_MIN_US: u32 = 100;
/// Longest deadline of a batch, in microseconds of CPU time.
pub const DEADLINE_MAX_US: u32 = 50_000;
/// The deadline of a batch where the binding does not say, in microseconds of CPU time.
pub const DEADLINE_DEFAULT_US: u32 = 2_000;

/// Bytes of the name of who made a change.
pub const ACTOR_LEN_MAX_BYTES: usize = 256;
/// Bytes of the reason of a quarantine.
pub const REASON_LEN_MAX_BYTES: usize = 1_024;
/// Keys in one log, revoked ones too: their names are never used again.
pub const KEYS_MAX: usize = 256;
/// Bytes of the note beside a key.
pub const NOTE_LEN_MAX_BYTES: usize = 256;
/// Bytes of a trusted comment, which a signature of minisign's holds.
pub const COMMENT_LEN_MAX_BYTES: usize = 512;
/// Keys that ever might sign modules: those that were removed never come back.
pub const TRUST_KEYS_MAX: usize = 256;
/// Keys of a root set.
pub const TRUST_ROOTS_MAX: usize = 16;
/// Signatures of one change of trust: as many as a root set has keys.
pub const TRUST_SIGNATURES_MAX: usize = TRUST_ROOTS_MAX;
/// Things that one change of trust does.
pub const TRUST_ACTIONS_MAX: usize = 32;
/// Patterns of modules that one key may sign.
pub const TRUST_PATTERNS_MAX: usize = 16;
/// Highest versions that are remembered, by binding and name of its module, and as many by the module alone: beside those of
/// all active bindings, three times as many that are gone.
pub const PEAKS_MAX: usize = 4 * BINDINGS_MAX;
/// Functions of the host that a module uses, or a binding approves: the contract has fewer.
pub const CAPABILITIES_MAX: usize = 64;
/// Sites that a log ever had: their numbers are bits of a set of sites and are never used again. Routers from when
/// there were 128 refuse the record of the next one: all are upgraded before it is added.
pub const SITES_EVER_MAX: u16 = 1_024;
/// Routers of all sites together: what a controller watches during a rollout.
pub const ROUTERS_MAX: usize = 1_024;
/// Waves of one rollout.
pub const WAVES_MAX: usize = 16;
/// Longest time that a plan can name, in seconds: a day.
pub const ROLLOUT_TIME_MAX_S: u32 = 24 * 60 * 60;
/// Changes of rules and policies that one rollout brings: what people can look over before they let it begin.
pub const GOVERNANCE_CHANGES_MAX: usize = 64;
/// Bytes of these together: with [`ROLLOUTS_KEPT`] it bounds the memory of old ones.
pub const GOVERNANCE_LEN_MAX_BYTES: usize = 256 * 1024;
/// Rollouts that are remembered with how they ended.
pub const ROLLOUTS_KEPT: usize = 32;
/// Other numbers that a generation is remembered by: those under which rollouts made it active at sites, newest ones.
pub const SITE_NUMBERS_KEPT: usize = 64;
/// Records in one page of a log that travels: what a follower checks before it takes any of them.
pub const PAGE_RECORDS_MAX: usize = 256;
/// Bytes of one page of a log that travels: at least one record fits always.
pub const PAGE_LEN_MAX_BYTES: usize = 2 * RECORD_LEN_MAX_BYTES;
/// Hashes of its newest records by which a follower tells a replay from a fork: 128 KiB.
pub const HASHES_KEPT: usize = 4_096;
/// Intents that wait for somebody else at a time: each is a person who waits for another.
pub const APPROVALS_MAX: usize = 16;
/// Intents that are kept, those among them whose hour is over: a clock that is wrong drops none.
pub const APPROVALS_KEPT: usize = 4 * APPROVALS_MAX;
/// How much the clocks of two routers may differ: an intent that was asked for later than that from now is over.
pub const CLOCKS_APART_MAX_MS: u64 = 5 * 60 * 1_000;
/// How long an intent waits for somebody else: an hour.
pub const APPROVAL_WAIT_MAX_MS: u64 = 60 * 60 * 1_000;
/// Proposals whose answers a writer remembers, for askers who lost theirs.
pub const PROPOSALS_REMEMBERED: usize = 1_024;
/// Bytes of an encoded record: the largest configuration, its overhead in MessagePack, and room for the rest.
pub const RECORD_LEN_MAX_BYTES: usize = 2 * 1024 * 1024;
