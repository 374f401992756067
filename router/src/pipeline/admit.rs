//! Admission: what the publisher's bytes hold, and what can be said against an event before any filter sees it.

use super::topics::{Announced, Rights};
use super::{Admitted, Forbidden, Publisher};
use crate::local::{Local, TopicEntry};
use crate::policy::{self, Asked, sending};
use crate::trace;
use myelin_wire::event::{EventHead, EventSpan, FLAG_REQUEST, FLAG_TTL};
use myelin_wire::stream::Item;
use myelin_wire::{Attrs, Code, Limits, Refusal};
use std::rc::Rc;

impl Publisher {
    /// Decodes and admits what is there: good events go to the batch, others become exceptions.
    pub(super) fn admit(&mut self, local: &Local) -> Result<(), Refusal> {
        if let Some((reference, name)) = self.redefined.take() {
            self.topics.announce(local, reference, &name)?;
        }
        self.rules_version = local.rules_version();
        while self.batch.len() < self.round_max {
            match self.decoder.poll()? {
                None => break,
                Some(Item::Event(span)) => {
                    self.seq += 1;
                    match self.check(local, &span) {
                        Ok(()) => self.batch.push(Admitted { seq: self.seq, span }),
                        Err(refusal) => {
                            if trace::has_room(span.head.attrs_len) {
                                self.tell_refused(local, &span, &refusal);
                            }
                            self.refuse(self.seq, refusal.code, &refusal.message);
                        }
                    }
                }
                Some(Item::Oversized(head)) => {
                    self.seq += 1;
                    let refusal = sizes(&local.shared.limits, &head)
                        .err()
                        .unwrap_or_else(|| too_large(&local.shared.limits, &head));
                    self.refuse(self.seq, refusal.code, &refusal.message);
                }
                Some(Item::Name { reference, name }) => {
                    let name = text(&self.decoder.buffer()[name])?.to_owned();
                    let in_use = self.batch.iter().any(|event| event.span.head.topic_ref == reference);
                    if in_use {
                        self.redefined = Some((reference, name));
                        break;
                    }
                    self.topics.announce(local, reference, &name)?;
                }
                Some(Item::Stamp(_)) => {
                    return Err(Refusal::new(Code::OutOfOrder, "a DELIVER frame does not belong on a publish stream"));
                }
            }
        }
        Ok(())
    }

    /// What can be said against an event before any filter sees it.
    #[inline]
    fn check(&self, local: &Local, span: &EventSpan) -> Result<(), Refusal> {
        let limits = &local.shared.limits;
        let head = &span.head;
        match self.topics.get(head.topic_ref) {
            Announced::Topic(topic, rights) => {
                let is_request = head.flags & FLAG_REQUEST != 0;
                if !rights.are_of(self.rules_version) {
                    self.look_up(local, topic, rights);
                }
                if !rights.let_pass(is_request) {
                    self.weigh(local, topic, span)?;
                }
            }
            Announced::Refused(code, why) => return Err(Refusal::new(*code, why.to_string())),
            Announced::Nothing => {
                let message = format!("topic reference {} was not announced", head.topic_ref);
                return Err(Refusal::new(Code::UnknownTopicRef, message));
            }
        }
        sizes(limits, head)?;
        if head.attrs_len == 0 && head.flags & FLAG_TTL == 0 { Ok(()) } else { self.check_attrs(local, span) }
    }

    /// Asks the rules what this publisher may do with a topic.
    #[cold]
    fn look_up(&self, local: &Local, topic: &TopicEntry, rights: &Rights) {
        let actions = [false, true].map(|is_request| sending(&topic.name.text, is_request));
        rights.set(local.may(&self.service, actions, &topic.name.text));
    }

    /// Whether an event may be sent whose topic alone does not say so: policies look at its head; or why it may not. The
    /// rules are asked again: they may be others by now, and let it pass.
    #[cold]
    fn weigh(&self, local: &Local, topic: &Rc<TopicEntry>, span: &EventSpan) -> Result<(), Refusal> {
        let (version, text) = (self.rules_version, &*topic.name.text);
        let action = sending(text, span.head.flags & FLAG_REQUEST != 0);
        let mut last = self.forbidden.borrow_mut();
        if let Some(known) = &*last
            && (known.version, known.action) == (version, action)
            && Rc::ptr_eq(&known.topic, topic)
        {
            local.shared.denials.note(&self.service, action, text);
            return Err(known.refusal.clone());
        }
        sizes(&local.shared.limits, &span.head)?;
        let block = span.attrs(self.decoder.buffer());
        validate(&local.shared.limits, block)?;
        let head = policy::head(&Attrs::new(block));
        let asked = Asked { service: &self.service, action, topic: text, event: Some(&head) };
        local.permit_event(&asked).map_err(|(refusal, is_by_event)| {
            if !is_by_event {
                *last = Some(Forbidden { version, action, topic: topic.clone(), refusal: refusal.clone() });
            }
            refusal
        })
    }

    fn check_attrs(&self, local: &Local, span: &EventSpan) -> Result<(), Refusal> {
        let limits = &local.shared.limits;
        let block = span.attrs(self.decoder.buffer());
        validate(limits, block)?;
        let ttl_ms = Attrs::new(block).ttl_ms();
        if ttl_ms.is_some() != (span.head.flags & FLAG_TTL != 0) {
            let message = "flag bit 0 must be set exactly where tag 9 (ttl) is present";
            return Err(Refusal::new(Code::InvalidAttributes, message));
        }
        if ttl_ms == Some(0) {
            return Err(Refusal::new(Code::Expired, "the time to live was 0"));
        }
        if trace::has_room(span.head.attrs_len) && trace::sampled(block).is_some() {
            self.sampled.set(self.sampled.get() + 1);
        }
        Ok(())
    }
}

fn validate(limits: &Limits, block: &[u8]) -> Result<(), Refusal> {
    myelin_wire::attrs::validate(block, usize::from(limits.headers))
        .map_err(|error| Refusal::new(Code::InvalidAttributes, error.to_string()))
}

fn text(bytes: &[u8]) -> Result<&str, Refusal> {
    std::str::from_utf8(bytes).map_err(|_| Refusal::new(Code::Malformed, "an announced name is not UTF-8"))
}

/// Checks the lengths of an event.
#[inline]
fn sizes(limits: &Limits, head: &EventHead) -> Result<(), Refusal> {
    if head.attrs_len > limits.attributes_bytes {
        let message = format!("{} bytes of attributes; {} are allowed", head.attrs_len, limits.attributes_bytes);
        return Err(Refusal::new(Code::InvalidAttributes, message));
    }
    if head.payload_len() > limits.payload_bytes { Err(too_large(limits, head)) } else { Ok(()) }
}

#[cold]
fn too_large(limits: &Limits, head: &EventHead) -> Refusal {
    let message = format!("{} bytes of payload; {} are allowed", head.payload_len(), limits.payload_bytes);
    Refusal::new(Code::PayloadTooLarge, message)
}
