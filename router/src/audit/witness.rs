//! What other routers' logs were seen to end with.

use super::chain::{Entry, Head, Kind, Note, read};
use myelin_catalog::Digest;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use utoipa::ToSchema;

/// Routers whose logs are remembered: as many as a catalog names at most, and some that are gone.
const ROUTERS_MAX: usize = 4_096;
/// How often what was seen is written to the own log, in milliseconds: so old may the newest head be that outlives both
/// the witness's memory and the other log.
const WRITTEN_EVERY_MS: u64 = 3_600_000;

/// What a witness's entry says of the log's beginning, before the number of its first entry.
const KEPT_FROM: &str = "kept from entry ";
/// The action of the entry of a log that contradicts itself, and the alarm that it raises.
pub(crate) const FORK: &str = "audit-fork";
/// What the entry of one says of whose log it is, before the router and how it does.
const FORK_OF: &str = "the audit log of ";

/// What a router says of its log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Testimony {
    /// The number of the first entry that it keeps.
    pub first: u64,
    /// Where the log ends.
    pub head: Head,
    /// The hash of the entry that it was asked for, where that is kept.
    pub then: Option<Digest>,
    /// What the first entry was written after. A router of a version before does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prev: Option<Digest>,
    /// Up to where the log was given up for its age the last time, as one of its entries says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retired: Option<Head>,
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
    known: BTreeMap<String, Known>,
}

/// What is known of one log.
#[derive(Clone, Debug)]
struct Known {
    seen: Seen,
    /// The first entry that it kept then; none where the router was of a version that does not prove why older ones go.
    first: Option<u64>,
    /// When it was written to the own log.
    written: Option<u64>,
}

impl Witness {
    /// A witness that remembers what its own log says of others. A log that contradicted itself once goes on doing so,
    /// whatever was seen of it later.
    pub fn recall(entries: &[Entry]) -> Self {
        let mut witness = Self::default();
        for Entry { at_unix_ms, note, .. } in entries.iter().filter(|entry| is_memory(&entry.note)) {
            let subject = note.subject.rsplit_once('#').and_then(|(router, seq)| Some((router, seq.parse().ok()?)));
            let (Some((router, seq)), Some(hash)) = (subject, note.digest) else { continue };
            let before = witness.known.get(router);
            if before.is_some_and(|before| before.seen.fault.is_some())
                || (before.is_none() && witness.known.len() >= ROUTERS_MAX)
            {
                continue;
            }
            let fault = (note.action == FORK).then(|| fork(router, &note.detail));
            let first = match fault {
                Some(_) => before.and_then(|before| before.first),
                None => note.detail.strip_prefix(KEPT_FROM).and_then(|first| first.parse().ok()),
            };
            let seen = Seen { router: router.to_owned(), head: Head { seq, hash }, at_unix_ms: *at_unix_ms, fault };
            witness.known.insert(router.to_owned(), Known { seen, first, written: None });
        }
        witness
    }

    /// The entry for which a router is to be asked; 0 where nothing is known of its log.
    pub fn last_seq(&self, router: &str) -> u64 {
        self.known.get(router).map_or(0, |known| known.seen.head.seq)
    }

    /// What is known.
    pub fn seen(&self) -> impl Iterator<Item = &Seen> {
        self.known.values().map(|known| &known.seen)
    }

