//! What the stream's messages add up to. Pure: messages in, facts out.

use std::collections::BTreeMap;

use myelin_catalog::{CatalogError, Chain, Head};
use serde::{Deserialize, Serialize};

use crate::leases::LEASES_MAX;

/// What a message is, told by its subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The next record of the log.
    Record,
    /// A lease that was given to a new holder.
    Grant,
}

/// A lease as it was given; its term is the sequence of its message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Grant {
    pub(super) lease: String,
    pub(super) holder: String,
    pub(super) ttl_ms: u64,
    /// Tells two grants apart that say the same: one for each try of each open log.
    pub(super) nonce: String,
}

/// A grant with its term.
pub(super) type Given = (u64, Grant);

/// Why a message cannot stand where it stands.
#[derive(Debug)]
pub(super) enum Misfit {
    /// The records are not a chain.
    Chain(CatalogError),
    /// Something else; says what.
    Stream(String),
}

/// The stream so far. Every sequence from 1 on is a record or a grant: revision = sequence - grants before it.
#[derive(Debug, Default)]
pub(super) struct Tail {
    chain: Chain,
    sequence: u64,
    /// `(revision, sequence - revision)` of each record from which on the difference is another than before.
    shifts: Vec<(u64, u64)>,
    /// The newest grant of each lease, with its term.
    grants: BTreeMap<String, Given>,
}

impl Tail {
    /// The newest record.
    pub(super) fn head(&self) -> Head {
        self.chain.head()
    }

    /// The newest message.
    pub(super) fn sequence(&self) -> u64 {
        self.sequence
    }

    /// The newest grant of a lease, with its term.
    pub(super) fn grant(&self, lease: &str) -> Option<&Given> {
        self.grants.get(lease)
    }

    /// Whether the lease is one of those that there are, or there may be one more.
    pub(super) fn has_room_for(&self, lease: &str) -> bool {
        self.grants.len() < LEASES_MAX || self.grants.contains_key(lease)
    }

    /// The sequence of a record; `None` beyond the newest.
    pub(super) fn sequence_of(&self, rev: u64) -> Option<u64> {
        if rev == 0 || rev > self.head().rev {
            return None;
        }
        let after = self.shifts.partition_point(|(from, _)| *from <= rev);
        Some(rev + self.shifts[..after].last().map_or(0, |(_, shift)| *shift))
    }

    /// Takes the next message. One that was taken before changes nothing.
    pub(super) fn take(&mut self, sequence: u64, kind: Kind, payload: &[u8]) -> Result<(), Misfit> {
        if sequence <= self.sequence {
            return Ok(());
        }
        if sequence != self.sequence + 1 {
            return Err(Misfit::Stream(format!("message {} is missing", self.sequence + 1)));
        }
        match kind {
            Kind::Record => {
                let rev = self.chain.accept_encoded(payload).map_err(Misfit::Chain)?.rev;
                let shift = sequence - rev;
                if self.shifts.last().map_or(0, |(_, shift)| *shift) != shift {
                    self.shifts.push((rev, shift));
                }
            }
            Kind::Grant => {
                let grant: Grant = serde_json::from_slice(payload)
                    .map_err(|e| Misfit::Stream(format!("message {sequence} is no grant of a lease: {e}")))?;
                if !self.has_room_for(&grant.lease) {
                    return Err(Misfit::Stream(format!("message {sequence} makes more than {LEASES_MAX} leases")));
                }
                self.grants.insert(grant.lease.clone(), (sequence, grant));
            }
        }
        self.sequence = sequence;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use myelin_catalog::{Op, Record};
    use proptest::prelude::*;

    use super::*;

    fn grant(lease: &str) -> Vec<u8> {
        let (holder, nonce) = ("a".to_owned(), String::new());
        serde_json::to_vec(&Grant { lease: lease.into(), holder, ttl_ms: 1, nonce }).unwrap()
    }

    proptest! {
        #[test]
        fn a_record_is_where_the_tail_says(records in prop::collection::vec(prop::bool::weighted(0.7), 0..200)) {
            let (mut tail, mut head, mut places, mut term) = (Tail::default(), Head::EMPTY, Vec::new(), 0);
            for (sequence, is_record) in (1..).zip(records) {
                if is_record {
                    let record = Record::after(&head, Op::RolledBack { to: 0 }, "ada", 1);
                    tail.take(sequence, Kind::Record, &record.encode()).unwrap();
                    head = Head { rev: record.rev, hash: record.hash() };
                    places.push(sequence);
                } else {
                    tail.take(sequence, Kind::Grant, &grant("l")).unwrap();
                    term = sequence;
                }
                // Again, as another reader of the same stream would bring it.
                tail.take(sequence, Kind::Record, b"whatever").unwrap();
            }
            prop_assert_eq!((tail.head(), tail.grant("l").map_or(0, |(term, _)| *term)), (head, term));
            for (rev, place) in (1..).zip(&places) {
                prop_assert_eq!(tail.sequence_of(rev), Some(*place));
            }
            prop_assert_eq!((tail.sequence_of(0), tail.sequence_of(head.rev + 1)), (None, None));
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_and_nothing_moves() {
        let mut tail = Tail::default();
        let first = Record::after(&Head::EMPTY, Op::RolledBack { to: 0 }, "ada", 1);
        assert!(
            matches!(tail.take(2, Kind::Record, &first.encode()), Err(Misfit::Stream(why)) if why.contains("1 is missing"))
        );
        assert!(matches!(tail.take(1, Kind::Grant, b"{}"), Err(Misfit::Stream(why)) if why.contains("no grant")));
        assert!(matches!(tail.take(1, Kind::Record, b"x"), Err(Misfit::Chain(_))));
        assert_eq!((tail.sequence(), tail.head()), (0, Head::EMPTY));
        for (sequence, n) in (1..).zip(0..LEASES_MAX) {
            tail.take(sequence, Kind::Grant, &grant(&n.to_string())).unwrap();
        }
        assert!(tail.has_room_for("3") && !tail.has_room_for("new"));
        assert!(tail.take(17, Kind::Grant, &grant("new")).is_err());
        tail.take(17, Kind::Grant, &grant("3")).unwrap();
    }
}
