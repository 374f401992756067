//! An Avro schema as a table of nodes that refer to each other by number.

use crate::error::SchemaError;
use crate::format::Source;
use crate::limits::{AVRO_NODES_MAX, DEPTH_MAX};
use apache_avro::Schema;
use apache_avro::schema::{Alias, FixedSchema, InnerDecimalSchema, Name, UuidSchema};
use serde_json::Value;
use std::collections::HashMap;

/// A node by its number.
pub(super) type Number = usize;

/// A schema with all that it refers to.
#[derive(Debug)]
pub(super) struct Table {
    nodes: Vec<Node>,
    root: Number,
}

#[derive(Debug)]
pub(super) enum Node {
    Null,
    Boolean,
    Int,
    Long,
    Float,
    Double,
    Bytes,
    String,
    Array(Number),
    Map(Number),
    Union(Vec<Number>),
    Record { names: Names, fields: Vec<Field> },
    Enum { names: Names, symbols: Vec<String>, default: Option<String> },
    Fixed { names: Names, size: usize },
}

/// What a named type is called.
#[derive(Debug)]
pub(super) struct Names {
    /// Without its namespace.
    pub(super) short: String,
    pub(super) full: String,
    /// Full names of old.
    pub(super) aliases: Vec<String>,
}

#[derive(Debug)]
pub(super) struct Field {
    pub(super) name: String,
    pub(super) aliases: Vec<String>,
    pub(super) has_default: bool,
    pub(super) node: Number,
}

impl Table {
    pub(super) fn read(source: &Source<'_>) -> Result<Self, SchemaError> {
        source.references.iter().map(|reference| reference.text).chain([source.text]).try_for_each(check_text)?;
        let given = source.references.iter().map(|reference| reference.text);
        let (root, given) = Schema::parse_str_with_list(source.text, given).map_err(refused)?;
        let mut builder = Builder::default();
        for schema in &given {
            builder.add(schema, None)?;
        }
        let root = builder.add(&root, None)?;
        let nodes: Option<Vec<Node>> = builder.nodes.into_iter().collect();
        match nodes {
            Some(nodes) => Ok(Self { nodes, root }),
            None => {
                let missing = |number: &Number| !builder.defined.contains(number);
                let name = builder.named.iter().find(|(_, number)| missing(number)).map(|(name, _)| name.as_str());
                Err(SchemaError::unresolved(name.unwrap_or_default()))
            }
        }
    }

    pub(super) fn root(&self) -> Number {
        self.root
    }

    pub(super) fn node(&self, number: Number) -> &Node {
        &self.nodes[number]
    }
}

impl Node {
    /// For people.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Null => "null".to_owned(),
            Self::Boolean => "boolean".to_owned(),
            Self::Int => "int".to_owned(),
            Self::Long => "long".to_owned(),
            Self::Float => "float".to_owned(),
            Self::Double => "double".to_owned(),
            Self::Bytes => "bytes".to_owned(),
            Self::String => "string".to_owned(),
            Self::Array(_) => "array".to_owned(),
            Self::Map(_) => "map".to_owned(),
            Self::Union(_) => "union".to_owned(),
            Self::Record { names, .. } => format!("record {}", names.full),
            Self::Enum { names, .. } => format!("enum {}", names.full),
            Self::Fixed { names, .. } => format!("fixed {}", names.full),
        }
    }
}

/// The library's errors; one of them is about references.
fn refused(error: apache_avro::Error) -> SchemaError {
    use apache_avro::error::Details;
    match error.details() {
        Details::ParsePrimitive(name) => {
            let hint = format!("`{name}` is neither a type of Avro nor defined, here or in a reference");
            SchemaError::malformed("Avro", hint)
        }
        _ => SchemaError::malformed("Avro", error),
    }
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '.')
}

/// Depth and size, before the library recurses through the text.
fn check_text(text: &str) -> Result<(), SchemaError> {
    let value = match serde_json::from_str::<Value>(text) {
        Ok(value) => value,
        // A bare name is a schema, and a JSON string with or without its quotes.
        Err(_) if is_name(text.trim()) => return Ok(()),
        // The library would not say where it stopped.
        Err(error) => return Err(SchemaError::malformed("Avro", format!("it is no JSON: {error}"))),
    };
    let mut open = vec![(&value, 0)];
    let mut count = 0;
    while let Some((value, depth)) = open.pop() {
        count += 1;
        if count > AVRO_NODES_MAX {
            return Err(SchemaError::too_complex("the schema has more types, fields and attributes", AVRO_NODES_MAX));
        }
        if depth > DEPTH_MAX {
            return Err(SchemaError::too_complex("types are inside each other too deeply", DEPTH_MAX));
        }
        match value {
            Value::Array(values) => open.extend(values.iter().map(|value| (value, depth + 1))),
            Value::Object(values) => open.extend(values.values().map(|value| (value, depth + 1))),
            _ => {}
        }
    }
    Ok(())
}

