//! What happens often is counted together: reads by dashboards, what strangers are refused, what policies deny.
//!
//! The first of a sort is told at once; while more of it come, one entry a window tells how many. A sort that was told keeps
//! its place for a window, and there are so many places: that bounds what the log takes, whoever asks for whatever.

use super::chain::{Kind, Note};
use myelin_policy::Action;
use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Of callers that were let in: as many as the dashboards and scripts of a team read in a minute.
const READS: Bounds = Bounds { sorts_max: 1_024, window: Duration::from_secs(60) };
/// Of those that were not: 33 entries in ten minutes are less than 3 MB a day, so that whoever knocks takes weeks to fill
/// a log of 64 MiB.
const STRANGERS: Bounds = Bounds { sorts_max: 32, window: Duration::from_secs(600) };
/// Services, for each action: more that are denied at a time have a cause in common. What comes after the first is told
/// within seconds.
const DENIALS: Bounds = Bounds { sorts_max: 32, window: Duration::from_secs(10) };
/// What stands for several.
const SEVERAL: &str = "*";

/// How much is told: one entry more than there are sorts in any window.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    /// Sorts that are told apart; those beyond are one.
    sorts_max: usize,
    /// How long the same is counted together.
    window: Duration,
}

/// All that is counted. Whoever counts never waits for the disk, and takes no place in the queue of what is written.
#[derive(Debug)]
pub(super) struct Counts {
    requests: Mutex<[Counted<Same>; 2]>,
    /// By action, then service. Workers count here, one denied event after the other.
    denials: Mutex<[Counted<Box<str>>; Action::ALL.len()]>,
    /// Something is to be told at once.
    pub(super) fresh: Notify,
}

impl Default for Counts {
    fn default() -> Self {
        let requests = [(READS, SEVERAL), (STRANGERS, "-")];
        let requests = requests.map(|(bounds, actor)| Counted::new(bounds, several(Kind::Admin, actor, SEVERAL)));
        let denials = Action::ALL.map(|action| Counted::new(DENIALS, several(Kind::Denial, SEVERAL, action.name())));
        Self { requests: Mutex::new(requests), denials: Mutex::new(denials), fresh: Notify::new() }
    }
}

fn several(kind: Kind, actor: &str, action: &str) -> Note {
    let mut note = Note::new(kind, actor, action, if kind == Kind::Denial { DENIED } else { SEVERAL });
    note.subject = SEVERAL.to_owned();
    note
}

/// The result of what policies deny.
const DENIED: &str = "forbidden";

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Counts {
    /// Counts a request: of a caller that was let in, or of a stranger.
    pub(super) fn request(&self, note: Note, is_let_in: bool) {
        let Note { kind, actor, from, action, result, .. } = note.clone();
        let same = Same { kind, actor, from, action, result };
        let is_fresh = lock(&self.requests)[usize::from(!is_let_in)].add(same, note, Instant::now());
        self.tell(is_fresh);
    }

    /// Counts what a service was denied. Allocates only where the service or the moment is a new one.
    pub(super) fn denial(&self, service: &str, action: Action, topic: &str) {
        let mut denials = lock(&self.denials);
        let counted = &mut denials[action as usize];
        if counted.count_known(service) {
            return;
        }
        let mut note = Note::new(Kind::Denial, service, action.name(), DENIED);
        note.subject = topic.to_owned();
        let is_fresh = counted.add(service.into(), note, Instant::now());
        drop(denials);
        self.tell(is_fresh);
    }

    fn tell(&self, is_fresh: bool) {
        if is_fresh {
            self.fresh.notify_one();
        }
    }

    /// When something is to be told next.
    pub(super) fn due(&self) -> Option<Instant> {
        let requests = lock(&self.requests).iter().filter_map(Counted::due).min();
        let denials = lock(&self.denials).iter().filter_map(Counted::due).min();
        requests.into_iter().chain(denials).min()
    }

    /// What is to be told by `now`; all of it at the end.
    pub(super) fn take(&self, now: Option<Instant>) -> Vec<Note> {
        let mut told: Vec<Note> = lock(&self.requests).iter_mut().flat_map(|counted| counted.take(now)).collect();
        told.extend(lock(&self.denials).iter_mut().flat_map(|counted| counted.take(now)));
        told
    }
}

/// What makes two requests the same: all but their number and the path. The action has the route: whoever reads a thousand
/// things by one route, as a plan of everything does, is told once with the first of them, and pushes nothing out of the log.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Same {
    kind: Kind,
    actor: String,
    from: Option<String>,
    action: String,
    result: String,
}

