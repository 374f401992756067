//! Generations: the set of filters that judges events, as it is planned for the router and as each worker holds it.
//!
//! A [`Plan`] is made once, by the writer: programs loaded, configurations known. From it every worker gets its own
//! [`Prepared`] instances, made before the swap on the writer's thread. The swap itself - state handed over, the new
//! [`Active`] set in place - happens on the worker, between two batches.

use myelin_catalog::{Digest, ModuleRef, Stage, StagedBinding};
use myelin_engine::{
    BindError, BindingCells, BindingSetup, BindingStats, BoundFilter, Chain, FaultPolicy, Filter, FilterInfo, Grant,
    InstantiateError, OnFault, Program, RouteTarget, SharedState, SharedStats, SlotLimits, SlotSetup, Spare,
};
use myelin_wire::Pattern;
use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::rc::Rc;
use std::sync::{Arc, RwLock};

/// A binding, ready to be instantiated on any worker.
pub struct BindingPlan {
    /// Its name.
    pub name: Arc<str>,
    /// Its module.
    pub module: ModuleRef,
    /// The digest of its module.
    pub digest: Digest,
    /// The revision that staged it: two plans of the same revision are the same binding.
    pub revision: u64,
    stage: Stage,
    pattern: Pattern,
    program: Program,
    limits: SlotLimits,
    config: Vec<u8>,
    setup: BindingSetup,
    /// The version before, for `last-good`.
    previous: Option<Arc<BindingPlan>>,
    /// What all workers' instances share, the ones of the versions before included.
    shared: Arc<SharedState>,
    card: Arc<BindingCard>,
    /// Whether this router is part of a mesh.
    has_sites: bool,
}

impl fmt::Debug for BindingPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BindingPlan({} -> {}, revision {})", self.name, self.module, self.revision)
    }
}

/// Why a filter could not be prepared.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// It does not come to life.
    #[error(transparent)]
    Instantiate(#[from] InstantiateError),
    /// Its binding does not allow what it declares.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// It wants to route to sites, and this router knows of none.
    #[error(
        "the filter declares the route `{0}`, and this router has no links to other sites: give it `[mesh] listen` and \
         `seeds`, or declare `topic:` routes only"
    )]
    Site(String),
}

impl PrepareError {
    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Instantiate(error) => error.code(),
            Self::Bind(error) => error.code(),
            Self::Site(_) => "no-mesh",
        }
    }
}

impl BindingPlan {
    /// Plans `staged` with the code of its module. Its limits and its memory of keys are those of the `previous` plan of
    /// the same name. `has_sites` says whether the router is part of a mesh.
    pub fn new(staged: &StagedBinding, program: Program, previous: Option<Arc<Self>>, has_sites: bool) -> Self {
        let binding = &staged.binding;
        let name: Arc<str> = Arc::from(binding.name.as_str());
        let sites = binding.grant.sites.iter().map(|site| site.as_str().to_owned()).collect();
        let setup = BindingSetup {
            name: name.clone(),
            on_fault: match binding.on_fault {
                myelin_catalog::OnFault::Reject => OnFault::Reject,
                myelin_catalog::OnFault::Pass => OnFault::Pass,
                myelin_catalog::OnFault::DeadLetter => OnFault::DeadLetter,
                myelin_catalog::OnFault::LastGood => OnFault::LastGood,
            },
            grant: Grant::new(binding.grant.topics.clone(), sites),
            policy: FaultPolicy::default(),
        };
        let limits = SlotLimits {
            memory_bytes_max: usize::try_from(binding.limits.memory_bytes).unwrap_or(usize::MAX),
            batch_cpu_us_max: u64::from(binding.limits.deadline_us),
            ..SlotLimits::default()
        };
        let shared = previous.as_ref().map(|previous| previous.shared.clone()).unwrap_or_default();
        let card = BindingCard::new(&name, staged, shared.clone());
        Self {
            name,
            module: binding.module.clone(),
            digest: staged.digest,
            revision: staged.rev,
            stage: binding.stage,
            pattern: binding.pattern.clone(),
            program,
            limits,
            config: binding.config_bytes(),
            setup,
            shared,
            // One step back only: a chain of versions would keep every version's code alive.
            previous: previous.map(|previous| Arc::new(previous.without_previous())),
            card: Arc::new(card),
            has_sites,
        }
    }

