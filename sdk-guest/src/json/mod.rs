//! Single fields of a JSON document, without parsing all of it.
//!
//! [`field`] walks the document from its beginning, skips what it does not want and stops at the field: some 20-60 ns
//! inside a filter for a field that stands early, about 1 ns a byte for what it must skip. Parsing the whole document
//! with a JSON library costs about 3 µs per KiB; do that only where a filter must look at everything.
//!
//! What the early stop means:
//! * What stands behind the field is not read, so a document that is broken there is not noticed. [`check`] reads it
//!   all.
//! * Where an object has a name twice, the **first** one is found. JSON leaves the meaning open, and many libraries
//!   take the last: a filter that guards something should [`check`] for it, or rewrite every occurrence.
//! * Before the field every byte is held against the grammar, and names are compared with their escapes resolved:
//!   `"\u0072egion"` is `region`.
//!
//! ```
//! use myelin_filter::json;
//! let payload = br#"{"id":7,"order":{"region":"eu","lines":[{"sku":"A1"}]}}"#;
//! assert_eq!(json::field(payload, "order.region").unwrap().as_str(), Some("eu"));
//! assert_eq!(json::field(payload, "order.lines.0.sku").unwrap().as_str(), Some("A1"));
//! assert_eq!(json::field(payload, "id").unwrap().as_u64(), Some(7));
//! assert!(json::field(payload, "order.country").is_none());
//! ```

mod scan;

pub use scan::{Scanner, Token};

use std::borrow::Cow;

/// Deepest nesting that is read; a deeper document counts as malformed.
pub const DEPTH_MAX: usize = 64;

/// The value of a field.
#[derive(Clone, Debug, PartialEq)]
pub enum JsonValue<'a> {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number as it is written.
    Number(&'a str),
    /// A string with its escapes resolved; it allocates only where there are some.
    String(Cow<'a, str>),
    /// An array as it is written, from `[` to `]`.
    Array(&'a [u8]),
    /// An object as it is written, from `{` to `}`.
    Object(&'a [u8]),
}

impl<'a> JsonValue<'a> {
    /// What [`scalar_text`](JsonValue::scalar_text) says, without a copy where the document has it as it is.
    pub fn into_text(self) -> Option<Cow<'a, str>> {
        match self {
            Self::String(text) => Some(text),
            Self::Number(number) => Some(Cow::Borrowed(number)),
            Self::Null => Some(Cow::Borrowed("null")),
            Self::Bool(truth) => Some(Cow::Borrowed(if truth { "true" } else { "false" })),
            Self::Array(_) | Self::Object(_) => None,
        }
    }
}

impl JsonValue<'_> {
    /// The text of a string.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    /// The truth value.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Bool(truth) => Some(*truth),
            _ => None,
        }
    }

    /// The number, where it is a whole one within the range.
    pub fn as_u64(&self) -> Option<u64> {
        self.number()?.parse().ok()
    }

    /// The number, where it is a whole one within the range.
    pub fn as_i64(&self) -> Option<i64> {
        self.number()?.parse().ok()
    }

    /// The number, rounded to the nearest that fits.
    pub fn as_f64(&self) -> Option<f64> {
        self.number()?.parse().ok()
    }

    /// A string's text, or a number, `true`, `false` or `null` as it is written; nothing for arrays and objects.
    pub fn scalar_text(&self) -> Option<&str> {
        match self {
            Self::Null => Some("null"),
            Self::Bool(true) => Some("true"),
            Self::Bool(false) => Some("false"),
            Self::Number(number) => Some(number),
            Self::String(text) => Some(text),
            Self::Array(_) | Self::Object(_) => None,
        }
    }

    fn number(&self) -> Option<&str> {
        match self {
            Self::Number(number) => Some(number),
            _ => None,
        }
    }
}

/// The value at `path`: names, and indices of arrays, with dots between them (`customer.address.0.city`).
///
/// `None` where there is no such field or the document is malformed before it. For names that hold dots see
/// [`field_at`]. Read the module's notes on what the early stop means.
pub fn field<'a>(json: &'a [u8], path: &str) -> Option<JsonValue<'a>> {
    walk(json, Steps(Some(path)))
}

/// The same with the steps of the path given one by one; without any step, the whole document.
pub fn field_at<'a>(json: &'a [u8], path: &[&str]) -> Option<JsonValue<'a>> {
    walk(json, path.iter().copied())
}

/// Whether the bytes are one whole JSON document: UTF-8, the grammar, no deeper than [`DEPTH_MAX`].
///
/// # Errors
/// The offset of the first byte that does not fit.
pub fn check(json: &[u8]) -> Result<(), usize> {
    if let Err(error) = std::str::from_utf8(json) {
        return Err(error.valid_up_to());
    }
    let mut scanner = Scanner::new(json);
    let whole = scanner.skip_value().is_some() && scanner.at_end();
    if whole { Ok(()) } else { Err(scanner.position()) }
}

/// The steps of a path; quicker than `split`, which is made for long texts.
struct Steps<'p>(Option<&'p str>);

impl<'p> Iterator for Steps<'p> {
    type Item = &'p str;

    fn next(&mut self) -> Option<&'p str> {
        let rest = self.0?;
        let (step, after) = match rest.bytes().position(|byte| byte == b'.') {
            Some(dot) => (&rest[..dot], Some(&rest[dot + 1..])),
            None => (rest, None),
        };
        self.0 = after;
        Some(step)
    }
}

