//! Items: those with a place of their own, and all others.

use super::{ANYTHING, Comparison, Outcome, Pair};
use serde_json::{Map, Value};

impl Comparison {
    pub(super) fn arrays(&mut self, pair: &Pair<'_, '_>) -> Outcome {
        let mut compatible = self.counts(pair, "minItems", "maxItems");
        let unique = |keywords: &Map<String, Value>| keywords.get("uniqueItems") == Some(&Value::Bool(true));
        if unique(pair.new) && !unique(pair.old) {
            compatible = self.fault("`uniqueItems` was added");
        }
        let (new_rest, old_rest) = (rest_of(pair.new).unwrap_or(&ANYTHING), rest_of(pair.old).unwrap_or(&ANYTHING));
        let (new_first, old_first) = (first_of(pair.new), first_of(pair.old));
        for index in 0..new_first.len().max(old_first.len()) {
            let new = pair.reader.inside(new_first.get(index).unwrap_or(new_rest))?;
            let old = pair.writer.inside(old_first.get(index).unwrap_or(old_rest))?;
            compatible &= self.at(&format!("items/{index}"), &new, &old)?;
        }
        compatible &= self.at("items", &pair.reader.inside(new_rest)?, &pair.writer.inside(old_rest)?)?;
        if let Some(new) = pair.new.get("contains") {
            compatible &= match pair.old.get("contains") {
                Some(old) => self.at("contains", &pair.reader.inside(new)?, &pair.writer.inside(old)?)?,
                None => self.fault("`contains` was added"),
            };
            compatible &= self.same_or_gone(pair, "minContains") && self.same_or_gone(pair, "maxContains");
        }
        Ok(compatible)
    }
}

/// The schemas of the first items, each with a place of its own.
fn first_of(keywords: &Map<String, Value>) -> &[Value] {
    ["prefixItems", "items"].iter().find_map(|key| keywords.get(*key)?.as_array()).map_or(&[], Vec::as_slice)
}

/// What judges all other items.
fn rest_of(keywords: &Map<String, Value>) -> Option<&Value> {
    let rest = keywords.get("items").filter(|items| !items.is_array());
    rest.or_else(|| keywords.get("additionalItems")).or_else(|| keywords.get("unevaluatedItems"))
}
