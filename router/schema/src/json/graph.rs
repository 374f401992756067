//! What judges what: the schemas of a document, and where each sends a value and its parts.

use super::document::{Document, Place};
use super::weight::Weight;
use crate::error::SchemaError;
use serde_json::{Map, Value};
use std::collections::HashMap;

/// A schema by its number.
pub(super) type Number = usize;

/// What one schema asks of others.
#[derive(Debug, Default)]
pub(super) struct Node {
    /// What it takes itself.
    pub(super) weight: Weight,
    /// Judge the same value, with how often they do.
    pub(super) in_place: Vec<(Number, u64)>,
    /// Judge the member of that name.
    pub(super) members: HashMap<String, Number>,
    /// Judges members that have no name above.
    pub(super) other_members: Vec<Number>,
    /// May judge any member.
    pub(super) all_members: Vec<Number>,
    /// Judge the name of each member.
    pub(super) names: Vec<Number>,
    /// Judge the item of that index.
    pub(super) items: Vec<Number>,
    /// May judge any item.
    pub(super) all_items: Vec<Number>,
}

/// All schemas that judging can get to. The first is the document's own.
pub(super) fn explore(document: &Document) -> Result<Vec<Node>, SchemaError> {
    let registry = document.registry()?;
    let mut explorer = Explorer { known: HashMap::new(), places: Vec::new(), anchored: Vec::new() };
    explorer.number(document.place(&registry)?);
    let mut nodes: Vec<Node> = Vec::new();
    let mut dynamic = Vec::new();
    while nodes.len() < explorer.places.len() {
        let place = explorer.places[nodes.len()].clone();
        if let Some(keywords) = place.value.as_object() {
            let mut node = Node { weight: Weight::least(), ..Node::default() };
            explorer.in_place(&place, keywords, &mut node)?;
            if !(place.reference_alone() && keywords.contains_key("$ref")) {
                node.weight = Weight::of(keywords);
                explorer.members(&place, keywords, &mut node)?;
                explorer.items(&place, keywords, &mut node)?;
            }
            if keywords.contains_key("$dynamicRef") || keywords.contains_key("$recursiveRef") {
                dynamic.push(nodes.len());
            }
            nodes.push(node);
        } else {
            nodes.push(Node { weight: Weight::least(), ..Node::default() });
        }
    }
    // Which one a dynamic reference means depends on the way to it: all that it may mean count.
    for number in dynamic {
        for &target in &explorer.anchored {
            if !nodes[number].in_place.iter().any(|(known, _)| *known == target) {
                nodes[number].in_place.push((target, 1));
            }
        }
    }
    Ok(nodes)
}

struct Explorer<'r> {
    known: HashMap<usize, Number>,
    places: Vec<Place<'r>>,
    /// Those that dynamic references may mean.
    anchored: Vec<Number>,
}

impl<'r> Explorer<'r> {
    fn number(&mut self, place: Place<'r>) -> Number {
        let next = self.places.len();
        let number = *self.known.entry(place.identity()).or_insert(next);
        if number == next {
            let anchored = |key| place.value.get(key).is_some_and(|value| *value != Value::Bool(false));
            if anchored("$dynamicAnchor") || anchored("$recursiveAnchor") {
                self.anchored.push(number);
            }
            self.places.push(place);
        }
        number
    }

    fn inside(&mut self, place: &Place<'r>, value: &'r Value) -> Result<Number, SchemaError> {
        Ok(self.number(place.inside(value)?))
    }

    fn in_place(
        &mut self,
        place: &Place<'r>,
        keywords: &'r Map<String, Value>,
        node: &mut Node,
    ) -> Result<(), SchemaError> {
        for key in ["$ref", "$dynamicRef", "$recursiveRef"] {
            if let Some(reference) = keywords.get(key).and_then(Value::as_str) {
                let target = self.number(place.follow(reference)?);
                node.in_place.push((target, 1));
                if key == "$ref" && place.reference_alone() {
                    return Ok(());
                }
            }
        }
        // To know what is left over, the schemas beside are asked once more.
        let unevaluated = keywords.contains_key("unevaluatedProperties") || keywords.contains_key("unevaluatedItems");
        let times = if unevaluated { 2 } else { 1 };
        for key in ["allOf", "anyOf", "oneOf"] {
            for value in keywords.get(key).and_then(Value::as_array).into_iter().flatten() {
                node.in_place.push((self.inside(place, value)?, times));
            }
        }
        for key in ["not", "if", "then", "else"] {
            if let Some(value) = keywords.get(key) {
                node.in_place.push((self.inside(place, value)?, times));
            }
        }
        for key in ["dependentSchemas", "dependencies"] {
            for value in keywords.get(key).and_then(Value::as_object).into_iter().flat_map(Map::values) {
                node.in_place.push((self.inside(place, value)?, times));
            }
        }
        for (_, reference_times) in &mut node.in_place {
            *reference_times = times;
        }
        Ok(())
    }

    fn members(
        &mut self,
        place: &Place<'r>,
        keywords: &'r Map<String, Value>,
        node: &mut Node,
    ) -> Result<(), SchemaError> {
        for (name, value) in keywords.get("properties").and_then(Value::as_object).into_iter().flatten() {
            node.members.insert(name.clone(), self.inside(place, value)?);
        }
        for value in keywords.get("patternProperties").and_then(Value::as_object).into_iter().flat_map(Map::values) {
            node.all_members.push(self.inside(place, value)?);
        }
        if let Some(value) = keywords.get("additionalProperties") {
            node.other_members.push(self.inside(place, value)?);
        }
        for key in ["unevaluatedProperties", "propertyNames"] {
            if let Some(value) = keywords.get(key) {
                node.all_members.push(self.inside(place, value)?);
            }
        }
        if let Some(value) = keywords.get("propertyNames") {
            node.names.push(self.inside(place, value)?);
        }
        Ok(())
    }

    fn items(
        &mut self,
        place: &Place<'r>,
        keywords: &'r Map<String, Value>,
        node: &mut Node,
    ) -> Result<(), SchemaError> {
        for key in ["prefixItems", "items"] {
            for value in keywords.get(key).and_then(Value::as_array).into_iter().flatten() {
                node.items.push(self.inside(place, value)?);
            }
        }
        for key in ["items", "additionalItems", "unevaluatedItems", "contains"] {
            if let Some(value) = keywords.get(key).filter(|value| !value.is_array()) {
                node.all_items.push(self.inside(place, value)?);
            }
        }
        Ok(())
    }
}