#[derive(Default)]
struct Builder {
    /// `None` for named types that were only mentioned yet.
    nodes: Vec<Option<Node>>,
    named: HashMap<String, Number>,
    defined: std::collections::HashSet<Number>,
}

impl Builder {
    fn push(&mut self, node: Node) -> Result<Number, SchemaError> {
        let number = self.reserve()?;
        self.nodes[number] = Some(node);
        Ok(number)
    }

    fn reserve(&mut self) -> Result<Number, SchemaError> {
        if self.nodes.len() >= AVRO_NODES_MAX {
            return Err(SchemaError::too_complex("the schema has more types", AVRO_NODES_MAX));
        }
        self.nodes.push(None);
        Ok(self.nodes.len() - 1)
    }

    /// The number of a named type, defined or not.
    fn named(&mut self, full: String) -> Result<Number, SchemaError> {
        if let Some(&number) = self.named.get(&full) {
            return Ok(number);
        }
        let number = self.reserve()?;
        self.named.insert(full, number);
        Ok(number)
    }

    fn define(&mut self, names: Names, node: impl FnOnce(Names) -> Node) -> Result<Number, SchemaError> {
        let number = self.named(names.full.clone())?;
        if !self.defined.insert(number) {
            return Err(SchemaError::malformed(
                "Avro",
                format!("`{}` is defined twice: give one another name", names.full),
            ));
        }
        self.nodes[number] = Some(node(names));
        Ok(number)
    }

    /// Adds a schema that stands in that namespace. The depth of the text bounds the recursion.
    fn add(&mut self, schema: &Schema, space: Option<&str>) -> Result<Number, SchemaError> {
        match schema {
            Schema::Null => self.push(Node::Null),
            Schema::Boolean => self.push(Node::Boolean),
            Schema::Int | Schema::Date | Schema::TimeMillis => self.push(Node::Int),
            Schema::Long
            | Schema::TimeMicros
            | Schema::TimestampMillis
            | Schema::TimestampMicros
            | Schema::TimestampNanos
            | Schema::LocalTimestampMillis
            | Schema::LocalTimestampMicros
            | Schema::LocalTimestampNanos => self.push(Node::Long),
            Schema::Float => self.push(Node::Float),
            Schema::Double => self.push(Node::Double),
            Schema::Bytes | Schema::BigDecimal => self.push(Node::Bytes),
            Schema::String => self.push(Node::String),
            Schema::Array(array) => {
                let items = self.add(&array.items, space)?;
                self.push(Node::Array(items))
            }
            Schema::Map(map) => {
                let values = self.add(&map.types, space)?;
                self.push(Node::Map(values))
            }
            Schema::Union(union) => {
                let branches: Result<_, _> = union.variants().iter().map(|branch| self.add(branch, space)).collect();
                self.push(Node::Union(branches?))
            }
            Schema::Record(record) => {
                let names = names(&record.name, record.aliases.as_deref(), space);
                let inner = record.name.namespace().or(space);
                let mut fields = Vec::with_capacity(record.fields.len());
                for field in &record.fields {
                    let node = self.add(&field.schema, inner)?;
                    let (name, aliases) = (field.name.clone(), field.aliases.clone());
                    fields.push(Field { name, aliases, has_default: field.default.is_some(), node });
                }
                self.define(names, |names| Node::Record { names, fields })
            }
            Schema::Enum(choice) => {
                let names = names(&choice.name, choice.aliases.as_deref(), space);
                let (symbols, default) = (choice.symbols.clone(), choice.default.clone());
                self.define(names, |names| Node::Enum { names, symbols, default })
            }
            Schema::Fixed(fixed) | Schema::Duration(fixed) => self.fixed(fixed, space),
            Schema::Decimal(decimal) => match &decimal.inner {
                InnerDecimalSchema::Bytes => self.push(Node::Bytes),
                InnerDecimalSchema::Fixed(fixed) => self.fixed(fixed, space),
            },
            Schema::Uuid(UuidSchema::String) => self.push(Node::String),
            Schema::Uuid(UuidSchema::Bytes) => self.push(Node::Bytes),
            Schema::Uuid(UuidSchema::Fixed(fixed)) => self.fixed(fixed, space),
            Schema::Ref { name } => self.named(name.fullname(space)),
        }
    }

    fn fixed(&mut self, fixed: &FixedSchema, space: Option<&str>) -> Result<Number, SchemaError> {
        let names = names(&fixed.name, fixed.aliases.as_deref(), space);
        self.define(names, |names| Node::Fixed { names, size: fixed.size })
    }
}

fn names(name: &Name, aliases: Option<&[Alias]>, space: Option<&str>) -> Names {
    let space = name.namespace().or(space);
    Names {
        short: name.name().to_owned(),
        full: name.fullname(space),
        aliases: aliases.unwrap_or_default().iter().map(|alias| alias.fullname(space)).collect(),
    }
}
