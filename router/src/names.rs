//! Names: the topics and identities that a worker refers to by number on its delivery streams.
//!
//! A reference is router-wide, `worker << 16 | slot`, so that every session of every worker can be handed the same
//! encoded bytes. A worker has 65,536 slots and uses them again in turn when there are more names; `version` tells a
//! session whether it announced this meaning of a reference or an older one.

use hashbrown::HashMap;
use std::sync::Arc;

/// Prefix of the topics on which sessions receive answers: `$inbox/ROUTER/SESSION/..`, where ROUTER is the hexadecimal
/// number of the router that the session is at, and SESSION is random and ends with `:TENANT` where it is of one. A
/// router tells other sites once that it wants all of its own, so that an answer finds its way however young the session
/// is.
pub const INBOX: &str = "$inbox/";

/// Names that one worker tells apart at a time. Bounds the worker's memory and every client's table.
pub const NAMES_PER_WORKER: u32 = 65_536;

/// One name as it is announced.
#[derive(Debug, PartialEq, Eq)]
pub struct Name {
    /// The number that stands for it.
    pub reference: u32,
    /// How often the number was given a new meaning before.
    pub version: u32,
    /// What it stands for.
    pub text: Arc<str>,
}

/// Gives out numbers for names.
#[derive(Debug)]
pub struct Names<T> {
    worker: u8,
    next: u32,
    version: u32,
    known: HashMap<Arc<str>, T, foldhash::fast::RandomState>,
    slots: Vec<Arc<str>>,
}

impl<T: Clone> Names<T> {
    /// No names yet. `worker` is the number of the worker that gives them out.
    pub fn new(worker: u8) -> Self {
        Self { worker, next: 1, version: 0, known: HashMap::default(), slots: vec![Arc::from("")] }
    }

    /// The value kept for `text`; a new name gets a number and the value that `make` gives for it.
    pub fn intern(&mut self, text: &str, make: impl FnOnce(Arc<Name>) -> T) -> T {
        if let Some(value) = self.known.get(text) {
            return value.clone();
        }
        let text: Arc<str> = Arc::from(text);
        let slot = self.take_slot(&text);
        let reference = u32::from(self.worker) << 16 | slot;
        let value = make(Arc::new(Name { reference, version: self.version, text: text.clone() }));
        self.known.insert(text, value.clone());
        value
    }

    /// The next slot in turn; whatever had it is forgotten here (a publisher that still holds it goes on with it).
    fn take_slot(&mut self, text: &Arc<str>) -> u32 {
        // Slot 0 of worker 0 would be reference 0, which means the router itself.
        if self.next == NAMES_PER_WORKER {
            self.next = 1;
            self.version += 1;
        }
        let slot = self.next;
        self.next += 1;
        match self.slots.get_mut(slot as usize) {
            Some(old) => drop(self.known.remove(&std::mem::replace(old, text.clone()))),
            None => self.slots.push(text.clone()),
        }
        slot
    }
}

/// What one session announced on its delivery stream.
#[derive(Debug, Default)]
pub struct Announced {
    /// Per worker, per slot: version + 1 of the announced meaning; 0 = none.
    workers: Vec<Vec<u32>>,
}

impl Announced {
    /// Whether `name` must be announced before it is used; it counts as announced from here on.
    pub fn is_news(&mut self, name: &Name) -> bool {
        let (worker, slot) = ((name.reference >> 16) as usize, (name.reference & 0xffff) as usize);
        if self.workers.len() <= worker {
            self.workers.resize_with(worker + 1, Vec::new);
        }
        let slots = &mut self.workers[worker];
        if slots.len() <= slot {
            slots.resize(slot + 1, 0);
        }
        let known = name.version.wrapping_add(1);
        std::mem::replace(&mut slots[slot], known) != known
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_keeps_its_number_and_is_announced_once() {
        let mut names = Names::new(2);
        let first = names.intern("a/b", |name| name);
        assert_eq!(names.intern("a/b", |name| name), first);
        assert_eq!(first.reference, 2 << 16 | 1);
        let mut announced = Announced::default();
        assert!(announced.is_news(&first) && !announced.is_news(&first));
    }

    #[test]
    fn a_used_slot_is_news_again() {
        let mut names = Names::new(0);
        let first = names.intern("0", |name| name);
        let mut announced = Announced::default();
        announced.is_news(&first);
        for number in 1..NAMES_PER_WORKER {
            names.intern(&number.to_string(), |name| name);
        }
        let again = names.intern("65535", |name| name);
        assert_eq!((again.reference, again.version), (first.reference, 1));
        assert!(announced.is_news(&again) && announced.is_news(&first), "both meanings are told apart");
        assert_eq!(names.known.len(), NAMES_PER_WORKER as usize - 1);
    }
}
