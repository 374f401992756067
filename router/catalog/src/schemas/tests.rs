#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use super::*;
use crate::catalog::Catalog;
use crate::limits::{IMPORTED_ID_MAX, REFERENCES_MAX, SCHEMA_ID_MAX, SCHEMA_LEN_MAX_BYTES, SUBJECT_VERSIONS_MAX};
use crate::op::Op;
use crate::record::Record;
use crate::testing::Story;

mod numbers;

fn subject(name: &str) -> SubjectName {
    name.parse().unwrap()
}

/// A schema whose text tells it apart; `references` as `name=subject:version`.
fn schema(text: &str, references: &[&str]) -> NewSchema {
    let parse = |text: &&str| {
        let (name, place) = text.split_once('=').unwrap();
        let (of, version) = place.split_once(':').unwrap();
        Reference { name: name.to_owned(), subject: subject(of), version: version.parse().unwrap() }
    };
    let references: Vec<_> = references.iter().map(parse).collect();
    let digest = Digest::of(format!("{text}{references:?}").as_bytes());
    NewSchema { format: SchemaFormat::Avro, digest, text: text.to_owned(), references }
}

fn delete_version(name: &str, version: u32, permanent: bool) -> Op {
    Op::SchemaVersionDeleted { subject: subject(name), version, permanent }
}

fn delete_subject(name: &str, permanent: bool) -> Op {
    Op::SubjectDeleted { subject: subject(name), permanent }
}

fn mode(name: Option<&str>, mode: RegistryMode) -> Op {
    Op::RegistryModeSet { subject: name.map(subject), mode: Some(mode) }
}

fn as_op(wanted: Wanted) -> Op {
    match wanted {
        Wanted::New(registration) => Op::SchemaRegistered { registration },
        Wanted::Known { .. } => panic!("{wanted:?} is there already"),
    }
}

impl Story {
    fn schemas(&self) -> &Schemas {
        self.catalog.schemas()
    }

    /// Registers and returns id and version.
    fn register(&mut self, name: &str, schema: NewSchema) -> (u32, u32) {
        match self.schemas().register_next(&subject(name), schema) {
            Wanted::Known { id, version } => (id, version),
            Wanted::New(registration) => {
                let made = (registration.id, registration.version);
                self.add(Op::SchemaRegistered { registration });
                made
            }
        }
    }

    fn import(&mut self, name: &str, schema: NewSchema, id: u32, version: Option<u32>) -> (u32, u32) {
        match self.schemas().register_as(&subject(name), schema, id, version) {
            Wanted::Known { id, version } => (id, version),
            Wanted::New(registration) => {
                let made = (registration.id, registration.version);
                self.add(Op::SchemaRegistered { registration });
                made
            }
        }
    }

    fn live(&self, name: &str) -> Vec<u32> {
        let subject = self.schemas().subject(name);
        subject.iter().flat_map(|subject| subject.versions()).map(|version| version.version).collect()
    }
}

#[test]
fn a_schema_has_one_id_in_whatever_subject_and_its_text_is_kept_once() {
    let mut story = Story::default();
    assert_eq!(story.register("orders-value", schema("A", &[])), (1, 1));
    assert_eq!(story.register("orders-value", schema("B", &[])), (2, 2));
    assert_eq!(story.register("orders-value", schema("A", &[])), (1, 1), "the same again changes nothing");
    assert_eq!(story.log.len(), 2);
    assert_eq!(story.register("refunds-value", schema("B", &[])), (2, 1));
    let Op::SchemaRegistered { registration } = &story.log[2].op else { panic!("{:?}", story.log[2]) };
    assert_eq!(registration.schema, None, "a text that is there is not written down again");
    let schemas = story.schemas();
    let places: Vec<_> = schemas.places(2).map(|(subject, version, gone)| (subject.as_str(), version, gone)).collect();
    assert_eq!(places, [("orders-value", 2, false), ("refunds-value", 1, false)]);
    let (orders, refunds) = (schemas.latest("orders-value").unwrap(), schemas.latest("refunds-value").unwrap());
    assert!(Arc::ptr_eq(&orders.schema, &refunds.schema));
    assert_eq!((&*orders.schema.text, orders.rev, schemas.revision()), ("B", 2, 3));
    assert_eq!(schemas.counts(), (2, 3, 2));
    let other_format = NewSchema { format: SchemaFormat::Json, digest: Digest::of(b"json A"), ..schema("A", &[]) };
    assert_eq!(story.register("orders-value", other_format), (3, 3));
}

