//! The admin API of a real router, asked as strangers and friends would ask it.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod access;
mod approvals;
mod audited;
mod bounds;
mod changes;
mod contract;
mod faults;
mod forbids;
mod governance;
mod guest;
mod http;
mod logs;
mod modules;
mod registry;
mod roles;
mod seen;
mod two_person;
mod world;