/// What is counted of one sort.
#[derive(Debug)]
struct Sort {
    /// With the number of those that are not told yet.
    note: Note,
    /// When they are told; where there are none, the sort is forgotten then.
    due: Instant,
}

/// Notes that are being counted: pure, time passed in.
#[derive(Debug)]
struct Counted<K> {
    bounds: Bounds,
    sorts: BTreeMap<K, Sort>,
    /// All for which there is no place.
    rest: Option<Sort>,
    /// What is told of them.
    several: Note,
}

impl<K: Ord> Counted<K> {
    fn new(bounds: Bounds, several: Note) -> Self {
        Self { bounds, sorts: BTreeMap::new(), rest: None, several }
    }

    /// Counts one of a sort of which something is waiting to be told already, or for which there is no place; `false`
    /// where it needs a note.
    fn count_known<Q: Ord + ?Sized>(&mut self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        let is_full = self.sorts.len() >= self.bounds.sorts_max;
        let sort = match self.sorts.get_mut(key) {
            None if is_full => self.rest.as_mut(),
            known => known,
        };
        // Of the first after a silence the note says what it was about.
        match sort.filter(|sort| sort.note.count > 0) {
            Some(sort) => {
                sort.note.count += 1;
                true
            }
            None => false,
        }
    }

    /// Counts a note; `true` where it is to be told at once.
    fn add(&mut self, key: K, note: Note, now: Instant) -> bool {
        if let Some(sort) = self.sorts.get_mut(&key) {
            match sort.note.count {
                0 => sort.note = note,
                // What the first of them was about is told.
                _ => sort.note.count += note.count,
            }
            return false;
        }
        if self.sorts.len() < self.bounds.sorts_max {
            self.sorts.insert(key, Sort { note, due: now });
            return true;
        }
        let (count, before) = (note.count, self.rest.as_ref());
        let due = before.map_or(now, |rest| rest.due);
        let told = before.map_or(0, |rest| rest.note.count);
        let detail =
            format!("more than {} sorts at a time; one is {} {}", self.bounds.sorts_max, note.actor, note.subject);
        let is_first = before.is_none();
        self.rest = Some(Sort { note: Note { count: told + count, detail, ..self.several.clone() }, due });
        is_first
    }

    fn due(&self) -> Option<Instant> {
        self.sorts.values().chain(&self.rest).map(|sort| sort.due).min()
    }

