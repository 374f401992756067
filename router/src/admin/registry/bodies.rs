//! Bodies of requests and answers.

use super::RegistryProblem;
use crate::world::Candidate;
use myelin_catalog::limits::SCHEMA_ID_MAX;
use myelin_catalog::{Reference, Schema, SchemaFormat, SchemaRefusal, Schemas, SubjectName, SubjectVersion};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

/// A schema as it is asked about.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct SchemaRequest {
    /// Its text; for Protobuf a `.proto` file, or a serialized `FileDescriptorProto` in base 64.
    schema: String,
    /// `AVRO` where none is given, `JSON`, or `PROTOBUF`.
    #[serde(default)]
    schema_type: Option<String>,
    /// What its text refers to.
    #[serde(default)]
    references: Option<Vec<ReferenceSpec>>,
    /// The id that it has elsewhere, for a subject in mode IMPORT.
    #[serde(default)]
    id: Option<i64>,
    /// The version that it has elsewhere, for a subject in mode IMPORT.
    #[serde(default)]
    version: Option<i64>,
    /// Not kept: only nothing is accepted.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    metadata: Option<Value>,
    /// Not kept: only nothing is accepted.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    rule_set: Option<Value>,
}

/// That a text refers to another schema.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
pub(super) struct ReferenceSpec {
    /// How the text names it: an import's path, a URI, a full name.
    name: String,
    /// The subject that has it.
    subject: String,
    /// As which version; -1 is the newest.
    version: i64,
}

/// A version of a subject.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct VersionInfo {
    subject: String,
    version: u32,
    id: u32,
    /// Left out where it is AVRO.
    #[serde(skip_serializing_if = "Option::is_none")]
    schema_type: Option<&'static str>,
    /// Left out where there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    references: Vec<ReferenceSpec>,
    /// Its text.
    schema: String,
}

/// A schema.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct SchemaInfo {
    /// Left out where it is AVRO.
    #[serde(skip_serializing_if = "Option::is_none")]
    schema_type: Option<&'static str>,
    /// Left out where there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    references: Vec<ReferenceSpec>,
    /// Its text.
    schema: String,
    /// The largest id there is, where it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    max_id: Option<u32>,
}

/// What a registered schema is.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RegisteredInfo {
    pub(super) id: u32,
    pub(super) version: u32,
}

impl SchemaRequest {
    /// The schema, and the id and version that it has elsewhere.
    ///
    /// # Errors
    /// Where it says what cannot be.
    #[expect(clippy::type_complexity, reason = "named at its only use")]
    pub(super) fn read(
        self,
        schemas: &Schemas,
        subject: &SubjectName,
        normalize: bool,
    ) -> Result<(Candidate, Option<(u32, Option<u32>)>), RegistryProblem> {
        for (name, value) in [("metadata", &self.metadata), ("ruleSet", &self.rule_set)] {
            if value.as_ref().is_some_and(|value| !is_nothing(value)) {
                let message = format!("`{name}` is not kept by this registry; leave it out");
                return Err(RegistryProblem::new("invalid-schema", message));
            }
        }
        let format = match self.schema_type.as_deref() {
            None | Some("") => SchemaFormat::Avro,
            Some(text) => text.parse()?,
        };
        let references = self.references.unwrap_or_default().into_iter();
        let references = references.map(|spec| spec.read(schemas, subject)).collect::<Result<Vec<_>, _>>()?;
        let place = match (number("id", self.id)?, number("version", self.version)?) {
            (Some(id), version) => Some((id, version)),
            (None, _) => None,
        };
        let candidate = Candidate::new(format, self.schema, references)?;
        Ok((Candidate { normalize, ..candidate }, place))
    }
}

/// A number that may be left out, for which clients also send 0 or -1.
fn number(name: &str, given: Option<i64>) -> Result<Option<u32>, RegistryProblem> {
    match given {
        None | Some(-1 | 0) => Ok(None),
        Some(given) => match u32::try_from(given).ok().filter(|number| *number <= SCHEMA_ID_MAX) {
            Some(number) => Ok(Some(number)),
            None => {
                let message = format!("`{name}` is {given}; 1 to {SCHEMA_ID_MAX} are right");
                Err(RegistryProblem::new("invalid-schema", message))
            }
        },
    }
}

/// Whether nothing is said: null, or what holds nothing but that.
fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(values) => values.iter().all(is_nothing),
        Value::Object(fields) => fields.values().all(is_nothing),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

impl ReferenceSpec {
    fn read(self, schemas: &Schemas, of: &SubjectName) -> Result<Reference, RegistryProblem> {
        let Self { name, subject, version } = self;
        let subject: SubjectName = subject.parse()?;
        let version = match version {
            -1 => schemas.latest(subject.as_str()).map(|latest| latest.version),
            version => u32::try_from(version).ok(),
        };
        let version = version.ok_or_else(|| SchemaRefusal::Invalid {
            subject: of.clone(),
            field: "references",
            why: format!("`{name}` is to be a version of subject `{subject}` that is not there; register that first"),
        })?;
        Ok(Reference { name, subject, version })
    }

    fn all(schema: &Schema) -> Vec<Self> {
        let show = |reference: &Reference| Self {
            name: reference.name.clone(),
            subject: reference.subject.to_string(),
            version: reference.version.into(),
        };
        schema.references.iter().map(show).collect()
    }
}

fn spelled(format: SchemaFormat) -> Option<&'static str> {
    (format != SchemaFormat::Avro).then(|| format.as_str())
}

impl VersionInfo {
    pub(super) fn new(subject: &SubjectName, version: &SubjectVersion, text: String) -> Self {
        let schema = &version.schema;
        Self {
            subject: subject.to_string(),
            version: version.version,
            id: schema.id,
            schema_type: spelled(schema.format),
            references: ReferenceSpec::all(schema),
            schema: text,
        }
    }
}

impl SchemaInfo {
    pub(super) fn new(schema: &Schema, text: String, max_id: Option<u32>) -> Self {
        Self { schema_type: spelled(schema.format), references: ReferenceSpec::all(schema), schema: text, max_id }
    }
}
