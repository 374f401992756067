//! What happens often is counted together: reads by dashboards, what strangers are refused, what policies deny.
//!
//! The first of a sort is told at once; while more of it come, one entry a window tells how many. A sort that was told keeps
//! its place for a window, and there are so many places: that bounds what the log takes, whoever asks for whatever. Denials
//! are bounded by more than that, for any client may make them: while the same goes on its windows grow, and all of them
//! share a budget. What the budget has no room for is told later, with all that has come meanwhile: no count is lost.

use super::chain::{Kind, Note};
use myelin_policy::Action;
use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Of callers that were let in: as many as the dashboards and scripts of a team read in a minute.
const READS: Bounds = Bounds::fixed(1_024, Duration::from_secs(60));
/// Of those that were not: 33 entries in ten minutes are less than 3 MB a day, so that whoever knocks takes weeks to fill
/// a log of 64 MiB.
const STRANGERS: Bounds = Bounds::fixed(32, Duration::from_secs(600));
/// Services, for each action: more that are denied at a time have a cause in common. What comes after the first is told
/// within seconds, what goes on for hours once an hour: some sixty entries a day for a service and an action, whatever pauses
/// it makes.
const DENIALS: Bounds = Bounds {
    sorts_max: 256,
    window: Duration::from_secs(10),
    doublings: 9,
    window_max: Duration::from_secs(3_600),
    pause: Duration::from_secs(3_600),
};
/// Entries about denials, of all services and actions together: 2,880 a day and those of a full budget, of less than 900
/// bytes each, are less than 3 MB a day. It takes more than ten services that are denied everything without an end to use it
/// up.
const DENIALS_BUDGET: Budget =
    Budget { every: Duration::from_secs(30), full: 256, for_firsts: 128, regained_in: Duration::ZERO, at: None };
/// Bytes of a topic in an entry about denials: it says where to look, and is the client's to choose.
const TOPIC_BYTES_MAX: usize = 64;
/// What stands for several.
const SEVERAL: &str = "*";

/// How much is told: one entry more than there are sorts in any window.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    /// Sorts that are told apart; those beyond are one.
    sorts_max: usize,
    /// How long the same is counted together after its first.
    window: Duration,
    /// How often that is doubled while it goes on.
    doublings: u32,
    /// The longest window.
    window_max: Duration,
    /// How long nothing of a sort comes before a doubling is taken back; after the last one it is forgotten.
    pause: Duration,
}

impl Bounds {
    const fn fixed(sorts_max: usize, window: Duration) -> Self {
        Self { sorts_max, window, doublings: 0, window_max: window, pause: Duration::ZERO }
    }

    fn window(&self, doublings: u32) -> Duration {
        self.window.saturating_mul(1 << doublings.min(self.doublings)).min(self.window_max)
    }
}

/// How many entries there may be: pure, time passed in.
#[derive(Clone, Copy, Debug)]
struct Budget {
    /// One is regained in that time.
    every: Duration,
    /// As many are there at most.
    full: u32,
    /// So many of them are for sorts of which nothing was told yet: what goes on does not hide what begins.
    for_firsts: u32,
    /// When it is full again, counted from `at`.
    regained_in: Duration,
    at: Option<Instant>,
}

impl Budget {
    /// How long after `now` an entry has to wait.
    fn wait(&self, now: Instant, is_first: bool) -> Duration {
        let mine = if is_first { self.full } else { self.full.saturating_sub(self.for_firsts) };
        self.owed(now).saturating_sub(self.every * mine.saturating_sub(1))
    }

    fn owed(&self, now: Instant) -> Duration {
        self.at.map_or(Duration::ZERO, |at| self.regained_in.saturating_sub(now.saturating_duration_since(at)))
    }

    /// Whether there may be an entry now; it is paid for.
    fn pay(&mut self, now: Instant, is_first: bool) -> bool {
        let may = self.wait(now, is_first).is_zero();
        if may {
            (self.regained_in, self.at) = (self.owed(now) + self.every, Some(now));
        }
        may
    }
}

