//! State that all instances of a binding share: what the host calls `take` and `seen` answer from.
//!
//! A filter's own memory belongs to one worker and ends with its version. A limit or a memory of duplicates that must
//! hold for the whole router is kept here: made once for each binding, found by every worker and by the next version.
//!
//! **Bounded.** A name is kept as a fingerprint of 128 bits under keys of this process, so every entry has the same
//! size whatever its name, and nobody can choose two names that meet. Entries expire: a bucket when it is full again,
//! a key after its time. Each shard keeps them in two halves; when the young one is full, the old one is forgotten
//! and the young one becomes old, so that what was touched last stays longest. A bucket that is forgotten too early
//! begins full, a key that is forgotten too early is new: both are counted.
//!
//! **Exact.** A call that faults leaves nothing behind: its answers are [undone](SharedState::undo), so that events
//! which are judged again meet the state that they met first.

use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};

use myelin_arena::Rate;

/// Buckets that a binding keeps: more than a router has identities. 2.2 MiB. (Seven eighths of a power of two, as full
/// as the hash tables become.)
pub const BUCKETS_MAX: usize = 7 << 13;
/// Keys that a binding remembers: a minute of 15,000 events a second. 35 MiB, taken only as they come.
pub const KEYS_MAX: usize = 7 << 17;
/// Locks for each kind: workers meet at the same one in one call of so many.
const SHARDS: usize = 16;
/// Nanoseconds of a millisecond.
const MS_NS: u64 = 1_000_000;

/// What the instances of one binding share. Times are the monotonic milliseconds of the batches.
#[derive(Debug)]
pub struct SharedState {
    seeds: [RandomState; 2],
    /// For each bucket the nanosecond at which it is full again.
    buckets: Table,
    /// For each key the millisecond at which it is forgotten.
    keys: Table,
}

/// How much is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SharedStats {
    /// Buckets, full ones included that were not swept yet.
    pub buckets: usize,
    /// Keys, expired ones included that were not swept yet.
    pub keys: usize,
    /// Buckets that were forgotten before they were full, for want of room.
    pub buckets_forgotten: u64,
    /// Keys that were forgotten before their time, for want of room.
    pub keys_forgotten: u64,
}

/// One answer that changed the state, and how to take it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Tokens left a bucket.
    Taken {
        /// The bucket.
        bucket: u128,
        /// How long it takes to fill them in again.
        cost_ns: u64,
    },
    /// A key is remembered.
    Remembered {
        /// The key.
        key: u128,
        /// Until when.
        until_ms: u64,
    },
}

impl Default for SharedState {
    fn default() -> Self {
        Self::new(BUCKETS_MAX, KEYS_MAX)
    }
}

impl SharedState {
    /// An empty state that keeps so many entries at most.
    pub fn new(buckets_max: usize, keys_max: usize) -> Self {
        let seeds = [RandomState::new(), RandomState::new()];
        Self { seeds, buckets: Table::new(buckets_max), keys: Table::new(keys_max) }
    }

    /// How much is kept.
    pub fn stats(&self) -> SharedStats {
        let ((buckets, buckets_forgotten), (keys, keys_forgotten)) = (self.buckets.stats(), self.keys.stats());
        SharedStats { buckets, keys, buckets_forgotten, keys_forgotten }
    }

    /// Takes `n` tokens out of a bucket; `None` where it does not hold as many.
    pub(crate) fn take(&self, bucket: &str, n: u32, rate: &Rate, now_ms: u64) -> Option<Change> {
        let now_ns = now_ms.saturating_mul(MS_NS);
        let bucket = self.fingerprint(bucket);
        let mut shard = self.buckets.shard(bucket);
        let full_at = shard.find(bucket).unwrap_or(0);
        let Some(full_at_next) = rate.take(full_at, now_ns, n) else {
            // Asking counts as use: who is refused cannot wait to be forgotten while asking on.
            shard.set(bucket, full_at, now_ns);
            return None;
        };
        shard.set(bucket, full_at_next, now_ns);
        Some(Change::Taken { bucket, cost_ns: full_at_next - full_at.max(now_ns) })
    }

    /// Remembers `key` for `ttl_ms`; `None` where it is remembered already.
    pub(crate) fn remember(&self, key: &str, ttl_ms: u64, now_ms: u64) -> Option<Change> {
        let key = self.fingerprint(key);
        let mut shard = self.keys.shard(key);
        if let Some(until_ms) = shard.find(key).filter(|until| *until > now_ms) {
            shard.set(key, until_ms, now_ms);
            return None;
        }
        let until_ms = now_ms.saturating_add(ttl_ms);
        shard.set(key, until_ms, now_ms);
        Some(Change::Remembered { key, until_ms })
    }

