//! The tape, against the library's own representation.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use super::*;
use jsonschema::json::{Node, Object};
use proptest::prelude::*;
use serde_json::Value;

/// Any value, with names that seldom come twice, or often.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![text_of("[a-z]{1,4}"), text_of("[a-f]{1,2}")]
}

fn text_of(names: &'static str) -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        any::<i64>().prop_map(|number| number.to_string()),
        any::<u64>().prop_map(|number| number.to_string()),
        (-1e9..1e9_f64).prop_map(|number| format!("{number:e}")),
        "\\PC{0,12}".prop_map(|text| Value::from(text).to_string()),
        Just(r#""a\u00e9\n\ud83d\ude00""#.to_owned()),
    ];
    leaf.prop_recursive(4, 64, 24, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(|all| format!("[{}]", all.join(" , "))),
            prop::collection::vec((names, any::<bool>(), inner), 0..40).prop_map(|all| {
                let member = |(name, is_escaped, value): (String, bool, String)| match is_escaped {
                    true => format!("\"\\u{:04x}{}\":{value}", u32::from(name.as_bytes()[0]), &name[1..]),
                    false => format!("\"{name}\":{value}"),
                };
                let members: Vec<_> = all.into_iter().map(member).collect();
                format!("{{{}}}", members.join(","))
            }),
        ]
    })
}

/// What the library's own representation makes of a text, or why it is none to judge, as texts.
fn by_the_library(text: &[u8]) -> Result<Value, String> {
    let value = serde_json::from_slice::<Value>(text).map_err(|error| error.to_string())?;
    match repeated::first(text).unwrap() {
        Some(repeated) => Err(format!("{}: {repeated}", repeated.path)),
        None => Ok(value),
    }
}

fn told(why: Unread) -> String {
    match why {
        Unread::NoJson(error) => error.to_string(),
        Unread::Repeated(repeated) => format!("{}: {repeated}", repeated.path),
    }
}

proptest! {
    /// What is read is what the library's own representation reads, but for names that come twice.
    #[test]
    fn a_tape_is_the_value_that_its_text_says(text in text()) {
        let value = match by_the_library(text.as_bytes()) {
            Ok(value) => value,
            Err(why) => {
                prop_assert_eq!(read(text.as_bytes(), |_| ()).map_err(told), Err(why));
                return Ok(());
            }
        };
        read(text.as_bytes(), |tape| {
            prop_assert_eq!(tape.to_value().into_owned(), value.clone());
            prop_assert!(tape.equals_value(&value));
            if let (Some(members), Value::Object(fields)) = (tape.as_object(), &value) {
                prop_assert_eq!(members.len(), fields.len());
                prop_assert_eq!(members.members().count(), fields.len());
                for (name, field) in fields {
                    let found = members.get(name).map(|node| node.to_value().into_owned());
                    prop_assert_eq!(found.as_ref(), Some(field));
                }
                prop_assert!(members.get(&"no name".to_owned()).is_none());
            }
            Ok(())
        }).unwrap()?;
    }

    /// Also where a byte is changed, taken out or put in, and where the text ends early.
    #[test]
    fn what_one_reads_the_other_reads(text in text(), at in any::<prop::sample::Index>(), change in 0..4, byte in damage()) {
        let mut bytes = text.into_bytes();
        let at = at.index(bytes.len());
        match change {
            0 => bytes[at] = byte,
            1 => bytes.insert(at, byte),
            2 => drop(bytes.remove(at)),
            _ => bytes.truncate(at),
        }
        let tape = read(&bytes, |tape| tape.to_value().into_owned()).map_err(told);
        prop_assert_eq!(tape, by_the_library(&bytes));
    }

    #[test]
    fn the_length_of_a_text_is_counted_in_characters(text in "\\PC{0,20}", min in 0u64..24, more in 0u64..24) {
        let (written, length) = (Value::from(&*text).to_string(), text.chars().count() as u64);
        let wanted = (min..=min + more).contains(&length);
        let found = read(written.as_bytes(), |tape| tape.string_length_within(min, min + more)).unwrap();
        prop_assert_eq!(found, Some(wanted));
    }

    /// Wherever it stands in blocks, and whatever was asked before.
    #[test]
    fn the_first_byte_that_is_not_plain_is_found(
        bytes in prop::collection::vec(plain(), 0..200),
        special in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        asked in prop::collection::vec(0usize..200, 1..6),
    ) {
        let mut bytes = bytes;
        for (at, byte) in special {
            bytes.insert(at.index(bytes.len() + 1), byte);
        }
        let is_special = |byte: &u8| *byte < b' ' || *byte == b'"' || *byte == b'\\';
        let mut block = plain::Block::default();
        for from in asked {
            let from = from.min(bytes.len());
            let wanted = bytes[from..].iter().position(is_special).map_or(bytes.len(), |at| from + at);
            prop_assert_eq!(block.plain_end(&bytes, from), wanted);
        }
    }
}

