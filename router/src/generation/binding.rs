//! A binding as it is planned: program, configuration and limits, from which any worker makes its instance.

use super::BindingCard;
use myelin_catalog::{Digest, ModuleRef, Stage, StagedBinding};
use myelin_engine::{
    Answers, BindError, BindingSetup, BoundFilter, FaultPolicy, Filter, Grant, InstantiateError, OnFault, Program,
    RouteTarget, SharedState, SlotLimits, SlotSetup, Spare,
};
use myelin_wire::Pattern;
use std::fmt;
use std::sync::Arc;

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
    /// The revision at which its filter sees the schema registry, where it names no version.
    schemas_at: u64,
    pub(super) stage: Stage,
    pub(super) pattern: Pattern,
    program: Program,
    limits: SlotLimits,
    config: Vec<u8>,
    setup: BindingSetup,
    /// The version before, for `last-good`.
    previous: Option<Arc<BindingPlan>>,
    /// What all workers' instances share, the ones of the versions before included.
    shared: Arc<SharedState>,
    pub(super) card: Arc<BindingCard>,
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
            schemas_at: staged.since,
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
            schemas_at: self.schemas_at,
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

    /// A live filter for the shadow of one worker: as in earnest, but with the `answers` of the filter that judges, and a
    /// memory of its own.
    ///
    /// # Errors
    /// As for [`BindingPlan::instantiate`].
    pub fn instantiate_shadow(
        &self,
        answers: Arc<Answers>,
        shared: Arc<SharedState>,
    ) -> Result<BoundFilter, PrepareError> {
        let filter = self.program.instantiate(&SlotSetup { shared, answers: Some(answers), ..self.setup() })?;
        Ok(BoundFilter::new(self.setup.clone(), Box::new(filter), None)?)
    }

    /// What its filter is set up with for a test: as in earnest, but sharing nothing with those that judge.
    pub fn setup(&self) -> SlotSetup<'_> {
        let schemas_at = Some(self.schemas_at);
        SlotSetup { limits: self.limits.clone(), config: &self.config, schemas_at, ..SlotSetup::default() }
    }

    fn filter(&self, previous: Option<&[u8]>) -> Result<Box<dyn Filter>, InstantiateError> {
        let shared = self.shared.clone();
        Ok(Box::new(self.program.instantiate(&SlotSetup { previous, shared, ..self.setup() })?))
    }

    /// An instance for the state of the version before. Where there is no room for one it is made when it is needed.
    pub(super) fn spare(&self) -> Option<Spare> {
        self.program.spare(&SlotSetup { shared: self.shared.clone(), ..self.setup() }).ok()
    }

    /// The filter with the state of the version before, in `spare` where there is one.
    pub(super) fn with_state(&self, spare: Option<Spare>, state: &[u8]) -> Result<Box<dyn Filter>, InstantiateError> {
        match spare {
            Some(spare) => Ok(Box::new(spare.set_up(&self.config, Some(state))?)),
            None => self.filter(Some(state)),
        }
    }

    /// Whether it is a version of what `old` is one of, so that a state may go from one to the other.
    pub(super) fn succeeds(&self, old: &Self) -> bool {
        self.name == old.name && self.module.name == old.module.name
    }
}
