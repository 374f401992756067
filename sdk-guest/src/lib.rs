//! SDK for authors of Myelin filters.
//!
//! A filter judges events: it allows, denies, dead-letters, drops, redirects or copies them, and may rewrite them or
//! emit new ones. It is plain Rust, unit-tested on the host with `cargo test`; `myelin filter build` makes the
//! WebAssembly component that a router runs.
//!
//! ```
//! use myelin_filter::prelude::*;
//!
//! #[filter]
//! struct Tenant;
//!
//! impl Filter for Tenant {
//!     const NEEDS: Needs = needs!(headers["x-tenant"]);
//!     const ROUTES: &[&str] = &["topic:audit/log"];
//!     const REASONS: &[&str] = &["no tenant"];
//!
//!     fn new(_config: &[u8], _previous: Option<&[u8]>) -> Result<Self, String> {
//!         Ok(Tenant)
//!     }
//!
//!     fn on_event(&mut self, event: EventView<'_>) -> Verdict {
//!         match event.header(0) {
//!             Some("acme") => Verdict::allow(),
//!             Some(_) => Verdict::add([route!("topic:audit/log")]),
//!             None => Verdict::deny(reason!("no tenant")),
//!         }
//!     }
//! }
//!
//! let mut tenant = myelin_filter::testing::Harness::<Tenant>::new("").unwrap();
//! assert_eq!(tenant.event("orders/eu").header("x-tenant", "acme").verdict().kind, Kind::Allow);
//! assert_eq!(tenant.event("orders/eu").verdict().reason.as_deref(), Some("no tenant"));
//! ```
//!
//! # What costs what
//! The router copies into the filter only what [`Needs`] declares, and calls it once for a batch of up to 64 events:
//! a decision on a header costs some 50-80 ns. A look-up of one JSON field with [`json::field`] costs 20-60 ns more
//! where the field stands early; parsing the whole document with a JSON library costs about 3 µs per KiB. A verdict
//! without a payload, a detail or an emitted event allocates nothing.
//!
//! # What a filter may not do
//! There is no clock but [`EventView::now_unix_ns`], no randomness, no file and no network: the same events give the
//! same verdicts, so that a router can replay them. A panic is a fault: the binding's fault verdict applies to the
//! event, and the instance is rebuilt, its memory lost. State in memory is a cache of one worker; what must survive a
//! swap of versions goes through [`Filter::save`]. What must hold for all workers of a router - a limit, a memory of
//! what was there already - is asked of the host: [`host::take`] and [`host::seen`].
#![deny(unsafe_code)]

// The macros name this crate by its full path, in its own tests and in the bindings too.
#[allow(unused_extern_crates, reason = "used only where a macro of this crate expands in it")]
extern crate self as myelin_filter;

#[cfg(feature = "config")]
pub mod config;
mod event;
mod filter;
pub mod host;
mod instance;
pub mod json;
mod macros;
mod needs;
mod pattern;
#[cfg(feature = "config")]
pub mod source;
#[cfg(not(target_arch = "wasm32"))]
pub mod testing;
mod verdict;
#[cfg(target_arch = "wasm32")]
mod wasm;

pub use event::EventView;
pub use filter::{Described, Filter};
pub use myelin_arena::{Attrs, AttrsBuilder, Kind};
pub use myelin_filter_macros::filter;
pub use needs::{Needs, PayloadNeed};
pub use pattern::Pattern;
pub use verdict::{DETAIL_BYTES_MAX, EMITTED_MAX, Reason, Routes, Verdict};

/// What a filter's file imports: `use myelin_filter::prelude::*;`.
pub mod prelude {
    pub use crate::{
        AttrsBuilder, EventView, Filter, Kind, Needs, PayloadNeed, Reason, Routes, Verdict, counter, filter, host,
        json, needs, reason, route,
    };
}

/// What the macros expand to. Not for direct use.
#[doc(hidden)]
pub mod __rt {
    pub use crate::filter::{check_declarations, index_of};
    #[cfg(target_arch = "wasm32")]
    pub use crate::{
        filter::label,
        wasm::{Slot, bindings, init, run, runtime, save},
    };
}
