#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use super::*;
use crate::testing::Holder;

fn patched(signature: &MinisignSignature, patch: impl FnOnce(&mut Parts)) -> MinisignSignature {
    let mut parts = Parts::clone(&signature.0);
    patch(&mut parts);
    MinisignSignature(Arc::new(parts))
}

#[test]
fn texts_are_read_as_they_are_written() {
    let holder = Holder::new();
    let (key, signature) = (holder.public(), holder.sign(b"bytes", "a comment"));
    let file = format!("untrusted comment: minisign public key {}\n{key}\n", key.id());
    assert_eq!((file.parse(), key.to_string().parse()), (Ok(key), Ok(key)));
    assert_eq!(key.id().to_string().parse(), Ok(key.id()));
    assert_eq!(signature.to_string().parse(), Ok(signature.clone()));
    assert_eq!(signature.to_string().replace('\n', "\r\n").parse(), Ok(signature.clone()));
    assert_eq!((signature.key_id(), signature.comment()), (key.id(), "a comment"));
    let default = holder.sign(b"bytes", "timestamp:1700000000\tfile:orders.wasm\thashed");
    assert_eq!(default.to_string().parse(), Ok(default), "the tool's own comment");
    let json = serde_json::to_string(&signature).unwrap();
    assert_eq!(serde_json::from_str::<MinisignSignature>(&json).unwrap(), signature);
}

#[test]
fn both_signatures_are_checked() {
    let (holder, other) = (Holder::new(), Holder::new());
    let (key, signature) = (holder.public(), holder.sign(b"bytes", "a comment"));
    assert!(key.has_signed(b"bytes", &signature) && key.has_signed_comment(&signature));
    assert!(!key.has_signed(b"other", &signature));
    let recommented = patched(&signature, |parts| parts.comment = "another".into());
    assert!(!key.has_signed(b"bytes", &recommented) && !key.has_signed_comment(&recommented));
    // The second signature covers the first.
    let patched = patched(&signature, |parts| parts.first = holder.sign(b"other", "a comment").0.first);
    assert!(!key.has_signed(b"other", &patched) && !key.has_signed_comment(&patched));
    assert!(!other.public().has_signed(b"bytes", &signature) && !other.public().has_signed_comment(&signature));
}

#[test]
fn what_is_no_key_and_no_signature_is_refused() {
    let holder = Holder::new();
    let (key, signature) = (holder.public().to_string(), holder.sign(b"bytes", "a comment").to_string());
    for text in ["", "RW", &key[1..], &key.replace("RW", "QW"), &format!("{key}{}", "\n\n".repeat(2_000))] {
        assert_eq!(text.parse::<MinisignKey>().unwrap_err().code(), "invalid-key", "{text:.60}");
    }
    let cut = |lines: usize| signature.lines().take(lines).collect::<Vec<_>>().join("\n");
    let wrong = [
        String::new(),
        cut(2),
        cut(3),
        format!("{signature}x\n"),
        signature.replace("trusted comment: a", "a"),
        signature.replace("a comment", &"x".repeat(COMMENT_LEN_MAX_BYTES + 1)),
        signature.replace("a comment", "a \u{1b}[2J"),
        signature.replace("\nRU", "\nRW"),
        "x".repeat(1 << 20),
    ];
    for text in wrong {
        assert_eq!(text.parse::<MinisignSignature>().unwrap_err().code(), "signature-invalid", "{text:.80}");
    }
    // `Ed`, not `ED`: what is signed is not prehashed.
    let legacy = patched(&holder.sign(b"b", "c"), |parts| parts.first[1] = b'd');
    assert!(legacy.to_string().parse::<MinisignSignature>().unwrap_err().to_string().contains("not prehashed"));
    assert!("0123456789abcde".parse::<KeyId>().is_err() && "+123456789abcdef".parse::<KeyId>().is_err());
}
