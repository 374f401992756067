//! A cursor over JSON text that holds every byte it passes against the grammar.

use super::{DEPTH_MAX, JsonValue};
use std::borrow::Cow;

/// What kind of value comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Token {
    /// `{`
    Object,
    /// `[`
    Array,
    /// `"`
    String,
    /// A number, `true`, `false`, `null`, or something malformed.
    Other,
}

/// A string as it stands in the document, without its quotes.
#[derive(Clone, Copy, Debug)]
pub struct RawString<'a> {
    bytes: &'a [u8],
    escaped: bool,
}

impl<'a> RawString<'a> {
    /// Whether it says `text`, its escapes resolved.
    pub fn is(&self, text: &str) -> bool {
        if self.escaped { self.decode().is_some_and(|own| own == text) } else { self.bytes == text.as_bytes() }
    }

    /// Its text, the escapes resolved; `None` where it is not UTF-8. A lone surrogate reads as U+FFFD.
    pub fn decode(&self) -> Option<Cow<'a, str>> {
        let text = std::str::from_utf8(self.bytes).ok()?;
        if self.escaped { unescape(text).map(Cow::Owned) } else { Some(Cow::Borrowed(text)) }
    }
}

/// A cursor over JSON text, for filters that walk a document themselves. Every method answers `None` where the text is
/// malformed; [`Scanner::position`] then says where. White space is passed over before a value, a name and a mark.
#[derive(Clone, Debug)]
pub struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Scanner<'a> {
    /// Begins at the first byte.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Offset of the next byte.
    pub fn position(&self) -> usize {
        self.at
    }

    /// The kind of the next value; `None` at the end.
    pub fn peek(&mut self) -> Option<Token> {
        Some(match self.next_visible()? {
            b'{' => Token::Object,
            b'[' => Token::Array,
            b'"' => Token::String,
            _ => Token::Other,
        })
    }

    /// Whether nothing but white space follows.
    pub fn at_end(&mut self) -> bool {
        self.next_visible().is_none()
    }

    /// Passes `{`.
    pub fn open_object(&mut self) -> Option<()> {
        self.mark(b'{').then_some(())
    }

    /// Passes `}` where it comes next: right behind `{`, the object is empty.
    pub fn close_object(&mut self) -> bool {
        self.mark(b'}')
    }

    /// Passes `[`.
    pub fn open_array(&mut self) -> Option<()> {
        self.mark(b'[').then_some(())
    }

    /// Passes `]` where it comes next: right behind `[`, the array is empty.
    pub fn close_array(&mut self) -> bool {
        self.mark(b']')
    }

    /// Behind a member or an element: `true` past a comma, `false` past `close`.
    pub fn comma_or(&mut self, close: u8) -> Option<bool> {
        if self.mark(b',') {
            return Some(true);
        }
        self.mark(close).then_some(false)
    }

    /// Passes a member's name and its colon.
    pub fn name(&mut self) -> Option<RawString<'a>> {
        self.next_visible();
        let name = self.string()?;
        self.mark(b':').then_some(name)
    }

    /// Reads the next value.
    pub fn value(&mut self) -> Option<JsonValue<'a>> {
        let first = self.next_visible()?;
        let from = self.at;
        match first {
            b'"' => return self.string()?.decode().map(JsonValue::String),
            b'{' | b'[' => self.skip_value()?,
            _ => self.scalar()?,
        }
        let written = &self.bytes[from..self.at];
        Some(match first {
            b'{' => JsonValue::Object(written),
            b'[' => JsonValue::Array(written),
            b'n' => JsonValue::Null,
            b't' => JsonValue::Bool(true),
            b'f' => JsonValue::Bool(false),
            _ => JsonValue::Number(std::str::from_utf8(written).ok()?),
        })
    }

    /// Passes the next value, however deep, without recursion; at most [`DEPTH_MAX`] levels.
    pub fn skip_value(&mut self) -> Option<()> {
        match self.next_visible()? {
            b'{' | b'[' => self.skip_nested(),
            b'"' => self.string().map(|_| ()),
            _ => self.scalar(),
        }
    }

    fn skip_nested(&mut self) -> Option<()> {
        // One bit for each open level: 1 = object, 0 = array.
        let mut levels = 0_u64;
        let mut depth = 0;
        loop {
            let opened = match self.next_visible()? {
                mark @ (b'{' | b'[') => {
                    if depth == DEPTH_MAX {
                        return None;
                    }
                    self.at += 1;
                    (levels, depth) = (levels << 1 | u64::from(mark == b'{'), depth + 1);
                    true
                }
                b'"' => self.string().map(|_| false)?,
                _ => self.scalar().map(|()| false)?,
            };
            if self.close_levels(&mut levels, &mut depth, opened)? {
                return Some(());
            }
        }
    }

    /// Behind a value, or (`opened`) behind an opening mark: passes closing marks and the comma and name before the
    /// next value. `true` when no level is left open.
    fn close_levels(&mut self, levels: &mut u64, depth: &mut usize, opened: bool) -> Option<bool> {
        let mut may_be_empty = opened;
        while *depth > 0 {
            let is_object = *levels & 1 == 1;
            let close = if is_object { b'}' } else { b']' };
            let closed = if may_be_empty { self.mark(close) } else { !self.comma_or(close)? };
            if !closed {
                if is_object {
                    self.name()?;
                }
                return Some(false);
            }
            (*levels, *depth) = (*levels >> 1, *depth - 1);
            may_be_empty = false;
        }
        Some(true)
    }

    /// Passes white space; the byte behind it, not passed.
    #[inline]
    fn next_visible(&mut self) -> Option<u8> {
        loop {
            let byte = *self.bytes.get(self.at)?;
            // The first test alone decides for nearly every byte.
            if byte > b' ' || !matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
                return Some(byte);
            }
            self.at += 1;
        }
    }

    /// Passes `mark` where it comes next.
    #[inline]
    fn mark(&mut self, mark: u8) -> bool {
        let found = self.next_visible() == Some(mark);
        self.at += usize::from(found);
        found
    }

    /// Passes a string that begins here.
    fn string(&mut self) -> Option<RawString<'a>> {
        if self.bytes.get(self.at) != Some(&b'"') {
            return None;
        }
        self.at += 1;
        let from = self.at;
        let mut escaped = false;
        loop {
            self.at += plain_len(&self.bytes[self.at..]);
            match *self.bytes.get(self.at)? {
                b'"' => break,
                b'\\' => self.escape()?,
                _ => return None,
            }
            escaped = true;
        }
        let bytes = &self.bytes[from..self.at];
        self.at += 1;
        Some(RawString { bytes, escaped })
    }

    /// Passes an escape; on failure stands on the byte that does not fit.
    fn escape(&mut self) -> Option<()> {
        self.at += 1;
        match *self.bytes.get(self.at)? {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => self.at += 1,
            b'u' => {
                self.at += 1;
                for _ in 0..4 {
                    if !self.bytes.get(self.at)?.is_ascii_hexdigit() {
                        return None;
                    }
                    self.at += 1;
                }
            }
            _ => return None,
        }
        Some(())
    }

    /// Passes a number, `true`, `false` or `null`.
    fn scalar(&mut self) -> Option<()> {
        let literal: &[u8] = match self.bytes[self.at] {
            b't' => b"true",
            b'f' => b"false",
            b'n' => b"null",
            _ => return self.number(),
        };
        self.bytes[self.at..].starts_with(literal).then(|| self.at += literal.len())
    }

    /// Passes a number; on failure stands on the byte that does not fit.
    fn number(&mut self) -> Option<()> {
        self.byte(b'-');
        if !self.byte(b'0') && self.digits() == 0 {
            return None;
        }
        if self.byte(b'.') && self.digits() == 0 {
            return None;
        }
        if self.byte(b'e') || self.byte(b'E') {
            let _ = self.byte(b'+') || self.byte(b'-');
            if self.digits() == 0 {
                return None;
            }
        }
        // `01` is no number; elsewhere the caller sees what follows.
        (!self.bytes.get(self.at).is_some_and(u8::is_ascii_digit)).then_some(())
    }

    fn byte(&mut self, wanted: u8) -> bool {
        let found = self.bytes.get(self.at) == Some(&wanted);
        self.at += usize::from(found);
        found
    }

    fn digits(&mut self) -> usize {
        let count = self.bytes[self.at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.at += count;
        count
    }
}

