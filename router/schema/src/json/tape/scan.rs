//! Reads a JSON text onto a tape (RFC 8259).
//!
//! Structure, plain texts - many bytes at a time - and small whole numbers are read here. Whatever is not plain - an
//! escape, a fraction - is one token that `serde_json` reads, and so is every text that is not understood: what it says about
//! the text is what counts. An object that has a name twice is not read either: readers do not agree which of them counts.

use super::node::At;
use super::plain::Block;
use super::{Part, SCANNED_MAX, Slot, Sorted, children};
use bumpalo::Bump;
use bumpalo::collections::Vec;
use serde_json::Number;

/// Objects and arrays inside each other, as `serde_json` bounds them.
const DEPTH_MAX: usize = 127;
/// Digits of a whole number that surely fits 64 bits.
const DIGITS_MAX: usize = 18;
/// Parts that room is made for before they are there, if the text is short.
const ROOM: usize = 32;
/// Bytes of a text whose parts are not counted before: room for them grows, and what is left behind is not much.
const SHORT_BYTES: usize = 64 * 1_024;
/// Room that is asked for at once at most, in parts: a text of commas only has none of the parts that it could have.
const ROOM_MAX: usize = 1 << 20;

/// A text that is being read. How far it has been is told from one to the next, so that it stays in a register.
pub(super) struct Scanner<'p> {
    text: &'p str,
    block: Block,
    parts: Vec<'p, Part<'p>>,
    memory: &'p Bump,
}

impl<'p> Scanner<'p> {
    pub(super) fn new(text: &'p str, memory: &'p Bump) -> Self {
        let room = if text.len() <= SHORT_BYTES { ROOM } else { parts_at_most(text).min(ROOM_MAX) };
        Self { text, block: Block::default(), parts: Vec::with_capacity_in(room, memory), memory }
    }

