//! Recorded events judged by rules that are about to hold: a look at payloads, whoever asks. So each is written down, what is
//! said of single events is for those who may see them, and nobody else asks often: who chooses the rules and hears how many
//! events they turn back can guess an event piece by piece.

use super::changes::check_revision;
use super::{Actor, Blame, World, WorldError, unix_ms};
use crate::audit::{Kind, Note};
use crate::capture::{Captures, Event, Tallies, Tally, packed};
use crate::screen::{Screen, Screens};
use myelin_catalog::{Op, Schemas, TopicRule};
use myelin_engine::EventView;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Topics and producers that are told when recorded events would be turned back: as many as a reason has room for.
const TOLD_MAX: usize = 5;
/// Looks that somebody without the role `payloads` has in hand: the rules of a folder that is applied, and some more.
const LOOKS_MAX: u32 = 32;
/// After that long they have one more. Each tells a bit or two: a number of nine digits takes an hour, and an alarmed reader
/// of the audit log less.
const LOOK_EVERY: Duration = Duration::from_secs(120);
/// Callers whose looks are counted; of more the one that looked the longest ago is forgotten.
const LOOKERS_MAX: usize = 1_024;
/// What such a look is called in the audit log.
const ACTION: &str = "judge recorded events";

/// Who has recorded events judged, and by what.
#[derive(Clone, Debug)]
pub struct Look {
    /// Who.
    pub actor: Actor,
    /// Whether they may see payloads.
    pub sees_payloads: bool,
    /// The rule or the subject.
    pub subject: String,
}

/// What came of it.
#[derive(Debug, Default)]
pub(super) struct Judged {
    /// Events that were judged.
    pub(super) events: u64,
    /// Those of them that would be turned back.
    pub(super) turned_back: u64,
    /// What is to be said of those, with the first reasons and without; nothing where none was judged.
    told: Option<[String; 2]>,
}

impl Judged {
    /// Whether all may still come in.
    ///
    /// # Errors
    /// `recorded-events`, with the topics and producers that most would be turned back of; and why, for who sees payloads.
    fn verdict(&self, sees_payloads: bool) -> Result<(), WorldError> {
        match self.turned_back {
            0 => Ok(()),
            _ => {
                let told = self.told.as_ref().map(|told| told[usize::from(!sees_payloads)].clone()).unwrap_or_default();
                Err(WorldError::new(Blame::Conflict, "recorded-events", told))
            }
        }
    }

    /// The entry of the audit log; none where no event was looked at.
    pub(super) fn note(&self, actor: &str, subject: &str, result: &str) -> Option<Note> {
        let mut note = Note::new(Kind::Admin, actor, ACTION, result);
        note.subject = subject.to_owned();
        note.detail = match self.told.is_some() {
            true => format!("a look at payloads: {} of {} events turned back", self.turned_back, self.events),
            false => format!("a look at payloads: none of {} events judged", self.events),
        };
        (self.events > 0).then_some(note)
    }
}

/// How often those who may not see payloads have looked. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Looks(Arc<Mutex<HashMap<Actor, (u32, Instant)>>>);

impl Looks {
    /// Judges, for whoever may look, all events that the captures of this router hold, as far as those of `screens` are about
    /// them that are meant. A capture from which payloads were taken out says nothing of what came. Who may not look any more
    /// is told so before anything is judged: how long that takes tells what is in there.
    ///
    /// The second is an error - `recorded-events`, `too-many-looks` - where the events may not come in, or nobody shall know.
    pub(super) fn judge(
        &self,
        (look, now): (&Look, Instant),
        captures: &Captures,
        (screens, is_meant): (&Screens, impl Fn(&Screen) -> bool),
    ) -> (Judged, Result<(), WorldError>) {
        if !look.sees_payloads {
            let (events, _) = tally(captures, (screens, &is_meant), |_, _| Ok(())).total();
            if events > 0
                && let Err(refused) = self.take(&look.actor, now)
            {
                return (Judged { events, ..Judged::default() }, Err(refused));
            }
        }
        let judge =
            |screen: &Screen, event: &EventView<'_>| screen.judge(event).map_err(|violation| violation.detail());
        let tallies = tally(captures, (screens, &is_meant), judge);
        let (events, turned_back) = tallies.total();
        let told = Some([true, false].map(|with_reasons| told(&tallies, with_reasons)));
        let judged = Judged { events, turned_back, told };
        let verdict = judged.verdict(look.sees_payloads);
        (judged, verdict)
    }

    /// Takes one look, where there is one left.
    ///
    /// # Errors
    /// `too-many-looks`.
    fn take(&self, actor: &Actor, now: Instant) -> Result<(), WorldError> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= LOOKERS_MAX
            && !known.contains_key(actor)
            && let Some(oldest) = known.iter().min_by_key(|(_, (_, at))| *at).map(|(actor, _)| actor.clone())
        {
            known.remove(&oldest);
        }
        let (left, since) = known.entry(actor.clone()).or_insert((LOOKS_MAX, now));
        let periods = now.saturating_duration_since(*since).as_secs() / LOOK_EVERY.as_secs();
        let more = u32::try_from(periods).unwrap_or(LOOKS_MAX).min(LOOKS_MAX);
        *left = left.saturating_add(more).min(LOOKS_MAX);
        *since = if *left == LOOKS_MAX { now } else { *since + LOOK_EVERY * more };
        match left.checked_sub(1) {
            Some(rest) => {
                *left = rest;
                Ok(())
            }
            None => {
                let wait_s = LOOK_EVERY.saturating_sub(now.saturating_duration_since(*since)).as_secs() + 1;
                let message = format!(
                    "{actor} has had recorded events judged {LOOKS_MAX} times, which is a look at payloads: the next one is in \
                     {wait_s} s; ask somebody with the role payloads, or leave the recorded events out (`--accept-failures`)"
                );
                Err(WorldError::new(Blame::Request, "too-many-looks", message))
            }
        }
    }
}

