//! Which member of a queue group gets an event.

use std::hash::BuildHasher;

use foldhash::quality::FixedState;

use crate::session::SessionKey;

/// Fixed, so that every worker of a router picks the same member for a key.
const KEY_SEED: u64 = 0x6d79_656c_696e_6b31;

/// The index of the member that gets an event, or `None` where there is none.
///
/// An event with a key goes to the same member while that member stays, whoever else joins or leaves, except that a
/// newcomer takes over its own share of the keys (rendezvous hashing). Events without a key go round; `round_robin`
/// is the caller's counter for that group. The order of `members` decides only the round.
pub fn pick_member(members: &[(SessionKey, u32)], key: Option<&[u8]>, round_robin: &mut u32) -> Option<usize> {
    if members.is_empty() {
        return None;
    }
    let Some(key) = key else {
        let turn = *round_robin as usize % members.len();
        *round_robin = round_robin.wrapping_add(1);
        return Some(turn);
    };
    let key_hash = FixedState::with_seed(KEY_SEED).hash_one(key);
    let weighed = members.iter().enumerate().map(|(index, member)| (weight(key_hash, member), *member, index));
    weighed.max().map(|(_, _, index)| index)
}

/// How strongly a member claims a key: equal for equal inputs, otherwise as good as random.
fn weight(key_hash: u64, (session, subscription): &(SessionKey, u32)) -> u64 {
    let place = (u64::from(session.slot) << 32) | u64::from(session.generation);
    let rest = (u64::from(session.worker) << 32) | u64::from(*subscription);
    mix(mix(key_hash ^ place).wrapping_add(rest))
}

/// The finaliser of splitmix64: every bit of the input moves half of the output's.
fn mix(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::*;

    fn members(count: u32) -> Vec<(SessionKey, u32)> {
        (0..count).map(|slot| (SessionKey { worker: (slot % 3) as u8, slot, generation: 7 }, slot % 5)).collect()
    }

    #[test]
    fn nobody_is_picked_from_an_empty_group() {
        let mut turn = 3;
        assert_eq!(pick_member(&[], None, &mut turn), None);
        assert_eq!(pick_member(&[], Some(b"k"), &mut turn), None);
        assert_eq!(turn, 3);
    }

    #[test]
    fn events_without_a_key_go_round() {
        let (members, mut turn) = (members(3), u32::MAX);
        let picked: Vec<_> = (0..4).map(|_| pick_member(&members, None, &mut turn).unwrap()).collect();
        assert_eq!(picked, [0, 0, 1, 2], "the counter wraps without a panic and goes on");
    }

    #[test]
    fn a_key_stays_with_its_member_while_that_member_stays() {
        let all = members(8);
        for key in 0..2_000u32 {
            let key = key.to_le_bytes();
            let chosen = all[pick_member(&all, Some(&key), &mut 0).unwrap()];
            for gone in all.iter().filter(|m| **m != chosen) {
                let mut rest: Vec<_> = all.iter().copied().filter(|m| m != gone).collect();
                rest.reverse();
                assert_eq!(rest[pick_member(&rest, Some(&key), &mut 0).unwrap()], chosen);
            }
        }
    }

    #[test]
    fn keys_spread_over_all_members() {
        let all = members(8);
        let mut count = [0u32; 8];
        for key in 0..8_000u32 {
            count[pick_member(&all, Some(format!("device-{key}").as_bytes()), &mut 0).unwrap()] += 1;
        }
        assert!(count.iter().all(|n| (800..1_200).contains(n)), "{count:?}");
    }
}
