//! A payload as it is judged: a tape of its parts, in memory that is kept from payload to payload.
//!
//! The library judges any representation of JSON. This one costs an event no allocation, no copy of a text, no map and no
//! hash, which is most of what the library's own costs. Parts stand on the tape in the order of the text; an object or array
//! says how many parts are its own, so that one can be stepped over.

mod node;
mod plain;
pub(super) mod reasons;
mod scan;
mod unique;

pub(super) use node::{At, Payload};

use crate::repeated::{self, Repeated};
use bumpalo::Bump;
use scan::Scanner;
use serde_json::Number;
use std::cell::Cell;

/// Members of an object that is looked through; more are sorted. Whoever makes a payload chooses how many there are: looking
/// through all of them for each name of a schema would be theirs to make dear.
const SCANNED_MAX: usize = 16;
/// Memory that each thread keeps. What larger payloads need is given back.
const KEPT_BYTES_MAX: usize = 64 * 1_024;

/// A value, and its name where it is a member of an object.
#[derive(Debug)]
struct Part<'p> {
    name: &'p str,
    /// How many parts it is, with all that is inside it.
    parts: u32,
    slot: Slot<'p>,
}

#[derive(Debug)]
enum Slot<'p> {
    Null,
    Bool(bool),
    Number(Number),
    Text(&'p str),
    /// As many elements.
    Array {
        len: u32,
    },
    /// Every name once: an object that has one again is not read.
    Object {
        len: u32,
        sorted: Option<Sorted<'p>>,
    },
}

/// Where the members of an object stand, by name, if it has more than [`SCANNED_MAX`]: counted from the first.
type Sorted<'p> = &'p [usize];

/// Where the elements or members stand that are on a piece of tape.
fn children(parts: &[Part<'_>]) -> impl Iterator<Item = usize> {
    let mut next = 0;
    std::iter::from_fn(move || {
        let (at, part) = (next, parts.get(next)?);
        next += part.parts as usize;
        Some(at)
    })
}

thread_local! {
    static KEPT: Cell<Option<Box<Bump>>> = const { Cell::new(None) };
}

/// Why there is nothing to judge.
#[derive(Debug)]
pub(super) enum Unread {
    /// It is no JSON.
    NoJson(serde_json::Error),
    /// One of its objects has a name twice.
    Repeated(Repeated),
}

/// Reads a payload, and has it judged.
///
/// # Errors
///
/// Why it is no JSON, or not the same JSON to all readers.
#[inline]
pub(super) fn read<T>(payload: &[u8], judge: impl FnOnce(At<'_>) -> T) -> Result<T, Unread> {
    let judged = KEPT.with(|kept| {
        // Taken, not borrowed: what is read while another one is judged has its own.
        let mut memory = kept.take().unwrap_or_default();
        let judged = simdutf8::basic::from_utf8(payload).ok().and_then(|text| {
            let mut scanner = Scanner::new(text, &memory);
            scanner.document().map(judge)
        });
        if memory.allocated_bytes() <= KEPT_BYTES_MAX {
            memory.reset();
            kept.set(Some(memory));
        }
        judged
    });
    // Read again, for the reason: only bad payloads pay for it.
    judged.ok_or_else(|| unread(payload))
}

#[cold]
fn unread(payload: &[u8]) -> Unread {
    match repeated::first(payload) {
        Ok(Some(repeated)) => Unread::Repeated(repeated),
        Ok(None) => Unread::NoJson(serde::de::Error::custom("it is not understood")),
        Err(error) => Unread::NoJson(error),
    }
}

#[cfg(test)]
mod tests;
