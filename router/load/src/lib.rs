//! The load generator: publishers and subscribers that number every event, and what they find.
//!
//! It is a part of the command line - `myelin bench`, and the benches of this repository - in a crate of its own so
//! that a bench of another broker can use it without compiling a router: the same cells, the same bound on what is in
//! flight, the same check of every number, the same histogram. Hence `anyhow`, as in the command line.
//!
//! [`measure`] runs a pair of closures as publishers' and subscribers' threads and looks at [`Progress`], which they
//! share. [`Client`] is the pair for Myelin: raw connections and whole frames, not the client library, so that the
//! client's own costs stay small beside the router's. [`hgrm`] and [`page`] write down what was found.
#![forbid(unsafe_code)]

mod cell;
mod form;
pub mod hgrm;
mod measure;
mod measured;
pub mod page;
mod payload;
mod plot;
mod process;
mod progress;
mod publisher;
mod session;
mod subscriber;
mod ticks;

pub use cell::{Cell, PAYLOAD_BYTES_MIN, attributes};
pub use form::Form;
pub use measure::{Plan, PlanArgs, Subscribed, block_on, measure};
pub use measured::{Distribution, Measured, Percentiles, median};
pub use payload::{Checker, Payload};
pub use process::{cpu_seconds, memory_mib};
pub use progress::{Phase, Progress};
pub use session::{Channel, Client, READY, ROLE_PUBLISHER, ROLE_SUBSCRIBER, Session, Target};
pub use ticks::Schedule;
