//! What other routers' logs were seen to end with.

use super::chain::{Head, Kind, Note};
use myelin_catalog::Digest;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// Routers whose logs are remembered: as many as a catalog names at most, and some that are gone.
const ROUTERS_MAX: usize = 4_096;
/// How often what was seen is written to the own log, in milliseconds: so old may the newest head be that outlives both
/// the witness's memory and the other log.
const WRITTEN_EVERY_MS: u64 = 3_600_000;

/// What a router says of its log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Testimony {
    /// The number of the first entry that it keeps.
    pub first: u64,
    /// Where the log ends.
    pub head: Head,
    /// The hash of the entry that it was asked for, where that is kept.
    pub then: Option<Digest>,
}

/// What was seen of a router's log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Seen {
    /// The router, as `SITE/ROUTER`.
    pub router: String,
    /// Where its log ended when it was asked last.
    pub head: Head,
    /// When that was, by this router's clock.
    pub at_unix_ms: u64,
    /// How it contradicts what was seen before, where it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
}

/// The memory of a witness: pure, time passed in.
#[derive(Debug, Default)]
pub struct Witness {
    /// With when it was written to the own log.
    seen: BTreeMap<String, (Seen, Option<u64>)>,
}

impl Witness {
    /// A witness that remembers what its own log says of others.
    pub fn recall(notes: &[Note]) -> Self {
        let mut witness = Self::default();
        for note in notes {
            if let (Some(seq), Some(hash)) =
                (note.subject.rsplit_once('#').and_then(|(_, n)| n.parse().ok()), note.digest)
                && let Some((router, _)) = note.subject.rsplit_once('#')
            {
                let seen = Seen { router: router.to_owned(), head: Head { seq, hash }, at_unix_ms: 0, fault: None };
                witness.seen.insert(router.to_owned(), (seen, None));
            }
        }
        witness
    }

    /// The entry for which a router is to be asked; 0 where nothing is known of its log.
    pub fn last_seq(&self, router: &str) -> u64 {
        self.seen.get(router).map_or(0, |(seen, _)| seen.head.seq)
    }

    /// What is known.
    pub fn seen(&self) -> impl Iterator<Item = &Seen> {
        self.seen.values().map(|(seen, _)| seen)
    }

    /// Takes what a router says of its log; what of it is to be written to the own log.
    pub fn hear(&mut self, router: &str, testimony: &Testimony, now_unix_ms: u64) -> Option<Note> {
        if !self.seen.contains_key(router) && self.seen.len() >= ROUTERS_MAX {
            return None;
        }
        let Testimony { first, head, then } = testimony;
        let before = self.seen.get(router).cloned();
        let fault = before.as_ref().and_then(|(seen, _)| contradiction(&seen.head, *first, head, *then));
        let known = before.as_ref().and_then(|(seen, _)| seen.fault.clone());
        let is_news = fault.is_some() && known.is_none();
        // Once it has contradicted itself, what it said first is kept: that is the evidence.
        let kept = match &before {
            Some((seen, _)) if fault.is_some() || known.is_some() => seen.head,
            _ => *head,
        };
        let written = before.as_ref().and_then(|(_, written)| *written);
        let is_due = written.is_none_or(|written| {
            let is_new = before.as_ref().is_none_or(|(seen, _)| seen.head != kept);
            is_new && now_unix_ms.saturating_sub(written) >= WRITTEN_EVERY_MS
        });
        let note = match &fault {
            Some(fault) if is_news => {
                let mut note = Note::new(Kind::Alarm, "-", "audit-fork", "alarm");
                (note.subject, note.digest) = (format!("{router}#{}", kept.seq), Some(kept.hash));
                note.detail = format!("the audit log of {router}: {fault}");
                Some(note)
            }
            None if is_due && known.is_none() => {
                let mut note = Note::new(Kind::Witness, "-", "seen", "ok");
                (note.subject, note.digest) = (format!("{router}#{}", head.seq), Some(head.hash));
                Some(note)
            }
            _ => None,
        };
        let seen = Seen { router: router.to_owned(), head: kept, at_unix_ms: now_unix_ms, fault: known.or(fault) };
        let written = if note.is_some() { Some(now_unix_ms) } else { written };
        self.seen.insert(router.to_owned(), (seen, written));
        note
    }
}

/// How a log contradicts the head that it had before.
fn contradiction(before: &Head, first: u64, head: &Head, then: Option<Digest>) -> Option<String> {
    if before.seq == 0 {
        return None;
    }
    if head.seq < before.seq {
        return Some(format!("it ended with entry {} and ends with entry {} now", before.seq, head.seq));
    }
    match then {
        Some(hash) if hash == before.hash => None,
        Some(_) => Some(format!("entry {} is another than it was", before.seq)),
        // Given up for its age.
        None if before.seq < first => None,
        None => Some(format!("entry {} is gone, though it keeps those from {first} on", before.seq)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::*;

    fn head(seq: u64, text: &str) -> Head {
        Head { seq, hash: Digest::of(text.as_bytes()) }
    }

    fn says(first: u64, now: Head, then: Option<&str>) -> Testimony {
        Testimony { first, head: now, then: then.map(|text| Digest::of(text.as_bytes())) }
    }

    fn fault(before: Head, says: Testimony) -> Option<String> {
        let mut witness = Witness::default();
        assert_eq!(
            witness.hear("eu/r1", &Testimony { first: 1, head: before, then: None }, 1).unwrap().kind,
            Kind::Witness
        );
        let note = witness.hear("eu/r1", &says, 2);
        let seen = witness.seen().next().unwrap().clone();
        assert_eq!(note.is_some_and(|note| note.kind == Kind::Alarm), seen.fault.is_some());
        if seen.fault.is_some() {
            assert_eq!(seen.head, before, "the evidence is kept");
            assert!(witness.hear("eu/r1", &says, 3).is_none(), "told once");
        }
        seen.fault
    }

    #[test]
    fn a_log_that_grew_is_good_and_one_that_was_written_anew_is_not() {
        assert_eq!(fault(head(5, "five"), says(1, head(9, "nine"), Some("five"))), None);
        assert_eq!(fault(head(5, "five"), says(1, head(5, "five"), Some("five"))), None);
        assert_eq!(fault(head(5, "five"), says(6, head(9, "nine"), None)), None, "the entry is too old to be kept");
        assert!(
            fault(head(5, "five"), says(1, head(9, "nine"), Some("other"))).unwrap().contains("entry 5 is another")
        );
        assert!(fault(head(5, "five"), says(1, head(3, "three"), None)).unwrap().contains("ends with entry 3 now"));
        assert!(fault(head(5, "five"), says(1, head(9, "nine"), None)).unwrap().contains("entry 5 is gone"));
    }

    #[test]
    fn what_was_written_to_the_own_log_is_remembered_after_a_restart() {
        let mut witness = Witness::default();
        let note = witness.hear("eu/r1", &says(1, head(7, "seven"), None), 10).unwrap();
        assert!(witness.hear("eu/r1", &says(1, head(8, "eight"), Some("seven")), 11).is_none(), "not every minute");
        let later = says(1, head(9, "nine"), Some("eight"));
        assert!(witness.hear("eu/r1", &later, 10 + WRITTEN_EVERY_MS).is_some());
        let mut witness = Witness::recall(&[note]);
        assert_eq!(witness.last_seq("eu/r1"), 7);
        let forged = says(1, head(9, "nine"), Some("other"));
        assert_eq!(witness.hear("eu/r1", &forged, 1).unwrap().kind, Kind::Alarm);
    }
}
