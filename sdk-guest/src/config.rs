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

pub use serde_json::{Map, Value};

/// Longest part of a wrong value that an error repeats, in bytes.
const SHOWN_BYTES_MAX: usize = 60;

/// A configuration whose keys are all known.
#[derive(Clone, Debug)]
pub struct Config(Map<String, Value>);

impl Config {
    /// Parses a configuration that may have these `keys`. Empty bytes = no key is given.
    ///
    /// # Errors
    /// It is no JSON object, or has a key that is not known.
    pub fn parse(config: &[u8], keys: &[&str]) -> Result<Self, String> {
        if config.trim_ascii().is_empty() {
            return Ok(Self(Map::new()));
        }
        let value = serde_json::from_slice(config)
            .map_err(|error| format!("the configuration is not JSON: {error}; write an object with {}", list(keys)))?;
        let Value::Object(map) = value else {
            return Err(format!("the configuration is {}; write an object with {}", kind(&value), list(keys)));
        };
        match map.keys().find(|key| !keys.contains(&key.as_str())) {
            Some(unknown) => Err(format!("configuration key `{unknown}` is not known; known are {}", list(keys))),
            None => Ok(Self(map)),
        }
    }

    /// The value of `key`; `null` counts as not given.
    pub fn value(&self, key: &str) -> Option<&Value> {
        self.0.get(key).filter(|value| !value.is_null())
    }

    /// The value of `key`, which must be given; `example` is what an operator would write.
    ///
    /// # Errors
    /// It is not given.
    pub fn required(&self, key: &str, example: &str) -> Result<&Value, String> {
        self.value(key)
            .ok_or_else(|| format!("configuration key `{key}` is missing; write for example \"{key}\": {example}"))
    }

    /// The text of `key`; `None` = not given.
    ///
    /// # Errors
    /// It is no text.
    pub fn text(&self, key: &str) -> Result<Option<&str>, String> {
        let as_text = |value| as_text(value).ok_or_else(|| wrong(key, value, "a text in quotes"));
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
            .ok_or_else(|| wrong(key, value, &format!("a text such as {example}")))
    }

    /// The texts of the list `key`, which must be given and not be empty.
    ///
    /// # Errors
    /// It is not given, no list, empty, or holds something else than texts.
    pub fn required_texts(&self, key: &str, example: &str) -> Result<Vec<&str>, String> {
        let value = self.required(key, example)?;
        let texts = value.as_array().and_then(|texts| texts.iter().map(as_text).collect::<Option<Vec<_>>>());
        let texts = texts.filter(|texts| !texts.is_empty() && texts.iter().all(|text| !text.is_empty()));
        texts.ok_or_else(|| wrong(key, value, &format!("a list of texts such as {example}")))
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
            wrong(key, value, &names.join(" or "))
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
        assert_eq!(refused("{\"feild\":1}"), "configuration key `feild` is not known; known are `field`, `mode`");
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
    fn a_long_wrong_value_is_cut() {
        let long = format!("{{\"mode\":\"{}\"}}", "ü".repeat(100));
        let error = config(&long).expect("its keys are known").choice("mode", &[("a", 1)]).expect_err("wrong");
        assert!(error.len() < 120 && error.ends_with("..; write \"a\""), "{error}");
    }
}
