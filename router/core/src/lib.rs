//! Data-plane decisions of a router, pure and synchronous: who subscribes to what, and who of a group is served.
//!
//! Nothing here awaits, reads a clock or does I/O; callers own the scratch that answers are written to.
#![forbid(unsafe_code)]

pub mod group;
pub mod session;
pub mod table;

pub use group::pick_member;
pub use session::SessionKey;
pub use table::{GroupMatch, MatchSet, Table, TableError, TableWriter};
