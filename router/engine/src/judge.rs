//! Checks a filter's answer as if an enemy had written it.

use std::sync::Arc;

use myelin_arena::{Arena, Entry, Kind, Verdict, attrs};

use crate::fault::FilterFault;
use crate::filter::Outcome;
use crate::grant::Grant;
use crate::info::{FilterInfo, RouteTarget};
use crate::limits::{DETAIL_BYTES_MAX, EMITTED_MAX, OUTPUT_ATTRS_BYTES_MAX, OUTPUT_HEADERS_MAX};

/// What a filter has promised and what its binding allows it.
#[derive(Clone, Debug)]
pub(crate) struct Contract {
    pub(crate) info: Arc<FilterInfo>,
    pub(crate) grant: Grant,
}

impl Contract {
    /// Checks everything that `outcome` says about `count` events. After that, reading it cannot fail.
    ///
    /// A batch that is allowed as a whole costs one pass over its verdicts.
    pub(crate) fn check(&self, outcome: &Outcome, count: usize) -> Result<(), FilterFault> {
        let verdicts = &outcome.verdicts;
        if verdicts.len() != count {
            return Err(FilterFault::malformed(format!("{} verdicts for {count} events", verdicts.len())));
        }
        if outcome.output.is_empty() && verdicts.iter().all(|verdict| *verdict == Verdict::ALLOW.0) {
            return Ok(());
        }
        let entries: usize = verdicts.iter().map(|verdict| Verdict(*verdict).output_entries()).sum();
        let arena = self.output(outcome, entries)?;
        let mut next = 0;
        for (event, verdict) in verdicts.iter().enumerate() {
            self.check_event(Verdict(*verdict), arena.as_ref(), &mut next)
                .map_err(|what| FilterFault::malformed(format!("event {event} of {count}: {what}")))?;
        }
        Ok(())
    }

    /// The output as an arena with exactly `entries` entries.
    fn output<'a>(&self, outcome: &'a Outcome, entries: usize) -> Result<Option<Arena<'a>>, FilterFault> {
        if outcome.output.is_empty() && entries == 0 {
            return Ok(None);
        }
        let arena = Arena::new(&outcome.output).map_err(|e| FilterFault::malformed(format!("the output: {e}")))?;
        if arena.len() != entries {
            let said = format!("the verdicts announce {entries} output entries, the output has {}", arena.len());
            return Err(FilterFault::malformed(said));
        }
        Ok(Some(arena))
    }

    /// Whether one of the routes is a topic.
    fn names_topic(&self, routes: u32) -> bool {
        let mut set = self.info.routes.iter().enumerate().filter(|(bit, _)| routes >> bit & 1 == 1);
        set.any(|(_, route)| matches!(route, RouteTarget::Topic(_)))
    }

    fn check_event(&self, verdict: Verdict, arena: Option<&Arena<'_>>, next: &mut usize) -> Result<(), String> {
        verdict.check(self.info.reasons.len(), self.info.routes.len()).map_err(|e| e.to_string())?;
        if verdict.kind() == Ok(Kind::Add) && !self.names_topic(verdict.routes()) {
            return Err("it adds no topic: sites narrow down where the topics of the same verdict go".to_owned());
        }
        let mut bytes = 0;
        let mut take = || {
            let entry = arena.ok_or("the output is missing")?.entry(*next).map_err(|e| e.to_string())?;
            *next += 1;
            bytes += entry.topic.len() + entry.attrs.len() + entry.payload.len();
            Ok::<_, String>(entry)
        };
        if verdict.replaces_payload() || verdict.replaces_attrs() {
            check_replacement(verdict, &take()?)?;
        }
        if verdict.has_detail() {
            check_detail(&take()?)?;
        }
        if usize::from(verdict.emitted()) > EMITTED_MAX {
            return Err(format!("{} emitted events: at most {EMITTED_MAX} for one event", verdict.emitted()));
        }
        for _ in 0..verdict.emitted() {
            let entry = take()?;
            self.grant.check_emitted(entry.topic)?;
            check_attrs(entry.attrs)?;
        }
        let promised = self.info.max_output;
        if bytes > promised as usize {
            return Err(format!("{bytes} bytes of output: the filter declared at most {promised}"));
        }
        Ok(())
    }
}

fn check_replacement(verdict: Verdict, entry: &Entry<'_>) -> Result<(), String> {
    if !entry.topic.is_empty() {
        return Err("a replacement names a topic".into());
    }
    if !verdict.replaces_payload() && !entry.payload.is_empty() {
        return Err("a replacement holds a payload that the verdict does not announce".into());
    }
    if !verdict.replaces_attrs() && !entry.attrs.is_empty() {
        return Err("a replacement holds attributes that the verdict does not announce".into());
    }
    check_attrs(entry.attrs)
}

fn check_detail(entry: &Entry<'_>) -> Result<(), String> {
    if !entry.topic.is_empty() || !entry.attrs.is_empty() {
        return Err("a detail holds more than its text".into());
    }
    if entry.payload.len() > DETAIL_BYTES_MAX {
        return Err(format!("a detail of {} bytes: at most {DETAIL_BYTES_MAX} are allowed", entry.payload.len()));
    }
    std::str::from_utf8(entry.payload).map_err(|_| "a detail is not UTF-8")?;
    Ok(())
}

