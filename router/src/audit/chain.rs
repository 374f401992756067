//! Entries and how they hang together: pure, so that a file can be verified anywhere.
//!
//! A log is lines of JSON. Each carries the number that follows that of the line before, and the SHA-256 of that line's
//! bytes. Whoever changes, removes or moves a line has to write all later ones anew, and then the last one's hash is
//! another than the one that other routers have seen.

use myelin_catalog::Digest;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Bytes of a line: more than the longest texts of a [`Note`] take when every character is escaped.
pub const LINE_BYTES_MAX: usize = 16 * 1024;
/// Bytes of a text of a note; the rest is cut off.
const TEXT_BYTES_MAX: usize = 256;
/// Bytes of the detail of a note.
const DETAIL_BYTES_MAX: usize = 512;

/// The action of the entry that says up to where a log is about to be given up for its age.
const RETIRED: &str = "retired";

/// What an entry is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A request to the admin API, allowed or refused.
    Admin,
    /// A record of the catalog came to count at this router: a change, or a step of a rollout.
    Catalog,
    /// Clients were refused what they may not do.
    Denial,
    /// What another router's log was seen to end with.
    Witness,
    /// Something that should not be.
    Alarm,
    /// The router started or stopped.
    Router,
}

/// What happened: an entry before it has its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Note {
    /// What it is about.
    pub kind: Kind,
    /// Who did it: the identity of a certificate, `token`, `local`, or `-` for somebody who was not let in.
    pub actor: String,
    /// Where the request came from: address and port; of a record that this router wrote for another one, `via SITE/ROUTER`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// What was done: method and route, or the kind of a record.
    pub action: String,
    /// To what.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub subject: String,
    /// What became of it: `ok`, or the stable code of the refusal.
    pub result: String,
    /// The SHA-256 of what was sent, or of the record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub digest: Option<Digest>,
    /// The revision of the catalog's record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rev: Option<u64>,
    /// How many times: reads and refusals of the same are counted together for a minute.
    #[serde(default = "once")]
    pub count: u64,
    /// More, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

fn once() -> u64 {
    1
}

impl Note {
    /// A note of which nothing else is known.
    pub fn new(kind: Kind, actor: &str, action: impl Into<String>, result: impl Into<String>) -> Self {
        Self {
            kind,
            actor: actor.to_owned(),
            from: None,
            action: action.into(),
            subject: String::new(),
            result: result.into(),
            digest: None,
            rev: None,
            count: 1,
            detail: String::new(),
        }
    }

    /// Everything up to the entry of `upto` is about to be removed for its age.
    pub(super) fn retirement(upto: Head) -> Self {
        let mut note = Self::new(Kind::Router, "-", RETIRED, "ok");
        (note.subject, note.digest) = (format!("#{}", upto.seq), Some(upto.hash));
        note.detail = "entries up to this one are given up for their age".to_owned();
        note
    }

    /// Up to where the log is given up, where that is what this note says.
    pub(super) fn retired(&self) -> Option<Head> {
        let is_it = self.kind == Kind::Router && self.action == RETIRED;
        let seq = self.subject.strip_prefix('#').filter(|_| is_it)?.parse().ok()?;
        Some(Head { seq, hash: self.digest? })
    }

    /// Cuts off what is too long.
    fn bound(mut self) -> Self {
        for text in [&mut self.actor, &mut self.action, &mut self.subject, &mut self.result] {
            cut(text, TEXT_BYTES_MAX);
        }
        if let Some(from) = &mut self.from {
            cut(from, TEXT_BYTES_MAX);
        }
        cut(&mut self.detail, DETAIL_BYTES_MAX);
        self
    }
}

fn cut(text: &mut String, bytes_max: usize) {
    text.truncate(text.floor_char_boundary(bytes_max));
}

/// A line of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Entry {
    /// Its number, from 1.
    pub seq: u64,
    /// When, by this router's clock: for people.
    pub at_unix_ms: u64,
    /// What happened.
    #[serde(flatten)]
    pub note: Note,
    /// The SHA-256 of the line before; zeros for the first.
    #[schema(value_type = String)]
    pub prev: Digest,
}

/// Where a log ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Head {
    /// The number of its last line; 0 where there is none.
    pub seq: u64,
    /// The SHA-256 of that line; zeros where there is none.
    #[schema(value_type = String)]
    pub hash: Digest,
}

impl Default for Head {
    fn default() -> Self {
        Self { seq: 0, hash: Digest::ZERO }
    }
}

