//! The rewriting of one document.

use myelin_filter::json::{DEPTH_MAX, Scanner, Token};

/// Which fields are rewritten, and how.
#[derive(Debug)]
pub(crate) struct Rewriter {
    /// The steps of each field's path; `*` is any name.
    paths: Vec<Vec<String>>,
    /// The mask as JSON; `None` = the member goes.
    mask: Option<String>,
}

/// A document in which something was rewritten.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Rewritten {
    pub(crate) payload: Vec<u8>,
    pub(crate) fields: u64,
}

/// Why a document cannot be rewritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It is no JSON document, or nested too deeply.
    NotJson { at: usize },
    /// The result is larger than the bound.
    TooLarge,
}

/// Paths whose first steps led to where the walk stands: one bit for each.
type Active = u64;

impl Rewriter {
    /// At most 64 `fields`.
    pub(crate) fn new(fields: &[&str], mask: Option<&str>) -> Self {
        let paths = fields.iter().map(|field| field.split('.').map(str::to_owned).collect()).collect();
        Self { paths, mask: mask.map(|mask| myelin_filter::config::Value::from(mask).to_string()) }
    }

    /// Rewrites every occurrence of the fields; `None` where there is none of them.
    pub(crate) fn rewrite(&self, json: &[u8], bytes_max: usize) -> Result<Option<Rewritten>, Fault> {
        if let Err(error) = std::str::from_utf8(json) {
            return Err(Fault::NotJson { at: error.valid_up_to() });
        }
        let every_path = if self.paths.len() >= 64 { Active::MAX } else { (1 << self.paths.len()) - 1 };
        let mut walk = Walk {
            rewriter: self,
            json,
            scanner: Scanner::new(json),
            out: Vec::new(),
            copied: 0,
            fields: 0,
            nesting: 0,
        };
        let whole = walk.value(every_path, 0).is_some() && walk.scanner.at_end();
        if !whole {
            return Err(Fault::NotJson { at: walk.scanner.position() });
        }
        if walk.fields == 0 {
            return Ok(None);
        }
        walk.copy_to(json.len());
        if walk.out.len() > bytes_max {
            return Err(Fault::TooLarge);
        }
        Ok(Some(Rewritten { payload: walk.out, fields: walk.fields }))
    }

    /// Which of the `active` paths go on with a member called `name` at `step`, and whether one of them ends there.
    fn enter(&self, active: Active, step: usize, name: &str) -> (Active, bool) {
        let mut inner = 0;
        let mut ends = false;
        for (bit, path) in self.paths.iter().enumerate().filter(|(bit, _)| active >> bit & 1 == 1) {
            if path[step] == "*" || path[step] == name {
                ends |= path.len() == step + 1;
                inner |= Active::from(path.len() > step + 1) << bit;
            }
        }
        (inner, ends)
    }
}

/// One pass over a document. What lies between the rewritten places is copied in runs, at the latest moment.
struct Walk<'a> {
    rewriter: &'a Rewriter,
    json: &'a [u8],
    scanner: Scanner<'a>,
    out: Vec<u8>,
    /// Up to where the document was copied or left out.
    copied: usize,
    fields: u64,
    /// Open levels; the recursion's bound.
    nesting: usize,
}

