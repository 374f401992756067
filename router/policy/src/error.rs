//! What is wrong with a policy, where, and how to mend it.

use crate::limits::{ERRORS_MAX, SAID_BYTES_MAX};
use miette::Diagnostic;
use std::fmt;

/// One fault of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyError {
    /// Which text: its name, or the file that it stands in.
    pub policy: String,
    /// Line and column, both from 1, where the fault has a place.
    pub at: Option<(u32, u32)>,
    /// What is wrong.
    pub what: String,
    /// How to mend it, where that can be said.
    pub mend: Option<String>,
}

/// The faults of one or several texts; never none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct PolicyErrors(Vec<PolicyError>);

impl PolicyErrors {
    pub(crate) fn check(errors: Vec<PolicyError>) -> Result<(), Self> {
        if errors.is_empty() { Ok(()) } else { Err(Self(errors)) }
    }

    /// The stable name of this refusal.
    pub const fn code(&self) -> &'static str {
        "invalid-policy"
    }

    /// All of them.
    pub fn iter(&self) -> std::slice::Iter<'_, PolicyError> {
        self.0.iter()
    }
}

impl From<PolicyError> for PolicyErrors {
    fn from(error: PolicyError) -> Self {
        Self(vec![error])
    }
}

impl fmt::Display for PolicyErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, error) in self.0.iter().enumerate() {
            if number > 0 {
                f.write_str("\n")?;
            }
            error.fmt(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.policy)?;
        if let Some((line, column)) = self.at {
            write!(f, ":{line}:{column}")?;
        }
        write!(f, ": {}", self.what)?;
        match &self.mend {
            Some(mend) => write!(f, "; {mend}"),
            None => Ok(()),
        }
    }
}

impl PolicyError {
    /// A fault of the whole text.
    pub(crate) fn of(policy: &str, what: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { policy: policy.to_owned(), at: None, what: what.into(), mend: Some(mend.into()) }
    }

    /// A fault at a byte of `text`.
    pub(crate) fn at(policy: &str, text: &str, byte: usize, what: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { at: Some(place(text, byte)), ..Self::of(policy, what, mend) }
    }

    /// What Cedar has to say about `text`.
    pub(crate) fn cedar(policy: &str, text: &str, told: &dyn Diagnostic) -> Self {
        let label = told.labels().and_then(|mut labels| labels.next());
        let mut what = told.to_string();
        // Its messages begin with an id that means nothing to the author.
        if let Some((_, rest)) = what.strip_prefix("for policy `").and_then(|rest| rest.split_once("`, ")) {
            what = rest.to_owned();
        }
        if let Some(said) = label.as_ref().and_then(|label| label.label()).filter(|said| !what.contains(*said)) {
            what = format!("{what}: {said}");
        }
        Self {
            policy: policy.to_owned(),
            at: label.map(|label| place(text, label.offset())),
            what: cut(&what),
            mend: told.help().map(|help| cut(&help.to_string())),
        }
    }
}

/// Adds what Cedar says, up to the bound.
pub(crate) fn tell<'a>(
    errors: &mut Vec<PolicyError>,
    (policy, text): (&str, &str),
    told: impl IntoIterator<Item = &'a (dyn Diagnostic + 'a)>,
) {
    errors.extend(told.into_iter().take(ERRORS_MAX).map(|told| PolicyError::cedar(policy, text, told)));
}

/// One line of bounded length.
fn cut(text: &str) -> String {
    let end = text.floor_char_boundary(SAID_BYTES_MAX);
    let dots = if end < text.len() { "…" } else { "" };
    text[..end].replace(char::is_control, " ") + dots
}

/// Line and column of a byte, both from 1; columns count characters.
fn place(text: &str, byte: usize) -> (u32, u32) {
    let before = &text[..text.floor_char_boundary(byte.min(text.len()))];
    let line_begin = before.rfind('\n').map_or(0, |newline| newline + 1);
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
    (count(line), count(before[line_begin..].chars().count() + 1))
}
