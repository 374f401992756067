//! What judging a payload may take, by what its schema asks of each value.
//!
//! For every place of a payload the schemas are known that judge a value there, and so what one value takes at most,
//! wherever it is: times the number of values that is a bound for the payload. Small payloads are far below the budget, so
//! that a multiplication is all that they pay. Others are counted value by value, each by its kind.

use super::graph::Number;
use super::tape::At;
use super::weight::{Kind, Weight};
use super::work::{Classes, InPlace};
use crate::limits::{JSON_WORK_NS_MAX, PAYLOAD_DEPTHS};
use std::collections::{HashMap, HashSet};

/// Weights in payloads of each of [`PAYLOAD_DEPTHS`].
type ByDepth = [Weight; PAYLOAD_DEPTHS.len()];

/// What a schema makes of payloads.
#[derive(Debug)]
pub(super) struct Work {
    /// How much more often a value is judged with every step down, where the schema is recursive and has a choice: judging
    /// takes that to the power of the depth. 1 for all others.
    growth: u64,
    /// What the payload itself takes: schemas often ask more of it than of what is inside.
    whole: Box<Weight>,
    /// What a value inside takes at most.
    inside: Box<ByDepth>,
    /// What any part takes at most, and each byte.
    most: (u64, u64),
}

impl Work {
    pub(super) fn new(growth: u64, whole: Weight, inside: ByDepth) -> Self {
        let most = whole.max(&inside[PAYLOAD_DEPTHS.len() - 1]);
        // Where it grows, the number of parts says nothing.
        let part = if growth > 1 { u64::MAX } else { most.of_any_part() };
        Self { growth, whole: Box::new(whole), inside: Box::new(inside), most: (part, most[Kind::Byte]) }
    }

    /// Whether it is recursive and has a choice.
    pub(super) fn grows(&self) -> bool {
        self.growth > 1
    }

    /// What judging a payload takes at most, in nanoseconds.
    #[inline]
    pub(super) fn of(&self, payload: At<'_>, bytes: usize) -> u64 {
        let (part, byte) = self.most;
        let most = part.saturating_mul(payload.parts() as u64).saturating_add(byte.saturating_mul(bytes as u64));
        if most > JSON_WORK_NS_MAX { self.counted(payload) } else { most }
    }

    #[cold]
    fn counted(&self, payload: At<'_>) -> u64 {
        let [first, .., last] = &*self.inside;
        let depth = if first == last { 0 } else { payload.depth() };
        let fitting = PAYLOAD_DEPTHS.iter().position(|depth_max| depth <= *depth_max);
        let inside = &self.inside[fitting.unwrap_or(PAYLOAD_DEPTHS.len() - 1)];
        self.count_inside(payload, payload.weighed(&self.whole), 1, inside)
    }

    /// What a value takes that is judged so many times, with all that is inside it; no more than is needed to see that it
    /// is too much.
    fn count(&self, value: At<'_>, times: u64, weight: &Weight) -> u64 {
        self.count_inside(value, times.saturating_mul(value.weighed(weight)), times, weight)
    }

    fn count_inside(&self, value: At<'_>, own: u64, times: u64, weight: &Weight) -> u64 {
        let inside = times.saturating_mul(self.growth);
        value.children().fold(own, |total, child| {
            if total > JSON_WORK_NS_MAX { total } else { total.saturating_add(self.count(child, inside, weight)) }
        })
    }
}

/// Finds out what the schemas of a document take, each group that leads back to itself after all that it leads to.
#[derive(Default)]
pub(super) struct Weighing(HashMap<Number, ByDepth>);

impl Weighing {
    /// Weighs the next group.
    pub(super) fn add(&mut self, group: &HashSet<Number>, parts: &HashMap<Number, Vec<Classes>>, in_place: &InPlace) {
        let (mut own, mut is_circle) = (Weight::default(), false);
        // What values inside are judged by that is beyond the group; and the same of those values that the group goes on
        // to judge, which get some more of it with every step down.
        let (mut beyond, mut step) = (ByDepth::default(), ByDepth::default());
        for number in group {
            own = own.max(in_place.weight(*number));
            for class in parts.get(number).into_iter().flatten() {
                let leads_back = class.keys().any(|target| group.contains(target));
                is_circle |= leads_back;
                for depth in 0..PAYLOAD_DEPTHS.len() {
                    let mut all = Weight::default();
                    for (target, times) in class.iter().filter(|(target, _)| !group.contains(target)) {
                        all.add(&self.0[target][depth], *times);
                    }
                    beyond[depth] = beyond[depth].max(&all);
                    if leads_back {
                        step[depth] = step[depth].max(&all);
                    }
                }
            }
        }
        let weights = std::array::from_fn(|depth| {
            let levels = if is_circle { PAYLOAD_DEPTHS[depth] as u64 } else { 1 };
            let mut weight = own.max(&beyond[depth]);
            weight[Kind::Unique] = beyond[depth][Kind::Unique];
            weight.add(&step[depth], levels);
            // An array is told from others with all that is inside it: what is below several pays for each.
            weight[Kind::Unique] = weight[Kind::Unique].saturating_add(own[Kind::Unique].saturating_mul(levels));
            weight
        });
        self.0.extend(group.iter().map(|number| (*number, weights)));
    }

    /// What is inside a value that a schema judges takes at most.
    pub(super) fn inside(&self, classes: &[Classes], number: Number) -> ByDepth {
        std::array::from_fn(|depth| {
            let mut most = Weight::default();
            for class in classes {
                let mut all = Weight::default();
                class.iter().for_each(|(target, times)| all.add(&self.0[target][depth], *times));
                most = most.max(&all);
            }
            // With the whole, which may be an array that all of it is in.
            most[Kind::Unique] = self.0[&number][depth][Kind::Unique];
            most
        })
    }
}
