//! What a store does, whatever it is made of.

use myelin_catalog::{Catalog, Digest, Head, ModuleRef, Record};

use crate::error::StoreError;

/// Records that are read at once: bounds the memory of a start to what the catalog itself needs.
const READ_RECORDS_MAX: usize = 256;

/// The log of records.
pub trait CatalogStore: Send {
    /// The newest record's place and hash, as far as this handle knows: where others append to the same log, it moves
    /// by itself.
    fn head(&self) -> Head;

    /// Up to `limit` records after revision `rev`, oldest first, as they were kept: their order and encoding are
    /// checked by whoever folds them (see [`recover`]).
    fn read_after(&self, rev: u64, limit: usize) -> Result<Vec<Vec<u8>>, StoreError>;

    /// Appends the record that follows the head, or refuses with [`StoreError::HeadMoved`]. When it returns, the
    /// record is on the disk. After any other error nobody knows, and the store must be opened anew.
    fn append(&mut self, record: &Record) -> Result<Head, StoreError>;

    /// What the log is called in errors.
    fn place(&self) -> String;
}

/// The bytes of modules, by digest.
pub trait BlobStore: Send {
    /// Keeps `bytes`, whose digest is checked. When it returns, they are on the disk. Bytes that are there already
    /// stay.
    fn put(&mut self, digest: &Digest, bytes: &[u8]) -> Result<(), StoreError>;

    /// The bytes, whose digest is checked.
    fn blob(&self, digest: &Digest) -> Result<Vec<u8>, StoreError>;

    /// How many bytes there are, unchecked; `None` where there is no such blob.
    fn blob_size_bytes(&self, digest: &Digest) -> Result<Option<u64>, StoreError>;

    /// Removes the bytes, and says whether there were any.
    fn remove(&mut self, digest: &Digest) -> Result<bool, StoreError>;

    /// The digests that there are bytes for, sorted.
    fn blobs(&self) -> Result<Vec<Digest>, StoreError>;

    /// Those of [`BlobStore::blobs`] that are garbage where no record names them. An engine that others write to
    /// meanwhile leaves out the young ones: their records may be on the way.
    fn collectable(&self) -> Result<Vec<Digest>, StoreError> {
        self.blobs()
    }
}

/// What [`recover`] found.
#[derive(Clone, Debug, PartialEq)]
pub struct Recovered {
    /// The catalog after the newest record.
    pub catalog: Catalog,
    /// How many blobs no module named any more; they are gone.
    pub orphans: usize,
    /// Modules whose bytes are not there or have another length: they cannot be activated until uploaded again.
    pub missing: Vec<ModuleRef>,
}

/// Reads and checks the whole log, collects blobs that a crash left without a record, and looks whether the others
/// are all there. Their content is checked when it is read.
pub fn recover<S: CatalogStore + BlobStore>(store: &mut S) -> Result<Recovered, StoreError> {
    let catalog = replay(store)?;
    let mut orphans = 0;
    for digest in store.collectable()? {
        if !catalog.needs_blob(&digest) && store.remove(&digest)? {
            orphans += 1;
        }
    }
    let mut missing = Vec::new();
    for module in catalog.modules() {
        if store.blob_size_bytes(&module.digest)? != Some(module.size_bytes) {
            missing.push(module.module_ref());
        }
    }
    Ok(Recovered { catalog, orphans, missing })
}

/// Folds the log, and believes it only if every record follows the one before and the last is the head that was kept.
fn replay<S: CatalogStore>(store: &S) -> Result<Catalog, StoreError> {
    let broken = |source| StoreError::Catalog { place: store.place(), source };
    let mut chain = myelin_catalog::Chain::new();
    let mut catalog = Catalog::new();
    loop {
        let page = store.read_after(chain.head().rev, READ_RECORDS_MAX)?;
        if page.is_empty() {
            break;
        }
        for bytes in page {
            let record = chain.accept_encoded(&bytes).map_err(broken)?;
            catalog.replay(&record).map_err(broken)?;
        }
    }
    chain.finish(&store.head()).map_err(broken)?;
    Ok(catalog)
}
