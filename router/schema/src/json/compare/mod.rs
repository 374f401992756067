//! Which values that one schema allows another refuses, by the rules of Confluent's registry.
//!
//! The rules look at keywords, not at sets of values: what they call compatible is, but for two deliberate exceptions of
//! that registry (a required member that has a default, and alternatives of a `oneOf` that overlap); what they call
//! incompatible may be harmless. Objects have an open content model unless `additionalProperties` says otherwise: other
//! writers may have used the name that a new member gets, so that adding one with any demand breaks data.

mod arrays;
mod objects;
mod scalars;

use super::document::{Document, Place};
use super::work;
use crate::error::SchemaError;
use crate::format::Source;
use crate::limits::{COMPARED_DEPTH_MAX, COMPARED_PAIRS_MAX, FAULT_TEXT_MAX, INCOMPATIBILITIES_MAX};
use serde_json::{Map, Value};
use std::collections::HashMap;

/// Why the reader's schema refuses what the writer's allows; empty where it does not.
pub(crate) fn unreadable(reader: &Source<'_>, writer: &Source<'_>) -> Result<Vec<String>, SchemaError> {
    let (reader, writer) = (Document::read(reader)?, Document::read(writer)?);
    // Both without endless references.
    work::of(&reader)?;
    work::of(&writer)?;
    let (reader_registry, writer_registry) = (reader.registry()?, writer.registry()?);
    let mut comparison = Comparison::default();
    comparison.compare(&reader.place(&reader_registry)?, &writer.place(&writer_registry)?)?;
    Ok(comparison.found)
}

/// The schema that is meant where there is none.
static ANYTHING: Value = Value::Bool(true);

/// A comparison under way.
#[derive(Default)]
struct Comparison {
    found: Vec<String>,
    /// Where in the schema it is: keywords and names, each after a slash.
    path: Vec<String>,
    /// Pairs of places that were compared, and whether they are compatible; `None` while they are being compared, which
    /// counts as compatible: a recursive schema is what it says wherever that can be seen.
    known: HashMap<(usize, usize), Option<bool>>,
    /// Compiled patterns, by their text; `None` for those that the library refuses.
    patterns: HashMap<String, Option<jsonschema::Validator>>,
}

type Outcome = Result<bool, SchemaError>;

impl Comparison {
    /// Whether the reader accepts all that the writer allows. Reasons why not are in `found`.
    fn compare(&mut self, reader: &Place<'_>, writer: &Place<'_>) -> Outcome {
        let pair = (reader.identity(), writer.identity());
        match self.known.get(&pair) {
            Some(None | Some(true)) => return Ok(true),
            Some(Some(false)) => return Ok(self.fault("differs, as said for the schema that both refer to")),
            None => {}
        }
        if self.known.len() >= COMPARED_PAIRS_MAX || self.path.len() >= COMPARED_DEPTH_MAX {
            return Err(SchemaError::too_complex("the comparison meets more pairs of schemas", COMPARED_PAIRS_MAX));
        }
        self.known.insert(pair, None);
        let compatible = self.compare_anew(reader, writer)?;
        self.known.insert(pair, Some(compatible));
        Ok(compatible)
    }

    fn compare_anew(&mut self, reader: &Place<'_>, writer: &Place<'_>) -> Outcome {
        let nothing = Map::new();
        let reader_keywords = match reader.value {
            Value::Bool(false) => {
                return Ok(*writer.value == Value::Bool(false) || self.fault("nothing is allowed any more"));
            }
            Value::Object(keywords) if !demands_nothing(keywords) => keywords,
            _ => return Ok(true),
        };
        let writer_keywords = match writer.value {
            Value::Bool(false) => return Ok(true),
            Value::Object(keywords) => keywords,
            _ => &nothing,
        };
        // What is demanded together: the schema's own keywords, and each schema of `$ref` and `allOf`.
        let reader_parts = conjuncts(reader, reader_keywords)?;
        let writer_parts = conjuncts(writer, writer_keywords)?;
        if reader_parts.is_empty() && writer_parts.is_empty() {
            return self.compare_sums(reader, reader_keywords, writer, writer_keywords);
        }
        let own_writer = own(writer, writer_keywords);
        let mut compatible = true;
        if own(reader, reader_keywords) {
            let before = self.found.len();
            let mut met = own_writer && self.compare_sums(reader, reader_keywords, writer, writer_keywords)?;
            for part in &writer_parts {
                met = met || self.own_accepts(reader, reader_keywords, part)?;
            }
            met = met || (!own_writer && writer_parts.is_empty());
            if met {
                self.found.truncate(before);
            } else if self.found.len() == before {
                self.fault("demands more than before");
            }
            compatible &= met;
        }
        for part in &reader_parts {
            compatible &= self.any_accepted(part, writer, writer_keywords, &writer_parts)?;
        }
        Ok(compatible)
    }

