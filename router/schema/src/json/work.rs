//! How much work a schema makes, found before it is compiled.
//!
//! Three kinds of schemas are dangerous. One that refers to itself for the same value never ends. One that names others
//! twice, which name others twice, and so on, takes exponentially many steps for one value. And one that is recursive and
//! has a choice - `left` is an expression of this kind or an expression of that kind - takes exponentially many in the
//! depth of the payload. The first two are refused. The third are useful. Payloads of these, and of all others, have a
//! budget: [`Work`].

use super::budget::{Weighing, Work};
use super::document::Document;
use super::graph::{Node, Number, explore};
use super::weight::{Kind, Weight};
use crate::error::SchemaError;
use crate::limits::{ANALYSIS_STEPS_MAX, JSON_CHAIN_MAX, JSON_EXPANDED_MAX, JSON_IN_PLACE_DEPTH_MAX};
use std::collections::{BTreeMap, HashMap, HashSet};

/// For one kind of part of a value what judges it, and how often.
pub(super) type Classes = BTreeMap<Number, u64>;

/// What judging payloads by a document takes.
pub(super) fn of(document: &Document) -> Result<Work, SchemaError> {
    let nodes = explore(document)?;
    let in_place = InPlace::of(&nodes)?;
    let mut steps = 0;
    let mut parts: HashMap<Number, Vec<Classes>> = HashMap::new();
    // Those that values are sent to from above: the document's own, and whatever judges a part.
    let mut starts = vec![0];
    let mut seen = HashSet::from([0]);
    while let Some(start) = starts.pop() {
        let classes = classes(&nodes, &in_place.all(&nodes, start, &mut steps)?, &mut steps)?;
        for &target in classes.iter().flat_map(BTreeMap::keys) {
            if seen.insert(target) {
                starts.push(target);
            }
        }
        parts.insert(start, classes);
    }
    judge(&components(&parts), &parts, &in_place)
}

/// Adds to the steps that analysing takes itself.
fn step(steps: &mut usize, by: usize) -> Result<(), SchemaError> {
    *steps += by;
    if *steps > ANALYSIS_STEPS_MAX {
        return Err(SchemaError::too_complex(
            "the schema's parts judge too many of the same values",
            ANALYSIS_STEPS_MAX,
        ));
    }
    Ok(())
}

/// What judges the same value as a schema does.
pub(super) struct InPlace {
    /// Of each schema, itself and all that it asks for the same value.
    sizes: Vec<u64>,
    /// What these take.
    weights: Vec<Weight>,
}

impl InPlace {
    fn of(nodes: &[Node]) -> Result<Self, SchemaError> {
        let mut sizes = vec![0; nodes.len()];
        let mut open = vec![false; nodes.len()];
        let mut depths = vec![0; nodes.len()];
        let mut order = Vec::with_capacity(nodes.len());
        for number in 0..nodes.len() {
            Self::measure(nodes, number, (&mut sizes, &mut order), &mut depths, &mut open, 0)?;
        }
        // What names take is known once it is known what any text takes.
        let alone: Vec<_> = nodes.iter().map(|node| node.weight).collect();
        let texts = Self::weigh(nodes, &order, &alone);
        let named = nodes.iter().map(|node| {
            node.names.iter().fold(node.weight, |mut weight, name| {
                weight[Kind::Member] += texts[*name][Kind::Text];
                weight[Kind::Byte] += texts[*name][Kind::Byte];
                weight
            })
        });
        let weights = Self::weigh(nodes, &order, &named.collect::<Vec<_>>());
        Ok(Self { sizes, weights })
    }

    /// What each schema takes with all that it asks for the same value, from what each takes alone.
    fn weigh(nodes: &[Node], order: &[Number], alone: &[Weight]) -> Vec<Weight> {
        let mut weights = vec![Weight::default(); nodes.len()];
        for &number in order {
            let mut weight = alone[number];
            for (target, times) in &nodes[number].in_place {
                weight.add(&weights[*target], *times);
            }
            weights[number] = weight;
        }
        weights
    }

