//! What the rules say, as a worker asks them: on its cold ways, with what it remembers.

use super::Local;
use crate::names::Name;
use crate::policy::{Asked, Rules};
use crate::tenants::Usage;
use myelin_core::{MatchSet, Table};
use myelin_policy::{Action, Decider, Service};
use myelin_wire::Refusal;
use std::sync::Arc;

impl Local {
    /// The version of the rules as they are now.
    #[inline]
    pub fn rules_version(&self) -> u64 {
        self.rules.borrow_mut().load().version()
    }

    /// Asks the rules, with what is remembered of them.
    fn ask<T>(&self, question: impl FnOnce(&Rules, &mut Decider) -> T) -> (u64, T) {
        let mut rules = self.rules.borrow_mut();
        let rules = rules.load();
        let mut decider = self.decider.borrow_mut();
        let (version, decider) = &mut *decider;
        if *version != rules.version() {
            *version = rules.version();
            decider.forget();
        }
        (rules.version(), question(rules, decider))
    }

    /// Whether `service` may do that; what may not be is counted.
    ///
    /// # Errors
    /// `forbidden`, with the reason.
    pub fn permit(&self, service: &Service, action: Action, topic: &str) -> Result<(), Refusal> {
        self.ask(|rules, decider| {
            if rules.may(decider, service, action, topic) {
                return Ok(());
            }
            self.shared.denials.note(service, action, topic);
            Err(rules.refusal(&Asked { service, action, topic, event: None }))
        })
        .1
    }

    /// Whether an event may be sent whose topic alone does not say so; what may not be is counted.
    ///
    /// # Errors
    /// `forbidden`, with the reason, and whether that is so because of this very event.
    pub fn permit_event(&self, asked: &Asked<'_>) -> Result<(), (Refusal, bool)> {
        self.ask(|rules, decider| match rules.may_send(decider, asked) {
            (true, _) => Ok(()),
            (false, is_by_event) => {
                self.shared.denials.note(asked.service, asked.action, asked.topic);
                Err((rules.refusal(asked), is_by_event))
            }
        })
        .1
    }

    /// Whether `service` may do these, and of which rules that is so.
    pub fn may<const N: usize>(&self, service: &Service, actions: [Action; N], topic: &str) -> (u64, [bool; N]) {
        self.ask(|rules, decider| actions.map(|action| rules.may(decider, service, action, topic)))
    }

    /// What the tenant of `service` uses; `None` where it belongs to none.
    pub fn tenant_of(&self, service: &Service) -> Option<Arc<Usage>> {
        let mut rules = self.rules.borrow_mut();
        rules.load().tenants().of(service).map(|tenant| tenant.usage.clone())
    }

    /// Whether the publisher of that name waits for subscribers of that tenant, where they ask publishers to wait: those of
    /// another one would let a tenant stop the services of who shares a topic with it.
    pub fn waits(&self, source: Option<&Name>, tenant: Option<&str>) -> bool {
        let mut rules = self.rules.borrow_mut();
        let tenants = rules.load().tenants();
        // The router itself is of no tenant, and what it sends is in answer to what somebody did.
        let Some(source) = source.filter(|_| !tenants.is_empty()) else { return true };
        tenants.of(&Service::new(source.text.clone())).map(|known| known.tenant.name.as_str()) == tenant
    }

    /// The subscribers to a topic that may have its events, and how many copies others do not get.
    pub(super) fn targets(&self, table: &Table, topic: &str) -> (MatchSet, u64, u32) {
        let mut targets = MatchSet::default();
        table.matches(topic, &mut targets);
        let (version, withheld) =
            self.ask(|rules, decider| rules.withhold(&self.shared.services, decider, topic, &mut targets));
        (targets, version, withheld)
    }
}
