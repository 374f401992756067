//! A copy of a log that is written elsewhere: takes pages of encoded records from peers, and believes none of them.
//!
//! A page is taken whole or not at all. What it says about records that are known already tells a *replay* (the same
//! records again, `catalog-stale`) from a *fork* (another record at a known place, `catalog-fork`: two writers, or a
//! log that was restored from an old backup). After a fork the copy stays as it is, and so does what is active.
//!
//! A follower that was given a root key is *anchored* once the log has trusted that key; the records before are
//! covered by its first signature, so nothing of the log is to be acted on before. An unanchored copy is thrown away
//! without loss.

use std::collections::VecDeque;

use crate::catalog::Catalog;
use crate::digest::Digest;
use crate::error::{CatalogError, ChainFault};
use crate::keys::PublicKey;
use crate::limits::{HASHES_KEPT, PAGE_LEN_MAX_BYTES, PAGE_RECORDS_MAX};
use crate::record::{Head, Record};

#[cfg(test)]
mod tests;

/// A verified copy of a log.
#[derive(Clone, Debug)]
pub struct Follower {
    catalog: Catalog,
    root: Option<PublicKey>,
    /// The hashes of the newest records, the last of which is the head's.
    hashes: VecDeque<Digest>,
}

/// A page that was found to be right, with what comes of it. Nothing has changed yet.
#[derive(Clone, Debug)]
pub struct Verified<'a, B> {
    follows: Head,
    catalog: Catalog,
    accepted: Accepted<'a, B>,
}

impl<'a, B> Verified<'a, B> {
    /// What it adds.
    pub fn accepted(&self) -> &Accepted<'a, B> {
        &self.accepted
    }
}

/// What a page added.
#[derive(Clone, Debug, PartialEq)]
pub struct Accepted<'a, B> {
    /// The part of the page that is new, to be kept byte for byte.
    pub encoded: &'a [B],
    /// The same, read.
    pub records: Vec<Record>,
    /// Where the log ends now.
    pub head: Head,
}

/// How the head that a peer names stands to the copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Both end with the same record.
    Same,
    /// The peer has more.
    Ahead {
        /// How many records more.
        records: u64,
    },
    /// The peer has the beginning of this copy.
    Behind {
        /// How many records less.
        records: u64,
    },
    /// The peer has less than this copy remembers hashes of.
    Unknown,
}

/// Why a page is refused. Nothing of it was taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FollowFault {
    /// Two logs have another record at the same place.
    #[error(
        "the catalog forks at record {rev}: here it is {}, there {}; find out which writer is wrong and give its \
         routers the other log", ours.short(), theirs.short()
    )]
    Fork {
        /// The place.
        rev: u64,
        /// The hash here.
        ours: Digest,
        /// The hash there.
        theirs: Digest,
    },
    /// Records are missing between the copy and the page.
    #[error("the page begins with record {found} and {expected} is the next; ask for the records after {}", expected - 1)]
    Gap {
        /// The record that is missing.
        expected: u64,
        /// The page's first record.
        found: u64,
    },
    /// The page has nothing new.
    #[error("the page ends with record {newest} and the copy with {head}; ask for the records after {head}")]
    Stale {
        /// The newest record of the page.
        newest: u64,
        /// The newest record of the copy.
        head: u64,
    },
    /// The log begins with another key than the operator named.
    #[error(
        "the catalog begins with root key {found} and {expected} was given; correct the root key of this router, or \
         take the catalog from another mesh's router no longer"
    )]
    RootKey {
        /// The key that was given.
        expected: PublicKey,
        /// The key in the log.
        found: PublicKey,
    },
    /// The page is larger than pages are.
    #[error(
        "the page has {records} records and {bytes} bytes; {PAGE_RECORDS_MAX} and {PAGE_LEN_MAX_BYTES} are the most"
    )]
    Oversize {
        /// How many records it has.
        records: usize,
        /// How many bytes those have, as far as they were counted.
        bytes: usize,
    },
    /// A record of the page is none, does not follow, is not signed as it must be, or could never have been written.
    #[error(transparent)]
    Record(#[from] CatalogError),
}

impl FollowFault {
    /// The stable name of this refusal. `catalog-fork` is an alarm, too.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Fork { .. } => "catalog-fork",
            Self::Gap { .. } => "catalog-gap",
            Self::Stale { .. } => "catalog-stale",
            Self::RootKey { .. } => "root-key",
            Self::Oversize { .. } => "page-too-large",
            Self::Record(refused) => refused.code(),
        }
    }
}

