//! The attribute block: the head of an event.
//!
//! A block is a run of attributes, each `u8 tag | [u8 name-len | name] | u16 value-len | value`. Tag 0 is a custom
//! header and carries its name; the other tags are the event's own attributes and appear at most once. An attribute
//! that is absent is derived: the id from the origin's stamp, the time from the batch, the source from the
//! publisher's identity.

use crate::bytes::u16_at;
use alloc::vec::Vec;
use core::str;

/// Tag of a custom header: the name follows.
pub const HEADER: u8 = 0;
/// The event's id, UTF-8.
pub const ID: u8 = 1;
/// CloudEvents `source`, UTF-8.
pub const SOURCE: u8 = 2;
/// CloudEvents `type`, UTF-8.
pub const TYPE: u8 = 3;
/// Unix time in nanoseconds, 8 bytes.
pub const TIME: u8 = 4;
/// Ordering and partitioning key, any bytes.
pub const KEY: u8 = 5;
/// Media type of the payload, UTF-8.
pub const CONTENT_TYPE: u8 = 6;
/// Schema subject and version, or schema id, UTF-8.
pub const SCHEMA: u8 = 7;
/// W3C `traceparent`, ASCII.
pub const TRACEPARENT: u8 = 8;
/// Remaining time to live in milliseconds, 4 bytes. At every hop the time spent there is taken off.
pub const TTL: u8 = 9;
/// Topic to which the answer of a request is published, UTF-8.
pub const REPLY_TO: u8 = 10;
/// Correlates a reply with its request, any bytes.
pub const CORRELATION: u8 = 11;
/// The highest tag of this version.
pub const LAST: u8 = CORRELATION;

/// Longest value of an own attribute, in bytes. A header's value may be longer, up to the block's limit.
pub const OWN_VALUE_BYTES_MAX: usize = 1024;
/// Longest key, in bytes.
pub const KEY_BYTES_MAX: usize = 255;

/// One attribute of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attr<'a> {
    /// Which attribute: [`HEADER`] or one of the event's own.
    pub tag: u8,
    /// The header's name; empty for the event's own attributes.
    pub name: &'a str,
    /// The value as it stands in the block.
    pub value: &'a [u8],
}

impl<'a> Attr<'a> {
    /// The value as text, when it is UTF-8 (after [`validate`] every text attribute is).
    pub fn text(&self) -> Option<&'a str> {
        str::from_utf8(self.value).ok()
    }
}

/// What is wrong with an attribute block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttrError {
    /// The block ends inside an attribute.
    Truncated,
    /// A tag that this version does not know.
    UnknownTag(u8),
    /// An own attribute stands twice.
    Repeated(u8),
    /// A text attribute, a header name or a header value is not UTF-8.
    NotUtf8(u8),
    /// A value has a length that its tag does not allow.
    BadLength(u8),
    /// A header without a name.
    EmptyName,
    /// More headers than the limit.
    TooManyHeaders,
}

impl core::fmt::Display for AttrError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Truncated => write!(f, "the attribute block ends inside an attribute"),
            Self::UnknownTag(tag) => write!(f, "attribute tag {tag} is unknown (0 to {LAST} are defined)"),
            Self::Repeated(tag) => write!(f, "attribute tag {tag} stands twice"),
            Self::NotUtf8(tag) => write!(f, "the text of attribute tag {tag} is not UTF-8"),
            Self::BadLength(tag) => write!(f, "the value of attribute tag {tag} has a length that is not allowed"),
            Self::EmptyName => write!(f, "a header has an empty name"),
            Self::TooManyHeaders => write!(f, "too many headers"),
        }
    }
}

impl core::error::Error for AttrError {}

/// A view of an attribute block. Reading stops at the first malformed attribute; [`validate`] says which it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attrs<'a>(&'a [u8]);

impl<'a> Attrs<'a> {
    /// Views `block` without checking it.
    pub fn new(block: &'a [u8]) -> Self {
        Self(block)
    }

