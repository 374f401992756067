//! What `myelin replay` says, to people and to programs.

use super::judge::{Place, Selection};
use crate::capture::{Batch, Data, Recording};
use crate::cli::failure::{Exit, Failure, Result};
use crate::cli::listing::{shown, table};
use crate::cli::trial::short;
use crate::compare::{Difference, Told, Transitions};
use myelin_engine::{FilterInfo, PayloadNeed};
use serde_json::{Value, json};
use std::fmt::Write;

/// Pairs of old and new verdicts that are told apart; further ones are counted together. A filter may make up reasons.
const TRANSITIONS_MAX: usize = 200;

/// What two say about the same events.
pub(super) struct Comparison {
    samples_max: usize,
    /// Events that were asked for and judged.
    pub(super) events: u64,
    pub(super) changed: u64,
    pub(super) not_recorded: u64,
    /// By what was said before and now.
    transitions: Transitions,
    samples: Vec<Value>,
}

impl Comparison {
    pub(super) fn new(samples_max: usize) -> Self {
        let (transitions, samples) = (Transitions::new(TRANSITIONS_MAX), Vec::new());
        Self { samples_max, events: 0, changed: 0, not_recorded: 0, transitions, samples }
    }

    /// Compares what is said about one judgement's events. Those that only stood beside the others do not count.
    pub(super) fn add(&mut self, batch: &Batch, place: Place<'_>, old: &[Told], new: &[Told]) {
        for (at, (old, new)) in old.iter().zip(new).enumerate() {
            let event = place.map_or(at, |judged| judged.events[at].event);
            if batch.events[event].matched {
                self.one(batch, event, old, new);
            }
        }
    }

    fn one(&mut self, batch: &Batch, event: usize, old: &Told, new: &Told) {
        self.events += 1;
        let Some(difference) = Difference::between(old, new) else { return };
        let is_unknown = [old, new].iter().any(|told| matches!(told, Told::NotRecorded(_)));
        *if is_unknown { &mut self.not_recorded } else { &mut self.changed } += 1;
        self.transitions.count(&difference);
        let Difference { from, to, fields } = difference;
        if self.samples.len() < self.samples_max {
            let topic = &batch.events[event].topic;
            self.samples.push(json!({
                "batch": batch.number, "event": event, "topic": topic, "from": from, "to": to, "differs": fields,
                "payload": batch.events[event].payload, "old": full(old), "new": full(new),
            }));
        }
    }
}

fn full(told: &Told) -> Value {
    match told {
        Told::Verdict(verdict) => json!({ "verdict": verdict }),
        Told::Fault(code) => json!({ "fault": code }),
        Told::NotRecorded(question) => json!({ "not_recorded": question }),
    }
}

/// Why the comparison may show differences that do not come from the module, or miss some that do.
pub(super) fn warnings(recording: &Recording, selection: Selection<'_>, info: &FilterInfo) -> Vec<String> {
    let (redaction, needs) = (&recording.redaction, &info.needs);
    let mut warnings = Vec::new();
    let mut reads_redacted = |what: String| {
        warnings.push(format!("the module reads {what}, which the capture leaves out: it judges `[redacted]` instead"));
    };
    if redaction.hides_payload() && needs.payload != PayloadNeed::None {
        reads_redacted("the payload".into());
    }
    if redaction.hides_identity() && needs.identity {
        reads_redacted("the identity".into());
    }
    let hidden: Vec<_> = needs.headers.iter().filter(|name| redaction.hides_header(name)).collect();
    for name in hidden {
        reads_redacted(format!("the header `{name}`"));
    }
    let batches = || recording.batches.iter();
    let cut = batches().filter(|batch| batch.cut).count();
    if cut > 0 {
        warnings.push(format!(
            "{cut} batches are without the neighbours of their events: exact only for filters that look at each event for itself"
        ));
    }
    if recording.head.sample.is_some() || recording.end.evicted > 0 {
        let what =
            "not every event is in the capture: a filter that remembers events knew more than this replay shows it";
        warnings.push(what.into());
    }
    let faulted = |batch: &&Batch| {
        let judged = selection.of(recording, batch).into_iter().flatten();
        judged.flat_map(|judged| &judged.events).any(|said| said.fault.is_some())
    };
    if batches().any(|batch| faulted(&batch)) {
        let what = "the filter has faulted in the capture: it lost then what it remembered, and what it had asked its host is not recorded";
        warnings.push(what.into());
    }
    warnings
}

