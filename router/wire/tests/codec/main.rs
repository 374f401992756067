//! The codec under every cut, every lying length and every garbage: what was written is read back, whole or in pieces,
//! and what is malformed is refused without a panic.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod control;
mod data;

use myelin_wire::Limits;
use proptest::prelude::*;
use std::collections::BTreeSet;

/// The stream in pieces that end at `cuts`; those beyond it are left out.
fn pieces<'a>(stream: &'a [u8], cuts: &BTreeSet<usize>) -> Vec<&'a [u8]> {
    let ends: Vec<_> = cuts.iter().copied().filter(|cut| *cut < stream.len()).chain([stream.len()]).collect();
    let starts = [0].into_iter().chain(ends.iter().copied());
    starts.zip(&ends).map(|(start, end)| &stream[start..*end]).collect()
}

fn cuts() -> impl Strategy<Value = BTreeSet<usize>> {
    proptest::collection::btree_set(0..600_usize, 0..12)
}

#[test]
fn limits_of_any_size_give_a_length_that_fits() {
    let most = Limits { payload_bytes: u32::MAX, headers: 1, attributes_bytes: u16::MAX, subscriptions: 1 };
    assert_eq!(most.event_len_max(), 7 + 65_535 + 16 * 1024 * 1024);
    let default = Limits::default();
    assert_eq!(
        (default.event_len_max(), default.delivered_len_max()),
        (7 + 16_384 + 1_048_576, 7 + 65_535 + 1_048_576)
    );
}