#[test]
fn what_is_deleted_is_kept_until_it_is_deleted_for_good() {
    let mut story = Story::default();
    for text in ["A", "B", "C"] {
        story.register("s", schema(text, &[]));
    }
    assert_eq!(story.refusal(delete_version("s", 2, true)).code(), "version-not-deleted");
    assert_eq!(story.refusal(delete_version("s", 4, false)).code(), "version-not-found");
    assert_eq!(story.refusal(delete_version("t", 1, false)).code(), "subject-not-found");
    story.add(delete_version("s", 2, false));
    assert_eq!(story.live("s"), [1, 3]);
    assert!(story.schemas().version("s", 2).is_none() && &*story.schemas().schema(2).unwrap().text == "B");
    assert_eq!(story.refusal(delete_version("s", 2, false)).code(), "version-deleted");
    // Registered again it is a new version of the same id.
    assert_eq!(story.register("s", schema("B", &[])), (2, 4));
    story.add(delete_version("s", 2, true));
    assert!(story.schemas().schema(2).is_some(), "version 4 is that schema, too");

    assert_eq!(story.refusal(delete_subject("s", true)).code(), "subject-not-deleted");
    story.add(delete_subject("s", false));
    assert_eq!(story.refusal(delete_subject("s", false)).code(), "subject-deleted");
    assert!(story.live("s").is_empty() && story.schemas().schema(3).is_some());
    story.add(delete_subject("s", true));
    assert!(story.schemas().subject("s").is_none());
    assert_eq!(story.schemas().counts(), (0, 0, 0));
    assert_eq!(story.refusal(delete_subject("s", true)).code(), "subject-not-found");
    // Ids are never used again, and versions never for another schema.
    assert_eq!(story.register("s", schema("D", &[])), (4, 5));
    assert_eq!(story.register("s", schema("A", &[])), (5, 6));
    assert_eq!(Catalog::from_records(&story.log).unwrap(), story.catalog);
}

#[test]
fn what_others_refer_to_stays_and_means_what_it_meant() {
    let mut story = Story::default();
    story.register("money", schema("M", &[]));
    story.register("item", schema("I", &["money=money:1"]));
    story.register("order", schema("O", &["item=item:1", "money=money:1"]));
    let order = story.schemas().latest("order").unwrap().schema.clone();
    let needed: Vec<_> = order
        .dependencies()
        .iter()
        .map(|(name, schema)| (*name, &*schema.text))
        .collect::<Vec<_>>()
        .iter()
        .map(|(n, t)| format!("{n} {t}"))
        .collect();
    assert_eq!(needed, ["money M", "item I"], "what is referred to comes first, and once");
    assert_eq!(story.schemas().referrers(&subject("money"), 1).collect::<Vec<_>>(), [2, 3]);
    for refused in [delete_version("money", 1, false), delete_subject("item", false)] {
        assert_eq!(story.refusal(refused).code(), "schema-referenced");
    }
    for gone in ["order", "item", "money"] {
        story.add(delete_subject(gone, false));
    }
    story.add(delete_subject("money", true));
    assert_eq!(&*story.schemas().schema(3).unwrap().dependencies()[0].1.text, "M", "who has the id can still read it");
    // A new version 1 is another schema, and is not what the old one means.
    story.register("money", schema("M2", &[]));
    assert_eq!(&*story.schemas().schema(3).unwrap().dependencies()[0].1.text, "M");
    let again = story.schemas().register_next(&subject("order"), schema("O", &["item=item:1", "money=money:1"]));
    assert_eq!(story.refusal(as_op(again)).code(), "invalid-schema", "item:1 is deleted");
}