    /// What a schema takes for a value, with all that it asks for the same one.
    pub(super) fn weight(&self, number: Number) -> &Weight {
        &self.weights[number]
    }

    /// Sizes and depths below one, and the order in which they are known. The recursion is as deep as
    /// [`JSON_IN_PLACE_DEPTH_MAX`].
    fn measure(
        nodes: &[Node],
        number: Number,
        (sizes, order): (&mut [u64], &mut Vec<Number>),
        depths: &mut [usize],
        open: &mut [bool],
        depth: usize,
    ) -> Result<(), SchemaError> {
        if open[number] {
            let message = "the schema refers to itself for the same value, so that judging never ends: put the reference \
                           into `properties` or `items`";
            return Err(SchemaError::new("schema-recursive", message));
        }
        let too_deep =
            || SchemaError::too_complex("references and combinations follow each other", JSON_IN_PLACE_DEPTH_MAX);
        if depth > JSON_IN_PLACE_DEPTH_MAX {
            return Err(too_deep());
        }
        if sizes[number] > 0 {
            return Ok(());
        }
        open[number] = true;
        let mut size = 1_u64;
        for &(target, times) in &nodes[number].in_place {
            Self::measure(nodes, target, (sizes, order), depths, open, depth + 1)?;
            size = size.saturating_add(sizes[target].saturating_mul(times));
            depths[number] = depths[number].max(depths[target] + 1);
        }
        open[number] = false;
        if depths[number] > JSON_IN_PLACE_DEPTH_MAX {
            return Err(too_deep());
        }
        if size > JSON_EXPANDED_MAX {
            return Err(expanded());
        }
        sizes[number] = size;
        order.push(number);
        Ok(())
    }

    /// How often each schema judges a value that `start` judges once.
    fn all(&self, nodes: &[Node], start: Number, steps: &mut usize) -> Result<BTreeMap<Number, u64>, SchemaError> {
        let mut times = BTreeMap::new();
        let mut open = vec![(start, 1_u64)];
        while let Some((number, by)) = open.pop() {
            step(steps, 1)?;
            *times.entry(number).or_insert(0) += by;
            open.extend(nodes[number].in_place.iter().map(|&(target, more)| (target, by.saturating_mul(more))));
        }
        Ok(times)
    }
}

fn expanded() -> SchemaError {
    SchemaError::too_complex("one value would be judged by more schemas, one after the other", JSON_EXPANDED_MAX)
}

/// For each kind of part of a value - the member of a name, any other member, the item of an index, any other item - what
/// judges it, and how often.
fn classes(nodes: &[Node], judges: &Classes, steps: &mut usize) -> Result<Vec<Classes>, SchemaError> {
    let mut names = HashSet::new();
    let mut indexes = 0;
    for number in judges.keys() {
        names.extend(nodes[*number].members.keys().map(String::as_str));
        indexes = indexes.max(nodes[*number].items.len());
    }
    step(steps, (names.len() + indexes + 2).saturating_mul(judges.len()))?;
    let class = |targets: &dyn Fn(&Node) -> Vec<Number>| {
        let mut class = BTreeMap::new();
        for (number, times) in judges {
            for target in targets(&nodes[*number]) {
                *class.entry(target).or_insert(0) += times;
            }
        }
        class
    };
    let member = |node: &Node, name: Option<&str>| {
        let named = name.and_then(|name| node.members.get(name));
        let others = if named.is_some() { &[][..] } else { &node.other_members };
        named.into_iter().chain(others).chain(&node.all_members).copied().collect()
    };
    let item = |node: &Node, index: usize| node.items.get(index).into_iter().chain(&node.all_items).copied().collect();
    let mut classes: Vec<_> = names.iter().map(|name| class(&|node: &Node| member(node, Some(name)))).collect();
    classes.push(class(&|node: &Node| member(node, None)));
    classes.extend((0..=indexes).map(|index| class(&|node: &Node| item(node, index))));
    classes.retain(|class| !class.is_empty());
    Ok(classes)
}

