//! Members: which may be there, which must be, and what else may.

use super::{ANYTHING, Comparison, Outcome, Pair, demands_nothing};
use crate::error::SchemaError;
use crate::json::document::Place;
use crate::limits::{REGEX_BYTES_MAX, REGEX_STEPS_MAX};
use jsonschema::PatternOptions;
use serde_json::{Map, Value};

impl Comparison {
    pub(super) fn objects(&mut self, pair: &Pair<'_, '_>) -> Outcome {
        let mut compatible = self.members(pair)?;
        compatible &= self.required(pair);
        compatible &= self.other_members(pair)?;
        compatible &= self.counts(pair, "minProperties", "maxProperties");
        if let Some(new) = pair.new.get("propertyNames") {
            let old = pair.old.get("propertyNames").unwrap_or(&ANYTHING);
            compatible &= self.at("propertyNames", &pair.reader.inside(new)?, &pair.writer.inside(old)?)?;
        }
        Ok(self.dependencies(pair)? && compatible)
    }

    /// Members that either schema names.
    fn members(&mut self, pair: &Pair<'_, '_>) -> Outcome {
        let mut compatible = true;
        for (name, new) in members_of(pair.new) {
            let new = pair.reader.inside(new)?;
            self.path.push(format!("properties/{name}"));
            let outcome = match members_of(pair.old).find(|(known, _)| *known == name) {
                Some((_, old)) => pair.writer.inside(old).and_then(|old| self.compare(&new, &old)),
                None => self.added_member(pair, name, &new),
            };
            self.path.pop();
            compatible &= outcome?;
        }
        for (name, old) in members_of(pair.old) {
            if members_of(pair.new).any(|(known, _)| known == name) {
                continue;
            }
            let old = pair.writer.inside(old)?;
            self.path.push(format!("properties/{name}"));
            let outcome = self.removed_member(pair, name, &old);
            self.path.pop();
            compatible &= outcome?;
        }
        Ok(compatible)
    }

    fn added_member(&mut self, pair: &Pair<'_, '_>, name: &str, new: &Place<'_>) -> Outcome {
        let mut covering = self.covering(pair.writer, pair.old, name)?;
        if covering.is_empty() {
            covering.push(pair.writer.inside(&ANYTHING)?);
        }
        for old in covering {
            if *old.value == Value::Bool(false) {
                return Ok(true);
            }
            let before = self.found.len();
            if self.compare(new, &old)? {
                return Ok(true);
            }
            self.found.truncate(before);
        }
        Ok(self.fault("was added, and data written before may have anything under that name: the object was open"))
    }

    fn removed_member(&mut self, pair: &Pair<'_, '_>, name: &str, old: &Place<'_>) -> Outcome {
        if *old.value == Value::Bool(false) {
            return Ok(true);
        }
        let mut compatible = true;
        for new in self.covering(pair.reader, pair.new, name)? {
            compatible &= match new.value {
                Value::Bool(false) => self.fault("was removed, and other members are not allowed"),
                _ => self.compare(&new, old)?,
            };
        }
        Ok(compatible)
    }

