//! Reads a JSON text onto a tape (RFC 8259).
//!
//! Structure, plain texts - sixteen bytes at a time - and small whole numbers are read here. Whatever is not plain - an
//! escape, a fraction - is one token that `serde_json` reads, and so is every text that is not understood: what it says about
//! the text is what counts.

use super::{Part, SCANNED_MAX, Slot, Sorted, children};
use bumpalo::Bump;
use bumpalo::collections::Vec;
use serde_json::Number;
use wide::u8x16;

/// Objects and arrays inside each other, as `serde_json` bounds them.
const DEPTH_MAX: usize = 127;
/// Digits of a whole number that surely fits 64 bits.
const DIGITS_MAX: usize = 18;
/// Bytes that are looked at together.
const LANES: usize = 16;
/// Parts that room is made for before they are there, if the text is short.
const ROOM: usize = 32;
/// Bytes of a text whose parts are not counted before: room for them grows, and what is left behind is not much.
const SHORT_BYTES: usize = 64 * 1_024;
/// Room that is asked for at once at most, in parts: a text of commas only has none of the parts that it could have.
const ROOM_MAX: usize = 1 << 20;

/// A text, and how far it has been read.
pub(super) struct Scanner<'p> {
    text: &'p str,
    at: usize,
    parts: Vec<'p, Part<'p>>,
    memory: &'p Bump,
}

impl<'p> Scanner<'p> {
    pub(super) fn new(text: &'p str, memory: &'p Bump) -> Self {
        let room = if text.len() <= SHORT_BYTES { ROOM } else { parts_at_most(text).min(ROOM_MAX) };
        Self { text, at: 0, parts: Vec::with_capacity_in(room, memory), memory }
    }

    /// The whole text, as one value; `None` where it is none.
    pub(super) fn document(mut self) -> Option<Vec<'p, Part<'p>>> {
        // So that counts of parts fit their fields: a part takes a byte of text or more.
        u32::try_from(self.text.len()).ok()?;
        self.value("", 0)?;
        self.peek().is_none().then_some(self.parts)
    }

    /// The next byte that is no white space.
    #[inline]
    fn peek(&mut self) -> Option<u8> {
        let bytes = self.text.as_bytes();
        let mut byte = *bytes.get(self.at)?;
        while matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
            self.at += 1;
            byte = *bytes.get(self.at)?;
        }
        Some(byte)
    }

    /// The next value, inside `depth` others.
    fn value(&mut self, name: &'p str, depth: usize) -> Option<()> {
        let slot = match self.peek()? {
            b'"' => Slot::Text(self.string()?),
            b'{' => return self.object(name, depth),
            b'[' => return self.array(name, depth),
            b't' => self.word("true", Slot::Bool(true))?,
            b'f' => self.word("false", Slot::Bool(false))?,
            b'n' => self.word("null", Slot::Null)?,
            _ => Slot::Number(self.number()?),
        };
        self.parts.push(Part { name, slot });
        Some(())
    }

    fn word(&mut self, word: &str, slot: Slot<'p>) -> Option<Slot<'p>> {
        let found = self.text.as_bytes()[self.at..].starts_with(word.as_bytes());
        self.at += word.len();
        found.then_some(slot)
    }

    fn number(&mut self) -> Option<Number> {
        let rest = &self.text.as_bytes()[self.at..];
        let is_part = |byte: &u8| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
        let token = &rest[..rest.iter().position(|byte| !is_part(byte)).unwrap_or(rest.len())];
        self.at += token.len();
        let is_plain = token.len() <= DIGITS_MAX
            && (token.len() == 1 || token.first().is_some_and(|&digit| digit != b'0'))
            && token.iter().all(u8::is_ascii_digit);
        match is_plain {
            true => Some(token.iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0')).into()),
            false => serde_json::from_slice(token).ok(),
        }
    }

    /// A text, from its first quote on.
    #[inline]
    fn string(&mut self) -> Option<&'p str> {
        let (start, bytes) = (self.at + 1, self.text.as_bytes());
        let end = plain_end(bytes, start);
        if bytes.get(end) != Some(&b'"') {
            return self.escaped(end);
        }
        self.at = end + 1;
        self.text.get(start..end)
    }

    /// A text that is plain as far as `end`.
    #[cold]
    fn escaped(&mut self, mut end: usize) -> Option<&'p str> {
        let bytes = self.text.as_bytes();
        while *bytes.get(end)? != b'"' {
            // A backslash, and whatever it stands before; or a control character, which is an error for the one who reads it.
            end = plain_end(bytes, bytes.len().min(end + 2));
        }
        let text: String = serde_json::from_slice(&bytes[self.at..=end]).ok()?;
        self.at = end + 1;
        Some(self.memory.alloc_str(&text))
    }

    fn array(&mut self, name: &'p str, depth: usize) -> Option<()> {
        let (at, mut len) = (self.open(name, depth)?, 0);
        let mut next = self.peek()?;
        if next == b']' {
            self.at += 1;
        }
        while next != b']' {
            self.value("", depth + 1)?;
            len += 1;
            next = self.separator(b']')?;
        }
        self.parts[at].slot = Slot::Array { len, parts: count(self.parts.len() - at) };
        Some(())
    }

    fn object(&mut self, name: &'p str, depth: usize) -> Option<()> {
        let (at, mut seen, mut len) = (self.open(name, depth)?, 0, 0);
        let mut next = self.peek()?;
        if next == b'}' {
            self.at += 1;
        }
        while next != b'}' {
            if self.peek()? != b'"' {
                return None;
            }
            let name = self.string()?;
            if self.peek()? != b':' {
                return None;
            }
            self.at += 1;
            // Beyond that, doubles are found once for all: a payload of nothing else takes no longer than others.
            if seen >= SCANNED_MAX || !replace(&mut self.parts[at + 1..], name) {
                len += 1;
            }
            seen += 1;
            self.value(name, depth + 1)?;
            next = self.separator(b'}')?;
        }
        let sorted = (seen > SCANNED_MAX).then(|| sort(&mut self.parts[at + 1..], self.memory));
        let len = count(sorted.map_or(len, <[usize]>::len));
        self.parts[at].slot = Slot::Object { len, parts: count(self.parts.len() - at), sorted };
        Some(())
    }

    /// Room for what an object or array says of itself once it has been read.
    fn open(&mut self, name: &'p str, depth: usize) -> Option<usize> {
        if depth >= DEPTH_MAX {
            return None;
        }
        self.at += 1;
        self.parts.push(Part { name, slot: Slot::Null });
        Some(self.parts.len() - 1)
    }

    /// A comma, or the end.
    fn separator(&mut self, end: u8) -> Option<u8> {
        let next = self.peek()?;
        self.at += 1;
        (next == b',' || next == end).then_some(next)
    }
}

