//! Reading a capture's file: everything in it is checked before anything of it is used.

use super::data::{Attribute, packed};
use super::file::{Batch, Bound, Call, End, Event, FORMAT, Head, Line, Said};
use super::redact::Redaction;
use myelin_engine::limits::{BATCH_BYTES_MAX, BATCH_EVENTS_MAX};
use myelin_engine::{Batch as EngineBatch, EventView, HostAnswer, HostCall, Question};
use serde::Deserialize;

/// Largest file that is read: twice what a router keeps of one capture, so that a later router may keep more.
pub const FILE_BYTES_MAX: u64 = 64 << 20;
/// Bindings in one file.
pub(super) const BINDINGS_MAX: usize = 256;
/// Headers of one event: more than a router lets through.
const HEADERS_MAX: usize = 1_024;

/// Why a file is no capture.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It is too large.
    #[error("the file has {0} bytes; at most {FILE_BYTES_MAX} are read")]
    TooLarge(u64),
    /// It is something else.
    #[error("the file is no capture: {0}; `myelin capture fetch` writes one")]
    Format(String),
    /// Another version has written it.
    #[error("the capture has format {0}, this program reads {FORMAT}; use the `myelin` of the router that wrote it")]
    Version(u64),
    /// One of its lines does not hold.
    #[error("line {line} of the capture: {what}")]
    Line {
        /// Which, from 1.
        line: usize,
        /// What is wrong with it.
        what: String,
    },
    /// It ends too early.
    #[error("the capture was cut off after line {0}: it has no `end`; fetch it again")]
    Truncated(usize),
}

impl ReadError {
    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::TooLarge(_) => "capture-too-large",
            Self::Format(_) => "capture-format",
            Self::Version(_) => "capture-version",
            Self::Line { .. } => "capture-invalid",
            Self::Truncated(_) => "capture-truncated",
        }
    }
}

/// A capture that was read and checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Recording {
    /// What was captured.
    pub head: Head,
    /// What was taken out.
    pub redaction: Redaction,
    /// The bindings that judged.
    pub bindings: Vec<Bound>,
    /// The batches.
    pub batches: Vec<Batch>,
    /// How it stood.
    pub end: End,
}

/// The version, before anything else is believed.
#[derive(Deserialize)]
struct Probe {
    capture: Version,
}

#[derive(Deserialize)]
struct Version {
    format: u64,
}

impl Recording {
    /// Reads a file.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn read(bytes: &[u8]) -> Result<Self, ReadError> {
        let size = bytes.len() as u64;
        if size > FILE_BYTES_MAX {
            return Err(ReadError::TooLarge(size));
        }
        let mut lines = bytes.split_inclusive(|byte| *byte == b'\n').enumerate();
        let (_, first) = lines.next().ok_or_else(|| ReadError::Format("it is empty".into()))?;
        let (head, redaction) = head(first)?;
        let (mut bindings, mut batches, mut count) = (Vec::new(), Vec::new(), 1);
        for (at, line) in lines {
            count = at + 1;
            let wrong = |what: String| ReadError::Line { line: count, what };
            if !line.ends_with(b"\n") {
                return Err(ReadError::Truncated(at));
            }
            match serde_json::from_slice(line).map_err(|error| wrong(error.to_string()))? {
                Line::Capture(_) => return Err(wrong("a second head".into())),
                Line::Binding(_) if !batches.is_empty() => return Err(wrong("a binding after a batch".into())),
                Line::Binding(_) if bindings.len() == BINDINGS_MAX => {
                    return Err(wrong(format!("more than {BINDINGS_MAX} bindings")));
                }
                Line::Binding(bound) => bindings.push(bound),
                Line::Batch(batch) => {
                    check(&batch, bindings.len()).map_err(wrong)?;
                    batches.push(batch);
                }
                Line::End(end) if count_lines(bytes) != count => {
                    return Err(wrong(format!("something follows the end, which says `{}`", shown(&end.state))));
                }
                Line::End(end) => {
                    let events = batches.iter().map(Batch::matched).sum::<usize>() as u64;
                    if (end.batches, end.events) != (batches.len() as u64, events) {
                        let what = "the end counts other batches or events than there are";
                        return Err(wrong(what.into()));
                    }
                    return Ok(Self { head, redaction, bindings, batches, end });
                }
            }
        }
        Err(ReadError::Truncated(count))
    }
}

fn count_lines(bytes: &[u8]) -> usize {
    bytes.split_inclusive(|byte| *byte == b'\n').count()
}

fn head(line: &[u8]) -> Result<(Head, Redaction), ReadError> {
    let probe: Probe =
        serde_json::from_slice(line).map_err(|error| ReadError::Format(format!("its first line: {error}")))?;
    if probe.capture.format != u64::from(FORMAT) {
        return Err(ReadError::Version(probe.capture.format));
    }
    let wrong = |what: String| ReadError::Line { line: 1, what };
    match serde_json::from_slice(line).map_err(|error| wrong(error.to_string()))? {
        Line::Capture(head) => {
            let redaction = Redaction::new(head.redacted.iter().map(String::as_str)).map_err(wrong)?;
            Ok((head, redaction))
        }
        _ => Err(wrong("the first line is no head".into())),
    }
}

