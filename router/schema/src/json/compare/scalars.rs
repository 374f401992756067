//! Types, listed values, numbers and strings.

use super::{Comparison, Pair};
use jsonschema::Draft;
use serde_json::{Map, Value};
use std::collections::HashSet;

/// Which types both schemas allow at all: keywords for others say nothing.
pub(super) struct Types {
    pub(super) number: bool,
    pub(super) string: bool,
    pub(super) object: bool,
    pub(super) array: bool,
}

const TYPES: [&str; 7] = ["null", "boolean", "integer", "number", "string", "object", "array"];

impl Comparison {
    pub(super) fn types(&mut self, pair: &Pair<'_, '_>) -> (Types, bool) {
        let old = declared(pair.old);
        let mut compatible = true;
        if let Some(new) = declared(pair.new) {
            let allowed = |word: &str| new.contains(&word) || (word == "integer" && new.contains(&"number"));
            let refused: Vec<&str> = match &old {
                Some(old) => old.iter().copied().filter(|&word| !allowed(word)).collect(),
                // `number` covers `integer`.
                None => TYPES.iter().copied().filter(|&word| !allowed(word)).collect(),
            };
            if !refused.is_empty() {
                compatible = self.fault(&format!("the type {} is refused now", refused.join(", ")));
            }
        }
        let has = |word: &str| old.as_ref().is_none_or(|types| types.contains(&word));
        let types = Types {
            number: has("number") || has("integer"),
            string: has("string"),
            object: has("object"),
            array: has("array"),
        };
        (types, compatible)
    }

    /// `enum` and `const`.
    pub(super) fn values(&mut self, pair: &Pair<'_, '_>) -> bool {
        let Some(new) = listed(pair.new) else { return true };
        let Some(old) = listed(pair.old) else { return self.fault("only listed values are allowed now") };
        // Lists may be as long as a schema: each of one is not held against each of the other.
        let known: HashSet<&Value> = new.iter().copied().collect();
        let numbers: HashSet<u64> = new.iter().filter_map(|value| number_bits(value)).collect();
        let is_known =
            |value: &Value| known.contains(value) || number_bits(value).is_some_and(|bits| numbers.contains(&bits));
        let gone: Vec<String> = old.iter().filter(|old| !is_known(old)).map(ToString::to_string).collect();
        gone.is_empty() || self.fault(&format!("no longer listed: {}", gone.join(", ")))
    }

    pub(super) fn numbers(&mut self, pair: &Pair<'_, '_>) -> bool {
        let mut compatible = self.bound(lower(pair.new), lower(pair.old), "minimum");
        compatible &= self.bound(upper(pair.new), upper(pair.old), "maximum");
        if let Some(new) = pair.new.get("multipleOf").and_then(Value::as_f64) {
            let covered =
                pair.old.get("multipleOf").and_then(Value::as_f64).is_some_and(|old| (old / new).fract() == 0.0);
            let integer = new == 1.0 && declared(pair.old).is_some_and(|types| !types.contains(&"number"));
            compatible &=
                covered || integer || self.fault("`multipleOf` was added, or is no divisor of the one before");
        }
        compatible
    }

    fn bound(&mut self, new: Option<Bound>, old: Option<Bound>, name: &str) -> bool {
        match (new, old) {
            (None, _) => true,
            (Some(new), Some(old)) if new <= old => true,
            (Some(_), Some(_)) => self.fault(&format!("the {name} is stricter now")),
            (Some(_), None) => self.fault(&format!("a {name} was added")),
        }
    }

    pub(super) fn strings(&mut self, pair: &Pair<'_, '_>) -> bool {
        let mut compatible = self.counts(pair, "minLength", "maxLength");
        compatible &= self.same_or_gone(pair, "pattern");
        // Later drafts only describe with it.
        if matches!(pair.reader.draft, Draft::Draft4 | Draft::Draft6 | Draft::Draft7) {
            compatible &= self.same_or_gone(pair, "format");
        }
        compatible
    }

    /// A keyword whose values cannot be compared.
    pub(super) fn same_or_gone(&mut self, pair: &Pair<'_, '_>, key: &str) -> bool {
        match (pair.new.get(key), pair.old.get(key)) {
            (None, _) => true,
            (Some(new), Some(old)) if new == old => true,
            (Some(_), Some(_)) => self.fault(&format!("`{key}` was changed")),
            (Some(_), None) => self.fault(&format!("`{key}` was added")),
        }
    }

    /// A least and a most count.
    pub(super) fn counts(&mut self, pair: &Pair<'_, '_>, least: &str, most: &str) -> bool {
        let count = |keywords: &Map<String, Value>, key: &str| keywords.get(key).and_then(Value::as_f64);
        let mut compatible = true;
        if let Some(new) = count(pair.new, least).filter(|new| *new > count(pair.old, least).unwrap_or(0.0)) {
            compatible = self.fault(&format!("`{least}` was raised to {new}"));
        }
        if let Some(new) = count(pair.new, most)
            && count(pair.old, most).is_none_or(|old| new < old)
        {
            compatible = self.fault(&format!("`{most}` was lowered to {new}"));
        }
        compatible
    }
}

/// The types that a schema names, if it names any: each once.
fn declared(keywords: &Map<String, Value>) -> Option<Vec<&str>> {
    match keywords.get("type") {
        Some(Value::String(word)) => Some(vec![word]),
        Some(Value::Array(words)) => Some(unique(words.iter().filter_map(Value::as_str))),
        // Values that are listed have types, too.
        _ => listed(keywords).map(|values| unique(values.into_iter().map(type_of))),
    }
}

fn unique<'a>(words: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut seen = HashSet::new();
    words.filter(|word| seen.insert(*word)).collect()
}

/// The same for numbers that are the same: 1 and 1.0, 0 and -0.
fn number_bits(value: &Value) -> Option<u64> {
    value.as_f64().map(|number| (number + 0.0).to_bits())
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.as_f64().is_some_and(|number| number.fract() == 0.0) => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn listed(keywords: &Map<String, Value>) -> Option<Vec<&Value>> {
    match (keywords.get("const"), keywords.get("enum")) {
        (Some(value), _) => Some(vec![value]),
        (None, Some(Value::Array(values))) => Some(values.iter().collect()),
        _ => None,
    }
}

/// A bound of numbers, and whether it is excluded itself: smaller pairs allow more.
type Bound = (f64, bool);

fn lower(keywords: &Map<String, Value>) -> Option<Bound> {
    tightest(keywords, "minimum", "exclusiveMinimum", 1.0)
}

/// Turned round, so that here, too, smaller pairs allow more.
fn upper(keywords: &Map<String, Value>) -> Option<Bound> {
    tightest(keywords, "maximum", "exclusiveMaximum", -1.0)
}

fn tightest(keywords: &Map<String, Value>, including: &str, excluding: &str, sign: f64) -> Option<Bound> {
    let including = keywords.get(including).and_then(Value::as_f64).map(|bound| bound * sign);
    match keywords.get(excluding) {
        // Draft 4: a word about the other keyword.
        Some(Value::Bool(excluded)) => including.map(|bound| (bound, *excluded)),
        Some(value) => {
            let excluding = value.as_f64().map(|bound| (bound * sign, true));
            let including = including.map(|bound| (bound, false));
            match (including, excluding) {
                (Some(a), Some(b)) => Some(if b >= a { b } else { a }),
                (a, b) => a.or(b),
            }
        }
        None => including.map(|bound| (bound, false)),
    }
}
