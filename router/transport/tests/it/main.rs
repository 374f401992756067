//! The transport, from outside: both twins under one suite, every refusal, reload, and listeners in groups.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod common;
mod conformance;
mod files;
mod listener;
mod refusals;
mod reload;