/// Bytes that mean something in JSON, or are not allowed in it.
fn damage() -> impl Strategy<Value = u8> {
    prop_oneof![prop::sample::select(&b"{}[]:,\"\\ \n\t\x00-+.eE019tfn\xc3\xff"[..]), any::<u8>()]
}

fn plain() -> impl Strategy<Value = u8> {
    prop_oneof![b' '..b'"', b'#'..b'\\', b']'..=0xff]
}

#[test]
fn what_is_no_json_is_none_here_either() {
    let (deep, nearly) = ("[".repeat(200), "[".repeat(127) + &"]".repeat(127));
    read(nearly.as_bytes(), |_| ()).unwrap();
    for text in
        ["", "{", "[1,]", "{\"a\":1,}", "1e999", "nul", "\"\\ud800\"", "{1:2}", "1 2", "01", "-", "\"\t\"", &*deep]
    {
        let (tape, value) = (read(text.as_bytes(), |_| ()), serde_json::from_str::<Value>(text));
        assert_eq!(told(tape.unwrap_err()), value.unwrap_err().to_string(), "{text}");
    }
}

#[test]
fn a_large_payload_leaves_no_memory_behind() {
    let large = format!("[{}1]", "1,".repeat(100_000));
    for text in ["[1]", &large, "{\"a\":[1]}"] {
        read(text.as_bytes(), |_| ()).unwrap();
        let kept = KEPT.take().map_or(0, |kept| kept.allocated_bytes());
        assert!(kept <= KEPT_BYTES_MAX, "{kept} bytes");
    }
}

/// Looking for each among all before it would take minutes.
#[test]
fn a_name_that_comes_twice_is_found_among_however_many() {
    let read = |text: &str| read(text.as_bytes(), |tape| tape.as_object().unwrap().len()).map_err(told);
    for others in [0, 1, SCANNED_MAX - 1, SCANNED_MAX, SCANNED_MAX + 1, 300_000] {
        let members: String = (0..others).map(|number| format!("\"n{number}\":[{{}}],")).collect();
        let once = format!("{{{members}\"a\":1}}");
        assert_eq!(read(&once), Ok(others + 1));
        for again in [format!("{{\"\\u0061\":0,{}", &once[1..]), format!("{},\"a\":{{}}}}", &once[..once.len() - 1])] {
            assert!(read(&again).unwrap_err().ends_with("has more than one member of the name `a`"));
        }
    }
    assert!(read(&format!("{{{}\"a\":2}}", "\"a\":1,".repeat(300_000))).is_err());
}

#[test]
fn there_are_never_more_parts_than_room_was_made_for() {
    let long = format!("[{}{{\"a\":[[]],\"b\":1}}]", "[1,{}],".repeat(20_000));
    let memory = Bump::new();
    let parts = Scanner::new(&long, &memory).document().unwrap().parts();
    assert_eq!(parts, 1 + 3 * 20_000 + 4);
    assert!(long.len() > 64 * 1_024 && memory.allocated_bytes() < 2 * 40 * parts, "{}", memory.allocated_bytes());
}

/// Of the last payload nothing is seen in the next.
#[test]
fn what_is_judged_inside_a_judgement_has_its_own_memory() {
    let seen = read(br#"{"a":"outer"}"#, |outer| {
        let inner = read(br#"{"b":"inn\u0065r"}"#, |inner| inner.to_value().into_owned()).unwrap();
        (outer.to_value().into_owned(), inner)
    });
    assert_eq!(seen.unwrap(), (serde_json::json!({"a": "outer"}), serde_json::json!({"b": "inner"})));
}
