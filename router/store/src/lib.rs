//! Storage of the catalog: the log of records, and the bytes of modules.
//!
//! [`DiskStore`] keeps the log in redb and each module in a file named by its digest; [`MemoryStore`] is its twin in
//! memory, with faults to order. Both are met through [`CatalogStore`] and [`BlobStore`], and [`recover`] brings
//! either back after a crash. [`ControlLog`] is what a mesh needs of the log beside that: copies of records that were
//! signed elsewhere, leases with fencing terms, and a watch.
//!
//! Who uploads puts the blob first and appends its record then; who removes appends first. A crash between leaves a
//! blob that no record names, which [`recover`] collects: never a record without its blob.
//!
//! Both of them are one router's own. `JetstreamStore` (feature `jetstream`) is the same on NATS JetStream, shared by
//! all routers of a mesh that have no single writer site.
//!
//! Everything here blocks: it belongs on the control thread, never on a worker.
#![forbid(unsafe_code)]

mod blobs;
#[cfg(test)]
mod conformance;
mod control;
mod disk;
mod error;
#[cfg(feature = "jetstream")]
mod jetstream;
mod leases;
mod lock;
mod log;
mod memory;
mod store;

pub use control::{ControlLog, Fence, Watch};
pub use disk::DiskStore;
pub use error::StoreError;
#[cfg(all(feature = "jetstream", any(test, feature = "testing")))]
pub use jetstream::servers;
#[cfg(feature = "jetstream")]
pub use jetstream::{JetstreamOptions, JetstreamStore};
pub use memory::{Fault, MemoryDisk, MemoryStore};
pub use store::{BlobStore, CatalogStore, Recovered, recover};
