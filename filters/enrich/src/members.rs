//! Sets members of a JSON object and leaves everything else as it is, byte for byte.

use myelin_filter::json::{self, Scanner, Token};

/// What became of a payload.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Members {
    /// The object with its members set.
    Rewritten(Vec<u8>),
    /// It is no JSON object: nothing of it is touched.
    NoObject,
}

/// Sets the members of the object: each of `changes` is a name and its new value as JSON, or `None` to take it away. Every
/// old member of such a name goes, however often it stands there and however it is escaped; the new ones come last.
pub(crate) fn rewrite(payload: &[u8], changes: &[(&str, Option<&str>)]) -> Members {
    // The whole document first: what stands behind the object would otherwise go unread.
    let is_object = json::check(payload).is_ok() && Scanner::new(payload).peek() == Some(Token::Object);
    if !is_object {
        return Members::NoObject;
    }
    copy(payload, changes).map_or(Members::NoObject, Members::Rewritten)
}

fn copy(payload: &[u8], changes: &[(&str, Option<&str>)]) -> Option<Vec<u8>> {
    let mut scanner = Scanner::new(payload);
    scanner.open_object()?;
    let added: usize = changes.iter().map(|(name, value)| name.len() + value.map_or(0, str::len) + 8).sum();
    let mut out = Vec::with_capacity(payload.len() + added);
    out.extend_from_slice(&payload[..scanner.position()]);
    let mut is_first = true;
    let mut more = !scanner.close_object();
    // A member begins behind the mark before it: its white space goes with it.
    let mut begin = out.len();
    while more {
        let name = scanner.name()?;
        let is_kept = changes.iter().all(|(changed, _)| !name.is(changed));
        scanner.skip_value()?;
        let end = scanner.position();
        more = scanner.comma_or(b'}')?;
        if is_kept {
            separate(&mut out, &mut is_first);
            out.extend_from_slice(&payload[begin..end]);
        }
        begin = scanner.position();
    }
    for (name, value) in changes {
        let Some(value) = value else { continue };
        separate(&mut out, &mut is_first);
        out.extend_from_slice(myelin_filter::config::Value::from(*name).to_string().as_bytes());
        out.push(b':');
        out.extend_from_slice(value.as_bytes());
    }
    out.push(b'}');
    out.extend_from_slice(&payload[scanner.position()..]);
    Some(out)
}

fn separate(out: &mut Vec<u8>, is_first: &mut bool) {
    if !std::mem::replace(is_first, false) {
        out.push(b',');
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn set(payload: &str, changes: &[(&str, Option<&str>)]) -> String {
        match rewrite(payload.as_bytes(), changes) {
            Members::Rewritten(bytes) => String::from_utf8(bytes).unwrap(),
            Members::NoObject => panic!("{payload} is an object"),
        }
    }

    #[test]
    fn members_are_set_and_the_rest_stays_byte_for_byte() {
        let one = [("a", Some("1"))];
        assert_eq!(set("{}", &one), r#"{"a":1}"#);
        assert_eq!(set(" { } ", &one), " {\"a\":1} ");
        assert_eq!(set(r#"{"b": [1,  2.50] }"#, &one), r#"{"b": [1,  2.50],"a":1}"#);
        assert_eq!(
            set("{\n  \"b\": 1,\n  \"a\": {\"a\": 7},\n  \"c\": 2\n}\n", &one),
            "{\n  \"b\": 1,\n  \"c\": 2,\"a\":1}\n"
        );
        assert_eq!(set(r#"{"a":0,"\u0061":{"x":[]},"b":0,"a":"}"}"#, &one), r#"{"b":0,"a":1}"#, "every occurrence");
        assert_eq!(set(r#"{"b":{"a":0}}"#, &one), r#"{"b":{"a":0},"a":1}"#, "members of the object only");
        assert_eq!(set(r#"{"a":0}"#, &[("a", None)]), "{}");
        assert_eq!(set(r#"{"a":0,"b":1}"#, &[("a", None), ("c", Some("\"x\""))]), r#"{"b":1,"c":"x"}"#);
        assert_eq!(set("{}", &[("q\"\n", Some("null"))]), "{\"q\\\"\\n\":null}");
    }

    #[test]
    fn what_is_no_object_is_not_touched() {
        let cases =
            ["", "[]", "7", "null", "\"{}\"", "{", "{}x", "{\"a\":1,}", "{\"a\":}", "no JSON", "{\"a\":\"\u{1}\"}"];
        for payload in cases {
            assert_eq!(rewrite(payload.as_bytes(), &[("a", Some("1"))]), Members::NoObject, "{payload}");
        }
        assert_eq!(rewrite(b"{\"a\":\"\xff\"}", &[("a", Some("1"))]), Members::NoObject);
    }

    #[test]
    fn every_cut_and_every_changed_byte_leaves_an_object_or_nothing() {
        let whole = br#"{"k":[1,"\u0041"],"a":{"b":null},"z":"\\"}"#;
        let check = |bytes: &[u8]| {
            if let Members::Rewritten(new) = rewrite(bytes, &[("a", Some("1")), ("k", None)]) {
                assert_eq!(json::check(&new), Ok(()), "{}", String::from_utf8_lossy(&new));
                assert_eq!(json::field(&new, "a").and_then(|value| value.as_u64()), Some(1));
                assert_eq!(json::field(&new, "k"), None);
            }
        };
        for at in 0..whole.len() {
            check(&whole[..at]);
            for byte in 0..=u8::MAX {
                let mut changed = whole.to_vec();
                changed[at] = byte;
                check(&changed);
            }
        }
    }
}
