//! What the end-to-end tests stand on: real router processes, driven from outside by the `myelin` program and the
//! client library, and hostile filters written by hand.

pub mod admin;
pub mod artifacts;
pub mod attacker;
pub mod churn;
pub mod guests;
mod healthy;
pub mod hostile;
pub mod namespaces;
pub mod relay;
mod router;
pub mod sites;

pub use admin::Answer;
pub use healthy::{Healthy, crowd, crowd_with};
pub use router::{Ran, Router, Setup, copy_folder, program};

/// The recipes of docs/FILTERS.md: compiled and run as documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../../docs/FILTERS.md")]
pub struct FiltersPage;
