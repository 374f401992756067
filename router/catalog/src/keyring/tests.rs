#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use proptest::prelude::*;

use super::*;
use crate::catalog::Catalog;
use crate::testing::{Story, add, key, revoke, trust};

/// A log that was unsigned for two records, and is signed by `root` since.
fn signed() -> Story {
    let mut story = Story::default();
    story.add(add("m@1.0.0"));
    story.add(add("m@2.0.0"));
    story.sign_with("root");
    story
}

/// The code with which `record` is refused; nothing may have changed.
fn refused(story: &Story, record: &Record) -> &'static str {
    let mut catalog = story.catalog.clone();
    let refused = catalog.apply(record).unwrap_err();
    assert_eq!(catalog, story.catalog, "a refusal changes nothing");
    // A log that is read says the same of a signature, and of all else that it cannot be the one that was written.
    let expected = if refused.code() == "invalid-record" { "chain-broken" } else { refused.code() };
    assert_eq!(catalog.replay(record).unwrap_err().code(), expected);
    refused.code()
}

#[test]
fn a_log_without_keys_takes_unsigned_records_and_no_others() {
    let mut story = Story::default();
    story.add(add("m@1.0.0"));
    assert_eq!(story.catalog.keys().root(), None);
    let signed = Record::after(&story.catalog.head(), add("m@2.0.0"), "ada", 0).sign(&key("root"));
    assert_eq!(refused(&story, &signed), "unknown-key");
}

#[test]
fn the_first_key_vouches_for_itself() {
    let mut story = Story::default();
    assert_eq!(story.refusal(trust("root")).code(), "unsigned-record");
    let by_another = Record::after(&story.catalog.head(), trust("root"), "ada", 0).sign(&key("other"));
    assert_eq!(refused(&story, &by_another), "unknown-key");
    let Op::KeyTrusted { key_id, note, .. } = trust("root") else { unreachable!() };
    let stolen = Op::KeyTrusted { key_id, public_key: key("other").public_key(), note };
    let stolen = Record::after(&story.catalog.head(), stolen, "ada", 0).sign(&key("root"));
    assert_eq!(refused(&story, &stolen), "bad-signature", "whoever has the key shows it");

    story.sign_with("root");
    assert_eq!(story.catalog.keys().root(), Some(key("root").public_key()));
}

#[test]
fn after_the_first_key_every_record_is_signed_by_a_trusted_one() {
    let mut story = signed();
    assert_eq!(story.catalog.draft(add("m@3.0.0"), "ada", 0).unwrap_err().code(), "unsigned-record");
    let next = Record::after(&story.catalog.head(), add("m@3.0.0"), "ada", 0);
    assert_eq!(refused(&story, &next), "unsigned-record");
    assert_eq!(refused(&story, &next.clone().sign(&key("eve"))), "unknown-key");
    let pretended = Record { key_id: "root".into(), ..next.clone().sign(&key("eve")) };
    assert_eq!(refused(&story, &pretended), "bad-signature");

    let good = next.sign(&key("root"));
    let changed = [
        Record { actor: "eve".into(), ..good.clone() },
        Record { at_unix_ms: 7, ..good.clone() },
        Record { op: add("m@4.0.0"), ..good.clone() },
    ];
    for record in changed {
        assert_eq!(refused(&story, &record), "bad-signature");
    }
    story.catalog.apply(&good).unwrap();
}

#[test]
fn keys_are_exchanged_one_by_one_and_never_come_back() {
    let mut story = signed();
    let revoked_alone = story.refusal(revoke("root"));
    assert!(revoked_alone.to_string().contains("the only one"), "{revoked_alone}");
    story.add(trust("second"));
    let revoked_rev = story.add(revoke("root"));
    let by_root = Record::after(&story.catalog.head(), add("m@3.0.0"), "ada", 0).sign(&key("root"));
    assert_eq!(refused(&story, &by_root), "revoked-key");
    assert!(
        story.catalog.clone().apply(&by_root).unwrap_err().to_string().contains(&format!("record {revoked_rev}")),
        "it says which record revoked it"
    );

    story.signer = Some(key("second"));
    assert_eq!(story.refusal(trust("root")).code(), "conflict");
    let renamed =
        Op::KeyTrusted { key_id: "again".parse().unwrap(), public_key: key("root").public_key(), note: String::new() };
    assert_eq!(story.refusal(renamed).code(), "conflict");
    assert_eq!(story.refusal(revoke("root")).code(), "not-found");
    assert_eq!(story.refusal(revoke("unheard-of")).code(), "not-found");
    story.add(add("m@3.0.0"));

    let keys = story.catalog.keys();
    assert_eq!((keys.trusted(), keys.iter().len(), keys.root()), (1, 2, Some(key("root").public_key())));
    assert_eq!(Catalog::from_records(&story.log).unwrap(), story.catalog, "what it signed before stays valid");
}