/// The schemas that lead back to each other through parts of values, each group with its number; a group comes after all
/// that it leads to. Kosaraju's, without recursion.
fn components(parts: &HashMap<Number, Vec<Classes>>) -> Vec<Vec<Number>> {
    let forward = |number: Number| -> Vec<Number> {
        parts.get(&number).into_iter().flatten().flat_map(BTreeMap::keys).copied().collect()
    };
    let mut backward: HashMap<Number, Vec<Number>> = HashMap::new();
    for (&number, classes) in parts {
        for &target in classes.iter().flat_map(BTreeMap::keys) {
            backward.entry(target).or_default().push(number);
        }
    }
    let mut all: Vec<Number> = parts.keys().copied().collect();
    all.sort_unstable();
    let backwards = |number: Number| backward.get(&number).cloned().unwrap_or_default();
    let mut seen = HashSet::new();
    let finished: Vec<Number> = all.iter().flat_map(|&start| finishing_order(start, &backwards, &mut seen)).collect();
    let mut seen = HashSet::new();
    let groups = finished.iter().rev().map(|&start| finishing_order(start, &forward, &mut seen));
    groups.filter(|group| !group.is_empty()).collect()
}

/// What can be reached from `start` and was not before, in the order in which a search leaves it.
fn finishing_order(start: Number, next: &dyn Fn(Number) -> Vec<Number>, seen: &mut HashSet<Number>) -> Vec<Number> {
    let mut order = Vec::new();
    if !seen.insert(start) {
        return order;
    }
    let mut open = vec![(start, next(start))];
    while let Some((number, rest)) = open.last_mut() {
        match rest.pop() {
            Some(target) if seen.insert(target) => {
                let targets = next(target);
                open.push((target, targets));
            }
            Some(_) => {}
            None => {
                order.push(*number);
                open.pop();
            }
        }
    }
    order
}

/// Refuses what takes too many steps for one value, or leads through too many schemas; what the others take.
fn judge(
    components: &[Vec<Number>],
    parts: &HashMap<Number, Vec<Classes>>,
    in_place: &InPlace,
) -> Result<Work, SchemaError> {
    let (mut growth, mut weighing) = (1, Weighing::default());
    let mut work: HashMap<Number, u64> = HashMap::new();
    let mut chains: HashMap<Number, usize> = HashMap::new();
    for component in components {
        let inside: HashSet<Number> = component.iter().copied().collect();
        let mut longest = 0;
        for &number in component {
            let mut most = 0;
            for class in parts.get(&number).into_iter().flatten() {
                let (mut within, mut beyond) = (0_u64, 0_u64);
                for (target, times) in class {
                    if inside.contains(target) {
                        within = within.saturating_add(*times);
                    } else {
                        beyond = beyond.saturating_add(times.saturating_mul(work[target]));
                        longest = longest.max(chains[target]);
                    }
                }
                growth = growth.max(within);
                most = most.max(beyond);
            }
            let total = in_place.sizes[number].saturating_add(most);
            if total > JSON_EXPANDED_MAX {
                return Err(expanded());
            }
            work.insert(number, total);
        }
        let length = longest + component.len();
        if length > JSON_CHAIN_MAX {
            return Err(SchemaError::too_complex("schemas refer to each other in a row", JSON_CHAIN_MAX));
        }
        chains.extend(component.iter().map(|&number| (number, length)));
        weighing.add(&inside, parts, in_place);
    }
    let inside = weighing.inside(parts.get(&0).map_or(&[], Vec::as_slice), 0);
    Ok(Work::new(growth, *in_place.weight(0), inside))
}