    fn without_previous(&self) -> Self {
        Self {
            name: self.name.clone(),
            module: self.module.clone(),
            digest: self.digest,
            revision: self.revision,
            stage: self.stage,
            pattern: self.pattern.clone(),
            program: self.program.clone(),
            limits: self.limits.clone(),
            config: self.config.clone(),
            setup: self.setup.clone(),
            previous: None,
            shared: self.shared.clone(),
            card: self.card.clone(),
            has_sites: self.has_sites,
        }
    }

    /// The program that it runs.
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// What its filter is configured with.
    pub fn config(&self) -> &[u8] {
        &self.config
    }

    /// Its card.
    pub fn card(&self) -> &Arc<BindingCard> {
        &self.card
    }

    /// A live filter for one worker, with the state that the version before saved.
    ///
    /// # Errors
    /// When the filter refuses its configuration or state, faults, or declares what its binding does not grant.
    pub fn instantiate(&self, state: Option<&[u8]>) -> Result<BoundFilter, PrepareError> {
        let current = self.filter(state)?;
        let site = current.info().routes.iter().find(|route| matches!(route, RouteTarget::Site(_)));
        if let Some(site) = site.filter(|_| !self.has_sites) {
            return Err(PrepareError::Site(site.to_string()));
        }
        self.card.declare(current.info().clone());
        // The version before was good with the same configuration; where it is not any more, it is not asked.
        // Only `last-good` ever asks it: nobody else pays for an instance of it.
        let previous = self.previous.as_ref().filter(|_| self.setup.on_fault == OnFault::LastGood);
        let previous = previous.and_then(|previous| previous.filter(None).ok());
        Ok(BoundFilter::new(self.setup.clone(), current, previous)?)
    }

    /// What its filter is set up with for a test: as in earnest, but sharing nothing with those that judge.
    pub fn setup(&self) -> SlotSetup<'_> {
        SlotSetup { limits: self.limits.clone(), config: &self.config, ..SlotSetup::default() }
    }

    fn filter(&self, previous: Option<&[u8]>) -> Result<Box<dyn Filter>, InstantiateError> {
        let shared = self.shared.clone();
        Ok(Box::new(self.program.instantiate(&SlotSetup { previous, shared, ..self.setup() })?))
    }

    /// An instance for the state of the version before. Where there is no room for one it is made when it is needed.
    fn spare(&self) -> Option<Spare> {
        self.program.spare(&SlotSetup { shared: self.shared.clone(), ..self.setup() }).ok()
    }

    /// The filter with the state of the version before, in `spare` where there is one.
    fn with_state(&self, spare: Option<Spare>, state: &[u8]) -> Result<Box<dyn Filter>, InstantiateError> {
        match spare {
            Some(spare) => Ok(Box::new(spare.set_up(&self.config, Some(state))?)),
            None => self.filter(Some(state)),
        }
    }

    /// Whether it is a version of what `old` is one of, so that a state may go from one to the other.
    fn succeeds(&self, old: &Self) -> bool {
        self.name == old.name && self.module.name == old.module.name
    }
}

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
    fn new(name: &Arc<str>, staged: &StagedBinding, shared: Arc<SharedState>) -> Self {
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
    fn attach(&self, worker: u8, cells: Arc<BindingCells>) {
        if let Ok(mut state) = self.state.write() {
            state.cells.retain(|(other, _)| *other != worker);
            state.cells.push((worker, cells));
        }
    }

    /// Notes what the filter declared.
    fn declare(&self, info: Arc<FilterInfo>) {
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

/// A whole generation, planned.
#[derive(Debug, Default)]
pub struct Plan {
    /// The bindings in the order of an ingress chain.
    pub bindings: Vec<Arc<BindingPlan>>,
}

/// One worker's instances of a generation, made before the swap.
pub struct Prepared {
    plan: Arc<Plan>,
    /// What the generation is called, once that is known.
    number: u64,
    /// For each binding of the plan: a new instance, or none where the worker keeps the one it has.
    fresh: Vec<Option<Fresh>>,
}

/// A binding's new instance, and one that waits for the state of the version before.
struct Fresh {
    filter: BoundFilter,
    spare: Option<Spare>,
}

impl fmt::Debug for Prepared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Prepared(generation {})", self.number)
    }
}