    /// The block's bytes.
    pub fn as_bytes(&self) -> &'a [u8] {
        self.0
    }

    /// Whether there is no attribute.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The attributes in order, up to the first malformed one.
    pub fn iter(&self) -> impl Iterator<Item = Attr<'a>> + use<'a> {
        let mut rest = self.0;
        core::iter::from_fn(move || {
            let (attr, after) = split_attr(rest).ok()??;
            rest = after;
            Some(attr)
        })
    }

    /// The value of the own attribute `tag`.
    pub fn own(&self, tag: u8) -> Option<&'a [u8]> {
        let mut rest = self.0;
        while let Some((raw, after)) = split_raw(rest).ok()? {
            if raw.tag == tag && tag != HEADER {
                return Some(raw.value);
            }
            rest = after;
        }
        None
    }

    /// The own attribute `tag` as text.
    pub fn text(&self, tag: u8) -> Option<&'a str> {
        str::from_utf8(self.own(tag)?).ok()
    }

    /// The value of the first header called `name` (exact, case-sensitive).
    pub fn header(&self, name: &str) -> Option<&'a str> {
        let mut rest = self.0;
        // Names are compared as bytes: checking the text of each costs more than the comparison.
        while let Some((raw, after)) = split_raw(rest).ok()? {
            if raw.tag == HEADER && raw.name == name.as_bytes() {
                return str::from_utf8(raw.value).ok();
            }
            rest = after;
        }
        None
    }

    /// The remaining time to live in milliseconds.
    pub fn ttl_ms(&self) -> Option<u32> {
        self.own(TTL)?.try_into().ok().map(u32::from_le_bytes)
    }

    /// The event's time in Unix nanoseconds.
    pub fn time_ns(&self) -> Option<u64> {
        self.own(TIME)?.try_into().ok().map(u64::from_le_bytes)
    }
}

/// An attribute whose name was not looked at.
struct RawAttr<'a> {
    tag: u8,
    name: &'a [u8],
    value: &'a [u8],
}

/// The first attribute of `block` and what follows it; `None` at the end of the block.
fn split_attr(block: &[u8]) -> Result<Option<(Attr<'_>, &[u8])>, AttrError> {
    let Some((RawAttr { tag, name, value }, after)) = split_raw(block)? else { return Ok(None) };
    let name = str::from_utf8(name).map_err(|_| AttrError::NotUtf8(HEADER))?;
    Ok(Some((Attr { tag, name, value }, after)))
}

#[inline]
fn split_raw(block: &[u8]) -> Result<Option<(RawAttr<'_>, &[u8])>, AttrError> {
    let Some((&tag, mut rest)) = block.split_first() else { return Ok(None) };
    let mut name = &[][..];
    if tag == HEADER {
        let (&len, after) = rest.split_first().ok_or(AttrError::Truncated)?;
        (name, rest) = after.split_at_checked(usize::from(len)).ok_or(AttrError::Truncated)?;
    }
    let len = usize::from(u16_at(rest, 0).ok_or(AttrError::Truncated)?);
    let (value, after) = rest[2..].split_at_checked(len).ok_or(AttrError::Truncated)?;
    Ok(Some((RawAttr { tag, name, value }, after)))
}

/// Checks a whole block: known tags, each own attribute at most once, lengths, UTF-8, at most `headers_max` headers.
///
/// A block that passes may be trusted ever after: every later read of it succeeds.
///
/// # Errors
/// The first fault in the block's order.
pub fn validate(block: &[u8], headers_max: usize) -> Result<(), AttrError> {
    let mut rest = block;
    let mut seen = 0_u32;
    let mut headers = 0;
    while let Some((attr, after)) = split_attr(rest)? {
        rest = after;
        if attr.tag > LAST {
            return Err(AttrError::UnknownTag(attr.tag));
        }
        if attr.tag == HEADER {
            headers += 1;
            if headers > headers_max {
                return Err(AttrError::TooManyHeaders);
            }
            if attr.name.is_empty() {
                return Err(AttrError::EmptyName);
            }
        } else if seen & (1 << attr.tag) != 0 {
            return Err(AttrError::Repeated(attr.tag));
        }
        seen |= 1 << attr.tag;
        check_value(&attr)?;
    }
    Ok(())
}