impl Head {
    /// The line that follows, without its end, and where the log ends then.
    pub fn next(&self, note: Note, at_unix_ms: u64) -> (Self, String) {
        let entry = Entry { seq: self.seq + 1, at_unix_ms, note: note.bound(), prev: self.hash };
        // A struct of texts and numbers is always JSON.
        let line = serde_json::to_string(&entry).unwrap_or_default();
        (Self { seq: entry.seq, hash: Digest::of(line.as_bytes()) }, line)
    }

    /// Takes the next line of a log.
    ///
    /// # Errors
    /// When it is not the one that follows.
    pub fn follow(&mut self, line: &str) -> Result<Entry, Fault> {
        let seq = self.seq + 1;
        let entry = read(line).map_err(|what| Fault { seq, what })?;
        let fault = |what: String| Err(Fault { seq, what });
        if entry.seq != seq {
            return fault(format!("the line has number {}: lines are missing or in another order", entry.seq));
        }
        if entry.prev != self.hash {
            return fault(format!("line {} is not the one that this line was written after", self.seq));
        }
        *self = Self { seq, hash: Digest::of(line.as_bytes()) };
        Ok(entry)
    }

    /// A log of which the beginning is gone: the head before `line`, which is its first.
    ///
    /// # Errors
    /// When it is no line of a log.
    pub fn before(line: &str) -> Result<Self, Fault> {
        let entry = read(line).map_err(|what| Fault { seq: 0, what })?;
        match entry.seq {
            // Nothing was before the very first.
            0 | 1 => Ok(Self::default()),
            seq => Ok(Self { seq: seq - 1, hash: entry.prev }),
        }
    }

    /// Whether a log that was given up to here may begin with the entry `first`, written after `prev`. It may begin
    /// earlier: the entry that says so is written before anything is removed.
    pub(super) fn lets_begin(&self, first: u64, prev: Digest) -> bool {
        self.seq >= first || (self.seq + 1 == first && self.hash == prev)
    }
}

/// Reads a line by itself.
pub(super) fn read(line: &str) -> Result<Entry, String> {
    if line.len() > LINE_BYTES_MAX {
        return Err(format!("the line has {} bytes; {LINE_BYTES_MAX} are the most", line.len()));
    }
    serde_json::from_str(line).map_err(|error| format!("the line is no entry: {error}"))
}

/// Where a log is not what was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error, ToSchema)]
#[error("entry {seq}: {what}")]
pub struct Fault {
    /// The number of the entry that should be there.
    pub seq: u64,
    /// What is wrong with it.
    pub what: String,
}

/// What was found out about a log from its first line that is kept to its last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Verified {
    /// The number of the first entry that is kept: older ones are given up for their age.
    pub first: u64,
    /// Where the log ends.
    pub head: Head,
    /// It does not begin with entry 1, and none of its entries says that those before were given up for their age.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_cut: bool,
    /// The first fault, where there is one; what follows was not looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<Fault>,
}

/// Verifies the lines of a log: that they hang together. That nothing followed they cannot show: see [`verify_noted`].
///
/// # Errors
/// When a line cannot be read.
pub fn verify<E>(lines: impl IntoIterator<Item = Result<String, E>>) -> Result<Verified, E> {
    verify_noted(lines, None).map(|(verified, _)| verified)
}

