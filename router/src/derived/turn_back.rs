//! Events that their topic's schema holds back.

use super::{Derived, Judge, REASON_BYTES_MAX, Seen, Verdicts};
use crate::hops;
use crate::ledger::Term;
use crate::screen::{ADMISSION, Screen, Violation};
use bytes::Bytes;
use myelin_catalog::OnInvalid;
use myelin_engine::EventView;
use myelin_mesh::SiteSet;
use myelin_wire::{Attrs, AttrsBuilder, Code};
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
        let letter = (screen.on_invalid() == OnInvalid::DeadLetter).then(|| self.letter(ADMISSION, event));
        let code = match letter {
            None | Some(Err(_)) => {
                ledger.add(generation, Term::Rejected, 1);
                let unburied = letter.and_then(Result::err).map(|why| format!(" ({why})")).unwrap_or_default();
                // Not where and what: names of members are of the payload, and who reads traces need not see any.
                let why = format!("rule {}{unburied}", screen.rule());
                hops::not_allowed(self.local, verdicts.watch.as_deref_mut(), event, seq, (Code::SchemaViolation, &why));
                Code::SchemaViolation
            }
            Some(Ok(letter)) => {
                ledger.add(generation, Term::DeadLettered, 1);
                if let Some(watch) = &mut verdicts.watch {
                    let why = format!("{}: rule {}", Code::SchemaViolation.name(), screen.rule());
                    hops::ended(self.local, watch, event, seq, ("dead-letter", &why));
                }
                self.bury_violation(letter, (screen, violation), event, within, verdicts);
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
        topic: String,
        (screen, violation): (&Screen, &Violation),
        event: &EventView<'_>,
        within: Option<SiteSet>,
        verdicts: &mut Verdicts,
    ) {
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
