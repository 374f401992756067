//! The schemas that filters may ask for, as the catalog has them now; and the catalog's words for those that judge.

use arc_swap::ArcSwap;
use myelin_catalog::{SchemaFormat, SchemaVersion, Schemas, SubjectName, SubjectVersion, TopicRule};
use myelin_engine::SchemaSource;
use myelin_schema::Format;
use std::collections::BTreeMap;
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
pub struct Registry(ArcSwap<Held>);

#[derive(Debug, Default)]
struct Held {
    schemas: Schemas,
    /// The versions by which rules for topics judge at this site; of several the highest.
    judging: BTreeMap<SubjectName, u32>,
}

impl Registry {
    /// Takes over what the catalog has and the versions that `rules` judge by here, where that is not here yet.
    pub fn renew<'a>(&self, schemas: &Schemas, rules: impl Iterator<Item = &'a TopicRule>) {
        let mut judging = BTreeMap::new();
        for schema in rules.filter_map(|rule| rule.schema.as_ref()) {
            if let (Some(subject), Some(SchemaVersion::Number(number))) = (&schema.subject, schema.version) {
                let highest = judging.entry(subject.clone()).or_insert(number);
                *highest = number.max(*highest);
            }
        }
        let held = self.0.load();
        if held.schemas.revision() != schemas.revision() || held.judging != judging {
            self.0.store(Arc::new(Held { schemas: schemas.clone(), judging }));
        }
    }
}

impl Held {
    /// What a subject means to a filter: the version that events are judged by here, so that another one comes to both by
    /// the same rollout; where no rule says one, the newest.
    fn meant(&self, subject: &str, at: Option<u64>) -> Option<&SubjectVersion> {
        match self.judging.get(subject) {
            Some(number) => self.schemas.version(subject, *number),
            None => self.newest(subject, at),
        }
    }

    /// The newest version when the filter's binding came to be, so that one that is registered since comes with a rollout of
    /// that; of a filter that is only tried out the newest there is.
    fn newest(&self, subject: &str, at: Option<u64>) -> Option<&SubjectVersion> {
        match at {
            Some(rev) => self.schemas.subject(subject)?.latest_at(rev),
            None => self.schemas.latest(subject),
        }
    }

    /// The version of a subject that a name says. Names of subjects may end like that themselves; but where there is the
    /// subject before the colon, its version is meant, whether that is there or not: otherwise whoever may register
    /// subjects could put a text of theirs in the place of one that a filter has pinned.
    fn pinned<'n>(&self, name: &'n str) -> Option<(&'n str, SchemaVersion)> {
        let (subject, version) = name.rsplit_once(':')?;
        let version = version.parse().ok()?;
        // Settings alone make no subject that was ever pinned; one that is gone for good may be.
        self.schemas.has_had_versions(subject).then_some((subject, version))
    }
}

impl SchemaSource for Registry {
    fn schema(&self, name: &str, at: Option<u64>) -> Option<Arc<str>> {
        let held = self.0.load();
        let found = match held.pinned(name) {
            Some((subject, SchemaVersion::Latest)) => held.newest(subject, at),
            Some((subject, SchemaVersion::Number(number))) => held.schemas.version(subject, number),
            None => held.meant(name, at),
        };
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
        assert_eq!(registry.schema("orders", None), None);
        for (subject, text) in [("orders", "1"), ("orders", "2"), ("a:1", "3")] {
            register(&mut catalog, subject, text);
            registry.renew(catalog.schemas(), std::iter::empty());
        }
        let found = |name| registry.schema(name, None);
        assert_eq!(found("orders").as_deref(), Some("2"));
        assert_eq!(found("orders:1").as_deref(), Some("1"));
        assert_eq!(found("orders:latest").as_deref(), Some("2"));
        assert_eq!(found("a:1").as_deref(), Some("3"));
        assert_eq!((found("orders:3"), found("other"), found("other:1")), (None, None, None));
    }