/// All that is counted. Whoever counts never waits for the disk, and takes no place in the queue of what is written.
#[derive(Debug)]
pub(super) struct Counts {
    requests: Mutex<[Counted<Same>; 2]>,
    /// Workers count here, one denied event after the other.
    denials: Mutex<Denied>,
    /// Something is to be told at once.
    pub(super) fresh: Notify,
}

/// What policies deny, by action, then service.
#[derive(Debug)]
struct Denied {
    by_action: [Counted<Box<str>>; Action::ALL.len()],
    budget: Budget,
}

impl Denied {
    fn due(&self, now: Instant) -> Option<Instant> {
        let waits = [false, true].map(|is_first| now + self.budget.wait(now, is_first));
        let due =
            |sort: &Sort| if sort.note.count == 0 { sort.due } else { sort.due.max(waits[usize::from(sort.is_first)]) };
        self.by_action.iter().flat_map(Counted::all).map(due).min()
    }

    fn take(&mut self, now: Option<Instant>) -> Vec<Note> {
        let Self { by_action, budget } = self;
        // At the end all is told: nobody but an operator ends a router.
        let mut may = |is_first| now.is_none_or(|now| budget.pay(now, is_first));
        by_action.iter_mut().flat_map(|counted| counted.take(now, &mut may)).collect()
    }
}

impl Default for Counts {
    fn default() -> Self {
        let requests = [(READS, SEVERAL), (STRANGERS, "-")];
        let requests = requests.map(|(bounds, actor)| Counted::new(bounds, several(Kind::Admin, actor, SEVERAL)));
        let by_action = Action::ALL.map(|action| Counted::new(DENIALS, several(Kind::Denial, SEVERAL, action.name())));
        let denials = Mutex::new(Denied { by_action, budget: DENIALS_BUDGET });
        Self { requests: Mutex::new(requests), denials, fresh: Notify::new() }
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
        self.denial_at(Instant::now(), service, action, topic);
    }

    fn denial_at(&self, now: Instant, service: &str, action: Action, topic: &str) {
        let mut denials = lock(&self.denials);
        let counted = &mut denials.by_action[action as usize];
        if counted.count_known(service, now) {
            return;
        }
        let mut note = Note::new(Kind::Denial, service, action.name(), DENIED);
        note.subject = match topic.floor_char_boundary(TOPIC_BYTES_MAX) {
            end if end < topic.len() => format!("{}...", &topic[..end]),
            _ => topic.to_owned(),
        };
        let is_fresh = counted.add(service.into(), note, now);
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
        self.due_after(Instant::now())
    }

    fn due_after(&self, now: Instant) -> Option<Instant> {
        let requests = lock(&self.requests).iter().flat_map(Counted::all).map(|sort| sort.due).min();
        let denials = lock(&self.denials).due(now);
        requests.into_iter().chain(denials).min()
    }

    /// What is to be told by `now`; all of it at the end.
    pub(super) fn take(&self, now: Option<Instant>) -> Vec<Note> {
        let requests = |counted: &mut Counted<Same>| counted.take(now, &mut |_| true);
        let mut told: Vec<Note> = lock(&self.requests).iter_mut().flat_map(requests).collect();
        told.extend(lock(&self.denials).take(now));
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
    /// When they are told; where there are none, a doubling is taken back then, or the sort is forgotten.
    due: Instant,
    /// Nothing of it was told yet.
    is_first: bool,
    /// Before that, nothing more of it is told.
    next: Instant,
    /// How often its window was doubled.
    doublings: u32,
}

impl Sort {
    fn new(note: Note, now: Instant) -> Self {
        Self { note, due: now, is_first: true, next: now, doublings: 0 }
    }

    /// Counts one more; `true` where something of it is to be told earlier than there was before.
    fn add(&mut self, note: Note, now: Instant) -> bool {
        if self.note.count > 0 {
            // What the first of them was about is told.
            self.note.count += note.count;
            return false;
        }
        self.note = note;
        let before = std::mem::replace(&mut self.due, self.next.max(now));
        self.due < before
    }

    /// Whether it was told and its window is over.
    fn is_idle(&self, now: Instant) -> bool {
        self.note.count == 0 && self.next <= now
    }

