//! Recorded events judged by rules that are about to hold.

use super::{Blame, WorldError};
use crate::capture::{Captures, Event, Tallies, Tally, packed};
use crate::screen::{Screen, Screens};
use myelin_engine::EventView;

/// Topics and producers that are told when recorded events would be turned back: as many as a reason has room for.
const TOLD_MAX: usize = 5;

/// Whether all events that the captures of this router hold may still come in, as far as those of `screens` are about them
/// that are meant. A capture from which payloads were taken out says nothing of what came.
///
/// # Errors
/// `recorded-events`, with the topics and producers that most would be turned back of.
pub(super) fn check_recorded(
    captures: &Captures,
    screens: &Screens,
    is_meant: impl Fn(&Screen) -> bool,
) -> Result<(), WorldError> {
    let judge = |event: &Event| {
        let mut screens = screens.of(&event.topic).filter(|screen| is_meant(screen)).peekable();
        screens.peek()?;
        let attrs = packed(&event.attrs).ok()?;
        let Event { topic, payload, identity, .. } = event;
        let view = EventView { topic, attrs: &attrs, payload: &payload.0, identity };
        Some(screens.try_for_each(|screen| screen.judge(&view)).map_err(|violation| violation.detail()))
    };
    let mut tallies = Tallies::default();
    captures
        .recordings()
        .filter(|recording| !recording.redaction.hides_payload())
        .for_each(|recording| tallies.add(&recording, judge));
    let (events, turned_back) = tallies.total();
    if turned_back == 0 {
        return Ok(());
    }
    let bad = tallies.turned_back();
    let mut message =
        format!("{turned_back} of {events} recorded events would be turned back (`--accept-failures` lets it go on)");
    for (topic, producer, Tally { events, turned_back, reason }) in bad.iter().take(TOLD_MAX) {
        message += &format!("; {topic} from {producer}: {turned_back} of {events}, {reason}");
    }
    if bad.len() > TOLD_MAX {
        message += &format!("; and {} more topics or producers", bad.len() - TOLD_MAX);
    }
    Err(WorldError::new(Blame::Conflict, "recorded-events", message))
}
