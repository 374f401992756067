//! The byte layout of an event, shared by the wire, the router and the filters.
//!
//! Four things live here, and nothing that needs an operating system:
//! * [`attrs`]: the *attribute block*, the head of an event, the same bytes on the wire and in a filter's memory;
//! * [`batch`]: the *arena*, one flat run of bytes that carries a batch of events into a filter and its output back;
//! * [`verdict`]: the `u64` a filter answers for each event;
//! * [`rate`]: the arithmetic of a rate limit, so that a filter's tests count as a router does.
//!
//! All integers are little-endian. Nothing here allocates to read; every length is checked before it is used.
//! The layouts are described byte by byte, with test vectors, in `docs/PROTOCOL.md`.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod attrs;
pub mod batch;
mod bytes;
pub mod rate;
pub mod verdict;

pub use attrs::{Attr, AttrError, Attrs, AttrsBuilder};
pub use batch::{Arena, ArenaBuilder, ArenaError, Entry};
pub use rate::Rate;
pub use verdict::{Kind, Verdict, VerdictError};