#[test]
fn references_that_cannot_be_followed_are_refused() {
    let mut story = Story::default();
    for (name, text) in [("a", "A1"), ("a", "A2")] {
        story.register(name, schema(text, &[]));
    }
    story.register("b", schema("B", &["x=a:1"]));
    let many: Vec<String> = (0..=REFERENCES_MAX).map(|number| format!("n{number}=a:1")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    for (references, why) in [
        (&["x=c:1"][..], "is not there"),
        (&["x=a:3"], "is not there"),
        (&["x=a:1", "x=a:1"], "twice"),
        (&["=a:1"], "1 to 512 bytes"),
        (&["x=a:2", "b=b:1"], "let both mean the same"),
        (&many, "are the most"),
    ] {
        let wanted = story.schemas().register_next(&subject("s"), schema("S", references));
        let refused = story.refusal(as_op(wanted));
        assert!(refused.code() == "invalid-schema" && refused.to_string().contains(why), "{refused}");
    }
}

#[test]
fn a_chain_of_references_is_bounded() {
    let mut story = Story::default();
    story.register("s0", schema("0", &[]));
    let refused = (1..).find_map(|number| {
        let reference = format!("r{}=s{}:1", number - 1, number - 1);
        let wanted =
            story.schemas().register_next(&subject(&format!("s{number}")), schema(&number.to_string(), &[&reference]));
        story.try_add(as_op(wanted)).err().map(|refused| (number, refused))
    });
    let (number, refused) = refused.unwrap();
    assert!(number == 65 && refused.to_string().contains("refer to fewer"), "{number} {refused}");
}

#[test]
fn two_who_are_ready_with_the_same_next_version_are_not_both_heard() {
    let mut story = Story::default();
    story.register("s", schema("A", &[]));
    let ready: Vec<Op> =
        ["B", "C"].map(|text| as_op(story.schemas().register_next(&subject("s"), schema(text, &[])))).into();
    let elsewhere = as_op(story.schemas().register_next(&subject("t"), schema("D", &[])));
    story.add(ready[0].clone());
    for late in [&ready[0], &ready[1], &elsewhere] {
        assert_eq!(story.refusal(late.clone()).code(), "conflict");
    }
    assert_eq!(story.register("s", schema("C", &[])), (3, 3));
}

#[test]
fn a_subject_says_for_itself_what_holds_until_it_is_deleted() {
    let mut story = Story::default();
    let level = |name: Option<&str>, level| Op::CompatibilitySet { subject: name.map(subject), level };
    assert_eq!(story.schemas().compatibility("s"), CompatibilityLevel::Backward);
    story.add(level(Some("s"), Some(CompatibilityLevel::Full)));
    assert!(story.schemas().subject("s").is_some_and(|subject| !subject.is_live()), "before its first version");
    story.add(level(None, Some(CompatibilityLevel::None)));
    assert_eq!(story.schemas().compatibility("s"), CompatibilityLevel::Full);
    assert_eq!(story.schemas().compatibility("t"), CompatibilityLevel::None);
    assert_eq!(story.refusal(level(Some("t"), None)).code(), "compatibility-not-set");
    assert_eq!(story.refusal(delete_subject("s", false)).code(), "subject-not-found", "settings are no versions");
    story.register("s", schema("A", &[]));
    story.add(delete_version("s", 1, false));
    assert_eq!(story.schemas().compatibility("s"), CompatibilityLevel::None);
    story.add(level(Some("t"), Some(CompatibilityLevel::Forward)));
    story.add(level(Some("t"), None));
    assert!(story.schemas().subject("t").is_none(), "nothing is left to remember");
    story.add(level(None, None));
    assert_eq!(story.schemas().compatibility("t"), CompatibilityLevel::Backward);
}

#[test]
fn modes_hold_what_they_say() {
    let mut story = Story::default();
    story.register("s", schema("A", &[]));
    story.add(mode(Some("s"), RegistryMode::ReadOnly));
    let ready = as_op(story.schemas().register_next(&subject("s"), schema("B", &[])));
    let set = Op::CompatibilitySet { subject: Some(subject("s")), level: Some(CompatibilityLevel::None) };
    for refused in [ready.clone(), delete_version("s", 1, false), delete_subject("s", false), set] {
        assert_eq!(story.refusal(refused).code(), "registry-mode");
    }
    story.add(mode(None, RegistryMode::ReadOnly));
    story.add(mode(Some("s"), RegistryMode::ReadWrite));
    story.add(ready);
    let elsewhere = as_op(story.schemas().register_next(&subject("t"), schema("C", &[])));
    assert_eq!(story.refusal(elsewhere).code(), "registry-mode");
    story.add(mode(None, RegistryMode::ReadOnlyOverride));
    assert_eq!(story.refusal(delete_version("s", 1, false)).code(), "registry-mode");
    assert_eq!(story.refusal(mode(Some("s"), RegistryMode::ReadOnlyOverride)).code(), "registry-mode");
    story.add(Op::RegistryModeSet { subject: None, mode: None });
    story.add(delete_version("s", 1, false));
    assert_eq!(story.refusal(Op::RegistryModeSet { subject: Some(subject("t")), mode: None }).code(), "mode-not-set");
}

#[test]
fn imports_keep_ids_and_versions_and_never_give_an_id_to_another_schema() {
    let mut story = Story::default();
    let early = as_op(story.schemas().register_as(&subject("s"), schema("A", &[]), 70, Some(3)));
    assert_eq!(story.refusal(early).code(), "conflict", "only in mode IMPORT");
    story.add(mode(None, RegistryMode::Import));
    assert_eq!(story.import("s", schema("A", &[]), 70, Some(3)), (70, 3));
    assert_eq!(story.import("s", schema("A", &[]), 70, None), (70, 3), "again, it is there");
    assert_eq!(story.import("s", schema("B", &[]), 12, Some(1)), (12, 1), "in whatever order");
    assert_eq!(story.live("s"), [1, 3]);
    assert_eq!(story.import("t", schema("B", &[]), 12, None), (12, 1));
    for (text, id, version) in [("C", 70, None), ("B", 13, None), ("C", 71, Some(3)), ("C", 0, None)] {
        let wanted = story.schemas().register_as(&subject("s"), schema(text, &[]), id, version);
        assert_eq!(story.refusal(as_op(wanted)).code(), "invalid-schema", "{text} {id}");
    }
    story.add(delete_version("s", 3, false));
    story.add(delete_version("s", 3, true));
    let other = story.schemas().register_as(&subject("u"), schema("C", &[]), 70, None);
    assert!(story.refusal(as_op(other)).to_string().contains("never used again"));
    assert_eq!(story.import("u", schema("A", &[]), 70, None), (70, 1), "the same schema gets its id back");
    story.add(mode(None, RegistryMode::ReadWrite));
    assert_eq!(story.register("s", schema("D", &[])), (71, 4));
}

#[test]
fn nothing_that_is_taken_over_uses_numbers_up() {
    let mut story = Story::default();
    story.register("s", schema("A", &[]));
    story.add(mode(None, RegistryMode::Import));
    for (id, version, field) in [
        (IMPORTED_ID_MAX + 1, None, "id"),
        (SCHEMA_ID_MAX, None, "id"),
        (SCHEMA_ID_MAX + 1, None, "id"),
        (7, Some(IMPORTED_ID_MAX + 1), "version"),
        (7, Some(SCHEMA_ID_MAX), "version"),
    ] {
        let wanted = as_op(story.schemas().register_as(&subject("s"), schema("B", &[]), id, version));
        let refused = story.try_add(wanted).unwrap_err();
        let told = refused.to_string();
        assert!(refused.code() == "invalid-schema" && told.contains("the largest that is taken over"), "{told}");
        assert!(told.contains(&format!("`s`, {field}: ")) && told.contains("1073741824"), "{told}");
    }
    let most = IMPORTED_ID_MAX;
    assert_eq!(story.import("s", schema("B", &[]), most, Some(most)), (most, most));
    story.add(mode(None, RegistryMode::ReadWrite));
    assert_eq!(story.register("s", schema("C", &[])), (most + 1, most + 1));
    assert_eq!(story.register("t", schema("D", &[])), (most + 2, 1));
}

/// What a router has written that took any number over.
fn forge(story: &mut Story, op: Op) {
    let record = Record::after(&story.catalog.head(), op, "ada", 0);
    story.catalog.apply(&record).unwrap();
    story.log.push(record);
}

#[test]
fn a_log_in_which_the_last_numbers_were_taken_over_is_read_and_goes_on() {
    let mut story = Story::default();
    assert_eq!(story.register("s", schema("A", &[])), (1, 1));
    story.add(mode(None, RegistryMode::Import));
    let (id, version) = (SCHEMA_ID_MAX - 2, SCHEMA_ID_MAX - 1);
    let wanted = as_op(story.schemas().register_as(&subject("s"), schema("B", &[]), id, Some(version)));
    forge(&mut story, wanted);
    story.add(mode(None, RegistryMode::ReadWrite));
    // Earlier routers went on after the largest until there was none.
    for (number, text) in [(id + 1, "C"), (id + 2, "D")] {
        let (subject, schema) = (subject(text), Some(schema(text, &[])));
        let registration = Box::new(Registration { subject, version: 1, id: number, schema });
        forge(&mut story, Op::SchemaRegistered { registration });
    }
    assert_eq!(story.schemas().newest_id(), SCHEMA_ID_MAX);

    assert_eq!(story.register("t", schema("E", &[])), (2, 1), "ids go on where they were");
    for gone in ["t", "D"] {
        story.add(delete_subject(gone, false));
        story.add(delete_subject(gone, true));
    }
    assert_eq!(story.register("t", schema("F", &[])), (3, 2), "no number is given twice, also not when it is gone");
    let next = as_op(story.schemas().register_next(&subject("s"), schema("G", &[])));
    let told = story.try_add(next).unwrap_err().to_string();
    assert!(
        told.contains("none could be newer") && told.contains("`myelin schema rm s --version 2147483646`"),
        "{told}"
    );
    story.add(delete_version("s", version, false));
    assert_eq!(story.register("s", schema("G", &[])), (4, 2));
    let read = Catalog::from_records(&story.log).unwrap();
    assert_eq!(read, story.catalog);
}

#[test]
fn where_numbers_do_run_out_it_is_said() {
    let mut story = Story::default();
    story.register("s", schema("A", &[]));
    let new = |schemas: &Schemas, name: &str| match schemas.register_next(&subject(name), schema("B", &[])) {
        Wanted::New(registration) => schemas.check_registration(&registration).unwrap_err(),
        Wanted::Known { .. } => panic!("it is new"),
    };
    let mut schemas = story.schemas().clone();
    schemas.counted_id = SCHEMA_ID_MAX;
    let refused = new(&schemas, "t");
    assert!(refused.code() == "catalog-full" && refused.to_string().contains("ids of schemas"), "{refused}");
    let mut schemas = story.schemas().clone();
    schemas.change(&subject("s"), |subject| subject.counted = SCHEMA_ID_MAX);
    let refused = new(&schemas, "s");
    assert!(refused.code() == "catalog-full" && refused.to_string().contains("another subject"), "{refused}");
}

proptest::proptest! {
    #[test]
    fn whatever_is_taken_over_or_gone_a_new_schema_gets_an_id_that_no_other_had(
        steps in proptest::collection::vec((0..4u8, 0..6u32, 0..3u32), 1..40),
    ) {
        let mut story = Story::default();
        let (mut given, mut versions) = (std::collections::BTreeMap::new(), std::collections::BTreeMap::new());
        for (number, (what, low, name)) in steps.into_iter().enumerate() {
            let (name, text) = (format!("s{name}"), schema(&format!("T{number}"), &[]));
            let digest = text.digest;
            let id = match what {
                0 => story.register(&name, text).0,
                1 | 2 => {
                    let id = if what == 1 { low + 1 } else { SCHEMA_ID_MAX - low };
                    let wanted = as_op(story.schemas().register_as(&subject(&name), text, id, None));
                    story.add(mode(Some(&name), RegistryMode::Import));
                    let record = Record::after(&story.catalog.head(), wanted, "ada", 0);
                    let is_taken_over = story.catalog.apply(&record).is_ok();
                    if is_taken_over {
                        story.log.push(record);
                    }
                    story.add(mode(Some(&name), RegistryMode::ReadWrite));
                    if !is_taken_over {
                        continue;
                    }
                    id
                }
                _ => {
                    for permanent in [false, true] {
                        let _ = story.try_add(delete_subject(&name, permanent));
                    }
                    continue;
                }
            };
            proptest::prop_assert_eq!(*given.entry(id).or_insert(digest), digest, "id {} twice", id);
            let version = story.schemas().subject(&name).unwrap().find_schema(id, false).unwrap().version;
            let meant = *versions.entry((name, version)).or_insert(digest);
            proptest::prop_assert_eq!(meant, digest, "version {} twice", version);
        }
        proptest::prop_assert_eq!(&Catalog::from_records(&story.log).unwrap(), &story.catalog);
    }
}

#[test]
fn names_and_texts_are_bounded() {
    for good in ["orders-value", "com.example.Order", "orders/eu/1-value", "Größe", "a b", &"x".repeat(255)] {
        assert_eq!(good.parse::<SubjectName>().unwrap().as_str(), good);
    }
    for bad in ["", "__GLOBAL", "__EMPTY", "a\nb", ":.ctx:s", &"x".repeat(256)] {
        assert_eq!(bad.parse::<SubjectName>().unwrap_err().code(), "invalid-subject", "{bad}");
    }
    assert_eq!("full_transitive".parse(), Ok(CompatibilityLevel::FullTransitive));
    assert_eq!("FULLER".parse::<CompatibilityLevel>().unwrap_err().code(), "invalid-compatibility");
    assert_eq!("X".parse::<RegistryMode>().unwrap_err().code(), "invalid-mode");
    assert_eq!("X".parse::<SchemaFormat>().unwrap_err().code(), "invalid-format");
    let told = "XML".parse::<SchemaFormat>().unwrap_err().to_string();
    assert_eq!(told, "`XML` is no format of schemas; write one of JSON, AVRO, PROTOBUF");
    assert!("X".parse::<CompatibilityLevel>().unwrap_err().to_string().contains("no level of compatibility; write"));

    let mut story = Story::default();
    let long = story.schemas().register_next(&subject("s"), schema(&"x".repeat(SCHEMA_LEN_MAX_BYTES + 1), &[]));
    assert_eq!(story.refusal(as_op(long)).code(), "invalid-schema");
    assert_eq!(
        story.register("s", schema(&"x".repeat(SCHEMA_LEN_MAX_BYTES), &[])),
        (1, 1),
        "the longest fits a record"
    );
    let max = u32::try_from(SUBJECT_VERSIONS_MAX).unwrap();
    for number in 2..=max {
        story.register("s", schema(&number.to_string(), &[]));
    }
    let one_more = story.schemas().register_next(&subject("s"), schema("one more", &[]));
    assert_eq!(story.refusal(as_op(one_more)).code(), "catalog-full");
    story.add(delete_version("s", 1, false));
    story.add(delete_version("s", 1, true));
    assert_eq!(story.register("s", schema("one more", &[])), (max + 1, max + 1));
}

#[test]
fn the_log_adds_up_to_the_same_registry() {
    let mut story = Story::default();
    for number in 0..40 {
        let name = format!("s{}", number % 7);
        story.register(&name, schema(&format!("T{}", number % 23), &[]));
        if number % 5 == 4 {
            story.add(delete_version(&name, *story.live(&name).first().unwrap(), false));
        }
    }
    story.add(delete_subject("s3", false));
    story.add(delete_subject("s3", true));
    let records: Vec<Record> = story.encoded().iter().map(|bytes| Record::decode(bytes).unwrap()).collect();
    assert_eq!(Catalog::from_records(&records).unwrap(), story.catalog);
    let copy = story.catalog.clone();
    story.register("s1", schema("new", &[]));
    assert!(copy.schemas() != story.schemas() && copy.schemas().find(&schema("new", &[]).digest).is_none());
}
