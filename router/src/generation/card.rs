//! The card of a binding: what everybody may read about it while it judges.

use myelin_catalog::{Digest, ModuleRef, Stage, StagedBinding};
use myelin_engine::{BindingCells, BindingStats, FilterInfo, SharedState, SharedStats};
use myelin_wire::Pattern;
use std::sync::{Arc, RwLock};

/// What is known of a binding while it judges: what its module declared, and the cells of every worker.
#[derive(Debug)]
pub struct BindingCard {
    /// The binding's name.
    pub name: Arc<str>,
    /// Its module.
    pub module: ModuleRef,
    /// Its stage.
    pub stage: Stage,
    /// Its pattern.
    pub pattern: Pattern,
    /// Its place in the chain.
    pub order: i32,
    /// The digest of its module.
    pub digest: Digest,
    /// What becomes of an event on which its filter fails.
    pub on_fault: myelin_catalog::OnFault,
    /// What its filter may send where.
    pub grant: myelin_catalog::Grant,
    shared: Arc<SharedState>,
    state: RwLock<CardState>,
}

#[derive(Debug, Default)]
struct CardState {
    info: Option<Arc<FilterInfo>>,
    /// One for each worker.
    cells: Vec<(u8, Arc<BindingCells>)>,
}

impl BindingCard {
    pub(super) fn new(name: &Arc<str>, staged: &StagedBinding, shared: Arc<SharedState>) -> Self {
        let binding = &staged.binding;
        Self {
            name: name.clone(),
            module: binding.module.clone(),
            stage: binding.stage,
            pattern: binding.pattern.clone(),
            order: binding.order,
            digest: staged.digest,
            on_fault: binding.on_fault,
            grant: binding.grant.clone(),
            shared,
            state: RwLock::default(),
        }
    }

    /// How many limits and keys its filters keep together.
    pub fn shared(&self) -> SharedStats {
        self.shared.stats()
    }

    /// Notes the cells that worker `worker` counts in from now on.
    pub(super) fn attach(&self, worker: u8, cells: Arc<BindingCells>) {
        if let Ok(mut state) = self.state.write() {
            state.cells.retain(|(other, _)| *other != worker);
            state.cells.push((worker, cells));
        }
    }

    /// Notes what the filter declared.
    pub(super) fn declare(&self, info: Arc<FilterInfo>) {
        if let Ok(mut state) = self.state.write() {
            state.info = Some(info);
        }
    }

    /// What the filter declared.
    pub fn info(&self) -> Option<Arc<FilterInfo>> {
        self.state.read().ok()?.info.clone()
    }

    /// The figures of each worker.
    pub fn figures(&self) -> Vec<(u8, BindingStats)> {
        let Ok(state) = self.state.read() else { return Vec::new() };
        state.cells.iter().map(|(worker, cells)| (*worker, cells.read())).collect()
    }

    /// Takes the log lines that the filter wrote since the last call, oldest first.
    pub fn take_logs(&self) -> Vec<myelin_engine::LogLine> {
        let Ok(state) = self.state.read() else { return Vec::new() };
        let mut lines: Vec<_> = state.cells.iter().flat_map(|(_, cells)| cells.take_logs()).collect();
        lines.sort_by_key(|line| line.time_unix_ns);
        lines
    }

    /// Whether any worker has given the filter up.
    pub fn is_quarantined(&self) -> bool {
        self.state.read().is_ok_and(|state| state.cells.iter().any(|(_, cells)| cells.is_quarantined()))
    }
}
