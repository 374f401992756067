//! What an attacker sends, as plain functions of a seed.
//!
//! - [`frames`]: generated bad input for every surface that reads strangers' bytes;
//! - [`targets`]: the readers of those surfaces as `fn(&[u8])`, shared by the fuzz targets in `tests/fuzz` and by the
//!   replay of their corpora as plain tests;
//! - [`modules`]: filters that nobody should run, each with the place where it must be stopped and the code it gets.
//!
//! Everything is seeded: a failure names its seed and comes back with it.
#![forbid(unsafe_code)]

pub mod dice;
pub mod frames;
pub mod mangle;
#[cfg(feature = "modules")]
pub mod modules;
pub mod targets;

pub use dice::Dice;
