//! Whether the elements of an array are unlike each other.
//!
//! The library copies them, and tells them apart by hashes that arrays in arrays can be made to share: a megabyte of those
//! is compared pair by pair. Here shapes count, and nobody knows the key.

use super::Slot;
use super::node::{At, whole};
use jsonschema::json::Node;
use serde_json::Number;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};

/// Whether none is equal to another one.
pub(super) fn are_unique<'a>(elements: impl Iterator<Item = At<'a>>) -> bool {
    let state = RandomState::new();
    let mut hashed: Vec<_> = elements.map(|element| (hash(element, &state), element)).collect();
    hashed.sort_unstable_by_key(|(hash, _)| *hash);
    let mut alike = hashed.chunk_by(|(left, _), (right, _)| left == right).filter(|alike| alike.len() > 1);
    !alike.any(|alike| {
        // As good as always the first two are equal.
        let mut pairs = (0..alike.len()).flat_map(|left| (left + 1..alike.len()).map(move |right| (left, right)));
        pairs.any(|(left, right)| alike[left].1.equals_value(&alike[right].1.to_value()))
    })
}

/// Equal values have the same hash.
fn hash(value: At<'_>, state: &RandomState) -> u64 {
    let mut hasher = state.build_hasher();
    match value.slot() {
        Slot::Null => 0_u8.hash(&mut hasher),
        Slot::Bool(value) => (1_u8, value).hash(&mut hasher),
        Slot::Number(number) => hash_number(number, &mut hasher),
        Slot::Text(text) => (4_u8, text).hash(&mut hasher),
        Slot::Array { len } => {
            (5_u8, len).hash(&mut hasher);
            value.children().for_each(|element| hash(element, state).hash(&mut hasher));
        }
        Slot::Object { len, .. } => {
            // In whatever order they stand.
            let members = value.children().map(|member| state.hash_one((member.name(), hash(member, state))));
            (6_u8, len, members.fold(0, |all, member| all ^ member)).hash(&mut hasher);
        }
    }
    hasher.finish()
}

/// Numbers are equal where their values are, however they are written.
fn hash_number(number: &Number, hasher: &mut impl Hasher) {
    match whole(number) {
        Some(integer) => (2_u8, integer).hash(hasher),
        None => (3_u8, number.as_f64().map(f64::to_bits)).hash(hasher),
    }
}
