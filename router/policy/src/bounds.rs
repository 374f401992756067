//! How large and how deep a text may be, found out before Cedar reads it: its parser and what it makes are recursive.

use crate::error::PolicyError;
use crate::limits::{OPERATORS_MAX, TEXT_BYTES_MAX};

/// Checks size and depth of a text.
pub(crate) fn check(policy: &str, text: &str) -> Result<(), PolicyError> {
    if text.len() > TEXT_BYTES_MAX {
        let what = format!("it has {} bytes; {TEXT_BYTES_MAX} are the most", text.len());
        return Err(PolicyError::of(policy, what, "split it into several policies"));
    }
    let mut scanner = Scanner { bytes: text.as_bytes(), at: 0 };
    let mut operators = 0;
    while let Some((at, token)) = scanner.next() {
        match token {
            Token::End => operators = 0,
            Token::Operator => operators += 1,
        }
        if operators > OPERATORS_MAX {
            let what = format!("the statement has more than {OPERATORS_MAX} operators, dots and brackets");
            let mend = "split it into several statements, or use `like` with a `*`, or `[..].contains(..)`";
            return Err(PolicyError::at(policy, text, at, what, mend));
        }
    }
    Ok(())
}

#[derive(Clone, Copy)]
enum Token {
    /// Something that can make an expression deeper.
    Operator,
    /// A statement's end.
    End,
}

/// Finds operators outside texts and comments. Where it cannot tell it counts too many.
struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Scanner<'_> {
    fn next(&mut self) -> Option<(usize, Token)> {
        loop {
            let at = self.at;
            let byte = *self.bytes.get(at)?;
            self.at += 1;
            match byte {
                b'"' => self.skip_text(),
                b'/' if self.bytes.get(self.at) == Some(&b'/') => self.skip_comment(),
                b';' => return Some((at, Token::End)),
                b'(' | b'[' | b'{' | b'!' | b'.' | b'+' | b'-' | b'*' => return Some((at, Token::Operator)),
                // `&&`, `||`, and what a parser would refuse.
                b'&' | b'|' => {
                    self.at += usize::from(self.bytes.get(self.at) == Some(&byte));
                    return Some((at, Token::Operator));
                }
                b'i' if self.bytes.get(self.at) == Some(&b'f') => {
                    self.at += 1;
                    return Some((at, Token::Operator));
                }
                _ => {}
            }
        }
    }

    fn skip_text(&mut self) {
        while let Some(byte) = self.bytes.get(self.at) {
            self.at += 1;
            match byte {
                b'\\' => self.at += 1,
                b'"' => return,
                _ => {}
            }
        }
    }

    fn skip_comment(&mut self) {
        let rest = &self.bytes[self.at.min(self.bytes.len())..];
        self.at += rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
    }
}
