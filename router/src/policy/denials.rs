//! What policies do not let clients do, counted.

use crate::audit::Audit;
use myelin_policy::{Action, Service};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What was denied since the router's start.
#[derive(Debug, Default)]
pub struct Denials {
    actions: [AtomicU64; Action::ALL.len()],
    /// Copies that subscribers want by a pattern and may not have.
    withheld: AtomicU64,
    /// Where it is written down, by service and action.
    audit: Option<Audit>,
}

impl Denials {
    /// None yet. They go into the audit log, too.
    pub fn new(audit: Audit) -> Self {
        Self { audit: Some(audit), ..Self::default() }
    }

    /// Counts one.
    pub fn note(&self, service: &Service, action: Action, topic: &str) {
        self.actions[action as usize].fetch_add(1, Relaxed);
        if let Some(audit) = &self.audit {
            audit.deny(service.id(), action, topic);
        }
    }

    /// Counts `events` that `subscribers` do not get.
    pub fn withhold(&self, events: u64, subscribers: u32) {
        self.withheld.fetch_add(events * u64::from(subscribers), Relaxed);
    }

    /// Copies that were withheld.
    pub fn withheld(&self) -> u64 {
        self.withheld.load(Relaxed)
    }

    /// Subscriptions that were denied.
    pub fn subscriptions(&self) -> u64 {
        self.actions[Action::Subscribe as usize].load(Relaxed)
    }

    /// The counts, by action.
    pub fn by_action(&self) -> Vec<(&'static str, u64)> {
        Action::ALL.iter().map(|action| (action.name(), self.actions[*action as usize].load(Relaxed))).collect()
    }
}