impl Walk<'_> {
    /// Passes a value in which the `active` paths go on at `step`.
    fn value(&mut self, active: Active, step: usize) -> Option<()> {
        match self.scanner.peek()? {
            Token::Object | Token::Array if active != 0 && self.nesting == DEPTH_MAX => None,
            Token::Object if active != 0 => self.nested(|walk| walk.object(active, step)),
            Token::Array if active != 0 => self.nested(|walk| walk.array(active, step)),
            _ => self.scanner.skip_value(),
        }
    }

    fn nested(&mut self, inner: impl FnOnce(&mut Self) -> Option<()>) -> Option<()> {
        self.nesting += 1;
        let done = inner(self);
        self.nesting -= 1;
        done
    }

    /// A path passes through a list: its step stays.
    fn array(&mut self, active: Active, step: usize) -> Option<()> {
        self.scanner.open_array()?;
        let mut more = !self.scanner.close_array();
        while more {
            self.value(active, step)?;
            more = self.scanner.comma_or(b']')?;
        }
        Some(())
    }

    fn object(&mut self, active: Active, step: usize) -> Option<()> {
        self.scanner.open_object()?;
        let mut more = !self.scanner.close_object();
        // End of the last member that stays: what is dropped goes with the comma before it, or behind it at the front.
        let mut kept_to = None;
        let mut opened_to = self.scanner.position();
        while more {
            let name = self.scanner.name()?.decode()?;
            let (inner, ends) = self.rewriter.enter(active, step, &name);
            if !ends {
                self.value(inner, step + 1)?;
                kept_to = Some(self.scanner.position());
                more = self.scanner.comma_or(b'}')?;
                continue;
            }
            self.scanner.peek()?;
            let value_from = self.scanner.position();
            self.scanner.skip_value()?;
            let value_to = self.scanner.position();
            self.fields += 1;
            if self.rewriter.mask.is_some() {
                self.replace(value_from, value_to);
                kept_to = Some(value_to);
                more = self.scanner.comma_or(b'}')?;
                continue;
            }
            more = self.scanner.comma_or(b'}')?;
            match kept_to {
                // `,"name":value` goes; the comma or the brace behind it stays.
                Some(kept_to) => self.leave_out(kept_to, value_to),
                // At the front `"name":value,` goes.
                None if more => {
                    let after_comma = self.scanner.position();
                    self.leave_out(opened_to, after_comma);
                    opened_to = after_comma;
                }
                None => self.leave_out(opened_to, value_to),
            }
        }
        Some(())
    }

    fn replace(&mut self, from: usize, to: usize) {
        self.copy_to(from);
        self.copied = to;
        self.out.extend_from_slice(self.rewriter.mask.as_deref().unwrap_or_default().as_bytes());
    }

    fn leave_out(&mut self, from: usize, to: usize) {
        self.copy_to(from);
        self.copied = self.copied.max(to);
    }

    /// Copies what lies before `at` and was neither copied nor left out.
    fn copy_to(&mut self, at: usize) {
        if at > self.copied {
            // The first copy makes room for all: a payload without any of the fields allocates nothing.
            self.out.reserve(if self.out.is_empty() { self.json.len() } else { 0 });
            self.out.extend_from_slice(&self.json[self.copied..at]);
            self.copied = at;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use myelin_filter::config::Value;

    fn rewrite(fields: &[&str], mask: Option<&str>, json: &str) -> Option<String> {
        let rewritten = Rewriter::new(fields, mask).rewrite(json.as_bytes(), 1 << 20).expect("JSON");
        rewritten.map(|it| String::from_utf8(it.payload).expect("UTF-8"))
    }

    #[test]
    fn masks_every_occurrence_and_keeps_the_rest_byte_for_byte() {
        let json =
            r#" {"a" : {"email" : "x@y", "n": 1.50 }, "list":[{"email":null},[{"email":[1,{}]}],7], "email":"z"} "#;
        let masked = rewrite(&["a.email", "list.email"], Some("*"), json).expect("rewritten");
        let expected =
            r#" {"a" : {"email" : "*", "n": 1.50 }, "list":[{"email":"*"},[{"email":"*"}],7], "email":"z"} "#;
        assert_eq!(masked, expected);
    }

    #[test]
    fn equal_and_escaped_names_do_not_slip_through() {
        let masked = rewrite(&["card"], Some("*"), r#"{"card":1,"c\u0061rd":2,"x":0,"card":3}"#);
        assert_eq!(masked.as_deref(), Some(r#"{"card":"*","c\u0061rd":"*","x":0,"card":"*"}"#));
    }

    #[test]
    fn drops_at_the_front_in_the_middle_at_the_end_and_all() {
        let drop = |json: &str| rewrite(&["d"], None, json).expect("rewritten");
        assert_eq!(drop(r#"{"d":1,"a":2}"#), r#"{"a":2}"#);
        assert_eq!(drop(r#"{"a":1,"d":2,"b":3}"#), r#"{"a":1,"b":3}"#);
        assert_eq!(drop(r#"{"a":1,"d":2}"#), r#"{"a":1}"#);
        assert_eq!(drop(r#"{"d":{"x":[1]}}"#), "{}");
        assert_eq!(drop(r#"{"d":1,"d":2,"a":3,"d":4,"d":5}"#), r#"{"a":3}"#);
        assert_eq!(drop(r#"{ "d" : 1 , "d" : 2 }"#), "{  }");
        assert_eq!(drop(r#"[{"d":1},{"a":{"d":1},"d":2}]"#), r#"[{},{"a":{"d":1}}]"#);
    }

    #[test]
    fn drops_inside_of_members_that_stay() {
        let dropped = rewrite(&["a.d", "e", "*.f"], None, r#"{"e":0,"a":{"d":1,"k":2},"g":{"f":3},"e":4,"f":5}"#);
        assert_eq!(dropped.as_deref(), Some(r#"{"a":{"k":2},"g":{},"f":5}"#));
    }

    #[test]
    fn a_document_without_the_fields_is_left_alone() {
        assert_eq!(rewrite(&["a.b"], Some("*"), r#"{"a":1,"b":{"a":{"b":2}}}"#), None);
        assert_eq!(rewrite(&["a"], Some("*"), "7"), None);
    }

    #[test]
    fn the_mask_is_written_as_json() {
        assert_eq!(rewrite(&["a"], Some("\"\n"), "{\"a\":1}").as_deref(), Some("{\"a\":\"\\\"\\n\"}"));
    }

    #[test]
    fn what_is_not_json_is_refused_wherever_the_fault_lies() {
        let rewriter = Rewriter::new(&["a"], None);
        let whole = r#"{"b":[1,{"c":"x"}],"a":{"d":[true]},"e":null}"#;
        for cut in 0..whole.len() {
            assert!(
                matches!(rewriter.rewrite(&whole.as_bytes()[..cut], 99), Err(Fault::NotJson { .. })),
                "cut at {cut}"
            );
        }
        assert_eq!(rewriter.rewrite(b"{\"a\":1} x", 99), Err(Fault::NotJson { at: 8 }));
        assert_eq!(rewriter.rewrite(b"{\"a\":\"\xff\"}", 99), Err(Fault::NotJson { at: 6 }));
        let deep = [b"[".repeat(1 << 16), b"]".repeat(1 << 16)].concat();
        assert!(matches!(rewriter.rewrite(&deep, 99), Err(Fault::NotJson { .. })));
    }

    /// Drops by way of a parsed document, the slow and plain way.
    fn plain_drop(value: &mut Value, path: &[&str]) {
        match value {
            Value::Array(items) => items.iter_mut().for_each(|item| plain_drop(item, path)),
            Value::Object(map) if path.len() == 1 => {
                map.remove(path[0]);
            }
            Value::Object(map) => {
                if let Some(inner) = map.get_mut(path[0]) {
                    plain_drop(inner, &path[1..]);
                }
            }
            _ => {}
        }
    }

    #[test]
    fn agrees_with_a_full_parser_on_many_documents() {
        let mut seed = 7_u64;
        let mut rewritten = 0;
        for _ in 0..2000 {
            let json = document(&mut seed, 4).to_string();
            let mut expected: Value = serde_json_parse(&json);
            for path in [&["a"][..], &["b", "a"], &["b", "c", "a"], &["c", "b"]] {
                plain_drop(&mut expected, path);
            }
            let dropped = rewrite(&["a", "b.a", "b.c.a", "c.b"], None, &json);
            rewritten += usize::from(dropped.is_some());
            assert_eq!(serde_json_parse(dropped.as_deref().unwrap_or(&json)), expected, "{json}");
        }
        assert!(rewritten > 500, "{rewritten} documents had a field to drop");
    }

    fn serde_json_parse(json: &str) -> Value {
        json.parse().expect("JSON")
    }

    /// A document of small objects and lists with few names (a linear congruential generator is random enough).
    fn document(seed: &mut u64, depth: u32) -> Value {
        let mut next = |bound: u64| {
            *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (*seed >> 33) % bound
        };
        let (kind, count) = (if depth == 0 { 2 } else { next(5) }, next(4));
        match kind {
            0 => (0..count).map(|_| document(seed, depth - 1)).collect(),
            1 | 3 | 4 => {
                let names: Vec<_> =
                    (0..count).map(|_| ["a", "b", "c", "d"][usize::try_from(next(4)).unwrap_or(0)]).collect();
                Value::Object(names.into_iter().map(|name| (name.to_owned(), document(seed, depth - 1))).collect())
            }
            _ => Value::from(count),
        }
    }
}