    /// The whole text, as one value; `None` where it is none.
    #[inline]
    pub(super) fn document(&mut self) -> Option<At<'_>> {
        // So that counts of parts fit their fields: a part takes a byte of text or more.
        u32::try_from(self.text.len()).ok()?;
        let end = self.value(0, "", 0)?;
        self.next(end).is_none().then(|| At::all(&self.parts))
    }

    /// The next byte from `at` on that is no white space, and where it is.
    #[inline]
    fn next(&self, at: usize) -> Option<(usize, u8)> {
        // As a rule there is none.
        let byte = *self.text.as_bytes().get(at)?;
        if byte > b' ' { Some((at, byte)) } else { self.next_of_many(at) }
    }

    #[inline(never)]
    fn next_of_many(&self, at: usize) -> Option<(usize, u8)> {
        let rest = self.text.as_bytes().iter().enumerate().skip(at);
        let mut others = rest.skip_while(|(_, byte)| matches!(byte, b' ' | b'\n' | b'\r' | b'\t'));
        others.next().map(|(at, byte)| (at, *byte))
    }

    /// What comes after that byte, which must be the next that is no white space.
    #[inline]
    fn after(&self, at: usize, wanted: u8) -> Option<usize> {
        let (at, byte) = self.next(at)?;
        (byte == wanted).then_some(at + 1)
    }

    /// The next value, inside `depth` others; where it ends.
    #[inline(always)]
    fn value(&mut self, at: usize, name: &'p str, depth: usize) -> Option<usize> {
        let (at, first) = self.next(at)?;
        if first != b'"' {
            return self.other(at, first, name, depth);
        }
        // Most values are texts, for which nothing is called.
        let (text, end) = self.string(at + 1)?;
        self.parts.push(Part { name, parts: 1, slot: Slot::Text(text) });
        Some(end)
    }

    /// A value that is no text and begins with that byte.
    #[inline(never)]
    fn other(&mut self, at: usize, first: u8, name: &'p str, depth: usize) -> Option<usize> {
        let (slot, end) = match first {
            b'{' => return self.object(at, name, depth),
            b'[' => return self.array(at, name, depth),
            b't' => (Slot::Bool(true), self.word(at, "true")?),
            b'f' => (Slot::Bool(false), self.word(at, "false")?),
            b'n' => (Slot::Null, self.word(at, "null")?),
            _ => {
                let (number, end) = self.number(at)?;
                (Slot::Number(number), end)
            }
        };
        self.parts.push(Part { name, parts: 1, slot });
        Some(end)
    }

    fn word(&self, at: usize, word: &str) -> Option<usize> {
        self.text.as_bytes()[at..].starts_with(word.as_bytes()).then_some(at + word.len())
    }

    fn number(&self, at: usize) -> Option<(Number, usize)> {
        let rest = &self.text.as_bytes()[at..];
        let is_part = |byte: &u8| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
        let token = &rest[..rest.iter().position(|byte| !is_part(byte)).unwrap_or(rest.len())];
        let is_plain = token.len() <= DIGITS_MAX
            && (token.len() == 1 || token.first().is_some_and(|&digit| digit != b'0'))
            && token.iter().all(u8::is_ascii_digit);
        let number = match is_plain {
            true => token.iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0')).into(),
            false => serde_json::from_slice(token).ok()?,
        };
        Some((number, at + token.len()))
    }

    /// A text, whose first quote is before `start`, and where it ends.
    #[inline]
    fn string(&mut self, start: usize) -> Option<(&'p str, usize)> {
        let text = self.text;
        let end = self.block.plain_end(text.as_bytes(), start);
        if text.as_bytes().get(end) != Some(&b'"') {
            return self.escaped(start, end);
        }
        Some((text.get(start..end)?, end + 1))
    }

    /// A text that is plain as far as `end`.
    #[cold]
    fn escaped(&mut self, start: usize, mut end: usize) -> Option<(&'p str, usize)> {
        let bytes = self.text.as_bytes();
        while *bytes.get(end)? != b'"' {
            // A backslash, and whatever it stands before; or a control character, which is an error for the one who reads it.
            end = self.block.plain_end(bytes, bytes.len().min(end + 2));
        }
        let text: String = serde_json::from_slice(&bytes[start - 1..=end]).ok()?;
        Some((self.memory.alloc_str(&text), end + 1))
    }

    #[inline(never)]
    fn array(&mut self, at: usize, name: &'p str, depth: usize) -> Option<usize> {
        let (own, mut len) = (self.open(name, depth)?, 0);
        let (mut at, mut next) = self.next(at + 1)?;
        while next != b']' {
            let end = self.value(at, "", depth + 1)?;
            len += 1;
            (at, next) = self.separator(end, b']')?;
        }
        self.close(own, Slot::Array { len });
        Some(at + 1)
    }

    #[inline(never)]
    fn object(&mut self, at: usize, name: &'p str, depth: usize) -> Option<usize> {
        let (own, mut len) = (self.open(name, depth)?, 0);
        let (mut at, mut next) = self.next(at + 1)?;
        while next != b'}' {
            let (name, end) = self.string(self.after(at, b'"')?)?;
            let value = self.after(end, b':')?;
            // Beyond that, names that come again are found once for all, among sorted ones: a payload of many members takes no
            // longer than others.
            if len < SCANNED_MAX && is_among(&self.parts[own + 1..], name) {
                return None;
            }
            len += 1;
            let end = self.value(value, name, depth + 1)?;
            (at, next) = self.separator(end, b'}')?;
        }
        let sorted = match len > SCANNED_MAX {
            true => Some(sort(&self.parts[own + 1..], self.memory)?),
            false => None,
        };
        self.close(own, Slot::Object { len: count(len), sorted });
        Some(at + 1)
    }

    /// Room for what an object or array says of itself once it has been read.
    #[inline]
    fn open(&mut self, name: &'p str, depth: usize) -> Option<usize> {
        if depth >= DEPTH_MAX {
            return None;
        }
        self.parts.push(Part { name, parts: 1, slot: Slot::Null });
        Some(self.parts.len() - 1)
    }

    /// What the object or array says of itself that stands at `own`, and ends here.
    #[inline]
    fn close(&mut self, own: usize, slot: Slot<'p>) {
        let parts = count(self.parts.len() - own);
        let own = &mut self.parts[own];
        (own.parts, own.slot) = (parts, slot);
    }

    /// The end, which is that byte; or what comes after a comma, which is not the end.
    #[inline]
    fn separator(&self, at: usize, end: u8) -> Option<(usize, u8)> {
        let (at, byte) = self.next(at)?;
        match byte {
            b',' => self.next(at + 1).filter(|(_, next)| *next != end),
            _ => (byte == end).then_some((at, byte)),
        }
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

/// Whether one of the members has that name.
#[inline]
fn is_among(members: &[Part<'_>], name: &str) -> bool {
    children(members).any(|known| members[known].name == name)
}

/// Sorts members by name; `None` where two have the same, which are neighbours then.
fn sort<'p>(members: &[Part<'p>], memory: &'p Bump) -> Option<Sorted<'p>> {
    let mut all = Vec::from_iter_in(children(members), memory);
    all.sort_unstable_by_key(|&at| members[at].name);
    let is_repeated = all.windows(2).any(|pair| members[pair[0]].name == members[pair[1]].name);
    (!is_repeated).then(|| all.into_bump_slice() as Sorted<'p>)
}
