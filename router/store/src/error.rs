//! Why the store fails or refuses.

use std::io;
use std::path::{Path, PathBuf};

use myelin_catalog::{CatalogError, Digest};

/// Why the store fails or refuses. The sentence says what, where and how to mend it; [`StoreError::code`] is stable.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has the directory open.
    #[error("{} is in use by {}; stop that router, or give this one another data directory", dir.display(), owner(*pid))]
    Locked {
        /// The directory.
        dir: PathBuf,
        /// Who has it, where it says so.
        pid: Option<u32>,
    },
    /// The record does not follow the newest one: somebody else appended meanwhile.
    #[error("the catalog is at revision {found} and the change was made for {expected}; look at it and try again")]
    HeadMoved {
        /// The revision that the record follows.
        expected: u64,
        /// The newest revision.
        found: u64,
    },
    /// Somebody else has the lease.
    #[error("lease {name} is not free: {holder} has it for another {left_ms} ms; ask again then")]
    LeaseHeld {
        /// The lease.
        name: String,
        /// Who has it.
        holder: String,
        /// How long still.
        left_ms: u64,
    },
    /// The lease ran out, was given back, or passed on.
    #[error("lease {name} of term {term} is no longer held, so that nothing was appended; ask for it again")]
    LeaseLost {
        /// The lease.
        name: String,
        /// The term that was held.
        term: u64,
    },
    /// There can be no such lease.
    #[error("lease `{name}` cannot be: {why}")]
    LeaseRefused {
        /// The lease, cut.
        name: String,
        /// What is wrong and how to mend it.
        why: &'static str,
    },
    /// The log is not the one that was written, or a record is none.
    #[error("{place}: {source}")]
    Catalog {
        /// Where the log is.
        place: String,
        /// What is wrong, and where.
        source: CatalogError,
    },
    /// The log is gone though there are modules.
    #[error(
        "{} has modules and no catalog; restore catalog.redb from a backup, or remove `blobs` there to begin anew",
        dir.display()
    )]
    CatalogLost {
        /// The directory.
        dir: PathBuf,
    },
    /// The log was written by a newer router.
    #[error("{place} has format {found} and this router knows {known}; start the router version that wrote it")]
    Format {
        /// Where the log is.
        place: String,
        /// Its format.
        found: u32,
        /// The newest format known here.
        known: u32,
    },
    /// There is no blob of that digest.
    #[error("there are no bytes for module digest {digest}; upload the module again")]
    BlobMissing {
        /// The digest.
        digest: Digest,
    },
    /// The bytes are not those of their digest.
    #[error("the bytes of module digest {digest} are damaged ({why}); remove the module and upload it again")]
    BlobDamaged {
        /// The digest.
        digest: Digest,
        /// How they are damaged.
        why: String,
    },
    /// What was to be put has another digest than was said, or is too large.
    #[error("the bytes do not fit digest {digest} ({why}); upload the module again")]
    BlobRefused {
        /// The digest that was said.
        digest: Digest,
        /// What is wrong.
        why: String,
    },
    /// A file operation failed.
    #[error("{action} {}: {source}; check free space and permissions there", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// How it failed.
        source: io::Error,
    },
    /// The database failed.
    #[error("{place}: {source}; free room there or mend its permissions: a running router opens it again by itself")]
    Database {
        /// Where it is.
        place: String,
        /// How it failed.
        source: Box<redb::Error>,
    },
    /// The database is damaged.
    #[error("{place} is damaged ({why}); restore it from a backup or from another router")]
    Damaged {
        /// Where it is.
        place: String,
        /// How.
        why: String,
    },
    /// The servers of a shared log cannot be reached, have no majority, or did not answer in time.
    #[error("cannot {action} {place}: {why}; see that the servers run, that a majority of them is up, and try again")]
    Unavailable {
        /// What was tried.
        action: &'static str,
        /// On what.
        place: String,
        /// How it failed last.
        why: String,
    },
    /// A shared log is set up so that it would lose or reorder records, or its options contradict each other.
    #[error("{place} is not fit for a catalog: {}", problems.join("; "))]
    Unfit {
        /// Where.
        place: String,
        /// What is wrong, each with how to mend it.
        problems: Vec<String>,
    },
    /// A record is larger than the servers of the log take. Nothing was appended.
    #[error("the record has {size_bytes} bytes and {place} takes {max_bytes}; set `max_payload` of its servers to 4MB")]
    RecordTooLarge {
        /// Where.
        place: String,
        /// How large the record is.
        size_bytes: usize,
        /// The most that is taken.
        max_bytes: usize,
    },
    /// A write failed before, so that nobody knows what is on the disk.
    #[error(
        "an earlier write to {place} failed; free room there or mend its permissions first: the router opens it again by \
         itself, within seconds"
    )]
    Failed {
        /// Where.
        place: String,
    },
}

impl StoreError {
    /// The stable name of this error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Locked { .. } => "store-locked",
            Self::HeadMoved { .. } => "conflict",
            Self::LeaseHeld { .. } => "lease-held",
            Self::LeaseLost { .. } => "lease-lost",
            Self::LeaseRefused { .. } => "invalid-lease",
            Self::Catalog { source, .. } => source.code(),
            Self::CatalogLost { .. } => "catalog-lost",
            Self::Format { .. } => "store-format",
            Self::BlobMissing { .. } => "blob-missing",
            Self::BlobDamaged { .. } => "blob-damaged",
            Self::BlobRefused { .. } => "invalid-digest",
            Self::Io { .. } | Self::Database { .. } => "store-io",
            Self::Damaged { .. } => "store-damaged",
            Self::Unavailable { .. } => "store-unavailable",
            Self::Unfit { .. } => "store-unfit",
            Self::RecordTooLarge { .. } => "record-too-large",
            Self::Failed { .. } => "store-failed",
        }
    }

    /// What `map_err` wants for a file operation.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }
}

fn owner(pid: Option<u32>) -> String {
    pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
}
