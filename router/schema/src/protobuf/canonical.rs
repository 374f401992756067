//! The text of a file without what says nothing: comments, and white space between the words.

use super::file::compile;
use crate::error::SchemaError;
use crate::format::Source;
use crate::limits::DEPTH_MAX;

/// The words of the file, each statement on a line of its own.
pub(crate) fn canonical(source: &Source<'_>) -> Result<String, SchemaError> {
    compile(source)?;
    let mut text = String::with_capacity(source.text.len());
    let mut after_word = false;
    for word in Words(source.text) {
        let is_word = word.starts_with(is_word_byte) || word.starts_with(['"', '\'']);
        if is_word && after_word {
            text.push(' ');
        }
        text.push_str(word);
        after_word = is_word;
        if matches!(word, ";" | "{" | "}") {
            text.push('\n');
        }
    }
    Ok(text)
}

/// Refuses what is nested deeper than parsers that recurse survive.
pub(super) fn check_depth(text: &str) -> Result<(), SchemaError> {
    let mut depth = 0_usize;
    for word in Words(text) {
        match word {
            "{" | "[" | "(" | "<" => depth += 1,
            "}" | "]" | ")" | ">" => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > DEPTH_MAX {
            return Err(SchemaError::too_complex("brackets are inside each other too deeply", DEPTH_MAX));
        }
    }
    Ok(())
}

fn is_word_byte(c: char) -> bool {
    // Numbers and names, and what the parser refuses anyway.
    c.is_alphanumeric() || c == '_' || c == '.' || !c.is_ascii()
}

/// Splits a file into words, strings and signs.
struct Words<'a>(&'a str);

impl<'a> Iterator for Words<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        loop {
            self.0 = self.0.trim_start_matches(|c: char| c.is_whitespace() || c.is_control());
            let line = self.0.starts_with("//");
            let block = self.0.starts_with("/*");
            if !line && !block {
                break;
            }
            let end = if line { self.0.find('\n') } else { self.0.find("*/").map(|end| end + 2) };
            self.0 = &self.0[end.unwrap_or(self.0.len())..];
        }
        let first = self.0.chars().next()?;
        let length = match first {
            '"' | '\'' => string_length(self.0, first),
            _ if is_word_byte(first) => self.0.find(|c: char| !is_word_byte(c)).unwrap_or(self.0.len()),
            _ => first.len_utf8(),
        };
        let (word, rest) = self.0.split_at(length);
        self.0 = rest;
        Some(word)
    }
}

/// The bytes of a string with its quotes; up to the end where it is not closed.
fn string_length(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}
