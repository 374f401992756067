//! Reads a binding's configuration key by key (cargo feature `config`).
//!
//! Every error is a sentence that names the key and says what to write instead: the operator sees it word for word when
//! the binding is refused. Unknown keys are refused.
//!
//! ```
//! use myelin_filter::config::Config;
//! let config = Config::parse(br#"{"field":"region","mode":"both"}"#, &["field", "mode"]).unwrap();
//! assert_eq!(config.required_text("field", "\"region\""), Ok("region"));
//! assert_eq!(
//!     config.choice("mode", &[("redirect", 1), ("add", 2)]),
//!     Err("configuration key `mode` is \"both\"; write \"redirect\" or \"add\"".to_owned()),
//! );
//! ```

use std::ops::RangeInclusive;

pub use serde_json::{Map, Value};

/// Longest part of a wrong value that an error repeats, in bytes.
const SHOWN_BYTES_MAX: usize = 60;
/// Most letters that a key may be away from a known one that is suggested in its place.
const TYPING_ERRORS_MAX: usize = 2;

/// A configuration, or an object within one, whose keys are all known.
#[derive(Clone, Debug)]
pub struct Config {
    keys: Map<String, Value>,
    /// Stands before each key in an error: empty, or the place of the object with a dot.
    place: String,
}

impl Config {
    /// Parses a configuration that may have these `keys`. Empty bytes = no key is given.
    ///
    /// # Errors
    /// It is no JSON object, or has a key that is not known.
    pub fn parse(config: &[u8], keys: &[&str]) -> Result<Self, String> {
        if config.trim_ascii().is_empty() {
            return Ok(Self { keys: Map::new(), place: String::new() });
        }
        let value = serde_json::from_slice(config)
            .map_err(|error| format!("the configuration is not JSON: {error}; write an object with {}", list(keys)))?;
        let Value::Object(map) = value else {
            return Err(format!("the configuration is {}; write an object with {}", kind(&value), list(keys)));
        };
        Self { keys: map, place: String::new() }.refuse_unknown(keys)
    }

    /// An object within a configuration that may have these `keys`; `place` is where it stands, such as `rules.0`.
    ///
    /// # Errors
    /// It is no object, or has a key that is not known.
    pub fn within(place: &str, value: &Value, keys: &[&str]) -> Result<Self, String> {
        let map = value.as_object().ok_or_else(|| wrong(place, value, &format!("an object with {}", list(keys))))?;
        Self { keys: map.clone(), place: format!("{place}.") }.refuse_unknown(keys)
    }

    fn refuse_unknown(self, keys: &[&str]) -> Result<Self, String> {
        let Some(unknown) = self.keys.keys().find(|key| !keys.contains(&key.as_str())) else { return Ok(self) };
        let nearest = keys.iter().map(|key| (typing_errors(unknown, key), key)).min();
        let meant = match nearest {
            Some((errors, key)) if errors <= TYPING_ERRORS_MAX => format!("; did you mean `{key}`?"),
            _ => String::new(),
        };
        Err(format!("configuration key `{}` is not known; known are {}{meant}", self.named(unknown), list(keys)))
    }

    /// A key as errors call it.
    fn named(&self, key: &str) -> String {
        format!("{}{key}", self.place)
    }

    /// The value of `key`; `null` counts as not given.
    pub fn value(&self, key: &str) -> Option<&Value> {
        self.keys.get(key).filter(|value| !value.is_null())
    }

    /// The value of `key`, which must be given; `example` is what an operator would write.
    ///
    /// # Errors
    /// It is not given.
    pub fn required(&self, key: &str, example: &str) -> Result<&Value, String> {
        self.value(key).ok_or_else(|| {
            format!("configuration key `{}` is missing; write for example \"{key}\": {example}", self.named(key))
        })
    }

    /// The text of `key`; `None` = not given.
    ///
    /// # Errors
    /// It is no text.
    pub fn text(&self, key: &str) -> Result<Option<&str>, String> {
        let as_text = |value| as_text(value).ok_or_else(|| wrong(&self.named(key), value, "a text in quotes"));
        self.value(key).map(as_text).transpose()
    }

    /// The text of `key`, which must be given and not be empty.
    ///
    /// # Errors
    /// It is not given, no text, or empty.
    pub fn required_text(&self, key: &str, example: &str) -> Result<&str, String> {
        let value = self.required(key, example)?;
        as_text(value)
            .filter(|text| !text.is_empty())
            .ok_or_else(|| wrong(&self.named(key), value, &format!("a text such as {example}")))
    }

    /// The texts of the list `key`, which must be given and not be empty.
    ///
    /// # Errors
    /// It is not given, no list, empty, or holds something else than texts.
    pub fn required_texts(&self, key: &str, example: &str) -> Result<Vec<&str>, String> {
        let value = self.required(key, example)?;
        let texts = value.as_array().and_then(|texts| texts.iter().map(as_text).collect::<Option<Vec<_>>>());
        let texts = texts.filter(|texts| !texts.is_empty() && texts.iter().all(|text| !text.is_empty()));
        texts.ok_or_else(|| wrong(&self.named(key), value, &format!("a list of texts such as {example}")))
    }

    /// The whole number of `key`, from `range`; `default` where it is not given.
    ///
    /// # Errors
    /// It is none, or outside of the range.
    pub fn number(&self, key: &str, range: RangeInclusive<u32>, default: u32) -> Result<u32, String> {
        let Some(value) = self.value(key) else { return Ok(default) };
        let number = value.as_u64().and_then(|number| u32::try_from(number).ok()).filter(|it| range.contains(it));
        let whole = || format!("a whole number from {} to {}", range.start(), range.end());
        number.ok_or_else(|| wrong(&self.named(key), value, &whole()))
    }