/// Checks the length and the encoding of one attribute's value.
fn check_value(attr: &Attr<'_>) -> Result<(), AttrError> {
    let len = attr.value.len();
    let length_is_good = match attr.tag {
        HEADER => true,
        TIME => len == 8,
        TTL => len == 4,
        KEY => len <= KEY_BYTES_MAX,
        _ => len <= OWN_VALUE_BYTES_MAX,
    };
    if !length_is_good {
        return Err(AttrError::BadLength(attr.tag));
    }
    let is_text = !matches!(attr.tag, TIME | TTL | KEY | CORRELATION);
    if is_text && attr.text().is_none() {
        return Err(AttrError::NotUtf8(attr.tag));
    }
    Ok(())
}

/// Writes an attribute block.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AttrsBuilder(Vec<u8>);

impl AttrsBuilder {
    /// An empty block.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends the own attribute `tag`. A value over 65,535 bytes is cut, as is the header of that size: callers
    /// check their limits first, and [`validate`] holds at the receiver.
    pub fn own(&mut self, tag: u8, value: &[u8]) -> &mut Self {
        self.0.push(tag);
        self.value(value);
        self
    }

    /// Appends a header.
    pub fn header(&mut self, name: &str, value: &str) -> &mut Self {
        let name = &name.as_bytes()[..name.len().min(usize::from(u8::MAX))];
        self.0.push(HEADER);
        self.0.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
        self.0.extend_from_slice(name);
        self.value(value.as_bytes());
        self
    }

    /// Appends a copy of `attr`.
    pub fn attr(&mut self, attr: &Attr<'_>) -> &mut Self {
        if attr.tag != HEADER {
            return self.own(attr.tag, attr.value);
        }
        self.0.push(HEADER);
        self.0.push(u8::try_from(attr.name.len()).unwrap_or(u8::MAX));
        self.0.extend_from_slice(attr.name.as_bytes());
        self.value(attr.value);
        self
    }

    /// The block written so far.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The finished block.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    fn value(&mut self, value: &[u8]) {
        let len = u16::try_from(value.len()).unwrap_or(u16::MAX);
        self.0.extend_from_slice(&len.to_le_bytes());
        self.0.extend_from_slice(&value[..usize::from(len)]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<u8> {
        let mut block = AttrsBuilder::new();
        block.own(KEY, b"k1").header("x-tenant", "acme").own(TTL, &500_u32.to_le_bytes()).header("x-tenant", "second");
        block.into_bytes()
    }

    #[test]
    fn reads_back_what_was_written() {
        let block = sample();
        assert_eq!(validate(&block, 64), Ok(()));
        let attrs = Attrs::new(&block);
        assert_eq!(attrs.own(KEY), Some(&b"k1"[..]));
        assert_eq!(attrs.header("x-tenant"), Some("acme"));
        assert_eq!(attrs.ttl_ms(), Some(500));
        assert_eq!(attrs.iter().count(), 4);
    }

    #[test]
    fn every_cut_is_refused_or_shorter() {
        let block = sample();
        let ends = [0, 5, 21, 28, block.len()];
        for cut in 0..block.len() {
            let verdict = validate(&block[..cut], 64);
            assert_eq!(verdict.is_ok(), ends.contains(&cut), "cut at {cut}: {verdict:?}");
        }
    }

    #[test]
    fn names_each_fault() {
        assert_eq!(validate(&[LAST + 1, 0, 0], 64), Err(AttrError::UnknownTag(LAST + 1)));
        assert_eq!(validate(&[KEY, 0, 0, KEY, 0, 0], 64), Err(AttrError::Repeated(KEY)));
        assert_eq!(validate(&[TYPE, 1, 0, 0xff], 64), Err(AttrError::NotUtf8(TYPE)));
        assert_eq!(validate(&[TTL, 1, 0, 0], 64), Err(AttrError::BadLength(TTL)));
        assert_eq!(validate(&[HEADER, 0, 0, 0], 64), Err(AttrError::EmptyName));
        assert_eq!(validate(&sample(), 1), Err(AttrError::TooManyHeaders));
    }
}
