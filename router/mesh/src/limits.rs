//! The one table of limits of the mesh: every map, list, message and wait has its bound here, with the reason.

/// Sites of a mesh: as many as a destination set has bits, at the largest. Beyond, areas. Stamps of a mesh with more than
/// [`SITES_NARROW`] are read by routers from this version on.
pub const SITES_MAX: usize = 1_024;
/// Sites below this are in the part of a stamp that every router reads.
pub const SITES_NARROW: usize = 128;
/// Routers that are known at a time: one for each site of the largest mesh, 8 for each of one with 128.
pub const ROUTERS_MAX: usize = 1_024;
/// Neighbours of one router: all others of a mesh in which every site has four, and then some.
pub const LINKS_MAX: usize = 512;
/// Longest name of a site, a router, a region or a cloud, in bytes; as in certificates.
pub const NAME_BYTES_MAX: usize = 128;

/// Longest body of a control frame, in bytes: what one read of a control stream may make us hold.
pub const CONTROL_BODY_BYTES_MAX: usize = 128 * 1024;
/// What the entries of one interest message may take, so that its frame stays below [`CONTROL_BODY_BYTES_MAX`].
pub const INTEREST_MESSAGE_BYTES: usize = 96 * 1024;
/// Most entries of one interest message: the budget above with patterns of about 24 bytes.
pub const INTEREST_MESSAGE_ENTRIES_MAX: usize = 4_096;
/// Deepest nesting of maps and arrays in a control message: the deepest we write has four.
pub const CONTROL_DEPTH_MAX: usize = 16;
/// Longest body of an application message, in bytes: room for a record of the catalog and its frame.
pub const APPLICATION_BYTES_MAX: usize = 96 * 1024;
/// Addresses that a router tells.
pub const ADDRESSES_MAX: usize = 8;
/// Longest address, in bytes: a DNS name and a port.
pub const ADDRESS_BYTES_MAX: usize = 262;
/// Generations that a router tells the status of: those that are warm, and one for each rollout under way.
pub const GENERATIONS_MAX: usize = 16;
/// Longest detail of a generation's status, in bytes.
pub const DETAIL_BYTES_MAX: usize = 120;
/// Longest message of a refused hello, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 512;

/// Different entries (pattern and group) that one router advertises: some 18 MiB at every other router, where few patterns
/// share more than their first levels (140 bytes each, docs/SCALE.md).
pub const INTEREST_ENTRIES_MAX: usize = 131_072;
/// Levels of these entries: five for each. A level takes nothing there but its text while one pattern goes through it, and
/// some 230 bytes where it is two.
pub const INTEREST_LEVELS_MAX: usize = 5 * INTEREST_ENTRIES_MAX;
/// Entries of all routers together that one router keeps: some 140 MiB.
pub const INTEREST_ENTRIES_TOTAL_MAX: usize = 1_048_576;
/// Entries of snapshots that are arriving and of deltas that wait for others, of all routers together: two of the largest
/// snapshots. Beyond, the newest is dropped and asked for again.
pub const INTEREST_PENDING_MAX: usize = 2 * INTEREST_ENTRIES_MAX;
/// Changes of interest wait this long for others, in milliseconds: at most 20 batches a second.
pub const INTEREST_COALESCE_MS: u64 = 50;
/// Deltas of one owner that wait for one before them; further ones are left to the snapshot.
pub const INTEREST_WAITING_MAX: usize = 16;
/// How long an interest that is behind may still come by itself before a snapshot is pulled, in milliseconds.
pub const INTEREST_GRACE_MS: u64 = 200;
/// Least time between two pulls of one thing, asked or answered, in milliseconds.
pub const PULL_INTERVAL_MS: u64 = 1_000;
/// The advertised head (sequence and hash) follows a change after this long, in milliseconds: it repairs what deltas
/// missed and need not race them.
pub const INTEREST_HEAD_DELAY_MS: u64 = 1_000;

/// Least time between two floods of one router's own link state, in milliseconds.
pub const LINK_STATE_INTERVAL_MS: u64 = 100;
/// A router floods its link state at least this often, in milliseconds.
pub const LINK_STATE_REFRESH_MS: u64 = 30_000;
/// A router without a path to it is forgotten after this long, in milliseconds, and its interest with it.
pub const OWNER_EXPIRY_MS: u64 = 60_000;
/// Versions of link states stay below this, and sequence numbers of interest, so that there is always a higher one.
pub const VERSION_MAX: u64 = 1 << 62;
/// A link state is at most so many versions ahead of the one before: a router tells ten a second at most, and this many
/// in 13 years. Nobody can use all of them up by claims in its name.
pub const VERSION_JUMP_MAX: u64 = 1 << 32;
/// A neighbour that still speaks so long after it was said to have started anew has not, in milliseconds: longer than
/// what it said before can be on its way, or its old link believed to be alive.
pub const HEARSAY_DOUBT_MS: u64 = 5_000;
/// Neighbours that are remembered as having a link state that we want.
pub const OFFERS_MAX: usize = 4;

/// Cost of a link that nobody has measured yet: one of 100 ms.
pub const COST_UNKNOWN: u32 = 100;
/// Greatest cost of a link: a minute.
pub const COST_MAX: u32 = 60_000;
/// A measured time changes a cost when it is off by this many per cent ...
pub const COST_CHANGE_PER_CENT: u32 = 20;
/// ... and by this many milliseconds ...
pub const COST_CHANGE_MS: u32 = 5;
/// ... for this long, in milliseconds.
pub const COST_CHANGE_FOR_MS: u64 = 10_000;
/// Least time between two computations of the routes, in milliseconds.
pub const ROUTES_INTERVAL_MS: u64 = 100;
/// Sets of allowed sites whose routes are kept at a time: one for each residency rule that is in use, about.
pub const RESIDENCY_SETS_MAX: usize = 16;

/// Routers that an event passes at most, its origin not counted: what bounds a transient loop. Of a thousand sites with eight
/// links each some are more than eight apart by the cheapest way (docs/SCALE.md).
pub const HOPS_MAX: u8 = 16;
/// The same in a mesh without a site from [`SITES_NARROW`] on: what routers read that know no others.
pub const HOPS_NARROW_MAX: u8 = 8;
/// Groups of one event that are served at a chosen site.
pub const GRANTS_MAX: usize = 64;
/// Bytes of events after which a batch is full; one that has less takes one more event, whatever its size.
pub const BATCH_EVENTS_BYTES: usize = 64 * 1024;
/// Names that one batch may announce.
pub const BATCH_NAMES_MAX: usize = 4_096;
/// Bytes of names that one batch may announce: a batch's worth of topics of the usual length.
pub const BATCH_NAMES_BYTES_MAX: usize = 256 * 1024;
/// Events of one batch: what [`BATCH_EVENTS_BYTES`] hold of the smallest, and some.
pub const BATCH_COUNT_MAX: u32 = 8_192;

/// Sequence numbers below the highest one that a duplicate is still told from a late event: 30 ms of a shard at a
/// million events a second.
pub const WINDOW_SEQS: u64 = 32_768;
/// Origins (router, epoch, shard) whose windows are kept: 8 MiB of them.
pub const WINDOWS_MAX: usize = 2_048;
