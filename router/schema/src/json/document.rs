//! The texts of a JSON schema, read within the limits, and places in them.

use crate::error::SchemaError;
use crate::format::Source;
use crate::limits::{DEPTH_MAX, JSON_NODES_MAX, REGEXES_MAX};
use jsonschema::{Draft, ReferencingError, Registry, Retrieve, Uri};
use referencing::Resolver;
use serde_json::Value;
use std::sync::Arc;

/// What stands for the address of a schema that says none, as in the library.
const NO_ADDRESS: &str = "json-schema:///";

/// A schema and what was handed in with it.
pub(super) struct Document {
    pub(super) root: Value,
    pub(super) draft: Draft,
    pub(super) given: Given,
}

impl Document {
    pub(super) fn read(source: &Source<'_>) -> Result<Self, SchemaError> {
        let mut counts = Counts::default();
        let root = counts.read(source.text)?;
        let mut given = Vec::with_capacity(source.references.len());
        for reference in source.references {
            given.push((reference.name.trim_end_matches('#').to_owned(), counts.read(reference.text)?));
        }
        let draft = Draft::default().detect(&root);
        Ok(Self { root, draft, given: Given(Arc::new(given)) })
    }

    /// Everything that references can lead to. A reference that leads nowhere is an error.
    pub(super) fn registry(&self) -> Result<Registry<'_>, SchemaError> {
        let resource = self.draft.create_resource_ref(&self.root);
        Registry::new()
            .retriever(self.given.clone())
            .draft(self.draft)
            .add(self.address()?.as_str(), resource)
            .and_then(|builder| builder.prepare())
            .map_err(|error| unresolved(&error))
    }

    /// The place of the schema itself.
    pub(super) fn place<'r>(&'r self, registry: &'r Registry<'_>) -> Result<Place<'r>, SchemaError> {
        let resolver = registry.resolver(self.address()?);
        Ok(Place { value: &self.root, resolver, draft: self.draft })
    }

    fn address(&self) -> Result<Uri<String>, SchemaError> {
        let resource = self.draft.create_resource_ref(&self.root);
        jsonschema::uri::from_str(resource.id().unwrap_or(NO_ADDRESS)).map_err(|error| unresolved(&error))
    }
}

/// The schemas that were handed in, by the names that texts use for them. There is nothing else to get them from.
#[derive(Debug, Clone)]
pub(super) struct Given(Arc<Vec<(String, Value)>>);

impl Retrieve for Given {
    fn retrieve(&self, uri: &Uri<String>) -> Result<Value, Box<dyn std::error::Error + Send + Sync>> {
        let uri = uri.as_str();
        let names = |name: &str| {
            let relative = name.trim_start_matches("./");
            uri == name || (!name.contains(':') && uri.strip_suffix(relative).is_some_and(|rest| rest.ends_with('/')))
        };
        match self.0.iter().find(|(name, _)| names(name)) {
            Some((_, value)) => Ok(value.clone()),
            None => Err("it is not among the schema's references".into()),
        }
    }
}

/// The library's error about a reference, in our words.
pub(super) fn unresolved(error: &ReferencingError) -> SchemaError {
    match error {
        ReferencingError::Unretrievable { uri, .. } => SchemaError::unresolved(uri),
        _ => SchemaError::malformed("JSON", error),
    }
}

/// How much of the limits is used up, over all texts.
#[derive(Default)]
struct Counts {
    values: usize,
    patterns: usize,
}

impl Counts {
    fn read(&mut self, text: &str) -> Result<Value, SchemaError> {
        let value: Value = serde_json::from_str(text).map_err(|error| SchemaError::malformed("JSON", error))?;
        if !value.is_object() && !value.is_boolean() {
            return Err(SchemaError::malformed("JSON", "it is neither an object nor true or false"));
        }
        self.count(&value, 0)?;
        Ok(value)
    }

    fn count(&mut self, value: &Value, depth: usize) -> Result<(), SchemaError> {
        self.values += 1;
        if self.values > JSON_NODES_MAX {
            return Err(SchemaError::too_complex("the schema has more values", JSON_NODES_MAX));
        }
        if depth > DEPTH_MAX {
            return Err(SchemaError::too_complex("objects and arrays are inside each other too deeply", DEPTH_MAX));
        }
        match value {
            Value::Array(values) => values.iter().try_for_each(|value| self.count(value, depth + 1)),
            Value::Object(values) => values.iter().try_for_each(|(key, value)| {
                self.patterns += match (key.as_str(), value) {
                    ("pattern", Value::String(_)) => 1,
                    ("patternProperties", Value::Object(patterns)) => patterns.len(),
                    ("$schema", Value::String(uri)) if Draft::from_schema_uri(uri) == Draft::Unknown => {
                        return Err(SchemaError::malformed(
                            "JSON",
                            format!("`$schema` says `{uri}`; only drafts 4, 6, 7, 2019-09 and 2020-12 are known"),
                        ));
                    }
                    _ => 0,
                };
                if self.patterns > REGEXES_MAX {
                    return Err(SchemaError::too_complex("the schema has more regular expressions", REGEXES_MAX));
                }
                self.count(value, depth + 1)
            }),
            _ => Ok(()),
        }
    }
}

/// A schema somewhere in the texts, with what references mean there.
#[derive(Clone)]
pub(super) struct Place<'r> {
    pub(super) value: &'r Value,
    pub(super) draft: Draft,
    resolver: Resolver<'r>,
}

impl<'r> Place<'r> {
    /// The schema inside this one.
    pub(super) fn inside(&self, value: &'r Value) -> Result<Self, SchemaError> {
        let draft = self.draft.detect(value);
        let resource = draft.create_resource_ref(value);
        let resolver = self.resolver.in_subresource(resource).map_err(|error| unresolved(&error))?;
        Ok(Self { value, draft, resolver })
    }

    /// The schema that a reference here leads to.
    pub(super) fn follow(&self, reference: &str) -> Result<Self, SchemaError> {
        let (value, resolver, draft) =
            self.resolver.lookup(reference).map_err(|error| unresolved(&error))?.into_inner();
        Ok(Self { value, draft, resolver })
    }

    /// Whether a `$ref` here makes everything beside it void.
    pub(super) fn reference_alone(&self) -> bool {
        matches!(self.draft, Draft::Draft4 | Draft::Draft6 | Draft::Draft7)
    }

    /// Tells places apart.
    pub(super) fn identity(&self) -> usize {
        std::ptr::from_ref(self.value).addr()
    }
}
