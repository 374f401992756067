//! The mesh of Myelin routers, pure: who is there, who wants what, which way, and how an event is split on it.
//!
//! Nothing here waits, reads a clock, does I/O or draws random numbers: time comes in as monotonic milliseconds, and
//! every map, list and message has its bound in [`limits`]. Wall clocks play no part, so that their jumps do not matter.
//!
//! # How a shell drives it
//! One thread owns the [`Mesh`]. For each connection (ALPN [`control::ALPN_MESH`]) it opens one bidirectional control
//! stream, whose frames [`Control`] and [`ControlDecoder`] write and cut, and some unidirectional fast streams, whose
//! batches [`batch`] writes and cuts.
//!
//! ```
//! use std::sync::Arc;
//! use myelin_mesh::{Config, Control, Directory, LinkId, LinkUp, Mesh, Output, PeerIdentity};
//! use myelin_mesh::{Router, RouterNumber, Site, SiteNumber};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let number = |n| SiteNumber::new(n).expect("below 64");
//! let site = |n, name: &str| Site { number: number(n), name: name.into(), region: "".into(), cloud: "".into() };
//! let router = |n, at| Router { number: RouterNumber(n), name: "r1".into(), site: number(at) };
//! // From the catalog; `set_directory` replaces it when the catalog changes.
//! let directory = Directory::new([site(0, "hamburg"), site(1, "ohio")], [router(10, 0), router(20, 1)])?;
//! let directory = Arc::new(directory);
//! let mut here = Mesh::new(0, Config::new(number(0), "hamburg", RouterNumber(10), "r1", 1), directory.clone());
//! let mut there = Mesh::new(0, Config::new(number(1), "ohio", RouterNumber(20), "r1", 1), directory);
//!
//! // 1. The router that dialled sends `mesh.hello()` first. The other calls `link_up` with that hello and the peer's
//! //    certificate: it answers with its own hello, and only then with the outputs, or with the violation in a
//! //    `HelloRefused`, and closes. With the answer the first router calls `link_up` in turn.
//! let (hello_here, hello_there) = (here.hello(), there.hello());
//! let peer = PeerIdentity { site: "ohio", router: "r1" };
//! let here_as_peer = PeerIdentity { site: "hamburg", router: "r1" };
//! there.link_up(4, LinkUp { link: LinkId(7), identity: here_as_peer, dialled: false, hello: &hello_here })?;
//! here.link_up(5, LinkUp { link: LinkId(1), identity: peer, dialled: true, hello: &hello_there })?;
//!
//! // 2. Everything that comes goes into `receive`; `measured` gets the round trip about once a second; `subscribe` and
//! //    `unsubscribe` follow the sessions; `tick` is called at `next_deadline`.
//! there.subscribe(6, &"orders/**".parse()?, None)?;
//!
//! // 3. After every call the outputs are carried out until there are none.
//! fn carry_out(now: u64, from: &mut Mesh, to: &mut Mesh, link: LinkId) -> Result<(), myelin_mesh::Violation> {
//!     while let Some(output) = from.poll() {
//!         match output {
//!             Output::Send { links: _, control } => to.receive(now, link, control)?,
//!             Output::InterestChanged => { /* hand `mesh.interest()` to every worker */ }
//!             Output::RoutesChanged => { /* hand `mesh.routes()` to every worker */ }
//!             Output::Close { .. } | Output::Alarm(_) => { /* close the connection; log, count */ }
//!             _ => {}
//!         }
//!     }
//!     Ok(())
//! }
//! for now in 6..200 {
//!     here.tick(now);
//!     there.tick(now);
//!     carry_out(now, &mut here, &mut there, LinkId(7))?;
//!     carry_out(now, &mut there, &mut here, LinkId(1))?;
//! }
//!
//! // 4. A worker matches once, at the origin, and plans; the stamp says where the batch goes ...
//! let (routes, mut residency, mut matched) = (here.routes(), Default::default(), Default::default());
//! here.interest().matches("orders/1", &mut matched);
//! let plan = myelin_mesh::plan(&matched, &routes, &mut residency, None, |_group| false);
//! assert!(plan.sites.contains(number(1)));
//! let stamp = myelin_mesh::Stamp {
//!     origin: routes.me(), epoch: 1, shard: 0, hops: 0, here_only: false, seq: 1, generation: 0, ttl_ms: 0,
//!     sites: plan.sites, allowed: None, grants: plan.grants,
//! };
//! // ... and every router, the origin included, splits it by next hop. Where `split.local` is set, a router that received
//! // the batch asks its `DuplicateWindow`, delivers to its own subscribers, and calls `hand_on` for its siblings; the
//! // origin only hands on. (Batches that pass by are not for the window: an event may pass by more than once.)
//! let mut split = Default::default();
//! myelin_mesh::split(&stamp, &routes, &mut residency, &mut split)?;
//! assert_eq!(split.copies[0].link, LinkId(1));
//! # Ok(())
//! # }
//! ```
//!
//! [`Interest`] and [`Routes`] are immutable and cheap to share; what was found under one pair of versions holds while
//! both stay. [`ResidencyCache`], [`DuplicateWindow`] and the scratch values belong to one worker each.
#![forbid(unsafe_code)]

pub mod batch;
pub mod control;
mod directory;
mod forward;
mod ids;
pub mod interest;
pub mod limits;
mod mesh;
mod site_set;
mod stamp;
mod topology;
mod violation;
mod window;

pub use batch::{AnnouncedName, Batch, BatchDecoder, BatchHead};
pub use control::{Control, ControlDecoder, Versions, negotiate};
pub use directory::{Directory, DirectoryError, Router, Site};
pub use forward::{LocalDelivery, Outgoing, Plan, Served, Split, hand_on, plan, split};
pub use ids::{LinkId, RouterNumber, SiteNumber};
pub use interest::{GroupInterest, Interest, InterestError, InterestMatch, Wish, group_id};
pub use mesh::{Alarm, Config, LinkUp, Mesh, Output, Peer, PeerIdentity, Sizes, Stats};
pub use site_set::SiteSet;
pub use stamp::{Grant, Grants, STAMP_BYTES_MAX, STAMP_BYTES_MIN, Stamp};
pub use topology::{Hop, NoAllowedPath, ResidencyCache, RoundTrips, Routes};
pub use violation::{Violation, ViolationCode};
pub use window::{DuplicateWindow, Source, Tally};