/// The same, and the number of the entry whose hash is `noted`, where there is one and the log has it: it was written up to
/// there when somebody noted that, and is so still.
///
/// # Errors
/// When a line cannot be read.
pub fn verify_noted<E>(
    lines: impl IntoIterator<Item = Result<String, E>>,
    noted: Option<Digest>,
) -> Result<(Verified, Option<u64>), E> {
    let mut verified = Verified::default();
    let mut proven = None;
    // What its first line was written after, and up to where it was given up the last time.
    let (mut begin, mut retired) = (Head::default(), None);
    for line in lines {
        let line = line?;
        if verified.first == 0 {
            begin = match Head::before(&line) {
                Ok(before) => before,
                Err(fault) => {
                    verified.fault = Some(fault);
                    break;
                }
            };
            verified.head = begin;
            // The hash of the last entry that was given up is in the first that is kept.
            proven = (begin.seq > 0 && noted == Some(begin.hash)).then_some(begin.seq);
        }
        match verified.head.follow(&line) {
            Ok(entry) => {
                verified.first = begin.seq + 1;
                retired = entry.note.retired().or(retired);
                proven = proven.or_else(|| (noted == Some(verified.head.hash)).then_some(verified.head.seq));
            }
            Err(fault) => {
                if verified.first == 0 {
                    verified.head = Head::default();
                }
                verified.fault = Some(fault);
                break;
            }
        }
    }
    let is_whole = verified.first <= 1;
    verified.is_cut = !is_whole && !retired.is_some_and(|upto| upto.lets_begin(verified.first, begin.hash));
    Ok((verified, proven))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::*;
    use std::convert::Infallible;

    fn log(entries: u64) -> Vec<String> {
        let mut head = Head::default();
        let lines = (0..entries).map(|number| {
            let (next, line) = head.next(Note::new(Kind::Admin, "token", format!("PUT /v1/x/{number}"), "ok"), number);
            head = next;
            line
        });
        lines.collect()
    }

    fn verified(lines: &[String]) -> Verified {
        verify(lines.iter().cloned().map(Ok::<_, Infallible>)).unwrap()
    }

    #[test]
    fn a_log_that_nobody_touched_verifies_also_without_its_beginning() {
        let lines = log(20);
        let whole = verified(&lines);
        assert_eq!((whole.first, whole.head.seq, whole.fault), (1, 20, None));
        assert!(!whole.is_cut);
        let tail = verified(&lines[7..]);
        assert_eq!((tail.first, tail.head, tail.fault, tail.is_cut), (8, whole.head, None, true));
        assert_eq!(verified(&[]), Verified::default());
    }

    #[test]
    fn a_log_whose_end_is_gone_is_found_out_by_the_head_that_was_noted() {
        let lines = log(20);
        let noted = verified(&lines[..15]).head.hash;
        let proven = |lines: &[String]| {
            let (found, proven) = verify_noted(lines.iter().cloned().map(Ok::<_, Infallible>), Some(noted)).unwrap();
            assert_eq!(found.fault, None, "it hangs together");
            proven
        };
        assert_eq!([20, 15, 14, 0].map(|end| proven(&lines[..end])), [Some(15), Some(15), None, None]);
        assert_eq!([14, 15, 16].map(|begin| proven(&lines[begin..])), [Some(15), Some(15), None]);
    }

    #[test]
    fn every_change_of_a_line_is_noticed() {
        let lines = log(6);
        let head = verified(&lines).head;
        for at in 0..lines.len() {
            let mut removed = lines.clone();
            removed.remove(at);
            let mut swapped = lines.clone();
            swapped.swap(at, (at + 1) % lines.len());
            let mut doubled = lines.clone();
            doubled.insert(at, lines[at].clone());
            let mut altered = lines.clone();
            altered[at] = altered[at].replace("token", "tokem");
            for (what, touched) in
                [("removed", removed), ("swapped", swapped), ("doubled", doubled), ("altered", altered)]
            {
                let found = verified(&touched);
                assert!(found.fault.is_some() || found.head != head || found.first != 1, "{what} at {at}: {found:?}");
            }
        }
    }

    #[test]
    fn a_log_without_its_beginning_says_why_or_is_cut() {
        let mut lines = log(10);
        let (upto, head) = (verified(&lines[..4]).head, verified(&lines).head);
        lines.push(head.next(Note::retirement(upto), 10).1);
        for (from, is_cut) in [(0, false), (3, false), (4, false), (5, true), (9, true)] {
            let found = verified(&lines[from..]);
            assert_eq!((found.is_cut, found.fault), (is_cut, None), "from {}", from + 1);
        }
        // Somebody puts another line in place of the first one that is kept.
        let (_, other) = Head { seq: 10, hash: Digest::of(b"other") }.next(Note::retirement(head), 10);
        assert!(verified(&[other]).is_cut);
        let begun = Head { seq: 0, hash: Digest::of(b"something") }.next(Note::new(Kind::Admin, "-", "x", "ok"), 0).1;
        assert_eq!(verified(&[begun]).fault.map(|fault| fault.seq), Some(1), "nothing is before the first");
    }

    #[test]
    fn texts_are_bounded_and_lines_are_one_line() {
        let mut note = Note::new(Kind::Admin, &"ä".repeat(1_000), "\n".repeat(1_000), "\u{1}".repeat(1_000));
        note.detail = "\u{7f}\"\\".repeat(1_000);
        note.subject = "\u{0}".repeat(1_000);
        let (_, line) = Head::default().next(note, 7);
        assert!(line.len() <= LINE_BYTES_MAX && !line.contains('\n'), "{} bytes", line.len());
        let entry = Head::default().follow(&line).unwrap();
        assert_eq!((entry.note.actor.len(), entry.note.count, entry.at_unix_ms), (TEXT_BYTES_MAX, 1, 7));
    }
}