    /// Whether a schema's own keywords accept what a part of the writer's allows.
    fn own_accepts(&mut self, reader: &Place<'_>, keywords: &Map<String, Value>, part: &Place<'_>) -> Outcome {
        let nothing = Map::new();
        let part_keywords = part.value.as_object().unwrap_or(&nothing);
        let inner = conjuncts(part, part_keywords)?;
        if own(part, part_keywords) || inner.is_empty() {
            let before = self.found.len();
            if self.compare_sums(reader, keywords, part, part_keywords)? {
                self.found.truncate(before);
                return Ok(true);
            }
        }
        for part in &inner {
            self.path.push("allOf".to_owned());
            let accepted = self.within_depth().and_then(|()| self.own_accepts(reader, keywords, part));
            self.path.pop();
            if accepted? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn within_depth(&self) -> Result<(), SchemaError> {
        if self.path.len() >= COMPARED_DEPTH_MAX {
            return Err(SchemaError::too_complex(
                "schemas are inside each other too deeply to compare",
                COMPARED_DEPTH_MAX,
            ));
        }
        Ok(())
    }

    /// Whether what the reader demands with one part is demanded by the writer's own keywords or one of its parts.
    fn any_accepted(
        &mut self,
        reader: &Place<'_>,
        writer: &Place<'_>,
        keywords: &Map<String, Value>,
        parts: &[Place<'_>],
    ) -> Outcome {
        let before = self.found.len();
        let mut reasons = None;
        for candidate in parts.iter().chain(own(writer, keywords).then_some(writer)) {
            // The writer as a whole, where it has own keywords: its parts were tried before.
            if self.compare(reader, candidate)? {
                self.found.truncate(before);
                return Ok(true);
            }
            let said = self.found.split_off(before);
            reasons.get_or_insert(said);
        }
        match reasons {
            Some(said) => self.found.extend(said),
            None => _ = self.fault("demands more than before"),
        }
        Ok(false)
    }

    /// `anyOf` and `oneOf`: each alternative of the writer needs one of the reader's that accepts it.
    fn compare_sums(
        &mut self,
        reader: &Place<'_>,
        reader_keywords: &Map<String, Value>,
        writer: &Place<'_>,
        writer_keywords: &Map<String, Value>,
    ) -> Outcome {
        let (reader_sum, writer_sum) = (alternatives(reader, reader_keywords)?, alternatives(writer, writer_keywords)?);
        match (&reader_sum, &writer_sum) {
            (None, None) => self.compare_keywords(reader, reader_keywords, writer, writer_keywords),
            (Some((_, accepted)), None) => {
                let rest = self.compare_keywords(reader, reader_keywords, writer, writer_keywords)?;
                Ok(self.one_accepts(accepted, writer, "matches none of the alternatives now")? && rest)
            }
            (None, Some((_, allowed))) => {
                let before = self.found.len();
                if self.compare_keywords(reader, reader_keywords, writer, writer_keywords)? {
                    return Ok(true);
                }
                let reasons = self.found.split_off(before);
                for writer in allowed {
                    // The reader without parts, so that the pair is not the one that is being compared.
                    if !self.compare(reader, writer)? {
                        self.found.splice(before..before, reasons);
                        return Ok(false);
                    }
                }
                self.found.truncate(before);
                Ok(true)
            }
            (Some((reader_word, accepted)), Some((writer_word, allowed))) => {
                let mut compatible = self.compare_keywords(reader, reader_keywords, writer, writer_keywords)?;
                if *reader_word == "oneOf" && *writer_word == "anyOf" && accepted.len() > 1 {
                    compatible =
                        self.fault("`anyOf` became `oneOf`: values that match two alternatives are refused now");
                }
                for (index, writer) in allowed.iter().enumerate() {
                    self.path.push(format!("{writer_word}/{index}"));
                    let accepts = self.one_accepts(accepted, writer, "this alternative is gone or demands more now");
                    self.path.pop();
                    compatible &= accepts?;
                }
                Ok(compatible)
            }
        }
    }

    fn one_accepts(&mut self, accepted: &[Place<'_>], writer: &Place<'_>, otherwise: &str) -> Outcome {
        let before = self.found.len();
        for reader in accepted {
            if self.compare(reader, writer)? {
                self.found.truncate(before);
                return Ok(true);
            }
        }
        self.found.truncate(before);
        Ok(self.fault(otherwise))
    }

    /// All other keywords.
    fn compare_keywords(
        &mut self,
        reader: &Place<'_>,
        reader_keywords: &Map<String, Value>,
        writer: &Place<'_>,
        writer_keywords: &Map<String, Value>,
    ) -> Outcome {
        let pair = Pair { reader, writer, new: reader_keywords, old: writer_keywords };
        let (types, mut compatible) = self.types(&pair);
        compatible &= self.values(&pair);
        if types.number {
            compatible &= self.numbers(&pair);
        }
        if types.string {
            compatible &= self.strings(&pair);
        }
        if types.object {
            compatible &= self.objects(&pair)?;
        }
        if types.array {
            compatible &= self.arrays(&pair)?;
        }
        Ok(self.conditions(&pair)? && compatible)
    }

    /// `not` and `if`.
    fn conditions(&mut self, pair: &Pair<'_, '_>) -> Outcome {
        let mut compatible = true;
        if let Some(new) = pair.new.get("not") {
            compatible &= match pair.old.get("not") {
                // What is refused now must have been refused before.
                Some(old) => self.turned("not", &pair.writer.inside(old)?, &pair.reader.inside(new)?)?,
                None => self.fault("`not` was added"),
            };
        }
        if let Some(new) = pair.new.get("if") {
            let Some(old) = pair.old.get("if") else { return Ok(self.fault("`if` was added")) };
            let (new, old) = (pair.reader.inside(new)?, pair.writer.inside(old)?);
            compatible &= self.turned("if", &old, &new)? && self.at("if", &new, &old)?;
            for key in ["then", "else"] {
                if let Some(new) = pair.new.get(key) {
                    let old = pair.old.get(key).unwrap_or(&ANYTHING);
                    compatible &= self.at(key, &pair.reader.inside(new)?, &pair.writer.inside(old)?)?;
                }
            }
        }
        Ok(compatible)
    }

    /// Compares the other way round, and says only that there is a difference.
    fn turned(&mut self, key: &str, reader: &Place<'_>, writer: &Place<'_>) -> Outcome {
        let before = self.found.len();
        let compatible = self.at(key, reader, writer)?;
        self.found.truncate(before);
        Ok(compatible || self.fault(&format!("`{key}` demands something else now")))
    }

    /// Compares below a keyword or a name.
    fn at(&mut self, name: &str, reader: &Place<'_>, writer: &Place<'_>) -> Outcome {
        self.path.push(name.to_owned());
        let outcome = self.compare(reader, writer);
        self.path.pop();
        outcome
    }

    /// Writes a reason down. False, to be returned.
    fn fault(&mut self, reason: &str) -> bool {
        if self.found.len() < INCOMPATIBILITIES_MAX {
            let place = crate::error::shortened(format!("/{}", self.path.join("/")), FAULT_TEXT_MAX);
            self.found.push(format!("at `{place}`: {}", crate::error::shortened(reason.to_owned(), FAULT_TEXT_MAX)));
        }
        false
    }
}

/// Two schemas whose keywords are compared.
struct Pair<'a, 'r> {
    reader: &'a Place<'r>,
    writer: &'a Place<'r>,
    new: &'r Map<String, Value>,
    old: &'r Map<String, Value>,
}

/// Keywords that demand nothing.
const SILENT: &[&str] = &[
    "$anchor",
    "$comment",
    "$defs",
    "$dynamicAnchor",
    "$id",
    "$recursiveAnchor",
    "$schema",
    "$vocabulary",
    "default",
    "definitions",
    "deprecated",
    "description",
    "examples",
    "id",
    "readOnly",
    "title",
    "writeOnly",
];

fn demands_nothing(keywords: &Map<String, Value>) -> bool {
    keywords.keys().all(|key| SILENT.contains(&key.as_str()) || key.starts_with("x-"))
}

/// Whether a schema demands something beside its references and `allOf`.
fn own(place: &Place<'_>, keywords: &Map<String, Value>) -> bool {
    if place.reference_alone() && keywords.contains_key("$ref") {
        return false;
    }
    let silent =
        |key: &str| SILENT.contains(&key) || key.starts_with("x-") || REFERENCES.contains(&key) || key == "allOf";
    !keywords.keys().all(|key| silent(key))
}

const REFERENCES: &[&str] = &["$ref", "$dynamicRef", "$recursiveRef"];

/// What a schema demands by reference and by `allOf`.
fn conjuncts<'r>(place: &Place<'r>, keywords: &'r Map<String, Value>) -> Result<Vec<Place<'r>>, SchemaError> {
    let mut parts = Vec::new();
    for reference in REFERENCES.iter().filter_map(|key| keywords.get(*key)?.as_str()) {
        parts.push(place.follow(reference)?);
        if place.reference_alone() {
            return Ok(parts);
        }
    }
    for value in keywords.get("allOf").and_then(Value::as_array).into_iter().flatten() {
        parts.push(place.inside(value)?);
    }
    Ok(parts)
}

/// The alternatives of a schema, and the keyword that offers them.
type Sum<'r> = Option<(&'static str, Vec<Place<'r>>)>;

fn alternatives<'r>(place: &Place<'r>, keywords: &'r Map<String, Value>) -> Result<Sum<'r>, SchemaError> {
    for word in ["oneOf", "anyOf"] {
        if let Some(values) = keywords.get(word).and_then(Value::as_array) {
            let places: Result<Vec<_>, _> = values.iter().map(|value| place.inside(value)).collect();
            return Ok(Some((word, places?)));
        }
    }
    Ok(None)
}
