//! Admitted events as their filters and their routes see them.

use super::Admitted;
use super::topics::{Announced, Topics};
use crate::derived::Passing;
use crate::generation::Active;
use crate::local::{Local, Route, TopicEntry};
use myelin_engine::EventView;
use std::rc::Rc;

/// Admitted events, with what their topic references mean.
#[derive(Clone, Copy)]
pub(super) struct Received<'a> {
    pub(super) topics: &'a Topics,
    pub(super) events: &'a [Admitted],
}

impl<'a> Received<'a> {
    /// The topic of an event. Admission lets no event without one into a batch.
    #[inline]
    pub(super) fn topic(&self, event: &Admitted) -> Option<&'a Rc<TopicEntry>> {
        match self.topics.get(event.span.head.topic_ref) {
            Announced::Topic(topic, _) => Some(topic),
            Announced::Nothing | Announced::Refused(..) => None,
        }
    }

    #[inline]
    pub(super) fn route(
        &self,
        local: &Local,
        active: &Active,
        event: &Admitted,
    ) -> Option<(Rc<TopicEntry>, Rc<Route>)> {
        let topic = self.topic(event)?;
        Some((topic.clone(), local.route(topic, active)))
    }

    /// An event as its filters see it.
    pub(super) fn view(&self, event: &Admitted, buffer: &'a [u8], identity: &'a str) -> EventView<'a> {
        let topic = self.topic(event).map_or("", |topic| &*topic.name.text);
        EventView { topic, attrs: event.span.attrs(buffer), payload: event.span.payload(buffer), identity }
    }

    /// Makes ready what filters have touched. Neighbours of one topic share one look-up.
    pub(super) fn enlist(&self, local: &Local, active: &Active, items: &mut Vec<Passing>) {
        for event in self.events {
            let Admitted { seq, span } = *event;
            let same = |last: &&Passing| last.span.is_some_and(|other| other.head.topic_ref == span.head.topic_ref);
            let known = items.last().filter(same).map(|last| (last.topic.clone(), last.route.clone()));
            let Some((topic, route)) = known.or_else(|| self.route(local, active, event)) else { continue };
            let (seq, span) = (Some(seq), Some(span));
            items.push(Passing { seq, span, topic, route, within: None, attrs: None, payload: None });
        }
    }
}

/// An empty list with the memory of `views`, for events of another batch.
pub(super) fn emptied<'a>(mut views: Vec<EventView<'_>>) -> Vec<EventView<'a>> {
    views.clear();
    // Nothing is left to be mapped: the library collects into the memory of the iterator that it was given.
    views.into_iter().map(|_| EventView::default()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_emptied_list_keeps_its_memory() {
        let text = String::from("a topic of this batch");
        let views = vec![EventView { topic: &text, ..EventView::default() }; 64];
        let (at, capacity) = (views.as_ptr() as usize, views.capacity());
        let next: Vec<EventView<'static>> = emptied(views);
        assert_eq!((next.len(), next.as_ptr() as usize, next.capacity()), (0, at, capacity));
    }
}
