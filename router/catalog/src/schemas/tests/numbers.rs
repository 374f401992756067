//! A number means the same for ever.

use super::*;

/// Rules, filters, references and people name a schema by its subject and version.
#[test]
fn a_version_means_the_same_for_ever() {
    let mut story = Story::default();
    let purge = |story: &mut Story| {
        for permanent in [false, true] {
            story.add(delete_subject("s", permanent));
        }
    };
    story.register("s", schema("A", &[]));
    story.register("s", schema("B", &[]));
    purge(&mut story);
    assert!(story.schemas().subject("s").is_none() && story.schemas().has_had_versions("s"));
    assert!(!story.schemas().has_had_versions("t"));
    // Whoever restores what was there gets what was there.
    assert_eq!(story.register("s", schema("A", &[])), (3, 1));
    assert_eq!(story.register("s", schema("B", &[])), (4, 2));
    assert_eq!(story.register("s", schema("C", &[])), (5, 3));
    purge(&mut story);
    assert_eq!(story.register("s", schema("B", &[])).1, 4);
    // What is taken over has a number that it is given, and may not have another one's either.
    story.add(mode(None, RegistryMode::Import));
    let wanted = as_op(story.schemas().register_as(&subject("s"), schema("D", &[]), 70, Some(3)));
    let refused = story.try_add(wanted).unwrap_err();
    assert!(refused.code() == "invalid-schema" && refused.to_string().contains("was another schema"), "{refused}");
    assert_eq!(story.import("s", schema("C", &[]), 70, Some(3)), (70, 3), "but its own");
    assert_eq!(story.import("s", schema("D", &[]), 71, None), (71, 5));
    purge(&mut story);
    assert_eq!(story.import("s", schema("E", &[]), 72, None), (72, 6));
    assert_eq!(Catalog::from_records(&story.log).unwrap(), story.catalog);
}

/// As routers wrote them that began again with 1.
#[test]
fn a_log_in_which_versions_were_given_again_is_read_and_goes_on() {
    let mut story = Story::default();
    story.register("s", schema("A", &[]));
    for permanent in [false, true] {
        story.add(delete_subject("s", permanent));
    }
    let again = Registration { subject: subject("s"), version: 1, id: 2, schema: Some(schema("B", &[])) };
    let refused = story.try_add(Op::SchemaRegistered { registration: again.clone().into() }).unwrap_err();
    assert_eq!(refused.code(), "conflict");
    forge(&mut story, Op::SchemaRegistered { registration: again.into() });
    assert_eq!(story.live("s"), [1]);
    assert_eq!(story.register("s", schema("A", &[])), (3, 2));
    assert_eq!(Catalog::from_records(&story.log).unwrap(), story.catalog);
}
