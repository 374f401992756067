//! Keys, signatures, and changes of trust, as a stranger sends them.

use super::REFUSAL_BYTES_MAX;
use myelin_catalog::{
    Catalog, KeyId, MinisignKey, MinisignSignature, ModulePattern, ModuleStatement, Op, RollbackStatement, TrustAction,
    TrustChange,
};
use std::fmt::Display;
use std::str::FromStr;
use std::sync::LazyLock;

/// A key, and what it has signed: a file of the tool's, prehashed.
const KEY: &str = include_str!("signatures/release.pub");
const SIGNATURE: &str = include_str!("signatures/orders.wasm.minisig");
const SIGNED: &[u8] = b"\0asm, but not really: bytes that somebody has signed\n";

/// Both, read.
static GENUINE: LazyLock<(MinisignKey, MinisignSignature)> = LazyLock::new(|| {
    let key = KEY.parse().expect("the key of the repository");
    (key, SIGNATURE.parse().expect("the signature of the repository"))
});

/// The bytes are a signature, a key, the id of one, and what a trusted comment says.
pub(super) fn signature(data: &[u8]) {
    let (key, genuine) = &*GENUINE;
    if data == SIGNED {
        assert!(key.has_signed(data, genuine) && key.has_signed_comment(genuine));
    } else if data.len() == SIGNED.len() {
        assert!(!key.has_signed(data, genuine), "bytes that nobody has signed were believed");
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Some(read) = again::<MinisignSignature>(text) {
        // The comment beside the first line is nobody's, so that many files are one signature.
        let is_genuine = read == *genuine;
        assert_eq!(key.has_signed(SIGNED, &read), is_genuine, "a signature that nobody made was believed");
        assert!(is_genuine || !key.has_signed_comment(&read) || read.comment() == genuine.comment());
        statements(read.comment());
    }
    if let Some(other) = again::<MinisignKey>(text) {
        assert!(other == *key || !other.has_signed(SIGNED, genuine), "another key has signed the same");
    }
    again::<KeyId>(text);
    statements(text);
}

/// A comment is for a module or for a downgrade, never for both, and is written as it was read.
fn statements(comment: &str) {
    let (module, rollback) = (again::<ModuleStatement>(comment), again::<RollbackStatement>(comment));
    assert!(module.is_none() || rollback.is_none(), "one is never taken for the other: {comment:?}");
}

/// The bytes are a change of trust, and a pattern of modules.
pub(super) fn trust(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        again::<ModulePattern>(text);
    }
    let Ok(change) = serde_json::from_slice::<TrustChange>(data) else { return };
    let written = serde_json::to_vec(&change).expect("it was read");
    let read: TrustChange = serde_json::from_slice(&written).expect("our own");
    assert_eq!(read, change, "written and read again");
    assert_eq!(read.statement(), change.statement(), "what is signed does not depend on how it is written");
    // Where nobody's agreement is needed, and where it is; the one root key has signed no change.
    let open = Catalog::new();
    take(&open, &change);
    let key = KEY.parse().expect("the key of the repository");
    let roots = TrustAction::SetRoots { keys: vec![key], threshold: 1 };
    let first = TrustChange { after: open.trust().head(), actions: vec![roots], signatures: Vec::new() };
    let rooted = open.preview(changed(first), "ada", 1).expect("the first root set needs nobody");
    assert!(!take(&rooted, &change), "a change that no root key has signed was taken");
    let following = TrustChange { after: rooted.trust().head(), ..change };
    assert!(!take(&rooted, &following), "a change that no root key has signed was taken");
}

/// Whether a catalog takes a change; a refusal has a code and a sentence.
fn take(catalog: &Catalog, change: &TrustChange) -> bool {
    match catalog.preview(changed(change.clone()), "eve", 2) {
        Ok(after) => {
            assert!(after.trust().head() != catalog.trust().head());
            true
        }
        Err(refusal) => {
            let told = refusal.to_string();
            assert!(!refusal.code().is_empty() && told.len() < REFUSAL_BYTES_MAX, "{} bytes: {told}", told.len());
            false
        }
    }
}

fn changed(change: TrustChange) -> Op {
    Op::TrustChanged { change: Box::new(change) }
}

/// What the text is, where it is one; what is read can be written and read the same.
fn again<T: FromStr<Err: Display> + Display + PartialEq>(text: &str) -> Option<T> {
    match text.parse::<T>() {
        Ok(read) => {
            assert!(read.to_string().parse().is_ok_and(|again: T| again == read), "written and read again: {text:?}");
            Some(read)
        }
        Err(refusal) => {
            let told = refusal.to_string();
            assert!(told.len() < REFUSAL_BYTES_MAX, "{} bytes: {told}", told.len());
            None
        }
    }
}
