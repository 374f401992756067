//! The client against a scripted router in memory, and once over QUIC.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod fake;

mod deliver;
mod lifecycle;
mod publish;
mod quic;
mod request;