impl World {
    /// Whether a change could be made of which nothing else is to be asked then: of what is refused anyway recorded events
    /// say nothing.
    ///
    /// # Errors
    /// `conflict` where the catalog is elsewhere by now; why the change cannot be made.
    pub async fn check_first(&self, op: &Op, if_match: Option<u64>, actor: &Actor) -> Result<(), WorldError> {
        if if_match.is_some() {
            self.catch_up().await?;
        }
        let catalog = self.view().catalog.clone();
        check_revision(catalog.head().rev, if_match)?;
        catalog.preview(op.clone(), actor, unix_ms())?;
        Ok(())
    }

    /// Whether what this router has recorded may come in by these rules.
    ///
    /// # Errors
    /// `recorded-events`; `too-many-looks`.
    pub async fn check_recorded(&self, look: &Look, rules: Vec<TopicRule>, schemas: Schemas) -> Result<(), WorldError> {
        let shared = self.account.shared.clone();
        if shared.captures.is_empty() {
            return Ok(());
        }
        let (looks, asked) = (self.looks.clone(), look.clone());
        let judge = move || {
            let screens = Screens::after(&shared.screens.load(), rules.iter(), &schemas);
            Ok(looks.judge((&asked, Instant::now()), &shared.captures, (&screens, |_| true)))
        };
        let (judged, verdict) = self.desk.judge(judge).await?;
        let result = verdict.as_ref().err().map_or("ok", |error| &*error.code);
        if let Some(note) = judged.note(&look.actor, &look.subject, result) {
            self.account.audit.write(note).await;
        }
        verdict
    }
}

/// Goes through what the captures hold.
fn tally(
    captures: &Captures,
    (screens, is_meant): (&Screens, &impl Fn(&Screen) -> bool),
    judge: impl Fn(&Screen, &EventView<'_>) -> Result<(), String>,
) -> Tallies {
    let of_event = |event: &Event| {
        let mut screens = screens.of(&event.topic).filter(|screen| is_meant(screen)).peekable();
        screens.peek()?;
        let attrs = packed(&event.attrs).ok()?;
        let Event { topic, payload, identity, .. } = event;
        let view = EventView { topic, attrs: &attrs, payload: &payload.0, identity };
        Some(screens.try_for_each(|screen| judge(screen, &view)))
    };
    let mut tallies = Tallies::default();
    captures
        .recordings()
        .filter(|recording| !recording.redaction.hides_payload())
        .for_each(|recording| tallies.add(&recording, of_event));
    tallies
}

fn told(tallies: &Tallies, with_reasons: bool) -> String {
    let ((events, turned_back), bad) = (tallies.total(), tallies.turned_back());
    let mut message =
        format!("{turned_back} of {events} recorded events would be turned back (`--accept-failures` lets it go on)");
    for (topic, producer, Tally { events, turned_back, reason }) in bad.iter().take(TOLD_MAX) {
        message += &format!("; {topic} from {producer}: {turned_back} of {events}");
        if with_reasons {
            message += &format!(", {reason}");
        }
    }
    if bad.len() > TOLD_MAX {
        message += &format!("; and {} more topics or producers", bad.len() - TOLD_MAX);
    }
    if !with_reasons {
        message += "; why is told to those with the role payloads, by `myelin schema check --against`";
    }
    message
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::*;

    #[test]
    fn looks_are_had_again_one_by_one() {
        let (looks, ann, bob, now) = (Looks::default(), Actor::from("ann"), Actor::from("bob"), Instant::now());
        assert!((0..LOOKS_MAX).all(|_| looks.take(&ann, now).is_ok()));
        let refused = looks.take(&ann, now).unwrap_err();
        assert!(refused.code == "too-many-looks" && refused.message.contains("in 121 s"), "{refused}");
        assert!(looks.take(&bob, now).is_ok(), "each has their own");
        let later = now + LOOK_EVERY * 2 + LOOK_EVERY / 2;
        assert!(looks.take(&ann, later).is_ok() && looks.take(&ann, later).is_ok());
        assert!(looks.take(&ann, later).is_err() && looks.take(&ann, later + LOOK_EVERY / 2).is_ok());
        // Never more than at the beginning.
        let much_later = later + LOOK_EVERY * 10_000;
        assert!((0..LOOKS_MAX).all(|_| looks.take(&ann, much_later).is_ok()));
        assert!(looks.take(&ann, much_later).is_err());
    }

    #[test]
    fn who_looks_is_counted_for_so_many() {
        let (looks, now) = (Looks::default(), Instant::now());
        for number in 0..2 * LOOKERS_MAX {
            looks.take(&number.to_string().into(), now + Duration::from_millis(number as u64)).unwrap();
        }
        assert_eq!(looks.0.lock().unwrap().len(), LOOKERS_MAX);
    }
}
