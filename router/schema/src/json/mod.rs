//! JSON Schema, by the `jsonschema` library, without anything that fetches.

mod budget;
mod compare;
mod document;
mod graph;
mod tape;
mod weight;
mod work;

pub(crate) use compare::unreadable;

use crate::error::{Fault, SchemaError};
use crate::format::Source;
use crate::limits::{JSON_WORK_NS_MAX, REGEX_BYTES_MAX, REGEX_STEPS_MAX};
use budget::Work;
use document::Document;
use jsonschema::error::ValidationErrorKind;
use jsonschema::{PatternOptions, ValidationError};
use serde_json::Value;
use tape::{At, Payload, Unread, reasons};

/// A compiled JSON schema.
#[derive(Debug)]
pub(crate) struct Validator {
    compiled: jsonschema::Validator<Payload>,
    /// What judging takes.
    work: Work,
}

impl Validator {
    pub(crate) fn compile(source: &Source<'_>) -> Result<Self, SchemaError> {
        let document = Document::read(source)?;
        let work = work::of(&document)?;
        let patterns = PatternOptions::fancy_regex()
            .size_limit(REGEX_BYTES_MAX)
            .dfa_size_limit(REGEX_BYTES_MAX)
            .backtrack_limit(REGEX_STEPS_MAX);
        let options =
            jsonschema::options_for::<Payload>().with_retriever(document.given.clone()).with_pattern_options(patterns);
        let compiled = options.build(&document.root).map_err(|error| match error.kind() {
            ValidationErrorKind::Referencing(error) => document::unresolved(error),
            _ => SchemaError::malformed("JSON", format!("{error}, at `{}`", error.instance_path())),
        })?;
        Ok(Self { compiled, work })
    }

    /// Judges a payload; `work_ns` grows by what that takes at most, without reading it.
    #[inline]
    pub(crate) fn validate(&self, payload: &[u8], work_ns: &mut u64) -> Result<(), Fault> {
        match tape::read(payload, |value| self.judge(value, payload.len(), work_ns)) {
            Ok(None) => Ok(()),
            Ok(Some(fault)) => Err(*fault),
            Err(why) => Err(unread(why)),
        }
    }

    /// What is wrong, if anything is. In a box: whoever hands a large result on copies it, and waits until it is written.
    #[inline]
    fn judge(&self, value: At<'_>, bytes: usize, work_ns: &mut u64) -> Option<Box<Fault>> {
        let work = self.work.of(value, bytes);
        if work > JSON_WORK_NS_MAX {
            return Some(Box::new(self.too_much(value)));
        }
        *work_ns += work;
        if self.compiled.is_valid(value) { None } else { self.reason(value) }
    }

    #[cold]
    fn too_much(&self, value: At<'_>) -> Fault {
        if self.work.grows() {
            return Fault::whole("is nested too deeply for a recursive schema with choices");
        }
        let parts = value.parts();
        Fault::whole(format!("has {parts} values, too many for all that the schema asks of each: send fewer at once"))
    }

    /// Judged again, for the reason: only bad payloads pay for it. The value itself stays out of logs and headers.
    #[cold]
    fn reason(&self, value: At<'_>) -> Option<Box<Fault>> {
        // Of a pattern that takes too many steps the library says so, or panics (0.61.2, where that is in a choice below the
        // root: it looks for the place in the part): whoever calls turns the payload back either way.
        let fault = match reasons::within_bounds(|| self.compiled.validate(value)) {
            Some(Ok(())) => return None,
            Some(Err(error)) => told(&error),
            None => Fault::whole("fits none of the schema's choices, in more ways than can be told"),
        };
        Some(Box::new(fault))
    }
}

#[cold]
fn unread(why: Unread) -> Fault {
    match why {
        Unread::NoJson(error) => Fault::whole(format!("is no JSON: {error}")),
        Unread::Repeated(repeated) => Fault::new(&*repeated.path, &repeated),
    }
}

/// What is wrong, without the value.
fn told(error: &ValidationError<'_>) -> Fault {
    let path = error.instance_path().as_str();
    match error.kind() {
        // The library would count those that are there.
        ValidationErrorKind::AdditionalItems { limit } => Fault::new(path, format!("has more than {limit} items")),
        _ => Fault::new(path, error.masked()),
    }
}

/// Compact, with sorted keys.
pub(crate) fn canonical(source: &Source<'_>) -> Result<String, SchemaError> {
    let document = Document::read(source)?;
    let mut text = String::with_capacity(source.text.len());
    write_sorted(&document.root, &mut text);
    Ok(text)
}

/// Whatever order the map keeps, which other crates' features decide.
pub(crate) fn write_sorted(value: &Value, text: &mut String) {
    let separate = |text: &mut String, index: usize| {
        if index > 0 {
            text.push(',');
        }
    };
    match value {
        Value::Array(values) => {
            text.push('[');
            for (index, value) in values.iter().enumerate() {
                separate(text, index);
                write_sorted(value, text);
            }
            text.push(']');
        }
        Value::Object(values) => {
            let mut sorted: Vec<_> = values.iter().collect();
            sorted.sort_by_key(|(key, _)| *key);
            text.push('{');
            for (index, (key, value)) in sorted.into_iter().enumerate() {
                separate(text, index);
                text.push_str(&Value::from(key.as_str()).to_string());
                text.push(':');
                write_sorted(value, text);
            }
            text.push('}');
        }
        scalar => text.push_str(&scalar.to_string()),
    }
}

#[cfg(test)]
mod tests;