impl Follower {
    /// A copy without records. With `root` the log must begin its signed part with that key; without, whoever is asked
    /// first decides.
    pub fn new(root: Option<PublicKey>) -> Self {
        Self { catalog: Catalog::new(), root, hashes: VecDeque::new() }
    }

    /// The copy that was kept: `catalog` is what all its records add up to, and `tail` its newest records as they were
    /// kept (as many as there are at hand, up to [`HASHES_KEPT`] count).
    ///
    /// # Errors
    /// `root-key`; `chain-broken` where `tail` is not the end of that log.
    pub fn resume<B: AsRef<[u8]>>(catalog: Catalog, root: Option<PublicKey>, tail: &[B]) -> Result<Self, FollowFault> {
        if let Some(fault) = root_fault(root, &catalog) {
            return Err(fault);
        }
        let head = catalog.head();
        let mut hashes: VecDeque<Digest> = [head.hash].into();
        if head == Head::EMPTY {
            hashes.clear();
        }
        let mut follows = head;
        for bytes in tail.iter().rev().take(HASHES_KEPT) {
            let broken = |fault| CatalogError::ChainBroken { rev: follows.rev, fault };
            let record = Record::decode(bytes.as_ref()).map_err(|e| broken(ChainFault::Encoding(e.to_string())))?;
            if Digest::of(bytes.as_ref()) != follows.hash || record.rev != follows.rev {
                return Err(broken(ChainFault::Hash).into());
            }
            follows = Head { rev: record.rev - 1, hash: record.prev_hash };
            if follows != Head::EMPTY && hashes.len() < HASHES_KEPT {
                hashes.push_front(follows.hash);
            }
        }
        Ok(Self { catalog, root, hashes })
    }

    /// What the copy adds up to. Act on it only where [`Follower::is_anchored`].
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// Where the copy ends.
    pub fn head(&self) -> Head {
        self.catalog.head()
    }

    /// Whether what the copy says may be acted on: no root key was given, or the log has trusted it.
    pub fn is_anchored(&self) -> bool {
        self.root.is_none() || self.catalog.keys().root() == self.root
    }

    /// Compares with the head that a peer names, which is the peer's word and no more: nobody signed it.
    ///
    /// # Errors
    /// `catalog-fork`.
    pub fn compare(&self, theirs: &Head) -> Result<Standing, FollowFault> {
        let ours = self.head();
        if theirs.rev > ours.rev {
            return Ok(Standing::Ahead { records: theirs.rev - ours.rev });
        }
        match self.known(theirs.rev) {
            None => Ok(Standing::Unknown),
            Some(hash) if hash != theirs.hash => {
                Err(FollowFault::Fork { rev: theirs.rev, ours: hash, theirs: theirs.hash })
            }
            Some(_) if theirs.rev == ours.rev => Ok(Standing::Same),
            Some(_) => Ok(Standing::Behind { records: ours.rev - theirs.rev }),
        }
    }

