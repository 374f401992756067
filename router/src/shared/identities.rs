//! How many sessions and subscriptions each identity has at this router, and how many it may have.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The identities that have sessions. At most as many as there are sessions.
#[derive(Debug, Default)]
pub struct Identities {
    sessions_max: usize,
    subscriptions_max: usize,
    sessions: Mutex<HashMap<Arc<str>, Open>>,
}

/// What an identity has.
#[derive(Debug)]
struct Open {
    sessions: usize,
    subscriptions: Arc<AtomicUsize>,
}

/// A session's place among those of its identity; dropped, it is free again.
#[derive(Debug)]
pub struct Presence {
    identities: Arc<Identities>,
    identity: Arc<str>,
    subscriptions: Arc<AtomicUsize>,
}

/// A subscription's place among those of its identity; dropped, it is free again.
#[derive(Debug)]
pub struct Subscribed(Arc<AtomicUsize>);

impl Identities {
    /// Nobody yet; each may have `sessions_max` sessions, and all of them together `subscriptions_max` subscriptions.
    pub fn new(sessions_max: usize, subscriptions_max: usize) -> Self {
        Self { sessions_max, subscriptions_max, sessions: Mutex::default() }
    }

    /// How many sessions each may have.
    pub fn sessions_max(&self) -> usize {
        self.sessions_max
    }

    /// A place for another session; none where the identity has as many as it may have.
    pub fn enter(self: &Arc<Self>, identity: &str) -> Option<Presence> {
        let mut sessions = self.lock();
        let known = sessions.get_key_value(identity).map(|(identity, _)| identity.clone());
        let identity = known.unwrap_or_else(|| identity.into());
        let opened = sessions.get(&identity).map_or(0, |open| open.sessions);
        if opened >= self.sessions_max {
            return None;
        }
        let none = || Open { sessions: 0, subscriptions: Arc::default() };
        let open = sessions.entry(identity.clone()).or_insert_with(none);
        open.sessions += 1;
        Some(Presence { identities: self.clone(), identity, subscriptions: open.subscriptions.clone() })
    }

    /// A count is right whoever panicked.
    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Open>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Presence {
    /// A place for another subscription; none where the identity has as many as it may have, in whichever sessions.
    pub fn subscribe(&self) -> Option<Subscribed> {
        let most = self.identities.subscriptions_max;
        let one_more = |held: usize| (held < most).then_some(held + 1);
        // Nothing else hangs on it.
        self.subscriptions.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).ok()?;
        Some(Subscribed(self.subscriptions.clone()))
    }

    /// How many subscriptions the identity may have.
    pub fn subscriptions_max(&self) -> usize {
        self.identities.subscriptions_max
    }
}

impl Drop for Subscribed {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        let mut sessions = self.identities.lock();
        let Some(open) = sessions.get_mut(&self.identity) else { return };
        open.sessions -= 1;
        if open.sessions == 0 {
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
        let identities = Arc::new(Identities::new(2, 8));
        let (first, second) = (identities.enter("a").unwrap(), identities.enter("a").unwrap());
        assert!(identities.enter("a").is_none());
        let other = identities.enter("b").unwrap();
        drop(first);
        let third = identities.enter("a").unwrap();
        assert!(identities.enter("a").is_none());
        drop((second, third, other));
        assert!(identities.lock().is_empty(), "nobody is remembered who has no session");
    }

    #[test]
    fn the_sessions_of_an_identity_share_its_subscriptions() {
        let identities = Arc::new(Identities::new(2, 3));
        let (first, second) = (identities.enter("a").unwrap(), identities.enter("a").unwrap());
        let other = identities.enter("b").unwrap();
        let held = [first.subscribe().unwrap(), second.subscribe().unwrap()];
        let third = second.subscribe().unwrap();
        assert!(first.subscribe().is_none() && second.subscribe().is_none());
        let others: Vec<_> = (0..3).map(|_| other.subscribe().unwrap()).collect();
        assert!(other.subscribe().is_none(), "its own are counted apart");
        drop(held);
        let again = [first.subscribe().unwrap(), first.subscribe().unwrap()];
        assert!(first.subscribe().is_none());
        // A session that ends takes its own with it, and leaves those of the other one.
        drop((again, first));
        let _two = [second.subscribe().unwrap(), second.subscribe().unwrap()];
        assert!(second.subscribe().is_none());
        drop((third, others));
    }
}
