//! How many sessions each identity has at this router, and how many it may have.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The identities that have sessions. At most as many as there are sessions.
#[derive(Debug, Default)]
pub struct Identities {
    sessions_max: usize,
    sessions: Mutex<HashMap<Arc<str>, usize>>,
}

/// A session's place among those of its identity; dropped, it is free again.
#[derive(Debug)]
pub struct Presence {
    identities: Arc<Identities>,
    identity: Arc<str>,
}

impl Identities {
    /// Nobody yet; each may have `sessions_max` sessions.
    pub fn new(sessions_max: usize) -> Self {
        Self { sessions_max, sessions: Mutex::default() }
    }

    /// How many sessions each may have.
    pub fn sessions_max(&self) -> usize {
        self.sessions_max
    }

    /// A place for another session; none where the identity has as many as it may have.
    pub fn enter(self: &Arc<Self>, identity: &str) -> Option<Presence> {
        let mut sessions = self.lock();
        if let Some((identity, open)) = sessions.get_key_value(identity) {
            if *open >= self.sessions_max {
                return None;
            }
            let identity = identity.clone();
            sessions.entry(identity.clone()).and_modify(|open| *open += 1);
            return Some(Presence { identities: self.clone(), identity });
        }
        let identity: Arc<str> = identity.into();
        (self.sessions_max > 0).then(|| {
            sessions.insert(identity.clone(), 1);
            Presence { identities: self.clone(), identity }
        })
    }

    /// A count is right whoever panicked.
    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, usize>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        let mut sessions = self.identities.lock();
        let Some(open) = sessions.get_mut(&self.identity) else { return };
        *open -= 1;
        if *open == 0 {
            sessions.remove(&self.identity);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::*;

    #[test]
    fn an_identity_has_no_more_sessions_than_it_may_and_takes_none_of_others() {
        let identities = Arc::new(Identities::new(2));
        let (first, second) = (identities.enter("a").unwrap(), identities.enter("a").unwrap());
        assert!(identities.enter("a").is_none());
        let other = identities.enter("b").unwrap();
        drop(first);
        let third = identities.enter("a").unwrap();
        assert!(identities.enter("a").is_none());
        drop((second, third, other));
        assert!(identities.lock().is_empty(), "nobody is remembered who has no session");
    }
}
