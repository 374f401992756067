//! Interest: which routers want which topics.
//!
//! Each router advertises its own (`own`), as numbered deltas with a hash of what they add up to, and keeps a copy of
//! everybody else's (`remote`), from which it answers for a topic which sites want it ([`Interest`]).

use std::hash::Hasher;

use siphasher::sip128::{Hasher128, SipHasher24};

use crate::control::{Entry, FixedBytes, InterestHash};

mod children;
mod entries;
pub(crate) mod own;
pub(crate) mod remote;
mod table;
mod trie;

pub use own::InterestError;
pub use table::{GroupInterest, Interest, InterestMatch, Wish};

/// Keys of all hashes here: any would do, as long as every router has the same.
const KEYS: (u64, u64) = (0x6d79_656c_696e_2f6d, 0x6573_682f_3120_2020);

/// The hash of an interest: the sum of its entries' hashes modulo 2^128, so that it follows every change without a look
/// at the rest and does not depend on the order.
///
/// It finds accidents: a copy that has lost or doubled something has the right sum with a chance of 2^-128. Somebody who
/// may subscribe could search for patterns that cancel each other out, but sequence numbers already find every lost
/// delta; a forged sum would only keep a copy, which must be wrong for another reason, from noticing until the next
/// change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct HashSum(u128);

impl HashSum {
    pub(crate) fn add(&mut self, entry: &Entry) {
        self.0 = self.0.wrapping_add(hash_entry(entry));
    }

    pub(crate) fn subtract(&mut self, entry: &Entry) {
        self.0 = self.0.wrapping_sub(hash_entry(entry));
    }

    pub(crate) fn finish(self) -> InterestHash {
        FixedBytes(self.0.to_le_bytes())
    }
}

fn hash_entry(Entry(pattern, group): &Entry) -> u128 {
    // No text holds a control character, so a zero byte ends it.
    let mut hasher = SipHasher24::new_with_keys(KEYS.0, KEYS.1);
    hasher.write(pattern.as_str().as_bytes());
    hasher.write_u8(0);
    if let Some(group) = group {
        hasher.write(group.as_str().as_bytes());
        hasher.write_u8(0);
    }
    hasher.finish128().as_u128()
}

/// The number that stands for a queue group in a stamp. Two groups that want the same event and share a number would
/// share their grants as well: a chance of 2^-32 for each pair.
pub fn group_id(name: &str, pattern: &str) -> u32 {
    let mut hasher = SipHasher24::new_with_keys(KEYS.1, KEYS.0);
    hasher.write(name.as_bytes());
    hasher.write_u8(0);
    hasher.write(pattern.as_bytes());
    let hash = hasher.finish128().as_u128().to_le_bytes();
    u32::from_le_bytes([hash[0], hash[1], hash[2], hash[3]])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::*;
    use crate::control::GroupName;

    #[test]
    fn hashes_are_the_same_on_every_machine() {
        let mut sum = HashSum::default();
        sum.add(&Entry("a/*".parse().unwrap(), None));
        let plain = sum;
        sum.add(&Entry("a/*".parse().unwrap(), GroupName::new("g")));
        assert_eq!(format!("{:?}", sum.finish()), "3f75207d696d36f70ed9935ea7143399");
        assert_eq!(group_id("g", "a/*"), 0x3574_7025);
        sum.subtract(&Entry("a/*".parse().unwrap(), GroupName::new("g")));
        assert_eq!(sum, plain);
    }
}
