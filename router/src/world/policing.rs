//! Compiles the catalog's policies, before a record is drafted and wherever it arrives, and lets them hold, with the
//! tenants beside them.

use super::{Blame, WorldError};
use crate::policy::Rules;
use crate::shared::Shared;
use crate::tenants::Tenants;
use myelin_catalog::{Catalog, Governance, Policy, Tenant};
use myelin_policy::{Policies, PolicyErrors};
use std::sync::Arc;

/// What the keeper knows of policies.
pub(super) struct Policing {
    shared: Arc<Shared>,
    /// Those that hold, or that should and cannot be compiled.
    holding: Vec<Arc<Policy>>,
    /// Those that were compiled last: as a rule, those that are about to hold.
    compiled: (Vec<Arc<Policy>>, Arc<Policies>),
    /// Whether any have held here.
    has_held: bool,
    tenants: Vec<Arc<Tenant>>,
}

impl Policing {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, holding: Vec::new(), compiled: Default::default(), has_held: false, tenants: Vec::new() }
    }

    /// Checks the policies that may be the next ones.
    ///
    /// # Errors
    /// What is wrong with them, each fault with its place.
    pub(super) fn check(&mut self, after: &Governance<'_>) -> Result<(), WorldError> {
        let policies: Vec<_> = after.policies().cloned().collect();
        match self.compile(policies) {
            Ok(_) => Ok(()),
            Err(errors) => Err(WorldError::new(Blame::Request, errors.code(), errors.to_string())),
        }
    }

    /// Lets the policies hold at the workers that are to hold here, if they are others than before.
    ///
    /// # Errors
    /// Why they do not: those before hold on, and where none have held yet, nobody may anything.
    pub(super) fn follow(&mut self, wanted: &Governance<'_>) -> Result<(), PolicyErrors> {
        if wanted.policies().eq(&self.holding) {
            return Ok(());
        }
        self.holding = wanted.policies().cloned().collect();
        let compiled = self.compile(self.holding.clone());
        let before = self.shared.rules.load();
        let rules = match &compiled {
            Ok(policies) => {
                self.has_held = true;
                before.after(policies.clone())
            }
            Err(_) if !self.has_held => before.closed(),
            Err(_) => return compiled.map(drop),
        };
        self.publish(rules);
        compiled.map(drop)
    }

    /// The same for the tenants, of which nothing has to be compiled, and which come with no rollout.
    pub(super) fn follow_tenants(&mut self, catalog: &Catalog) {
        if catalog.tenants().eq(&self.tenants) {
            return;
        }
        self.tenants = catalog.tenants().cloned().collect();
        let before = self.shared.rules.load();
        let tenants = Tenants::after(before.tenants(), self.tenants.iter());
        self.publish(before.with_tenants(Arc::new(tenants)));
    }

    fn publish(&self, rules: Rules) {
        let version = rules.version();
        self.shared.rules.store(Arc::new(rules));
        // Sessions look at what they have open; whatever begins from here on sees the new rules anyway.
        self.shared.rules_version.send_replace(version);
    }

    fn compile(&mut self, policies: Vec<Arc<Policy>>) -> Result<Arc<Policies>, PolicyErrors> {
        if self.compiled.0 != policies {
            let texts = policies.iter().map(|policy| (policy.name.as_str(), &*policy.text));
            let compiled = Arc::new(Policies::compile(texts)?);
            self.compiled = (policies, compiled);
        }
        Ok(self.compiled.1.clone())
    }
}