/// The beginning of a text that may be anything.
fn shown(text: &str) -> String {
    text.chars().take(20).flat_map(char::escape_debug).collect()
}

fn check(batch: &Batch, bindings: usize) -> Result<(), String> {
    if batch.events.is_empty() || batch.events.len() > BATCH_EVENTS_MAX {
        return Err(format!("a batch of {} events; 1 to {BATCH_EVENTS_MAX} are possible", batch.events.len()));
    }
    for (at, event) in batch.events.iter().enumerate() {
        myelin_wire::validate_topic(&event.topic).map_err(|error| format!("the topic of event {at}: {error}"))?;
        block(&event.attrs).map_err(|what| format!("the attributes of event {at}: {what}"))?;
    }
    // One alone may be larger than a batch of several.
    let whole: Vec<usize> = (0..batch.events.len()).collect();
    batch.with_views(&whole.iter().map(|at| (*at, None)).collect::<Vec<_>>(), fits)??;
    for judged in &batch.judged {
        if judged.binding >= bindings {
            return Err(format!("binding {} of {bindings}", judged.binding));
        }
        let mut before = None;
        for said in &judged.events {
            if said.event >= batch.events.len() || before.is_some_and(|before| before >= said.event) {
                return Err(format!("event {} of {}, or out of order", said.event, batch.events.len()));
            }
            before = Some(said.event);
            if let Some(attrs) = &said.attrs {
                block(attrs).map_err(|what| format!("the attributes that a binding saw: {what}"))?;
            }
        }
        batch.with_views(&judged.seen(), fits)??;
    }
    Ok(())
}

fn fits(views: &[EventView<'_>]) -> Result<(), String> {
    let size = |view: &EventView<'_>| view.topic.len() + view.attrs.len() + view.payload.len() + view.identity.len();
    match EngineBatch::new(views, 0, 0) {
        Ok(_) => Ok(()),
        // What redaction puts in the place of short values may make a batch a little larger than it was.
        Err(_) if views.len() <= BATCH_EVENTS_MAX && views.iter().map(size).sum::<usize>() <= 2 * BATCH_BYTES_MAX => {
            Ok(())
        }
        Err(error) => Err(error.to_string()),
    }
}

fn block(attributes: &[Attribute]) -> Result<Vec<u8>, String> {
    let block = packed(attributes)?;
    myelin_wire::attrs::validate(&block, HEADERS_MAX).map_err(|error| error.to_string())?;
    Ok(block)
}

/// Events of a batch, each with what a binding saw of it instead, where that was something else.
pub type SeenEvents<'a> = Vec<(usize, Option<&'a Said>)>;

impl super::file::Judged {
    /// What the binding saw.
    pub fn seen(&self) -> SeenEvents<'_> {
        self.events.iter().map(|said| (said.event, Some(said))).collect()
    }
}

impl Batch {
    /// How many of its events were asked for.
    pub fn matched(&self) -> usize {
        self.events.iter().filter(|event| event.matched).count()
    }

    /// Lends `seen` as the engine takes events.
    ///
    /// # Errors
    /// Where attributes do not fit a block: never, once the file was checked.
    pub fn with_views<T>(
        &self,
        seen: &[(usize, Option<&Said>)],
        work: impl FnOnce(&[EventView<'_>]) -> T,
    ) -> Result<T, String> {
        let blocks = seen.iter().map(|(event, said)| {
            let seen = said.and_then(|said| said.attrs.as_ref());
            packed(seen.unwrap_or(&self.events[*event].attrs))
        });
        let blocks: Vec<_> = blocks.collect::<Result<_, _>>()?;
        let views = seen.iter().zip(&blocks).map(|((event, said), attrs)| {
            let Event { topic, payload, identity, .. } = &self.events[*event];
            let payload = said.and_then(|said| said.payload.as_ref()).unwrap_or(payload);
            EventView { topic, attrs, payload: &payload.0, identity }
        });
        let views: Vec<_> = views.collect();
        Ok(work(&views))
    }
}

impl From<&Call> for HostCall {
    fn from(call: &Call) -> Self {
        let (question, answer) = match call.clone() {
            Call::Schema { subject, answer } => {
                (Question::Schema { subject }, HostAnswer::Schema(answer.map(|schema| schema.0)))
            }
            Call::Take { bucket, n, amount, period_ms, burst, answer } => {
                (Question::Take { bucket, n, amount, period_ms, burst }, HostAnswer::Flag(answer))
            }
            Call::Seen { key, ttl_ms, answer } => (Question::Seen { key, ttl_ms }, HostAnswer::Flag(answer)),
        };
        Self { question, answer }
    }
}