    fn take(&mut self, now: Option<Instant>) -> Vec<Note> {
        let (mut told, window) = (Vec::new(), self.bounds.window);
        let mut tell = |sort: &mut Sort| {
            if now.is_some_and(|now| now < sort.due) {
                return true;
            }
            if sort.note.count == 0 {
                return false;
            }
            told.push(sort.note.clone());
            sort.note.count = 0;
            sort.due = now.map_or(sort.due, |now| now + window);
            true
        };
        self.sorts.retain(|_, sort| tell(sort));
        self.rest.take_if(|rest| !tell(rest));
        told
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::*;

    const TWO: Bounds = Bounds { sorts_max: 2, window: Duration::from_secs(60) };

    fn read(actor: &str) -> Note {
        Note::new(Kind::Admin, actor, "GET /v1/modules", "ok")
    }

    fn counted() -> Counted<Box<str>> {
        Counted::new(TWO, several(Kind::Admin, "*", "*"))
    }

    fn told(counted: &mut Counted<Box<str>>, now: Instant) -> Vec<(String, u64)> {
        counted.take(Some(now)).into_iter().map(|note| (note.actor, note.count)).collect()
    }

    #[test]
    fn the_first_is_told_at_once_and_while_more_come_one_entry_a_window() {
        let (mut counted, begin) = (counted(), Instant::now());
        assert!(counted.add("a".into(), read("a"), begin));
        assert_eq!((counted.due(), told(&mut counted, begin)), (Some(begin), vec![("a".into(), 1)]));
        assert!(!counted.count_known("a"), "its note says what it is about");
        assert!(!counted.add("a".into(), read("a"), begin));
        assert!((0..8).all(|_| counted.count_known("a")));
        assert!(counted.add("b".into(), read("b"), begin), "somebody else's are others");
        assert_eq!(told(&mut counted, begin), [("b".into(), 1)]);
        let (next, last) = (begin + TWO.window, begin + 3 * TWO.window);
        assert_eq!((counted.due(), told(&mut counted, next)), (Some(next), vec![("a".into(), 9)]));
        assert!(!counted.add("a".into(), read("a"), next), "it goes on");
        assert_eq!(told(&mut counted, next + TWO.window), [("a".into(), 1)]);
        assert!(told(&mut counted, last).is_empty());
        assert_eq!(counted.due(), None);
        assert!(counted.add("a".into(), read("a"), last), "at once again after a silence");
        assert_eq!(counted.take(None).len(), 1, "all at the end");
    }

    #[test]
    fn more_sorts_than_there_is_room_for_are_one() {
        let (mut counted, begin) = (counted(), Instant::now());
        let mut entries = 0;
        // Ten a second, each another one, for ten windows.
        for number in 0..6_000_u32 {
            let now = begin + Duration::from_millis(100) * number;
            if !counted.count_known(&*number.to_string()) {
                counted.add(number.to_string().into(), read(&number.to_string()), now);
            }
            entries += told(&mut counted, now).len();
        }
        assert!(entries <= 11 * (TWO.sorts_max + 1), "{entries}");
        let (mut counted, mut sum) = (self::counted(), 0);
        for number in 0..1_000 {
            counted.add(number.to_string().into(), read("x"), begin);
        }
        for note in counted.take(None) {
            sum += note.count;
            assert!(note.actor == "x" || (note.detail.contains("more than 2 sorts") && note.result == "*"), "{note:?}");
        }
        assert_eq!(sum, 1_000, "none is lost");
    }

    #[test]
    fn a_plan_that_reads_a_thousand_things_is_an_entry_or_two() {
        let counts = Counts::default();
        let read = |action: &str, path: String, result: &str| {
            let mut note = Note::new(Kind::Admin, "ops", action, result);
            (note.from, note.subject) = (Some("10.0.0.7".into()), path);
            counts.request(note, true);
        };
        let route = "GET /registry/subjects/{subject}/versions/{version}";
        for number in 0..1_500 {
            read(route, format!("/registry/subjects/s{number}/versions/1"), "ok");
            if number == 0 {
                assert_eq!(counts.take(Some(Instant::now())).len(), 1, "the first at once");
            }
        }
        read(route, "/registry/subjects/none/versions/1".into(), "subject-not-found");
        read("GET /v1/status", "/v1/status".into(), "ok");
        let told = counts.take(None).into_iter().map(|note| (note.action, note.subject, note.result, note.count));
        let entry =
            |action: &str, subject: &str, result: &str, count| (action.into(), subject.into(), result.into(), count);
        assert_eq!(
            told.collect::<Vec<(String, String, String, u64)>>(),
            [
                entry(route, "/registry/subjects/s1/versions/1", "ok", 1_499),
                entry(route, "/registry/subjects/none/versions/1", "subject-not-found", 1),
                entry("GET /v1/status", "/v1/status", "ok", 1),
            ]
        );
    }

    #[test]
    fn denials_are_told_by_service_and_action_and_none_is_forgotten() {
        let counts = Counts::default();
        for (service, action, times) in
            [("a", Action::Publish, 1_000), ("b", Action::Publish, 3), ("a", Action::Subscribe, 2)]
        {
            (0..times).for_each(|_| counts.denial(service, action, "orders/1"));
        }
        let of = |notes: Vec<Note>| -> Vec<_> {
            notes.into_iter().map(|note| (note.actor, note.action, note.subject, note.count)).collect()
        };
        let begin = counts.due().unwrap();
        let entry = |service: &str, action: &str, count| (service.into(), action.into(), "orders/1".into(), count);
        let told = of(counts.take(Some(Instant::now())));
        assert_eq!(told, [entry("a", "publish", 1_000), entry("b", "publish", 3), entry("a", "subscribe", 2)]);
        // A burst after the first was told, and then nobody denies anything any more.
        (0..1_000).for_each(|_| counts.denial("b", Action::Publish, "orders/1"));
        assert!(counts.due().unwrap() <= Instant::now() + DENIALS.window && begin <= counts.due().unwrap());
        assert_eq!(of(counts.take(Some(Instant::now() + DENIALS.window))), [entry("b", "publish", 1_000)]);
        for number in 0..2 * DENIALS.sorts_max {
            counts.denial(&format!("c{number}"), Action::Request, "orders/1");
        }
        let told = counts.take(None);
        assert_eq!((told.len(), told.iter().map(|note| note.count).sum::<u64>()), (DENIALS.sorts_max + 1, 64));
        assert!(told.last().is_some_and(|note| (&*note.actor, &*note.action) == ("*", "request")), "{told:?}");
    }
}
