//! Generations: the set of filters that judges events, as it is planned for the router and as each worker holds it.
//!
//! A [`Plan`] is made once, by the writer: programs loaded, configurations known. From it every worker gets its own
//! [`Prepared`] instances, made before the swap on the writer's thread. The swap itself - state handed over, the new
//! [`Active`] set in place - happens on the worker, between two batches.

mod binding;
mod card;

pub use binding::{BindingPlan, PrepareError};
pub use card::BindingCard;

use myelin_catalog::Stage;
use myelin_engine::{BoundFilter, Chain, Filter, Spare};
use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

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
    /// Takes further instances.
    pub fn add(&mut self, filters: impl IntoIterator<Item = Box<dyn Filter>>) {
        self.filters.extend(filters);
    }

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