fn walk<'a, 'p>(json: &'a [u8], path: impl Iterator<Item = &'p str>) -> Option<JsonValue<'a>> {
    let mut scanner = Scanner::new(json);
    for step in path {
        match scanner.peek()? {
            Token::Object => enter_object(&mut scanner, step)?,
            Token::Array => enter_array(&mut scanner, step.parse().ok()?)?,
            _ => return None,
        }
    }
    scanner.value()
}

/// Moves to the value of the first member called `name`.
fn enter_object(scanner: &mut Scanner<'_>, name: &str) -> Option<()> {
    scanner.open_object()?;
    let mut more = !scanner.close_object();
    while more {
        if scanner.name()?.is(name) {
            return Some(());
        }
        scanner.skip_value()?;
        more = scanner.comma_or(b'}')?;
    }
    None
}

/// Moves to the element at `index`.
fn enter_array(scanner: &mut Scanner<'_>, index: usize) -> Option<()> {
    scanner.open_array()?;
    let mut more = !scanner.close_array();
    let mut at = 0;
    while more {
        if at == index {
            return Some(());
        }
        scanner.skip_value()?;
        at += 1;
        more = scanner.comma_or(b']')?;
    }
    None
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    const ORDER: &[u8] = br#" { "id" : 7, "a.b": 1, "customer" : {"name":"Zo\u00eb","tags":["x",["y"],{"k":null}]},
        "total": -12.50e1, "ok": true, "note": "a \"quote\"", "id": 8, "empty": {}, "none": [] } "#;

    #[test]
    fn finds_fields_of_every_kind() {
        let text = |path: &str| field(ORDER, path).and_then(|value| value.scalar_text().map(str::to_owned));
        assert_eq!(text("id").as_deref(), Some("7"), "the first of two equal names");
        assert_eq!(text("customer.name").as_deref(), Some("Zoë"));
        assert_eq!(text("customer.tags.1.0").as_deref(), Some("y"));
        assert_eq!(text("customer.tags.2.k").as_deref(), Some("null"));
        assert_eq!(field(ORDER, "total").unwrap().as_f64(), Some(-125.0));
        assert_eq!(field(ORDER, "ok").unwrap().as_bool(), Some(true));
        assert_eq!(text("note").as_deref(), Some("a \"quote\""));
        assert_eq!(field(ORDER, "empty"), Some(JsonValue::Object(b"{}")));
        assert_eq!(field(ORDER, "none"), Some(JsonValue::Array(b"[]")));
        assert_eq!(field_at(ORDER, &["a.b"]).unwrap().as_i64(), Some(1));
        assert!(matches!(field_at(ORDER, &[]), Some(JsonValue::Object(_))));
    }

    #[test]
    fn what_is_not_there_is_none() {
        for path in ["", "x", "id.x", "customer.tags.3", "customer.tags.x", "empty.x", "none.0", "a.b"] {
            assert_eq!(field(ORDER, path), None, "{path}");
        }
    }

    #[test]
    fn names_are_compared_with_their_escapes_resolved() {
        assert_eq!(field(br#"{"\u0072egi\u006fn":"eu"}"#, "region").unwrap().as_str(), Some("eu"));
        assert_eq!(field(br#"{"\ud83d\ude00":1}"#, "😀").unwrap().as_u64(), Some(1));
        assert_eq!(field(br#"{"a\/b\n":1}"#, "a/b\n").unwrap().as_u64(), Some(1));
    }

    #[test]
    fn every_cut_is_refused_and_none_panics() {
        let whole = ORDER.trim_ascii();
        assert_eq!(check(whole), Ok(()));
        for cut in 0..whole.len() {
            assert!(check(&whole[..cut]).is_err(), "cut at {cut}");
            field(&whole[..cut], "none.0.x");
        }
    }

    #[test]
    fn malformed_documents_are_refused_at_their_place() {
        let bad = [
            ("", 0),
            ("{\"a\":01}", 6),
            ("{\"a\":+1}", 5),
            ("[1,]", 3),
            ("{\"a\":1,}", 7),
            ("{a:1}", 1),
            ("[tru]", 1),
            ("[1 2]", 3),
            ("\"\\x\"", 2),
            ("\"\\u12g4\"", 5),
            ("\"a\nb\"", 2),
            ("1 1", 2),
            ("[1}", 2),
            ("-", 1),
            ("1.", 2),
            ("1e", 2),
        ];
        for (json, at) in bad {
            assert_eq!(check(json.as_bytes()), Err(at), "{json}");
        }
        assert_eq!(check(b"\"\xff\""), Err(1));
    }

    #[test]
    fn nesting_is_bounded() {
        let nested = |depth: usize| [vec![b'['; depth], vec![b']'; depth]].concat();
        assert_eq!(check(&nested(DEPTH_MAX)), Ok(()));
        assert_eq!(check(&nested(DEPTH_MAX + 1)), Err(DEPTH_MAX));
        assert!(check(&vec![b'['; 1 << 20]).is_err());
    }

    #[test]
    fn agrees_with_a_full_parser_on_mutated_documents() {
        let mut refused = 0;
        let seed = br#"{"k":[1,-2.5e+3,"\u0041\\",true,false,null,{"x":{}}],"l":"tail"}"#;
        for at in 0..seed.len() {
            for byte in 0..=u8::MAX {
                let mut json = seed.to_vec();
                json[at] = byte;
                let expected = serde_json::from_slice::<&serde_json::value::RawValue>(&json).is_ok();
                // serde_json does not look into the strings that it passes over.
                let expected = expected && std::str::from_utf8(&json).is_ok();
                refused += usize::from(!expected);
                assert_eq!(check(&json).is_ok(), expected, "{}", String::from_utf8_lossy(&json));
            }
        }
        assert!(refused > 1000, "the mutations hit: {refused}");
    }
}