    /// What judges a member that the schema does not name.
    fn covering<'r>(
        &mut self,
        place: &Place<'r>,
        keywords: &'r Map<String, Value>,
        name: &str,
    ) -> Result<Vec<Place<'r>>, SchemaError> {
        let mut found = Vec::new();
        for (pattern, value) in patterns_of(keywords) {
            if self.matches(pattern, name) {
                found.push(place.inside(value)?);
            }
        }
        if found.is_empty() {
            found.extend(others_of(keywords).map(|value| place.inside(value)).transpose()?);
        }
        Ok(found)
    }

    fn matches(&mut self, pattern: &str, name: &str) -> bool {
        let compiled = self.patterns.entry(pattern.to_owned()).or_insert_with(|| {
            let options = PatternOptions::fancy_regex()
                .size_limit(REGEX_BYTES_MAX)
                .dfa_size_limit(REGEX_BYTES_MAX)
                .backtrack_limit(REGEX_STEPS_MAX);
            let schema = serde_json::json!({"pattern": pattern});
            jsonschema::options().offline().with_pattern_options(options).build(&schema).ok()
        });
        compiled.as_ref().is_some_and(|compiled| compiled.is_valid(&Value::from(name)))
    }

    fn required(&mut self, pair: &Pair<'_, '_>) -> bool {
        let mut compatible = true;
        for name in required_of(pair.new) {
            let has_default = || members_of(pair.new).any(|(known, new)| known == name && new.get("default").is_some());
            if !required_of(pair.old).any(|known| known == name) && !has_default() {
                compatible = self.fault(&format!("`{name}` is required now, and has no default"));
            }
        }
        compatible
    }

    /// `patternProperties` and `additionalProperties`.
    fn other_members(&mut self, pair: &Pair<'_, '_>) -> Outcome {
        let (new_others, old_others) =
            (others_of(pair.new).unwrap_or(&ANYTHING), others_of(pair.old).unwrap_or(&ANYTHING));
        let (new_rest, old_rest) = (pair.reader.inside(new_others)?, pair.writer.inside(old_others)?);
        let mut compatible = true;
        for (pattern, new) in patterns_of(pair.new) {
            let new = pair.reader.inside(new)?;
            let old = match patterns_of(pair.old).find(|(known, _)| *known == pattern) {
                Some((_, old)) => pair.writer.inside(old)?,
                None => old_rest.clone(),
            };
            compatible &= self.at(&format!("patternProperties/{pattern}"), &new, &old)?;
        }
        for (pattern, old) in patterns_of(pair.old) {
            if !patterns_of(pair.new).any(|(known, _)| known == pattern) {
                compatible &= self.at(&format!("patternProperties/{pattern}"), &new_rest, &pair.writer.inside(old)?)?;
            }
        }
        if *new_rest.value == Value::Bool(false) && *old_rest.value != Value::Bool(false) {
            return Ok(self.fault("other members were allowed, and are not any more"));
        }
        Ok(self.at("additionalProperties", &new_rest, &old_rest)? && compatible)
    }

    /// `dependentRequired`, `dependentSchemas`, and `dependencies`, which was both.
    fn dependencies(&mut self, pair: &Pair<'_, '_>) -> Outcome {
        let mut compatible = true;
        for key in ["dependentRequired", "dependentSchemas", "dependencies"] {
            for (name, new) in pair.new.get(key).and_then(Value::as_object).into_iter().flatten() {
                let old = pair.old.get(key).and_then(|old| old.get(name));
                let missing = || format!("`{key}` demands more for `{name}` now");
                compatible &= match (new, old) {
                    (Value::Array(new), Some(Value::Array(old))) => {
                        new.iter().all(|name| old.contains(name)) || self.fault(&missing())
                    }
                    (Value::Array(new), None) if new.is_empty() => true,
                    (Value::Array(_), _) | (_, Some(Value::Array(_))) => self.fault(&missing()),
                    (new, old) => {
                        let (new, old) = (pair.reader.inside(new)?, pair.writer.inside(old.unwrap_or(&ANYTHING))?);
                        self.at(&format!("{key}/{name}"), &new, &old)?
                    }
                };
            }
        }
        Ok(compatible)
    }
}

fn members_of(keywords: &Map<String, Value>) -> impl Iterator<Item = (&String, &Value)> {
    keywords.get("properties").and_then(Value::as_object).into_iter().flatten()
}

fn patterns_of(keywords: &Map<String, Value>) -> impl Iterator<Item = (&String, &Value)> {
    keywords.get("patternProperties").and_then(Value::as_object).into_iter().flatten()
}

fn required_of(keywords: &Map<String, Value>) -> impl Iterator<Item = &str> {
    keywords.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
}

/// What judges the members that nothing else does, unless it accepts all.
fn others_of(keywords: &Map<String, Value>) -> Option<&Value> {
    let others = keywords.get("additionalProperties").or_else(|| keywords.get("unevaluatedProperties"))?;
    let open = *others == Value::Bool(true) || others.as_object().is_some_and(demands_nothing);
    (!open).then_some(others)
}
