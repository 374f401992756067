//! The journey of a batch of events, from the publisher's bytes to the outboxes: decode, admit, ingress filters,
//! match, egress filters, fan out, acknowledge.
//!
//! A batch is what the publisher's stream had ready; nothing waits for more. One generation judges all of it.

use crate::fanout::{Fanout, Place};
use crate::generation::Active;
use crate::ledger::Term;
use crate::local::{Local, Route, TopicEntry, unix_ns};
use crate::outbox::{Gauge, Origin};
use myelin_wire::event::{EventSpan, FLAG_REQUEST, FLAG_TTL};
use myelin_wire::frame::FrameType;
use myelin_wire::limits::{DETAIL_BYTES_MAX, TOPIC_REFS_MAX};
use myelin_wire::message::Exception;
use myelin_wire::stream::{DataDecoder, Item};
use myelin_wire::{Attrs, Code, Refusal, topic, validate_topic};
use std::rc::Rc;
use std::sync::Arc;

/// Events that are judged in one go. A bound for the latency of the first and for the scratch memory.
const BATCH_EVENTS_MAX: usize = 2048;
/// Prefix of the topics on which sessions receive answers.
pub const INBOX: &str = "$inbox/";

/// A topic that a publisher announced.
#[derive(Clone, Debug)]
enum Announced {
    /// Not announced.
    Nothing,
    /// Events may be published to it.
    Topic(Rc<TopicEntry>),
    /// Events that name it are refused.
    Refused(Code, Rc<str>),
}

/// An event that passed admission.
#[derive(Clone, Copy, Debug)]
struct Admitted {
    /// Its place in the publish stream, from 1.
    seq: u64,
    /// Where it stands in the receive buffer.
    span: EventSpan,
}

/// The publishing side of a session.
#[derive(Debug)]
pub struct Publisher {
    decoder: DataDecoder,
    topics: Vec<Announced>,
    source: Rc<TopicEntry>,
    seq: u64,
    batch: Vec<Admitted>,
    /// A topic that gets a new meaning once the batch that used the old one is through.
    redefined: Option<(u32, String)>,
    exceptions: Vec<Exception>,
    fanout: Fanout,
}

/// What a batch led to.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Cumulative sequence of the publish stream.
    pub seq: u64,
    /// Those that were not offered, by sequence.
    pub exceptions: Vec<Exception>,
    /// Subscribers that want the publisher to wait.
    pub full: Vec<Arc<Gauge>>,
}

impl Publisher {
    /// A publisher with `identity` at the beginning of its stream.
    pub fn new(local: &Local, identity: &str) -> Self {
        Self {
            decoder: DataDecoder::new(FrameType::Events, local.shared.limits.event_len_max()),
            topics: Vec::new(),
            source: local.topic(identity),
            seq: 0,
            batch: Vec::new(),
            redefined: None,
            exceptions: Vec::new(),
            fanout: Fanout::default(),
        }
    }

    /// Adds bytes of the stream.
    pub fn push(&mut self, bytes: &[u8]) {
        self.decoder.push(bytes);
    }

    /// Whether the stream may end here.
    pub fn is_at_boundary(&self) -> bool {
        self.decoder.is_at_boundary()
    }

    /// Takes the next batch from what was pushed all the way to the outboxes; `None` until more bytes come.
    ///
    /// # Errors
    /// What breaks the stream: the session ends with it.
    pub async fn publish(&mut self, local: &Local) -> Result<Option<Outcome>, Refusal> {
        let before = self.seq;
        self.admit(local)?;
        if self.seq == before {
            return Ok(None);
        }
        let active = local.active();
        let generation = active.number;
        local.ledger.add(generation, Term::Accepted, self.seq - before);
        local.ledger.add(generation, Term::Rejected, self.exceptions.len() as u64);
        local.ledger.add(generation, Term::InPipeline, self.batch.len() as u64);
        self.judge(local, &active).await;
        let mut outcome = Outcome { seq: self.seq, exceptions: std::mem::take(&mut self.exceptions), full: Vec::new() };
        outcome.exceptions.sort_unstable_by_key(|exception| exception.0);
        let origin = self.origin(local, generation);
        let received = self.decoder.take();
        self.fanout.flush(local, received, origin, &mut outcome.full).await;
        self.batch.clear();
        Ok(Some(outcome))
    }

    fn origin(&self, local: &Local, generation: u64) -> Origin {
        let source = Some(self.source.name.clone());
        Origin { source, time_ns: unix_ns(), received_ms: local.shared.now_ms(), generation, shard: local.id }
    }

    /// Decodes and admits what is there: good events go to the batch, others become exceptions.
    fn admit(&mut self, local: &Local) -> Result<(), Refusal> {
        if let Some((reference, name)) = self.redefined.take() {
            self.announce(local, reference, &name);
        }
        while self.batch.len() < BATCH_EVENTS_MAX {
            match self.decoder.poll()? {
                None => break,
                Some(Item::Event(span)) => {
                    self.seq += 1;
                    match self.check(local, &span) {
                        Ok(()) => self.batch.push(Admitted { seq: self.seq, span }),
                        Err(refusal) => self.refuse(self.seq, refusal.code, &refusal.message),
                    }
                }
                Some(Item::Oversized(head)) => {
                    self.seq += 1;
                    let message = format!(
                        "{} bytes of payload; {} are allowed",
                        head.payload_len(),
                        local.shared.limits.payload_bytes
                    );
                    self.refuse(self.seq, Code::PayloadTooLarge, &message);
                }
                Some(Item::Name { reference, name }) => {
                    let name = text(&self.decoder.buffer()[name])?.to_owned();
                    if reference >= TOPIC_REFS_MAX {
                        let message =
                            format!("topic reference {reference} is over the limit of {}", TOPIC_REFS_MAX - 1);
                        return Err(Refusal::new(Code::UnknownTopicRef, message));
                    }
                    let in_use = self.batch.iter().any(|event| event.span.head.topic_ref == reference);
                    if in_use {
                        self.redefined = Some((reference, name));
                        break;
                    }
                    self.announce(local, reference, &name);
                }
                Some(Item::Stamp(_)) => {
                    return Err(Refusal::new(Code::OutOfOrder, "a DELIVER frame does not belong on a publish stream"));
                }
            }
        }
        Ok(())
    }

