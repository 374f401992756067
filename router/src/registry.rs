//! The schemas that filters may ask for, as the catalog has them now; and the catalog's words for those that judge.

use arc_swap::ArcSwap;
use myelin_catalog::{SchemaFormat, SchemaVersion, Schemas};
use myelin_engine::SchemaSource;
use myelin_schema::Format;
use std::sync::Arc;

/// The catalog's name of a format as the judge of schemas has it: neither of their crates knows the other.
pub fn judged_as(format: SchemaFormat) -> Format {
    match format {
        SchemaFormat::Json => Format::Json,
        SchemaFormat::Avro => Format::Avro,
        SchemaFormat::Protobuf => Format::Protobuf,
    }
}

/// The registry of schemas, for readers at any time.
#[derive(Debug, Default)]
pub struct Registry(ArcSwap<Schemas>);

impl Registry {
    /// Takes over what the catalog has, where that is not here yet.
    pub fn renew(&self, schemas: &Schemas) {
        if self.0.load().revision() != schemas.revision() {
            self.0.store(Arc::new(schemas.clone()));
        }
    }
}

impl SchemaSource for Registry {
    fn schema(&self, name: &str) -> Option<Arc<str>> {
        let schemas = self.0.load();
        // Names of subjects may hold colons themselves.
        let found = schemas.latest(name).or_else(|| {
            let (subject, version) = name.rsplit_once(':')?;
            match version.parse().ok()? {
                SchemaVersion::Latest => schemas.latest(subject),
                SchemaVersion::Number(number) => schemas.version(subject, number),
            }
        });
        found.map(|version| version.schema.text.clone())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::*;
    use myelin_catalog::schemas::Wanted;
    use myelin_catalog::{Catalog, Digest, NewSchema, Op, SchemaFormat};

    fn register(catalog: &mut Catalog, subject: &str, text: &str) {
        let (format, digest) = (SchemaFormat::Json, Digest::of(text.as_bytes()));
        let schema = NewSchema { format, digest, text: text.to_owned(), references: Vec::new() };
        let Wanted::New(registration) = catalog.schemas().register_next(&subject.parse().unwrap(), schema) else {
            panic!("{subject} has that version already")
        };
        let record = catalog.draft(Op::SchemaRegistered { registration }, "ann", 0).unwrap();
        catalog.apply(&record).unwrap();
    }

    #[test]
    fn a_filter_names_a_subject_or_a_version_of_it() {
        let (registry, mut catalog) = (Registry::default(), Catalog::new());
        assert_eq!(registry.schema("orders"), None);
        for (subject, text) in [("orders", "1"), ("orders", "2"), ("a:1", "3")] {
            register(&mut catalog, subject, text);
            registry.renew(catalog.schemas());
        }
        let found = |name| registry.schema(name);
        assert_eq!(found("orders").as_deref(), Some("2"));
        assert_eq!(found("orders:1").as_deref(), Some("1"));
        assert_eq!(found("orders:latest").as_deref(), Some("2"));
        assert_eq!(found("a:1").as_deref(), Some("3"));
        assert_eq!((found("orders:3"), found("other"), found("other:1")), (None, None, None));
    }
}