fn check_attrs(block: &[u8]) -> Result<(), String> {
    if block.len() > OUTPUT_ATTRS_BYTES_MAX {
        return Err(format!("{} bytes of attributes: at most {OUTPUT_ATTRS_BYTES_MAX} are allowed", block.len()));
    }
    attrs::validate(block, OUTPUT_HEADERS_MAX).map_err(|e| format!("its attributes: {e}"))
}

#[cfg(test)]
mod tests {
    use myelin_arena::{ArenaBuilder, Kind};
    use myelin_wire::topic::Pattern;

    use super::*;
    use crate::info::RouteTarget;

    fn contract() -> Contract {
        let info = FilterInfo {
            routes: vec![RouteTarget::parse("topic:audit/log").expect("route")],
            reasons: vec!["first".into(), "second".into()],
            max_output: 64,
            ..FilterInfo::default()
        };
        let grant = Grant::new(vec![Pattern::new("audit/**").expect("pattern")], vec![]);
        Contract { info: Arc::new(info), grant }
    }

    fn entry<'a>(topic: &'a str, attrs: &'a [u8], payload: &'a [u8]) -> Entry<'a> {
        Entry { topic, attrs, payload, payload_total: 0, identity: None }
    }

    fn output(entries: &[Entry<'_>]) -> Vec<u8> {
        let mut builder = ArenaBuilder::new(entries.len());
        entries.iter().for_each(|entry| builder.push(entry));
        builder.into_bytes()
    }

    /// The complaint about one verdict with these output entries.
    fn complaint(verdict: Verdict, entries: &[Entry<'_>]) -> Option<String> {
        let output = if entries.is_empty() { Vec::new() } else { output(entries) };
        let outcome = Outcome { verdicts: vec![verdict.0], output, ..Outcome::default() };
        contract().check(&outcome, 1).err().map(|fault| fault.detail)
    }

    #[test]
    fn an_honest_answer_passes() {
        let allow = Verdict::ALLOW;
        assert_eq!(complaint(allow, &[]), None);
        assert_eq!(complaint(Verdict::of(Kind::Add).with_routes(1), &[]), None);
        assert_eq!(complaint(allow.with_replacement(true, true), &[entry("", b"\x05\x01\0k", b"new")]), None);
        let denied = Verdict::of(Kind::Deny).with_reason(1).with_detail().with_emitted(1);
        assert_eq!(complaint(denied, &[entry("", b"", b"/id"), entry("audit/log", b"", b"x")]), None);
    }

    #[test]
    fn every_lie_is_named() {
        let allow = Verdict::ALLOW;
        let lie = |verdict, entries: &[Entry<'_>]| complaint(verdict, entries).expect("refused");
        assert!(lie(Verdict(6), &[]).contains("kind"));
        assert!(lie(allow.with_emitted(1), &[]).contains("output"), "announced and missing");
        assert!(lie(allow, &[entry("audit/log", b"", b"")]).contains("announce 0"), "surplus");
        assert!(lie(allow.with_emitted(1), &[entry("orders", b"", b"")]).contains("grant"));
        assert!(lie(allow.with_emitted(1), &[entry("audit/*", b"", b"")]).contains("emitted"));
        assert!(lie(allow.with_emitted(1), &[entry("audit/a", b"\xff\0\0", b"")]).contains("attributes"));
        assert!(lie(allow.with_emitted(1), &[entry("audit/a", b"", &[0; 65])]).contains("64"));
        assert!(lie(allow.with_replacement(true, false), &[entry("t", b"", b"")]).contains("topic"));
        assert!(lie(allow.with_replacement(true, false), &[entry("", b"\x05\0\0", b"")]).contains("attributes"));
        assert!(lie(allow.with_replacement(false, true), &[entry("", b"", b"x")]).contains("payload"));
        assert!(lie(Verdict::of(Kind::Deny).with_detail(), &[entry("", b"", b"\xff")]).contains("UTF-8"));
        let short = Outcome { verdicts: vec![0], ..Outcome::default() };
        assert!(contract().check(&short, 2).expect_err("short").detail.contains("1 verdicts for 2"));
        let torn = Outcome { verdicts: vec![0], output: vec![9; 20], ..Outcome::default() };
        assert!(contract().check(&torn, 1).expect_err("torn").detail.contains("output"));
    }

    #[test]
    fn no_flipped_byte_of_an_output_panics() {
        let verdict = Verdict::of(Kind::Deny).with_reason(1).with_detail().with_emitted(1);
        let good = output(&[entry("", b"", b"/id"), entry("audit/log", b"\x05\x01\0k", b"x")]);
        for at in 0..good.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut output = good.clone();
                output[at] = value;
                let outcome = Outcome { verdicts: vec![verdict.0], output, ..Outcome::default() };
                drop(contract().check(&outcome, 1));
            }
        }
    }
}