impl Prepared {
    /// Makes the instances of `plan` that `before` does not have.
    ///
    /// # Errors
    /// The name of the binding that cannot be prepared, and why.
    pub fn new(plan: &Arc<Plan>, before: &Plan) -> Result<Self, (Arc<str>, PrepareError)> {
        let is_kept = |binding: &Arc<BindingPlan>| before.bindings.iter().any(|old| Arc::ptr_eq(old, binding));
        let fresh = plan.bindings.iter().map(|binding| match is_kept(binding) {
            true => Ok(None),
            false => match binding.instantiate(None) {
                Ok(filter) => Ok(Some(Fresh { filter, spare: None })),
                Err(error) => Err((binding.name.clone(), error)),
            },
        });
        Ok(Self { plan: plan.clone(), number: 0, fresh: fresh.collect::<Result<_, _>>()? })
    }

    /// Makes room for the states of the versions in `before`, so that the worker need not while it swaps. To be called
    /// once all workers are prepared: where slots are few, that comes first.
    pub fn make_spares(&mut self, before: &Plan) {
        for (binding, fresh) in self.plan.bindings.iter().zip(&mut self.fresh) {
            if let Some(fresh) = fresh
                && before.bindings.iter().any(|old| binding.succeeds(old))
            {
                fresh.spare = binding.spare();
            }
        }
    }

    /// The same, for the generation of that number.
    #[must_use]
    pub fn numbered(self, number: u64) -> Self {
        Self { number, ..self }
    }
}

/// What became of the states at a swap.
#[derive(Clone, Debug, Default)]
pub struct Handover {
    /// Bindings whose state went to the new version.
    pub taken: Vec<String>,
    /// Bindings whose new version refused the state and began anew, and why.
    pub refused: Vec<String>,
}

/// Instances that a worker needs no more, for another thread to free: unmapping them need not happen between two
/// batches.
#[derive(Default)]
pub struct Retired {
    filters: Vec<Box<dyn Filter>>,
    spares: Vec<Spare>,
}

impl fmt::Debug for Retired {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Retired({} instances)", self.filters.len() + self.spares.len())
    }
}

impl Retired {
    /// Takes the instances of `generation` that none of `kept` has too. Routes of topics without events since may hold
    /// its chains for long: the instances are taken out of them, so that their slots are free. Where a batch is still
    /// being judged by it, it is freed by the last who lets go of it.
    pub fn take(&mut self, generation: Rc<Active>, kept: [&Active; 2]) {
        let Some(generation) = Rc::into_inner(generation) else { return };
        let is_kept = |filter: &&Rc<BoundFilter>| {
            kept.iter().any(|kept| kept.filters.iter().any(|other| Rc::ptr_eq(filter, other)))
        };
        let gone = generation.filters.iter().filter(|filter| !is_kept(filter));
        self.filters.extend(gone.flat_map(|filter| filter.retire()));
    }
}

/// Chains by stage and the places of their bindings in the plan.
type Chains = HashMap<(Stage, Vec<u16>), Rc<Chain>>;

/// The set of filters that judges events at one worker.
pub struct Active {
    /// The generation's number.
    pub number: u64,
    plan: Arc<Plan>,
    filters: Vec<Rc<BoundFilter>>,
    /// Chains by stage and the bindings in them: topics that are judged alike share one, so that their events can go
    /// into one batch.
    chains: RefCell<Chains>,
}

impl fmt::Debug for Active {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Active(generation {}, {} filters)", self.number, self.filters.len())
    }
}

impl Active {
    /// No filters: what a worker begins with.
    pub fn empty() -> Self {
        Self { number: 0, plan: Arc::default(), filters: Vec::new(), chains: RefCell::default() }
    }