    /// Takes what a router says of its log; what of it is to be written to the own log.
    pub fn hear(&mut self, router: &str, testimony: &Testimony, now_unix_ms: u64) -> Option<Note> {
        if !self.known.contains_key(router) && self.known.len() >= ROUTERS_MAX {
            return None;
        }
        let says = testimony;
        let before = self.known.get(router);
        let fault = before.and_then(|before| before.contradiction(says));
        let known = before.and_then(|before| before.seen.fault.clone());
        let is_news = fault.is_some() && known.is_none();
        // Once it has contradicted itself, what it said first is kept: that is the evidence.
        let (kept, first) = match before {
            Some(before) if fault.is_some() || known.is_some() => (before.seen.head, before.first),
            _ => (says.head, says.prev.map(|_| says.first)),
        };
        let written = before.and_then(|before| before.written);
        // Its router is of a version before from now on: a witness that starts anew is not to want of it what that one does
        // not prove.
        let proves_no_more = before.is_some_and(|before| before.first.is_some()) && first.is_none();
        let is_due = written.is_none_or(|written| {
            let is_new = before.is_none_or(|before| before.seen.head != kept);
            proves_no_more || (is_new && now_unix_ms.saturating_sub(written) >= WRITTEN_EVERY_MS)
        });
        let note = match &fault {
            Some(fault) if is_news => {
                let mut note = Note::new(Kind::Alarm, "-", FORK, "alarm");
                (note.subject, note.digest) = (format!("{router}#{}", kept.seq), Some(kept.hash));
                note.detail = format!("{FORK_OF}{router}: {fault}");
                Some(note)
            }
            None if is_due && known.is_none() => {
                let mut note = Note::new(Kind::Witness, "-", "seen", "ok");
                (note.subject, note.digest) = (format!("{router}#{}", kept.seq), Some(kept.hash));
                note.detail = first.map(|first| format!("{KEPT_FROM}{first}")).unwrap_or_default();
                Some(note)
            }
            _ => None,
        };
        let seen = Seen { router: router.to_owned(), head: kept, at_unix_ms: now_unix_ms, fault: known.or(fault) };
        let written = if note.is_some() { Some(now_unix_ms) } else { written };
        self.known.insert(router.to_owned(), Known { seen, first, written });
        note
    }
}

/// The entries by which a witness remembers, of all `lines` of its own log: of each router what it was seen to end with
/// last, then its first fork. The log may be many megabytes: only lines are read which may be some.
///
/// # Errors
/// When a line cannot be read.
pub(super) fn remembered(lines: impl Iterator<Item = io::Result<String>>) -> io::Result<Vec<Entry>> {
    let mut entries = BTreeMap::new();
    for line in lines {
        let line = line?;
        if line.contains("\"witness\"") || line.contains(FORK) {
            // One that somebody else has written is for `verify` to tell.
            let Some(entry) = read(&line).ok().filter(|entry| is_memory(&entry.note)) else { continue };
            let Some((router, _)) = entry.note.subject.rsplit_once('#') else { continue };
            let place = (router.to_owned(), entry.note.kind);
            match entry.note.kind {
                Kind::Alarm => drop(entries.entry(place).or_insert(entry)),
                _ => drop(entries.insert(place, entry)),
            }
        }
    }
    Ok(entries.into_values().collect())
}

fn is_memory(note: &Note) -> bool {
    note.kind == Kind::Witness || (note.kind == Kind::Alarm && note.action == FORK)
}

/// How a log contradicted itself, as the entry of that says.
fn fork(router: &str, detail: &str) -> String {
    let told = detail.strip_prefix(FORK_OF).and_then(|rest| rest.strip_prefix(router)?.strip_prefix(": "));
    told.unwrap_or(detail).to_owned()
}

impl Known {
    /// How a log contradicts what was seen of it.
    fn contradiction(&self, says: &Testimony) -> Option<String> {
        let before = &self.seen.head;
        if before.seq == 0 {
            return None;
        }
        if says.head.seq < before.seq {
            return Some(format!("it ended with entry {} and ends with entry {} now", before.seq, says.head.seq));
        }
        match says.then {
            Some(hash) if hash != before.hash => Some(format!("entry {} is another than it was", before.seq)),
            None if before.seq >= says.first => {
                Some(format!("entry {} is gone, though it keeps those from {} on", before.seq, says.first))
            }
            _ => self.cut(says),
        }
    }