/// How many parts a text has at most: one, and one for each that begins another. Where that is too many - in texts of
/// commas - memory is asked for that is never touched.
fn parts_at_most(text: &str) -> usize {
    // As many as a byte counts, so that the compiler takes many at once.
    let runs = text.as_bytes().chunks(usize::from(u8::MAX));
    let begins = |byte: &u8| u8::from((*byte == b',') | (*byte == b'[') | (*byte == b'{'));
    1 + runs.map(|run| usize::from(run.iter().map(begins).sum::<u8>())).sum::<usize>()
}

/// There are no more parts than bytes of text, which were counted.
fn count(parts: usize) -> u32 {
    u32::try_from(parts).unwrap_or(u32::MAX)
}

/// Takes the member of that name out; whether there was one.
fn replace(members: &mut [Part<'_>], name: &str) -> bool {
    let known = children(members).find(|&known| members[known].name == name);
    known.is_some_and(|known| {
        remove(members, known);
        true
    })
}

/// Takes a member out, with what is inside it.
fn remove(members: &mut [Part<'_>], at: usize) {
    members[at].slot = Slot::Removed { parts: count(members[at].parts()) };
}

/// Sorts members by name; of those of one name the last stays.
fn sort<'p>(members: &mut [Part<'p>], memory: &'p Bump) -> Sorted<'p> {
    let mut all = Vec::from_iter_in(children(members), memory);
    // Stable: the later one of two stands behind the earlier one.
    all.sort_by(|&a, &b| members[a].name.cmp(members[b].name));
    all.dedup_by(|later, earlier| {
        let is_same = members[*later].name == members[*earlier].name;
        if is_same {
            remove(members, *earlier);
            *earlier = *later;
        }
        is_same
    });
    all.into_bump_slice()
}

/// Where the first byte from `from` on is that is not plain: a quote, a backslash, a control character, or the end.
#[inline]
pub(super) fn plain_end(bytes: &[u8], from: usize) -> usize {
    let mut at = from;
    while let Some(block) = bytes.get(at..).and_then(<[u8]>::first_chunk) {
        let found = special(block);
        if found != 0 {
            return at + found.trailing_zeros() as usize;
        }
        at += LANES;
    }
    // The last ones, with some of those before them.
    if let Some(block) = bytes.last_chunk() {
        let before = LANES - bytes.len().saturating_sub(at);
        let found = special(block) >> before;
        return if found == 0 { bytes.len() } else { at + found.trailing_zeros() as usize };
    }
    let is_special = |&byte: &u8| byte < b' ' || byte == b'"' || byte == b'\\';
    bytes.iter().skip(at).position(is_special).map_or(bytes.len(), |plain| at + plain)
}

/// A bit for each byte that is not plain, the lowest for the first.
fn special(block: &[u8; LANES]) -> u32 {
    let block = u8x16::new(*block);
    let control = block.min(u8x16::splat(b' ' - 1)).cmp_eq(block);
    (control | block.cmp_eq(u8x16::splat(b'"')) | block.cmp_eq(u8x16::splat(b'\\'))).move_mask().cast_unsigned()
}
