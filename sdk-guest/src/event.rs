//! The event as a filter sees it.

use crate::host;
use myelin_arena::{Attrs, AttrsBuilder, Entry, attrs};
use std::borrow::Cow;

/// One event of the running batch, borrowed from the batch. Reading it copies nothing.
///
/// Only what [`Filter::NEEDS`](crate::Filter::NEEDS) declares is here: the rest reads as absent.
#[derive(Clone, Copy, Debug)]
pub struct EventView<'a> {
    pub(crate) entry: Entry<'a>,
    pub(crate) index: u32,
    pub(crate) now_unix_ns: u64,
    pub(crate) headers: &'static [&'static str],
}

impl<'a> EventView<'a> {
    /// The topic.
    pub fn topic(&self) -> &'a str {
        self.entry.topic
    }

    /// The header with this index in `NEEDS.headers`; the first one where it stands several times.
    ///
    /// # Panics
    /// When `NEEDS` has no header with this index.
    pub fn header(&self, index: usize) -> Option<&'a str> {
        self.header_named(self.headers[index])
    }

    /// The first header called `name` (exact, case-sensitive). Needs `attributes` or any header.
    pub fn header_named(&self, name: &str) -> Option<&'a str> {
        self.attrs().header(name)
    }

    /// All attributes: own ones and headers. Needs `attributes` or any header.
    pub fn attrs(&self) -> Attrs<'a> {
        Attrs::new(self.entry.attrs)
    }

    /// A copy of all attributes in which each header of `changes` has the new value, or is gone (`None`). For
    /// [`Verdict::with_attrs`](crate::Verdict::with_attrs). Needs `attributes` or any header.
    pub fn attrs_with(&self, changes: &[(&str, Option<&str>)]) -> AttrsBuilder {
        let mut copy = AttrsBuilder::new();
        let is_changed =
            |name: &str, tag: u8| tag == attrs::HEADER && changes.iter().any(|(changed, _)| *changed == name);
        self.attrs().iter().filter(|attr| !is_changed(attr.name, attr.tag)).for_each(|attr| {
            copy.attr(&attr);
        });
        for (name, value) in changes {
            if let Some(value) = value {
                copy.header(name, value);
            }
        }
        copy
    }

    /// The id, where the publisher gave one. Needs `attributes` or any header, as all that follow.
    pub fn id(&self) -> Option<&'a str> {
        self.attrs().text(attrs::ID)
    }

    /// The ordering key.
    pub fn key(&self) -> Option<&'a [u8]> {
        self.attrs().own(attrs::KEY)
    }

    /// The CloudEvents `type`.
    pub fn event_type(&self) -> Option<&'a str> {
        self.attrs().text(attrs::TYPE)
    }

    /// The media type of the payload.
    pub fn content_type(&self) -> Option<&'a str> {
        self.attrs().text(attrs::CONTENT_TYPE)
    }

    /// The payload, or as much of it as `NEEDS` asks for.
    pub fn payload(&self) -> &'a [u8] {
        self.entry.payload
    }

    /// Length of the whole payload in bytes, however much of it is here.
    pub fn payload_total(&self) -> u32 {
        self.entry.payload_total
    }

    /// The whole payload: what is here where that is all, else a copy asked from the host (costs a host call, budgeted).
    pub fn payload_whole(&self) -> Cow<'a, [u8]> {
        if self.entry.payload.len() as u64 >= u64::from(self.entry.payload_total) {
            return Cow::Borrowed(self.entry.payload);
        }
        Cow::Owned(self.payload_part(0, self.entry.payload_total))
    }

    /// A part of the payload asked from the host; shorter where the payload ends before. A host call, budgeted.
    pub fn payload_part(&self, offset: u32, len_bytes: u32) -> Vec<u8> {
        host::payload(self.index, offset, len_bytes)
    }

    /// The publisher's identity (a `spiffe://` URI). Needs `identity`.
    pub fn identity(&self) -> Option<&'a str> {
        self.entry.identity
    }

    /// When the batch was taken up, Unix time in nanoseconds: the only clock that a filter has.
    pub fn now_unix_ns(&self) -> u64 {
        self.now_unix_ns
    }

    /// When the event happened, Unix time in nanoseconds: its own time, else that of the batch.
    pub fn time_unix_ns(&self) -> u64 {
        self.attrs().time_ns().unwrap_or(self.now_unix_ns)
    }

    /// The event's place in the batch, from 0.
    pub fn index(&self) -> u32 {
        self.index
    }
}