    #[test]
    fn what_a_filter_has_pinned_is_not_replaced_by_a_subject_of_that_name() {
        let (registry, mut catalog) = (Registry::default(), Catalog::new());
        for (subject, text) in [("orders", "1"), ("orders:1", "x"), ("orders:2", "y"), ("orders:latest", "z")] {
            register(&mut catalog, subject, text);
        }
        registry.renew(catalog.schemas(), std::iter::empty());
        let found = |name| registry.schema(name, None).map(|text| text.to_string());
        assert_eq!([found("orders:1"), found("orders:latest")], [Some("1".into()), Some("1".into())]);
        assert_eq!(found("orders:2"), None, "nor before it is there");
        assert_eq!(found("orders:2:1").as_deref(), Some("y"));
    }

    #[test]
    fn what_a_filter_has_pinned_is_not_replaced_when_its_subject_is_gone() {
        let (registry, mut catalog) = (Registry::default(), Catalog::new());
        register(&mut catalog, "orders", "1");
        for permanent in [false, true] {
            let op = Op::SubjectDeleted { subject: "orders".parse().unwrap(), permanent };
            let record = catalog.draft(op, "ann", 0).unwrap();
            catalog.apply(&record).unwrap();
        }
        for (subject, text) in [("orders:1", "x"), ("orders", "y")] {
            register(&mut catalog, subject, text);
            registry.renew(catalog.schemas(), std::iter::empty());
            assert_eq!(registry.schema("orders:1", None), None, "{subject}");
        }
        assert_eq!(registry.schema("orders:2", None).as_deref(), Some("y"));
    }

    #[test]
    fn what_came_after_the_binding_is_not_seen_by_its_filter_nor_is_what_went() {
        let (registry, mut catalog) = (Registry::default(), Catalog::new());
        register(&mut catalog, "orders", "1");
        let at = catalog.head().rev;
        register(&mut catalog, "orders", "2");
        register(&mut catalog, "late", "3");
        let found = |catalog: &Catalog, name, at| {
            registry.renew(catalog.schemas(), std::iter::empty());
            registry.schema(name, at).map(|text| text.to_string())
        };
        for name in ["orders", "orders:latest"] {
            assert_eq!(found(&catalog, name, Some(at)).as_deref(), Some("1"), "{name}");
            assert_eq!(found(&catalog, name, Some(catalog.head().rev)).as_deref(), Some("2"), "{name}");
        }
        assert_eq!(found(&catalog, "orders:2", Some(at)).as_deref(), Some("2"), "a number is that one");
        assert_eq!(found(&catalog, "late", Some(at)), None);
        let later = catalog.head().rev;
        let deleted = Op::SchemaVersionDeleted { subject: "orders".parse().unwrap(), version: 2, permanent: false };
        let record = catalog.draft(deleted, "ann", 0).unwrap();
        catalog.apply(&record).unwrap();
        assert_eq!(found(&catalog, "orders", Some(later)).as_deref(), Some("2"), "it is kept for whoever has it");
        assert_eq!(found(&catalog, "orders", Some(catalog.head().rev)).as_deref(), Some("1"));
        assert_eq!(found(&catalog, "orders", None).as_deref(), Some("1"));
    }

    #[test]
    fn a_subject_alone_is_the_version_that_judges_here() {
        let (registry, mut catalog) = (Registry::default(), Catalog::new());
        for text in ["1", "2", "3"] {
            register(&mut catalog, "orders", text);
        }
        let rule = |name: &str, version: &str| -> TopicRule {
            let schema = serde_json::json!({"subject": "orders", "version": version.parse::<SchemaVersion>().unwrap()});
            serde_json::from_value(serde_json::json!({"name": name, "pattern": "x", "schema": schema})).unwrap()
        };
        let cases: [(&[&str], &str); 4] = [(&[], "3"), (&["1"], "1"), (&["2", "1"], "2"), (&["latest"], "3")];
        for (versions, meant) in cases {
            let rules: Vec<_> = versions.iter().map(|version| rule("r", version)).collect();
            registry.renew(catalog.schemas(), rules.iter());
            let found = ["orders", "orders:latest"].map(|name| registry.schema(name, None));
            assert_eq!(found.map(|text| text.unwrap_or_default().to_string()), [meant, "3"], "{versions:?}");
        }
    }
}
