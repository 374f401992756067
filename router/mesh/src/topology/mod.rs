//! Who has a link to whom, what it costs, and the way to everybody.

pub(crate) mod cost;
mod graph;
mod routes;
pub(crate) mod states;
#[cfg(test)]
pub(crate) mod tests;
pub(crate) mod wanted;

pub use cost::RoundTrips;
pub(crate) use graph::{Graph, Own};
pub use routes::{Hop, NoAllowedPath, ResidencyCache, Routes};

/// The finaliser of splitmix64: every bit of the input moves half of the output's, and on every router alike.
pub(crate) fn mix(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