#[test]
fn keys_are_bounded() {
    let mut story = signed();
    for n in 1..KEYS_MAX {
        story.add(trust(&format!("k{n}")));
    }
    assert_eq!(story.refusal(trust("one-more")).code(), "catalog-full");
    let Op::KeyTrusted { key_id, public_key, .. } = trust("wordy") else { unreachable!() };
    let wordy = Op::KeyTrusted { key_id, public_key, note: "x".repeat(NOTE_LEN_MAX_BYTES + 1) };
    assert_eq!(story.refusal(wordy).code(), "invalid-record");
}

#[test]
fn signatures_have_one_form() {
    let story = signed();
    let good = Record::after(&story.catalog.head(), add("m@3.0.0"), "ada", 0).sign(&key("root"));
    for (key_id, sig) in [
        ("root", good.sig.to_uppercase()),
        ("root", good.sig[2..].to_owned()),
        ("root", String::new()),
        ("Root", good.sig.clone()),
        ("", good.sig.clone()),
    ] {
        let record = Record { key_id: key_id.into(), sig, ..good.clone() };
        assert_eq!(refused(&story, &record), "invalid-record");
    }
    let unsigned = Record { alg: Algorithm::None, ..good };
    assert_eq!(refused(&story, &unsigned), "invalid-record");
}

#[test]
fn keys_are_read_from_what_tools_write() {
    // RFC 8032, 7.1, test 1.
    let seed = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
    let public = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
    let bytes: [u8; 32] = hex::decode(seed).unwrap().try_into().unwrap();
    let id = || "k".parse().unwrap();
    let from_seed = crate::keys::SigningKey::from_seed(id(), &bytes).unwrap();
    assert_eq!(from_seed.public_key(), public.parse().unwrap());
    // As `openssl genpkey -algorithm ed25519 -outform DER` writes it.
    let document = [hex::decode("302e020100300506032b657004220420").unwrap(), bytes.to_vec()].concat();
    let from_document = crate::keys::SigningKey::from_pkcs8(id(), &document).unwrap();
    assert_eq!(from_document.public_key(), from_seed.public_key());
    assert_eq!(crate::keys::SigningKey::from_pkcs8(id(), &bytes).unwrap_err().code(), "invalid-key");
    assert!(!format!("{from_seed:?}").contains(seed));
    for text in [&public[1..], &public.to_uppercase(), "", &"x".repeat(64)] {
        assert_eq!(text.parse::<PublicKey>().unwrap_err().code(), "invalid-key");
    }
}

#[test]
fn a_signature_is_the_one_that_other_implementations_make() {
    // What is signed is part of the format: the text before the digest, then the digest of the record without its
    // signature. Ed25519 is deterministic, so this value holds for whoever signs.
    let record = Record::after(&crate::record::Head::EMPTY, trust("root"), "ada", 1).sign(&key("root"));
    let unsigned = Record { sig: String::new(), ..record.clone() };
    let message = [b"myelin catalog record 1\n".as_slice(), unsigned.hash().as_bytes()].concat();
    let pair = ring::signature::Ed25519KeyPair::from_seed_unchecked(crate::digest::Digest::of(b"root").as_bytes());
    assert_eq!(record.sig, hex::encode(pair.unwrap().sign(&message)));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn no_flipped_bit_of_a_signed_record_is_believed(at in any::<prop::sample::Index>(), bit in 0u8..8) {
        let story = signed();
        let good = Record::after(&story.catalog.head(), add("m@3.0.0"), "ada", 0).sign(&key("root"));
        let mut bytes = good.encode();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        if let Ok(damaged) = Record::decode(&bytes) {
            prop_assert!(story.catalog.clone().apply(&damaged).is_err());
        }
    }
}