    /// What is due comes to pass; `false` where the sort is forgotten. Where it may not be told yet, it stays as it is.
    fn pass(
        &mut self,
        bounds: &Bounds,
        now: Option<Instant>,
        told: &mut Vec<Note>,
        may: &mut impl FnMut(bool) -> bool,
    ) -> bool {
        if self.note.count == 0 {
            let is_kept = now.is_some() && self.doublings > 0;
            self.doublings = self.doublings.saturating_sub(1);
            self.due = now.map_or(self.due, |now| now + bounds.pause);
            return is_kept;
        }
        if may(self.is_first) {
            told.push(self.note.clone());
            self.note.count = 0;
            self.is_first = false;
            self.next = now.map_or(self.next, |now| now + bounds.window(self.doublings));
            self.due = self.next + bounds.pause;
            self.doublings = bounds.doublings.min(self.doublings + 1);
        }
        true
    }
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

impl<K: Ord + Clone> Counted<K> {
    fn new(bounds: Bounds, several: Note) -> Self {
        Self { bounds, sorts: BTreeMap::new(), rest: None, several }
    }

    fn all(&self) -> impl Iterator<Item = &Sort> {
        self.sorts.values().chain(&self.rest)
    }

    /// Counts one of a sort of which something is waiting to be told already, or for which there is no place; `false`
    /// where it needs a note.
    fn count_known<Q: Ord + ?Sized>(&mut self, key: &Q, now: Instant) -> bool
    where
        K: Borrow<Q>,
    {
        let has_place = |sorts: &BTreeMap<K, Sort>| {
            sorts.len() < self.bounds.sorts_max || sorts.values().any(|sort| sort.is_idle(now))
        };
        let sort = match self.sorts.contains_key(key) {
            true => self.sorts.get_mut(key),
            false if has_place(&self.sorts) => None,
            false => self.rest.as_mut(),
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

    /// Counts a note; `true` where somebody has to look when it is to be told.
    fn add(&mut self, key: K, note: Note, now: Instant) -> bool {
        if let Some(sort) = self.sorts.get_mut(&key) {
            return sort.add(note, now);
        }
        if self.sorts.len() >= self.bounds.sorts_max {
            // Whoever begins is told apart from the others, in the place of one that is quiet.
            let idle = self.sorts.iter().filter(|(_, sort)| sort.is_idle(now));
            let least = idle.min_by_key(|(_, sort)| (sort.doublings, sort.next)).map(|(key, _)| key.clone());
            if let Some(key) = least {
                self.sorts.remove(&key);
            }
        }
        if self.sorts.len() < self.bounds.sorts_max {
            self.sorts.insert(key, Sort::new(note, now));
            return true;
        }
        let detail =
            format!("more than {} sorts at a time; one is {} {}", self.bounds.sorts_max, note.actor, note.subject);
        let note = Note { count: note.count, detail, ..self.several.clone() };
        match &mut self.rest {
            Some(rest) => rest.add(note, now),
            None => {
                self.rest = Some(Sort::new(note, now));
                true
            }
        }
    }

    /// What is due, the longest first; `may` says whether something is told, of which nothing was told yet or not.
    fn take(&mut self, now: Option<Instant>, may: &mut impl FnMut(bool) -> bool) -> Vec<Note> {
        let Self { bounds, sorts, rest, .. } = self;
        let is_due = |sort: &Sort| now.is_none_or(|now| sort.due <= now);
        let mut due: Vec<(Option<K>, &mut Sort)> =
            sorts.iter_mut().filter(|(_, sort)| is_due(sort)).map(|(key, sort)| (Some(key.clone()), sort)).collect();
        due.extend(rest.as_mut().filter(|sort| is_due(sort)).map(|sort| (None, sort)));
        due.sort_by_key(|(_, sort)| sort.due);
        let (mut told, mut forgotten) = (Vec::new(), Vec::new());
        for (key, sort) in due {
            if !sort.pass(bounds, now, &mut told, may) {
                forgotten.push(key);
            }
        }
        for key in forgotten {
            match key {
                Some(key) => drop(sorts.remove(&key)),
                None => *rest = None,
            }
        }
        told
    }
}

#[cfg(test)]
mod tests;
