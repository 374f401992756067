//! Redaction: what somebody asked not to have in the file is taken out of a batch before anything of it is kept.

use super::data::{Attribute, Data};
use super::file::{Batch, Bound, Call, Said, Verdict};
use std::collections::BTreeSet;

/// What stands in place of what was taken out.
pub const REDACTED: &str = "[redacted]";
/// A value shorter than this is not searched for in what filters made of it: `1` stands everywhere.
const SEARCHED_BYTES_MIN: usize = 4;
/// A header of one of the names that mean something else is written so: `header:payload`.
const HEADER_PREFIX: &str = "header:";

/// What is to be taken out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Redaction {
    /// Names of headers, in lower case.
    headers: Vec<String>,
    payload: bool,
    identity: bool,
    config: bool,
}

impl Redaction {
    /// Reads `payload`, `identity`, `config`, and names of headers.
    ///
    /// # Errors
    /// Which word is no such thing.
    pub fn new<'a>(words: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        let mut redaction = Self::default();
        for word in words {
            match word {
                "payload" => redaction.payload = true,
                "identity" => redaction.identity = true,
                "config" => redaction.config = true,
                name => {
                    let name = name.strip_prefix(HEADER_PREFIX).unwrap_or(name);
                    if name.is_empty() || name.len() > usize::from(u8::MAX) || name.chars().any(char::is_control) {
                        return Err(format!("{name:?} is no name of a header"));
                    }
                    redaction.headers.push(name.to_lowercase());
                }
            }
        }
        Ok(redaction)
    }

    /// Whether nothing is taken out.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether payloads are taken out.
    pub fn hides_payload(&self) -> bool {
        self.payload
    }

    /// Whether identities are taken out.
    pub fn hides_identity(&self) -> bool {
        self.identity
    }

    /// Whether headers called `name` are taken out.
    pub fn hides_header(&self, name: &str) -> bool {
        let name = name.to_lowercase();
        self.headers.contains(&name)
    }

    /// Takes it out of a binding.
    pub fn apply_to_binding(&self, bound: &mut Bound) {
        if self.config {
            bound.config = None;
        }
    }

    /// Takes it out of a batch: out of the events, and out of everything that filters made of it.
    pub fn apply(&self, batch: &mut Batch) {
        if self.is_empty() {
            return;
        }
        let secrets = self.secrets(batch);
        let brought: BTreeSet<Vec<u8>> =
            batch.events.iter().flat_map(|event| &event.attrs).map(|attr| attr.value.0.clone()).collect();
        let cleaner = Cleaner { redaction: self, secrets, brought };
        for event in &mut batch.events {
            cleaner.hide(&mut event.attrs);
            if self.payload {
                event.payload = Data::text(REDACTED);
            }
            if self.identity {
                REDACTED.clone_into(&mut event.identity);
            }
        }
        for judged in &mut batch.judged {
            judged.events.iter_mut().for_each(|said| cleaner.said(said));
            judged.calls.iter_mut().for_each(|call| cleaner.call(call));
        }
    }

    /// The values that may stand nowhere in what filters made. Longest first: one may be a part of another.
    fn secrets(&self, batch: &Batch) -> Vec<Vec<u8>> {
        let said = || batch.judged.iter().flat_map(|judged| &judged.events);
        let seen = said().filter_map(|said| said.attrs.as_ref());
        let made = said().filter_map(|said| said.verdict.as_ref());
        let blocks = batch.events.iter().map(|event| &event.attrs).chain(seen);
        let blocks = blocks
            .chain(made.flat_map(|made| made.attrs.iter().chain(made.emitted.iter().map(|emitted| &emitted.attrs))));
        let hidden = blocks.flatten().filter(|attr| self.hides(attr)).map(|attr| attr.value.0.clone());
        let identities = batch.events.iter().filter(|_| self.identity).map(|event| event.identity.clone().into_bytes());
        let secrets: BTreeSet<_> = hidden.chain(identities).collect();
        let mut secrets: Vec<_> = secrets.into_iter().filter(|secret| secret.len() >= SEARCHED_BYTES_MIN).collect();
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        secrets
    }

    fn hides(&self, attr: &Attribute) -> bool {
        attr.header.as_ref().is_some_and(|name| self.hides_header(name))
    }
}

/// Cleans one batch.
struct Cleaner<'a> {
    redaction: &'a Redaction,
    secrets: Vec<Vec<u8>>,
    /// Values of attributes that publishers brought; what else stands in a filter's may come from the payload.
    brought: BTreeSet<Vec<u8>>,
}

impl Cleaner<'_> {
    fn hide(&self, attrs: &mut [Attribute]) {
        for attr in attrs {
            if self.redaction.hides(attr) {
                attr.value = Data::text(REDACTED);
            }
        }
    }

    fn said(&self, said: &mut Said) {
        if let Some(attrs) = &mut said.attrs {
            self.made_attrs(attrs);
        }
        if let Some(payload) = &mut said.payload {
            self.made(payload);
        }
        if let Some(fault) = &mut said.fault {
            self.text(&mut fault.detail);
        }
        if let Some(verdict) = &mut said.verdict {
            self.verdict(verdict);
        }
    }

    fn verdict(&self, verdict: &mut Verdict) {
        if let Some(detail) = &mut verdict.detail {
            self.text(detail);
        }
        if let Some(attrs) = &mut verdict.attrs {
            self.made_attrs(attrs);
        }
        if let Some(payload) = &mut verdict.payload {
            self.made(payload);
        }
        for emitted in &mut verdict.emitted {
            // A topic cannot hold brackets' place for everything: it is cleaned, and then only shown, never published.
            let mut topic = Data::text(&emitted.topic);
            self.clean(&mut topic);
            emitted.topic = String::from_utf8_lossy(&topic.0).into_owned();
            self.made_attrs(&mut emitted.attrs);
            self.made(&mut emitted.payload);
        }
    }

    fn call(&self, call: &mut Call) {
        match call {
            Call::Schema { subject: text, .. } | Call::Take { bucket: text, .. } | Call::Seen { key: text, .. } => {
                self.text(text);
            }
        }
    }

    fn made_attrs(&self, attrs: &mut [Attribute]) {
        self.hide(attrs);
        for attr in attrs {
            if self.redaction.payload && !self.brought.contains(&attr.value.0) {
                attr.value = Data::text(REDACTED);
            }
            // An identity that stands in the attribute `source`, or a secret under another name.
            self.clean(&mut attr.value);
        }
    }

    fn made(&self, payload: &mut Data) {
        if self.redaction.payload {
            *payload = Data::text(REDACTED);
        } else {
            self.clean(payload);
        }
    }

    /// A text of a filter: where payloads are hidden, it may have come from one.
    fn text(&self, text: &mut String) {
        if self.redaction.payload {
            REDACTED.clone_into(text);
            return;
        }
        let mut data = Data::text(text);
        self.clean(&mut data);
        *text = String::from_utf8_lossy(&data.0).into_owned();
    }

    fn clean(&self, data: &mut Data) {
        for secret in &self.secrets {
            data.0 = replaced(&data.0, secret);
        }
    }
}

/// `bytes` with every `secret` taken out.
fn replaced(bytes: &[u8], secret: &[u8]) -> Vec<u8> {
    let mut clean = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some(at) = rest.windows(secret.len()).position(|window| window == secret) {
        clean.extend_from_slice(&rest[..at]);
        clean.extend_from_slice(REDACTED.as_bytes());
        rest = &rest[at + secret.len()..];
    }
    clean.extend_from_slice(rest);
    clean
}