    /// Takes an answer back. What others have done to the same entry since stays.
    pub(crate) fn undo(&self, change: Change) {
        match change {
            Change::Taken { bucket, cost_ns } => {
                let mut shard = self.buckets.shard(bucket);
                if let Some(full_at) = shard.find_mut(bucket) {
                    *full_at = full_at.saturating_sub(cost_ns);
                }
            }
            Change::Remembered { key, until_ms } => {
                let mut shard = self.keys.shard(key);
                if let Some(until) = shard.find_mut(key).filter(|until| **until == until_ms) {
                    // Expired at once: the entry is swept like any other.
                    *until = 0;
                }
            }
        }
    }

    fn fingerprint(&self, name: &str) -> u128 {
        let [high, low] = &self.seeds;
        u128::from(high.hash_one(name)) << 64 | u128::from(low.hash_one(name))
    }
}

/// Entries of one kind, behind several locks. No lock is ever held for longer than one look-up and one insertion.
#[derive(Debug)]
struct Table(Box<[Mutex<Shard>]>);

impl Table {
    fn new(entries_max: usize) -> Self {
        let half_max = (entries_max / (2 * SHARDS)).max(1);
        Self((0..SHARDS).map(|_| Mutex::new(Shard { half_max, ..Shard::default() })).collect())
    }

    fn shard(&self, fingerprint: u128) -> MutexGuard<'_, Shard> {
        let index = usize::try_from(fingerprint >> 64).unwrap_or(0) % SHARDS;
        lock(&self.0[index])
    }

    /// Entries, and those that were forgotten before their time.
    fn stats(&self) -> (usize, u64) {
        let count = |(entries, forgotten), shard: &Mutex<Shard>| {
            let shard = lock(shard);
            (entries + shard.young.len() + shard.old.len(), forgotten + shard.forgotten)
        };
        self.0.iter().fold((0, 0), count)
    }
}

/// A panic under the lock is a defect of ours; the entries are whole all the same.
fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

type Entries = HashMap<u128, u64, BuildHasherDefault<Fingerprint>>;

/// Entries and when each expires, in two halves by age.
#[derive(Debug, Default)]
struct Shard {
    half_max: usize,
    young: Entries,
    old: Entries,
    /// When the first entry that came into the young half expires.
    young_from: u64,
    /// When the last entry of either half expires.
    young_until: u64,
    old_until: u64,
    forgotten: u64,
}

impl Shard {
    fn find(&self, entry: u128) -> Option<u64> {
        self.young.get(&entry).or_else(|| self.old.get(&entry)).copied()
    }

    fn find_mut(&mut self, entry: u128) -> Option<&mut u64> {
        self.young.get_mut(&entry).or_else(|| self.old.get_mut(&entry))
    }

    /// Sets when `entry` expires, in the young half: what is used stays longest.
    fn set(&mut self, entry: u128, until: u64, now: u64) {
        if let Some(known) = self.young.get_mut(&entry) {
            *known = until;
            self.young_until = self.young_until.max(until);
            return;
        }
        self.old.remove(&entry);
        if self.old_until <= now && self.old.capacity() > 0 {
            self.old = Entries::default();
        }
        // Also before it is full, when its first entry has expired and nothing is lost: memory follows the traffic.
        let is_stale = !self.young.is_empty() && self.young_from <= now && self.old.is_empty();
        if is_stale || self.young.len() >= self.half_max {
            self.turn(now);
        }
        if self.young.is_empty() {
            self.young_from = until;
        }
        self.young_until = self.young_until.max(until);
        self.young.insert(entry, until);
    }

    /// The old half is forgotten, the young one becomes old.
    fn turn(&mut self, now: u64) {
        let lost = self.old.values().filter(|until| **until > now).count();
        self.forgotten = self.forgotten.saturating_add(lost as u64);
        self.old = std::mem::take(&mut self.young);
        self.old_until = std::mem::take(&mut self.young_until);
    }
}

/// Fingerprints are as good as random already: their low half serves as the hash.
#[derive(Clone, Copy, Debug, Default)]
struct Fingerprint(u64);

impl Hasher for Fingerprint {
    fn write(&mut self, bytes: &[u8]) {
        // Only `u128` keys come here; this keeps the trait whole.
        self.0 = bytes.iter().fold(self.0, |hash, byte| hash.rotate_left(8) ^ u64::from(*byte));
    }

