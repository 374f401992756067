#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use super::judge::{Candidate, compare, confirm, register};
use super::*;
use myelin_catalog::schemas::Wanted;
use myelin_catalog::{Catalog, Digest, Reference, Registration, SchemaFormat};

const ORDER: &str = r#"{"type":"record","name":"Order","fields":[{"name":"id","type":"string"}]}"#;
const BROKEN: &str = r#"{"type":"record","name":"Order","fields":[{"name":"key","type":"string"}]}"#;

fn subject(name: &str) -> SubjectName {
    name.parse().unwrap()
}

fn avro(text: &str) -> Candidate {
    Candidate::new(SchemaFormat::Avro, text.to_owned(), Vec::new()).unwrap()
}

/// What makes a candidate the next version.
fn drafted(catalog: &Catalog, name: &str, candidate: &Candidate) -> Registration {
    match register(catalog.schemas(), &subject(name), candidate, None).unwrap() {
        Wanted::New(registration) => *registration,
        Wanted::Known { id, version } => panic!("{name} has it as version {version}, id {id}"),
    }
}

fn keep(catalog: &mut Catalog, registration: &Registration) {
    let op = Op::SchemaRegistered { registration: Box::new(registration.clone()) };
    let record = catalog.draft(op, "ada", 1).unwrap();
    catalog.apply(&record).unwrap();
}

#[test]
fn the_writer_judges_again_what_another_router_asks_for() {
    let mut catalog = Catalog::new();
    let first = drafted(&catalog, "s", &avro(ORDER));
    confirm(catalog.schemas(), &first).unwrap();
    let with = |change: fn(&mut myelin_catalog::NewSchema)| {
        let mut forged = first.clone();
        change(forged.schema.as_mut().unwrap());
        confirm(catalog.schemas(), &forged).unwrap_err().code
    };
    assert_eq!(with(|schema| schema.text = "{".to_owned()), "invalid-schema");
    assert_eq!(with(|schema| schema.digest = Digest::of(b"another")), "invalid-schema");
    assert_eq!(with(|schema| schema.format = SchemaFormat::Json), "invalid-schema");
    keep(&mut catalog, &first);
    // As a router drafts it that does not compare: the text is the catalog's under another subject.
    let elsewhere = drafted(&catalog, "t", &avro(BROKEN));
    keep(&mut catalog, &elsewhere);
    let forged = Registration { subject: subject("s"), version: 2, id: elsewhere.id, schema: None };
    assert_eq!(confirm(catalog.schemas(), &forged).unwrap_err().code, "incompatible-schema");
}

#[test]
fn no_subject_is_called_like_a_version_of_another() {
    let mut catalog = Catalog::new();
    for name in ["orders", "urn:x:1", "plain:text"] {
        let registration = drafted(&catalog, name, &avro(ORDER));
        keep(&mut catalog, &registration);
    }
    let code = |catalog: &Catalog, name: &str| match register(catalog.schemas(), &subject(name), &avro(BROKEN), None) {
        Ok(_) => String::new(),
        Err(error) => error.code.to_string(),
    };
    for name in ["orders:1", "orders:7", "orders:latest", "urn:x"] {
        assert_eq!(code(&catalog, name), "invalid-subject", "{name}");
    }
    for name in ["orders:x", "other:1", "plain", "urn"] {
        assert_eq!(code(&catalog, name), "", "{name}");
    }
    // Filters may still name versions of one that is gone for good.
    for permanent in [false, true] {
        let gone = Op::SubjectDeleted { subject: subject("plain:text"), permanent };
        let record = catalog.draft(gone, "ann", 0).unwrap();
        catalog.apply(&record).unwrap();
    }
    assert_eq!(code(&catalog, "plain:text:1"), "invalid-subject");
    assert_eq!(code(&catalog, "plain:text"), "", "itself it may be again");
    // Where a catalog has both from before, both go on.
    let both = Registration { subject: subject("orders:1"), ..drafted(&catalog, "other", &avro(BROKEN)) };
    keep(&mut catalog, &both);
    let next = BROKEN.replace("}]}", r#"},{"name":"x","type":"string","default":""}]}"#);
    assert_eq!(drafted(&catalog, "orders:1", &avro(&next)).version, 2);
}

#[test]
fn schemas_are_told_apart_by_what_they_mean_and_refer_to() {
    let mut catalog = Catalog::new();
    for (name, text) in [("a", ORDER), ("b", &ORDER.replace("Order", "Item"))] {
        let registration = drafted(&catalog, name, &avro(text));
        keep(&mut catalog, &registration);
    }
    let digest = |text: &str, references: &[(&str, &str)]| {
        let refer =
            |(name, of): &(&str, &str)| Reference { name: (*name).to_owned(), subject: subject(of), version: 1 };
        let references = references.iter().map(refer).collect();
        let candidate = Candidate::new(SchemaFormat::Avro, text.to_owned(), references).unwrap();
        judge::Judged::new(catalog.schemas(), &subject("s"), &candidate).unwrap().digest
    };
    let pair = r#"{"type":"record","name":"Pair","fields":[{"name":"a","type":"Order"},{"name":"b","type":"Item"}]}"#;
    let (order, item) = (("Order", "a"), ("Item", "b"));
    let whole = digest(pair, &[order, item]);
    assert_eq!(whole, digest(&pair.replace(',', " , "), &[item, order]));
    assert_ne!(digest(ORDER, &[]), digest(BROKEN, &[]));
    // The same text that means another schema is another schema.
    let other = drafted(&catalog, "c", &avro(&ORDER.replace("\"string\"", "\"int\"")));
    keep(&mut catalog, &other);
    let refer = |(name, of): (&str, &str)| Reference { name: name.to_owned(), subject: subject(of), version: 1 };
    let candidate =
        Candidate::new(SchemaFormat::Avro, pair.to_owned(), vec![refer(("Order", "c")), refer(item)]).unwrap();
    assert_ne!(whole, judge::Judged::new(catalog.schemas(), &subject("s"), &candidate).unwrap().digest);
}

#[test]
fn a_schema_is_compared_with_the_versions_that_are_asked_for() {
    let mut catalog = Catalog::new();
    let first = drafted(&catalog, "s", &avro(ORDER));
    keep(&mut catalog, &first);
    let breaks = |asked| compare(catalog.schemas(), &subject("s"), asked, &avro(BROKEN));
    for asked in [Asked::All, Asked::Latest, Asked::Version(1)] {
        assert!(!breaks(asked).unwrap().is_empty(), "{asked:?}");
    }
    assert_eq!(breaks(Asked::Version(2)).unwrap_err().code, "version-not-found");
    assert!(compare(catalog.schemas(), &subject("new"), Asked::All, &avro(BROKEN)).unwrap().is_empty());
    let refused = compare(catalog.schemas(), &subject("new"), Asked::Latest, &avro(BROKEN)).unwrap_err();
    assert_eq!(refused.code, "subject-not-found");
    let refused = register(catalog.schemas(), &subject("s"), &avro(BROKEN), None).unwrap_err();
    assert!(refused.code == "incompatible-schema" && refused.message.contains("BACKWARD"), "{refused}");
    assert_eq!(
        register(catalog.schemas(), &subject("s"), &avro(ORDER), Some((7, None))).unwrap_err().code,
        "registry-mode"
    );
}
