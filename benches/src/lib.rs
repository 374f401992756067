//! What the micro benches time and the guard counts instructions of: the same work, set up the same way.
#![forbid(unsafe_code)]

pub mod judging;
pub mod subscriptions;