    #[allow(clippy::cast_possible_truncation, reason = "the low half is what is wanted")]
    fn write_u128(&mut self, fingerprint: u128) {
        self.0 = fingerprint as u64;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate { amount: 1, period_ms: 100, burst: 2 };

    fn takes(state: &SharedState, bucket: &str, now_ms: u64) -> bool {
        state.take(bucket, 1, &RATE, now_ms).is_some()
    }

    fn is_new(state: &SharedState, key: &str, now_ms: u64) -> bool {
        state.remember(key, 1_000, now_ms).is_some()
    }

    #[test]
    fn a_bucket_gives_its_burst_and_fills_up_again() {
        let state = SharedState::default();
        assert_eq!([0, 0, 0].map(|now| takes(&state, "a", now)), [true, true, false]);
        assert!(takes(&state, "b", 0), "another bucket is another");
        assert_eq!([99, 100, 100].map(|now| takes(&state, "a", now)), [false, true, false]);
        assert_eq!([10_000; 3].map(|now| takes(&state, "a", now)), [true, true, false], "never more than its burst");
    }

    #[test]
    fn a_key_is_remembered_for_its_time_and_not_for_longer() {
        let state = SharedState::default();
        assert!(is_new(&state, "a", 0));
        assert!(!is_new(&state, "a", 999), "and asking does not make it last");
        assert!(is_new(&state, "b", 999));
        assert!(is_new(&state, "a", 1_000));
        assert!(!is_new(&state, "a", 1_999));
    }

    #[test]
    fn what_is_undone_was_never_said() {
        let state = SharedState::default();
        let first = state.take("a", 2, &RATE, 0).expect("full");
        assert!(!takes(&state, "a", 0));
        state.undo(first);
        assert_eq!([0, 0, 0].map(|now| takes(&state, "a", now)), [true, true, false]);
        let remembered = state.remember("k", 1_000, 0).expect("new");
        state.undo(remembered);
        assert!(is_new(&state, "k", 0), "forgotten");
        // Expired, remembered anew by somebody else, then undone: that is not the entry that was made.
        let early = state.remember("l", 10, 0).expect("new");
        assert!(is_new(&state, "l", 20));
        state.undo(early);
        assert!(!is_new(&state, "l", 21));
    }

    #[test]
    fn memory_is_bounded_and_what_was_forgotten_too_early_is_counted() {
        let state = SharedState::new(64, 64);
        for n in 0..10_000 {
            assert!(is_new(&state, &format!("key {n}"), 0));
        }
        let stats = state.stats();
        assert!(stats.keys <= 64, "{stats:?}");
        assert_eq!(stats.keys_forgotten, 10_000 - stats.keys as u64, "{stats:?}");
        assert_eq!(stats.buckets, 0);
    }

    #[test]
    fn a_bucket_that_is_asked_for_is_not_forgotten_for_others() {
        let state = SharedState::new(256, 64);
        assert!(takes(&state, "hot", 0) && takes(&state, "hot", 0));
        for n in 0..10_000 {
            assert!(takes(&state, &format!("cold {n}"), 0));
            assert!(!takes(&state, "hot", 0), "{n}: its bucket is empty, and is not forgotten");
        }
        let state = SharedState::new(256, 64);
        for n in 0..1_000_u64 {
            assert!(takes(&state, &format!("cold {n}"), n * 100));
        }
        assert_eq!(state.stats().buckets_forgotten, 0, "full buckets are no loss: {:?}", state.stats());
    }

    #[test]
    fn expired_entries_give_their_memory_back_before_there_is_want_of_room() {
        let state = SharedState::default();
        for now in 0..100 {
            for n in 0..1_000 {
                assert!(is_new(&state, &format!("{now} {n}"), now * 1_000));
            }
        }
        let stats = state.stats();
        assert!((1_000..5_000).contains(&stats.keys), "{stats:?}");
        assert_eq!(stats.keys_forgotten, 0);
    }

    #[test]
    fn workers_together_get_no_more_than_one_alone() {
        let state = SharedState::default();
        let rate = Rate { amount: 1, period_ms: 1_000, burst: 1_000 };
        let granted: usize = std::thread::scope(|scope| {
            let worker = || (0..1_000).filter(|_| state.take("a", 1, &rate, 5).is_some()).count();
            let workers = [scope.spawn(worker), scope.spawn(worker), scope.spawn(worker)];
            workers.into_iter().map(|worker| worker.join().expect("no panic")).sum()
        });
        assert_eq!(granted, 1_000);
        let first: usize = std::thread::scope(|scope| {
            let worker = || (0..1_000).filter(|n| state.remember(&n.to_string(), 10, 5).is_some()).count();
            let workers = [scope.spawn(worker), scope.spawn(worker)];
            workers.into_iter().map(|worker| worker.join().expect("no panic")).sum()
        });
        assert_eq!(first, 1_000, "each key is new once");
    }
}