/// The whole of it.
pub(super) struct Report<'a> {
    pub(super) recording: &'a Recording,
    pub(super) selection: Selection<'a>,
    /// Name and digest of the module that is tried.
    pub(super) new: (&'a str, &'a str),
    /// Of the one that it is compared with; none where that is what was said then.
    pub(super) old: Option<(&'a str, &'a str)>,
    pub(super) warnings: Vec<String>,
    pub(super) comparison: Comparison,
}

impl Report<'_> {
    fn same(&self) -> u64 {
        let Comparison { events, changed, not_recorded, .. } = self.comparison;
        events - changed - not_recorded
    }

    /// Whether all is as it was.
    ///
    /// # Errors
    /// Where it is not.
    pub(super) fn verdict(&self) -> Result<()> {
        let Comparison { events, changed, not_recorded, .. } = self.comparison;
        if events == 0 {
            return Err(Failure::new(Exit::GateFailed, "the capture holds no event that could show a difference")
                .next("capture while events are published"));
        }
        if changed + not_recorded == 0 {
            return Ok(());
        }
        let what = format!("of {events} events {changed} are judged otherwise, and {not_recorded} are not recorded");
        Err(Failure::new(Exit::GateFailed, what).next("look at the samples; without --fail-on-diff this is no failure"))
    }

    /// The modules that judged then.
    fn judged_then(&self) -> Vec<Value> {
        let Selection::Binding(name) = self.selection else { return Vec::new() };
        let bindings = self.recording.bindings.iter().filter(|bound| bound.name == name);
        bindings.map(|bound| json!({ "module": bound.module, "digest": bound.digest })).collect()
    }

    /// For programs.
    pub(super) fn json(&self) -> Value {
        let Comparison { events, changed, not_recorded, transitions, samples, .. } = &self.comparison;
        let transitions: Vec<_> =
            transitions.iter().map(|(from, to, count)| json!({ "from": from, "to": to, "count": count })).collect();
        let head = &self.recording.head;
        let binding = if let Selection::Binding(name) = self.selection { Some(name) } else { None };
        json!({
            "capture": { "id": head.id, "site": head.site, "router": head.router, "pattern": head.pattern,
                "started_unix_ms": head.started_unix_ms, "redacted": head.redacted },
            "binding": binding,
            "recorded": self.judged_then(),
            "new": { "module": self.new.0, "digest": self.new.1 },
            "old": self.old.map(|(module, digest)| json!({ "module": module, "digest": digest })),
            "events": events, "same": self.same(), "changed": changed, "not_recorded": not_recorded,
            "transitions": transitions, "samples": samples, "warnings": self.warnings,
        })
    }

    /// For people.
    pub(super) fn text(&self) -> String {
        let Comparison { events, changed, not_recorded, transitions, samples, .. } = &self.comparison;
        let mut text = String::new();
        let place = match self.selection {
            Selection::Binding(name) => format!("in the place of the binding {name}"),
            Selection::Unjudged => "on events that no binding judged".to_owned(),
        };
        let old = self.old.map_or_else(|| "what was said then".to_owned(), |(name, _)| name.to_owned());
        let _ = writeln!(text, "{} {place}, against {old}", shown(self.new.0));
        let same = self.same();
        let _ = writeln!(text, "events {events}: {same} as before, {changed} otherwise, {not_recorded} not recorded");
        if transitions.iter().next().is_some() {
            let rows = transitions.iter().map(|(from, to, count)| vec![short(from), short(to), count.to_string()]);
            let _ = write!(text, "\n{}", table(&["before", "now", "events"], &["events"], rows));
        }
        for sample in samples {
            let payload = serde_json::from_value::<Data>(sample["payload"].clone()).unwrap_or_default();
            let _ = writeln!(
                text,
                "\nbatch {} event {} {}  {}\n  before  {}\n  now     {}",
                sample["batch"],
                sample["event"],
                short(sample["topic"].as_str().unwrap_or_default()),
                short(&String::from_utf8_lossy(&payload.0)),
                short(&sample["old"].to_string()),
                short(&sample["new"].to_string()),
            );
        }
        for warning in &self.warnings {
            let _ = write!(text, "\nnote: {warning}");
        }
        if !self.warnings.is_empty() {
            text.push('\n');
        }
        text
    }
}
