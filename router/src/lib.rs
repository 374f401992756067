//! The shell of a Myelin router: everything that has a socket, a clock or a thread.
#![forbid(unsafe_code)]

pub mod admin;
pub mod audit;
pub mod capture;
pub mod cli;
pub mod compare;
pub mod config;
pub mod delivery;
pub mod derived;
pub mod fanout;
pub mod files;
pub mod generation;
pub mod hops;
pub mod ledger;
pub mod links;
pub mod local;
pub mod names;
pub mod node;
pub mod otlp;
pub mod outbox;
pub mod peering;
pub mod pipeline;
pub mod policy;
pub mod registry;
pub mod residency;
pub mod screen;
pub mod sessions;
pub mod shadow;
pub mod shared;
pub mod subscriptions;
pub mod telemetry;
pub mod tenants;
pub mod tokens;
pub mod trace;
pub mod worker;
pub mod world;
