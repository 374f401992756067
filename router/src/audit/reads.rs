//! What happens often is counted together: reads by dashboards, refusals of one client.

use super::chain::{Kind, Note};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// How long the same is counted together.
pub(super) const WINDOW: Duration = Duration::from_secs(60);
/// Different notes that are being counted; more of them are written at once.
const COUNTED_MAX: usize = 1_024;

/// What makes two notes the same: all but their number.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Same {
    kind: Kind,
    actor: String,
    from: Option<String>,
    action: String,
    subject: String,
    result: String,
}

/// Notes that are being counted.
#[derive(Debug, Default)]
pub(super) struct Counted {
    counts: BTreeMap<Same, (Note, Instant)>,
}

impl Counted {
    /// Counts a note. The first of its sort is to be written at once; the others wait for the end of their window.
    pub(super) fn add(&mut self, note: Note, now: Instant) -> Option<Note> {
        let Note { kind, actor, from, action, subject, result, .. } = note.clone();
        let same = Same { kind, actor, from, action, subject, result };
        if let Some((counted, _)) = self.counts.get_mut(&same) {
            counted.count += note.count;
            counted.detail = note.detail;
            return None;
        }
        if self.counts.len() < COUNTED_MAX {
            self.counts.insert(same, (Note { count: 0, ..note.clone() }, now + WINDOW));
        }
        Some(note)
    }

    /// When the next window ends.
    pub(super) fn due(&self) -> Option<Instant> {
        self.counts.values().map(|(_, until)| *until).min()
    }

    /// What was counted in windows that have ended; in all of them at the end.
    pub(super) fn take(&mut self, now: Option<Instant>) -> Vec<Note> {
        let ended = self.counts.extract_if(.., |_, (_, until)| now.is_none_or(|now| *until <= now));
        ended.map(|(_, (note, _))| note).filter(|note| note.count > 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(actor: &str) -> Note {
        Note::new(Kind::Admin, actor, "GET /v1/modules", "ok")
    }

    #[test]
    fn the_first_is_written_at_once_and_the_others_of_its_minute_together() {
        let (mut counted, begin) = (Counted::default(), Instant::now());
        assert_eq!(counted.add(read("a"), begin).map(|note| note.count), Some(1));
        for _ in 0..9 {
            assert_eq!(counted.add(read("a"), begin), None);
        }
        assert!(counted.add(read("b"), begin).is_some(), "somebody else's are others");
        assert_eq!(counted.due(), Some(begin + WINDOW));
        assert!(counted.take(Some(begin)).is_empty());
        let told = counted.take(Some(begin + WINDOW));
        assert_eq!(told.iter().map(|note| (&*note.actor, note.count)).collect::<Vec<_>>(), [("a", 9)]);
        assert_eq!(counted.due(), None);
        assert!(counted.add(read("a"), begin + WINDOW).is_some(), "a new window");
    }

    #[test]
    fn more_sorts_than_there_is_room_for_are_written_one_by_one() {
        let (mut counted, begin) = (Counted::default(), Instant::now());
        for number in 0..2 * COUNTED_MAX {
            assert!(counted.add(read(&number.to_string()), begin).is_some());
        }
        assert!(counted.add(read("0"), begin).is_none() && counted.add(read("2000"), begin).is_some());
        assert_eq!(counted.take(None).len(), 1);
    }
}