    /// The same for a number that must be given.
    ///
    /// # Errors
    /// It is not given, none, or outside of the range.
    pub fn required_number(&self, key: &str, range: RangeInclusive<u32>, example: &str) -> Result<u32, String> {
        self.required(key, example)?;
        self.number(key, range, 0)
    }

    /// What `key` chooses; the first of `choices` where it is not given.
    ///
    /// # Errors
    /// It is none of them.
    ///
    /// # Panics
    /// Without any choice.
    pub fn choice<T: Copy>(&self, key: &str, choices: &[(&str, T)]) -> Result<T, String> {
        let Some(value) = self.value(key) else { return Ok(choices[0].1) };
        let found = choices.iter().find(|(name, _)| value.as_str() == Some(name)).map(|(_, choice)| *choice);
        found.ok_or_else(|| {
            let names: Vec<_> = choices.iter().map(|(name, _)| format!("\"{name}\"")).collect();
            wrong(&self.named(key), value, &names.join(" or "))
        })
    }
}

/// The sentence for a value that does not fit: `key`, what it is, what to write.
pub fn wrong(key: &str, value: &Value, write: &str) -> String {
    let mut shown = value.to_string();
    if shown.len() > SHOWN_BYTES_MAX {
        shown.truncate(shown.floor_char_boundary(SHOWN_BYTES_MAX));
        shown.push_str("..");
    }
    format!("configuration key `{key}` is {shown}; write {write}")
}

fn as_text(value: &Value) -> Option<&str> {
    value.as_str()
}

fn list(keys: &[&str]) -> String {
    keys.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ")
}

/// Letters to insert, take away or change so that one text becomes the other.
fn typing_errors(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (number, letter) in left.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], number + 1);
        for (at, other) in right.iter().enumerate() {
            let changed = diagonal + usize::from(letter != *other);
            diagonal = row[at + 1];
            row[at + 1] = changed.min(diagonal + 1).min(row[at] + 1);
        }
    }
    row[right.len()]
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(json: &str) -> Result<Config, String> {
        Config::parse(json.as_bytes(), &["field", "mode"])
    }

    #[test]
    fn every_error_names_the_key_and_how_to_mend_it() {
        let refused = |json: &str| config(json).expect_err("refused");
        assert!(refused("{").starts_with("the configuration is not JSON: "));
        assert_eq!(refused("[]"), "the configuration is a list; write an object with `field`, `mode`");
        let unknown = "configuration key `feild` is not known; known are `field`, `mode`; did you mean `field`?";
        assert_eq!(refused("{\"feild\":1}"), unknown);
        assert_eq!(refused("{\"colour\":1}"), "configuration key `colour` is not known; known are `field`, `mode`");
        let given = config("{\"field\":7,\"mode\":\"\"}").expect("its keys are known");
        assert_eq!(given.text("field"), Err("configuration key `field` is 7; write a text in quotes".to_owned()));
        let wrong = "configuration key `mode` is \"\"; write a list of texts such as [\"a\"]".to_owned();
        assert_eq!(given.required_texts("mode", "[\"a\"]"), Err(wrong));
        let missing = "configuration key `field` is missing; write for example \"field\": \"region\"".to_owned();
        assert_eq!(config("").expect("empty").required_text("field", "\"region\""), Err(missing));
    }

    #[test]
    fn what_is_not_given_is_the_first_choice() {
        let choices = [("deny", 1), ("drop", 2)];
        assert_eq!(config("{}").expect("empty").choice("mode", &choices), Ok(1));
        assert_eq!(config("{\"mode\":null}").expect("null").choice("mode", &choices), Ok(1));
        assert_eq!(config("{\"mode\":\"drop\"}").expect("drop").choice("mode", &choices), Ok(2));
    }

    #[test]
    fn an_object_within_names_its_place() {
        let within = |json: &str| Config::within("rules.0", &json.parse().expect("JSON"), &["topic", "rate"]);
        let refused = |json: &str| within(json).expect_err("refused");
        assert_eq!(refused("7"), "configuration key `rules.0` is 7; write an object with `topic`, `rate`");
        assert!(refused("{\"tpoic\":7}").ends_with("did you mean `topic`?"));
        let given = within("{\"topic\":7,\"rate\":0}").expect("its keys are known");
        assert!(
            given.required_text("topic", "\"a\"").expect_err("7").starts_with("configuration key `rules.0.topic` is 7")
        );
        let range = "configuration key `rules.0.rate` is 0; write a whole number from 1 to 9".to_owned();
        assert_eq!((given.number("rate", 1..=9, 1), given.number("rate", 0..=9, 1)), (Err(range), Ok(0)));
        assert_eq!(within("{}").expect("empty").number("rate", 1..=9, 5), Ok(5));
        assert!(
            within("{}")
                .expect("empty")
                .required_number("rate", 1..=9, "5")
                .expect_err("missing")
                .contains("\"rate\": 5")
        );
    }

    #[test]
    fn typing_errors_are_counted() {
        let pairs =
            [("field", "field", 0), ("feild", "field", 2), ("", "abc", 3), ("fields", "field", 1), ("x", "yz", 2)];
        for (left, right, errors) in pairs {
            assert_eq!((typing_errors(left, right), typing_errors(right, left)), (errors, errors), "{left} {right}");
        }
    }

    #[test]
    fn a_long_wrong_value_is_cut() {
        let long = format!("{{\"mode\":\"{}\"}}", "ü".repeat(100));
        let error = config(&long).expect("its keys are known").choice("mode", &[("a", 1)]).expect_err("wrong");
        assert!(error.len() < 120 && error.ends_with("..; write \"a\""), "{error}");
    }
}
