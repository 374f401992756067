//! Decisions remembered, for one thread.

use crate::limits::REMEMBERED_MAX;
use crate::policies::{Policies, Verdict};
use crate::who::{Action, Place, Question, Service};
use hashbrown::HashMap;

/// What one thread remembers of a compiled set: nothing until the first decision, nothing about an empty set.
///
/// Whoever owns it calls [`forget`](Self::forget) when the set is another.
#[derive(Debug, Default)]
pub struct Decider {
    known: HashMap<Asked, Verdict, foldhash::fast::RandomState>,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Asked {
    service: Service,
    action: Action,
    topic: Box<str>,
}

/// An [`Asked`] that borrows its texts; hashes like it.
#[derive(Hash)]
struct Asking<'a> {
    service: &'a Service,
    action: Action,
    topic: &'a str,
}

impl hashbrown::Equivalent<Asked> for Asking<'_> {
    fn equivalent(&self, asked: &Asked) -> bool {
        self.action == asked.action && *self.topic == *asked.topic && *self.service == asked.service
    }
}

impl Decider {
    /// What `policies` say. The place is asked for only where nothing is remembered, and is no part of what is: the site
    /// is always the same one, and whoever gives a service another tenant calls [`forget`](Self::forget).
    pub fn decide<'a>(
        &mut self,
        policies: &Policies,
        (service, action, topic): (&'a Service, Action, &'a str),
        place: impl FnOnce() -> Place<'a>,
    ) -> Verdict {
        if policies.is_empty() {
            return Verdict::Silent;
        }
        if let Some(verdict) = self.known.get(&Asking { service, action, topic }) {
            return *verdict;
        }
        let verdict = policies.decide(&Question { service, action, topic, place: place() }).verdict;
        if self.known.len() >= REMEMBERED_MAX {
            self.known.clear();
        }
        self.known.insert(Asked { service: service.clone(), action, topic: topic.into() }, verdict);
        verdict
    }

    /// Forgets all decisions, and gives their memory back.
    pub fn forget(&mut self) {
        self.known = HashMap::default();
    }

    /// How many decisions are remembered.
    pub fn remembered(&self) -> usize {
        self.known.len()
    }
}