    fn announce(&mut self, local: &Local, reference: u32, name: &str) {
        let meaning = match validate_topic(name) {
            Err(error) => Announced::Refused(Code::InvalidTopic, Rc::from(error.to_string())),
            Ok(()) if topic::is_reserved(name) && !name.starts_with(INBOX) => {
                Announced::Refused(Code::ReservedTopic, Rc::from("topics that begin with `$` belong to the router"))
            }
            Ok(()) => Announced::Topic(local.topic(name)),
        };
        let at = reference as usize;
        if self.topics.len() <= at {
            self.topics.resize(at + 1, Announced::Nothing);
        }
        self.topics[at] = meaning;
    }

    /// What can be said against an event before any filter sees it.
    #[inline]
    fn check(&self, local: &Local, span: &EventSpan) -> Result<(), Refusal> {
        let limits = &local.shared.limits;
        let head = &span.head;
        match self.topics.get(head.topic_ref as usize) {
            Some(Announced::Topic(_)) => {}
            Some(Announced::Refused(code, why)) => return Err(Refusal::new(*code, why.to_string())),
            _ => {
                let message = format!("topic reference {} was not announced", head.topic_ref);
                return Err(Refusal::new(Code::UnknownTopicRef, message));
            }
        }
        if head.payload_len() > limits.payload_bytes {
            let message = format!("{} bytes of payload; {} are allowed", head.payload_len(), limits.payload_bytes);
            return Err(Refusal::new(Code::PayloadTooLarge, message));
        }
        if head.attrs_len == 0 && head.flags & FLAG_TTL == 0 { Ok(()) } else { self.check_attrs(local, span) }
    }

    fn check_attrs(&self, local: &Local, span: &EventSpan) -> Result<(), Refusal> {
        let limits = &local.shared.limits;
        if span.head.attrs_len > limits.attributes_bytes {
            let message =
                format!("{} bytes of attributes; {} are allowed", span.head.attrs_len, limits.attributes_bytes);
            return Err(Refusal::new(Code::InvalidAttributes, message));
        }
        let block = span.attrs(self.decoder.buffer());
        myelin_wire::attrs::validate(block, usize::from(limits.headers))
            .map_err(|error| Refusal::new(Code::InvalidAttributes, error.to_string()))?;
        if Attrs::new(block).ttl_ms().is_some() != (span.head.flags & FLAG_TTL != 0) {
            return Err(Refusal::new(
                Code::InvalidAttributes,
                "flag bit 0 must be set exactly where tag 9 (ttl) is present",
            ));
        }
        Ok(())
    }

    fn refuse(&mut self, seq: u64, code: Code, detail: &str) {
        let end = detail.floor_char_boundary(DETAIL_BYTES_MAX);
        self.exceptions.push(Exception(seq, code, detail[..end].to_owned()));
    }

    /// Judges the batch: what goes on is in the fan-out afterwards, the rest among the exceptions.
    async fn judge(&mut self, local: &Local, active: &Rc<Active>) {
        let mut at = 0;
        while at < self.batch.len() {
            let topic_ref = self.batch[at].span.head.topic_ref;
            let Some(Announced::Topic(topic)) = self.topics.get(topic_ref as usize) else { break };
            let topic = topic.clone();
            let route = local.route(&topic, active);
            let same = self.batch[at..].iter().take_while(|event| event.span.head.topic_ref == topic_ref).count();
            self.pass(local, active.number, &topic, &route, at..at + same);
            at += same;
        }
    }

    /// Events of one topic that no filter is bound to.
    #[inline]
    fn pass(
        &mut self,
        local: &Local,
        generation: u64,
        topic: &TopicEntry,
        route: &Rc<Route>,
        events: std::ops::Range<usize>,
    ) {
        let all = events.len() as u64;
        let (mut expired, wanted) = (0, route.copies > 0);
        for at in events {
            let Admitted { seq, span } = self.batch[at];
            if span.head.flags != 0 {
                if span.head.flags & FLAG_TTL != 0 && Attrs::new(span.attrs(self.decoder.buffer())).ttl_ms() == Some(0)
                {
                    self.refuse(seq, Code::Expired, "the time to live was 0");
                    expired += 1;
                    continue;
                }
                if span.head.flags & FLAG_REQUEST != 0 && !wanted {
                    self.refuse(seq, Code::NoResponder, "nobody subscribes to this topic");
                }
            }
            if wanted {
                self.decoder.patch_topic_ref(&span, topic.name.reference);
                let std::ops::Range { start, end } = span.range();
                self.fanout.push(local, route, topic, Place::Received, start, end, span.head.flags & FLAG_TTL != 0);
            }
        }
        let term = if wanted { Term::Matched } else { Term::Unmatched };
        local.ledger.sub(generation, Term::InPipeline, all);
        local.ledger.add(generation, Term::Expired, expired);
        local.ledger.add(generation, term, all - expired);
    }
}

fn text(bytes: &[u8]) -> Result<&str, Refusal> {
    std::str::from_utf8(bytes).map_err(|_| Refusal::new(Code::Malformed, "an announced name is not UTF-8"))
}