    /// Checks a page and says what it adds; nothing changes before [`Follower::adopt`], so that the new records can be
    /// kept first.
    ///
    /// # Errors
    /// Whatever is wrong with the page.
    pub fn verify<'a, B: AsRef<[u8]>>(&self, page: &'a [B]) -> Result<Verified<'a, B>, FollowFault> {
        check_size(page)?;
        let head = self.head();
        let records = page.iter().zip(1u64..).map(|(bytes, place)| {
            Record::decode(bytes.as_ref()).map_err(|refused| {
                let fault = ChainFault::Encoding(format!("record {place} of the page: {refused}"));
                CatalogError::ChainBroken { rev: head.rev + place, fault }
            })
        });
        let mut records = records.collect::<Result<Vec<_>, _>>()?;
        let Some(first) = records.first() else {
            return Err(FollowFault::Stale { newest: head.rev, head: head.rev });
        };
        if first.rev == 0 {
            return Err(CatalogError::ChainBroken { rev: 1, fault: ChainFault::Revision { found: 0 } }.into());
        }
        if first.rev > head.rev + 1 {
            return Err(FollowFault::Gap { expected: head.rev + 1, found: first.rev });
        }
        let known = self.compare_known(page, &records)?;
        if known == page.len() {
            let newest = records.last().map_or(head.rev, |record| record.rev);
            return Err(FollowFault::Stale { newest, head: head.rev });
        }
        let records = records.split_off(known);
        let mut catalog = self.catalog.clone();
        for record in &records {
            if record.rev == head.rev + 1 && record.prev_hash != head.hash {
                // The peer's record at our head is another one.
                return Err(self.fork(record, head.rev, head.hash, record.prev_hash));
            }
            catalog.replay(record)?;
        }
        if let Some(fault) = root_fault(self.root, &catalog) {
            return Err(fault);
        }
        let accepted = Accepted { encoded: &page[known..], records, head: catalog.head() };
        Ok(Verified { follows: head, catalog, accepted })
    }

    /// Takes what was verified.
    ///
    /// # Errors
    /// `catalog-stale` where another page was taken meanwhile.
    pub fn adopt<'a, B>(&mut self, verified: Verified<'a, B>) -> Result<Accepted<'a, B>, FollowFault> {
        let Verified { follows, catalog, accepted } = verified;
        if follows != self.head() {
            return Err(FollowFault::Stale { newest: accepted.head.rev, head: self.head().rev });
        }
        let hashes = accepted.records.iter().skip(1).map(|record| record.prev_hash);
        self.hashes.extend(hashes.chain([accepted.head.hash]));
        let surplus = self.hashes.len().saturating_sub(HASHES_KEPT);
        self.hashes.drain(..surplus);
        self.catalog = catalog;
        Ok(accepted)
    }

    /// Checks a page and takes it.
    ///
    /// # Errors
    /// Whatever is wrong with the page; then nothing has changed.
    pub fn accept<'a, B: AsRef<[u8]>>(&mut self, page: &'a [B]) -> Result<Accepted<'a, B>, FollowFault> {
        let verified = self.verify(page)?;
        self.adopt(verified)
    }

    /// The hash of the record at `rev`, where it is remembered.
    fn known(&self, rev: u64) -> Option<Digest> {
        if rev == 0 {
            return Some(Digest::ZERO);
        }
        let back = usize::try_from(self.head().rev.checked_sub(rev)?).ok()?;
        self.hashes.iter().rev().nth(back).copied()
    }

    /// A fork that `record` shows; but where the log is signed, only a record that a trusted key signed shows one: an
    /// alarm that anybody could raise with a made-up record would soon be overlooked.
    fn fork(&self, record: &Record, rev: u64, ours: Digest, theirs: Digest) -> FollowFault {
        match self.catalog.keys().check_record(record) {
            Ok(()) => FollowFault::Fork { rev, ours, theirs },
            Err(refused) => refused.into(),
        }
    }

    /// How many of the page's records are known already, all of which must be the ones that are known.
    fn compare_known<B: AsRef<[u8]>>(&self, page: &[B], records: &[Record]) -> Result<usize, FollowFault> {
        let head = self.head();
        let known = records.iter().take_while(|record| record.rev <= head.rev).count();
        for (bytes, record) in page.iter().zip(records).take(known) {
            let theirs = Digest::of(bytes.as_ref());
            // Older ones than are remembered count through those that follow them.
            match self.known(record.rev) {
                Some(ours) if ours != theirs => return Err(self.fork(record, record.rev, ours, theirs)),
                _ => {}
            }
        }
        let mut pairs = page.iter().zip(records).zip(&records[1..]).take(known);
        match pairs.find(|((bytes, before), after)| !follows(bytes.as_ref(), before, after)) {
            Some((_, after)) => Err(CatalogError::ChainBroken { rev: after.rev, fault: ChainFault::Previous }.into()),
            None => Ok(known),
        }
    }
}

/// Whether `after` is the record after `before`, whose bytes are `bytes`.
fn follows(bytes: &[u8], before: &Record, after: &Record) -> bool {
    before.rev.checked_add(1) == Some(after.rev) && after.prev_hash == Digest::of(bytes)
}

fn check_size<B: AsRef<[u8]>>(page: &[B]) -> Result<(), FollowFault> {
    let (records, mut bytes) = (page.len(), 0usize);
    for record in page.iter().take(PAGE_RECORDS_MAX) {
        bytes = bytes.saturating_add(record.as_ref().len());
    }
    if records > PAGE_RECORDS_MAX || bytes > PAGE_LEN_MAX_BYTES {
        return Err(FollowFault::Oversize { records, bytes });
    }
    Ok(())
}

fn root_fault(root: Option<PublicKey>, catalog: &Catalog) -> Option<FollowFault> {
    match (root, catalog.keys().root()) {
        (Some(expected), Some(found)) if expected != found => Some(FollowFault::RootKey { expected, found }),
        _ => None,
    }
}
