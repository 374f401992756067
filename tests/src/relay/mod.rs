//! A seeded link in user space: a UDP relay between two addresses that delays, loses, doubles, reorders, throttles and
//! cuts, each direction on its own, changeable while it runs.
//!
//! [`Direction`] is pure: what comes in, and the time, decide what goes out and when, and all chance is drawn from one
//! seed. [`Relay`] is the thin shell of sockets around two of them.

mod direction;
mod shell;

pub use direction::{Counts, Direction, Path};
pub use shell::Relay;
