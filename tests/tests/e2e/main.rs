//! End to end: real router processes, the `myelin` program and the client library from outside.
//!
//! One test program on purpose: it links once. Needs the program `myelin` (`MYELIN_BIN`, or built beside it).
#![allow(clippy::unwrap_used, reason = "in a test an unexpected error is the failure")]

mod attacks;
mod audit;
mod bench;
mod captures;
mod catalogs;
mod chaos;
mod declared;
mod doors;
mod drain;
mod easy;
mod examples;
mod explain;
mod failpoints;
mod faults;
mod filters;
mod governance;
mod handover;
mod interest;
mod jetstream;
mod kit;
mod ledger;
mod mesh;
mod moving_on;
mod namespaces;
mod oci;
mod panics;
mod patience;
mod policies;
mod registry_scale;
mod residency;
mod restart;
mod rollouts;
mod routing;
mod schemas;
mod screening;
mod scripts;
mod shadow;
mod shared;
mod signing;
mod swaps;
mod tenants;
mod trace;
mod two_person;