    /// Puts `prepared` together with what is kept of `before`; states go from the old versions to the new ones. What
    /// turns out not to be needed goes to `retired`.
    pub fn succeed(before: &Self, prepared: Prepared, worker: u8, retired: &mut Retired) -> (Self, Handover) {
        let mut handover = Handover::default();
        let Prepared { plan, number, fresh } = prepared;
        let pairs = plan.bindings.iter().zip(fresh);
        let filters = pairs.map(|(binding, fresh)| {
            let old = before.find(&binding.name);
            let filter = match (fresh, old) {
                (None, Some((_, kept))) => return kept.clone(),
                // A kept binding that is not here would be a defect of the plan; it is made anew all the same.
                (None, None) => binding.instantiate(None).ok(),
                (Some(fresh), Some((old_plan, old))) if binding.succeeds(old_plan) => {
                    Some(hand_over(old, binding, fresh, &mut handover, retired))
                }
                (Some(fresh), _) => Some(fresh.filter),
            };
            let filter = Rc::new(filter.unwrap_or_else(|| unreachable!("kept bindings are those of the plan before")));
            binding.card.attach(worker, filter.cells().clone());
            filter
        });
        let filters = filters.collect();
        (Self { number, plan, filters, chains: RefCell::default() }, handover)
    }

    /// Makes an earlier set judge again, under a new number. Its instances are as they were left.
    pub fn renumbered(earlier: &Self, number: u64, worker: u8) -> Self {
        for (binding, filter) in earlier.plan.bindings.iter().zip(&earlier.filters) {
            binding.card.attach(worker, filter.cells().clone());
        }
        let (plan, filters) = (earlier.plan.clone(), earlier.filters.clone());
        Self { number, plan, filters, chains: RefCell::default() }
    }

    /// The plan that it was made from.
    pub fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    /// The chain that judges events of `topic` before they are matched.
    pub fn ingress(&self, topic: &str) -> Option<Rc<Chain>> {
        self.chain(Stage::Ingress, topic)
    }

    /// The chain that judges events of `topic` before they are handed out.
    pub fn egress(&self, topic: &str) -> Option<Rc<Chain>> {
        self.chain(Stage::Egress, topic)
    }

    /// The module of the binding called `name`.
    pub fn module_of(&self, name: &str) -> Option<String> {
        self.find(name).map(|(binding, _)| binding.module.to_string())
    }

    /// The plan of the binding called `name`.
    pub fn plan_of(&self, name: &str) -> Option<&Arc<BindingPlan>> {
        self.find(name).map(|(binding, _)| binding)
    }

    fn find(&self, name: &str) -> Option<(&Arc<BindingPlan>, &Rc<BoundFilter>)> {
        self.plan.bindings.iter().zip(&self.filters).find(|(binding, _)| &*binding.name == name)
    }

    fn chain(&self, stage: Stage, topic: &str) -> Option<Rc<Chain>> {
        let matching = self.plan.bindings.iter().enumerate();
        let matching = matching.filter(|(_, binding)| binding.stage == stage && binding.pattern.matches(topic));
        let mut indices: Vec<u16> = matching.filter_map(|(index, _)| u16::try_from(index).ok()).collect();
        if indices.is_empty() {
            return None;
        }
        if stage == Stage::Egress {
            indices.reverse();
        }
        let mut chains = self.chains.borrow_mut();
        let chain = chains.entry((stage, indices)).or_insert_with_key(|(_, indices)| {
            Rc::new(Chain::new(indices.iter().map(|index| self.filters[usize::from(*index)].clone()).collect()))
        });
        Some(chain.clone())
    }
}

/// Gives the state of `old` to the spare instance of `binding`; where there is none, or it is refused, the instance
/// without it serves.
fn hand_over(
    old: &BoundFilter,
    binding: &BindingPlan,
    fresh: Fresh,
    handover: &mut Handover,
    retired: &mut Retired,
) -> BoundFilter {
    let Fresh { filter, spare } = fresh;
    let Some(state) = old.save().filter(|state| !state.is_empty()) else {
        retired.spares.extend(spare);
        return filter;
    };
    let taken = match binding.with_state(spare, &state) {
        Ok(with_state) => filter.replace(with_state).map_err(|with_state| {
            retired.filters.push(with_state);
            "with it, it declares something else than without".to_owned()
        }),
        Err(error) => Err(error.to_string()),
    };
    match taken {
        Ok(without_state) => {
            handover.taken.push(binding.name.to_string());
            retired.filters.push(without_state);
        }
        Err(error) => {
            handover.refused.push(format!("{}: {error}", binding.name));
            tracing::warn!(binding = &*binding.name, error, "the state of the version before is refused");
        }
    }
    filter
}
