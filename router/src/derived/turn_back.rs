//! Events that their topic's schema holds back.

use super::{DEAD_LETTERS_USED_UP, Derived, Judge, REASON_BYTES_MAX, Seen, Verdicts};
use crate::hops;
use crate::ledger::Term;
use crate::residency::DEAD_LETTERS;
use crate::screen::{ADMISSION, Screen, Violation};
use bytes::Bytes;
use myelin_catalog::OnInvalid;
use myelin_engine::EventView;
use myelin_mesh::SiteSet;
use myelin_wire::{Attrs, AttrsBuilder, Code, validate_topic};
use std::sync::Arc;

impl Judge<'_> {
    /// Refuses an event, or makes a dead letter of it, as its rule says: counted, traced, and told to its publisher.
    pub fn turn_back(
        &self,
        screen: &Screen,
        violation: &Violation,
        event: &EventView<'_>,
        (seq, within): (Option<u64>, Option<SiteSet>),
        verdicts: &mut Verdicts,
    ) {
        let (ledger, generation) = (&self.local.ledger, self.active.number);
        let detail = violation.detail();
        screen.held_back();
        ledger.sub(generation, Term::InPipeline, 1);
        let is_buried = screen.on_invalid() == OnInvalid::DeadLetter && self.may_bury();
        let code = match is_buried {
            false => {
                ledger.add(generation, Term::Rejected, 1);
                let beyond = screen.on_invalid() == OnInvalid::DeadLetter;
                let used_up = if beyond { format!(" ({DEAD_LETTERS_USED_UP})") } else { String::new() };
                let why = format!("rule {}: {detail}{used_up}", screen.rule());
                hops::not_allowed(self.local, verdicts.watch.as_deref_mut(), event, seq, (Code::SchemaViolation, &why));
                Code::SchemaViolation
            }
            true => {
                ledger.add(generation, Term::DeadLettered, 1);
                if let Some(watch) = &mut verdicts.watch {
                    let why = format!("{}: rule {}: {detail}", Code::SchemaViolation.name(), screen.rule());
                    hops::ended(self.local, watch, event, seq, ("dead-letter", &why));
                }
                self.bury_violation(screen, violation, event, within, verdicts);
                Code::DeadLettered
            }
        };
        if let Some(seq) = seq {
            verdicts.exceptions.push((seq, code, detail));
        }
    }

    /// The event under `$dead/admission/<topic>`, with the reason in its headers.
    fn bury_violation(
        &self,
        screen: &Screen,
        violation: &Violation,
        event: &EventView<'_>,
        within: Option<SiteSet>,
        verdicts: &mut Verdicts,
    ) {
        let topic = format!("{DEAD_LETTERS}{ADMISSION}/{}", event.topic);
        // A topic at the limit has no room for the prefix: its dead letters share one topic.
        let topic = if validate_topic(&topic).is_ok() { topic } else { format!("{DEAD_LETTERS}{ADMISSION}") };
        let why = format!("{}: {}", Code::SchemaViolation.name(), violation.detail());
        let mut attrs = AttrsBuilder::new();
        Attrs::new(event.attrs).iter().filter(|attr| !attr.name.starts_with("myelin-")).for_each(|attr| {
            attrs.attr(&attr);
        });
        attrs
            .header("myelin-reason", &why[..why.floor_char_boundary(REASON_BYTES_MAX)])
            .header("myelin-path", &violation.path)
            .header("myelin-rule", screen.rule())
            .header("myelin-schema", &violation.schema[..violation.schema.floor_char_boundary(REASON_BYTES_MAX)])
            .header("myelin-generation", &self.active.number.to_string())
            .header("myelin-topic", event.topic);
        self.local.ledger.add(self.active.number, Term::Emitted, 1);
        self.local.ledger.add(self.active.number, Term::InPipeline, 1);
        tracing::debug!(rule = screen.rule(), why, topic = event.topic, "dead letter");
        verdicts.derived.push_back(Derived {
            topic: Arc::from(topic),
            attrs: Bytes::from(attrs.into_bytes()),
            payload: Bytes::copy_from_slice(event.payload),
            depth: 1,
            seen: Seen::new(),
            within,
            seq: None,
            is_dead_letter: true,
        });
    }
}