/// How many bytes come before the first quote, backslash or control character, eight at a time.
fn plain_len(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::MAX / 255;
    const HIGH: u64 = ONES << 7;
    let has_zero = |word: u64| word.wrapping_sub(ONES) & !word & HIGH;
    let mut at = 0;
    for chunk in bytes.chunks_exact(8) {
        let word = u64::from_le_bytes(chunk.try_into().unwrap_or_default());
        let quote = has_zero(word ^ (ONES * u64::from(b'"')));
        let backslash = has_zero(word ^ (ONES * u64::from(b'\\')));
        let control = word.wrapping_sub(ONES * 0x20) & !word & HIGH;
        // The lowest flag is exact: a borrow spoils only the bytes above it.
        let stop = quote | backslash | control;
        if stop != 0 {
            return at + stop.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    at + bytes[at..].iter().take_while(|&&byte| byte >= 0x20 && byte != b'"' && byte != b'\\').count()
}

/// Resolves the escapes of a string whose grammar was checked.
fn unescape(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((plain, escape)) = rest.split_once('\\') {
        out.push_str(plain);
        let (mark, after) = escape.split_at_checked(1)?;
        rest = after;
        out.push(match mark {
            "b" => '\u{8}',
            "f" => '\u{c}',
            "n" => '\n',
            "r" => '\r',
            "t" => '\t',
            "u" => unicode_escape(&mut rest)?,
            other => other.chars().next()?,
        });
    }
    out.push_str(rest);
    Some(out)
}

/// Reads the digits behind `\u`, and the second half of a surrogate pair.
fn unicode_escape(rest: &mut &str) -> Option<char> {
    let high = hex4(rest)?;
    *rest = &rest[4..];
    if !(0xd800..0xdc00).contains(&high) {
        return Some(char::from_u32(high).unwrap_or(char::REPLACEMENT_CHARACTER));
    }
    let low = rest.strip_prefix("\\u").and_then(hex4).filter(|low| (0xdc00..0xe000).contains(low));
    let Some(low) = low else { return Some(char::REPLACEMENT_CHARACTER) };
    *rest = &rest[6..];
    char::from_u32(0x1_0000 + ((high - 0xd800) << 10) + (low - 0xdc00))
}

fn hex4(text: &str) -> Option<u32> {
    u32::from_str_radix(text.get(..4)?, 16).ok()
}
