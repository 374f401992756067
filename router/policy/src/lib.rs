//! Who may publish and who may subscribe: policies in Cedar, checked against a schema of our own.
//!
//! [`Policies::compile`] takes texts, refuses what does not type-check, and sorts the statements by what each of them
//! needs - a topic, the beginning of one, a service - so that a decision evaluates only those that could speak of it.
//! [`Decider`] remembers decisions for one thread. Nothing here does I/O, reads a clock or waits, and nobody else names
//! `cedar-policy`.
#![forbid(unsafe_code)]

mod bounds;
mod decider;
mod error;
mod index;
mod mentions;
mod named;
mod needs;
mod policies;
mod question;
mod requests;
mod schema;
mod scope;
mod who;

pub mod limits;

pub use decider::Decider;
pub use error::{PolicyError, PolicyErrors};
pub use named::{Named, named};
pub use policies::{Decision, Policies, Verdict};
pub use schema::{ADMIN_SCHEMA, SCHEMA};
pub use who::{Action, Call, EventHead, INBOX_TOPIC, Place, Question, Service, Subject};

#[cfg(test)]
mod tests;