    /// How the beginning of a log is gone, where it has not gone for its age. Of a router that did not say then, or does
    /// not now, why older entries go, nothing can be said: it is of a version before.
    fn cut(&self, says: &Testimony) -> Option<String> {
        let (first, prev, before) = (says.first, says.prev?, &self.seen.head);
        if first == before.seq + 1 && prev != before.hash {
            return Some(format!("entry {first} was written after another entry {} than there was", before.seq));
        }
        let is_proven = self.first? >= first || says.retired.is_some_and(|upto| upto.lets_begin(first, prev));
        (!is_proven).then(|| {
            format!("entries up to {} are gone, and no entry says that they were given up for their age", first - 1)
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::*;

    fn entry(note: Note) -> Entry {
        Entry { seq: 1, at_unix_ms: 7, note, prev: Digest::ZERO }
    }

    fn head(seq: u64, text: &str) -> Head {
        Head { seq, hash: Digest::of(text.as_bytes()) }
    }

    /// A router of the version before, which does not prove why entries go.
    fn says(first: u64, now: Head, then: Option<&str>) -> Testimony {
        let then = then.map(|text| Digest::of(text.as_bytes()));
        Testimony { first, head: now, then, prev: None, retired: None }
    }

    /// The first entry is kept that was written after `prev`, and what says that the others were given up.
    fn begins(after: Head, now: Head, then: Option<&str>, retired: Option<Head>) -> Testimony {
        Testimony { prev: Some(after.hash), retired, ..says(after.seq + 1, now, then) }
    }

    fn fault(before: Head, said: Testimony) -> Option<String> {
        let mut witness = Witness::default();
        assert_eq!(witness.hear("eu/r1", &says(1, before, None), 1).unwrap().kind, Kind::Witness);
        let note = witness.hear("eu/r1", &said, 2);
        let seen = witness.seen().next().unwrap().clone();
        assert_eq!(note.is_some_and(|note| note.kind == Kind::Alarm), seen.fault.is_some());
        if seen.fault.is_some() {
            assert_eq!(seen.head, before, "the evidence is kept");
            assert!(witness.hear("eu/r1", &said, 3).is_none(), "told once");
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

    /// What is found of a log that began with entry 1 and ended with entry 100, by one that has seen that itself, and by
    /// one that has it from its own log.
    fn cut(says: &Testimony) -> Option<String> {
        let mut witness = Witness::default();
        let note = witness.hear("eu/r1", &begins(Head::default(), head(100, "100"), None, None), 1).unwrap();
        let mut recalled = Witness::recall(&[entry(note)]);
        let [found, again] = [&mut witness, &mut recalled].map(|witness| {
            witness.hear("eu/r1", says, 2);
            witness.seen().next().unwrap().fault.clone()
        });
        assert_eq!(found, again);
        found
    }

    #[test]
    fn a_log_without_its_beginning_needs_an_entry_that_says_why() {
        let (end, now, other) = (head(100, "100"), head(120, "now"), head(100, "other"));
        // All before one line is gone.
        assert!(cut(&begins(other, now, None, None)).unwrap().contains("after another entry 100"));
        assert!(cut(&begins(other, now, None, Some(other))).unwrap().contains("after another entry 100"));
        assert!(cut(&begins(end, now, None, None)).unwrap().contains("entries up to 100 are gone"));
        assert!(cut(&begins(head(110, "110"), now, None, None)).unwrap().contains("entries up to 110 are gone"));
        assert!(cut(&begins(head(110, "110"), now, None, Some(end))).unwrap().contains("up to 110"), "one of before");
        assert!(cut(&begins(head(110, "110"), now, None, Some(head(110, "x")))).is_some(), "of another entry");
        // The entry that was seen is kept, and older ones are gone.
        assert!(cut(&begins(head(50, "50"), now, Some("100"), None)).unwrap().contains("up to 50"));
        // For its age, as an entry says.
        assert_eq!(cut(&begins(end, now, None, Some(end))), None);
        assert_eq!(cut(&begins(head(50, "50"), now, Some("100"), Some(head(50, "50")))), None);
        assert_eq!(cut(&begins(head(50, "50"), now, Some("100"), Some(head(90, "90")))), None, "not removed yet");
        assert_eq!(cut(&begins(Head::default(), now, Some("100"), Some(head(50, "50")))), None);
    }

    #[test]
    fn a_router_that_was_of_a_version_before_for_a_while_is_no_alarm_for_a_witness_that_started_anew() {
        let mut witness = Witness::default();
        let seen = witness.hear("eu/r1", &begins(Head::default(), head(100, "100"), None, None), 1);
        // Within the hour it is of the version before, which gives its beginning up without a word.
        let older = witness.hear("eu/r1", &says(1, head(110, "110"), Some("100")), 2);
        assert!(witness.hear("eu/r1", &says(1, head(111, "111"), Some("110")), 3).is_none(), "once");
        let notes: Vec<_> = [seen, older].into_iter().flatten().map(entry).collect();
        let mut again = Witness::recall(&notes);
        let newer = begins(head(105, "105"), head(120, "120"), Some("110"), None);
        let told = again.hear("eu/r1", &newer, 4).map(|note| note.kind);
        assert_eq!(told, Some(Kind::Witness), "{:?}", again.seen().next());
        let cut = begins(head(115, "115"), head(130, "130"), Some("120"), None);
        assert_eq!(again.hear("eu/r1", &cut, 5).map(|note| note.kind), Some(Kind::Alarm), "it proves from then on");
    }

    #[test]
    fn a_log_that_was_given_up_by_a_version_before_is_no_alarm() {
        let mut witness = Witness::default();
        let mut hear = |says: Testimony| witness.hear("eu/r1", &says, 1).is_some_and(|note| note.kind == Kind::Alarm);
        // The version before has given up its beginning; then the router is of this one.
        assert!(!hear(says(1, head(100, "100"), None)) && !hear(says(150, head(300, "300"), None)));
        assert!(!hear(begins(head(200, "200"), head(310, "310"), Some("300"), None)));
        assert!(!hear(begins(head(200, "200"), head(320, "320"), Some("310"), None)), "nor later");
        let upto = head(330, "330");
        assert!(!hear(begins(upto, head(340, "340"), None, Some(upto))));
        assert!(hear(begins(head(339, "339"), head(350, "350"), Some("340"), Some(upto))), "it proves from then on");
        let said = serde_json::to_value(says(1, head(1, "1"), None)).unwrap();
        assert_eq!(said.as_object().unwrap().len(), 3, "what the version before reads");
        assert_eq!(serde_json::from_value::<Testimony>(said).unwrap(), says(1, head(1, "1"), None));
    }

    #[test]
    fn what_was_written_to_the_own_log_is_remembered_after_a_restart() {
        let mut witness = Witness::default();
        let note = witness.hear("eu/r1", &says(1, head(7, "seven"), None), 10).unwrap();
        assert!(witness.hear("eu/r1", &says(1, head(8, "eight"), Some("seven")), 11).is_none(), "not every minute");
        let later = says(1, head(9, "nine"), Some("eight"));
        assert!(witness.hear("eu/r1", &later, 10 + WRITTEN_EVERY_MS).is_some());
        let mut witness = Witness::recall(&[entry(note)]);
        assert_eq!(witness.last_seq("eu/r1"), 7);
        let forged = says(1, head(9, "nine"), Some("other"));
        assert_eq!(witness.hear("eu/r1", &forged, 1).unwrap().kind, Kind::Alarm);
    }

    #[test]
    fn a_log_that_contradicted_itself_still_does_after_a_restart_of_the_witness() {
        let mut witness = Witness::default();
        let hear = |witness: &mut Witness, said| witness.hear("eu/r1", &said, 10);
        let seen = hear(&mut witness, says(1, head(5, "five"), None)).unwrap();
        assert!(hear(&mut witness, says(1, head(16, "sixteen"), Some("five"))).is_none());
        let fork = hear(&mut witness, says(1, head(15, "fifteen"), None)).unwrap();
        // What a witness of a version before went on to write, which did not know better.
        let later = Note { subject: "eu/r1#15".to_owned(), digest: Some(head(15, "fifteen").hash), ..seen.clone() };

        let mut again = Witness::recall(&[seen, fork, later].map(entry));
        let expected = Seen { at_unix_ms: 7, ..witness.seen().next().unwrap().clone() };
        assert_eq!(expected.fault.as_deref(), Some("it ended with entry 16 and ends with entry 15 now"));
        assert_eq!(again.seen().next(), Some(&expected));
        // The log goes on as if nothing was: it is neither told anew nor forgotten.
        assert!(hear(&mut again, says(1, head(20, "twenty"), Some("fifteen"))).is_none());
        let known = again.seen().next().unwrap();
        assert_eq!((known.head, &known.fault), (head(16, "sixteen"), &expected.fault));
    }

    #[test]
    fn what_is_remembered_is_found_in_the_whole_of_the_log() {
        let mut witness = Witness::default();
        let seen = witness.hear("eu/r1", &says(1, head(7, "seven"), None), 1).unwrap();
        let fork = witness.hear("eu/r1", &says(1, head(3, "three"), None), 2).unwrap();
        let mut other = Note::new(Kind::Admin, "audit-fork", "GET /v1/audit", "ok");
        other.detail = "\"witness\"".to_owned();
        let mut at = Head::default();
        let older = Note { subject: "eu/r1#2".to_owned(), ..seen.clone() };
        let lines = [older, seen.clone(), other, fork.clone(), Note { subject: "eu/r1#9".to_owned(), ..fork.clone() }]
            .map(|note| {
                let (next, line) = at.next(note, 7);
                at = next;
                Ok(line)
            });
        let found = remembered(lines.into_iter().chain([Ok("\"witness\" in no entry".to_owned())])).unwrap();
        assert_eq!(found.into_iter().map(|entry| entry.note).collect::<Vec<_>>(), [seen, fork]);
    }
}
